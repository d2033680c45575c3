//! The process outside: makes the folder, starts the one inside, and looks whether anything is left.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::probe::{UNSHARE, hopeless};
use crate::{Cli, EXIT_UNABLE};

/// How the folders of runs begin; their maker's process id follows.
const PREFIX: &str = "stele-chaos-";
/// Kills its child as soon as this program is gone, even by `kill -9`.
const LEASH: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// Runs it, and leaves nothing behind.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    if let Some(why) = hopeless() {
        eprintln!("chaos cannot run here: {why}");
        return ExitCode::from(EXIT_UNABLE);
    }
    match attempt(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn attempt(cli: &Cli) -> anyhow::Result<ExitCode> {
    sweep()?;
    let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()?;
    let path = dir.path().to_owned();
    let own = std::env::current_exe().context("this program's path is unknown")?;
    let mut command = Command::new(LEASH[0]);
    command.args(&LEASH[1..]).arg("unshare").args(UNSHARE).args(crate::as_root()).arg("--").arg(own);
    command.args(std::env::args_os().skip(1)).arg("--inside").arg(&path);
    // Ctrl-C is for this process, which tells the one inside.
    command.process_group(0);
    let mut child = command.spawn().context("cannot run unshare")?;
    forward_signals(child.id())?;
    let status = child.wait()?;
    let mut left = leftovers(&path);
    if cli.keep {
        println!("Everything is kept in {}", dir.keep().display());
    } else if let Err(error) = dir.close() {
        left.push(format!("folder {}: {error}", path.display()));
    }
    for one in &left {
        eprintln!("left behind: {one}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(if code == 0 && !left.is_empty() { 1 } else { code }))
}

/// Passes on what asks this program to end.
fn forward_signals(unshare: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut asked, mut terminated, mut hung_up) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = asked.recv() => {}
                    _ = terminated.recv() => {}
                    _ = hung_up.recv() => {}
                }
                // `unshare` itself listens to nothing while it waits; its child is the one inside.
                let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
                for child in children.unwrap_or_default().split_whitespace() {
                    if let Ok(id) = child.parse() {
                        // Failing means that it has ended already.
                        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
                    }
                }
            }
        });
    });
    Ok(())
}

/// Removes folders of runs that were killed so hard that they could not: their names tell who.
/// All else that they had made the kernel has taken away already.
fn sweep() -> anyhow::Result<()> {
    let is_gone = |rest: &str| {
        let owner: String = rest.chars().take_while(char::is_ascii_digit).collect();
        !owner.is_empty() && !Path::new("/proc").join(owner).exists()
    };
    for folder in fs::read_dir(std::env::temp_dir())?.flatten() {
        if folder.file_name().to_string_lossy().strip_prefix(PREFIX).is_some_and(is_gone) {
            fs::remove_dir_all(folder.path())?;
        }
    }
    Ok(())
}

/// Anything of a run that is still there after its end.
fn leftovers(dir: &Path) -> Vec<String> {
    let below = dir.display().to_string();
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")));
    let is_process = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|id| id != std::process::id())
    };
    for process in fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_process) {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&below) {
            left.push(format!("process {}", process.file_name().to_string_lossy()));
        }
    }
    // The kernel lets go of a loop device a moment after its last mount.
    for _ in 0..LOOP_LOOKS {
        if loop_devices(&below).is_empty() {
            break;
        }
        std::thread::sleep(LOOP_LOOK);
    }
    left.extend(loop_devices(&below));
    left
}

const LOOP_LOOKS: u32 = 100;
const LOOP_LOOK: Duration = Duration::from_millis(50);

fn loop_devices(below: &str) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = devices.filter_map(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        file.contains(below).then(|| format!("loop device {} of {}", device.path().display(), file.trim()))
    });
    backing.collect()
}
