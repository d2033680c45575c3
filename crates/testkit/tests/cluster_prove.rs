//! The proof that nodes are what State says: made of their own signatures, and of nobody's goodwill.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use stele_api::wire::{ChangeAnswer, ClusterAnswer};
use stele_proof::SignedCheckpoint;
use stele_testkit::limits::RECOVERY_DEADLINE;
use stele_testkit::{Client, Cluster, ClusterConfig, eventually};

/// A spec whose image is named by digest, so that no registry is asked.
fn spec() -> Value {
    let image = format!("127.0.0.1:5055/stele/busybox@sha256:{}", "a".repeat(64));
    let files = json!({"/etc/motd": {"content": "hello\n"}});
    json!({
        "app": "shop/web",
        "environments": ["prod"],
        "services": {"web": {"image": image, "files": files, "replicas": 3}},
    })
}

/// What `stele status --prove` prints, and whether it was content.
fn prove(cluster: &Cluster, more: &[&str]) -> (Value, bool) {
    let output = cluster.output_of(&[&["status", "--prove", "--output=json"], more].concat()).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let summary = serde_json::from_str(&printed)
        .unwrap_or_else(|_| panic!("{printed}{}", String::from_utf8_lossy(&output.stderr)));
    (summary, output.status.success())
}

fn all_match(cluster: &Cluster) -> Value {
    eventually(RECOVERY_DEADLINE, "every node is proved to match", || {
        let (summary, content) = prove(cluster, &[]);
        (content && summary["instances"] == 3).then_some(summary)
    })
    .unwrap()
}

/// What is said against one node alone.
fn said_of(summary: &Value, node: &str) -> String {
    let differing = summary["differing"].as_array().unwrap();
    let found = differing.iter().find(|one| one["name"] == node);
    found.map(|one| one["why"].to_string()).unwrap_or_default()
}

fn root_of(client: &Client) -> String {
    client.read::<ClusterAnswer>("/v1/cluster").unwrap().root.unwrap().0
}

#[test]
fn what_every_node_runs_is_proved_in_its_own_words() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("prove")).unwrap();
    let client = cluster.client(cluster.leader().unwrap()).unwrap();
    let root = root_of(&client);
    let _: ChangeAnswer = client.change("/v1/apply", &json!({"spec": spec()})).unwrap();
    let summary = all_match(&cluster);
    assert_eq!((&summary["nodes"], &summary["matching"]), (&json!(3), &json!(3)));
    assert_eq!(summary["expected"], summary["observed"]);

    // Any controller proves the same, and one line is enough to compare.
    for id in cluster.ids() {
        let proof: Value = cluster.client(id).unwrap().read("/v1/convergence").unwrap();
        let body: Value = serde_json::from_str(proof["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["expected"], summary["expected"], "controller {id}");
    }

    // Kept, and verified by somebody with nothing but the file and the root's key.
    let path = cluster.dir().join("proof.json");
    let file = path.to_str().unwrap();
    let (kept, content) = prove(&cluster, &["--export", file, "--root", &root, "--log"]);
    assert!(content, "{kept}");
    let exported: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let body: Value = serde_json::from_str(exported["body"].as_str().unwrap()).unwrap();
    let note: SignedCheckpoint = body["checkpoint"].as_str().unwrap().parse().unwrap();
    assert_eq!(body["seq"], note.checkpoint.size);
    assert_eq!(body["state_digest"], note.checkpoint.state.to_string());
    let verify = |more: &[&str]| cluster.output_of(&[&["status", "--verify", file], more].concat()).unwrap();
    let said = |more: &[&str]| {
        let output = verify(more);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(said(&["--root", &root]), (Some(0), String::new()));
    assert_eq!(said(&["--root", &root, "--log"]).0, Some(0));
    // The root pinned at login counts where none is given.
    let logged_in = cluster.dir().join("config/stele/contexts.json");
    let addresses: Vec<_> = cluster.addresses().split(',').map(str::to_owned).collect();
    let context = json!({"addresses": addresses, "token": cluster.token(), "root": "ab".repeat(32)});
    std::fs::create_dir_all(logged_in.parent().unwrap()).unwrap();
    std::fs::write(&logged_in, json!({"current": "a", "contexts": {"a": context}}).to_string()).unwrap();
    let (code, why) = said(&[]);
    assert!(code == Some(1) && why.contains("not believed") && why.contains("--root"), "{why}");
    let output = cluster.output_of(&["status", "--prove"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(said(&["--root", &root]).0, Some(0));
    std::fs::remove_file(&logged_in).unwrap();
    let (code, why) = said(&["--root", &"ab".repeat(32)]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("not believed"), "{why}");
    for (from, to) in [("\\\"boot\\\":", "\\\"boot\\\":1"), ("\"seq\":", "\"seq\":1"), ("eu-1", "eu-2")] {
        let text = std::fs::read_to_string(&path).unwrap();
        // The body is text inside the file's JSON, and the statements are text inside the body's.
        let mut proof: Value = serde_json::from_str(&text).unwrap();
        let body = proof["body"].as_str().unwrap();
        assert!(body.contains(from), "{body}");
        proof["body"] = json!(body.replacen(from, to, 1));
        let forged = path.with_extension("forged");
        std::fs::write(&forged, proof.to_string()).unwrap();
        let output =
            cluster.output_of(&["status", "--verify", forged.to_str().unwrap(), "--root", &root]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{from}");
    }

    // A node that says nothing any more is not counted, whatever it said before.
    let status: Value = client.read("/v1/status?scope=shop%2Fweb%40prod").unwrap();
    let instances = status["apps"][0]["instances"].as_array().unwrap();
    let of_us = instances.iter().find(|instance| instance["node"] == "us-1").unwrap()["id"].as_str().unwrap();
    let mut follow = cluster.cli(&["logs", of_us, "--follow"]);
    let follow = follow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    cluster.kill_agent("us-1").unwrap();
    eventually(RECOVERY_DEADLINE, "the silent node is missed", || {
        let (summary, content) = prove(&cluster, &[]);
        (!content && said_of(&summary, "us-1").contains("not heard of") && summary["matching"] == 2)
            .then_some(())
    })
    .unwrap();
    // Nor is a log that somebody follows taken to have ended there.
    let followed = follow.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&followed.stderr);
    assert!(followed.status.code() == Some(5) && why.contains("the stream broke"), "{followed:?}");
    // The other regions' lines are as they were.
    let (summary, _) = prove(&cluster, &[]);
    for region in summary["regions"].as_array().unwrap() {
        assert_eq!(region["expected"] == region["observed"], region["region"] != "us", "{region}");
    }
    cluster.start_agent("us-1").unwrap();
    all_match(&cluster);
    assert_eq!(cluster.end().0, Vec::<String>::new());
}
