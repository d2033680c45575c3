#![allow(clippy::unwrap_used)]
use stele_model::release::{Container, Image, InstanceSpec};

use super::*;
use crate::memory::Memory;
use crate::report::report;

const NOW: u64 = 1_000_000;
const INTERVAL: u64 = 60_000;

fn assigned(index: usize) -> AssignedInstance {
    let id: InstanceId = format!("shop/web@prod/web.{index}-1").parse().unwrap();
    let image = Image { repository: "web".to_owned(), digest: Digest::of(&[&index.to_be_bytes()]) };
    let spec = InstanceSpec {
        app_env: id.slot.app_env.clone(),
        service: id.slot.service.clone(),
        container: Container::new(image),
    };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

fn container(instance: &AssignedInstance, id: &str) -> ObservedContainer {
    ObservedContainer {
        id: id.to_owned(),
        instance: instance.id.clone(),
        spec_digest: Some(instance.spec_digest),
        state: ContainerState::Running,
        exit_code: None,
        oom_killed: false,
        error: None,
        restart_count: 0,
        created_ms: 1,
        started_ms: Some(2),
        stop_grace_seconds: 1,
        address: None,
        drift: None,
        left_out: None,
    }
}

fn inspected(id: &str, outcome: Result<Vec<String>, String>) -> Inspection {
    Inspection { container: id.to_owned(), started_ms: Some(2), at_ms: NOW - 5, outcome }
}

fn state_of(desired: &[AssignedInstance], observed: &Observation, inspections: &Inspections) -> Observed {
    let mut memory = Memory::default();
    memory.observe(desired, observed, NOW);
    statement(desired, observed, &report(desired, observed, &memory, NOW), inspections)
}

fn expected(desired: &[AssignedInstance]) -> Digest {
    observed_digest(desired.iter().map(|instance| (&instance.id, instance.spec_digest)))
}

fn look(containers: Vec<ObservedContainer>) -> Observation {
    Observation::new(containers, std::collections::BTreeSet::new())
}

#[test]
fn what_was_inspected_and_is_alike_is_what_was_assigned() {
    let desired = [assigned(0), assigned(1)];
    let observed = look(vec![container(&desired[0], "a"), container(&desired[1], "b")]);
    let mut inspections = Inspections::default();
    let before = state_of(&desired, &observed, &inspections);
    assert_ne!(before.digest, expected(&desired));
    assert_eq!(before.differs[0].why, "was not inspected yet");

    for (instance, id) in desired.iter().zip(["a", "b"]) {
        inspections.ended(instance.id.clone(), inspected(id, Ok(Vec::new())));
    }
    let after = state_of(&desired, &observed, &inspections);
    assert_eq!((after.digest, after.instances), (expected(&desired), 2));
    assert_eq!((after.differs, after.inspected), (Vec::new(), Some(Time((NOW - 5) * 1000))));
    assert_eq!(state_of(&[], &look(Vec::new()), &inspections).digest, Digest::EMPTY);
}

#[test]
fn what_is_not_as_it_should_be_is_neither_counted_as_such_nor_hidden_by_its_label() {
    let desired = [assigned(0)];
    let same = container(&desired[0], "a");
    let of = |observed: Observation, outcome| {
        let mut inspections = Inspections::default();
        inspections.ended(desired[0].id.clone(), inspected("a", outcome));
        let stated = state_of(&desired, &observed, &inspections);
        assert_ne!(stated.digest, expected(&desired), "{stated:?}");
        stated.differs[0].why.clone()
    };
    let motd = || Ok(vec!["the file /etc/motd was changed".to_owned()]);
    assert!(of(look(vec![same.clone()]), motd()).contains("/etc/motd"));
    assert!(
        of(look(vec![same.clone()]), Err("the engine is busy".to_owned())).contains("cannot be inspected")
    );
    assert!(of(look(Vec::new()), Ok(Vec::new())).contains("is pending"));
    let another = ObservedContainer { id: "c".to_owned(), ..same.clone() };
    assert!(of(look(vec![another.clone()]), Ok(Vec::new())).contains("not inspected yet"));
    assert!(of(look(vec![same.clone(), another]), Ok(Vec::new())).contains("2 containers"));
    let drifted = ObservedContainer { drift: Some("Memory is 1".to_owned()), ..same };
    assert!(of(look(vec![drifted]), Ok(Vec::new())).contains("Memory is 1"));

    let stray = [assigned(9)];
    let left = state_of(&[], &look(vec![container(&stray[0], "z")]), &Inspections::default());
    assert!(left.digest != Digest::EMPTY && left.differs[0].why.contains("not assigned"), "{left:?}");
}

#[test]
fn much_that_differs_still_fits_a_heartbeat() {
    let desired: Vec<_> = (0..100).map(assigned).collect();
    let stated = state_of(&desired, &look(Vec::new()), &Inspections::default());
    assert_eq!((stated.differs.len(), stated.more), (STATEMENT_DIFFERENCES_MAX, 92));
}

#[test]
fn inspections_are_due_for_what_is_new_changed_or_long_ago() {
    let desired = [assigned(0), assigned(1)];
    let mut inspections = Inspections::default();
    let (a, b) = (container(&desired[0], "a"), container(&desired[1], "b"));
    let created = ObservedContainer { state: ContainerState::Created, ..b.clone() };
    let observed = look(vec![a.clone(), created]);
    let ids = |inspections: &mut Inspections, observed: &Observation, now_ms, most| {
        let due = inspections.next_round(&desired, observed, now_ms, INTERVAL, most);
        due.into_iter().map(|(_, container)| container.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut inspections, &observed, NOW, 9), ["a"], "one that never ran has no files yet");
    inspections.ended(desired[0].id.clone(), inspected("a", Ok(Vec::new())));
    let observed = look(vec![a.clone(), b.clone()]);
    assert_eq!(ids(&mut inspections, &observed, NOW, 9), ["b"]);
    inspections.ended(desired[1].id.clone(), Inspection { at_ms: NOW, ..inspected("b", Ok(Vec::new())) });
    assert_eq!(ids(&mut inspections, &observed, NOW + INSPECTION_MS_MIN, 9), [""; 0]);
    assert_eq!(ids(&mut inspections, &observed, NOW + INTERVAL - 5, 9), ["a"]);
    assert_eq!(ids(&mut inspections, &observed, NOW + INTERVAL, 9), ["a", "b"], "the oldest first");
    assert_eq!(ids(&mut inspections, &observed, NOW + INTERVAL, 1), ["a"]);
    let again = look(vec![ObservedContainer { started_ms: Some(3), ..a }, b]);
    assert_eq!(ids(&mut inspections, &again, NOW, 9), ["a"], "another run");

    // Of what something happened to, it is known which it was.
    inspections.container_changed("b".to_owned());
    inspections.container_changed("of somebody else".to_owned());
    assert_eq!(ids(&mut inspections, &observed, NOW, 9), [""; 0], "not twice in a moment");
    assert_eq!(ids(&mut inspections, &observed, NOW + INSPECTION_MS_MIN, 9), ["b"]);
    assert_eq!(ids(&mut inspections, &observed, NOW + INSPECTION_MS_MIN, 9), [""; 0], "it is begun");
    inspections.anything_changed();
    assert_eq!(ids(&mut inspections, &observed, NOW + INSPECTION_MS_MIN, 1), ["a"]);
    assert_eq!(ids(&mut inspections, &observed, NOW + INSPECTION_MS_MIN, 1), ["b"]);
}

#[test]
fn very_many_are_inspected_less_often() {
    let mut inspections = Inspections::default();
    let due = |inspections: &mut Inspections, count: usize, after_ms: u64| {
        let desired: Vec<_> = (0..count).map(assigned).collect();
        let observed = look(desired.iter().map(|one| container(one, &one.id.to_string())).collect());
        for (one, found) in desired.iter().zip(observed.containers()) {
            let inspection = inspected(&found.id, Ok(Vec::new()));
            inspections.ended(one.id.clone(), Inspection { at_ms: NOW, ..inspection });
        }
        inspections.next_round(&desired, &observed, NOW + after_ms, 1_000, usize::MAX).len()
    };
    assert_eq!(due(&mut inspections, 4, 1_000), 4);
    assert_eq!(due(&mut inspections, 40, 40 * INSPECTION_SPACING_MS - 1), 0);
    assert_eq!(due(&mut inspections, 40, 40 * INSPECTION_SPACING_MS), 40);
    assert_eq!(due(&mut inspections, 1_000, INSPECTION_MS_MAX), 1_000);
}
