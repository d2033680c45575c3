//! Records to make good inputs of: those of the golden history, which holds every kind and schema there is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context as _;
use stele_codec::{Chain, StoredRecord, Verifier};
use stele_model::State;
use stele_testkit::history::golden;

/// Records after which State holds something of everything that a small one can.
const EARLY: usize = 120;

/// The golden history's records.
pub(super) fn records() -> anyhow::Result<Vec<StoredRecord>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden");
    Ok(golden::generations(&folder)?.into_iter().flat_map(|generation| generation.records).collect())
}

/// The smallest record of each kind and schema, with the chain after it.
pub(super) fn of_each_kind() -> anyhow::Result<BTreeMap<(String, u16), (StoredRecord, Chain)>> {
    let mut smallest = BTreeMap::<_, (StoredRecord, Chain)>::new();
    let mut chain = Chain::GENESIS;
    for stored in records()? {
        chain = chain.link(&stored.leaf);
        let header = stored.header()?;
        let size = |stored: &StoredRecord| stored.leaf.len() + stored.payload.len();
        let of_kind = smallest.entry((header.kind, header.schema)).or_insert_with(|| (stored.clone(), chain));
        if size(&stored) < size(&of_kind.0) {
            *of_kind = (stored, chain);
        }
    }
    Ok(smallest)
}

/// State and chain after so many records, and on to the end of the decision.
pub(super) fn state_after(count: usize) -> anyhow::Result<(State, Chain)> {
    let mut verifier = Verifier::new();
    for (at, stored) in records()?.iter().enumerate() {
        let header = verifier.push(stored, None)?.header;
        if at + 1 >= count && header.seq == header.decision.last() {
            break;
        }
    }
    Ok(verifier.into_parts())
}

/// A small State that others are put on, folded once.
pub(super) fn early() -> Result<&'static (State, Chain), String> {
    static EARLY_STATE: LazyLock<Result<(State, Chain), String>> = LazyLock::new(|| {
        let (mut state, chain) =
            state_after(EARLY).context("folding the golden history").map_err(|error| format!("{error:#}"))?;
        // Hashed once, so that a copy hashes only what changes in it.
        state.digest();
        Ok((state, chain))
    });
    EARLY_STATE.as_ref().map_err(Clone::clone)
}
