//! Child processes that never outlive whoever started them.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits::{LOG_LINES_SHOWN, STOP_DEADLINE};
use crate::waiting::eventually;

/// Starts its argument, which is killed by the kernel as soon as its parent is gone, even by
/// `kill -9`. Part of util-linux, so of every Debian.
const LEASH: &str = "/usr/bin/setpriv";

/// A running program with its log; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

type Work = Box<dyn FnOnce() + Send>;

/// Runs something on a thread that lives as long as this program. The kernel kills a leashed
/// child when the thread that started it ends, not the program.
pub fn on_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    static QUEUE: OnceLock<Mutex<mpsc::Sender<Work>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (send, receive) = mpsc::channel::<Work>();
        std::thread::spawn(move || receive.into_iter().for_each(|work| work()));
        Mutex::new(send)
    });
    let (answer, answered) = mpsc::sync_channel(1);
    let work: Work = Box::new(move || drop(answer.send(work())));
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(work)
        .ok()
        .context("the thread that starts programs has ended")?;
    answered.recv().context("the thread that starts programs has ended")
}

/// The command that runs a program on a leash, where the machine has one.
pub(crate) fn leashed(program: &Path) -> Command {
    if Path::new(LEASH).exists() {
        let mut command = Command::new(LEASH);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Process {
    /// Starts a program; what it prints is added to the log.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = leashed(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C is for the program that started it, which then ends this one in order.
            .process_group(0);
        let child = on_lasting_thread(move || command.spawn())?
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal process {id}"))
    }

    /// Stops it where it is, as `kill -STOP` does.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if self.ended().is_none() {
            self.child.kill()?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        eventually(STOP_DEADLINE, "a program ends that was asked to", || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log, for whoever looks into a failure.
pub fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
