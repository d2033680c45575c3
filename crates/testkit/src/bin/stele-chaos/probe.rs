//! What this machine's kernel and programs can do, and what is therefore left out.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::net::{Net, run};
use crate::volume;

/// What is there.
#[derive(Clone, Debug)]
pub(crate) struct Able {
    pub(crate) loops: bool,
    pub(crate) fuse: bool,
    pub(crate) redirects: bool,
    pub(crate) faketime: bool,
    /// What is missing, with what is done instead.
    pub(crate) lacking: Vec<String>,
}

/// Programs without which there is nothing to run, and the Debian package of each.
const NEEDED: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nats-server", "nats-server"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Why nothing at all can be run here; `None` when it can.
pub(crate) fn hopeless() -> Option<String> {
    for (program, package) in NEEDED {
        // Every one of them answers this with success.
        let answer = Command::new(program).arg("--version").output();
        let answer = answer.or_else(|_| Command::new(program).arg("-V").output());
        if let Err(error) = answer {
            return Some(format!("{program} cannot be run ({error}): apt-get install {package}"));
        }
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(crate::as_root()).arg("true");
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "this kernel gives no namespaces to this user ({}): run it as root",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("unshare cannot be run: {error}")),
    }
}

/// Namespaces of the run's own: all that is made in them is gone when its first process is.
pub(crate) const UNSHARE: [&str; 6] =
    ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// Tries what is not certain. To be asked inside the run's own namespaces, in a folder of its own.
///
/// # Errors
/// Machines cannot be made at all.
pub(crate) fn look(dir: &Path) -> anyhow::Result<Able> {
    let mut lacking = Vec::new();
    let place = dir.join("probe");
    let mut dice = crate::dice::Dice::new(0);
    let mut mounts = |kind| -> anyhow::Result<()> {
        fs::create_dir_all(&place)?;
        let volume = volume::Volume::make(kind, &place, PROBE_BYTES, &mut dice)?;
        fs::write(place.join("file"), "text")?;
        anyhow::ensure!(fs::read(place.join("file"))? == b"text", "what was written is not read");
        fs::remove_file(place.join("file"))?;
        drop(volume);
        if kind != volume::Kind::Fuse {
            run(&format!("umount {}", place.display()))?;
        }
        Ok(())
    };
    let loops = mounts(volume::Kind::Loop);
    if let Err(error) = &loops {
        lacking.push(format!("no loop devices ({error:#}): small disks are tmpfs instead"));
    }
    let fuse = mounts(volume::Kind::Fuse);
    if let Err(error) = &fuse {
        lacking.push(format!("no FUSE ({error:#}): no disk forgets, fails or flips bits"));
    }
    let net = Net::build(BTreeMap::from([
        ("probe1".to_owned(), Ipv4Addr::new(10, 77, 9, 1)),
        ("probe2".to_owned(), Ipv4Addr::new(10, 77, 9, 2)),
    ]))?;
    net.part("probe1", "probe2")?;
    net.heal()?;
    let redirects = net.slow(true).and_then(|()| net.slow(false));
    net.tear_down()?;
    if let Err(error) = &redirects {
        lacking.push(format!("iptables cannot redirect by mark ({error:#}): no delays"));
    }
    let faketime = stele_testkit::with_clock_off(0).is_some();
    if !faketime {
        lacking.push("no libfaketime (apt-get install libfaketime): no clock is set off".to_owned());
    }
    Ok(Able { loops: loops.is_ok(), fuse: fuse.is_ok(), redirects: redirects.is_ok(), faketime, lacking })
}

const PROBE_BYTES: u64 = 16 * 1024 * 1024;
