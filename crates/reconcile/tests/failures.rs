//! What is said to have failed may have been done all the same, and what failed may be of no consequence.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use stele_model::release::{Check, Container, Health, Image, InstanceSpec};
use stele_model::wire::{AssignedInstance, InstanceReport, Phase};
use stele_model::{AppEnv, Digest, InstanceId};
use stele_reconcile::limits::{FAILED_ATTEMPTS, MADE_OTHERWISE_TIMES};
use stele_reconcile::{
    Action, Cause, ContainerState, Memory, Observation, ObservedContainer, Setback, Subject, plan, report,
    unseen,
};

const NOW_MS: u64 = 100_000_000;

fn assigned() -> AssignedInstance {
    let id: InstanceId = "shop/web@prod/web.0-1".parse().unwrap();
    let image = Image { repository: "registry/shop".to_owned(), digest: Digest::of(&[b"image"]) };
    let container = Container::new(image);
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

fn container(state: ContainerState) -> ObservedContainer {
    let instance = assigned();
    ObservedContainer {
        id: "c1".to_owned(),
        instance: instance.id,
        spec_digest: Some(instance.spec_digest),
        state,
        exit_code: Some(7),
        oom_killed: false,
        error: None,
        restart_count: 0,
        created_ms: 0,
        started_ms: Some(1),
        stop_grace_seconds: 1,
        address: None,
        drift: None,
        left_out: None,
    }
}

fn looked(container: Option<ObservedContainer>, has_network: bool) -> Observation {
    let networks: BTreeSet<AppEnv> = has_network.then(|| assigned().spec.app_env).into_iter().collect();
    Observation::new(container.into_iter().collect(), networks)
}

fn fail(memory: &mut Memory, subject: &Subject, action: Action) {
    fail_for(memory, subject, action, Cause::Passing);
}

fn fail_for(memory: &mut Memory, subject: &Subject, action: Action, cause: Cause) {
    memory.begun(subject.clone(), vec![action.clone()]);
    let reason = "no answer within 30000 ms".to_owned();
    memory.ended(subject, Err(Setback { action, reason, cause }), NOW_MS);
}

fn start() -> Action {
    Action::Start { container: "c1".to_owned(), again: true }
}

#[test]
fn a_network_that_could_not_be_removed_fails_nobody_who_needs_it() {
    let desired = [assigned()];
    let app_env = desired[0].spec.app_env.clone();
    let mut memory = Memory::default();
    let there = looked(None, true);
    memory.observe(&[], &there, NOW_MS);
    let network = Subject::Network(app_env.clone());
    fail(&mut memory, &network, Action::RemoveNetwork(app_env));
    memory.observe(&[], &there, NOW_MS);
    assert!(memory.failure(&network).is_some(), "it is tried again, but not at once");
    assert!(plan(&[], &there, &memory, NOW_MS).is_empty());
    assert!(memory.next_due_ms(&[], &there, NOW_MS).unwrap() > NOW_MS);

    memory.observe(&desired, &there, NOW_MS);
    assert_eq!(report(&desired, &there, &memory, NOW_MS)[0].phase, Phase::Pending);
    assert_eq!(memory.next_due_ms(&desired, &there, NOW_MS), None);
}

#[test]
fn what_was_done_though_it_was_not_answered_has_not_failed() {
    let desired = [assigned()];
    let app_env = desired[0].spec.app_env.clone();
    let mut memory = Memory::default();
    memory.observe(&desired, &looked(None, false), NOW_MS);
    let network = Subject::Network(app_env.clone());
    for _ in 0..FAILED_ATTEMPTS {
        fail(&mut memory, &network, Action::EnsureNetwork(app_env.clone()));
    }
    memory.observe(&desired, &looked(None, false), NOW_MS);
    assert_eq!(report(&desired, &looked(None, false), &memory, NOW_MS)[0].phase, Phase::Failed);
    memory.observe(&desired, &looked(None, true), NOW_MS);
    assert_eq!(report(&desired, &looked(None, true), &memory, NOW_MS)[0].phase, Phase::Pending);

    let instance = Subject::Instance(desired[0].id.clone());
    fail(&mut memory, &instance, start());
    let runs = looked(Some(container(ContainerState::Running)), true);
    memory.observe(&desired, &runs, NOW_MS);
    assert!(memory.failure(&instance).is_none());
    assert_eq!(memory.next_due_ms(&desired, &runs, NOW_MS), None, "it has run for long");
}

#[test]
fn what_fails_once_is_on_its_way_still() {
    let desired = [assigned()];
    let subject = Subject::Instance(desired[0].id.clone());
    let created = ObservedContainer { exit_code: None, ..container(ContainerState::Created) };
    let write = Action::WriteFiles { instance: desired[0].id.clone(), container: "c1".to_owned() };
    for (seen, action, phase) in [
        (looked(None, true), Action::Prepare(desired[0].id.clone()), Phase::Pulling),
        (looked(None, true), Action::Create(desired[0].id.clone()), Phase::Pending),
        (looked(Some(created), true), write, Phase::Starting),
        (looked(Some(container(ContainerState::Exited)), true), start(), Phase::Starting),
    ] {
        let told = |memory: &Memory| {
            let told = report(&desired, &seen, memory, NOW_MS).remove(0);
            (told.phase, told.reason().unwrap_or_default().to_owned())
        };
        let reason = "no answer within 30000 ms";
        let mut memory = Memory::default();
        memory.observe(&desired, &seen, NOW_MS);
        fail(&mut memory, &subject, action.clone());
        assert_eq!(told(&memory), (phase, format!("failed 1 time, trying again: {reason}")), "{action:?}");
        // An engine out of reach says nothing about what was asked of it, however often.
        for _ in 0..FAILED_ATTEMPTS {
            fail_for(&mut memory, &subject, action.clone(), Cause::OutOfReach);
        }
        let times = FAILED_ATTEMPTS + 1;
        assert_eq!(told(&memory), (phase, format!("failed {times} times, trying again: {reason}")));
        for _ in 1..FAILED_ATTEMPTS {
            fail(&mut memory, &subject, action.clone());
        }
        assert_eq!(told(&memory), (Phase::Failed, reason.to_owned()), "{action:?}");
        // It is not on its way again because the engine is out of reach.
        fail_for(&mut memory, &subject, action.clone(), Cause::OutOfReach);
        assert_eq!(told(&memory).0, Phase::Failed);

        let mut memory = Memory::default();
        memory.observe(&desired, &seen, NOW_MS);
        fail_for(&mut memory, &subject, action.clone(), Cause::Permanent);
        assert_eq!(told(&memory), (Phase::Failed, reason.to_owned()), "{action:?}");
    }
}

#[test]
fn while_nothing_is_seen_nothing_counts_as_healthy() {
    let mut second = assigned();
    second.id = "shop/web@prod/web.1-1".parse().unwrap();
    let desired = [assigned(), second];
    let mut memory = Memory::default();
    let runs = looked(Some(container(ContainerState::Running)), true);
    memory.observe(&desired[..1], &runs, NOW_MS);
    let last = report(&desired[..1], &runs, &memory, NOW_MS);
    assert_eq!(last[0].phase, Phase::Healthy);

    let told = unseen(&desired, &last, "gone");
    let phases: Vec<_> = told.iter().map(|told| (told.phase, told.reason())).collect();
    assert_eq!(phases, [(Phase::Unhealthy, Some("gone")), (Phase::Pending, Some("gone"))]);
    assert_eq!((&told[0].id, &told[0].container), (&last[0].id, &last[0].container));

    // What had failed or ended had done so before.
    for phase in [Phase::Failed, Phase::Completed] {
        let last = [InstanceReport { phase, ..last[0].clone() }];
        assert_eq!(unseen(&[], &last, "gone"), last);
    }
}

#[test]
fn what_cannot_start_is_looked_at_when_it_is_tried_again() {
    let desired = [assigned()];
    let mut memory = Memory::default();
    let ended = looked(Some(container(ContainerState::Exited)), true);
    memory.observe(&desired, &ended, NOW_MS);
    let instance = Subject::Instance(desired[0].id.clone());
    fail(&mut memory, &instance, start());
    memory.observe(&desired, &ended, NOW_MS);
    assert!(plan(&desired, &ended, &memory, NOW_MS).is_empty());
    let due = memory.next_due_ms(&desired, &ended, NOW_MS).unwrap();
    assert_eq!(due, memory.failure(&instance).unwrap().retry_ms);
    assert_eq!(plan(&desired, &ended, &memory, due).len(), 1);
}

#[test]
fn what_the_engine_does_not_answer_for_is_left_alone() {
    let desired = [assigned()];
    let mut memory = Memory::default();
    let runs = looked(Some(container(ContainerState::Running)), true);
    memory.observe(&desired, &runs, NOW_MS);
    let told = report(&desired, &runs, &memory, NOW_MS).remove(0);
    assert_eq!(told.phase, Phase::Healthy);
    memory.keep_phase(&told.id, told.phase);

    let hung =
        ObservedContainer { error: Some("no answer".to_owned()), ..container(ContainerState::Unknown) };
    let hung = looked(Some(hung), true);
    memory.observe(&desired, &hung, NOW_MS);
    assert!(plan(&desired, &hung, &memory, NOW_MS).is_empty());
    let still = report(&desired, &hung, &memory, NOW_MS).remove(0);
    assert_eq!((still.phase, still.restarts), (Phase::Healthy, told.restarts));
    assert!(still.reason().unwrap().contains("no answer"));

    // Neither is it removed when it is not wanted any more, nor does what comes instead of it start beside it.
    memory.observe(&[], &hung, NOW_MS);
    assert!(plan(&[], &hung, &memory, NOW_MS).is_empty());
    let successor = AssignedInstance {
        id: "shop/web@prod/web.0-2".parse().unwrap(),
        replaces: Some(desired[0].id.clone()),
        ..assigned()
    };
    let subject = Subject::Instance(successor.id.clone());
    let successor = [successor];
    let prepare = Action::Prepare(successor[0].id.clone());
    memory.observe(&successor, &hung, NOW_MS);
    assert_eq!(plan(&successor, &hung, &memory, NOW_MS)[0].actions, std::slice::from_ref(&prepare));
    memory.begun(subject.clone(), vec![prepare]);
    memory.ended(&subject, Ok(()), NOW_MS);
    memory.observe(&successor, &hung, NOW_MS);
    assert!(plan(&successor, &hung, &memory, NOW_MS).is_empty());
}

#[test]
fn what_the_engine_makes_otherwise_is_not_made_again_for_ever() {
    let desired = [assigned()];
    let mut memory = Memory::default();
    memory.observe(&desired, &looked(None, true), NOW_MS);
    let drift = || Some("Memory is unset, was 1024".to_owned());
    let made = |number: u32| ObservedContainer {
        id: format!("c{number}"),
        drift: drift(),
        ..container(ContainerState::Running)
    };
    let removed = |memory: &mut Memory, container: ObservedContainer| {
        let seen = looked(Some(container), true);
        memory.observe(&desired, &seen, NOW_MS);
        !plan(&desired, &seen, memory, NOW_MS).is_empty()
    };
    for number in 1..MADE_OTHERWISE_TIMES {
        assert!(removed(&mut memory, made(number)), "it may have been changed by hand");
    }
    let last = made(MADE_OTHERWISE_TIMES);
    assert!(!removed(&mut memory, last.clone()));
    let told = report(&desired, &looked(Some(last.clone()), true), &memory, NOW_MS).remove(0);
    assert_eq!(told.phase, Phase::Healthy);
    assert!(told.reason().unwrap().contains("the engine makes it otherwise (Memory"), "{told:?}");
    // What is changed by hand then is put right, as ever.
    assert!(removed(&mut memory, ObservedContainer { drift: Some("its name is x".to_owned()), ..last }));
}

#[test]
fn what_the_host_cannot_do_is_told_and_nothing_is_made_again_for_it() {
    let desired = [assigned()];
    let left_out = Some("Memory is unset, was 1024".to_owned());
    let runs = ObservedContainer { left_out, ..container(ContainerState::Running) };
    let runs = looked(Some(runs), true);
    // An agent that has just started knows nothing else of it.
    let mut memory = Memory::default();
    memory.observe(&desired, &runs, NOW_MS);
    assert!(plan(&desired, &runs, &memory, NOW_MS).is_empty());
    let told = report(&desired, &runs, &memory, NOW_MS).remove(0);
    assert_eq!(told.phase, Phase::Healthy);
    assert!(told.reason().unwrap().contains("the engine makes it otherwise (Memory"), "{told:?}");
}

#[test]
fn a_clock_that_is_set_back_stops_nothing() {
    const HOURS_MS: u64 = 2 * 3_600_000;
    let mut instance = assigned();
    instance.spec.container.health = Some(Health {
        check: Check::Tcp { port: 80 },
        interval_ms: 1_000,
        timeout_ms: 500,
        retries: 1,
        start_period_ms: 60_000,
    });
    let desired = [instance];
    let before_ms = NOW_MS + HOURS_MS;
    let run_ms = before_ms - 5_000;
    let seen = ObservedContainer {
        spec_digest: Some(desired[0].spec_digest),
        started_ms: Some(run_ms),
        ..container(ContainerState::Running)
    };
    let seen = looked(Some(seen), true);
    let mut memory = Memory::default();
    memory.observe(&desired, &seen, before_ms);
    assert_eq!(memory.begin_checks(&desired, &seen, before_ms).len(), 1);
    memory.checked(&desired[0], run_ms, Ok(()), before_ms);
    assert!(memory.begin_checks(&desired, &seen, before_ms).is_empty());
    // Checks go on, of this process and of the next one.
    assert_eq!(memory.begin_checks(&desired, &seen, NOW_MS).len(), 1);
    memory.checked(&desired[0], run_ms, Err("closed".to_owned()), NOW_MS);
    assert_eq!(report(&desired, &seen, &memory, NOW_MS)[0].phase, Phase::Unhealthy);
    let mut next = Memory::default();
    next.observe(&desired, &seen, NOW_MS);
    assert_eq!(next.begin_checks(&desired, &seen, NOW_MS).len(), 1);

    // Without a check, what has run for an unknown time runs; and what failed is tried again.
    let desired = [assigned()];
    let seen = looked(
        Some(ObservedContainer { started_ms: Some(before_ms), ..container(ContainerState::Running) }),
        true,
    );
    let mut memory = Memory::default();
    memory.observe(&desired, &seen, NOW_MS);
    assert_eq!(report(&desired, &seen, &memory, NOW_MS)[0].phase, Phase::Healthy);
    fail(&mut memory, &Subject::Instance(desired[0].id.clone()), start());
    let ended = looked(Some(container(ContainerState::Exited)), true);
    memory.observe(&desired, &ended, NOW_MS);
    assert!(plan(&desired, &ended, &memory, NOW_MS).is_empty());
    assert_eq!(plan(&desired, &ended, &memory, NOW_MS - HOURS_MS / 2).len(), 1);
}
