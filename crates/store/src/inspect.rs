//! Opening a store only to read it: a stopped controller's, a copy, or the one of a
//! controller that runs.

use std::path::Path;
use std::sync::Arc;

use stele_consensus::LogIndex;

use crate::database::{Database, Family};
use crate::error::OpenError;
use crate::reader::{Reader, Shared};
use crate::snapshots::Stages;
use crate::store::{Identity, check_format, decode_identity};
use crate::{meta, watermark};

/// What to do about a store that lacks what was synced, and that nobody runs on.
const REMEDY: &str =
    "A copy was shortened, or made while a controller wrote: stop the controller, and copy its folder again";

/// Opens the store in a folder without writing a byte into it, and says whose it is.
///
/// A controller may run on it meanwhile: then what it has written up to now is read,
/// and nothing after that; of what is derived, what is in files by now. A snapshot made in
/// this very moment may then look damaged; opened again, it is not. A store that lacks what
/// was synced is refused. Nothing else is checked beyond what is read, and what is read is
/// checked against its checksum.
pub fn open_read_only(path: &Path) -> Result<(Identity, Reader), OpenError> {
    let missing = || OpenError::Missing { path: path.to_owned() };
    if !Database::exists(path) {
        return Err(missing());
    }
    // Before the store: a controller that runs on it goes on.
    let proven = watermark::proven(path)?;
    let database = Database::open_read_only(path)?;
    let Some(identity) = database.get(Family::Meta, meta::IDENTITY)? else { return Err(missing()) };
    check_format(&database, path)?;
    watermark::check(&database, proven, REMEDY)?;
    let identity = decode_identity(&identity)
        .ok_or_else(|| database.corrupt(Family::Meta, meta::IDENTITY, "it does not decode".to_owned()))?;
    let index = LogIndex::recover(meta::recover(&database)?);
    let shared = Arc::new(Shared::new(database, Stages::default()));
    shared.publish(&index);
    Ok((identity, Reader { shared }))
}
