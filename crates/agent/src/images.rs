//! Removing images that nobody needs any more. What may go is decided in `stele-reconcile`;
//! this remembers what the agent pulled, keeps time, and carries it out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stele_model::release::Image;
use stele_model::wire::{AssignedInstance, ImagePolicy};
use stele_reconcile::PulledImages;
use stele_runtime::{PullRecord, Runtime};
use tokio::time::Instant;

use crate::data_dir::DataDir;
use crate::limits::{IMAGE_REMOVAL_TIMEOUT, PRUNE_INTERVAL, PRUNE_INTERVAL_MIN, UNNEEDED_IMAGE_GRACE};

/// What the agent pulled: see [`PulledImages`].
const PULLED: &str = "images.json";

/// Whether and when images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruning {
    /// Never.
    Off,
    /// Once they were not needed for so long.
    After(Duration),
}

impl Default for Pruning {
    fn default() -> Self {
        Self::After(UNNEEDED_IMAGE_GRACE)
    }
}

impl std::str::FromStr for Pruning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        // Spans are written as they are in points of time.
        match format!("{text} ago").parse() {
            Ok(stele_model::point::Point::Ago(micros)) => Ok(Self::After(Duration::from_micros(micros))),
            _ => Err(format!("{text:?} is neither a span such as 24h or 7d nor \"off\"")),
        }
    }
}

/// What was pulled, shared with whoever pulls.
struct Remembered {
    data: DataDir,
    pulled: Mutex<PulledImages>,
}

impl Remembered {
    fn pulled(&self) -> MutexGuard<'_, PulledImages> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, pulled: &PulledImages) {
        if let Err(error) = self.data.write_json(PULLED, pulled) {
            // An image that is forgotten stays, which only costs room.
            tracing::warn!(%error, "what was pulled cannot be remembered");
        }
    }
}

/// Removes images when they may go.
pub(crate) struct Pruner {
    remembered: Arc<Remembered>,
    pruning: Pruning,
    /// When it looked last, and whether something is left to be removed.
    looked: Option<Instant>,
    is_busy: bool,
}

impl Pruner {
    /// One that knows what an earlier agent with this data directory pulled.
    pub(crate) fn new(data: DataDir, pruning: Pruning) -> Self {
        let pulled = data.read_json(PULLED).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was pulled is forgotten; those images are never removed");
            None
        });
        let pulled = Mutex::new(pulled.unwrap_or_default());
        let remembered = Arc::new(Remembered { data, pulled });
        Self { remembered, pruning, looked: None, is_busy: false }
    }

    /// Remembers what is pulled, before it is.
    pub(crate) fn record(&self) -> PullRecord {
        let remembered = Arc::clone(&self.remembered);
        Arc::new(move |image: &Image| {
            let mut pulled = remembered.pulled();
            if pulled.pulls(image) {
                remembered.write(&pulled);
            }
        })
    }

    fn interval(grace: Duration) -> Duration {
        (grace / 4).clamp(PRUNE_INTERVAL_MIN, PRUNE_INTERVAL)
    }

    /// How long until it wants to look again; `None` when it never does.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        let Pruning::After(grace) = self.pruning else { return None };
        let pause = if self.is_busy { PRUNE_INTERVAL_MIN } else { Self::interval(grace) };
        Some(self.looked.map_or(pause, |looked| pause.saturating_sub(looked.elapsed())))
    }

    /// Looks, and removes one image at most, if it is time. Nothing may be pulled or made meanwhile.
    pub(crate) async fn turn(
        &mut self,
        runtime: &dyn Runtime,
        assigned: &[AssignedInstance],
        policy: Option<&ImagePolicy>,
    ) {
        let Pruning::After(grace) = self.pruning else { return };
        // The first look is one interval after the start: until then nothing was observed.
        let looked = *self.looked.get_or_insert_with(Instant::now);
        if self.due_in().is_some_and(|due| !due.is_zero()) {
            return;
        }
        // Whatever happened while nobody looked does not count.
        let elapsed = looked.elapsed().min(Self::interval(grace) * 2);
        self.looked = Some(Instant::now());
        let here = match tokio::time::timeout(IMAGE_REMOVAL_TIMEOUT, runtime.images()).await {
            Ok(Ok(here)) => here,
            Ok(Err(error)) => return tracing::debug!(%error, "images cannot be seen"),
            Err(_) => return tracing::debug!("images cannot be seen in time"),
        };
        let (before, removable) = {
            let mut pulled = self.remembered.pulled();
            let before = pulled.clone();
            let removable = pulled.look(&here, assigned, policy, millis(elapsed), millis(grace));
            (before, removable)
        };
        self.is_busy = removable.len() > 1;
        if let Some(image) = removable.first() {
            let removed = tokio::time::timeout(IMAGE_REMOVAL_TIMEOUT, runtime.remove_image(image)).await;
            let removed = removed
                .unwrap_or_else(|_| Err(stele_runtime::RuntimeError::Engine("no answer in time".to_owned())));
            match &removed {
                Ok(()) => tracing::info!(%image, "removed an image that nothing here needs any more"),
                Err(error) => {
                    tracing::warn!(%image, %error, "an image that nothing here needs stays for now");
                }
            }
            self.remembered.pulled().removed(image, removed.is_ok());
        }
        let pulled = self.remembered.pulled();
        if *pulled != before {
            self.remembered.write(&pulled);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_grace_is_read() {
        assert_eq!("off".parse(), Ok(Pruning::Off));
        assert_eq!("7d".parse(), Ok(Pruning::After(Duration::from_hours(7 * 24))));
        assert_eq!("0s".parse(), Ok(Pruning::After(Duration::ZERO)));
        for bad in ["", "never", "24", "h"] {
            assert!(bad.parse::<Pruning>().is_err(), "{bad:?}");
        }
    }
}
