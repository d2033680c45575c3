//! The Debian packages needed to build Stele and to run its tests.

use std::collections::BTreeSet;
use std::env;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::progress::say;
use anyhow::{Context, Result, bail};

/// One Debian package, and why it is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// The name apt knows it by.
    pub(crate) name: &'static str,
    why: &'static str,
    /// A program that shows it is there, however it was installed: Docker's own packages
    /// serve as well as Debian's, and other systems have no dpkg at all.
    program: Option<&'static str>,
}

const fn package(name: &'static str, program: Option<&'static str>, why: &'static str) -> Package {
    Package { name, why, program }
}

const NEEDED: &[Package] = &[
    package("ccache", Some("ccache"), "compile RocksDB once, not once per profile"),
    package("g++", Some("g++"), "compile RocksDB"),
    package("protobuf-compiler", Some("protoc"), "generate Raft's message types"),
    package("libprotobuf-dev", None, "the .proto files protoc itself brings"),
    package("libclang-dev", None, "bindgen reads RocksDB's C header with it"),
    package("pkg-config", Some("pkg-config"), "find C libraries"),
    package("docker.io", Some("dockerd"), "run containers"),
    package("docker-registry", Some("docker-registry"), "serve test images on 127.0.0.1"),
    package("nats-server", Some("nats-server"), "tests and the demo start their own"),
    package("busybox-static", None, "what test images are made of"),
    package("iptables", Some("iptables"), "Docker's networks"),
    package("iproute2", Some("ip"), "network namespaces in fault tests"),
    package("libfaketime", None, "a controller with a wrong clock in fault tests"),
    package("e2fsprogs", Some("mkfs.ext4"), "small disks in fault tests"),
    package("curl", Some("curl"), "follow the examples in the docs"),
    package("python3", Some("python3"), "a stranger's decoder checks the log's format"),
];

const NEEDED_FOR_BENCH: &[Package] =
    &[package("etcd-server", Some("etcd"), "the peer that benchmarks run beside Stele")];

/// The shell script that installs the packages given as its arguments.
///
/// Debian starts the services it installs. Where no systemd runs, as in a container, that
/// can fail the whole installation, so a policy that starts nothing is put in place for as
/// long as it takes, unless the machine has a policy of its own.
const INSTALL_SCRIPT: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -d /run/systemd/system ] && [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update || echo "going on with the package lists already here" >&2
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
"#;

/// The packages that are not there.
pub(crate) fn missing(bench: bool) -> Result<Vec<Package>> {
    let mut wanted = NEEDED.to_vec();
    if bench {
        wanted.extend_from_slice(NEEDED_FOR_BENCH);
    }
    let Some(installed) = installed(&wanted)? else {
        // Not a Debian: go by the programs, and trust the libraries to be noticed by the
        // compiler's own messages.
        return Ok(wanted
            .into_iter()
            .filter(|package| package.program.is_some_and(|name| program(name).is_none()))
            .collect());
    };
    Ok(wanted
        .into_iter()
        .filter(|package| !installed.contains(package.name))
        .filter(|package| package.program.is_none_or(|name| program(name).is_none()))
        .collect())
}

/// Which of the wanted packages dpkg has installed; `None` where there is no dpkg.
fn installed(wanted: &[Package]) -> Result<Option<BTreeSet<String>>> {
    let Some(dpkg_query) = program("dpkg-query") else {
        return Ok(None);
    };
    // It exits with 1 when it has never heard of one of them, and still lists the others.
    let output = Command::new(dpkg_query)
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted.iter().map(|package| package.name))
        .output()
        .context("cannot run dpkg-query")?;
    Ok(Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_suffix(" installed"))
            .map(str::to_owned)
            .collect(),
    ))
}

/// Says what is missing, why it is needed, and how to install it by hand.
pub(crate) fn describe(missing: &[Package]) {
    if missing.is_empty() {
        return;
    }
    say!("\nPackages:");
    for package in missing {
        say!("    {:<18} {}", package.name, package.why);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let sudo = if nix::unistd::geteuid().is_root() || program("sudo").is_none() { "" } else { "sudo " };
    say!(
        "\n    {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {}",
        names.join(" ")
    );
}

/// Installs packages with apt, as root or through sudo.
pub(crate) fn install(missing: &[Package]) -> Result<()> {
    if program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get. Install what the list above names with its own \
             package manager (the names are Debian's), then run `cargo xtask setup` again"
        );
    }
    let mut command = as_root("sh", "installing packages")?;
    let status = command
        .args(["-ec", INSTALL_SCRIPT, "setup"])
        .args(missing.iter().map(|package| package.name))
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!(
            "apt-get failed ({status}); its own message is above. When a package cannot be \
             found, the machine's package sources lack Debian's `main` section (or Ubuntu's `universe`)"
        );
    }
    if Path::new("/run/systemd/system").is_dir() {
        say!(
            "Debian may have started nats-server, docker-registry or etcd as services. Stele \
             uses none of these; to end them:\n    \
             sudo systemctl disable --now nats-server docker-registry etcd"
        );
    }
    Ok(())
}

/// A command with root's rights, to do what `purpose` says. sudo asks for a password only
/// where somebody could type it.
pub(crate) fn as_root(name: &str, purpose: &str) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        return Ok(Command::new(name));
    }
    let Some(sudo) = program("sudo") else {
        bail!(
            "{purpose} takes root's rights; you are not root, and there is no sudo here. Do it \
             as root (or let somebody who may), then run `cargo xtask setup` again"
        );
    };
    let mut command = Command::new(sudo);
    if !std::io::stdin().is_terminal() {
        command.arg("--non-interactive");
    }
    command.arg("--").arg(name);
    Ok(command)
}

/// Finds a program on PATH or where Debian puts what only root usually runs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}
