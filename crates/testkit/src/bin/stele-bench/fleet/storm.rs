//! All agents reconnect at once, after NATS was gone with everything it kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use stele_testkit::{Client, pause};
use ureq::http::Method;

use super::{Fleet, SIMULATED, spec};
use crate::report::{Goal, Report, Row, Side, Times};

/// Between two commits whose time is taken.
const COMMIT_INTERVAL: Duration = Duration::from_millis(10);
/// How long commits are timed while nothing happens.
const QUIET: Duration = Duration::from_secs(20);

pub(crate) fn join_storm(nodes: usize) -> anyhow::Result<Report> {
    let about = format!(
        "NATS is stopped, emptied and started again under {nodes} agents: until every one is connected, has its \
         assignment confirmed and is heard. Beside it, one client's commits, one each {} ms.",
        COMMIT_INTERVAL.as_millis()
    );
    let mut report = Report::begin("join-storm", &about, SIMULATED)?;
    report.versions.push(crate::first_line("nats-server", &["--version"])?);
    let mut fleet = Fleet::start("storm", nodes, 10)?;
    let client = fleet.client()?;
    let answer: serde_json::Value = client.change("/v1/apply", &spec("bench/web", "0", None))?;
    fleet.finished(&answer["deployments"][0])?;

    let quiet = Commits::start(client.clone());
    pause(QUIET)?;
    let quiet = quiet.stop()?;
    let stormy = Commits::start(client);
    fleet.told().connected.clear();
    fleet.cluster.wipe_nats()?;
    fleet.cluster.start_nats()?;
    let began = Instant::now();
    fleet.wait("every agent is connected again", |fleet| Ok(fleet.told().connected.len() >= fleet.nodes))?;
    let connected = began.elapsed().as_secs_f64();
    fleet.wait_for_nodes()?;
    let converged = began.elapsed().as_secs_f64();
    let stormy = stormy.stop()?;

    report.rows.push(Row::alone("until all are connected", "s", &[connected], None));
    report.rows.push(
        Row::alone("until all are heard and current", "s", &[converged], None)
            .goal(Goal::at_most("seconds", converged, 60.0)),
    );
    let (before, during) = (quiet.latency(), stormy.latency());
    let row = Row::new(
        "one client's commits, p99",
        "ms",
        vec![
            Side::new("meanwhile", &[during.p99], Some(&stormy)),
            Side::new("before", &[before.p99], Some(&quiet)),
        ],
    );
    let goal = Goal::at_most("slowest commit meanwhile over p99 before", during.max / before.p99, 5.0);
    report.rows.push(row.goal(goal));
    fleet.end()?;
    Ok(report)
}

/// Commits, one after the other, whose times are taken.
struct Commits {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Times>>,
}

impl Commits {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times = Times::new()?;
            while !stopped.load(Ordering::SeqCst) {
                let body = json!({"labels": {"write": super::now_us().to_string()}}).to_string();
                let began = Instant::now();
                let answer = client.send(Method::PUT, "/v1/nodes/n-0/labels", &[], Some(&body))?;
                anyhow::ensure!(answer.status == 200, "a commit was refused: {}", answer.body);
                times.record(began.elapsed());
                pause(COMMIT_INTERVAL)?;
            }
            Ok(times)
        });
        Self { stop, thread }
    }

    fn stop(self) -> anyhow::Result<Times> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that commits panicked"))?
    }
}
