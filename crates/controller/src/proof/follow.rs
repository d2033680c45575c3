//! Lets the tree follow what is committed, and signs checkpoints of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context as _;
use stele_model::State;
use stele_proof::merkle::Frontier;
use stele_proof::{Checkpoint, SignedCheckpoint};

use super::{Proofs, TreeError};
use crate::handle::Handle;
use crate::limits::{CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL_MAX, CHECKPOINT_PAUSE_FACTOR};

/// Runs for ever. An end is the reason why this controller must stop.
pub(crate) async fn run(handle: Handle) -> anyhow::Result<()> {
    let mut watch = handle.watch();
    let mut frontier = work(&handle, |proofs, _| proofs.nodes.open()).await?;
    handle.proofs().size.store(frontier.size(), Ordering::Release);
    loop {
        // What is published ends a decision: entries hold whole ones.
        let state = watch.borrow_and_update().state.clone();
        let began = Instant::now();
        frontier = grow(&handle, frontier, state.seq).await?;
        let signed = handle.proofs().checkpoint.borrow().as_ref().map_or(0, |it| it.checkpoint.size);
        let is_whole = frontier.size() == state.seq;
        if is_whole && state.seq > signed {
            let root = frontier.root();
            work(&handle, move |proofs, handle| sign(proofs, handle, state, root)).await?;
        }
        // A large change makes a digest dear; then fewer are made.
        let pause = began.elapsed() * CHECKPOINT_PAUSE_FACTOR;
        tokio::time::sleep(pause.clamp(CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL_MAX)).await;
        // What is missing here comes without anything being committed.
        if is_whole && watch.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Appends what is here of the records up to a seq. It ends early in front of a gap.
async fn grow(handle: &Handle, mut frontier: Frontier, to: u64) -> anyhow::Result<Frontier> {
    while frontier.size() < to {
        let before = frontier.size();
        frontier = work(handle, move |proofs, _| {
            match proofs.records(before + 1, to) {
                Ok(records) => proofs.nodes.append(&mut frontier, &records)?,
                Err(TreeError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
            Ok(frontier)
        })
        .await?;
        if frontier.size() == before {
            break;
        }
        handle.proofs().size.store(frontier.size(), Ordering::Release);
    }
    Ok(frontier)
}

fn sign(proofs: &Proofs, handle: &Handle, state: State, root: stele_model::Digest) -> Result<(), TreeError> {
    let identity = handle.identity();
    let checkpoint = Checkpoint {
        fleet: identity.fleet.clone(),
        size: state.seq,
        root,
        chain: proofs.chain(state.seq)?,
        state: proofs.digest_and_keep(state),
    };
    let mut signed = SignedCheckpoint::new(checkpoint)?;
    signed.note.sign(&Checkpoint::key_name(&identity.fleet, identity.id), &identity.key)?;
    proofs.checkpoint.send_replace(Some(Arc::new(signed)));
    Ok(())
}

/// Reads and hashes where nobody else waits.
pub(super) async fn work<T: Send + 'static>(
    handle: &Handle,
    work: impl FnOnce(&Proofs, &Handle) -> Result<T, TreeError> + Send + 'static,
) -> anyhow::Result<T> {
    let handle = handle.clone();
    let done = tokio::task::spawn_blocking(move || work(handle.proofs(), &handle)).await?;
    done.context("the tree of the log cannot be kept")
}
