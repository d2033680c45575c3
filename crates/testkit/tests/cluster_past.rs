//! Reads of the past from a controller with a long log, over HTTP.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use stele_model::signature::PublicKey;
use stele_model::{Digest, Time};
use stele_testkit::history::{Shape, World, new_store, store_records};
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Cluster, ClusterConfig, eventually};

/// Several milestones.
const RECORDS: u64 = 9_000;
const POINTS: u64 = 40;
/// What the log covers: tokens hold for longer.
const SPAN_US: u64 = 200 * 24 * 3600 * 1_000_000;

/// A controller that does not run yet, with the log of a fleet; its apps, and its last record.
fn prepared() -> (Cluster, Vec<String>, u64) {
    let config = ClusterConfig { controllers: 1, nodes: Vec::new(), ..ClusterConfig::simulated("past") };
    let cluster = Cluster::found(&config).unwrap();
    let folder = cluster.folder(1).unwrap();
    let own: Value = serde_json::from_slice(&std::fs::read(folder.join("controller.json")).unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let mut world = World::found(Shape {
        fleet: cluster.fleet().parse().unwrap(),
        root: PublicKey(own["root"].as_str().unwrap().to_owned()),
        admin: Digest::of(&[cluster.token().as_bytes()]),
        nodes: 40,
        apps: 12,
        begins: Time(now - SPAN_US),
        pace_us: SPAN_US / 2 / RECORDS,
        seed: 3,
    })
    .unwrap();
    while world.state().seq < RECORDS {
        world.step().unwrap();
    }
    let mut store = new_store(&folder.join("data/log"), cluster.fleet(), 1).unwrap();
    store_records(&mut store, world.take(), true).unwrap();
    let apps = world.apps().iter().map(|app_env| app_env.app.to_string()).collect();
    (cluster, apps, world.state().seq)
}

#[test]
fn what_is_said_of_one_app_is_what_is_said_of_it_among_all() {
    let (mut cluster, apps, last) = prepared();
    cluster.start_controller(1).unwrap();
    let log = cluster.folder(1).unwrap().join("log.txt");
    eventually(DEADLINE, "all milestones are made", || {
        let log = std::fs::read_to_string(&log).ok()?;
        (cluster.leader().is_ok() && log.contains("past States are near")).then_some(())
    })
    .unwrap();
    let client = cluster.client(1).unwrap();
    let mut instances = 0;
    for number in 1..=POINTS {
        let seq = number * last / (POINTS + 1);
        let app = &apps[number as usize % apps.len()];
        let escaped = app.replace('/', "%2F");
        let scope = match number % 4 {
            0 => escaped,
            1 => format!("{escaped}%2Cregion%3Aeu"),
            2 => format!("{escaped}%40staging"),
            _ => format!("{escaped}%40prod"),
        };
        let read = |scope: &str| -> Value {
            client.read(&format!("/v1/status?scope={scope}&at=seq%3A{seq}")).unwrap()
        };
        // Of what is about the app; then all is rebuilt, and is there for whoever asks again.
        let alone = read(&scope);
        let fleet = read("fleet");
        assert_eq!(read(&scope), alone, "{scope} at {seq}");
        let parts = |answer: &Value, part: &str| answer[part].as_array().unwrap().clone();
        assert_eq!(alone["seq"], fleet["seq"]);
        for node in parts(&alone, "nodes") {
            assert!(parts(&fleet, "nodes").contains(&node), "{scope} at {seq}: {node}");
        }
        if number % 4 == 1 {
            continue;
        }
        for one in parts(&alone, "apps") {
            instances += parts(&one, "instances").len();
            assert!(parts(&fleet, "apps").contains(&one), "{scope} at {seq}: {one}");
        }
        for problem in parts(&alone, "problems") {
            assert!(parts(&fleet, "problems").contains(&problem), "{scope} at {seq}: {problem}");
        }
    }
    assert!(instances > 50, "{instances}");
    assert!(cluster.end().0.is_empty());
}
