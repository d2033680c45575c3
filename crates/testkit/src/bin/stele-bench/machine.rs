//! What numbers depend on: the machine, its disk, and the versions of what ran.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::first_line;

/// Length of a tick in which the kernel counts processor time: `USER_HZ` is 100 on Linux everywhere.
pub(crate) const TICK_MS: u64 = 10;
/// Synced writes measured.
const SYNCS: usize = 300;
/// Bytes of each.
const SYNC_BYTES: usize = 512;
/// What the file is made as long as beforehand.
const FILE_BYTES: u64 = 1024 * 1024;

/// Stands beside every number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Median of `fdatasync` after a small write that makes the file longer, in milliseconds.
    pub(crate) fsync_appending_ms: f64,
    /// The same within a file that is as long already.
    pub(crate) fsync_within_ms: f64,
    /// Load of the machine when the benchmark began: what else it was doing.
    pub(crate) load_before: String,
    pub(crate) commit: String,
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kibibytes: u64 = memory.split(' ').next().unwrap_or_default().parse().unwrap_or_default();
        let folder = tempfile::Builder::new().prefix("stele-bench-sync-").tempdir()?;
        Ok(Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism()?.get(),
            memory_mib: kibibytes / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            fsync_appending_ms: milliseconds(sync(folder.path(), 0)?),
            fsync_within_ms: milliseconds(sync(folder.path(), FILE_BYTES)?),
            load_before: read("/proc/loadavg").split(' ').take(2).collect::<Vec<_>>().join(" "),
            commit: first_line("git", &["rev-parse", "--short", "HEAD"])
                .unwrap_or_else(|_| "unknown".to_owned()),
            date: first_line("date", &["--utc", "+%Y-%m-%d"])?,
        })
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} x {}, {} GiB, Linux {}; fdatasync {:.2} ms when a file grows, {:.2} ms within it; load before {}; \
             commit {}, {}",
            self.processors,
            self.processor,
            self.memory_mib.div_ceil(1024),
            self.kernel,
            self.fsync_appending_ms,
            self.fsync_within_ms,
            self.load_before,
            self.commit,
            self.date
        )
    }
}

/// The median time of a small synced write into a file of a length.
fn sync(folder: &Path, length: u64) -> anyhow::Result<Duration> {
    let path = folder.join(length.to_string());
    if length > 0 {
        // Written, not only promised: blocks never written cost another sync of the file system.
        std::fs::write(&path, vec![0; usize::try_from(length)?])?;
    }
    let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[7; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// For tables.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
