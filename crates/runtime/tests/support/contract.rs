//! What every runtime must do, told through the reconciler that drives it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use stele_model::Value;
use stele_model::release::{Check, EnvValue, Image, Protocol, Restart};
use stele_model::wire::{HostPort, Phase};
use stele_runtime::LogRequest;
use stele_runtime::simulated::Deed;

use super::faults::{Fault, Faulty};
use super::{
    CHANGED_FILE, Fixture, Kind, agent, all, app_env, checked, eventually, file, instance, published,
    replacing, told, vouches,
};

/// The tests of the suite, each against a fixture of its own.
#[macro_export]
macro_rules! contract {
    ($fixture:expr; $($name:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            $crate::support::contract::$name(&$fixture).await;
        })*
    };
    ($fixture:expr) => {
        $crate::contract!($fixture;
            an_instance_is_made_and_adopted_by_the_next_agent,
            a_replacement_waits_until_the_old_one_is_gone,
            a_replacement_that_cannot_be_pulled_leaves_the_old_one_running,
            a_replacement_the_host_does_not_allow_leaves_the_old_one_running,
            a_replacement_that_is_withdrawn_while_the_old_one_stops_never_starts,
            what_is_changed_by_hand_is_put_right,
            an_instance_no_longer_wanted_leaves_nothing_behind,
            nodes_that_share_an_engine_leave_each_other_alone,
            a_container_that_keeps_ending_has_failed_with_its_last_words,
            one_that_ends_as_it_should_is_completed,
            a_taken_port_is_told_in_the_engines_words_and_tried_again,
            a_port_is_taken_for_all_but_its_holder,
            health_is_what_the_checks_say,
            files_arrive_byte_for_byte,
            what_labels_hide_is_seen,
            logs_can_be_read,
            an_image_goes_when_nobody_needs_it_and_not_before,
            an_image_that_its_registry_does_not_give_comes_from_the_mirror,
        );
    };
}

pub async fn an_instance_is_made_and_adopted_by_the_next_agent(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let web = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let mut first = agent(runtime.clone(), std::slice::from_ref(&web));
    let reports = all(&mut first, 1, Phase::Healthy).await;
    assert_eq!(reports[0].spec_digest, Some(web.spec_digest.into()));
    assert_eq!((reports[0].restarts, reports[0].exit_code(), reports[0].reason()), (0, None, None));
    let before = runtime.observe().await.unwrap();
    assert_eq!(*before.networks(), [app_env("shop/web@prod")].into());
    drop(first);

    let mut second = agent(runtime.clone(), std::slice::from_ref(&web));
    let adopted = all(&mut second, 1, Phase::Healthy).await;
    assert_eq!(adopted, reports);
    let after = runtime.observe().await.unwrap();
    assert_eq!(after.containers()[0].started_ms, before.containers()[0].started_ms, "it was restarted");
    assert_eq!(second.container_of(&web.id), Some(before.containers()[0].id.as_str()));
}

pub async fn a_replacement_waits_until_the_old_one_is_gone(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let port = fixture.free_port();
    let old = instance("shop/web@prod/web.0-1", published(fixture.container(Kind::Runs, 1), port));
    let new = replacing(&old, "shop/web@prod/web.0-2", published(fixture.container(Kind::Runs, 2), port));
    let mut agent = agent(runtime.clone(), std::slice::from_ref(&old));
    all(&mut agent, 1, Phase::Healthy).await;
    agent.set_desired(vec![new.clone()]);
    let result = eventually(&mut agent, "the new one runs", |result| {
        // Both need one port: were the new one made too early, it would fail.
        let failed = result.reports.iter().any(|told| told.phase == Phase::Failed);
        assert!(!failed, "{:#?}", result.reports);
        result.settled && result.reports.len() == 1 && result.reports[0].phase == Phase::Healthy
    })
    .await;
    assert_eq!(result.reports[0].id, new.id);
    assert_eq!(runtime.observe().await.unwrap().containers().len(), 1);
}

pub async fn a_replacement_that_cannot_be_pulled_leaves_the_old_one_running(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let old = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let new = replacing(&old, "shop/web@prod/web.0-2", fixture.container(Kind::Missing, 2));
    let mut agent = agent(runtime.clone(), std::slice::from_ref(&old));
    let before = all(&mut agent, 1, Phase::Healthy).await;
    agent.set_desired(vec![new.clone()]);
    let result = eventually(&mut agent, "the pull fails", |result| {
        told(result, &new.id).is_some_and(|told| told.phase == Phase::Failed)
    })
    .await;
    let reason = told(&result, &new.id).unwrap().reason().map(str::to_owned).unwrap_or_default();
    assert!(reason.contains("manifest"), "{reason}");
    let kept = told(&result, &old.id).unwrap();
    assert_eq!((kept.phase, &kept.container), (Phase::Healthy, &before[0].container));
    assert!(kept.reason().unwrap().contains("stays until"), "{kept:?}");

    agent.set_desired(vec![old.clone()]);
    assert_eq!(all(&mut agent, 1, Phase::Healthy).await[0].container, before[0].container);
}

pub async fn a_replacement_the_host_does_not_allow_leaves_the_old_one_running(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let old = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let mut container = fixture.container(Kind::Runs, 2);
    container.docker = Some(r#"{"HostConfig": {"Privileged": true}}"#.to_owned());
    let new = replacing(&old, "shop/web@prod/web.0-2", container);
    let mut agent = agent(runtime, std::slice::from_ref(&old));
    all(&mut agent, 1, Phase::Healthy).await;
    agent.set_desired(vec![new.clone()]);
    let result = eventually(&mut agent, "the host refuses", |result| {
        told(result, &new.id).is_some_and(|told| told.phase == Phase::Failed)
    })
    .await;
    let reason = told(&result, &new.id).unwrap().reason().map(str::to_owned).unwrap_or_default();
    assert!(reason.contains("HostConfig.Privileged") && reason.contains("privileged = true"), "{reason}");
    assert_eq!(told(&result, &old.id).unwrap().phase, Phase::Healthy);
}

pub async fn a_replacement_that_is_withdrawn_while_the_old_one_stops_never_starts(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let old = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let withdrawn = replacing(&old, "shop/web@prod/web.0-2", fixture.container(Kind::Runs, 2));
    let last = replacing(&withdrawn, "shop/web@prod/web.0-3", fixture.container(Kind::Runs, 1));
    let mut before = agent(runtime.clone(), std::slice::from_ref(&old));
    all(&mut before, 1, Phase::Healthy).await;
    drop(before);

    let slow = Faulty::new(runtime.clone(), Fault::StopsSlowly, 0);
    let mut agent = agent(slow.clone(), std::slice::from_ref(&withdrawn));
    tokio::select! {
        () = slow.stopping() => {}
        _ = all(&mut agent, 1, Phase::Healthy) => panic!("nothing was stopped"),
    }
    agent.set_desired(vec![last.clone()]);
    slow.let_go();
    // Each further container that is stopped takes no time.
    let reports = tokio::select! {
        reports = all(&mut agent, 1, Phase::Healthy) => reports,
        () = async { loop { slow.stopping().await; slow.let_go(); } } => unreachable!(),
    };
    assert_eq!(reports[0].id, last.id);
    assert_eq!(slow.made_and_started(&withdrawn.id), (true, false));
    assert_eq!(slow.made_and_started(&last.id), (true, true));
}

pub async fn what_is_changed_by_hand_is_put_right(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let web = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let idle = instance("shop/web@prod/idle.0-1", fixture.container(Kind::Runs, 1));
    let mut agent = agent(runtime.clone(), &[web.clone(), idle.clone()]);
    all(&mut agent, 2, Phase::Healthy).await;
    let untouched = runtime.observe().await.unwrap().of(&idle.id).cloned();

    for (deed, keeps_container) in [
        (Deed::Kill, true),
        (Deed::Pause, true),
        (Deed::Remove, false),
        (Deed::Change, false),
        (Deed::Duplicate, true),
    ] {
        let before = runtime.observe().await.unwrap().of(&web.id).cloned().unwrap();
        fixture.by_hand("n1", &web.id, deed).await;
        let reports = all(&mut agent, 2, Phase::Healthy).await;
        let after = runtime.observe().await.unwrap();
        assert_eq!(after.containers().len(), 2, "after {deed:?}: {after:#?}");
        let web = after.of(&web.id).unwrap();
        assert_eq!(web.id == before.id, keeps_container, "after {deed:?}");
        assert_eq!(web.drift, None, "after {deed:?}");
        assert_eq!(reports.len(), 2);
    }
    assert_eq!(runtime.observe().await.unwrap().of(&idle.id).cloned(), untouched, "another was touched");
}

pub async fn an_instance_no_longer_wanted_leaves_nothing_behind(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let web = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let pay = instance("shop/pay@prod/pay.0-1", fixture.container(Kind::Runs, 1));
    let mut agent = agent(runtime.clone(), &[web.clone(), pay.clone()]);
    all(&mut agent, 2, Phase::Healthy).await;
    // Frozen ones must be able to go too.
    fixture.by_hand("n1", &pay.id, Deed::Pause).await;
    agent.set_desired(vec![web.clone()]);
    assert_eq!(all(&mut agent, 1, Phase::Healthy).await[0].id, web.id);
    let observed = runtime.observe().await.unwrap();
    assert_eq!(observed.containers().len(), 1);
    assert_eq!(*observed.networks(), [app_env("shop/web@prod")].into());
}

pub async fn nodes_that_share_an_engine_leave_each_other_alone(fixture: &impl Fixture) {
    let (here, there) = (fixture.runtime("n1"), fixture.runtime("n2"));
    let web = instance("shop/web@prod/web.0-1", fixture.container(Kind::Runs, 1));
    let (mut first, mut second) =
        (agent(here.clone(), std::slice::from_ref(&web)), agent(there.clone(), std::slice::from_ref(&web)));
    all(&mut first, 1, Phase::Healthy).await;
    all(&mut second, 1, Phase::Healthy).await;
    let before = there.observe().await.unwrap();
    first.set_desired(Vec::new());
    all(&mut first, 0, Phase::Healthy).await;
    assert!(here.observe().await.unwrap().containers().is_empty());
    assert!(here.observe().await.unwrap().networks().is_empty());
    assert_eq!(there.observe().await.unwrap(), before);
}

pub async fn a_container_that_keeps_ending_has_failed_with_its_last_words(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    for (id, restart) in [
        ("shop/web@prod/always.0-1", Restart::Always),
        ("shop/web@prod/failure.0-1", Restart::OnFailure),
        ("shop/web@prod/never.0-1", Restart::Never),
    ] {
        let mut container = fixture.container(Kind::Crashes, 1);
        container.restart = restart;
        let web = instance(id, container);
        let mut agent = agent(runtime.clone(), std::slice::from_ref(&web));
        let result = eventually(&mut agent, "it has failed", |result| {
            let phases: Vec<_> = result.reports.iter().map(|told| told.phase).collect();
            assert!(!phases.contains(&Phase::Healthy), "{restart:?}: {:#?}", result.reports);
            let told = told(result, &web.id);
            told.is_some_and(|told| told.phase == Phase::Failed && told.exit_code().is_some())
        })
        .await;
        let told = told(&result, &web.id).unwrap();
        assert_eq!(told.exit_code(), Some(1), "{told:#?}");
        assert!(told.reason().unwrap().contains("exit code 1"), "{told:#?}");
        assert!(told.log_tail().iter().any(|line| line.contains("ends with 1")), "{told:#?}");
        assert_eq!(told.restarts >= 3, restart != Restart::Never, "{told:#?}");
    }
}

pub async fn one_that_ends_as_it_should_is_completed(fixture: &impl Fixture) {
    for restart in [Restart::OnFailure, Restart::Never] {
        let mut container = fixture.container(Kind::Exits, 1);
        container.restart = restart;
        let job = instance("shop/job@prod/job.0-1", container);
        let runtime = fixture.runtime("n1");
        let mut first = agent(runtime.clone(), std::slice::from_ref(&job));
        let reports = all(&mut first, 1, Phase::Completed).await;
        assert_eq!((reports[0].exit_code(), reports[0].restarts), (Some(0), 0));
        let before = runtime.observe().await.unwrap().containers()[0].started_ms;
        // The next agent does not run it once more.
        let mut second = agent(runtime.clone(), std::slice::from_ref(&job));
        all(&mut second, 1, Phase::Completed).await;
        assert_eq!(runtime.observe().await.unwrap().containers()[0].started_ms, before);
        second.set_desired(Vec::new());
        all(&mut second, 0, Phase::Completed).await;
    }
}

pub async fn a_taken_port_is_told_in_the_engines_words_and_tried_again(fixture: &impl Fixture) {
    let port = fixture.free_port();
    let web = instance("shop/web@prod/web.0-1", published(fixture.container(Kind::Runs, 1), port));
    let mut holder = agent(fixture.runtime("n1"), std::slice::from_ref(&web));
    all(&mut holder, 1, Phase::Healthy).await;
    let mut waiter = agent(fixture.runtime("n2"), std::slice::from_ref(&web));
    let result = eventually(&mut waiter, "the port is taken", |result| {
        told(result, &web.id).is_some_and(|told| told.phase == Phase::Failed)
    })
    .await;
    let reason = result.reports[0].reason().map(str::to_owned).unwrap_or_default();
    assert!(reason.contains("port is already allocated"), "{reason}");
    holder.set_desired(Vec::new());
    all(&mut holder, 0, Phase::Healthy).await;
    all(&mut waiter, 1, Phase::Healthy).await;
}

pub async fn a_port_is_taken_for_all_but_its_holder(fixture: &impl Fixture) {
    let [held, free] = [fixture.free_port(), fixture.free_port()];
    let web = instance("shop/web@prod/web.0-1", published(fixture.container(Kind::Runs, 1), held));
    let mut holder = agent(fixture.runtime("n1"), std::slice::from_ref(&web));
    all(&mut holder, 1, Phase::Healthy).await;
    let port = |port| HostPort { port, protocol: Protocol::Tcp };
    let asked = [port(free), port(held), HostPort { port: held, protocol: Protocol::Udp }];
    let taken = fixture.runtime("n2").ports_taken(&asked).await.unwrap();
    assert_eq!(taken.iter().map(|taken| taken.port).collect::<Vec<_>>(), [port(held)]);
    assert!(taken[0].holder.starts_with("container "), "{taken:?}");
    assert_eq!(fixture.runtime("n1").ports_taken(&asked).await.unwrap(), [], "its own does not count");
    holder.set_desired(Vec::new());
    all(&mut holder, 0, Phase::Healthy).await;
    assert_eq!(fixture.runtime("n2").ports_taken(&asked).await.unwrap(), []);
}

pub async fn health_is_what_the_checks_say(fixture: &impl Fixture) {
    let exec = |words: &[&str]| Check::Exec { command: words.iter().map(|&word| word.to_owned()).collect() };
    let well = checked(fixture.container(Kind::Runs, 1), exec(&["true"]));
    let sick = checked(fixture.container(Kind::Sick, 1), exec(&["sh", "-c", "echo it is sick; exit 3"]));
    let (well, sick) = (instance("shop/web@prod/well.0-1", well), instance("shop/web@prod/sick.0-1", sick));
    let mut agent = agent(fixture.runtime("n1"), &[well.clone(), sick.clone()]);
    let result = eventually(&mut agent, "both are known", |result| {
        let phase = |id| told(result, id).map(|told| told.phase);
        assert_ne!(phase(&sick.id), Some(Phase::Healthy));
        phase(&well.id) == Some(Phase::Healthy) && phase(&sick.id) == Some(Phase::Failed)
    })
    .await;
    let reason = told(&result, &sick.id).unwrap().reason().map(str::to_owned).unwrap_or_default();
    assert!(reason.contains("never became healthy") && reason.contains("is sick"), "{reason}");
}

pub async fn files_arrive_byte_for_byte(fixture: &impl Fixture) {
    let content = "key = \"välue\"\r\n\ttail without line end \u{0} \u{1f980}";
    let mut container = fixture.container(Kind::Runs, 1);
    container.files = [
        ("/etc/app/deep/config.toml".to_owned(), file(content, 0o640)),
        ("/etc/empty".to_owned(), file("", 0o644)),
    ]
    .into();
    let web = instance("shop/web@prod/web.0-1", container);
    let mut agent = agent(fixture.runtime("n1"), std::slice::from_ref(&web));
    all(&mut agent, 1, Phase::Healthy).await;
    let read = fixture.file("n1", &web.id, "/etc/app/deep/config.toml").await;
    assert_eq!(read.as_deref(), Some(content.as_bytes()));
    assert_eq!(fixture.file("n1", &web.id, "/etc/empty").await.as_deref(), Some(&[][..]));
}

pub async fn what_labels_hide_is_seen(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let mut container = fixture.container(Kind::Runs, 1);
    container.files = [
        (CHANGED_FILE.to_owned(), file("as it was", 0o640)),
        ("/etc/deep/er/other".to_owned(), file("", 0o600)),
    ]
    .into();
    container.env = [("KEY".to_owned(), EnvValue::Value(Value::from("s3cret")))].into();
    container.resources.memory_bytes = Some(32 << 20);
    let desired = [
        instance("shop/web@prod/web.0-1", published(container, fixture.free_port())),
        instance("shop/web@prod/idle.0-1", fixture.container(Kind::Runs, 2)),
    ];
    let mut agent = agent(runtime.clone(), &desired);
    let result = eventually(&mut agent, "all is vouched for", |result| vouches(result, &desired)).await;
    assert_eq!(result.observed.unwrap().differs, []);

    for (deed, said) in [(Deed::ChangeFile, CHANGED_FILE), (Deed::Impostor, "Cmd")] {
        let labels = runtime.observe().await.unwrap().of(&desired[0].id).unwrap().spec_digest;
        fixture.by_hand("n1", &desired[0].id, deed).await;
        let result = eventually(&mut agent, "the difference is seen", |result| {
            // It goes by its labels and seems well; only a closer look tells.
            let told = told(result, &desired[0].id);
            let well = told.is_some_and(|told| told.phase == Phase::Healthy);
            well && result
                .observed
                .as_ref()
                .is_some_and(|it| it.differs.iter().any(|it| it.why.contains(said)))
        })
        .await;
        assert!(!vouches(&result, &desired), "after {deed:?}");
        let differs = result.observed.unwrap().differs;
        assert_eq!(differs.len(), 1, "after {deed:?}: {differs:?}");
        assert_eq!(differs[0].instance, desired[0].id);
        assert!(!differs[0].why.contains("s3cret"), "{differs:?}");
        let kept = runtime.observe().await.unwrap().of(&desired[0].id).unwrap().spec_digest;
        assert_eq!((labels, kept), (Some(desired[0].spec_digest), Some(desired[0].spec_digest)));

        // What is removed by hand is made anew, as it should be.
        fixture.by_hand("n1", &desired[0].id, Deed::Remove).await;
        eventually(&mut agent, "all is vouched for again", |result| vouches(result, &desired)).await;
    }
}

pub async fn logs_can_be_read(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let mut container = fixture.container(Kind::Crashes, 1);
    container.restart = Restart::Never;
    let web = instance("shop/web@prod/web.0-1", container);
    let mut agent = agent(runtime.clone(), std::slice::from_ref(&web));
    all(&mut agent, 1, Phase::Failed).await;
    let id = agent.container_of(&web.id).unwrap();
    let request = LogRequest { tail: None, since_ms: None, follow: false };
    let read = |request| runtime.logs(id, request).map(Result::unwrap).collect::<Vec<_>>();
    // An engine keeps the order within a stream. It reads the two streams by themselves, so which of
    // two lines of different streams comes first is its accident.
    let lines = read(request).await;
    let texts: BTreeSet<_> = lines.iter().map(|line| (line.text.as_str(), line.stderr)).collect();
    assert_eq!((lines.len(), texts), (2, [("start 1", false), ("ends with 1", true)].into()));
    assert!(lines.iter().all(|line| line.time_ms.is_some()), "{lines:?}");
    assert_eq!(read(LogRequest { tail: Some(1), ..request }).await.len(), 1);
    // To the millisecond, though an engine may know but seconds.
    let last = lines.iter().filter_map(|line| line.time_ms).max().unwrap();
    let since = async |since_ms| read(LogRequest { since_ms: Some(since_ms), ..request }).await;
    let of_last: Vec<_> = lines.iter().filter(|line| line.time_ms == Some(last)).cloned().collect();
    assert_eq!(since(last).await, of_last);
    assert_eq!(since(last + 1).await, []);
    assert_eq!(since(0).await, lines);
    // Following begins with what is there.
    let first = runtime.logs(id, LogRequest { follow: true, ..request }).next().await.unwrap().unwrap();
    assert_eq!(first.text, lines[0].text);
    assert!(runtime.logs("0123456789ab", request).next().await.unwrap().is_err());
}

pub async fn an_image_goes_when_nobody_needs_it_and_not_before(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let container = fixture.fresh(false);
    let image = container.image.clone();
    let here = async || {
        let here = runtime.images().await.unwrap();
        let found = here.into_iter().find(|one| one.names.contains(&image));
        found.map(|one| (one.is_tagged, one.is_used))
    };
    assert_eq!((here().await, runtime.has_image(&image).await.unwrap()), (None, false));

    let web = instance("shop/web@prod/web.0-1", container);
    let mut agent = agent(runtime.clone(), std::slice::from_ref(&web));
    let pulled: Arc<Mutex<Vec<Image>>> = Arc::default();
    let record = Arc::clone(&pulled);
    agent.set_pull_record(Arc::new(move |image| record.lock().unwrap().push(image.clone())));
    all(&mut agent, 1, Phase::Healthy).await;
    assert_eq!(*pulled.lock().unwrap(), std::slice::from_ref(&image), "told before it was pulled");
    assert_eq!(here().await, Some((false, true)));
    let refused = runtime.remove_image(&image).await.unwrap_err().to_string();
    assert!(refused.contains("using"), "{refused}");
    let container = runtime.observe().await.unwrap().containers()[0].id.clone();
    runtime.stop(&container, 1).await.unwrap();
    assert!(runtime.remove_image(&image).await.is_err(), "a stopped container uses it, too");
    assert_eq!(here().await, Some((false, true)));

    agent.set_desired(Vec::new());
    all(&mut agent, 0, Phase::Healthy).await;
    assert_eq!(here().await, Some((false, false)), "it stays until somebody removes it");
    fixture.tag(&image, true);
    assert_eq!(here().await, Some((true, false)));
    fixture.tag(&image, false);
    runtime.remove_image(&image).await.unwrap();
    assert_eq!((here().await, runtime.has_image(&image).await.unwrap()), (None, false));
    runtime.remove_image(&image).await.unwrap();

    // A restart that needs it again pulls it again.
    agent.set_desired(vec![web.clone()]);
    all(&mut agent, 1, Phase::Healthy).await;
    assert_eq!(pulled.lock().unwrap().len(), 2);
    agent.set_desired(Vec::new());
    all(&mut agent, 0, Phase::Healthy).await;
    runtime.remove_image(&image).await.unwrap();
}

pub async fn an_image_that_its_registry_does_not_give_comes_from_the_mirror(fixture: &impl Fixture) {
    let runtime = fixture.runtime("n1");
    let container = fixture.fresh(true);
    let (image, copy) = (container.image.clone(), container.image.mirrored(&fixture.mirror()));
    let web = instance("shop/web@prod/web.0-1", container);
    let mut with = agent(runtime.clone(), std::slice::from_ref(&web));
    eventually(&mut with, "its registry does not give it", |result| {
        told(result, &web.id).is_some_and(|told| told.phase == Phase::Failed)
    })
    .await;
    with.set_mirror(Some(fixture.mirror()));
    let reports = all(&mut with, 1, Phase::Healthy).await;
    assert_eq!(reports[0].spec_digest, Some(web.spec_digest.into()));
    eventually(&mut with, "the node vouches for it", |result| vouches(result, std::slice::from_ref(&web)))
        .await;
    assert!(runtime.has_image(&image).await.unwrap(), "the same bytes under another name");
    let here = runtime.images().await.unwrap();
    assert!(here.iter().any(|one| one.names == [copy.clone()] && one.is_used), "{here:?}");
    drop(with);

    // Whoever comes next, with or without the mirror, takes it for what it is.
    let mut next = agent(runtime.clone(), std::slice::from_ref(&web));
    let adopted = all(&mut next, 1, Phase::Healthy).await;
    assert_eq!(adopted[0].container, reports[0].container);
    next.set_desired(Vec::new());
    all(&mut next, 0, Phase::Healthy).await;
    runtime.remove_image(&copy).await.unwrap();
    assert!(!runtime.has_image(&image).await.unwrap());
}
