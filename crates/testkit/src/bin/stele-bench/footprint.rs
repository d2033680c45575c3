//! What controllers and agents hold and use while nothing happens, and under load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stele_testkit::load::Load;
use stele_testkit::{Cluster, ClusterConfig};

use crate::etcd::Etcd;
use crate::fleet;
use crate::machine::TICK_MS;
use crate::report::{Goal, Report, Row, Side};

/// Between two looks at a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A process at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory, shared pages included.
    resident_bytes: u64,
    /// Processor time since it began.
    pub(crate) processor: Duration,
}

const SIMULATED: &str = "the containers: nodes run an engine in memory, without containers; the hosts of the large \
     fleet, whose agents share few processes.";

/// What a process was seen to take, the largest of those of one name.
struct Seen {
    resident_mib: f64,
    processor_percent: f64,
}

pub(crate) fn footprint(seconds: u64, nodes: usize) -> anyhow::Result<Report> {
    let time = Duration::from_secs(seconds);
    let about = format!(
        "Three controllers, three agents, nats-server, and three etcd members beside them: watched for {seconds} s \
         while nothing happens, then for {seconds} s while Stele takes writes. The largest of each kind. Then {nodes} \
         nodes with an instance each, of which nothing is asked."
    );
    let mut report = Report::begin("footprint", &about, SIMULATED)?;
    report.versions.push(Etcd::version()?);
    for (program, goal) in [("stele-agent", Some(15.0)), ("stele", None)] {
        let row = Row::alone(&format!("{program} on disk"), "MiB", &[size_of(program)?], None);
        report.rows.push(match goal {
            Some(goal) => {
                let found = row.sides[0].median;
                row.goal(Goal::at_most("MiB", found, goal))
            }
            None => row,
        });
    }
    let etcd = Etcd::start()?;
    let cluster = Cluster::start(ClusterConfig::simulated("footprint"))?;
    cluster.wait_for_nodes()?;
    let mut ids = cluster.process_ids();
    ids.extend(etcd.process_ids());
    ids.extend(dockerd());
    add(&mut report, "idle", &observe(&ids, time)?);
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id)).collect::<Result<_, _>>()?;
    let load = Load::start(&clients, &["eu-1", "us-1"], Duration::from_millis(1));
    let busy = observe(&cluster.process_ids(), time)?;
    let writes = load.acknowledged();
    load.stop();
    add(&mut report, "busy", &busy);
    report
        .note(format!("Busy: {writes} writes were acknowledged in {seconds} s, each synced by a majority."));
    anyhow::ensure!(cluster.end().0.is_empty(), "something was left behind");
    drop(etcd);
    for (what, percent) in fleet::idle(nodes, time)? {
        report.rows.push(Row::alone(
            &format!("{nodes} idle nodes: processor of {what}"),
            "%",
            &[percent],
            None,
        ));
    }
    Ok(report)
}

/// A row of memory and one of processor time for each kind of process.
fn add(report: &mut Report, when: &str, seen: &BTreeMap<String, Seen>) {
    for (name, seen) in seen {
        let memory = Row::new(
            &format!("{name}, {when}: resident memory"),
            "MiB",
            vec![Side::new(name, &[seen.resident_mib], None)],
        );
        let processor = Row::new(
            &format!("{name}, {when}: processor"),
            "%",
            vec![Side::new(name, &[seen.processor_percent], None)],
        );
        let limit = match name.as_str() {
            "stele-agent" => Some(12.0),
            "stele" => Some(60.0),
            _ => None,
        };
        match limit.filter(|_| when == "idle") {
            Some(limit) => report.rows.extend([
                memory.goal(Goal::at_most("MiB", seen.resident_mib, limit)),
                processor.goal(Goal::at_most("%", seen.processor_percent, 1.0)),
            ]),
            None => report.rows.extend([memory, processor]),
        }
    }
}

fn size_of(program: &str) -> anyhow::Result<f64> {
    let folder = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
    Ok(mebibytes(std::fs::metadata(folder.join(program))?.len()))
}

/// Docker's own daemon, where there is one.
fn dockerd() -> Option<u32> {
    let folders = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut ids = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| name(*id) == "dockerd")
}

/// The largest memory and the processor time of each kind of process over a while.
fn observe(ids: &[u32], time: Duration) -> anyhow::Result<BTreeMap<String, Seen>> {
    let before: BTreeMap<u32, Usage> =
        ids.iter().map(|id| Ok((*id, usage(*id)?))).collect::<anyhow::Result<_>>()?;
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    let ends = Instant::now() + time;
    while Instant::now() < ends {
        for id in ids {
            let now = usage(*id)?;
            let spent = now.processor.saturating_sub(before[id].processor);
            let seen = found.entry(name(*id)).or_insert(Seen { resident_mib: 0.0, processor_percent: 0.0 });
            seen.resident_mib = seen.resident_mib.max(mebibytes(now.resident_bytes));
            let percent = 100.0 * spent.as_secs_f64() / time.as_secs_f64();
            seen.processor_percent = seen.processor_percent.max(percent);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(found)
}

/// What a process takes now.
pub(crate) fn usage(id: u32) -> anyhow::Result<Usage> {
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
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    Ok(Usage {
        resident_bytes: kilobytes(&read("status")?, "VmRSS:").context("no VmRSS")?,
        processor: Duration::from_millis(TICK_MS * (ticks(11) + ticks(12))),
    })
}

fn name(id: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
