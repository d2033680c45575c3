//! What Docker may answer and the tests' own engine does not: a server on a socket that speaks as much of Docker's API
//! as is asked here.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use stele_runtime::docker::{Docker, DockerConfig};
use stele_runtime::registry::{Logins, Registries, RegistryAuth};
use stele_runtime::{Runtime as _, RuntimeError};
use support::{host, image};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// What it does, and what it was asked.
#[derive(Debug)]
struct Engine {
    /// The version of the API that it speaks, and no older one.
    minor: u32,
    /// Status and body of its answer to a pull.
    pull: (&'static str, &'static str),
    /// The heads of all requests.
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Engine>>;

impl Engine {
    fn answer(&mut self, head: String) -> (&'static str, String) {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.asked.push(head);
        let wanted = path.strip_prefix("/v1.").and_then(|rest| rest.split('/').next()?.parse::<u32>().ok());
        let minor = self.minor;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != minor) {
            let message =
                format!("client version 1.{wanted} is too old. Minimum supported API version is 1.{minor}");
            return ("400 Bad Request", serde_json::json!({"message": message}).to_string());
        }
        if path.ends_with("/version") {
            return ("200 OK", serde_json::json!({"ApiVersion": format!("1.{minor}")}).to_string());
        }
        if path.contains("/images/create") {
            return (self.pull.0, self.pull.1.to_owned());
        }
        if path.contains("/images/") {
            return ("404 Not Found", serde_json::json!({"message": "no such image"}).to_string());
        }
        ("200 OK", "[]".to_owned())
    }
}

async fn serve(mut client: UnixStream, engine: Shared) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let (status, body) = engine.lock().unwrap().answer(String::from_utf8(head).unwrap());
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Whoever asked may be gone.
    let _ = client.write_all((head + &body).as_bytes()).await;
}

fn engine(socket: &Path) -> Shared {
    let listener = UnixListener::bind(socket).unwrap();
    let engine = Arc::new(Mutex::new(Engine { minor: 41, pull: ("200 OK", ""), asked: Vec::new() }));
    tokio::spawn({
        let engine = Arc::clone(&engine);
        async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&engine)));
            }
        }
    });
    engine
}

fn docker(socket: &Path, logins: Logins) -> Docker {
    let socket = Some(format!("unix://{}", socket.display()));
    Docker::new(DockerConfig { host: host("acme", "n1"), socket, logins })
}

#[tokio::test]
async fn an_engine_that_is_upgraded_is_seen_still() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let engine = engine(&socket);
    let docker = docker(&socket, Logins::default());
    docker.observe().await.unwrap();
    engine.lock().unwrap().minor = 52;
    docker.observe().await.unwrap();
}

#[tokio::test]
async fn each_pull_is_made_with_the_login_of_then() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let engine = engine(&socket);
    let now = Arc::new(Mutex::new(Registries::default()));
    let docker = docker(&socket, {
        let now = Arc::clone(&now);
        Logins::new(move || now.lock().unwrap().clone())
    });
    let mut sent = Vec::new();
    for password in ["first", "second"] {
        let auth = RegistryAuth {
            username: Some("user".to_owned()),
            password: Some(password.to_owned()),
            ..RegistryAuth::default()
        };
        now.lock().unwrap().auths.insert("registry.example".to_owned(), auth);
        docker.pull(&image("registry.example/shop", 1)).await.unwrap();
        let asked = std::mem::take(&mut engine.lock().unwrap().asked);
        let pull = asked.iter().find(|head| head.contains("/images/create")).unwrap().clone();
        let login = pull.lines().find(|line| line.to_lowercase().starts_with("x-registry-auth:")).unwrap();
        sent.push(login.to_owned());
    }
    assert_ne!(sent[0], sent[1]);
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_told_from_a_registry_in_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let engine = engine(&socket);
    let docker = docker(&socket, Logins::default());
    let pull = async |status, body| {
        engine.lock().unwrap().pull = (status, body);
        docker.pull(&image("registry.example/shop", 1)).await
    };
    let unknown = r#"{"message": "manifest for shop@sha256:1 not found: manifest unknown"}"#;
    let refused = pull("404 Not Found", unknown).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoSuchImage(_)), "{refused:?}");
    let busy = r#"{"message": "toomanyrequests: retry later"}"#;
    let refused = pull("500 Internal Server Error", busy).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::Engine(_)), "{refused:?}");
    let midway = r#"{"errorDetail": {"message": "unexpected EOF"}, "error": "unexpected EOF"}"#;
    let refused = pull("200 OK", midway).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::Engine(_)), "{refused:?}");
    pull("200 OK", r#"{"status": "Pull complete", "id": "a"}"#).await.unwrap();
}
