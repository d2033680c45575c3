//! A long log in a real store, before a controller that can serve it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use stele_codec::{Chain, Snapshot};
use stele_model::signature::PublicKey;
use stele_model::{Digest, Time};
use stele_testkit::history::{Shape, World, Written, new_store, store_records};
use stele_testkit::{Cluster, ClusterConfig};

use crate::report::Report;

/// Records written to the store at once.
const RECORDS_PER_WRITE: usize = 10_000;
/// How much of the past the log covers, in microseconds: 200 days.
const SPAN_US: u64 = 200 * 24 * 3600 * 1_000_000;

/// How long a log, and of what fleet.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Records of the log
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Nodes of the fleet
    #[arg(long, default_value_t = 200)]
    pub(crate) nodes: usize,
    /// Its apps, each in two environments
    #[arg(long, default_value_t = 100)]
    pub(crate) apps: usize,
}

/// What a controller keeps on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    /// Of these, those of the store's write-ahead log: bounded, however long the log of events is.
    pub(crate) unsorted_bytes: u64,
}

/// A founded fleet of one controller that does not run yet, with a log as if it had for months.
pub(crate) struct Prepared {
    pub(crate) cluster: Cluster,
    pub(crate) apps: Vec<String>,
    pub(crate) last: u64,
    pub(crate) state_bytes: usize,
    /// What all records take as they are: leaf and payload.
    pub(crate) record_bytes: u64,
    pub(crate) instances: usize,
}

impl Prepared {
    pub(crate) fn new(size: &Size, report: &mut Report) -> anyhow::Result<Self> {
        let config = ClusterConfig { controllers: 1, nodes: Vec::new(), ..ClusterConfig::simulated("past") };
        let cluster = Cluster::found(&config)?;
        let began = Instant::now();
        let text = std::fs::read_to_string(cluster.folder(1)?.join("controller.json"))?;
        let own: Value = serde_json::from_str(&text).context("controller.json is JSON")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros() as u64;
        let mut world = World::found(Shape {
            fleet: cluster.fleet().parse()?,
            root: PublicKey(text(&own["root"])),
            admin: Digest::of(&[cluster.token().as_bytes()]),
            nodes: size.nodes,
            apps: size.apps,
            begins: Time(now - SPAN_US),
            // Most happenings are one record; a rollout is many, and takes time of its own.
            pace_us: SPAN_US / 2 / size.events.max(1),
            seed: 7,
        })?;
        let mut store = new_store(&cluster.folder(1)?.join("data/log"), cluster.fleet(), 1)?;
        let mut written = world.take();
        let mut record_bytes = 0;
        while world.state().seq < size.events {
            world.step()?;
            written.append(&mut world.take());
            if written.len() >= RECORDS_PER_WRITE {
                record_bytes += bytes_of(&written);
                store_records(&mut store, std::mem::take(&mut written), false)?;
            }
        }
        record_bytes += bytes_of(&written);
        store_records(&mut store, written, true)?;
        let last = world.state().seq;
        drop(store);
        let instances = world.state().target.placement.len();
        let bytes = Snapshot { chain: Chain::GENESIS, state: world.state().clone() }.encode();
        report.note(format!(
            "A log of {last} records: {} nodes, {} apps in two environments each, seed 7; decided and written in {:.0} s.",
            size.nodes,
            size.apps,
            began.elapsed().as_secs_f64()
        ));
        Ok(Self {
            cluster,
            apps: world.apps().iter().map(ToString::to_string).collect(),
            last,
            state_bytes: bytes.len(),
            record_bytes,
            instances,
        })
    }

    /// What the controller keeps on disk, history and proofs included.
    pub(crate) fn disk(&self) -> anyhow::Result<Disk> {
        let mut disk = Disk { bytes: 0, unsorted_bytes: 0 };
        let mut folders = vec![self.data()?];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let about = entry.metadata()?;
                if about.is_dir() {
                    folders.push(entry.path());
                } else {
                    disk.bytes += about.len();
                    if entry.path().extension().is_some_and(|extension| extension == "log") {
                        disk.unsorted_bytes += about.len();
                    }
                }
            }
        }
        Ok(disk)
    }

    /// Where the log is.
    pub(crate) fn data(&self) -> anyhow::Result<PathBuf> {
        Ok(self.cluster.folder(1)?.join("data"))
    }
}

fn bytes_of(written: &[Written]) -> u64 {
    written.iter().map(|it| (it.stored.leaf.len() + it.stored.payload.len()) as u64).sum()
}
