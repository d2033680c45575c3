//! From committed State to the nodes: signed assignments, published when they
//! change, offered again to nodes that are behind, and given to those that ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use stele_bus::{Audience, SyncReply, purposes};
use stele_model::event::EnrolledNode;
use stele_model::state::Assigned;
use stele_model::wire::{Assignment, AssignmentVersion, Heartbeat, ImagePolicy, Signed, SyncRequest};
use stele_model::{NodeName, Seq, State};

use crate::handle::Handle;
use crate::limits::{
    ASSIGNMENT_REST_MAX, ASSIGNMENT_REST_PER_INSTANCE, ASSIGNMENTS_PER_TURN, RESEND_INTERVAL,
};

/// When each node was last heard of, by this controller.
pub(crate) type Heard = Arc<Mutex<BTreeMap<NodeName, Instant>>>;

/// The assignment each node was sent last, by its seq, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers(Arc<Mutex<BTreeMap<NodeName, (Seq, Instant)>>>);

impl Offers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, (Seq, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an assignment is to be sent to a node that does not have it; notes that it is. Right after
    /// it was sent, a node that is behind only has not said so yet.
    fn is_due(&self, node: &NodeName, seq: Seq) -> bool {
        let mut sent = self.lock();
        let due = sent.get(node).is_none_or(|(of, at)| *of != seq || at.elapsed() > RESEND_INTERVAL);
        if due {
            sent.insert(node.clone(), (seq, Instant::now()));
        }
        due
    }

    /// Forgets nodes that left.
    fn forget_others(&self, state: &State) {
        let nodes = &state.control.nodes;
        let mut sent = self.lock();
        if sent.len() > nodes.len() {
            sent.retain(|name, _| nodes.contains_key(name));
        }
    }

    /// What to do about a node whose assignment has changed; notes that it is sent. A node that has much to
    /// run has much to look through, so that several changes go to it together.
    fn turn(&self, node: &NodeName, assigned: &Assigned, now: Instant) -> Turn {
        let mut sent = self.lock();
        if let Some((of, at)) = sent.get(node) {
            if *of == assigned.changed {
                return Turn::Never;
            }
            let instances = u32::try_from(assigned.instances.len()).unwrap_or(u32::MAX);
            let rested =
                *at + ASSIGNMENT_REST_PER_INSTANCE.saturating_mul(instances).min(ASSIGNMENT_REST_MAX);
            if rested > now {
                return Turn::At(rested);
            }
        }
        sent.insert(node.clone(), (assigned.changed, now));
        Turn::Now
    }
}

/// When a changed assignment is sent.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    /// It was sent already.
    Never,
}

/// The signed assignment of a node, from committed State.
async fn assignment(
    handle: &Handle,
    state: &State,
    node: &EnrolledNode,
    images: ImagePolicy,
) -> anyhow::Result<Signed> {
    let identity = handle.identity();
    let instances = state.assigned_instances(&node.name).map_err(|why| anyhow::anyhow!(why))?;
    let keys = handle.wrapped_keys(instances.iter().map(|instance| &instance.spec.container), node).await?;
    let assignment = Assignment {
        fleet: identity.fleet.clone(),
        node: node.name.clone(),
        version: state.assignment_version(&node.name),
        instances,
        keys,
        images: Some(images),
        controller: identity.certificate.clone(),
    };
    Ok(identity.sign(purposes::ASSIGNMENT, &assignment))
}

async fn publish(handle: &Handle, state: &State, node: &EnrolledNode) {
    let images = handle.image_policy(state, &node.name).await;
    let published = match assignment(handle, state, node, images).await {
        Ok(signed) => handle
            .bus()
            .publish_assignment(&node.region, &node.name, &signed)
            .await
            .map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    if let Err(error) = published {
        // Its heartbeats will show that it is behind, and it is offered again.
        tracing::warn!(node = %node.name, error = %format!("{error:#}"), "an assignment was not published");
    }
}

/// Publishes what changed, while this controller leads.
pub(crate) async fn run(handle: Handle, offers: Offers) {
    let mut watch = handle.follow();
    let mut led = false;
    let mut last = State::default();
    // Thousands may wait for their turn: only those whose turn it is are looked at.
    let mut waiting: BTreeSet<(Instant, NodeName)> = BTreeSet::new();
    loop {
        let published = watch.borrow_and_update().clone();
        let state = &published.state;
        let mut changed = BTreeSet::new();
        if !published.leads {
            waiting.clear();
        } else if led {
            // Most of what is committed tells no node anything: then none of them is looked at.
            changed.extend(state.assigned_since(&last).cloned());
        } else {
            // An earlier leader may have been ended before it published.
            offers.lock().clear();
            changed.extend(state.assigned.keys().cloned());
        }
        offers.forget_others(state);
        let now = Instant::now();
        while waiting.first().is_some_and(|(at, _)| *at <= now) {
            changed.extend(waiting.pop_first().map(|(_, name)| name));
        }
        for (at, name) in changed.into_iter().enumerate() {
            // There may be thousands, and others have work to do on this thread. Not after each one: who waits
            // for its assignment is worse off than who waits for an acknowledgement.
            if at % ASSIGNMENTS_PER_TURN == ASSIGNMENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Some(assigned) = state.assigned.get(&name) else { continue };
            let Some(node) = state.control.nodes.get(&name) else { continue };
            match offers.turn(&name, assigned, Instant::now()) {
                Turn::Now => publish(&handle, state, node).await,
                Turn::At(at) => {
                    waiting.insert((at, name));
                }
                Turn::Never => {}
            }
        }
        (led, last) = (published.leads, published.state);
        let rest = async {
            match waiting.first() {
                Some((at, _)) => tokio::time::sleep_until((*at).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = watch.changed() => {
                if ended.is_err() {
                    return;
                }
            }
            () = rest => {}
        }
    }
}

/// Listens to heartbeats: notes who is alive, and offers those who are behind
/// their assignment again.
pub(crate) async fn heartbeats(handle: Handle, heard: Heard, offers: Offers) -> anyhow::Result<()> {
    let mut heartbeats = handle.bus().heartbeats(Audience::Every).await?;
    while let Some(heartbeat) = heartbeats.next().await {
        let from = match heartbeat {
            Ok(from) => from,
            Err(error) => {
                tracing::debug!(%error, "ignored what is no heartbeat");
                continue;
            }
        };
        let published = handle.published();
        let Some(node) = published.state.control.nodes.get(&from.node) else { continue };
        // Who does not lead only keeps it, and looks at the signature when somebody asks: signatures of a
        // large fleet are dear, and a new leader counts silence from its own beginning.
        let opened = if published.leads {
            from.signed.open::<Heartbeat>(&node.key, purposes::HEARTBEAT)
        } else {
            from.signed.peek()
        };
        let Ok(heartbeat) = opened else {
            tracing::debug!(node = %from.node, "ignored a heartbeat that its node did not sign");
            continue;
        };
        if heartbeat.node != from.node || heartbeat.fleet != handle.identity().fleet {
            continue;
        }
        let (signed, now) = (from.signed, handle.now());
        handle.0.statements.keep(&published.state, &from.node, heartbeat.time, signed, now, published.leads);
        if !published.leads {
            continue;
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).insert(from.node.clone(), Instant::now());
        let current = published.state.assignment_seq(&node.name);
        if is_behind(&heartbeat.applied, current) && offers.is_due(&node.name, current.1) {
            publish(&handle, &published.state, node).await;
        }
    }
    Ok(())
}

fn is_behind(applied: &AssignmentVersion, current: (u64, Seq)) -> bool {
    current.1 > 0 && (applied.epoch, applied.seq) != current
}

/// Gives nodes their assignment when they ask.
pub(crate) async fn sync_requests(handle: Handle) -> anyhow::Result<()> {
    let mut requests = handle.bus().sync_requests().await?;
    while let Some(request) = requests.next().await {
        match request {
            Ok((signed, reply)) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer_sync(&handle, &signed, reply).await {
                        tracing::debug!(error = %format!("{error:#}"), "a sync request was not answered");
                    }
                });
            }
            Err(error) => tracing::debug!(%error, "ignored what is no sync request"),
        }
    }
    Ok(())
}

async fn answer_sync(handle: &Handle, signed: &Signed, reply: SyncReply) -> anyhow::Result<()> {
    let claimed: SyncRequest = signed.peek()?;
    let state = handle.published().state;
    let node = state
        .control
        .nodes
        .get(&claimed.node)
        .ok_or_else(|| anyhow::anyhow!("{} is no node of this fleet", claimed.node))?;
    let request: SyncRequest = signed.open(&node.key, purposes::SYNC)?;
    let current = state.assignment_version(&node.name);
    if current.seq == 0 {
        reply.send(None).await?;
        return Ok(());
    }
    // A controller that lags behind the node has nothing for it.
    if (request.applied.epoch, request.applied.seq) > (current.epoch, current.seq) {
        reply.send(None).await?;
        return Ok(());
    }
    let images = handle.image_policy(&state, &node.name).await;
    // Who cannot say what to keep has nothing new to say about it.
    let says_nothing = images.keep.is_none() || request.images == Some(images.digest());
    if request.applied == current && says_nothing {
        reply.send(None).await?;
        return Ok(());
    }
    let assignment = assignment(handle, &state, node, images).await?;
    reply.send(Some(&assignment)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn several_changes_go_together_to_a_node_with_much_to_run() {
        let (offers, node) = (Offers::default(), "eu-1".parse().unwrap());
        let to = std::sync::Arc::new(stele_model::state::AssignedTo {
            revision: stele_model::Revision {
                release: stele_model::Digest::EMPTY,
                config: None,
                secrets: BTreeMap::new(),
            },
            spec: stele_model::Digest::EMPTY,
            replaces: None,
            since: stele_model::Time(0),
        });
        let of = |changed, count: u64| {
            let id = |serial| format!("shop/web@prod/web.0-{serial}").parse().unwrap();
            let instances = (0..count).map(|serial| (id(serial), std::sync::Arc::clone(&to))).collect();
            Assigned { changed, instances }
        };
        let began = Instant::now();
        assert_eq!(offers.turn(&node, &of(1, 100), began), Turn::Now);
        assert_eq!(offers.turn(&node, &of(1, 100), began), Turn::Never);
        let rested = began + ASSIGNMENT_REST_PER_INSTANCE * 100;
        assert_eq!(offers.turn(&node, &of(2, 100), began), Turn::At(rested));
        assert_eq!(offers.turn(&node, &of(3, 100), rested), Turn::Now);
        // A node with nothing to look through waits for nothing, one with very much not for ever.
        assert_eq!(offers.turn(&node, &of(4, 0), rested), Turn::Now);
        let longest = Turn::At(rested + ASSIGNMENT_REST_MAX);
        assert_eq!(offers.turn(&node, &of(5, 1000), rested), longest);
    }
}
