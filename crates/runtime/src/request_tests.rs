#![allow(clippy::unwrap_used)]
use stele_model::release::{Container, File, Image, InstanceSpec, LogDriver, Port, Resources, Stop, Volume};
use stele_model::value::Sealed;
use stele_model::{Digest, FlatMap, SecretName};
use stele_reconcile::{HostMount, HostPolicy};

use super::*;

fn host(policy: HostPolicy) -> Host {
    Host {
        fleet: "acme".parse().unwrap(),
        root: stele_model::signature::PublicKey("ab".repeat(32)),
        node: "n1".parse().unwrap(),
        publish_address: "127.0.0.2".to_owned(),
        policy,
    }
}

fn instance(change: impl FnOnce(&mut Container)) -> AssignedInstance {
    let mut container = Container {
        image: Image { repository: "registry.example.com/shop/web".to_owned(), digest: Digest::of(&[b"v1"]) },
        entrypoint: Some(vec!["/entry".to_owned()]),
        command: vec!["serve".to_owned()],
        env: [("B", "2"), ("A", "1=x")]
            .map(|(name, text)| (name.to_owned(), EnvValue::Value(stele_model::Value::from(text))))
            .into(),
        files: FlatMap::new(),
        ports: vec![
            Port { container: 80, host: Some(8080), protocol: Protocol::Tcp },
            Port { container: 53, host: None, protocol: Protocol::Udp },
        ],
        volumes: vec![
            Volume {
                source: VolumeSource::Named("data".to_owned()),
                path: "/data".to_owned(),
                read_only: false,
            },
            Volume { source: VolumeSource::Memory, path: "/run".to_owned(), read_only: false },
        ],
        health: None,
        resources: Resources { cpu_millis: Some(1500), memory_bytes: Some(64 << 20), pids: Some(100) },
        restart: Restart::Always,
        stop: Stop { signal: "SIGINT".to_owned(), grace_seconds: 7 },
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        log: Some(LogDriver { driver: "json-file".to_owned(), options: FlatMap::new() }),
        user: Some("1000:1000".to_owned()),
        workdir: Some("/srv".to_owned()),
        docker: None,
    };
    change(&mut container);
    let id: stele_model::InstanceId = "shop/web@prod/web.0-7".parse().unwrap();
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

fn request(change: impl FnOnce(&mut Container)) -> Result<CreateRequest, String> {
    create_request(&host(HostPolicy::default()), &instance(change)).map_err(|error| error.to_string())
}

#[test]
fn a_spec_becomes_the_request_that_means_it() {
    let request = request(|_| {}).unwrap();
    let sent = serde_json::to_value(&request.body).unwrap();
    let at = |path: &str| sent.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/Image"), json!(format!("registry.example.com/shop/web@{}", Digest::of(&[b"v1"]))));
    assert_eq!(at("/Env"), json!(["A=1=x", "B=2"]));
    assert_eq!((at("/Entrypoint"), at("/Cmd")), (json!(["/entry"]), json!(["serve"])));
    assert_eq!((at("/StopSignal"), at("/StopTimeout")), (json!("SIGINT"), json!(7)));
    assert_eq!((at("/User"), at("/WorkingDir")), (json!("1000:1000"), json!("/srv")));
    assert_eq!(at("/HostConfig/NanoCpus"), json!(1_500_000_000_u64));
    assert_eq!((at("/HostConfig/Memory"), at("/HostConfig/PidsLimit")), (json!(64 << 20), json!(100)));
    assert_eq!(
        at("/HostConfig/PortBindings"),
        json!({"80/tcp": [{"HostIp": "127.0.0.2", "HostPort": "8080"}]})
    );
    assert_eq!(at("/ExposedPorts"), json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!(at("/HostConfig/RestartPolicy/Name"), json!("unless-stopped"));
    assert_eq!(at("/HostConfig/LogConfig/Type"), json!("json-file"));
    let volume = request.volumes.first().unwrap();
    assert!(volume.starts_with("stele-n1-shop-web-prod-data-"));
    assert_eq!(at("/HostConfig/Mounts/0/Source"), json!(volume));
    assert_eq!(at("/HostConfig/Mounts/1/Type"), json!("tmpfs"));
    let network = at("/HostConfig/NetworkMode");
    let network = network.as_str().unwrap();
    assert_eq!(at(&format!("/NetworkingConfig/EndpointsConfig/{network}/Aliases")), json!(["web"]));
    let labels = at("/Labels");
    assert_eq!(labels["team"], json!("shop"));
    assert_eq!(labels["io.stele.instance"], json!("shop/web@prod/web.0-7"));
    assert_eq!(labels["io.stele.slot"], json!("shop/web@prod/web.0"));
}

#[test]
fn values_that_are_not_plain_are_refused() {
    let sealed =
        Sealed { subject: "s".to_owned(), key_version: 1, nonce: String::new(), ciphertext: String::new() };
    let sealed = EnvValue::Value(stele_model::Value::Sealed(sealed));
    let refused =
        request(|container| drop(container.env.insert("KEY".to_owned(), sealed.clone()))).unwrap_err();
    assert!(refused.contains("KEY is still sealed"), "{refused}");
    let secret = EnvValue::Secret(SecretName::new("db").unwrap());
    let refused = request(|container| drop(container.env.insert("KEY".to_owned(), secret))).unwrap_err();
    assert!(refused.contains("secret db"), "{refused}");
    let file = File { content: sealed, mode: 0o600 };
    assert!(plain(&file.content, "the file /x").is_err());
}

#[test]
fn the_passthrough_is_merged_and_judged_as_a_whole() {
    let pass = |text: &str| request(|container| container.docker = Some(text.to_owned()));
    let merged = pass(r#"{"Hostname": "web", "HostConfig": {"Memory": 128, "ShmSize": 64}}"#).unwrap();
    let config = merged.body.host_config.unwrap();
    assert_eq!(
        (config.memory, config.shm_size, config.nano_cpus),
        (Some(128), Some(64), Some(1_500_000_000))
    );
    assert_eq!(merged.body.hostname.as_deref(), Some("web"));

    for (text, said) in [
        (r#"{"HostConfig": {"Privileged": true}}"#, "privileged = true"),
        (r#"{"HostConfig": {"Memory": "much"}}"#, "malformed"),
        (r#"{"HostConfig": {"Ulimits": [{"Name": "nofile", "Firm": 1}]}}"#, "Ulimits[0].Firm"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
    ] {
        let refused = pass(text).unwrap_err();
        assert!(refused.contains(said), "{text}: {refused}");
    }
}

#[test]
fn on_another_network_nothing_is_left_of_its_apps() {
    let mut host = host(HostPolicy::default());
    host.policy.host_network = true;
    let pass = instance(|container| {
        container.ports.clear();
        container.docker = Some(r#"{"HostConfig": {"NetworkMode": "host"}}"#.to_owned());
    });
    let request = create_request(&host, &pass).unwrap();
    assert!(request.body.networking_config.unwrap().endpoints_config.unwrap().is_empty());
}

#[test]
fn folders_of_the_host_come_from_anywhere_in_the_request() {
    let mut host = host(HostPolicy::default());
    host.policy.host_mounts = vec![HostMount { path: "/srv".to_owned(), writable: true }];
    let mounts = instance(|container| {
        let source = VolumeSource::Host("/srv/a".to_owned());
        container.volumes = vec![Volume { source, path: "/a".to_owned(), read_only: true }];
        container.docker = Some(r#"{"HostConfig": {"Binds": ["/srv/b:/b"]}}"#.to_owned());
    });
    let folders = create_request(&host, &mounts).unwrap().host_folders;
    assert_eq!(folders, [("/srv/a".to_owned(), true), ("/srv/b".to_owned(), false)]);
}

#[test]
fn drift_is_told_by_what_differs() {
    let made = request(|_| {}).unwrap().body.labels.unwrap()[LABEL_CONFIG].clone();
    let mut now: Value = serde_json::from_str(&made).unwrap();
    let able = BTreeSet::new();
    assert_eq!(drift(&made, &now, &able), Drift::default());
    now["Memory"] = json!(1);
    now.as_object_mut().unwrap().remove("PidsLimit");
    let told = drift(&made, &now, &able).by_hand.unwrap();
    assert_eq!(told, "Memory is 1, was 67108864; PidsLimit is unset, was 100");
    assert!(drift("", &now, &able).by_hand.is_some());

    // What the engine leaves out is none of anybody's doing; a value that it has, it was given.
    let told = drift(&made, &now, &BTreeSet::from(["Memory", "PidsLimit"]));
    assert_eq!(told.by_hand.unwrap(), "Memory is 1, was 67108864");
    assert_eq!(told.left_out.unwrap(), "PidsLimit is unset, was 100");
}

#[test]
fn a_service_named_as_its_containers_id_begins_keeps_its_alias() {
    let id = "db01cafe0123456789".to_owned();
    let inspected = |aliases: &[&str]| {
        serde_json::from_value(json!({
            "Id": id,
            "HostConfig": {"NetworkMode": "net"},
            "NetworkSettings": {"Networks": {"net": {"Aliases": aliases}}},
        }))
        .unwrap()
    };
    let asked = serde_json::from_value(json!({
        "HostConfig": {"NetworkMode": "net"},
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["db"]}}},
    }))
    .unwrap();
    let made = mutable_of_request(&asked).unwrap();
    assert_eq!(drift_of(&made, &mutable_of_inspection(&inspected(&["db", "db01cafe0123"]))), None);
    assert!(drift_of(&made, &mutable_of_inspection(&inspected(&["db01cafe0123"]))).is_some());
}

#[test]
fn two_instances_of_one_spec_are_asked_for_alike() {
    let first = instance(|_| {});
    let mut second = first.clone();
    second.id.serial = 9;
    let host = host(HostPolicy::default());
    let [first, second] = [first, second].map(|one| {
        let mut sent = serde_json::to_value(create_request(&host, &one).unwrap().body).unwrap();
        sent["Labels"].as_object_mut().unwrap().remove("io.stele.instance");
        sent
    });
    assert_eq!(first, second);
}
