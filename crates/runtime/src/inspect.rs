//! Comparing what a container shows when it is inspected with what its spec asks for.
//!
//! Labels say what a container was made as. Somebody with the engine's socket can make another
//! one with the same labels, so they are not what is compared: the image by its id, the
//! configuration the engine holds, and the bytes of the files are.
//!
//! What the spec asks for is the create request the agent would send, merged with the image's
//! own configuration as the engine merges them. What the engine fills in by itself, and in
//! another way from version to version, is compared only where the request asks for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ImageConfig, ImageInspect};
use serde_json::{Map, Value, json};
use stele_model::release::File;

use crate::limits::INSPECTION_DIFFERENCES_MAX;
use crate::request::{drift_of, mutable_of_inspection, mutable_of_request, plain};
use crate::runtime::RuntimeError;

/// Keys of `HostConfig` that the engine fills in when they are not asked for.
const FILLED_IN: [&str; 15] = [
    "CgroupParent",
    "CgroupnsMode",
    "ConsoleSize",
    "ContainerIDFile",
    "Init",
    "IpcMode",
    "Isolation",
    "LogConfig",
    "MaskedPaths",
    "MemorySwap",
    "MemorySwappiness",
    "OomKillDisable",
    "ReadonlyPaths",
    "Runtime",
    "ShmSize",
];
/// Keys of `HostConfig` that are compared as what can be changed by hand: see [`drift_of`].
const COMPARED_AS_MUTABLE: [&str; 14] = [
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "NanoCpus",
    "NetworkMode",
    "PidsLimit",
    "RestartPolicy",
];
/// Keys whose values may be told to people: they are no place for secrets.
const TOLD: [&str; 12] = [
    "Image",
    "User",
    "WorkingDir",
    "StopSignal",
    "StopTimeout",
    "HostConfig.Privileged",
    "HostConfig.PidMode",
    "HostConfig.IpcMode",
    "HostConfig.UsernsMode",
    "HostConfig.UTSMode",
    "HostConfig.ReadonlyRootfs",
    "HostConfig.CapAdd",
];

/// The name of the image a container was made of, where that is the digest asked for from another
/// repository, such as a mirror: the same bytes.
pub(crate) fn same_content(asked: &str, shown: Option<&str>) -> Option<String> {
    let (_, asked) = asked.rsplit_once('@')?;
    let shown = shown?;
    let (_, digest) = shown.rsplit_once('@')?;
    (asked == digest).then(|| shown.to_owned())
}

/// What of an image decides the containers made of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageShown {
    /// The engine's own id of it, which is over its content.
    pub(crate) id: String,
    /// What it gives its containers.
    pub(crate) config: ImageConfig,
}

impl ImageShown {
    pub(crate) fn of(image: ImageInspect) -> Self {
        Self { id: image.id.unwrap_or_default(), config: image.config.unwrap_or_default() }
    }
}

/// Everything that is compared, by key.
type Settings = BTreeMap<String, Value>;

/// Docker writes ids with their algorithm, Podman without.
fn bare(id: &str) -> &str {
    id.rsplit(':').next().unwrap_or(id)
}

/// How an inspected container differs from what was asked for; nothing when it does not.
pub(crate) fn differences(
    body: &ContainerCreateBody,
    image: &ImageShown,
    inspected: &ContainerInspectResponse,
) -> Result<Vec<String>, RuntimeError> {
    let mut found = Vec::new();
    if bare(inspected.image.as_deref().unwrap_or_default()) != bare(&image.id) {
        found.push("its image is not the one its release names".to_owned());
    }
    let (made, now) = (mutable_of_request(body)?, mutable_of_inspection(inspected));
    found.extend(drift_of(&made, &now));
    let (asked, shown) = (asked(body, image)?, shown(inspected, body)?);
    let keys: BTreeSet<_> = asked.keys().chain(shown.keys()).collect();
    let unset = Value::Null;
    for key in keys {
        let (was, is) = (asked.get(key).unwrap_or(&unset), shown.get(key).unwrap_or(&unset));
        if was == is {
            continue;
        }
        let show = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        found.push(if TOLD.contains(&key.as_str()) {
            format!("{key} is {}, should be {}", show(is), show(was))
        } else {
            // Environment, command and options may be secrets: their names are enough to act on.
            format!("{key} is not as it should be")
        });
    }
    found.truncate(INSPECTION_DIFFERENCES_MAX);
    Ok(found)
}

fn json_of<T: serde::Serialize>(value: &T) -> Result<Value, RuntimeError> {
    serde_json::to_value(value).map_err(|error| RuntimeError::Spec(error.to_string()))
}

fn asked(body: &ContainerCreateBody, image: &ImageShown) -> Result<Settings, RuntimeError> {
    let given = &image.config;
    let mut settings = Settings::new();
    let mut env = variables(given.env.as_ref());
    // A name without a value takes the image's away.
    let named = body.env.iter().flatten().map(|one| one.split('=').next().unwrap_or_default().to_owned());
    for name in named {
        env.remove(&name);
    }
    env.extend(variables(body.env.as_ref()));
    let entrypoint = body.entrypoint.as_ref();
    let command = body.cmd.as_ref().filter(|words| !words.is_empty()).or_else(|| {
        let own = entrypoint.is_some_and(|words| !words.is_empty());
        given.cmd.as_ref().filter(|_| !own)
    });
    put_env(&mut settings, env);
    put_words(&mut settings, "Entrypoint", entrypoint.or(given.entrypoint.as_ref()));
    put_words(&mut settings, "Cmd", command);
    put_text(&mut settings, "Image", body.image.as_deref());
    let or = |own: &Option<String>, images: &Option<String>| {
        own.clone().filter(|text| !text.is_empty()).or_else(|| images.clone())
    };
    put_text(&mut settings, "User", or(&body.user, &given.user).as_deref());
    put_folder(&mut settings, or(&body.working_dir, &given.working_dir).as_deref());
    put_text(&mut settings, "StopSignal", or(&body.stop_signal, &given.stop_signal).as_deref());
    put(&mut settings, "StopTimeout", json_of(&body.stop_timeout)?);
    put(&mut settings, "Tty", json_of(&body.tty)?);
    put(&mut settings, "OpenStdin", json_of(&body.open_stdin)?);
    put(&mut settings, "NetworkDisabled", json_of(&body.network_disabled)?);
    put_text(&mut settings, "Domainname", body.domainname.as_deref());
    let health = body.healthcheck.as_ref().or(given.healthcheck.as_ref());
    put(&mut settings, "Healthcheck", json_of(&health)?);
    put_own(&mut settings, body, body.hostname.as_deref(), body.labels.as_ref());
    let host_config = json_of(&body.host_config)?;
    put_host_config(&mut settings, &host_config, &host_config);
    Ok(settings)
}

fn shown(inspected: &ContainerInspectResponse, body: &ContainerCreateBody) -> Result<Settings, RuntimeError> {
    let config = inspected.config.clone().unwrap_or_default();
    let mut settings = Settings::new();
    put_env(&mut settings, variables(config.env.as_ref()));
    put_words(&mut settings, "Entrypoint", config.entrypoint.as_ref());
    put_words(&mut settings, "Cmd", config.cmd.as_ref());
    put_text(&mut settings, "Image", config.image.as_deref());
    put_text(&mut settings, "User", config.user.as_deref());
    put_folder(&mut settings, config.working_dir.as_deref());
    put_text(&mut settings, "StopSignal", config.stop_signal.as_deref());
    put(&mut settings, "StopTimeout", json_of(&config.stop_timeout)?);
    put(&mut settings, "Tty", json_of(&config.tty)?);
    put(&mut settings, "OpenStdin", json_of(&config.open_stdin)?);
    put(&mut settings, "NetworkDisabled", json_of(&config.network_disabled)?);
    put_text(&mut settings, "Domainname", config.domainname.as_deref());
    put(&mut settings, "Healthcheck", json_of(&config.healthcheck)?);
    put_own(&mut settings, body, config.hostname.as_deref(), config.labels.as_ref());
    let host_config = json_of(&inspected.host_config)?;
    let asked = &json_of(&body.host_config)?;
    put_host_config(&mut settings, &host_config, asked);
    Ok(settings)
}

fn put(settings: &mut Settings, key: &str, value: Value) {
    let value = normal(value);
    if !value.is_null() {
        settings.insert(key.to_owned(), value);
    }
}

fn put_text(settings: &mut Settings, key: &str, text: Option<&str>) {
    put(settings, key, json!(text));
}

fn put_folder(settings: &mut Settings, path: Option<&str>) {
    put_text(settings, "WorkingDir", path.map(|path| path.trim_end_matches('/')));
}

fn put_words(settings: &mut Settings, key: &str, words: Option<&Vec<String>>) {
    put(settings, key, json!(words));
}

/// What the engine or the image give more of, of which only what is asked for counts.
fn put_own(
    settings: &mut Settings,
    asked: &ContainerCreateBody,
    hostname: Option<&str>,
    labels: Option<&HashMap<String, String>>,
) {
    if asked.hostname.is_some() {
        put_text(settings, "Hostname", hostname);
    }
    for name in asked.labels.iter().flatten().map(|(name, _)| name) {
        let text = labels.and_then(|labels| labels.get(name));
        settings.extend(text.map(|text| (format!("label {name}"), Value::from(text.as_str()))));
    }
}

fn put_env(settings: &mut Settings, env: BTreeMap<String, String>) {
    for (name, value) in env {
        // Not through `normal`: an empty value is a value.
        settings.insert(format!("environment variable {name}"), Value::from(value));
    }
}

fn variables(env: Option<&Vec<String>>) -> BTreeMap<String, String> {
    let pairs = env.into_iter().flatten().filter_map(|one| one.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Absent, false, zero and empty are one to the engine.
fn normal(value: Value) -> Value {
    match value {
        Value::Bool(false) => Value::Null,
        Value::Number(number) if number.as_f64() == Some(0.0) => Value::Null,
        Value::String(text) if text.is_empty() => Value::Null,
        Value::Array(items) => {
            let items: Vec<_> = items.into_iter().map(normal).collect();
            if items.is_empty() { Value::Null } else { Value::Array(items) }
        }
        Value::Object(members) => {
            let members: Map<_, _> = members
                .into_iter()
                .map(|(key, member)| (key, normal(member)))
                .filter(|(_, member)| !member.is_null())
                .collect();
            if members.is_empty() { Value::Null } else { Value::Object(members) }
        }
        other => other,
    }
}

fn put_host_config(settings: &mut Settings, host_config: &Value, asked: &Value) {
    for (key, value) in host_config.as_object().into_iter().flatten() {
        if COMPARED_AS_MUTABLE.contains(&key.as_str()) {
            continue;
        }
        let value = match (key.as_str(), asked.get(key)) {
            ("CapAdd" | "CapDrop", _) => capabilities(value),
            (key, None) if FILLED_IN.contains(&key) => what_no_engine_fills_in(key, value),
            // The engine's own options of a log driver come on top of those asked for.
            ("LogConfig", Some(asked)) => members_of(value, asked),
            // An empty list is asked for, unlike everywhere else.
            ("MaskedPaths" | "ReadonlyPaths", Some(_)) => json!({"list": value}),
            _ => value.clone(),
        };
        put(settings, &format!("HostConfig.{key}"), value);
    }
}

/// What an engine would never choose by itself, of a key that it fills in.
fn what_no_engine_fills_in(key: &str, value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    match key {
        "IpcMode" if text == "host" || text.starts_with("container:") => value.clone(),
        // Masks that were lifted: none at all is root on the host in the end.
        "MaskedPaths" | "ReadonlyPaths" if value.as_array().is_some_and(Vec::is_empty) => json!("none"),
        _ => Value::Null,
    }
}

/// The members of `value` that `asked` has, all the way down.
fn members_of(value: &Value, asked: &Value) -> Value {
    match (value, asked) {
        (Value::Object(members), Value::Object(asked)) => members
            .iter()
            .filter_map(|(key, member)| Some((key.clone(), members_of(member, asked.get(key)?))))
            .collect::<Map<_, _>>()
            .into(),
        _ => value.clone(),
    }
}

/// The engine gives capabilities their full names and an order of its own.
fn capabilities(value: &Value) -> Value {
    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    let names: BTreeSet<_> =
        names.map(|name| name.to_uppercase().trim_start_matches("CAP_").to_owned()).collect();
    json!(names)
}

/// How the archive that the engine gives of a file differs from the file as it was written.
pub(crate) fn file_difference(
    path: &str,
    file: &File,
    archive: &[u8],
) -> Result<Option<String>, RuntimeError> {
    let content = plain(&file.content, &format!("the file {path}"))?;
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().into_iter().flatten();
    let Some(Ok(mut entry)) = entries.next() else {
        return Ok(Some(format!("the file {path} cannot be read back")));
    };
    let header = entry.header();
    if header.entry_type() != tar::EntryType::Regular {
        return Ok(Some(format!("{path} is not a file any more")));
    }
    let (mode, wanted) = (header.mode().unwrap_or_default() & 0o7777, file.mode & 0o7777);
    if mode != wanted {
        return Ok(Some(format!("the mode of the file {path} is {mode:04o}, should be {wanted:04o}")));
    }
    if header.uid().ok() != Some(0) || header.gid().ok() != Some(0) {
        return Ok(Some(format!("the owner of the file {path} was changed")));
    }
    // One more byte than there should be: longer is different, however long.
    let mut found = Vec::with_capacity(content.len().saturating_add(1));
    let limit = u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(1);
    let read = entry.by_ref().take(limit).read_to_end(&mut found);
    let same = read.is_ok() && found == content.as_bytes();
    Ok((!same).then(|| format!("the content of the file {path} was changed")))
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
