//! Running clients, and what came of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Row;

/// What is left out at the beginning: connections are made and caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) writes_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Lets clients write for a time, each as fast as it is answered.
pub(crate) fn measure(
    clients: usize,
    time: Duration,
    write: impl Fn(u64) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Sample> {
    let (numbers, stop) = (AtomicU64::new(nonce()), AtomicBool::new(false));
    let begins = Instant::now() + WARM_UP;
    let ends = begins + time;
    let mut times = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut times = Vec::new();
                    while Instant::now() < ends && !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        if let Err(error) = write(numbers.fetch_add(1, Ordering::Relaxed)) {
                            stop.store(true, Ordering::Relaxed);
                            return Err(error);
                        }
                        if asked >= begins {
                            times.push(asked.elapsed());
                        }
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(times) => all.extend(times?),
                Err(_) => anyhow::bail!("a client panicked"),
            }
        }
        Ok(all)
    })?;
    anyhow::ensure!(!times.is_empty(), "nothing was written");
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Sample { writes_per_second: times.len() as f64 / time.as_secs_f64(), p50: at(0.5), p99: at(0.99) })
}

/// Rounds must not write what an earlier one wrote: that would be no change.
fn nonce() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// The round in the middle by throughput.
pub(crate) fn median(mut samples: Vec<Sample>) -> Sample {
    samples.sort_by(|left, right| left.writes_per_second.total_cmp(&right.writes_per_second));
    samples[samples.len() / 2]
}

/// What the numbers depend on.
pub(crate) fn conditions(versions: &[&str]) -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    let processors = std::thread::available_parallelism()?;
    let kernel = read("/proc/sys/kernel/osrelease");
    Ok(format!("{processors} x {model}, Linux {}, beside {}", kernel.trim(), versions.join(", ")))
}

pub(crate) fn print(rows: &[Row]) {
    println!(
        "clients |     Stele writes/s    p50 ms    p99 ms |      etcd writes/s    p50 ms    p99 ms | ratio"
    );
    for (clients, ours, theirs) in rows {
        let side = |sample: &Sample| {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            format!("{:>18.0} {:>9.2} {:>9.2}", sample.writes_per_second, ms(sample.p50), ms(sample.p99))
        };
        let ratio = ours.writes_per_second / theirs.writes_per_second;
        println!("{clients:>7} | {} | {} | {ratio:>5.2}", side(ours), side(theirs));
    }
}
