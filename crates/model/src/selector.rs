//! Label expressions: which nodes a service may run on.
//!
//! `region in (eu, us), disk=ssd, !spot` — requirements separated by commas, all
//! of which must hold. `region` and `node` are labels every node has.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A conjunction of requirements; the empty one matches every node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Whether it selects every node.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, test }) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(", ");
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values))?,
                Test::In(values) => write!(f, "{key} in ({})", list(values))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                Test::Exists => f.write_str(key)?,
                Test::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Where and why a label expression cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read {requirement:?} in the label expression: write key=value, key!=value, key in (a, b), \
     key notin (a, b), key or !key"
)]
pub struct SelectorError {
    requirement: String,
}

/// Splits at commas outside parentheses.
fn split_requirements(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn is_label_text(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= crate::limits::KEY_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

fn parse_requirement(text: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        is_label_text(key).then(|| Requirement { key: key.to_owned(), test })
    };
    let set = |text: &str| -> Option<BTreeSet<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        let values: BTreeSet<_> = inner.split(',').map(|value| value.trim().to_owned()).collect();
        values.iter().all(|value| is_label_text(value)).then_some(values)
    };
    let one = |value: &str| {
        let value = value.trim();
        is_label_text(value).then(|| BTreeSet::from([value.to_owned()]))
    };
    if let Some((key, values)) = text.split_once(" notin ") {
        requirement(key, Test::NotIn(set(values)?))
    } else if let Some((key, values)) = text.split_once(" in ") {
        requirement(key, Test::In(set(values)?))
    } else if let Some((key, value)) = text.split_once("!=") {
        requirement(key, Test::NotIn(one(value)?))
    } else if let Some((key, value)) = text.split_once('=') {
        requirement(key, Test::In(one(value.trim_start_matches('='))?))
    } else if let Some(key) = text.strip_prefix('!') {
        requirement(key, Test::Absent)
    } else {
        requirement(text, Test::Exists)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        split_requirements(text)
            .into_iter()
            .map(|part| {
                parse_requirement(part.trim())
                    .ok_or_else(|| SelectorError { requirement: part.trim().to_owned() })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Label expression, such as `region in (eu, us), disk=ssd`. Empty matches every node."
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_requirement_must_hold() {
        let selector: Selector = "region in (eu, us), disk=ssd, !spot, tier!=test".parse().unwrap();
        assert!(selector.matches(&labels(&[("region", "eu"), ("disk", "ssd")])));
        assert!(!selector.matches(&labels(&[("region", "ap"), ("disk", "ssd")])));
        assert!(!selector.matches(&labels(&[("region", "eu"), ("disk", "ssd"), ("spot", "1")])));
        assert!(Selector::default().matches(&labels(&[])));
    }

    #[test]
    fn an_expression_is_read_back_from_its_text() {
        for text in ["", "a=b", "a!=b", "a in (b, c), !d, e", "a notin (x, y)"] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        for bad in ["a in b", "=b", "a in ()", "a b", ","] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?}");
        }
    }
}
