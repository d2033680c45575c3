//! The Docker engine there is, with images from the loopback registry.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptions, RemoveContainerOptionsBuilder,
};
use futures::StreamExt as _;
use stele_model::InstanceId;
use stele_model::release::{Container, Image};
use stele_runtime::docker::{Docker, DockerConfig};
use stele_runtime::registry::Logins;
use stele_runtime::simulated::Deed;
use stele_runtime::{Host, Runtime};

use super::{Fixture, Kind, plain_container};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

static MADE: AtomicU32 = AtomicU32::new(0);

/// A fleet of its own on the shared engine; everything with its label goes when it is dropped.
pub struct RealDocker {
    pub fleet: String,
    pub client: bollard::Docker,
}

impl RealDocker {
    pub fn new() -> Self {
        let made = MADE.fetch_add(1, Ordering::SeqCst);
        let fleet = format!("test-runtime-{}-{made}", std::process::id());
        let client = bollard::Docker::connect_with_defaults().expect("these tests need a Docker engine");
        Self { fleet, client }
    }

    pub fn host(&self, node: &str) -> Host {
        super::host(&self.fleet, node)
    }

    pub fn docker(host: Host) -> Arc<Docker> {
        Arc::new(Docker::new(DockerConfig { host, socket: None, logins: Logins::default() }))
    }

    /// The test image of that tag, by digest.
    pub fn image(tag: &str) -> Image {
        let registry = Self::registry();
        let url = format!("http://{registry}/v2/stele/busybox/manifests/{tag}");
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        let response = ureq::get(&url)
            .header("Accept", accept)
            .call()
            .unwrap_or_else(|error| panic!("{url}: {error}; run `cargo xtask setup`"));
        let digest = response.headers()["docker-content-digest"].to_str().unwrap();
        Image { repository: format!("{registry}/stele/busybox"), digest: digest.parse().unwrap() }
    }

    fn registry() -> String {
        std::env::var("STELE_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5055".to_owned())
    }

    /// Puts an image like that of tag `v1` into a repository of the registry, with a label that
    /// makes it another one; its digest.
    pub fn push_like_v1(repository: &str, label: &str) -> stele_model::Digest {
        let registry = Self::registry();
        let from = |path: &str| {
            let url = format!("http://{registry}/v2/stele/busybox/{path}");
            let answer = ureq::get(&url).header("Accept", MANIFEST).call();
            answer.unwrap().body_mut().read_to_vec().unwrap()
        };
        let mut manifest: serde_json::Value = serde_json::from_slice(&from("manifests/v1")).unwrap();
        let old = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let mut config: serde_json::Value = serde_json::from_slice(&from(&format!("blobs/{old}"))).unwrap();
        config["config"]["Labels"] = serde_json::json!({"test": label});
        let config = serde_json::to_vec(&config).unwrap();
        let digest = stele_model::Digest::of(&[&config]);
        manifest["config"]["digest"] = serde_json::json!(digest.to_string());
        manifest["config"]["size"] = serde_json::json!(config.len());
        let base = format!("http://{registry}/v2/{repository}");
        for layer in manifest["layers"].as_array().unwrap() {
            let layer = layer["digest"].as_str().unwrap();
            let url = format!("{base}/blobs/uploads/?mount={layer}&from=stele/busybox");
            assert_eq!(ureq::post(&url).send_empty().unwrap().status(), 201, "mounted");
        }
        let begun = ureq::post(&format!("{base}/blobs/uploads/")).send_empty().unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        ureq::put(&format!("{location}&digest={digest}")).send(&config[..]).unwrap();
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = stele_model::Digest::of(&[&manifest]);
        ureq::put(&format!("{base}/manifests/{digest}"))
            .header("Content-Type", MANIFEST)
            .send(&manifest[..])
            .unwrap();
        digest
    }

    pub async fn container_id(&self, node: &str, instance: &InstanceId) -> String {
        let runtime = self.runtime(node);
        let observed = runtime.observe().await.unwrap();
        observed.of(instance).expect("the instance has a container").id.clone()
    }

    /// Makes a container anew: the same name, labels and settings, another command.
    async fn replace_by_hand(&self, id: &str) {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        let old = self.client.inspect_container(id, options).await.unwrap();
        let remove = RemoveContainerOptionsBuilder::default().force(true).build();
        self.client.remove_container(id, Some(remove)).await.unwrap();
        let mut config = serde_json::to_value(old.config.unwrap()).unwrap();
        config["Cmd"] = serde_json::json!(["/bin/sh", "-c", "sleep 99999"]);
        let mut body: bollard::models::ContainerCreateBody = serde_json::from_value(config).unwrap();
        let network = old.host_config.as_ref().unwrap().network_mode.clone().unwrap();
        let mut endpoint = old.network_settings.unwrap().networks.unwrap().remove(&network).unwrap();
        endpoint.aliases.as_mut().unwrap().retain(|alias| !id.starts_with(alias.as_str()));
        let endpoint = bollard::models::EndpointSettings { aliases: endpoint.aliases, ..Default::default() };
        body.hostname = None;
        body.host_config = old.host_config;
        body.networking_config =
            Some(bollard::models::NetworkingConfig { endpoints_config: Some([(network, endpoint)].into()) });
        let name = old.name.unwrap();
        let options = CreateContainerOptionsBuilder::default().name(name.trim_start_matches('/')).build();
        let made = self.client.create_container(Some(options), body).await.unwrap();
        let start = None::<bollard::query_parameters::StartContainerOptions>;
        self.client.start_container(&made.id, start).await.unwrap();
    }

    fn ids(kind: &[&str], fleet: &str) -> Vec<String> {
        let filter = format!("label=io.stele.fleet={fleet}");
        let listed = Command::new("docker").args(kind).args(["-q", "--filter", &filter]).output();
        let text =
            listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for RealDocker {
    fn drop(&mut self) {
        for (list, remove) in [
            (&["ps", "-a"][..], &["rm", "-f", "-v"][..]),
            (&["network", "ls"], &["network", "rm"]),
            (&["volume", "ls"], &["volume", "rm"]),
        ] {
            let ids = Self::ids(list, &self.fleet);
            if !ids.is_empty() {
                let _ = Command::new("docker").args(remove).args(ids).output();
            }
        }
    }
}

impl Fixture for RealDocker {
    fn runtime(&self, node: &str) -> Arc<dyn Runtime> {
        Self::docker(self.host(node))
    }

    fn container(&self, kind: Kind, version: u32) -> Container {
        let mut image = Self::image(&format!("v{version}"));
        let script = match kind {
            Kind::Crashes => "echo start 1; echo ends with 1 >&2; exit 1",
            Kind::Exits => "exit 0",
            Kind::Runs | Kind::Sick | Kind::Missing => "trap 'exit 0' TERM; sleep 100000 & wait",
        };
        if kind == Kind::Missing {
            image.digest = stele_model::Digest::of(&[b"no such image"]);
        }
        plain_container(image, &["/bin/sh", "-c", script])
    }

    fn fresh(&self, in_mirror_alone: bool) -> Container {
        // Nobody listens at port 9, so nothing can be pulled from there.
        let registry = if in_mirror_alone { "127.0.0.1:9".to_owned() } else { Self::registry() };
        let digest = stele_model::Digest::EMPTY;
        let mut image = Image { repository: format!("{registry}/stele/fresh"), digest };
        let place = if in_mirror_alone { image.mirrored(&self.mirror()) } else { image.clone() };
        let repository = place.repository.split_once('/').unwrap().1;
        let label = format!("{}-{}", self.fleet, MADE.fetch_add(1, Ordering::SeqCst));
        image.digest = Self::push_like_v1(repository, &label);
        plain_container(image, &["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"])
    }

    fn mirror(&self) -> String {
        format!("{}/mirror", Self::registry())
    }

    fn tag(&self, image: &Image, is_tagged: bool) {
        let (image, tag) = (image.to_string(), format!("{}:fresh", self.fleet));
        let arguments = if is_tagged { vec!["tag", &image, &tag] } else { vec!["rmi", &tag] };
        assert!(Command::new("docker").args(arguments).output().unwrap().status.success());
    }

    fn free_port(&self) -> u16 {
        // Bound and let go again: good enough on a machine whose tests all do so.
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    async fn by_hand(&self, node: &str, instance: &InstanceId, deed: Deed) {
        let id = self.container_id(node, instance).await;
        match deed {
            Deed::Kill => self.client.kill_container(&id, None::<KillContainerOptions>).await.unwrap(),
            Deed::Pause => self.client.pause_container(&id).await.unwrap(),
            Deed::Remove => {
                let options = RemoveContainerOptionsBuilder::default().force(true).build();
                self.client.remove_container(&id, Some(options)).await.unwrap();
            }
            Deed::Change => {
                let update = bollard::models::ContainerUpdateBody {
                    memory: Some(64 * 1024 * 1024),
                    memory_swap: Some(-1),
                    ..Default::default()
                };
                self.client.update_container(&id, update).await.unwrap();
            }
            Deed::ChangeFile => {
                let change = format!("echo changed >> {}", super::CHANGED_FILE);
                let done = Command::new("docker").args(["exec", &id, "/bin/sh", "-c", &change]).status();
                assert!(done.unwrap().success());
            }
            Deed::Impostor => self.replace_by_hand(&id).await,
            Deed::Duplicate => {
                let options = None::<bollard::query_parameters::InspectContainerOptions>;
                let config = self.client.inspect_container(&id, options).await.unwrap().config.unwrap();
                let body = bollard::models::ContainerCreateBody {
                    image: config.image,
                    labels: config.labels,
                    ..Default::default()
                };
                let name = format!("{}-copy", self.fleet);
                let options = CreateContainerOptionsBuilder::default().name(&name).build();
                self.client.create_container(Some(options), body).await.unwrap();
            }
        }
    }

    async fn file(&self, node: &str, instance: &InstanceId, path: &str) -> Option<Vec<u8>> {
        let id = self.container_id(node, instance).await;
        let options =
            bollard::query_parameters::DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut archive = Vec::new();
        let mut stream = self.client.download_from_container(&id, Some(options));
        while let Some(chunk) = stream.next().await {
            archive.extend_from_slice(&chunk.ok()?);
        }
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut entry = archive.entries().ok()?.next()?.ok()?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).ok()?;
        Some(content)
    }
}
