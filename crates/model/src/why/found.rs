//! How what is asked about is, and the records to begin with.

use super::chain::{Chain, Stop, not_found};
use super::step::instances;
use crate::digest::Digest;
use crate::event::{AssignmentChange, Event, Pin};
use crate::fields::{show_pin, show_revision};
use crate::ids::{AppEnv, InstanceId, NodeName, Place, Seq, Slot};

impl Chain<'_> {
    pub(super) fn slot(&mut self, slot: &Slot) -> Result<String, Stop> {
        let present = self.state.assigned_to(&slot.app_env).find(|(_, id, _)| id.slot == *slot);
        let Some((_, id, _)) = present else {
            return Err(not_found(
                format!("nothing fills {slot} at seq {}", self.state.seq),
                format!("stele why {}", slot.app_env),
            ));
        };
        let id = id.clone();
        self.instance(&id)
    }

    pub(super) fn instance(&mut self, id: &InstanceId) -> Result<String, Stop> {
        let unknown = || {
            not_found(
                format!("there is no instance {id} at seq {}", self.state.seq),
                format!("stele status {}", id.slot.app_env),
            )
        };
        if id.serial > self.state.seq {
            return Err(unknown());
        }
        let found = self.record(id.serial)?.map(|record| &record.event);
        let Some(Event::AssignmentsChanged { changes, .. }) = found else { return Err(unknown()) };
        let node = changes.iter().find_map(|change| match change {
            AssignmentChange::Assign { node, instance, .. } if instance.slot == id.slot => Some(node),
            _ => None,
        });
        let node = node.ok_or_else(unknown)?;
        let is = self.how_it_is(id, node);
        self.placement(&id.slot, node, id.serial)?;
        self.follow(id.serial)?;
        Ok(is)
    }

    /// What became of an instance.
    fn how_it_is(&self, id: &InstanceId, node: &NodeName) -> String {
        let assigned = self.state.assigned.get(node).and_then(|assigned| assigned.instances.get(id));
        let Some(assigned) = assigned else {
            let next = self.state.assigned_to(&id.slot.app_env).find(|(_, other, _)| other.slot == id.slot);
            return match next {
                Some((at, other, _)) => format!("{id} ran on {node}; {other} on {at} took its place"),
                None => format!("{id} ran on {node}, and nothing took its place"),
            };
        };
        let phase = match self.state.report_of(node, id) {
            Some(report) => {
                let why = report.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!("{}{why}", format!("{:?}", report.phase).to_lowercase())
            }
            None => "not reported yet".to_owned(),
        };
        let revision = show_revision(self.state, &id.slot.app_env, &assigned.revision);
        format!("{id} is {phase} on {node}: {revision}")
    }

    /// What put a slot on a node.
    fn placement(&mut self, slot: &Slot, node: &NodeName, before: Seq) -> Result<(), Stop> {
        let scopes = [slot.app_env.to_string(), format!("node:{node}")];
        let mut until = before;
        while let Some(record) = self.newest("placement_changed", &scopes, until)? {
            let Event::PlacementChanged { slots, .. } = &record.event else { break };
            if slots.iter().any(|(placed, at)| placed == slot && at.as_ref() == Some(node)) {
                return self.follow(record.header.seq);
            }
            until = record.header.seq.saturating_sub(1);
        }
        self.unknown.push(format!("what placed {slot} on {node} lies further back than was looked"));
        Ok(())
    }

    pub(super) fn app(&mut self, app_env: &AppEnv, place: Option<&Place>) -> Result<String, Stop> {
        let state = self.state;
        // Of those that only say again what an app should be, the first one is why it should.
        let changes = state.history.changes.range((app_env.clone(), 0)..=(app_env.clone(), Seq::MAX));
        let mut newest_first = changes.map(|(_, change)| change).rev().peekable();
        let mut newest = newest_first.next();
        while let (Some(change), Some(earlier)) = (newest, newest_first.peek())
            && change.revision == earlier.revision
        {
            newest = newest_first.next();
        }
        let newest = newest.map(|change| change.first);
        let latest = state.history.latest.get(app_env).copied();
        if newest.is_none() && latest.is_none() {
            return Err(not_found(
                format!("{app_env} was never deployed up to seq {}", state.seq),
                "stele status".to_owned(),
            ));
        }
        let pin = place.and_then(|place| self.pin(app_env, place));
        if let Some((pinned, _)) = &pin {
            let scopes = [app_env.to_string(), pinned.to_string()];
            match self.newest("pins_changed", &scopes, state.seq)? {
                Some(record) => self.follow(record.header.seq)?,
                None => self.unknown.push(format!("what pinned {pinned} lies further back than was looked")),
            }
        } else {
            if let Some(deployment) = latest {
                self.follow(deployment)?;
            }
            if let Some(change) = newest
                && !self.told.contains_key(&change)
            {
                self.follow(change)?;
            }
        }
        let mut is = match (&pin, state.target.intent.get(app_env)) {
            (Some((pinned, pin)), _) => {
                format!("{app_env} is pinned in {pinned}: {}", show_pin(state, app_env, pin))
            }
            (None, Some(revision)) => {
                format!("{app_env} should be {}", show_revision(state, app_env, revision))
            }
            (None, None) => format!("{app_env} is not deployed"),
        };
        if let Some(latched) = state.control.latches.get(app_env) {
            let numbers = latched.iter().filter_map(|release| state.release_number(release));
            let numbers: Vec<_> = numbers.map(|number| format!("v{number}")).collect();
            is = format!("{is}; latched against {}", numbers.join(", "));
        }
        Ok(is)
    }

    /// The pin in force in a place, and of which place it is.
    fn pin(&self, app_env: &AppEnv, place: &Place) -> Option<(Place, Pin)> {
        let of = |place: Place| {
            let pin = self.state.target.pins.get(&(app_env.clone(), place.clone()))?;
            Some((place, pin.as_ref().clone()))
        };
        of(place.clone()).or_else(|| match place {
            Place::Node(node) => of(Place::Region(self.state.region_of(node)?.clone())),
            Place::Region(_) => None,
        })
    }

    pub(super) fn node(&mut self, node: &NodeName) -> Result<String, Stop> {
        let state = self.state;
        let scope = [format!("node:{node}")];
        let Some(enrolled) = state.control.nodes.get(node) else {
            let Some(removed) = self.newest("node_removed", &scope, state.seq)? else {
                return Err(not_found(
                    format!("node {node} is not of the fleet at seq {}", state.seq),
                    "stele node list".to_owned(),
                ));
            };
            self.follow(removed.header.seq)?;
            return Ok(format!("node {node} is not of the fleet any more"));
        };
        let assigned = state.assigned.get(node);
        if let Some(assigned) = assigned.filter(|assigned| assigned.changed > 0) {
            self.follow(assigned.changed)?;
        }
        let reachable = state.is_reachable(node);
        if !reachable && let Some(lost) = self.newest("nodes_lost", &scope, state.seq)? {
            self.follow(lost.header.seq)?;
        }
        let drained = state.control.drained.get(node);
        if let Some(drained) = drained {
            self.follow(*drained)?;
        }
        match self.newest("node_enrolled", &scope, state.seq)? {
            Some(record) => {
                if let Event::NodeEnrolled { join_token, .. } = &record.event {
                    let token = self.join_token(join_token, record.header.seq)?;
                    self.follow_to(record.header.seq, token)?;
                }
            }
            None => self.unknown.push(format!("how {node} joined lies further back than was looked")),
        }
        let heard = if reachable { "reachable" } else { "lost" };
        let drained = if drained.is_some() { ", drained" } else { "" };
        let count = assigned.map_or(0, |assigned| assigned.instances.len());
        let told = instances(count);
        Ok(format!("node {node} of region {} is {heard}{drained} and told to run {told}", enrolled.region))
    }

    /// Who let a node join.
    fn join_token(&self, hash: &Digest, before: Seq) -> Result<Option<Seq>, Stop> {
        let scope = ["fleet".to_owned()];
        let mut until = before;
        while let Some(record) = self.newest("join_token_created", &scope, until)? {
            if matches!(&record.event, Event::JoinTokenCreated { token } if token.hash == *hash) {
                return Ok(Some(record.header.seq));
            }
            until = record.header.seq.saturating_sub(1);
        }
        Ok(None)
    }
}
