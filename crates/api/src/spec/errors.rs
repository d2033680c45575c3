//! What is wrong with a spec, and where.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::Position;
use crate::limits::{PATH_BYTES_MAX, UNKNOWN_NAME_BYTES_MAX};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpecError {
    /// Path of the value, such as `services.web.ports[0]`; empty for the document itself.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// Where it stands, when read from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// Everything that is wrong with one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors {
    /// The file's name, when there is one.
    pub file: Option<String>,
    /// At least one.
    pub errors: Vec<SpecError>,
}

impl SpecError {
    pub(crate) fn new(path: String, message: impl Into<String>, position: Option<Position>) -> Self {
        Self { path, message: message.into(), position }
    }
}

impl SpecErrors {
    pub(crate) fn one(file: Option<&str>, error: SpecError) -> Self {
        Self { file: file.map(str::to_owned), errors: vec![error] }
    }

    /// Fills in the places of errors that only have a path, from the nearest enclosing value that is known.
    #[must_use]
    pub fn located(mut self, file: &str, positions: &BTreeMap<String, Position>) -> Self {
        self.file = Some(file.to_owned());
        for error in &mut self.errors {
            error.position = error.position.or_else(|| nearest_position(&error.path, positions));
        }
        self
    }
}

fn nearest_position(path: &str, positions: &BTreeMap<String, Position>) -> Option<Position> {
    // Of what has a longer path no place is remembered; a name without end would be looked for piece by piece.
    let mut path = &path[..path.floor_char_boundary(PATH_BYTES_MAX)];
    loop {
        if let Some(position) = positions.get(path) {
            return Some(*position);
        }
        if path.is_empty() {
            return None;
        }
        path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            if let Some(file) = &self.file {
                write!(f, "{file}:")?;
                if let Some(position) = error.position {
                    write!(f, "{}:{}:", position.line, position.column)?;
                }
                f.write_str(" ")?;
            }
            if !error.path.is_empty() {
                write!(f, "{}: ", error.path)?;
            }
            f.write_str(&error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// The nearest of `known` to what was written, when it is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Each comparison takes as long as both names together, multiplied.
    if written.len() > UNKNOWN_NAME_BYTES_MAX {
        return None;
    }
    let typos_max = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| {
            let typos = strsim::osa_distance(written, candidate);
            let similarity = strsim::jaro_winkler(written, candidate);
            // Few typos, or a common beginning such as `env` for `environments`.
            (typos <= typos_max || similarity >= SIMILARITY_MIN).then_some((typos, similarity, candidate))
        })
        .min_by(|left, right| (left.0, right.1).partial_cmp(&(right.0, left.1)).unwrap_or(Ordering::Equal))
        .map(|(_, _, candidate)| candidate)
}

/// Jaro-Winkler similarity from which a name is offered as what was meant, between 0 and 1.
const SIMILARITY_MIN: f64 = 0.8;
