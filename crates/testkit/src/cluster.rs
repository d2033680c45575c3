//! A whole fleet of processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stele_api::wire::{ClusterAnswer, HealthAnswer, MemberRole, NodesAnswer};
use stele_bus::server::{NatsServer, NatsServerConfig};

use crate::client::Client;
use crate::docker;
use crate::limits::{DEADLINE, HEALTH_TIMEOUT, RECOVERY_DEADLINE};
use crate::member::{Agent, Controller};
use crate::ports;
use crate::process::{Process, end_of, leashed, on_lasting_thread};
use crate::programs::Programs;
use crate::waiting::eventually;

/// What runs the containers of a cluster's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The machine's Docker.
    Docker,
    /// Nothing: containers exist in the agents' memory.
    Simulated,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The loopback address its ports are published on.
    pub address: String,
}

/// A cluster to be started.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The fleet's name. Containers are found by it, so no two clusters of a machine may share one.
    pub fleet: String,
    /// How many controllers found it; their ids are 1 to this.
    pub controllers: u64,
    /// Its nodes.
    pub nodes: Vec<NodeConfig>,
    /// What runs their containers.
    pub runtime: Runtime,
}

impl ClusterConfig {
    /// Three controllers and three nodes in as many regions, without Docker.
    pub fn simulated(name: &str) -> Self {
        let nodes = ["eu", "us", "ap"].into_iter().enumerate().map(|(index, region)| NodeConfig {
            name: format!("{region}-1"),
            region: region.to_owned(),
            address: format!("127.0.0.{}", 21 + index),
        });
        Self {
            fleet: format!("{name}-{}", std::process::id()),
            controllers: 3,
            nodes: nodes.collect(),
            runtime: Runtime::Simulated,
        }
    }
}

enum Nats {
    Runs(NatsServer),
    Stopped(NatsServerConfig),
    Changing,
}

/// A fleet of real processes. All that belongs to it goes when it is dropped.
pub struct Cluster {
    fleet: String,
    dir: tempfile::TempDir,
    programs: Programs,
    runtime: Runtime,
    token: String,
    nats: Nats,
    controllers: BTreeMap<u64, Controller>,
    /// Ids are never used again, also after their controller is gone.
    last_id: u64,
    agents: BTreeMap<String, Agent>,
    ended: bool,
}

/// What was found after a cluster's end that should not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(pub Vec<String>);

impl Cluster {
    /// Starts one, and returns when it has a leader and every node is heard.
    pub fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let mut cluster = Self::found(&config)?;
        for id in cluster.ids() {
            cluster.start_controller(id)?;
        }
        cluster.leader()?;
        for node in &config.nodes {
            cluster.join_node(node)?;
        }
        cluster.wait_for_nodes()?;
        Ok(cluster)
    }

    /// Starts NATS and makes the controllers' folders, but starts none of them.
    pub fn found(config: &ClusterConfig) -> anyhow::Result<Self> {
        let programs = Programs::find()?;
        let dir = tempfile::Builder::new().prefix(&format!("stele-{}-", config.fleet)).tempdir()?;
        let nats = spawn_nats(NatsServerConfig {
            program: nats_program(dir.path())?,
            ..NatsServerConfig::new(dir.path().join("nats"))
        })?;
        let mut arguments = vec!["controller".to_owned(), "found".to_owned(), "--output=json".to_owned()];
        arguments.extend(["--folder".to_owned(), dir.path().join("fleet").display().to_string()]);
        arguments.extend(["--fleet".to_owned(), config.fleet.clone(), "--nats".to_owned(), nats.url()]);
        let mut places = BTreeMap::new();
        for id in 1..=config.controllers {
            let (api, peer) = (ports::free()?, ports::free()?);
            arguments.extend(["--controllers".to_owned(), format!("{id}={api},{peer}")]);
            places.insert(id, api);
        }
        let output = Command::new(programs.stele()).args(&arguments).output()?;
        ensure!(output.status.success(), "founding failed: {}", String::from_utf8_lossy(&output.stderr));
        let founded: Value = serde_json::from_slice(&output.stdout).context("founding printed no JSON")?;
        let mut controllers = BTreeMap::new();
        for (id, api) in places {
            let config = founded["configs"][id.to_string()].as_str().context("a configuration is missing")?;
            controllers.insert(id, Controller { api, config: PathBuf::from(config), process: None });
        }
        Ok(Self {
            fleet: config.fleet.clone(),
            dir,
            programs,
            runtime: config.runtime,
            token: founded["admin_token"].as_str().context("the token is missing")?.to_owned(),
            nats: Nats::Runs(nats),
            controllers,
            last_id: config.controllers,
            agents: BTreeMap::new(),
            ended: false,
        })
    }

    /// Its name.
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Where it keeps everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Controllers that were made, whether they run or not.
    pub fn ids(&self) -> Vec<u64> {
        self.controllers.keys().copied().collect()
    }

    /// Controllers with a process.
    pub fn running(&self) -> Vec<u64> {
        let runs = |(id, controller): (&u64, &Controller)| controller.process.is_some().then_some(*id);
        self.controllers.iter().filter_map(runs).collect()
    }

    /// Addresses of all controllers, as the CLI takes them.
    pub fn addresses(&self) -> String {
        let urls = self.controllers.values().map(|controller| format!("http://{}", controller.api));
        urls.collect::<Vec<_>>().join(",")
    }

    fn controller(&mut self, id: u64) -> anyhow::Result<&mut Controller> {
        self.controllers.get_mut(&id).with_context(|| format!("there is no controller {id}"))
    }

    /// Where a controller's API answers.
    pub fn api(&self, id: u64) -> anyhow::Result<SocketAddr> {
        Ok(self.controllers.get(&id).with_context(|| format!("there is no controller {id}"))?.api)
    }

    /// A controller's folder: its configuration, keys, log and data.
    pub fn folder(&self, id: u64) -> anyhow::Result<PathBuf> {
        let controller = self.controllers.get(&id).with_context(|| format!("there is no controller {id}"))?;
        Ok(controller.folder().to_owned())
    }

    /// How many data keys of subjects a controller keeps, beside those that it tells repeated requests by.
    pub fn data_keys(&self, id: u64) -> anyhow::Result<usize> {
        let folder = self.folder(id)?.join("data").join("keys");
        if !folder.exists() {
            return Ok(0);
        }
        let mut count = 0;
        for file in std::fs::read_dir(folder)? {
            // One may be destroyed meanwhile, or not be whole yet.
            let Ok(text) = std::fs::read_to_string(file?.path()) else { continue };
            let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let subject = kept["subject"].as_str();
            count += usize::from(subject.is_some_and(|subject| !subject.contains(char::is_control)));
        }
        Ok(count)
    }

    /// The process of a controller.
    pub fn process_id(&self, id: u64) -> anyhow::Result<u32> {
        let controller = self.controllers.get(&id).with_context(|| format!("there is no controller {id}"))?;
        Ok(controller.process.as_ref().context("this controller does not run")?.id())
    }

    /// What a controller's process holds in memory, in bytes.
    pub fn resident_bytes(&self, id: u64) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id(id)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(1024 * kilobytes.context("the kernel says what a process holds")?)
    }

    /// Talks to one controller as the administrator.
    pub fn client(&self, id: u64) -> anyhow::Result<Client> {
        Ok(Client::new(self.api(id)?, Some(&self.token)))
    }

    /// What a controller says of itself, if it answers at once.
    pub fn health(&self, id: u64) -> Option<HealthAnswer> {
        let client = Client::new(self.controllers.get(&id)?.api, None).with_timeout(HEALTH_TIMEOUT);
        client.read("/v1/health").ok()
    }

    /// The leader that some running controllers, and it itself, know of; if there is one now.
    pub fn leader_now(&self) -> Option<u64> {
        let running = self.running();
        let named = running.iter().find_map(|id| self.health(*id)?.leader)?;
        let own = running.contains(&named).then(|| self.health(named)).flatten()?;
        (own.leader == Some(named)).then_some(named)
    }

    /// Waits for a leader, of a fleet that is founded.
    pub fn leader(&self) -> anyhow::Result<u64> {
        eventually(RECOVERY_DEADLINE, "there is a leader", || {
            let leader = self.leader_now()?;
            let answer = self.client(leader).ok()?.read::<ClusterAnswer>("/v1/cluster?consistency=stale");
            answer.ok()?.fleet.map(|_| leader)
        })
    }

    /// Waits for a leader that is not this controller.
    pub fn leader_besides(&self, id: u64) -> anyhow::Result<u64> {
        eventually(RECOVERY_DEADLINE, "another controller leads", || {
            let others = self.running().into_iter().filter(|other| *other != id);
            others.into_iter().find_map(|other| {
                let leader = self.health(other)?.leader.filter(|leader| *leader != id)?;
                (self.health(leader)?.leader == Some(leader)).then_some(leader)
            })
        })
    }

    /// Starts a controller.
    pub fn start_controller(&mut self, id: u64) -> anyhow::Result<()> {
        self.start_wrapped(id, &[])
    }

    /// Starts a controller by another program, given with its arguments, which must become it.
    pub fn start_wrapped(&mut self, id: u64, wrapper: &[String]) -> anyhow::Result<()> {
        let stele = self.programs.stele();
        self.controller(id)?.start(&stele, wrapper)
    }

    /// Starts a controller and waits until it knows a leader.
    pub fn restart(&mut self, id: u64) -> anyhow::Result<()> {
        self.start_controller(id)?;
        eventually(RECOVERY_DEADLINE, &format!("controller {id} follows again"), || self.health(id)?.leader)?;
        Ok(())
    }

    /// A controller's process.
    pub fn process(&mut self, id: u64) -> anyhow::Result<&mut Process> {
        self.controller(id)?.process()
    }

    /// Ends a controller as `kill -9` does.
    pub fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        let controller = self.controller(id)?;
        controller.process()?.kill()?;
        controller.process = None;
        Ok(())
    }

    /// Asks a controller to end, and waits until it has.
    pub fn stop(&mut self, id: u64) -> anyhow::Result<()> {
        let controller = self.controller(id)?;
        let status = controller.process()?.stop()?;
        let log = controller.process()?.log();
        controller.process = None;
        ensure!(status.success(), "controller {id} ended with {status}:\n{}", end_of(&log));
        Ok(())
    }

    /// Waits until a controller has ended by itself; answers what it printed.
    pub fn wait_for_end(&mut self, id: u64) -> anyhow::Result<String> {
        let controller = self.controller(id)?;
        let process = controller.process()?;
        let what = format!("controller {id} ends by itself");
        let status = eventually(RECOVERY_DEADLINE, &what, || process.ended())?;
        let log = process.log();
        controller.process = None;
        ensure!(!status.success(), "controller {id} ended as if all were well:\n{}", end_of(&log));
        Ok(log)
    }

    /// Deletes all a stopped controller keeps.
    pub fn wipe(&mut self, id: u64) -> anyhow::Result<()> {
        let controller = self.controller(id)?;
        ensure!(controller.process.is_none(), "controller {id} still runs");
        std::fs::remove_dir_all(controller.folder())?;
        self.controllers.remove(&id);
        Ok(())
    }

    /// Makes the folder of a further controller; answers its id.
    pub fn prepare(&mut self) -> anyhow::Result<u64> {
        let id = self.last_id + 1;
        // The newest one's knows all before it: until it has State, a controller talks to those in its own alone.
        let like = self.controllers.values().next_back().context("there is no controller")?.config.clone();
        let (api, peer) = (ports::free()?, ports::free()?);
        let folder = self.dir.path().join("fleet");
        let output = Command::new(self.programs.stele())
            .args(["controller", "prepare", "--id", &id.to_string(), "--folder"])
            .arg(&folder)
            .arg("--like")
            .arg(like)
            .args(["--api", &api.to_string(), "--peer", &peer.to_string()])
            .output()?;
        ensure!(output.status.success(), "preparing failed: {}", String::from_utf8_lossy(&output.stderr));
        let config = folder.join(format!("controller-{id}")).join("controller.json");
        self.controllers.insert(id, Controller { api, config, process: None });
        self.last_id = id;
        Ok(id)
    }

    /// Adds a prepared and started controller, and waits until it votes.
    pub fn add(&mut self, id: u64) -> anyhow::Result<()> {
        let config = self.controller(id)?.config.display().to_string();
        self.run_cli(&["cluster", "add", &id.to_string(), "--config", &config])?;
        let leader = self.leader()?;
        let client = self.client(leader)?;
        eventually(DEADLINE, &format!("controller {id} votes"), || {
            let answer: ClusterAnswer = client.read("/v1/cluster").ok()?;
            let of_it = |it: &&stele_api::wire::ControllerStatus| it.id == id;
            let added = answer.controllers.iter().find(of_it)?;
            (added.role == MemberRole::Voter).then_some(())
        })
    }

    /// Removes a controller from the cluster, for ever.
    pub fn remove(&mut self, id: u64) -> anyhow::Result<()> {
        self.run_cli(&["cluster", "remove", &id.to_string(), "--yes"])?;
        Ok(())
    }

    /// Lets a node join and starts its agent.
    pub fn join_node(&mut self, node: &NodeConfig) -> anyhow::Result<()> {
        let printed = self.run_cli(&["node", "token", "--region", &node.region, "--name", &node.name])?;
        let data = self.dir.path().join(format!("agent-{}", node.name));
        let output = leashed(&self.programs.agent())
            .args(["join", printed.trim(), "--name", &node.name, "--data"])
            .arg(&data)
            .args(["--address", &node.address, "--publish-address", &node.address])
            .args(["--runtime", if self.runtime == Runtime::Docker { "docker" } else { "simulated" }])
            .output()?;
        ensure!(
            output.status.success(),
            "{} did not join: {}",
            node.name,
            String::from_utf8_lossy(&output.stderr)
        );
        self.agents.insert(node.name.clone(), Agent { data, process: None });
        self.start_agent(&node.name)
    }

    /// Starts a joined node's agent.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let program = self.programs.agent();
        self.agents.get_mut(name).with_context(|| format!("there is no agent {name}"))?.start(&program)
    }

    /// Where a joined node's agent keeps what it was told.
    pub fn agent_folder(&self, name: &str) -> anyhow::Result<&Path> {
        Ok(&self.agents.get(name).with_context(|| format!("there is no agent {name}"))?.data)
    }

    /// Ends an agent as `kill -9` does. Its containers run on.
    pub fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let agent = self.agents.get_mut(name).with_context(|| format!("there is no agent {name}"))?;
        agent.process = None;
        Ok(())
    }

    /// Waits until every node was heard of and works on its newest assignment.
    pub fn wait_for_nodes(&self) -> anyhow::Result<()> {
        let client = self.client(self.leader()?)?;
        eventually(DEADLINE, "every node is ready", || {
            let answer: NodesAnswer = client.read("/v1/nodes").ok()?;
            let ready = answer.nodes.iter().filter(|node| node.reachable && node.current).count();
            (ready == self.agents.len()).then_some(())
        })
    }

    /// Stops NATS and deletes everything it kept.
    pub fn wipe_nats(&mut self) -> anyhow::Result<()> {
        if let Nats::Runs(server) = std::mem::replace(&mut self.nats, Nats::Changing) {
            let config = server.stop();
            std::fs::remove_dir_all(&config.dir)?;
            self.nats = Nats::Stopped(config);
        }
        Ok(())
    }

    /// Starts NATS again, where it was.
    pub fn start_nats(&mut self) -> anyhow::Result<()> {
        if let Nats::Stopped(config) = std::mem::replace(&mut self.nats, Nats::Changing) {
            self.nats = Nats::Runs(spawn_nats(config)?);
        }
        Ok(())
    }

    /// NATS's address, while it runs.
    pub fn nats_url(&self) -> Option<String> {
        match &self.nats {
            Nats::Runs(server) => Some(server.url()),
            _ => None,
        }
    }

    /// Ids of all processes of the cluster.
    pub fn process_ids(&self) -> Vec<u32> {
        let controllers = self.controllers.values().filter_map(|controller| controller.process.as_ref());
        let agents = self.agents.values().filter_map(|agent| agent.process.as_ref());
        let nats = match &self.nats {
            Nats::Runs(server) => Some(server.pid()),
            _ => None,
        };
        controllers.chain(agents).map(Process::id).chain(nats).collect()
    }

    /// A `stele` command, not started yet, that talks to this cluster as the administrator.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = leashed(&self.programs.stele());
        command
            .args(arguments)
            .env("STELE_ADDR", self.addresses())
            .env("STELE_TOKEN", &self.token)
            // Nobody's contexts are read or written.
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs a `stele` command to its end.
    pub fn output_of(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.cli(arguments);
        Ok(command.output()?)
    }

    /// Runs a `stele` command that must succeed; answers what it printed.
    pub fn run_cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output_of(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "stele {}: {}", arguments.join(" "), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Ends everything in order, then looks for anything that is left.
    pub fn end(mut self) -> Leftovers {
        let processes = self.process_ids();
        let folder = self.dir.path().to_owned();
        let mut left = self.tear_down(true);
        drop(self);
        let alive = |id: &&u32| Path::new(&format!("/proc/{id}")).exists();
        left.extend(processes.iter().filter(alive).map(|id| format!("process {id}")));
        if folder.exists() {
            left.push(format!("folder {}", folder.display()));
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = folder.display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")));
        Leftovers(left)
    }

    /// Ends everything; answers what could not be removed from Docker.
    fn tear_down(&mut self, in_order: bool) -> Vec<String> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        let agents = self.agents.values_mut().filter_map(|agent| agent.process.take());
        let controllers = self.controllers.values_mut().filter_map(|controller| controller.process.take());
        for mut process in agents.chain(controllers) {
            if in_order && process.signal(nix::sys::signal::Signal::SIGTERM).is_ok() {
                // A paused one hears nothing; one that does not end in time is killed by the drop.
                let _ = process.resume();
                let _ = process.stop();
            }
        }
        self.nats = Nats::Changing;
        // After the agents: they would make again what is removed.
        if self.runtime == Runtime::Docker { docker::remove_fleet(&self.fleet) } else { Vec::new() }
    }

    fn print_logs(&self) {
        let own = self
            .controllers
            .iter()
            .map(|(id, controller)| (format!("controller {id}"), controller.folder().join("log.txt")));
        let agents = self
            .agents
            .iter()
            .map(|(name, agent)| (format!("agent {name}"), agent.data.with_extension("log")));
        for (name, path) in own.chain(agents) {
            let log = std::fs::read(path).unwrap_or_default();
            eprintln!("--- the end of {name}'s log\n{}", end_of(&String::from_utf8_lossy(&log)));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        self.tear_down(false);
    }
}

/// A `nats-server` on a leash, as one program without arguments of its own.
fn nats_program(dir: &Path) -> anyhow::Result<PathBuf> {
    let command = leashed(Path::new("nats-server"));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let path = dir.join("nats-server");
    std::fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", line.join(" ")))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn spawn_nats(config: NatsServerConfig) -> anyhow::Result<NatsServer> {
    on_lasting_thread(move || -> anyhow::Result<NatsServer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(NatsServer::spawn(config))?)
    })?
}
