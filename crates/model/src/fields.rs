//! What an app is in an environment, as a tree of fields with names: what differences are
//! told by, and what an undo keeps or takes back.
//!
//! The tree is JSON of the typed content. A field is the smallest part that means something
//! by itself: an image or a list of ports is one, the variables of an environment are one each.

use serde_json::{Map, Value as Json, json};

use crate::digest::Digest;
use crate::event::Pin;
use crate::ids::AppEnv;
use crate::release::{Image, Revision};
use crate::state::State;

/// The names that lead to a field, such as `services`, `web`, `container`, `env`, `GREETING`.
pub(crate) type Path = Vec<String>;

/// What an app is wherever no place is pinned, and the pins; null when it is not there at all.
pub(crate) fn of_app(state: &State, app_env: &AppEnv) -> Json {
    let revision = state.target.intent.get(app_env);
    let pins: Map<String, Json> =
        state.pins(app_env).map(|(place, pin)| (place.to_string(), json!(pin.as_ref()))).collect();
    if revision.is_none() && pins.is_empty() {
        return Json::Null;
    }
    let mut fields = revision.map_or_else(Map::new, |revision| of_revision(state, revision));
    if !pins.is_empty() {
        fields.insert("pins".to_owned(), Json::Object(pins));
    }
    Json::Object(fields)
}

/// Services, config and secret versions of a revision, with what digests stand for filled in.
pub(crate) fn of_revision(state: &State, revision: &Revision) -> Map<String, Json> {
    let mut fields = Map::new();
    if let Some(record) = state.history.releases.get(&revision.release) {
        fields.insert("services".to_owned(), json!(record.release.services));
    }
    if let Some(config) = revision.config.and_then(|digest| state.history.configs.get(&digest)) {
        fields.insert("config".to_owned(), json!(config.as_ref()));
    }
    if !revision.secrets.is_empty() {
        fields.insert("secrets".to_owned(), json!(revision.secrets));
    }
    fields
}

/// Whether what a path leads to is one field, whatever it is made of.
fn is_one(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        names.as_slice(),
        ["config" | "pins", _]
            | ["services", _, "container", "image" | "health" | "log"]
            | ["services", _, "container", "env", _]
            | ["services", _, "container", "files", _, "content"]
    )
}

/// The members of two or three values, when each is made of fields; a value that is not there has none.
pub(crate) fn members<'a>(path: &[String], values: &[&'a Json]) -> Option<Vec<&'a Map<String, Json>>> {
    if is_one(path) {
        return None;
    }
    let maps: Vec<_> = values.iter().filter_map(|value| value.as_object()).collect();
    // One of several ways to place is a field by itself: half of two ways is none.
    let is_choice = path.len() == 3 && path.last().is_some_and(|name| name == "placement");
    let same_choice = || maps.windows(2).all(|pair| pair.iter().map(|map| map.keys().next()).all_equal());
    (maps.len() == values.len() && (!is_choice || same_choice())).then_some(maps)
}

trait AllEqual: Iterator {
    fn all_equal(self) -> bool;
}

impl<T: PartialEq, I: Iterator<Item = T>> AllEqual for I {
    fn all_equal(mut self) -> bool {
        let Some(first) = self.next() else { return true };
        self.all(|item| item == first)
    }
}

/// A path as it is written.
pub(crate) fn written(path: &[String]) -> String {
    path.join(".")
}

/// A field's value for people; what is sealed stays so.
pub(crate) fn show(path: &[String], value: &Json) -> Option<String> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    match (names.as_slice(), value) {
        (_, Json::Null) => None,
        (_, Json::String(text)) => Some(text.clone()),
        (["secrets", _], Json::Number(version)) => Some(format!("version {version}")),
        ([.., "files", _, "mode"], Json::Number(mode)) => {
            Some(mode.as_u64().map_or_else(|| mode.to_string(), |mode| format!("{mode:#o}")))
        }
        (["services", _, "container", "image"], _) => {
            let image = serde_json::from_value::<Image>(value.clone());
            Some(image.map_or_else(|_| value.to_string(), |image| image.to_string()))
        }
        _ if is_one(path) => Some(text_of(value).unwrap_or_else(|| readable(value).to_string())),
        _ => Some(readable(value).to_string()),
    }
}

/// The text of a value that may be plain, sealed or a secret's; `None` when it is something else.
fn text_of(value: &Json) -> Option<String> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    match members.iter().next().map(|(name, inner)| (name.as_str(), inner))? {
        ("value", inner) => text_of(inner),
        ("plain", Json::String(text)) => Some(text.clone()),
        ("secret", Json::String(name)) => Some(format!("<secret {name}>")),
        // What the same text sealed anew would be is the same; of another, another.
        ("sealed", sealed) => Some(format!("<sealed {}>", Digest::of_json(sealed).short())),
        _ => None,
    }
}

/// A tree of fields with values as they are shown.
fn readable(value: &Json) -> Json {
    if let Some(text) = text_of(value) {
        return Json::String(text);
    }
    match value {
        Json::Object(members) => {
            if let Ok(image) = serde_json::from_value::<Image>(value.clone()) {
                return Json::String(image.to_string());
            }
            Json::Object(members.iter().map(|(name, value)| (name.clone(), readable(value))).collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(readable).collect()),
        other => other.clone(),
    }
}

/// A pin in a few words.
pub(crate) fn show_pin(state: &State, app_env: &AppEnv, pin: &Pin) -> String {
    match pin {
        Pin::Absent => "not there".to_owned(),
        Pin::Revision(revision) => show_revision(state, app_env, revision),
    }
}

/// A revision in a few words: `v3, config 2, secret db version 1`.
pub(crate) fn show_revision(state: &State, app_env: &AppEnv, revision: &Revision) -> String {
    let number = state.release_number(&revision.release);
    let mut parts = vec![number.map_or_else(|| revision.release.short(), |number| format!("v{number}"))];
    if let Some(config) = &revision.config {
        let versions =
            state.history.config_versions.range((app_env.clone(), 0)..=(app_env.clone(), u32::MAX));
        let version = versions.rev().find(|(_, digest)| *digest == config).map(|((_, version), _)| *version);
        let version = version.map_or_else(|| config.short(), |version| version.to_string());
        parts.push(format!("config {version}"));
    }
    parts.extend(revision.secrets.iter().map(|(name, version)| format!("secret {name} version {version}")));
    parts.join(", ")
}
