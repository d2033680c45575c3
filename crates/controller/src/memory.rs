//! How much memory a controller takes for what it could also read from its disk.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::limits::{PAST_MEMORY_BYTES, PAST_MEMORY_MIB, PAST_MEMORY_SHARE};

const MIB: u64 = 1024 * 1024;

/// Bytes for past States: as configured, or a share of what this process may use.
pub(crate) fn for_the_past(configured_mib: Option<u64>) -> anyhow::Result<usize> {
    share(configured_mib, usable())
}

fn share(configured_mib: Option<u64>, usable: Option<u64>) -> anyhow::Result<usize> {
    let bytes = match configured_mib {
        Some(mib) => {
            ensure!(
                PAST_MEMORY_MIB.contains(&mib),
                "past_memory_mib is {mib}; it is {} to {}",
                PAST_MEMORY_MIB.start(),
                PAST_MEMORY_MIB.end()
            );
            mib * MIB
        }
        None => usable.map_or(PAST_MEMORY_BYTES, |bytes| (bytes / PAST_MEMORY_SHARE).min(PAST_MEMORY_BYTES)),
    };
    Ok(usize::try_from(bytes)?)
}

/// What this process may use: the machine's memory, or what its control group has of it, in bytes. Nothing where the
/// system does not say (`proc_meminfo(5)`; `memory.max` of control groups in version 2, `cgroups(7)`).
fn usable() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.as_deref().and_then(total);
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups(&group).into_iter().filter_map(|folder| {
        let limit =
            std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(folder).join("memory.max")).ok()?;
        // One without a limit says "max".
        limit.trim().parse().ok()
    });
    limits.chain(machine).min()
}

/// The machine's memory, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The folders of a control group and of those it is in, all of which limit it.
fn groups(of_process: &str) -> Vec<PathBuf> {
    let Some(path) = of_process.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    Path::new(path).ancestors().map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_what_is_configured_or_a_share_of_what_there_is() {
        assert_eq!(share(Some(64), Some(MIB)).unwrap(), 64 << 20);
        assert_eq!(share(None, Some(2048 * MIB)).unwrap(), 256 << 20);
        assert_eq!(share(None, Some(1 << 40)).unwrap() as u64, PAST_MEMORY_BYTES);
        assert_eq!(share(None, None).unwrap() as u64, PAST_MEMORY_BYTES);
        let refused = share(Some(1), None).unwrap_err().to_string();
        assert!(refused.contains("past_memory_mib is 1; it is 16 to"), "{refused}");
    }

    #[test]
    fn what_the_system_says_is_understood() {
        assert_eq!(total("MemTotal:       24601424 kB\nMemFree: 1 kB\n"), Some(24_601_424 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let folders = groups("1:name=systemd:/x\n0::/system.slice/stele.service\n");
        assert_eq!(folders, ["system.slice/stele.service", "system.slice", ""].map(PathBuf::from));
        assert_eq!(groups("0::/\n"), [PathBuf::new()]);
        assert!(groups("4:memory:/docker/1\n").is_empty());
        let here = usable().unwrap();
        assert!(here <= total(&std::fs::read_to_string("/proc/meminfo").unwrap()).unwrap());
    }
}
