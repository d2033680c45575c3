//! Encoding and writing snapshots of State beside the replica's thread, which only takes a
//! clone and, when all is on the disk, writes that there is one.

use anyhow::Context as _;
use crossbeam_channel::{Receiver, bounded};
use stele_codec::Snapshot;
use stele_consensus::{SnapshotHead, StagedSnapshot};
use stele_store::Reader;

/// At most one snapshot on its way.
#[derive(Default)]
pub(crate) struct Snapshots {
    staging: Option<Receiver<StagedSnapshot>>,
    /// Size of the last one, in bytes.
    last_bytes: u64,
    /// Records committed since the last one began, in bytes.
    since: u64,
}

impl Snapshots {
    /// Notes how many bytes of records were committed.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.since += bytes as u64;
    }

    /// Whether one is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.staging.is_some()
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
        let (done, staging) = bounded(1);
        std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let data = snapshot.encode();
                let bytes = data.len() as u64;
                match store.stage_snapshot(head.seq, &data) {
                    // A replica that stopped meanwhile needs none.
                    Ok(()) => drop(done.send(StagedSnapshot { head, bytes })),
                    Err(error) => {
                        tracing::warn!(seq = head.seq, %error, "no snapshot of State was made; the next is tried in time");
                    }
                }
            })
            .context("cannot start a thread that writes a snapshot")?;
        self.staging = Some(staging);
        self.since = 0;
        Ok(())
    }

    /// The one that is ready, once.
    pub(crate) fn staged(&mut self) -> Option<StagedSnapshot> {
        let staging = self.staging.as_ref()?;
        let staged = match staging.try_recv() {
            Ok(staged) => Some(staged),
            Err(crossbeam_channel::TryRecvError::Empty) => return None,
            // It could not be written, or its thread died: the next one is made in time.
            Err(crossbeam_channel::TryRecvError::Disconnected) => None,
        };
        self.staging = None;
        if let Some(staged) = &staged {
            self.last_bytes = staged.bytes;
        }
        staged
    }
}
