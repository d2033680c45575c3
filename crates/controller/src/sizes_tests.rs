#![allow(clippy::unwrap_used)]

use ed25519_dalek::SigningKey;
use stele_bus::{purposes, sealing};
use stele_model::release::{Container, EnvValue, File, Placement};
use stele_model::value::{Sealed, Value};
use stele_model::wire::ImagePolicy;
use stele_model::{NodeName, Time};

use super::*;
use crate::small_fleet::{CART, Fleet, WEB, empty_assignment, name, web};

fn plain(text: &str) -> EnvValue {
    EnvValue::Value(Value::Plain(text.to_owned()))
}

fn sealed(subject: &str) -> EnvValue {
    let (subject, nonce) = (subject.to_owned(), "0".repeat(48));
    EnvValue::Value(Value::Sealed(Sealed { subject, key_version: 1, nonce, ciphertext: "ab".repeat(40) }))
}

fn several(container: Container) -> (Container, Placement) {
    (Container { ports: Vec::new(), ..container }, Placement::Replicas { count: 3, nodes: name("") })
}

/// Bytes of what is published.
fn sent(state: &State, mut assignment: Assignment) -> usize {
    assignment.instances = state.assigned_instances(&assignment.node).collect::<Result<_, _>>().unwrap();
    let containers = assignment.instances.iter().map(|instance| &instance.spec.container);
    let wrap = |(subject, version): (String, u32)| {
        sealing::wrap(&[1; 32], &subject, version, &"22".repeat(32), [2; 32], [3; 24]).unwrap()
    };
    assignment.keys = sealed_with(containers).into_iter().map(wrap).collect();
    let signed = Signed::new(&SigningKey::from_bytes(&[4; 32]), purposes::ASSIGNMENT, &assignment);
    serde_json::to_vec(&signed).unwrap().len()
}

#[test]
fn what_an_assignment_takes_is_known_to_the_byte_without_making_it() {
    let node: NodeName = name("eu-1");
    let mut fleet = Fleet::new();
    let measured = |fleet: &Fleet, rest: &Assignment| Sizes::default().of(&fleet.state, rest);
    let is_exact = |fleet: &Fleet, rest: &Assignment| {
        assert_eq!(measured(fleet, rest), sent(&fleet.state, rest.clone()));
    };
    is_exact(&fleet, &empty_assignment(&fleet.state, &node));

    let mut container = web("well");
    let content = plain("a \"quoted\" \\ line\n\tand more\r\n\u{1}\u{7f} \u{e9}\u{1f600} \u{2028}");
    container.files.insert("/etc/web.conf".to_owned(), File { content, mode: 0o644 });
    container.env.insert("PASSWORD".to_owned(), sealed("secret:shop/web@prod/password"));
    container.env.insert("TOKEN".to_owned(), sealed("secret:shop/web@prod/token"));
    container.docker = Some("{\"HostConfig\": {\"Sysctls\": {\"a\\\"b\": \"1\"}}}".to_owned());
    let (container, placement) = several(container);
    fleet.deploy_container(WEB, container, placement);
    let mut other = web("other");
    other.env.insert("TOKEN".to_owned(), sealed("secret:shop/web@prod/token"));
    let (other, placement) = several(other);
    fleet.deploy_container(CART, other, placement);
    let rest = empty_assignment(&fleet.state, &node);
    assert_eq!(fleet.state.assigned[&node].instances.len(), 6);
    is_exact(&fleet, &rest);

    let keep = Some(vec![web("well").image, web("older").image]);
    let images = Some(ImagePolicy { seq: 7, keep, mirror: Some("registry.example/mirror".to_owned()) });
    is_exact(&fleet, &Assignment { images, ..rest.clone() });

    // One of them takes the place of another.
    let assigned = &mut fleet.state.assigned[&node];
    let (heir, to) = assigned.instances.iter().next().map(|(id, to)| (id.clone(), to.clone())).unwrap();
    let to = AssignedTo { replaces: Some(heir.clone()), since: Time(0), ..AssignedTo::clone(&to) };
    assigned.instances.insert(heir, to.into());
    is_exact(&fleet, &rest);
}

#[test]
fn no_more_is_measured_than_may_be() {
    let node: NodeName = name("eu-1");
    let mut fleet = Fleet::new();
    fleet.deploy(WEB, "well", crate::small_fleet::one());
    let rest = empty_assignment(&fleet.state, &node);
    let mut sizes = Sizes { measured_bytes: SIZED_SPECS_BYTES_MAX + 1, ..Sizes::default() };
    let without = sizes.of(&fleet.state, &rest);
    assert!(without < Sizes::default().of(&fleet.state, &rest));
    assert!(sizes.specs.is_empty());
}

#[test]
fn what_a_spec_takes_at_least_is_most_of_it_and_never_more() {
    let mut container = web("well");
    container
        .files
        .insert("/etc/web.conf".to_owned(), File { content: plain(&"x".repeat(9000)), mode: 0o644 });
    container.env.insert("A".to_owned(), plain(&"y".repeat(700)));
    container.env.insert("B".to_owned(), sealed("secret:shop/web@prod/token"));
    let spec = InstanceSpec { app_env: name(WEB), service: name("web"), container };
    assert_eq!(bytes_at_least(&spec), 9740);
    assert!((9740..12_000).contains(&as_sent(&spec)));
}
