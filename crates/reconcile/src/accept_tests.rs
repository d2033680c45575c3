#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use stele_model::release::{Container, Image, InstanceSpec};
use stele_model::signature::{Certificate, CertificateBody, public_key};
use stele_model::wire::AssignedInstance;

use super::*;
use crate::trust::Pinned;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn trust() -> Trust {
    let pinned =
        Pinned { root: public_key(&key(1)), fleet: "acme".parse().unwrap(), node: "eu-1".parse().unwrap() };
    Trust::new(pinned, BTreeMap::new())
}

fn instance(id: &str) -> AssignedInstance {
    let id: InstanceId = id.parse().unwrap();
    let container = Container::new(Image {
        repository: "registry.example.com/shop/web".to_owned(),
        digest: Digest::of(&[b"v1"]),
    });
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

fn assignment(seq: u64, instances: Vec<AssignedInstance>) -> Assignment {
    let mut sorted: Vec<_> = instances.iter().collect();
    sorted.sort_by(|left, right| left.id.cmp(&right.id));
    let digest =
        assignment_digest(sorted.iter().map(|row| (&row.id, &row.spec_digest, row.replaces.as_ref())));
    let certificate = CertificateBody {
        fleet: "acme".parse().unwrap(),
        controller: 1,
        key: public_key(&key(2)),
        not_before: Time(100),
        not_after: Time(200),
    };
    Assignment {
        fleet: "acme".parse().unwrap(),
        node: "eu-1".parse().unwrap(),
        version: AssignmentVersion { epoch: 1, seq, digest },
        instances,
        keys: Vec::new(),
        images: None,
        controller: Certificate::issue(&key(1), certificate),
    }
}

fn two() -> Vec<AssignedInstance> {
    // Not in id order, which is the sender's to choose.
    vec![instance("shop/web@prod/web.1-7"), instance("shop/web@prod/web.0-7")]
}

fn offered(current: Option<&AssignmentVersion>, assignment: &Assignment) -> Result<Accepted, Refusal> {
    let signed = Signed::new(&key(2), Purpose::Assignment, assignment);
    accept(current, &signed, &trust(), Some(Time(150)))
}

#[test]
fn a_newer_assignment_is_believed_and_its_repetition_recognised() {
    let first = assignment(7, two());
    assert_eq!(offered(None, &first).unwrap(), Accepted::New(first.clone()));
    assert_eq!(offered(Some(&first.version), &first).unwrap(), Accepted::Known(first.clone()));
    let second = assignment(8, Vec::new());
    assert_eq!(offered(Some(&first.version), &second).unwrap(), Accepted::New(second.clone()));
    let refusal = offered(Some(&second.version), &first).unwrap_err();
    assert!(matches!(refusal, Refusal::Stale { .. }), "{refusal}");
}

#[test]
fn a_higher_epoch_wins_over_a_higher_seq() {
    let first = assignment(900, two());
    let mut recovered = assignment(3, Vec::new());
    recovered.version.epoch = 2;
    assert!(matches!(offered(Some(&first.version), &recovered), Ok(Accepted::New(_))));
    assert!(matches!(offered(Some(&recovered.version), &first), Err(Refusal::Stale { .. })));
}

#[test]
fn two_contents_of_one_version_are_refused_loudly() {
    let first = assignment(7, two());
    let other = assignment(7, Vec::new());
    let refusal = offered(Some(&first.version), &other).unwrap_err();
    assert!(matches!(refusal, Refusal::Conflict { .. }));
    assert!(refusal.to_string().contains("disagree about history"), "{refusal}");
}

#[test]
fn only_a_controller_the_root_vouches_for_is_believed() {
    let good = assignment(7, two());
    let wrong_signer = Signed::new(&key(3), Purpose::Assignment, &good);
    assert!(matches!(accept(None, &wrong_signer, &trust(), None), Err(Refusal::Open(_))));

    let wrong_purpose = Signed::new(&key(2), Purpose::Report, &good);
    assert!(matches!(accept(None, &wrong_purpose, &trust(), None), Err(Refusal::Open(_))));

    let mut self_made = good.clone();
    self_made.controller = Certificate::issue(&key(2), good.controller.body.clone());
    assert!(matches!(offered(None, &self_made), Err(Refusal::Certificate(_))));

    let signed = Signed::new(&key(2), Purpose::Assignment, &good);
    assert!(matches!(accept(None, &signed, &trust(), Some(Time(201))), Err(Refusal::Certificate(_))));
    assert!(accept(None, &signed, &trust(), None).is_ok(), "without a clock, validity is not judged");

    let mut altered = signed;
    altered.body = altered.body.replace("web.1-7", "web.1-8");
    assert!(matches!(accept(None, &altered, &trust(), None), Err(Refusal::Open(_))));
}

#[test]
fn what_is_meant_for_others_is_refused() {
    let mut other = assignment(7, two());
    other.node = "eu-2".parse().unwrap();
    assert!(matches!(offered(None, &other), Err(Refusal::Node { .. })));
    let mut other = assignment(7, two());
    other.fleet = "evil".parse().unwrap();
    assert!(matches!(offered(None, &other), Err(Refusal::Fleet { .. })));
}

#[test]
fn content_must_be_what_its_digests_say() {
    let mut altered = assignment(7, two());
    altered.instances.pop();
    assert!(matches!(offered(None, &altered), Err(Refusal::Digest { .. })));

    let mut instances = two();
    instances[0].spec.container.command = vec!["evil".to_owned()];
    assert!(matches!(offered(None, &assignment(7, instances)), Err(Refusal::SpecDigest { .. })));
}

#[test]
fn contradictions_and_excess_are_refused() {
    let twice = vec![instance("shop/web@prod/web.0-7"), instance("shop/web@prod/web.0-7")];
    assert!(matches!(offered(None, &assignment(7, twice)), Err(Refusal::Inconsistent { .. })));

    let mut own = instance("shop/web@prod/web.0-7");
    own.replaces = Some(own.id.clone());
    assert!(matches!(offered(None, &assignment(7, vec![own])), Err(Refusal::Inconsistent { .. })));

    let mut foreign = instance("shop/web@prod/web.0-7");
    foreign.id = "shop/pay@prod/web.0-7".parse().unwrap();
    assert!(matches!(offered(None, &assignment(7, vec![foreign])), Err(Refusal::Inconsistent { .. })));

    let many =
        (0..=INSTANCES_PER_NODE_MAX).map(|at| instance(&format!("shop/web@prod/web.{at}-7"))).collect();
    assert!(matches!(offered(None, &assignment(7, many)), Err(Refusal::TooMany { .. })));

    let mut signed = Signed::new(&key(2), Purpose::Assignment, &assignment(7, two()));
    signed.body = " ".repeat(ASSIGNMENT_BYTES_MAX + 1);
    assert!(matches!(accept(None, &signed, &trust(), None), Err(Refusal::TooLarge { .. })));
    signed.body = "{".to_owned();
    assert!(matches!(accept(None, &signed, &trust(), None), Err(Refusal::Open(_))));
}
