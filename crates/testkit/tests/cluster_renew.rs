//! Certificates that end soon, renewed controller by controller while the fleet goes on, and such as have ended.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use serde_json::Value;
use stele_api::wire::{ClusterAnswer, StatusAnswer};
use stele_model::Time;
use stele_model::signature::{Certificate, CertificateBody};
use stele_testkit::limits::{DEADLINE, RECOVERY_DEADLINE};
use stele_testkit::load::{Load, broken_promises};
use stele_testkit::{Cluster, ClusterConfig, eventually, fetch_log, registry};

const NODES: [&str; 3] = ["eu-1", "us-1", "ap-1"];
/// What the certificates for signatures have left: less than is warned of.
const LEFT_US: u64 = 30 * 86_400 * 1_000_000;
/// How often the renewal of each controller is killed first.
const KILLS: u32 = 6;

struct Fleet {
    cluster: Cluster,
    root: String,
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn certificate_of(config: &Value) -> Certificate {
    serde_json::from_value(config["certificate"].clone()).unwrap()
}

/// Every file of a controller's that a renewal could touch.
fn files(config: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(config.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let own = entries.filter(|path| path.is_file() && !path.ends_with("log.txt"));
    own.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Has the root vouch for a controller with other dates.
fn certify(cluster: &Cluster, id: u64, change: impl Fn(&mut CertificateBody)) {
    let key = fs::read_to_string(cluster.dir().join("fleet/root/root.key")).unwrap();
    let root = SigningKey::from_bytes(&hex(key.trim()));
    let path = cluster.folder(id).unwrap().join("controller.json");
    let mut json = json_of(&path);
    let mut body = certificate_of(&json).body;
    change(&mut body);
    json["certificate"] = serde_json::to_value(Certificate::issue(&root, body)).unwrap();
    fs::write(&path, json.to_string()).unwrap();
}

impl Fleet {
    /// One whose root vouched long ago for its controllers, whose certificates end soon.
    fn start(name: &str) -> Self {
        let config = ClusterConfig::simulated(name);
        let mut cluster = Cluster::found(&config).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        for id in cluster.ids() {
            certify(&cluster, id, |body| body.not_after = Time(u64::try_from(now).unwrap() + LEFT_US));
            cluster.start_controller(id).unwrap();
        }
        cluster.leader().unwrap();
        for node in &config.nodes {
            cluster.join_node(node).unwrap();
        }
        cluster.wait_for_nodes().unwrap();
        let json = json_of(&cluster.folder(1).unwrap().join("controller.json"));
        Self { cluster, root: json["root"].as_str().unwrap().to_owned() }
    }

    fn config(&self, id: u64) -> PathBuf {
        self.cluster.folder(id).unwrap().join("controller.json")
    }

    /// `stele controller renew` of a controller, by the root in a folder.
    fn renew(&self, id: u64, folder: &Path, more: &[&str]) -> Command {
        let (config, folder) = (self.config(id), folder.to_str().unwrap());
        let words = ["controller", "renew", "--config", config.to_str().unwrap(), "--folder", folder];
        self.cluster.cli(&[&words, more].concat())
    }

    fn own_root(&self) -> PathBuf {
        self.cluster.dir().join("fleet")
    }

    /// A renewal that says why it does nothing.
    fn is_refused(&self, id: u64, folder: &Path, more: &[&str], words: &str) {
        let before = files(&self.config(id));
        let output = self.renew(id, folder, more).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(words), "{words}: {}", said(&output));
        assert_eq!(files(&self.config(id)), before, "{words}");
    }

    /// Kills a renewal as soon as it has written something, which is before it is done unless it was quicker.
    fn interrupt(&self, id: u64) {
        let config = self.config(id);
        let entries = || fs::read_dir(config.parent().unwrap()).unwrap().count();
        let before = entries();
        let mut command = self.renew(id, &self.own_root(), &["--yes"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while entries() == before && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(entries(), before, "it never got so far");
    }

    fn status(&self, id: u64) -> Option<ClusterAnswer> {
        self.cluster.client(id).unwrap().read("/v1/cluster").ok()
    }

    /// Which controllers are said to need new certificates.
    fn warned_of(&self, id: u64) -> Vec<String> {
        let answer: StatusAnswer = self.cluster.client(id).unwrap().read("/v1/status?scope=fleet").unwrap();
        let of_certificates =
            answer.problems.iter().filter(|it| it.message.contains("needs new certificates"));
        of_certificates
            .map(|it| {
                let next = it.next.as_deref().unwrap();
                assert!(next.starts_with("stele controller renew --config "), "{next}");
                it.message.split(" needs").next().unwrap().to_owned()
            })
            .collect()
    }

    /// Starts a controller again and waits until all is as it was, with the certificates that its configuration names.
    fn restart(&mut self, id: u64) {
        self.cluster.stop(id).unwrap();
        self.cluster.restart(id).unwrap();
        let until = certificate_of(&json_of(&self.config(id))).body.not_after;
        eventually(DEADLINE, &format!("controller {id} takes part, certified until {}", until.0), || {
            let leader = self.cluster.leader_now()?;
            let answer = self.status(leader)?;
            let own = answer.controllers.iter().find(|it| it.id == id)?;
            let is_connected = id == leader || (own.connected == Some(true) && own.lag == Some(0));
            (is_connected && own.certified_until == Some(until)).then_some(())
        })
        .unwrap();
    }

    fn lead(&self, id: u64) {
        if self.cluster.leader().unwrap() != id {
            self.cluster.run_cli(&["cluster", "transfer-leader", &id.to_string()]).unwrap();
        }
        let leads = || (self.cluster.leader_now()? == id).then_some(());
        eventually(RECOVERY_DEADLINE, &format!("controller {id} leads"), leads).unwrap();
    }

    /// Nodes do what the leader assigns.
    fn deploy(&self, image: char) {
        let image = format!("{}/stele/web:{image}@sha256:{}", registry(), image.to_string().repeat(64));
        let spec = self.cluster.dir().join("web.yaml");
        let text = format!(
            "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 6\n"
        );
        fs::write(&spec, text).unwrap();
        self.cluster.run_cli(&["apply", "-f", spec.to_str().unwrap(), "--wait"]).unwrap();
    }

    /// Evidence of records, which two programs believe.
    fn is_evident(&self, name: &str, from: u64) -> PathBuf {
        let path = self.cluster.dir().join(name);
        let (file, from) = (path.to_str().unwrap(), format!("seq:{from}"));
        let export =
            ["audit", "export", "fleet", "--between", &from, "now", "--out", file, "--root", &self.root];
        self.cluster.run_cli(&export).unwrap();
        self.is_believed(&path);
        path
    }

    fn is_believed(&self, pack: &Path) {
        let file = pack.to_str().unwrap();
        let ours = self.cluster.output_of(&["audit", "verify", file, "--key", &self.root]).unwrap();
        // Nobody witnessed it, and all else is right.
        assert_eq!(ours.status.code(), Some(8), "{}", said(&ours));
        let mut theirs = Command::new("python3");
        theirs.args(["-B", "../../docs/verify/stele_verify.py", file, "--key", &self.root]);
        let theirs = theirs.stdin(Stdio::null()).output().unwrap();
        assert_eq!(theirs.status.code(), Some(7), "{}", said(&theirs));
    }
}

fn hex(text: &str) -> [u8; 32] {
    let digits: Vec<_> = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect();
    let bytes: Vec<_> = digits.into_iter().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn a_fleet_is_renewed_controller_by_controller_while_it_goes_on() {
    let mut fleet = Fleet::start("renew");
    let ids = fleet.cluster.ids();
    let leader = fleet.cluster.leader().unwrap();
    fleet.deploy('a');
    let warned: Vec<_> = ids.iter().map(|id| format!("controller {id}")).collect();
    assert_eq!(fleet.warned_of(leader), warned);
    let told = fleet.cluster.run_cli(&["status", "--problems"]).unwrap();
    assert!(
        told.contains("fleet: controller 1 needs new certificates: that for its signatures ends on"),
        "{told}"
    );
    let before: BTreeMap<_, _> = ids.iter().map(|id| (*id, json_of(&fleet.config(*id)))).collect();
    let early = fleet.is_evident("early.stelepack", 0);
    let early_end = fleet.cluster.health(leader).unwrap().seq;

    // What cannot be right changes nothing.
    let follower = ids.iter().copied().find(|id| *id != leader).unwrap();
    let other = fleet.cluster.dir().join("other");
    let found = ["controller", "found", "--fleet", fleet.cluster.fleet(), "--nats", "nats://127.0.0.1:1"];
    let place = ["--controllers", "1=127.0.0.1:1,127.0.0.1:2", "--folder", other.to_str().unwrap()];
    fleet.cluster.run_cli(&[&found[..], &place].concat()).unwrap();
    let own = fleet.own_root();
    fleet.is_refused(follower, &other, &["--yes"], "is not the root key of this controller's fleet");
    fleet.is_refused(follower, &own.join("none"), &["--yes"], "root.key: No such file");
    fleet.is_refused(follower, &own, &[], "repeat with --yes");

    let clients: Vec<_> = ids.iter().map(|id| fleet.cluster.client(*id).unwrap()).collect();
    let load = Load::start(&clients, &NODES, Duration::from_millis(5));
    let order: Vec<_> = ids.iter().copied().filter(|id| *id != leader).chain([leader]).collect();
    let mut connections = BTreeMap::new();
    for (turn, id) in order.iter().copied().enumerate() {
        let path = fleet.config(id);
        let present = files(&path);
        let plan = fleet.renew(id, &own, &["--plan", "--output", "json"]).output().unwrap();
        assert!(plan.status.success(), "{}", said(&plan));
        assert_eq!(files(&path), present, "a plan changes nothing");
        // However often it is killed, the configuration is a whole one, and what it names is there.
        for _ in 0..KILLS {
            let whole = fs::read(&path).unwrap();
            fleet.interrupt(id);
            println!("controller {id}: the configuration is new: {}", fs::read(&path).unwrap() != whole);
            let plan = fleet.renew(id, &own, &["--plan"]).output().unwrap();
            assert!(plan.status.success(), "{}", said(&plan));
        }
        let whole = fs::read(&path).unwrap();
        let output = fleet.renew(id, &own, &["--yes", "--output", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        connections.insert(id, Time(found["connections"]["renewed_until"].as_u64().unwrap()));
        if turn == 0 {
            // All files are there, and the configuration is the one from before.
            let renewed = fs::read(&path).unwrap();
            fs::write(&path, &whole).unwrap();
            fleet.restart(id);
            load.goes_on(50).unwrap();
            fs::write(&path, renewed).unwrap();
        }
        let now = files(&path);
        let kept = present.iter().filter(|(file, _)| **file != path);
        assert!(kept.into_iter().all(|(file, text)| now.get(file) == Some(text)), "a file was written over");
        load.goes_on(50).unwrap();
        fleet.restart(id);
        load.goes_on(50).unwrap();
    }

    // The same controllers, with other certificates, both of them, and as every other one saw it.
    for id in &ids {
        let (old, new) = (&before[id], json_of(&fleet.config(*id)));
        let (was, is) = (certificate_of(old).body, certificate_of(&new).body);
        assert!(is.not_after > was.not_after);
        assert_eq!(CertificateBody { not_after: was.not_after, ..is.clone() }, was);
        assert_ne!(new["tls"]["key"], old["tls"]["key"]);
        eventually(DEADLINE, &format!("controller {id} sees the certificates of all"), || {
            let answer = fleet.status(*id)?;
            let shown = answer.controllers.iter().filter_map(|it| Some((it.id, it.connections_until?)));
            (shown.collect::<BTreeMap<_, _>>() == connections).then_some(())
        })
        .unwrap();
        assert_eq!(fleet.warned_of(*id), Vec::<String>::new());
    }
    let promises = load.stop();

    // Nodes believe each of them, and so do auditors, whatever was signed when.
    for (id, image) in ids.iter().zip(['b', 'c', 'd']) {
        fleet.lead(*id);
        fleet.deploy(image);
        fleet.cluster.wait_for_nodes().unwrap();
    }
    fleet.is_believed(&early);
    fleet.is_evident("late.stelepack", early_end);
    fleet.is_evident("all.stelepack", 0);
    let leader = fleet.cluster.leader().unwrap();
    let client = fleet.cluster.client(leader).unwrap();
    let page: Value = client.read("/v1/events?kind=controller_certified&limit=1000").unwrap();
    assert!(page["events"].as_array().unwrap().len() >= 2 * ids.len(), "{page}");
    let last = fleet.cluster.health(leader).unwrap().seq;
    let log = fetch_log(&client, last).unwrap();
    assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new());
    assert_eq!(log.folded, log.told);
    assert_eq!(fleet.cluster.end().0, Vec::<String>::new());
}

#[test]
fn a_fleet_whose_certificates_have_ended_is_renewed_and_goes_on() {
    let mut fleet = Fleet::start("ended");
    fleet.deploy('a');
    let ids = fleet.cluster.ids();
    for id in &ids {
        fleet.cluster.stop(*id).unwrap();
        certify(&fleet.cluster, *id, |body| body.not_after = Time(body.not_before.0 + 1));
        fleet.cluster.start_controller(*id).unwrap();
        let said = fleet.cluster.wait_for_end(*id).unwrap();
        assert!(said.contains("if it has ended: stele controller renew"), "{said}");
    }
    for id in &ids {
        let output = fleet.renew(*id, &fleet.own_root(), &["--yes"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        fleet.cluster.start_controller(*id).unwrap();
    }
    let leader = fleet.cluster.leader().unwrap();
    fleet.deploy('b');
    fleet.cluster.wait_for_nodes().unwrap();
    eventually(DEADLINE, "nobody is warned of", || fleet.warned_of(leader).is_empty().then_some(())).unwrap();
    fleet.is_evident("all.stelepack", 0);
    assert_eq!(fleet.cluster.end().0, Vec::<String>::new());
}
