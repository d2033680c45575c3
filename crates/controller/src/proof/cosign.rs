//! Reads what witnesses put beside the checkpoints that were published.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use stele_proof::limits::NOTE_BYTES_MAX;
use stele_proof::note::{NoteSignature, VerifierKey};
use stele_proof::{Checkpoint, Note, SignedCheckpoint};

use super::publish::name;
use crate::handle::Handle;
use crate::limits::COSIGNATURES_AWAITED_MAX;

/// Checkpoints that witnesses may still cosign: the newest ones.
#[derive(Default)]
pub(super) struct Awaited {
    folder: PathBuf,
    sizes: BTreeSet<u64>,
    /// The newest cosigned one, and how many cosigned it.
    found: (u64, usize),
}

impl Awaited {
    /// Those already published in the folder, in case this is not the first start.
    pub(super) fn open(folder: PathBuf) -> Self {
        let mut awaited = Self { sizes: BTreeSet::new(), found: (0, 0), folder };
        for entry in std::fs::read_dir(&awaited.folder).into_iter().flatten().flatten() {
            let size = entry.file_name().to_str().and_then(|name| name.strip_suffix(".note")?.parse().ok());
            if let Some(size) = size {
                awaited.expect(size);
            }
        }
        awaited
    }

    /// A checkpoint was published.
    pub(super) fn expect(&mut self, size: u64) {
        self.sizes.insert(size);
        while self.sizes.len() > COSIGNATURES_AWAITED_MAX {
            self.sizes.pop_first();
        }
    }

    /// The newest checkpoint that witnesses cosigned, if it is another one than found before, or more
    /// of them did.
    pub(super) fn look(&mut self, handle: &Handle) -> Option<SignedCheckpoint> {
        let witnesses = handle.proofs().witnesses();
        if witnesses.is_empty() {
            return None;
        }
        for size in self.sizes.range(self.found.0..).rev() {
            let Some(lines) = read(&self.folder.join(format!("{size}.cosig"))) else { continue };
            let Some(published) = read(&self.folder.join(name(*size))) else { continue };
            let Some(signed) = ours(handle, *size, &published) else { continue };
            let (signed, count) = with_cosignatures(signed, &lines, witnesses);
            if count > 0 && (*size, count) > self.found {
                self.found = (*size, count);
                tracing::info!(size, count, "a checkpoint is cosigned");
                return Some(signed);
            }
        }
        None
    }
}

/// A published checkpoint, if it is still one of this log's: others may write in the folder.
fn ours(handle: &Handle, size: u64, text: &str) -> Option<SignedCheckpoint> {
    let signed: SignedCheckpoint = text.parse().ok()?;
    let identity = handle.identity();
    let own = Checkpoint::key(&identity.certificate, &identity.root, &identity.fleet, None).ok()?;
    signed.verify(&[own], &[]).ok()?;
    let checkpoint = &signed.checkpoint;
    let is_ours = checkpoint.size == size
        && checkpoint.fleet == identity.fleet
        && handle.proofs().check(size).is_ok()
        && handle.proofs().root(size).is_ok_and(|root| root == checkpoint.root)
        && handle.proofs().chain(size).is_ok_and(|chain| chain == checkpoint.chain);
    is_ours.then_some(signed)
}

/// Adds those signatures that are a known witness's and right; says how many witnesses there are.
fn with_cosignatures(
    mut signed: SignedCheckpoint,
    lines: &str,
    witnesses: &[VerifierKey],
) -> (SignedCheckpoint, usize) {
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let added = line.parse::<NoteSignature>().and_then(|signature| {
            let mut alone = Note::new(signed.note.text())?;
            alone.add(signature.clone())?;
            alone.verify(witnesses)?;
            signed.note.add(signature)
        });
        if let Err(error) = added {
            tracing::debug!(size = signed.checkpoint.size, %error, "a cosignature is not believed");
        }
    }
    let count = signed.note.signed_by(witnesses).map_or(0, |by| by.len());
    (signed, count)
}

/// A small text file, if it is there and one.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    // Anything but a file may keep its reader waiting for ever.
    if !std::fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let file = std::fs::File::open(path).ok()?;
    file.take(NOTE_BYTES_MAX as u64 + 1).read_to_string(&mut text).ok()?;
    (text.len() <= NOTE_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use stele_model::signature::public_key;
    use stele_model::{Digest, FleetName};
    use stele_proof::note::SignatureKind;

    use super::*;

    #[test]
    fn only_what_known_witnesses_signed_is_added() {
        let checkpoint = Checkpoint {
            fleet: FleetName::new("demo").unwrap(),
            size: 3,
            root: Digest::of(&[b"root"]),
            state: Digest::EMPTY,
            chain: Digest::EMPTY,
        };
        let signed = SignedCheckpoint::new(checkpoint).unwrap();
        let key = |seed| SigningKey::from_bytes(&[seed; 32]);
        let line = |text: &str, name: &str, seed| {
            let mut note = Note::new(text).unwrap();
            note.cosign(name, &key(seed), 1_700_000_000).unwrap();
            note.signatures()[0].to_string()
        };
        let known =
            [VerifierKey::new("w.example/1", SignatureKind::Cosignature, &public_key(&key(1))).unwrap()];
        let text = signed.note.text().to_owned();
        let good = line(&text, "w.example/1", 1);
        let lines = [
            line(&text, "w.example/2", 2),
            line("another text\n", "w.example/1", 1),
            "nonsense".to_owned(),
            good.clone(),
            String::new(),
            good.clone(),
        ];
        let (cosigned, count) = with_cosignatures(signed, &lines.join("\n"), &known);
        assert_eq!(count, 1);
        let kept: Vec<_> = cosigned.note.signatures().iter().map(ToString::to_string).collect();
        assert_eq!(kept, [good]);
    }
}
