//! A Docker daemon that answers: the machine's own, or one started here.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::packages::{as_root, program};
use super::process::{self, Service, log_tail, until};
use super::report;
use crate::limits::{DOCKER_CALL_SECONDS, DOCKER_START_DEADLINE, STOP_DEADLINE};
use crate::progress::{bold, say};

/// What to do differently after `dockerd` failed to start. Machines inside machines lack
/// things: an overlay on an overlay, the kernel half of nftables, the right to make a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fallback {
    /// Remove the pid file of a daemon that is no more.
    StalePidFile,
    /// Use the older iptables, which needs no nftables in the kernel.
    LegacyIptables,
    /// Let Docker leave the firewall alone.
    NoIptables,
    /// Make no default network.
    NoBridge,
    /// Copy image layers rather than stack them.
    Vfs,
}

impl Fallback {
    fn words(self) -> &'static str {
        match self {
            Self::StalePidFile => "a pid file is left from a daemon that has ended: removing it",
            Self::LegacyIptables => "this kernel lacks nftables: trying the older iptables",
            Self::NoIptables => {
                "iptables does not work here: trying without. Containers run, but cannot reach \
                 other machines"
            }
            Self::NoBridge => {
                "no network bridge can be made here: trying without. Containers run, but only \
                 with the host's network or none"
            }
            Self::Vfs => {
                "overlay file systems do not work here: trying the vfs storage driver, which \
                 is slower and takes more disk"
            }
        }
    }
}

/// Picks what to try next from the daemon's own words; `None` when nothing fits.
fn next_fallback(log: &str, tried: &BTreeSet<Fallback>) -> Option<Fallback> {
    let log = log.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| log.contains(word));
    let fitting: &[Fallback] = if says(&["ensure docker is not running or delete", "pid file found"]) {
        &[Fallback::StalePidFile]
    } else if says(&["error initializing graphdriver", "driver not supported", "failed to mount overlay"]) {
        &[Fallback::Vfs]
    } else if says(&["iptables", "nf_tables", "nftables"]) {
        &[Fallback::LegacyIptables, Fallback::NoIptables, Fallback::NoBridge]
    } else if says(&["bridge", "error initializing network controller"]) {
        &[Fallback::NoBridge]
    } else {
        &[]
    };
    fitting.iter().find(|fallback| !tried.contains(fallback)).copied()
}

/// Runs `docker` with a time limit.
pub(crate) fn docker(arguments: &[&str]) -> Result<Output> {
    Command::new("timeout")
        .args([&DOCKER_CALL_SECONDS.to_string(), "docker"])
        .args(arguments)
        .output()
        .context("cannot run docker")
}

enum Daemon {
    /// Server version and storage driver.
    Answers(String),
    /// What the client said instead.
    Silent(String),
}

fn daemon() -> Result<Daemon> {
    // `docker version` says in plain words why nothing answers; `docker info` does not.
    let output = docker(&["version", "--format", "{{.Server.Version}}"])?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || version.is_empty() {
        return Ok(Daemon::Silent(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let output = docker(&["info", "--format", "{{.Driver}}"])?;
    let driver = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Daemon::Answers(format!("{version}, storage {driver}")))
}

/// Makes sure a daemon answers; true when it was started by this call.
pub(crate) fn ensure(run_dir: &Path) -> Result<bool> {
    match daemon()? {
        Daemon::Answers(version) => {
            report("docker", &version);
            return Ok(false);
        }
        Daemon::Silent(said) if said.to_lowercase().contains("permission denied") => bail!(
            "Docker runs, but you may not use it. Join its group, then log in again:\n    \
             sudo usermod -aG docker \"$USER\"\nDocker's own words: {said}"
        ),
        Daemon::Silent(said) if env::var_os("DOCKER_HOST").is_some() => bail!(
            "DOCKER_HOST is set and no Docker answers there; unset it or start that Docker. \
             Docker's own words: {said}"
        ),
        Daemon::Silent(_) => {}
    }
    if Path::new("/run/systemd/system").is_dir() {
        start_with_systemd()?;
    } else {
        start_by_hand(run_dir, BTreeSet::new())?;
    }
    Ok(true)
}

fn start_with_systemd() -> Result<()> {
    report("docker", "not running: systemctl start docker");
    let status = as_root("systemctl", "starting Docker")?.args(["start", "docker"]).status()?;
    if !status.success() {
        bail!("systemd could not start Docker; ask it why: sudo journalctl -u docker -n 50");
    }
    match daemon()? {
        Daemon::Answers(version) => {
            report("docker", &version);
            Ok(())
        }
        Daemon::Silent(said) => bail!(
            "Docker was started and does not answer: {said}\nIf that is about permission, join \
             its group and log in again: sudo usermod -aG docker \"$USER\""
        ),
    }
}

fn start_by_hand(run_dir: &Path, mut tried: BTreeSet<Fallback>) -> Result<()> {
    report("docker", "no daemon answers and no systemd is here: starting dockerd");
    let log = Service::docker().log(run_dir);
    loop {
        let identity = launch(run_dir, &tried)?;
        let mut version = None;
        until(DOCKER_START_DEADLINE, || {
            if let Ok(Daemon::Answers(said)) = daemon() {
                version = Some(said);
            }
            version.is_some() || !identity.is_alive()
        });
        if let Some(version) = version {
            report("docker", &format!("{version} (process {}, log {})", identity.pid, log.display()));
            return Ok(());
        }
        if identity.is_alive() {
            bail!(
                "dockerd runs but has not answered for {} s\n{}",
                DOCKER_START_DEADLINE.as_secs(),
                log_tail(&log)
            );
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        let Some(fallback) = next_fallback(&text, &tried) else {
            bail!(
                "dockerd does not start on this machine\n{}\nIn a container, Docker needs \
                 `--privileged`; elsewhere its log above says what the kernel lacks. \
                 Any Docker that `docker info` reaches will do",
                log_tail(&log)
            );
        };
        say!("setup: {}", bold(fallback.words()));
        tried.insert(fallback);
        if fallback == Fallback::StalePidFile {
            remove_stale_pid_file()?;
        }
    }
}

fn launch(run_dir: &Path, tried: &BTreeSet<Fallback>) -> Result<process::Identity> {
    let dockerd = program("dockerd").context("dockerd is not on this machine")?;
    let mut arguments = vec!["env".to_owned()];
    // dockerd looks for iptables and its own helpers on PATH, and a plain user's PATH lacks sbin.
    let mut path: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    if tried.contains(&Fallback::LegacyIptables)
        && let Some(dir) = legacy_iptables(run_dir)?
    {
        path.insert(0, dir);
    }
    let path = env::join_paths(path).context("PATH holds a folder with a colon in its name")?;
    arguments.push(format!("PATH={}", path.to_string_lossy()));
    arguments.push(dockerd.to_string_lossy().into_owned());
    if tried.contains(&Fallback::NoIptables) {
        arguments.extend(["--iptables=false", "--ip6tables=false"].map(str::to_owned));
    }
    if tried.contains(&Fallback::NoBridge) {
        arguments.push("--bridge=none".to_owned());
    }
    if tried.contains(&Fallback::Vfs) {
        arguments.push("--storage-driver=vfs".to_owned());
    }
    process::start(run_dir, &Service::docker(), as_root("sh", "starting dockerd")?, &arguments)
}

/// A folder in which `iptables` is the legacy one: the choice is dockerd's alone, and the
/// machine's own `update-alternatives` stays as it is.
fn legacy_iptables(run_dir: &Path) -> Result<Option<PathBuf>> {
    let dir = run_dir.join("legacy-iptables");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for name in ["iptables", "ip6tables"] {
        let Some(legacy) = program(&format!("{name}-legacy")) else {
            return Ok(None);
        };
        let link = dir.join(name);
        if !link.exists() {
            symlink(&legacy, &link).with_context(|| format!("cannot create {}", link.display()))?;
        }
    }
    Ok(Some(dir))
}

fn remove_stale_pid_file() -> Result<()> {
    const PID_FILE: &str = "/var/run/docker.pid";
    let pid = fs::read_to_string(PID_FILE).unwrap_or_default();
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
    if name.trim() == "dockerd" {
        bail!("a dockerd runs already (process {}) and does not answer; end it or wait for it", pid.trim());
    }
    let status = as_root("rm", "removing a stale pid file")?.args(["-f", PID_FILE]).status()?;
    if !status.success() {
        bail!("cannot remove {PID_FILE}");
    }
    Ok(())
}

/// Runs one container, because a daemon that answers may still be unable to start any.
pub(crate) fn prove_a_container_runs(run_dir: &Path, image: &str) -> Result<()> {
    let run = || docker(&["run", "--rm", image, "/bin/true"]);
    let mut output = run()?;
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let mounting = ["overlay", "failed to mount", "graphdriver", "invalid argument"]
        .iter()
        .any(|word| said.contains(word));
    // Only a daemon started here may be started anew with another storage driver.
    if !output.status.success()
        && mounting
        && matches!(process::stop(run_dir, &Service::docker(), STOP_DEADLINE)?, process::Running::Stopped(_))
    {
        say!("setup: {}", bold(Fallback::Vfs.words()));
        start_by_hand(run_dir, BTreeSet::from([Fallback::Vfs]))?;
        output = run()?;
    }
    if !output.status.success() {
        bail!(
            "Docker answers, but cannot run a container: {}\nTry it by hand:\n    \
             docker run --rm {image} /bin/true",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    report("containers", "one was run and ended well");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = "failed to start daemon: Error initializing network controller: error \
        obtaining controller instance: failed to create NAT chain DOCKER: iptables failed: \
        iptables -t nat -N DOCKER: iptables v1.8.9 (nf_tables): Could not fetch rule set \
        generation id: Invalid argument";
    const OVERLAY: &str = "failed to start daemon: error initializing graphdriver: driver not supported";

    #[test]
    fn iptables_is_first_replaced_and_then_left_out() {
        let mut tried = BTreeSet::new();
        for expected in [Fallback::LegacyIptables, Fallback::NoIptables, Fallback::NoBridge] {
            assert_eq!(next_fallback(NFT, &tried), Some(expected));
            tried.insert(expected);
        }
        assert_eq!(next_fallback(NFT, &tried), None);
    }

    #[test]
    fn a_missing_overlay_leads_to_vfs_once() {
        assert_eq!(next_fallback(OVERLAY, &BTreeSet::new()), Some(Fallback::Vfs));
        assert_eq!(next_fallback(OVERLAY, &BTreeSet::from([Fallback::Vfs])), None);
    }

    #[test]
    fn unknown_trouble_is_shown_rather_than_guessed_at() {
        let log = "failed to start daemon: Devices cgroup isn't mounted";
        assert_eq!(next_fallback(log, &BTreeSet::new()), None);
    }
}
