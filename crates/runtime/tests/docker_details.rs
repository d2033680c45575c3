//! What only the real Docker can show.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{InspectContainerOptions, RenameContainerOptionsBuilder};
use futures::StreamExt as _;
use serde_json::{Value, json};
use stele_model::release::{
    Check, Image, LogDriver, Port, Protocol, Resources, Restart, Volume, VolumeSource,
};
use stele_model::wire::{AssignedInstance, Phase};
use stele_reconcile::HostMount;
use stele_runtime::{Change, Reconciler, Runtime};
use support::real::RealDocker;
use support::{
    Fixture, Kind, agent, all, app_env, checked, eventually, file, instance, plain_container, published,
};

fn docker_cli(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn inspect(docker: &RealDocker, id: &str) -> ContainerInspectResponse {
    docker.client.inspect_container(id, None::<InspectContainerOptions>).await.unwrap()
}

async fn healthy<R: Runtime + ?Sized>(agent: &mut Reconciler<R>, instance: &AssignedInstance) -> String {
    let id = instance.id.clone();
    eventually(agent, "it is healthy", |result| {
        result.settled && support::told(result, &id).is_some_and(|told| told.phase == Phase::Healthy)
    })
    .await;
    agent.container_of(&instance.id).unwrap().to_owned()
}

/// The image's own command, which answers HTTP on 8080.
fn server(version: &str) -> stele_model::release::Container {
    plain_container(RealDocker::image(version), &[])
}

/// What makes a container what it is, without what makes it this one.
fn essence(inspected: &ContainerInspectResponse) -> Value {
    let mut config = serde_json::to_value(inspected.config.as_ref().unwrap()).unwrap();
    // Docker lists mounts in an order that changes from one inspection to the next.
    let mut mounts = inspected.mounts.clone().unwrap_or_default();
    mounts.sort_by(|left, right| left.destination.cmp(&right.destination));
    config["Hostname"] = Value::Null;
    config["Labels"]["io.stele.instance"] = Value::Null;
    json!({
        "image": inspected.image,
        "path": [inspected.path.as_ref().unwrap(), &inspected.args.as_ref().unwrap().join(" ")],
        "config": config,
        "host": inspected.host_config,
        "mounts": mounts,
        "networks": inspected.network_settings.as_ref().unwrap().networks.as_ref().unwrap().keys().collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn two_instances_of_one_spec_are_equal_to_inspection() {
    let docker = RealDocker::new();
    let mut container = published(docker.container(Kind::Runs, 1), docker.free_port());
    container.env =
        [("KEY".to_owned(), stele_model::release::EnvValue::Value(stele_model::Value::from("value")))].into();
    container.files = [
        ("/etc/app.conf".to_owned(), file("secret", 0o600)),
        ("/etc/new/readable".to_owned(), file("", 0o644)),
    ]
    .into();
    container.resources = Resources { cpu_millis: Some(500), memory_bytes: Some(64 << 20), pids: Some(50) };
    container.log = Some(LogDriver {
        driver: "json-file".to_owned(),
        options: [("max-size".to_owned(), "1m".to_owned())].into(),
    });
    container.user = Some("0:0".to_owned());
    container.workdir = Some("/tmp".to_owned());
    let volume = |source, path: &str| Volume { source, path: path.to_owned(), read_only: false };
    container.volumes = vec![
        volume(VolumeSource::Named("data".to_owned()), "/data"),
        volume(VolumeSource::Memory, "/scratch"),
    ];
    let first = instance("shop/web@prod/web.0-1", container.clone());
    let mut agent = agent(docker.runtime("n1"), std::slice::from_ref(&first));
    let id = healthy(&mut agent, &first).await;
    let before = inspect(&docker, &id).await;
    let memory = before.host_config.as_ref().unwrap();
    assert_eq!(
        (memory.memory, memory.nano_cpus, memory.pids_limit),
        (Some(64 << 20), Some(500_000_000), Some(50))
    );

    let files = ["exec", &id, "stat", "-c", "%a %u %n", "/etc/app.conf", "/etc/new", "/etc/new/readable"];
    assert_eq!(docker_cli(&files), "600 0 /etc/app.conf\n755 0 /etc/new\n644 0 /etc/new/readable");

    let second = instance("shop/web@prod/web.0-2", container);
    agent.set_desired(vec![second.clone()]);
    let id = healthy(&mut agent, &second).await;
    let after = inspect(&docker, &id).await;
    assert_ne!(before.id, after.id);
    assert_eq!(essence(&before), essence(&after));
}

#[tokio::test]
async fn services_reach_each_other_by_name_and_are_checked_from_the_host() {
    let docker = RealDocker::new();
    let web = checked(server("v1"), Check::Http { port: 8080, path: "/".to_owned() });
    let open = checked(server("v1"), Check::Tcp { port: 8080 });
    let shut = checked(server("v1"), Check::Tcp { port: 8081 });
    let ask = ["sh", "-c", "wget -q -O- http://web:8080/"].map(str::to_owned).to_vec();
    let client = checked(docker.container(Kind::Runs, 1), Check::Exec { command: ask });
    let (web, open) = (instance("shop/web@prod/web.0-1", web), instance("shop/web@prod/open.0-1", open));
    let (shut, client) =
        (instance("shop/web@prod/shut.0-1", shut), instance("shop/web@prod/client.0-1", client));
    let all = [web.clone(), open.clone(), shut.clone(), client.clone()];
    let mut agent = agent(docker.runtime("n1"), &all);
    let result = eventually(&mut agent, "health is known", |result| {
        let phase = |one: &AssignedInstance| support::told(result, &one.id).map(|told| told.phase);
        [&web, &open, &client].iter().all(|one| phase(one) == Some(Phase::Healthy))
            && phase(&shut) == Some(Phase::Failed)
    })
    .await;
    let reason = support::told(&result, &shut.id).unwrap().reason().unwrap().to_owned();
    assert!(reason.contains("cannot connect to port 8081"), "{reason}");
}

#[tokio::test]
async fn an_image_that_is_not_here_is_pulled_by_digest() {
    let fixture = RealDocker::new();
    let base = RealDocker::image("v1");
    let registry = base.repository.split_once('/').unwrap().0.to_owned();
    let repository = format!("{registry}/stele/{}", fixture.fleet);
    let made =
        docker_cli(&["create", "--label", &format!("io.stele.fleet={}", fixture.fleet), &base.to_string()]);
    docker_cli(&["commit", "--message", &fixture.fleet, &made, &format!("{repository}:once")]);
    docker_cli(&["rm", &made]);
    docker_cli(&["push", "--quiet", &format!("{repository}:once")]);
    let digests = docker_cli(&[
        "image",
        "inspect",
        "--format",
        "{{join .RepoDigests \" \"}}",
        &format!("{repository}:once"),
    ]);
    let digest = digests.split_once('@').unwrap().1.parse().unwrap();
    docker_cli(&["image", "rm", &format!("{repository}:once")]);
    let image = Image { repository, digest };
    let missing = Command::new("docker").args(["image", "inspect", &image.to_string()]).output().unwrap();
    assert!(!missing.status.success(), "the image is still here");

    let web = instance("shop/web@prod/web.0-1", plain_container(image.clone(), &[]));
    let mut agent = agent(fixture.runtime("n1"), std::slice::from_ref(&web));
    let id = healthy(&mut agent, &web).await;
    let inspected = inspect(&fixture, &id).await;
    assert_eq!(inspected.config.unwrap().image, Some(image.to_string()));
    agent.set_desired(Vec::new());
    all(&mut agent, 0, Phase::Healthy).await;
    docker_cli(&["image", "rm", &image.to_string()]);
}

#[tokio::test]
async fn a_named_volume_outlives_its_instances() {
    let docker = RealDocker::new();
    let write = "trap 'exit 0' TERM; cat /data/written; echo kept >> /data/written; sleep 100000 & wait";
    let container = |version: u32| {
        let mut container = docker.container(Kind::Runs, version);
        container.command = ["/bin/sh", "-c", write].map(str::to_owned).to_vec();
        let source = VolumeSource::Named("data".to_owned());
        container.volumes = vec![Volume { source, path: "/data".to_owned(), read_only: false }];
        container
    };
    let first = instance("shop/web@prod/web.0-1", container(1));
    let mut agent = agent(docker.runtime("n1"), std::slice::from_ref(&first));
    healthy(&mut agent, &first).await;
    agent.set_desired(Vec::new());
    all(&mut agent, 0, Phase::Healthy).await;
    let second = instance("shop/web@prod/web.0-2", container(2));
    agent.set_desired(vec![second.clone()]);
    let id = healthy(&mut agent, &second).await;
    let request = stele_runtime::LogRequest { tail: None, since_ms: None, follow: true };
    let line = agent.runtime().logs(&id, request).next().await.unwrap().unwrap();
    assert_eq!(line.text, "kept");
}

#[tokio::test]
async fn a_network_or_name_changed_by_hand_is_put_right() {
    let docker = RealDocker::new();
    let web = instance("shop/web@prod/web.0-1", docker.container(Kind::Runs, 1));
    let host = docker.host("n1");
    let mut agent = agent(docker.runtime("n1"), std::slice::from_ref(&web));
    let first = healthy(&mut agent, &web).await;
    let network = host.network_name(&app_env("shop/web@prod"));
    let request = || NetworkDisconnectRequest { container: first.clone(), force: Some(true) };
    docker.client.disconnect_network(&network, request()).await.unwrap();
    let second = healthy(&mut agent, &web).await;
    assert_ne!(first, second);

    let options = RenameContainerOptionsBuilder::default().name(&format!("{}-renamed", docker.fleet)).build();
    docker.client.rename_container(&second, options).await.unwrap();
    let third = healthy(&mut agent, &web).await;
    assert_ne!(second, third);
    assert_eq!(inspect(&docker, &third).await.name, Some(format!("/{}", host.container_name(&web.id))));

    // A network that went while its container did not run.
    docker
        .client
        .kill_container(&third, None::<bollard::query_parameters::KillContainerOptions>)
        .await
        .unwrap();
    docker
        .client
        .disconnect_network(
            &network,
            NetworkDisconnectRequest { container: third.clone(), force: Some(true) },
        )
        .await
        .ok();
    docker.client.remove_network(&network).await.unwrap();
    healthy(&mut agent, &web).await;
}

#[tokio::test]
async fn a_network_made_twice_is_one_again() {
    let docker = RealDocker::new();
    let web = instance("shop/web@prod/web.0-1", docker.container(Kind::Runs, 1));
    let host = docker.host("n1");
    let app = app_env("shop/web@prod");
    let request = || NetworkCreateRequest {
        name: host.network_name(&app),
        labels: Some(host.app_labels(&app).into_iter().collect()),
        ..NetworkCreateRequest::default()
    };
    docker.client.create_network(request()).await.unwrap();
    // Newer engines refuse that, but for two requests at once.
    docker.client.create_network(request()).await.ok();
    let mut agent = agent(docker.runtime("n1"), std::slice::from_ref(&web));
    let before = healthy(&mut agent, &web).await;
    assert_eq!(
        docker_cli(&["network", "ls", "-q", "--filter", &format!("name={}", request().name)]).lines().count(),
        1
    );

    // One too many beside the one that is in use.
    docker.client.create_network(request()).await.ok();
    let after = healthy(&mut agent, &web).await;
    assert_eq!(before, after);
    assert_eq!(
        docker_cli(&["network", "ls", "-q", "--filter", &format!("name={}", request().name)]).lines().count(),
        1
    );
}

#[tokio::test]
async fn a_container_is_asked_with_its_own_signal_and_given_its_grace() {
    let docker = RealDocker::new();
    let mut container = docker.container(Kind::Runs, 1);
    let script = "trap 'echo asked > /data/last; exit 0' USR1; sleep 100000 & wait";
    container.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    container.stop.signal = "SIGUSR1".to_owned();
    container.stop.grace_seconds = 20;
    let source = VolumeSource::Named("data".to_owned());
    let volume = Volume { source, path: "/data".to_owned(), read_only: false };
    container.volumes = vec![volume.clone()];
    let web = instance("shop/web@prod/web.0-1", container);
    let mut agent = agent(docker.runtime("n1"), std::slice::from_ref(&web));
    let id = healthy(&mut agent, &web).await;
    let config = inspect(&docker, &id).await.config.unwrap();
    assert_eq!((config.stop_signal.as_deref(), config.stop_timeout), (Some("SIGUSR1"), Some(20)));
    let mut reader = docker.container(Kind::Runs, 1);
    reader.command = ["/bin/cat", "/data/last"].map(str::to_owned).to_vec();
    reader.restart = Restart::Never;
    reader.volumes = vec![volume];
    let reader = instance("shop/web@prod/reader.0-2", reader);
    agent.set_desired(Vec::new());
    all(&mut agent, 0, Phase::Healthy).await;
    agent.set_desired(vec![reader.clone()]);
    // `cat` succeeds only if the signal had been handled.
    assert_eq!(all(&mut agent, 1, Phase::Completed).await[0].exit_code(), Some(0));
}

#[tokio::test]
async fn a_link_does_not_lead_out_of_an_allowed_folder() {
    let fixture = RealDocker::new();
    let folder = std::env::temp_dir().join(&fixture.fleet);
    std::fs::create_dir_all(folder.join("inside")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.join("outside")).unwrap();
    let mut host = fixture.host("n1");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    host.policy.host_mounts = vec![HostMount { path: folder.to_str().unwrap().to_owned(), writable: false }];
    let runtime = RealDocker::docker(host);
    let mounting = |source: String| {
        let mut container = fixture.container(Kind::Runs, 1);
        container.volumes =
            vec![Volume { source: VolumeSource::Host(source), path: "/mnt".to_owned(), read_only: true }];
        instance("shop/web@prod/web.0-1", container)
    };
    assert!(runtime.admit(&mounting(path("inside"))).is_ok());
    let refused = runtime.admit(&mounting(path("outside"))).unwrap_err().to_string();
    assert!(refused.contains("/etc"), "{refused}");
    assert!(runtime.admit(&mounting("/etc".to_owned())).is_err());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn changes_are_noticed_without_polling() {
    let docker = RealDocker::new();
    let mut container = docker.container(Kind::Runs, 1);
    container.ports = vec![Port { container: 8080, host: None, protocol: Protocol::Tcp }];
    let web = instance("shop/web@prod/web.0-1", container);
    let runtime: Arc<dyn Runtime> = docker.runtime("n1");
    let mut agent = agent(runtime.clone(), std::slice::from_ref(&web));
    let id = healthy(&mut agent, &web).await;
    let mut changes = runtime.changes();
    let killed = async {
        // The subscription begins when first asked; kill until it is heard.
        loop {
            let _ = docker
                .client
                .kill_container(&id, None::<bollard::query_parameters::KillContainerOptions>)
                .await;
            let _ = docker
                .client
                .start_container(&id, None::<bollard::query_parameters::StartContainerOptions>)
                .await;
        }
    };
    let heard = async {
        tokio::select! {
            change = changes.next() => change,
            () = killed => None,
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
    assert_eq!(heard, Some(Change::Container(id.clone())));
}
