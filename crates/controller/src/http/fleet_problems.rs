//! What is wrong with the fleet itself: with its controllers, as the one that answers sees them now, and with the tokens
//! of its administrators.

use std::collections::BTreeMap;

use stele_api::wire::ProblemStatus;
use stele_model::event::{Contacts, Role};
use stele_model::state::Controller;
use stele_model::{ControllerId, Scope, Seq, State, Time};
use stele_peer::PeerStatus;
use stele_store::Space;

use super::limits::RANGES_NAMED;
use crate::disk_space;
use crate::handle::Handle;
use crate::limits::{CERTIFICATE_WARNING, TOKEN_WARNING};
use crate::when::{day, since_1970};

/// Records that a controller has not.
struct Missing {
    from: Seq,
    to: Seq,
    /// Whether no other controller has them either, as far as known.
    is_lost: bool,
}

/// What the controller that answers sees beside State.
pub(super) struct Seen {
    by: ControllerId,
    links: Vec<PeerStatus>,
    missing: Vec<Missing>,
    /// Whether it has a connection to NATS.
    reaches_nodes: bool,
    /// When the certificates for connections end that controllers showed.
    shown: BTreeMap<ControllerId, Time>,
    /// Where its log is, and how much room there is.
    disk: Option<(String, Space)>,
    now: Time,
}

impl Seen {
    // The replica's thread knows most of this better, and is busy with what matters more: status waits for neither it nor
    // another controller.
    pub(super) fn by(handle: &Handle) -> Self {
        let reader = handle.reader();
        let missing = reader.gaps().into_iter().map(|(from, to)| {
            let is_lost = handle.lost_from(from).is_some_and(|lost| lost >= to);
            Missing { from, to, is_lost }
        });
        Self {
            by: handle.id(),
            links: handle.peers().status(),
            missing: missing.collect(),
            reaches_nodes: handle.bus().connections().borrow().up,
            shown: handle.connections_until(),
            // Whoever cannot be asked is told of by the controller's own log.
            disk: reader.space().ok().map(|space| (reader.path().display().to_string(), space)),
            now: handle.now(),
        }
    }
}

/// What is wrong with the fleet now, and what could be done about it.
pub(super) fn fleet_problems(state: &State, seen: &Seen) -> Vec<ProblemStatus> {
    let mut problems = unconnected(state, seen);
    problems.extend(lacking(seen));
    problems.extend(deaf(seen));
    problems.extend(full_disk(seen));
    problems.extend(last_administrator(state, seen.now));
    problems.extend(certificates(state, &seen.shown, seen.now));
    problems
}

fn of_fleet(message: String, next: String) -> ProblemStatus {
    ProblemStatus {
        scope: Scope::fleet(),
        instance: None,
        node: None,
        message,
        since: None,
        contacts: Contacts::default(),
        log_tail: Vec::new(),
        next: Some(next),
    }
}

/// Members that the controller that answers has no connection to.
fn unconnected(state: &State, seen: &Seen) -> Vec<ProblemStatus> {
    let (voters, learners) = (&state.control.voters, &state.control.learners);
    let link = |id: &ControllerId| seen.links.iter().find(|link| link.id == *id);
    let is_there = |id: &ControllerId| *id == seen.by || link(id).is_some_and(|link| link.is_connected);
    let there = voters.iter().filter(|id| is_there(id)).count();
    let follows = match there.checked_sub(voters.len() / 2 + 1) {
        None => "without a majority, nothing can be changed".to_owned(),
        Some(0) => "no other may be lost, or nothing can be changed any more".to_owned(),
        Some(spare) => format!("{spare} more may be lost before nothing can be changed"),
    };
    let away = voters.iter().chain(learners.iter()).filter(|id| !is_there(id));
    let problem = |id: &ControllerId| {
        let why = match link(id) {
            None => "where it is is not known",
            Some(link) => link.last_error.as_deref().unwrap_or("not connected yet"),
        };
        let follows = if voters.contains(id) { follows.as_str() } else { "it does not vote" };
        let message = format!("controller {id} does not answer controller {}: {why}; {follows}", seen.by);
        of_fleet(message, "stele cluster status".to_owned())
    };
    away.map(problem).collect()
}

/// Records that the controller that answers has not.
fn lacking(seen: &Seen) -> Vec<ProblemStatus> {
    let told = |are_lost: bool| {
        let missing: Vec<_> = seen.missing.iter().filter(|missing| missing.is_lost == are_lost).collect();
        let named = missing.iter().take(RANGES_NAMED).map(|it| format!("{} to {}", it.from, it.to));
        let mut named: Vec<_> = named.collect();
        match missing.len().saturating_sub(RANGES_NAMED) {
            0 => {}
            more => named.push(format!("{more} more")),
        }
        (!named.is_empty()).then(|| named.join(", "))
    };
    let by = seen.by;
    let fetched = told(false).map(|ranges| {
        format!("controller {by} lacks records: {ranges}. It fetches them from the others, as far as they have them")
    });
    let lost = told(true).map(|ranges| format!("no controller has these records any more: {ranges}"));
    let messages = fetched.into_iter().chain(lost);
    messages.map(|message| of_fleet(message, "stele cluster status".to_owned())).collect()
}

/// That the controller that answers hears no node. While the leader does not, none is counted as lost for that.
fn deaf(seen: &Seen) -> Option<ProblemStatus> {
    let message = format!(
        "controller {} is not connected to NATS: while the leader is not, nodes are told nothing new, and which of them \
         are lost is not known",
        seen.by
    );
    let next = "see to NATS, and to the credentials for it in this controller's controller.json";
    (!seen.reaches_nodes).then(|| of_fleet(message, next.to_owned()))
}

fn full_disk(seen: &Seen) -> Option<ProblemStatus> {
    let (folder, space) = seen.disk.as_ref().filter(|(_, space)| disk_space::is_scarce(*space))?;
    let message = format!(
        "the disk of controller {} gets full: {}. It ends when it is: grow the volume, and delete nothing in {folder}",
        seen.by,
        disk_space::told(*space)
    );
    Some(of_fleet(message, format!("df -h {folder}")))
}

/// That soon nobody may do what only an administrator may, which is also to make one.
fn last_administrator(state: &State, now: Time) -> Option<ProblemStatus> {
    let soon = Time(now.0.saturating_add(since_1970(TOKEN_WARNING).0));
    let tokens = state.control.tokens.values().filter(|token| token.role == Role::Admin);
    let last = tokens.max_by_key(|token| token.expires)?;
    if last.expires > soon {
        return None;
    }
    let day = day(last.expires);
    if last.expires > now {
        let message = format!(
            "the last administrator's token ends on {day} (that of {}): afterwards nobody can make another, or let nodes \
             and controllers in",
            last.principal
        );
        return Some(of_fleet(message, "stele token create NAME --role admin".to_owned()));
    }
    let message = format!(
        "the last administrator's token ended on {day} (that of {}): who governs a controller's host can leave another \
         there, and start the controller again",
        last.principal
    );
    Some(of_fleet(message, "stele controller new-admin --config controller.json".to_owned()))
}

/// Controllers whose certificates end soon or have ended: those for their signatures as the log has them, those for
/// their connections as they were shown.
fn certificates(state: &State, shown: &BTreeMap<ControllerId, Time>, now: Time) -> Vec<ProblemStatus> {
    let soon = Time(now.0.saturating_add(since_1970(CERTIFICATE_WARNING).0));
    // Who was removed and is not forgotten yet must not be vouched for again.
    let controllers = state.control.controllers.iter().filter(|(id, _)| !state.control.retired.contains(*id));
    let problem = |(id, controller): (&ControllerId, &Controller)| {
        let signatures = Some(controller.certificate.body.not_after);
        let ends = [("signatures", signatures), ("connections", shown.get(id).copied())];
        let ends =
            ends.into_iter().filter_map(|(of, until)| Some((of, until.filter(|until| *until < soon)?)));
        let said: Vec<_> = ends
            .map(|(of, until)| {
                let ends = if until < now { "ended" } else { "ends" };
                format!("that for its {of} {ends} on {}", day(until))
            })
            .collect();
        (!said.is_empty()).then(|| {
            let message = format!(
                "controller {id} needs new certificates: {}. Without them it does not start, nodes do not believe it, \
                 and other controllers do not talk to it",
                said.join(", ")
            );
            let next = format!(
                "stele controller renew --config fleet/controller-{id}/controller.json --folder fleet --plan"
            );
            of_fleet(message, next)
        })
    };
    controllers.filter_map(problem).collect()
}

#[cfg(test)]
#[path = "fleet_problems_tests.rs"]
mod tests;
