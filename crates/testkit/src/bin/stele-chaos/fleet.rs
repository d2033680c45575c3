//! The fleet's programs, each on a machine of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stele_api::wire::{ClusterAnswer, HealthAnswer, NodesAnswer};
use stele_testkit::limits::HEALTH_TIMEOUT;
use stele_testkit::{Client, Process, Programs, eventually, with_clock_off};

use crate::limits::{DISK_BYTES, LOG_LINES_SHOWN, RECOVERY_DEADLINE};
use crate::net::Net;
use crate::volume::{Kind, Volume};

/// The machine with the NATS that all others are leaf nodes of.
pub(crate) const HUB: &str = "hub";
pub(crate) const REGIONS: [&str; 3] = ["eu", "us", "ap"];
const API_PORT: u16 = 7400;
const PEER_PORT: u16 = 7500;
const NATS_PORT: u16 = 4222;
const LEAF_PORT: u16 = 7422;

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) controllers: u64,
    pub(crate) nodes_per_region: usize,
    /// What each controller's disk is, in order.
    pub(crate) disks: Vec<Kind>,
}

pub(crate) struct Controller {
    pub(crate) api: SocketAddr,
    pub(crate) folder: PathBuf,
    pub(crate) volume: Volume,
    pub(crate) process: Option<Process>,
    /// How far its clock is off, in seconds.
    pub(crate) clock: i64,
    /// Whether it is stopped by SIGSTOP.
    pub(crate) is_paused: bool,
    /// Whether it may end by itself: something it needs is broken.
    pub(crate) may_end: bool,
    /// Bytes of its log that were there before it last started.
    log_begins: usize,
}

pub(crate) struct Fleet {
    pub(crate) net: Net,
    /// Longest anything may take to be well again.
    pub(crate) patience: Duration,
    dir: PathBuf,
    programs: Programs,
    token: String,
    authority: PathBuf,
    pub(crate) controllers: BTreeMap<u64, Controller>,
    nats: BTreeMap<String, Option<Process>>,
    /// By node, with its region.
    agents: BTreeMap<String, (String, Option<Process>)>,
}

/// The machine of a controller.
pub(crate) fn machine(id: u64) -> String {
    format!("c{id}")
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

impl Controller {
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it printed since it last started.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log.txt")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_begins..).unwrap_or_default()).into_owned()
    }

    /// The last lines of that, for whoever looks into a failure.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Why it stopped, as it said itself.
    pub(crate) fn why_it_ended(&self) -> Option<String> {
        let log = self.log();
        let at =
            log.rfind("\nerror: ").map(|at| at + 1).or_else(|| log.starts_with("error: ").then_some(0))?;
        Some(log[at..].lines().collect::<Vec<_>>().join(" "))
    }
}

impl Fleet {
    /// Makes machines, disks and programs, and returns when every node is heard.
    pub(crate) fn start(dir: &Path, plan: &Plan, dice: &mut crate::dice::Dice) -> anyhow::Result<Self> {
        let mut machines = BTreeMap::from([(HUB.to_owned(), Ipv4Addr::new(10, 77, 0, 1))]);
        for id in 1..=plan.controllers {
            machines.insert(machine(id), Ipv4Addr::new(10, 77, 1, u8::try_from(id)?));
        }
        for (region, number) in REGIONS.iter().zip(1..) {
            machines.insert((*region).to_owned(), Ipv4Addr::new(10, 77, 2, number));
        }
        let net = Net::build(machines)?;
        let programs = Programs::find()?;
        let (token, folders) = found(dir, &net, &programs, plan.controllers)?;
        let mut controllers = BTreeMap::new();
        for ((id, folder), kind) in folders.into_iter().zip(&plan.disks) {
            let volume = Volume::make(*kind, &folder.join("data"), DISK_BYTES, dice)?;
            let api = SocketAddr::from((net.address(&machine(id))?, API_PORT));
            let controller = Controller {
                api,
                folder,
                volume,
                process: None,
                clock: 0,
                is_paused: false,
                may_end: false,
                log_begins: 0,
            };
            controllers.insert(id, controller);
        }
        let authority = dir.join("fleet/controller-1/authority.pem");
        let dir = dir.to_owned();
        let (nats, agents) = Default::default();
        let mut fleet = Self {
            net,
            patience: RECOVERY_DEADLINE,
            dir,
            programs,
            token,
            authority,
            controllers,
            nats,
            agents,
        };
        fleet.start_nats(HUB)?;
        for region in REGIONS {
            fleet.start_nats(region)?;
        }
        for id in fleet.ids() {
            fleet.start_controller(id)?;
        }
        fleet.leader()?;
        for region in REGIONS {
            for number in 1..=plan.nodes_per_region {
                fleet.join(region, &format!("{region}-{number}"))?;
            }
        }
        fleet.wait_for_nodes()?;
        Ok(fleet)
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.controllers.keys().copied().collect()
    }

    pub(crate) fn nodes(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    pub(crate) fn controller(&mut self, id: u64) -> anyhow::Result<&mut Controller> {
        self.controllers.get_mut(&id).with_context(|| format!("there is no controller {id}"))
    }

    /// Talks to one controller as the administrator.
    pub(crate) fn client(&self, id: u64) -> anyhow::Result<Client> {
        let controller = self.controllers.get(&id).with_context(|| format!("there is no controller {id}"))?;
        let authority = fs::read_to_string(&self.authority).context("the fleet has no authority")?;
        Client::secure(controller.api, Some(&self.token), &authority)
    }

    pub(crate) fn health(&self, id: u64) -> Option<HealthAnswer> {
        let is_there = |it: &Controller| it.process.is_some() && !it.is_paused;
        self.controllers.get(&id).filter(|it| is_there(it))?;
        self.client(id).ok()?.with_timeout(4 * HEALTH_TIMEOUT).read("/v1/health").ok()
    }

    /// The leader that some controller and it itself know of.
    pub(crate) fn leader_now(&self) -> Option<u64> {
        let named = self.ids().into_iter().find_map(|id| self.health(id)?.leader)?;
        (self.health(named)?.leader == Some(named)).then_some(named)
    }

    pub(crate) fn leader(&self) -> anyhow::Result<u64> {
        eventually(self.patience, "there is a leader", || {
            let leader = self.leader_now()?;
            let answer = self.client(leader).ok()?.read::<ClusterAnswer>("/v1/cluster?consistency=stale");
            answer.ok()?.fleet.map(|_| leader)
        })
    }

    pub(crate) fn start_controller(&mut self, id: u64) -> anyhow::Result<()> {
        let stele = self.programs.stele().display().to_string();
        let controller = self.controller(id)?;
        let log = controller.folder.join("log.txt");
        controller.log_begins = fs::read(&log).map_or(0, |log| log.len());
        let mut line: Vec<String> = Net::on(&machine(id)).to_vec();
        if controller.clock != 0 {
            line.extend(with_clock_off(controller.clock).context("there is no libfaketime")?);
        }
        line.extend([stele, "controller".to_owned(), "run".to_owned(), "--config".to_owned()]);
        line.push(controller.folder.join("controller.json").display().to_string());
        let (program, arguments) = line.split_first().context("there is always a program")?;
        controller.process = Some(Process::start(Path::new(program), arguments, &log)?);
        controller.is_paused = false;
        Ok(())
    }

    /// Ends a controller as `kill -9` does.
    pub(crate) fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        let controller = self.controller(id)?;
        if let Some(mut process) = controller.process.take() {
            process.kill()?;
        }
        controller.is_paused = false;
        Ok(())
    }

    /// A controller that ended by itself, though nothing it needs was broken.
    pub(crate) fn check_that_all_run(&mut self) -> anyhow::Result<()> {
        for (id, controller) in &mut self.controllers {
            let Some(process) = &mut controller.process else { continue };
            if let Some(status) = process.ended()
                && !controller.may_end
            {
                let words = controller.last_words();
                anyhow::bail!("controller {id} ended by itself with {status}; its last words:\n{words}");
            }
        }
        Ok(())
    }

    /// Starts a machine's NATS server, unless it runs.
    pub(crate) fn start_nats(&mut self, at: &str) -> anyhow::Result<()> {
        if self.nats.get(at).is_some_and(Option::is_some) {
            return Ok(());
        }
        let folder = self.dir.join(format!("nats-{at}"));
        fs::create_dir_all(&folder)?;
        let own = self.net.address(at)?;
        let common = format!(
            "server_name: {at}\nlisten: \"{own}:{NATS_PORT}\"\nmax_payload: {}\nping_interval: \"5s\"\nping_max: 2\n",
            stele_bus::limits::NATS_PAYLOAD_BYTES_MAX
        );
        let more = if at == HUB {
            let store = quoted(&folder.join("jetstream"));
            format!("jetstream {{ store_dir: {store} }}\nleafnodes {{ listen: \"{own}:{LEAF_PORT}\" }}\n")
        } else {
            let hub = self.net.address(HUB)?;
            format!(
                "leafnodes {{ reconnect: 1, remotes: [ {{ urls: [\"nats-leaf://{hub}:{LEAF_PORT}\"] }} ] }}\n"
            )
        };
        let settings = folder.join("nats.conf");
        fs::write(&settings, common + &more)?;
        let mut line: Vec<String> = Net::on(at).to_vec();
        line.extend(["nats-server", "--config"].map(str::to_owned));
        line.push(settings.display().to_string());
        let process = Process::start(Path::new(&line[0]), &line[1..], &folder.join("log.txt"))?;
        self.nats.insert(at.to_owned(), Some(process));
        Ok(())
    }

    /// Ends a machine's NATS server at once; with a wipe, everything it kept is gone.
    pub(crate) fn kill_nats(&mut self, at: &str, wipe: bool) -> anyhow::Result<()> {
        if let Some(mut process) = self.nats.get_mut(at).and_then(Option::take) {
            process.kill()?;
        }
        let store = self.dir.join(format!("nats-{at}")).join("jetstream");
        if wipe && store.exists() {
            fs::remove_dir_all(store)?;
        }
        Ok(())
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let urls = self.controllers.values().map(|controller| format!("https://{}", controller.api));
        let mut command = Command::new(self.programs.stele());
        command
            .args(arguments)
            .env("STELE_ADDR", urls.collect::<Vec<_>>().join(","))
            .env("STELE_TOKEN", &self.token)
            .env("SSL_CERT_FILE", &self.authority)
            // Nobody's contexts are read or written.
            .env("HOME", &self.dir)
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs a `stele` command that must succeed; answers what it printed.
    pub(crate) fn run_cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.cli(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "stele {}: {}{}",
            arguments.join(" "),
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    fn join(&mut self, region: &str, name: &str) -> anyhow::Result<()> {
        let token = self.run_cli(&["node", "token", "--region", region, "--name", name])?;
        let data = agent_folder(&self.dir, name);
        let own = self.net.address(region)?.to_string();
        let line = Net::on(region);
        let output = Command::new(&line[0])
            .args(&line[1..])
            .arg(self.programs.agent())
            .args(["join", token.trim(), "--name", name, "--data"])
            .arg(&data)
            .args(["--address", &own, "--publish-address", &own, "--runtime", "simulated"])
            .output()?;
        ensure!(output.status.success(), "{name} did not join: {}", String::from_utf8_lossy(&output.stderr));
        self.agents.insert(name.to_owned(), (region.to_owned(), None));
        self.start_agents()
    }

    /// Ends a node's agent as `kill -9` does.
    pub(crate) fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let (_, process) = self.agents.get_mut(name).with_context(|| format!("there is no node {name}"))?;
        process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts agents that do not run.
    pub(crate) fn start_agents(&mut self) -> anyhow::Result<()> {
        for (name, (region, process)) in &mut self.agents {
            if process.is_none() {
                let own = self.net.address(region)?;
                *process = Some(start_agent(&self.programs, &self.dir, region, own, name)?);
            }
        }
        Ok(())
    }

    /// Waits until every node was heard of and seen to work on its newest assignment. Not all at one moment:
    /// the operator goes on giving them new ones.
    pub(crate) fn wait_for_nodes(&self) -> anyhow::Result<()> {
        let mut ready = BTreeSet::new();
        let waited = eventually(self.patience, "every node is ready", || {
            let client = self.client(self.leader_now()?).ok()?;
            let answer: NodesAnswer = client.read("/v1/nodes").ok()?;
            let are = answer.nodes.iter().filter(|node| node.reachable && node.current);
            ready.extend(are.map(|node| node.name.to_string()));
            self.agents.keys().all(|name| ready.contains(name)).then_some(())
        });
        waited.with_context(|| format!("ready are only {ready:?}"))
    }

    /// Waits until what should be, what nodes were told and what they say are the same.
    pub(crate) fn wait_for_convergence(&self) -> anyhow::Result<()> {
        let mut seen = Value::Null;
        let waited = eventually(self.patience, "every app has converged", || {
            let status: Value = self.client(self.leader_now()?).ok()?.read("/v1/status").ok()?;
            let apps = status["apps"].as_array()?;
            let have = !apps.is_empty() && apps.iter().all(|app| app["condition"] == "converged");
            seen = status["apps"].clone();
            have.then_some(())
        });
        waited.with_context(|| format!("{seen}"))
    }

    /// Waits until every controller has everything that is there now; says up to where.
    pub(crate) fn wait_until_level(&mut self) -> anyhow::Result<u64> {
        let leader = self.leader()?;
        let began = Instant::now();
        let last =
            eventually(self.patience, "the leader says how far it is", || Some(self.health(leader)?.seq))?;
        for id in self.ids() {
            let left = self.patience.saturating_sub(began.elapsed());
            let waited = eventually(left, &format!("controller {id} has record {last}"), || {
                self.health(id).filter(|health| health.seq >= last)
            });
            self.check_that_all_run()?;
            let words = || self.controllers.get(&id).map(Controller::last_words).unwrap_or_default();
            waited.with_context(|| format!("controller {id}'s last words:\n{}", words()))?;
        }
        Ok(last)
    }

    /// Ends all controllers in order.
    pub(crate) fn stop_controllers(&mut self) -> anyhow::Result<()> {
        for (id, controller) in &mut self.controllers {
            if let Some(mut process) = controller.process.take() {
                let status = process.stop()?;
                let words = controller.last_words();
                ensure!(
                    status.success(),
                    "controller {id} was asked to end, and ended with {status}:\n{words}"
                );
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Programs before the disks they are on.
        self.agents.clear();
        self.nats.clear();
        for controller in self.controllers.values_mut() {
            controller.process = None;
        }
    }
}

fn agent_folder(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("agent-{name}"))
}

fn start_agent(
    programs: &Programs,
    dir: &Path,
    region: &str,
    own: Ipv4Addr,
    name: &str,
) -> anyhow::Result<Process> {
    let data = agent_folder(dir, name);
    let mut line: Vec<String> = Net::on(region).to_vec();
    line.push(programs.agent().display().to_string());
    line.extend(["run".to_owned(), "--data".to_owned(), data.display().to_string()]);
    // An agent talks to its own region's NATS alone.
    line.extend(["--nats".to_owned(), format!("nats://{own}:{NATS_PORT}")]);
    Process::start(Path::new(&line[0]), &line[1..], &data.with_extension("log"))
}

/// Makes the controllers' folders; answers the administrator's token, and the folders.
fn found(
    dir: &Path,
    net: &Net,
    programs: &Programs,
    controllers: u64,
) -> anyhow::Result<(String, BTreeMap<u64, PathBuf>)> {
    let mut command = Command::new(programs.stele());
    command.args(["controller", "found", "--output=json", "--fleet=chaos", "--folder"]);
    command.arg(dir.join("fleet"));
    command.args(["--nats", &format!("nats://{}:{NATS_PORT}", net.address(HUB)?)]);
    for id in 1..=controllers {
        let own = net.address(&machine(id))?;
        command.args(["--controllers", &format!("{id}={own}:{API_PORT},{own}:{PEER_PORT}")]);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "founding failed: {}", String::from_utf8_lossy(&output.stderr));
    let founded: Value = serde_json::from_slice(&output.stdout).context("founding printed no JSON")?;
    let token = founded["admin_token"].as_str().context("the token is missing")?.to_owned();
    let folder = |id: u64| {
        let config = founded["configs"][id.to_string()].as_str().context("a configuration is missing")?;
        let folder = Path::new(config).parent().context("a configuration is in no folder")?;
        Ok((id, folder.to_owned()))
    };
    Ok((token, (1..=controllers).map(folder).collect::<anyhow::Result<_>>()?))
}
