//! Making milestones as the log grows, beside everything else: the replica's thread never
//! waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stele_model::{Delta, Outline, Seq, State};

use crate::handle::{Handle, Inner};
use crate::limits::{ANCHOR_LEVELS, MILESTONE_INTERVAL_RECORDS};
use crate::milestones::{Parts, base_of, bases_of, level_of, of_level};
use crate::past::{Past, PastError};

/// Between two attempts after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Where the making of milestones stands.
struct Archive {
    /// The last milestone.
    frontier: Parts,
    /// Those that further milestones are kept as differences from.
    bases: BTreeMap<Seq, Parts>,
    /// The last one handed over to be kept in memory.
    anchor: Outline,
}

impl Archive {
    /// Goes on where it ended.
    fn open(past: &Past) -> Result<Self, PastError> {
        past.milestones().prepare()?;
        let parts = |seq| -> Result<Parts, PastError> {
            Ok(Parts { outline: past.milestone(seq)?, answers: past.answers(seq)? })
        };
        let through = past.milestones().through()?;
        let mut bases = BTreeMap::new();
        for base in bases_of(through + MILESTONE_INTERVAL_RECORDS) {
            bases.insert(base, parts(base)?);
        }
        let anchor = of_level(*ANCHOR_LEVELS.start(), through).next_back();
        let anchor = past.milestone(anchor.unwrap_or_default())?;
        Ok(Self { frontier: parts(through)?, bases, anchor })
    }

    /// The next milestone.
    fn next(&self) -> Seq {
        self.frontier.outline.seq() + MILESTONE_INTERVAL_RECORDS
    }

    /// Makes the next milestone: of its State, or of the records, which are all here. Then a State at or
    /// after it helps.
    fn step(&mut self, past: &Past, reached: Option<State>, later: &State) -> Result<(), PastError> {
        let next = self.next();
        let state = if let Some(state) = reached {
            state
        } else {
            let Parts { outline, answers } = &self.frontier;
            let mut state = outline.filled(later, next);
            answers.clone().put_into(&mut state);
            past.fold_to(&mut state, next)?;
            state
        };
        assert_eq!(state.seq, next, "milestones are made one after the other");
        let parts = Parts::of(&state);
        let difference = match self.bases.get(&base_of(next)) {
            Some(before) => parts.since(before),
            None => parts.since(&Parts::default()),
        };
        past.milestones().keep(&difference)?;
        if level_of(next) >= *ANCHOR_LEVELS.start() {
            past.keep(&parts.outline, Delta::between(&self.anchor, &parts.outline).count());
            self.anchor = parts.outline.clone();
        }
        self.bases.insert(next, parts.clone());
        self.frontier = parts;
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
    let mut published = handle.follow();
    let mut archive = off_thread(handle, Archive::open).await?;
    let mut is_warm = false;
    loop {
        let next = archive.next();
        let later = loop {
            let later = published.borrow_and_update().state.clone();
            if later.seq >= next && !is_missing(handle, next) {
                break later;
            }
            if !is_warm {
                // Caught up: now there is time to prepare for questions about what is long past.
                is_warm = true;
                warm_up(handle, archive.frontier.outline.seq()).await?;
                continue;
            }
            published.changed().await?;
        };
        let reached = handle.0.reached.take(next);
        archive =
            off_thread(handle, move |past| archive.step(past, reached, &later).map(|()| archive)).await?;
    }
}

fn is_missing(handle: &Handle, through: Seq) -> bool {
    handle.reader().gaps().first().is_some_and(|(from, _)| *from <= through)
}

/// Reads milestones into memory, each as the neighbour of the one before it, as near to each other as
/// there is room for.
async fn warm_up(handle: &Handle, through: Seq) -> anyhow::Result<()> {
    let level = off_thread(handle, move |past| level_with_room(past, through)).await?;
    let mut before = Outline::default();
    for anchor in of_level(level, through) {
        if !handle.0.past.has_room() {
            break;
        }
        let earlier = before;
        before = off_thread(handle, move |past| past.keep_beside(&earlier, anchor)).await?;
    }
    let (milestones, bytes) = handle.0.past.in_memory();
    tracing::info!(through, level, milestones, bytes, "warm: past States are near");
    Ok(())
}

/// The lowest level whose milestones all have room in memory, as the last ones of it let expect.
fn level_with_room(past: &Past, through: Seq) -> Result<u32, PastError> {
    for level in ANCHOR_LEVELS {
        let mut latest = of_level(level, through).rev();
        let (Some(last), before) = (latest.next(), latest.next()) else { return Ok(level) };
        let facts = past.distance(before.unwrap_or_default(), last)?;
        if past.has_room_for(facts.saturating_mul(latest.count() + 2)) {
            return Ok(level);
        }
    }
    Ok(*ANCHOR_LEVELS.end())
}

/// Folding takes a processor and the disk, which nothing else should wait for.
async fn off_thread<T: Send + 'static>(
    handle: &Handle,
    work: impl FnOnce(&Past) -> Result<T, PastError> + Send + 'static,
) -> anyhow::Result<T> {
    let inner: Arc<Inner> = Arc::clone(&handle.0);
    Ok(tokio::task::spawn_blocking(move || work(&inner.past)).await??)
}
