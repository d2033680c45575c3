//! Between a controller and NATS: the controller's `outbox.rs` and `inbox.rs` without their tasks.

use std::collections::BTreeMap;
use std::rc::Rc;

use ed25519_dalek::SigningKey;
use stele_ledger::system_request;
use stele_model::signature::{Certificate, Purpose};
use stele_model::wire::{Assignment, Report, ReportAck, Signed, SyncRequest};
use stele_model::{Command, NodeName, Seq, State};
use stele_planted::{Bug, is_planted};

use crate::controller::Process;
use crate::limits::{
    HOUSEKEEPING_US, NODE_GRACE_US, REPORT_BATCH_US, REPORTS_PER_BATCH_MAX, RESEND_US, RESEND_US_MAX,
};
use crate::setup::{node_index, node_name};
use crate::wire::{Asker, FromNode, Out, ToNode};

/// What a controller remembers of the nodes it hears.
pub(crate) struct Outbox {
    sent: BTreeMap<NodeName, u64>,
    led: bool,
    /// The seq of what each node was offered, when, and how often again since.
    offered: BTreeMap<NodeName, (Seq, u64, u32)>,
    heard: BTreeMap<NodeName, u64>,
    /// The last report of each node, by boot and number, and when it was seen to come.
    reported: BTreeMap<NodeName, ((u64, u64), Option<u64>)>,
    known: BTreeMap<NodeName, u64>,
    since: u64,
    listened: (bool, u64, u64),
    looked_us: u64,
    batch: Vec<Report>,
    batch_due: u64,
}

impl Outbox {
    /// One that has heard and sent nothing.
    pub(crate) fn new(now_us: u64) -> Self {
        Self {
            sent: BTreeMap::new(),
            led: false,
            offered: BTreeMap::new(),
            heard: BTreeMap::new(),
            reported: BTreeMap::new(),
            known: BTreeMap::new(),
            since: now_us,
            listened: (false, 0, 0),
            looked_us: now_us,
            batch: Vec::new(),
            batch_due: 0,
        }
    }
}

/// Who signs, and with what.
pub(crate) struct Signer {
    /// The key.
    pub(crate) key: SigningKey,
    /// The root's word for it.
    pub(crate) certificate: Certificate,
    /// Whether it is of a newer version, whose words have a field that older ones do not know.
    pub(crate) newer: bool,
}

/// An assignment as a later version writes it.
#[derive(serde::Serialize)]
struct Newer<'a> {
    #[serde(flatten)]
    assignment: &'a Assignment,
    since_a_later_version: u64,
}

impl Signer {
    /// A node's assignment, from a State.
    pub(crate) fn assignment(&self, state: &State, node: &NodeName) -> Option<Rc<Signed>> {
        let assignment = Assignment {
            fleet: self.certificate.body.fleet.clone(),
            node: node.clone(),
            version: state.assignment_version(node),
            instances: state.assigned_instances(node).collect::<Result<_, _>>().ok()?,
            keys: Vec::new(),
            controller: self.certificate.clone(),
            // Images are no part of what nodes are told here: nothing is removed.
            images: None,
        };
        Some(Rc::new(if self.newer {
            let newer = Newer { assignment: &assignment, since_a_later_version: 1 };
            Signed::new(&self.key, Purpose::Assignment, &newer)
        } else {
            Signed::new(&self.key, Purpose::Assignment, &assignment)
        }))
    }

    fn ack(&self, (node, boot, number): (usize, u64, u64)) -> ToNode {
        let node = node_name(node);
        let ack = ReportAck { node, boot, number, controller: self.certificate.clone() };
        ToNode::Acked(Rc::new(Signed::new(&self.key, Purpose::Report, &ack)))
    }
}

impl Process {
    fn publish(&mut self, signer: &Signer, state: &State, node: &NodeName) {
        if let (Some(signed), Some(index)) = (signer.assignment(state, node), node_index(node)) {
            self.app.out.push(Out::Node(index, ToNode::Assignment(signed)));
        }
    }

    /// What a controller does for nodes after each turn. `connection` tells whether NATS is
    /// there, and how often it came back.
    pub(crate) fn serve_nodes(&mut self, now_us: u64, signer: &Signer, connection: (bool, u64)) {
        for told in std::mem::take(&mut self.app.acks) {
            self.app.out.push(Out::Node(told.0, signer.ack(told)));
        }
        if self.app.changed || is_planted(Bug::ActOnSpeculation) {
            self.app.changed = false;
            self.publish_changes(now_us, signer);
        }
        if !self.outbox.batch.is_empty() && self.outbox.batch_due <= now_us {
            self.decide_reports();
        }
        if now_us >= self.outbox.looked_us + HOUSEKEEPING_US {
            self.outbox.looked_us = now_us;
            self.mark_nodes(now_us, connection);
        }
    }

    fn publish_changes(&mut self, now_us: u64, signer: &Signer) {
        let leads = self.app.ledger.is_deciding();
        if leads {
            let mut state = self.state().clone();
            if is_planted(Bug::ActOnSpeculation)
                && let Some(ahead) = self.app.ledger.speculative()
            {
                state = ahead.clone();
            }
            if !self.outbox.led {
                self.outbox.sent.clear();
                self.outbox.offered.clear();
            }
            for (name, assigned) in &state.assigned {
                if self.outbox.sent.get(name) == Some(&assigned.changed) {
                    continue;
                }
                if state.control.nodes.contains_key(name) {
                    self.publish(signer, &state, name);
                }
                self.outbox.sent.insert(name.clone(), assigned.changed);
                self.outbox.offered.insert(name.clone(), (assigned.changed, now_us, 0));
            }
        }
        self.outbox.led = leads;
    }

    /// Takes in what a node says.
    pub(crate) fn hear(&mut self, now_us: u64, signer: &Signer, from: &NodeName, said: &FromNode) {
        let state = self.state().clone();
        let Some(node) = state.control.nodes.get(from) else { return };
        match said {
            FromNode::Heartbeat(letter) => {
                let opened =
                    letter.opened.get_or_init(|| letter.signed.open(&node.key, Purpose::Heartbeat).ok());
                let Some(heartbeat) = opened.as_ref().filter(|it| it.node == *from) else { return };
                self.outbox.heard.insert(from.clone(), now_us);
                let current = state.assignment_version(from);
                let last = self.outbox.offered.get(from).filter(|(seq, ..)| *seq == current.seq);
                let again = last.map_or(0, |(.., again)| again + 1);
                let is_due = last.is_none_or(|(_, at, again)| {
                    now_us > at + (RESEND_US << (*again).min(16)).min(RESEND_US_MAX)
                });
                if self.app.ledger.is_deciding()
                    && heartbeat.applied.is_behind((current.epoch, current.seq))
                    && is_due
                {
                    self.outbox.offered.insert(from.clone(), (current.seq, now_us, again));
                    self.publish(signer, &state, from);
                }
            }
            FromNode::Report(signed) => {
                let Ok(report) = signed.open::<Report>(&node.key, Purpose::Report) else { return };
                if report.node != *from {
                    return;
                }
                if is_planted(Bug::AckReportEarly)
                    && let Some(index) = node_index(from)
                {
                    let told = (index, report.boot, report.number);
                    self.app.out.push(Out::Node(index, signer.ack(told)));
                }
                if self.outbox.batch.is_empty() {
                    self.outbox.batch_due = now_us + REPORT_BATCH_US;
                }
                self.outbox.batch.push(report);
                if self.outbox.batch.len() >= REPORTS_PER_BATCH_MAX {
                    self.decide_reports();
                }
            }
            FromNode::Sync(signed, number) => {
                let Ok(request) = signed.open::<SyncRequest>(&node.key, Purpose::NodeRequest) else { return };
                let current = state.assignment_version(from);
                let newer = (request.applied.epoch, request.applied.seq) < (current.epoch, current.seq);
                let answer = if newer { signer.assignment(&state, from) } else { None };
                if let Some(index) = node_index(from) {
                    self.app.out.push(Out::Node(index, ToNode::Synced(*number, answer)));
                }
            }
        }
    }

    /// At most one report per node in a record: the newest says all the others said.
    fn decide_reports(&mut self) {
        let batch = std::mem::take(&mut self.outbox.batch);
        let mut newest: BTreeMap<NodeName, Report> = BTreeMap::new();
        for report in &batch {
            let known = newest.get(&report.node);
            if known.is_none_or(|known| report.position().is_after(known.position())) {
                newest.insert(report.node.clone(), report.clone());
            }
        }
        let covered = batch.iter().filter(|report| {
            newest.get(&report.node).is_some_and(|it| it.boot == report.boot && report.number <= it.number)
        });
        let acks = covered
            .filter_map(|report| Some((node_index(&report.node)?, report.boot, report.number)))
            .collect();
        let command = Command::Report { reports: newest.into_values().collect() };
        self.submit(Asker::Reports(acks), system_request(command));
    }

    /// Marks nodes lost and returned, while this controller leads.
    fn mark_nodes(&mut self, now_us: u64, connection: (bool, u64)) {
        let state = self.state().clone();
        let nodes = &state.control.nodes;
        self.outbox.known.retain(|node, _| nodes.contains_key(node));
        for node in nodes.keys() {
            self.outbox.known.entry(node.clone()).or_insert(now_us);
        }
        for (node, seen) in &state.observed {
            let report = (seen.boot, seen.number);
            let last = self.outbox.reported.entry(node.clone()).or_insert((report, None));
            if last.0 != report {
                *last = (report, Some(now_us));
            }
        }
        let listens = self.app.ledger.is_deciding() && connection.0;
        let graceless = is_planted(Bug::NoGrace) && listens;
        let listening = (listens, connection.1, self.app.term);
        if !listens || (self.outbox.listened != listening && !graceless) {
            self.app.ledger.listens_since(self.app.now);
            self.outbox.since = now_us;
            self.outbox.listened = listening;
            return;
        }
        let since = if graceless { 0 } else { self.outbox.since };
        let (mut lost, mut returned) = (Vec::new(), Vec::new());
        for node in nodes.keys() {
            let reported = self.outbox.reported.get(node).and_then(|(.., at)| *at);
            let heard = self.outbox.heard.get(node).copied().max(reported);
            let from = self.outbox.known.get(node).map_or(since, |at| since.max(*at));
            let from = if graceless { 0 } else { from };
            let silent = now_us - heard.map_or(from, |at| from.max(at));
            let is_lost = state.observed.get(node).is_some_and(|seen| seen.lost);
            if !is_lost && silent > NODE_GRACE_US {
                lost.push(node.clone());
            } else if is_lost
                && heard.is_some_and(|at| at >= since && now_us - at < NODE_GRACE_US)
                && !is_planted(Bug::NeverReturned)
            {
                returned.push(node.clone());
            }
        }
        if !lost.is_empty() || !returned.is_empty() {
            self.submit(Asker::Nobody, system_request(Command::MarkNodes { lost, returned }));
        }
    }
}
