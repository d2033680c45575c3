//! A paused leader, a lost NATS and a lost quorum.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stele_api::wire::{ChangeAnswer, DeploymentStatus, NodesAnswer};
use stele_model::event::Outcome;
use stele_testkit::limits::{DEADLINE, RECOVERY_DEADLINE};
use stele_testkit::load::{Load, broken_promises, last_write};
use stele_testkit::{Client, Cluster, ClusterConfig, eventually, fetch_log};
use ureq::http::Method;

/// Pauses of the leader in one run.
const ROUNDS: usize = 4;
/// Readers that wait at the paused leader.
const READERS: usize = 6;
/// More than a controller may take to say that there is no quorum; it promises half a minute at most.
const REFUSAL_BOUND: Duration = Duration::from_secs(30);

/// A spec whose image is named by digest, so that no registry is asked.
fn spec(marker: &str) -> Value {
    let digest = format!("sha256:{}", "a".repeat(64));
    json!({
        "app": "shop/web",
        "environments": ["prod"],
        "services": {"web": {
            "image": format!("127.0.0.1:5055/stele/busybox@{digest}"),
            "env": {"MARKER": marker},
            "replicas": 3,
        }},
    })
}

/// Deploys, and waits until every instance is healthy.
fn deploy(client: &Client, marker: &str) -> anyhow::Result<DeploymentStatus> {
    let answer: ChangeAnswer = client.change("/v1/apply", &json!({"spec": spec(marker)}))?;
    let id = answer.deployments.first().copied().unwrap();
    let status = eventually(DEADLINE, &format!("the deployment of {marker} ends"), || {
        let status: DeploymentStatus = client.read(&format!("/v1/deployments/{id}")).ok()?;
        status.finished.is_some().then_some(status)
    })?;
    assert_eq!(status.finished.as_ref().unwrap().outcome, Outcome::Succeeded);
    Ok(status)
}

#[test]
fn a_leader_that_was_paused_never_answers_from_the_past() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("pause")).unwrap();
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id).unwrap()).collect();
    let load = Load::start(&clients, &["eu-1", "us-1"], Duration::from_millis(20));
    let (mut write, mut answered) = (0, 0);
    for round in 0..ROUNDS {
        let paused = cluster.leader().unwrap();
        cluster.process(paused).unwrap().pause().unwrap();
        // Asked now, read by it only when it goes on and still takes itself for the leader.
        let client = cluster.client(paused).unwrap();
        let next = cluster.leader_besides(paused).unwrap();
        write += 1;
        let body = json!({"labels": {"write": write.to_string()}}).to_string();
        let path = "/v1/nodes/ap-1/labels";
        let answer = cluster.client(next).unwrap().send(Method::PUT, path, &[], Some(&body)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || client.get("/v1/nodes/ap-1"))
            })
            .collect();
        // Unanswered by a stopped process, and so certainly sent before it goes on.
        assert!(client.clone().with_timeout(Duration::from_secs(1)).get("/v1/health").is_err());
        cluster.process(paused).unwrap().resume().unwrap();
        let before = answered;
        for reader in readers {
            // No answer, and a refusal, are no stale reads.
            if let Ok(answer) = reader.join().unwrap()
                && answer.status == 200
            {
                answered += 1;
                assert_eq!(last_write(&answer.body), Some(write), "round {round}: a stale read");
            }
        }
        println!(
            "round {round}: controller {paused} was paused, {next} led, {} of {READERS} reads answered",
            answered - before
        );
        let seq = cluster.health(next).unwrap().seq;
        eventually(RECOVERY_DEADLINE, "the paused controller catches up", || {
            cluster.health(paused).filter(|health| health.seq >= seq)
        })
        .unwrap();
    }
    assert!(answered > 0, "a read that is never answered proves nothing");
    let promises = load.stop();
    let last = cluster.health(cluster.leader().unwrap()).unwrap().seq;
    for id in cluster.ids() {
        eventually(RECOVERY_DEADLINE, "it has all", || {
            cluster.health(id).filter(|health| health.seq >= last)
        })
        .unwrap();
        let log = fetch_log(&cluster.client(id).unwrap(), last).unwrap();
        assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new(), "controller {id}");
        assert_eq!(log.folded, log.told);
    }
}

/// Raft says nothing new to a follower of an idle fleet: it must know what it had applied.
#[test]
fn a_restarted_follower_of_an_idle_fleet_answers_reads() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("idle")).unwrap();
    let leader = cluster.leader().unwrap();
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    for is_killed in [false, true] {
        if is_killed {
            cluster.kill(follower).unwrap();
        } else {
            cluster.stop(follower).unwrap();
        }
        cluster.restart(follower).unwrap();
        let answer = cluster.client(follower).unwrap().get("/v1/nodes").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn nats_can_be_deleted_with_all_it_has() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("nats")).unwrap();
    let client = cluster.client(cluster.leader().unwrap()).unwrap();
    deploy(&client, "before").unwrap();
    cluster.wipe_nats().unwrap();
    // Changes are decided without NATS; they only cannot arrive.
    let answer: ChangeAnswer = client.change("/v1/apply", &json!({"spec": spec("meanwhile")})).unwrap();
    let id = answer.deployments[0];
    cluster.start_nats().unwrap();
    eventually(DEADLINE, "the change made meanwhile arrives", || {
        let status: DeploymentStatus = client.read(&format!("/v1/deployments/{id}")).ok()?;
        (status.finished?.outcome == Outcome::Succeeded).then_some(())
    })
    .unwrap();
    deploy(&client, "after").unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = cluster.nats_url().unwrap();
    let jetstream =
        runtime.block_on(async { async_nats::jetstream::new(async_nats::connect(url).await.unwrap()) });
    let stream = eventually(DEADLINE, "the feed is there again, whole", || {
        let names = runtime.block_on(async {
            use futures::TryStreamExt as _;
            jetstream.stream_names().try_collect::<Vec<_>>().await
        });
        let stream = runtime.block_on(jetstream.get_stream(names.ok()?.first()?)).ok()?;
        let last = cluster.health(cluster.leader_now()?)?.seq;
        (stream.cached_info().state.last_sequence >= last).then_some(stream)
    })
    .unwrap();
    let log = fetch_log(&client, stream.cached_info().state.last_sequence).unwrap();
    for record in [log.records.first().unwrap(), log.records.last().unwrap()] {
        let message = runtime.block_on(stream.get_raw_message(record.header.seq)).unwrap();
        let told: stele_model::Record = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(&told, record, "the feed says what the log says");
    }
}

/// Somebody who can use the fleet's NATS: keeps what a node sends, and sends it again, over and over.
struct Repeater {
    kept: Arc<Mutex<Vec<(String, bytes::Bytes)>>>,
    repeats: Arc<AtomicBool>,
    _runtime: tokio::runtime::Runtime,
}

impl Repeater {
    /// Keeps what a node sends from now on.
    fn listen(url: &str, node: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (kept, repeats) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let nats = runtime.block_on(async_nats::connect(url)).unwrap();
        let mut sent = runtime.block_on(nats.subscribe(format!("stele.*.*.node.{node}.*"))).unwrap();
        runtime.block_on(nats.flush()).unwrap();
        let (keeps, stops) = (Arc::clone(&kept), Arc::clone(&repeats));
        runtime.spawn(async move {
            while let Some(message) = futures::StreamExt::next(&mut sent).await {
                if !stops.load(Ordering::Relaxed) {
                    keeps.lock().unwrap().push((message.subject.to_string(), message.payload));
                }
            }
        });
        let (again, begun) = (Arc::clone(&kept), Arc::clone(&repeats));
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if begun.load(Ordering::Relaxed) {
                    let all = again.lock().unwrap().clone();
                    for (subject, payload) in all {
                        // Reports want somewhere to be acknowledged.
                        nats.publish_with_reply(subject, "nowhere", payload).await.unwrap();
                    }
                }
            }
        });
        Self { kept, repeats, _runtime: runtime }
    }

    fn has_kept(&self, topic: &str, least: usize) -> bool {
        let kept = self.kept.lock().unwrap();
        kept.iter().filter(|(subject, _)| subject.ends_with(topic)).count() >= least
    }

    fn repeat(&self) {
        self.repeats.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_node_that_is_gone_stays_gone_whatever_of_its_messages_is_sent_again() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("repeats")).unwrap();
    let leader = cluster.leader().unwrap();
    let repeater = Repeater::listen(&cluster.nats_url().unwrap(), "eu-1");
    deploy(&cluster.client(leader).unwrap(), "one").unwrap();
    eventually(DEADLINE, "heartbeats and a report", || {
        (repeater.has_kept(".heartbeat", 2) && repeater.has_kept(".report", 1)).then_some(())
    })
    .unwrap();
    cluster.kill_agent("eu-1").unwrap();
    repeater.repeat();
    let is_lost = |cluster: &Cluster, name: &str| -> Option<bool> {
        let answer: NodesAnswer = cluster.client(cluster.leader_now()?).ok()?.read("/v1/nodes").ok()?;
        Some(!answer.nodes.iter().find(|node| node.name.as_str() == name)?.reachable)
    };
    eventually(DEADLINE, "it is lost", || is_lost(&cluster, "eu-1")?.then_some(())).unwrap();

    // The next leader hears them, too, and no node that is lost later is believed to be less so.
    let next = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.run_cli(&["cluster", "transfer-leader", &next.to_string()]).unwrap();
    eventually(DEADLINE, "it leads", || (cluster.leader_now() == Some(next)).then_some(())).unwrap();
    cluster.kill_agent("us-1").unwrap();
    eventually(DEADLINE, "the other is lost", || is_lost(&cluster, "us-1")?.then_some(())).unwrap();
    assert_eq!(is_lost(&cluster, "eu-1"), Some(true));
    // It is no harm to who comes back.
    cluster.start_agent("eu-1").unwrap();
    eventually(DEADLINE, "it is back", || (!is_lost(&cluster, "eu-1")?).then_some(())).unwrap();
}

/// What happened, why, and what should be is asked for most when the controllers are in trouble.
fn everything_is_read_without_a_quorum(cluster: &Cluster, client: &Client) {
    let app = "scope=shop%2Fweb%40prod";
    for path in [
        "/v1/events?limit=5".to_owned(),
        "/v1/records?limit=5".to_owned(),
        format!("/v1/history?{app}"),
        format!("/v1/show?{app}&at=seq:5"),
        format!("/v1/diff?{app}&from=seq:5"),
        "/v1/why?subject=shop%2Fweb%40prod".to_owned(),
        format!("/v1/rollbacks/candidates?{app}"),
        "/v1/convergence?scope=fleet".to_owned(),
        "/v1/reasons/1?".to_owned(),
        "/v1/tokens?".to_owned(),
    ] {
        let answer = client.get(&format!("{path}&consistency=stale")).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    // The line that asks for one instance's log asks its node, and only State which node that is.
    let status: Value = client.read("/v1/status?consistency=stale").unwrap();
    let instance = status["apps"][0]["instances"][0]["id"].as_str().unwrap();
    for command in [
        &["events", "-n", "3"][..],
        &["history", "shop/web@prod"],
        &["show", "shop/web@prod"],
        &["diff", "shop/web@prod", "seq:5"],
        &["why", "shop/web@prod"],
        &["logs", instance],
        &["config", "show", "shop/web@prod"],
        &["status"],
        &["node", "list"],
        &["node", "show", "eu-1"],
        &["token", "list"],
        &["reason", "1"],
        &["review"],
        &["erase"],
        &["verify"],
    ] {
        let read = cluster.output_of(&[command, &["--stale"]].concat()).unwrap();
        assert!(read.status.success(), "{command:?}: {read:?}");
    }
}

#[test]
fn without_a_quorum_writes_are_refused_and_stale_reads_answer() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("quorum")).unwrap();
    let left = cluster.leader().unwrap();
    let client = cluster.client(left).unwrap();
    deploy(&client, "one").unwrap();
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != left).collect();
    for id in &others {
        cluster.kill(*id).unwrap();
    }
    let body = json!({"labels": {"disk": "ssd"}}).to_string();
    let asked = Instant::now();
    let path = "/v1/nodes/eu-1/labels";
    let refused = client
        .clone()
        .with_timeout(REFUSAL_BOUND)
        .send(Method::PUT, path, &[("idempotency-key", "ssd")], Some(&body))
        .unwrap();
    assert_eq!(refused.status, 503, "{}", refused.body);
    let read = client.clone().with_timeout(REFUSAL_BOUND).get("/v1/status").unwrap();
    assert_eq!(read.status, 503, "{}", read.body);
    println!("refused after {:.1?}", asked.elapsed());
    let stale: Value = client.read("/v1/status?consistency=stale").unwrap();
    assert_eq!(stale["apps"][0]["app_env"], "shop/web@prod");
    everything_is_read_without_a_quorum(&cluster, &client);
    for id in others {
        cluster.restart(id).unwrap();
    }
    let leader = cluster.leader().unwrap();
    // Repeated under its key: the outcome was unknown, and it happens once.
    let again = cluster.client(leader).unwrap();
    let answer = eventually(RECOVERY_DEADLINE, "it can be written again", || {
        again
            .send(Method::PUT, path, &[("idempotency-key", "ssd")], Some(&body))
            .ok()
            .filter(|answer| answer.status == 200)
    })
    .unwrap();
    let seq = answer.body["seq"].as_u64().unwrap();
    let log = fetch_log(&again, cluster.health(leader).unwrap().seq).unwrap();
    let of_it = log.records.iter().filter(|record| record.header.kind == "node_labelled");
    assert_eq!(of_it.map(|record| record.header.seq).collect::<Vec<_>>(), [seq]);
}
