//! The golden history: a log as a fleet has it that was upgraded in place, kept for ever, so that no
//! later version of the program folds it into anything else.
//!
//! It comes in generations. Each is what one version of the program wrote, and goes on where the one
//! before ended; the first goes on with the log in `crates/codec/tests/golden/earlier`, and holds it.
//! A generation is `history-N.log` with `history-N.json`, and never changes once it is committed.

mod chapters;
mod frames;
mod index;
mod specs;
mod story;

pub use index::{Checkpoint, Index, Kinds};

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use stele_codec::{Chain, StoredRecord, Verifier};
use stele_model::State;

/// Largest file of a generation, in bytes: it is in every clone of the repository for ever.
pub const LOG_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What one version of the program wrote.
#[derive(Clone, Debug)]
pub struct Generation {
    /// What its records came to.
    pub index: Index,
    /// The records.
    pub records: Vec<StoredRecord>,
}

/// All that was written so far: a State to go on with, and what was before it.
struct Base {
    verifier: Verifier,
    /// State after each decision, by seq.
    states: BTreeMap<u64, State>,
}

impl Base {
    fn new() -> Self {
        Self { verifier: Verifier::new(), states: BTreeMap::new() }
    }

    fn push(&mut self, records: &[StoredRecord]) -> anyhow::Result<()> {
        for stored in records {
            let header = self.verifier.push(stored, None)?.header;
            if header.seq == header.decision.last() {
                self.states.insert(header.seq, self.verifier.state().clone());
            }
        }
        Ok(())
    }
}

/// The generations in a folder, oldest first.
pub fn generations(folder: &Path) -> anyhow::Result<Vec<Generation>> {
    let mut generations = Vec::new();
    for number in 1.. {
        let (log, index) = paths(folder, number);
        if !log.exists() && !index.exists() {
            break;
        }
        let bytes = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let records = frames::read(&bytes).with_context(|| format!("{} is damaged", log.display()))?;
        let text = fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
        let index: Index =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", index.display()))?;
        ensure!(index.generation == number, "{} says it is generation {}", log.display(), index.generation);
        generations.push(Generation { index, records });
    }
    Ok(generations)
}

/// What this version of the program writes when it goes on with all generations there are.
///
/// `earlier` is the log before the first one; it is part of the first.
pub fn next(generations: &[Generation], earlier: Vec<StoredRecord>) -> anyhow::Result<Generation> {
    let number = u32::try_from(generations.len())? + 1;
    let mut base = Base::new();
    for generation in generations {
        base.push(&generation.records)?;
    }
    let mut whole = base.verifier.clone();
    let mut records = Vec::new();
    if generations.is_empty() {
        base.push(&earlier)?;
        records = earlier;
    }
    let (state, chain) = base.verifier.into_parts();
    let written = story::tell(state, chain, base.states, number)?;
    records.extend(written.into_iter().map(|written| written.stored));
    let index = Index::of(number, &records, &mut whole)?;
    Ok(Generation { index, records })
}

/// Records as they are kept in the codec's golden files, one in each line, as hex.
pub fn earlier(lines: &str) -> anyhow::Result<Vec<StoredRecord>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).context("a record is written in hex digits");
    let record = |line: &str| {
        let mut bytes = Vec::with_capacity(line.len() / 2);
        for pair in line.as_bytes().chunks(2) {
            let value = pair.iter().try_fold(0, |value, byte| anyhow::Ok(value << 4 | digit(*byte)?))?;
            bytes.push(u8::try_from(value)?);
        }
        anyhow::Ok(StoredRecord::from_bytes(&bytes)?.0)
    };
    lines.lines().map(record).collect()
}

impl Generation {
    /// Its file's bytes.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let bytes = frames::write(&self.records)?;
        ensure!(
            bytes.len() <= LOG_BYTES_MAX,
            "generation {} has {} bytes, and at most {LOG_BYTES_MAX} are committed: tell a shorter story",
            self.index.generation,
            bytes.len()
        );
        Ok(bytes)
    }

    /// Writes it down, where nothing of this name may be yet. Answers the files.
    pub fn write(&self, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
        let (log, index) = paths(folder, self.index.generation);
        let (bytes, text) = (self.bytes()?, self.index.to_json()?);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write_new(&log, &bytes)?;
        write_new(&index, text.as_bytes())?;
        Ok([log, index])
    }

    /// Its records with the chain after each, as a store keeps them, after those of generations before.
    pub fn written(&self, mut chain: Chain) -> Vec<super::Written> {
        let link = |(seq, stored): (u64, &StoredRecord)| {
            chain = chain.link(&stored.leaf);
            super::Written { seq, stored: stored.clone(), chain }
        };
        (self.index.first..).zip(&self.records).map(link).collect()
    }
}

fn paths(folder: &Path, number: u32) -> (PathBuf, PathBuf) {
    let path = |extension: &str| folder.join(format!("history-{number}.{extension}"));
    (path("log"), path("json"))
}

/// A golden file is never written over.
fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}
