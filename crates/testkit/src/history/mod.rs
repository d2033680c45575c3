//! Long logs that never ran: decided, encoded and folded as a leader would, without consensus,
//! network or clock. For benchmarks, and for the history that must keep its meaning for ever.
//!
//! The same seed gives the same bytes on every machine.

mod chance;
pub mod golden;
mod releases;
mod scribe;
mod world;

pub use scribe::{Scribe, Written};
pub use world::{Shape, World};

use std::path::Path;

use anyhow::Context as _;
use stele_consensus::{LogStore as _, WriteBatch, bootstrap};
use stele_store::{Identity, Settings, Store};

/// A controller's store without any record, as at its first start.
pub fn new_store(folder: &Path, fleet: &str, controller: u64) -> anyhow::Result<Store> {
    let identity = Identity { fleet: fleet.to_owned(), node: controller };
    let mut store = Store::create(folder, &identity, &Settings::default())?;
    let genesis =
        stele_codec::Snapshot { chain: stele_codec::Chain::GENESIS, state: stele_model::State::default() };
    bootstrap(&mut store, &[controller], genesis.encode()).context("a new store can be bootstrapped")?;
    Ok(store)
}

/// Adds records to a store exactly as they are, whether they make sense or not.
pub fn store_bytes(store: &mut Store, records: Vec<(u64, Vec<u8>)>) -> anyhow::Result<()> {
    store.write(WriteBatch { records, sync: true, ..WriteBatch::default() })?;
    Ok(())
}

/// Adds records to a store as if they had been applied.
pub fn store_records(store: &mut Store, records: Vec<Written>, sync: bool) -> anyhow::Result<()> {
    let records =
        records.into_iter().map(|written| (written.seq, written.stored.to_bytes(written.chain))).collect();
    store.write(WriteBatch { records, sync, ..WriteBatch::default() })?;
    Ok(())
}
