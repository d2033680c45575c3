//! Disks that are lost, full or damaged, and what is derived from the log deleted.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use stele_api::wire::ClusterAnswer;
use stele_store::{Identity, Settings, Store};
use stele_testkit::limits::{DEADLINE, RECOVERY_DEADLINE};
use stele_testkit::load::{Load, broken_promises};
use stele_testkit::{Cluster, ClusterConfig, eventually, fetch_log};
use ureq::http::Method;

/// More records than lie between two snapshots, so that entries are trimmed and a new replica
/// needs a snapshot, with the records from before it fetched otherwise.
const RECORDS: u64 = 12_500;
/// Few enough that a Raft entry cannot carry many of their writes: entries must be trimmed too.
const WRITERS: usize = 6;
/// A disk that a controller can live on until it is filled, in bytes.
const SMALL_DISK_BYTES: u64 = 256 * 1024 * 1024;

/// Writes until the log has this many records.
fn fill_log(cluster: &Cluster, records: u64) {
    let leader = cluster.leader().unwrap();
    let seq = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, seq) = (cluster.client(leader).unwrap(), Arc::clone(&seq));
            std::thread::spawn(move || {
                let mut count = 0;
                while seq.load(Ordering::SeqCst) < records {
                    count += 1;
                    let body = json!({"labels": {"writer": writer.to_string(), "count": count.to_string()}});
                    let path = "/v1/nodes/eu-1/labels";
                    let answer = client.send(Method::PUT, path, &[], Some(&body.to_string())).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    seq.fetch_max(answer.body["seq"].as_u64().unwrap(), Ordering::SeqCst);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

fn catches_up(cluster: &Cluster, id: u64, seq: u64) {
    eventually(DEADLINE, &format!("controller {id} has all"), || {
        let client = cluster.client(id).ok()?;
        let status: ClusterAnswer = client.read("/v1/cluster?consistency=stale").ok()?;
        (status.seq >= seq && status.missing.is_empty()).then_some(())
    })
    .unwrap();
}

/// A write of an administrator's; it must be acknowledged.
fn write(cluster: &Cluster, disk: &str) {
    let client = cluster.client(cluster.leader().unwrap()).unwrap();
    let body = json!({"labels": {"disk": disk}}).to_string();
    eventually(RECOVERY_DEADLINE, "a write is acknowledged", || {
        let path = "/v1/nodes/us-1/labels";
        let key = [("idempotency-key", disk)];
        client.send(Method::PUT, path, &key, Some(&body)).ok().filter(|answer| answer.status == 200)
    })
    .unwrap();
}

#[test]
fn a_lost_replica_and_everything_derived_are_made_again_from_the_log() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("recover")).unwrap();
    fill_log(&cluster, RECORDS);
    let leader = cluster.leader().unwrap();
    let last = cluster.health(leader).unwrap().seq;
    let followers: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let wanted = fetch_log(&cluster.client(leader).unwrap(), last).unwrap();
    assert_eq!(wanted.folded, wanted.told);
    let middle = last / 2;
    // Every kind of read of the past; every replica gives the same answer.
    let at = |cluster: &Cluster, id: u64| -> Vec<serde_json::Value> {
        let client = cluster.client(id).unwrap();
        let reads = [
            format!("/v1/show?at=seq:{middle}&digest=true&consistency=stale"),
            format!("/v1/status?at=seq:{middle}&consistency=stale"),
            format!("/v1/nodes?at=seq:{middle}&consistency=stale"),
            format!("/v1/diff?from=seq:{}&to=seq:{middle}&consistency=stale", middle / 2),
        ];
        reads.map(|path| client.read(&path).unwrap()).to_vec()
    };
    let then = at(&cluster, leader);

    // Snapshots and indexes of one follower are deleted behind its back.
    let derived = followers[0];
    catches_up(&cluster, derived, last);
    cluster.stop(derived).unwrap();
    let path = cluster.folder(derived).unwrap().join("data/log");
    let identity = Identity { fleet: cluster.fleet().to_owned(), node: derived };
    let store = Store::open(&path, &identity, &Settings::default()).unwrap();
    let snapshots = store.reader().snapshots().unwrap();
    assert!(snapshots.iter().any(|snapshot| snapshot.seq > 0), "there is something to delete: {snapshots:?}");
    for snapshot in snapshots {
        store.reader().delete_snapshot(snapshot.seq).unwrap();
    }
    store.reader().delete_all_derived(b"").unwrap();
    drop(store);
    cluster.restart(derived).unwrap();
    catches_up(&cluster, derived, last);
    let rebuilt = fetch_log(&cluster.client(derived).unwrap(), last).unwrap();
    assert_eq!((rebuilt.chain, rebuilt.told), (wanted.chain, wanted.told));
    assert_eq!(at(&cluster, derived), then, "the past is the same too");

    // The other loses its disk. Its id is never used again; a new one takes its place.
    let lost = followers[1];
    cluster.kill(lost).unwrap();
    cluster.wipe(lost).unwrap();
    cluster.remove(lost).unwrap();
    let new = cluster.prepare().unwrap();
    assert_ne!(new, lost);
    cluster.start_controller(new).unwrap();
    cluster.add(new).unwrap();
    let votes: ClusterAnswer = cluster.client(new).unwrap().read("/v1/cluster?consistency=stale").unwrap();
    assert_eq!((votes.missing, votes.seq >= last), (Vec::new(), true), "who votes has the whole log");
    catches_up(&cluster, new, last);
    let fetched = fetch_log(&cluster.client(new).unwrap(), last).unwrap();
    assert_eq!(fetched.records.len() as u64, last, "history from its first record");
    assert_eq!((fetched.chain, fetched.told), (wanted.chain, wanted.told));
    assert_eq!(at(&cluster, new), then);

    // It counts: with it, and without one of the old ones, there is a quorum.
    cluster.kill(derived).unwrap();
    write(&cluster, "replaced");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Why a controller said it stopped, after what it had logged.
fn last_words(log: &str) -> &str {
    let at = log.find("\nerror: ").unwrap_or_else(|| panic!("it does not say why it stopped:\n{log}"));
    println!("{}", &log[at + 1..]);
    &log[at + 1..]
}

#[test]
fn a_flipped_bit_stops_its_controller_and_no_other() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("flip")).unwrap();
    for count in 0..50 {
        write(&cluster, &format!("disk-{count}"));
    }
    let leader = cluster.leader().unwrap();
    let last = cluster.health(leader).unwrap().seq;
    let victim = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    catches_up(&cluster, victim, last);
    cluster.kill(victim).unwrap();
    // RocksDB's write-ahead log: whatever was written last and not moved into tables yet.
    let folder = cluster.folder(victim).unwrap().join("data/log");
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let log = files(&folder).into_iter().filter(is_log).max_by_key(|path| fs::metadata(path).unwrap().len());
    let log = log.unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&log, bytes).unwrap();

    cluster.start_controller(victim).unwrap();
    let words = cluster.wait_for_end(victim).unwrap();
    let why = last_words(&words);
    assert!(why.to_lowercase().contains("corrupt") || why.contains("damage"), "{words}");
    write(&cluster, "still-two");
    let log = fetch_log(&cluster.client(leader).unwrap(), last).unwrap();
    assert_eq!(log.folded, log.told);
}

#[test]
fn a_controller_whose_log_is_gone_is_not_started_under_its_old_id() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("gone")).unwrap();
    let leader = cluster.leader().unwrap();
    let lost = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill(lost).unwrap();
    fs::remove_dir_all(cluster.folder(lost).unwrap().join("data")).unwrap();
    cluster.start_controller(lost).unwrap();
    let words = cluster.wait_for_end(lost).unwrap();
    let why = last_words(&words);
    assert!(why.contains("there is no store in") && why.contains("new id"), "{words}");
    // The advice given.
    cluster.remove(lost).unwrap();
    let new = cluster.prepare().unwrap();
    cluster.start_controller(new).unwrap();
    cluster.add(new).unwrap();
    cluster.restart(new).unwrap();
    write(&cluster, "replaced-too");
}

#[test]
fn a_full_disk_stops_its_controller_and_loses_nothing() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("full")).unwrap();
    // A controller whose data is on a small disk, which only its own processes see.
    let small = cluster.prepare().unwrap();
    let data = cluster.folder(small).unwrap().join("data");
    fs::create_dir(&data).unwrap();
    let script =
        format!("mount -t tmpfs -o size={SMALL_DISK_BYTES} stele-test '{}' && exec \"$@\"", data.display());
    let wrapper = ["unshare", "--mount", "--map-root-user", "--", "/bin/sh", "-c", &script, "sh"];
    cluster.start_wrapped(small, &wrapper.map(str::to_owned)).unwrap();
    cluster.add(small).unwrap();
    // Four members need three for a quorum: the small one's word counts.
    let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id).unwrap()).collect();
    let load = Load::start(&clients, &["eu-1", "us-1", "ap-1"], Duration::from_millis(5));
    load.goes_on(100).unwrap();
    let inside =
        PathBuf::from(format!("/proc/{}/root{}", cluster.process(small).unwrap().id(), data.display()));
    let filler = vec![0; SMALL_DISK_BYTES as usize];
    // The disk takes what fits; the rest is the error wanted.
    assert!(fs::write(inside.join("filler"), filler).is_err(), "the small disk is not small");
    let words = cluster.wait_for_end(small).unwrap();
    assert!(last_words(&words).contains("disk"), "{words}");
    load.goes_on(100).unwrap();
    let promises = load.stop();
    let leader = cluster.leader().unwrap();
    let last = cluster.health(leader).unwrap().seq;
    let log = fetch_log(&cluster.client(leader).unwrap(), last).unwrap();
    assert_eq!(broken_promises(&promises, &log.records), Vec::<String>::new());
    assert_eq!(log.folded, log.told);
}
