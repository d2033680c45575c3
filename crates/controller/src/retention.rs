//! What nodes are told about images: which ones a point in the retention window could need, and
//! where the mirror is. The rules are in `stele_planner::retention`; this looks things up in the log
//! for them, and keeps the answer until it can be another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use stele_model::wire::ImagePolicy;
use stele_model::{NodeName, Seq, State, Time};
use stele_planner::retention::{Pinned, Retained, pinned, pins_changed};

use crate::config::Config;
use crate::handle::Handle;
use crate::limits::{IMAGE_RETENTION_DAYS_MAX, PIN_MOMENTS_MAX, RETENTION_STEP};
use crate::past::{Past, PastError};

/// What is configured, and what was found out.
pub(crate) struct Retention {
    days: u32,
    mirror: Option<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The State the answer is of, and when its window began.
    of: Option<(State, Time)>,
    /// The answer.
    retained: Option<Arc<Retained>>,
    /// Where the window begins, in the log.
    since: Option<(Time, Seq)>,
    /// What was pinned right after the seqs that count.
    pins: BTreeMap<Seq, Pinned>,
}

impl Known {
    fn answer(&self, state: &State, begins: Time) -> Option<Arc<Retained>> {
        let (of, begun) = self.of.as_ref()?;
        if *begun == begins && is_same(of, state) { self.retained.clone() } else { None }
    }
}

impl Retention {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let days = config.image_retention_days;
        anyhow::ensure!(
            (1..=IMAGE_RETENTION_DAYS_MAX).contains(&days),
            "image_retention_days is {days}; it is 1 to {IMAGE_RETENTION_DAYS_MAX}"
        );
        let mirror = config.mirror.as_deref().map(|text| text.trim_end_matches('/').to_owned());
        if let Some(mirror) = &mirror {
            let reference = format!("{mirror}/image");
            let parsed: Result<oci_client::Reference, _> = reference.parse();
            let names_host = mirror.split('/').next().is_some_and(|host| host.contains(['.', ':']));
            anyhow::ensure!(
                parsed.is_ok() && names_host,
                "mirror is {mirror:?}; write a registry's host and a folder, such as registry.example.com/mirror"
            );
        }
        Ok(Self { days, mirror, known: Mutex::default() })
    }

    pub(crate) fn mirror(&self) -> Option<&str> {
        self.mirror.as_deref()
    }

    /// Where the window begins: moved on in steps, so that controllers agree and lists stay as they are.
    fn begins(&self, now: Time) -> Time {
        let step = RETENTION_STEP.as_micros() as u64;
        let window = u64::from(self.days) * 24 * 3600 * 1_000_000;
        Time(now.0.saturating_sub(window) / step * step)
    }

    /// The answer found earlier, if it still is one and nobody is looking for another now.
    fn kept(&self, state: &State, now: Time) -> Option<Arc<Retained>> {
        self.known.try_lock().ok()?.answer(state, self.begins(now.max(state.time)))
    }

    /// What the window retains; nothing when the log does not say. Reads the disk.
    fn retained(&self, past: &Past, state: &State, now: Time) -> Option<Arc<Retained>> {
        let begins = self.begins(now.max(state.time));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.answer(state, begins) {
            return Some(answer);
        }
        match find(&mut known, past, state, begins) {
            Ok(retained) => {
                let retained = Arc::new(retained);
                known.of = Some((state.clone(), begins));
                known.retained = Some(Arc::clone(&retained));
                Some(retained)
            }
            Err(error) => {
                // Seen while history is still fetched; nothing is removed anywhere on this word.
                tracing::debug!(%error, "which images are needed is not known here");
                known.of = None;
                None
            }
        }
    }
}

/// Whether two States retain the same: comparing pointers, as they share what did not change.
fn is_same(left: &State, right: &State) -> bool {
    left.history.changes.ptr_eq(&right.history.changes)
        && left.history.deployments.ptr_eq(&right.history.deployments)
        && left.target.pins.ptr_eq(&right.target.pins)
}

/// Why nobody can say here what is retained.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Past(#[from] PastError),
    #[error("{0} rollbacks in the window are more than the {PIN_MOMENTS_MAX} that are looked at")]
    Moments(usize),
}

fn find(known: &mut Known, past: &Past, state: &State, begins: Time) -> Result<Retained, Unknown> {
    let since = match known.since {
        Some((time, seq)) if time == begins => seq,
        _ => past.whole(past.seq_at(begins, state.seq)?)?,
    };
    known.since = Some((begins, since));
    let changed = pins_changed(state, since);
    if changed.len() > PIN_MOMENTS_MAX {
        return Err(Unknown::Moments(changed.len()));
    }
    // A rollback of a fleet is a deployment of each of its apps, and one moment: each costs a State of the past.
    let mut moments = BTreeSet::from([since]);
    for seq in changed {
        moments.insert(past.header(seq)?.decision.last());
    }
    let mut pins = BTreeMap::new();
    for seq in moments {
        let then = match known.pins.remove(&seq) {
            Some(then) => then,
            None if seq == state.seq => pinned(state),
            None => pinned(&past.state_at(seq, state)?),
        };
        pins.insert(seq, then);
    }
    let all = pins.values().flatten().cloned().collect();
    known.pins = pins;
    Ok(Retained::new(state, since, &all))
}

impl Handle {
    /// What a State's window retains; nothing when this controller's log does not say.
    pub(crate) async fn retained(&self, state: &State) -> Option<Arc<Retained>> {
        if let Some(kept) = self.0.retention.kept(state, self.now()) {
            return Some(kept);
        }
        let (inner, state, now) = (Arc::clone(&self.0), state.clone(), self.now());
        let work = move || inner.retention.retained(&inner.past, &state, now);
        // It may read the disk.
        tokio::task::spawn_blocking(work).await.ok().flatten()
    }

    /// What a node is told about images.
    pub(crate) async fn image_policy(&self, state: &State, node: &NodeName) -> ImagePolicy {
        let keep = self.retained(state).await.and_then(|retained| match retained.on(state, node) {
            Ok(keep) => Some(keep),
            Err(why) => {
                tracing::warn!(%node, %why, "the node is told to remove no image");
                None
            }
        });
        ImagePolicy { seq: state.seq, keep, mirror: self.0.retention.mirror().map(str::to_owned) }
    }
}
