//! What bad input and conflicting writes get, from real controllers.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Client, Cluster, ClusterConfig, eventually, registry};
use ureq::http::Method;

fn spec(image: &str, marker: &str) -> Value {
    json!({
        "app": "shop/web",
        "environments": ["prod"],
        "services": {"web": {"image": image, "env": {"MARKER": marker}, "replicas": 2}},
    })
}

/// An image named by digest, so that no registry is asked.
fn pinned() -> String {
    format!("{}/stele/busybox@sha256:{}", registry(), "a".repeat(64))
}

fn apply(client: &Client, marker: &str) -> Value {
    client.change("/v1/apply", &json!({"spec": spec(&pinned(), marker)})).unwrap()
}

fn wait(client: &Client, change: &Value) {
    let path = format!("/v1/deployments/{}", change["deployments"][0]);
    eventually(DEADLINE, "the deployment ends", || {
        client.read::<Value>(&path).ok().filter(|status| !status["finished"].is_null())
    })
    .unwrap();
}

fn token(client: &Client, principal: &str, role: &str, holder: &str) -> String {
    let request = json!({"principal": principal, "role": role, "holder": holder});
    let answer: Value = client.change("/v1/tokens", &request).unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

fn last_seq(client: &Client) -> u64 {
    client.read::<Value>("/v1/events?limit=1").unwrap()["last"].as_u64().unwrap()
}

fn refusals(client: &Client, by: &str) -> Vec<Value> {
    let page: Value = client.read(&format!("/v1/events?kind=refused&principal={by}")).unwrap();
    page["events"].as_array().unwrap().clone()
}

#[test]
fn every_refusal_says_what_it_is_and_changes_nothing() {
    let cluster = Cluster::start(ClusterConfig::simulated("api")).unwrap();
    // Asked of a follower: any controller answers any request.
    let leader = cluster.leader().unwrap();
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let admin = cluster.client(follower).unwrap();
    let first = apply(&admin, "one");
    wait(&admin, &first);

    a_deployment_is_counted_with_and_without_its_instances(&admin, &first);
    the_same_key_has_one_answer(&admin);
    reasons_of_batches_are_sealed(&admin);
    a_batch_answers_each_command_on_its_own(&admin);
    a_write_on_what_has_changed_is_refused(&admin);
    too_much_is_named(&admin);
    an_unknown_image_is_refused_in_the_registrys_words(&admin);
    an_unknown_field_names_the_nearest(&admin);
    an_auditor_may_look_and_not_touch(&admin);
    nobody_is_nobody(&admin);
    automation_cannot_bring_back_what_was_rejected(&admin);
}

#[test]
fn points_that_state_forgot_are_found_in_the_log() {
    let config = ClusterConfig { controllers: 1, nodes: Vec::new(), ..ClusterConfig::simulated("points") };
    let cluster = Cluster::start(config).unwrap();
    let admin = cluster.client(1).unwrap();
    let image = format!("{}/stele/busybox@sha256:{}", registry(), "b".repeat(64));
    let first = apply(&admin, "one");
    let second: Value = admin.change("/v1/apply", &json!({"spec": spec(&image, "two")})).unwrap();
    // As many changes as make State forget the first ones, and their deployments long before that.
    let changes = stele_model::limits::CHANGES_PER_APP_MAX + 100;
    let config = |at: usize| {
        let body = json!({"app_env": "shop/web@prod", "variables": {"N": {"value": at.to_string()}}});
        json!({"method": "POST", "path": "/v1/config", "body": body})
    };
    for at in (0..changes).step_by(100) {
        let commands: Vec<Value> = (at..at + 100).map(config).collect();
        let answer: Value = admin.change("/v1/batch", &json!({"commands": commands})).unwrap();
        assert!(answer["answers"].as_array().unwrap().iter().all(|it| it["status"] == 200), "{answer}");
    }
    let at = |point: &str| -> Value {
        let (point, path) = (point.replace(':', "%3A"), "/v1/show?scope=shop/web@prod");
        admin.read(&format!("{path}&at={point}")).unwrap()
    };
    let until = |change: &Value| change["seq"].as_u64().unwrap();
    let (v1, v2) = (at("v1"), at("v2"));
    assert!(until(&first) <= v1["seq"].as_u64().unwrap(), "{v1}");
    assert_eq!(v1["seq"], second["deployments"][0].as_u64().unwrap() - 2, "{second}");
    assert!(v2["seq"].as_u64() > v1["seq"].as_u64());
    // The first deployment ended when the second began.
    let deployment = at(&format!("deploy:{}", first["deployments"][0]));
    assert!(deployment["seq"].as_u64().unwrap() >= until(&first), "{deployment}");
    assert!(deployment["seq"].as_u64().unwrap() < until(&second), "{deployment}");
    assert_eq!(at(&format!("prev:{}", changes + 1))["seq"], v1["seq"]);
    for nonsense in ["v3", "deploy:1", "deploy:999999", &format!("prev:{}", changes + 2)] {
        let path = format!("/v1/show?scope=shop/web@prod&at={}", nonsense.replace(':', "%3A"));
        assert_eq!(admin.get(&path).unwrap().status, 404, "{nonsense}");
    }
}

fn a_deployment_is_counted_with_and_without_its_instances(admin: &Client, change: &Value) {
    let path = format!("/v1/deployments/{}", change["deployments"][0]);
    for (query, told) in [("", 2), ("?instances=true", 2), ("?instances=false", 0)] {
        let status: Value = admin.read(&format!("{path}{query}")).unwrap();
        assert_eq!(status["instances"].as_array().unwrap().len(), told, "{status}");
        assert_eq!((&status["wanted"], &status["healthy"]), (&json!(2), &json!(2)), "{status}");
        assert_eq!(status["phases"], json!({"healthy": 2}), "{status}");
    }
}

fn the_same_key_has_one_answer(admin: &Client) {
    let path = "/v1/nodes/eu-1/labels";
    let send = |disk: &str| {
        let body = json!({"labels": {"disk": disk}}).to_string();
        admin.send(Method::PUT, path, &[("idempotency-key", "disk-1")], Some(&body)).unwrap()
    };
    let first = send("ssd");
    assert_eq!(first.status, 200, "{}", first.body);
    let seq = last_seq(admin);
    let again = send("ssd");
    assert_eq!((again.status, &again.body), (200, &first.body));
    let other = send("hdd");
    assert_eq!(other.status, 422, "{}", other.body);
    assert_eq!(other.body["type"], "urn:stele:problem:key_reused");
    let node: Value = admin.read("/v1/nodes/eu-1").unwrap();
    assert_eq!(node["labels"]["disk"], "ssd");
    let page: Value = admin.read(&format!("/v1/events?after={seq}&kind=node_labelled")).unwrap();
    assert_eq!(page["events"], json!([]));
}

/// What is said to be about somebody is never written in clear because many changes were asked for at once.
fn reasons_of_batches_are_sealed(admin: &Client) {
    let commands = json!({"commands": [
        {"method": "PUT", "path": "/v1/nodes/eu-1/labels", "body": {"labels": {"batch": "sealed"}}},
    ]});
    let headers = [("x-stele-reason", "Ms Roe's order"), ("x-stele-reason-subject", "customer:4711")];
    let answer = admin.send(Method::POST, "/v1/batch", &headers, Some(&commands.to_string())).unwrap();
    assert_eq!(answer.status, 200);
    let events: Value = admin.read("/v1/events?after=0&kind=node_labelled&limit=1000").unwrap();
    assert!(events.to_string().contains("customer:4711"), "{events}");
    assert!(!events.to_string().contains("Ms Roe"), "{events}");
}

fn a_batch_answers_each_command_on_its_own(admin: &Client) {
    let label = |node: &str, value: &str| json!({"method": "PUT", "path": format!("/v1/nodes/{node}/labels"), "body": {"labels": {"batch": value}}});
    let ask = |commands: &Value, key: &str| {
        let body = json!({"commands": commands}).to_string();
        admin.send(Method::POST, "/v1/batch", &[("idempotency-key", key)], Some(&body)).unwrap()
    };
    let commands = json!([
        label("eu-1", "one"),
        label("nowhere", "one"),
        {"method": "POST", "path": "/v1/batch", "body": {"commands": []}},
        {"method": "PUT", "path": "/v1/nodes/eu-1/labels", "body": {"lables": {}}},
        label("us-1", "one"),
    ]);
    let first = ask(&commands, "batch");
    assert_eq!(first.status, 200, "{}", first.body);
    let statuses: Vec<_> =
        first.body["answers"].as_array().unwrap().iter().map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 404, 404, 422, 200], "{}", first.body);
    for node in ["eu-1", "us-1"] {
        let read: Value = admin.read(&format!("/v1/nodes/{node}")).unwrap();
        assert_eq!(read["labels"]["batch"], "one", "{read}");
    }

    let again = ask(&commands, "batch");
    assert_eq!(again.body["answers"][0], first.body["answers"][0], "the same key has one answer");
    let body = json!({"labels": {"batch": "one"}}).to_string();
    let alone = admin
        .send(Method::PUT, "/v1/nodes/eu-1/labels", &[("idempotency-key", "batch/0")], Some(&body))
        .unwrap();
    assert_eq!(alone.body, first.body["answers"][0]["body"], "it is the same request alone");

    let many: Vec<_> = (0..1001).map(|_| label("eu-1", "two")).collect();
    assert_eq!(ask(&json!(many), "many").status, 413);
}

fn a_write_on_what_has_changed_is_refused(admin: &Client) {
    let status: Value = admin.read("/v1/status?scope=shop%2Fweb%40prod").unwrap();
    let seen = status["apps"][0]["last_changed"].as_u64().unwrap();
    let send = |marker: &str, seq: u64| {
        let body = json!({"spec": spec(&pinned(), marker)}).to_string();
        let headers = [("if-match", &*format!("\"{seq}\""))];
        admin.send(Method::POST, "/v1/apply", &headers, Some(&body)).unwrap()
    };
    let mine = send("two", seen);
    assert_eq!(mine.status, 200, "{}", mine.body);
    wait(admin, &mine.body);
    let theirs = send("three", seen);
    assert_eq!(theirs.status, 412, "{}", theirs.body);
    assert!(theirs.detail().contains("shop/web@prod"), "it says what changed: {}", theirs.body);
    let status: Value = admin.read("/v1/status?scope=shop%2Fweb%40prod").unwrap();
    assert_eq!(status["apps"][0]["release"], 2);
}

fn too_much_is_named(admin: &Client) {
    let long = "x".repeat(9 * 1024 * 1024);
    let answer = admin.post("/v1/apply", &json!({"spec": spec(&pinned(), &long)})).unwrap();
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert!(answer.detail().contains("BODY_BYTES_MAX"), "{}", answer.body);
}

fn an_unknown_image_is_refused_in_the_registrys_words(admin: &Client) {
    let image = format!("{}/stele/busybox:no-such-tag", registry());
    let seq = last_seq(admin);
    let answer = admin.post("/v1/apply", &json!({"spec": spec(&image, "x")})).unwrap();
    assert_eq!(answer.status, 422, "{}", answer.body);
    let words = answer.body.to_string().to_lowercase();
    assert!(words.contains("no-such-tag"), "{words}");
    assert!(words.contains("manifest") || words.contains("not found"), "the registry's own words: {words}");
    let page: Value = admin.read(&format!("/v1/events?after={seq}&kind=release_created")).unwrap();
    assert_eq!(page["events"], json!([]), "nothing is logged as deployed");
}

fn an_unknown_field_names_the_nearest(admin: &Client) {
    let mut misspelt = spec(&pinned(), "x");
    misspelt["services"]["web"]["replica"] = json!(3);
    let answer = admin.post("/v1/apply", &json!({"spec": misspelt})).unwrap();
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body.to_string().contains("replicas"), "{}", answer.body);
}

fn an_auditor_may_look_and_not_touch(admin: &Client) {
    let auditor = admin.clone().with_token(&token(admin, "anna", "auditor", "person"));
    let _: Value = auditor.read("/v1/status").unwrap();
    let refused = auditor.post("/v1/apply", &json!({"spec": spec(&pinned(), "anna")})).unwrap();
    assert_eq!(refused.status, 403, "{}", refused.body);
    let logged = eventually(DEADLINE, "the refusal is logged", || refusals(admin, "anna").pop()).unwrap();
    assert_eq!(logged["header"]["principal"], "anna", "{logged}");
}

fn nobody_is_nobody(admin: &Client) {
    let stranger = admin.clone().with_token("stele_0000");
    assert_eq!(stranger.get("/v1/status").unwrap().status, 401);
}

fn automation_cannot_bring_back_what_was_rejected(admin: &Client) {
    let rolled: Value = admin
        .change("/v1/rollbacks", &json!({"scope": "shop/web@prod", "to": "v1", "reason": "too slow"}))
        .unwrap();
    assert_eq!(rolled["after"]["intent"], rolled["wanted"]["intent"], "{rolled}");
    wait(admin, &rolled);
    let ci = admin.clone().with_token(&token(admin, "ci", "deployer", "service"));
    let redeploy = json!({"app_env": "shop/web@prod", "release": 2});
    let refused = ci.post("/v1/deployments", &redeploy).unwrap();
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.detail().contains("latch"), "{}", refused.body);
    let logged = eventually(DEADLINE, "the refusal is logged", || refusals(admin, "ci").pop()).unwrap();
    assert_eq!(logged["event"]["refused"]["scope"], "shop/web@prod", "{logged}");
    let unlatch = json!({"app_env": "shop/web@prod", "reason": "fixed"});
    assert_eq!(ci.post("/v1/unlatch", &unlatch).unwrap().status, 403, "only a person lifts a latch");
    let _: Value = admin.change("/v1/unlatch", &unlatch).unwrap();
    let _: Value = ci.change("/v1/deployments", &redeploy).unwrap();
}
