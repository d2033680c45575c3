//! What State takes of memory for each instance.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use stele_codec::encode_record;
use stele_model::event::{AssignmentChange, EnrolledNode, ReportedChange};
use stele_model::header::{Decision, Links};
use stele_model::limits::CHANGES_PER_RECORD_MAX;
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

/// The fleet of which it is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    nodes: usize,
    #[arg(long)]
    apps: u32,
}

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) instances: usize,
    /// Bytes of each, and when.
    pub(crate) bytes: Vec<(String, f64)>,
}

/// Measures in a process of its own, which has nothing else in memory.
pub(crate) fn measure(nodes: usize, apps: u32) -> anyhow::Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .args(["state", "--nodes", &nodes.to_string(), "--apps", &apps.to_string()])
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("it prints JSON")
}

/// Folds a fleet's events as they are read from a log, and prints how many bytes of this process each instance takes.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut log = Folding { state: State::default() };
    // As a controller does.
    log.state.keep_index();
    let names: Vec<NodeName> =
        (0..args.nodes).map(|at| format!("eu-{at}").parse()).collect::<Result<_, _>>()?;
    for name in &names {
        log.fold(enrolled(name)?)?;
    }
    let apps: Vec<AppEnv> =
        (0..args.apps).map(|app| format!("shop/app-{app}@prod").parse()).collect::<Result<_, _>>()?;
    let before = resident_bytes()?;
    for (at, app_env) in apps.iter().enumerate() {
        place(&mut log, app_env, at * (SERVICES * REPLICAS) as usize, &names)?;
    }
    let instances = log.state.target.placement.len();
    let mut measured = Measured { instances, bytes: Vec::new() };
    for (release, when) in ["placed and reported", "each replaced once"].into_iter().enumerate() {
        for app_env in &apps {
            assign(&mut log, app_env, release)?;
        }
        for phase in [Phase::Starting, Phase::Healthy] {
            for nodes in names.chunks(NODES_PER_REPORT) {
                let reports = nodes.iter().map(|node| reported(&log.state, node, phase)).collect();
                log.fold(Event::NodesReported { reports })?;
            }
        }
        let bytes = resident_bytes()?.saturating_sub(before);
        measured.bytes.push((when.to_owned(), bytes as f64 / instances as f64));
    }
    anyhow::ensure!(log.state.index_is_true(), "what is looked up is not what is there");
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Gives an app its places, one after the other from a node on.
fn place(log: &mut Folding, app_env: &AppEnv, from: usize, names: &[NodeName]) -> anyhow::Result<()> {
    let mut slots = Vec::new();
    for service in 0..SERVICES {
        let service: stele_model::ServiceName = format!("part-{service}").parse()?;
        slots.extend((0..REPLICAS).map(|index| Slot::new(app_env.clone(), service.clone(), index)));
    }
    let places = slots.into_iter().enumerate();
    let places = places.map(|(at, slot)| (slot, Some(names[(from + at) % names.len()].clone())));
    let places: Vec<_> = places.collect();
    for slots in places.chunks(CHANGES_PER_RECORD_MAX) {
        log.fold(Event::PlacementChanged { app_env: app_env.clone(), slots: slots.to_vec() })?;
    }
    Ok(())
}

/// Tells an app's nodes to run a release of it in place of the one before.
fn assign(log: &mut Folding, app_env: &AppEnv, release: usize) -> anyhow::Result<()> {
    let release = Digest::of(&[app_env.to_string().as_bytes(), &release.to_le_bytes()]);
    let revision = Revision { release, config: None, secrets: stele_model::FlatMap::new() };
    log.fold(Event::TargetChanged { app_env: app_env.clone(), revision: Some(revision.clone()) })?;
    let serial = log.state.seq + 1;
    let mut changes = Vec::new();
    for (slot, node) in log.state.slots(app_env) {
        let mut before = log.state.assigned.get(node).into_iter().flat_map(|it| it.instances.keys());
        let replaces = before.rfind(|id| id.slot == *slot).cloned();
        let node = node.clone();
        if let Some(instance) = replaces.clone() {
            changes.push(AssignmentChange::Withdraw { node: node.clone(), instance });
        }
        changes.push(AssignmentChange::Assign {
            node,
            instance: InstanceId { slot: slot.clone(), serial },
            revision: revision.clone(),
            spec: Digest::of(&[&release.0, slot.service.as_str().as_bytes()]),
            replaces,
        });
    }
    for changes in changes.chunks(CHANGES_PER_RECORD_MAX) {
        log.fold(Event::AssignmentsChanged { app_env: app_env.clone(), changes: changes.to_vec() })?;
    }
    Ok(())
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

/// What a node tells of all that it was told to run, and of what is gone.
fn reported(state: &State, node: &NodeName, phase: Phase) -> ReportedChange {
    let of = |(id, to): (&InstanceId, &Arc<AssignedTo>)| InstanceReport {
        id: id.clone(),
        phase,
        spec_digest: Some(to.spec.clone()),
        container: Some(Digest::of(&[id.to_string().as_bytes()]).hex().into()),
        restarts: 0,
        remarks: None,
    };
    let assigned = state.assigned.get(node).into_iter().flat_map(|assigned| &assigned.instances);
    let observed = state.observed.get(node).into_iter().flat_map(|observed| observed.instances.keys());
    let is_assigned =
        |id: &InstanceId| state.assigned.get(node).is_some_and(|it| it.instances.contains_key(id));
    ReportedChange {
        node: node.clone(),
        boot: 1,
        number: state.seq,
        applied: AssignmentVersion::default(),
        changed: assigned.map(of).collect(),
        gone: observed.filter(|id| !is_assigned(id)).cloned().collect(),
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

/// What this process has in memory that is no file's.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
