//! Which start of the agent this is: what a node said after an earlier start never counts again.

use stele_model::Time;
use stele_model::limits::UNORDERED_BOOT_MIN;

use crate::data_dir::DataDir;

/// The boot of the last start.
const BOOT: &str = "boot.json";

/// The boot of a start: higher than that of every start before it.
///
/// The clock is looked at for where the count was lost, or was restored with a copy of an older disk; and the count for
/// where the clock was set back. An agent starts also where nothing can be written, and then has the clock alone; a
/// controller that knows of a later boot says so.
pub(crate) fn next(data: &DataDir, now: Option<Time>) -> u64 {
    let last: u64 = data.read_json(BOOT).ok().flatten().unwrap_or_default();
    let boot = last.saturating_add(1).max(now.map_or(0, |now| now.0)).min(UNORDERED_BOOT_MIN - 1);
    keep(data, boot);
    boot
}

/// Counts on from a boot at the next start.
pub(crate) fn keep(data: &DataDir, boot: u64) {
    if let Err(error) = data.write_json(BOOT, &boot) {
        tracing::warn!(%error, "which start this is could not be kept");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn boots_grow_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        assert_eq!(next(&data, None), 1);
        assert_eq!(next(&data, Some(Time(1_000))), 1_000);
        assert_eq!(next(&data, Some(Time(500))), 1_001, "the clock was set back");
        assert_eq!(next(&data, None), 1_002);
        data.write(BOOT, b"garbage").unwrap();
        assert_eq!(next(&data, Some(Time(2_000))), 2_000);
        assert_eq!(next(&data, Some(Time(u64::MAX))), UNORDERED_BOOT_MIN - 1);
    }

    #[test]
    fn a_disk_that_takes_nothing_keeps_no_agent_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        std::fs::create_dir(folder.path().join("boot.json.new")).unwrap();
        assert_eq!(next(&data, Some(Time(1_000))), 1_000);
        assert_eq!(next(&data, Some(Time(2_000))), 2_000);
    }
}
