//! Replaying a long log: how fast, beside how fast its bytes can be read at all.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use stele_codec::{Chain, DecodeError, RecordBytes};
use stele_model::{Digest, Record, State, fold};
use stele_proof::merkle::{Frontier, leaf_hash};
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
    let (mut raws, mut hashes, mut replays) = (Vec::new(), Vec::new(), Vec::new());
    let (mut decodes, mut folds) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raws.push(raw(&log, prepared.last)?);
        hashes.push(hashed(&log, prepared.last)?);
        decodes.push(decoded(&log, prepared.last, |record| drop(std::hint::black_box(record)))?);
        folds.push(folded(&log, prepared.last)?);
        replays.push(replayed(&data, prepared.last)?);
    }
    let limit = Side::new("RocksDB's iterator, nothing done with the bytes", &raws, None);
    let row = |work, rates: &[f64]| {
        Row::new(work, "events/s", vec![Side::new("Stele", rates, None), limit.clone()])
    };
    report.rows.push(row("read and hashed as a replay does, neither decoded nor folded", &hashes));
    report.rows.push(row("decoded, not folded; of hashes those of payloads", &decodes));
    let folded = row("decoded and folded; of hashes those of payloads", &folds);
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
    let mut at = db.raw_iterator_cf(records);
    at.seek_to_first();
    while let Some((_, record)) = at.item() {
        bytes += record.len();
        seen += 1;
        at.next();
    }
    at.status()?;
    anyhow::ensure!(seen == last && bytes > 0, "{seen} of {last} records");
    Ok(seen as f64 / began.elapsed().as_secs_f64())
}

/// How fast each record is taken where it lies.
fn rate(
    log: &Path,
    last: u64,
    mut take: impl FnMut(RecordBytes<'_>) -> Result<(), DecodeError>,
) -> anyhow::Result<f64> {
    let (_, reader) = open_read_only(log)?;
    let began = Instant::now();
    let (mut seen, mut malformed) = (0, Ok(()));
    reader.each_record(1..=last, |seq, bytes| {
        malformed = RecordBytes::read(bytes).and_then(|(record, _)| take(record));
        seen = seq;
        malformed.is_ok()
    })?;
    malformed.with_context(|| format!("record {seen}"))?;
    anyhow::ensure!(seen == last, "read up to {seen} of {last}");
    Ok(last as f64 / began.elapsed().as_secs_f64())
}

/// The hashes of each record that no replay can do without: its payload's, the chain, its leaf's, and the tree's.
fn hashed(log: &Path, last: u64) -> anyhow::Result<f64> {
    let (mut chain, mut tree) = (Chain::GENESIS, Frontier::new());
    let rate = rate(log, last, |record| {
        std::hint::black_box(Digest::of(&[record.payload()]));
        chain = chain.link(record.leaf());
        tree.append(leaf_hash(record.leaf()), |_, _, _| {});
        Ok(())
    })?;
    std::hint::black_box((chain, tree.root()));
    Ok(rate)
}

/// Reads and decodes each record.
fn decoded(log: &Path, last: u64, mut take: impl FnMut(Record)) -> anyhow::Result<f64> {
    rate(log, last, |record| {
        take(record.decode()?);
        Ok(())
    })
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
