//! From the nodes to the log: reports, batched and acknowledged after commit, and
//! who has not been heard of.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use stele_bus::{Ack, Audience, FromNode, purposes};
use stele_ledger::system_request;
use stele_model::state::Observed;
use stele_model::wire::{Position, Report, ReportAck};
use stele_model::{Command, NodeName, RejectionKind, State};
use tokio::sync::Semaphore;

use crate::handle::{Handle, SubmitError};
use crate::limits::{
    HOUSEKEEPING_INTERVAL, NODE_GRACE, REPORT_BATCH_WINDOW, REPORT_BATCHES_IN_FLIGHT_MAX,
    REPORTED_INSTANCES_PER_BATCH_MAX, REPORTS_PER_BATCH_MAX,
};
use crate::outbox::Heard;
use crate::replica::Input;

/// Takes reports, has them decided in batches, and acknowledges what committed.
pub(crate) async fn reports(handle: Handle) -> anyhow::Result<()> {
    let mut reports = handle.bus().reports(Audience::One).await?;
    // Batches grow while controllers are busy: a record of many reports costs them less than many records.
    let deciding = Arc::new(Semaphore::new(REPORT_BATCHES_IN_FLIGHT_MAX));
    while let Some(first) = reports.next().await {
        let mut batch = Vec::new();
        batch.extend(verified(&handle, first));
        let mut instances = instances_of(&batch);
        let window_and_turn = async {
            tokio::time::sleep(REPORT_BATCH_WINDOW).await;
            Arc::clone(&deciding).acquire_owned().await
        };
        let mut window_and_turn = std::pin::pin!(window_and_turn);
        let turn = loop {
            let has_room =
                batch.len() < REPORTS_PER_BATCH_MAX && instances < REPORTED_INSTANCES_PER_BATCH_MAX;
            tokio::select! {
                turn = &mut window_and_turn => break turn,
                next = reports.next(), if has_room => {
                    let Some(next) = next else { break Arc::clone(&deciding).acquire_owned().await };
                    let next = verified(&handle, next);
                    instances += instances_of(next.as_slice());
                    batch.extend(next);
                }
            }
        };
        if !batch.is_empty() {
            let handle = handle.clone();
            tokio::spawn(async move {
                decide(handle, batch).await;
                drop(turn);
            });
        }
    }
    Ok(())
}

fn instances_of(batch: &[(Report, Ack)]) -> usize {
    batch.iter().map(|(report, _)| report.instances.len()).sum()
}

/// A report whose signature is its node's.
fn verified(handle: &Handle, received: Result<(FromNode, Ack), stele_bus::Error>) -> Option<(Report, Ack)> {
    let (from, ack) = match received {
        Ok(received) => received,
        Err(error) => {
            tracing::debug!(%error, "ignored what is no report");
            return None;
        }
    };
    let state = handle.published().state;
    let node = state.control.nodes.get(&from.node)?;
    let report = match from.signed.open::<Report>(&node.key, purposes::REPORT) {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(node = %from.node, %error, "ignored a report that is not its node's");
            return None;
        }
    };
    (report.node == from.node && report.fleet == handle.identity().fleet).then_some((report, ack))
}

async fn decide(handle: Handle, batch: Vec<(Report, Ack)>) {
    let (reports, acks): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    // At most one report per node in a record: the newest says all the others said.
    let mut newest: BTreeMap<NodeName, Report> = BTreeMap::new();
    for report in &reports {
        let known = newest.get(&report.node);
        if known.is_none_or(|known| report.position().is_after(known.position())) {
            newest.insert(report.node.clone(), report.clone());
        }
    }
    let submitted: BTreeMap<_, _> =
        newest.iter().map(|(node, report)| (node.clone(), report.position())).collect();
    let command = Command::Report { reports: newest.into_values().collect() };
    match handle.submit(system_request(command)).await {
        Ok(_) => {}
        // Together they are too much for one record; one that is too much alone harms no other.
        Err(SubmitError::Rejected(rejection))
            if rejection.kind == RejectionKind::TooLarge && reports.len() > 1 =>
        {
            let mut batch: Vec<_> = reports.into_iter().zip(acks).collect();
            let rest = batch.split_off(batch.len() / 2);
            Box::pin(decide(handle.clone(), batch)).await;
            Box::pin(decide(handle, rest)).await;
            return;
        }
        Err(error) => {
            // Not acknowledged, they are sent again.
            tracing::warn!(%error, "reports were not committed");
            return;
        }
    }
    let identity = handle.identity();
    let observed = handle.published().state.observed;
    for (report, ack) in reports.into_iter().zip(acks) {
        let at = report.position();
        let covered = submitted.get(&report.node);
        if !covered.is_some_and(|covered| covered.boot == at.boot && at.number <= covered.number) {
            continue;
        }
        // Of an earlier boot than one that is known it was passed over: the node hears which one that is.
        let known = observed.get(&report.node).map(Observed::position);
        let known = known.filter(|known| known.boot != at.boot && !at.is_after(*known));
        let Position { boot, number } = known.unwrap_or(at);
        let controller = identity.certificate.clone();
        let told = ReportAck { node: report.node, boot, number, controller };
        if let Err(error) = ack.send(&identity.sign(purposes::REPORT_ACK, &told)).await {
            tracing::debug!(%error, "an acknowledgement was not sent; the report will come again");
        }
    }
}

/// When nodes reported last, as far as this controller saw it happen. That is a sign of life like a heartbeat, which
/// nodes put off meanwhile. The boot and the number of each node's last report, and when they were seen to change.
#[derive(Default)]
struct Reported(BTreeMap<NodeName, (u64, u64, Option<Instant>)>);

impl Reported {
    fn look(&mut self, state: &State, now: Instant) {
        if self.0.len() > state.observed.len() {
            self.0.retain(|node, _| state.observed.contains_key(node));
        }
        for (node, seen) in &state.observed {
            match self.0.get_mut(node) {
                Some((boot, number, _)) if (*boot, *number) == (seen.boot, seen.number) => {}
                Some(last) => *last = (seen.boot, seen.number, Some(now)),
                // It may have been long ago.
                None => drop(self.0.insert(node.clone(), (seen.boot, seen.number, None))),
            }
        }
    }

    fn at(&self, node: &NodeName) -> Option<Instant> {
        self.0.get(node).and_then(|(_, _, at)| *at)
    }
}

/// Nodes that fell silent, and lost ones that were heard again, since when it counts.
fn lost_and_returned(
    state: &State,
    since: Instant,
    known: &BTreeMap<NodeName, Instant>,
    heartbeats: &BTreeMap<NodeName, Instant>,
    reported: &Reported,
) -> (Vec<NodeName>, Vec<NodeName>) {
    let now = Instant::now();
    let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= NODE_GRACE;
    let is_heard = |node: &NodeName| {
        let heard = heartbeats.get(node).copied().max(reported.at(node));
        heard.is_some_and(|at| at >= since && is_recent(&at))
    };
    let (mut lost, mut returned) = (Vec::new(), Vec::new());
    // Of a large fleet nearly all have just been heard: what State says is asked of the others alone, and
    // of those it calls lost.
    for (node, joined) in known {
        if is_heard(node) || is_recent(&since) || is_recent(joined) {
            continue;
        }
        if state.observed.get(node).is_none_or(|seen| !seen.lost) {
            lost.push(node.clone());
        }
    }
    for (node, seen) in &state.observed {
        if seen.lost && known.contains_key(node) && is_heard(node) {
            returned.push(node.clone());
        }
    }
    (lost, returned)
}

/// Marks nodes lost and returned, while this controller leads.
///
/// A new term and a restored connection to NATS give every node a full grace
/// period: not hearing says nothing while nobody could be heard. Who leads again may have slept.
pub(crate) async fn liveness(handle: Handle, heard: Heard) {
    let mut since = Instant::now();
    let mut listened = (false, 0, 0);
    // A node that has just joined has not had its time to be heard.
    let mut known: BTreeMap<NodeName, Instant> = BTreeMap::new();
    let mut known_of = State::default().control.nodes;
    let mut reported = Reported::default();
    let mut observed_of = State::default().observed;
    loop {
        tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
        let published = handle.published();
        let nodes = &published.state.control.nodes;
        if !known_of.ptr_eq(nodes) {
            known.retain(|node, _| nodes.contains_key(node));
            for node in nodes.keys() {
                known.entry(node.clone()).or_insert_with(Instant::now);
            }
            known_of = nodes.clone();
        }
        let connection = *handle.bus().connections().borrow();
        let listens = published.leads && connection.up;
        let listening = (listens, connection.count, published.term);
        if !listens || listened != listening {
            // Deadlines of rollouts do not count this time either. The replica's queue may be full; then it is told again.
            if published.leads && handle.push(Input::Deaf).is_err() {
                continue;
            }
            since = Instant::now();
            listened = listening;
            // When they came while nobody looked is not known.
            (reported, observed_of) = (Reported::default(), State::default().observed);
            continue;
        }
        if !observed_of.ptr_eq(&published.state.observed) {
            reported.look(&published.state, Instant::now());
            observed_of = published.state.observed.clone();
        }
        let (lost, returned) = {
            let last = heard.lock().unwrap_or_else(PoisonError::into_inner);
            lost_and_returned(&published.state, since, &known, &last, &reported)
        };
        if lost.is_empty() && returned.is_empty() {
            continue;
        }
        let command = Command::MarkNodes { lost, returned };
        if let Err(error) = handle.submit(system_request(command)).await {
            tracing::debug!(%error, "nodes were not marked; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node() -> NodeName {
        "eu-1".parse().unwrap()
    }

    fn state(number: u64, lost: bool) -> State {
        let mut state = State::default();
        state.observed.insert(node(), Observed { boot: 1, number, lost, ..Observed::default() });
        state
    }

    /// What is said of a node that joined long ago and sent no heartbeat since `since`.
    fn judged(state: &State, since: Instant, reported: &Reported) -> (bool, bool) {
        let known = BTreeMap::from([(node(), since)]);
        let (lost, returned) = lost_and_returned(state, since, &known, &BTreeMap::new(), reported);
        (!lost.is_empty(), !returned.is_empty())
    }

    #[test]
    fn a_report_is_a_sign_of_life() {
        let now = Instant::now();
        let long_ago = now.checked_sub(2 * NODE_GRACE).unwrap();
        let mut reported = Reported::default();
        // What was reported before this controller looked says nothing of when.
        reported.look(&state(1, false), now);
        assert_eq!(judged(&state(1, false), long_ago, &reported), (true, false));
        assert_eq!(judged(&state(1, true), long_ago, &reported), (false, false), "it is called lost already");
        assert_eq!(judged(&state(1, false), now, &reported), (false, false), "it has its grace");
        reported.look(&state(2, false), long_ago);
        assert_eq!(judged(&state(2, false), long_ago, &reported), (true, false), "that was long ago");
        reported.look(&state(3, false), now);
        assert_eq!(judged(&state(3, false), long_ago, &reported), (false, false));
        assert_eq!(judged(&state(3, true), long_ago, &reported), (false, true), "it returned");
        reported.look(&State::default(), now);
        assert!(reported.0.is_empty(), "it was removed");
    }
}
