#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn checked(policy: &HostPolicy, patch: Value) -> Result<(), String> {
    let labels = BTreeMap::from([("io.stele.node".to_owned(), "n1".to_owned())]);
    let context = CreateContext {
        image: "registry/web@sha256:00",
        network: "stele-n1-shop-web-prod",
        volumes: &BTreeSet::from(["stele-n1-shop-web-prod-data".to_owned()]),
        publish_address: "127.0.0.2",
        labels: &labels,
        restart: "unless-stopped",
    };
    let mut body = json!({
        "Image": "registry/web@sha256:00",
        "Env": ["A=1"],
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": "stele-n1-shop-web-prod",
            "RestartPolicy": {"Name": "unless-stopped"},
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.2", "HostPort": "80"}]},
            "Mounts": [{"Type": "volume", "Source": "stele-n1-shop-web-prod-data", "Target": "/data"}],
        },
        "NetworkingConfig": {"EndpointsConfig": {"stele-n1-shop-web-prod": {"Aliases": ["web"]}}},
    });
    merge(&mut body, &patch);
    policy.check(&body, &context).map_err(|violation| violation.to_string())
}

fn host(key: &str, value: Value) -> Value {
    json!({"HostConfig": {key: value}})
}

fn list(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

#[test]
fn merging_follows_rfc_7386() {
    let mut target = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
    merge(&mut target, &json!({"a": {"c": [3], "e": {"f": null, "g": 1}}, "d": null}));
    assert_eq!(target, json!({"a": {"b": 1, "c": [3], "e": {"g": 1}}}));
}

#[test]
fn what_every_container_has_and_what_is_harmless_passes() {
    let policy = HostPolicy::default();
    assert_eq!(checked(&policy, json!({})), Ok(()));
    for harmless in [
        host("Memory", json!(1)),
        host("CapDrop", json!(["ALL"])),
        host("ReadonlyRootfs", json!(true)),
        host("SecurityOpt", json!(["no-new-privileges:true"])),
        host("Privileged", json!(false)),
        host("Devices", json!([])),
        host("PidMode", json!("")),
        host("IpcMode", json!("private")),
        host("NetworkMode", json!("none")),
        host("Mounts", json!([{"Type": "tmpfs", "Target": "/x"}])),
        host("Binds", json!(["stele-n1-shop-web-prod-data:/x:ro"])),
        json!({"Hostname": "web", "Healthcheck": {"Test": ["NONE"]}, "Labels": {"team": "shop"}}),
    ] {
        assert_eq!(checked(&policy, harmless.clone()), Ok(()), "{harmless}");
    }
}

type Allow = fn(&mut HostPolicy);

#[test]
fn what_reaches_beyond_the_container_is_off_unless_allowed() {
    let off = HostPolicy::default();
    let flags: [(Value, Allow); 14] = [
        (host("Privileged", json!(true)), |policy| policy.privileged = true),
        (host("NetworkMode", json!("host")), |policy| policy.host_network = true),
        (host("PidMode", json!("host")), |policy| policy.host_pid = true),
        (host("IpcMode", json!("host")), |policy| policy.host_ipc = true),
        (host("UTSMode", json!("host")), |policy| policy.host_uts = true),
        (host("CgroupnsMode", json!("host")), |policy| policy.host_cgroup = true),
        (host("DeviceRequests", json!([{"Count": -1}])), |policy| policy.device_requests = true),
        (host("CapAdd", json!(["CAP_NET_ADMIN"])), |policy| policy.capabilities = list(&["NET_ADMIN"])),
        (host("Devices", json!([{"PathOnHost": "/dev/fuse"}])), |policy| {
            policy.devices = list(&["/dev/fuse"]);
        }),
        (host("SecurityOpt", json!(["seccomp=unconfined"])), |policy| {
            policy.security_opts = list(&["seccomp=unconfined"]);
        }),
        (host("Sysctls", json!({"net.core.somaxconn": "1"})), |policy| {
            policy.sysctls = list(&["net.core.somaxconn"]);
        }),
        (host("Runtime", json!("nvidia")), |policy| policy.runtimes = list(&["nvidia"])),
        (host("CgroupParent", json!("/x")), |policy| policy.keys = list(&["CgroupParent"])),
        (host("UsernsMode", json!("host")), |policy| policy.keys = list(&["UsernsMode"])),
    ];
    for (patch, allow) in flags {
        let refused = checked(&off, patch.clone()).unwrap_err();
        assert!(refused.contains("its owner can allow it"), "{refused}");
        let mut on = HostPolicy::default();
        allow(&mut on);
        assert_eq!(checked(&on, patch.clone()), Ok(()), "{patch}");
    }
}

#[test]
fn what_would_break_the_agents_hold_is_never_allowed() {
    let keys =
        ["AutoRemove", "RestartPolicy", "VolumesFrom", "PidMode", "IpcMode", "PublishAllPorts", "Privileged"];
    let policy = HostPolicy { keys: list(&keys), ..HostPolicy::default() };
    for patch in [
        json!({"Image": "registry/other@sha256:00"}),
        json!({"Image": null}),
        json!({"Labels": {"io.stele.node": "n2"}}),
        json!({"Labels": {"io.stele.other": "x"}}),
        json!({"Labels": {"io.stele.node": null}}),
        json!({"Labels": null}),
        host("AutoRemove", json!(true)),
        host("RestartPolicy", json!({"Name": "no"})),
        host("VolumesFrom", json!(["other"])),
        host("PidMode", json!("container:other")),
        host("IpcMode", json!("container:other")),
        host("NetworkMode", json!("container:other")),
        host("PublishAllPorts", json!(true)),
        host("Privileged", json!(true)),
        // Docker reads keys in any case; one not known to be harmless is refused whatever it means.
        json!({"hostconfig": {"privileged": true}}),
        host("privileged", json!(true)),
        json!({"HostConfig": "x"}),
        json!({"HostConfig": null}),
        host("NetworkMode", Value::Null),
        host("RestartPolicy", Value::Null),
    ] {
        assert!(checked(&policy, patch.clone()).is_err(), "{patch}");
    }
}

#[test]
fn only_listed_folders_are_mounted_and_only_as_listed() {
    let folder = |path: &str, writable| HostMount { path: path.to_owned(), writable };
    let policy = HostPolicy {
        host_mounts: vec![folder("/srv/data", true), folder("/etc/ssl/", false)],
        ..HostPolicy::default()
    };
    let mount = |source: &str, read_only: bool| {
        host("Mounts", json!([{"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": read_only}]))
    };
    for allowed in [mount("/srv/data", false), mount("/srv/data/a/b", false), mount("/etc/ssl/certs", true)] {
        assert_eq!(checked(&policy, allowed.clone()), Ok(()), "{allowed}");
        assert!(checked(&HostPolicy::default(), allowed).is_err());
    }
    for bind in ["/srv/data/a:/x", "/srv/data:/x:rw", "/etc/ssl:/x:ro"] {
        assert_eq!(checked(&policy, host("Binds", json!([bind]))), Ok(()), "{bind}");
    }
    for refused in [
        mount("/", true),
        mount("/srv/database", true),
        mount("/srv/data/../../etc", true),
        mount("/etc/ssl/certs", false),
        mount("srv/data", true),
        host("Binds", json!(["/etc/ssl:/x"])),
        host("Binds", json!(["/var/run/docker.sock:/x"])),
        host("Binds", json!(["/srv/data:/x:rshared"])),
        host(
            "Mounts",
            json!([{"Type": "bind", "Source": "/srv/data", "BindOptions": {"Propagation": "rshared"}}]),
        ),
        host("Mounts", json!([{"Type": "npipe", "Source": "/srv/data"}])),
    ] {
        assert!(checked(&policy, refused.clone()).is_err(), "{refused}");
    }
}

#[test]
fn volumes_networks_and_addresses_of_others_are_theirs() {
    let off = HostPolicy::default();
    let on = HostPolicy {
        volumes: list(&["shared"]),
        networks: list(&["backbone"]),
        publish_addresses: list(&["0.0.0.0"]),
        ..HostPolicy::default()
    };
    for patch in [
        host("Mounts", json!([{"Type": "volume", "Source": "shared", "Target": "/x"}])),
        host("Binds", json!(["shared:/x"])),
        host("NetworkMode", json!("backbone")),
        json!({"NetworkingConfig": {"EndpointsConfig": {"backbone": {}}}}),
        host("PortBindings", json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]})),
    ] {
        assert!(checked(&off, patch.clone()).is_err(), "{patch}");
        assert_eq!(checked(&on, patch.clone()), Ok(()), "{patch}");
    }
    let everywhere = host("PortBindings", json!({"80/tcp": [{"HostPort": "80"}]}));
    assert!(checked(&on, everywhere).is_err(), "no address is every address");
    let driver = json!([{"Type": "volume", "Source": "shared", "Target": "/x", "VolumeOptions": {
        "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]);
    assert!(checked(&on, host("Mounts", driver)).is_err(), "the local driver can bind any folder");
}

#[test]
fn a_violation_names_unknown_objects_by_their_keys_only() {
    let refused = checked(&HostPolicy::default(), json!({"Odd": {"password": "hunter2"}})).unwrap_err();
    assert!(refused.contains("Odd = {password}") && !refused.contains("hunter2"), "{refused}");
}

#[test]
fn a_policy_is_read_from_configuration_and_typos_are_refused() {
    let text = r#"{"host_mounts": [{"path": "/srv"}], "capabilities": ["NET_ADMIN"]}"#;
    let policy: HostPolicy = serde_json::from_str(text).unwrap();
    assert!(!policy.host_mounts[0].writable && !policy.privileged);
    assert!(serde_json::from_str::<HostPolicy>(r#"{"privilegd": true}"#).is_err());
}

#[test]
fn an_empty_list_of_masks_is_no_absent_one() {
    for key in ["MaskedPaths", "ReadonlyPaths"] {
        let refused = checked(&HostPolicy::default(), host(key, json!([]))).unwrap_err();
        assert!(refused.contains(key), "{refused}");
    }
    assert_eq!(checked(&HostPolicy::default(), host("CapAdd", json!([]))), Ok(()));
}
