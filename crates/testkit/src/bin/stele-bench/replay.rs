//! Replaying a long log: how fast, beside how fast its bytes can be read at all.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use stele_codec::RecordBytes;
use stele_model::{Record, State, fold};
use stele_store::open_read_only;
use stele_testkit::Programs;

use crate::log::{Prepared, Size};
use crate::report::{Goal, Report, Row, Side};

/// Measures, and prints a line for each way to go through the log.
pub(crate) fn replay(size: &Size, rounds: usize) -> anyhow::Result<Report> {
    let about = format!("A log of {} events, gone through from its first record on.", size.events);
    let mut report = Report::begin("replay", &about, crate::past::SIMULATED)?;
    let prepared = Prepared::new(size, &mut report)?;
    let data = prepared.data()?;
    let log = data.join("log");
    let (mut raws, mut decodes, mut folds, mut replays) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        raws.push(raw(&log, prepared.last)?);
        decodes.push(decoded(&log, prepared.last, |record| drop(std::hint::black_box(record)))?);
        folds.push(folded(&log, prepared.last)?);
        replays.push(replayed(&data, prepared.last)?);
    }
    let limit = Side::new("RocksDB's iterator, nothing done with the bytes", &raws, None);
    let row = |work, rates: &[f64]| {
        Row::new(work, "events/s", vec![Side::new("Stele", rates, None), limit.clone()])
    };
    report.rows.push(row("decoded, not folded, no hash checked", &decodes));
    let folded = row("decoded and folded, no hash checked", &folds);
    let share = folded.ratio.unwrap_or_default();
    report.rows.push(folded.goal(Goal::at_least("of the raw scan", share, 0.6)));
    let replayed = row("stele replay: every hash, the chain, every State digest", &replays);
    let rate = replayed.sides[0].median;
    report.rows.push(replayed.goal(Goal::at_least("events/s", rate, 1e6)));
    Ok(report)
}

fn raw(log: &Path, last: u64) -> anyhow::Result<f64> {
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), log)?;
    let mut options = rocksdb::Options::default();
    // As the store was written: opened without, RocksDB wants to forget what it tracked, and cannot.
    options.set_track_and_verify_wals_in_manifest(true);
    let db = rocksdb::DB::open_cf_for_read_only(&options, log, families, false)?;
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

/// Reads and decodes each record.
fn decoded(log: &Path, last: u64, mut each: impl FnMut(Record)) -> anyhow::Result<f64> {
    let (_, reader) = open_read_only(log)?;
    let began = Instant::now();
    let (mut seen, mut malformed) = (0, None);
    reader.each_record(1..=last, |seq, bytes| {
        match RecordBytes::read(bytes).and_then(|(record, _)| record.decode()) {
            Ok(record) => each(record),
            Err(error) => malformed = Some(anyhow::anyhow!("record {seq}: {error}")),
        }
        seen = seq;
        malformed.is_none()
    })?;
    if let Some(error) = malformed {
        return Err(error);
    }
    anyhow::ensure!(seen == last, "read up to {seen} of {last}");
    Ok(last as f64 / began.elapsed().as_secs_f64())
}

fn folded(log: &Path, last: u64) -> anyhow::Result<f64> {
    let mut state = State::default();
    // As a controller does that starts.
    state.keep_counts();
    let rate = decoded(log, last, |record| fold(&mut state, &record))?;
    anyhow::ensure!(state.seq == last, "folded up to {} of {last}", state.seq);
    Ok(rate)
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
