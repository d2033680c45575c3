//! Releases that between them say everything a release can say.

use stele_model::release::{
    Check, Container, EnvValue, File, Health, Image, LogDriver, Order, Placement, Port, Protocol, Resources,
    Restart, Service, Stop, Update, Volume, VolumeSource,
};
use stele_model::{AppId, Digest, FlatMap, Release, Sealed, Value};

use super::super::releases::{Version, release};

/// Published ports are from here on, one for each app.
const HOST_PORT_FIRST: u16 = 15_000;

/// What kind of app it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A web service, as most are.
    Web,
    /// Something on every node that is not to be had cheaply.
    Agent,
    /// One instance with data, a port of its node's and everything Docker can be asked for.
    Database,
    /// A web service with helpers beside it, replaced one by one.
    Crowd,
    /// A web service that fits nowhere.
    Homeless,
}

impl Style {
    pub(super) const PLACEABLE: [Self; 4] = [Self::Web, Self::Agent, Self::Database, Self::Crowd];
}

/// A release of an app.
pub(super) fn styled(
    app: &AppId,
    style: Style,
    version: Version,
    sealed: Sealed,
    port: u16,
) -> anyhow::Result<Release> {
    let web = release(app, version)?;
    let mut services: FlatMap<_, _> = FlatMap::new();
    match style {
        Style::Web => return Ok(web),
        Style::Agent => {
            services.insert("agent".parse()?, agent(app, version)?);
        }
        Style::Database => {
            services.insert("db".parse()?, database(app, version, sealed, port)?);
        }
        Style::Crowd => {
            services.clone_from(&web.services);
            for service in services.values_mut() {
                service.container.ports = vec![Port { container: 8080, host: None, protocol: Protocol::Tcp }];
                service.placement = Placement::Replicas {
                    count: version.replicas,
                    nodes: "region notin (ap), disk".parse()?,
                };
                service.update = Update { max_unavailable: 1, order: Order::StartFirst, deadline_ms: 60_000 };
            }
            services.insert("cache".parse()?, cache(app, version)?);
        }
        Style::Homeless => {
            services.clone_from(&web.services);
            for service in services.values_mut() {
                service.placement = Placement::Replicas { count: 2, nodes: "disk=tape".parse()? };
            }
        }
    }
    Ok(Release { app: app.clone(), services })
}

fn image(app: &AppId, what: &str, version: Version) -> Image {
    let repository = format!("registry.example.com/{app}/{what}");
    let digest = Digest::of(&[repository.as_bytes(), &version.image.to_be_bytes()]);
    Image { repository, digest }
}

fn health(check: Check) -> Health {
    Health { check, interval_ms: 10_000, timeout_ms: 2_000, retries: 5, start_period_ms: 0 }
}

fn agent(app: &AppId, version: Version) -> anyhow::Result<Service> {
    let mut container = Container::new(image(app, "agent", version));
    container.entrypoint = Some(vec!["/bin/agent".to_owned(), "--quiet".to_owned()]);
    container.command = vec!["run".to_owned()];
    container.health =
        Some(health(Check::Exec { command: vec!["/bin/agent".to_owned(), "ping".to_owned()] }));
    container.restart = Restart::OnFailure;
    container.stop = Stop { signal: "SIGINT".to_owned(), grace_seconds: 300 };
    Ok(Service {
        container,
        placement: Placement::Every { nodes: "region in (eu, us), !spot".parse()? },
        update: Update { max_unavailable: 3, order: Order::StopFirst, deadline_ms: 60_000 },
    })
}

fn database(app: &AppId, version: Version, sealed: Sealed, port: u16) -> anyhow::Result<Service> {
    let mut container = Container::new(image(app, "db", version));
    let volume = |source, path: &str, read_only| Volume { source, path: path.to_owned(), read_only };
    let license = File { content: EnvValue::Value(Value::Sealed(sealed)), mode: 0o600 };
    container.files = FlatMap::from([("/etc/db/license".to_owned(), license)]);
    if version.secret {
        let password = File { content: EnvValue::Secret("database".parse()?), mode: 0o400 };
        container.files.insert("/run/secrets/database".to_owned(), password);
    }
    container.env =
        FlatMap::from([("GREETING".to_owned(), EnvValue::Value("grüß \"Gott\"\n\u{1f600}".into()))]);
    container.ports = vec![
        Port { container: 5432, host: Some(HOST_PORT_FIRST + port), protocol: Protocol::Tcp },
        Port { container: 5433, host: None, protocol: Protocol::Udp },
    ];
    container.volumes = vec![
        volume(VolumeSource::Named("data".to_owned()), "/var/lib/db", false),
        volume(VolumeSource::Host("/etc/ssl".to_owned()), "/etc/ssl", true),
        volume(VolumeSource::Memory, "/run", false),
    ];
    container.health = Some(health(Check::Tcp { port: 5432 }));
    container.resources = Resources { cpu_millis: None, memory_bytes: Some(6 << 30), pids: None };
    container.log = Some(LogDriver {
        driver: "json-file".to_owned(),
        options: FlatMap::from([("max-size".to_owned(), "10m".to_owned())]),
    });
    container.user = Some("999:999".to_owned());
    container.workdir = Some("/var/lib/db".to_owned());
    container.docker = Some("{\"HostConfig\":{\"Init\":true}}".to_owned());
    Ok(Service {
        container,
        placement: Placement::Replicas { count: 1, nodes: "disk=ssd, rack!=63".parse()? },
        update: Update { max_unavailable: 1, order: Order::StopFirst, deadline_ms: 300_000 },
    })
}

fn cache(app: &AppId, version: Version) -> anyhow::Result<Service> {
    let mut container = Container::new(image(app, "cache", version));
    container.restart = Restart::Never;
    Ok(Service {
        container,
        placement: Placement::Replicas { count: 2, nodes: "".parse()? },
        update: Update { max_unavailable: 2, order: Order::StopFirst, deadline_ms: 30_000 },
    })
}
