#![allow(clippy::unwrap_used)]

use stele_model::release::{EnvValue, File, Placement};
use stele_model::value::Value;

use super::*;
use crate::small_fleet::{Fleet, WEB, empty_assignment, name, web};

const FILE_BYTES: usize = 100_000;
const INSTANCES: u32 = 100;

/// A fleet of two nodes, of which one is to run much.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new();
    fleet.enrol("eu-2");
    let mut container = web("well");
    container.ports.clear();
    let content = EnvValue::Value(Value::Plain("x".repeat(FILE_BYTES)));
    container.files.insert("/data".to_owned(), File { content, mode: 0o644 });
    let placement = Placement::Replicas { count: INSTANCES, nodes: name("node=eu-1") };
    fleet.deploy_container(WEB, container, placement);
    fleet
}

fn nodes(state: &State, change: impl Fn(&mut NodeStatus)) -> Vec<NodeStatus> {
    let mut nodes = super::super::status::nodes(state, &Scope::fleet());
    nodes.iter_mut().for_each(change);
    nodes
}

fn sorted<'a>(state: &State, nodes: &'a [NodeStatus], max: usize) -> (Vec<ProblemStatus>, Vec<&'a NodeName>) {
    sort(state, nodes, &mut Sizes::default(), max, |node| empty_assignment(state, node))
}

#[test]
fn a_node_whose_assignment_fits_no_message_is_a_problem() {
    let state = fleet().state;
    let behind = nodes(&state, |node| node.current = false);
    let (problems, near) = sorted(&state, &behind, ASSIGNMENT_BYTES_MAX);
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(
        problem.message,
        "the node cannot be told what to run: its assignment takes 9.7 MiB, more than the 8.0 MiB that one message may \
         take; move large files into the image or a volume, or run fewer instances on it. Until then it runs what it \
         was told before"
    );
    assert_eq!((&problem.scope, problem.node.as_ref()), (&name("node:eu-1"), Some(&name("eu-1"))));
    assert_eq!(problem.next.as_deref(), Some("stele status node:eu-1"));
    assert!(near.is_empty(), "{near:?}");

    // Who has it already, and who hears nothing, is no such problem.
    for change in [
        |node: &mut NodeStatus| node.current = true,
        |node: &mut NodeStatus| {
            (node.current, node.reachable) = (false, false);
        },
    ] {
        assert_eq!(sorted(&state, &nodes(&state, change), ASSIGNMENT_BYTES_MAX), (Vec::new(), Vec::new()));
    }
}

#[test]
fn what_a_node_keeps_is_looked_up_only_where_it_matters() {
    let state = fleet().state;
    let behind = nodes(&state, |node| node.current = false);
    let bytes = Sizes::default().of(&state, &empty_assignment(&state, &name("eu-1")));
    let near = |max| {
        let (problems, near) = sorted(&state, &behind, max);
        (problems.len(), near.into_iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(near(bytes - 1), (1, Vec::new()));
    assert_eq!(near(bytes), (0, vec!["eu-1".to_owned()]));
    assert_eq!(near(bytes + KEPT_IMAGES_BYTES_MAX - 1), (0, vec!["eu-1".to_owned()]));
    assert_eq!(near(bytes + KEPT_IMAGES_BYTES_MAX), (0, Vec::new()));
}

#[test]
fn a_server_that_carries_less_is_named_with_what_to_set() {
    let said = |bytes, max| too_large(&name("eu-1"), bytes, max).unwrap().message;
    let server = said(2 * MIB + 1, MIB);
    assert!(
        server.contains("takes 2.1 MiB, more than the 1.0 MiB that NATS carries in one message; raise its max_payload to 8388608."),
        "{server}"
    );
    let small = said(70_000, 65_536);
    assert!(small.contains("takes 68.4 KiB, more than the 64.0 KiB that NATS"), "{small}");
    // With a larger max_payload it would not do either.
    let both = said(ASSIGNMENT_BYTES_MAX + 1, MIB);
    assert!(both.contains("takes 8.1 MiB, more than the 8.0 MiB that one message may take; move"), "{both}");
    assert_eq!(too_large(&name("eu-1"), MIB, MIB), None);
}

#[test]
fn the_largest_list_of_images_takes_no_more_than_is_reckoned_with() {
    use stele_model::limits::{KEPT_IMAGES_MAX, REPOSITORY_BYTES_MAX};
    let image = |_| {
        let mut image = web("well").image;
        image.repository = "r".repeat(REPOSITORY_BYTES_MAX);
        image
    };
    let state = Fleet::new().state;
    let images = stele_model::wire::ImagePolicy {
        seq: u64::MAX,
        keep: Some((0..KEPT_IMAGES_MAX).map(image).collect()),
        mirror: Some("m".repeat(REPOSITORY_BYTES_MAX)),
    };
    let empty = empty_assignment(&state, &name("eu-1"));
    let without = Sizes::default().of(&state, &empty);
    let with = Sizes::default().of(&state, &Assignment { images: Some(images), ..empty });
    assert!(with - without <= KEPT_IMAGES_BYTES_MAX, "{}", with - without);
}
