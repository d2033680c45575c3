//! Every way in to a real NATS server, and what happens to those who do not have it.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use stele_bus::server::{NatsServer, NatsServerConfig};
use stele_bus::{Auth, BusConfig, ControllerBus};
use support::{eventually, signed, up};

/// Seed and public key of an NKey made of 32 bytes of one.
const SEED: &str = "SUAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAN7EY";
const PUBLIC: &str = "UCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVZ45L";

async fn server(dir: &Path, more: &str) -> NatsServer {
    let config = NatsServerConfig { more: more.to_owned(), ..NatsServerConfig::new(dir) };
    NatsServer::spawn(config).await.unwrap()
}

fn config(url: String, auth: Auth, root_ca: Option<PathBuf>) -> BusConfig {
    BusConfig { urls: vec![url], auth, root_ca, fleet: "acme".parse().unwrap(), name: "test".to_owned() }
}

async fn publishes(config: BusConfig) {
    let bus = ControllerBus::connect(config).await.unwrap();
    up(&mut bus.connections(), 1).await;
    bus.publish_assignment(&"eu".parse().unwrap(), &"eu-1".parse().unwrap(), &signed(&"x")).await.unwrap();
}

/// Waits until the server's own log tells of a client turned away, then checks that it was this one.
async fn is_turned_away(config: BusConfig, server_log: &Path, words: &str) {
    let bus = ControllerBus::connect(config).await.unwrap();
    eventually("somebody is turned away", async || fs::read_to_string(server_log).unwrap().contains(words))
        .await;
    assert!(!bus.is_connected());
    assert_eq!(bus.connections().borrow().count, 0);
}

#[tokio::test]
async fn a_user_with_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), "authorization { user: agent, password: \"pass word\" }\n").await;
    let user = |password: &str| Auth::User { user: "agent".to_owned(), password: password.to_owned() };
    publishes(config(server.url(), user("pass word"), None)).await;
    let log = dir.path().join("nats-server.log");
    is_turned_away(config(server.url(), user("wrong"), None), &log, "authentication error").await;
}

#[tokio::test]
async fn a_key_that_never_leaves_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), &format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}\n")).await;
    publishes(config(server.url(), Auth::Nkey(SEED.to_owned()), None)).await;
    let log = dir.path().join("nats-server.log");
    is_turned_away(config(server.url(), Auth::None, None), &log, "authentication error").await;
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[tokio::test]
async fn a_server_is_believed_for_its_authority_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (issuer, ca) = authority();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let (cert, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let more = format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n", cert.display(), key.display());
    let server = server(dir.path(), &more).await;
    let url = format!("tls://localhost:{}", server.port());

    publishes(config(url.clone(), Auth::None, Some(file("ca.pem", &ca)))).await;
    let (_, other) = authority();
    let log = dir.path().join("nats-server.log");
    let stranger = config(url, Auth::None, Some(file("other.pem", &other)));
    is_turned_away(stranger, &log, "TLS handshake error").await;
}
