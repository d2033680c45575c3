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
use stele_controller::{Config, Handle, start};
use stele_model::event::JoinToken;
use stele_model::{Command, FleetName, Links, NodeName, RegionName, Request, Time};
use tokio::task::JoinSet;

use crate::context::{Context, remember};
use crate::exit::Failure;
use crate::limits::DEV_PAST_MEMORY_MIB;
use crate::server::{failed, log_to_stderr};
use crate::session::Session;

/// Longest the fleet may take to be ready.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Life of the tokens by which the nodes join, in seconds.
const JOIN_TOKEN_LIFE_SECONDS: u64 = 600;
const STATE_FILE: &str = "dev.json";
const LOCK_FILE: &str = "dev.lock";
/// A small public image that answers on the starter spec's port.
const EXAMPLE_IMAGE: &str = "docker.io/nginxinc/nginx-unprivileged:stable-alpine";
/// Between looks whether nats-server still runs.
const NATS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest life of a nats-server that is started again when it ends.
const NATS_LIFE_MIN: Duration = Duration::from_secs(10);

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
    /// How many controllers, 1 unless said; fixed when the folder is made
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=5))]
    controllers: Option<u64>,
    /// How many nodes, 3 unless said; fixed when the folder is made
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    /// The regions the nodes are spread over; eu,us,ap unless said
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    regions: Option<Vec<RegionName>>,
    /// What runs the containers; docker unless said
    #[arg(long, value_enum)]
    runtime: Option<RuntimeKind>,
    /// The fleet's name; dev unless said
    #[arg(long)]
    fleet: Option<FleetName>,
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
        // Until this process ends, however it does.
        let _lock = lock(&folder)?;
        let kept = match read(&folder)? {
            Some(kept) => self.check(kept)?,
            None => self.found(&folder)?,
        };
        let nats = NatsServerConfig {
            port: Some(kept.nats_port),
            token: Some(kept.nats_token.clone()),
            ..NatsServerConfig::new(folder.join("nats"))
        };
        let nats = NatsServer::spawn(nats).await.context("cannot run nats-server")?;
        let (stop_controllers, controllers_stopped) = tokio::sync::watch::channel(false);
        let mut controllers = JoinSet::new();
        let mut handles = Vec::new();
        for config in kept.controllers.values() {
            let mut config = Config::read(&folder.join(config))?;
            config.mirror = self.mirror.clone().or(config.mirror);
            // Several of them share the machine with whatever somebody works on.
            config.past_memory_mib = config.past_memory_mib.or(Some(DEV_PAST_MEMORY_MIB));
            let running = start(config).await?;
            handles.push((running.handle.clone(), running.api));
            controllers.spawn(running.run_until(told(controllers_stopped.clone())));
        }
        ready(&handles[0].0).await?;
        let mut agents = JoinSet::new();
        let (stop_agents, agents_stopped) = tokio::sync::watch::channel(false);
        for node in &kept.nodes {
            let data = folder.join("nodes").join(node.name.as_str());
            enrol(&handles[0], node, &data, kept.runtime).await?;
            let stopped = told(agents_stopped.clone());
            agents.spawn(stele_agent::run(AgentConfig::new(DataDir::new(data)), stopped));
        }
        let addresses: Vec<_> = handles.iter().map(|(_, api)| format!("http://{api}")).collect();
        let context = Context {
            addresses: addresses.clone(),
            token: Some(kept.admin_token.clone()),
            tls_root: None,
            root: Some(handles[0].0.identity().root.clone()),
        };
        remember(kept.fleet.as_str(), context).map_err(|error| anyhow::anyhow!("{error}"))?;
        self.announce(session, &kept, &addresses, begun)?;
        let (nats_stopped, stopped) = tokio::sync::watch::channel(false);
        let mut nats = tokio::spawn(keep_running(nats, told(stopped)));
        let result = tokio::select! {
            () = signalled() => Ok(()),
            Some(ended) = agents.join_next() => Err(ended_by_itself("an agent", ended)),
            Some(ended) = controllers.join_next() => Err(ended_by_itself("a controller", ended)),
            ended = &mut nats => Err(ended_by_itself("nats-server", ended)),
        };
        // Agents first: they tell what they saw while somebody listens.
        stop_agents.send_replace(true);
        while agents.join_next().await.is_some() {}
        stop_controllers.send_replace(true);
        let mut stopped = Ok(());
        while let Some(ended) = controllers.join_next().await {
            stopped = stopped.and(ended.map_err(Into::into).and_then(|ended| ended));
        }
        nats_stopped.send_replace(true);
        if !nats.is_finished() {
            drop(nats.await);
        }
        result.and(stopped)
    }

    /// What is asked for now must be what the folder was made with.
    fn check(&self, kept: Kept) -> anyhow::Result<Kept> {
        let mut regions: Vec<_> = Vec::new();
        for node in &kept.nodes {
            if !regions.contains(&node.region) {
                regions.push(node.region.clone());
            }
        }
        let word = |kind: RuntimeKind| kind.to_possible_value().map(|it| it.get_name().to_owned());
        let differs = [
            self.controllers
                .is_some_and(|it| it != kept.controllers.len() as u64)
                .then(|| format!("--controllers {}", kept.controllers.len())),
            self.nodes
                .is_some_and(|it| usize::from(it) != kept.nodes.len())
                .then(|| format!("--nodes {}", kept.nodes.len())),
            self.regions.as_ref().is_some_and(|it| *it != regions).then(|| {
                let names: Vec<_> = regions.iter().map(ToString::to_string).collect();
                format!("--regions {}", names.join(","))
            }),
            self.runtime
                .is_some_and(|it| it != kept.runtime)
                .then(|| format!("--runtime {}", word(kept.runtime).unwrap_or_default())),
            self.fleet
                .as_ref()
                .is_some_and(|it| *it != kept.fleet)
                .then(|| format!("--fleet {}", kept.fleet)),
        ];
        let differs: Vec<_> = differs.into_iter().flatten().collect();
        ensure!(
            differs.is_empty(),
            "{} was made with {}, which cannot be changed: leave it out, or name another --folder",
            self.folder.display(),
            differs.join(" ")
        );
        Ok(kept)
    }

    fn found(&self, folder: &Path) -> anyhow::Result<Kept> {
        let fleet = match &self.fleet {
            Some(fleet) => fleet.clone(),
            None => "dev".parse()?,
        };
        let mut ports = Ports(7400);
        let nats_port = ports.next()?;
        let (nats_token, _) = new_token()?;
        let mut places = Vec::new();
        for id in 1..=self.controllers.unwrap_or(1) {
            let mut address = || ports.next().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            places.push(Place { id, api: address()?, peer: address()? });
        }
        let founding = Founding {
            fleet: fleet.clone(),
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
            fleet,
            nats_port,
            nats_token,
            admin_token: founded.admin_token,
            controllers: founded.configs.into_iter().map(|(id, path)| (id, relative(path))).collect(),
            nodes: self.nodes()?,
            runtime: self.runtime.unwrap_or(RuntimeKind::Docker),
        };
        write(folder, &kept)?;
        Ok(kept)
    }

    fn nodes(&self) -> anyhow::Result<Vec<KeptNode>> {
        let regions = match &self.regions {
            Some(regions) => regions.clone(),
            None => vec!["eu".parse()?, "us".parse()?, "ap".parse()?],
        };
        ensure!(!regions.is_empty(), "a fleet has at least one region");
        (0..self.nodes.unwrap_or(3))
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
        let runtime = match kept.runtime {
            RuntimeKind::Docker => "Docker",
            RuntimeKind::Simulated => "simulated: containers exist in memory alone",
        };
        print(&format!("  runtime      {runtime}"))?;
        print(&format!("  token        {}", kept.admin_token))?;
        print(&format!("  kept in      {}", self.folder.display()))?;
        print("Commands on this machine use it from now on. Next, in another terminal:")?;
        let image = match kept.runtime {
            RuntimeKind::Docker => EXAMPLE_IMAGE.to_owned(),
            // Nothing is pulled, so any digest will do, and no registry is asked.
            RuntimeKind::Simulated => format!("example/web@sha256:{}", "5e1e".repeat(16)),
        };
        print(&format!("  stele init --image {image} && stele apply -f stele.yaml --wait"))?;
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
    (handle, api): &(Handle, SocketAddr),
    node: &KeptNode,
    data: &Path,
    runtime: RuntimeKind,
) -> anyhow::Result<()> {
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
        controllers: vec![format!("http://{api}")],
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

/// Nobody else may run the fleet of this folder at the same time.
fn lock(folder: &Path) -> anyhow::Result<std::fs::File> {
    let path = folder.join(LOCK_FILE);
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another stele dev runs in {}", folder.display())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Ends when told; the end of who tells is a stop as well.
async fn told(mut stopped: tokio::sync::watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Starts nats-server again when somebody ends it. Only one that ends again at once is an error.
async fn keep_running(mut nats: NatsServer, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let mut again: Option<Instant> = None;
    let mut look = tokio::time::interval(NATS_LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = look.tick() => {}
        }
        if let Some(status) = nats.ended() {
            ensure!(
                again.is_none_or(|again| again.elapsed() >= NATS_LIFE_MIN),
                "it ended again at once, with {status}"
            );
            tracing::warn!(%status, "nats-server ended and is started again");
            again = Some(Instant::now());
            nats = NatsServer::spawn(nats.stop()).await?;
        }
    }
}

fn ended_by_itself<E: Into<anyhow::Error>>(
    what: &str,
    ended: Result<Result<(), E>, tokio::task::JoinError>,
) -> anyhow::Error {
    let why = match ended {
        Ok(Ok(())) => return anyhow::anyhow!("{what} stopped by itself"),
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    };
    why.context(format!("{what} stopped by itself"))
}

/// Ctrl-C, SIGTERM as service managers send it, or SIGHUP as a closed terminal does.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let one = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without this one, the others still work.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = one(SignalKind::interrupt()) => {}
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::hangup()) => {}
    }
}
