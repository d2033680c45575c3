//! Every field of a container comes back: each is changed, seen to be changed in Docker, rolled back,
//! and seen to be what it was.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stele_api::wire::DeploymentStatus;
use stele_model::event::Outcome;
use stele_model::release::Container;
use stele_testkit::limits::DEADLINE;
use stele_testkit::{
    Client, Cluster, ClusterConfig, NodeConfig, Runtime, eventually, facts, ports, registry,
};

const ADDRESS: &str = "127.0.0.37";
const FILES: [&str; 2] = ["/etc/motd", "/etc/secret"];

/// A field of a container: what it is first, what it becomes, and what Docker then shows otherwise.
struct Field {
    name: &'static str,
    first: Value,
    second: Value,
    seen: &'static [&'static str],
}

fn field(name: &'static str, first: Value, second: Value, seen: &'static [&'static str]) -> Field {
    Field { name, first, second, seen }
}

fn fields(port: u16, other: u16) -> Vec<Field> {
    let sleep = |seconds: u32| json!(["-c", format!("sleep {seconds}")]);
    let image = |version: &str| json!(format!("{}/stele/busybox:{version}", registry()));
    vec![
        field("image", image("v1"), image("v2"), &["image"]),
        field("entrypoint", json!(["/bin/sh"]), json!(["/bin/busybox", "sh"]), &["config Entrypoint"]),
        field("command", sleep(1000), sleep(2000), &["config Cmd"]),
        field(
            "env",
            json!({"A": "1", "SEALED": {"value": "one", "sealed": true}, "TOKEN": {"secret": "token"}}),
            json!({"A": "2", "B": "new", "SEALED": {"value": "two", "sealed": true}}),
            &["config Env"],
        ),
        field(
            "files",
            json!({
                "/etc/motd": {"content": "one\n", "mode": "0640"},
                "/etc/secret": {"content": "hidden\n", "sealed": true, "mode": "0400"},
            }),
            json!({"/etc/motd": {"content": "two\n", "mode": "0600"}}),
            &["files /etc/motd text", "files /etc/motd mode", "files /etc/secret text"],
        ),
        field(
            "ports",
            json!([format!("{port}:8080"), "9090"]),
            json!([format!("{other}:8080"), {"container": 5353, "protocol": "udp"}]),
            &["config ExposedPorts", "rights PortBindings"],
        ),
        field(
            "volumes",
            json!([{"name": "data", "path": "/data"}, {"memory": true, "path": "/scratch"}]),
            json!([{"name": "data", "path": "/data", "read_only": true}, {"name": "more", "path": "/more"}]),
            &["mounts", "limits Mounts"],
        ),
        field(
            "health",
            json!({"exec": {"command": ["/bin/true"]}, "interval": "200ms", "start_period": "5s"}),
            json!({"exec": {"command": ["/bin/sh", "-c", "true"]}, "interval": "250ms", "start_period": "5s"}),
            &["labels io.stele.spec"],
        ),
        field(
            "resources",
            json!({"cpu": 0.5, "memory": "32MiB", "pids": 32}),
            json!({"cpu": 0.25, "memory": "48MiB", "pids": 48}),
            &["limits Memory", "limits NanoCpus", "limits PidsLimit"],
        ),
        field("restart", json!("always"), json!("on_failure"), &["limits RestartPolicy"]),
        field(
            "stop",
            json!({"signal": "SIGTERM", "grace": "1s"}),
            json!({"signal": "SIGINT", "grace": "2s"}),
            &["config StopSignal", "config StopTimeout"],
        ),
        field("labels", json!({"tier": "web"}), json!({"tier": "edge", "new": "x"}), &["labels tier"]),
        field(
            "log",
            json!({"driver": "json-file", "options": {"max-size": "1m"}}),
            json!({"driver": "local", "options": {"max-size": "2m"}}),
            &["limits LogConfig"],
        ),
        field("user", json!("0:0"), json!("0"), &["config User"]),
        field("workdir", json!("/tmp"), json!("/etc"), &["config WorkingDir"]),
        field(
            "docker",
            json!({"HostConfig": {"DnsOptions": ["ndots:1"]}}),
            json!({"HostConfig": {"DnsOptions": ["ndots:2"]}}),
            &["rights DnsOptions"],
        ),
    ]
}

fn deploy(client: &Client, service: &serde_json::Map<String, Value>) {
    let mut service = service.clone();
    service.insert("replicas".to_owned(), json!(1));
    let update = json!({"max_unavailable": 1, "order": "stop_first", "deadline": "60s"});
    service.insert("update".to_owned(), update);
    let spec = json!({"app": "shop/web", "environments": ["prod"], "services": {"web": service}});
    let change: Value = client.change("/v1/apply", &json!({"spec": spec})).unwrap();
    succeeded(client, &change);
}

fn succeeded(client: &Client, change: &Value) {
    let path = format!("/v1/deployments/{}", change["deployments"][0]);
    let status = eventually(DEADLINE, "the deployment ends", || {
        client.read::<DeploymentStatus>(&path).ok().filter(|status| status.finished.is_some())
    });
    assert_eq!(status.unwrap().finished.unwrap().outcome, Outcome::Succeeded);
}

/// A field that is added to containers must be added here, too.
#[test]
fn every_field_of_a_container_is_among_them() {
    let schema = serde_json::to_value(schemars::schema_for!(Container)).unwrap();
    let known: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let tried: BTreeSet<String> = fields(1, 2).iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(tried, known);
}

#[test]
fn every_field_of_a_container_comes_back() {
    let fleet = format!("exact-{}", std::process::id());
    let node = NodeConfig { name: "eu-1".to_owned(), region: "eu".to_owned(), address: ADDRESS.to_owned() };
    let config =
        ClusterConfig { fleet: fleet.clone(), controllers: 1, nodes: vec![node], runtime: Runtime::Docker };
    let cluster = Cluster::start(config).unwrap();
    let client = cluster.client(1).unwrap();
    let address = [ADDRESS.parse().unwrap()];
    let fields = fields(ports::free_on(&address).unwrap(), ports::free_on(&address).unwrap());
    let secret = json!({"app_env": "shop/web@prod", "name": "token", "value": "t0ken"});
    let _: Value = client.change("/v1/secrets", &secret).unwrap();
    let first: serde_json::Map<_, _> =
        fields.iter().map(|field| (field.name.to_owned(), field.first.clone())).collect();
    let second: serde_json::Map<_, _> =
        fields.iter().map(|field| (field.name.to_owned(), field.second.clone())).collect();
    let look = || facts::of_fleet(&fleet, &FILES).unwrap();

    deploy(&client, &first);
    let then = look();
    assert_eq!(then.len(), 1);
    let env = then.values().next().unwrap().content["config"]["Env"].to_string();
    assert!(env.contains("TOKEN=t0ken") && env.contains("SEALED=one"), "{env}");

    deploy(&client, &second);
    let differences = facts::differences(&then, &look());
    for Field { name, seen, .. } in &fields {
        for part in *seen {
            let is_seen = differences.iter().any(|line| line.contains(part));
            assert!(is_seen, "{name}: {part} is not otherwise in Docker: {differences:#?}");
        }
    }

    let back = json!({"scope": "shop/web@prod", "to": "v1"});
    let change: Value = client.change("/v1/rollbacks", &back).unwrap();
    succeeded(&client, &change);
    assert_eq!(facts::differences(&then, &look()), Vec::<String>::new());

    // And forward again by rolling the rollback back.
    let change: Value =
        client.change("/v1/rollbacks", &json!({"scope": "shop/web@prod", "to": "prev"})).unwrap();
    succeeded(&client, &change);
    let again = facts::differences(&then, &look());
    assert_eq!(again, differences, "what was rolled back to is as exact");
    assert_eq!(cluster.end().0, Vec::<String>::new());
}
