//! How much of a message an assignment takes, told without making it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;

use serde::Serialize;
use stele_model::release::{EnvValue, InstanceSpec};
use stele_model::signature::Signature;
use stele_model::state::AssignedTo;
use stele_model::wire::{Assignment, Signed, WrappedKey};
use stele_model::{Digest, InstanceId, State};

use crate::limits::SIZED_SPECS_BYTES_MAX;
use crate::secrets::{SealedWith, sealed_with};

/// Hex digits of a signature.
const SIGNATURE_DIGITS: usize = 128;
/// Hex digits of a wrapped key's parts: an X25519 key, a nonce, and a data key with its tag.
const EPHEMERAL_DIGITS: usize = 64;
const NONCE_DIGITS: usize = 48;
const CIPHERTEXT_DIGITS: usize = 96;

/// Counts the bytes of JSON that goes into a text of other JSON, as a signed message's body does.
#[derive(Default)]
struct Escaped(usize);

impl io::Write for Escaped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // JSON without line breaks has nothing else that is escaped once more.
        let escaped = bytes.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        self.0 += bytes.len() + escaped;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that a value takes in the body of a signed message; nothing for what is no JSON, which is never sent.
fn as_sent<T: Serialize>(value: &T) -> usize {
    let mut escaped = Escaped::default();
    if serde_json::to_writer(&mut escaped, value).is_ok() { escaped.0 } else { 0 }
}

/// What one spec takes, and the keys that whoever runs it needs.
struct Spec {
    bytes: usize,
    sealed_with: BTreeSet<SealedWith>,
}

/// An instance in an assignment, without its spec.
#[derive(Serialize)]
struct Frame<'a> {
    id: &'a InstanceId,
    spec: (),
    spec_digest: &'a Digest,
    replaces: &'a Option<InstanceId>,
}

/// What assignments take. The specs in them are measured once: nodes mostly run the same.
#[derive(Default)]
pub(crate) struct Sizes {
    specs: HashMap<Digest, Spec>,
    measured_bytes: usize,
}

impl Sizes {
    /// Bytes of the message that tells a node what State has for it, given the rest of its assignment, with neither
    /// instances nor keys. Too few only where there was too much to measure, or State has not all of it.
    pub(crate) fn of(&mut self, state: &State, rest: &Assignment) -> usize {
        let signed = Signed { body: String::new(), signature: Signature("0".repeat(SIGNATURE_DIGITS)) };
        let around = serde_json::to_vec(&signed).map_or(0, |bytes| bytes.len());
        let rest_bytes = around + as_sent(rest);
        let Some(assigned) = state.assigned.get(&rest.node) else { return rest_bytes };
        for (id, to) in &assigned.instances {
            self.measure(state, id, to);
        }
        let mut seen = HashSet::new();
        let mut sealed_with = BTreeSet::new();
        let instances = assigned.instances.iter().map(|(id, to)| {
            let frame = Frame { id, spec: (), spec_digest: &to.spec, replaces: &to.replaces };
            let spec = self.specs.get(&*to.spec);
            if let Some(spec) = spec.filter(|_| seen.insert(*to.spec)) {
                sealed_with.extend(&spec.sealed_with);
            }
            as_sent(&frame) - as_sent(&()) + spec.map_or(0, |spec| spec.bytes)
        });
        let instances = listed(instances);
        rest_bytes
            + instances
            + listed(sealed_with.into_iter().map(|(subject, version)| key(subject, *version)))
    }

    fn measure(&mut self, state: &State, id: &InstanceId, to: &AssignedTo) {
        if self.measured_bytes > SIZED_SPECS_BYTES_MAX || self.specs.contains_key(&*to.spec) {
            return;
        }
        let Some(spec) = state.instance_spec(&id.slot.app_env, &to.revision, &id.slot.service) else {
            return;
        };
        let bytes = as_sent(&spec);
        self.measured_bytes += bytes;
        self.specs.insert(*to.spec, Spec { bytes, sealed_with: sealed_with([&spec.container]) });
    }
}

/// What a spec takes at least, found out at once: its texts.
pub(crate) fn bytes_at_least(spec: &InstanceSpec) -> usize {
    let files = spec.container.files.values().map(|file| &file.content);
    let texts = spec.container.env.values().chain(files).map(|text| match text {
        EnvValue::Value(value) => value.len(),
        EnvValue::Secret(_) => 0,
    });
    texts.sum()
}

/// A list's items, with what is between them.
fn listed(items: impl Iterator<Item = usize>) -> usize {
    let (count, bytes) = items.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item));
    bytes + usize::saturating_sub(count, 1)
}

/// A data key, wrapped for any node.
fn key(subject: &str, version: u32) -> usize {
    as_sent(&WrappedKey {
        subject: subject.to_owned(),
        key_version: version,
        ephemeral: "0".repeat(EPHEMERAL_DIGITS),
        nonce: "0".repeat(NONCE_DIGITS),
        ciphertext: "0".repeat(CIPHERTEXT_DIGITS),
    })
}

#[cfg(test)]
#[path = "sizes_tests.rs"]
mod tests;
