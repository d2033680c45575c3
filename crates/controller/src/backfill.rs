//! Fetching the history that an installed snapshot skipped, and proving it before it is kept.

use std::time::Duration;

use anyhow::Context as _;
use stele_codec::{Chain, Snapshot, StoredRecord};
use stele_model::Seq;
use tokio::sync::oneshot;

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::limits::{HOUSEKEEPING_INTERVAL, PEER_REQUEST_DEADLINE};
use crate::replica::Input;

/// Between two attempts after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Fills gaps in the records, for ever.
pub(crate) async fn run(handle: Handle) {
    let mut published = handle.follow();
    loop {
        let pause = match handle.reader().gaps().first() {
            None => None,
            Some((from, to)) => match fill(&handle, *from, *to).await {
                Ok(()) => continue,
                Err(error) => {
                    tracing::warn!(from, to, error = %format!("{error:#}"), "history is not complete yet");
                    Some(RETRY)
                }
            },
        };
        // A gap only comes with a snapshot, which is published.
        let _ = tokio::time::timeout(pause.unwrap_or(HOUSEKEEPING_INTERVAL * 10), published.changed()).await;
        if pause.is_some() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Fetches a gap front to back, twice. First only its chain is walked: it must begin where
/// ours ends and end in the chain of the snapshot that made the gap, so that no peer can slip
/// in a record. Then the records are fetched again, and kept page by page as far as they are
/// those of the proven chain. So whatever is written is proven, and no more than a page is
/// ever held.
async fn fill(handle: &Handle, from: Seq, to: Seq) -> anyhow::Result<()> {
    let mut chain = if from == 1 {
        Chain::GENESIS
    } else {
        let bytes = handle.reader().record(from - 1)?.context("the record before the gap is gone")?;
        StoredRecord::from_bytes(&bytes)?.1
    };
    let snapshot = handle.reader().snapshot(to)?.context("the snapshot after the gap is gone")?;
    let expected = Snapshot::chain_of(&snapshot.data)?;
    let peers: Vec<_> = handle.cluster().await?.members.into_iter().map(|member| member.id).collect();
    let pages = prove(handle, &peers, (from, to), chain, expected).await?;
    let mut next = from;
    for (last, proven) in pages {
        let mut page = Vec::new();
        while next <= last {
            let records = fetch(handle, &peers, next, last).await?;
            (next, chain) = link(&records, next, chain)?;
            page.extend(records);
        }
        anyhow::ensure!(chain == proven, "the records up to {last} are not those that were proven");
        let (done, stored) = oneshot::channel();
        handle.push(Input::Backfill(page, done)).map_err(|error| anyhow::anyhow!("{error}"))?;
        stored.await.context("the replica stopped")?;
    }
    tracing::info!(from, to, "history is complete again");
    Ok(())
}

/// Walks the chain over a gap; answers it at the end of each page.
async fn prove(
    handle: &Handle,
    peers: &[u64],
    (from, to): (Seq, Seq),
    mut chain: Chain,
    expected: Chain,
) -> anyhow::Result<Vec<(Seq, Chain)>> {
    let mut pages = Vec::new();
    let mut next = from;
    while next <= to {
        let records = fetch(handle, peers, next, to).await?;
        (next, chain) = link(&records, next, chain)?;
        pages.push((next - 1, chain));
    }
    anyhow::ensure!(chain == expected, "the records up to {to} do not lead to the snapshot's chain");
    Ok(pages)
}

/// Checks that records continue a chain, and that each has the payload its header names.
fn link(records: &[(Seq, Vec<u8>)], mut next: Seq, mut chain: Chain) -> anyhow::Result<(Seq, Chain)> {
    for (seq, bytes) in records {
        let (stored, claimed) = StoredRecord::from_bytes(bytes)?;
        chain = chain.link(&stored.leaf);
        let header = stored.header()?;
        anyhow::ensure!(
            *seq == next && header.seq == next && claimed == chain,
            "record {next} does not continue our history"
        );
        anyhow::ensure!(
            header.payload == stele_model::Digest::of(&[&stored.payload]),
            "record {next}'s payload is not the one its header names"
        );
        next += 1;
    }
    Ok((next, chain))
}

async fn fetch(handle: &Handle, peers: &[u64], from: Seq, to: Seq) -> anyhow::Result<Vec<(Seq, Vec<u8>)>> {
    for peer in peers.iter().filter(|peer| **peer != handle.id()) {
        let request = PeerRequest::Records { from, to };
        match handle.ask_peer(*peer, &request, PEER_REQUEST_DEADLINE).await {
            Ok(PeerAnswer::Records(records)) if !records.is_empty() => return Ok(records),
            Ok(answer) => tracing::debug!(peer, ?answer, "has no such records"),
            Err(error) => tracing::debug!(peer, %error, "cannot be asked for records"),
        }
    }
    anyhow::bail!("no controller could give records from {from} on")
}
