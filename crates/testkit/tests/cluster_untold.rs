//! A node that is to run more than one message can tell it.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use serde_json::{Value, json};
use stele_api::wire::{ChangeAnswer, DeploymentStatus, ProblemStatus, StatusAnswer};
use stele_model::event::Outcome;
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Client, Cluster, ClusterConfig, eventually, registry};

/// Instances that fit together with the others, and as many as do not.
const FEW: u64 = 2;
const MANY: u64 = 900;
const FILE_BYTES: usize = 250_000;
/// What a leader may take more for the sake of that node, in bytes: a part of what it is to run.
const GROWTH_BYTES_MAX: u64 = MANY * FILE_BYTES as u64 / 2;

fn apply(client: &Client, app: &str, node: &str, replicas: u64, file_bytes: usize) -> u64 {
    // Named by digest, so that no registry is asked.
    let image = format!("{}/stele/busybox@sha256:{}", registry(), "a".repeat(64));
    let spec = json!({
        "app": app,
        "environments": ["prod"],
        "services": {"web": {
            "image": image,
            "files": {"/data": {"content": "x".repeat(file_bytes)}},
            "replicas": replicas,
            "nodes": format!("node={node}"),
        }},
    });
    let answer: ChangeAnswer = client.change("/v1/apply", &json!({"spec": spec})).unwrap();
    answer.deployments[0]
}

fn succeeds(client: &Client, id: u64) {
    let status = eventually(DEADLINE, "the deployment ends", || {
        let status: DeploymentStatus = client.read(&format!("/v1/deployments/{id}")).ok()?;
        status.finished.is_some().then_some(status)
    })
    .unwrap();
    assert_eq!(status.finished.unwrap().outcome, Outcome::Succeeded);
}

fn untold(client: &Client, scope: &str) -> Vec<ProblemStatus> {
    let status: StatusAnswer = client.read(&format!("/v1/status?scope={scope}&problems=true")).unwrap();
    let is_untold = |problem: &ProblemStatus| problem.message.contains("cannot be told what to run");
    status.problems.into_iter().filter(is_untold).collect()
}

#[test]
fn a_node_whose_assignment_fits_no_message_is_a_problem_and_no_other_node_s() {
    let cluster = Cluster::start(ClusterConfig::simulated("untold")).unwrap();
    let leader = cluster.leader().unwrap();
    let client = cluster.client(leader).unwrap();
    succeeds(&client, apply(&client, "shop/web", "eu-1", 1, 10));
    let before = cluster.resident_bytes(leader).unwrap();
    apply(&client, "shop/large", "eu-1", MANY, FILE_BYTES);

    // Any controller says so, of whatever the node is part of.
    for id in cluster.ids() {
        let client = cluster.client(id).unwrap();
        for scope in ["fleet", "node:eu-1", "shop/large@prod"] {
            let told = || Some(untold(&client, scope)).filter(|told| !told.is_empty());
            let told = eventually(DEADLINE, "it is a problem", told).unwrap();
            let [problem] = told.as_slice() else { panic!("{told:?}") };
            assert!(
                problem.message.contains("more than the 8.0 MiB that one message may take"),
                "{problem:?}"
            );
            assert_eq!(problem.node.as_ref().map(ToString::to_string).as_deref(), Some("eu-1"));
        }
        assert_eq!(untold(&client, "node:us-1"), []);
    }
    let output = cluster.output_of(&["status", "--problems"]).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("cannot be told what to run") && said.contains("stele status node:eu-1"), "{said}");
    cluster.run_cli(&["status", "node:eu-1"]).unwrap();

    // Others are told at once, nothing of that size is made in vain, and it is told again as soon as that is possible.
    let began = Instant::now();
    succeeds(&client, apply(&client, "shop/other", "us-1", 3, FILE_BYTES));
    println!("another node was told, and did it, in {:?}", began.elapsed());
    let growth = cluster.resident_bytes(leader).unwrap().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes");
    succeeds(&client, apply(&client, "shop/large", "eu-1", FEW, FILE_BYTES));
    assert_eq!(untold(&client, "fleet"), []);
    let node: Value = client.read("/v1/nodes/eu-1").unwrap();
    assert_eq!(node["current"], true, "{node}");
}
