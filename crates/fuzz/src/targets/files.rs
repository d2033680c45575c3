//! What is read back from disk, and what an assignment asks of the container engine.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stele_agent::identity::{Engine, Enrollment};
use stele_bus::Auth;
use stele_bus::join::NatsAccess;
use stele_controller::{Config, fuzzing as controller};
use stele_model::InstanceId;
use stele_model::convergence::{self, ConvergenceProof, NodeEvidence, summarise};
use stele_model::ids::ControllerId;
use stele_model::release::{Container, Image, InstanceSpec};
use stele_model::signature::{Purpose, public_key};
use stele_model::wire::{AssignedInstance, AssignmentVersion, Heartbeat, Observed, Signed};
use stele_model::{Digest, Scope, Time};
use stele_reconcile::{HostMount, HostPolicy, PulledImage, PulledImages};
use stele_runtime::Host;
use stele_runtime::registry::Registries;

use super::{keys, shapes, wire};
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const SAME: &str = "read and written it is the same, or it is refused";

pub(super) fn targets() -> Vec<Target> {
    let json = |name, decoder, holds, run, made| Target {
        name,
        decoder,
        holds,
        form: Form::Json,
        budget: Budget { fixed: 2 << 20, per_byte: 400 },
        run,
        mend: None,
        made,
        nasty: nasty::json,
    };
    vec![
        Target {
            name: "convergence",
            decoder: "`convergence::open`",
            holds: "believed, it carries the controller's very signature",
            form: Form::Signed,
            mend: Some(|input| keys::sign_again(input, &keys::controller(), Purpose::Convergence)),
            ..json("", "", "", proof, made_proofs)
        },
        json(
            "agent-files",
            "`Enrollment`, `AssignmentVersion`, `PulledImages`, `HostPolicy`, `Registries`",
            SAME,
            agent_files,
            made_agent_files,
        ),
        json(
            "controller-files",
            "`controller::Config`, credentials for registries, data keys on disk",
            SAME,
            controller_files,
            made_controller_files,
        ),
        Target {
            name: "store-value",
            decoder: "`store`: sealed values, lists of numbers, identity; `controller`: how far the tree goes",
            holds: "a value that is unsealed has the right checksum; written again it is the same bytes",
            form: Form::Bytes,
            mend: None,
            nasty: nasty::bytes,
            ..json("", "", "", store_value, made_store_values)
        },
        json(
            "create-request",
            "`docker` in a spec, merged into Docker's create request, under a host's policy that allows nothing",
            "what is sent is not privileged, and shares neither folders nor namespaces of the host",
            create_request,
            made_create_requests,
        ),
    ]
}

fn proof(input: &[u8]) -> Result<Verdict, String> {
    let Some(signed) = shapes::json::<Signed>(input)? else { return Ok(Verdict::Refused) };
    shapes::json::<ConvergenceProof>(signed.body.as_bytes())?;
    let Ok((_, summary)) = convergence::open(&signed, Some(&keys::root_public())) else {
        return Ok(Verdict::Refused);
    };
    let _ = summary.expected;
    let is_signed = keys::is_signed(&signed, &keys::controller(), Purpose::Convergence);
    holds(is_signed, || "another signature is believed".to_owned())?;
    Ok(Verdict::Read)
}

fn made_proofs() -> anyhow::Result<Vec<Named>> {
    let heartbeat = Heartbeat {
        fleet: keys::fleet()?,
        node: keys::node_name()?,
        region: keys::region()?,
        boot: 1,
        number: 1,
        applied: AssignmentVersion::default(),
        acked: 0,
        time: Some(keys::NOW),
        observed: Some(Observed::default()),
    };
    let node = NodeEvidence {
        name: keys::node_name()?,
        region: keys::region()?,
        key: public_key(&keys::node()),
        assigned: AssignmentVersion::default(),
        expected: Digest::EMPTY,
        instances: 0,
        lost: false,
        heard: Some(keys::NOW),
        statement: Some(Signed::new(&keys::node(), Purpose::Heartbeat, &heartbeat)),
    };
    let silent =
        NodeEvidence { name: "eu-2".parse()?, heard: None, statement: None, lost: true, ..node.clone() };
    let mut proof = ConvergenceProof {
        fleet: keys::fleet()?,
        scope: Scope::fleet(),
        seq: 9,
        time: keys::NOW,
        state_digest: Digest::of(&[b"state"]),
        checkpoint: None,
        made: keys::NOW,
        moving: vec!["shop/web@prod".parse()?],
        nodes: vec![node, silent],
        expected: Digest::EMPTY,
        observed: Digest::EMPTY,
        controller: keys::certificate()?,
    };
    let summary = summarise(&proof);
    (proof.expected, proof.observed) = (summary.expected, summary.observed);
    let signed = Signed::new(&keys::controller(), Purpose::Convergence, &proof);
    Ok(vec![("two-nodes".to_owned(), serde_json::to_vec(&signed)?)])
}

/// Whether it can be read as one of these.
fn is<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<bool, String> {
    Ok(shapes::json::<T>(input)?.is_some())
}

fn agent_files(input: &[u8]) -> Result<Verdict, String> {
    let found = [
        is::<Enrollment>(input)?,
        is::<AssignmentVersion>(input)?,
        is::<BTreeMap<ControllerId, Time>>(input)?,
        is::<PulledImages>(input)?,
        is::<HostPolicy>(input)?,
        is::<Registries>(input)?,
    ];
    Ok(if found.contains(&true) { Verdict::Read } else { Verdict::Refused })
}

fn named<T: Serialize>(name: &str, value: &T) -> anyhow::Result<Named> {
    Ok((name.to_owned(), serde_json::to_vec(value)?))
}

fn nats() -> NatsAccess {
    let auth = Auth::User { user: "node".to_owned(), password: "pw".to_owned() };
    NatsAccess { urls: vec!["nats://127.0.0.1:4222".to_owned()], auth, tls_root: None }
}

fn image() -> Image {
    Image { repository: "registry.example.com/shop/web".to_owned(), digest: Digest::of(&[b"v1"]) }
}

fn made_agent_files() -> anyhow::Result<Vec<Named>> {
    let enrollment = Enrollment {
        fleet: keys::fleet()?,
        node: keys::node_name()?,
        region: keys::region()?,
        epoch: 1,
        root: keys::root_public(),
        nats: nats(),
        engine: Engine::Docker { host: None, publish_address: "0.0.0.0".to_owned() },
    };
    let policy = HostPolicy {
        host_mounts: vec![HostMount { path: "/srv".to_owned(), writable: false }],
        capabilities: ["NET_ADMIN".to_owned()].into(),
        ..HostPolicy::default()
    };
    let pulled = PulledImages::from(vec![PulledImage { image: image(), unneeded_ms: 7 }]);
    let registries =
        json!({"auths": {"registry.example.com": {"auth": "YTpi"}, "b": {"username": "u", "password": "p"}}});
    Ok(vec![
        named("node", &enrollment)?,
        named("version", &AssignmentVersion { epoch: 1, seq: 9, digest: Digest::of(&[b"d"]) })?,
        named("host", &policy)?,
        named("pulled", &pulled)?,
        named("registries", &registries)?,
    ])
}

fn controller_files(input: &[u8]) -> Result<Verdict, String> {
    let mut found = vec![is::<Config>(input)?];
    if let Some(once) = controller::kept_key(input) {
        let twice = controller::kept_key(&once).ok_or("a data key that was written cannot be read")?;
        holds(once == twice, || "a data key, read again, is another".to_owned())?;
        found.push(true);
    }
    found.push(std::str::from_utf8(input).is_ok_and(controller::credentials));
    Ok(if found.contains(&true) { Verdict::Read } else { Verdict::Refused })
}

fn made_controller_files() -> anyhow::Result<Vec<Named>> {
    let config = json!({
        "fleet": "acme", "id": 1, "data": "data", "api_listen": "127.0.0.1:7400", "api_url": "https://127.0.0.1:7400",
        "api_tls": true, "peer_listen": "127.0.0.1:7401", "peer_address": "127.0.0.1:7401", "peers": {"2": "b:1"},
        "founders": [1, 2], "nats": nats(), "registries": "registries.json", "image_retention_days": 30, "past_memory_mib": 64,
        "mirror": "mirror.example.com/stele", "root": keys::root_public(), "first_admin": null,
        "tls": {"authority": "a.pem", "certificate": "c.pem", "key": "k.pem"}, "signing_key": "signing.key",
        "certificate": keys::certificate()?, "master_key": "master.key", "publish_checkpoints": "out",
        "public_tree": true,         "witnesses": ["w+00000000+BA=="],
    });
    let key = json!({"subject": "shop/web@prod", "version": 1, "sealed": wire::one_sealed()});
    let credentials =
        json!({"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "b.example.com": {}}});
    Ok(vec![named("config", &config)?, named("key", &key)?, named("credentials", &credentials)?])
}

fn store_value(input: &[u8]) -> Result<Verdict, String> {
    if let Some(mark) = controller::tree_mark(input) {
        holds(mark == input, || "a mark is written otherwise".to_owned())?;
    }
    let Some(read) = stele_store::fuzzing::reread(input) else { return Ok(Verdict::Refused) };
    for again in read.into_iter().flatten() {
        let sealed = stele_store::fuzzing::sealed(&again);
        holds(sealed == input, || "written again, the value is another".to_owned())?;
    }
    Ok(Verdict::Read)
}

fn made_store_values() -> anyhow::Result<Vec<Named>> {
    let identity = [&1_u64.to_be_bytes()[..], b"acme"].concat();
    let numbers: Vec<u8> = [1_u64, 7, u64::MAX].iter().flat_map(|number| number.to_be_bytes()).collect();
    Ok([("identity", identity), ("numbers", numbers), ("nothing", Vec::new())]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), stele_store::fuzzing::sealed(&value)))
        .collect())
}

fn create_request(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let name = |error: stele_model::ids::NameError| error.to_string();
    let host = Host {
        fleet: keys::fleet().map_err(name)?,
        root: keys::root_public(),
        node: keys::node_name().map_err(name)?,
        publish_address: "127.0.0.1".to_owned(),
        policy: HostPolicy::default(),
    };
    let id: InstanceId = "shop/web@prod/web.0-7".parse().map_err(name)?;
    let container = Container { docker: Some(text.to_owned()), ..Container::new(image()) };
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    let instance = AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None };
    let Ok(body) = stele_runtime::checked_body(&host, &instance) else { return Ok(Verdict::Refused) };
    harmless(&body)?;
    Ok(Verdict::Read)
}

/// What no request may be that a host did not allow, judged by what is sent alone.
fn harmless(body: &Value) -> Result<(), String> {
    let host = body.get("HostConfig").unwrap_or(&Value::Null);
    let is_set = |key: &str| {
        let value = host.get(key);
        value.is_some_and(|value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        })
    };
    for key in [
        "Privileged",
        "CapAdd",
        "Devices",
        "DeviceRequests",
        "DeviceCgroupRules",
        "Sysctls",
        "VolumesFrom",
        "Runtime",
    ] {
        holds(!is_set(key), || format!("{key} is sent: {}", host[key]))?;
    }
    for key in ["PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode", "NetworkMode"] {
        let text = host.get(key).and_then(Value::as_str).unwrap_or_default();
        let shares = text == "host" || text.starts_with("container:");
        holds(!shares, || format!("{key} is {text}"))?;
    }
    let sources = |list: &str, of: fn(&Value) -> Option<&str>| {
        let items = host.get(list).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(of).map(str::to_owned).collect::<Vec<_>>()
    };
    let binds = sources("Binds", Value::as_str);
    let mounts = sources("Mounts", |mount| mount.get("Source").and_then(Value::as_str));
    for source in binds.into_iter().chain(mounts) {
        holds(!source.starts_with(['/', '.', '~']), || format!("the host's {source} is mounted"))?;
    }
    Ok(())
}

fn made_create_requests() -> anyhow::Result<Vec<Named>> {
    Ok(vec![
        named("nothing", &json!({}))?,
        named(
            "limits",
            &json!({"HostConfig": {"Memory": 1_000_000_000, "PidsLimit": 100, "Init": true, "Tmpfs": {"/tmp": ""}}}),
        )?,
        named(
            "ends",
            &json!({"Tty": true, "StopSignal": "SIGINT", "Hostname": "web", "HostConfig": {"CapDrop": ["ALL"]}}),
        )?,
        named(
            "mounts",
            &json!({"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x"}], "Binds": []}}),
        )?,
        named(
            "ports",
            &json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig":
            {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}}),
        )?,
    ])
}
