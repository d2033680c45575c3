//! Machines that are network namespaces on one bridge, and the ways between them.
//!
//! All of it is in the network namespace of this program, so it is gone when the program is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::limits::FILTER_WAIT_SECONDS;

/// Of the packets a namespace receives, which it does not hear.
const DEAF: &str = "STELE-DEAF";
/// Of the connections a namespace opens, which go through its relay.
const SLOW: &str = "STELE-SLOW";
/// What a relay's own packets carry, so that they are not sent back to it.
pub(crate) const RELAY_MARK: u32 = 7;
/// Where each namespace's relay listens.
pub(crate) const RELAY_PORT: u16 = 15_000;
const PREFIX: u8 = 16;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// Runs a command that must succeed.
pub(crate) fn run(line: &str) -> anyhow::Result<()> {
    let mut words = line.split(' ');
    let program = words.next().context("there is a program")?;
    let output = Command::new(program).args(words).output().with_context(|| format!("cannot run {line}"))?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Changes a machine's packet filter.
fn filter(on: &str, rule: &str) -> anyhow::Result<()> {
    run(&format!("{} iptables -w {FILTER_WAIT_SECONDS} {rule}", Net::on(on).join(" ")))
}

/// The machines, by name.
#[derive(Debug)]
pub(crate) struct Net {
    machines: BTreeMap<String, Ipv4Addr>,
}

impl Net {
    /// Makes a namespace for each machine.
    pub(crate) fn build(machines: BTreeMap<String, Ipv4Addr>) -> anyhow::Result<Self> {
        // Names of namespaces are mounts below /run; these are seen by nobody else.
        run("mount -t tmpfs stele-chaos /run")?;
        run("ip link set lo up")?;
        run("ip link add hub type bridge")?;
        run(&format!("ip address add {OUTSIDE}/{PREFIX} dev hub"))?;
        run("ip link set hub up")?;
        for (index, (name, address)) in machines.iter().enumerate() {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip link add way{index} type veth peer name eth0 netns {name}"))?;
            run(&format!("ip link set way{index} master hub"))?;
            run(&format!("ip link set way{index} up"))?;
            run(&format!("ip -n {name} address add {address}/{PREFIX} dev eth0"))?;
            run(&format!("ip -n {name} link set eth0 up"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        let net = Self { machines };
        for name in net.machines.keys() {
            filter(name, &format!("-N {DEAF}"))?;
            filter(name, &format!("-A INPUT -j {DEAF}"))?;
        }
        Ok(net)
    }

    /// Takes everything away again that [`Self::build`] made.
    pub(crate) fn tear_down(self) -> anyhow::Result<()> {
        for (index, name) in self.machines.keys().enumerate() {
            // The kernel takes what is in a namespace away in its own time, and the name is wanted again.
            run(&format!("ip link del way{index}"))?;
            run(&format!("ip netns del {name}"))?;
        }
        run("ip link del hub")?;
        run("umount -l /run")
    }

    pub(crate) fn address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        self.machines.get(name).copied().with_context(|| format!("there is no machine {name}"))
    }

    /// The file that is a machine's namespace.
    pub(crate) fn file(name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(name)
    }

    /// What starts the rest of its line on a machine.
    pub(crate) fn on(name: &str) -> [String; 3] {
        ["nsenter".to_owned(), format!("--net={}", Self::file(name).display()), "--".to_owned()]
    }

    /// From now on nothing that `from` sends arrives at `to`.
    pub(crate) fn cut(&self, from: &str, to: &str) -> anyhow::Result<()> {
        filter(to, &format!("-A {DEAF} -s {} -j DROP", self.address(from)?))
    }

    /// From now on nothing goes between these in either direction.
    pub(crate) fn part(&self, one: &str, other: &str) -> anyhow::Result<()> {
        self.cut(one, other)?;
        self.cut(other, one)
    }

    /// Everything arrives again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        self.machines.keys().try_for_each(|name| filter(name, &format!("-F {DEAF}")))
    }

    /// Connections that any machine opens to another go through its own relay, or no longer.
    /// Those that are open are cut, so that they are opened again.
    pub(crate) fn slow(&self, is_slow: bool) -> anyhow::Result<()> {
        for name in self.machines.keys() {
            if is_slow {
                filter(name, &format!("-t nat -N {SLOW}"))?;
                filter(name, &format!("-t nat -A {SLOW} -m mark --mark {RELAY_MARK} -j RETURN"))?;
                for to in self.machines.values().filter(|to| self.machines.get(name) != Some(*to)) {
                    let rule = format!("-t nat -A {SLOW} -p tcp -d {to} -j REDIRECT --to-ports {RELAY_PORT}");
                    filter(name, &rule)?;
                }
                filter(name, &format!("-t nat -A OUTPUT -p tcp -j {SLOW}"))?;
            } else {
                filter(name, &format!("-t nat -D OUTPUT -p tcp -j {SLOW}"))?;
                filter(name, &format!("-t nat -F {SLOW}"))?;
                filter(name, &format!("-t nat -X {SLOW}"))?;
            }
        }
        Ok(())
    }

    /// Sends a reset to whatever machines say to one another, until [`Self::heal`].
    pub(crate) fn reset_connections(&self) -> anyhow::Result<()> {
        for to in self.machines.keys() {
            for from in self.machines.values() {
                let rule = format!("-A {DEAF} -p tcp -s {from} -j REJECT --reject-with tcp-reset");
                filter(to, &rule)?;
            }
        }
        Ok(())
    }
}
