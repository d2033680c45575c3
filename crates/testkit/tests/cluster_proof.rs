//! What real controllers sign about their log, checked with nothing but what they serve.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use stele_api::wire::{CheckpointAnswer, ConsistencyAnswer, InclusionAnswer};
use stele_codec::{Chain, Snapshot, StoredRecord};
use stele_consensus::{LogStore as _, StagedSnapshot, WriteBatch};
use stele_model::signature::{PublicKey, public_key};
use stele_model::{Digest, FleetName};
use stele_proof::merkle::{
    Hashes, Tree, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
};
use stele_proof::note::SignatureKind;
use stele_proof::tile::{
    TileHashes, TileKind, TilePath, TileSource, bundles_of, decode_tile, read_entries, tiles_of,
};
use stele_proof::{Checkpoint, ProofError, SignedCheckpoint, VerifierKey};
use stele_store::{Identity, Reader, Settings, Store};
use stele_testkit::limits::{DEADLINE, RECOVERY_DEADLINE};
use stele_testkit::{Client, Cluster, ClusterConfig, eventually};
use ureq::http::Method;

/// Three controllers without nodes, each configured a little further before it starts.
fn cluster(name: &str, configure: impl Fn(u64, &mut Value)) -> Cluster {
    let config = ClusterConfig { nodes: Vec::new(), ..ClusterConfig::simulated(name) };
    let mut cluster = Cluster::found(&config).unwrap();
    for id in cluster.ids() {
        let path = cluster.folder(id).unwrap().join("controller.json");
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        configure(id, &mut json);
        std::fs::write(&path, json.to_string()).unwrap();
    }
    for id in cluster.ids() {
        cluster.start_controller(id).unwrap();
    }
    cluster.leader().unwrap();
    cluster
}

fn root_of(cluster: &Cluster) -> PublicKey {
    let path = cluster.folder(1).unwrap().join("controller.json");
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    PublicKey(json["root"].as_str().unwrap().to_owned())
}

fn write_tokens(client: &Client, prefix: &str, count: usize) {
    for number in 0..count {
        let body = json!({"principal": format!("{prefix}-{number}"), "role": "auditor", "holder": "service"});
        let _: Value = client.change("/v1/tokens", &body).unwrap();
    }
}

/// A controller's newest checkpoint, verified against the fleet's root.
fn checkpoint(cluster: &Cluster, id: u64, root: &PublicKey) -> Option<Checkpoint> {
    let answer: CheckpointAnswer = cluster.client(id).ok()?.read("/v1/checkpoint").ok()?;
    let signed: SignedCheckpoint = answer.note.parse().unwrap();
    let fleet = FleetName::new(cluster.fleet()).unwrap();
    // Its own signature, by its own key, which the root certified.
    let certificate = answer.certificates.iter().find(|it| it.body.controller == id)?;
    let key = Checkpoint::key(certificate, root, &fleet, None).unwrap();
    signed.verify(std::slice::from_ref(&key), &[]).unwrap();
    assert_eq!(key.name(), format!("stele/{fleet}/controller-{id}"));
    assert_eq!((answer.size, answer.root), (signed.checkpoint.size, signed.checkpoint.root));
    Some(signed.checkpoint)
}

/// What all controllers sign once they have caught up with each other.
fn agreed(cluster: &Cluster, root: &PublicKey, at_least: u64) -> Checkpoint {
    eventually(DEADLINE, "all controllers sign the same", || {
        let all: Option<Vec<_>> = cluster.running().iter().map(|id| checkpoint(cluster, *id, root)).collect();
        let all = all?;
        let first = all.first()?;
        (first.size >= at_least && all.iter().all(|it| it == first)).then(|| first.clone())
    })
    .unwrap()
}

/// Served files, by path.
struct Mirror(BTreeMap<TilePath, Vec<u8>>);

impl Mirror {
    fn fetch(client: &Client, size: u64) -> Self {
        let fetch = |path: TilePath| {
            let answer = client.get(&format!("/log/{path}")).unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            (path, answer.bytes)
        };
        Self(tiles_of(size).chain(bundles_of(size)).map(fetch).collect())
    }

    fn leaves(&self) -> Vec<Vec<u8>> {
        let bundles = self.0.iter().filter(|(path, _)| path.kind == TileKind::Entries);
        bundles
            .flat_map(|(path, bytes)| read_entries(bytes, path.width).unwrap())
            .map(<[u8]>::to_vec)
            .collect()
    }
}

impl TileSource for &Mirror {
    type Error = ProofError;

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, ProofError> {
        Ok(self.0.get(path).unwrap_or_else(|| panic!("{path} is not in the mirror")).clone())
    }
}

fn store_of(cluster: &Cluster, id: u64) -> Store {
    let identity = Identity { fleet: cluster.fleet().to_owned(), node: id };
    let path = cluster.folder(id).unwrap().join("data/log");
    Store::open(&path, &identity, &Settings::default()).unwrap()
}

fn open_store<T>(cluster: &Cluster, id: u64, work: impl FnOnce(&Reader) -> T) -> T {
    work(&store_of(cluster, id).reader())
}

#[test]
fn three_controllers_sign_one_log_that_anybody_can_check() {
    let published = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        Command::new("git")
            .arg("-C")
            .arg(published.path())
            .args(arguments)
            .output()
            .ok()
            .filter(|it| it.status.success())
    };
    let has_git = git(&["init", "--quiet"]).is_some();
    let witness = SigningKey::from_bytes(&[9; 32]);
    let witness_key =
        VerifierKey::new("witness.example/w", SignatureKind::Cosignature, &public_key(&witness)).unwrap();
    let cluster = cluster("proof", |id, config| {
        if id == 1 {
            config["publish_checkpoints"] = json!(published.path());
        }
        config["public_tree"] = json!(id == 2);
        config["witnesses"] = json!([witness_key.to_string()]);
    });
    let root = root_of(&cluster);
    let admin = cluster.client(cluster.leader().unwrap()).unwrap();
    write_tokens(&admin, "early", 3);
    let first = agreed(&cluster, &root, 3);
    // More than one full tile.
    write_tokens(&admin, "late", 260);
    let last = admin.read::<Value>("/v1/events?limit=1").unwrap()["last"].as_u64().unwrap();
    let checkpoint = agreed(&cluster, &root, last);
    assert!(checkpoint.size > 256 && checkpoint.size > first.size);

    the_files_alone_rebuild_the_tree(&cluster, &first, &checkpoint);
    proofs_of_the_api_verify(&cluster, &first, &checkpoint);
    what_is_not_there_is_said(&cluster, checkpoint.size);
    strangers_read_hashes_where_they_may(&cluster);
    controllers_compare_themselves(&cluster);
    the_command_line_verifies(&cluster, &first, &root);
    let size = a_witness_is_believed(&cluster, published.path(), &witness, &witness_key, &root);
    if has_git {
        // Cosignatures are looked for after the commit.
        let committed = git(&["log", "--format=%s", "--", &format!("{size}.note")]).unwrap();
        let committed = String::from_utf8(committed.stdout).unwrap();
        assert_eq!(committed, format!("Checkpoint at {size} records\n"));
    }
}

fn the_files_alone_rebuild_the_tree(cluster: &Cluster, first: &Checkpoint, checkpoint: &Checkpoint) {
    let client = cluster.client(2).unwrap();
    let note = client.get("/log/checkpoint").unwrap();
    let note: SignedCheckpoint = String::from_utf8(note.bytes).unwrap().parse().unwrap();
    assert_eq!(note.checkpoint, *checkpoint);
    let size = checkpoint.size;
    let mirror = Mirror::fetch(&client, size);
    let leaves = mirror.leaves();
    assert_eq!(leaves.len() as u64, size);
    let tree: Tree = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    assert_eq!(tree.root(), checkpoint.root);
    let chain = leaves.iter().fold(Chain::GENESIS, |chain, leaf| chain.link(leaf));
    assert_eq!(chain.0, checkpoint.chain);
    for (seq, leaf) in (1..).zip(&leaves) {
        let header = StoredRecord { leaf: leaf.clone(), payload: Vec::new() }.header().unwrap();
        assert_eq!(header.seq, seq);
    }
    for (path, bytes) in &mirror.0 {
        if let TileKind::Hashes(level) = path.kind {
            for (at, hash) in (path.index * 256..).zip(decode_tile(path, bytes).unwrap()) {
                assert_eq!(hash, tree.hash(u32::from(level) * 8, at).unwrap(), "{path}");
            }
        }
    }
    let hashes = TileHashes::new(&mirror, size);
    for index in 0..size {
        let proof = inclusion_proof(&hashes, index, size).unwrap();
        verify_inclusion(leaf_hash(&leaves[index as usize]), index, size, &proof, checkpoint.root).unwrap();
    }
    let proof = consistency_proof(&hashes, first.size, size).unwrap();
    verify_consistency(first.size, size, &proof, first.root, checkpoint.root).unwrap();
    // A mirror that asks for a tile's beginning gets it, although the tile has grown.
    let part = client.get(&format!("/log/{}", TilePath::tile(0, 0, 3))).unwrap();
    assert_eq!(part.bytes, mirror.0[&TilePath::tile(0, 0, 256)][..96]);
}

fn proofs_of_the_api_verify(cluster: &Cluster, first: &Checkpoint, checkpoint: &Checkpoint) {
    let size = checkpoint.size;
    for (id, seq) in [(1, 1), (2, first.size), (3, size)] {
        let client = cluster.client(id).unwrap();
        let path = format!("/v1/proofs/inclusion?seq={seq}&size={size}");
        let proof: InclusionAnswer = client.read(&path).unwrap();
        let bundle =
            client.get(&format!("/log/{}", TilePath::entries((seq - 1) / 256, ((seq - 1) % 256 + 1) as u16)));
        let bundle = bundle.unwrap().bytes;
        let leaf = *read_entries(&bundle, ((seq - 1) % 256 + 1) as u16).unwrap().last().unwrap();
        verify_inclusion(leaf_hash(leaf), seq - 1, size, &proof.hashes, checkpoint.root).unwrap();
        let path = format!("/v1/proofs/consistency?from={}&to={size}", first.size);
        let proof: ConsistencyAnswer = client.read(&path).unwrap();
        verify_consistency(first.size, size, &proof.hashes, first.root, checkpoint.root).unwrap();
    }
}

fn strangers_read_hashes_where_they_may(cluster: &Cluster) {
    let get = |id: u64, path: &str| {
        let url = format!("{}{path}", cluster.addresses().split(',').nth(id as usize - 1).unwrap());
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        config.build().new_agent().get(url).call().unwrap()
    };
    for path in ["/log/checkpoint", "/log/tile/0/000"] {
        assert_eq!((get(1, path).status().as_u16(), get(2, path).status().as_u16()), (401, 200), "{path}");
    }
    let kept = get(2, "/log/tile/0/000").headers()["cache-control"].to_str().unwrap().to_owned();
    assert!(kept.starts_with("public"), "{kept}");
    for path in ["/log/tile/entries/000", "/v1/checkpoint", "/log/tile/nonsense", "/v1/records?from=1"] {
        assert_eq!(get(2, path).status(), 401, "{path}");
    }
}

fn what_is_not_there_is_said(cluster: &Cluster, size: u64) {
    let client = cluster.client(3).unwrap();
    let status = |path: &str| client.get(path).unwrap().status;
    assert_eq!(status(&format!("/v1/proofs/inclusion?seq={}&size={size}", size + 1)), 422);
    assert_eq!(status("/v1/proofs/inclusion?seq=0"), 422);
    assert_eq!(status(&format!("/v1/proofs/inclusion?seq=1&size={}", size + 1000)), 422);
    assert_eq!(status(&format!("/v1/proofs/consistency?from={size}&to=1")), 422);
    for path in [
        "/log/tile/0/999",
        "/log/tile/entries/999.p/7",
        "/log/tile/0/0",
        "/log/tile/9/000",
        "/log/tile/0/000.p/0",
    ] {
        assert_eq!(status(path), 404, "{path}");
    }
    let stranger = client.with_token("stele_0000");
    for path in ["/log/checkpoint", "/log/tile/0/000", "/v1/checkpoint"] {
        assert_eq!(stranger.get(path).unwrap().status, 401, "{path}");
    }
    let token: Value = cluster
        .client(1)
        .unwrap()
        .change("/v1/tokens", &json!({"principal": "anna", "role": "auditor", "holder": "person"}))
        .unwrap();
    let auditor = cluster.client(1).unwrap().with_token(token["token"].as_str().unwrap());
    for path in ["/log/checkpoint", "/log/tile/0/000", "/v1/checkpoint", "/v1/proofs/inclusion?seq=1"] {
        assert_eq!(auditor.get(path).unwrap().status, 200, "{path}");
    }
    let answer = auditor.send(Method::POST, "/v1/checkpoint", &[], None).unwrap();
    assert_eq!(answer.status, 405, "checkpoints are only read");
}

fn controllers_compare_themselves(cluster: &Cluster) {
    for id in cluster.ids() {
        let client = cluster.client(id).unwrap();
        eventually(DEADLINE, "the others' checkpoints were compared", || {
            let answer: CheckpointAnswer = client.read("/v1/checkpoint").ok()?;
            assert!(answer.compared.iter().all(|it| it.differs.is_none()), "{:?}", answer.compared);
            let current = answer.compared.iter().filter(|it| it.size == answer.size).count();
            (current == 2).then_some(())
        })
        .unwrap();
    }
}

fn the_command_line_verifies(cluster: &Cluster, first: &Checkpoint, root: &PublicKey) {
    let printed = cluster.run_cli(&["checkpoint"]).unwrap();
    assert!(printed.contains("unwitnessed: a forked log is possible"), "{printed}");
    assert!(printed.contains("not pinned"), "{printed}");
    let printed = cluster.run_cli(&["checkpoint", "--root", &root.0, "--output", "json"]).unwrap();
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&printed["pinned"], &printed["unwitnessed"]), (&json!(true), &json!(true)), "{printed}");
    let other = cluster.output_of(&["checkpoint", "--root", &"ab".repeat(32)]).unwrap();
    assert_eq!(other.status.code(), Some(1), "another root certified nobody");

    let printed = cluster.run_cli(&["proof", "inclusion", "5", "--root", &root.0]).unwrap();
    assert!(printed.contains("record 5 (") && printed.contains("is in the log of"), "{printed}");
    let size = first.size.to_string();
    let later = (first.size + 7).to_string();
    let printed = cluster.run_cli(&["proof", "consistency", &size, &later]).unwrap();
    assert!(printed.contains(&format!("begins with the log of {size} records")), "{printed}");
    let kept = cluster.dir().join("kept.note");
    // Never signed, but of the right form: it is compared by its root.
    let note = |checkpoint: &Checkpoint| {
        let mut signed = SignedCheckpoint::new(checkpoint.clone()).unwrap();
        signed.note.sign("somebody", &SigningKey::from_bytes(&[1; 32])).unwrap();
        signed.to_string()
    };
    let with_note = ["proof", "consistency", &size, &later, "--note", kept.to_str().unwrap()];
    std::fs::write(&kept, note(first)).unwrap();
    cluster.run_cli(&with_note).unwrap();
    std::fs::write(&kept, note(&Checkpoint { root: Digest::EMPTY, ..first.clone() })).unwrap();
    let refused = cluster.output_of(&with_note).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the log was rewritten"));
    assert_eq!(cluster.output_of(&["proof", "inclusion", "999999"]).unwrap().status.code(), Some(3));
}

fn a_witness_is_believed(
    cluster: &Cluster,
    published: &Path,
    witness: &SigningKey,
    witness_key: &VerifierKey,
    root: &PublicKey,
) -> u64 {
    let read = |name: &str| std::fs::read_to_string(published.join(name)).ok();
    let signed: SignedCheckpoint = eventually(DEADLINE, "the newest checkpoint is published", || {
        let newest = checkpoint(cluster, 1, root)?;
        let signed: SignedCheckpoint = read("latest.note")?.parse().unwrap();
        (signed.checkpoint == newest).then_some(signed)
    })
    .unwrap();
    let size = signed.checkpoint.size;
    assert_eq!(read(&format!("{size}.note")).unwrap(), signed.to_string());
    let mut note = signed.note;
    note.cosign(witness_key.name(), witness, 1_700_000_000).unwrap();
    let cosignature = note.signatures().last().unwrap().to_string();
    std::fs::write(published.join(format!("{size}.cosig")), format!("nonsense\n{cosignature}\n")).unwrap();
    let client = cluster.client(1).unwrap();
    let answer: CheckpointAnswer = eventually(DEADLINE, "the cosignature is served", || {
        client.read::<CheckpointAnswer>("/v1/checkpoint").ok().filter(|answer| answer.cosigned.is_some())
    })
    .unwrap();
    assert!(answer.cosigned.unwrap().contains(&cosignature));
    // The log goes on; what was cosigned stays its beginning.
    write_tokens(&client, "later", 2);
    eventually(DEADLINE, "the log grew", || checkpoint(cluster, 1, root).filter(|it| it.size > size))
        .unwrap();
    let addresses = format!("http://{}", cluster.api(1).unwrap());
    let key = witness_key.to_string();
    let known = ["--addr", &addresses, "checkpoint", "--root", &root.0, "--witness", &key];
    let printed = cluster.run_cli(&known).unwrap();
    assert!(printed.contains(&format!("cosigned by witness.example/w at {size} records")), "{printed}");
    assert!(!printed.contains("unwitnessed"), "{printed}");
    // Of what came after, the witness said nothing.
    for (seq, is_witnessed) in [(size, true), (size + 1, false)] {
        let seq = seq.to_string();
        let proof = ["--addr", &addresses, "proof", "inclusion", &seq, "--root", &root.0, "--witness", &key];
        let printed = cluster.run_cli(&proof).unwrap();
        assert_eq!(!printed.contains("unwitnessed"), is_witnessed, "{printed}");
    }
    // A witness that is not known here counts for nothing, whatever the controller believes.
    let printed = cluster.run_cli(&["--addr", &addresses, "checkpoint", "--root", &root.0]).unwrap();
    assert!(printed.contains("unwitnessed: a forked log is possible"), "{printed}");
    size
}

#[test]
fn a_lost_tree_is_rebuilt_and_a_false_one_stops_its_controller() {
    let mut cluster = cluster("tree", |_, _| ());
    let root = root_of(&cluster);
    let leader = cluster.leader().unwrap();
    write_tokens(&cluster.client(leader).unwrap(), "some", 5);
    let before = agreed(&cluster, &root, 5);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let tiles = |cluster: &Cluster| {
        let client = cluster.client(follower).unwrap();
        Mirror::fetch(&client, before.size).0
    };
    let served = tiles(&cluster);

    cluster.stop(follower).unwrap();
    open_store(&cluster, follower, |reader| {
        assert!(reader.get_derived(b"proof/mark").unwrap().is_some());
        reader.delete_all_derived(b"").unwrap();
    });
    cluster.restart(follower).unwrap();
    let after = agreed(&cluster, &root, before.size);
    assert_eq!(tiles(&cluster), served, "it is the same tree, byte by byte");
    let proof: ConsistencyAnswer = cluster
        .client(follower)
        .unwrap()
        .read(&format!("/v1/proofs/consistency?from={}&to={}", before.size, after.size))
        .unwrap();
    verify_consistency(before.size, after.size, &proof.hashes, before.root, after.root).unwrap();

    // A tree of other leaves, consistent in itself: only the other controllers can tell.
    cluster.stop(follower).unwrap();
    open_store(&cluster, follower, |reader| {
        let mark = reader.get_derived(b"proof/mark").unwrap().unwrap();
        let size = u64::from_be_bytes(mark[..8].try_into().unwrap());
        let leaves: Vec<_> = (0..size).map(|at| leaf_hash(&at.to_be_bytes())).collect();
        let tree: Tree = leaves.iter().copied().collect();
        let tile = leaves.iter().flat_map(|hash| hash.0).collect();
        let false_mark = [&mark[..8], &tree.root().0, &mark[40..]].concat();
        let key = [&b"proof/tile/"[..], &[0; 9]].concat();
        assert!(reader.get_derived(&key).unwrap().is_some(), "this is where the tile is");
        reader.put_derived(&[(key, Some(tile)), (b"proof/mark".to_vec(), Some(false_mark))]).unwrap();
    });
    cluster.start_controller(follower).unwrap();
    let log = cluster.wait_for_end(follower).unwrap();
    assert!(log.contains("this replica has diverged"), "{log}");
    assert!(log.contains("the root is"), "{log}");

    // The records were right: the tree is made of them again, and all agree.
    cluster.restart(follower).unwrap();
    let healed = agreed(&cluster, &root, after.size);
    let client = cluster.client(follower).unwrap();
    eventually(RECOVERY_DEADLINE, "all agree again", || {
        let answer: CheckpointAnswer = client.read("/v1/checkpoint").ok()?;
        let agree = answer.compared.iter().filter(|it| it.differs.is_none() && it.size >= healed.size);
        (agree.count() == 2).then_some(())
    })
    .unwrap();
}

#[test]
fn a_false_state_stops_its_controller() {
    let mut cluster = cluster("state", |_, _| ());
    let root = root_of(&cluster);
    let leader = cluster.leader().unwrap();
    write_tokens(&cluster.client(leader).unwrap(), "some", 5);
    agreed(&cluster, &root, 5);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();

    // The snapshot it begins with is whole, and of a State that never was.
    cluster.kill(follower).unwrap();
    let mut store = store_of(&cluster, follower);
    let genesis = store.latest_snapshot().unwrap().unwrap();
    let Snapshot { chain, mut state } = Snapshot::decode(&genesis.data).unwrap();
    state.control.erased.insert("somebody".to_owned(), 1);
    let data = Snapshot { chain, state }.encode();
    let staged = store.stage_snapshot(0, data).unwrap();
    let snapshot = Some(StagedSnapshot { head: genesis.head, staged });
    store.write(WriteBatch { snapshot, sync: true, ..WriteBatch::default() }).unwrap();
    drop(store);
    cluster.start_controller(follower).unwrap();
    let log = cluster.wait_for_end(follower).unwrap();
    assert!(log.contains("this replica has diverged") && log.contains("State"), "{log}");

    // The others go on.
    let leader = cluster.leader_besides(follower).unwrap();
    write_tokens(&cluster.client(leader).unwrap(), "more", 1);
}
