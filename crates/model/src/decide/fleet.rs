//! The fleet itself: controllers, tokens, nodes, refusals.

use std::collections::{BTreeMap, BTreeSet};

use super::rollout::placement_changes;
use super::{SYSTEM, validate};
use crate::digest::Digest;
use crate::event::{EnrolledNode, Event, Holder, JoinToken, Role, Token};
use crate::ids::{ControllerId, FleetName, NodeName, PrincipalId, Time};
use crate::limits::{
    REFUSAL_WINDOW_US, REFUSALS_PER_WINDOW_MAX, TOKEN_LIFE_SECONDS_MAX, TOKEN_LIFE_SECONDS_MIN,
};
use crate::rejection::{Rejection, RejectionKind};
use crate::signature::{Certificate, PublicKey};
use crate::state::State;

/// On NATS, the public feed's subjects stand where a region's would.
const RESERVED_REGION: &str = "events";

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(RejectionKind::Invalid, message)
}

pub(super) fn create(
    state: &State,
    fleet: &FleetName,
    root: &PublicKey,
    admin: &Token,
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    if let Some(present) = &state.control.fleet {
        // The first leader may be asked twice when its answer got lost.
        if present.name == *fleet && present.root == *root {
            return Ok(Vec::new());
        }
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("this log is of fleet {} already", present.name),
        ));
    }
    check_admin(admin)?;
    check_expiry(admin.expires, now)?;
    Ok(vec![
        Event::FleetCreated { fleet: fleet.clone(), root: root.clone(), epoch: 1 },
        Event::TokenCreated { token: admin.clone() },
    ])
}

pub(super) fn certify(
    state: &State,
    certificate: &Certificate,
    api: &str,
    peer: &str,
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    let Some(fleet) = &state.control.fleet else {
        return Err(Rejection::new(RejectionKind::Conflict, "the fleet is not created yet"));
    };
    certificate
        .check(&fleet.root, &fleet.name, Some(now))
        .map_err(|error| invalid(format!("the controller's certificate is not valid: {error}")))?;
    let id = certificate.body.controller;
    if state.control.retired.contains(&id) {
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("controller id {id} was removed; an id is never used again"),
        )
        .with_next(format!("stele cluster add {}", next_controller_id(state))));
    }
    let same = state.control.controllers.get(&id).is_some_and(|present| {
        present.certificate == *certificate && present.api == api && present.peer == peer
    });
    if same {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ControllerCertified {
        certificate: certificate.clone(),
        api: api.to_owned(),
        peer: peer.to_owned(),
    }])
}

/// The lowest Raft id never used.
fn next_controller_id(state: &State) -> ControllerId {
    let control = &state.control;
    let newest = control.controllers.keys().chain(control.retired.iter()).max();
    newest.map_or(1, |id| id + 1)
}

pub(super) fn forget_controller(state: &State, controller: ControllerId) -> Result<Vec<Event>, Rejection> {
    if state.control.voters.contains(&controller) || state.control.learners.contains(&controller) {
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("controller {controller} is still a member"),
        )
        .with_next(format!("stele cluster remove {controller}")));
    }
    if !state.control.controllers.contains_key(&controller) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ControllerRemoved { controller }])
}

/// Goes on with one controller's log, without all others: the fleet's next incarnation.
pub(super) fn recover(
    state: &State,
    controller: ControllerId,
    given_up: &[ControllerId],
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    let control = &state.control;
    let Some(fleet) = &control.fleet else {
        return Err(Rejection::new(RejectionKind::Conflict, "the fleet is not created yet"));
    };
    let given_up: BTreeSet<ControllerId> = given_up.iter().copied().collect();
    if control.retired.contains(&controller) || given_up.contains(&controller) {
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("controller {controller} is no member of the fleet any more"),
        ));
    }
    // One that stayed a member could decide, too, and nobody would know whose word counts.
    let members = control.voters.iter().chain(&control.learners);
    if let Some(left) = members.copied().find(|id| *id != controller && !given_up.contains(id)) {
        return Err(invalid(format!("controller {left} is a member, and is not given up")));
    }
    let Some(next) = fleet.epoch.checked_add(1) else {
        return Err(invalid("there is no epoch after the last one"));
    };
    // Another copy of this log may have gone on, or this one before: nodes follow the one that does so last.
    let epoch = if planted!(EpochKept) { fleet.epoch } else { next.max(now.0 / 1_000_000) };
    let forgotten = given_up.iter().filter(|id| control.controllers.contains_key(*id));
    let forgotten: Vec<_> = forgotten.map(|id| Event::ControllerRemoved { controller: *id }).collect();
    let given_up = given_up.into_iter().collect();
    let mut events = vec![Event::FleetRecovered { epoch, controller, given_up }];
    events.extend(forgotten);
    Ok(events)
}

fn check_expiry(expires: Time, now: Time) -> Result<(), Rejection> {
    let life = expires.0.saturating_sub(now.0) / 1_000_000;
    // A second of grace: the caller computed the end by its own clock.
    if life + 1 < TOKEN_LIFE_SECONDS_MIN || life > TOKEN_LIFE_SECONDS_MAX + 1 {
        return Err(invalid(format!(
            "a token lives between {TOKEN_LIFE_SECONDS_MIN} seconds and {} days",
            TOKEN_LIFE_SECONDS_MAX / 86_400
        )));
    }
    Ok(())
}

fn check_admin(token: &Token) -> Result<(), Rejection> {
    if token.role != Role::Admin || token.holder != Holder::Person {
        return Err(invalid("it must be the token of a person who administers the fleet"));
    }
    Ok(())
}

/// Those who can administer the fleet.
fn admins(state: &State, now: Time) -> impl Iterator<Item = &Token> {
    let tokens = state.control.tokens.values();
    tokens.filter(move |token| token.role == Role::Admin && token.expires > now)
}

/// Whether somebody else can still administer the fleet.
fn has_other_admin(state: &State, principal: &PrincipalId, now: Time) -> bool {
    admins(state, now).any(|token| token.principal != *principal)
}

/// Tokens end, and only an administrator makes another. While one is valid, nobody gets around them.
pub(super) fn restore_admin(state: &State, token: &Token, now: Time) -> Result<Vec<Event>, Rejection> {
    if state.control.fleet.is_none() {
        return Err(Rejection::new(RejectionKind::Conflict, "the fleet is not created yet"));
    }
    if admins(state, now).next().is_some() {
        return Ok(Vec::new());
    }
    check_admin(token)?;
    create_token(state, token, now)
}

fn last_admin(principal: &PrincipalId) -> Rejection {
    Rejection::new(
        RejectionKind::Conflict,
        format!("{principal} is the last administrator: without one nobody could create a token again"),
    )
    .with_next("stele token create NAME --role admin")
}

pub(super) fn create_token(state: &State, token: &Token, now: Time) -> Result<Vec<Event>, Rejection> {
    if token.principal.as_str() == SYSTEM {
        return Err(invalid(format!("{SYSTEM} is the controllers' own name")));
    }
    check_expiry(token.expires, now)?;
    let was_admin =
        state.control.tokens.get(&token.principal).is_some_and(|present| present.role == Role::Admin);
    if was_admin && token.role != Role::Admin && !has_other_admin(state, &token.principal, now) {
        return Err(last_admin(&token.principal));
    }
    Ok(vec![Event::TokenCreated { token: token.clone() }])
}

pub(super) fn revoke_token(
    state: &State,
    principal: &PrincipalId,
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    let Some(token) = state.control.tokens.get(principal) else {
        return Err(Rejection::new(RejectionKind::NotFound, format!("{principal} has no token"))
            .with_next("stele token list"));
    };
    if token.role == Role::Admin && !has_other_admin(state, principal, now) {
        return Err(last_admin(principal));
    }
    Ok(vec![Event::TokenRevoked { principal: principal.clone() }])
}

pub(super) fn create_join_token(
    state: &State,
    token: &JoinToken,
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    check_expiry(token.expires, now)?;
    validate::validate_labels(&token.labels)?;
    if token.region.as_str() == RESERVED_REGION {
        return Err(invalid(format!(
            "a region cannot be named {RESERVED_REGION}: that is the public feed's place"
        )));
    }
    if let Some(node) = &token.node
        && state.control.nodes.contains_key(node)
    {
        return Err(Rejection::new(RejectionKind::Conflict, format!("node {node} is of the fleet already"))
            .with_next(format!("stele node show {node}")));
    }
    Ok(vec![Event::JoinTokenCreated { token: token.clone() }])
}

pub(super) fn enroll(
    state: &State,
    join_token: &Digest,
    node: &EnrolledNode,
    now: Time,
) -> Result<Vec<Event>, Rejection> {
    let forbidden = |message: &str| {
        Rejection::new(RejectionKind::Forbidden, message).with_next("stele node token --region REGION")
    };
    if let Some(present) = state.control.nodes.get(&node.name) {
        // The same node asking again, because the first answer got lost.
        if present.key == node.key && !state.control.join_tokens.contains_key(join_token) {
            return Ok(Vec::new());
        }
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("node {} is of the fleet already, with another key", node.name),
        )
        .with_next(format!("stele node remove {}", node.name)));
    }
    let token = state
        .control
        .join_tokens
        .get(join_token)
        .ok_or_else(|| forbidden("the join token is not known, or was used already"))?;
    if token.expires <= now {
        return Err(forbidden("the join token has expired"));
    }
    if token.node.as_ref().is_some_and(|name| *name != node.name) {
        return Err(forbidden("the join token is for another node name"));
    }
    let node = EnrolledNode { region: token.region.clone(), labels: token.labels.clone(), ..node.clone() };
    Ok(vec![Event::NodeEnrolled { node, join_token: *join_token }])
}

fn known_node<'a>(state: &'a State, node: &NodeName) -> Result<&'a EnrolledNode, Rejection> {
    state.control.nodes.get(node).map(AsRef::as_ref).ok_or_else(|| {
        Rejection::new(RejectionKind::NotFound, format!("there is no node {node}"))
            .with_next("stele node list")
    })
}

pub(super) fn label(
    state: &State,
    node: &NodeName,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<Event>, Rejection> {
    validate::validate_labels(labels)?;
    if known_node(state, node)?.labels == *labels {
        return Ok(Vec::new());
    }
    Ok(vec![Event::NodeLabelled { node: node.clone(), labels: labels.clone() }])
}

pub(super) fn drain(state: &State, node: &NodeName) -> Result<Vec<Event>, Rejection> {
    known_node(state, node)?;
    if state.is_drained(node) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::NodeDrained { node: node.clone() }])
}

pub(super) fn resume(state: &State, node: &NodeName) -> Result<Vec<Event>, Rejection> {
    known_node(state, node)?;
    if !state.is_drained(node) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::NodeResumed { node: node.clone() }])
}

pub(super) fn remove_node(state: &State, node: &NodeName) -> Result<Vec<Event>, Rejection> {
    known_node(state, node)?;
    let mut events = Vec::new();
    // Its instances go with it: whoever places them again must find the slots free. Only where places of an app are
    // pinned do its slots say how many are to be placed elsewhere, so that those stay until they are.
    let mut apps: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (slot, _) in state.target.placement.iter().filter(|(_, on)| *on == node) {
        let app_env = &slot.app_env;
        let is_counted = state.pins(app_env).next().is_some() && state.pin_at(app_env, node).is_none();
        if !is_counted {
            apps.entry(app_env.clone()).or_default().push((slot.clone(), None));
        }
    }
    for (app_env, slots) in apps {
        events.extend(placement_changes(&app_env, &slots));
    }
    events.push(Event::NodeRemoved { node: node.clone() });
    Ok(events)
}

pub(super) fn record_refusal(
    state: &State,
    principal: &PrincipalId,
    action: &str,
    scope: &str,
    why: &str,
    now: Time,
) -> Vec<Event> {
    let known = state.control.refusals.get(principal);
    let in_window = known.is_some_and(|refusals| now.0.saturating_sub(refusals.since.0) <= REFUSAL_WINDOW_US);
    if in_window && known.is_some_and(|refusals| refusals.logged >= REFUSALS_PER_WINDOW_MAX) {
        return Vec::new();
    }
    vec![Event::Refused { action: action.to_owned(), scope: scope.to_owned(), why: why.to_owned() }]
}
