//! The API over real HTTP: what every client may rely on.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};
use stele_api::limits::BODY_BYTES_MAX;
use stele_api::routes::{Method, ROUTES};
use support::{Fleet, image, spec};
use ureq::http::{HeaderValue, Request, Response};
use ureq::{Agent, Body};

struct Api<'a> {
    fleet: &'a Fleet,
    agent: Agent,
}

struct Answer {
    status: u16,
    etag: Option<String>,
    body: Value,
}

impl<'a> Api<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        Self { fleet, agent }
    }

    fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.fleet.address));
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request =
            self.agent.configure_request(request.body(body).unwrap()).allow_non_standard_methods(true);
        self.agent.run(request.build()).unwrap()
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {}", self.fleet.token);
        let mut all = vec![("content-type", "application/json")];
        if headers.iter().all(|(name, _)| *name != "authorization") {
            all.push(("authorization", bearer.as_str()));
        }
        all.extend_from_slice(headers);
        let body = body.map(ToString::to_string).unwrap_or_default();
        let mut response = self.raw(method, path, &all, body.as_bytes());
        let etag = response.headers().get("etag").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        Answer { status, etag, body: response.body_mut().read_json().unwrap_or_default() }
    }
}

fn apply_body(number: u8) -> Value {
    let file = stele_api::spec::parse_yaml(&spec(number), "web.yaml").unwrap();
    json!({"spec": file.spec})
}

fn kind(answer: &Answer) -> &str {
    answer.body["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default()
}

/// Every route of the table is served, and asks for a token where the table says so.
#[test]
fn exactly_the_routes_of_the_table_are_served() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    let mut served = BTreeSet::new();
    for route in ROUTES {
        let path = route.path.replace("{id}", "1").replace("{node}", "eu-1").replace("{project}", "shop");
        let path = path.replace("{app}", "web").replace("{env}", "prod").replace("{principal}", "nobody");
        let status = api.raw(&route.method.lowercase().to_uppercase(), &path, &[], b"").status().as_u16();
        match route.role {
            Some(_) => assert_eq!(status, 401, "{:?} {path}", route.method),
            None => assert!(matches!(status, 200 | 422), "{:?} {path}: {status}", route.method),
        }
        served.insert((path, route.method));
    }
    let paths: BTreeSet<_> = served.iter().map(|(path, _)| path.clone()).collect();
    for path in paths {
        for method in [Method::Get, Method::Post, Method::Put, Method::Delete] {
            if !served.contains(&(path.clone(), method)) {
                let answer = api.ask(&method.lowercase().to_uppercase(), &path, &[], None);
                assert_eq!((answer.status, kind(&answer)), (405, "method_not_allowed"), "{method:?} {path}");
            }
        }
    }
    let answer = api.ask("GET", "/v1/stats", &[], None);
    assert_eq!((answer.status, kind(&answer)), (404, "not_found"));
    assert!(answer.body["detail"].as_str().unwrap().contains("/v1/status"));
    let document = api.ask("GET", "/v1/openapi.json", &[], None).body;
    assert_eq!(document, stele_api::openapi::document());
}

#[test]
fn a_repeated_request_is_answered_once_and_another_under_its_key_is_refused() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    let key = [("idempotency-key", "one")];
    let first = api.ask("POST", "/v1/apply", &key, Some(&apply_body(1)));
    assert_eq!(first.status, 200, "{}", first.body);
    let again = api.ask("POST", "/v1/apply", &key, Some(&apply_body(1)));
    assert_eq!(again.body, first.body);
    let other = api.ask("POST", "/v1/apply", &key, Some(&apply_body(2)));
    assert_eq!((other.status, kind(&other)), (422, "key_reused"), "{}", other.body);

    let token = json!({"principal": "ci", "role": "deployer", "holder": "service"});
    let key = [("idempotency-key", "two")];
    assert_eq!(api.ask("POST", "/v1/tokens", &key, Some(&token)).status, 200);
    let again = api.ask("POST", "/v1/tokens", &key, Some(&token));
    assert_eq!(again.status, 409, "a secret that would not work is not handed out: {}", again.body);
}

#[test]
fn two_writers_on_one_thing_are_told_apart() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    assert_eq!(api.ask("POST", "/v1/apply", &[], Some(&apply_body(1))).status, 200);
    let seen = api.ask("GET", "/v1/show?scope=shop%2Fweb%40prod", &[], None).etag.unwrap();
    let deploy = |number: u8| json!({"app_env": "shop/web@prod", "image": image(number)});
    let won = api.ask("POST", "/v1/deployments", &[("if-match", &seen)], Some(&deploy(2)));
    assert_eq!(won.status, 200, "{}", won.body);
    let lost = api.ask("POST", "/v1/deployments", &[("if-match", &seen)], Some(&deploy(3)));
    assert_eq!((lost.status, kind(&lost)), (412, "precondition_failed"), "{}", lost.body);
    assert!(lost.body["next"].as_str().unwrap().starts_with("stele diff shop/web@prod"));
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    let mut typo = apply_body(1);
    typo["spec"]["services"]["web"]["imge"] = "x".into();
    let answer = api.ask("POST", "/v1/apply", &[], Some(&typo));
    assert_eq!((answer.status, kind(&answer)), (422, "invalid"));
    assert_eq!(answer.body["errors"][0]["path"], "spec.services.web");
    assert_eq!(answer.body["errors"][0]["message"], "unknown field `imge`; did you mean `image`?");

    let bearer = format!("Bearer {}", fleet.token);
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut response = api.raw("POST", "/v1/apply", &headers, &large);
    assert_eq!(response.status(), 413);
    let problem: Value = response.body_mut().read_json().unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("BODY_BYTES_MAX"), "{problem}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/yaml")];
    assert_eq!(api.raw("POST", "/v1/apply", &headers, b"app: x").status(), 415);

    assert_eq!(api.ask("GET", "/v1/status?scop=fleet", &[], None).status, 422);
    // Fewer than were asked for would look like all there are.
    for (path, named) in [
        ("/v1/history?limit=501", "HISTORY_ENTRIES_MAX"),
        ("/v1/rollbacks/candidates?scope=shop%2Fweb%40prod&limit=21", "ROLLBACK_CANDIDATES_MAX"),
        ("/v1/logs?instance=shop%2Fweb%40prod%2Fweb.0-1&tail=10001", "LOG_TAIL_LINES_MAX"),
    ] {
        let answer = api.ask("GET", path, &[], None);
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert!(answer.status == 422 && detail.contains(named), "{path}: {}", answer.body);
    }
    assert_eq!(api.ask("GET", "/v1/show?at=yesterday", &[], None).status, 422);
    assert_eq!(api.ask("GET", "/v1/events?since=yesterday", &[], None).status, 422);
    assert_eq!(
        api.ask("GET", "/v1/events?after=1&since=now", &[], None).status,
        422,
        "it begins at one place"
    );
    assert_eq!(api.ask("GET", "/v1/show?at=seq:99999", &[], None).status, 404);
    assert_eq!(api.ask("GET", "/v1/deployments/1", &[], None).status, 404);
    assert_eq!(api.ask("GET", "/v1/nodes/none", &[], None).status, 404);
    assert_eq!(api.ask("GET", "/v1/status", &[("authorization", "Bearer nonsense")], None).status, 401);
}

/// What somebody says of a change is kept, or else the change is refused: it is never dropped.
#[test]
fn nothing_said_of_a_change_is_dropped() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    for principal in ["ci", "bob"] {
        fleet.run(&["token", "create", principal, "--role", "deployer"]).ok();
    }
    fleet.run(&["token", "revoke", "ci", "--reason", "leaked in a build log", "--ticket", "T-7"]).ok();
    let about = ["--reason", "Ms Roe asked for it", "--reason-subject", "customer:4711"];
    fleet.run(&[&["token", "revoke", "bob"], &about[..]].concat()).ok();
    fleet.run(&["node", "remove", "eu-1", "--yes", "--reason", "hardware failed", "--ci-run", "77"]).ok();
    let headers = |kind: &str| -> Vec<Value> {
        let page = api.ask("GET", &format!("/v1/events?kind={kind}"), &[], None).body;
        page["events"].as_array().unwrap().iter().map(|event| event["header"].clone()).collect()
    };
    let revoked = headers("token_revoked");
    assert_eq!(revoked[0]["reason"]["plain"], "leaked in a build log", "{revoked:?}");
    assert_eq!(revoked[0]["links"]["ticket"], "T-7", "{revoked:?}");
    assert_eq!(revoked[1]["reason"]["sealed"]["subject"], "customer:4711", "{revoked:?}");
    let removed = headers("node_removed");
    assert_eq!(removed[0]["reason"]["plain"], "hardware failed", "{removed:?}");
    assert_eq!(removed[0]["links"]["ci_run"], "77", "{removed:?}");

    // No record is written of this in the caller's name: it cannot say why.
    let again = fleet.run(&["cluster", "add", "1", "--reason", "once more"]);
    assert_eq!(again.code, 3, "{again:?}");
    let handed = api.ask(
        "POST",
        "/v1/cluster/leader",
        &[("x-stele-reason", "maintenance")],
        Some(&json!({"controller": 1})),
    );
    assert_eq!((handed.status, kind(&handed)), (422, "invalid"), "{}", handed.body);
    let unreadable = [("x-stele-reason", "für Frau Roe")];
    let answer = api.ask("POST", "/v1/apply", &unreadable, Some(&apply_body(1)));
    assert_eq!((answer.status, kind(&answer)), (422, "invalid"), "{}", answer.body);

    // Options where nobody looks for them would be ignored.
    for route in ROUTES.iter().filter(|route| route.is_write()) {
        let path = route.path.replace(['{', '}'], "");
        let method = route.method.lowercase().to_uppercase();
        let answer = api.ask(&method, &format!("{path}?plan=true"), &[], Some(&apply_body(1)));
        assert_eq!((answer.status, kind(&answer)), (422, "invalid"), "{method} {path}: {}", answer.body);
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("takes no query"), "{method} {path}: {detail}");
    }
    let command = json!({"method": "POST", "path": "/v1/apply?plan=true", "body": apply_body(1)});
    let batch = api.ask("POST", "/v1/batch", &[], Some(&json!({"commands": [command]})));
    let answer = &batch.body["answers"][0];
    assert_eq!(answer["status"], 422, "{answer}");
    assert!(answer["body"]["detail"].as_str().unwrap().contains("takes no query"), "{answer}");
    assert_eq!(headers("release_created"), [] as [Value; 0], "none of it was carried out");
}

#[test]
fn refusals_are_events_of_who_was_refused() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    let token = json!({"principal": "bob", "role": "auditor", "holder": "person"});
    let bob = api.ask("POST", "/v1/tokens", &[], Some(&token)).body["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {bob}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({"app_env": "shop/web@prod"}).to_string();
    assert_eq!(api.raw("POST", "/v1/deployments", &headers, body.as_bytes()).status(), 403);
    assert_eq!(api.raw("GET", "/v1/reasons/1", &headers, b"").status(), 403);
    // Who may do what is read by whoever reads everything, and nobody can use what is shown of it.
    let tokens: Value = api.raw("GET", "/v1/tokens", &headers, b"").body_mut().read_json().unwrap();
    let shown: BTreeSet<_> = tokens["tokens"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(shown, ["expired", "expires", "holder", "principal", "role"].map(str::to_owned).into());
    assert_eq!(api.raw("GET", "/v1/status", &headers, b"").status(), 200);

    // The stream tells of it as soon as it is logged.
    let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    let response = api.raw("GET", "/v1/events?kind=refused&principal=bob", &headers, b"");
    let lines = BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok);
    let data = lines.filter_map(|line| line.strip_prefix("data:").map(str::to_owned)).take(2);
    let refusals: Vec<Value> = data.map(|text| serde_json::from_str(&text).unwrap()).collect();
    assert_eq!(refusals[0]["event"]["refused"]["scope"], "shop/web@prod");
    assert_eq!(refusals[0]["header"]["principal"], "bob");
}

#[test]
fn the_event_stream_goes_on_where_it_was_left() {
    let fleet = Fleet::start();
    let api = Api::new(&fleet);
    assert_eq!(api.ask("POST", "/v1/apply", &[], Some(&apply_body(1))).status, 200);
    let bearer = format!("Bearer {}", fleet.token);
    let read = |from: (&str, &str), count: usize| -> Vec<u64> {
        let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream"), from];
        let response = api.raw("GET", "/v1/events", &headers, b"");
        assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
        let lines = BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("id:")?.trim().parse().ok()).take(count).collect()
    };
    assert_eq!(read(("x-from", "the first"), 5), [1, 2, 3, 4, 5]);
    assert_eq!(read(("last-event-id", "5"), 5), [6, 7, 8, 9, 10]);
    let page = api.ask("GET", "/v1/events?after=5&limit=3", &[], None).body;
    assert_eq!(page["after"], 8);
    let kinds = api.ask("GET", "/v1/events?kind=release_created&scope=shop%2Fweb%40prod", &[], None).body;
    assert_eq!(kinds["events"].as_array().unwrap().len(), 1, "{kinds}");
}
