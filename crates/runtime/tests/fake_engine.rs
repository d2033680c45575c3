//! What Docker may answer and the tests' own engine does not: a server on a socket that speaks as much of Docker's API
//! as is asked here.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stele_runtime::docker::{Docker, DockerConfig};
use stele_runtime::host::LABEL_CONFIG;
use stele_runtime::registry::{Logins, Registries, RegistryAuth};
use stele_runtime::{Runtime as _, RuntimeError};
use support::{host, image, instance, plain_container};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// What it does, and what it was asked.
#[derive(Debug)]
struct Engine {
    /// The version of the API that it speaks, and no older one.
    minor: u32,
    /// Status and body of its answer to a pull.
    pull: (&'static str, &'static str),
    /// Other answers, by how the path that is asked for ends.
    answers: Vec<(&'static str, Value)>,
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
            return ("400 Bad Request", json!({"message": message}).to_string());
        }
        if path.ends_with("/version") {
            return ("200 OK", json!({"ApiVersion": format!("1.{minor}")}).to_string());
        }
        let of_path = path.split('?').next().unwrap();
        if let Some((_, answer)) = self.answers.iter().find(|(end, _)| of_path.ends_with(end)) {
            return ("200 OK", answer.to_string());
        }
        if path.contains("/images/create") {
            return (self.pull.0, self.pull.1.to_owned());
        }
        if path.contains("/images/") {
            return ("404 Not Found", json!({"message": "no such image"}).to_string());
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
    let engine = Arc::new(Mutex::new(Engine {
        minor: 41,
        pull: ("200 OK", ""),
        answers: Vec::new(),
        asked: Vec::new(),
    }));
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

#[tokio::test]
async fn a_limit_that_the_host_cannot_keep_was_not_taken_away_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let host = host("acme", "n1");
    let web = instance("shop/web@prod/web.0-1", plain_container(image("registry.example/shop", 1), &[]));
    let made = json!({"Memory": 1024, "RestartPolicy": "no", "Networks": {}});
    let mut labels = host.instance_labels(&web);
    labels.insert(LABEL_CONFIG.to_owned(), made.to_string());
    let inspected = json!({
        "Id": "c1",
        "Name": format!("/{}", host.container_name(&web.id)),
        "State": {"Status": "running"},
        "Config": {"Labels": labels},
        "HostConfig": {"Memory": 0},
    });
    for (number, can) in [(1, true), (2, false)] {
        let socket = folder.path().join(format!("docker{number}.sock"));
        let engine = engine(&socket);
        engine.lock().unwrap().answers = vec![
            ("/containers/json", json!([{"Id": "c1", "Labels": labels}])),
            ("/containers/c1/json", inspected.clone()),
            ("/info", json!({"MemoryLimit": can})),
        ];
        let docker = docker(&socket, Logins::default());
        let seen = docker.observe().await.unwrap().of(&web.id).unwrap().clone();
        let told = Some("Memory is unset, was 1024".to_owned());
        assert_eq!((seen.drift, seen.left_out), if can { (told, None) } else { (None, told) });
    }
}
