//! Making milestones as the log grows, beside everything else: the replica's thread never
//! waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stele_model::{Delta, Seq, State};

use crate::handle::{Handle, Inner};
use crate::limits::MILESTONE_INTERVAL_RECORDS;
use crate::milestones::{anchors, base_of, bases_of, is_anchor};
use crate::past::{Past, PastError};

/// Between two attempts after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Where the making of milestones stands.
struct Archive {
    /// State at the last milestone.
    frontier: State,
    /// States that further milestones are kept as differences from.
    bases: BTreeMap<Seq, State>,
    /// The last State handed over to be kept in memory.
    anchor: State,
}

impl Archive {
    /// Goes on where it ended.
    fn open(past: &Past) -> Result<Self, PastError> {
        past.milestones().prepare()?;
        let frontier = past.milestone(past.milestones().through()?)?;
        let mut bases = BTreeMap::new();
        for base in bases_of(frontier.seq + MILESTONE_INTERVAL_RECORDS) {
            bases.insert(base, past.milestone(base)?);
        }
        let anchor = past.milestone(anchors(frontier.seq).next_back().unwrap_or_default())?;
        Ok(Self { frontier, bases, anchor })
    }

    /// The next milestone.
    fn next(&self) -> Seq {
        self.frontier.seq + MILESTONE_INTERVAL_RECORDS
    }

    /// Makes the next milestone, whose records are all here.
    fn step(&mut self, past: &Past) -> Result<(), PastError> {
        let next = self.next();
        let mut state = self.frontier.clone();
        past.fold_to(&mut state, next)?;
        let delta = match self.bases.get(&base_of(next)) {
            Some(before) => Delta::between(before, &state),
            None => Delta::between(&State::default(), &state),
        };
        past.milestones().keep(&delta)?;
        if is_anchor(next) {
            // Whoever asks for a digest around here hashes only what differs from this.
            state.digest();
            past.keep(&state, Delta::between(&self.anchor, &state).count());
            self.anchor = state.clone();
        }
        self.bases.insert(next, state.clone());
        self.frontier = state;
        let needed: Vec<_> = bases_of(self.next()).collect();
        self.bases.retain(|seq, _| needed.contains(seq));
        Ok(())
    }
}

/// Makes milestones, for ever.
pub(crate) async fn run(handle: Handle) {
    loop {
        if let Err(error) = follow(&handle).await {
            tracing::warn!(error = %format!("{error:#}"), "reads of the past may be slow: milestones cannot be made");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(handle: &Handle) -> anyhow::Result<()> {
    let mut committed = handle.committed();
    let mut archive = off_thread(handle, Archive::open).await?;
    let mut is_warm = false;
    loop {
        let next = archive.next();
        while *committed.borrow_and_update() < next || is_missing(handle, next) {
            if !is_warm {
                // Caught up: now there is time to prepare for questions about what is long past.
                is_warm = true;
                warm_up(handle, archive.frontier.seq).await?;
            }
            committed.changed().await?;
        }
        archive = off_thread(handle, move |past| archive.step(past).map(|()| archive)).await?;
    }
}

fn is_missing(handle: &Handle, through: Seq) -> bool {
    handle.reader().gaps().first().is_some_and(|(from, _)| *from <= through)
}

/// Reads the anchors into memory, each as the neighbour of the one before it, as far as there is room.
async fn warm_up(handle: &Handle, through: Seq) -> anyhow::Result<()> {
    let mut before = State::default();
    for anchor in anchors(through) {
        let earlier = before;
        before = off_thread(handle, move |past| {
            let state = past.milestone(anchor)?;
            past.keep_beside(&earlier, &state)
        })
        .await?;
        if !handle.0.past.has_room() {
            tracing::info!(anchor, through, "past States fill the memory they may take");
            break;
        }
    }
    tracing::info!(through, "warm: past States are near");
    Ok(())
}

/// Folding takes a processor and the disk, which nothing else should wait for.
async fn off_thread<T: Send + 'static>(
    handle: &Handle,
    work: impl FnOnce(&Past) -> Result<T, PastError> + Send + 'static,
) -> anyhow::Result<T> {
    let inner: Arc<Inner> = Arc::clone(&handle.0);
    Ok(tokio::task::spawn_blocking(move || work(&inner.past)).await??)
}
