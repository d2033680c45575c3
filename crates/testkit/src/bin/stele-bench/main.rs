//! `cargo xtask bench`: Stele and its peers, measured side by side in one run.
//!
//! Every number is printed with its conditions, and both sides are asked in the same
//! way: HTTP with JSON, one kept connection for each client, the leader's address.

mod docker;
mod etcd;
mod footprint;
mod log;
mod measure;
mod past;
mod replay;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::json;
use stele_testkit::{Client, Cluster, ClusterConfig};
use ureq::http::Method;

use crate::measure::{Sample, conditions, measure, median, print};

/// Measure Stele beside its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable writes agreed on by three members: Stele's log beside etcd
    Commit {
        /// Numbers of clients that write at once
        #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
        clients: Vec<usize>,
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
        /// How often each is repeated; the best is printed
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
}

/// Bytes of the value each write carries, on both sides.
const VALUE_BYTES: usize = 100;

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Commit { clients, seconds, rounds } => {
            commit(&clients, Duration::from_secs(seconds), rounds.max(1))
        }
        Bench::Footprint { seconds } => footprint::footprint(seconds.max(1)),
        Bench::Docker { containers, rounds } => docker::docker(containers.max(1), rounds.max(1)),
        Bench::TimeTravel { size, reads } => past::time_travel(&size, reads.max(1)),
        Bench::Replay { size, rounds } => replay::replay(&size, rounds.max(1)),
    }
}

fn commit(clients: &[usize], time: Duration, rounds: usize) -> anyhow::Result<()> {
    let etcd = etcd::Etcd::start()?;
    let config = ClusterConfig::simulated("bench");
    let node = config.nodes[0].clone();
    let cluster = Cluster::start(ClusterConfig { nodes: vec![node.clone()], ..config })?;
    let leader = cluster.client(cluster.leader()?)?;
    println!("{}", conditions(&[&etcd::Etcd::version()?])?);
    println!(
        "Each write carries {VALUE_BYTES} bytes, is fsynced by a majority of three members on one disk, and is\n\
         answered over HTTP with JSON by the leader. {rounds} rounds of {} s, medians.\n",
        time.as_secs()
    );
    let path = format!("/v1/nodes/{}/labels", node.name);
    let stele = |number: u64| {
        let body = json!({"labels": {"write": value(number)}}).to_string();
        let answer = leader.send(Method::PUT, &path, &[], Some(&body))?;
        anyhow::ensure!(answer.status == 200, "Stele refused a write: {}", answer.body);
        Ok(())
    };
    let mut rows = Vec::new();
    for clients in clients {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            theirs.push(measure(*clients, time, |number| etcd.put(&value(number)))?);
            ours.push(measure(*clients, time, stele)?);
        }
        rows.push((*clients, median(ours), median(theirs)));
    }
    print(&rows);
    anyhow::ensure!(cluster.end().0.is_empty(), "something was left behind");
    Ok(())
}

/// A value that no other write has.
fn value(number: u64) -> String {
    format!("{number:0>VALUE_BYTES$}")
}

/// A client of an address, for both sides alike.
fn client(address: SocketAddr) -> Client {
    Client::new(address, None)
}

/// One side's numbers for one number of clients.
type Row = (usize, Sample, Sample);

/// The leader's own line of what it is.
fn first_line(program: &str, argument: &str) -> anyhow::Result<String> {
    let output = std::process::Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {program}; run: cargo xtask setup --bench"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
