//! Going back, and what people say of it, through the program they use: parts of a fleet, barriers,
//! marks, reviews, readiness, and what can never come back because its key is destroyed.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use stele_model::limits::DEPLOYMENTS_PER_APP_MAX;
use stele_testkit::{Cluster, ClusterConfig, registry};

const WEB: &str = "shop/web@prod";

struct Shop {
    cluster: Cluster,
}

impl Shop {
    fn run(&self, arguments: &[&str]) -> String {
        self.cluster.run_cli(arguments).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// What a plan says that would be refused.
    fn would_be_refused(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--plan", "--output", "json"]].concat();
        let output = self.cluster.output_of(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        self.cluster.run_cli(arguments).unwrap_err().to_string()
    }

    /// Deploys one instance per node and waits.
    fn apply(&self, image: char, env: &str, more: &[&str]) {
        let image = format!("{}/stele/web:{image}@sha256:{}", registry(), image.to_string().repeat(64));
        let text = format!(
            "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    env: {{{env}}}\n    \
             replicas: 3\n"
        );
        let path = self.cluster.dir().join("web.yaml");
        std::fs::write(&path, text).unwrap();
        self.run(&[&["apply", "-f", path.to_str().unwrap(), "--wait"], more].concat());
    }

    fn last(&self) -> String {
        let event = self.json(&["events", "-n", "1"]);
        format!("seq:{}", event["header"]["seq"])
    }

    fn digest(&self, scope: &str, at: Option<&str>) -> Value {
        let at = at.map_or(Vec::new(), |at| vec!["--at", at]);
        self.json(&[&["show", scope], &at[..]].concat())["digest"].clone()
    }

    fn verdicts(&self) -> Vec<(String, String)> {
        let answer = self.json(&["rollback", WEB, "--check"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        answer["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (text(&it["to"]), text(&it["verdict"])))
            .collect()
    }
}

#[test]
fn any_part_is_brought_back_and_people_answer_for_it() {
    let shop = Shop { cluster: Cluster::start(ClusterConfig::simulated("rollback")).unwrap() };
    shop.apply('a', "GREETING: hello", &[]);
    let first = shop.last();
    shop.apply('b', "GREETING: hola", &[]);
    let second = shop.last();
    what_protects_nothing_is_refused(&shop, &first);
    a_region_goes_back_alone(&shop, &first, &second);
    a_rollback_is_looked_at_by_somebody_else(&shop);
    a_barrier_wants_a_word(&shop);
    a_marked_point_is_not_offered(&shop);
    what_is_asked_again_is_told_as_it_was(&shop);
}

fn what_protects_nothing_is_refused(shop: &Shop, first: &str) {
    for (excepted, why) in [
        ("shop/wbe@prod", "did you mean shop/web"),
        ("region:ue", "there is no region ue"),
        ("region:us", "nothing to except"),
    ] {
        let refused = shop.refused(&["rollback", "region:eu", "--to", first, "--except", excepted, "--yes"]);
        assert!(refused.contains(why), "{refused}");
    }
    let refused = shop.refused(&["what-if", "--rollback", "shop/wbe@prod", "--to", first]);
    assert!(refused.contains("did you mean shop/web"), "{refused}");
}

/// The answer may have been lost: then the same question has the same answer, whatever points mean by now.
fn what_is_asked_again_is_told_as_it_was(shop: &Shop) {
    let again = |arguments: &[&str], key: &str| {
        let arguments = [arguments, &["--idempotency-key", key]].concat();
        let first = shop.json(&arguments);
        assert!(first["seq"].is_u64(), "{first}");
        assert_eq!(shop.json(&arguments), first);
        first
    };
    let back = again(&["rollback", WEB, "--to", "prev", "--yes", "--wait"], "back");
    assert_eq!(back["apps"].as_array().unwrap().len(), 1, "{back}");
    let undone = again(&["undo", "--seq", &back["seq"].to_string(), "--yes", "--wait"], "undone");
    assert_eq!(undone["apps"].as_array().unwrap().len(), 1, "{undone}");
}

fn a_region_goes_back_alone(shop: &Shop, first: &str, second: &str) {
    let (eu, us) = ("shop/web@prod,region:eu", "shop/web@prod,region:us");
    let now = shop.digest(us, None);
    let plan = shop.json(&["rollback", "region:eu", "--to", first, "--plan"]);
    assert_eq!(plan["planned"], true);
    let nodes: Vec<_> = plan["apps"][0]["nodes"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(nodes, ["eu-1"], "{plan}");
    shop.run(&["rollback", "region:eu", "--to", first, "--wait", "--yes"]);
    assert_eq!(shop.digest(eu, None), shop.digest(eu, Some(first)));
    assert_eq!(shop.digest(us, None), now, "the others stay as they are");
    let status = shop.json(&["status", WEB]);
    assert_eq!(status["apps"][0]["condition"], "converged", "{status}");

    // And the whole is one again.
    shop.run(&["rollback", WEB, "--to", second, "--wait"]);
    assert_eq!(shop.digest(us, None), now);
    assert_eq!(shop.digest(WEB, None), shop.digest(WEB, Some(second)));
    assert_ne!(shop.digest(eu, None), shop.digest(eu, Some(first)));
}

fn a_rollback_is_looked_at_by_somebody_else(shop: &Shop) {
    let owed = shop.json(&["review"])["owed"].clone();
    let owed: Vec<_> = owed.as_array().unwrap().iter().map(|it| it["rollback"].to_string()).collect();
    assert_eq!(owed.len(), 2);
    let own = shop.refused(&["review", &owed[0]]);
    assert!(own.contains("a person other than that"), "{own}");
    let eve = shop.run(&["token", "create", "eve", "--role", "deployer"]);
    let robot = shop.run(&["token", "create", "robot", "--role", "deployer", "--service"]);
    assert!(shop.refused(&["review", &owed[0], "--token", robot.trim()]).contains("a person"));
    for rollback in &owed {
        shop.run(&["review", rollback, "--reason", "right call", "--token", eve.trim()]);
    }
    assert_eq!(shop.json(&["review"])["owed"], Value::Array(Vec::new()));
    let then = shop.json(&["review", "--at", &format!("seq:{}", owed[1])])["owed"].clone();
    assert_eq!(then.as_array().unwrap().len(), 2, "{then}");
    let newest = shop.json(&["events", "-n", "1", "--at", &format!("seq:{}", owed[0])]);
    assert_eq!(newest["header"]["seq"].to_string(), owed[0], "{newest}");
    assert!(shop.refused(&["review", &owed[0], "--token", eve.trim()]).contains("waits for a review"));
}

fn a_barrier_wants_a_word(shop: &Shop) {
    shop.apply('c', "GREETING: hola", &["--barrier", "migrates orders"]);
    let refused = shop.refused(&["rollback", WEB, "--to", "v2"]);
    assert!(refused.contains("migrates orders") && refused.contains("--pass-barriers"), "{refused}");
    let plan = shop.would_be_refused(&["rollback", WEB, "--to", "v2"]);
    assert_eq!(plan["apps"][0]["barriers"][0]["what"], "migrates orders", "{plan}");
    shop.run(&["rollback", WEB, "--to", "v2", "--pass-barriers", "--wait"]);
    shop.run(&["unlatch", WEB]);
}

fn a_marked_point_is_not_offered(shop: &Shop) {
    shop.apply('d', "GREETING: ola", &[]);
    assert!(shop.verdicts().contains(&("v2".to_owned(), "good".to_owned())), "{:?}", shop.verdicts());
    shop.run(&["mark-bad", WEB, "v2", "--reason", "loses orders"]);
    assert!(shop.verdicts().contains(&("v2".to_owned(), "marked_bad".to_owned())), "{:?}", shop.verdicts());
    let plan = shop.json(&["rollback", WEB, "--to", "last-good", "--plan", "--pass-barriers"]);
    assert_eq!(plan["apps"][0]["to"], 1, "{plan}");
    shop.run(&["mark-bad", WEB, "v2", "--clear"]);
    let plan = shop.json(&["rollback", WEB, "--to", "last-good", "--plan"]);
    assert_eq!(plan["apps"][0]["to"], 2, "{plan}");
}

/// Data keys in the folders of all controllers.
fn key_files(shop: &Shop) -> usize {
    shop.cluster.ids().into_iter().map(|id| shop.cluster.data_keys(id).unwrap()).sum()
}

#[test]
fn a_sealed_reason_is_read_until_it_is_erased() {
    let shop = Shop { cluster: Cluster::start(ClusterConfig::simulated("reason")).unwrap() };
    let why = "Ms Roe sees her neighbour's order";
    shop.apply('a', "A: a", &["--reason", why, "--reason-subject", "customer:4711"]);
    shop.apply('b', "A: b", &["--reason", "no secret"]);
    let by = |reason: &str| {
        let events =
            shop.run(&["events", "--after", "0", "--kind", "deployment_started", "--output", "json"]);
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found = events.iter().find(|it| it["header"]["reason"].to_string().contains(reason)).unwrap();
        found["header"]["seq"].to_string()
    };
    let sealed = by("customer:4711");
    for shown in
        [&["events", "--after", "0", "--output", "json"][..], &["history", WEB], &["why", WEB, "--at", "v1"]]
    {
        let shown = shop.run(shown);
        assert!(!shown.contains("neighbour") && shown.contains("customer:4711"), "{shown}");
    }

    let opened = shop.json(&["reason", &sealed]);
    assert_eq!(
        (&opened["reason"], &opened["sealed_for"]),
        (&why.into(), &"customer:4711".into()),
        "{opened}"
    );
    assert_eq!(shop.run(&["reason", &by("no secret")]).trim(), "no secret");
    let eve = shop.run(&["token", "create", "eve", "--role", "auditor"]);
    assert!(shop.refused(&["reason", &sealed, "--token", eve.trim()]).contains("needs the role admin"));
    assert!(shop.refused(&["reason", "999999"]).contains("no record 999999"));
    let subject = "x".repeat(257);
    let refused = shop.refused(&["unlatch", WEB, "--reason", "r", "--reason-subject", &subject]);
    assert!(refused.contains("1 to 256 bytes"), "{refused}");

    shop.run(&["erase", "customer:4711", "--yes"]);
    let gone = shop.json(&["reason", &sealed]);
    assert_eq!((&gone["reason"], &gone["sealed_for"]), (&Value::Null, &"customer:4711".into()), "{gone}");
    assert_eq!(shop.json(&["verify"])["replicas"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_erased_stays_proved_and_never_comes_back() {
    let mut shop = Shop { cluster: Cluster::start(ClusterConfig::simulated("erase")).unwrap() };
    let secret = shop.cluster.dir().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let set = |shop: &Shop| {
        let mut command = shop.cluster.cli(&["secret", "set", WEB, "db"]);
        let status = command.stdin(std::fs::File::open(&secret).unwrap()).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    };
    shop.apply('a', "A: a", &[]);
    set(&shop);
    shop.apply('b', "PASSWORD: {secret: db}", &[]);
    assert!(key_files(&shop) >= 2, "a majority keeps the key");
    let in_use = shop.refused(&["erase", WEB, "--yes"]);
    assert!(in_use.contains("PASSWORD of service web") && in_use.contains("--even-in-use"), "{in_use}");
    shop.apply('c', "A: c", &[]);

    // One that is away destroys its copy when it is back.
    let away = *shop.cluster.ids().iter().find(|id| Some(**id) != shop.cluster.leader_now()).unwrap();
    shop.cluster.stop(away).unwrap();
    let erased = shop.json(&["erase", WEB, "--yes", "--reason", "request 17"]);
    assert_eq!((&erased["through"], &erased["keepers"][0]), (&1.into(), &away.into()), "{erased}");
    shop.cluster.start_controller(away).unwrap();
    stele_testkit::eventually(stele_testkit::limits::RECOVERY_DEADLINE, "every copy is destroyed", || {
        (key_files(&shop) == 0).then_some(())
    })
    .unwrap();
    assert_eq!(shop.json(&["erase"])["erased"][0]["subject"], WEB);
    assert_eq!(shop.json(&["erase", "--at", "seq:5"])["erased"], Value::Array(Vec::new()));

    let refused = shop.refused(&["rollback", WEB, "--to", "v2"]);
    assert!(refused.contains("whose keys are destroyed"), "{refused}");
    let check = shop.json(&["rollback", WEB, "--check"]);
    let blocked = |to: &str| {
        let candidates = check["candidates"].as_array().unwrap().clone();
        let found = candidates.into_iter().find(|it| it["to"] == to).unwrap();
        found["blocked"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((blocked("v1"), blocked("v2")), (0, 1), "{check}");

    // The log is whole all the same, and the next key seals what is set now.
    let verified = shop.json(&["verify"]);
    assert_eq!(verified["replicas"].as_array().unwrap().len(), 3, "{verified}");
    set(&shop);
    shop.apply('d', "PASSWORD: {secret: db}", &[]);
    assert_eq!(shop.json(&["status", WEB])["apps"][0]["condition"], "converged");
}

/// More than State remembers of one app.
const IN_VAIN: usize = DEPLOYMENTS_PER_APP_MAX + 30;

#[test]
fn the_way_back_is_there_however_often_was_deployed_in_vain() {
    let shop = Shop { cluster: Cluster::start(ClusterConfig::simulated("vain")).unwrap() };
    // It was away for a while before it was healthy last: that is no way back.
    shop.apply('c', "A: \"0\"", &[]);
    shop.run(&["remove", WEB, "--yes", "--wait"]);
    shop.apply('a', "A: \"1\"", &[]);
    let good = shop.digest(WEB, None);
    let deployments = |limit: &str| -> Vec<Value> {
        shop.json(&["history", WEB, "--limit", limit])["entries"].as_array().unwrap().clone()
    };
    let before = deployments("500");
    let client = shop.cluster.client(shop.cluster.leader().unwrap()).unwrap();
    let image = format!("{}/stele/crash:b@sha256:{}", registry(), "b".repeat(64));
    for some in (0..IN_VAIN).collect::<Vec<_>>().chunks(50) {
        let commands = some.iter().map(|number| {
            let web = json!({"image": image, "env": {"A": number.to_string()}, "replicas": 3});
            let spec = json!({"app": "shop/web", "environments": ["prod"], "services": {"web": web}});
            json!({"method": "POST", "path": "/v1/apply", "body": {"spec": spec}})
        });
        let body = json!({"commands": commands.collect::<Vec<_>>()});
        let answer: Value = client.change("/v1/batch", &body).unwrap();
        for answer in answer["answers"].as_array().unwrap() {
            assert_eq!(answer["status"], 200, "{answer}");
        }
    }
    let entries = deployments("500");
    assert_eq!(entries.len(), IN_VAIN + before.len(), "every deployment there was");
    assert_eq!(entries[IN_VAIN..], before, "as they were told of before they were forgotten");
    assert_eq!(deployments("5"), entries[..5]);
    let verdicts = shop.verdicts();
    let found: Vec<_> = verdicts.iter().filter(|(_, verdict)| verdict == "good").collect();
    assert_eq!(found, [&("v2".to_owned(), "good".to_owned())], "{verdicts:?}");
    assert_eq!(verdicts.last(), found.first().copied(), "{verdicts:?}");
    shop.run(&["rollback", WEB, "--to", "last-good", "--wait"]);
    assert_eq!(shop.digest(WEB, None), good);
    assert!(shop.cluster.end().0.is_empty());
}
