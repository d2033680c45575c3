//! Copying images to the mirror: everything that a point in the retention window needs, behind
//! everything else that a controller does. No deployment waits for it, and no failure of it counts
//! for one.

mod copy;
mod queue;

pub(crate) use copy::CopyError;

use std::sync::Arc;
use std::time::Instant;

use stele_model::release::Image;
use tokio::task::JoinSet;

use crate::handle::Handle;
use crate::limits::{HOUSEKEEPING_INTERVAL, MIRROR_COPY_DEADLINE};
use queue::Queue;

/// Keeps the mirror complete while this controller leads.
pub(crate) async fn run(handle: Handle) {
    let Some(mirror) = handle.0.retention.mirror().map(str::to_owned) else {
        return std::future::pending().await;
    };
    let mut watch = handle.follow();
    let mut queue = Queue::default();
    let mut wanted = None;
    let mut copying: JoinSet<(Image, Result<bool, CopyError>)> = JoinSet::new();
    loop {
        let published = watch.borrow_and_update().clone();
        if !published.leads {
            // Whoever leads next looks for itself what the mirror has.
            (queue, wanted, copying) = (Queue::default(), None, JoinSet::new());
            if watch.changed().await.is_err() {
                return;
            }
            continue;
        }
        let retained = handle.retained(&published.state).await;
        if let Some(retained) =
            retained.filter(|new| wanted.as_ref().is_none_or(|old| !Arc::ptr_eq(old, new)))
        {
            // What was deployed from the mirror is there.
            let mut images = retained.images();
            images.retain(|image| !image.repository.starts_with(&format!("{mirror}/")));
            queue.want(images);
            wanted = Some(retained);
        }
        while let Some(image) = queue.next(Instant::now()) {
            let (handle, mirror) = (handle.clone(), mirror.clone());
            copying.spawn(async move {
                let copy = image.mirrored(&mirror);
                let copied = handle.0.registry.copy(&image, &copy);
                let outcome = match tokio::time::timeout(MIRROR_COPY_DEADLINE, copied).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(CopyError::TimedOut { seconds: MIRROR_COPY_DEADLINE.as_secs() }),
                };
                (image, outcome)
            });
        }
        tokio::select! {
            Some(Ok((image, outcome))) = copying.join_next(), if !copying.is_empty() => {
                match &outcome {
                    Ok(true) => tracing::info!(%image, "the mirror has a copy now"),
                    Ok(false) => tracing::debug!(%image, "the mirror has it"),
                    Err(error) => tracing::warn!(%image, %error, "not copied to the mirror; it is tried again"),
                }
                queue.ended(&image, outcome.is_ok(), Instant::now());
            }
            // What changes in quick succession is looked at together.
            () = tokio::time::sleep(HOUSEKEEPING_INTERVAL) => {}
        }
    }
}
