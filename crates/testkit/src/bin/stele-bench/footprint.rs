//! What controllers and agents hold and use while nothing happens, and under load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stele_testkit::load::Load;
use stele_testkit::{Cluster, ClusterConfig};

use crate::measure::conditions;

/// Between two looks at a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Length of a tick in which the kernel counts processor time: `USER_HZ` is 100 on Linux everywhere.
const TICK: Duration = Duration::from_millis(10);

/// A process at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Resident memory, shared pages included.
    resident_bytes: u64,
    /// Resident memory that is its alone, and its share of the rest.
    proportional_bytes: u64,
    processor: Duration,
}

pub(crate) fn footprint(seconds: u64) -> anyhow::Result<()> {
    let time = Duration::from_secs(seconds);
    let cluster = Cluster::start(ClusterConfig::simulated("footprint"))?;
    cluster.wait_for_nodes()?;
    println!("{}", conditions(&["no peer"])?);
    println!("Three controllers, three agents, nats-server; nodes without containers; {seconds} s each.\n");
    print_programs()?;
    println!("{:<14} {:<8} {:>10} {:>10} {:>8}", "process", "", "RSS MiB", "PSS MiB", "CPU");
    let idle = observe(&cluster, time)?;
    print("idle", &idle, time);
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id)).collect::<Result<_, _>>()?;
    let load = Load::start(&clients, &["eu-1", "us-1"], Duration::from_millis(1));
    let busy = observe(&cluster, time)?;
    let writes = load.acknowledged();
    load.stop();
    print("busy", &busy, time);
    println!("\nbusy: {writes} writes were acknowledged meanwhile, each synced by a majority");
    anyhow::ensure!(cluster.end().0.is_empty(), "something was left behind");
    Ok(())
}

/// Sizes of the programs on disk.
fn print_programs() -> anyhow::Result<()> {
    let folder = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
    for program in ["stele", "stele-agent"] {
        let bytes = std::fs::metadata(folder.join(program))?.len();
        println!("{program:<14} {:.1} MiB on disk", mebibytes(bytes));
    }
    println!();
    Ok(())
}

/// The largest memory and the processor time of each process over a while.
fn observe(cluster: &Cluster, time: Duration) -> anyhow::Result<BTreeMap<u32, (String, Usage)>> {
    let ids = cluster.process_ids();
    let before: BTreeMap<u32, Usage> =
        ids.iter().map(|id| Ok((*id, usage(*id)?))).collect::<anyhow::Result<_>>()?;
    let mut found: BTreeMap<u32, (String, Usage)> = BTreeMap::new();
    let ends = Instant::now() + time;
    while Instant::now() < ends {
        for id in &ids {
            let now = usage(*id)?;
            let entry = found.entry(*id).or_insert_with(|| (name(*id), Usage::default()));
            entry.1.resident_bytes = entry.1.resident_bytes.max(now.resident_bytes);
            entry.1.proportional_bytes = entry.1.proportional_bytes.max(now.proportional_bytes);
            entry.1.processor = now.processor.saturating_sub(before[id].processor);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(found)
}

fn usage(id: u32) -> anyhow::Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{id}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let kilobytes = |text: &str, field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map(|it| it * 1024)
    };
    let stat = read("stat")?;
    // The program's name stands in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    Ok(Usage {
        resident_bytes: kilobytes(&read("status")?, "VmRSS:").context("no VmRSS")?,
        proportional_bytes: kilobytes(&read("smaps_rollup")?, "Pss:").context("no Pss")?,
        processor: TICK * (ticks(11) + ticks(12)),
    })
}

fn name(id: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn print(what: &str, found: &BTreeMap<u32, (String, Usage)>, time: Duration) {
    for (name, usage) in found.values() {
        println!(
            "{name:<14} {what:<8} {:>10.1} {:>10.1} {:>7.2}%",
            mebibytes(usage.resident_bytes),
            mebibytes(usage.proportional_bytes),
            100.0 * usage.processor.as_secs_f64() / time.as_secs_f64(),
        );
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
