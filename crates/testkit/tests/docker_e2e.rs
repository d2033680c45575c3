//! From the API into Docker and back: deployed, rolled back exactly, and failing without harm.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use stele_api::wire::{DeploymentStatus, ShowAnswer};
use stele_model::event::Outcome;
use stele_testkit::limits::DEADLINE;
use stele_testkit::{
    Client, Cluster, ClusterConfig, NodeConfig, Runtime, eventually, facts, ports, registry,
};

const ADDRESSES: [&str; 2] = ["127.0.0.31", "127.0.0.32"];
const FILES: [&str; 2] = ["/etc/motd", "/etc/secret"];
const APP: &str = "shop%2Fweb%40prod";

/// The app in a version, publishing a port.
fn spec(version: &str, port: u16) -> Value {
    json!({
        "app": "shop/web",
        "environments": ["prod"],
        "services": {"web": {
            "image": format!("{}/stele/busybox:{version}", registry()),
            "env": {"VERSION": version, "PASSWORD": {"value": "s3cret", "sealed": true}},
            "files": {
                "/etc/motd": {"content": format!("this is {version}\n"), "mode": "0640"},
                "/etc/secret": {"content": "also s3cret\n", "sealed": true, "mode": "0400"},
            },
            "ports": [format!("{port}:8080")],
            "volumes": [{"name": "data", "path": "/data"}, {"memory": true, "path": "/scratch"}],
            "health": {"http": {"port": 8080, "path": "/"}, "interval": "200ms", "start_period": "10s"},
            "resources": {"cpu": 0.5, "memory": "32MiB", "pids": 32},
            "replicas": 2,
            "update": {"max_unavailable": 1, "order": "stop_first", "deadline": "30s"},
            "stop": {"grace": "2s"},
        }},
    })
}

fn ended(client: &Client, change: &Value) -> DeploymentStatus {
    let path = format!("/v1/deployments/{}", change["deployments"][0]);
    eventually(DEADLINE, "the deployment ends", || {
        client.read::<DeploymentStatus>(&path).ok().filter(|status| status.finished.is_some())
    })
    .unwrap()
}

fn deploy(client: &Client, spec: &Value) -> DeploymentStatus {
    let change: Value = client.change("/v1/apply", &json!({"spec": spec})).unwrap();
    ended(client, &change)
}

fn page(address: &str, port: u16) -> Option<String> {
    let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(5)));
    let answer = config.build().new_agent().get(format!("http://{address}:{port}/")).call();
    answer.ok()?.body_mut().read_to_string().ok()
}

fn pages(port: u16) -> Vec<Option<String>> {
    ADDRESSES.map(|address| page(address, port)).into()
}

#[test]
fn what_is_deployed_runs_and_comes_back_exactly_and_failures_harm_nobody() {
    let nodes = ["eu", "us"].into_iter().zip(ADDRESSES).map(|(region, address)| NodeConfig {
        name: format!("{region}-1"),
        region: region.to_owned(),
        address: address.to_owned(),
    });
    let fleet = format!("e2e-{}", std::process::id());
    let runtime = Runtime::Docker;
    let cluster = Cluster::start(ClusterConfig {
        fleet: fleet.clone(),
        controllers: 1,
        nodes: nodes.collect(),
        runtime,
    });
    let cluster = cluster.unwrap();
    let client = cluster.client(1).unwrap();
    let addresses = ADDRESSES.map(|address| address.parse().unwrap());
    let port = ports::free_on(&addresses).unwrap();
    let look = || facts::of_fleet(&fleet, &FILES).unwrap();
    let show = || client.read::<ShowAnswer>(&format!("/v1/show?scope={APP}")).unwrap();

    let v1 = deploy(&client, &spec("v1", port));
    assert_eq!(v1.finished.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(pages(port), vec![Some("v1\n".to_owned()); 2]);
    let (then, digest) = (look(), show().digest);
    assert_eq!(then.len(), 2);
    let env = then.values().next().unwrap().content["config"]["Env"].to_string();
    assert!(env.contains("PASSWORD=s3cret"), "what is sealed in the log is opened on the node: {env}");
    let files = &then.values().next().unwrap().content["files"];
    assert_eq!(files["/etc/motd"], json!({"text": "this is v1", "mode": "640 0:0"}));
    assert_eq!(files["/etc/secret"], json!({"text": "also s3cret", "mode": "400 0:0"}));
    let log = cluster.run_cli(&["events", "--after", "0", "--limit", "1000", "--output", "json"]).unwrap();
    assert!(!log.contains("s3cret"), "no secret is in the log in clear");

    let v2 = deploy(&client, &spec("v2", port));
    assert_eq!(v2.finished.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(pages(port), vec![Some("v2\n".to_owned()); 2]);
    assert_ne!(facts::differences(&then, &look()), Vec::<String>::new());

    let back: Value = client.change("/v1/rollbacks", &json!({"scope": "shop/web@prod", "to": "v1"})).unwrap();
    assert_eq!(ended(&client, &back).finished.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(pages(port), vec![Some("v1\n".to_owned()); 2]);
    assert_eq!(facts::differences(&then, &look()), Vec::<String>::new());
    assert_eq!(show().digest, digest);

    // Somebody else has the port on one node. That instance fails, and the other serves on.
    let taken = ports::free_on(&addresses).unwrap();
    let squatters: Vec<_> =
        ADDRESSES.iter().map(|address| TcpListener::bind((*address, taken)).unwrap()).collect();
    let failed = deploy(&client, &spec("v3", taken));
    let Outcome::Failed { reason, .. } = failed.finished.unwrap().outcome else { panic!("it must fail") };
    assert!(reason.contains("address already in use") || reason.contains("port"), "{reason}");
    let serving: Vec<_> = pages(port).into_iter().flatten().collect();
    assert!(serving.contains(&"v1\n".to_owned()), "within its budget, v1 serves on: {serving:?}");
    drop(squatters);

    // An image nobody has, a program that exits at once, and one that never answers.
    let nobody = format!("{}/stele/busybox@sha256:{}", registry(), "a".repeat(64));
    let failures: [(&str, Value, &str); 3] = [
        ("image", json!(nobody), "manifest"),
        ("command", json!(["/bin/sh", "-c", "echo lost my way; exit 7"]), "exit"),
        ("health", json!({"http": {"port": 8080, "path": "/nowhere"}, "interval": "200ms"}), "404"),
    ];
    for (field, value, why) in failures {
        let mut broken = spec("v3", port);
        broken["services"]["web"][field] = value;
        broken["services"]["web"]["update"]["deadline"] = json!("8s");
        let failed = deploy(&client, &broken).finished.unwrap().outcome;
        let Outcome::Failed { reason, exit_code, log_tail, .. } = failed else {
            panic!("{field} must fail it")
        };
        println!("{field}: {reason} (exit {exit_code:?}, {log_tail:?})");
        assert!(reason.to_lowercase().contains(why), "{field}: {reason}");
        if field == "command" {
            assert_eq!((exit_code, log_tail.last().map(String::as_str)), (Some(7), Some("lost my way")));
        }
        let serving: Vec<_> = pages(port).into_iter().flatten().collect();
        assert!(serving.contains(&"v1\n".to_owned()), "after {field}, v1 serves on: {serving:?}");
    }

    // And back: the failed attempt leaves nothing in the way.
    let back: Value = client.change("/v1/rollbacks", &json!({"scope": "shop/web@prod", "to": "v1"})).unwrap();
    assert_eq!(ended(&client, &back).finished.unwrap().outcome, Outcome::Succeeded);
    assert_eq!(pages(port), vec![Some("v1\n".to_owned()); 2]);
    eventually(DEADLINE, "every container is as at v1", || {
        facts::differences(&then, &look()).is_empty().then_some(())
    })
    .unwrap();
    assert_eq!(cluster.end().0, Vec::<String>::new());
}
