//! Compares what this controller signs with what the others sign.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use stele_model::{ControllerId, State};
use stele_proof::{Checkpoint, SignedCheckpoint};
use tokio::time::MissedTickBehavior;

use super::follow::work;
use super::{Proofs, TreeError, Verdict, lock};
use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::limits::{
    CHECKPOINT_COMPARE_INTERVAL, CHECKPOINT_COMPARE_REST_MAX, CHECKPOINT_PAUSE_FACTOR, PEER_REQUEST_DEADLINE,
};

/// Asks for ever. Ends with the reason when a majority signs something else than this
/// controller: then it must stop.
pub(crate) async fn run(handle: Handle) -> anyhow::Result<()> {
    let mut round = tokio::time::interval(CHECKPOINT_COMPARE_INTERVAL);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Where much changes, a comparison folds and hashes much: then others are asked less often.
    let mut rests_until = Instant::now();
    // Checkpoints of sizes that are not reached here yet.
    let mut ahead: BTreeMap<ControllerId, Arc<SignedCheckpoint>> = BTreeMap::new();
    loop {
        round.tick().await;
        let may_ask = Instant::now() >= rests_until;
        let state = handle.published().state;
        let Some(own) = handle.proofs().checkpoint() else { continue };
        let verdicts = handle.proofs().verdicts();
        let settled = |id: &ControllerId| {
            verdicts.get(id).is_some_and(|it| it.size == own.checkpoint.size && it.differs.is_none())
        };
        let others = state.control.controllers.keys().copied().filter(|id| *id != handle.id());
        let others = others.filter(|id| !state.control.retired.contains(id) && !settled(id));
        let asked = others.map(|id| {
            let held = ahead.remove(&id);
            let (handle, state) = (&handle, &state);
            async move {
                let theirs = match held {
                    Some(held) => Some(held),
                    None if may_ask => ask(handle, state, id).await,
                    None => None,
                };
                (id, theirs)
            }
        });
        let asked = join_all(asked).await;
        let began = Instant::now();
        for (id, theirs) in asked {
            let Some(theirs) = theirs else { continue };
            let compared = Arc::clone(&theirs);
            match work(&handle, move |proofs, _| verdict(proofs, &compared)).await? {
                None => drop(ahead.insert(id, theirs)),
                Some(verdict) => note(&handle, id, verdict),
            }
        }
        let rest = began.elapsed() * CHECKPOINT_PAUSE_FACTOR;
        rests_until = rests_until.max(Instant::now() + rest.min(CHECKPOINT_COMPARE_REST_MAX));
        if let Some(why) = outvoted(&state, handle.id(), &handle.proofs().verdicts()) {
            tracing::error!(%why, "this replica has diverged");
            drop(handle.proofs().diverged.set(why.clone()));
            // If it was only the tree that was wrong, the next start has a right one.
            work(&handle, |proofs, _| proofs.nodes.delete()).await?;
            anyhow::bail!(why);
        }
    }
}

/// Another controller's newest checkpoint, if it is signed by the key that is certified for it.
async fn ask(handle: &Handle, state: &State, id: ControllerId) -> Option<Arc<SignedCheckpoint>> {
    let answer = handle.ask_peer(id, &PeerRequest::Checkpoint, PEER_REQUEST_DEADLINE).await;
    let text = match answer {
        Ok(PeerAnswer::Checkpoint(text)) => text?,
        Ok(_) => return None,
        Err(error) => {
            tracing::debug!(id, %error, "cannot be asked for its checkpoint");
            return None;
        }
    };
    let identity = handle.identity();
    let certificate = &state.control.controllers.get(&id)?.certificate;
    let checked = || {
        let signed: SignedCheckpoint = text.parse()?;
        let key = Checkpoint::key(certificate, &identity.root, &identity.fleet, None)?;
        signed.verify(&[key], &[])?;
        Ok::<_, stele_proof::NoteError>(signed)
    };
    match checked() {
        Ok(signed) => Some(Arc::new(signed)),
        Err(error) => {
            tracing::error!(id, %error, "a controller's checkpoint is not properly signed");
            None
        }
    }
}

/// Whether this log and State are the same at a checkpoint; nothing while it is not reached.
fn verdict(proofs: &Proofs, theirs: &SignedCheckpoint) -> Result<Option<Verdict>, TreeError> {
    let Checkpoint { size, root, state, chain, .. } = theirs.checkpoint;
    if size > proofs.size() {
        return Ok(None);
    }
    let mut differs = Vec::new();
    let mut compare = |what: &str, theirs, own| {
        if theirs != own {
            differs.push(format!("{what} is {theirs} there and {own} here"));
        }
    };
    compare("the root", root, proofs.root(size)?);
    compare("the chain", chain, if size == 0 { stele_codec::Chain::GENESIS.0 } else { proofs.chain(size)? });
    // Long past States were compared when they were recent.
    if let Some(own) = proofs.recent_digest(size)? {
        compare("State", state, own);
    }
    Ok(Some(Verdict { size, differs: (!differs.is_empty()).then(|| differs.join("; ")) }))
}

fn note(handle: &Handle, id: ControllerId, verdict: Verdict) {
    let size = verdict.size;
    let before = lock(&handle.proofs().verdicts).insert(id, verdict.clone());
    match (verdict.differs, before.and_then(|before| before.differs)) {
        (Some(differs), _) => {
            tracing::error!(id, size, %differs, "another controller signed a different checkpoint");
        }
        (None, Some(_)) => tracing::warn!(id, size, "another controller's checkpoint agrees again"),
        (None, None) => tracing::debug!(id, size, "another controller's checkpoint agrees"),
    }
}

/// Why this replica must stop: more than half of those who vote signed something else.
fn outvoted(state: &State, own: ControllerId, verdicts: &BTreeMap<ControllerId, Verdict>) -> Option<String> {
    let voters = &state.control.voters;
    let against: Vec<_> = verdicts
        .iter()
        .filter(|(id, _)| **id != own && voters.contains(*id))
        .filter_map(|(id, verdict)| Some((*id, verdict.size, verdict.differs.as_deref()?)))
        .collect();
    if against.len() * 2 <= voters.len() {
        return None;
    }
    let list: Vec<_> = against
        .iter()
        .map(|(id, size, differs)| format!("controller {id} at {size} records: {differs}"))
        .collect();
    Some(format!(
        "the majority of controllers signed another log than this one ({}): this replica has diverged and must not \
         answer; start it again, and if it says so again, wipe it and let it rejoin under a new id",
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(voters: &[u64]) -> State {
        let mut state = State::default();
        state.control.voters = voters.iter().copied().collect();
        state
    }

    fn verdicts(differing: &[u64], agreeing: &[u64]) -> BTreeMap<ControllerId, Verdict> {
        let differ =
            differing.iter().map(|id| (*id, Verdict { size: 7, differs: Some("the root".to_owned()) }));
        let agree = agreeing.iter().map(|id| (*id, Verdict { size: 7, differs: None }));
        differ.chain(agree).collect()
    }

    #[test]
    fn only_a_majority_of_voters_stops_a_replica() {
        let three = state(&[1, 2, 3]);
        assert!(outvoted(&three, 1, &verdicts(&[2, 3], &[])).is_some());
        assert_eq!(outvoted(&three, 1, &verdicts(&[2], &[3])), None);
        assert_eq!(outvoted(&three, 1, &verdicts(&[2], &[])), None, "who is silent says nothing");
        assert_eq!(outvoted(&three, 1, &verdicts(&[2, 9], &[])), None, "9 does not vote");
        assert_eq!(outvoted(&state(&[1, 2]), 1, &verdicts(&[2], &[])), None, "one against one");
        assert_eq!(outvoted(&state(&[1]), 1, &verdicts(&[], &[])), None);
        let five = state(&[1, 2, 3, 4, 5]);
        assert_eq!(outvoted(&five, 1, &verdicts(&[2, 3], &[4, 5])), None);
        let why = outvoted(&five, 1, &verdicts(&[2, 3, 4], &[5])).unwrap();
        assert!(why.contains("controller 3 at 7 records: the root"), "{why}");
        // A learner has no vote of its own, and a majority against it all the same.
        assert!(outvoted(&three, 4, &verdicts(&[1, 2], &[3])).is_some());
    }
}
