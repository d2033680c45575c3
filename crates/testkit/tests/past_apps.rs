//! What became of one app is the same whether all of a past State is rebuilt, or only what is about it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use stele_codec::{ProgressBytes, TargetBytes, encode_progress, encode_target};
use stele_model::signature::PublicKey;
use stele_model::{
    AppEnv, Delta, Digest, Excerpt, Interest, Outline, Record, Scope, State, TargetOutline, Time, fold,
    fold_about,
};
use stele_testkit::history::{Shape, World, golden};

/// Decisions between two States: one where it begins, one that differences lead to, and one that records lead to.
const DISTANCE: usize = 23;
const STEPS: usize = 1500;

fn states(records: &[Record]) -> Vec<State> {
    let mut states = vec![State::default()];
    let mut state = State::default();
    for (at, record) in records.iter().enumerate() {
        fold(&mut state, record);
        if at % DISTANCE == 0 {
            states.push(state.clone());
        }
    }
    states.push(state);
    states
}

/// The nodes that have to do with an app at a State.
fn hosts(state: &State, app_env: &AppEnv) -> Interest {
    let mut interest = Interest::in_apps(BTreeSet::from([app_env.clone()]));
    interest.in_hosts_at(&Outline::of(state));
    interest
}

/// Rebuilds what is about one app; answers how many records were passed over, too.
fn rebuilt(
    app_env: &AppEnv,
    steps: [&State; 3],
    records: &[Record],
    now: &State,
) -> (State, Interest, usize) {
    let [base, milestone, then] = steps;
    let records = &records[milestone.seq as usize..then.seq as usize];
    let outline = Outline::of(base);
    let delta = Delta::between(&outline, &Outline::of(milestone));
    let kept = encode_progress(&delta.progress);
    let kept = ProgressBytes::read(&kept).unwrap();
    let mut interest = hosts(base, app_env);
    for change in kept.of_apps(interest.apps()).unwrap().values() {
        interest.in_hosts_of(change);
    }
    for record in records {
        interest.in_hosts_by(&record.header.headline());
    }
    let mut excerpt = Excerpt::of(&outline, &interest);
    kept.about(&interest).unwrap().put_on(&mut excerpt).unwrap();
    let kept = encode_target(&delta.target);
    let kept = TargetBytes::read(&kept).unwrap();
    let mut target = outline.target().about(interest.apps());
    kept.about(interest.apps()).unwrap().put_on(&mut target).unwrap();
    assert_eq!(target.first_mismatch(&TargetOutline::of(milestone).about(interest.apps())), None);
    let mut state = excerpt.filled(&target, now, then.seq).unwrap();
    let mut passed_over = records.len();
    for record in records {
        let record_of = || -> Result<Record, ()> {
            passed_over -= 1;
            Ok(record.clone())
        };
        fold_about(&mut state, &interest, &record.header.headline(), record_of).unwrap();
    }
    (state, interest, passed_over)
}

/// Whoever looks at the app finds the same in both, and nothing of others' targets in the first.
fn is_all_of(app_env: &AppEnv, only: &State, then: &State) {
    assert!(only.target.intent.keys().all(|found| found == app_env), "seq {}", then.seq);
    assert!(only.target.placement.keys().all(|slot| slot.app_env == *app_env), "seq {}", then.seq);
    assert!(only.target.pins.keys().all(|(found, _)| found == app_env), "seq {}", then.seq);
    assert!(only.history.last_changed.keys().all(|found| found == app_env), "seq {}", then.seq);
    assert_eq!(only.target.intent.get(app_env), then.target.intent.get(app_env), "seq {}", then.seq);
    assert!(only.slots(app_env).eq(then.slots(app_env)), "seq {}: {app_env}", then.seq);
    assert!(only.pins(app_env).eq(then.pins(app_env)), "seq {}: {app_env}", then.seq);
    let scope = Scope::app_env(app_env);
    assert_eq!(only.last_changed(&scope), then.last_changed(&scope), "seq {}: {app_env}", then.seq);
    assert_eq!(only.hold(app_env), then.hold(app_env), "seq {}: {app_env}", then.seq);
    assert_eq!(only.control, then.control, "seq {}", then.seq);
}

/// Rebuilds every app at every State; answers how many records were passed over, and how many were not.
fn compare(records: &[Record]) -> (usize, usize) {
    let states = states(records);
    let now = states.last().unwrap();
    let (mut passed_over, mut folded) = (0, 0);
    for three in states.windows(3) {
        let [base, milestone, then] = three else { unreachable!() };
        // Apps that are gone by then, or not there yet, are asked for, too.
        let apps = [base, milestone, then, now].map(|state| state.control.apps.keys());
        let apps: BTreeSet<_> = apps.into_iter().flatten().collect();
        let environments = &now.control.environments;
        for app in apps {
            for environment in environments {
                let app_env = AppEnv::new(app.clone(), environment.clone());
                let (state, interest, passed) = rebuilt(&app_env, [base, milestone, then], records, now);
                let real = hosts(then, &app_env);
                assert!(real.nodes().is_subset(interest.nodes()), "seq {}: {app_env}", then.seq);
                // Whatever was left by others on the way is not there any more, and all else is.
                let only = Excerpt::of_state(&state, &interest);
                assert_eq!(only, Excerpt::of_state(then, &interest), "seq {}: {app_env}", then.seq);
                let target = TargetOutline::of(&state).about(interest.apps());
                let real_target = TargetOutline::of(then).about(interest.apps());
                assert_eq!(target.first_mismatch(&real_target), None, "seq {}: {app_env}", then.seq);
                let only = only.filled(&target, now, then.seq).unwrap();
                assert_eq!(hosts(&only, &app_env).nodes(), real.nodes(), "seq {}: {app_env}", then.seq);
                is_all_of(&app_env, &only, then);
                passed_over += passed;
                folded += (then.seq - milestone.seq) as usize - passed;
            }
        }
    }
    (passed_over, folded)
}

#[test]
fn an_app_of_every_kind_of_event_is_rebuilt() {
    let generations = golden::generations(Path::new("golden")).unwrap();
    let all = generations.iter().flat_map(|generation| &generation.records);
    let records: Vec<_> = all.map(|stored| stored.decode().unwrap()).collect();
    let (passed_over, folded) = compare(&records);
    assert!(passed_over > 0 && folded > 0, "{passed_over} {folded}");
}

#[test]
fn an_app_of_a_fleet_is_rebuilt_of_little() {
    let mut world = World::found(Shape {
        fleet: "acme".parse().unwrap(),
        root: PublicKey("a root".to_owned()),
        admin: Digest::of(&[b"a token"]),
        nodes: 30,
        apps: 6,
        begins: Time(1_700_000_000_000_000),
        pace_us: 1_000_000,
        seed: 11,
    })
    .unwrap();
    for _ in 0..STEPS {
        world.step().unwrap();
    }
    let records: Vec<_> = world.take().iter().map(|written| written.stored.decode().unwrap()).collect();
    let (passed_over, folded) = compare(&records);
    assert!(passed_over > folded, "{passed_over} {folded}");
}
