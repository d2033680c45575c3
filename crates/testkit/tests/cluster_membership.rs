//! Controllers added, replaced and relieved of leading, under a steady load of writes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use stele_api::wire::{ClusterAnswer, MemberRole};
use stele_testkit::limits::RECOVERY_DEADLINE;
use stele_testkit::load::{Load, broken_promises};
use stele_testkit::{Cluster, ClusterConfig, eventually, fetch_log, registry};

const WEB: &str = "shop/web@prod";

fn hand_over(cluster: &Cluster, to: u64) {
    cluster.run_cli(&["cluster", "transfer-leader", &to.to_string()]).unwrap();
    let leads = || (cluster.leader_now()? == to).then_some(());
    eventually(RECOVERY_DEADLINE, &format!("controller {to} leads"), leads).unwrap();
}

fn voters(cluster: &Cluster) -> Option<Vec<u64>> {
    let answer: ClusterAnswer = cluster.client(cluster.leader_now()?).ok()?.read("/v1/cluster").ok()?;
    let voters = answer.controllers.iter().filter(|member| member.role == MemberRole::Voter);
    Some(voters.map(|member| member.id).collect())
}

#[test]
fn members_come_and_go_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("members")).unwrap();
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id).unwrap()).collect();
    let load = Load::start(&clients, &["eu-1", "us-1", "ap-1"], Duration::from_millis(5));
    load.goes_on(50).unwrap();
    let new = cluster.prepare().unwrap();
    cluster.start_controller(new).unwrap();
    cluster.add(new).unwrap();
    load.goes_on(50).unwrap();
    hand_over(&cluster, new);
    load.goes_on(50).unwrap();
    let refused = cluster.output_of(&["cluster", "remove", &new.to_string(), "--yes"]).unwrap();
    assert_eq!(refused.status.code(), Some(3), "a leader is not removed: {refused:?}");
    hand_over(&cluster, 2);
    cluster.remove(new).unwrap();
    let remaining = vec![1, 2, 3];
    eventually(RECOVERY_DEADLINE, "it is no member any more", || {
        (voters(&cluster)? == remaining).then_some(())
    })
    .unwrap();
    cluster.kill(new).unwrap();
    load.goes_on(50).unwrap();
    for node in ["eu-1", "us-1", "ap-1"] {
        let kept = cluster.agent_folder(node).unwrap().join("removed.json");
        let knows = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&kept).ok()?).ok();
        eventually(RECOVERY_DEADLINE, "nodes believe it no more", || knows()?.get(new.to_string()).cloned())
            .unwrap();
    }
    // What is refused is refused before anything is done: it still takes part.
    for condition in [["--if-match", "1"], ["--ticket", &"T".repeat(5000)]] {
        let refused =
            cluster.output_of(&[&["cluster", "remove", "1", "--yes"], &condition[..]].concat()).unwrap();
        assert_eq!(refused.status.code(), Some(3), "{condition:?}: {refused:?}");
        assert_eq!(voters(&cluster), Some(remaining.clone()), "{condition:?}");
    }
    // A founder goes too: the two that are left are a quorum of two.
    cluster
        .run_cli(&["cluster", "remove", "1", "--yes", "--reason", "its disk failed", "--ticket", "T-1"])
        .unwrap();
    let page: serde_json::Value = cluster
        .client(cluster.leader().unwrap())
        .unwrap()
        .read("/v1/events?kind=controller_removed&limit=1000")
        .unwrap();
    let removed = page["events"].as_array().unwrap().last().unwrap()["header"].clone();
    assert_eq!(removed["reason"]["plain"], "its disk failed", "{removed}");
    assert_eq!(removed["links"]["ticket"], "T-1", "{removed}");
    eventually(RECOVERY_DEADLINE, "neither is the founder", || (voters(&cluster)? == [2, 3]).then_some(()))
        .unwrap();
    cluster.kill(1).unwrap();
    load.goes_on(50).unwrap();

    let promises = load.stop();
    let last = cluster.health(cluster.leader().unwrap()).unwrap().seq;
    let mut logs = Vec::new();
    for id in [2, 3] {
        eventually(RECOVERY_DEADLINE, "it has all", || {
            cluster.health(id).filter(|health| health.seq >= last)
        })
        .unwrap();
        let log = fetch_log(&cluster.client(id).unwrap(), last).unwrap();
        assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new(), "controller {id}");
        assert_eq!(log.folded, log.told);
        logs.push((log.chain, log.told));
    }
    assert_eq!(logs[0], logs[1]);
}

fn set_secret(cluster: &Cluster) -> std::process::Output {
    let secret = cluster.dir().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let mut command = cluster.cli(&["secret", "set", WEB, "db"]);
    command.stdin(std::fs::File::open(&secret).unwrap()).output().unwrap()
}

#[test]
fn what_is_sealed_opens_after_every_controller_was_replaced() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("keys")).unwrap();
    let image = format!("{}/stele/web:a@sha256:{}", registry(), "a".repeat(64));
    let spec = cluster.dir().join("web.yaml");
    let text = format!(
        "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 1\n"
    );
    std::fs::write(&spec, text).unwrap();
    let why = ["--reason", "Ms Roe asked", "--reason-subject", "customer:4711"];
    let apply = [&["apply", "-f", spec.to_str().unwrap(), "--wait"][..], &why].concat();
    cluster.run_cli(&apply).unwrap();
    let events = ["events", "--after", "0", "--kind", "deployment_started", "--output", "json"];
    let event: serde_json::Value = serde_json::from_str(cluster.run_cli(&events).unwrap().trim()).unwrap();
    let seq = event["header"]["seq"].to_string();
    assert!(set_secret(&cluster).status.success());

    for old in [1, 2, 3] {
        let new = cluster.prepare().unwrap();
        cluster.start_controller(new).unwrap();
        cluster.add(new).unwrap();
        if cluster.leader().unwrap() == old {
            hand_over(&cluster, new);
        }
        cluster.remove(old).unwrap();
        cluster.kill(old).unwrap();
        cluster.wipe(old).unwrap();
    }
    let reason: serde_json::Value =
        serde_json::from_str(&cluster.run_cli(&["reason", &seq, "--output", "json"]).unwrap()).unwrap();
    assert_eq!(reason["reason"], "Ms Roe asked", "{reason}");
    for id in cluster.ids() {
        assert_eq!(cluster.data_keys(id).unwrap(), 2, "controller {id} has every key");
    }

    // Keys that are lost everywhere are not made anew under the same name.
    let ids = cluster.ids();
    for id in &ids {
        cluster.kill(*id).unwrap();
        std::fs::remove_dir_all(cluster.folder(*id).unwrap().join("data/keys")).unwrap();
    }
    for id in &ids {
        cluster.start_controller(*id).unwrap();
    }
    cluster.leader().unwrap();
    let refused = eventually(RECOVERY_DEADLINE, "it says that the key is lost", || {
        let output = set_secret(&cluster);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (!output.status.success() && said.contains("no controller has the data key")).then_some(said)
    })
    .unwrap();
    assert!(refused.contains("stele erase shop/web@prod --even-in-use"), "{refused}");
    cluster.run_cli(&["erase", WEB, "--even-in-use", "--yes"]).unwrap();
    let set = set_secret(&cluster);
    assert!(set.status.success(), "{set:?}");
}
