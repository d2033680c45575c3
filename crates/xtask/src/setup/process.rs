//! Services setup starts itself, and the records that let it end exactly those later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::packages::as_root;
use crate::limits::{LOG_TAIL_LINES, POLL_INTERVAL};

/// A service setup may start; its name is used in messages and file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Service(String);

impl Service {
    /// The Docker daemon.
    pub(crate) fn docker() -> Self {
        Self("docker".to_owned())
    }

    /// The image registry at `host:port`. Each address has a service of its own.
    pub(crate) fn registry(addr: &str) -> Self {
        let addr: String =
            addr.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        Self(format!("registry-{addr}"))
    }

    /// The services that have a record, those that need no other first.
    pub(crate) fn recorded(run_dir: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(run_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot list {}", run_dir.display()));
            }
        };
        let mut services = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".pid")) {
                services.push(Self(name.to_owned()));
            }
        }
        // Containers may be pulling from a registry, so Docker, which comes first, ends last.
        services.sort();
        services.reverse();
        Ok(services)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Where its output goes.
    pub(crate) fn log(&self, run_dir: &Path) -> PathBuf {
        run_dir.join(format!("{}.log", self.0))
    }

    fn record(&self, run_dir: &Path) -> PathBuf {
        run_dir.join(format!("{}.pid", self.0))
    }
}

/// A process, told apart from a later one that was given the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The process id.
    pub(crate) pid: i32,
    /// Clock ticks from boot to the start of the process.
    start_ticks: u64,
    /// Which boot: ids and ticks start over with each.
    boot: String,
}

impl Identity {
    /// The process that has this id now, if it is alive.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, start_ticks: start_ticks(&stat)?, boot: boot.trim().to_owned() })
    }

    /// True while this very process is alive.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// Field 22 of `/proc/<pid>/stat`; `None` for a process that is dead and not yet reaped.
fn start_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Starts a service in a session of its own, so that it outlives this command and the
/// terminal, and records which process it is.
pub(crate) fn start(
    run_dir: &Path,
    service: &Service,
    mut launcher: Command,
    arguments: &[String],
) -> Result<Identity> {
    let log = service.log(run_dir);
    // Through a shell, because the launcher may be sudo, and it is the service's own id
    // that is wanted: `setsid` becomes the program, so `$!` is the program.
    let output = launcher
        .args(["-c", r#"log=$1; shift; setsid "$@" >"$log" 2>&1 </dev/null & echo $!"#])
        .arg(service.name())
        .arg(&log)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", service.name()))?;
    let pid: i32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .with_context(|| format!("cannot start {}: {}", service.name(), output.status))?;
    let Some(identity) = Identity::of(pid) else {
        bail!("{} ended at once\n{}", service.name(), log_tail(&log));
    };
    let record = service.record(run_dir);
    fs::write(&record, serde_json::to_string(&identity)?)
        .with_context(|| format!("cannot write {}", record.display()))?;
    Ok(identity)
}

/// How a service was found when it was to be stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// It ran, and has ended now.
    Stopped(i32),
    /// It was started by setup and has ended since.
    Gone(i32),
    /// Setup has no record of having started it.
    NeverStarted,
}

/// Ends a service if it is the one setup started, and forgets it.
pub(crate) fn stop(run_dir: &Path, service: &Service, deadline: Duration) -> Result<Running> {
    let record = service.record(run_dir);
    let text = match fs::read_to_string(&record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Running::NeverStarted),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", record.display()));
        }
    };
    let identity: Identity = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is damaged; if no {} that setup started is running, delete it",
            record.display(),
            service.name()
        )
    })?;
    let found = if identity.is_alive() {
        terminate(&identity)?;
        if !until(deadline, || !identity.is_alive()) {
            bail!(
                "{} (process {}) was asked to end and still runs after {} s; its log: {}",
                service.name(),
                identity.pid,
                deadline.as_secs(),
                service.log(run_dir).display()
            );
        }
        Running::Stopped(identity.pid)
    } else {
        Running::Gone(identity.pid)
    };
    fs::remove_file(&record).with_context(|| format!("cannot remove {}", record.display()))?;
    Ok(found)
}

fn terminate(identity: &Identity) -> Result<()> {
    match kill(Pid::from_raw(identity.pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(Errno::EPERM) => {
            let status = as_root("kill", "ending a process of root's")?
                .args(["-TERM", &identity.pid.to_string()])
                .status()?;
            if !status.success() {
                bail!("cannot end process {}: sudo kill: {status}", identity.pid);
            }
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot end process {}", identity.pid)),
    }
}

/// Waits until something holds; false when it still does not at the deadline.
pub(crate) fn until(deadline: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The last lines of a log, indented, under the file's name.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!("last lines of {}:\n    {}", log.display(), tail.join("\n    "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn start_ticks_survive_a_name_with_parentheses_and_spaces() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12";
        assert_eq!(start_ticks(stat), Some(98765));
    }

    #[test]
    fn a_dead_process_has_no_identity() {
        let stat = "42 (dockerd) Z 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12";
        assert_eq!(start_ticks(stat), None);
    }

    #[test]
    fn a_service_is_started_recorded_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::registry("127.0.0.1:5055");
        let arguments = ["sleep", "600"].map(str::to_owned);
        let identity = start(dir.path(), &service, Command::new("sh"), &arguments).unwrap();
        assert!(identity.is_alive());
        assert!(Service::recorded(dir.path()).unwrap().contains(&service));
        assert_eq!(
            stop(dir.path(), &service, Duration::from_secs(30)).unwrap(),
            Running::Stopped(identity.pid)
        );
        assert!(!identity.is_alive());
        assert_eq!(stop(dir.path(), &service, Duration::from_secs(30)).unwrap(), Running::NeverStarted);
    }

    #[test]
    fn a_process_that_took_over_the_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let mut other = Identity::of(me).unwrap();
        other.start_ticks += 1;
        fs::write(Service::docker().record(dir.path()), serde_json::to_string(&other).unwrap()).unwrap();
        assert_eq!(stop(dir.path(), &Service::docker(), Duration::from_secs(1)).unwrap(), Running::Gone(me));
    }
}
