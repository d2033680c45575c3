//! A container that keeps ending while the engine starts it again, seen at any moment of that.
#![allow(clippy::unwrap_used)]

use stele_model::release::{Container, Image, InstanceSpec};
use stele_model::wire::{AssignedInstance, InstanceReport, Phase};
use stele_model::{Digest, InstanceId};
use stele_reconcile::{ContainerState, Memory, Observation, ObservedContainer, report};

fn assigned() -> AssignedInstance {
    let id: InstanceId = "shop/web@prod/web.0-1".parse().unwrap();
    let image = Image { repository: "registry/shop".to_owned(), digest: Digest::of(&[b"image"]) };
    let container = Container::new(image);
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

/// What is told after a look at the container in this state, started again so often.
fn told(memory: &mut Memory, state: ContainerState, restart_count: u32) -> InstanceReport {
    let desired = [assigned()];
    let now_ms = 1_000 + u64::from(restart_count) * 100;
    let container = ObservedContainer {
        id: "c1".to_owned(),
        instance: desired[0].id.clone(),
        spec_digest: Some(desired[0].spec_digest),
        state,
        // The engine forgets how the last run ended once the next one runs.
        exit_code: Some(if state == ContainerState::Running { 0 } else { 7 }),
        oom_killed: false,
        error: None,
        restart_count,
        created_ms: 0,
        started_ms: Some(now_ms),
        stop_grace_seconds: 1,
        address: None,
        drift: None,
        left_out: None,
    };
    let observed = Observation::new(vec![container], [desired[0].spec.app_env.clone()].into());
    memory.observe(&desired, &observed, now_ms);
    report(&desired, &observed, memory, now_ms).remove(0)
}

#[test]
fn a_failure_is_told_with_how_the_last_run_ended() {
    let mut memory = Memory::default();
    assert_eq!(told(&mut memory, ContainerState::Running, 0).phase, Phase::Starting);
    // Every end so far fell between two looks: why it ends is not known yet.
    let unknown = told(&mut memory, ContainerState::Running, 3);
    assert_eq!((unknown.phase, unknown.exit_code()), (Phase::Starting, None));
    let ended = told(&mut memory, ContainerState::Restarting, 3);
    assert_eq!((ended.phase, ended.exit_code()), (Phase::Failed, Some(7)));
    let runs = told(&mut memory, ContainerState::Running, 4);
    assert_eq!((runs.phase, runs.exit_code()), (Phase::Failed, Some(7)));
    assert_eq!(runs.reason().unwrap(), "keeps ending, 4 times in a row: ended with exit code 7");
}
