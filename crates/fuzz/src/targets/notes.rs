//! Signed notes, checkpoints, cosignatures and the keys they are verified with.

use stele_model::Digest;
use stele_model::signature::public_key;
use stele_proof::note::SignatureKind;
use stele_proof::{Checkpoint, NoteError, SignedCheckpoint, VerifierKey};

use super::{keys, shapes};
use crate::mutate::Form;
use crate::nasty;
use crate::target::{Budget, Named, Target, Verdict, holds};

const WITNESS: &str = "witness.example.com";
const COSIGNED: u64 = 1_700_000_000;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "checkpoint",
            decoder: "`SignedCheckpoint`, `Note`, cosignatures: `from_str`, `verify`",
            holds: "written again it is the same bytes; verified, it carries the very signature its controller's key \
                    makes of its text, and of the witness none or the right one",
            form: Form::Text,
            budget: Budget { fixed: 1 << 20, per_byte: 200 },
            run: checkpoint,
            mend: None,
            made: made_checkpoints,
            nasty: nasty::texts,
        },
        Target {
            name: "verifier-key",
            decoder: "`VerifierKey`",
            holds: "written again it is the same bytes",
            form: Form::Text,
            budget: Budget { fixed: 1 << 20, per_byte: 100 },
            run: verifier_key,
            mend: None,
            made: made_keys,
            nasty: nasty::texts,
        },
    ]
}

fn known() -> Result<(VerifierKey, VerifierKey), NoteError> {
    let fleet =
        keys::fleet().map_err(|error| NoteError::Malformed { what: "name", why: error.to_string() })?;
    let controller = Checkpoint::key_name(&fleet, 1);
    let controller = VerifierKey::new(&controller, SignatureKind::Ed25519, &public_key(&keys::controller()))?;
    let witness = VerifierKey::new(WITNESS, SignatureKind::Cosignature, &public_key(&keys::witness()))?;
    Ok((controller, witness))
}

fn checkpoint(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let Ok(signed) = text.parse::<SignedCheckpoint>() else { return Ok(Verdict::Refused) };
    holds(signed.to_string() == text, || "written again, the note has other bytes".to_owned())?;
    let (controller, witness) = known().map_err(|error| error.to_string())?;
    let (controllers, witnesses) = ([controller], [witness]);
    let Ok((by, seen)) = signed.verify(&controllers, &witnesses) else { return Ok(Verdict::Refused) };
    holds(by.len() == 1, || format!("signed by {} controllers, of one known", by.len()))?;
    // Signed anew by the same keys it has the same signatures: nothing else passes for one.
    let mut anew = SignedCheckpoint::new(signed.checkpoint.clone()).map_err(|error| error.to_string())?;
    anew.note.sign(controllers[0].name(), &keys::controller()).map_err(|error| error.to_string())?;
    for seen in &seen {
        let time = seen.time.ok_or("a cosignature without a time")?;
        anew.note.cosign(WITNESS, &keys::witness(), time).map_err(|error| error.to_string())?;
    }
    for right in anew.note.signatures() {
        holds(signed.note.signatures().contains(right), || {
            format!("believed without the signature {right}")
        })?;
    }
    Ok(Verdict::Read)
}

fn made_checkpoints() -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::new();
    for (name, size, cosigned) in
        [("signed", 12, false), ("cosigned", 4096, true), ("largest", i64::MAX as u64, true)]
    {
        let digest = |what: &[u8]| Digest::of(&[what, name.as_bytes()]);
        let checkpoint = Checkpoint {
            fleet: keys::fleet()?,
            size,
            root: digest(b"root"),
            state: digest(b"state"),
            chain: digest(b"chain"),
        };
        let mut signed = SignedCheckpoint::new(checkpoint)?;
        signed.note.sign(&Checkpoint::key_name(&keys::fleet()?, 1), &keys::controller())?;
        if cosigned {
            signed.note.cosign(WITNESS, &keys::witness(), COSIGNED)?;
            signed.note.sign("somebody.example.com", &keys::root())?;
        }
        all.push((name.to_owned(), signed.to_string().into_bytes()));
    }
    Ok(all)
}

fn verifier_key(input: &[u8]) -> Result<Verdict, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Verdict::Refused) };
    let Some(key) = shapes::text::<VerifierKey>(text)? else { return Ok(Verdict::Refused) };
    holds(key.to_string() == text, || "written again, the key has other bytes".to_owned())?;
    Ok(Verdict::Read)
}

fn made_keys() -> anyhow::Result<Vec<Named>> {
    let (controller, witness) = known()?;
    Ok(vec![
        ("controller".to_owned(), controller.to_string().into_bytes()),
        ("witness".to_owned(), witness.to_string().into_bytes()),
    ])
}
