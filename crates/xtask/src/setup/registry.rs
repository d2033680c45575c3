//! An image registry on the loopback interface.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::program;
use super::process::{self, Service, log_tail, until};
use super::{http, report};
use crate::limits::REGISTRY_START_DEADLINE;

/// Where the registry listens. Docker speaks plain HTTP to loopback addresses without being
/// told to, and the port is away from the 5000 that other registries take.
const DEFAULT_ADDR: &str = "127.0.0.1:5055";
/// Names another address, or another registry that is already there.
pub(crate) const ADDR_VARIABLE: &str = "STELE_TEST_REGISTRY";

/// The registry's `host:port`.
pub(crate) fn address() -> String {
    env::var(ADDR_VARIABLE).ok().filter(|addr| !addr.is_empty()).unwrap_or_else(|| DEFAULT_ADDR.to_owned())
}

/// Makes sure a registry answers at the address.
pub(crate) fn ensure(addr: &str, target_dir: &Path, run_dir: &Path) -> Result<()> {
    match http::request("GET", addr, "/v2/", "*/*") {
        Ok(answer) if answer.header("Docker-Distribution-Api-Version").is_some() => {
            report("registry", addr);
            return Ok(());
        }
        Ok(answer) => bail!(
            "something answers at {addr} with HTTP status {}, and it is no image registry. \
             Choose another port:\n    {ADDR_VARIABLE}=127.0.0.1:5056 cargo xtask setup",
            answer.status
        ),
        Err(_) => {}
    }
    let service = Service::registry(addr);
    let data = target_dir.join("registry");
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let config = run_dir.join(format!("{}.json", service.name()));
    fs::write(&config, configuration(addr, &data)?)
        .with_context(|| format!("cannot write {}", config.display()))?;
    let binary = program("docker-registry").context("docker-registry is not on this machine")?;
    let arguments =
        [binary.to_string_lossy().into_owned(), "serve".to_owned(), config.to_string_lossy().into_owned()];
    let identity = process::start(run_dir, &service, Command::new("sh"), &arguments)?;
    let mut answers = false;
    until(REGISTRY_START_DEADLINE, || {
        answers = http::request("GET", addr, "/v2/", "*/*").is_ok_and(|answer| answer.status == 200);
        answers || !identity.is_alive()
    });
    let log = service.log(run_dir);
    if !answers {
        bail!("the registry does not answer at {addr}\n{}", log_tail(&log));
    }
    report("registry", &format!("{addr} (started: process {}, log {})", identity.pid, log.display()));
    Ok(())
}

/// The registry reads YAML, of which JSON is a part, so no path needs quoting by hand.
fn configuration(addr: &str, data: &Path) -> Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({
        "version": 0.1,
        "log": { "level": "warn", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": data },
            "delete": { "enabled": true },
        },
        "http": { "addr": addr },
    }))?)
}
