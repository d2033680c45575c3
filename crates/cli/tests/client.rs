//! What the client sends, and what it makes of answers: a stand-in takes the controller's place.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::stand_in::{Asked, StandIn};
use support::{Ran, run, stele};

const TOKEN: &str = "stele_0123456789abcdef";

fn problem(status: u16, kind: &str, detail: &str) -> (u16, String) {
    let problem =
        json!({"type": format!("urn:stele:problem:{kind}"), "title": "", "status": status, "detail": detail});
    (status, problem.to_string())
}

fn status() -> Value {
    let service =
        |name: &str| json!({"service": name, "image": "x", "image_asked": null, "wanted": 1, "healthy": 1});
    let instance = |id: &str, node: &str, reachable: bool| {
        json!({
            "id": format!("shop/web@prod/{id}"), "node": node, "region": "eu", "release": 1, "current": true,
            "phase": "healthy", "reachable": reachable, "restarts": 0, "reason": null, "exit_code": null,
            "container": null,
        })
    };
    json!({
        "scope": "shop/web@prod", "seq": 9, "time": 1_770_000_000_000_000_u64, "nodes": [], "problems": [],
        "apps": [{
            "app_env": "shop/web@prod", "condition": "converged", "release": 1, "release_digest": null,
            "deployment": 5, "last_changed": 5, "latched": [], "pins": [],
            "contacts": {"owner": null, "on_call": null, "runbook": null},
            "services": [service("web"), service("worker")],
            "instances": [
                instance("web.0-1", "lost-1", false),
                instance("web.1-2", "lost-1", false),
                instance("web.2-3", "eu-1", true),
                instance("worker.0-4", "eu-2", true),
            ],
        }],
    })
}

/// A fleet of which one node does not answer, and one has no lines.
fn half_a_fleet(path: &str) -> (u16, String) {
    match path {
        _ if path.starts_with("/v1/status") => (200, status().to_string()),
        _ if path.contains("web.2") => (200, "one\ntwo\n".to_owned()),
        _ if path.contains("worker.0") => problem(404, "not_found", "node eu-2: it has no such container"),
        _ => problem(500, "internal", "node lost-1: no answer"),
    }
}

fn ask(controller: &StandIn, args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &[args, &["--addr", &controller.address, "--token", TOKEN]].concat())
}

#[test]
fn one_silent_instance_does_not_hide_the_others() {
    let controller = StandIn::start(half_a_fleet);
    let ran = ask(&controller, &["logs", "shop/web@prod"]);
    assert_eq!((ran.code, ran.out.as_str()), (5, "web.2 | one\nweb.2 | two\n"), "{ran:?}");
    for named in ["shop/web@prod/web.0-1 on lost-1", "shop/web@prod/web.1-2 on lost-1", "worker.0-4 on eu-2"]
    {
        assert!(ran.err.contains(named), "{named} is not named: {ran:?}");
    }
    assert!(ran.err.contains("3 of 4 instances"), "{ran:?}");
    let asked = controller.asked();
    let of_lost: Vec<_> = asked.iter().filter(|it| it.path.contains("web.1-2")).collect();
    assert!(of_lost.is_empty(), "a node that did not answer is waited for once: {asked:?}");

    let ran = ask(&controller, &["logs", "shop/web@prod", "--service", "worker"]);
    assert_eq!(ran.code, 4, "the one there is has no lines: {ran:?}");
}

#[test]
fn log_lines_are_objects_for_programs() {
    let controller = StandIn::start(half_a_fleet);
    for of in ["shop/web@prod", "shop/web@prod/web.2-3"] {
        let ran = ask(&controller, &["logs", of, "-o", "json"]);
        let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // A controller of an earlier version says the text alone.
        let line = |text: &str| json!({"instance": "shop/web@prod/web.2-3", "time": null, "stream": null, "line": text});
        assert_eq!(lines, [line("one"), line("two")], "{ran:?}");
    }
}

/// A fleet whose instances print at times of their own.
fn printing(path: &str) -> (u16, String) {
    let lines: &[(u64, &str, &str)] = match path {
        _ if path.starts_with("/v1/status") => return (200, status().to_string()),
        _ if path.contains("web.0") => &[(1_000, "stdout", "one"), (4_000, "stderr", "\u{1b}[2J\tfour")],
        _ if path.contains("web.1") => &[(2_000, "stdout", "two"), (3_000, "stderr", "three")],
        _ if path.contains("web.2") => &[(3_000, "stdout", "three, too")],
        _ => &[],
    };
    let line = |(time, stream, line): &(u64, &str, &str)| {
        json!({"time": 1_770_000_000_000_000 + time, "stream": stream, "line": line}).to_string() + "\n"
    };
    (200, lines.iter().map(line).collect())
}

#[test]
fn lines_of_several_instances_are_in_the_order_of_their_times() {
    let controller = StandIn::saying("application/x-ndjson", printing);
    let ran = ask(&controller, &["logs", "shop/web@prod", "-t", "--since", "2h ago"]);
    let wanted = "web.0 | 2026-02-02T02:40:00.001Z one\nweb.1 | 2026-02-02T02:40:00.002Z two\n\
                  web.1 | 2026-02-02T02:40:00.003Z three\nweb.2 | 2026-02-02T02:40:00.003Z three, too\n\
                  web.0 | 2026-02-02T02:40:00.004Z \u{1b}[2J\tfour\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, wanted), "{ran:?}");
    let of_logs: Vec<_> =
        controller.asked().into_iter().map(|it| it.path).filter(|it| it.starts_with("/v1/logs")).collect();
    assert_eq!(of_logs.len(), 4);
    // How many lines that are is the controller's to say.
    assert!(of_logs.iter().all(|it| it.contains("since=2h%20ago") && !it.contains("tail=")), "{of_logs:?}");

    let ran = ask(&controller, &["logs", "shop/web@prod/web.1-2", "-o", "json"]);
    let line = |time: u64, stream: &str, text: &str| json!({"instance": "shop/web@prod/web.1-2", "time": 1_770_000_000_000_000 + time, "stream": stream, "line": text});
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [line(2_000, "stdout", "two"), line(3_000, "stderr", "three")], "{ran:?}");
}

#[test]
fn several_instances_are_followed_until_all_of_them_have_ended() {
    let controller = StandIn::saying("application/x-ndjson", printing);
    let ran = ask(&controller, &["logs", "shop/web@prod", "--follow"]);
    let mut lines: Vec<_> = ran.out.lines().collect();
    lines.sort_unstable();
    let all =
        ["web.0 | \u{1b}[2J\tfour", "web.0 | one", "web.1 | three", "web.1 | two", "web.2 | three, too"];
    assert_eq!((ran.code, lines), (0, all.to_vec()), "{ran:?}");
    let of = |name: &str| ran.out.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(of("web.0"), [all[1], all[0]], "an instance's own lines are in its order");

    let controller = StandIn::start(half_a_fleet);
    let ran = ask(&controller, &["logs", "shop/web@prod", "--follow"]);
    assert_eq!((ran.code, ran.out.as_str()), (5, "web.2 | one\nweb.2 | two\n"), "{ran:?}");
    for named in
        ["web.0-1 on lost-1", "web.1-2 on lost-1: its node did not answer before", "3 of 4 instances"]
    {
        assert!(ran.err.contains(named), "{named} is not named: {ran:?}");
    }
}

#[test]
fn more_instances_than_can_be_followed_are_not_followed() {
    let controller = StandIn::start(|_| {
        let mut answer = status();
        let one = answer["apps"][0]["instances"][0].clone();
        let instance = |index: usize| {
            let mut instance = one.clone();
            instance["id"] = json!(format!("shop/web@prod/web.{index}-1"));
            instance
        };
        answer["apps"][0]["instances"] = (0..17).map(instance).collect();
        (200, answer.to_string())
    });
    let ran = ask(&controller, &["logs", "shop/web@prod", "--follow"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    for said in ["at most 16 instances", "these are 17", "next: stele logs shop/web@prod/web.0-1 --follow"] {
        assert!(ran.err.contains(said), "{said} is not said: {ran:?}");
    }
    let ran = ask(&controller, &["logs", "shop/web@prod", "--since", "v3"]);
    assert!(ran.code == 2 && ran.err.contains("such as 10m"), "{ran:?}");
}

#[test]
fn a_service_that_is_not_there_is_not_found() {
    let controller = StandIn::start(half_a_fleet);
    let ran = ask(&controller, &["logs", "shop/web@prod", "--service", "nosuch"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("no service nosuch; it has: web, worker"), "{ran:?}");
}

/// Runs `stele status` with something in its environment.
fn status_with(home: &Path, variables: &[(&str, &str)]) -> Ran {
    let mut command = stele(home);
    command.arg("status").envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().unwrap().into()
}

fn nothing_runs(_: &str) -> (u16, String) {
    let mut answer = status();
    answer["apps"] = json!([]);
    (200, answer.to_string())
}

fn authorizations(controller: &StandIn) -> Vec<Option<String>> {
    // Whether it is there is asked without a token.
    let asked = controller.asked().into_iter().filter(|asked| asked.path != "/v1/health");
    asked.map(|Asked { authorization, .. }| authorization).collect()
}

#[test]
fn a_context_s_token_goes_to_each_of_its_controllers_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let (own, stranger) = (StandIn::start(nothing_runs), StandIn::start(nothing_runs));
    let context = json!({"addresses": ["http://127.0.0.1:1", own.address], "token": TOKEN});
    let contexts = json!({"current": "dev", "contexts": {"dev": context}});
    std::fs::create_dir(home.path().join("stele")).unwrap();
    std::fs::write(home.path().join("stele/contexts.json"), contexts.to_string()).unwrap();

    run(home.path(), &["status", "--addr", &own.address]).ok();
    run(home.path(), &["status", "--context", "dev", "--addr", &own.address]).ok();
    status_with(home.path(), &[("STELE_ADDR", &own.address)]).ok();
    let both = format!("{}/,http://127.0.0.1:1", own.address);
    status_with(home.path(), &[("STELE_ADDR", &both)]).ok();
    let bearer = Some(format!("Bearer {TOKEN}"));
    assert_eq!(authorizations(&own), vec![bearer; 4]);

    run(home.path(), &["status", "--addr", &stranger.address]).ok();
    run(home.path(), &["status", "--addr", &format!("{},{}", stranger.address, own.address)]).ok();
    assert_eq!(authorizations(&stranger), [None, None]);
}

#[test]
fn tokens_are_sent_as_they_were_made_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let controller = StandIn::start(nothing_runs);
    let with_token = |token: &str| {
        status_with(home.path(), &[("STELE_ADDR", &controller.address), ("STELE_TOKEN", token)])
    };
    with_token(&format!("{TOKEN}\n")).ok();
    assert_eq!(authorizations(&controller), [Some(format!("Bearer {TOKEN}"))]);
    for nonsense in ["stele_ä", "stele_0\nx-more: 1"] {
        let ran = with_token(nonsense);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("characters that no token has") && !ran.err.contains("stele_"), "{ran:?}");
    }
    assert_eq!(controller.asked().len(), 1, "nothing is sent of what is no token");
}

/// Takes one connection, and answers what it asks for.
fn answer_once(listener: &TcpListener, status: u16, body: &str) -> String {
    let (mut connection, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let asked = lines.next().unwrap();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let head = format!("HTTP/1.1 {status} -\r\nconnection: close\r\n\r\n");
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
    asked.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn events_are_followed_past_a_restart_of_the_only_controller() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let controller = std::thread::spawn(move || {
        let page = json!({"events": [], "after": 0, "last": 0}).to_string();
        let asked = [answer_once(&listener, 200, &page), answer_once(&listener, 200, "id: 5\n")];
        // It is away for a moment: who asks now is refused the connection.
        drop(listener);
        std::thread::sleep(Duration::from_secs(2));
        let (status, refused) = problem(401, "unauthenticated", "no longer");
        let again = TcpListener::bind(own).unwrap();
        [&asked[..], &[answer_once(&again, status, &refused)]].concat()
    });
    let address = format!("http://{own}");
    let ran = run(home.path(), &["events", "--follow", "--after", "0", "--addr", &address, "--token", TOKEN]);
    assert!(ran.code == 3 && ran.err.contains("no longer"), "{ran:?}");
    let asked = controller.join().unwrap();
    assert!(asked[2].contains("after=5"), "it goes on where it was: {asked:?}");
}

#[test]
fn a_controller_that_stands_still_is_passed_over() {
    let home = tempfile::tempdir().unwrap();
    // The system takes connections for it, and nobody reads from them.
    let still = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = StandIn::start(nothing_runs);
    let both = format!("http://{},{}", still.local_addr().unwrap(), alive.address);
    let ran = run(home.path(), &["status", "--addr", &both, "--token", TOKEN]);
    assert_eq!(ran.code, 0, "{ran:?}");
    still.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| still.accept().ok());
    let asked = connections.map(|(mut connection, _)| {
        let mut asked = String::new();
        std::io::Read::read_to_string(&mut connection, &mut asked).unwrap();
        asked
    });
    let asked: Vec<_> = asked.collect();
    assert!(!asked.is_empty() && asked.iter().all(|it| it.starts_with("GET /v1/health ")), "{asked:?}");
}

/// A fleet with a problem, of whose controllers the second is away.
fn half_a_cluster(path: &str) -> (u16, String) {
    if path.starts_with("/v1/status") {
        let mut answer = status();
        answer["problems"] = json!([{
            "scope": "fleet", "instance": null, "node": null, "message": "it burns", "since": null, "log_tail": [],
            "contacts": {"owner": null, "on_call": null, "runbook": null}, "next": null,
        }]);
        return (200, answer.to_string());
    }
    (200, cluster(&json!(false), &json!([])).to_string())
}

fn cluster(is_connected: &Value, missing: &Value) -> Value {
    let controller = |id: u64, connected: &Value| {
        json!({
            "id": id, "role": "voter", "leader": id == 1, "api": null, "peer": null, "certified_until": null,
            "connected": connected, "error": null, "lag": null,
        })
    };
    json!({
        "fleet": "acme", "root": "ab".repeat(32), "epoch": 1, "term": 2, "leader": 1, "answered_by": 1, "seq": 9,
        "missing": missing, "controllers": [controller(1, &Value::Null), controller(2, is_connected)],
    })
}

#[test]
fn whoever_watches_hears_of_problems_by_the_exit_code() {
    let (well, ill) = (StandIn::start(nothing_runs), StandIn::start(half_a_cluster));
    let problems = ["status", "--problems", "--exit-code"];
    assert_eq!(ask(&well, &problems).code, 0);
    let ran = ask(&ill, &problems);
    assert!(ran.code == 1 && ran.out.contains("it burns") && ran.err.is_empty(), "{ran:?}");
    assert_eq!(ask(&ill, &["status", "--problems"]).code, 0);
    assert_eq!(ask(&ill, &["status", "--prove", "--exit-code"]).code, 2);

    let watched = ["cluster", "status", "--exit-code"];
    let ran = ask(&ill, &watched);
    assert!(ran.code == 1 && ran.err.is_empty(), "{ran:?}");
    assert!(ran.out.contains(&format!("root {}\n", "ab".repeat(32))), "{ran:?}");
    assert_eq!(ask(&ill, &["cluster", "status"]).code, 0);
    let answers = |connected: Value, missing: Value| {
        StandIn::start(move |_| (200, cluster(&connected, &missing).to_string()))
    };
    assert_eq!(ask(&answers(json!(true), json!([])), &watched).code, 0);
    assert_eq!(ask(&answers(json!(true), json!([[3, 5]])), &watched).code, 1, "it lacks records");
    assert_eq!(ask(&answers(Value::Null, json!([])), &watched).code, 1, "nothing is known of the other one");
}

#[test]
fn what_names_nothing_to_change_is_no_change() {
    let controller = StandIn::start(nothing_runs);
    for args in [
        ["rollback", "shop/web@prod", "--wait"].as_slice(),
        &["rollback", "shop/web@prod", "--yes"],
        &["rollback", "shop/web@prod", "--reason", "it burns"],
        &["rollback", "shop/web@prod", "--if-match", "7"],
        &["erase", "--yes"],
        &["erase", "--ticket", "T-1"],
        &["review", "--reason", "seen"],
    ] {
        let ran = ask(&controller, args);
        assert!(ran.code == 2 && ran.err.contains("required arguments"), "{args:?}: {ran:?}");
    }
    assert_eq!(controller.asked(), []);
}

#[test]
fn a_question_names_the_fleet_it_is_about() {
    let home = tempfile::tempdir().unwrap();
    let context = json!({"addresses": ["http://127.0.0.1:1"], "token": TOKEN});
    let contexts = json!({"current": "acme", "contexts": {"acme": context}});
    std::fs::create_dir(home.path().join("stele")).unwrap();
    std::fs::write(home.path().join("stele/contexts.json"), contexts.to_string()).unwrap();
    for args in
        [["node", "remove", "eu-1"].as_slice(), &["cluster", "remove", "2"], &["remove", "shop/web@prod"]]
    {
        let ran = run(home.path(), args);
        assert!(ran.code == 2 && ran.err.contains("? (context acme: http://127.0.0.1:1)\n"), "{ran:?}");
    }
}
