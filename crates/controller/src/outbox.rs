//! From committed State to the nodes: signed assignments, published when they
//! change, offered again to nodes that are behind, and given to those that ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use stele_bus::{Audience, SyncReply, purposes};
use stele_model::event::EnrolledNode;
use stele_model::signature::PublicKey;
use stele_model::state::Assigned;
use stele_model::wire::{
    Assignment, AssignmentVersion, Heartbeat, ImagePolicy, Position, Signed, SyncRequest,
};
use stele_model::{NodeName, Seq, State};
use tokio::sync::watch;

use crate::app::Published;
use crate::handle::Handle;
use crate::identity::Identity;
use crate::limits::{
    ASSIGNMENT_REST_MAX, ASSIGNMENT_REST_PER_INSTANCE, ASSIGNMENTS_HELD_MAX, ASSIGNMENTS_PER_TURN,
    RESEND_INTERVAL, RESEND_INTERVAL_MAX,
};
use crate::sizes::{Sizes, bytes_at_least};

/// When each node was last heard of, by this controller.
pub(crate) type Heard = Arc<Mutex<BTreeMap<NodeName, Instant>>>;

/// The assignment a node was sent last.
#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: Seq,
    at: Instant,
    /// How often it was sent again.
    again: u32,
}

impl Sent {
    fn first(seq: Seq, at: Instant) -> Self {
        Self { seq, at, again: 0 }
    }

    /// When it may be sent again. A node that is slow is not made faster by being told the same ever again:
    /// it would have to verify each.
    fn due_again(&self) -> Instant {
        self.at + RESEND_INTERVAL.saturating_mul(1 << self.again.min(16)).min(RESEND_INTERVAL_MAX)
    }
}

/// What each node was sent last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offers(Arc<Mutex<BTreeMap<NodeName, Sent>>>);

impl Offers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an assignment is to be sent to a node that does not have it; notes that it is. Right after
    /// it was sent, a node that is behind only has not said so yet; and while more is to be assigned, what
    /// was not sent yet goes together with that.
    fn is_due(&self, node: &NodeName, seq: Seq, assigns_more: bool, now: Instant) -> bool {
        let mut all = self.lock();
        let sent = match all.get(node) {
            Some(sent) if sent.seq == seq => {
                if sent.due_again() > now {
                    return false;
                }
                Sent { seq, at: now, again: sent.again.saturating_add(1) }
            }
            _ if assigns_more => return false,
            _ => Sent::first(seq, now),
        };
        all.insert(node.clone(), sent);
        true
    }

    /// It could not be sent for now, which says nothing about how slow the node is.
    fn not_sent(&self, node: &NodeName) {
        if let Some(sent) = self.lock().get_mut(node) {
            sent.again = 0;
        }
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
        if let Some(last) = sent.get(node) {
            if last.seq == assigned.changed {
                return Turn::Never;
            }
            let instances = u32::try_from(assigned.instances.len()).unwrap_or(u32::MAX);
            let rest = ASSIGNMENT_REST_PER_INSTANCE.saturating_mul(instances).min(ASSIGNMENT_REST_MAX);
            let rested = last.at + rest;
            if rested > now {
                return Turn::At(rested);
            }
        }
        sent.insert(node.clone(), Sent::first(assigned.changed, now));
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

/// A node's assignment, without what fills it.
pub(crate) fn empty_assignment(
    identity: &Identity,
    node: &NodeName,
    version: AssignmentVersion,
    images: Option<ImagePolicy>,
) -> Assignment {
    Assignment {
        fleet: identity.fleet.clone(),
        node: node.clone(),
        version,
        instances: Vec::new(),
        keys: Vec::new(),
        images,
        controller: identity.certificate.clone(),
    }
}

/// The signed assignment of a node, from committed State.
async fn assignment(
    handle: &Handle,
    state: &State,
    node: &EnrolledNode,
    images: ImagePolicy,
) -> anyhow::Result<Signed> {
    let identity = handle.identity();
    let version = state.assignment_version(&node.name);
    let mut assignment = empty_assignment(identity, &node.name, version, Some(images));
    let (mut bytes, max) = (0, handle.bus().assignment_bytes_max());
    for instance in state.assigned_instances(&node.name) {
        let instance = instance.map_err(|why| anyhow::anyhow!(why))?;
        bytes += bytes_at_least(&instance.spec);
        // What cannot be sent is not made: it may be a hundred times as large as what can, and memory is everybody's.
        if bytes > max {
            let rest = empty_assignment(identity, &node.name, version, assignment.images.clone());
            handle.bus().check_assignment(Sizes::default().of(state, &rest).max(bytes))?;
        }
        assignment.instances.push(instance);
    }
    let containers = assignment.instances.iter().map(|instance| &instance.spec.container);
    assignment.keys = handle.wrapped_keys(containers, node).await?;
    Ok(identity.sign(purposes::ASSIGNMENT, &assignment))
}

/// Whether nothing helps but another assignment, or another NATS server.
fn is_too_large(error: &anyhow::Error) -> bool {
    use stele_bus::Error::{ServerPayload, TooLarge};
    matches!(error.downcast_ref(), Some(TooLarge { .. } | ServerPayload { .. }))
}

async fn publish(handle: &Handle, offers: &Offers, state: &State, node: &EnrolledNode) {
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
        // What is too large is so again: it is offered as seldom as to a node that is slow.
        if !is_too_large(&error) {
            offers.not_sent(&node.name);
        }
    }
}

/// What is published, once no more is about to be assigned, or when that has lasted for a while. Of a fleet that is
/// rolled back, app after app changes on the same nodes: that is one assignment for each of them, and not one for
/// each app. `since` is when it began, for the next call.
async fn settled(
    follow: &mut watch::Receiver<Published>,
    since: &mut Option<tokio::time::Instant>,
) -> Option<Published> {
    loop {
        let published = follow.borrow_and_update().clone();
        if !(published.leads && published.assigns_more) {
            *since = None;
            return Some(published);
        }
        let now = tokio::time::Instant::now();
        let until = *since.get_or_insert(now) + ASSIGNMENTS_HELD_MAX;
        if now >= until {
            return Some(published);
        }
        tokio::select! {
            ended = follow.changed() => ended.ok()?,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Publishes what changed, while this controller leads.
pub(crate) async fn run(handle: Handle, offers: Offers) {
    let mut follow = handle.follow();
    let mut led = false;
    let mut last = State::default();
    // Thousands may wait for their turn: only those whose turn it is are looked at.
    let mut waiting: BTreeSet<(Instant, NodeName)> = BTreeSet::new();
    let mut held_since = None;
    while let Some(published) = settled(&mut follow, &mut held_since).await {
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
        let mut newest = published.state.clone();
        for (at, name) in changed.into_iter().enumerate() {
            // There may be thousands, and others have work to do on this thread. Not after each one: who waits
            // for its assignment is worse off than who waits for an acknowledgement.
            if at % ASSIGNMENTS_PER_TURN == ASSIGNMENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
                // What has changed meanwhile goes along.
                newest = handle.published().state;
            }
            let Some(assigned) = newest.assigned.get(&name) else { continue };
            let Some(node) = newest.control.nodes.get(&name) else { continue };
            match offers.turn(&name, assigned, Instant::now()) {
                Turn::Now => publish(&handle, &offers, &newest, node).await,
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
            ended = follow.changed() => {
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
    let mut order = Order::default();
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
        let (signed, now, position) = (from.signed, handle.now(), heartbeat.position());
        let statements = &handle.0.statements;
        if published.leads {
            let known = || statements.position(&published.state, node);
            if !order.is_news(&published, node, position, known) {
                tracing::debug!(node = %from.node, "ignored a heartbeat that was sent before");
                continue;
            }
        }
        statements.keep(&published.state, node, position, signed, now, published.leads);
        if !published.leads {
            continue;
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).insert(from.node.clone(), Instant::now());
        let current = published.state.assignment_seq(&node.name);
        if heartbeat.applied.is_behind(current)
            && offers.is_due(&node.name, current.1, published.assigns_more, Instant::now())
        {
            publish(&handle, &offers, &published.state, node).await;
        }
    }
    Ok(())
}

/// Which heartbeats are news to the leader of a term: whoever sends old ones again does not make a node that is gone
/// seem alive.
#[derive(Default)]
struct Order {
    term: u64,
    /// The last one of each node's key that counted in this term.
    last: BTreeMap<PublicKey, Position>,
}

impl Order {
    /// Notes a heartbeat, unless it is not after the last one. `known` is the last one from before this term.
    fn is_news(
        &mut self,
        published: &Published,
        node: &EnrolledNode,
        position: Option<Position>,
        known: impl FnOnce() -> Option<Position>,
    ) -> bool {
        if self.term != published.term {
            *self = Self { term: published.term, ..Self::default() };
        }
        let last = self.last.get(&node.key).copied().or_else(known);
        // Agents that do not count theirs are believed until they do.
        let Some(position) = position else { return last.is_none() };
        let reported = published.state.observed.get(&node.name);
        let reported = reported.map(|seen| Position { boot: seen.boot, number: 0 });
        if [last, reported].into_iter().flatten().any(|earlier| !position.is_after(earlier)) {
            return false;
        }
        self.last.insert(node.key.clone(), position);
        let nodes = &published.state.control.nodes;
        if self.last.len() > nodes.len() {
            let keys: BTreeSet<_> = nodes.values().map(|node| &node.key).collect();
            self.last.retain(|key, _| keys.contains(key));
        }
        true
    }
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
    fn a_heartbeat_that_was_sent_before_is_no_sign_of_life() {
        let node = |key: &str| EnrolledNode {
            name: "eu-1".parse().unwrap(),
            region: "eu".parse().unwrap(),
            labels: BTreeMap::new(),
            key: PublicKey(key.to_owned()),
            sealing_key: String::new(),
            address: None,
        };
        let mut published = published(1, false);
        let at = |boot, number| Some(Position { boot, number });
        let mut order = Order::default();
        let mut news = |published: &Published, key: &str, position, known| {
            let mut published = published.clone();
            published.state.control.nodes.insert(node(key).name, Arc::new(node(key)));
            order.is_news(&published, &node(key), position, || known)
        };
        assert!(news(&published, "a", None, None), "an agent that does not count them");
        assert!(news(&published, "a", at(5, 1), None));
        assert!(!news(&published, "a", at(5, 1), None));
        assert!(!news(&published, "a", at(4, 7), None));
        assert!(!news(&published, "a", None, None), "its agent counts them");
        assert!(news(&published, "a", at(5, 2), None));
        assert!(news(&published, "b", at(1, 1), None), "it joined anew, with another key");
        // The next leader has heard some of them, too.
        published.term += 1;
        assert!(!news(&published, "a", at(5, 2), at(5, 2)));
        assert!(news(&published, "a", at(5, 3), at(5, 2)));
        // What was reported since is known to all.
        let seen = stele_model::state::Observed { boot: 6, ..Default::default() };
        published.state.observed.insert(node("a").name, seen);
        assert!(!news(&published, "a", at(5, 4), None));
        assert!(news(&published, "a", at(6, 1), None));
    }

    fn published(seq: u64, assigns_more: bool) -> Published {
        let mut state = State::default();
        state.seq = seq;
        Published { state, leads: true, leader: Some(1), term: 1, assigns_more }
    }

    #[tokio::test(start_paused = true)]
    async fn assignments_wait_for_those_of_further_apps_and_not_for_ever() {
        let (publish, mut follow) = watch::channel(published(0, true));
        let (began, mut since) = (tokio::time::Instant::now(), None);
        let half = ASSIGNMENTS_HELD_MAX / 2;
        let rest = async {
            tokio::time::sleep(half).await;
            publish.send_replace(published(1, true));
            publish.send_replace(published(2, false));
        };
        let (got, ()) = tokio::join!(settled(&mut follow, &mut since), rest);
        assert_eq!((got.unwrap().state.seq, began.elapsed()), (2, half));
        // It goes on and on: that is waited for once.
        publish.send_replace(published(3, true));
        for _ in 0..3 {
            assert_eq!(settled(&mut follow, &mut since).await.unwrap().state.seq, 3);
            assert_eq!(began.elapsed(), half + ASSIGNMENTS_HELD_MAX);
        }
        // Who does not lead sends nothing, and is not waited for.
        publish.send_replace(Published { leads: false, ..published(4, true) });
        assert_eq!(settled(&mut follow, &mut since).await.unwrap().state.seq, 4);
        publish.send_replace(published(5, true));
        drop(publish);
        assert!(settled(&mut follow, &mut since).await.is_none(), "nobody publishes any more");
        assert_eq!(began.elapsed(), half + ASSIGNMENTS_HELD_MAX);
    }

    #[test]
    fn a_node_that_is_behind_is_sent_the_same_ever_less_often() {
        let (offers, node) = (Offers::default(), "eu-1".parse().unwrap());
        let mut now = Instant::now();
        assert!(!offers.is_due(&node, 7, true, now), "it goes with what is to be assigned");
        assert!(offers.is_due(&node, 7, false, now));
        let pauses = [1, 2, 4, 4].map(|times| RESEND_INTERVAL * times);
        assert_eq!(pauses[3], RESEND_INTERVAL_MAX);
        for pause in pauses {
            assert!(!offers.is_due(&node, 7, true, now + pause / 2), "{pause:?}");
            now += pause;
            assert!(offers.is_due(&node, 7, true, now), "{pause:?}");
        }
        offers.not_sent(&node);
        assert!(
            offers.is_due(&node, 7, true, now + RESEND_INTERVAL),
            "it did not come because it was not sent"
        );
        assert!(offers.is_due(&node, 8, false, now), "that is another one");
        assert!(offers.is_due(&node, 8, false, now + RESEND_INTERVAL), "which counts from its own beginning");
    }

    #[test]
    fn what_is_too_large_is_told_apart_from_what_cannot_be_sent_for_now() {
        let too_large = stele_bus::Error::TooLarge { what: "an assignment", bytes: 2, max: 1 };
        let server = stele_bus::Error::ServerPayload { what: "an assignment", bytes: 2, max: 1, wanted: 3 };
        assert!(is_too_large(&too_large.into()) && is_too_large(&server.into()));
        assert!(!is_too_large(&stele_bus::Error::Disconnected.into()));
        assert!(!is_too_large(&anyhow::anyhow!("a data key is not there")));
    }

    #[test]
    fn several_changes_go_together_to_a_node_with_much_to_run() {
        let (offers, node) = (Offers::default(), "eu-1".parse().unwrap());
        let to = std::sync::Arc::new(stele_model::state::AssignedTo {
            revision: Arc::new(stele_model::Revision {
                release: stele_model::Digest::EMPTY,
                config: None,
                secrets: stele_model::FlatMap::new(),
            }),
            spec: stele_model::Digest::EMPTY.into(),
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
