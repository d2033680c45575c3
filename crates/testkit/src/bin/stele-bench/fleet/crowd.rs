//! Many agents in one process: the real agent with its real connection and its files, on a
//! container engine in memory. Run as a process of its own by the module above.

use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use stele_agent::identity::Engine;
use stele_agent::{AgentConfig, DataDir, JoinOptions};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::now_us;

/// Nodes that join at the same time: as many commits share a sync.
const JOINS_AT_ONCE: usize = 64;
/// What an agent's own log says when an assignment is verified and on its disk.
const IN_FORCE: &str = "an assignment is in force";
/// What it says when it reached NATS.
const CONNECTED: &str = "connected to NATS";

/// Which agents.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where their files are kept
    #[arg(long)]
    data: PathBuf,
    /// A file with a line for each: its name, a space, and the line to join with
    #[arg(long)]
    joins: PathBuf,
}

/// Lets the nodes join, says `joined`, waits for a line of input, and runs them until its input
/// ends. Says what their logs say, each with its time.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let file = std::fs::File::open(&args.joins)?;
    let nodes: Vec<(String, String)> = std::io::BufReader::new(file)
        .lines()
        .map(|line| {
            let line = line?;
            let (name, join) = line.split_once(' ').context("a line has two parts")?;
            Ok((name.to_owned(), join.to_owned()))
        })
        .collect::<anyhow::Result<_>>()?;
    join(&args.data, &nodes)?;
    println!("joined");
    let mut input = std::io::stdin().lines();
    input.next().transpose()?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Told))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (name, _) in &nodes {
        let config = AgentConfig::new(DataDir::new(args.data.join(name)));
        let name = name.clone();
        runtime.spawn(async move {
            let ended = stele_agent::run(config, std::future::pending()).await;
            eprintln!("the agent {name} ended: {ended:?}");
        });
    }
    // Whoever started it holds the other end: when that goes, so does this.
    for line in input {
        line?;
    }
    runtime.shutdown_background();
    Ok(())
}

fn join(data: &Path, nodes: &[(String, String)]) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..JOINS_AT_ONCE {
            scope.spawn(|| {
                while let Some((name, line)) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = join_one(data, name, line)
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.get_or_insert(error.context(name.clone()));
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => anyhow::bail!("a thread that joins nodes panicked"),
    }
}

fn join_one(data: &Path, name: &str, line: &str) -> anyhow::Result<()> {
    stele_agent::join(JoinOptions {
        data: DataDir::new(data.join(name)),
        line: line.parse()?,
        name: name.parse()?,
        address: None,
        engine: Engine::Simulated,
    })?;
    Ok(())
}

/// Says on standard output what agents log of connections and assignments.
struct Told;

#[derive(Default)]
struct Fields {
    message: String,
    seq: Option<u64>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "seq" {
            self.seq = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("stele_agent") && *metadata.level() <= tracing::Level::INFO
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = match (fields.message.as_str(), fields.seq) {
            (IN_FORCE, Some(seq)) => format!("in-force {} {seq}\n", now_us()),
            (CONNECTED, _) => format!("connected {}\n", now_us()),
            _ => return,
        };
        // Nobody reads it any more: the end of this process is near.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }
}
