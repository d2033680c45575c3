//! Checks that many decoders share.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::target::holds;

/// Reads JSON; what is read is written and read again to the same JSON.
pub(super) fn json<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<Option<T>, String> {
    let Ok(value) = serde_json::from_slice::<T>(input) else { return Ok(None) };
    let written = serde_json::to_vec(&value).map_err(|error| format!("it cannot be written: {error}"))?;
    let again: T = serde_json::from_slice(&written)
        .map_err(|error| format!("what was written cannot be read: {error}: {}", lossy(&written)))?;
    let twice = serde_json::to_vec(&again).map_err(|error| format!("it cannot be written again: {error}"))?;
    holds(written == twice, || {
        format!("read again it is another: {} and {}", lossy(&written), lossy(&twice))
    })?;
    Ok(Some(value))
}

/// Reads a text; what is read is written and read again as the same.
pub(super) fn text<T>(text: &str) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display> + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    let Ok(value) = text.parse::<T>() else { return Ok(None) };
    let written = value.to_string();
    let again: T =
        written.parse().map_err(|error| format!("{written:?} was written, and is refused: {error}"))?;
    holds(again == value, || format!("{text:?} is {value:?}; written {written:?}, it is {again:?}"))?;
    Ok(Some(value))
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(400).collect()
}
