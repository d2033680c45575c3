//! Putting an evidence pack together from what controllers answer.

use stele_api::wire::CheckpointAnswer;
use stele_model::{Digest, Scope};
use stele_proof::merkle::root;
use stele_proof::pack::{Contents, PackError, Regions, build, touches};
use stele_proof::tile::TileHashes;
use stele_proof::{SignedCheckpoint, VerifierKey};

use super::log::{Log, Tiles};
use super::range::{Between, Range};
use crate::client::Client;
use crate::commands::checkpoint::{Believed, Trust, controller_keys, parse};
use crate::exit::Failure;
use crate::replay::members;
use crate::session::Session;

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        Self::Failed(format!("no pack can be made of this: {error}"))
    }
}

/// A pack, not verified yet, and what was noticed while it was made.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) range: Range,
    pub(super) checkpoint: Believed,
    /// Controllers that could not be asked, or whose checkpoint is not in the pack, and why.
    pub(super) left_out: Vec<String>,
}

/// Fetches everything, and builds the pack.
pub(super) fn make(
    session: &Session,
    between: &Between,
    scope: &Scope,
    trust: &Trust,
) -> Result<Made, Failure> {
    let client = session.client()?;
    let range = between.resolve(&client, scope)?;
    let mut log = Log::open(session, &client, trust, range.last(), between.read)?;
    let mut records = Vec::new();
    // Knowing no region, more may touch the scope than knowing all: what is let go here is surely not needed.
    let regions = Regions::new();
    log.read(&range, |mut stored, header, _| {
        if !touches(scope, &regions, &header.kind, &header.scopes) {
            stored.payload = Vec::new();
        }
        records.push(stored);
        Ok(())
    })?;
    range.check(&mut log)?;
    let others = log.beside(&range)?;
    let (checkpoints, left_out) = checkpoints(session, &client, &log)?;
    let contents = Contents {
        scope: scope.clone(),
        between: (range.from.written.clone(), range.to.written.clone()),
        records,
        others,
        checkpoints,
    };
    let bytes = build(&contents, log.hashes())?;
    Ok(Made { bytes, range, checkpoint: log.checkpoint, left_out })
}

/// What every controller signed, and witnesses with it: a cosignature may be known to one of them alone.
fn checkpoints(
    session: &Session,
    client: &Client,
    log: &Log<'_>,
) -> Result<(Vec<SignedCheckpoint>, Vec<String>), Failure> {
    let believed = parse(&log.checkpoint.note)?;
    let (mut found, mut left_out) = (vec![believed], Vec::new());
    let mut ask = |who: &str, client: &Client| -> Result<(), Failure> {
        let answer: CheckpointAnswer = client.get("/v1/checkpoint")?;
        let keys = controller_keys(client, &answer, Some(log.checkpoint.root_key.clone()))?.0;
        for note in std::iter::once(&answer.note).chain(&answer.cosigned) {
            match fitting(note, &keys, &log.checkpoint, log.hashes()) {
                Ok(signed) => found.extend(signed),
                Err(why) => left_out.push(format!("{who}: {why}")),
            }
        }
        Ok(())
    };
    // Their own addresses may not be reachable from here, where the one that was given is.
    ask("the controller asked", client)?;
    let mut unheard = Vec::new();
    for (controller, own) in members(client, &session.context()?)? {
        let who = format!("controller {controller}");
        if let Err(failure) = own.and_then(|own| ask(&who, &own)) {
            unheard.push(format!("{who} could not be asked for its checkpoint: {failure}"));
        }
    }
    left_out.extend(unheard);
    Ok((found, left_out))
}

/// A checkpoint that may go in beside the one that is believed; none when it is of a later moment.
fn fitting(
    note: &str,
    keys: &[VerifierKey],
    believed: &Believed,
    hashes: &TileHashes<Tiles<'_>>,
) -> Result<Option<SignedCheckpoint>, Failure> {
    let signed = parse(note)?;
    signed.verify(keys, &[]).map_err(|error| Failure::Failed(error.to_string()))?;
    let checkpoint = &signed.checkpoint;
    if checkpoint.fleet != believed.fleet {
        return Err(Failure::Failed(format!("its checkpoint is of fleet {}", checkpoint.fleet)));
    }
    if checkpoint.size > believed.size || checkpoint.size == 0 {
        return Ok(None);
    }
    let here = root(&hashes, checkpoint.size)?;
    if here == checkpoint.root {
        return Ok(Some(signed));
    }
    Err(Failure::Failed(format!(
        "it signed another log: root {} at {} records, where the log in the pack has {here}",
        checkpoint.root, checkpoint.size
    )))
}

/// SHA-256 of a whole pack, to tell it from any other file.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(&[bytes])
}

/// A name for a pack's file that says what is in it.
pub(super) fn file_name(made: &Made, scope: &Scope) -> String {
    let scope: String = scope
        .to_string()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    format!("{}-{scope}-{}-{}.stelepack", made.checkpoint.fleet, made.range.first(), made.range.last())
}
