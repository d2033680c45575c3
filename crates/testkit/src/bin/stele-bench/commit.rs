//! Durable writes agreed on by three members: Stele's log beside etcd.

use std::time::Duration;

use serde_json::json;
use stele_testkit::{Cluster, ClusterConfig};

use crate::etcd::Etcd;
use crate::load::{Http, Sample, Server, load};
use crate::plain::{Keeps, Plain};
use crate::report::{Goal, Report, Row, Side, Times};
use crate::rest::{Rest, Spent};

/// Bytes of the value each event carries, on both sides. Stele's are two labels of a node.
const VALUE_BYTES: usize = 256;
/// Clients from which on the goals of many clients count.
const MANY_CLIENTS: usize = 1000;
const SIMULATED: &str = "nothing. All members and the load share one machine and one disk; clients ask the \
     leader, etcd over gRPC, Stele over HTTP/1.1 with JSON.";
/// What the side of bare processes that keep bytes is.
const BARE_BYTES: (&str, &str) = (
    "bare bytes",
    "three bare processes that are asked as Stele is, each put a request's bytes into a file, and answer when the \
     leader and one follower have synced them: no record, no agreement, no State, and of HTTP what the load needs",
);
/// What the side of bare processes that keep records is.
const BARE_RECORDS: (&str, &str) = (
    "bare records",
    "the same, but each command is read as JSON by the leader, hashed by each process, and put into RocksDB",
);

/// What goes on for so long after a turn is worth no word.
const SHORT_AFTERMATH: Duration = Duration::from_secs(1);

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    /// Whether bare processes have turns, too.
    pub(crate) has_bare: bool,
}

impl Effort {
    pub(crate) fn new(seconds: u64, rounds: usize) -> Self {
        Self { time: Duration::from_secs(seconds.max(1)), rounds: rounds.max(1), has_bare: true }
    }
}

/// A fleet of three controllers and one node whose labels are written.
struct Fleet {
    cluster: Cluster,
    path: String,
}

impl Fleet {
    fn start() -> anyhow::Result<Self> {
        let config = ClusterConfig::simulated("bench");
        let node = config.nodes[0].clone();
        let path = format!("/v1/nodes/{}/labels", node.name);
        Ok(Self { cluster: Cluster::start(ClusterConfig { nodes: vec![node], ..config })?, path })
    }

    fn writes(&self) -> anyhow::Result<Server> {
        let (path, token) = (self.path.clone(), self.cluster.token().to_owned());
        let request = move |number| Http::request("PUT", &path, &token, &body(number));
        Ok(Server::Http { address: self.cluster.api(self.cluster.leader()?)?, request: Box::new(request) })
    }

    /// So many commands in one request.
    fn batches(&self, commands: u64) -> anyhow::Result<Server> {
        let (path, token) = (self.path.clone(), self.cluster.token().to_owned());
        let request = move |number: u64| {
            let one = |at: u64| {
                let body = body(number.wrapping_mul(commands).wrapping_add(at));
                format!("{{\"method\":\"PUT\",\"path\":\"{path}\",\"body\":{body}}}")
            };
            let all: Vec<String> = (0..commands).map(one).collect();
            Http::request("POST", "/v1/batch", &token, &format!("{{\"commands\":[{}]}}", all.join(",")))
        };
        Ok(Server::Http { address: self.cluster.api(self.cluster.leader()?)?, request: Box::new(request) })
    }
}

/// The requests of a fleet, asked of bare processes.
fn asked_of(plain: &Plain, server: Server) -> Server {
    match server {
        Server::Http { request, .. } => Server::Http { address: plain.leader(), request },
        grpc @ Server::Grpc { .. } => grpc,
    }
}

/// A value that no other write has.
fn value(number: u64) -> String {
    format!("{number:0>VALUE_BYTES$}")
}

fn body(number: u64) -> String {
    let value = value(number);
    let (left, right) = value.split_at(VALUE_BYTES / 2);
    json!({"labels": {"a": left, "b": right}}).to_string()
}

/// Rates and times of some rounds.
struct Rounds {
    rates: Vec<f64>,
    times: Times,
    events: u64,
    /// All of it, and for the longest time after a turn; nothing where that is not known of every round.
    spent: Option<Spent>,
}

impl Rounds {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { rates: Vec::new(), times: Times::new()?, events: 0, spent: Some(Spent::default()) })
    }

    fn add(&mut self, sample: &Sample, spent: Option<Spent>) -> anyhow::Result<()> {
        self.rates.push(sample.per_second);
        self.events += sample.events;
        self.spent = self.spent.zip(spent).map(|(all, one)| Spent {
            processors: all.processors + one.processors,
            aftermath: all.aftermath.max(one.aftermath),
        });
        self.times.add(&sample.times)
    }

    /// What an event takes of the processors, in words.
    fn spent(&self, name: &str) -> Option<String> {
        let Spent { processors, aftermath } = self.spent?;
        let each = processors.as_secs_f64() * 1e6 / self.events as f64;
        Some(if aftermath > SHORT_AFTERMATH {
            format!("{name} {each:.0} µs (the last of it {:.1} s after the turn)", aftermath.as_secs_f64())
        } else {
            format!("{name} {each:.0} µs")
        })
    }
}

pub(crate) fn commit(clients: &[usize], effort: Effort) -> anyhow::Result<Report> {
    let about = format!(
        "Each write carries {VALUE_BYTES} bytes, one event a request, and is answered once a majority of three \
         members has synced it. {} rounds of {} s, the sides taking turns.",
        effort.rounds,
        effort.time.as_secs()
    );
    let mut report = Report::begin("commit", &about, SIMULATED)?;
    let etcd = Etcd::start()?;
    let fleet = Fleet::start()?;
    let bytes = Plain::start(1, Keeps::Bytes)?;
    report.versions.push(Etcd::version()?);
    for clients in clients {
        let row = compare(
            &mut report,
            *clients,
            effort,
            &[
                ("Stele", &|| load(fleet.writes()?, *clients, 1, effort.time)),
                ("etcd", &|| load(etcd.puts(value), *clients, 1, effort.time)),
                (BARE_BYTES.0, &|| load(asked_of(&bytes, fleet.writes()?), *clients, 1, effort.time)),
            ],
        )?;
        report.rows.push(with_goals(row, *clients));
    }
    report.note(format!("{}: {}.", BARE_BYTES.0, BARE_BYTES.1));
    anyhow::ensure!(fleet.cluster.end().0.is_empty(), "something was left behind");
    Ok(report)
}

/// Many commands a request.
pub(crate) fn commit_batch(clients: &[usize], commands: u64, effort: Effort) -> anyhow::Result<Report> {
    let about = format!(
        "Each request carries {commands} commands of {VALUE_BYTES} bytes and is answered once a majority of three \
         members has synced them; etcd's are transactions of as many puts. {} rounds of {} s, the sides taking turns.",
        effort.rounds,
        effort.time.as_secs()
    );
    let mut report = Report::begin("commit-batch", &about, SIMULATED)?;
    let etcd = Etcd::start()?;
    let fleet = Fleet::start()?;
    let (bytes, records) = (Plain::start(commands, Keeps::Bytes)?, Plain::start(commands, Keeps::Records)?);
    report.versions.push(Etcd::version()?);
    for clients in clients {
        let plain = |plain| load(asked_of(plain, fleet.batches(commands)?), *clients, commands, effort.time);
        let row = compare(
            &mut report,
            *clients,
            effort,
            &[
                ("Stele", &|| load(fleet.batches(commands)?, *clients, commands, effort.time)),
                ("etcd", &|| load(etcd.transactions(commands, value), *clients, commands, effort.time)),
                (BARE_RECORDS.0, &|| plain(&records)),
                (BARE_BYTES.0, &|| plain(&bytes)),
            ],
        )?;
        let (rate, ratio) = (row.sides[0].median, row.ratio.unwrap_or_default());
        report.rows.push(row.goal(Goal::at_least("events/s", rate, 150_000.0)).goal(Goal::at_least(
            "rate over etcd's",
            ratio,
            5.0,
        )));
    }
    for (side, what) in [BARE_BYTES, BARE_RECORDS] {
        report.note(format!("{side}: {what}."));
    }
    anyhow::ensure!(fleet.cluster.end().0.is_empty(), "something was left behind");
    Ok(report)
}

/// Lets so many clients write to one side for a time.
type Load<'a> = &'a dyn Fn() -> anyhow::Result<Sample>;

/// All sides, taking turns.
fn compare(
    report: &mut Report,
    clients: usize,
    effort: Effort,
    sides: &[(&str, Load<'_>)],
) -> anyhow::Result<Row> {
    // Stele and its peer come first.
    let sides = if effort.has_bare { sides } else { &sides[..2] };
    let mut found = sides.iter().map(|_| Rounds::new()).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rest = Rest::new();
    for round in 0..effort.rounds {
        // Who comes after whom differs: what one leaves in the caches may help another.
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            let turn = rest.begin()?;
            let sample = (sides[at].1)()?;
            found[at].add(&sample, rest.end(&turn)?)?;
        }
    }
    let sides = sides.iter().zip(&found);
    let spent: Option<Vec<_>> = sides.clone().map(|((name, _), rounds)| rounds.spent(name)).collect();
    let sides = sides.map(|((name, _), rounds)| Side::new(name, &rounds.rates, Some(&rounds.times)));
    let work = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
    report.note(match spent {
        Some(spent) => format!(
            "{work}: an event takes of all processors together, the client's part in it, until nothing more follows of \
             it: {}.",
            spent.join(", ")
        ),
        None => format!("{work}: this machine had other work, so that turns did not begin at rest."),
    });
    Ok(Row::new(&work, "events/s", sides.collect()))
}

fn with_goals(row: Row, clients: usize) -> Row {
    let rate = row.ratio.unwrap_or_default();
    let share = |of: fn(&crate::report::Latency) -> f64| {
        let at = |side: usize| row.sides[side].latency.as_ref().map(of).unwrap_or_default();
        at(0) / at(1)
    };
    let (p50, p99) = (share(|times| times.p50), share(|times| times.p99));
    if clients == 1 {
        row.goal(Goal::at_least("rate over etcd's", rate, 1.5)).goal(Goal::at_most(
            "p50 over etcd's",
            p50,
            0.7,
        ))
    } else if clients >= MANY_CLIENTS {
        row.goal(Goal::at_least("rate over etcd's", rate, 3.0)).goal(Goal::at_most(
            "p99 over etcd's",
            p99,
            1.0,
        ))
    } else {
        row
    }
}
