#![allow(clippy::unwrap_used)]
use bollard::models::{ContainerConfig, NetworkSettings};
use proptest::prelude::*;

use super::*;

fn body() -> ContainerCreateBody {
    serde_json::from_value(json!({
        "Image": "registry.example.com/web@sha256:11",
        "Env": ["A=1", "SECRET=hunter2"],
        "Cmd": ["serve"],
        "Labels": {"io.stele.instance": "shop/web@prod/web.0-1"},
        "StopSignal": "SIGTERM",
        "StopTimeout": 10,
        "HostConfig": {
            "NetworkMode": "net",
            "RestartPolicy": {"Name": "unless-stopped"},
            "Memory": 64,
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "CapAdd": ["NET_BIND_SERVICE", "CAP_CHOWN"],
        },
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["web"]}}},
    }))
    .unwrap()
}

fn image() -> ImageShown {
    let config = json!({"Env": ["PATH=/bin", "A=0"], "Cmd": ["other"], "Entrypoint": ["/entry"], "User": "app", "WorkingDir": "/srv"});
    ImageShown { id: "sha256:22".to_owned(), config: serde_json::from_value(config).unwrap() }
}

/// What Docker shows of a container made so, with what it fills in by itself.
fn shown_by_docker() -> (Value, Value) {
    let config = json!({
        "Hostname": "0123456789ab",
        "User": "app",
        "AttachStdout": true,
        "Env": ["A=1", "SECRET=hunter2", "PATH=/bin"],
        "Cmd": ["serve"],
        "Entrypoint": ["/entry"],
        "WorkingDir": "/srv/",
        "Image": "registry.example.com/web@sha256:11",
        "Labels": {"io.stele.instance": "shop/web@prod/web.0-1", "of-the-image": "x"},
        "StopSignal": "SIGTERM",
        "StopTimeout": 10,
    });
    let host = json!({
        "NetworkMode": "net",
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "Memory": 64,
        "MemorySwap": 128,
        "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "3"}},
        "CapAdd": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
        "Binds": null,
        "Dns": [],
        "IpcMode": "private",
        "CgroupnsMode": "host",
        "ShmSize": 67_108_864,
        "Runtime": "runc",
        "ConsoleSize": [0, 0],
        "MaskedPaths": ["/proc/kcore"],
        "ReadonlyPaths": ["/proc/sys"],
        "OomKillDisable": false,
        "Privileged": false,
    });
    (config, host)
}

fn inspected(config: &Value, host: &Value) -> ContainerInspectResponse {
    let config: ContainerConfig = serde_json::from_value(config.clone()).unwrap();
    let networks = json!({"net": {"Aliases": ["web", "0123456789ab"], "NetworkID": "n"}});
    ContainerInspectResponse {
        id: Some("0123456789abcdef".to_owned()),
        image: Some("sha256:22".to_owned()),
        config: Some(config),
        host_config: Some(serde_json::from_value(host.clone()).unwrap()),
        network_settings: Some(NetworkSettings {
            networks: serde_json::from_value(networks).unwrap(),
            ..NetworkSettings::default()
        }),
        ..ContainerInspectResponse::default()
    }
}

fn found(change: impl FnOnce(&mut Value, &mut Value)) -> Vec<String> {
    let (mut config, mut host) = shown_by_docker();
    change(&mut config, &mut host);
    differences(&body(), &image(), &inspected(&config, &host)).unwrap()
}

#[test]
fn what_docker_makes_of_a_request_is_alike() {
    assert_eq!(found(|_, _| {}), Vec::<String>::new());
}

#[test]
fn every_changed_part_is_seen_and_no_secret_is_told() {
    let cases: [(&str, Value, &str); 13] = [
        ("/Cmd", json!(["mine"]), "Cmd"),
        ("/Entrypoint", json!(["/evil"]), "Entrypoint"),
        ("/Env", json!(["A=1", "SECRET=stolen", "PATH=/bin"]), "environment variable SECRET"),
        (
            "/Env",
            json!(["A=1", "SECRET=hunter2", "PATH=/bin", "LD_PRELOAD=/x"]),
            "environment variable LD_PRELOAD",
        ),
        ("/User", json!("root"), "User is \"root\", should be \"app\""),
        ("/Image", json!("registry.example.com/web@sha256:33"), "Image is"),
        ("host/Privileged", json!(true), "HostConfig.Privileged is true, should be unset"),
        ("host/Binds", json!(["/:/host"]), "HostConfig.Binds"),
        ("host/IpcMode", json!("host"), "HostConfig.IpcMode"),
        ("host/MaskedPaths", json!([]), "HostConfig.MaskedPaths"),
        ("host/CapAdd", json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]), "HostConfig.CapAdd"),
        ("host/Memory", json!(128), "Memory is 128, was 64"),
        ("host/PortBindings/80~1tcp/0/HostIp", json!("0.0.0.0"), "HostConfig.PortBindings"),
    ];
    for (path, value, said) in cases {
        let told = found(|config, host| {
            let (into, path) = match path.strip_prefix("host") {
                Some(path) => (host, path),
                None => (config, path),
            };
            *into.pointer_mut(path).unwrap() = value;
        });
        assert_eq!(told.len(), 1, "{path}: {told:?}");
        assert!(told[0].contains(said), "{path}: {told:?}");
        assert!(!told[0].contains("hunter2") && !told[0].contains("stolen"), "{told:?}");
    }
    let (config, host) = shown_by_docker();
    let another =
        ContainerInspectResponse { image: Some("sha256:99".to_owned()), ..inspected(&config, &host) };
    let told = differences(&body(), &image(), &another).unwrap();
    assert_eq!(told, ["its image is not the one its release names"], "though it goes by its name");
}

fn archive(entry_type: tar::EntryType, content: &[u8], mode: u32, uid: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "file", content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_file_is_its_bytes_mode_and_owner() {
    use stele_model::release::EnvValue;
    let file = File { content: EnvValue::Value(stele_model::Value::from("text")), mode: 0o640 };
    let told = |archive: &[u8]| file_difference("/etc/x", &file, archive).unwrap().unwrap_or_default();
    let regular = tar::EntryType::Regular;
    assert_eq!(told(&archive(regular, b"text", 0o640, 0)), "");
    for changed in [&b"texT"[..], b"text!", b"tex", b""] {
        assert!(told(&archive(regular, changed, 0o640, 0)).contains("content"));
    }
    assert!(told(&archive(regular, b"text", 0o666, 0)).contains("0666"));
    assert!(told(&archive(regular, b"text", 0o640, 7)).contains("owner"));
    assert!(told(&archive(tar::EntryType::Symlink, b"", 0o640, 0)).contains("not a file"));
    assert!(told(&[]).contains("cannot be read back"));
    // Cut off where reading stopped, as one that grew is.
    let grown = archive(regular, &vec![b'x'; 100_000], 0o640, 0);
    assert!(told(&grown[..2000]).contains("content"));
}

proptest! {
    /// Whatever an engine answers, it is compared and never trusted to be well-formed.
    #[test]
    fn no_archive_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        use stele_model::release::EnvValue;
        let file = File { content: EnvValue::Value(stele_model::Value::from("text")), mode: 0o640 };
        prop_assert!(file_difference("/etc/x", &file, &bytes).unwrap().is_some());
    }
}
