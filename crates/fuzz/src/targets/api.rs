//! What people send: specs in YAML, the bodies and queries of every route.

use axum::extract::Query;
use axum::http::Uri;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_api::routes::{Operation, ROUTES};
use stele_api::spec::{AppSpec, parse_json, parse_yaml};
use stele_api::wire::{
    AddMemberRequest, ApplyRequest, BatchRequest, CandidatesQuery, ConfigRequest, ConsistencyQuery,
    ConvergenceQuery, DeployRequest, DiffQuery, ErasureRequest, EventsQuery, HistoryQuery, InclusionQuery,
    LabelsRequest, LeaderRequest, LogsQuery, MarkRequest, NodeTokenRequest, ReadQuery, ReasonQuery,
    RecordsQuery, RemoveMemberRequest, RemoveRequest, ReviewRequest, RollbackRequest, SecretRequest,
    ShowQuery, StatusQuery, TokenRequest, UndoRequest, UnlatchRequest, WhatIfRequest, WhyQuery,
    WithdrawRequest,
};
use stele_model::wire::Signed;

use super::shapes;
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

/// Between the parts of an input that says for which route it is.
const PART: char = '\n';

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "spec",
            decoder: "`spec::parse_yaml`, `SpecFile::draft`",
            holds: "what is read is a spec in JSON, too, and the same one; every environment has a draft or errors, each \
                    with a place in the file",
            form: Form::Text,
            budget: Budget { fixed: 8 << 20, per_byte: 4000 },
            run: spec,
            mend: None,
            made: made_specs,
            nasty: nasty_specs,
        },
        Target {
            name: "body",
            decoder: "`spec::parse_json` into the request type of every route",
            holds: "what is read is written and read again to the same JSON; specs in it have drafts or errors",
            form: Form::Json,
            budget: Budget { fixed: 8 << 20, per_byte: 4000 },
            run: body,
            mend: None,
            made: made_bodies,
            nasty: nasty_bodies,
        },
        Target {
            name: "query",
            decoder: "query strings into the parameters of every route",
            holds: "it is read or refused",
            form: Form::Text,
            budget: Budget { fixed: 2 << 20, per_byte: 400 },
            run: query,
            mend: None,
            made: made_queries,
            nasty: nasty::texts,
        },
    ]
}

fn spec(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let file = match parse_yaml(text, "app.yaml") {
        Ok(file) => file,
        Err(errors) => {
            // Whoever wrote it reads this.
            let _ = errors.to_string();
            return Ok(Verdict::Refused);
        }
    };
    drafts(&file.spec)?;
    let json = serde_json::to_vec(&file.spec).map_err(|error| format!("it is no JSON: {error}"))?;
    let again = parse_json::<AppSpec>(&json).map_err(|errors| format!("its JSON is refused: {errors}"))?;
    holds(again == file.spec, || "its JSON is another spec".to_owned())?;
    Ok(Verdict::Read)
}

fn drafts(spec: &AppSpec) -> Result<(), String> {
    for environment in spec.environments.0.keys() {
        match spec.draft(environment) {
            Ok(draft) => drop(draft),
            Err(errors) => holds(!errors.errors.is_empty(), || "it is refused without a reason".to_owned())?,
        }
    }
    Ok(())
}

fn made_specs() -> anyhow::Result<Vec<Named>> {
    let example = include_str!("../../../../docs/examples/shop-web.yaml");
    let starter = stele_api::spec::starter(&"shop/web".parse()?, None);
    Ok(vec![
        ("example".to_owned(), example.as_bytes().to_vec()),
        ("starter".to_owned(), starter.into_bytes()),
        ("everything".to_owned(), EVERYTHING.as_bytes().to_vec()),
    ])
}

/// Every field a spec has, and anchors.
const EVERYTHING: &str = r#"app: shop/web
owner: team-shop
on_call: "+49 30 1234567"
runbook: https://wiki.example.com
environments:
  staging: {}
  prod:
    services:
      web: {replicas: 4, env: {MODE: live}}
services:
  web: &web
    image: registry.example.com/shop/web:1.20
    entrypoint: [/bin/web]
    command: [serve, "--port=80"]
    env: {MODE: test, PASSWORD: {secret: db}, KEY: {value: abc, sealed: true}}
    files:
      /etc/a: {content: "x\n", mode: "0600"}
      /etc/b: {secret: db}
    ports: ["8080:80", {container: 53, protocol: udp}]
    volumes:
      - {name: data, path: /var/data}
      - {host: /srv, path: /srv, read_only: true}
      - {memory: true, path: /tmp/x}
    health: {http: {port: 80, path: /ok}, interval: 5s, timeout: 1s, retries: 3, start_period: 10s}
    resources: {cpu: 0.5, memory: 128MiB, pids: 100}
    replicas: 3
    nodes: region in (eu, us), !spot
    update: {order: start_first, max_unavailable: 1}
    restart: on_failure
    stop: {signal: SIGTERM, grace: 10s}
    labels: {a: b}
    log: {driver: json-file, options: {max-size: 10m}}
    user: "1000:1000"
    workdir: /srv
    docker: {HostConfig: {CapAdd: [NET_ADMIN]}}
"#;

fn nasty_specs() -> Vec<Vec<u8>> {
    let mut all = nasty::yaml();
    let long = "k".repeat(30_000);
    // A path is as long as its keys, and everything below has one.
    all.push(format!("? {long}\n: [{}0]\n", "0,".repeat(12_000)).into_bytes());
    all.push(format!("app: shop/web\nservices: {{? {long} : {{imag: x}}}}\n").into_bytes());
    all.push(format!("? {long}\n: 1\n").into_bytes());
    // Many unknown names, each compared with the known ones.
    let many: Vec<_> = (0..2000).map(|at| format!("service{at}: 1")).collect();
    all.push(many.join("\n").into_bytes());
    let env: Vec<_> = (0..3000).map(|at| format!("      V{at}: x")).collect();
    let head = "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: a\n    env:\n";
    all.push([head, &env.join("\n")].concat().into_bytes());
    all
}

/// How a request's body is read.
type Read = fn(&[u8]) -> Result<bool, String>;

fn as_body<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<bool, String> {
    written_again(body, parse_json::<T>)
}

/// Whether a body is read; then it is written and read again to the same.
fn written_again<T: Serialize, E: std::fmt::Display>(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<bool, String> {
    let value = match read(body) {
        Ok(value) => value,
        Err(error) => {
            // Whoever sent it reads this.
            let _ = error.to_string();
            return Ok(false);
        }
    };
    let written = serde_json::to_vec(&value).map_err(|error| format!("it cannot be written: {error}"))?;
    let again = read(&written)
        .map_err(|error| format!("what was written is refused: {error}: {}", shapes::lossy(&written)))?;
    let twice = serde_json::to_vec(&again).map_err(|error| format!("it cannot be written again: {error}"))?;
    holds(written == twice, || format!("read again it is another: {}", shapes::lossy(&written)))?;
    Ok(true)
}

fn as_apply(body: &[u8]) -> Result<bool, String> {
    let is_read = as_body::<ApplyRequest>(body)?;
    if let Ok(request) = parse_json::<ApplyRequest>(body) {
        drafts(&request.spec)?;
    }
    Ok(is_read)
}

/// The commands of a batch keep their bodies as they were sent, which only JSON's own reader can give.
fn as_batch(body: &[u8]) -> Result<bool, String> {
    written_again(body, |body| serde_json::from_slice::<BatchRequest>(body))
}

/// How the body of an operation is read; none where it has none.
fn reader(operation: Operation) -> Option<Read> {
    Some(match operation {
        Operation::Apply => as_apply,
        Operation::Batch => as_batch,
        Operation::Deploy => as_body::<DeployRequest>,
        Operation::Remove => as_body::<RemoveRequest>,
        Operation::Rollback => as_body::<RollbackRequest>,
        Operation::Undo => as_body::<UndoRequest>,
        Operation::WhatIf => as_body::<WhatIfRequest>,
        Operation::MarkPoint => as_body::<MarkRequest>,
        Operation::Review => as_body::<ReviewRequest>,
        Operation::Erase => as_body::<ErasureRequest>,
        Operation::Unlatch => as_body::<UnlatchRequest>,
        Operation::SetConfig => as_body::<ConfigRequest>,
        Operation::SetSecret => as_body::<SecretRequest>,
        Operation::CreateNodeToken => as_body::<NodeTokenRequest>,
        Operation::LabelNode => as_body::<LabelsRequest>,
        Operation::Join => as_body::<Signed>,
        Operation::CreateToken => as_body::<TokenRequest>,
        Operation::AddMember => as_body::<AddMemberRequest>,
        Operation::TransferLeader => as_body::<LeaderRequest>,
        Operation::RemoveMember => as_body::<RemoveMemberRequest>,
        Operation::RemoveNode | Operation::DrainNode | Operation::ResumeNode | Operation::RevokeToken => {
            as_body::<WithdrawRequest>
        }
        _ => return None,
    })
}

/// A body is given to every route: what is none of one may be of another.
fn body(input: &[u8]) -> Result<Verdict, String> {
    let mut verdict = Verdict::Refused;
    for route in ROUTES {
        if let Some(read) = reader(route.operation)
            && read(input).map_err(|why| format!("{} {}: {why}", route.method.lowercase(), route.path))?
        {
            verdict = Verdict::Read;
        }
    }
    Ok(verdict)
}

fn made_bodies() -> anyhow::Result<Vec<Named>> {
    let spec = parse_yaml(EVERYTHING, "app.yaml").map_err(|errors| anyhow::anyhow!("{errors}"))?.spec;
    let spec = serde_json::to_value(spec)?;
    let links =
        serde_json::json!({"ticket": "OPS-1", "commit": null, "ci_run": null, "on_behalf_of": "anna"});
    let certificate = serde_json::to_value(super::keys::certificate()?)?;
    let bodies = [
        (
            "apply",
            serde_json::json!({"spec": spec, "environment": "prod", "plan": true, "images": {"web": "a:1"},
            "barrier": "schema 2", "reason": "why", "links": links}),
        ),
        ("deploy", serde_json::json!({"app_env": "shop/web@prod", "release": 3, "again": true})),
        (
            "batch",
            serde_json::json!({"commands": [
                {"method": "POST", "path": "/v1/unlatch", "body": {"app_env": "shop/web@prod"}, "if_match": 7},
                {"method": "DELETE", "path": "/v1/nodes/eu-1", "idempotency_key": "k"},
            ]}),
        ),
        ("remove", serde_json::json!({"plan": true, "reason": "gone"})),
        (
            "rollback",
            serde_json::json!({"scope": "shop/web@prod,region:eu", "to": "2h ago", "plan": true,
            "strict": true, "except": ["node:eu-1"], "links": links}),
        ),
        ("undo", serde_json::json!({"actor": "anna", "from": "2h ago", "to": "now", "plan": true})),
        (
            "what-if",
            serde_json::json!({"at": "seq:3", "change": {"rollback": {"scope": "fleet", "to": "prev"}}}),
        ),
        ("what-if-apply", serde_json::json!({"change": {"apply": {"spec": spec}}})),
        ("mark", serde_json::json!({"scope": "shop/web@prod", "point": "v3", "bad": true})),
        ("review", serde_json::json!({"rollback": 7, "reason": "seen"})),
        ("erase", serde_json::json!({"subject": "shop/web@prod", "even_in_use": true})),
        ("unlatch", serde_json::json!({"app_env": "shop/web@prod"})),
        (
            "config",
            serde_json::json!({"app_env": "shop/web@prod", "variables": {"A": {"value": "x"}, "B": null}}),
        ),
        ("secret", serde_json::json!({"app_env": "shop/web@prod", "name": "db", "value": "hunter2"})),
        (
            "node-token",
            serde_json::json!({"node": "eu-1", "region": "eu", "labels": {"disk": "ssd"}, "life_seconds": 60}),
        ),
        ("labels", serde_json::json!({"labels": {"disk": "ssd"}})),
        (
            "token",
            serde_json::json!({"principal": "anna", "role": "admin", "holder": "person", "life_seconds": 3600}),
        ),
        (
            "member",
            serde_json::json!({"controller": 2, "certified":
            {"certificate": certificate, "api": "https://a:1", "peer": "a:2"}}),
        ),
        ("leader", serde_json::json!({"controller": 2})),
        ("withdraw", serde_json::json!({"reason": "it leaked", "links": links})),
        ("join", serde_json::json!({"body": "{}", "signature": "00"})),
    ];
    Ok(bodies.into_iter().map(|(name, body)| (name.to_owned(), body.to_string().into_bytes())).collect())
}

fn nasty_bodies() -> Vec<Vec<u8>> {
    let mut all = nasty::json();
    let long = "k".repeat(30_000);
    all.push(format!("{{\"{long}\": 1}}").into_bytes());
    let many: Vec<String> = (0..3000).map(|at| format!("\"unknown{at}\": 1")).collect();
    all.push(format!("{{{}}}", many.join(",")).into_bytes());
    let labels: Vec<String> = (0..3000).map(|at| format!("\"l{at}\": \"\"")).collect();
    all.push(format!("{{\"labels\": {{{}}}}}", labels.join(",")).into_bytes());
    let except = vec!["\"region:eu,region:eu\""; 2000].join(",");
    all.push(format!("{{\"scope\": \"fleet\", \"to\": \"now\", \"except\": [{except}]}}").into_bytes());
    all
}

fn as_query<T: DeserializeOwned>(uri: &Uri) -> bool {
    Query::<T>::try_from_uri(uri).is_ok()
}

/// How the parameters of an operation are read; none where it has none.
fn query_reader(operation: Operation) -> Option<fn(&Uri) -> bool> {
    Some(match operation {
        Operation::Status => as_query::<StatusQuery>,
        Operation::Convergence => as_query::<ConvergenceQuery>,
        Operation::History => as_query::<HistoryQuery>,
        Operation::Events => as_query::<EventsQuery>,
        Operation::Records => as_query::<RecordsQuery>,
        Operation::Show => as_query::<ShowQuery>,
        Operation::Diff => as_query::<DiffQuery>,
        Operation::RollbackCandidates => as_query::<CandidatesQuery>,
        Operation::Why => as_query::<WhyQuery>,
        Operation::Logs => as_query::<LogsQuery>,
        Operation::Reason => as_query::<ReasonQuery>,
        Operation::InclusionProof => as_query::<InclusionQuery>,
        Operation::ConsistencyProof => as_query::<ConsistencyQuery>,
        Operation::Deployment
        | Operation::Reviews
        | Operation::Erasures
        | Operation::Nodes
        | Operation::Node
        | Operation::Tokens
        | Operation::Cluster => as_query::<ReadQuery>,
        _ => return None,
    })
}

fn query(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let text = text.split(PART).next().unwrap_or_default();
    let Ok(uri) = format!("/v1/x?{text}").parse::<Uri>() else { return Ok(Verdict::Refused) };
    let is_read =
        ROUTES.iter().filter_map(|route| query_reader(route.operation)).filter(|read| read(&uri)).count();
    Ok(if is_read > 0 { Verdict::Read } else { Verdict::Refused })
}

fn made_queries() -> anyhow::Result<Vec<Named>> {
    let texts = [
        "",
        "scope=shop%2Fweb%40prod&at=2h+ago&problems=true&consistency=stale",
        "scope=fleet&limit=10",
        "after=7&scope=region:eu&kind=node_enrolled&principal=anna&limit=1000",
        "from=v3&to=now&scope=fleet",
        "instance=shop/web@prod/web.0-7&tail=100&follow=true",
        "subject=node:eu-1",
        "seq=3&size=10",
        "from=3&to=10",
    ];
    Ok(texts.iter().enumerate().map(|(at, text)| (at.to_string(), text.as_bytes().to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_body_and_query_read() {
        for route in ROUTES {
            assert_eq!(
                route.request.is_some(),
                reader(route.operation).is_some(),
                "the body of {} has no reader here, or one too many",
                route.path
            );
            assert_eq!(
                route.query.is_some(),
                query_reader(route.operation).is_some(),
                "the query of {} has no reader here, or one too many",
                route.path
            );
        }
    }
}
