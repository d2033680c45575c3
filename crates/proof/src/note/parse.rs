//! Reading notes. What is read and written again is the same, byte by byte.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key::{KeyId, is_key_name};
use super::{LINE_START, Note, NoteSignature};
use crate::error::NoteError;
use crate::limits::{NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, SIGNATURE_BYTES_MAX};

pub(super) fn check_text(text: &str) -> Result<(), NoteError> {
    let malformed = |why: &str| Err(NoteError::malformed("note", why));
    if text.len() > NOTE_BYTES_MAX {
        return malformed(&format!("its text has {} bytes; the limit is {NOTE_BYTES_MAX}", text.len()));
    }
    if !text.ends_with('\n') {
        return malformed("its text does not end in a newline");
    }
    if text.chars().any(|character| character < ' ' && character != '\n') {
        return malformed("its text has a control character");
    }
    Ok(())
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// One line, without its newline.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        let malformed = |why: &str| NoteError::malformed("signature line", why);
        let rest =
            line.strip_prefix(LINE_START).ok_or_else(|| malformed("it does not begin with an em dash"))?;
        let (name, encoded) =
            rest.split_once(' ').ok_or_else(|| malformed("it lacks a name or signature"))?;
        if !is_key_name(name) {
            return Err(malformed("its key has no valid name"));
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| malformed("its signature is no base64"))?;
        let (id, bytes) = bytes.split_first_chunk().ok_or_else(|| malformed("its signature is too short"))?;
        if bytes.is_empty() || bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(malformed("its signature is empty or too long"));
        }
        Ok(Self { name: name.to_owned(), id: KeyId(*id), bytes: bytes.to_vec() })
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        let malformed = |why: &str| NoteError::malformed("note", why);
        if note.len() > NOTE_BYTES_MAX {
            return Err(malformed(&format!("it has {} bytes; the limit is {NOTE_BYTES_MAX}", note.len())));
        }
        // The text may have blank lines of its own: the last one parts it from the signatures.
        let at = note.rfind("\n\n").ok_or_else(|| malformed("no blank line parts text and signatures"))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        check_text(text)?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| malformed("no signature ends it"))?;
        if lines.split('\n').count() > NOTE_SIGNATURES_MAX {
            return Err(malformed(&format!("it has more than {NOTE_SIGNATURES_MAX} signatures")));
        }
        let signatures = lines.split('\n').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }
}
