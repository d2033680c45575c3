//! The file of a golden log: the records' leaves and payloads, one after the other.
//!
//! As a store keeps them but for the chain, which follows from the leaves: every part is a `u32`
//! length, big-endian, and so many bytes.

use anyhow::{Context as _, ensure};
use stele_codec::StoredRecord;
use stele_model::limits::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;

/// The bytes of a file.
pub(super) fn write<'a>(records: impl IntoIterator<Item = &'a StoredRecord>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        for part in [&record.leaf, &record.payload] {
            let length = u32::try_from(part.len()).context("a record is longer than its length can say")?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
    }
    Ok(bytes)
}

/// Reads what [`write()`] wrote.
pub(super) fn read(mut bytes: &[u8]) -> anyhow::Result<Vec<StoredRecord>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let at = records.len() + 1;
        let leaf = part(&mut bytes, HEADER_BYTES_MAX).with_context(|| format!("leaf {at} of the file"))?;
        let payload =
            part(&mut bytes, PAYLOAD_BYTES_MAX).with_context(|| format!("payload {at} of the file"))?;
        records.push(StoredRecord { leaf, payload });
    }
    Ok(records)
}

fn part(bytes: &mut &[u8], limit: usize) -> anyhow::Result<Vec<u8>> {
    let (length, rest) = bytes.split_at_checked(LENGTH_BYTES).context("the file ends inside a length")?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    ensure!(length <= limit, "it says it has {length} bytes, and no record's may have more than {limit}");
    let (part, rest) = rest.split_at_checked(length).context("the file ends inside it")?;
    *bytes = rest;
    Ok(part.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_damage_is_told() {
        let record =
            |leaf: &[u8], payload: &[u8]| StoredRecord { leaf: leaf.to_vec(), payload: payload.to_vec() };
        let records = [record(b"leaf", b"payload"), record(b"", &[7; 300])];
        let bytes = write(&records).unwrap();
        assert_eq!(read(&bytes).unwrap(), records);
        for cut in [1, 4, 9, bytes.len() - 1] {
            assert!(read(&bytes[..cut]).is_err(), "cut after {cut} bytes");
        }
        let error = read(&[0xff; 8]).unwrap_err();
        assert!(
            format!("{error:#}").contains("leaf 1 of the file: it says it has 4294967295 bytes"),
            "{error:#}"
        );
    }
}
