//! What State takes of memory for each instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use stele_codec::encode_record;
use stele_model::event::{AssignmentChange, EnrolledNode, ReportedChange};
use stele_model::header::{Decision, Links};
use stele_model::signature::PublicKey;
use stele_model::state::AssignedTo;
use stele_model::wire::{AssignmentVersion, InstanceReport, Phase};
use stele_model::{AppEnv, Digest, Event, Header, InstanceId, NodeName, Revision, Slot, State, Time, fold};

/// Services of each app.
const SERVICES: u32 = 2;
/// Instances of each service.
const REPLICAS: u32 = 500;
/// Nodes whose reports make one record.
const NODES_PER_REPORT: usize = 100;

/// Places, assigns and reports instances on nodes that there are already, of as many apps; answers how many bytes of
/// this process each of them takes, its digests included, and how many they are.
pub(crate) fn bytes_per_instance(nodes: usize, apps: usize) -> anyhow::Result<(f64, usize)> {
    let mut log = Folding { state: State::default() };
    let names: Vec<NodeName> = (0..nodes).map(|at| format!("eu-{at}").parse()).collect::<Result<_, _>>()?;
    for name in &names {
        log.fold(enrolled(name)?)?;
    }
    log.state.digest();
    let before = resident_bytes()?;
    let mut placed = 0;
    for app in 0..apps {
        let app_env: AppEnv = format!("shop/app-{app}@prod").parse()?;
        placed += place(&mut log, &app_env, &names, placed)?;
    }
    for phase in [Phase::Starting, Phase::Healthy] {
        for nodes in names.chunks(NODES_PER_REPORT) {
            let reports = nodes.iter().map(|node| reported(&log.state, node, phase)).collect();
            log.fold(Event::NodesReported { reports })?;
        }
    }
    let after = resident_bytes()?;
    drop(log);
    Ok(((after as f64 - before as f64) / placed as f64, placed))
}

/// Gives an app its target and its places, and tells the nodes; answers how many instances that are.
fn place(log: &mut Folding, app_env: &AppEnv, names: &[NodeName], placed: usize) -> anyhow::Result<usize> {
    let release = Digest::of(&[app_env.to_string().as_bytes()]);
    let revision = Revision { release, config: None, secrets: BTreeMap::new() };
    log.fold(Event::TargetChanged { app_env: app_env.clone(), revision: Some(revision.clone()) })?;
    let mut slots = Vec::new();
    for service in 0..SERVICES {
        let service: stele_model::ServiceName = format!("part-{service}").parse()?;
        let of = |index| Slot::new(app_env.clone(), service.clone(), index);
        slots.extend((0..REPLICAS).map(of));
    }
    let node_of = |at: usize| (placed + at) % names.len();
    let places = slots.iter().enumerate().map(|(at, slot)| (slot.clone(), Some(names[node_of(at)].clone())));
    log.fold(Event::PlacementChanged { app_env: app_env.clone(), slots: places.collect() })?;
    let serial = log.state.seq + 1;
    let mut changes = Vec::new();
    for (at, slot) in slots.iter().enumerate() {
        let instance: InstanceId = format!("{slot}-{serial}").parse()?;
        let spec = Digest::of(&[&release.0, slot.service.as_str().as_bytes()]);
        let node = names[node_of(at)].clone();
        changes.push(AssignmentChange::Assign {
            node,
            instance,
            revision: revision.clone(),
            spec,
            replaces: None,
        });
    }
    log.fold(Event::AssignmentsChanged { app_env: app_env.clone(), changes })?;
    Ok(slots.len())
}

fn enrolled(name: &NodeName) -> anyhow::Result<Event> {
    let key = Digest::of(&[name.as_str().as_bytes()]).hex();
    let node = EnrolledNode {
        name: name.clone(),
        region: "eu".parse()?,
        labels: BTreeMap::new(),
        key: PublicKey(key.clone()),
        sealing_key: key,
        address: None,
    };
    Ok(Event::NodeEnrolled { node, join_token: Digest::EMPTY })
}

/// What a node tells of all that it was told to run.
fn reported(state: &State, node: &NodeName, phase: Phase) -> ReportedChange {
    let of = |(id, to): (&InstanceId, &Arc<AssignedTo>)| InstanceReport {
        id: id.clone(),
        phase,
        spec_digest: Some(to.spec),
        container: Some(Digest::of(&[id.to_string().as_bytes()]).hex().into()),
        restarts: 0,
        remarks: None,
    };
    let assigned = state.assigned.get(node).into_iter().flat_map(|assigned| &assigned.instances);
    ReportedChange {
        node: node.clone(),
        boot: 1,
        number: phase as u64,
        applied: AssignmentVersion::default(),
        changed: assigned.map(of).collect(),
        gone: Vec::new(),
    }
}

/// Folds events as they are read from a log.
struct Folding {
    state: State,
}

impl Folding {
    fn fold(&mut self, event: Event) -> anyhow::Result<()> {
        let seq = self.state.seq + 1;
        let header = Header {
            seq,
            time: Time(seq),
            decision: Decision { first: seq, count: 1 },
            principal: "bench".parse()?,
            cause: None,
            trace: None,
            idempotency: None,
            kind: String::new(),
            schema: 0,
            codec: 0,
            scopes: Vec::new(),
            reason: None,
            links: Links::default(),
            payload: Digest::EMPTY,
        };
        let (stored, _) = encode_record(header, &event)?;
        fold(&mut self.state, &stored.decode()?);
        // A controller hashes what changed every now and then.
        self.state.digest();
        Ok(())
    }
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
