//! A Docker engine that does not answer for one container: a proxy before the real one keeps that back.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use stele_model::wire::Phase;
use stele_runtime::docker::{Docker, DockerConfig};
use stele_runtime::registry::Logins;
use support::real::RealDocker;
use support::{Fixture as _, Kind, agent, all, eventually, instance, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Containers that nothing is answered for.
type Silent = Arc<Mutex<Vec<String>>>;

fn engine() -> PathBuf {
    let socket = std::env::var("DOCKER_HOST").unwrap_or_default();
    PathBuf::from(socket.strip_prefix("unix://").unwrap_or("/var/run/docker.sock"))
}

/// Hands everything through, except questions about what is silent.
async fn proxy(socket: &Path, silent: Silent) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let silent = Arc::clone(&silent);
        tokio::spawn(async move {
            let (mut from, mut to) = client.into_split();
            let (mut answers, mut asked) = UnixStream::connect(engine()).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to).await });
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut bytes).await {
                let request = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let is_silent = |id: &String| path.ends_with(&format!("/containers/{id}/json"));
                if silent.lock().unwrap().iter().any(is_silent) {
                    continue;
                }
                asked.write_all(&bytes[..count]).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn one_container_that_is_not_answered_for_hides_no_other() {
    let docker = RealDocker::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let silent = Silent::default();
    tokio::spawn({
        let (socket, silent) = (socket.clone(), Arc::clone(&silent));
        async move { proxy(&socket, silent).await }
    });
    let desired = ["shop/web@prod/web.0-1", "shop/web@prod/web.1-1"]
        .map(|id| instance(id, docker.container(Kind::Runs, 1)));
    let runtime = |socket: &Path| {
        Arc::new(Docker::new(DockerConfig {
            host: docker.host("n1"),
            socket: Some(format!("unix://{}", socket.display())),
            logins: Logins::default(),
        }))
    };
    let mut node = agent(runtime(&socket), &desired);
    all(&mut node, 2, Phase::Healthy).await;
    let container = |at: usize| desired[at].id.clone();
    let hung = node.container_of(&container(0)).unwrap().to_owned();
    let other = node.container_of(&container(1)).unwrap().to_owned();

    silent.lock().unwrap().push(hung.clone());
    let removed = Command::new("docker").args(["rm", "--force", &other]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    let back = eventually(&mut node, "the other one is back", |result| {
        let is_healthy = told(result, &container(1)).is_some_and(|told| told.phase == Phase::Healthy);
        is_healthy
            && told(result, &container(1))
                .unwrap()
                .container
                .as_ref()
                .is_none_or(|id| id.to_string() != other)
    })
    .await;
    let of_hung = told(&back, &container(0)).unwrap();
    assert_eq!(of_hung.phase, Phase::Healthy);
    assert!(of_hung.reason().unwrap().contains("not known"), "{of_hung:?}");

    // An agent that starts meanwhile makes no second one.
    let mut next = agent(runtime(&socket), &desired);
    let seen = eventually(&mut next, "the other one is seen", |result| {
        result.settled && told(result, &container(1)).is_some_and(|told| told.phase == Phase::Healthy)
    })
    .await;
    assert_eq!(told(&seen, &container(0)).unwrap().phase, Phase::Starting);

    silent.lock().unwrap().clear();
    all(&mut next, 2, Phase::Healthy).await;
    assert_eq!(next.container_of(&container(0)).unwrap(), hung);
}
