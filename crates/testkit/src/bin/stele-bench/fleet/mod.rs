//! Fleets of thousands of nodes: three real controllers, a real NATS server, real agents, and
//! container engines in memory.

mod c2m;
pub(crate) mod crowd;
mod fan_out;
mod idle;
mod plain;
mod rollback;
mod storm;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stele_api::wire::{DeploymentStatus, EventsPage, HealthAnswer, NodesAnswer};
use stele_model::event::Outcome;
use stele_model::{Event, Time};
use stele_testkit::{Client, Cluster, ClusterConfig, on_lasting_thread, pause};

pub(crate) use c2m::c2m;
pub(crate) use fan_out::fan_out;
pub(crate) use idle::idle;
pub(crate) use rollback::rollback_fleet;
pub(crate) use storm::join_storm;

/// Longest anything of a whole fleet may take before it must have failed.
const DEADLINE: Duration = Duration::from_mins(10);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Of the time that a deployment is waited for so far, what is waited before it is looked at again: it may be of
/// many instances, and looking at it is work for who is measured.
const FINISHED_PART: u32 = 20;
/// Between two looks at all nodes, which are many.
const NODES_INTERVAL: Duration = Duration::from_millis(500);
/// Nodes of one process of agents.
const NODES_PER_PROCESS: usize = 2500;
/// Join tokens asked for at once.
const TOKENS_PER_BATCH: usize = 500;
/// Files a process may have open, at most: a connection for each node.
const FILES_MAX: usize = 20_000;
/// Memory, where it is a file system: ten thousand hosts do not share one disk.
const MEMORY: &str = "/dev/shm";
const SIMULATED: &str = "the hosts: agents are the real ones with a NATS connection each, some thousand to a \
     process, on container engines in memory that start everything at once, and their files are in memory. \
     Controllers, NATS and the agents share one machine, on which the agents have the lowest priority: real \
     hosts have processors of their own.";
/// See `nice(1)`.
const HOSTS_NICENESS: &str = "19";

/// Since 1970, of a clock that all processes of the machine share.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// From a time of that clock to one of the log, which follows it: the leader on this machine reads it, too.
fn took(began_us: u64, ended: Time) -> anyhow::Result<Duration> {
    let micros = ended.0.checked_sub(began_us).context("it ended before it began: a clock was set")?;
    Ok(Duration::from_micros(micros))
}

/// When a deployment was decided, and when that it had ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    started: Time,
    ended: Time,
}

/// A controllers' cluster with thousands of agents.
struct Fleet {
    cluster: Cluster,
    processes: Vec<Agents>,
    nodes: usize,
    told: Arc<Mutex<Told>>,
    // Goes last: agents write into it.
    files: tempfile::TempDir,
}

/// What agents said since it was last asked.
#[derive(Default)]
struct Told {
    /// When an assignment was in force, and its seq.
    in_force: Vec<(u64, u64)>,
    connected: Vec<u64>,
    joined: usize,
}

/// What a change of a fleet came to.
#[derive(Default)]
struct Work {
    records: usize,
    /// Records that assign, how many changes they make, and how long it took from the first record of all.
    assigning: usize,
    assigned: usize,
    assigned_ms: u64,
    /// Of all nodes.
    reports: usize,
    /// Assignments that came into force on a node.
    in_force: usize,
}

impl std::fmt::Display for Work {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { records, assigning, assigned, assigned_ms, reports, in_force } = self;
        let seconds = *assigned_ms as f64 / 1000.0;
        write!(
            out,
            "It took {records} records: {assigning} with {assigned} changes of what nodes are assigned (the last one \
             after {seconds:.1} s), others with {reports} reports; {in_force} assignments came into force."
        )
    }
}

/// A process of agents; it ends when its input does.
struct Agents {
    child: Child,
}

impl Drop for Agents {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fleet {
    /// Founds it, lets all nodes join, and waits until every one is heard.
    fn start(name: &str, nodes: usize, regions: usize) -> anyhow::Result<Self> {
        let cluster = Cluster::start(ClusterConfig { nodes: Vec::new(), ..ClusterConfig::simulated(name) })?;
        let files = tempfile::Builder::new().prefix("stele-bench-agents-").tempdir_in(MEMORY)?;
        let mut fleet = Self { cluster, processes: Vec::new(), nodes, told: Arc::default(), files };
        let lines = fleet.tokens(regions)?;
        for (at, lines) in lines.chunks(NODES_PER_PROCESS).enumerate() {
            let folder = fleet.files.path().join(at.to_string());
            std::fs::create_dir(&folder)?;
            let joins = folder.join("joins");
            std::fs::write(&joins, lines.join("\n"))?;
            let agents = fleet.agents(&folder, &joins)?;
            fleet.processes.push(agents);
        }
        let processes = fleet.processes.len();
        fleet.wait("all nodes have joined", |fleet| Ok(fleet.told().joined == processes))?;
        for agents in &mut fleet.processes {
            agents.child.stdin.as_mut().context("it reads")?.write_all(b"go\n")?;
        }
        fleet.wait_for_nodes()?;
        Ok(fleet)
    }

    /// A line to join with for each node.
    fn tokens(&self, regions: usize) -> anyhow::Result<Vec<String>> {
        let client = self.client()?;
        let names: Vec<(String, String)> =
            (0..self.nodes).map(|at| (format!("n-{at}"), format!("r{}", at % regions))).collect();
        let mut lines = Vec::with_capacity(names.len());
        for names in names.chunks(TOKENS_PER_BATCH) {
            let commands: Vec<Value> = names
                .iter()
                .map(|(node, region)| {
                    let body = json!({"node": node, "region": region});
                    json!({"method": "POST", "path": "/v1/node-tokens", "body": body})
                })
                .collect();
            let answer: Value = client.change("/v1/batch", &json!({"commands": commands}))?;
            for ((node, _), answer) in names.iter().zip(answer["answers"].as_array().into_iter().flatten()) {
                let line = answer["body"]["line"].as_str().with_context(|| format!("no token: {answer}"))?;
                lines.push(format!("{node} {line}"));
            }
        }
        ensure!(lines.len() == self.nodes, "{} tokens for {} nodes", lines.len(), self.nodes);
        Ok(lines)
    }

    fn agents(&self, folder: &Path, joins: &Path) -> anyhow::Result<Agents> {
        let mut command = Command::new("nice");
        command
            .args(["-n", HOSTS_NICENESS, "prlimit"])
            .arg(format!("--nofile={FILES_MAX}"))
            .arg(std::env::current_exe()?)
            .args(["agents", "--data"])
            .arg(folder)
            .arg("--joins")
            .arg(joins)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = on_lasting_thread(move || command.spawn())?.context("cannot start agents")?;
        let output = child.stdout.take().context("it writes")?;
        let told = Arc::clone(&self.told);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let mut words = line.split(' ');
                let what = words.next().unwrap_or_default();
                let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
                match what {
                    "joined" => told.joined += 1,
                    "connected" => told.connected.push(number()),
                    "in-force" => told.in_force.push((number(), number())),
                    _ => {}
                }
            }
        });
        Ok(Agents { child })
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> anyhow::Result<Client> {
        self.cluster.client(self.cluster.leader()?)
    }

    /// Looks again and again, for agents that ended too.
    fn wait(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !done(self)? {
            ensure!(began.elapsed() < DEADLINE, "it takes too long until {what}");
            for agents in &mut self.processes {
                ensure!(agents.child.try_wait()?.is_none(), "agents ended before {what}");
            }
            pause(LOOK_INTERVAL)?;
        }
        Ok(began.elapsed())
    }

    /// Waits until every node is heard and works on its newest assignment.
    fn wait_for_nodes(&mut self) -> anyhow::Result<Duration> {
        let client = self.client()?;
        self.wait("every node is ready", |fleet| {
            let answer: NodesAnswer = client.read("/v1/nodes?consistency=stale")?;
            let ready = answer.nodes.iter().filter(|node| node.reachable && node.current).count();
            if ready < fleet.nodes {
                pause(NODES_INTERVAL)?;
            }
            Ok(ready == fleet.nodes)
        })
    }

    /// Waits for a deployment's end; answers when that was decided, as the log says: whoever looks now and then
    /// sees it later.
    fn finished(&mut self, id: &Value) -> anyhow::Result<Ran> {
        let (client, began) = (self.client()?, Instant::now());
        let mut ran = Ran::default();
        let path = format!("/v1/deployments/{id}?consistency=stale&instances=false");
        self.wait("a deployment has ended", |_| {
            let status: DeploymentStatus = client.read(&path)?;
            let Some(finished) = status.finished else {
                pause((began.elapsed() / FINISHED_PART).max(LOOK_INTERVAL))?;
                return Ok(false);
            };
            ensure!(finished.outcome == Outcome::Succeeded, "deployment {id} failed: {:?}", finished.outcome);
            ran = Ran { started: status.started, ended: finished.time };
            Ok(true)
        })?;
        Ok(ran)
    }

    /// The largest resident memory of a controller, in MiB.
    fn controller_mib(&self) -> anyhow::Result<f64> {
        let ids = self.cluster.ids().into_iter();
        let bytes = ids.map(|id| self.cluster.resident_bytes(id)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(bytes.into_iter().max().unwrap_or_default() as f64 / f64::from(1 << 20))
    }

    fn seq(&self) -> anyhow::Result<u64> {
        let health: HealthAnswer = self.client()?.read("/v1/health")?;
        Ok(health.seq)
    }

    /// What the log took in after a seq, and what nodes were sent and told meanwhile.
    fn work_since(&self, before: u64, until: u64) -> anyhow::Result<Work> {
        let (client, mut work, mut after) = (self.client()?, Work::default(), before);
        let mut began = None;
        while after < until {
            let page: EventsPage = client.read(&format!("/v1/events?after={after}&limit=1000"))?;
            ensure!(page.after > after, "no events after {after}");
            for record in page.events.iter().take_while(|record| record.header.seq <= until) {
                let time = record.header.time;
                let began = *began.get_or_insert(time);
                work.records += 1;
                match &record.event {
                    Event::AssignmentsChanged { changes, .. } => {
                        work.assigning += 1;
                        work.assigned += changes.len();
                        work.assigned_ms = time.millis_since(began);
                    }
                    Event::NodesReported { reports } => work.reports += reports.len(),
                    _ => {}
                }
            }
            after = page.after;
        }
        work.in_force = self.told().in_force.iter().filter(|(_, seq)| *seq > before && *seq <= until).count();
        Ok(work)
    }

    /// Ends all of it.
    fn end(self) -> anyhow::Result<()> {
        let Self { cluster, processes, files, .. } = self;
        drop(processes);
        drop(files);
        ensure!(cluster.end().0.is_empty(), "something was left behind");
        Ok(())
    }
}

/// A spec of containers that differ by a marker, replaced all at once.
fn spec(app: &str, marker: &str, replicas: Option<u32>) -> Value {
    let update = json!({"max_unavailable": 100_000, "order": "stop_first", "deadline": "10m"});
    let mut web = json!({
        "image": format!("registry.example/web@sha256:{}", "a".repeat(64)),
        "env": {"MARKER": marker},
        "update": update,
    });
    match replicas {
        Some(replicas) => web["replicas"] = json!(replicas),
        None => web["every_node"] = json!(true),
    }
    json!({"spec": {"app": app, "environments": ["prod"], "services": {"web": web}}})
}
