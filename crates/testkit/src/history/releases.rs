//! Releases as teams write them.

use stele_model::release::{
    Check, Container, EnvValue, File, Health, Image, Order, Placement, Resources, Service, Update,
};
use stele_model::{AppId, Digest, FlatMap, Release, Sealed};

/// What tells one release of an app from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    /// Of the image.
    pub(crate) image: u64,
    /// Of each service.
    pub(crate) replicas: u32,
    /// Whether it uses the app's secret.
    pub(crate) secret: bool,
}

/// One web service, as most apps are, with the files and variables they have.
pub(crate) fn release(app: &AppId, version: Version) -> anyhow::Result<Release> {
    let repository = format!("registry.example.com/{app}");
    let digest = Digest::of(&[repository.as_bytes(), &version.image.to_be_bytes()]);
    let mut container = Container::new(Image { repository, digest });
    let mut env = FlatMap::from([
        ("LISTEN".to_owned(), EnvValue::Value("0.0.0.0:8080".into())),
        ("LOG_LEVEL".to_owned(), EnvValue::Value("info".into())),
        ("APP_VERSION".to_owned(), EnvValue::Value(version.image.to_string().as_str().into())),
        ("UPSTREAM".to_owned(), EnvValue::Value("http://backend.internal:8080/api/v2".into())),
    ]);
    if version.secret {
        env.insert("DATABASE_PASSWORD".to_owned(), EnvValue::Secret("database".parse()?));
    }
    container.env = env;
    let config = format!("workers = 4\nversion = {}\ntimeout_seconds = 30\n", version.image % 7);
    let file = File { content: EnvValue::Value(config.as_str().into()), mode: 0o644 };
    container.files = FlatMap::from([("/etc/app.conf".to_owned(), file)]);
    container.health = Some(Health {
        check: Check::Http { port: 8080, path: "/healthy".to_owned() },
        interval_ms: 5_000,
        timeout_ms: 1_000,
        retries: 3,
        start_period_ms: 30_000,
    });
    container.resources =
        Resources { cpu_millis: Some(500), memory_bytes: Some(512 * 1024 * 1024), pids: Some(200) };
    container.labels = FlatMap::from([("team".to_owned(), app.project.to_string())]);
    let service = Service {
        container,
        placement: Placement::Replicas { count: version.replicas, nodes: "".parse()? },
        update: Update { max_unavailable: 2, order: Order::StartFirst, deadline_ms: 120_000 },
    };
    Ok(Release { app: app.clone(), services: FlatMap::from([("web".parse()?, service)]) })
}

/// A sealed value: as long and as opaque as a real one, under a key that nobody has.
pub(crate) fn sealed(subject: &str, key_version: u32, nonce: String, ciphertext: String) -> Sealed {
    Sealed { subject: subject.to_owned(), key_version, nonce, ciphertext }
}
