//! A run's log as a file: one record a line, as hex of the bytes a store keeps.

use std::fmt::Write as _;

use stele_codec::StoredRecord;

/// The file's text.
pub fn to_text(records: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for record in records {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", hex::encode(record));
    }
    text
}

/// Reads what [`to_text`] wrote.
pub fn from_text(text: &str) -> Result<Vec<StoredRecord>, String> {
    let read = |(at, line): (usize, &str)| {
        let bytes = hex::decode(line).map_err(|error| format!("line {}: {error}", at + 1))?;
        let (stored, _) =
            StoredRecord::from_bytes(&bytes).map_err(|error| format!("line {}: {error}", at + 1))?;
        Ok(stored)
    };
    text.lines().enumerate().map(read).collect()
}
