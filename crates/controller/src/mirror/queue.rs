//! Which image is copied next. Pure: the time is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use stele_model::release::Image;

use crate::limits::{
    MIRROR_COPIES_MAX, MIRROR_RECHECK_INTERVAL, MIRROR_RETRY_INTERVAL_FIRST, MIRROR_RETRY_INTERVAL_MAX,
};

/// What is known of the images that belong into the mirror.
#[derive(Debug, Default)]
pub(super) struct Queue {
    images: BTreeMap<Image, Progress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing was tried yet.
    New,
    /// Being copied, after so many failures in a row.
    UnderWay { failures: u32 },
    /// To be looked at again then.
    Due { at: Instant, failures: u32 },
}

impl Queue {
    /// Takes in everything that belongs into the mirror. What no longer does is forgotten: the
    /// mirror's own rules decide when it goes.
    pub(super) fn want(&mut self, images: BTreeSet<&Image>) {
        self.images.retain(|image, progress| {
            images.contains(image) || matches!(progress, Progress::UnderWay { .. })
        });
        for image in images {
            if !self.images.contains_key(image) {
                self.images.insert(image.clone(), Progress::New);
            }
        }
    }

    /// The next image to copy: a new one before one that failed or is only looked at again.
    pub(super) fn next(&mut self, now: Instant) -> Option<Image> {
        let under_way = self.images.values().filter(|it| matches!(it, Progress::UnderWay { .. })).count();
        if under_way >= MIRROR_COPIES_MAX {
            return None;
        }
        let due = self.images.iter_mut().filter_map(|(image, progress)| match *progress {
            Progress::New => Some((None, 0, image, progress)),
            Progress::Due { at, failures } if at <= now => Some((Some(at), failures, image, progress)),
            _ => None,
        });
        let (_, failures, image, progress) = due.min_by_key(|(at, ..)| *at)?;
        *progress = Progress::UnderWay { failures };
        Some(image.clone())
    }

    /// Takes in how copying one ended.
    pub(super) fn ended(&mut self, image: &Image, is_there: bool, now: Instant) {
        let Some(progress) = self.images.get_mut(image) else { return };
        let Progress::UnderWay { failures } = *progress else { return };
        *progress = if is_there {
            // A mirror may lose what it had.
            Progress::Due { at: now + MIRROR_RECHECK_INTERVAL, failures: 0 }
        } else {
            Progress::Due { at: now + pause(failures), failures: failures.saturating_add(1) }
        };
    }
}

fn pause(failures: u32) -> Duration {
    MIRROR_RETRY_INTERVAL_FIRST.saturating_mul(1 << failures.min(16)).min(MIRROR_RETRY_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_model::Digest;

    fn image(at: u8) -> Image {
        Image { repository: "registry.example/shop".to_owned(), digest: Digest::of(&[&[at]]) }
    }

    fn want(queue: &mut Queue, images: &[Image]) {
        queue.want(images.iter().collect());
    }

    #[test]
    fn few_are_copied_at_once_and_each_is_once() {
        let images: Vec<_> = (0..9).map(image).collect();
        let (mut queue, now) = (Queue::default(), Instant::now());
        want(&mut queue, &images);
        let mut done = BTreeSet::new();
        loop {
            let batch: Vec<_> = std::iter::from_fn(|| queue.next(now)).collect();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= MIRROR_COPIES_MAX);
            want(&mut queue, &images);
            for image in batch {
                queue.ended(&image, true, now);
                assert!(done.insert(image), "copied twice");
            }
        }
        assert_eq!(done.len(), images.len());
        assert!(queue.next(now + MIRROR_RECHECK_INTERVAL).is_some(), "looked at again");
    }

    #[test]
    fn what_fails_is_tried_ever_more_rarely_and_stops_nothing_else() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        want(&mut queue, &[image(1)]);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let due = queue.next(now);
            assert_eq!(due, Some(image(1)));
            queue.ended(&image(1), false, now);
            let Some(Progress::Due { at, .. }) = queue.images.get(&image(1)).copied() else { panic!("due") };
            let pause = at - now;
            assert!(pause >= last && pause <= MIRROR_RETRY_INTERVAL_MAX);
            assert_eq!(queue.next(now), None, "not at once");
            (last, now) = (pause, at);
        }
        want(&mut queue, &[image(1), image(2)]);
        assert_eq!(queue.next(now), Some(image(2)), "a new one goes first");
        want(&mut queue, &[image(2)]);
        assert_eq!(queue.next(now), None, "nobody needs the other one any more");
    }
}
