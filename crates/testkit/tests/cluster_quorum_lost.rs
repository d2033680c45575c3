//! A quorum that is lost for good, and the fleet that goes on with one controller.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use stele_api::wire::{ClusterAnswer, MemberRole, NodesAnswer};
use stele_consensus::{LogStore as _, WriteBatch};
use stele_store::{Identity, Settings, Store};
use stele_testkit::limits::{DEADLINE, RECOVERY_DEADLINE};
use stele_testkit::load::{Load, broken_promises};
use stele_testkit::{Cluster, ClusterConfig, Process, Programs, eventually, fetch_log, registry};
use ureq::http::Method;

const NODES: [&str; 3] = ["eu-1", "us-1", "ap-1"];
/// Between two tries of a recovery that is killed, each a little later than the one before.
const KILL_STEP: Duration = Duration::from_millis(15);
const KILLS: u32 = 6;
/// Commands in one request.
const BATCH: u64 = 500;
/// More records than lie between two milestones.
const BEFORE: u64 = 2_500;
/// And with these, more than lie between two snapshots.
const MISSED: u64 = 10_500;

/// Asks the leader alone, since others may be gone.
fn apply(cluster: &Cluster, leader: u64, image: char) {
    let image = format!("{}/stele/web:{image}@sha256:{}", registry(), image.to_string().repeat(64));
    let spec = cluster.dir().join("web.yaml");
    let text = format!(
        "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 6\n"
    );
    fs::write(&spec, text).unwrap();
    let mut command = cluster.cli(&["apply", "-f", spec.to_str().unwrap(), "--wait"]);
    let output =
        command.env("STELE_ADDR", format!("http://{}", cluster.api(leader).unwrap())).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// `stele controller recover` in a controller's folder.
fn recover(cluster: &Cluster, config: &Path, more: &[&str]) -> Command {
    let config = config.to_str().unwrap();
    cluster.cli(&[&["controller", "recover", "--config", config], more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn config_of(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.folder(id).unwrap().join("controller.json")
}

/// The plan of a recovery, which changes nothing. It is of the time at which it is asked for.
fn plan(cluster: &Cluster, id: u64) -> Value {
    let output = recover(cluster, &config_of(cluster, id), &["--plan", "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let epoch = found.as_object_mut().unwrap().remove("epoch");
    assert!(epoch.and_then(|epoch| epoch.as_u64()).is_some_and(|epoch| epoch > 1), "{found}");
    found
}

fn seq_of(cluster: &Cluster, id: u64) -> u64 {
    cluster.health(id).map_or(0, |health| health.seq)
}

/// Every agent works on an assignment of this epoch.
fn agents_are_in(cluster: &Cluster, epoch: u64) {
    let agent = Programs::find().unwrap().agent();
    for node in NODES {
        let data = cluster.agent_folder(node).unwrap();
        let wanted = format!("epoch {epoch}, ");
        eventually(DEADLINE, &format!("{node} is told in epoch {epoch}"), || {
            let output = Command::new(&agent).arg("status").arg("--data").arg(data).output().ok()?;
            said(&output).contains(&wanted).then_some(())
        })
        .unwrap();
    }
}

/// The fleet's epoch, as a controller says.
fn epoch_of(cluster: &Cluster, id: u64) -> u64 {
    cluster.client(id).unwrap().read::<ClusterAnswer>("/v1/cluster").unwrap().epoch
}

/// Adds a new controller, which votes.
fn grow(cluster: &mut Cluster) -> u64 {
    let new = cluster.prepare().unwrap();
    cluster.start_controller(new).unwrap();
    cluster.add(new).unwrap();
    new
}

/// What the public feed has under a number, and how many there are.
fn feed(cluster: &Cluster, seq: u64) -> Option<(Value, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(cluster.nats_url()?).await.ok()?;
        let name = format!("STELE_{}_EVENTS", cluster.fleet());
        let mut stream = async_nats::jetstream::new(client).get_stream(name).await.ok()?;
        let last = stream.info().await.ok()?.state.last_sequence;
        let message = stream.get_raw_message(seq).await.ok()?;
        Some((serde_json::from_slice(&message.payload).ok()?, last))
    })
}

#[test]
fn a_fleet_goes_on_with_a_controller_that_was_behind() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("behind")).unwrap();
    let leader = cluster.leader().unwrap();
    apply(&cluster, leader, 'a');
    let left = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let last = seq_of(&cluster, leader);
    eventually(DEADLINE, "it has all", || (seq_of(&cluster, left) >= last).then_some(())).unwrap();
    let output = recover(&cluster, &config_of(&cluster, left), &["--plan"]).output().unwrap();
    assert!(said(&output).contains("runs: stop it first"), "{}", said(&output));

    // What follows it never hears of. Agents are told of it, and so is the public feed.
    cluster.kill(left).unwrap();
    apply(&cluster, leader, 'b');
    let ahead = seq_of(&cluster, leader);
    eventually(DEADLINE, "the feed is ahead", || feed(&cluster, ahead)).unwrap();
    let lost: Vec<_> = cluster.ids().into_iter().filter(|id| *id != left).collect();
    let dead = cluster.dir().join("dead");
    fs::create_dir(&dead).unwrap();
    for id in &lost {
        cluster.kill(*id).unwrap();
        // Somebody has a copy.
        let copy =
            Command::new("cp").arg("-a").arg(cluster.folder(*id).unwrap()).arg(&dead).status().unwrap();
        assert!(copy.success());
        cluster.wipe(*id).unwrap();
    }

    let found = plan(&cluster, left);
    assert_eq!(found, plan(&cluster, left), "a plan changes nothing");
    let kept = found["last_seq"].as_u64().unwrap();
    assert!(last <= kept && kept < ahead, "{found}");
    assert_eq!(found["given_up"], json!(lost), "{found}");
    assert_eq!(found["missing_keys"], json!([]), "{found}");
    let config = config_of(&cluster, left);
    let output = recover(&cluster, &config, &[]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("repeat with --yes"), "{}", said(&output));
    assert_eq!(plan(&cluster, left), found);

    // However often it is killed: it happens once or not at all.
    for step in 0..KILLS {
        let mut command = recover(&cluster, &config, &["--yes", "--reason", "a fire"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        stele_testkit::pause(KILL_STEP * step).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = recover(&cluster, &config, &["--yes", "--reason", "a fire"]).output().unwrap();
    assert!(output.status.success() || said(&output).contains("votes alone"), "{}", said(&output));
    let output = recover(&cluster, &config, &["--yes"]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("votes alone"), "{}", said(&output));
    for _ in 0..2 {
        cluster.start_controller(left).unwrap();
        cluster.kill(left).unwrap();
    }
    cluster.restart(left).unwrap();
    assert_eq!(cluster.leader().unwrap(), left);

    // It happened once, and the nodes are told anew, whatever they were told beyond its log.
    let client = cluster.client(left).unwrap();
    let page: Value = client.read("/v1/events?kind=fleet_recovered&limit=1000").unwrap();
    let events = page["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{page}");
    assert_eq!(events[0]["header"]["reason"]["plain"], "a fire", "{page}");
    assert_eq!(events[0]["header"]["seq"], kept + 2, "{page}");
    let epoch = epoch_of(&cluster, left);
    agents_are_in(&cluster, epoch);
    cluster.wait_for_nodes().unwrap();
    apply(&cluster, left, 'c');
    eventually(DEADLINE, "the feed shows this log", || {
        let (event, published) = feed(&cluster, kept + 2)?;
        (event["header"]["kind"] == "fleet_recovered" && published == seq_of(&cluster, left)).then_some(())
    })
    .unwrap();

    // A copy of one that was given up: nobody takes it in, and it is not added again.
    let copy = dead.join(format!("controller-{}", lost[0])).join("controller.json");
    let arguments = ["controller", "run", "--config", copy.to_str().unwrap()].map(str::to_owned);
    let stele = Programs::find().unwrap().stele();
    let mut back = Process::start(&stele, &arguments, &cluster.dir().join("back.txt")).unwrap();
    let refused = format!("controller {} is not a member of fleet", lost[0]);
    eventually(DEADLINE, "it is refused", || {
        cluster.process(left).ok()?.log().contains(&refused).then_some(())
    })
    .unwrap();
    let id = lost[0].to_string();
    let output = cluster.output_of(&["cluster", "add", &id, "--config", copy.to_str().unwrap()]).unwrap();
    assert!(said(&output).contains("an id is never used again"), "{}", said(&output));

    // Three again, of which one may go.
    let (fourth, fifth) = (grow(&mut cluster), grow(&mut cluster));
    let answer: ClusterAnswer = cluster.client(left).unwrap().read("/v1/cluster").unwrap();
    let voters = answer.controllers.iter().filter(|it| it.role == MemberRole::Voter).map(|it| it.id);
    assert_eq!(voters.collect::<Vec<_>>(), [left, fourth, fifth]);
    assert_eq!(answer.epoch, epoch);
    back.kill().unwrap();
    cluster.kill(left).unwrap();
    let leader = cluster.leader().unwrap();
    apply(&cluster, leader, 'd');
    let last = seq_of(&cluster, leader);
    for id in [fourth, fifth] {
        eventually(DEADLINE, "it has all", || (seq_of(&cluster, id) >= last).then_some(())).unwrap();
        let log = fetch_log(&cluster.client(id).unwrap(), last).unwrap();
        assert_eq!((log.records.len() as u64, log.folded), (last, log.told));
    }
}

/// Whether each node states that it runs what the log says, which is nothing.
fn all_run_nothing(cluster: &Cluster, leader: u64) -> bool {
    let mut command = cluster.cli(&["status", "--prove", "--output=json"]);
    let asked = command.env("STELE_ADDR", format!("http://{}", cluster.api(leader).unwrap())).output();
    let output = asked.unwrap();
    let Ok(summary) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
    output.status.success() && (&summary["matching"], &summary["instances"]) == (&3.into(), &0.into())
}

/// Nodes say that they work on what the log gave them, in its epoch.
fn all_are_current(cluster: &Cluster, leader: u64) {
    let client = cluster.client(leader).unwrap();
    eventually(RECOVERY_DEADLINE, "all nodes are current", || {
        let nodes: NodesAnswer = client.read("/v1/nodes").ok()?;
        (nodes.nodes.len() == NODES.len() && nodes.nodes.iter().all(|node| node.current)).then_some(())
    })
    .unwrap();
}

#[test]
fn nodes_whose_first_assignment_is_lost_end_what_it_told_them_to_run() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("first")).unwrap();
    let leader = cluster.leader().unwrap();
    let left = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let joined = seq_of(&cluster, leader);
    eventually(DEADLINE, "it knows the nodes", || (seq_of(&cluster, left) >= joined).then_some(())).unwrap();
    cluster.kill(left).unwrap();
    // Nodes that the log gave nothing are told so, and say what they found.
    eventually(DEADLINE, "nothing runs", || all_run_nothing(&cluster, leader).then_some(())).unwrap();
    apply(&cluster, leader, 'a');
    agents_are_in(&cluster, 1);
    for id in cluster.ids().into_iter().filter(|id| *id != left) {
        cluster.kill(id).unwrap();
        cluster.wipe(id).unwrap();
    }
    let output = recover(&cluster, &config_of(&cluster, left), &["--yes"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    cluster.restart(left).unwrap();
    assert_eq!(cluster.leader().unwrap(), left);

    agents_are_in(&cluster, epoch_of(&cluster, left));
    eventually(DEADLINE, "nothing runs", || all_run_nothing(&cluster, left).then_some(())).unwrap();
    all_are_current(&cluster, left);
    cluster.wait_for_nodes().unwrap();
    apply(&cluster, left, 'b');
    assert!(!all_run_nothing(&cluster, left));
}

#[test]
fn nothing_that_the_controller_that_is_left_had_is_lost() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("kept")).unwrap();
    let left = cluster.leader().unwrap();
    apply(&cluster, left, 'a');
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id).unwrap()).collect();
    let load = Load::start(&clients, &NODES, Duration::from_millis(5));
    load.goes_on(50).unwrap();
    // The leader has all that was ever acknowledged, and more that nobody else has.
    let lost: Vec<_> = cluster.ids().into_iter().filter(|id| *id != left).collect();
    for id in &lost {
        cluster.kill(*id).unwrap();
        cluster.wipe(*id).unwrap();
    }
    eventually(RECOVERY_DEADLINE, "it leads no more", || {
        cluster.health(left)?.leader.is_none().then_some(())
    })
    .unwrap();
    cluster.kill(left).unwrap();
    let config = config_of(&cluster, left);
    let output = recover(&cluster, &config, &["--yes"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));
    cluster.restart(left).unwrap();
    load.goes_on(50).unwrap();
    agents_are_in(&cluster, epoch_of(&cluster, left));
    all_are_current(&cluster, left);
    grow(&mut cluster);
    grow(&mut cluster);
    load.goes_on(50).unwrap();
    let promises = load.stop();
    cluster.wait_for_nodes().unwrap();
    let last = seq_of(&cluster, left);
    let log = fetch_log(&cluster.client(left).unwrap(), last).unwrap();
    assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new());
    assert_eq!(log.folded, log.told);
}

/// Writes so many records.
fn fill(cluster: &Cluster, leader: u64, records: u64) {
    let client = cluster.client(leader).unwrap();
    for batch in 0..records / BATCH {
        let command = |at: u64| {
            let body = json!({"labels": {"count": (batch * BATCH + at).to_string()}});
            json!({"method": "PUT", "path": "/v1/nodes/eu-1/labels", "body": body})
        };
        let commands: Vec<_> = (0..BATCH).map(command).collect();
        let body = json!({"commands": commands}).to_string();
        let answer = client.send(Method::POST, "/v1/batch", &[], Some(&body)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn store_of(cluster: &Cluster, id: u64) -> Store {
    let identity = Identity { fleet: cluster.fleet().to_owned(), node: id };
    Store::open(&cluster.folder(id).unwrap().join("data/log"), &identity, &Settings::default()).unwrap()
}

/// Asks one controller to remove another.
fn remove(cluster: &Cluster, id: u64, at: u64, more: &[&str]) -> Output {
    let mut command = cluster.cli(&[&["cluster", "remove", &id.to_string(), "--yes"], more].concat());
    command.env("STELE_ADDR", format!("http://{}", cluster.api(at).unwrap())).output().unwrap()
}

/// Asks one controller for the fleet's past.
fn past(cluster: &Cluster, id: u64, seq: u64) -> (u16, String) {
    let path = format!("/v1/show?at=seq:{seq}&digest=true&consistency=stale");
    let answer = cluster.client(id).unwrap().send(Method::GET, &path, &[], None).unwrap();
    (answer.status, answer.body.to_string())
}

#[test]
fn a_fleet_goes_on_without_records_that_only_the_lost_ones_had() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("lost")).unwrap();
    let leader = cluster.leader().unwrap();
    let left = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    apply(&cluster, leader, 'a');
    fill(&cluster, leader, BEFORE);
    let last = seq_of(&cluster, leader);
    eventually(DEADLINE, "it has all", || (seq_of(&cluster, left) >= last).then_some(())).unwrap();
    cluster.stop(left).unwrap();
    fill(&cluster, leader, MISSED);
    eventually(DEADLINE, "a snapshot is made", || {
        cluster.process(leader).ok()?.log().contains("made a snapshot of State").then_some(())
    })
    .unwrap();
    for id in cluster.ids().into_iter().filter(|id| *id != left) {
        cluster.stop(id).unwrap();
    }
    // It got a snapshot at the very last moment, and none of the records before it.
    let theirs = store_of(&cluster, leader);
    let newest = theirs.reader().snapshots().unwrap().into_iter().rfind(|info| info.index > 0).unwrap();
    let snapshot = theirs.reader().snapshot(newest.seq).unwrap().unwrap();
    drop(theirs);
    let mut store = store_of(&cluster, left);
    let from = store.index().last_seq() + 1;
    store.write(WriteBatch { install: Some(snapshot), sync: true, ..WriteBatch::default() }).unwrap();
    drop(store);
    for id in cluster.ids().into_iter().filter(|id| *id != left) {
        cluster.wipe(id).unwrap();
    }

    let to = newest.seq;
    assert_eq!(plan(&cluster, left)["missing_records"], json!([[from, to]]));
    let output = recover(&cluster, &config_of(&cluster, left), &["--yes"]).output().unwrap();
    assert!(output.status.success() && said(&output).contains("LOST for good"), "{}", said(&output));
    cluster.restart(left).unwrap();
    assert_eq!(cluster.leader().unwrap(), left);
    agents_are_in(&cluster, epoch_of(&cluster, left));

    // What is before and behind them is there, to look at and to go back to.
    apply(&cluster, left, 'c');
    assert_eq!(past(&cluster, left, from - 1).0, 200);
    let (status, why) = past(&cluster, left, from + 1);
    assert!(status == 503 && why.contains("lost with a quorum"), "{status} {why}");
    assert_eq!(past(&cluster, left, to + 1).0, 200);
    // Whoever follows events is not kept waiting for them.
    eventually(DEADLINE, "events go on behind them", || {
        let path = format!("/v1/events?after={}&limit=2&consistency=stale", from - 2);
        let page: Value = cluster.client(left).ok()?.read(&path).ok()?;
        let seqs = [&page["events"][0]["header"]["seq"], &page["events"][1]["header"]["seq"]];
        (seqs == [from - 1, to + 1]).then_some(())
    })
    .unwrap();
    apply(&cluster, left, 'd');
    let mut command = cluster.cli(&["rollback", "app:shop/web", "--to", "prev", "--wait", "--yes"]);
    let one = format!("http://{}", cluster.api(left).unwrap());
    let output = command.env("STELE_ADDR", &one).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let seq = seq_of(&cluster, left);
    eventually(DEADLINE, "the feed shows all of it", || {
        feed(&cluster, seq).filter(|(event, _)| event["header"]["seq"] == seq)
    })
    .unwrap();

    // New ones vote, though they get none of it. Whoever has nothing that is missed may go, and who does not answer
    // goes by word.
    let (fourth, fifth, sixth) = (grow(&mut cluster), grow(&mut cluster), grow(&mut cluster));
    assert_ne!(past(&cluster, fourth, from - 1).0, 200);
    fill(&cluster, left, BATCH);
    let since = seq_of(&cluster, left);
    eventually(DEADLINE, "the new ones have it", || (past(&cluster, fourth, since).0 == 200).then_some(()))
        .unwrap();
    cluster.remove(fourth).unwrap();
    cluster.kill(fourth).unwrap();
    // It is to lead, because it has most of the history: what is gone back to is looked up by whoever leads. While it
    // is away, another one does.
    let output = cluster.output_of(&["cluster", "transfer-leader", &fifth.to_string()]).unwrap();
    assert!(!output.status.success() && said(&output).contains("is not to lead"), "{}", said(&output));
    cluster.kill(left).unwrap();
    let leader = cluster.leader_besides(left).unwrap();
    fill(&cluster, leader, BATCH);
    let output = remove(&cluster, left, leader, &[]);
    assert!(!output.status.success() && said(&output).contains("--lose-records"), "{}", said(&output));
    cluster.restart(left).unwrap();
    eventually(DEADLINE, "it leads again", || (cluster.leader_now()? == left).then_some(())).unwrap();
    let point = format!("seq:{seq}");
    cluster.run_cli(&["rollback", "app:shop/web", "--to", &point, "--wait", "--yes"]).unwrap();
    cluster.kill(sixth).unwrap();
    let output = remove(&cluster, sixth, left, &[]);
    assert!(!output.status.success() && said(&output).contains("--lose-records"), "{}", said(&output));
    let output = remove(&cluster, sixth, left, &["--lose-records"]);
    assert!(output.status.success(), "{}", said(&output));
    apply(&cluster, left, 'e');
}

#[test]
fn an_older_copy_of_a_log_goes_on_however_often_it_is_brought_back() {
    let config = ClusterConfig { controllers: 1, ..ClusterConfig::simulated("copy") };
    let mut cluster = Cluster::start(config).unwrap();
    apply(&cluster, 1, 'a');
    cluster.stop(1).unwrap();
    let (data, copy) = (cluster.folder(1).unwrap().join("data"), cluster.dir().join("copy"));
    let copied =
        |from: &Path, to: &Path| Command::new("cp").arg("-a").args([from, to]).status().unwrap().success();
    assert!(copied(&data, &copy));
    cluster.restart(1).unwrap();
    apply(&cluster, 1, 'b');

    let mut before = 1;
    for _ in 0..2 {
        cluster.stop(1).unwrap();
        fs::remove_dir_all(&data).unwrap();
        assert!(copied(&copy, &data));
        let config = config_of(&cluster, 1);
        let output = recover(&cluster, &config, &["--yes"]).output().unwrap();
        assert!(!output.status.success() && said(&output).contains("--restored"), "{}", said(&output));
        let output = recover(&cluster, &config, &["--yes", "--restored"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        cluster.restart(1).unwrap();
        // Nodes follow it, whatever they were told since the copy was made.
        let epoch = epoch_of(&cluster, 1);
        assert!(epoch > before, "{epoch} after {before}");
        before = epoch;
        agents_are_in(&cluster, epoch);
        all_are_current(&cluster, 1);
        apply(&cluster, 1, 'c');
    }
}
