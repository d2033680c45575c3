//! Following what led to what.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{About, also, what};
use super::{Evidence, Lack, Step, Subject, Why};
use crate::decide::SYSTEM;
use crate::event::{Event, Record};
use crate::header::Decision;
use crate::ids::{Seq, Slot};
use crate::limits::{WHY_DECISION_RECORDS_MAX, WHY_STEPS_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::state::State;

/// Why a chain cannot go on.
pub(super) enum Stop {
    Lacks(Lack),
    Refused(Rejection),
}

pub(super) struct Chain<'a> {
    pub(super) state: &'a State,
    subject: &'a Subject,
    evidence: &'a Evidence,
    /// The slot it is about: of an instance, or the one named.
    slot: Option<Slot>,
    steps: BTreeMap<Seq, Step>,
    /// Decisions that were told, by their first seqs, and the steps that tell them.
    pub(super) told: BTreeMap<Seq, (Decision, Seq)>,
    pub(super) unknown: Vec<String>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(state: &'a State, subject: &'a Subject, evidence: &'a Evidence) -> Self {
        let slot = match subject {
            Subject::Instance(id) => Some(id.slot.clone()),
            Subject::Slot(slot) => Some(slot.clone()),
            Subject::App(..) | Subject::Node(_) => None,
        };
        let (steps, told) = (BTreeMap::new(), BTreeMap::new());
        Self { state, subject, evidence, slot, steps, told, unknown: Vec::new() }
    }

    pub(super) fn told(mut self) -> Result<Why, Stop> {
        let is = match self.subject {
            Subject::Instance(id) => self.instance(id)?,
            Subject::Slot(slot) => self.slot(slot)?,
            Subject::App(app_env, place) => self.app(app_env, place.as_ref())?,
            Subject::Node(node) => self.node(node)?,
        };
        self.join();
        Ok(Why {
            subject: self.subject.to_string(),
            at: self.state.seq,
            time: self.state.time,
            is,
            steps: self.steps.into_values().rev().collect(),
            unknown: self.unknown,
        })
    }

    /// What was caused by a record was caused by the request it is part of.
    fn join(&mut self) {
        let told = &self.told;
        let known: BTreeSet<Seq> = self.steps.keys().copied().collect();
        for cause in self.steps.values_mut().filter_map(|step| step.cause.as_mut()) {
            let request = told.range(..=*cause).next_back();
            if let Some((_, (decision, seq))) = request
                && !known.contains(cause)
                && decision.last() >= *cause
            {
                *cause = *seq;
            }
        }
    }

    fn about(&self) -> About<'_> {
        let app_env = match self.subject {
            Subject::Instance(id) => Some(&id.slot.app_env),
            Subject::Slot(slot) => Some(&slot.app_env),
            Subject::App(app_env, _) => Some(app_env),
            Subject::Node(_) => None,
        };
        let node = match self.subject {
            Subject::Node(node) => Some(node),
            _ => None,
        };
        About { app_env, slot: self.slot.as_ref(), node }
    }

    fn find(&self, lack: Lack) -> Result<Option<&'a Record>, Stop> {
        match self.evidence.known.get(&lack) {
            Some(found) => Ok(found.as_ref()),
            None => Err(Stop::Lacks(lack)),
        }
    }

    pub(super) fn record(&self, seq: Seq) -> Result<Option<&'a Record>, Stop> {
        self.find(Lack::Record(seq))
    }

    pub(super) fn newest(
        &self,
        kind: &'static str,
        scopes: &[String],
        until: Seq,
    ) -> Result<Option<&'a Record>, Stop> {
        self.find(Lack::Newest { kind, scopes: scopes.to_vec(), until })
    }

    pub(super) fn follow(&mut self, seq: Seq) -> Result<(), Stop> {
        self.follow_to(seq, None)
    }

    /// Tells a record and what led to it, which may be known from elsewhere.
    pub(super) fn follow_to(&mut self, seq: Seq, cause: Option<Seq>) -> Result<(), Stop> {
        let (mut next, mut known) = (Some(seq), cause);
        while let Some(seq) = next {
            if self.steps.contains_key(&seq) || self.steps.len() >= WHY_STEPS_MAX {
                return Ok(());
            }
            let Some(record) = self.record(seq)? else {
                self.unknown.push(format!("the record {seq} is not at hand"));
                return Ok(());
            };
            let (record, others) = self.decision(record)?;
            if self.steps.contains_key(&record.header.seq) {
                return Ok(());
            }
            let cause = match known.take() {
                Some(cause) => Some(cause),
                None => self.cause(record)?,
            };
            let origin = if record.header.principal.as_str() == SYSTEM { None } else { self.origin(record) };
            self.tell(record, &others, cause.or(origin));
            next = cause.or(origin);
        }
        Ok(())
    }

    /// The record of a request that says most about it, and the others that matter.
    fn decision(&self, record: &'a Record) -> Result<(&'a Record, Vec<&'a Record>), Stop> {
        let (decision, own) = (record.header.decision, record.header.seq);
        if record.header.principal.as_str() == SYSTEM && !is_founding(record) {
            return Ok((record, Vec::new()));
        }
        let mut seqs: BTreeSet<Seq> = (decision.first..=decision.last()).collect();
        if seqs.len() > WHY_DECISION_RECORDS_MAX {
            // What a deployment needs stands before it; what the whole decision was for, at its end.
            let near = own.saturating_sub(WHY_DECISION_RECORDS_MAX as u64 / 2).max(decision.first);
            seqs = (near..=own + WHY_DECISION_RECORDS_MAX as u64 / 2)
                .filter(|it| *it < decision.last())
                .collect();
            seqs.insert(decision.last());
        }
        let mut records = Vec::new();
        for seq in seqs {
            records.extend(self.record(seq)?);
        }
        let about = self.about().app_env.cloned();
        let starts = |it: &&&Record| match &it.event {
            Event::DeploymentStarted { app_env, .. } => about.as_ref().is_none_or(|own| own == app_env),
            _ => false,
        };
        let main = match &record.event {
            Event::DeploymentStarted { .. } => record,
            _ => records.iter().find(starts).copied().unwrap_or(record),
        };
        records.retain(|it| it.header.seq != main.header.seq);
        Ok((main, records))
    }

    /// The seq that led to a record.
    fn cause(&self, record: &Record) -> Result<Option<Seq>, Stop> {
        let header = &record.header;
        if header.cause.is_some() || header.principal.as_str() != SYSTEM {
            return Ok(header.cause);
        }
        let app_env = match &record.event {
            Event::AssignmentsChanged { app_env, .. } | Event::PlacementChanged { app_env, .. } => app_env,
            Event::DeploymentFinished { deployment, .. } => return Ok(Some(*deployment)),
            _ => return Ok(None),
        };
        // Before causes were logged, whatever was decided followed the newest deployment.
        let found = self.newest("deployment_started", &[app_env.to_string()], header.seq)?;
        Ok(found.map(|record| record.header.seq))
    }

    /// Where the release came from that a request brought into force, when it was there before.
    fn origin(&self, record: &Record) -> Option<Seq> {
        let Event::DeploymentStarted { to: Some(to), .. } = &record.event else { return None };
        let made = self.state.history.releases.get(&to.release)?.seq;
        (made < record.header.decision.first).then_some(made)
    }

    fn tell(&mut self, record: &Record, others: &[&Record], cause: Option<Seq>) {
        let header = &record.header;
        let about = self.about();
        let mut more: Vec<_> = others
            .iter()
            .filter_map(|other| also(self.state, about, other.header.seq, &other.event))
            .collect();
        if let Event::DeploymentStarted { barrier: Some(barrier), .. } = &record.event {
            more.push(format!("raised a barrier: {barrier}"));
        }
        let deployment = self.state.history.deployments.get(&header.seq);
        let outcome = deployment.and_then(|it| it.finished.as_ref()).map(|(_, _, outcome)| outcome.clone());
        let token = self.state.control.tokens.get(&header.principal);
        let step = Step {
            seq: header.seq,
            time: header.time,
            kind: record.event.kind().to_owned(),
            what: what(self.state, about, header.seq, &record.event),
            also: more,
            principal: header.principal.clone(),
            holder: token.map(|token| token.holder),
            reason: header.reason.as_ref().map(crate::Value::told),
            links: header.links.clone(),
            trace: header.trace.clone(),
            cause,
            outcome,
        };
        self.told.insert(header.decision.first, (header.decision, header.seq));
        self.steps.insert(header.seq, step);
    }
}

/// The fleet's first decision is nobody's but the controllers'.
fn is_founding(record: &Record) -> bool {
    matches!(record.event, Event::FleetCreated { .. })
}

pub(super) fn not_found(message: String, next: String) -> Stop {
    Stop::Refused(Rejection::new(RejectionKind::NotFound, message).with_next(next))
}
