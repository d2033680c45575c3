//! Taking a node out of service for a while, through the program people use.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use stele_testkit::{Cluster, ClusterConfig, registry};

const SPEC: &str = "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 3\n  \
                    probe:\n    image: {image}\n    every_node: true\n  db:\n    image: {image}\n    nodes: node=eu-1\n    \
                    volumes:\n      - {name: data, path: /var/lib/db}\n";

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

    /// The services that run on a node, sorted.
    fn on(&self, node: &str) -> Vec<String> {
        let status = self.json(&["status", &format!("node:{node}")]);
        let apps = status["apps"].as_array().unwrap().iter();
        let ids =
            apps.flat_map(|app| app["instances"].as_array().unwrap()).map(|it| it["id"].as_str().unwrap());
        let mut services: Vec<_> =
            ids.map(|id| id.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned()).collect();
        services.sort();
        services
    }
}

#[test]
fn a_node_is_drained_and_resumed() {
    let shop = Shop { cluster: Cluster::start(ClusterConfig::simulated("drain")).unwrap() };
    let image = format!("{}/stele/web:a@sha256:{}", registry(), "a".repeat(64));
    let path = shop.cluster.dir().join("web.yaml");
    std::fs::write(&path, SPEC.replace("{image}", &image)).unwrap();
    shop.run(&["apply", "-f", path.to_str().unwrap(), "--wait"]);
    assert_eq!(shop.on("eu-1"), ["db", "probe", "web"]);

    // What would be, and that nothing was done.
    let plan = shop.json(&["node", "drain", "eu-1", "--plan"]);
    assert_eq!(plan["ended"], true, "{plan}");
    let stays = plan["staying"].as_array().unwrap();
    assert_eq!(stays.len(), 1, "{plan}");
    assert!(stays[0]["why"].as_str().unwrap().contains("would stay on eu-1"), "{plan}");
    assert_eq!(shop.json(&["node", "show", "eu-1"])["drained"], Value::Null);

    // The database's data stays, so the node is not empty, and that is said.
    let output = shop
        .cluster
        .output_of(&["node", "drain", "eu-1", "--yes", "--wait", "--timeout", "5", "--reason", "new kernel"])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("1 instance still on eu-1"), "{said}");
    assert!(said.contains("it writes to a volume"), "{said}");
    assert_eq!(shop.on("eu-1"), ["db"]);
    let status = shop.json(&["status", "shop/web@prod"]);
    assert_eq!(status["apps"][0]["condition"], "converged", "{status}");
    assert_eq!(status["apps"][0]["instances"].as_array().unwrap().len(), 3 + 2 + 1);
    let why = shop.run(&["why", "node:eu-1"]);
    assert!(why.contains("drained") && why.contains("new kernel"), "{why}");
    let moved = status["apps"][0]["instances"].as_array().unwrap().iter();
    let newest = moved
        .filter_map(|it| it["id"].as_str().filter(|id| id.contains("/web.")))
        .max_by_key(|id| id.rsplit('-').next().unwrap().parse::<u64>().unwrap());
    let why = shop.run(&["why", newest.unwrap()]);
    assert!(why.contains("node eu-1 was drained") && why.contains("new kernel"), "{why}");
    assert!(shop.run(&["node", "show", "eu-1"]).contains("Still there:"));

    // Without it, the node is empty.
    let rest = SPEC.replace("{image}", &image);
    let rest = rest.split("  db:").next().unwrap().trim_end();
    std::fs::write(&path, rest).unwrap();
    shop.run(&["apply", "-f", path.to_str().unwrap(), "--wait"]);
    shop.run(&["node", "drain", "eu-1", "--wait"]);
    assert_eq!(shop.on("eu-1"), Vec::<String>::new());

    shop.run(&["node", "resume", "eu-1"]);
    shop.run(&["deploy", "shop/web@prod", "--again", "--wait"]);
    assert_eq!(shop.on("eu-1"), ["probe"], "what runs elsewhere stays there");
    let refused = shop.cluster.run_cli(&["node", "drain", "eu-9", "--yes"]).unwrap_err().to_string();
    assert!(refused.contains("there is no node eu-9"), "{refused}");
}
