//! One record of every kind, from fixed inputs: no clock, no random number.
//!
//! What is sealed or signed here opens and verifies nowhere; its shape is real.

use stele_codec::{Chain, StoredRecord, encode_record};
use stele_model::event::{
    AssignmentChange, Contacts, DeploymentKind, Deviation, EnrolledNode, Holder, JoinToken, Outcome, Pin,
    ReportedChange, Role, TargetDigest, Token,
};
use stele_model::release::{
    Check, Container, EnvValue, File, Health, Image, LogDriver, Order, Placement, Port, Protocol, Resources,
    Restart, Service, Stop, Update, Volume, VolumeSource,
};
use stele_model::signature::{Certificate, CertificateBody, PublicKey, Signature};
use stele_model::wire::{AssignmentVersion, InstanceReport, Phase, Remarks};
use stele_model::{
    Decision, Digest, Event, FlatMap, Header, Idempotency, Links, Place, Record, Release, Revision, Sealed,
    Time, Value,
};

/// Reads a name of any kind.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(&[text.as_bytes()])
}

fn texts<M: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> M {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn sealed(subject: &str) -> Sealed {
    Sealed {
        subject: subject.to_owned(),
        key_version: 1,
        nonce: "0f".repeat(24),
        ciphertext: "c0ffee".repeat(9),
    }
}

fn web() -> Service {
    let container = Container {
        image: Image { repository: "registry.example.com/shop/web".to_owned(), digest: digest("web image") },
        entrypoint: Some(vec!["/bin/web".to_owned()]),
        command: vec!["--listen".to_owned(), "0.0.0.0:8080".to_owned()],
        env: FlatMap::from([
            ("GREETING".to_owned(), EnvValue::Value("grüß \"Gott\"\n\u{1f600}".into())),
            ("DATABASE_PASSWORD".to_owned(), EnvValue::Secret(name("database"))),
            ("API_KEY".to_owned(), EnvValue::Value(Value::Sealed(sealed("shop/web@prod")))),
        ]),
        files: FlatMap::from([
            (
                "/etc/web.conf".to_owned(),
                File { content: EnvValue::Value("workers = 4\n".into()), mode: 0o644 },
            ),
            ("/etc/tls.key".to_owned(), File { content: EnvValue::Secret(name("tls-key")), mode: 0o400 }),
        ]),
        ports: vec![
            Port { container: 8080, host: Some(80), protocol: Protocol::Tcp },
            Port { container: 5353, host: None, protocol: Protocol::Udp },
        ],
        volumes: vec![
            Volume {
                source: VolumeSource::Named("cache".to_owned()),
                path: "/cache".to_owned(),
                read_only: false,
            },
            Volume {
                source: VolumeSource::Host("/etc/ssl".to_owned()),
                path: "/etc/ssl".to_owned(),
                read_only: true,
            },
            Volume { source: VolumeSource::Memory, path: "/run".to_owned(), read_only: false },
        ],
        health: Some(Health {
            check: Check::Http { port: 8080, path: "/healthy".to_owned() },
            interval_ms: 5_000,
            timeout_ms: 1_000,
            retries: 3,
            start_period_ms: 70_000,
        }),
        resources: Resources {
            cpu_millis: Some(1_500),
            memory_bytes: Some(6 * 1024 * 1024 * 1024),
            pids: Some(200),
        },
        restart: Restart::Always,
        stop: Stop { signal: "SIGTERM".to_owned(), grace_seconds: 10 },
        labels: texts(&[("team", "shop")]),
        log: Some(LogDriver {
            driver: "json-file".to_owned(),
            options: texts(&[("max-size", "10m"), ("max-file", "3")]),
        }),
        user: Some("1000:1000".to_owned()),
        workdir: Some("/srv".to_owned()),
        docker: Some("{\"HostConfig\":{\"Init\":true}}".to_owned()),
    };
    Service {
        container,
        placement: Placement::Replicas { count: 3, nodes: name("region in (eu, us), !spot") },
        update: Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 120_000 },
    }
}

/// A service with everything absent that can be.
fn worker() -> Service {
    let container = Container {
        image: Image { repository: "registry.example.com/shop/job".to_owned(), digest: digest("job image") },
        entrypoint: None,
        command: Vec::new(),
        env: FlatMap::new(),
        files: FlatMap::new(),
        ports: Vec::new(),
        volumes: Vec::new(),
        health: None,
        resources: Resources::default(),
        restart: Restart::OnFailure,
        stop: Stop { signal: "SIGINT".to_owned(), grace_seconds: 300 },
        labels: FlatMap::new(),
        log: None,
        user: None,
        workdir: None,
        docker: None,
    };
    Service {
        container,
        placement: Placement::Every { nodes: name("") },
        update: Update { max_unavailable: 2, order: Order::StopFirst, deadline_ms: 60_000 },
    }
}

pub(crate) fn release() -> Release {
    let probe = |check| Some(Health { check, interval_ms: 1, timeout_ms: 2, retries: 3, start_period_ms: 4 });
    let mut tcp = worker();
    tcp.container.health = probe(Check::Tcp { port: 6379 });
    tcp.container.restart = Restart::Never;
    let mut exec = worker();
    exec.container.health = probe(Check::Exec { command: vec!["true".to_owned()] });
    let services = [("web", web()), ("worker", worker()), ("cache", tcp), ("cron", exec)];
    Release {
        app: name("shop/web"),
        services: services.into_iter().map(|(service, spec)| (name(service), spec)).collect(),
    }
}

fn revision() -> Revision {
    Revision {
        release: release().digest(),
        config: Some(digest("config")),
        secrets: FlatMap::from([(name("database"), 2), (name("tls-key"), 300)]),
    }
}

fn bare() -> Revision {
    Revision { release: digest("earlier release"), config: None, secrets: FlatMap::new() }
}

fn reports() -> Vec<ReportedChange> {
    let phases = [
        Phase::Pending,
        Phase::Pulling,
        Phase::Starting,
        Phase::Healthy,
        Phase::Unhealthy,
        Phase::Failed,
        Phase::Completed,
    ];
    let report = |(at, phase): (usize, &Phase)| {
        let failed = *phase == Phase::Failed;
        InstanceReport {
            id: name(&format!("shop/web@prod/web.{at}-{}", 40 + at)),
            phase: *phase,
            spec_digest: (at > 1).then(|| digest("spec").into()),
            container: (at > 1).then(|| "4f".repeat(32).into()),
            restarts: if failed { 70_000 } else { 0 },
            remarks: Remarks::of(
                failed.then(|| "exited with -1".to_owned()),
                failed.then_some(-1),
                if failed { vec!["cannot bind: port 80 is in use".to_owned()] } else { Vec::new() },
            ),
        }
    };
    vec![
        ReportedChange {
            node: name("eu-1"),
            boot: u64::MAX,
            number: 17,
            applied: AssignmentVersion { epoch: 1, seq: 41, digest: digest("assignment") },
            changed: phases.iter().enumerate().map(report).collect(),
            gone: vec![name("shop/web@prod/web.9-12")],
        },
        ReportedChange {
            node: name("us-1"),
            boot: 1,
            number: 1,
            applied: AssignmentVersion::default(),
            changed: Vec::new(),
            gone: Vec::new(),
        },
    ]
}

fn of_the_fleet() -> Vec<Event> {
    let token = |principal: &str, role, holder| Token {
        principal: name(principal),
        hash: digest(principal),
        role,
        holder,
        expires: Time(1_800_000_000_000_000),
    };
    let certificate = Certificate {
        body: CertificateBody {
            fleet: name("demo"),
            controller: 1,
            key: PublicKey("a1".repeat(32)),
            not_before: Time(1_700_000_000_000_000),
            not_after: Time(2_000_000_000_000_000),
        },
        signature: Signature("5e".repeat(64)),
    };
    let node = EnrolledNode {
        name: name("eu-1"),
        region: name("eu"),
        labels: texts(&[("disk", "ssd")]),
        key: PublicKey("b2".repeat(32)),
        sealing_key: "c3".repeat(32),
        address: Some("192.0.2.1".to_owned()),
    };
    vec![
        Event::TermStarted { term: 2, controller: 1 },
        Event::FleetCreated { fleet: name("demo"), root: PublicKey("d4".repeat(32)), epoch: 1 },
        Event::ControllerCertified {
            certificate,
            api: "https://controller-1.example.com:7400".to_owned(),
            peer: "controller-1.example.com:7401".to_owned(),
        },
        Event::MembershipChanged { voters: vec![1, 2, 3], learners: vec![300] },
        Event::ControllerRemoved { controller: 70_000 },
        Event::StateDigestRecorded { digest: digest("state") },
        Event::TokenCreated { token: token("dana", Role::Admin, Holder::Person) },
        Event::TokenCreated { token: token("ci", Role::Deployer, Holder::Service) },
        Event::TokenCreated { token: token("ada", Role::Auditor, Holder::Person) },
        Event::TokenRevoked { principal: name("ada") },
        Event::JoinTokenCreated {
            token: JoinToken {
                hash: digest("join"),
                node: Some(name("eu-1")),
                region: name("eu"),
                labels: texts(&[("disk", "ssd")]),
                expires: Time(1_700_000_600_000_000),
            },
        },
        Event::NodeEnrolled { node: node.clone(), join_token: digest("join") },
        Event::NodeEnrolled {
            node: EnrolledNode { name: name("us-1"), region: name("us"), address: None, ..node },
            join_token: digest("another join"),
        },
        Event::NodeLabelled { node: name("eu-1"), labels: texts(&[("disk", "hdd"), ("spot", "1")]) },
        Event::NodesLost { nodes: vec![name("eu-1"), name("us-1")] },
        Event::NodesReturned { nodes: vec![name("eu-1")] },
        Event::NodeRemoved { node: name("us-1") },
    ]
}

fn of_apps() -> Vec<Event> {
    let app_env = || name("shop/web@prod");
    let mut events = vec![
        Event::ProjectCreated { project: name("shop") },
        Event::EnvironmentCreated { environment: name("prod") },
        Event::AppDeclared {
            app: name("shop/web"),
            contacts: Contacts {
                owner: Some("team-shop".to_owned()),
                on_call: None,
                runbook: Some("https://wiki.example.com/shop".to_owned()),
            },
        },
        Event::ReleaseCreated {
            number: 251,
            digest: release().digest(),
            release: release(),
            images: FlatMap::from([(name("web"), "registry.example.com/shop/web:1.4".to_owned())]),
        },
        Event::ConfigChanged {
            app_env: app_env(),
            version: 1,
            digest: digest("config"),
            variables: FlatMap::from([
                ("LOG_LEVEL".to_owned(), "info".into()),
                ("SMTP_PASSWORD".to_owned(), Value::Sealed(sealed("shop/web@prod"))),
            ]),
        },
        Event::SecretChanged {
            app_env: app_env(),
            name: name("database"),
            version: 2,
            value: sealed("shop/web@prod"),
        },
    ];
    let kinds = [
        (DeploymentKind::Deploy, None, Some(bare())),
        (DeploymentKind::Configure, Some(bare()), Some(revision())),
        (DeploymentKind::Rollback, Some(revision()), Some(bare())),
        (DeploymentKind::Remove, Some(bare()), None),
        (DeploymentKind::Undo, None, Some(revision())),
    ];
    for (kind, from, to) in kinds {
        let now = kind == DeploymentKind::Rollback;
        let barrier = (kind == DeploymentKind::Deploy).then(|| "migrates orders".to_owned());
        events.push(Event::DeploymentStarted { app_env: app_env(), kind, from, to, now, barrier });
    }
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Failed {
            instance: name("shop/web@prod/web.0-42"),
            node: name("eu-1"),
            reason: "exited with 3".to_owned(),
            exit_code: Some(3),
            log_tail: vec!["no such table".to_owned()],
        },
        Outcome::Unplaced {
            slot: name("shop/web@prod/web.2"),
            reason: "no node matches \"disk=nvme\"".to_owned(),
        },
        Outcome::Superseded { by: 65_536 },
    ];
    for outcome in outcomes {
        events.push(Event::DeploymentFinished { deployment: 24, app_env: app_env(), outcome });
    }
    events.push(Event::TargetChanged { app_env: app_env(), revision: Some(revision()) });
    events.push(Event::TargetChanged { app_env: app_env(), revision: None });
    events
}

fn of_instances() -> Vec<Event> {
    let app_env = || name("shop/web@prod");
    let assign = |at: u32, revision, replaces: Option<&str>| AssignmentChange::Assign {
        node: name("eu-1"),
        instance: name(&format!("shop/web@prod/web.{at}-41")),
        revision,
        spec: digest("spec"),
        replaces: replaces.map(name),
    };
    let (before, after) = (
        TargetDigest { intent: digest("intent before"), placement: digest("placement before") },
        TargetDigest { intent: digest("intent after"), placement: Digest::EMPTY },
    );
    vec![
        Event::PlacementChanged {
            app_env: app_env(),
            slots: vec![
                (name("shop/web@prod/web.0"), Some(name("eu-1"))),
                (name("shop/web@prod/web.1"), None),
            ],
        },
        Event::AssignmentsChanged {
            app_env: app_env(),
            changes: vec![
                assign(0, revision(), Some("shop/web@prod/web.0-12")),
                assign(1, bare(), None),
                AssignmentChange::Withdraw { node: name("us-1"), instance: name("shop/web@prod/web.0-12") },
            ],
        },
        Event::NodesReported { reports: reports() },
        Event::RolledBack {
            scope: "shop/web@prod".to_owned(),
            except: vec![name("node:us-1"), name("shop/web@prod,region:ap")],
            point: "v1".to_owned(),
            seq: 23,
            before,
            after,
            deviations: vec![Deviation {
                what: "shop/web@prod/web.1".to_owned(),
                why: "node us-1 is no longer of the fleet".to_owned(),
            }],
        },
        Event::PinsChanged {
            app_env: app_env(),
            pins: vec![
                (Place::Region(name("eu")), Some(Pin::Revision(revision()))),
                (Place::Node(name("us-1")), Some(Pin::Absent)),
                (Place::Node(name("us-2")), None),
            ],
        },
        Event::PointMarked { scope: name("env:prod"), seq: 23, bad: true },
        Event::Reviewed { rollback: 23 },
        Event::SubjectErased { subject: "shop/web@prod".to_owned(), through: 2 },
        Event::SubjectErased { subject: "principal/dana".to_owned(), through: 1 },
        Event::Undone {
            what: "deploy:23".to_owned(),
            decisions: vec![22, 19],
            apps: vec![(app_env(), before, after)],
        },
        Event::Latched { app_env: app_env(), release: digest("bad release") },
        Event::Unlatched { app_env: app_env() },
        Event::Refused {
            action: "unlatch".to_owned(),
            scope: "shop/web@prod".to_owned(),
            why: "ci is a service".to_owned(),
        },
        // After all others, whose bytes stay where they are.
        Event::FleetRecovered { epoch: 2, controller: 3, given_up: vec![1, 2, 300] },
        Event::NodeDrained { node: name("eu-1") },
        Event::NodeResumed { node: name("eu-1") },
    ]
}

/// Every kind of event, those with alternatives inside more than once.
pub(crate) fn events() -> Vec<Event> {
    let mut events = of_the_fleet();
    events.extend(of_apps());
    events.extend(of_instances());
    events
}

/// A header whose optional fields come and go with `seq`, so that the corpus has each both ways.
pub(crate) fn header(seq: u64) -> Header {
    let bit = |at: u32| seq & (1 << at) != 0;
    let text = |at: u32, text: &str| bit(at).then(|| text.to_owned());
    let first = (seq - 1) / 3 * 3 + 1;
    Header {
        seq,
        time: Time(1_700_000_000_000_000 + seq * 1_000),
        decision: Decision { first, count: 3 },
        principal: name(if bit(1) { "dana" } else { "system" }),
        cause: bit(0).then(|| seq * 1_000_000_007),
        trace: text(1, "4bf92f3577b34da6a3ce929d0e0e4736"),
        idempotency: bit(2).then(|| Idempotency { key: format!("key-{first}"), request: digest("request") }),
        // These follow from the event.
        kind: String::new(),
        schema: 0,
        codec: 0,
        scopes: Vec::new(),
        payload: Digest::EMPTY,
        reason: match seq % 3 {
            0 => None,
            1 => Some(Value::Plain("checkout is slow — see ticket".to_owned())),
            _ => Some(Value::Sealed(sealed("principal/dana"))),
        },
        links: Links {
            ticket: text(0, "SHOP-1421"),
            commit: text(3, "9c1f0a2"),
            ci_run: text(2, "https://ci.example.com/run/77"),
            on_behalf_of: bit(4).then(|| name("customer-desk")),
        },
    }
}

/// The corpus: chained, seq 1 onward.
pub(crate) fn records() -> Vec<(StoredRecord, Record, Chain)> {
    let mut chain = Chain::GENESIS;
    let encode = |(at, event): (usize, &Event)| {
        let (stored, record) = encode_record(header(at as u64 + 1), event).unwrap();
        chain = chain.link(&stored.leaf);
        (stored, record, chain)
    };
    events().iter().enumerate().map(encode).collect()
}
