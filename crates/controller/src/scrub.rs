//! Reading the whole log now and then, so that damage is found before it is needed.

use stele_store::StoreError;

use crate::handle::Handle;
use crate::limits::{SCRUB_CHUNK_BYTES, SCRUB_INTERVAL, SCRUB_PAUSE};

/// Ends only with what is damaged: a controller that cannot read what it acknowledged must not go on.
pub(crate) async fn run(handle: Handle) -> anyhow::Result<()> {
    loop {
        let mut next = 1;
        while let Some(read) = chunk(&handle, next).await? {
            next = read;
            tokio::time::sleep(SCRUB_PAUSE).await;
        }
        tokio::time::sleep(SCRUB_INTERVAL).await;
    }
}

/// Reads some records; where to go on, or that the end is reached.
async fn chunk(handle: &Handle, from: u64) -> anyhow::Result<Option<u64>> {
    let reader = handle.reader().clone();
    let read = tokio::task::spawn_blocking(move || -> Result<Option<u64>, StoreError> {
        let last = reader.last_seq();
        if from > last {
            return Ok(None);
        }
        // What is still fetched from the others is checked when it comes.
        if let Some((_, to)) = reader.gaps().into_iter().find(|(first, to)| (*first..=*to).contains(&from)) {
            return Ok(Some(to + 1));
        }
        let records = reader.records(from..=last, SCRUB_CHUNK_BYTES)?;
        Ok(Some(records.last().map_or(last, |(seq, _)| *seq) + 1))
    });
    Ok(read.await??)
}
