//! Encoding snapshots of State beside the replica's thread, which only takes a clone.

use anyhow::Context as _;
use crossbeam_channel::{Receiver, bounded};
use stele_codec::Snapshot;
use stele_consensus::StoredSnapshot;

/// At most one snapshot on its way.
#[derive(Default)]
pub(crate) struct Snapshots {
    encoding: Option<Receiver<StoredSnapshot>>,
    /// Size of the last one, in bytes.
    last_bytes: usize,
    /// Records committed since the last one began, in bytes.
    since: usize,
}

impl Snapshots {
    /// Notes how many bytes of records were committed.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.since += bytes;
    }

    /// Whether one is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.encoding.is_some()
    }

    /// Whether as much was logged as a snapshot takes: so a large State is not written again and
    /// again for a few records, and snapshots never take more of the disk's time than the log does.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.since >= self.last_bytes
    }

    /// Begins to encode one on a thread of its own.
    pub(crate) fn begin(&mut self, begun: StoredSnapshot, snapshot: Snapshot) -> anyhow::Result<()> {
        let (done, encoding) = bounded(1);
        std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let data = snapshot.encode();
                // A replica that stopped meanwhile needs none.
                drop(done.send(StoredSnapshot { data, ..begun }));
            })
            .context("cannot start a thread that encodes a snapshot")?;
        self.encoding = Some(encoding);
        self.since = 0;
        Ok(())
    }

    /// The one that is ready, once.
    pub(crate) fn encoded(&mut self) -> Option<StoredSnapshot> {
        let encoding = self.encoding.as_ref()?;
        let encoded = match encoding.try_recv() {
            Ok(encoded) => Some(encoded),
            Err(crossbeam_channel::TryRecvError::Empty) => return None,
            // Its thread died, which leaves nothing behind: the next one is made in time.
            Err(crossbeam_channel::TryRecvError::Disconnected) => None,
        };
        self.encoding = None;
        if let Some(encoded) = &encoded {
            self.last_bytes = encoded.data.len();
        }
        encoded
    }
}
