//! Saying that the disk gets full while there is time: a controller whose disk is full ends.

use std::time::Instant;

use stele_store::Space;

use crate::handle::Handle;
use crate::limits::{
    DISK_FREE_WARNING_BYTES, DISK_FREE_WARNING_PERCENT, DISK_INTERVAL, DISK_NOTICE_INTERVAL,
};

/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// Whether there is so little room that somebody should see to it.
pub(crate) fn is_scarce(space: Space) -> bool {
    let Space { free_bytes, total_bytes } = space;
    free_bytes < DISK_FREE_WARNING_BYTES && free_bytes < total_bytes / 100 * DISK_FREE_WARNING_PERCENT
}

/// `3.2 of 40.0 GiB are free`.
pub(crate) fn told(space: Space) -> String {
    let gib = |bytes: u64| bytes as f64 / GIB;
    format!("{:.1} of {:.1} GiB are free", gib(space.free_bytes), gib(space.total_bytes))
}

/// When it was said last that room is scarce, while it is.
#[derive(Default)]
struct Notice(Option<Instant>);

impl Notice {
    /// Whether to say it now.
    fn is_due(&mut self, is_scarce: bool, now: Instant) -> bool {
        if !is_scarce {
            self.0 = None;
            return false;
        }
        let is_due = self.0.is_none_or(|said| now.duration_since(said) >= DISK_NOTICE_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Looks at the disk for ever.
pub(crate) async fn run(handle: Handle) {
    let mut notice = Notice::default();
    loop {
        let reader = handle.reader().clone();
        // A file system that hangs must keep no thread from other tasks.
        match tokio::task::spawn_blocking(move || reader.space()).await {
            Ok(Ok(space)) if notice.is_due(is_scarce(space), Instant::now()) => tracing::warn!(
                folder = %handle.reader().path().display(),
                "the disk gets full: {}. This controller ends when it is: grow the volume, and delete nothing in that \
                 folder",
                told(space)
            ),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "how much room the disk has is not known"),
            Err(error) => tracing::warn!(%error, "how much room the disk has is not known"),
        }
        tokio::time::sleep(DISK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_counts_when_it_is_a_small_part_too() {
        let scarce = |free_bytes, total_bytes| is_scarce(Space { free_bytes, total_bytes });
        let few = DISK_FREE_WARNING_BYTES - 1;
        assert!(scarce(few, 11 * DISK_FREE_WARNING_BYTES));
        assert!(!scarce(few, 10 * (few - 1000)), "a small disk that is mostly empty");
        assert!(!scarce(DISK_FREE_WARNING_BYTES, 1000 * DISK_FREE_WARNING_BYTES), "a large disk");
        assert!(scarce(0, 1 << 30));
        let space = Space { free_bytes: 3 << 30, total_bytes: 40 << 30 };
        assert_eq!(told(space), "3.0 of 40.0 GiB are free");
    }

    #[test]
    fn it_is_said_at_once_and_then_now_and_then() {
        let (mut notice, begin) = (Notice::default(), Instant::now());
        assert!(!notice.is_due(false, begin));
        assert!(notice.is_due(true, begin));
        assert!(!notice.is_due(true, begin + DISK_INTERVAL));
        assert!(notice.is_due(true, begin + DISK_NOTICE_INTERVAL));
        assert!(!notice.is_due(false, begin + DISK_NOTICE_INTERVAL));
        assert!(notice.is_due(true, begin + DISK_NOTICE_INTERVAL + DISK_INTERVAL), "it was well meanwhile");
    }
}
