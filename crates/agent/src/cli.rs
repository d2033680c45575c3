//! The command line of `stele-agent`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use stele_bus::join::JoinLine;
use stele_model::ids::NodeName;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::data_dir::DataDir;
use crate::engine::AgentConfig;
use crate::error::Error;
use crate::identity::Engine;
use crate::images::Pruning;
use crate::join::{JoinOptions, join};
use crate::status::status;

/// Where an agent keeps its data unless told otherwise.
const DATA_DEFAULT: &str = "/var/lib/stele-agent";

const EXAMPLES: &str = "\
Examples:
  stele-agent join stele-join-v1.eyJm… --name eu-1
  stele-agent run
  stele-agent status

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 another agent runs with the data directory,
4 the data directory belongs to no node, 5 refused, 6 no controller reached.";

/// Runs this host's containers as the fleet's controllers say.
#[derive(Debug, Parser)]
#[command(name = "stele-agent", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this host a node of a fleet.
    #[command(
        after_help = "Example:\n  stele-agent join stele-join-v1.eyJm… --name eu-1 --address 192.0.2.10\n\
        \nMake a token with: stele node token --region eu"
    )]
    Join(JoinArguments),
    /// Run the agent in the foreground. Its containers run on when it ends.
    #[command(after_help = "Example:\n  stele-agent run --host-config /etc/stele/host.json")]
    Run(RunArguments),
    /// Show what was last verified and what runs, without any controller.
    #[command(after_help = "Example:\n  stele-agent status")]
    Status(RunArguments),
}

#[derive(Debug, clap::Args)]
struct Data {
    /// Where the agent keeps its keys and what it last verified.
    #[arg(long, env = "STELE_AGENT_DATA", default_value = DATA_DEFAULT, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
struct JoinArguments {
    /// The line that `stele node token` printed; `-` reads it from standard input, where `ps` cannot see it.
    token: String,
    /// The node's name in the fleet.
    #[arg(long)]
    name: NodeName,
    #[command(flatten)]
    data: Data,
    /// Where the node's published ports are reached.
    #[arg(long)]
    address: Option<String>,
    /// Docker's socket, such as unix:///run/podman/podman.sock.
    #[arg(long, value_name = "HOST")]
    docker: Option<String>,
    /// This host's address that ports are published on.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    publish_address: String,
    /// What runs the containers.
    #[arg(long, value_enum, default_value_t = RuntimeKind::Docker)]
    runtime: RuntimeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuntimeKind {
    /// Docker, or what speaks its protocol.
    Docker,
    /// Nothing: containers exist in the agent's memory alone.
    Simulated,
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    #[command(flatten)]
    data: Data,
    /// What this host allows containers; host.json in the data directory by default.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
    /// Credentials for registries, in the form of Docker's config.json; registries.json in the
    /// data directory by default.
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// NATS addresses in place of those told on joining.
    #[arg(long, value_name = "URL")]
    nats: Vec<String>,
    /// Remove images that nothing needs for so long, such as 24h or 7d; or off. Only images that
    /// the agent itself pulled, and none that a rollback could need.
    #[arg(long, env = "STELE_AGENT_PRUNE_IMAGES", value_name = "SPAN", default_value = "24h")]
    prune_images: Pruning,
}

impl RunArguments {
    fn config(self) -> AgentConfig {
        AgentConfig {
            data: DataDir::new(self.data.data),
            host_policy: self.host_config,
            registries: self.registries,
            nats_urls: self.nats,
            pruning: self.prune_images,
        }
    }
}

impl Cli {
    /// Does what was asked.
    pub async fn execute(self) -> Result<(), Error> {
        match self.command {
            Command::Join(arguments) => {
                let next = run_command(&arguments.data.data);
                let enrollment = join(arguments.options()?)?;
                say(&format!(
                    "{} is a node of fleet {} in region {}. Next: {next}\n",
                    enrollment.node, enrollment.fleet, enrollment.region
                ))
            }
            Command::Run(arguments) => {
                log_to_stderr();
                let asked_to_end = asked_to_end()?;
                crate::agent::run(arguments.config(), asked_to_end).await
            }
            Command::Status(arguments) => say(&status(&arguments.config()).await?),
        }
    }
}

impl JoinArguments {
    fn options(self) -> Result<JoinOptions, Error> {
        let line: JoinLine = if self.token == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(stele_bus::limits::JOIN_LINE_BYTES_MAX as u64 + 1)
                .read_to_string(&mut text)
                .map_err(|source| Error::File { doing: "read", path: "standard input".into(), source })?;
            text.parse()?
        } else {
            self.token.parse()?
        };
        let engine = match self.runtime {
            RuntimeKind::Docker => {
                Engine::Docker { host: self.docker, publish_address: self.publish_address }
            }
            RuntimeKind::Simulated => Engine::Simulated,
        };
        let data = DataDir::new(self.data.data);
        Ok(JoinOptions { data, line, name: self.name, address: self.address, engine })
    }
}

/// What runs the agent with a data directory, to be copied into a shell.
fn run_command(data: &Path) -> String {
    let path = data.display().to_string();
    let is_plain =
        |character: char| character.is_alphanumeric() || matches!(character, '/' | '.' | '_' | '-');
    if data == Path::new(DATA_DEFAULT) {
        "stele-agent run".to_owned()
    } else if path.chars().all(is_plain) {
        format!("stele-agent run --data {path}")
    } else {
        format!("stele-agent run --data '{}'", path.replace('\'', r"'\''"))
    }
}

fn say(text: &str) -> Result<(), Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read it, such as `head`, has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => {
            other.map_err(|source| Error::File { doing: "write", path: "standard output".into(), source })
        }
    }
}

fn log_to_stderr() {
    // The NATS client tells of every attempt to connect; the agent says itself what matters of it.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Failing means that the embedding program logs already.
    let _ = format.try_init();
}

/// Completes on SIGTERM or SIGINT.
fn asked_to_end() -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| {
        signal(kind).map_err(|source| Error::File { doing: "listen for", path: "signals".into(), source })
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_joining_is_of_the_same_data() {
        assert_eq!(run_command(Path::new(DATA_DEFAULT)), "stele-agent run");
        assert_eq!(run_command(Path::new("ag1")), "stele-agent run --data ag1");
        assert_eq!(run_command(Path::new("/srv/it's here")), r"stele-agent run --data '/srv/it'\''s here'");
    }
}
