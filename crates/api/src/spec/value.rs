//! Values of environment variables and files, before anything is sealed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stele_model::SecretName;

use super::text_or_map;
use super::units::Mode;

/// The value of an environment variable, as written.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvSpec {
    /// In clear, in the spec and in the log.
    Plain(String),
    /// In clear in the spec; sealed by the controller before anything is decided or logged.
    ToSeal(String),
    /// The secret of that name, in the version current when deployed.
    Secret(SecretName),
    /// The sealed value in force at the same place, as it is: nobody needs to know it to change something else.
    Kept,
}

impl std::fmt::Debug for EnvSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => write!(f, "{text:?}"),
            Self::ToSeal(_) => f.write_str("<to be sealed>"),
            Self::Secret(name) => write!(f, "<secret {name}>"),
            Self::Kept => f.write_str("<kept as it is>"),
        }
    }
}

/// The long written form of [`EnvSpec`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongEnv {
    value: Option<String>,
    #[serde(default)]
    sealed: bool,
    secret: Option<SecretName>,
}

impl<'de> Deserialize<'de> for EnvSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map::either(
            deserializer,
            "a text, {secret: NAME}, {value: TEXT, sealed: true} or {sealed: true}",
            |text| Ok(Self::Plain(text.to_owned())),
            |long: LongEnv| match (long.value, long.sealed, long.secret) {
                (Some(value), true, None) => Ok(Self::ToSeal(value)),
                (Some(value), false, None) => Ok(Self::Plain(value)),
                (None, false, Some(name)) => Ok(Self::Secret(name)),
                (None, true, None) => Ok(Self::Kept),
                (None, true, Some(_)) => Err("a secret is always sealed: leave `sealed` out".to_owned()),
                (None, false, None) => {
                    Err("write a text, {secret: NAME} or {value: TEXT, sealed: true}".to_owned())
                }
                (Some(_), _, Some(_)) => Err("write either `value` or `secret`, not both".to_owned()),
            },
        )
    }
}

impl Serialize for EnvSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::ToSeal(text) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("value", text)?;
                map.serialize_entry("sealed", &true)?;
                map.end()
            }
            Self::Secret(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("secret", name)?;
                map.end()
            }
            Self::Kept => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("sealed", &true)?;
                map.end()
            }
        }
    }
}

impl JsonSchema for EnvSpec {
    fn schema_name() -> Cow<'static, str> {
        "EnvSpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = generator.subschema_for::<SecretName>();
        json_schema!({
            "description": "A text, a reference to a secret, or a value the controller seals before it is logged; `sealed: true` \
                            alone keeps the sealed value in force there.",
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {
                    "type": "object",
                    "properties": {"secret": secret},
                    "required": ["secret"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": {
                        "value": {"type": ["string", "number", "boolean"]},
                        "sealed": {"type": "boolean", "default": false}
                    },
                    "required": ["value"],
                    "additionalProperties": false
                },
                {
                    "type": "object",
                    "properties": {"sealed": {"const": true}},
                    "required": ["sealed"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// A file put into the container: exactly one of `content`, `source` and `secret`, or `sealed: true` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LongFile", into = "LongFile")]
#[schemars(with = "LongFile")]
pub struct FileSpec {
    /// What is in it.
    pub content: FileContent,
    /// Permission bits; `"0644"` unless said otherwise.
    pub mode: Mode,
}

/// Where a file's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// Written in the spec.
    Inline(EnvSpec),
    /// Read by the client from this path beside the spec; sealed afterwards when true.
    Source(String, bool),
}

/// The written form of [`FileSpec`].
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FileSpec")]
#[serde(deny_unknown_fields)]
struct LongFile {
    /// The content itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// A file to read the content from when applied, relative to the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// The secret whose value is the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretName>,
    /// Seal the content before it is logged; without a content, keep the sealed one in force there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sealed: bool,
    /// Permission bits in octal.
    #[serde(default = "default_mode")]
    mode: Mode,
}

const fn default_mode() -> Mode {
    Mode(0o644)
}

impl TryFrom<LongFile> for FileSpec {
    type Error = String;

    fn try_from(long: LongFile) -> Result<Self, String> {
        let content = match (long.content, long.source, long.secret) {
            (Some(text), None, None) if long.sealed => FileContent::Inline(EnvSpec::ToSeal(text)),
            (Some(text), None, None) => FileContent::Inline(EnvSpec::Plain(text)),
            (None, Some(path), None) => FileContent::Source(path, long.sealed),
            (None, None, Some(_)) if long.sealed => {
                return Err("a secret is always sealed: leave `sealed` out".to_owned());
            }
            (None, None, Some(name)) => FileContent::Inline(EnvSpec::Secret(name)),
            (None, None, None) if long.sealed => FileContent::Inline(EnvSpec::Kept),
            _ => return Err("write exactly one of `content`, `source` and `secret`".to_owned()),
        };
        Ok(Self { content, mode: long.mode })
    }
}

impl From<FileSpec> for LongFile {
    fn from(file: FileSpec) -> Self {
        let mut long = Self { content: None, source: None, secret: None, sealed: false, mode: file.mode };
        match file.content {
            FileContent::Inline(EnvSpec::Plain(text)) => long.content = Some(text),
            FileContent::Inline(EnvSpec::ToSeal(text)) => {
                long.content = Some(text);
                long.sealed = true;
            }
            FileContent::Inline(EnvSpec::Secret(name)) => long.secret = Some(name),
            FileContent::Inline(EnvSpec::Kept) => long.sealed = true,
            FileContent::Source(path, sealed) => {
                long.source = Some(path);
                long.sealed = sealed;
            }
        }
        long
    }
}
