//! Replaying a long log: how fast, beside how fast its bytes can be read at all.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use stele_codec::StoredRecord;
use stele_model::{State, fold};
use stele_store::open_read_only;
use stele_testkit::Programs;

use crate::log::{Prepared, Size};
use crate::measure::conditions;

/// Bytes of records read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Measures, and prints a line for each way to go through the log.
pub(crate) fn replay(size: &Size, rounds: usize) -> anyhow::Result<()> {
    let prepared = Prepared::new(size)?;
    println!("{}\n", conditions(&["RocksDB's own iterator"])?);
    let data = prepared.data()?;
    let log = data.join("log");
    println!("{:<58} {:>12} {:>7}", "", "events/s", "of it");
    let raw = fastest(rounds, || raw(&log, prepared.last))?;
    print("RocksDB's iterator, nothing done with the bytes", raw, raw);
    let folded = fastest(rounds, || folded(&log, prepared.last))?;
    print("read, decoded, folded: one thread, no chain, no digests", folded, raw);
    let replayed = fastest(rounds, || replayed(&data, prepared.last))?;
    print("stele replay: every hash, the chain, every State digest", replayed, raw);
    Ok(())
}

fn print(what: &str, rate: f64, limit: f64) {
    println!("{what:<58} {rate:>12.0} {:>6.1}%", 100.0 * rate / limit);
}

/// The best of some rounds: whatever else the machine does only slows it.
fn fastest(rounds: usize, mut run: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..rounds {
        best = best.max(run()?);
    }
    Ok(best)
}

fn raw(log: &Path, last: u64) -> anyhow::Result<f64> {
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), log)?;
    let db = rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), log, families, false)?;
    let records = db.cf_handle("records").context("the store has records")?;
    let began = Instant::now();
    let (mut seen, mut bytes) = (0, 0);
    for pair in db.iterator_cf(records, rocksdb::IteratorMode::Start) {
        bytes += pair?.1.len();
        seen += 1;
    }
    anyhow::ensure!(seen == last && bytes > 0, "{seen} of {last} records");
    Ok(seen as f64 / began.elapsed().as_secs_f64())
}

fn folded(log: &Path, last: u64) -> anyhow::Result<f64> {
    let (_, reader) = open_read_only(log)?;
    let began = Instant::now();
    let mut state = State::default();
    while state.seq < last {
        for (_, bytes) in reader.records(state.seq + 1..=last, READ_BYTES)? {
            fold(&mut state, &StoredRecord::from_bytes(&bytes)?.0.decode()?);
        }
    }
    Ok(last as f64 / began.elapsed().as_secs_f64())
}

fn replayed(data: &Path, last: u64) -> anyhow::Result<f64> {
    let output = Command::new(Programs::find()?.stele())
        .args(["replay", "--output", "json", "--data"])
        .arg(data)
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("it prints JSON")?;
    anyhow::ensure!(report["records"] == last, "{report}");
    report["events_per_second"].as_f64().context("it says how fast it was")
}
