//! Cutting what is decided into records, by what their payloads and headers have room for.

use std::collections::BTreeSet;

use crate::event::{AssignmentChange, Event, ReportedChange};
use crate::ids::{AppEnv, InstanceId, NodeName, Seq};
use crate::limits::{
    ASSIGNED_BYTES_MAX, ASSIGNMENT_BYTES, CHANGES_PER_RECORD_MAX, REPORTED_BYTES_MAX,
    REPORTED_INSTANCE_BYTES, REPORTED_SCOPES_BYTES_MAX,
};
use crate::wire::InstanceReport;

/// How long a text is told to be, in bytes.
const LENGTH_BYTES: usize = size_of::<u64>();

/// More than a change of what a node is told takes in a record, in bytes: what it names, and each secret's version.
pub fn bytes_of_assignment(change: &AssignmentChange) -> usize {
    let secrets: usize = match change {
        AssignmentChange::Assign { revision, .. } => {
            revision.secrets.keys().map(|name| name.as_str().len() + LENGTH_BYTES + size_of::<u64>()).sum()
        }
        AssignmentChange::Withdraw { .. } => 0,
    };
    ASSIGNMENT_BYTES + secrets
}

/// Changes of what nodes are told, cut as they come.
pub(super) struct Assignments {
    first: Seq,
    records: Vec<Vec<AssignmentChange>>,
    bytes: usize,
}

impl Assignments {
    /// Those whose first record will have a seq.
    pub(super) fn new(first: Seq) -> Self {
        Self { first, records: Vec::new(), bytes: 0 }
    }

    /// Adds a change of so many bytes, made with the seq of the record that it will be in.
    pub(super) fn push(&mut self, more: usize, change: impl FnOnce(Seq) -> AssignmentChange) {
        let has_room = |last: &&mut Vec<_>| {
            last.len() < CHANGES_PER_RECORD_MAX && self.bytes + more <= ASSIGNED_BYTES_MAX
        };
        let at = self.records.len() as Seq;
        if let Some(last) = self.records.last_mut().filter(has_room) {
            self.bytes += more;
            last.push(change(self.first + at - 1));
        } else {
            self.bytes = more;
            self.records.push(vec![change(self.first + at)]);
        }
    }

    pub(super) fn into_events(self, app_env: &AppEnv) -> Vec<Event> {
        let of = |changes| Event::AssignmentsChanged { app_env: app_env.clone(), changes };
        self.records.into_iter().map(of).collect()
    }
}

/// What of a record is used up: bytes of its payload, and those of the scopes that its header names.
#[derive(Default)]
struct Load<'a> {
    bytes: usize,
    scopes: usize,
    apps: BTreeSet<&'a AppEnv>,
}

impl<'a> Load<'a> {
    /// What a node tells, without its instances.
    fn of(node: &NodeName) -> Self {
        let scopes = "node:".len() + node.as_str().len() + LENGTH_BYTES;
        Self { bytes: REPORTED_INSTANCE_BYTES, scopes, apps: BTreeSet::new() }
    }

    /// One more of which a node tells, in so many bytes.
    fn add(&mut self, id: &'a InstanceId, bytes: usize) {
        self.bytes += bytes;
        if self.apps.insert(&id.slot.app_env) {
            self.scopes += scope_bytes(&id.slot.app_env);
        }
    }

    /// All that one more node tells.
    fn join(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.scopes += other.scopes;
        for app_env in &other.apps {
            if !self.apps.insert(app_env) {
                self.scopes -= scope_bytes(app_env);
            }
        }
    }

    fn fits(&self) -> bool {
        self.bytes <= REPORTED_BYTES_MAX && self.scopes <= REPORTED_SCOPES_BYTES_MAX
    }
}

fn scope_bytes(app_env: &AppEnv) -> usize {
    app_env.to_string().len() + LENGTH_BYTES
}

fn load_of(change: &ReportedChange) -> Load<'_> {
    let mut load = Load::of(&change.node);
    change.gone.iter().for_each(|id| load.add(id, REPORTED_INSTANCE_BYTES));
    change.changed.iter().for_each(|instance| load.add(&instance.id, bytes_of_instance(instance)));
    load
}

fn bytes_of_instance(instance: &InstanceReport) -> usize {
    let lines: usize = instance.log_tail().iter().map(|line| line.len() + LENGTH_BYTES).sum();
    REPORTED_INSTANCE_BYTES + instance.reason().map_or(0, str::len) + lines
}

/// What a node tells, in parts that each have room in a record. They stand in one decision, so nobody sees one without
/// the others.
pub(super) fn in_parts(change: ReportedChange) -> Vec<ReportedChange> {
    if load_of(&change).fits() {
        return vec![change];
    }
    let empty = || ReportedChange { changed: Vec::new(), gone: Vec::new(), ..change.clone() };
    let (mut parts, mut load) = (vec![empty()], Load::of(&change.node));
    let gone = change.gone.iter().map(|id| (id, REPORTED_INSTANCE_BYTES, None));
    let changed = change.changed.iter().map(|one| (&one.id, bytes_of_instance(one), Some(one)));
    for (id, bytes, told) in gone.chain(changed) {
        load.add(id, bytes);
        if !load.fits() {
            load = Load::of(&change.node);
            load.add(id, bytes);
            parts.push(empty());
        }
        let Some(part) = parts.last_mut() else { continue };
        match told {
            Some(told) => part.changed.push(told.clone()),
            None => part.gone.push(id.clone()),
        }
    }
    parts
}

/// What nodes tell, as many of them in a record as have room.
pub(super) fn in_records(news: Vec<ReportedChange>) -> Vec<Event> {
    let mut lengths = Vec::new();
    let mut load = Load::default();
    for change in &news {
        let more = load_of(change);
        load.join(&more);
        match lengths.last_mut() {
            Some(length) if *length < CHANGES_PER_RECORD_MAX && load.fits() => *length += 1,
            _ => {
                load = more;
                lengths.push(1);
            }
        }
    }
    let mut news = news.into_iter();
    let record = |length| Event::NodesReported { reports: news.by_ref().take(length).collect() };
    lengths.into_iter().map(record).collect()
}
