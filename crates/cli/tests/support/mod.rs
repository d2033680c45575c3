//! A whole fleet in one child process, without Docker, and the `stele` binary beside it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod stand_in;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tempfile::TempDir;

/// Longest anything here may take. Reached only when something is broken.
const DEADLINE: Duration = Duration::from_mins(2);
/// Attempts to bring a fleet up.
const STARTS_MAX: usize = 5;

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, when it worked.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("not ended by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The `stele` binary, with a home of its own and nothing of the caller's environment.
pub(crate) fn stele(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stele"));
    command.env_clear().env("XDG_CONFIG_HOME", home).env("HOME", home).current_dir(home);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs `stele` with arguments.
pub(crate) fn run(home: &Path, args: &[&str]) -> Ran {
    stele(home).args(args).stdin(Stdio::null()).output().unwrap().into()
}

/// A fleet of one controller and three nodes.
pub(crate) struct Fleet {
    child: Child,
    home: TempDir,
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        // `stele dev` looks for free ports and takes them a moment later: one after the other.
        let turn = std::fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fleet.lock")).unwrap();
        turn.lock().unwrap();
        for _ in 0..STARTS_MAX {
            if let Some(fleet) = Self::try_start() {
                return fleet;
            }
        }
        panic!("no fleet came up in {STARTS_MAX} attempts");
    }

    /// `None` when the fleet ended instead: somebody else took a port it had found free.
    fn try_start() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let child = Self::spawn(home.path(), &["--runtime", "simulated"]);
        let mut fleet = Self { child, home, address: String::new(), token: String::new() };
        fleet.await_ready().then_some(fleet)
    }

    fn spawn(home: &Path, more: &[&str]) -> Child {
        stele(home)
            .args(["dev", "--folder", "fleet"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// Ends it by a signal, and starts it again from its folder.
    pub(crate) fn restart(&mut self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
        self.child.wait().unwrap();
        (self.address, self.token) = (String::new(), String::new());
        self.child = Self::spawn(self.home.path(), &[]);
        assert!(self.await_ready(), "it did not start again from its folder");
    }

    /// Whether it became ready; it ended otherwise.
    fn await_ready(&mut self) -> bool {
        let fleet = self;
        let stdout = BufReader::new(fleet.child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Read to the end even when nobody listens any more: the fleet goes on printing.
                drop(sender.send(line));
            }
        });
        while fleet.address.is_empty() || fleet.token.is_empty() {
            let line = match lines.recv_timeout(DEADLINE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("the fleet is not ready within {DEADLINE:?}"),
            };
            let mut words = line.split_whitespace();
            match words.next() {
                Some("controllers") => words.next().unwrap().clone_into(&mut fleet.address),
                Some("token") => words.next().unwrap().clone_into(&mut fleet.token),
                _ => {}
            }
        }
        true
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs `stele` against the fleet.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(self.home(), args)
    }

    /// Runs `stele` with something on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = stele(self.home())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            eprintln!("the fleet had ended before the test did: {status}");
            return;
        }
        // Asked to stop, it also stops its nats-server.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A digest that differs for each number; images are never pulled here.
pub(crate) fn image(number: u8) -> String {
    format!("registry.example.com/shop/web@sha256:{number:064x}")
}

/// A spec with one service.
pub(crate) fn spec(number: u8) -> String {
    format!(
        "app: shop/web\nowner: team-shop\nenvironments: [prod]\nservices:\n  web:\n    image: {}\n    env: {{GREETING: hello}}\n    replicas: 2\n",
        image(number)
    )
}
