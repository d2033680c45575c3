//! Twenty containers on one host: deployed, updated and rolled back, beside Docker Swarm doing the
//! same, and beside plain parallel `docker run`, which is the limit.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stele_api::wire::DeploymentStatus;
use stele_model::event::Outcome;
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Client, Cluster, ClusterConfig, NodeConfig, Runtime, registry};

use crate::report::{Goal, Report, Row, Side};

const ADDRESS: &str = "127.0.0.41";
const SWARM_SERVICE: &str = "stele-bench";
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const RAW_NETWORK: &str = "stele-bench-raw";
/// On every container that no side but this program runs.
const RAW_LABEL: &str = "stele-bench-raw";
/// Between two looks whether a deployment is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Does nothing, until it is told to stop, which it does at once.
const SCRIPT: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

/// What one side took for a change.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Until Docker says that as many containers of the wanted image run.
    running: Duration,
    /// Until the side itself says that all is well, as a person waits for it.
    told: Duration,
}

/// What one side took.
#[derive(Clone, Copy, Debug)]
struct Times {
    deploy: Change,
    update: Change,
    rollback: Change,
    /// From the command to the first restored container that is healthy. Swarm does not tell: to all.
    first: Duration,
}

/// What Docker itself takes for so many containers.
#[derive(Clone, Copy, Debug)]
struct Raw {
    /// On the network that all containers share if nothing else is asked for.
    run: Duration,
    /// On a network of their own, on which they find each other by name, as those of an app do.
    run_apart: Duration,
    /// To stop these.
    stop_apart: Duration,
}

/// All rounds of all sides.
struct Rounds {
    raw: Vec<Raw>,
    ours: Vec<Times>,
    swarm: Vec<Times>,
}

const SIMULATED: &str = "nothing: one controller, one agent, Docker and Swarm's manager share one machine. \
     Images are on the host.";

/// Deployed, updated and rolled back.
pub(crate) fn docker(containers: u32, rounds: usize) -> anyhow::Result<Report> {
    let (mut report, all) = measure("docker", containers, rounds)?;
    let [shared, apart] = started(&all.raw);
    for (work, of) in [
        ("deploy", (|times| times.deploy) as fn(&Times) -> Change),
        ("update", |times| times.update),
        ("roll back", |times| times.rollback),
    ] {
        let mut sides = both(&all, of);
        let of_raw = Goal::at_most("over the raw creates", sides[2].median / shared.median, 1.25);
        let faster = Goal::at_least("times as fast as Swarm", sides[1].median / sides[0].median, 3.0);
        sides.extend([shared.clone(), apart.clone()]);
        report.rows.push(if work == "deploy" {
            Row::new(work, "s", sides).goal(of_raw)
        } else {
            sides.push(replaced(&all.raw));
            Row::new(work, "s", sides).goal(of_raw).goal(faster)
        });
    }
    Ok(report)
}

/// Rolled back, to the first healthy container and to all.
pub(crate) fn rollback_real(containers: u32, rounds: usize) -> anyhow::Result<Report> {
    let (mut report, all) = measure("rollback-real", containers, rounds)?;
    let [shared, apart] = started(&all.raw);
    let first = Side::new("Stele", &seconds(&all.ours, |times| times.first), None);
    let goal = Goal::at_most("seconds", first.median, 5.0);
    report.rows.push(Row::new("to the first restored healthy container", "s", vec![first]).goal(goal));
    let mut sides = both(&all, |times| times.rollback);
    let goal = Goal::at_most("over the raw creates", sides[2].median / shared.median, 1.25);
    sides.extend([shared, apart, replaced(&all.raw)]);
    report.rows.push(Row::new("to all of them", "s", sides).goal(goal));
    Ok(report)
}

/// Stele and Swarm until all containers run, then both until they say that all is well.
fn both(all: &Rounds, of: impl Fn(&Times) -> Change) -> Vec<Side> {
    let side = |name: &str, rounds: &[Times], took: fn(Change) -> Duration| {
        Side::new(name, &seconds(rounds, |times| took(of(times))), None)
    };
    vec![
        side("Stele, until all run", &all.ours, |change| change.running),
        side("Docker Swarm, until all run", &all.swarm, |change| change.running),
        side("Stele, until it says so", &all.ours, |change| change.told),
        side("Docker Swarm, until it says so", &all.swarm, |change| change.told),
    ]
}

/// Docker itself: the containers started, on the network that all share and on one of their own.
fn started(raw: &[Raw]) -> [Side; 2] {
    [
        Side::new("docker run, in parallel", &seconds(raw, |raw| raw.run), None),
        Side::new("docker run, on a network of their own", &seconds(raw, |raw| raw.run_apart), None),
    ]
}

/// Old containers have to stop before new ones may run: this is the limit of replacing them.
fn replaced(raw: &[Raw]) -> Side {
    let both = seconds(raw, |raw| raw.stop_apart + raw.run_apart);
    Side::new("docker stop, then docker run, there", &both, None)
}

fn measure(bench: &'static str, containers: u32, rounds: usize) -> anyhow::Result<(Report, Rounds)> {
    let about = format!(
        "{containers} containers of one app on one host, all replaced at once: Stele, Docker Swarm, and as many \
         `docker run` in parallel, which is the limit. {rounds} rounds, taking turns."
    );
    let mut report = Report::begin(bench, &about, SIMULATED)?;
    let version = run("docker", &["version", "--format", "{{.Server.Version}}"])?;
    report.versions.push(format!("Docker {}", version.trim()));
    remove_left()?;
    let mut all = Rounds { raw: Vec::new(), ours: Vec::new(), swarm: Vec::new() };
    for _ in 0..rounds {
        all.raw.push(raw(containers)?);
        all.ours.push(stele(containers)?);
        all.swarm.push(swarm(containers)?);
    }
    Ok((report, all))
}

fn seconds<T>(rounds: &[T], of: impl Fn(&T) -> Duration) -> Vec<f64> {
    rounds.iter().map(|round| of(round).as_secs_f64()).collect()
}

fn image(version: &str) -> String {
    format!("{}/stele/busybox:{version}", registry())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// So many `docker run` at once, and as many `docker stop`: on the shared network, then on one of their own.
fn raw(containers: u32) -> anyhow::Result<Raw> {
    run("docker", &["pull", "--quiet", &image("v1")])?;
    let (run_shared, _) = raw_on(containers, "bridge")?;
    let network = Network::begin()?;
    let (run_apart, stop_apart) = raw_on(containers, RAW_NETWORK)?;
    drop(network);
    Ok(Raw { run: run_shared, run_apart, stop_apart })
}

/// Removes what a run that was interrupted left: it would count as running.
fn remove_left() -> anyhow::Result<()> {
    let left = run("docker", &["ps", "--all", "--quiet", "--filter", &format!("label={RAW_LABEL}")])?;
    for id in left.split_whitespace() {
        run("docker", &["rm", "--force", id])?;
    }
    Ok(())
}

/// A network that exists as long as this lives.
struct Network;

impl Network {
    fn begin() -> anyhow::Result<Self> {
        // A run that was interrupted may have left it.
        if run("docker", &["network", "inspect", RAW_NETWORK]).is_ok() {
            run("docker", &["network", "rm", RAW_NETWORK])?;
        }
        run("docker", &["network", "create", RAW_NETWORK])?;
        Ok(Self)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = run("docker", &["network", "rm", RAW_NETWORK]) {
            eprintln!("a network of Docker could not be removed: {error}");
        }
    }
}

fn raw_on(containers: u32, network: &str) -> anyhow::Result<(Duration, Duration)> {
    let begun = Instant::now();
    let image = image("v1");
    let command =
        ["run", "-d", "--label", RAW_LABEL, "--network", network, &image, "/bin/sh", "-c", SCRIPT].to_vec();
    let ids = at_once(vec![command; containers as usize])?;
    let ran = begun.elapsed();
    let begun = Instant::now();
    at_once(ids.iter().map(|id| vec!["stop", "--time", "1", id.trim()]).collect())?;
    let stopped = begun.elapsed();
    let mut remove = vec!["rm", "--force"];
    remove.extend(ids.iter().map(|id| id.trim()));
    run("docker", &remove)?;
    Ok((ran, stopped))
}

/// What each of the commands printed.
fn at_once(commands: Vec<Vec<&str>>) -> anyhow::Result<Vec<String>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            commands.into_iter().map(|command| scope.spawn(move || run("docker", &command))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, anyhow::Result<String>>| match worker.join() {
            Ok(printed) => printed,
            Err(_) => anyhow::bail!("a worker panicked"),
        };
        workers.into_iter().map(join).collect()
    })
}

fn stele(containers: u32) -> anyhow::Result<Times> {
    let cluster = Cluster::start(ClusterConfig {
        fleet: format!("bench-{}", std::process::id()),
        controllers: 1,
        nodes: vec![NodeConfig {
            name: "eu-1".to_owned(),
            region: "eu".to_owned(),
            address: ADDRESS.to_owned(),
        }],
        runtime: Runtime::Docker,
    })?;
    cluster.wait_for_nodes()?;
    let client = cluster.client(1)?;
    let spec = |version: &str| {
        json!({"spec": {"app": "shop/web", "environments": ["prod"], "services": {"web": {
            "image": image(version),
            "command": ["/bin/sh", "-c", SCRIPT],
            "replicas": containers,
            "update": {"max_unavailable": containers, "order": "stop_first", "deadline": "2m"},
            "stop": {"grace": "1s"},
        }}}})
    };
    let (v1, v2) = (Wanted::new(containers, "v1")?, Wanted::new(containers, "v2")?);
    let (deploy, _) = change(&client, "/v1/apply", &spec("v1"), &v1)?;
    let (update, _) = change(&client, "/v1/apply", &spec("v2"), &v2)?;
    let back = json!({"scope": "shop/web@prod", "to": "v1", "now": true});
    let (rollback, first) = change(&client, "/v1/rollbacks", &back, &v1)?;
    ensure!(cluster.end().0.is_empty(), "something was left behind");
    Ok(Times { deploy, update, rollback, first })
}

/// What a change takes, and how long until the first instance is healthy.
fn change(client: &Client, path: &str, body: &Value, wanted: &Wanted) -> anyhow::Result<(Change, Duration)> {
    let begun = Instant::now();
    let answer: Value = client.change(path, body)?;
    let path = format!("/v1/deployments/{}", answer["deployments"][0]);
    let (mut first, mut running) = (None, None);
    loop {
        wanted.look(begun, &mut running)?;
        let status: DeploymentStatus = client.read(&path)?;
        if status.healthy > 0 {
            first.get_or_insert_with(|| begun.elapsed());
        }
        if let Some(finished) = &status.finished {
            ensure!(finished.outcome == Outcome::Succeeded, "it failed: {:?}", finished.outcome);
            let told = begun.elapsed();
            return Ok((Change { running: running.unwrap_or(told), told }, first.unwrap_or(told)));
        }
        ensure!(begun.elapsed() < DEADLINE, "it does not end");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// So many containers of an image.
struct Wanted {
    containers: usize,
    image: Value,
}

impl Wanted {
    fn new(containers: u32, version: &str) -> anyhow::Result<Self> {
        let image = image(version);
        run("docker", &["pull", "--quiet", &image])?;
        let image = asked(&format!("/images/{image}/json"))?["Id"].take();
        Ok(Self { containers: containers as usize, image })
    }

    /// Notes when all of them run, by Docker's own word.
    fn look(&self, begun: Instant, running: &mut Option<Duration>) -> anyhow::Result<()> {
        if running.is_some() {
            return Ok(());
        }
        let all = asked("/containers/json")?;
        let of_image = |it: &&Value| it["ImageID"] == self.image && it["State"] == "running";
        if all.as_array().into_iter().flatten().filter(of_image).count() >= self.containers {
            *running = Some(begun.elapsed());
        }
        Ok(())
    }
}

/// The machine's Docker is in a swarm as long as this lives.
struct Swarm;

impl Swarm {
    fn begin() -> anyhow::Result<Self> {
        run("docker", &["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"])?;
        Ok(Self)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Err(error) = run("docker", &["swarm", "leave", "--force"]) {
            eprintln!("Docker could not leave its swarm: {error}");
        }
    }
}

/// Its commands wait until it says that all is well, which it does five seconds after all run.
fn swarm(containers: u32) -> anyhow::Result<Times> {
    let swarm = Swarm::begin()?;
    let count = containers.to_string();
    let (v1, v2) = (Wanted::new(containers, "v1")?, Wanted::new(containers, "v2")?);
    let timed = |arguments: &[&str], wanted: &Wanted| -> anyhow::Result<Change> {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let command = scope.spawn(|| run("docker", arguments).map(|_| begun.elapsed()));
            let mut running = None;
            while running.is_none() {
                ensure!(begun.elapsed() < DEADLINE, "Swarm does not come to an end");
                wanted.look(begun, &mut running)?;
                std::thread::sleep(LOOK_INTERVAL);
            }
            let told = command.join().map_err(|_| anyhow::anyhow!("a command's thread panicked"))??;
            Ok(Change { running: running.unwrap_or(told), told })
        })
    };
    let (first, second) = (image("v1"), image("v2"));
    let create = [
        &["service", "create", "--quiet", "--name", SWARM_SERVICE, "--replicas", &count][..],
        &["--update-parallelism", "0", "--rollback-parallelism", "0", "--stop-grace-period", "1s"],
        &["--update-monitor", "0s", "--rollback-monitor", "0s"],
        &[&first, "/bin/sh", "-c", SCRIPT],
    ]
    .concat();
    let deploy = timed(&create, &v1)?;
    let update = timed(&["service", "update", "--quiet", "--image", &second, SWARM_SERVICE], &v2)?;
    let rollback = timed(&["service", "rollback", "--quiet", SWARM_SERVICE], &v1)?;
    run("docker", &["service", "rm", SWARM_SERVICE])?;
    drop(swarm);
    Ok(Times { deploy, update, rollback, first: rollback.running })
}

/// What Docker's API answers. To start a program for each look would take more than the look.
fn asked(path: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(DOCKER_SOCKET).context("cannot reach Docker")?;
    // HTTP/1.0 has no chunks: the answer ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("Docker's answer has no head")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "Docker's API, asked for {path}: {answer}");
    Ok(serde_json::from_str(body)?)
}
