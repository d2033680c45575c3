//! What stands on disk, and what may replace it.
#![allow(clippy::unwrap_used)]

mod support;

use stele_agent::{DataDir, Desired, Error, Received};
use stele_model::signature::public_key;
use stele_model::wire::ImagePolicy;
use stele_reconcile::{Pinned, Refusal};
use support::{Fleet, web};

fn load(data: &DataDir, fleet: &Fleet, epoch: u64) -> (Desired, Option<String>) {
    let pinned = Pinned {
        root: public_key(&fleet.root),
        fleet: fleet.name.parse().unwrap(),
        node: "eu-1".parse().unwrap(),
    };
    Desired::load(data.clone(), pinned, epoch, [9; 32])
}

#[test]
fn what_was_verified_is_there_after_a_restart() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let data = DataDir::new(dir.path());
    let (mut desired, problem) = load(&data, &fleet, 1);
    assert_eq!(problem, None);
    assert!(desired.assignment().is_none());
    let signed = fleet.signed(3, vec![web(0)]);
    assert!(matches!(desired.receive(&signed).unwrap(), Received::InForce));
    assert!(matches!(desired.receive(&signed).unwrap(), Received::Known));

    let (mut again, problem) = load(&data, &fleet, 1);
    assert_eq!((problem, again.version()), (None, desired.version()));
    assert!(matches!(again.receive(&signed).unwrap(), Received::Known));
    let old = again.receive(&fleet.signed(2, Vec::new())).unwrap();
    assert!(matches!(old, Received::Refused(Refusal::Stale { .. })), "{old:?}");
}

#[test]
fn what_a_crash_kept_only_the_version_of_comes_into_force_when_it_is_told_again() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let data = DataDir::new(dir.path());
    let (mut desired, _) = load(&data, &fleet, 1);
    desired.receive(&fleet.signed(7, Vec::new())).unwrap();
    let newer = fleet.signed(8, vec![web(0)]);
    let version = fleet.assignment(8, vec![web(0)]).version;
    data.write_json("version.json", &version).unwrap();

    let (mut again, _) = load(&data, &fleet, 1);
    assert_eq!(again.version().seq, 7);
    assert!(matches!(again.receive(&newer).unwrap(), Received::InForce));
    assert_eq!(again.version(), version);
}

#[test]
fn a_node_that_was_never_assigned_anything_learns_so() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let (mut desired, _) = load(&DataDir::new(dir.path()), &fleet, 1);
    assert!(desired.opened().is_none(), "nothing is known to be wanted, so nothing is known to be an orphan");
    assert!(matches!(desired.receive(&fleet.signed(0, Vec::new())).unwrap(), Received::InForce));
    assert_eq!(desired.opened().unwrap(), (Vec::new(), Vec::new()));
}

#[test]
fn an_incarnation_before_the_one_that_was_joined_is_not_believed() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let (mut desired, _) = load(&DataDir::new(dir.path()), &fleet, 2);
    let old = desired.receive(&fleet.signed(1_000, vec![web(0)])).unwrap();
    assert!(matches!(old, Received::Refused(Refusal::Stale { .. })), "{old:?}");
    let mut assignment = fleet.assignment(1, vec![web(0)]);
    assignment.version.epoch = 2;
    assert!(matches!(desired.receive(&fleet.sign(&assignment)).unwrap(), Received::InForce));
}

#[test]
fn what_cannot_be_kept_is_not_in_force() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let data = DataDir::new(dir.path().join("agent"));
    data.create().unwrap();
    let (mut desired, _) = load(&data, &fleet, 1);
    desired.receive(&fleet.signed(1, vec![web(0)])).unwrap();
    std::fs::remove_dir_all(data.path()).unwrap();
    let lost = desired.receive(&fleet.signed(2, Vec::new()));
    assert!(matches!(lost, Err(Error::File { .. })), "{lost:?}");
    assert_eq!(desired.version().seq, 1);
    assert_eq!(desired.assignment().unwrap().instances.len(), 1);
}

#[test]
fn a_file_somebody_put_there_is_not_believed() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let data = DataDir::new(dir.path());
    let forged = Fleet::with_keys("acme", 3, 4).signed(1, vec![web(0)]);
    data.write_json("assignment.json", &forged).unwrap();
    let (desired, problem) = load(&data, &fleet, 1);
    assert!(desired.assignment().is_none());
    assert!(problem.unwrap().contains("assignment.json is not believed"));
}

#[test]
fn what_is_said_of_images_is_taken_in_alone_and_never_from_an_earlier_state() {
    let (fleet, dir) = (Fleet::new("acme"), tempfile::tempdir().unwrap());
    let data = DataDir::new(dir.path());
    let (mut desired, _) = load(&data, &fleet, 1);
    let signed = |seq: u64, mirror: &str| {
        let mut assignment = fleet.assignment(3, vec![web(0)]);
        let image = assignment.instances[0].spec.container.image.clone();
        assignment.images =
            Some(ImagePolicy { seq, keep: Some(vec![image]), mirror: Some(mirror.to_owned()) });
        fleet.sign(&assignment)
    };
    let mirror = |desired: &Desired| desired.assignment()?.images.clone()?.mirror;
    assert!(matches!(desired.receive(&fleet.signed(3, vec![web(0)])).unwrap(), Received::InForce));
    assert!(matches!(desired.receive(&signed(10, "one")).unwrap(), Received::NewImagePolicy));
    assert!(matches!(desired.receive(&signed(12, "one")).unwrap(), Received::Known), "nothing new");
    assert!(matches!(desired.receive(&signed(9, "two")).unwrap(), Received::Known));
    assert_eq!(mirror(&desired).as_deref(), Some("one"));
    // A controller that knows nothing of images takes nothing back.
    assert!(matches!(desired.receive(&fleet.signed(3, vec![web(0)])).unwrap(), Received::Known));
    assert!(matches!(desired.receive(&signed(11, "two")).unwrap(), Received::NewImagePolicy));
    let (again, problem) = load(&data, &fleet, 1);
    assert_eq!((problem, mirror(&again).as_deref(), again.version()), (None, Some("two"), desired.version()));
}
