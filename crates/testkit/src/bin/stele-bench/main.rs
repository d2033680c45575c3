//! `cargo xtask bench`: Stele and its peers, measured side by side in one run.
//!
//! Every number is printed with its conditions, and the sides take turns. Load comes from
//! this program, which is another process than those measured.

mod commit;
mod docker;
mod etcd;
mod fleet;
mod footprint;
mod growth;
mod load;
mod log;
mod machine;
mod past;
mod plain;
mod replay;
mod report;
mod rest;
mod state;
mod suite;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::commit::Effort;
use crate::report::Report;

/// As in what is measured here besides whole programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Stele beside its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Where table, JSON and chart are written
    #[arg(long, global = true, default_value = "docs/benchmarks")]
    out: PathBuf,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable writes agreed on by three members: Stele's log beside etcd
    Commit {
        /// Numbers of clients that write at once
        #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1000])]
        clients: Vec<usize>,
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// How often each is repeated; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The same with many commands a request: beside etcd's transactions
    CommitBatch {
        /// Numbers of clients that write at once
        #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
        clients: Vec<usize>,
        /// Commands of a request; etcd takes 128 at most
        #[arg(long, default_value_t = 100)]
        commands: u64,
        /// How long each measurement takes, in seconds
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// How often each is repeated; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Memory and processor time of controllers and agents, idle and busy
    Footprint {
        /// How long each is watched, in seconds
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Nodes of the large fleet that is watched while nothing happens
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
    },
    /// Containers on one host, deployed, updated and rolled back: beside Docker Swarm and plain Docker
    Docker {
        /// How many containers
        #[arg(long, default_value_t = 20)]
        containers: u32,
        /// How often each is repeated; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// One app of many containers, rolled back on the real Docker: beside Docker Swarm and plain Docker
    RollbackReal {
        /// How many containers
        #[arg(long, default_value_t = 20)]
        containers: u32,
        /// How often each is repeated; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// State at random points of a long log, asked of a running controller
    TimeTravel {
        #[command(flatten)]
        size: log::Size,
        /// How many reads of each kind
        #[arg(long, default_value_t = 500)]
        reads: usize,
    },
    /// A long log replayed from its first record: beside RocksDB's iterator over the same log
    Replay {
        #[command(flatten)]
        size: log::Size,
        /// How often each is repeated; medians are printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Commits, reads, memory and disk as the log and the fleet grow
    Growth {
        /// Events of the largest log; each smaller one has a tenth of the next
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Nodes of the largest fleet
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
    },
    /// One change to every node: beside the same bytes by plain NATS
    FanOut {
        /// How many nodes
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
        /// How often the app is changed
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// A whole fleet back to a point many deployments ago
    RollbackFleet {
        /// How many nodes
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
        /// How many apps
        #[arg(long, default_value_t = 100)]
        apps: u32,
        /// Instances of each
        #[arg(long, default_value_t = 1000)]
        replicas: u32,
        /// How many deployments lie between
        #[arg(long, default_value_t = 1000)]
        deployments: u32,
    },
    /// All agents reconnect at once after NATS was gone
    JoinStorm {
        /// How many nodes
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
    },
    /// Two million instances: placed, committed, delivered and reported
    C2m {
        /// How many nodes
        #[arg(long, default_value_t = 6100)]
        nodes: usize,
        /// How many instances
        #[arg(long, default_value_t = 2_000_000)]
        instances: u32,
    },
    /// Every benchmark, one after the other
    All,
    /// A few minutes of the ratios that must not get worse, compared with the committed baseline
    Quick {
        /// Make what is found the new baseline
        #[arg(long)]
        accept: bool,
    },
    /// Many agents in one process, for the benchmarks of fleets
    #[command(hide = true)]
    Agents(fleet::crowd::Args),
    /// What State takes of memory, for `growth`
    #[command(hide = true)]
    State(state::Args),
    /// One of three processes that do as little as can be, for `commit`
    #[command(hide = true)]
    PlainMember(plain::Args),
}

fn main() -> anyhow::Result<()> {
    let Cli { bench, out } = Cli::parse();
    match bench {
        Bench::Agents(args) => fleet::crowd::run(&args),
        Bench::State(args) => state::run(&args),
        Bench::PlainMember(args) => plain::run(&args),
        Bench::All => suite::all(&out),
        Bench::Quick { accept } => {
            check_room(LOGS_DISK_GIB)?;
            suite::quick(&out, accept)
        }
        bench => run(bench)?.finish(&out),
    }
}

/// What `commit-batch` may take of a disk, in GiB: it took 8.9 before it had bare sides, whose bounds come to about 2.
const BATCH_DISK_GIB: u64 = 15;
/// What other benchmarks that write logs may take, in GiB.
const LOGS_DISK_GIB: u64 = 6;

impl Bench {
    /// Free space without which it does not begin, in GiB: with too little, `commit-batch` ended in broken pipes and
    /// "leadership changed", which say nothing of a disk.
    fn disk_gib(&self) -> u64 {
        match self {
            Self::CommitBatch { .. } => BATCH_DISK_GIB,
            Self::Docker { .. } | Self::RollbackReal { .. } | Self::Footprint { .. } => 0,
            _ => LOGS_DISK_GIB,
        }
    }
}

fn check_room(wanted_gib: u64) -> anyhow::Result<()> {
    const GIB: u64 = 1024 * 1024 * 1024;
    let folder = std::env::temp_dir();
    let disk = nix::sys::statvfs::statvfs(&folder)?;
    let free = disk.blocks_available() * disk.fragment_size();
    anyhow::ensure!(
        free >= wanted_gib * GIB,
        "{} has {:.1} GiB free, and this may need {wanted_gib}: free some, or name another folder by TMPDIR",
        folder.display(),
        free as f64 / GIB as f64
    );
    Ok(())
}

/// Runs one benchmark.
fn run(bench: Bench) -> anyhow::Result<Report> {
    check_room(bench.disk_gib())?;
    match bench {
        Bench::Commit { clients, seconds, rounds } => commit::commit(&clients, Effort::new(seconds, rounds)),
        Bench::CommitBatch { clients, commands, seconds, rounds } => {
            commit::commit_batch(&clients, commands.max(1), Effort::new(seconds, rounds))
        }
        Bench::Footprint { seconds, nodes } => footprint::footprint(seconds.max(1), nodes.max(1)),
        Bench::Docker { containers, rounds } => docker::docker(containers.max(1), rounds.max(1)),
        Bench::RollbackReal { containers, rounds } => docker::rollback_real(containers.max(1), rounds.max(1)),
        Bench::TimeTravel { size, reads } => past::time_travel(&size, reads.max(1)),
        Bench::Growth { events, nodes } => growth::growth(&sizes(events, nodes)),
        Bench::FanOut { nodes, rounds } => fleet::fan_out(nodes.max(1), rounds.max(1)),
        Bench::RollbackFleet { nodes, apps, replicas, deployments } => {
            fleet::rollback_fleet(nodes.max(1), apps.max(1), replicas.max(1), deployments)
        }
        Bench::JoinStorm { nodes } => fleet::join_storm(nodes.max(1)),
        Bench::C2m { nodes, instances } => fleet::c2m(nodes.max(1), instances.max(1)),
        Bench::Replay { size, rounds } => replay::replay(&size, rounds.max(1)),
        Bench::Agents(_) | Bench::State(_) | Bench::PlainMember(_) | Bench::All | Bench::Quick { .. } => {
            anyhow::bail!("this is no benchmark")
        }
    }
}

/// Sizes up to the largest, each ten times the one before. Apps grow with their nodes.
fn sizes(events: u64, nodes: usize) -> Vec<log::Size> {
    let least = |number: u64| number.max(10_000);
    let steps = [(1000, 1000), (100, 100), (10, 10), (1, 1)];
    let mut sizes: Vec<log::Size> = steps
        .into_iter()
        .map(|(fewer_events, fewer_nodes)| {
            let nodes = (nodes / fewer_nodes).max(10);
            log::Size { events: least(events / fewer_events), nodes, apps: (nodes / 10).clamp(5, 200) }
        })
        .collect();
    sizes.dedup_by_key(|size| (size.events, size.nodes));
    sizes
}

/// The first line that a program says.
fn first_line(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}; run: cargo xtask setup --bench"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
