//! `stele dev`: a whole fleet on this machine, by one command.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use stele_agent::identity::Engine;
use stele_agent::{AgentConfig, DataDir, JoinOptions};
use stele_bus::Auth;
use stele_bus::join::{JoinLine, NatsAccess};
use stele_bus::server::{NatsServer, NatsServerConfig};
use stele_controller::found::{Founding, Place, found, new_token};
use stele_controller::{Config, Handle, Running, start};
use stele_model::event::JoinToken;
use stele_model::{Command, FleetName, Links, NodeName, RegionName, Request, Time};
use tokio::task::JoinSet;

use crate::context::{Context, remember};
use crate::exit::Failure;
use crate::server::{failed, log_to_stderr};
use crate::session::Session;

/// Longest the fleet may take to be ready.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Life of the tokens by which the nodes join, in seconds.
const JOIN_TOKEN_LIFE_SECONDS: u64 = 600;
const STATE_FILE: &str = "dev.json";

/// Run a whole fleet on this machine: controllers, NATS, agents
///
/// Everything is kept in one folder; the same command starts the same fleet again.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  stele dev\n  stele dev --controllers 3 --nodes 6 --regions eu,us,ap\n  \
    stele dev --runtime simulated     # no Docker: containers exist in memory alone"
)]
pub(crate) struct Dev {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = ".stele")]
    folder: PathBuf,
    /// How many controllers; fixed when the folder is made
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    controllers: u64,
    /// How many nodes; fixed when the folder is made
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// The regions the nodes are spread over
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "eu,us,ap")]
    regions: Vec<RegionName>,
    /// What runs the containers
    #[arg(long, value_enum, default_value_t = RuntimeKind::Docker)]
    runtime: RuntimeKind,
    /// The fleet's name
    #[arg(long, default_value = "dev")]
    fleet: FleetName,
    /// Where images are copied to, and pulled from when their registry does not give them
    #[arg(long, value_name = "REGISTRY/FOLDER")]
    mirror: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RuntimeKind {
    /// Docker, or what speaks its protocol
    Docker,
    /// Nothing: containers exist in memory alone
    Simulated,
}

/// What must be the same at the next start.
#[derive(Serialize, Deserialize)]
struct Kept {
    fleet: FleetName,
    nats_port: u16,
    nats_token: String,
    admin_token: String,
    controllers: BTreeMap<u64, PathBuf>,
    nodes: Vec<KeptNode>,
    runtime: RuntimeKind,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptNode {
    name: NodeName,
    region: RegionName,
    address: Ipv4Addr,
}

impl Dev {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        log_to_stderr("warn");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(self.serve(session)).map_err(failed)
    }

    async fn serve(self, session: &Session) -> anyhow::Result<()> {
        let begun = Instant::now();
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        let folder = self.folder.canonicalize()?;
        let kept = match read(&folder)? {
            Some(kept) => kept,
            None => self.found(&folder)?,
        };
        let nats = NatsServerConfig {
            port: Some(kept.nats_port),
            token: Some(kept.nats_token.clone()),
            ..NatsServerConfig::new(folder.join("nats"))
        };
        let nats = NatsServer::spawn(nats).await.context("cannot run nats-server")?;
        let mut controllers = Vec::new();
        for config in kept.controllers.values() {
            let mut config = Config::read(&folder.join(config))?;
            config.mirror = self.mirror.clone().or(config.mirror);
            controllers.push(start(config).await?);
        }
        ready(&controllers[0].handle).await?;
        let mut agents = JoinSet::new();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        for node in &kept.nodes {
            let data = folder.join("nodes").join(node.name.as_str());
            enrol(&controllers[0], node, &data, kept.runtime).await?;
            let mut stopped = stopped.clone();
            let shutdown = async move {
                // The sender lives as long as the fleet; its end is a stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            agents.spawn(stele_agent::run(AgentConfig::new(DataDir::new(data)), shutdown));
        }
        let addresses: Vec<_> = controllers.iter().map(|it| format!("http://{}", it.api)).collect();
        let context = Context {
            addresses: addresses.clone(),
            token: Some(kept.admin_token.clone()),
            tls_root: None,
            root: Some(controllers[0].handle.identity().root.clone()),
        };
        remember(kept.fleet.as_str(), context).map_err(|error| anyhow::anyhow!("{error}"))?;
        self.announce(session, &kept, &addresses, begun)?;
        let result = tokio::select! {
            signal = tokio::signal::ctrl_c() => signal.map_err(Into::into),
            () = terminated() => Ok(()),
            Some(ended) = agents.join_next() => match ended {
                Ok(Ok(())) => Err(anyhow::anyhow!("an agent stopped by itself")),
                Ok(Err(error)) => Err(error.into()),
                Err(error) => Err(error.into()),
            },
        };
        // Agents first: they tell what they saw while somebody listens.
        stop.send_replace(true);
        while agents.join_next().await.is_some() {}
        for controller in controllers {
            controller.stop().await?;
        }
        drop(nats);
        result
    }

    fn found(&self, folder: &Path) -> anyhow::Result<Kept> {
        ensure!(!self.regions.is_empty(), "a fleet has at least one region");
        let mut ports = Ports(7400);
        let nats_port = ports.next()?;
        let (nats_token, _) = new_token()?;
        let mut places = Vec::new();
        for id in 1..=self.controllers {
            let mut address = || ports.next().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            places.push(Place { id, api: address()?, peer: address()? });
        }
        let founding = Founding {
            fleet: self.fleet.clone(),
            controllers: places,
            nats: NatsAccess {
                urls: vec![format!("nats://127.0.0.1:{nats_port}")],
                auth: Auth::Token(nats_token.clone()),
                tls_root: None,
            },
            admin: "admin".parse()?,
        };
        let founded = found(folder, &founding)?;
        let relative = |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path);
        let kept = Kept {
            fleet: self.fleet.clone(),
            nats_port,
            nats_token,
            admin_token: founded.admin_token,
            controllers: founded.configs.into_iter().map(|(id, path)| (id, relative(path))).collect(),
            nodes: self.nodes()?,
            runtime: self.runtime,
        };
        write(folder, &kept)?;
        Ok(kept)
    }

    fn nodes(&self) -> anyhow::Result<Vec<KeptNode>> {
        let regions = &self.regions;
        (0..self.nodes)
            .map(|at| {
                let region = &regions[usize::from(at) % regions.len()];
                let number = usize::from(at) / regions.len() + 1;
                // Nodes share this machine, so each publishes its ports on a loopback address of its own.
                let address = Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(at)?);
                Ok(KeptNode { name: format!("{region}-{number}").parse()?, region: region.clone(), address })
            })
            .collect()
    }

    fn announce(
        &self,
        session: &Session,
        kept: &Kept,
        addresses: &[String],
        begun: Instant,
    ) -> anyhow::Result<()> {
        let print = |line: &str| session.terminal.line(line).map_err(|error| anyhow::anyhow!("{error}"));
        print(&format!("Fleet {} is ready after {:.1} s.", kept.fleet, begun.elapsed().as_secs_f64()))?;
        print(&format!("  controllers  {}", addresses.join("  ")))?;
        let nodes: Vec<_> = kept.nodes.iter().map(|node| format!("{}={}", node.name, node.address)).collect();
        print(&format!("  nodes        {}", nodes.join("  ")))?;
        print(&format!("  token        {}", kept.admin_token))?;
        print(&format!("  kept in      {}", self.folder.display()))?;
        print("Commands on this machine use it from now on. Next, in another terminal:")?;
        print("  stele init && stele apply -f stele.yaml --wait")?;
        print("Ctrl-C stops it; its containers run on, and `stele dev` finds them again.")
    }
}

/// The next free port of loopback, from a memorable one on.
struct Ports(u16);

impl Ports {
    fn next(&mut self) -> anyhow::Result<u16> {
        while self.0 < u16::MAX {
            self.0 += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, self.0)).is_ok() {
                return Ok(self.0);
            }
        }
        bail!("no free port on 127.0.0.1")
    }
}

fn read(folder: &Path) -> anyhow::Result<Option<Kept>> {
    let path = folder.join(STATE_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(folder: &Path, kept: &Kept) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(STATE_FILE))
        .context("cannot keep the fleet's settings")?;
    file.write_all(&serde_json::to_vec_pretty(kept)?)?;
    file.sync_all()?;
    Ok(())
}

async fn ready(handle: &Handle) -> anyhow::Result<()> {
    let mut watch = handle.watch();
    let is_ready =
        watch.wait_for(|published| published.state.control.fleet.is_some() && published.leader.is_some());
    tokio::time::timeout(READY_DEADLINE, is_ready)
        .await
        .with_context(|| format!("no leader within {} s", READY_DEADLINE.as_secs()))??;
    Ok(())
}

/// Makes a node's folder one of the fleet, unless it is.
async fn enrol(
    controller: &Running,
    node: &KeptNode,
    data: &Path,
    runtime: RuntimeKind,
) -> anyhow::Result<()> {
    let handle = &controller.handle;
    if handle.published().state.control.nodes.contains_key(&node.name) {
        return Ok(());
    }
    let (secret, hash) = new_token()?;
    let token = JoinToken {
        hash,
        node: Some(node.name.clone()),
        region: node.region.clone(),
        labels: BTreeMap::new(),
        expires: Time(handle.now().0 + JOIN_TOKEN_LIFE_SECONDS * 1_000_000),
    };
    let request = Request {
        principal: "admin".parse()?,
        command: Command::CreateJoinToken { token },
        idempotency: None,
        trace: None,
        cause: None,
        reason: Some("stele dev".into()),
        links: Links::default(),
        if_match: None,
    };
    handle.submit(request).await?;
    let identity = handle.identity();
    let line = JoinLine {
        fleet: identity.fleet.clone(),
        root: identity.root.clone(),
        secret,
        controllers: vec![format!("http://{}", controller.api)],
        tls_root: None,
    };
    let engine = match runtime {
        RuntimeKind::Docker => Engine::Docker { host: None, publish_address: node.address.to_string() },
        RuntimeKind::Simulated => Engine::Simulated,
    };
    let options = JoinOptions {
        data: DataDir::new(data),
        line,
        name: node.name.clone(),
        address: Some(node.address.to_string()),
        engine,
    };
    tokio::task::spawn_blocking(move || stele_agent::join(options)).await??;
    Ok(())
}

/// SIGTERM, as service managers send it.
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without the signal, Ctrl-C still works.
        Err(_) => std::future::pending().await,
    }
}
