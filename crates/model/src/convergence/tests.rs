#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::event::EnrolledNode;
use crate::ids::InstanceId;
use crate::limits::{INSPECTION_AGE_US_MAX, STATEMENT_AGE_US_MAX};
use crate::release::{Container, Image, InstanceSpec, Order, Placement, Release, Revision, Service, Update};
use crate::signature::{CertificateBody, Purpose, public_key};
use crate::state::{Assigned, AssignedTo, ReleaseRecord};
use crate::wire::{Heartbeat, InstanceDifference, Observed};

const NOW: Time = Time(1_800_000_000_000_000);

fn key(seed: &str) -> SigningKey {
    SigningKey::from_bytes(&Digest::of(&[seed.as_bytes()]).0)
}

fn certificate() -> Certificate {
    let body = CertificateBody {
        fleet: "acme".parse().unwrap(),
        controller: 1,
        key: public_key(&key("controller")),
        not_before: Time(0),
        not_after: Time(u64::MAX),
    };
    Certificate::issue(&key("root"), body)
}

fn node(index: usize) -> NodeName {
    let region = if index.is_multiple_of(2) { "eu" } else { "us" };
    format!("{region}-{index}").parse().unwrap()
}

fn instance(index: usize) -> InstanceId {
    format!("shop/web@prod/web.{index}-5").parse().unwrap()
}

fn spec(index: usize) -> Digest {
    Digest::of(&[b"spec", &index.to_be_bytes()])
}

/// A release of one service, with so many of it.
fn release(count: u32) -> Release {
    let image = Image { repository: "registry.example/web".to_owned(), digest: spec(0) };
    let web = Service {
        container: Container::new(image),
        placement: Placement::Replicas { count, nodes: "".parse().unwrap() },
        update: Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 },
    };
    let services = crate::FlatMap::from([("web".parse().unwrap(), web)]);
    Release { app: instance(0).slot.app_env.app.clone(), services }
}

/// What every instance is made of.
fn told() -> Digest {
    let slot = instance(0).slot;
    let (app_env, service) = (slot.app_env.clone(), slot.service.clone());
    let container = release(1).services[&service].container.clone();
    InstanceSpec { app_env, service, container }.digest()
}

/// Has a release known, as the only thing that a revision names.
fn know(state: &mut State, release: Release) -> Revision {
    let digest = release.digest();
    let record = ReleaseRecord { number: 1, seq: 1, release, images: crate::FlatMap::new() };
    state.history.releases.insert(digest, 1, Arc::new(record));
    Revision { release: digest, config: None, secrets: crate::FlatMap::new() }
}

/// A fleet of so many nodes with an instance each, all of them told.
fn state(nodes: usize) -> State {
    let mut state = State { seq: 40, time: NOW, ..State::default() };
    let revision = know(&mut state, release(1));
    for index in 0..nodes {
        let name = node(index);
        let enrolled = EnrolledNode {
            name: name.clone(),
            region: name.as_str()[..2].parse().unwrap(),
            labels: std::collections::BTreeMap::new(),
            key: public_key(&key(name.as_str())),
            sealing_key: String::new(),
            address: None,
        };
        state.control.nodes.insert(name.clone(), Arc::new(enrolled));
        let id = instance(index);
        let to = AssignedTo {
            revision: Arc::new(revision.clone()),
            spec: told().into(),
            replaces: None,
            since: NOW,
        };
        state.target.intent.insert(id.slot.app_env.clone(), Arc::new(revision.clone()));
        state.target.placement.insert(id.slot.clone(), name.clone());
        let instances = std::iter::once((id, Arc::new(to))).collect();
        state.assigned.insert(name, Assigned { changed: 12, instances });
    }
    state
}

/// What an honest node that has everything as told says.
fn heartbeat(state: &State, index: usize) -> Heartbeat {
    let name = node(index);
    Heartbeat {
        fleet: "acme".parse().unwrap(),
        region: name.as_str()[..2].parse().unwrap(),
        boot: 1,
        number: 1,
        applied: state.assignment_version(&name),
        acked: 1,
        time: Some(Time(NOW.0 - 1_000_000)),
        observed: Some(Observed {
            digest: observed_digest([(&instance(index), told())]),
            instances: 1,
            inspected: Some(Time(NOW.0 - 2_000_000)),
            differs: Vec::new(),
            more: 0,
        }),
        node: name,
    }
}

fn stated(heartbeat: &Heartbeat) -> Statement {
    Statement {
        heard: NOW,
        signed: Signed::new(&key(heartbeat.node.as_str()), Purpose::Heartbeat, heartbeat),
    }
}

fn proof_of(state: &State, heartbeats: &[Heartbeat]) -> ConvergenceProof {
    let said = |name: &NodeName| heartbeats.iter().find(|one| one.node == *name).map(stated);
    gather(state, &Scope::fleet(), NOW, said, None, certificate())
}

fn sign(proof: &ConvergenceProof) -> Signed {
    Signed::new(&key("controller"), Purpose::Convergence, proof)
}

fn root() -> PublicKey {
    public_key(&key("root"))
}

/// Why one node of three does not match after its heartbeat was changed.
fn why(change: impl FnOnce(&mut Heartbeat)) -> String {
    let state = state(3);
    let mut all: Vec<_> = (0..3).map(|index| heartbeat(&state, index)).collect();
    change(&mut all[1]);
    let (_, summary) = open(&sign(&proof_of(&state, &all)), Some(&root())).unwrap();
    assert_eq!((summary.nodes, summary.matching, summary.matches), (3, 2, false));
    assert_ne!(summary.expected, summary.observed);
    let [eu, us] = &summary.regions[..] else { panic!("{summary:?}") };
    assert_eq!(eu.expected, eu.observed, "the other region still matches");
    assert_ne!(us.expected, us.observed);
    assert_eq!(summary.differing[0].name, node(1));
    summary.differing[0].why.join("; ")
}

#[test]
fn a_fleet_that_is_as_told_is_proved_to_be() {
    let state = state(5);
    let all: Vec<_> = (0..5).map(|index| heartbeat(&state, index)).collect();
    let signed = sign(&proof_of(&state, &all));
    let (proof, summary) = open(&signed, Some(&root())).unwrap();
    assert!(summary.matches && summary.expected == summary.observed, "{summary:#?}");
    assert_eq!((summary.nodes, summary.matching, summary.instances), (5, 5, 5));
    assert_eq!(summary.regions.iter().map(|region| region.matching).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(summary.oldest, Some(Time(NOW.0 - 1_000_000)));
    assert_eq!(summary.moving, Vec::<AppEnv>::new());
    against(&proof, &state).unwrap();
}

#[test]
fn a_node_that_the_log_gave_nothing_is_as_told_once_it_was_told_so() {
    let mut state = state(3);
    state.control.fleet = Some(crate::state::Fleet { name: "acme".parse().unwrap(), root: root(), epoch: 2 });
    let id = instance(1);
    state.assigned.remove(&node(1));
    state.target.placement.remove(&id.slot);
    let mut all: Vec<_> = (0..3).map(|index| heartbeat(&state, index)).collect();
    let nothing = Observed { digest: observed_digest([]), instances: 0, ..all[1].observed.clone().unwrap() };
    all[1].observed = Some(nothing);
    let (proof, summary) = open(&sign(&proof_of(&state, &all)), Some(&root())).unwrap();
    assert!(summary.matches && summary.expected == summary.observed, "{summary:#?}");
    assert_eq!((summary.nodes, summary.matching, summary.instances), (3, 3, 2));
    against(&proof, &state).unwrap();

    // Who was not told did not look.
    let told = state.assignment_version(&node(1));
    for (applied, why) in [
        (AssignmentVersion::default(), "it was not told yet what to run"),
        (
            AssignmentVersion { epoch: 1, ..told },
            "it works on an assignment of epoch 1, the fleet is in epoch 2",
        ),
    ] {
        all[1].applied = applied;
        let (_, summary) = open(&sign(&proof_of(&state, &all)), Some(&root())).unwrap();
        assert!(!summary.matches && summary.expected != summary.observed, "{summary:#?}");
        assert_eq!(summary.differing[0].why, [why]);
    }
}

#[test]
fn nothing_is_proved_of_no_nodes() {
    let summary = summarise(&proof_of(&state(0), &[]));
    assert_eq!((summary.nodes, summary.differing.len(), summary.matches), (0, 0, false));
}

#[test]
fn a_node_that_differs_is_named_with_the_reason() {
    assert!(why(|it| it.applied.seq = 11).contains("works on the assignment of seq 11"));
    assert!(why(|it| it.applied.digest = spec(9)).contains("another assignment of seq 12"));
    assert!(why(|it| it.observed = None).contains("cannot look"));
    assert!(why(|it| it.time = None).contains("never set"));
    assert!(why(|it| it.time = Some(Time(NOW.0 - STATEMENT_AGE_US_MAX - 1))).contains("behind"));
    assert!(why(|it| it.time = Some(Time(NOW.0 + STATEMENT_AGE_US_MAX + 1))).contains("ahead"));
    let old = Time(NOW.0 - 1_000_000 - INSPECTION_AGE_US_MAX - 1);
    assert!(why(|it| it.observed.as_mut().unwrap().inspected = Some(old)).contains("inspected"));
    let told = why(|it| {
        let observed = it.observed.as_mut().unwrap();
        observed.digest = spec(77);
        observed.differs =
            vec![InstanceDifference { instance: instance(1), why: "/etc/motd differs".to_owned() }];
        observed.more = 2;
    });
    assert_eq!(told, "shop/web@prod/web.1-5: /etc/motd differs; 2 more instances are not as they should be");
}

#[test]
fn a_silent_node_is_not_taken_for_a_good_one() {
    let mut state = state(2);
    let all = [heartbeat(&state, 0)];
    let summary = summarise(&proof_of(&state, &all));
    assert!(summary.differing[0].why[0].contains("since it started"), "{summary:?}");
    let seen = crate::state::Observed { lost: true, ..crate::state::Observed::default() };
    state.observed.insert(node(1), seen);
    let summary = summarise(&proof_of(&state, &all));
    assert!(summary.differing[0].why[0].contains("grace period"), "{summary:?}");
    assert_ne!(summary.expected, summary.observed);
}

#[test]
fn what_is_not_told_yet_is_said() {
    let mut state = state(2);
    state.target.placement.insert(instance(7).slot, node(0));
    assert_eq!(proof_of(&state, &[]).moving, [instance(7).slot.app_env.clone()]);
    let other = gather(&state, &"shop/pay@prod".parse().unwrap(), NOW, |_| None, None, certificate());
    assert_eq!((other.moving.len(), other.nodes.len()), (0, 0));
}

#[test]
fn what_another_revision_left_as_it_was_is_told() {
    let mut state = state(2);
    let (before, app_env) = (state.clone(), instance(0).slot.app_env.clone());
    // The same container under another release, which nobody is told anew.
    let next = know(&mut state, release(2));
    state.target.intent.insert(app_env.clone(), Arc::new(next));
    let proof = proof_of(&state, &[]);
    assert_eq!(proof.moving, Vec::<AppEnv>::new());
    against(&proof, &state).unwrap();
    // One that was made by another rule, at the time, is believed still.
    let older = ConvergenceProof { moving: vec![app_env.clone()], ..proof };
    against(&older, &state).unwrap();
    let other = ConvergenceProof { moving: vec!["shop/pay@prod".parse().unwrap()], ..older };
    against(&other, &state).unwrap_err();
    // Another container is news.
    let mut changed = release(2);
    changed.services.values_mut().next().unwrap().container.user = Some("nobody".to_owned());
    let next = know(&mut state, changed);
    state.target.intent.insert(app_env.clone(), Arc::new(next));
    assert_eq!(proof_of(&state, &[]).moving, [app_env]);
    assert_eq!(proof_of(&before, &[]).moving, Vec::<AppEnv>::new());
}

#[test]
fn a_proof_that_was_tampered_with_is_refused() {
    let state = state(3);
    let all: Vec<_> = (0..3).map(|index| heartbeat(&state, index)).collect();
    let honest = proof_of(&state, &all);
    // One that a controller signed itself: it can lie about what it says, not about what nodes said.
    let refused = |change: &dyn Fn(&mut ConvergenceProof)| {
        let mut proof = honest.clone();
        change(&mut proof);
        open(&sign(&proof), Some(&root())).unwrap_err()
    };
    let lie = |node: &mut NodeEvidence, body: String| {
        node.statement.as_mut().unwrap().body = body;
    };
    let body = honest.nodes[1].statement.as_ref().unwrap().body.replace("\"boot\":1", "\"boot\":2");
    assert!(matches!(refused(&|it| lie(&mut it.nodes[1], body.clone())), ProofRefused::Statement { .. }));
    let forged = Signed::new(&key("controller"), Purpose::Heartbeat, &all[1]);
    assert!(matches!(
        refused(&|it| it.nodes[1].statement = Some(forged.clone())),
        ProofRefused::Statement { .. }
    ));
    let anothers = honest.nodes[0].statement.clone();
    assert!(matches!(
        refused(&|it| it.nodes[1].statement.clone_from(&anothers)),
        ProofRefused::Statement { .. }
    ));
    assert!(matches!(refused(&|it| it.nodes.swap(0, 1)), ProofRefused::Order(_)));
    assert!(matches!(refused(&|it| it.nodes.insert(1, it.nodes[0].clone())), ProofRefused::Order(_)));
    assert!(matches!(refused(&|it| it.observed = spec(1)), ProofRefused::Fold { what: "observed", .. }));
    assert!(matches!(refused(&|it| it.nodes[2].expected = spec(1)), ProofRefused::Fold { .. }));
    assert!(matches!(refused(&|it| drop(it.nodes.pop())), ProofRefused::Fold { .. }));

    // By the key of another root, and by nobody.
    assert!(matches!(
        open(&sign(&honest), Some(&public_key(&key("other")))).unwrap_err(),
        ProofRefused::Certificate(_)
    ));
    assert!(open(&sign(&honest), None).is_ok(), "only what the nodes signed is checked then");
    let mut signed = sign(&honest);
    signed.body = signed.body.replace("\"seq\":40", "\"seq\":41");
    assert!(matches!(open(&signed, Some(&root())).unwrap_err(), ProofRefused::Open(_)));
}

#[test]
fn what_a_controller_leaves_out_shows_against_the_log() {
    let state = state(3);
    let all: Vec<_> = (0..3).map(|index| heartbeat(&state, index)).collect();
    let honest = proof_of(&state, &all);
    let refused = |change: &dyn Fn(&mut ConvergenceProof)| {
        let mut proof = honest.clone();
        change(&mut proof);
        let summary = summarise(&proof);
        (proof.expected, proof.observed) = (summary.expected, summary.observed);
        // Consistent in itself, so that only the log can tell.
        let (proof, _) = open(&sign(&proof), Some(&root())).unwrap();
        against(&proof, &state).unwrap_err().to_string()
    };
    assert!(refused(&|it| drop(it.nodes.pop())).contains("us-1 is left out"));
    assert!(refused(&|it| it.nodes[0].expected = spec(5)).contains("eu-0 is another"));
    assert!(refused(&|it| it.state_digest = spec(5)).contains("its digest is"));
    assert!(refused(&|it| it.seq = 39).contains("State is at seq 40"));
    assert!(refused(&|it| it.moving = vec![instance(0).slot.app_env.clone()]).contains("on their way"));
}

proptest! {
    /// One changed byte anywhere in the exported text is noticed, and one line tells two fleets apart.
    #[test]
    fn no_byte_can_be_changed(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let state = state(2);
        let all: Vec<_> = (0..2).map(|index| heartbeat(&state, index)).collect();
        let mut signed = sign(&proof_of(&state, &all));
        let mut bytes = std::mem::take(&mut signed.body).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(body) = String::from_utf8(bytes) {
            signed.body = body;
            prop_assert!(open(&signed, Some(&root())).is_err());
        }
    }

    #[test]
    fn the_folds_are_equal_exactly_when_every_node_matches(wrong in prop::collection::btree_set(0_usize..6, 0..4)) {
        let state = state(6);
        let all: Vec<_> = (0..6)
            .map(|index| {
                let mut said = heartbeat(&state, index);
                if wrong.contains(&index) {
                    said.observed.as_mut().unwrap().digest = spec(100 + index);
                }
                said
            })
            .collect();
        let summary = summarise(&proof_of(&state, &all));
        prop_assert_eq!(summary.matching, 6 - wrong.len());
        prop_assert_eq!(summary.expected == summary.observed, wrong.is_empty());
        prop_assert_eq!(summary.matches, wrong.is_empty());
    }
}
