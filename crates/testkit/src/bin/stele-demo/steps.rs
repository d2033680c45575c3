//! The steps, in order.

use std::time::Instant;

use anyhow::Context as _;
use stele_api::wire::{EventsPage, StatusAnswer};
use stele_model::{Event, Seq};
use stele_testkit::{Cluster, docker, eventually, facts, interrupted, pause, ports};

use crate::limits::{DEADLINE, WITHOUT_NATS};
use crate::stage::Stage;
use crate::world::{
    APP, Containers, PORT, World, addresses, check_specs, config, count, lives, pages, regions,
};
use crate::{Cli, sweep};

/// A demo's fleet is named after its process, so that a later one finds what it had to leave.
pub(crate) const FLEET_PREFIX: &str = "demo-";

const V1: &str = "Welcome to the shop! v1, prices in EUR";
const V2: &str = "Summer sale! v2, prices in EUR, 10 % off";
const V3: &str = "Last days of the sale! v3, prices in EUR, 10 % off";
const CONFIGURED: &str = "Welcome to the shop! v1, prices in EUR. Open until ten";

/// What was seen at v1, to be compared with later.
struct Seen {
    containers: Containers,
    digest: stele_model::event::TargetDigest,
}

pub(crate) fn all(stage: &mut Stage, cli: &Cli) -> anyhow::Result<()> {
    stage.title(
        "Stele: a change travels into a fleet of containers, and is taken back exactly",
        "3 controllers, 6 agents in 3 regions, 1 nats-server and Docker, all of them real, all on this machine.",
    );
    let fleet = format!("{FLEET_PREFIX}{}", std::process::id());
    let mut cluster = None;
    let told = tell(stage, cli, &fleet, &mut cluster);
    // However it went: nothing may stay.
    let finished = finish(stage, &fleet, cluster, told.is_ok());
    told.and(finished)
}

fn tell(stage: &mut Stage, cli: &Cli, fleet: &str, slot: &mut Option<World>) -> anyhow::Result<()> {
    stage.step("Start a fleet", |stage| start(stage, cli, fleet, slot))?;
    let world = slot.as_mut().context("the fleet has just been started")?;
    let v1 = stage.step("Deploy v1 to all regions", |stage| deploy_v1(stage, world))?;
    stage.step("Deploy v2: new image, env and file, one more replica, a new service", |stage| {
        deploy_v2(stage, world, &v1)
    })?;
    stage.step("Deploy v3, and kill -9 the leader in the middle of it", |stage| deploy_v3(stage, world))?;
    stage.step("Roll back to v1, exactly", |stage| roll_back(stage, world, &v1))?;
    stage.step("Delete NATS with all of its data", |stage| without_nats(stage, world))?;
    stage.step("Read the whole log, verified from its first record", |stage| read_log(stage, world))
}

fn start(stage: &mut Stage, cli: &Cli, fleet: &str, slot: &mut Option<World>) -> anyhow::Result<()> {
    check_specs(&cli.specs)?;
    sweep()?;
    ports::taken_on(&addresses()?, PORT).map_or(Ok(()), |address| {
        anyhow::bail!(
            "something on this machine already listens on {address}, which the demo's app publishes"
        )
    })?;
    let config = config(fleet.to_owned());
    let cluster = Cluster::found(&config)?;
    let world = slot.insert(World { cluster, specs: cli.specs.clone() });
    stage.typed("stele controller run --config controller-1/controller.json &    # and two more");
    for id in world.cluster.ids() {
        world.cluster.start_controller(id)?;
    }
    let leader = world.cluster.leader()?;
    stage.typed(&format!("export STELE_ADDR={} STELE_TOKEN=…", world.cluster.addresses()));
    stage.typed(
        "stele-agent join \"$(stele node token --region eu --name eu-1)\" --name eu-1    # and five more",
    );
    stage.typed("stele-agent run &");
    for node in &config.nodes {
        world.cluster.join_node(node)?;
    }
    world.cluster.wait_for_nodes()?;
    world.run(stage, &["node", "list"])?;
    stage.check(true, &format!("controller {leader} leads 3 controllers; 6 nodes are ready"), "")
}

fn deploy_v1(stage: &mut Stage, world: &mut World) -> anyhow::Result<Seen> {
    world.run(stage, &["apply", "-f", &world.spec("v1")?, "--wait"])?;
    let containers = world.containers()?;
    let spread = (count(&containers, "web"), regions(&containers, "web"), count(&containers, "worker"));
    stage.check(spread == (3, 3, 3), "3 web servers in 3 regions, and 3 workers", format!("{spread:?}"))?;
    pages(stage, &containers, V1)?;
    Ok(Seen { containers, digest: world.digest()? })
}

fn deploy_v2(stage: &mut Stage, world: &mut World, v1: &Seen) -> anyhow::Result<()> {
    let spec = world.spec("v2")?;
    world.run(stage, &["apply", "-f", &spec, "--wait", "--reason", "summer sale"])?;
    let containers = world.containers()?;
    let counts = ["web", "worker", "cache"].map(|service| count(&containers, service));
    stage.check(counts == [4, 3, 3], "4 web servers, 3 workers, 3 caches", format!("{counts:?}"))?;
    let changed = facts::differences(&v1.containers, &containers);
    let kinds = ["image", "config Env", "files /etc/shop/shop.conf"];
    let all = kinds.iter().all(|kind| changed.iter().any(|line| line.contains(kind)));
    stage.check(all, "docker inspect: image, environment and file have changed", changed.join("\n"))?;
    pages(stage, &containers, V2)?;
    let digest = world.digest()?;
    stage.check(digest != v1.digest, "the target digest is another one than at v1", "")
}

fn deploy_v3(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    let before = last_seq(world)?;
    let (line, command) = world.stele(&["apply", "-f", &world.spec("v3")?, "--wait"]);
    stage.typed(&line);
    let mut deploying = stage.start(command)?;
    let path = format!("/v1/status?scope={}", "shop%2Fweb%40prod");
    let leader = world.cluster.leader()?;
    let client = world.cluster.client(leader)?;
    let (renewed, all) = eventually(DEADLINE, "the deployment is half-way", || {
        let status: StatusAnswer = client.read(&path).ok()?;
        let app = status.apps.first().filter(|app| app.release == Some(3))?;
        let current = app.instances.iter().filter(|instance| instance.current).count();
        (current >= 2).then_some((current, app.services.iter().map(|service| service.wanted).sum::<u32>()))
    })?;
    anyhow::ensure!(deploying.runs(), "the deployment ended before the leader could be killed");
    let id = world.cluster.process(leader)?.id();
    stage.typed(&format!(
        "kill -9 {id}    # controller {leader}, the leader; {renewed} of {all} renewed so far"
    ));
    let killed = Instant::now();
    world.cluster.kill(leader)?;
    let next = world.cluster.leader_besides(leader)?;
    let took = killed.elapsed().as_secs_f64();
    stage.check(true, &format!("controller {next} leads after {took:.1} s"), "")?;
    let done = deploying.done()?;
    stage.output(&done.stdout);
    stage.check(done.status.success(), "the deployment has finished under it", &done.stderr)?;

    let (took_over, finished) = order_of_events(world, before, next)?;
    stage.check(
        took_over < finished,
        &format!(
            "the log says so: the new term began at seq {took_over}, the deployment ended at {finished}"
        ),
        "",
    )?;
    let containers = world.containers()?;
    pages(stage, &containers, V3)?;
    world.cluster.restart(leader)?;
    let seq = last_seq(world)?;
    let follows = || world.cluster.health(leader).filter(|health| health.seq >= seq);
    eventually(DEADLINE, "the killed controller has caught up", follows)?;
    stage.check(true, &format!("controller {leader}, started again, has caught up"), "")
}

fn roll_back(stage: &mut Stage, world: &mut World, v1: &Seen) -> anyhow::Result<()> {
    let reason = ["--reason", "v2 and v3 sell below cost"];
    world.run(stage, &[&["rollback", APP, "--to", "v1", "--wait"][..], &reason].concat())?;
    let digest = world.digest()?;
    stage.check(
        digest == v1.digest,
        "the target digest equals the one at v1",
        format!("{digest:?} is not {:?}", v1.digest),
    )?;
    // A withdrawn container is not part of the deployment that withdrew it: it may take a moment more.
    let mut containers = world.containers()?;
    if containers.len() != v1.containers.len() {
        let gone = || world.containers().ok().filter(|now| now.len() == v1.containers.len());
        containers = eventually(DEADLINE, "the added containers are gone", gone)?;
    }
    let changed = facts::differences(&v1.containers, &containers);
    stage.check(
        changed.is_empty(),
        "docker inspect of every container equals v1: image, env, command, mounts, files, ports, resources",
        changed.join("\n"),
    )?;
    stage.check(count(&containers, "cache") == 0, "the added service is gone", "")?;
    pages(stage, &containers, V1)?;

    let (line, command) = world.stele(&["token", "create", "ci", "--role", "deployer", "--service"]);
    stage.typed(&line);
    let token = stage.start(command)?.done()?;
    anyhow::ensure!(token.status.success(), "no token was made: {}", token.stderr);
    let (line, mut command) = world.stele(&["deploy", APP, "--release", "v3"]);
    command.env("STELE_TOKEN", token.stdout.trim());
    stage.typed(&format!("STELE_TOKEN=$CI {line}"));
    let refused = command.output()?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    stage.output(&words);
    stage.check(
        refused.status.code() == Some(3) && words.contains("latch"),
        "CI cannot deploy the rejected version again: the app is latched",
        format!("{} {words}", refused.status),
    )
}

fn without_nats(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    let before = world.containers()?;
    stage.say("nats-server is killed, and its data deleted");
    world.cluster.wipe_nats()?;
    pause(WITHOUT_NATS)?;
    let during = world.containers()?;
    world.cluster.start_nats()?;
    world.cluster.wait_for_nodes()?;
    let after = world.containers()?;
    stage.check(
        lives(&before) == lives(&during) && lives(&before) == lives(&after),
        "no container was stopped or started (docker inspect: same ids, same StartedAt)",
        format!("{:?}\n{:?}\n{:?}", lives(&before), lives(&during), lives(&after)),
    )?;
    stage.say("nats-server is back, and empty. The next change:");
    world.run(stage, &["config", "set", APP, "NOTE=Open until ten", "--wait"])?;
    let containers = world.containers()?;
    pages(stage, &containers, CONFIGURED)
}

fn read_log(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    let (line, command) = world.stele(&["verify", "--print"]);
    stage.typed(&line);
    let done = stage.start(command)?.done()?;
    stage.output(&folded(&done.stdout));
    stage.check(
        done.status.success(),
        "records are chained without a gap, and fold into the state the controllers have",
        &done.stderr,
    )
}

/// The log with runs of nodes' reports as one line each: they are most of it and say the least.
fn folded(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let is_report = |line: &str| line.contains(" nodes_reported ");
    let runs = lines.chunk_by(|one, next| is_report(one) && is_report(next));
    let seq = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let shown = runs.map(|run| match run {
        [first, .., last] => {
            format!("{:>11}  {} reports of nodes", format!("{}-{}", seq(first), seq(last)), run.len())
        }
        alone => alone.concat(),
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn finish(stage: &mut Stage, fleet: &str, world: Option<World>, told: bool) -> anyhow::Result<()> {
    let Some(world) = world else { return Ok(()) };
    let end = |stage: &mut Stage| {
        let processes = world.cluster.process_ids().len();
        let made = docker::containers(fleet).map_or(0, |containers| containers.len());
        let left = world.cluster.end();
        let gone =
            format!("gone: {processes} processes, {made} containers, their networks, volumes and folders");
        stage.check(left.0.is_empty(), &gone, left.0.join("\n"))
    };
    // After a failure or Ctrl-C it is no step, but done all the same.
    if told { stage.step("Stop, and leave nothing", end) } else { end(stage) }
}

fn last_seq(world: &World) -> anyhow::Result<Seq> {
    let leader = world.cluster.leader()?;
    Ok(world.cluster.client(leader)?.read::<EventsPage>("/v1/events?limit=1")?.last)
}

/// Seq at which a controller's term began, and at which the deployment ended.
fn order_of_events(world: &World, after: Seq, controller: u64) -> anyhow::Result<(Seq, Seq)> {
    interrupted()?;
    let client = world.cluster.client(controller)?;
    let page: EventsPage = client.read(&format!("/v1/events?after={after}&limit=1000"))?;
    let term = page
        .events
        .iter()
        .find(|record| matches!(record.event, Event::TermStarted { controller: by, .. } if by == controller));
    let end = page.events.iter().find(|record| matches!(record.event, Event::DeploymentFinished { .. }));
    let seq = |record: Option<&stele_model::Record>| record.map(|record| record.header.seq);
    Ok((seq(term).context("the log lacks the new term")?, seq(end).context("the log lacks the end")?))
}
