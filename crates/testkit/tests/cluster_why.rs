//! Looking back and taking back, through the program people use: diff, why, what-if and undo.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::Value;
use stele_testkit::{Cluster, ClusterConfig, registry};

const WEB: &str = "shop/web@prod";

/// A fleet, and the specs its people write.
struct Shop {
    cluster: Cluster,
}

/// What is written in a spec.
#[derive(Clone, Copy)]
struct Spec {
    /// Which of the images that the registry has: an undo asks for those it needs.
    image: u8,
    greeting: &'static str,
    log: &'static str,
    workers: u32,
    replicas: u32,
}

const FIRST: Spec = Spec { image: 1, greeting: "hello", log: "info", workers: 2, replicas: 2 };

impl Shop {
    fn spec(&self, spec: Spec) -> PathBuf {
        let Spec { image, greeting, log, workers, replicas } = spec;
        let image = format!("{}/stele/busybox:v{image}", registry());
        let text = format!(
            "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    env: {{GREETING: {greeting}, \
             LOG: {log}}}\n    files:\n      /etc/web.conf: {{content: \"workers = {workers}\\nlisten = 80\\n\"}}\n    \
             replicas: {replicas}\n"
        );
        let path = self.cluster.dir().join("web.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

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

    /// Applies a spec and waits; the deployment.
    fn apply(&self, spec: Spec, reason: &str) -> u64 {
        let path = self.spec(spec);
        let path = path.to_str().unwrap();
        self.run(&["apply", "-f", path, "--wait", "--reason", reason, "--ticket", "T-1", "--commit", "abc"]);
        self.json(&["history", WEB])["entries"][0]["deployment"].as_u64().unwrap()
    }

    fn last(&self) -> u64 {
        self.json(&["events", "-n", "1"])["header"]["seq"].as_u64().unwrap()
    }

    fn target(&self, at: &str) -> Value {
        self.json(&["show", WEB, "--at", at])["digest"].clone()
    }
}

#[test]
fn people_see_why_and_take_back_what_they_did_not_want() {
    let cluster = Cluster::start(ClusterConfig::simulated("why")).unwrap();
    let shop = Shop { cluster };
    let first = shop.apply(FIRST, "opening");
    let second = shop.apply(Spec { image: 2, greeting: "hola", workers: 4, ..FIRST }, "spanish");
    shop.run(&["config", "set", WEB, "THEME=dark", "--wait"]);
    let third =
        shop.apply(Spec { image: 2, greeting: "hola", workers: 4, log: "debug", replicas: 3 }, "look closer");

    differences_are_told(&shop);
    causes_are_told(&shop, [first, second, third]);
    what_would_be_is_told_and_not_done(&shop);
    changes_are_taken_back(&shop, [first, second, third]);
}

fn differences_are_told(shop: &Shop) {
    let text = shop.run(&["diff", WEB, "v1"]);
    for line in [
        "  ~ services.web.container.env.GREETING: hello -> hola",
        "      -workers = 2",
        "      +workers = 4",
        "       listen = 80",
        "  + config.THEME: dark",
        "  ~ services.web.placement.replicas.count: 2 -> 3",
        "  placement",
    ] {
        assert!(text.lines().any(|it| it == line), "{line:?} is not in\n{text}");
    }
    assert!(text.ends_with("1 app: 1 changed (8 differences)\n"), "{text}");
    let forth = shop.json(&["diff", WEB, "v1", "now"]);
    let back = shop.json(&["diff", WEB, "now", "v1"]);
    let count = |answer: &Value| answer["differences"].as_array().unwrap().len();
    assert_eq!((count(&forth), count(&back)), (8, 8), "in any order");
    assert_eq!(forth["from"], back["to"]);
    let region = shop.json(&["diff", "region:eu", &format!("seq:{}", forth["from"])]);
    assert!(count(&region) > 0);
    assert!(shop.run(&["diff", WEB, "now", "--exit-code"]).contains("is the same"));
    let output = shop.cluster.run_cli(&["diff", WEB, "v1", "--exit-code"]);
    assert!(output.is_err(), "it exits with 1 when asked to");
    assert!(
        shop.refused(&["diff", "shop/wbe@prod", "seq:1"]).contains("shop/wbe"),
        "a name that is nothing's"
    );
}

fn causes_are_told(shop: &Shop, [first, second, third]: [u64; 3]) {
    let status = shop.json(&["status", WEB]);
    let instance = status["apps"][0]["instances"][0]["id"].as_str().unwrap();
    let why = shop.json(&["why", instance]);
    let steps = why["steps"].as_array().unwrap();
    let of_kind = |kind: &str| steps.iter().filter(|step| step["kind"] == kind).collect::<Vec<_>>();
    let [told] = of_kind("assignments_changed")[..] else { panic!("{why:#}") };
    assert_eq!((&told["principal"], &told["cause"]), (&"system".into(), &third.into()), "{told:#}");
    let request = of_kind("deployment_started")[0];
    assert_eq!((&request["seq"], &request["reason"]), (&third.into(), &"look closer".into()));
    assert_eq!((&request["links"]["ticket"], &request["links"]["commit"]), (&"T-1".into(), &"abc".into()));
    assert_eq!((&request["principal"], &request["outcome"]), (&"admin".into(), &"succeeded".into()));
    assert_eq!(request["trace"].as_str().unwrap().len(), 32);
    let placed = of_kind("placement_changed")[0];
    assert!(placed["cause"].is_u64(), "what the planner does says why: {placed:#}");
    assert_eq!(why["unknown"], serde_json::json!([]));

    let then = shop.json(&["why", WEB, "--at", &format!("deploy:{second}")]);
    assert_eq!(then["steps"][0]["reason"], "spanish");
    assert_ne!(first, second);
    let node = shop.json(&["why", "node:eu-1"]);
    let kinds: Vec<_> = node["steps"].as_array().unwrap().iter().map(|step| &step["kind"]).collect();
    assert!(kinds.ends_with(&[&"node_enrolled".into(), &"join_token_created".into()]), "{kinds:?}");
    let text = shop.run(&["why", instance]);
    assert!(text.contains("reason: look closer") && text.contains("it succeeded"), "{text}");
    assert!(shop.refused(&["why", "shop/web@prod/web.0-1"]).contains("there is no instance"));
}

fn what_would_be_is_told_and_not_done(shop: &Shop) {
    let before = shop.last();
    let path = shop.spec(Spec { image: 3, replicas: 4, ..FIRST });
    let path = path.to_str().unwrap();
    let now = shop.json(&["what-if", "-f", path]);
    assert_eq!((&now["release"], &now["ended"]), (&4.into(), &true.into()));
    let started = |answer: &Value| {
        let steps = answer["steps"].as_array().unwrap();
        steps.iter().filter(|step| step["action"]["start"].is_object()).count()
    };
    assert_eq!(started(&now), 4, "{now:#}");
    let placed: usize =
        now["placement"].as_object().unwrap().values().map(|it| it.as_array().unwrap().len()).sum();
    assert_eq!(placed, 4);
    let then = shop.json(&["what-if", "-f", path, "--at", "v1"]);
    assert_eq!(then["release"], 2, "then it would have been the second");
    assert_eq!(then["at"], shop.json(&["diff", WEB, "v1"])["from"]);
    let back = shop.json(&["what-if", "--rollback", WEB, "--to", "v1"]);
    assert_eq!(started(&back), 2, "{back:#}");
    assert!(shop.run(&["what-if", "-f", path]).contains("Nothing was done"));
    assert!(shop.refused(&["what-if", "--rollback", WEB, "--to", "v9"]).contains("v9 was never in force"));
    assert_eq!(shop.last(), before, "nothing is written");
}

fn changes_are_taken_back(shop: &Shop, [first, second, third]: [u64; 3]) {
    let id = |deployment: u64| deployment.to_string();
    let before = shop.last();
    let plan = shop.json(&["undo", "--deployment", &id(second), "--plan"]);
    assert_eq!((&plan["planned"], &plan["apps"][0]["to"]), (&true.into(), &4.into()), "{plan:#}");
    let refused = shop.refused(&["undo", "--deployment", &id(first)]);
    assert!(refused.contains("config.THEME") && refused.contains(r#"by now it is "dark""#), "{refused}");
    let conflicts = shop.would_be_refused(&["undo", "--deployment", &id(first)]);
    assert!(conflicts["conflicts"].as_array().unwrap().len() > 1, "{conflicts:#}");

    let founded = shop.would_be_refused(&["undo", "--seq", "1"]);
    assert!(founded["blocked"].to_string().contains("this changed no app"), "{founded:#}");

    let untouched = shop.target("now");
    // A refusal is logged, and is all that is.
    let kinds = shop.run(&["events", "--after", &before.to_string(), "--output", "json"]);
    assert!(!kinds.contains("target_changed"), "{kinds}");
    assert_eq!(untouched, shop.target(&format!("seq:{before}")));

    shop.run(&["undo", "--deployment", &id(second), "--wait", "--reason", "nobody speaks it"]);
    let shown = shop.json(&["show", WEB]);
    let web = &shown["apps"][0]["content"]["services"]["web"];
    assert_eq!(
        web["container"]["env"]["GREETING"]["value"]["plain"], "hello",
        "what was undone is as before"
    );
    assert_eq!(web["container"]["env"]["LOG"]["value"]["plain"], "debug", "what came later stays");
    assert_eq!(web["placement"]["replicas"]["count"], 3);
    assert_eq!(shown["apps"][0]["config"]["THEME"]["plain"], "dark");
    let entry = shop.json(&["history", WEB])["entries"][0].clone();
    assert_eq!((&entry["kind"], &entry["reason"]), (&"undo".into(), &"nobody speaks it".into()));
    let why = shop.json(&["why", WEB]);
    assert!(why["steps"][0]["also"].to_string().contains(&format!("undid deploy:{second}")), "{why:#}");
    assert!(shop.run(&["undo", "--deployment", &id(second)]).contains("nothing of it is left to undo"));

    // Undoing the last change is going back by one, nodes and all.
    let last = shop.json(&["history", WEB])["entries"][0]["deployment"].as_u64().unwrap();
    let earlier = shop.target("prev");
    shop.run(&["undo", "--deployment", &id(last), "--wait"]);
    assert_eq!(shop.target("now"), earlier);
    assert_ne!(third, last);

    let everything = ["undo", "--actor", "admin", "--between", "seq:1", "now"];
    assert!(shop.refused(&everything).contains("repeat with --yes"), "many changes want to be confirmed");
    shop.run(&[&everything[..], &["--yes"]].concat());
    assert_eq!(shop.json(&["show", WEB])["apps"], serde_json::json!([]), "nothing of the app is left");
}
