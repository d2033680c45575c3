//! Evidence as an auditor takes it: from a real fleet, with the real program, verified by two programs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use stele_model::Digest;
use stele_model::signature::public_key;
use stele_proof::merkle::leaf_hash;
use stele_proof::note::SignatureKind;
use stele_proof::{SignedCheckpoint, VerifierKey};
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Cluster, ClusterConfig, eventually, registry};

const WEB: &str = "shop/web@prod";
/// A reason with which somebody wants to be run by the auditor's spreadsheet, and break its rows.
const EVIL: &str = "=HYPERLINK(\"http://evil.example\",\"a\")\n@more; +even, \"more\"";

/// A fleet, a person who deploys, and a witness.
struct Audited {
    cluster: Cluster,
    anna: String,
    root: String,
    witness: SigningKey,
    witness_key: String,
    published: tempfile::TempDir,
}

/// What a program did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Audited {
    fn start() -> Self {
        let witness = SigningKey::from_bytes(&[9; 32]);
        let witness_key =
            VerifierKey::new("witness.example/w", SignatureKind::Cosignature, &public_key(&witness)).unwrap();
        let witness_key = witness_key.to_string();
        let published = tempfile::tempdir().unwrap();
        let config = ClusterConfig::simulated("audit");
        let mut cluster = Cluster::found(&config).unwrap();
        let mut root = String::new();
        for id in cluster.ids() {
            let path = cluster.folder(id).unwrap().join("controller.json");
            let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            json["witnesses"] = json!([witness_key]);
            if id == 1 {
                json["publish_checkpoints"] = json!(published.path());
            }
            json["root"].as_str().unwrap().clone_into(&mut root);
            std::fs::write(&path, json.to_string()).unwrap();
            cluster.start_controller(id).unwrap();
        }
        let admin = cluster.client(cluster.leader().unwrap()).unwrap();
        for node in &config.nodes {
            cluster.join_node(node).unwrap();
        }
        cluster.wait_for_nodes().unwrap();
        let body = json!({"principal": "anna", "role": "deployer", "holder": "person"});
        let token: Value = admin.change("/v1/tokens", &body).unwrap();
        let anna = token["token"].as_str().unwrap().to_owned();
        Self { cluster, anna, root, witness, witness_key, published }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.dir().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.cluster.output_of(arguments).unwrap().into()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
        ran
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--output", "json"]].concat()).out).unwrap()
    }

    /// Deploys as anna.
    fn deploy(&self, image: char, more: &[&str]) {
        let image = format!("{}/stele/web@sha256:{}", registry(), image.to_string().repeat(64));
        let spec = format!(
            "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 2\n"
        );
        let path = self.path("web.yaml");
        std::fs::write(&path, spec).unwrap();
        let apply = ["apply", "-f", path.to_str().unwrap(), "--wait", "--token", &self.anna];
        self.ok(&[&apply, more].concat());
    }

    /// More than a full tile of the tree.
    fn grow(&self) {
        let admin = self.cluster.client(self.cluster.leader().unwrap()).unwrap();
        for number in 0..300 {
            let body = json!({"principal": format!("ci-{number}"), "role": "auditor", "holder": "service"});
            let _: Value = admin.change("/v1/tokens", &body).unwrap();
        }
    }

    fn last(&self) -> u64 {
        let admin = self.cluster.client(self.cluster.leader().unwrap()).unwrap();
        admin.read::<Value>("/v1/events?limit=1").unwrap()["last"].as_u64().unwrap()
    }

    /// The log as it is stored: leaves, by seq.
    fn leaves(&self, last: u64) -> BTreeMap<u64, Vec<u8>> {
        use base64::Engine as _;
        let admin = self.cluster.client(self.cluster.leader().unwrap()).unwrap();
        let mut leaves = BTreeMap::new();
        while (leaves.len() as u64) < last {
            let page: Value = admin.read(&format!("/v1/records?from={}", leaves.len() + 1)).unwrap();
            for record in page["records"].as_array().unwrap() {
                let leaf = base64::engine::general_purpose::STANDARD.decode(record["leaf"].as_str().unwrap());
                leaves.insert(record["seq"].as_u64().unwrap(), leaf.unwrap());
            }
        }
        leaves.retain(|seq, _| *seq <= last);
        leaves
    }

    /// The witness cosigns the newest checkpoint that controller 1 published; its size.
    fn cosign(&self, at_least: u64) -> u64 {
        let read = |name: &str| std::fs::read_to_string(self.published.path().join(name)).ok();
        let signed: SignedCheckpoint = eventually(DEADLINE, "a checkpoint is published", || {
            let signed: SignedCheckpoint = read("latest.note")?.parse().ok()?;
            (signed.checkpoint.size >= at_least).then_some(signed)
        })
        .unwrap();
        let size = signed.checkpoint.size;
        let mut note = signed.note;
        note.cosign("witness.example/w", &self.witness, 1_700_000_000).unwrap();
        let cosignature = note.signatures().last().unwrap().to_string();
        std::fs::write(self.published.path().join(format!("{size}.cosig")), format!("{cosignature}\n"))
            .unwrap();
        let client = self.cluster.client(1).unwrap();
        eventually(DEADLINE, "the cosignature is served", || {
            let answer: Value = client.read("/v1/checkpoint").ok()?;
            answer["cosigned"].as_str()?.contains(&format!("\n{size}\n")).then_some(())
        })
        .unwrap();
        size
    }

    fn verify(&self, pack: &str, witness: bool) -> Ran {
        let mut arguments = vec!["audit", "verify", pack, "--key", &self.root];
        if witness {
            arguments.extend(["--witness", &self.witness_key]);
        }
        self.run(&arguments)
    }

    /// The verifier that shares no code with this one.
    fn stranger(&self, pack: &str, witness: bool) -> Ran {
        let program = Path::new("../../docs/verify/stele_verify.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(program).args([pack, "--key", &self.root]).stdin(Stdio::null());
        if witness {
            command.args(["--witness", &self.witness_key]);
        }
        let output = command.output();
        output.unwrap_or_else(|error| panic!("this test needs python3: {error}")).into()
    }
}

/// The rows of a CSV file, by the names of its columns.
fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut table: Vec<Vec<String>> = vec![vec![String::new()]];
    let mut quoted = false;
    let mut characters = csv.chars().peekable();
    while let Some(character) = characters.next() {
        let row = table.last_mut().unwrap();
        match (quoted, character) {
            (true, '"') if characters.peek() == Some(&'"') => {
                row.last_mut().unwrap().push(characters.next().unwrap());
            }
            (_, '"') => quoted = !quoted,
            (false, ',') => row.push(String::new()),
            (false, '\n') => table.push(vec![String::new()]),
            (_, character) => row.last_mut().unwrap().push(character),
        }
    }
    assert_eq!(table.pop().unwrap(), [""], "the last row ends with a newline");
    let columns = table.remove(0);
    let named = |row: Vec<String>| {
        assert_eq!(row.len(), columns.len(), "{row:?}");
        columns.iter().cloned().zip(row).collect()
    };
    table.into_iter().map(named).collect()
}

#[test]
fn an_auditor_takes_evidence_that_strangers_verify() {
    let it = Audited::start();
    it.deploy(
        'a',
        &["--reason", "opening", "--ticket", "OPS-1", "--commit", "abc", "--ci-run", "https://ci/1"],
    );
    let begin = it.last();
    it.grow();
    it.deploy('b', &["--reason", EVIL, "--on-behalf-of", "bob"]);
    let end = it.last();

    every_change_is_listed(&it, begin, end);
    a_sample_is_drawn_again(&it, end);
    points_and_files_are_checked(&it, begin, end);
    packs_are_verified_by_two_programs(&it, begin);
    packs_of_other_scopes_are_verified_too(&it, begin, end);
    a_whole_fleet_is_verified(&it);
    assert_eq!(it.cluster.end().0, Vec::<String>::new());
}

fn every_change_is_listed(it: &Audited, begin: u64, end: u64) {
    let to = format!("seq:{end}");
    let all = it.ok(&["audit", "population", "--between", "seq:0", &to]);
    let found = rows(&all.out);
    let expected: Vec<_> = it
        .leaves(end)
        .into_iter()
        .filter_map(|(seq, leaf)| {
            let stored = stele_codec::StoredRecord { leaf, payload: Vec::new() };
            let header = stored.header().unwrap();
            let who_may = [
                "fleet_created",
                "controller_certified",
                "controller_removed",
                "membership_changed",
                "token_created",
                "token_revoked",
            ];
            let is_change = (who_may.contains(&header.kind.as_str())
                || header.principal.as_str() != "system"
                || header.links.on_behalf_of.is_some())
                && header.kind != "refused";
            is_change.then(|| (seq, header.payload, leaf_hash(&stored.leaf)))
        })
        .collect();
    let listed: Vec<_> = found
        .iter()
        .map(|row| {
            (row["seq"].parse().unwrap(), row["payload"].parse().unwrap(), row["leaf_hash"].parse().unwrap())
        })
        .collect();
    assert_eq!(listed, expected);
    assert!(found.iter().any(|row| row["kind"] == "node_enrolled" && row["on_behalf_of"] == "eu-1"));
    assert!(found.iter().any(|row| row["kind"] == "controller_certified"), "who may decide is a change");
    let said = &all.err;
    assert!(said.contains(&format!("{} changes (fleet)", expected.len())), "{said}");
    let among = format!("among {end} records of fleet {}: seq 1 to {end}, ", it.cluster.fleet());
    assert!(said.contains(&among), "{said}");
    assert!(said.contains("root sha256:") && said.contains("a signed tree of"), "{said}");
    assert!(said.contains("unwitnessed: a forked log is possible"), "{said}");

    let from = format!("seq:{begin}");
    let scoped = it.ok(&["audit", "population", "--between", &from, &to, WEB, "--output", "csv"]);
    assert!(!scoped.out.contains("\n=") && !scoped.out.contains(",=") && !scoped.out.contains("\"="));
    let found = rows(&scoped.out);
    let changed = found.iter().find(|row| row["kind"] == "target_changed").unwrap();
    // Taking the apostrophes away gives back what she wrote.
    let harmless = EVIL.replace('=', "'=").replace('@', "'@").replace('+', "'+");
    assert_eq!(changed["reason"], harmless);
    assert_eq!((changed["principal"].as_str(), changed["on_behalf_of"].as_str()), ("anna", "bob"));
    assert!(changed["decision_count"].parse::<u32>().unwrap() > 1);
    assert!(found.iter().all(|row| row["seq"].parse::<u64>().unwrap() > begin));
    let json = it.json(&["audit", "population", "--between", &from, &to, WEB]);
    assert_eq!(json["count"], found.len());
    assert_eq!((&json["between"], &json["scope"]), (&json!([from, to]), &json!(WEB)));
    assert!(json["changes"].as_array().unwrap().iter().any(|change| change["reason"] == EVIL));
    let first = it.json(&["audit", "population", "--between", "seq:0", &from, WEB]);
    let changes = first["changes"].as_array().unwrap();
    let opening = changes.iter().find(|change| change["kind"] == "target_changed").unwrap();
    let links = ["ticket", "commit", "ci_run"].map(|name| opening[name].as_str().unwrap());
    assert_eq!(links, ["OPS-1", "abc", "https://ci/1"]);
    // A time is a point, too, and the log itself says which.
    let time = first["last_time"].as_str().unwrap();
    let since = it.json(&["audit", "population", "--between", time, &to, WEB]);
    assert_eq!((&since["first"], &since["changes"]), (&json["first"], &json["changes"]));
    let earlier = it.json(&["audit", "population", "--between", "seq:0", &from, "node:eu-1"]);
    assert!(earlier["changes"].to_string().contains("node_enrolled"));
}

fn a_sample_is_drawn_again(it: &Audited, end: u64) {
    let to = format!("seq:{end}");
    let sample =
        |seed: &str, n: &str| it.ok(&["audit", "sample", "-n", n, "--seed", seed, "--between", "seq:0", &to]);
    let (one, again, other) = (sample("2026-Q4", "6"), sample("2026-Q4", "6"), sample("another", "6"));
    assert_eq!(one.out, again.out, "the same seed draws the same");
    assert_ne!(one.out, other.out);
    assert!(one.err.contains("6 of "), "{}", one.err);
    let drawn = rows(&one.out);
    assert_eq!(rows(&sample("2026-Q4", "3").out), drawn[..3], "a larger sample begins with the smaller one");

    // Anybody can draw it from the population.
    let mut population = rows(&it.ok(&["audit", "population", "--between", "seq:0", &to]).out);
    population.sort_by_key(|row| {
        let leaf: Digest = row["leaf_hash"].parse().unwrap();
        Digest::of(&[b"2026-Q4", &leaf.0])
    });
    let seqs =
        |rows: &[BTreeMap<String, String>]| rows.iter().map(|row| row["seq"].clone()).collect::<Vec<_>>();
    assert_eq!(seqs(&drawn), seqs(&population[..6]));
    assert_eq!(seqs(&rows(&sample("2026-Q4", "100000").out)), seqs(&population), "all, when there are fewer");

    for row in &drawn[..2] {
        let words: Vec<_> = row["proof"].split(' ').collect();
        assert_eq!(words[0], "stele");
        let proved = it.ok(&words[1..]);
        assert!(proved.out.contains(&format!("record {} (", row["seq"])), "{}", proved.out);
        assert!(proved.out.contains(&row["payload"]), "{}", proved.out);
    }
    let json = it.json(&["audit", "sample", "--seed", "2026-Q4", "--between", "seq:0", &to]);
    assert_eq!(json["sample"][0]["seq"].to_string(), drawn[0]["seq"]);
    assert_eq!(json["population"]["count"], population.len());
    let none = it.run(&["audit", "sample", "-n", "0", "--seed", "1", "--between", "seq:0", &to]);
    assert_eq!(none.code, 2);
}

fn points_and_files_are_checked(it: &Audited, begin: u64, end: u64) {
    let population = |from: &str, to: &str, scope: &str| {
        let ran = it.run(&["audit", "population", "--between", from, to, scope]);
        assert_eq!(ran.out, "", "nothing is listed before it is proved");
        (ran.code, ran.err)
    };
    let (first, last) = (format!("seq:{begin}"), format!("seq:{end}"));
    for (from, to, scope, code, why) in [
        ("yesterday", "now", "fleet", 2, "\"yesterday\" is not a point in time"),
        ("seq:0", "seq:999999", "fleet", 4, "the second point: seq:999999 is in the future"),
        ("v1", "now", "fleet", 3, "the first point: v1 needs one app in one environment"),
        ("v9", "now", WEB, 4, "the first point: v9 was never in force"),
        ("deploy:999999", "now", "fleet", 4, "there is no deployment 999999"),
        ("1999-01-01T00:00:00Z", "now", "fleet", 4, "is before the log begins"),
        ("2026-13-01T00:00:00Z", "now", "fleet", 2, "is not a time"),
        (&last, &first, "fleet", 2, "--between goes backwards"),
        (&first, &first, "fleet", 2, "nothing happened between"),
        ("seq:0", &last, "shop/wbe@prod", 4, "there is no app shop/wbe; did you mean shop/web?"),
        ("seq:0", &last, "web", 2, "is not a scope"),
    ] {
        let (found, said) = population(from, to, scope);
        assert_eq!(found, code, "{from} {to} {scope}: {said}");
        assert!(said.contains(why), "{from} {to} {scope}: {said}");
    }
    let (code, said) = population(&last, &first, "fleet");
    assert!(code == 2 && said.contains("write the earlier point first"), "{said}");
    let status = it.run(&["status", "--output", "csv"]);
    assert_eq!(status.code, 2);
    assert!(status.err.contains("--output json"), "{}", status.err);
    let missing = it.verify("nowhere.stelepack", false);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("cannot read nowhere.stelepack"), "{}", missing.err);
}

fn packs_are_verified_by_two_programs(it: &Audited, begin: u64) {
    let path = it.path("web.stelepack");
    let file = path.to_str().unwrap();
    let from = format!("seq:{begin}");
    let export = ["audit", "export", WEB, "--between", &from, "now", "--out", file, "--root", &it.root];
    let written = it.ok(&export);
    assert!(written.out.contains("unwitnessed: a forked log is possible"), "{}", written.out);
    for witness in [false, true] {
        let (ours, theirs) = (it.verify(file, witness), it.stranger(file, witness));
        assert_eq!((ours.code, theirs.code), (8, 7), "{}{}", ours.err, theirs.err);
        assert!(ours.out.contains("unwitnessed: a forked log is possible"), "{}", ours.out);
        assert!(ours.out.contains("Releases in force") && ours.out.contains("by anna"), "{}", ours.out);
    }

    // Evidence is not written over.
    let kept = std::fs::read(&path).unwrap();
    let refused = it.run(&export);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("is there already") && refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(std::fs::read(&path).unwrap(), kept);

    // A witness sees the log after the range's end: it vouches for all of it.
    let end = it.last();
    it.cosign(end);
    let to = format!("seq:{end}");
    let witnessed =
        ["audit", "export", WEB, "--between", &from, &to, "--out", file, "--force", "--root", &it.root];
    let written = it.json(&[&witnessed[..], &["--witness", &it.witness_key]].concat());
    assert_eq!((&written["verdict"], &written["witnessed_up_to"]), (&json!("VERIFIED"), &Value::Null));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(written["sha256"], Digest::of(&[&bytes]).to_string());
    assert_eq!(written["bytes"], bytes.len());
    let (ours, theirs) = (it.verify(file, true), it.stranger(file, true));
    assert_eq!((ours.code, theirs.code), (0, 0), "{}{}", ours.err, theirs.err);
    assert!(ours.out.ends_with("VERIFIED\n") && theirs.out.contains("VERIFIED"), "{}", ours.out);
    assert!(ours.out.contains("cosigned by witness.example/w at 2023-11-14T"), "{}", ours.out);
    assert_eq!((it.verify(file, false).code, it.stranger(file, false).code), (8, 7), "nobody was named");
    let other = it.run(&["audit", "verify", file, "--key", &"ab".repeat(32)]);
    assert_eq!(other.code, 1);
    assert!(other.err.contains("refused: ") && other.err.contains("root key"), "{}", other.err);

    // Fetched from a web server, it is the same.
    let (url, server) = serve(bytes.clone());
    let fetched = it.verify(&url, true);
    assert_eq!((fetched.code, &fetched.out), (0, &ours.out), "{}", fetched.err);
    let request = server.join().unwrap();
    assert!(!request.to_lowercase().contains("authorization"), "nobody's token goes there: {request}");

    let damaged = it.path("damaged.stelepack");
    for at in [5, bytes.len() / 4, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        std::fs::write(&damaged, other).unwrap();
        let file = damaged.to_str().unwrap();
        let (ours, theirs) = (it.verify(file, true), it.stranger(file, true));
        assert_eq!((ours.code, theirs.code), (1, 1), "byte {at}: {}{}", ours.out, theirs.out);
        assert!(ours.err.contains("refused: ") && ours.err.contains("byte "), "byte {at}: {}", ours.err);
        assert!(theirs.err.starts_with("refused: "), "byte {at}: {}", theirs.err);
    }
}

/// Serves one file, once; answers its address, and in the end the request.
fn serve(bytes: Vec<u8>) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/evidence/web.stelepack", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the request ends early");
            request.extend_from_slice(&buffer[..count]);
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
        stream.write_all(&[head.as_bytes(), &bytes].concat()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, server)
}

fn packs_of_other_scopes_are_verified_too(it: &Audited, begin: u64, end: u64) {
    let (middle, to) = (format!("seq:{begin}"), format!("seq:{end}"));
    let folder = it.path("packs");
    std::fs::create_dir(&folder).unwrap();
    for (scope, from) in [
        ("fleet", "seq:0"),
        ("region:eu", middle.as_str()),
        ("node:us-1", middle.as_str()),
        ("shop/web@prod,region:ap", middle.as_str()),
        ("project:shop", "1h ago"),
    ] {
        // The name is told from what is in it.
        let mut command = it.cluster.cli(&["audit", "export", scope, "--between", from, &to]);
        let made = Ran::from(command.current_dir(&folder).output().unwrap());
        if from == "1h ago" {
            // The fleet is not an hour old.
            assert_eq!(made.code, 4, "{}", made.err);
            assert!(made.err.contains("before the log begins"), "{}", made.err);
            continue;
        }
        assert_eq!(made.code, 0, "{scope}: {}", made.err);
        assert!(made.err.contains("--root KEY"), "the root key was not given: {}", made.err);
        let mut packs: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let pack = packs.pop().unwrap();
        assert!(packs.is_empty() && pack.extension().unwrap() == "stelepack", "{}", pack.display());
        let file = pack.to_str().unwrap();
        let (ours, theirs) = (it.verify(file, true), it.stranger(file, true));
        assert_eq!((ours.code, theirs.code), (0, 0), "{scope}: {}{}", ours.err, theirs.err);
        std::fs::remove_file(pack).unwrap();
    }
}

fn a_whole_fleet_is_verified(it: &Audited) {
    let url = format!("http://{}", it.cluster.api(1).unwrap());
    let report = it.verify(&url, false);
    assert_eq!(report.code, 8, "{}", report.err);
    assert!(
        report.out.contains("records 1 to ") && report.out.contains("State digests recorded"),
        "{}",
        report.out
    );
    let other = it.run(&["audit", "verify", &url, "--key", &"ab".repeat(32)]);
    assert_eq!(other.code, 1, "another root certified nobody: {}", other.err);
}
