//! Bounds and shapes of what comes from outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{
    ENV_COUNT_MAX, ENV_VALUE_BYTES_MAX, FILE_BYTES_MAX, FILES_COUNT_MAX, KEY_BYTES_MAX, LABELS_COUNT_MAX,
    PORTS_COUNT_MAX, REPLICAS_MAX, SERVICES_COUNT_MAX, VOLUMES_COUNT_MAX,
};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::{Check, Container, EnvValue, Placement, Release};

fn invalid(details: Vec<String>) -> Result<(), Rejection> {
    match details.as_slice() {
        [] => Ok(()),
        [one] => Err(Rejection::new(RejectionKind::Invalid, one.clone())),
        many => {
            let message = format!("{} things are wrong", many.len());
            Err(Rejection::new(RejectionKind::Invalid, message).with_details(details))
        }
    }
}

/// Checks labels of a node.
pub fn validate_labels(labels: &BTreeMap<String, String>) -> Result<(), Rejection> {
    let mut wrong = Vec::new();
    if labels.len() > LABELS_COUNT_MAX {
        wrong.push(format!("there are more than {LABELS_COUNT_MAX} labels"));
    }
    for (key, value) in labels {
        if key == "node" || key == "region" {
            wrong.push(format!("label {key:?} is set by Stele itself"));
        }
        let text =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        if key.is_empty()
            || key.len() > KEY_BYTES_MAX
            || value.len() > KEY_BYTES_MAX
            || !text(key)
            || !text(value)
        {
            wrong.push(format!(
                "label {key:?}={value:?}: use letters, digits and -_./, at most {KEY_BYTES_MAX} bytes"
            ));
        }
    }
    invalid(wrong)
}

/// Checks the keys and value lengths of environment variables.
pub(super) fn validate_env<'a>(
    variables: impl Iterator<Item = (&'a String, usize)>,
) -> Result<(), Rejection> {
    let mut wrong = Vec::new();
    check_env("", variables, &mut wrong);
    invalid(wrong)
}

fn check_env<'a>(at: &str, variables: impl Iterator<Item = (&'a String, usize)>, wrong: &mut Vec<String>) {
    let mut count = 0;
    for (key, length) in variables {
        count += 1;
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(['=', '\0']) {
            wrong.push(format!("{at}env {key:?} is not a name: no '=', at most {KEY_BYTES_MAX} bytes"));
        }
        if length > ENV_VALUE_BYTES_MAX {
            wrong.push(format!("{at}env {key} is longer than {ENV_VALUE_BYTES_MAX} bytes"));
        }
    }
    if count > ENV_COUNT_MAX {
        wrong.push(format!("{at}env has more than {ENV_COUNT_MAX} variables"));
    }
}

/// Checks a release against every bound of [`crate::limits`].
pub fn validate_release(release: &Release) -> Result<(), Rejection> {
    let mut wrong = Vec::new();
    if release.services.is_empty() {
        wrong.push("an app has at least one service".to_owned());
    }
    if release.services.len() > SERVICES_COUNT_MAX {
        wrong.push(format!("services: more than {SERVICES_COUNT_MAX}"));
    }
    for (name, service) in &release.services {
        let at = format!("services.{name}.");
        check_container(&at, &service.container, &mut wrong);
        if let Placement::Replicas { count, .. } = service.placement
            && count > REPLICAS_MAX
        {
            wrong.push(format!("{at}replicas is more than {REPLICAS_MAX}"));
        }
        if service.update.max_unavailable == 0 {
            wrong.push(format!("{at}update.max_unavailable is at least 1"));
        }
    }
    invalid(wrong)
}

fn check_container(at: &str, container: &Container, wrong: &mut Vec<String>) {
    let length = |value: &EnvValue| match value {
        EnvValue::Value(value) => value.len(),
        EnvValue::Secret(_) => 0,
    };
    check_env(at, container.env.iter().map(|(key, value)| (key, length(value))), wrong);
    if container.files.len() > FILES_COUNT_MAX {
        wrong.push(format!("{at}files: more than {FILES_COUNT_MAX}"));
    }
    for (path, file) in &container.files {
        if !path.starts_with('/') || path.ends_with('/') || path.split('/').any(|part| part == "..") {
            wrong.push(format!("{at}files {path:?} is not an absolute path of a file"));
        }
        if length(&file.content) > FILE_BYTES_MAX {
            wrong.push(format!("{at}files {path:?} is longer than {FILE_BYTES_MAX} bytes"));
        }
    }
    if container.ports.len() > PORTS_COUNT_MAX {
        wrong.push(format!("{at}ports: more than {PORTS_COUNT_MAX}"));
    }
    let mut hosts = BTreeSet::new();
    for port in &container.ports {
        if port.container == 0 || port.host == Some(0) {
            wrong.push(format!("{at}ports: 0 is not a port"));
        }
        if let Some(host) = port.host
            && !hosts.insert((host, port.protocol))
        {
            wrong.push(format!("{at}ports: {host} is published twice"));
        }
    }
    if container.volumes.len() > VOLUMES_COUNT_MAX {
        wrong.push(format!("{at}volumes: more than {VOLUMES_COUNT_MAX}"));
    }
    for volume in &container.volumes {
        if !volume.path.starts_with('/') {
            wrong.push(format!("{at}volumes {:?} is not an absolute path", volume.path));
        }
    }
    if let Some(health) = &container.health {
        if health.interval_ms == 0 || health.timeout_ms == 0 || health.retries == 0 {
            wrong.push(format!("{at}health: interval, timeout and retries are more than zero"));
        }
        match &health.check {
            Check::Http { path, .. } if !path.starts_with('/') => {
                wrong.push(format!("{at}health.http.path {path:?} does not begin with '/'"));
            }
            Check::Exec { command } if command.is_empty() => {
                wrong.push(format!("{at}health.exec needs a command"));
            }
            _ => {}
        }
    }
    if let Some(raw) = &container.docker {
        match serde_json::from_str::<serde_json::Value>(raw) {
            Ok(serde_json::Value::Object(_)) => {}
            Ok(_) => wrong.push(format!("{at}docker is not an object")),
            Err(error) => wrong.push(format!("{at}docker: {error}")),
        }
    }
}
