//! What Docker says of a fleet's containers, as far as it must be the same again after a rollback.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::docker::{containers, docker};

const LABEL_NODE: &str = "io.stele.node";
const LABEL_SLOT: &str = "io.stele.slot";
const LABEL_SPEC: &str = "io.stele.spec";

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Docker's id.
    pub id: String,
    /// When it last started.
    pub started: String,
    /// All of it that a release decides: image digest, command, env, mounts, files, ports, resources.
    pub content: Value,
}

/// A fleet's running containers by node and slot, with the content of these files.
pub fn of_fleet(fleet: &str, files: &[&str]) -> anyhow::Result<BTreeMap<String, Container>> {
    let ids = containers(fleet)?;
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let inspected = docker(&[&["inspect"][..], &ids].concat())?;
    let inspected: Vec<Value> = serde_json::from_str(&inspected).context("docker inspect prints JSON")?;
    let mut found = BTreeMap::new();
    for one in inspected.iter().filter(|one| one["State"]["Running"] == true) {
        let label = |name: &str| one["Config"]["Labels"][name].as_str().unwrap_or_default().to_owned();
        let place = format!("{} {}", label(LABEL_NODE), label(LABEL_SLOT));
        let id = one["Id"].as_str().context("a container has an id")?.to_owned();
        let content = content(one, &id, files);
        let started = one["State"]["StartedAt"].as_str().unwrap_or_default().to_owned();
        let other = found.insert(place.clone(), Container { id, started, content });
        ensure!(other.is_none(), "two containers run for {place}");
    }
    Ok(found)
}

fn content(one: &Value, id: &str, files: &[&str]) -> Value {
    let pick = |part: &Value, names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), part[*name].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut bytes = BTreeMap::new();
    for file in files {
        // Not every service has every file.
        let text = docker(&["exec", id, "cat", file]).ok();
        let mode = docker(&["exec", id, "stat", "-c", "%a %u:%g", file]).ok();
        bytes.insert(*file, json!({"text": text, "mode": mode}));
    }
    let limits = ["Memory", "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy", "LogConfig", "Mounts"];
    let rights = [
        "Binds",
        "Tmpfs",
        "PortBindings",
        "Privileged",
        "CapAdd",
        "CapDrop",
        "Devices",
        "NetworkMode",
        "DnsOptions",
    ];
    let own = [
        "Image",
        "Cmd",
        "Entrypoint",
        "Env",
        "User",
        "WorkingDir",
        "StopSignal",
        "StopTimeout",
        "ExposedPorts",
    ];
    // Of Stele's own, what a release decides: the others say which instance it is.
    let labels: BTreeMap<&String, &Value> = one["Config"]["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !name.starts_with("io.stele.") || *name == LABEL_SPEC)
        .collect();
    let mut mounts = one["Mounts"].as_array().cloned().unwrap_or_default();
    mounts.sort_by_key(|mount| mount["Destination"].to_string());
    let networks: BTreeSet<&String> =
        one["NetworkSettings"]["Networks"].as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    json!({
        "image": one["Image"],
        "config": pick(&one["Config"], &own),
        "limits": pick(&one["HostConfig"], &limits),
        "rights": pick(&one["HostConfig"], &rights),
        "labels": labels,
        "mounts": mounts,
        "ports": one["NetworkSettings"]["Ports"],
        "networks": networks,
        "files": bytes,
    })
}

/// What differs between two looks, one line each; containers' ids and starts are no content.
pub fn differences(before: &BTreeMap<String, Container>, after: &BTreeMap<String, Container>) -> Vec<String> {
    let mut lines = Vec::new();
    let places: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for place in places {
        match (before.get(place), after.get(place)) {
            (Some(_), None) => lines.push(format!("{place} is gone")),
            (None, Some(_)) => lines.push(format!("{place} is new")),
            (Some(before), Some(after)) => {
                compare(place, &before.content, &after.content, &mut lines);
            }
            (None, None) => {}
        }
    }
    lines
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let part = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&format!("{path} {name}"), &part(before), &part(after), lines);
            }
        }
        (before, after) if before != after => lines.push(format!("{path}: {before} -> {after}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(content: Value) -> Container {
        Container { id: "1".to_owned(), started: "then".to_owned(), content }
    }

    #[test]
    fn only_content_differs() {
        let before = BTreeMap::from([
            ("a".to_owned(), container(json!({"env": ["X=1"]}))),
            ("b".to_owned(), container(json!({}))),
        ]);
        let mut after = before.clone();
        if let Some(container) = after.get_mut("a") {
            "2".clone_into(&mut container.id);
        }
        assert_eq!(differences(&before, &after), Vec::<String>::new());
        after.insert("a".to_owned(), container(json!({"env": ["X=2"]})));
        after.remove("b");
        assert_eq!(differences(&before, &after), [r#"a env: ["X=1"] -> ["X=2"]"#, "b is gone"]);
    }
}
