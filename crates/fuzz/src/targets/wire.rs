//! What travels over NATS and HTTP between controllers and nodes, signed and sealed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stele_bus::ask::{Answer, Outcome, Question, Request, Stamp};
use stele_bus::join::{JoinAnswer, JoinLine, JoinRequest, NatsAccess, open_answer, open_request};
use stele_bus::subjects::{self, NodeTopic};
use stele_bus::{Auth, purposes, sealing};
use stele_model::limits::REMOVED_CONTROLLERS_MAX;
use stele_model::release::{Container, EnvValue, File, Image, InstanceSpec, Protocol};
use stele_model::signature::{Purpose, public_key};
use stele_model::wire::{
    AssignedInstance, Assignment, AssignmentVersion, Heartbeat, HostPort, ImagePolicy, InstanceDifference,
    InstanceReport, Observed, Phase, Remarks, RemovedControllers, Report, ReportAck, Signed, SyncRequest,
    TakenPort, WrappedKey, assignment_digest,
};
use stele_model::{Digest, InstanceId, Sealed, Value};
use stele_reconcile::{Pinned, Trust, accept};

use super::{keys, shapes};
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const APP: &str = "shop/web@prod";

/// What must hold of every message that is signed.
const SIGNED: &str = "believed, it carries the very signature that its sender's key makes of its body; read and written, \
                      it is the same";

const fn signed(
    name: &'static str,
    decoder: &'static str,
    run: fn(&[u8]) -> Result<Verdict, String>,
    mend: fn(&mut Vec<u8>),
    made: fn() -> anyhow::Result<Vec<Named>>,
) -> Target {
    Target {
        name,
        decoder,
        holds: SIGNED,
        form: Form::Signed,
        budget: Budget { fixed: 1 << 20, per_byte: 400 },
        run,
        mend: Some(mend),
        made,
        nasty: nasty::json,
    }
}

pub(super) fn targets() -> Vec<Target> {
    vec![
        signed(
            "assignment",
            "`reconcile::accept`, `agent::open_values` and, on the node, its own `assignment.json`",
            assignment,
            |input| keys::sign_again(input, &keys::controller(), purposes::ASSIGNMENT),
            made_assignments,
        ),
        signed(
            "report",
            "`wire::Report`",
            |input| message::<Report>(input, &keys::node(), purposes::REPORT),
            |input| keys::sign_again(input, &keys::node(), purposes::REPORT),
            made_reports,
        ),
        signed(
            "ack",
            "`wire::ReportAck`",
            |input| message::<ReportAck>(input, &keys::controller(), purposes::REPORT_ACK),
            |input| keys::sign_again(input, &keys::controller(), purposes::REPORT_ACK),
            made_acks,
        ),
        signed(
            "removed",
            "`wire::RemovedControllers`, `Trust::learn`",
            removed,
            |input| keys::sign_again(input, &keys::controller(), purposes::REMOVED),
            made_removed,
        ),
        signed(
            "heartbeat",
            "`wire::Heartbeat`",
            |input| message::<Heartbeat>(input, &keys::node(), purposes::HEARTBEAT),
            |input| keys::sign_again(input, &keys::node(), purposes::HEARTBEAT),
            made_heartbeats,
        ),
        signed(
            "sync",
            "`wire::SyncRequest`",
            |input| message::<SyncRequest>(input, &keys::node(), purposes::SYNC),
            |input| keys::sign_again(input, &keys::node(), purposes::SYNC),
            made_syncs,
        ),
        signed(
            "question",
            "`ask::Request`",
            |input| message::<Request>(input, &keys::controller(), purposes::QUESTION),
            |input| keys::sign_again(input, &keys::controller(), purposes::QUESTION),
            made_questions,
        ),
        signed(
            "answer",
            "`ask::Answer`",
            |input| message::<Answer>(input, &keys::node(), purposes::ANSWER),
            |input| keys::sign_again(input, &keys::node(), purposes::ANSWER),
            made_answers,
        ),
        signed(
            "join-request",
            "`join::open_request`",
            join_request,
            |input| keys::sign_again(input, &keys::node(), purposes::JOIN_REQUEST),
            made_join_requests,
        ),
        signed(
            "join-answer",
            "`join::open_answer`",
            join_answer,
            |input| keys::sign_again(input, &keys::controller(), purposes::JOIN_ANSWER),
            made_join_answers,
        ),
        Target {
            name: "join-line",
            decoder: "`JoinLine`",
            holds: "written and read again it is the same",
            form: Form::Text,
            budget: Budget { fixed: 1 << 20, per_byte: 100 },
            run: join_line,
            mend: None,
            made: || Ok(vec![("line".to_owned(), line()?.to_string().into_bytes())]),
            nasty: nasty::texts,
        },
        Target {
            name: "sealed",
            decoder: "`sealing::open`, `sealing::unwrap`",
            holds: "opened, it is the very text or key that was sealed",
            form: Form::Json,
            budget: Budget { fixed: 1 << 20, per_byte: 200 },
            run: sealed,
            mend: None,
            made: made_sealed,
            nasty: nasty::json,
        },
        Target {
            name: "subject",
            decoder: "`subjects::parse_node`, `parse_sync`",
            holds: "what is read is written the same",
            form: Form::Text,
            budget: Budget { fixed: 1 << 20, per_byte: 20 },
            run: subject,
            mend: None,
            made: made_subjects,
            nasty: nasty::texts,
        },
    ]
}

/// Reads a message as its receiver does: the envelope, a look inside, then for good.
fn message<T: Serialize + DeserializeOwned>(
    input: &[u8],
    key: &ed25519_dalek::SigningKey,
    purpose: Purpose,
) -> Result<Verdict, String> {
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    shapes::json::<T>(signed.body.as_bytes())?;
    if signed.open::<T>(&public_key(key), purpose).is_err() {
        return Ok(Verdict::Refused);
    }
    holds(keys::is_signed(&signed, key, purpose), || "another signature is believed".to_owned())?;
    Ok(Verdict::Read)
}

fn pinned() -> Result<Pinned, String> {
    let name = |error: stele_model::ids::NameError| error.to_string();
    Ok(Pinned {
        root: keys::root_public(),
        fleet: keys::fleet().map_err(name)?,
        node: keys::node_name().map_err(name)?,
    })
}

fn assignment(input: &[u8]) -> Result<Verdict, String> {
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    shapes::json::<Assignment>(signed.body.as_bytes())?;
    let trust = Trust::new(pinned()?, BTreeMap::new());
    let Ok(accepted) = accept(None, &signed, &trust, Some(keys::NOW)) else {
        return Ok(Verdict::Refused);
    };
    let is_signed = keys::is_signed(&signed, &keys::controller(), purposes::ASSIGNMENT);
    holds(is_signed, || "another signature is believed".to_owned())?;
    let (stele_reconcile::Accepted::New(assignment) | stele_reconcile::Accepted::Known(assignment)) =
        accepted;
    let pinned = pinned()?;
    holds(assignment.node == pinned.node && assignment.fleet == pinned.fleet, || {
        "it is for another".to_owned()
    })?;
    stele_agent::open_values(&assignment, &keys::SEALING_SECRET);
    Ok(Verdict::Read)
}

fn removed(input: &[u8]) -> Result<Verdict, String> {
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    shapes::json::<RemovedControllers>(signed.body.as_bytes())?;
    let mut trust = Trust::new(pinned()?, BTreeMap::new());
    if trust.learn(&signed, Some(keys::NOW)).is_err() {
        return Ok(Verdict::Refused);
    }
    let is_signed = keys::is_signed(&signed, &keys::controller(), purposes::REMOVED);
    holds(is_signed, || "another signature is believed".to_owned())?;
    let count = trust.removed().len();
    holds(count <= REMOVED_CONTROLLERS_MAX, || format!("{count} removed controllers are kept"))?;
    Ok(Verdict::Read)
}

fn made_removed() -> anyhow::Result<Vec<Named>> {
    let removed = RemovedControllers {
        fleet: keys::fleet()?,
        controllers: [2, 3].into(),
        at: keys::NOW,
        controller: keys::certificate()?,
    };
    Ok(vec![envelope("removed", &keys::controller(), purposes::REMOVED, &removed)?])
}

fn instance(id: &str) -> anyhow::Result<AssignedInstance> {
    let id: InstanceId = id.parse()?;
    let mut container = Container::new(image("v1"));
    container.command = vec!["serve".to_owned(), "--port=80".to_owned()];
    container.env.insert("MODE".to_owned(), EnvValue::Value(Value::Plain("prod".to_owned())));
    container.env.insert("TOKEN".to_owned(), EnvValue::Value(Value::Sealed(one_sealed())));
    let content = EnvValue::Value(Value::Plain("listen 80;\n".to_owned()));
    container.files.insert("/etc/web.conf".to_owned(), File { content, mode: 0o644 });
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    Ok(AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None })
}

fn image(version: &str) -> Image {
    Image {
        repository: "registry.example.com/shop/web".to_owned(),
        digest: Digest::of(&[version.as_bytes()]),
    }
}

pub(super) fn one_sealed() -> Sealed {
    sealing::seal(APP, 1, &keys::DATA_KEY, "hunter2", [1; 24])
}

fn one_wrapped() -> anyhow::Result<WrappedKey> {
    let public = sealing::public_key(&keys::SEALING_SECRET);
    Ok(sealing::wrap(&keys::DATA_KEY, APP, 1, &public, [3; 32], [2; 24])?)
}

fn version(instances: &[AssignedInstance]) -> AssignmentVersion {
    let rows = instances.iter().map(|row| (&row.id, &row.spec_digest, row.replaces.as_ref()));
    AssignmentVersion { epoch: 1, seq: 40, digest: assignment_digest(rows) }
}

fn envelope<T: Serialize>(
    name: &str,
    key: &ed25519_dalek::SigningKey,
    purpose: Purpose,
    message: &T,
) -> anyhow::Result<Named> {
    Ok((name.to_owned(), serde_json::to_vec(&Signed::new(key, purpose, message))?))
}

fn made_assignments() -> anyhow::Result<Vec<Named>> {
    let mut second = instance("shop/web@prod/web.1-12")?;
    second.replaces = Some("shop/web@prod/web.1-7".parse()?);
    let full = vec![instance("shop/web@prod/web.0-7")?, second];
    let images = ImagePolicy {
        seq: 39,
        keep: Some(vec![image("v0"), image("v1")]),
        mirror: Some("mirror.example.com/stele".to_owned()),
    };
    let mut all = Vec::new();
    for (name, instances, keys_sent, images) in
        [("full", full, vec![one_wrapped()?], Some(images)), ("empty", Vec::new(), Vec::new(), None)]
    {
        let assignment = Assignment {
            fleet: keys::fleet()?,
            node: keys::node_name()?,
            version: version(&instances),
            instances,
            keys: keys_sent,
            images,
            controller: keys::certificate()?,
        };
        all.push(envelope(name, &keys::controller(), purposes::ASSIGNMENT, &assignment)?);
    }
    Ok(all)
}

fn made_reports() -> anyhow::Result<Vec<Named>> {
    let instances = vec![
        InstanceReport {
            id: "shop/web@prod/web.0-7".parse()?,
            phase: Phase::Healthy,
            spec_digest: Some(Digest::of(&[b"spec"]).into()),
            container: Some("4f5c".into()),
            restarts: 0,
            remarks: None,
        },
        InstanceReport {
            id: "shop/web@prod/web.1-12".parse()?,
            phase: Phase::Failed,
            spec_digest: None,
            container: None,
            restarts: 5,
            remarks: Remarks::of(
                Some("it ends at once".to_owned()),
                Some(-1),
                vec!["panic: \"no\"\u{7f}".to_owned(), String::new()],
            ),
        },
    ];
    let report = Report {
        fleet: keys::fleet()?,
        node: keys::node_name()?,
        boot: 77,
        number: 3,
        applied: version(&[]),
        instances,
    };
    let nothing = Report { instances: Vec::new(), ..report.clone() };
    Ok(vec![
        envelope("two", &keys::node(), purposes::REPORT, &report)?,
        envelope("nothing", &keys::node(), purposes::REPORT, &nothing)?,
    ])
}

fn made_acks() -> anyhow::Result<Vec<Named>> {
    let ack = ReportAck { node: keys::node_name()?, boot: 77, number: 3, controller: keys::certificate()? };
    Ok(vec![envelope("ack", &keys::controller(), purposes::REPORT_ACK, &ack)?])
}

fn made_heartbeats() -> anyhow::Result<Vec<Named>> {
    let difference = InstanceDifference {
        instance: "shop/web@prod/web.1-12".parse()?,
        why: "its image is another".to_owned(),
    };
    let heartbeat = Heartbeat {
        fleet: keys::fleet()?,
        node: keys::node_name()?,
        region: keys::region()?,
        boot: 77,
        number: 9,
        applied: version(&[]),
        acked: 3,
        time: Some(keys::NOW),
        observed: Some(Observed {
            digest: Digest::of(&[b"observed"]),
            instances: 2,
            inspected: Some(keys::NOW),
            differs: vec![difference],
            more: 1,
        }),
    };
    let bare = Heartbeat { time: None, observed: None, ..heartbeat.clone() };
    Ok(vec![
        envelope("full", &keys::node(), purposes::HEARTBEAT, &heartbeat)?,
        envelope("bare", &keys::node(), purposes::HEARTBEAT, &bare)?,
    ])
}

fn made_syncs() -> anyhow::Result<Vec<Named>> {
    let sync = SyncRequest {
        fleet: keys::fleet()?,
        node: keys::node_name()?,
        applied: version(&[]),
        images: Some(Digest::of(&[b"images"])),
    };
    Ok(vec![envelope("sync", &keys::node(), purposes::SYNC, &sync)?])
}

fn questions() -> anyhow::Result<[Question; 3]> {
    Ok([
        Question::Logs { instance: "shop/web@prod/web.0-7".parse()?, lines: 100, since_ms: None },
        Question::Images { images: vec![image("v1")] },
        Question::Ports { ports: vec![HostPort { port: 80, protocol: Protocol::Tcp }] },
    ])
}

fn made_questions() -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::new();
    let since = Question::Logs { instance: "shop/web@prod/web.0-7".parse()?, lines: 100, since_ms: Some(1) };
    let questions = questions()?.into_iter().chain([since]);
    for (name, question) in ["logs", "images", "ports", "logs-since"].into_iter().zip(questions) {
        let request = Request {
            fleet: keys::fleet()?,
            node: keys::node_name()?,
            question,
            asked: keys::NOW,
            controller: keys::certificate()?,
        };
        all.push(envelope(name, &keys::controller(), purposes::QUESTION, &request)?);
    }
    Ok(all)
}

fn made_answers() -> anyhow::Result<Vec<Named>> {
    let [logs, images, ports] = questions()?;
    let port = HostPort { port: 80, protocol: Protocol::Tcp };
    let taken = vec![TakenPort { port, holder: "container web".to_owned() }];
    let (lines, stamps) = (vec!["started".to_owned()], vec![Stamp { time_ms: Some(1), stderr: true }]);
    let outcomes = [
        ("lines", logs.clone(), Outcome::Logs { lines: lines.clone(), stamps: Vec::new(), is_cut: false }),
        ("stamped", logs.clone(), Outcome::Logs { lines, stamps, is_cut: true }),
        ("images", images, Outcome::Images { here: vec![image("v1")] }),
        ("ports", ports, Outcome::Ports { taken }),
        ("failed", logs, Outcome::Failed { why: "no container".to_owned() }),
    ];
    let mut all = Vec::new();
    for (name, question, outcome) in outcomes {
        let answer = Answer { node: keys::node_name()?, question, asked: keys::NOW, outcome };
        all.push(envelope(name, &keys::node(), purposes::ANSWER, &answer)?);
    }
    Ok(all)
}

fn line() -> anyhow::Result<JoinLine> {
    Ok(JoinLine {
        fleet: keys::fleet()?,
        root: keys::root_public(),
        secret: "s3cr3t".to_owned(),
        controllers: vec!["https://127.0.0.1:7400".to_owned()],
        tls_root: Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned()),
    })
}

fn join_line(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    Ok(shapes::text::<JoinLine>(text)?.map_or(Verdict::Refused, |_| Verdict::Read))
}

fn join_request(input: &[u8]) -> Result<Verdict, String> {
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    let Ok(request) = open_request(&signed) else { return Ok(Verdict::Refused) };
    // Whose key it is about is the sender's to say; of ours the signature is known.
    if request.key == public_key(&keys::node()) {
        let is_signed = keys::is_signed(&signed, &keys::node(), purposes::JOIN_REQUEST);
        holds(is_signed, || "another signature is believed".to_owned())?;
    }
    Ok(Verdict::Read)
}

fn made_join_requests() -> anyhow::Result<Vec<Named>> {
    let request = JoinRequest {
        secret: "s3cr3t".to_owned(),
        name: keys::node_name()?,
        key: public_key(&keys::node()),
        sealing_key: sealing::public_key(&keys::SEALING_SECRET),
        address: Some("10.0.0.1".to_owned()),
    };
    Ok(vec![envelope("request", &keys::node(), purposes::JOIN_REQUEST, &request)?])
}

fn join_answer(input: &[u8]) -> Result<Verdict, String> {
    static LINE: LazyLock<Result<JoinLine, String>> =
        LazyLock::new(|| line().map_err(|error| error.to_string()));
    let line = LINE.as_ref().map_err(Clone::clone)?;
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    shapes::json::<JoinAnswer>(signed.body.as_bytes())?;
    if open_answer(line, &signed, &public_key(&keys::node()), Some(keys::NOW)).is_err() {
        return Ok(Verdict::Refused);
    }
    let is_signed = keys::is_signed(&signed, &keys::controller(), purposes::JOIN_ANSWER);
    holds(is_signed, || "another signature is believed".to_owned())?;
    Ok(Verdict::Read)
}

fn made_join_answers() -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::new();
    let auth = [
        ("none", Auth::None),
        ("user", Auth::User { user: "node".to_owned(), password: "pw".to_owned() }),
        ("nkey", Auth::Nkey("SUAA".to_owned())),
    ];
    for (name, auth) in auth {
        let answer = JoinAnswer {
            fleet: keys::fleet()?,
            node: keys::node_name()?,
            key: public_key(&keys::node()),
            region: keys::region()?,
            epoch: 1,
            nats: NatsAccess { urls: vec!["nats://127.0.0.1:4222".to_owned()], auth, tls_root: None },
            root: keys::root_public(),
            controller: keys::certificate()?,
        };
        all.push(envelope(name, &keys::controller(), purposes::JOIN_ANSWER, &answer)?);
    }
    Ok(all)
}

fn sealed(input: &[u8]) -> Result<Verdict, String> {
    // What has all that a wrapped key has would pass for a sealed value, too.
    if let Some(wrapped) = shapes::json::<WrappedKey>(input)? {
        let Ok(key) = sealing::unwrap(&wrapped, &keys::SEALING_SECRET) else { return Ok(Verdict::Refused) };
        holds(key == keys::DATA_KEY, || "it unwraps to another key".to_owned())?;
        return Ok(Verdict::Read);
    }
    let Some(sealed) = shapes::json::<Sealed>(input)? else { return Ok(Verdict::Refused) };
    let Ok(text) = sealing::open(&sealed, &keys::DATA_KEY) else { return Ok(Verdict::Refused) };
    holds(text == "hunter2", || format!("it opens as {text:?}"))?;
    Ok(Verdict::Read)
}

fn made_sealed() -> anyhow::Result<Vec<Named>> {
    Ok(vec![
        ("value".to_owned(), serde_json::to_vec(&one_sealed())?),
        ("key".to_owned(), serde_json::to_vec(&one_wrapped()?)?),
    ])
}

const TOPICS: [NodeTopic; 4] =
    [NodeTopic::Assignment, NodeTopic::Report, NodeTopic::Heartbeat, NodeTopic::Ask];

fn subject(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let fleet = keys::fleet().map_err(|error| error.to_string())?;
    let mut verdict = Verdict::Refused;
    for topic in TOPICS {
        if let Some((region, node)) = subjects::parse_node(&fleet, topic, text) {
            let again = subjects::node(&fleet, &region, &node, topic);
            holds(again == text, || format!("it is written {again:?}"))?;
            verdict = Verdict::Read;
        }
    }
    if let Some(region) = subjects::parse_sync(&fleet, text) {
        let again = subjects::sync(&fleet, &region);
        holds(again == text, || format!("it is written {again:?}"))?;
        verdict = Verdict::Read;
    }
    Ok(verdict)
}

fn made_subjects() -> anyhow::Result<Vec<Named>> {
    let (fleet, region, node) = (keys::fleet()?, keys::region()?, keys::node_name()?);
    let mut all: Vec<Named> = TOPICS
        .into_iter()
        .enumerate()
        .map(|(at, topic)| (at.to_string(), subjects::node(&fleet, &region, &node, topic).into_bytes()))
        .collect();
    all.push(("sync".to_owned(), subjects::sync(&fleet, &region).into_bytes()));
    Ok(all)
}
