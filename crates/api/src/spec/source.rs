//! A YAML or JSON document as a tree that remembers where everything was written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::{Location, Spanned};

use super::errors::{SpecError, SpecErrors};
use crate::limits::{ALIAS_VALUES_MAX, DEPTH_MAX, PATH_BYTES_MAX, SPEC_BYTES_MAX};

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Option<Position>,
    pub(crate) tree: Tree,
}

#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    /// As written, and as understood.
    Number(String, serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) at: Option<Position>,
    pub(crate) name: String,
}

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Item(usize),
}

impl Step {
    /// Of what it adds to a path, roughly.
    fn length(&self) -> usize {
        match self {
            Self::Member(name) => name.len(),
            Self::Item(_) => 1,
        }
    }
}

/// `services.web.ports[0]`; members that are no plain words are quoted: `files["/etc/x"]`.
pub(crate) fn write_path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Item(index) => path.extend(["[", &index.to_string(), "]"]),
            Step::Member(name) => push_member(&mut path, name),
        }
    }
    path
}

/// Appends a member to a written path.
pub(crate) fn push_member(path: &mut String, name: &str) {
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !plain {
        path.extend(["[", &format!("{name:?}"), "]"]);
    } else if path.is_empty() {
        path.push_str(name);
    } else {
        path.push('.');
        path.push_str(name);
    }
}

impl Node {
    /// Reads YAML. The error names the place in `file`.
    pub(crate) fn from_yaml(text: &str, file: &str) -> Result<Self, SpecErrors> {
        let fail =
            |message: String, at| SpecErrors::one(Some(file), SpecError::new(String::new(), message, at));
        if text.len() > SPEC_BYTES_MAX {
            let message = format!("the file has {} bytes; SPEC_BYTES_MAX is {SPEC_BYTES_MAX}", text.len());
            return Err(fail(message, None));
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            strict_booleans: true,
            reject_unsupported_tags: true,
            budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_VALUES_MAX },
        };
        let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let at = error.location().and_then(position);
            fail(syntax_message(&error), at)
        })?;
        Ok(Self::from_raw(raw, text))
    }

    fn from_raw(raw: Spanned<Raw>, source: &str) -> Self {
        let at = position(raw.referenced);
        // What a plain scalar was before it was understood, so that `1.20` can stay `1.20`.
        let written = |fallback: String| {
            let (start, length) = raw.defined.span().byte_offset().zip(raw.defined.span().byte_len())?;
            let text = source.get(start as usize..(start + length) as usize)?.trim();
            (!text.is_empty() && !text.contains('\n') && !text.starts_with(['*', '&', '!']))
                .then(|| text.to_owned())
                .or(Some(fallback))
        };
        let number = |text: String, number: Option<serde_json::Number>| match number {
            Some(number) => Tree::Number(written(text.clone()).unwrap_or(text), number),
            None => Tree::Text(text),
        };
        let tree = match raw.value {
            Raw::Null => Tree::Null,
            Raw::Bool(value) => Tree::Bool(value),
            Raw::Int(value) => number(value.to_string(), Some(value.into())),
            Raw::Uint(value) => number(value.to_string(), Some(value.into())),
            Raw::Float(value) => number(value.to_string(), serde_json::Number::from_f64(value)),
            Raw::Text(text) => Tree::Text(text),
            Raw::List(items) => {
                Tree::List(items.into_iter().map(|item| Self::from_raw(item, source)).collect())
            }
            Raw::Map(members) => Tree::Map(
                members
                    .into_iter()
                    .map(|(key, value)| {
                        let key = Key { at: position(key.referenced), name: key.value };
                        (key, Self::from_raw(value, source))
                    })
                    .collect(),
            ),
        };
        Self { at, tree }
    }

    /// Where each path stands: a member at its key, anything else at itself.
    pub(crate) fn positions(&self) -> BTreeMap<String, Position> {
        let mut found = BTreeMap::new();
        self.collect_positions(&mut Vec::new(), self.at, &mut found);
        found
    }

    fn collect_positions(
        &self,
        path: &mut Vec<Step>,
        at: Option<Position>,
        found: &mut BTreeMap<String, Position>,
    ) {
        // A path holds all names above a value: many values below long names would cost many times the file.
        let length: usize = path.iter().map(Step::length).sum();
        if length > PATH_BYTES_MAX {
            return;
        }
        if let Some(at) = at {
            found.insert(write_path(path), at);
        }
        match &self.tree {
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Item(index));
                    item.collect_positions(path, item.at, found);
                    path.pop();
                }
            }
            Tree::Map(members) => {
                for (key, value) in members {
                    path.push(Step::Member(key.name.clone()));
                    value.collect_positions(path, key.at, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// What it is, for error messages.
    pub(crate) fn describe(&self) -> String {
        match &self.tree {
            Tree::Null => "nothing".to_owned(),
            Tree::Bool(value) => format!("{value}"),
            Tree::Number(text, _) => format!("the number {text}"),
            Tree::Text(text) => format!("the text {text:?}"),
            Tree::List(_) => "a list".to_owned(),
            Tree::Map(_) => "a map".to_owned(),
        }
    }
}

fn position(location: Location) -> Option<Position> {
    (location.line() > 0).then(|| Position { line: location.line(), column: location.column() })
}

/// What is wrong with a member whose name another one has.
pub(super) fn written_twice(name: &str) -> String {
    format!("`{name}` is written twice; the second one would silently win")
}

/// The parser's message without the place, which the caller puts in front.
fn syntax_message(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            return written_twice(key);
        }
        serde_saphyr::Error::Budget { breach: serde_saphyr::budget::BudgetBreach::Depth { .. }, .. } => {
            return too_deep();
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            return "this file holds several documents (---); write one app per file".to_owned();
        }
        _ => {}
    }
    let message = error.without_snippet().to_string();
    let mut message = message.lines().next().unwrap_or_default().to_owned();
    if let Some(location) = error.location() {
        for place in [
            format!(" at line {}, column {}", location.line(), location.column()),
            format!(" at line {} column {}", location.line(), location.column()),
        ] {
            message = message.replace(&place, "");
        }
    }
    message
}

/// YAML as the parser hands it over.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Uint(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Raw::Map(members))
    }
}

/// Refuses trees so deep that walking them could exhaust the stack.
pub(crate) fn check_depth(node: &Node) -> Result<(), SpecErrors> {
    match first_below(node, DEPTH_MAX) {
        Some(deep) => Err(SpecErrors::one(None, SpecError::new(String::new(), too_deep(), deep.at))),
        None => Ok(()),
    }
}

/// The first value that stands so many levels below another one. No deeper one is looked at.
fn first_below(node: &Node, levels: usize) -> Option<&Node> {
    let Some(levels) = levels.checked_sub(1) else { return Some(node) };
    match &node.tree {
        Tree::List(items) => items.iter().find_map(|item| first_below(item, levels)),
        Tree::Map(members) => members.iter().find_map(|(_, value)| first_below(value, levels)),
        _ => None,
    }
}

fn too_deep() -> String {
    format!("it is nested more than {DEPTH_MAX} levels deep (DEPTH_MAX)")
}
