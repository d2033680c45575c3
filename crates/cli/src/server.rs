//! `stele controller`: founding a fleet's controllers, and running one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use stele_bus::Auth;
use stele_bus::join::NatsAccess;
use stele_controller::found::{Founding, Place, found, prepare};
use stele_controller::{Config, start};
use stele_model::signature::PublicKey;
use stele_model::{ControllerId, FleetName, PrincipalId, Time};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::limits::REQUESTS_NICENESS;
use crate::new_admin::NewAdmin;
use crate::recover::Recover;
use crate::renew::Renew;
use crate::session::Session;
use crate::terminal::time;

/// Found and run controllers
#[derive(Subcommand, Debug)]
pub(crate) enum Controller {
    /// Make a new fleet's keys and a folder for each of its controllers
    #[command(
        after_help = "Example (three controllers on three hosts):\n  stele controller found --folder fleet --fleet acme \\\n    \
        --controllers 1=10.0.0.1:7400,10.0.0.1:7500 --controllers 2=10.0.0.2:7400,10.0.0.2:7500 \\\n    \
        --controllers 3=10.0.0.3:7400,10.0.0.3:7500 --nats nats://10.0.0.9:4222\n\n\
        Copy each controller-N folder to its host, run `stele controller run` there, and take the root\n\
        folder off line: only adding controllers and renewing their certificates needs it."
    )]
    Found(Found),
    /// Make the folder of a controller that joins a running fleet
    #[command(
        after_help = "Example:\n  stele controller prepare --folder fleet --id 4 --like fleet/controller-1/controller.json \\\n    \
        --api 10.0.0.4:7400 --peer 10.0.0.4:7500\n  stele controller run --config fleet/controller-4/controller.json &\n  \
        stele cluster add 4 --config fleet/controller-4/controller.json"
    )]
    Prepare(Prepare),
    /// Run a controller in the foreground
    #[command(
        after_help = "Examples:\n  stele controller run --config fleet/controller-1/controller.json\n  stele controller run --config \
        fleet/controller-1/controller.json --publish-checkpoints /srv/checkpoints"
    )]
    Run(Run),
    /// Go on with one controller, which does not run, after the others were lost for good
    #[command(
        after_help = "Examples:\n  stele controller recover --config controller-3/controller.json --plan\n  \
        stele controller recover --config controller-3/controller.json --reason \"a fire\"\n\n\
        Only when a majority of the controllers is lost with its disks: while it can come back, bring\n\
        it back. What was acknowledged and is not in this controller's log is lost.\n\
        See docs/operators.md, \"Quorum lost for good\"."
    )]
    Recover(Recover),
    /// Renew the certificates of a controller, which stays the same controller
    #[command(
        after_help = "Examples:\n  stele controller renew --config fleet/controller-2/controller.json --folder fleet --plan\n  \
        stele controller renew --config fleet/controller-2/controller.json --folder fleet --yes\n\n\
        Its id and its signing key stay, so nothing that it signed is worth less. It may run meanwhile:\n\
        it takes the new certificates at its next start. Renew one controller after the other,\n\
        followers first. See docs/operators.md, \"Renew certificates\"."
    )]
    Renew(Renew),
    /// Leave a new administrator's token for a controller: the way back when no administrator's is valid any more
    #[command(
        after_help = "Example:\n  stele controller new-admin --config fleet/controller-1/controller.json\n\n\
        Run it on a controller's host, and start the controller again: it makes the token known, once there is\n\
        a leader, unless an administrator's token is valid. What was left is worth nothing after a day."
    )]
    NewAdmin(NewAdmin),
}

#[derive(Args, Debug)]
pub(crate) struct Found {
    /// Where the folders are made
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// The fleet's name
    #[arg(long)]
    fleet: FleetName,
    /// A controller: its id, where its API answers, where its peers reach it; once for each
    #[arg(long, value_name = "ID=API,PEER", value_parser = place, required = true)]
    controllers: Vec<Place>,
    /// Where NATS is; several when it is a cluster
    #[arg(long, value_name = "URL", required = true)]
    nats: Vec<String>,
    /// The token NATS wants to see
    #[arg(long, value_name = "TOKEN", env = "STELE_NATS_TOKEN", hide_env_values = true)]
    nats_token: Option<String>,
    /// The first administrator
    #[arg(long, value_name = "PRINCIPAL", default_value = "admin")]
    admin: PrincipalId,
}

#[derive(Args, Debug)]
pub(crate) struct Prepare {
    /// The folder the fleet was founded in, with its root
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// The new controller's id, never used before
    #[arg(long)]
    id: ControllerId,
    /// The configuration of a controller of the fleet
    #[arg(long, value_name = "FILE")]
    like: PathBuf,
    /// Where its API answers
    #[arg(long, value_name = "ADDRESS")]
    api: SocketAddr,
    /// Where its peers reach it
    #[arg(long, value_name = "ADDRESS")]
    peer: SocketAddr,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The controller's configuration
    #[arg(long, value_name = "FILE", env = "STELE_CONTROLLER_CONFIG")]
    config: PathBuf,
    /// Folder outside the fleet that receives each signed checkpoint; a git repository gets a commit for each
    #[arg(long, value_name = "DIR")]
    publish_checkpoints: Option<PathBuf>,
    /// A witness whose cosignatures in that folder are believed; repeat it for several
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<stele_proof::VerifierKey>,
    /// Where images are copied to, and where nodes pull them from when their registry does not give
    /// them; the same on every controller
    #[arg(long, value_name = "REGISTRY/FOLDER")]
    mirror: Option<String>,
    /// Days for which nodes and the mirror keep images after they were last in force; the same on
    /// every controller
    #[arg(long, value_name = "DAYS")]
    image_retention_days: Option<u32>,
    /// Memory for past States, so that reading them is quick; by default an eighth of what there is, at most 4096
    #[arg(long, value_name = "MIB")]
    past_memory_mib: Option<u64>,
}

/// `ID=API,PEER`.
fn place(text: &str) -> Result<Place, String> {
    let malformed = || format!("{text:?}: write ID=API,PEER, such as 1=10.0.0.1:7400,10.0.0.1:7500");
    let (id, addresses) = text.split_once('=').ok_or_else(malformed)?;
    let (api, peer) = addresses.split_once(',').ok_or_else(malformed)?;
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|error| format!("{text:?}: {error}"));
    match id.parse() {
        Ok(id) if id > 0 => Ok(Place { id, api: address(api)?, peer: address(peer)? }),
        _ => Err(malformed()),
    }
}

pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Failed(format!("{:#}", error.into()))
}

impl Controller {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Found(it) => it.run(session),
            Self::Prepare(it) => {
                let Prepare { folder, id, like, api, peer } = it;
                let config = prepare(&folder, &Place { id, api, peer }, &like).map_err(failed)?;
                session.terminal.line(&format!("Made {}.", config.display()))?;
                session.terminal.line(&format!(
                    "Next: stele controller run --config {0}\n      stele cluster add {id} --config {0}",
                    config.display()
                ))
            }
            Self::Run(it) => it.run(),
            Self::Recover(it) => it.run(session),
            Self::Renew(it) => it.run(session),
            Self::NewAdmin(it) => it.run(session),
        }
    }
}

/// How people reach the fleet from here; beyond loopback, its API speaks TLS.
fn login_line(folder: &Path, place: &Place) -> String {
    if place.api.ip().is_loopback() {
        return format!("stele login --addr http://{}", place.api);
    }
    let authority = folder.join(format!("controller-{}/authority.pem", place.id));
    format!("stele login --addr https://{} --tls-root {}", place.api, authority.display())
}

/// What founding prints.
#[derive(Serialize)]
struct FoundAnswer {
    admin_token: String,
    admin_token_expires: Time,
    root: PublicKey,
    configs: BTreeMap<ControllerId, PathBuf>,
}

impl Found {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let mut ids: Vec<_> = self.controllers.iter().map(|place| place.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.controllers.len() {
            return Err(Failure::Usage("each controller needs an id of its own".to_owned()));
        }
        let auth = self.nats_token.map_or(Auth::None, Auth::Token);
        let founding = Founding {
            fleet: self.fleet,
            controllers: self.controllers,
            nats: NatsAccess { urls: self.nats, auth, tls_root: None },
            admin: self.admin,
        };
        let founded = found(&self.folder, &founding).map_err(failed)?;
        let login = login_line(&self.folder, &founding.controllers[0]);
        let answer = FoundAnswer {
            admin_token: founded.admin_token,
            admin_token_expires: founded.admin_token_expires,
            root: founded.root,
            configs: founded.configs,
        };
        session.terminal.item(&answer, |answer| {
            let controllers: Vec<_> = answer
                .configs
                .iter()
                .map(|(id, config)| {
                    format!("  controller {id}: stele controller run --config {}", config.display())
                })
                .collect();
            format!(
                "Founded fleet {} in {}.\n{}\nIts root's public key, by which others know it (STELE_ROOT):\n  {}\n\
                 The administrator's token, shown only once, valid until {}:\n  {}\n\
                 Next: start the controllers, then\n  {login}\n  \
                 stele token create NAME --role admin   # a second administrator",
                founding.fleet,
                self.folder.display(),
                controllers.join("\n"),
                answer.root,
                time(answer.admin_token_expires),
                answer.admin_token
            )
        })
    }
}

impl Run {
    fn run(self) -> Result<(), Failure> {
        log_to_stderr("info");
        let mut config = Config::read(&self.config).map_err(failed)?;
        // What is said on the command line counts before the file, or adds to it.
        config.publish_checkpoints = self.publish_checkpoints.or(config.publish_checkpoints);
        config.witnesses.extend(self.witnesses.iter().map(ToString::to_string));
        config.mirror = self.mirror.or(config.mirror);
        config.past_memory_mib = self.past_memory_mib.or(config.past_memory_mib);
        config.image_retention_days = self.image_retention_days.unwrap_or(config.image_retention_days);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().on_thread_start(give_way).build().map_err(failed)?;
        runtime
            .block_on(async {
                let running = start(config).await?;
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                let told = async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                running.run_until(told).await
            })
            .map_err(|error: anyhow::Error| failed(error))
    }
}

/// Lets a thread that serves requests, or works in the background, give way to the two that Raft needs: on a
/// machine that is busy, a leader that does not get a processor in time is taken for dead.
fn give_way() {
    // Of this thread alone, on Linux. Where the system does not allow it, all are equal.
    let _ = rustix::process::setpriority_process(None, REQUESTS_NICENESS);
}

/// The wall clock.
pub(crate) fn wall_clock() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.unwrap_or_default().as_micros() as u64)
}

/// Sends log lines to standard error; `RUST_LOG` says which.
pub(crate) fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only tests start twice in one process; then the first one stands.
    drop(subscriber.try_init());
}
