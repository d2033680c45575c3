//! Encoding and writing snapshots of State beside the replica's thread, which only takes a
//! clone and, when all is on the disk, writes that there is one.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use stele_codec::Snapshot;
use stele_codec::limits::SNAPSHOT_BYTES_MAX;
use stele_consensus::{SnapshotHead, StagedSnapshot, StoreError};
use stele_model::Seq;
use stele_peer::limits::MAX_FRAME_BYTES;
use stele_store::Reader;

use crate::limits::{SNAPSHOT_HEAD_BYTES_MAX, SNAPSHOT_RETRY, SNAPSHOT_TOO_LARGE_RETRY, SNAPSHOTS_KEPT};

// Whatever is kept can be sent: a follower that is far behind must not depend on how large State is.
const _: () = assert!(SNAPSHOT_BYTES_MAX + SNAPSHOT_HEAD_BYTES_MAX <= MAX_FRAME_BYTES);

/// At most one snapshot on its way.
pub(crate) struct Snapshots {
    staging: Option<Staging>,
    /// Before this, none is begun: the disk had no room for the last one.
    not_before: Option<Instant>,
    /// Size of the last one, in bytes.
    last_bytes: u64,
    /// Records committed since the last one was begun that came to be, in bytes.
    since: u64,
    /// Larger ones nobody would read, in bytes.
    bytes_max: usize,
}

/// Why there is none.
enum Failure {
    Store(StoreError),
    /// State takes so many bytes.
    TooLarge(usize),
}

struct Staging {
    outcome: Receiver<Result<StagedSnapshot, Failure>>,
    thread: JoinHandle<()>,
    /// What it has of the records committed since the last one, in bytes.
    covers: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { staging: None, not_before: None, last_bytes: 0, since: 0, bytes_max: SNAPSHOT_BYTES_MAX }
    }
}

impl Snapshots {
    /// Notes how many bytes of records were committed.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.since += bytes as u64;
    }

    /// Whether one may be begun now.
    pub(crate) fn is_free(&self) -> bool {
        self.staging.is_none() && self.not_before.is_none_or(|moment| moment <= Instant::now())
    }

    /// Whether as much was logged as a snapshot takes: so a large State is not written again and
    /// again for a few records, and snapshots never take more of the disk's time than the log does.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.since >= self.last_bytes
    }

    /// Begins to encode and write one on a thread of its own.
    pub(crate) fn begin(
        &mut self,
        head: SnapshotHead,
        snapshot: Snapshot,
        store: Reader,
    ) -> anyhow::Result<()> {
        let (done, outcome) = sync_channel(1);
        let bytes_max = self.bytes_max;
        let thread = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let data = snapshot.encode();
                drop(snapshot);
                let outcome = match data.len() {
                    bytes if bytes > bytes_max => Err(Failure::TooLarge(bytes)),
                    _ => stage(&store, head, &data).map_err(Failure::Store),
                };
                // Whoever is told waits for this thread's end.
                drop((data, store));
                // A replica that stopped meanwhile needs none.
                drop(done.send(outcome));
            })
            .context("cannot start a thread that writes a snapshot")?;
        self.staging = Some(Staging { outcome, thread, covers: self.since });
        Ok(())
    }

    /// The one that is ready, once. An error of the store is final, except that a full disk is
    /// tried again in time: the log itself stops when it has no room. So is a State that is too
    /// large, less often. What did not come to be
    /// counts for nothing, so that the next one is due as soon as it may be begun.
    pub(crate) fn staged(&mut self) -> Result<Option<StagedSnapshot>, StoreError> {
        let Some(staging) = &self.staging else { return Ok(None) };
        let covers = staging.covers;
        let outcome = match staging.outcome.try_recv() {
            Ok(outcome) => outcome.map(Some),
            Err(TryRecvError::Empty) => return Ok(None),
            // Its thread died, which leaves nothing behind.
            Err(TryRecvError::Disconnected) => Ok(None),
        };
        self.end();
        let retry = match outcome {
            Ok(Some(snapshot)) => {
                self.last_bytes = snapshot.staged.bytes;
                self.since = self.since.saturating_sub(covers);
                return Ok(Some(snapshot));
            }
            Ok(None) => {
                tracing::error!("the thread that made a snapshot of State ended without one");
                SNAPSHOT_RETRY
            }
            Err(Failure::Store(error @ StoreError::DiskFull { .. })) => {
                tracing::warn!(%error, "no snapshot of State was made");
                SNAPSHOT_RETRY
            }
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::TooLarge(bytes)) => {
                tracing::error!(
                    bytes,
                    limit = self.bytes_max,
                    "State is too large for a snapshot: starts fold the log from the last one there is, Raft's \
                     entries stay on the disk, and no controller can be added. Move projects to another fleet"
                );
                SNAPSHOT_TOO_LARGE_RETRY
            }
        };
        self.not_before = Some(Instant::now() + retry);
        Ok(None)
    }

    fn end(&mut self) {
        if let Some(staging) = self.staging.take() {
            // Whatever it had to say was said, unless it panicked, which was reported.
            drop(staging.outcome);
            drop(staging.thread.join());
        }
    }
}

impl Drop for Snapshots {
    /// The store is closed only after its last user is gone.
    fn drop(&mut self) {
        self.end();
    }
}

fn stage(store: &Reader, head: SnapshotHead, data: &[u8]) -> Result<StagedSnapshot, StoreError> {
    thin_out(store)?;
    let staged = store.stage_snapshot(head.seq, data)?;
    Ok(StagedSnapshot { head, staged })
}

/// Makes room for one more snapshot and keeps the newest besides: for the past there are milestones.
fn thin_out(store: &Reader) -> Result<(), StoreError> {
    // What is backfilled is checked against the snapshot that ends the gap.
    let ends: BTreeSet<Seq> = store.gaps().into_iter().map(|(_, to)| to).collect();
    for info in store.snapshots()?.iter().rev().skip(SNAPSHOTS_KEPT - 1) {
        if !ends.contains(&info.seq) {
            store.delete_snapshot(info.seq)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use stele_codec::Chain;
    use stele_model::State;
    use stele_store::{Identity, Settings, Store};

    use super::*;

    /// Begins one and waits for what becomes of it.
    fn make(snapshots: &mut Snapshots, store: &Store) -> Option<StagedSnapshot> {
        let head = SnapshotHead { seq: 1, index: 1, term: 1, ..SnapshotHead::default() };
        let snapshot = Snapshot { chain: Chain::GENESIS, state: State::default() };
        snapshots.begin(head, snapshot, store.reader()).unwrap();
        loop {
            let staged = snapshots.staged().unwrap();
            if staged.is_some() || snapshots.staging.is_none() {
                return staged;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn of_a_state_that_nobody_could_read_none_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { fleet: "demo".to_owned(), node: 1 };
        let store = Store::create(folder.path(), &identity, &Settings::default()).unwrap();
        let mut snapshots = Snapshots::default();
        snapshots.bytes_max = 100;
        assert_eq!(make(&mut snapshots, &store), None);
        assert!(!snapshots.is_free());
        let later = Instant::now() + SNAPSHOT_RETRY;
        assert!(snapshots.not_before.unwrap() > later, "it is much work for nothing");
    }

    #[test]
    fn one_that_found_no_room_is_due_again_as_soon_as_it_may_be_begun() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { fleet: "demo".to_owned(), node: 1 };
        let store = Store::create(folder.path(), &identity, &Settings::default()).unwrap();
        let mut snapshots = Snapshots::default();
        let bytes = make(&mut snapshots, &store).unwrap().staged.bytes as usize;
        assert!(!snapshots.is_worth_it(), "nothing was logged since");
        snapshots.note(bytes);
        assert!(snapshots.is_free() && snapshots.is_worth_it());
        drop(store);

        let full = Settings { disk_reserve_bytes: u64::MAX / 4 };
        let store = Store::open(folder.path(), &identity, &full).unwrap();
        assert_eq!(make(&mut snapshots, &store), None);
        assert!(!snapshots.is_free(), "not at once");
        assert!(snapshots.is_worth_it(), "but then");
        drop(store);

        let store = Store::open(folder.path(), &identity, &Settings::default()).unwrap();
        snapshots.note(1);
        assert!(make(&mut snapshots, &store).is_some());
        assert!(!snapshots.is_worth_it());
    }
}
