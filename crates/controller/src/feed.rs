//! The public feed's source: committed records as JSON.

use stele_bus::{FeedRecord, FeedSource, SourceError};
use stele_model::{Digest, Seq};

use crate::handle::Handle;
use crate::past::Past;

struct Log(Handle);

impl Log {
    fn past(&self) -> &Past {
        &self.0.0.past
    }
}

impl FeedSource for Log {
    fn records_after(&self, seq: Seq, limit: usize) -> Result<Vec<FeedRecord>, SourceError> {
        let committed = *self.0.committed().borrow();
        if seq >= committed {
            return Ok(Vec::new());
        }
        let limit = limit.min((committed - seq) as usize);
        let next = seq + 1;
        // What nobody has any more must not keep back what follows.
        if let Some(to) = self.0.lost_from(next) {
            return Ok((next..=to).take(limit).map(FeedRecord::lost).collect());
        }
        let mut feed = Vec::new();
        for (seq, stored, _) in self.past().records(next, limit)? {
            let record = stored.decode()?;
            let json = serde_json::to_vec(&record)?;
            let digest = Some(Digest::of(&[&stored.leaf]));
            feed.push(FeedRecord { seq, kind: record.header.kind, digest, json: json.into() });
        }
        Ok(feed)
    }
}

/// Keeps the feed equal to the log, while this controller leads.
pub(crate) async fn run(handle: Handle) {
    let mut watch = handle.follow();
    loop {
        if watch.wait_for(|published| published.leads).await.is_err() {
            return;
        }
        let feed = handle.bus().feed();
        let deposed = async {
            // Either way there is nothing left to publish here.
            let _ = watch.wait_for(|published| !published.leads).await;
        };
        tokio::select! {
            () = feed.run(Log(handle.clone()), handle.committed()) => return,
            () = deposed => {}
        }
    }
}
