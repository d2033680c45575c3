//! The host's own last word on what a container may be.
//!
//! The Docker socket is root. Whatever a controller or a spec says, the request
//! that creates a container is checked here, after everything was merged into it,
//! against what the host's owner allowed. What is not known to be harmless is
//! refused: a key nobody thought of is not a hole.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What containers may do on this host beyond what is harmless. The default allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostPolicy {
    /// Allow `Privileged`, which is root on the host.
    pub privileged: bool,
    /// Allow the host's network.
    pub host_network: bool,
    /// Allow the host's process ids.
    pub host_pid: bool,
    /// Allow the host's shared memory.
    pub host_ipc: bool,
    /// Allow the host's name.
    pub host_uts: bool,
    /// Allow the host's cgroup namespace.
    pub host_cgroup: bool,
    /// Allow GPUs and the like (`DeviceRequests`).
    pub device_requests: bool,
    /// Host folders that may be mounted, with everything below them.
    pub host_mounts: Vec<HostMount>,
    /// Capabilities that may be added, such as `NET_ADMIN`.
    pub capabilities: BTreeSet<String>,
    /// Host devices that may be passed through, such as `/dev/fuse`.
    pub devices: BTreeSet<String>,
    /// `SecurityOpt` entries that may be set beside `no-new-privileges`.
    pub security_opts: BTreeSet<String>,
    /// Kernel parameters that may be set.
    pub sysctls: BTreeSet<String>,
    /// OCI runtimes that may be chosen.
    pub runtimes: BTreeSet<String>,
    /// Docker volumes of others that may be mounted, by name.
    pub volumes: BTreeSet<String>,
    /// Docker networks of others that may be joined, by name.
    pub networks: BTreeSet<String>,
    /// Addresses ports may be published on beside the agent's own.
    pub publish_addresses: BTreeSet<String>,
    /// Keys of `HostConfig` that pass unchecked, for those this policy does not know. It does
    /// not loosen the ones it does.
    pub keys: BTreeSet<String>,
}

/// A host folder that may be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostMount {
    /// Absolute path; everything below it is allowed too.
    pub path: String,
    /// Whether it may be mounted for writing.
    #[serde(default)]
    pub writable: bool,
}

/// What belongs to the instance itself, and is therefore allowed.
#[derive(Clone, Debug)]
pub struct CreateContext<'a> {
    /// The image its release names. Nothing else may run in its name.
    pub image: &'a str,
    /// Its app's network.
    pub network: &'a str,
    /// Its app's volumes, by Docker's name.
    pub volumes: &'a BTreeSet<String>,
    /// The address the agent publishes ports on.
    pub publish_address: &'a str,
    /// The labels the agent finds its containers by.
    pub labels: &'a BTreeMap<String, String>,
    /// The restart policy's name that the agent chose.
    pub restart: &'a str,
}

/// The host does not allow a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host does not allow {key} = {value}: {hint}")]
pub struct PolicyViolation {
    /// Where in the create request.
    pub key: String,
    /// What it was set to.
    pub value: String,
    /// What to do about it.
    pub hint: String,
}

/// Labels under this prefix are the agent's own.
const OWN_LABELS: &str = "io.stele.";

/// Merges `patch` over `target` as RFC 7386 does: objects member by member, `null` removes,
/// everything else (lists too) replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(into) = target {
        for (key, member) in members {
            if member.is_null() {
                into.remove(key);
            } else {
                merge(into.entry(key.clone()).or_insert(Value::Null), member);
            }
        }
    }
}

fn violation<T>(key: &str, value: &Value, hint: impl Into<String>) -> Result<T, PolicyViolation> {
    // Values may be long, and those of unknown keys may be secrets; names are enough to act on.
    let value = match value {
        Value::Object(members) => format!("{{{}}}", members.keys().cloned().collect::<Vec<_>>().join(", ")),
        other => other.to_string().chars().take(200).collect(),
    };
    Err(PolicyViolation { key: key.to_owned(), value, hint: hint.into() })
}

/// Lists that Docker does not take for absent when they are empty: empty, they lift its
/// masks from `/proc` and `/sys`, which is root on the host in the end.
const EMPTY_IS_ASKED: [&str; 2] = ["MaskedPaths", "ReadonlyPaths"];

/// Whether a value asks for nothing: what Docker takes an absent key for.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap_or("(not a text)"))
}

impl HostPolicy {
    /// Checks the body of a create request, as it would be sent.
    pub fn check(&self, body: &Value, context: &CreateContext<'_>) -> Result<(), PolicyViolation> {
        let Value::Object(members) = body else {
            return violation("(the request)", body, "it must be a JSON object");
        };
        for (key, value) in members.iter().filter(|(_, value)| !is_unset(value)) {
            match key.as_str() {
                "Hostname" | "Domainname" | "User" | "AttachStdin" | "AttachStdout" | "AttachStderr"
                | "ExposedPorts" | "Tty" | "OpenStdin" | "StdinOnce" | "Env" | "Cmd" | "Healthcheck"
                | "Volumes" | "WorkingDir" | "Entrypoint" | "NetworkDisabled" | "StopSignal"
                | "StopTimeout" | "Shell" => {}
                "Image" => {
                    if value.as_str() != Some(context.image) {
                        return violation(key, value, "the image is part of the release; change it there");
                    }
                }
                "Labels" => check_labels(value, context)?,
                "HostConfig" => self.check_host_config(value, context)?,
                "NetworkingConfig" => self.check_networking(value, context)?,
                _ => {
                    return violation(key, value, "it is not a key of a create request known to be harmless");
                }
            }
        }
        if body.get("Image").and_then(Value::as_str) != Some(context.image) {
            return violation(
                "Image",
                &Value::Null,
                "the image is part of the release and cannot be removed",
            );
        }
        for (key, hint) in [
            ("NetworkMode", "without one it would join the engine's default network"),
            ("RestartPolicy", "say it as restart in the spec, which the agent goes by too"),
        ] {
            if body.pointer(&format!("/HostConfig/{key}")).is_none_or(is_unset) {
                return violation(&format!("HostConfig.{key}"), &Value::Null, hint);
            }
        }
        let labels = body.get("Labels").unwrap_or(&Value::Null);
        for (label, expected) in context.labels {
            if labels.get(label).and_then(Value::as_str) != Some(expected) {
                return violation(
                    &format!("Labels.{label}"),
                    &Value::Null,
                    "the agent finds its containers by it",
                );
            }
        }
        Ok(())
    }

    fn check_networking(&self, value: &Value, context: &CreateContext<'_>) -> Result<(), PolicyViolation> {
        let members = value.as_object().into_iter().flatten();
        for (key, value) in members.filter(|(_, value)| !is_unset(value)) {
            if key != "EndpointsConfig" {
                return violation(
                    &format!("NetworkingConfig.{key}"),
                    value,
                    "it is not known to be harmless",
                );
            }
            for (network, endpoint) in value.as_object().into_iter().flatten() {
                self.check_network("NetworkingConfig.EndpointsConfig", network, context)?;
                for (key, value) in endpoint.as_object().into_iter().flatten() {
                    let harmless = matches!(key.as_str(), "Aliases" | "IPAMConfig" | "MacAddress");
                    if !harmless && !is_unset(value) {
                        let key = format!("NetworkingConfig.EndpointsConfig.{network}.{key}");
                        return violation(&key, value, "it is not known to be harmless");
                    }
                }
            }
        }
        Ok(())
    }

    fn check_network(
        &self,
        key: &str,
        network: &str,
        context: &CreateContext<'_>,
    ) -> Result<(), PolicyViolation> {
        let allowed = match network {
            "none" => true,
            "host" => self.host_network,
            name => name == context.network || self.networks.contains(name),
        };
        let hint = match network {
            "host" => "its owner can allow it with host_network = true".to_owned(),
            name => format!("its owner can allow it by listing {name:?} in networks"),
        };
        if allowed { Ok(()) } else { violation(key, &Value::from(network), hint) }
    }

    fn check_host_config(&self, value: &Value, context: &CreateContext<'_>) -> Result<(), PolicyViolation> {
        let Value::Object(members) = value else {
            return violation("HostConfig", value, "it must be a JSON object");
        };
        members
            .iter()
            .filter(|(name, value)| {
                !is_unset(value) || (value.is_array() && EMPTY_IS_ASKED.contains(&name.as_str()))
            })
            .try_for_each(|(name, value)| self.check_host_key(name, value, context))
    }

    fn check_host_key(
        &self,
        name: &str,
        value: &Value,
        context: &CreateContext<'_>,
    ) -> Result<(), PolicyViolation> {
        let key = &format!("HostConfig.{name}");
        let flag = |allowed: bool, name: &str| {
            let hint = format!("its owner can allow it with {name} = true");
            if allowed { Ok(()) } else { violation(key, value, hint) }
        };
        let listed = |list: &BTreeSet<String>, item: &str, name: &str| {
            let hint = format!("its owner can allow it by listing {item:?} in {name}");
            if list.contains(item) { Ok(()) } else { violation(key, &Value::from(item), hint) }
        };
        let text = value.as_str().unwrap_or("(not a text)");
        match name {
            "CpuShares" | "Memory" | "BlkioWeight" | "CpuPeriod" | "CpuQuota" | "CpusetCpus"
            | "CpusetMems" | "MemoryReservation" | "MemorySwap" | "MemorySwappiness" | "NanoCpus"
            | "Init" | "PidsLimit" | "Ulimits" | "LogConfig" | "CapDrop" | "Dns" | "DnsOptions"
            | "DnsSearch" | "ExtraHosts" | "GroupAdd" | "ReadonlyRootfs" | "StorageOpt" | "Tmpfs"
            | "ShmSize" | "ConsoleSize" => Ok(()),
            "Privileged" => flag(self.privileged, "privileged"),
            "NetworkMode" => self.check_network(key, text, context),
            "PidMode" if text == "host" => flag(self.host_pid, "host_pid"),
            "IpcMode" if matches!(text, "none" | "private" | "shareable") => Ok(()),
            "IpcMode" if text == "host" => flag(self.host_ipc, "host_ipc"),
            "UTSMode" if text == "host" => flag(self.host_uts, "host_uts"),
            "CgroupnsMode" if text == "private" => Ok(()),
            "CgroupnsMode" if text == "host" => flag(self.host_cgroup, "host_cgroup"),
            "DeviceRequests" => flag(self.device_requests, "device_requests"),
            "CapAdd" => strings(value).try_for_each(|item| {
                let item = item.strip_prefix("CAP_").unwrap_or(item);
                listed(&self.capabilities, item, "capabilities")
            }),
            "Devices" => value.as_array().into_iter().flatten().try_for_each(|device| {
                let path = device.get("PathOnHost").and_then(Value::as_str).unwrap_or("(no path)");
                listed(&self.devices, path, "devices")
            }),
            "SecurityOpt" => strings(value)
                .filter(|option| !matches!(*option, "no-new-privileges" | "no-new-privileges:true"))
                .try_for_each(|option| listed(&self.security_opts, option, "security_opts")),
            "Sysctls" => value
                .as_object()
                .into_iter()
                .flatten()
                .try_for_each(|(sysctl, _)| listed(&self.sysctls, sysctl, "sysctls")),
            "Runtime" => listed(&self.runtimes, text, "runtimes"),
            "RestartPolicy" => {
                let name = value.get("Name").and_then(Value::as_str).unwrap_or_default();
                if name == context.restart {
                    Ok(())
                } else {
                    violation(key, value, "say it as restart in the spec, which the agent goes by too")
                }
            }
            "PortBindings" => self.check_ports(key, value, context),
            "Mounts" => value
                .as_array()
                .into_iter()
                .flatten()
                .try_for_each(|mount| self.check_mount(key, mount, context)),
            "Binds" => strings(value).try_for_each(|bind| self.check_bind(key, bind, context)),
            // Their harmless forms were let through above, and their others are other containers'.
            "PidMode" | "IpcMode" | "UTSMode" | "CgroupnsMode" | "VolumesFrom" | "Links" | "Cgroup" => {
                violation(key, value, "it shares what belongs to another container")
            }
            "AutoRemove" => violation(key, value, "the agent must see how a container ended"),
            "PublishAllPorts" => violation(key, value, "publish each port by its number instead"),
            _ if self.keys.contains(name) => Ok(()),
            _ => violation(key, value, format!("its owner can allow it by listing {name:?} in keys")),
        }
    }

    fn check_ports(
        &self,
        key: &str,
        value: &Value,
        context: &CreateContext<'_>,
    ) -> Result<(), PolicyViolation> {
        for binding in
            value.as_object().into_iter().flatten().filter_map(|(_, list)| list.as_array()).flatten()
        {
            let address = binding.get("HostIp").and_then(Value::as_str).unwrap_or_default();
            // An absent address is every address, which is more than the agent's own.
            if address != context.publish_address && !self.publish_addresses.contains(address) {
                let hint = format!(
                    "this agent publishes on {:?}; its owner can allow {address:?} in publish_addresses",
                    context.publish_address
                );
                return violation(key, binding, hint);
            }
        }
        Ok(())
    }

    fn check_mount(
        &self,
        key: &str,
        mount: &Value,
        context: &CreateContext<'_>,
    ) -> Result<(), PolicyViolation> {
        let source = mount.get("Source").and_then(Value::as_str).unwrap_or_default();
        let read_only = mount.get("ReadOnly").and_then(Value::as_bool).unwrap_or(false);
        let option = |group: &str, name: &str| mount.get(group).and_then(|options| options.get(name));
        match mount.get("Type").and_then(Value::as_str) {
            Some("tmpfs") => Ok(()),
            Some("volume") => {
                // The local driver's options can turn a volume into any folder of the host.
                if option("VolumeOptions", "DriverConfig").is_some_and(|config| !is_unset(config)) {
                    return violation(key, mount, "a volume's driver options can reach the host's files");
                }
                self.check_volume(key, source, context)
            }
            Some("bind") => {
                let propagation = option("BindOptions", "Propagation").and_then(Value::as_str).unwrap_or("");
                if !matches!(propagation, "" | "rprivate" | "private") {
                    return violation(key, mount, "mounts may not propagate to the host");
                }
                self.check_host_path(key, source, read_only)
            }
            _ => violation(key, mount, "only volumes, folders and tmpfs can be mounted"),
        }
    }

    fn check_bind(&self, key: &str, bind: &str, context: &CreateContext<'_>) -> Result<(), PolicyViolation> {
        let mut parts = bind.splitn(3, ':');
        let (source, options) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        if !options.split(',').all(|option| matches!(option, "" | "ro" | "rw" | "nocopy")) {
            return violation(key, &Value::from(bind), "only the options ro, rw and nocopy are allowed");
        }
        if source.starts_with('/') {
            self.check_host_path(key, source, options.split(',').any(|option| option == "ro"))
        } else {
            self.check_volume(key, source, context)
        }
    }

    fn check_volume(
        &self,
        key: &str,
        name: &str,
        context: &CreateContext<'_>,
    ) -> Result<(), PolicyViolation> {
        // One without a name is made for the container and is nobody else's.
        if name.is_empty() || context.volumes.contains(name) || self.volumes.contains(name) {
            Ok(())
        } else {
            let hint = format!("it is not this app's; its owner can allow it by listing {name:?} in volumes");
            violation(key, &Value::from(name), hint)
        }
    }

    /// Whether a folder of the host may be mounted. The path is judged as written: who can
    /// resolve symbolic links should ask again with what they resolve to.
    pub fn check_host_path(&self, key: &str, path: &str, read_only: bool) -> Result<(), PolicyViolation> {
        let plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        let below = |mount: &HostMount| {
            let root = mount.path.trim_end_matches('/');
            path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut allowed = self.host_mounts.iter().filter(|mount| plain && below(mount)).peekable();
        let hint = if allowed.peek().is_none() {
            format!("its owner can allow it by listing {path:?} in host_mounts")
        } else {
            "it may be mounted read-only; its owner can allow more with writable = true".to_owned()
        };
        if allowed.any(|mount| read_only || mount.writable) {
            Ok(())
        } else {
            violation(key, &Value::from(path), hint)
        }
    }
}

fn check_labels(value: &Value, context: &CreateContext<'_>) -> Result<(), PolicyViolation> {
    for (label, text) in value.as_object().into_iter().flatten() {
        let own = label.starts_with(OWN_LABELS);
        if own && context.labels.get(label).map(String::as_str) != text.as_str() {
            return violation(
                &format!("Labels.{label}"),
                text,
                format!("labels under {OWN_LABELS} are the agent's"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
