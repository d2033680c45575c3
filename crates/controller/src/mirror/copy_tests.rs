//! Copying between two real registries on loopback.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::registry::Credentials;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DEADLINE: Duration = Duration::from_secs(10);

/// A registry of its own, which ends with this value.
struct Server {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": address},
        });
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need docker-registry");
        let began = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(began.elapsed() < DEADLINE, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, address, folder }
    }

    fn image(&self, digest: Digest) -> Image {
        Image { repository: format!("{}/shop/web", self.address), digest }
    }
}

struct Work {
    registry: Registry,
    from: Server,
    to: Server,
}

impl Work {
    fn new() -> Self {
        // Who composes the program chooses it otherwise; another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { registry: Registry::new(Credentials::default()), from: Server::start(), to: Server::start() }
    }

    fn end(&self, image: &Image) -> End<'_> {
        let reference: Reference = image.to_string().parse().unwrap();
        End { client: self.registry.client_of(&reference), reference }
    }

    /// Puts a blob there; what a manifest says of it.
    async fn blob(&self, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(&[bytes]);
        let end = self.end(&self.from.image(digest));
        end.client.push_blob(&end.reference, bytes.to_vec(), &digest.to_string()).await.unwrap();
        json!({"mediaType": "application/octet-stream", "digest": digest.to_string(), "size": bytes.len()})
    }

    async fn put(&self, kind: &str, manifest: &serde_json::Value) -> Image {
        let bytes = manifest.to_string().into_bytes();
        let image = self.from.image(Digest::of(&[&bytes]));
        let end = self.end(&image);
        end.client.push_manifest_raw(&end.reference, bytes, kind.parse().unwrap()).await.unwrap();
        image
    }

    /// An image of two layers, one of them larger than what a connection buffers.
    async fn image(&self, of: u8) -> (Image, usize) {
        let config = self.blob(&[b'{', of, b'}']).await;
        let layers = [self.blob(&[of; 100]).await, self.blob(&vec![of; 3_000_000]).await];
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        (self.put(MANIFEST, &manifest).await, manifest.to_string().len())
    }

    fn mirrored(&self, image: &Image) -> Image {
        image.mirrored(&format!("{}/mirror", self.to.address))
    }

    /// Everything of it is at the mirror, byte for byte.
    async fn is_whole(&self, image: &Image) {
        let copy = self.mirrored(image);
        assert_eq!(copy.digest, image.digest);
        let end = self.end(&copy);
        let (_, manifest) = self.registry.manifest(&end, &copy.digest.to_string()).await.unwrap();
        for part in manifest.manifests.iter().flatten() {
            let part = Image { digest: part.digest.parse().unwrap(), ..copy.clone() };
            let (_, manifest) = self.registry.manifest(&end, &part.digest.to_string()).await.unwrap();
            self.blobs_are_there(&end, &manifest).await;
        }
        self.blobs_are_there(&end, &manifest).await;
    }

    async fn blobs_are_there(&self, end: &End<'_>, manifest: &Manifest) {
        for blob in manifest.layers.iter().chain(&manifest.config) {
            let stream = end.client.pull_blob_stream(&end.reference, blob.digest.as_str()).await.unwrap();
            // Reading it to the end verifies it.
            let bytes: Vec<_> = stream.stream.try_collect().await.unwrap();
            assert_eq!(bytes.iter().map(|chunk| chunk.len() as u64).sum::<u64>(), blob.size);
        }
    }
}

#[tokio::test]
async fn an_image_is_copied_whole_once_and_is_had_when_its_registry_is_away() {
    let work = Work::new();
    let (image, _) = work.image(b'1').await;
    let copy = work.mirrored(&image);
    let has = async |image: &Image| work.registry.has(image, DEADLINE).await.is_ok();
    assert!(!has(&copy).await);
    assert!(work.registry.copy(&image, &copy).await.unwrap(), "copied");
    assert!(!work.registry.copy(&image, &copy).await.unwrap(), "it is there");
    work.is_whole(&image).await;
    let Work { registry, from, to } = work;
    drop(from);
    let work = Work { registry, from: Server::start(), to };
    assert!(work.registry.has(&image, DEADLINE).await.is_err());
    work.is_whole(&image).await;
    assert!(
        !work.registry.copy(&image, &copy).await.unwrap(),
        "nothing is asked of the registry that is away"
    );
}

#[tokio::test]
async fn a_list_is_copied_with_the_image_of_every_platform() {
    let work = Work::new();
    let mut parts = Vec::new();
    for of in [b'1', b'2'] {
        let (image, size) = work.image(of).await;
        let platform = json!({"os": "linux", "architecture": format!("arch{of}")});
        parts.push(json!({"mediaType": MANIFEST, "digest": image.digest.to_string(), "size": size, "platform": platform}));
    }
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts});
    let image = work.put(INDEX, &list).await;
    assert!(work.registry.copy(&image, &work.mirrored(&image)).await.unwrap());
    work.is_whole(&image).await;
}

#[tokio::test]
async fn within_one_registry_blobs_are_mounted() {
    let work = Work::new();
    let (image, _) = work.image(b'1').await;
    let copy = image.mirrored(&format!("{}/mirror", work.from.address));
    assert!(work.registry.copy(&image, &copy).await.unwrap());
    assert!(work.registry.has(&copy, DEADLINE).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_copied_whole_is_not_named_by_the_mirror() {
    let work = Work::new();
    let (image, _) = work.image(b'1').await;
    // The layer is in the registry's manifest, but its bytes are gone.
    let layer = Digest::of(&[&vec![b'1'; 3_000_000]]).hex();
    let data = work.from.folder.path().join("data/docker/registry/v2/blobs/sha256");
    std::fs::remove_dir_all(data.join(&layer[..2]).join(&layer)).unwrap();
    let copy = work.mirrored(&image);
    let error = work.registry.copy(&image, &copy).await.unwrap_err().to_string();
    assert!(error.contains(&layer), "{error}");
    assert!(work.registry.has(&copy, DEADLINE).await.is_err());
    let never = work.from.image(Digest::EMPTY);
    assert!(work.registry.copy(&never, &work.mirrored(&never)).await.is_err());
    // Once it is whole again, trying again is enough.
    work.blob(&vec![b'1'; 3_000_000]).await;
    assert!(work.registry.copy(&image, &copy).await.unwrap());
    work.is_whole(&image).await;
}
