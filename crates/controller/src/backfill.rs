//! Fetching the history that an installed snapshot skipped, and proving it before it is kept.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use stele_codec::{Chain, Snapshot, StoredRecord};
use stele_model::Seq;
use tokio::sync::oneshot;

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::history::Found;
use crate::limits::PEER_REQUEST_DEADLINE;
use crate::replica::Input;

/// Between two attempts after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks whether there is anything to fill.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What became of a gap.
enum Filled {
    /// Its records are here.
    Whole,
    /// No controller has these of them, and none of the others can be proven without.
    Lost(Vec<(Seq, Seq)>),
}

/// Fills gaps in the records, for ever.
pub(crate) async fn run(handle: Handle) {
    let mut published = handle.follow();
    loop {
        let gaps = handle.reader().gaps();
        let is_complete = gaps.is_empty();
        let (mut filled, mut lost) = (false, Vec::new());
        // What cannot be had keeps nothing else back.
        for (from, to) in gaps {
            match fill(&handle, from, to).await {
                Ok(Filled::Whole) => filled = true,
                Ok(Filled::Lost(ranges)) => lost.extend(ranges),
                Err(error) => {
                    tracing::warn!(from, to, error = %format!("{error:#}"), "history is not complete yet");
                }
            }
        }
        let is_lost = !lost.is_empty();
        note_lost(&handle, lost);
        if filled {
            continue;
        }
        // A gap only comes with a snapshot, which is published. What nobody has may come back with a controller.
        let pause = if is_complete || is_lost { LOOK_AGAIN } else { RETRY };
        let _ = tokio::time::timeout(pause, published.changed()).await;
        if !is_complete {
            tokio::time::sleep(pause).await;
        }
    }
}

fn note_lost(handle: &Handle, lost: Vec<(Seq, Seq)>) {
    let mut known = handle.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
    if *known != lost {
        tracing::warn!(records = ?lost, "no controller has these records any more");
        *known = lost;
    }
}

/// Fetches a gap front to back, twice. First only its chain is walked: it must begin where
/// ours ends and end in the chain of the snapshot that made the gap, so that no peer can slip
/// in a record. Then the records are fetched again, and kept page by page as far as they are
/// those of the proven chain. So whatever is written is proven, and no more than a page is
/// ever held.
async fn fill(handle: &Handle, from: Seq, to: Seq) -> anyhow::Result<Filled> {
    let members = handle.cluster().await?.members.into_iter().map(|member| member.id);
    let others: Vec<_> = members.filter(|id| *id != handle.id()).collect();
    // Nobody is to send all that comes before what is lost ever again.
    match handle.look_for(&others, (from, to)).await {
        Found::Perhaps => {}
        Found::Away(missing) => anyhow::bail!("no controller that answers has records {missing:?}"),
        Found::Lost(missing) => return Ok(Filled::Lost(missing)),
    }
    let reader = handle.reader();
    let mut chain = match reader.record(from - 1)? {
        _ if from == 1 => Chain::GENESIS,
        Some(bytes) => StoredRecord::from_bytes(&bytes)?.1,
        // Another gap ends there.
        None => {
            let before = reader.snapshot(from - 1)?.context("the record before the gap is gone")?;
            Snapshot::chain_of(&before.data)?
        }
    };
    let snapshot = reader.snapshot(to)?.context("the snapshot after the gap is gone")?;
    let expected = Snapshot::chain_of(&snapshot.data)?;
    let pages = prove(handle, &others, (from, to), chain, expected).await?;
    let mut next = from;
    for (last, proven) in pages {
        let mut page = Vec::new();
        while next <= last {
            let records = fetch(handle, &others, next, last).await?;
            (next, chain) = link(&records, next, chain)?;
            page.extend(records);
        }
        anyhow::ensure!(chain == proven, "the records up to {last} are not those that were proven");
        let (done, stored) = oneshot::channel();
        handle.push(Input::Backfill(page, done)).map_err(|error| anyhow::anyhow!("{error}"))?;
        stored.await.context("the replica stopped")?;
    }
    tracing::info!(from, to, "these records are here again");
    Ok(Filled::Whole)
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
    for peer in peers {
        let request = PeerRequest::Records { from, to };
        match handle.ask_peer(*peer, &request, PEER_REQUEST_DEADLINE).await {
            Ok(PeerAnswer::Records(records)) if !records.is_empty() => return Ok(records),
            Ok(answer) => tracing::debug!(peer, ?answer, "has no such records"),
            Err(error) => tracing::debug!(peer, %error, "cannot be asked for records"),
        }
    }
    anyhow::bail!("no controller could give records from {from} on")
}
