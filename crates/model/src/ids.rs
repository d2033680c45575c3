//! Names and identifiers. Each is checked where it enters, so that the rest of
//! the program never meets a malformed one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;
use std::thread::LocalKey;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use triomphe::Arc;

use crate::limits::{NAME_BYTES_MAX, RECENT_TEXTS_MAX};
use crate::shared_text::{SharedText, cell_of};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with a character outside `[a-z0-9-]`.
    #[error(
        "{text:?} is not a valid {kind} name: use 1 to {NAME_BYTES_MAX} lowercase letters, digits and hyphens, \
         beginning and ending with a letter or digit"
    )]
    Malformed {
        /// What was being named.
        kind: &'static str,
        /// The offending text.
        text: String,
    },
    /// An app without its project.
    #[error("{0:?} does not name an app: write PROJECT/APP, such as shop/web")]
    App(String),
    /// An app without its environment.
    #[error("{0:?} is ambiguous: write PROJECT/APP@ENVIRONMENT, such as shop/web@prod")]
    AppEnv(String),
    /// Not an instance.
    #[error("{0:?} does not name an instance: write PROJECT/APP@ENVIRONMENT/SERVICE.INDEX-SERIAL")]
    Instance(String),
    /// Neither a region nor a node.
    #[error("{0:?} does not name a place: write region:NAME or node:NAME")]
    Place(String),
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

/// Reads what has a text form without copying the text first.
struct FromText<T>(PhantomData<T>);

impl<T: FromStr<Err = NameError>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Text form in JSON, and in bincode too: identifiers are their text.
macro_rules! text_form {
    ($type:ident, $pattern:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText(PhantomData))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}

/// Names that a thread read lately, each in the [cell](cell_of) of its text. As those of `SharedText`: bounded and
/// forgetful.
type Recent<T> = RefCell<Vec<Option<T>>>;

/// What is read from a text anew only where it was not lately: see [`read_shared`].
trait ReadShared: Clone {
    /// Whether this is what a text says.
    fn is_written(&self, text: &str) -> bool;
    fn read(text: &str) -> Result<Self, NameError>;
}

/// Shares the memory of an equal one that this thread read lately: records that follow each other name the same apps
/// and slots, and so do the parts of what is kept of a node.
fn read_shared<T: ReadShared>(recent: &'static LocalKey<Recent<T>>, text: &str) -> Result<T, NameError> {
    let shared = recent.try_with(|recent| {
        let known = recent.borrow().get(cell_of(text)).cloned().flatten();
        if let Some(known) = known.filter(|known| known.is_written(text)) {
            return Ok(known);
        }
        // What it is made of may be read in the same way.
        let read = T::read(text)?;
        let mut recent = recent.borrow_mut();
        recent.resize(RECENT_TEXTS_MAX, None);
        recent[cell_of(text)] = Some(read.clone());
        Ok(read)
    });
    // A thread that is about to end has forgotten all.
    shared.unwrap_or_else(|_| T::read(text))
}

/// What copies share: equal ones are most often one in memory.
macro_rules! shared_parts {
    ($type:ident, $parts:ident) => {
        impl Deref for $type {
            type Target = $parts;
            fn deref(&self) -> &$parts {
                &self.0
            }
        }
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(SharedText);

        impl $type {
            /// Checks and wraps a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_label(text) {
                    Ok(Self(SharedText::new(text)))
                } else {
                    Err(NameError::Malformed { kind: $kind, text: text.to_owned() })
                }
            }
            /// The name itself.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        text_form!($type, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$");
    };
}

name!(/// A fleet: everything one log governs.
    FleetName, "fleet");
name!(/// A project: a team's namespace.
    ProjectName, "project");
name!(/// An app's own name, inside its project.
    AppName, "app");
name!(/// An environment, such as `prod`.
    EnvironmentName, "environment");
name!(/// A region, such as `eu`.
    RegionName, "region");
name!(/// A node: one host with an agent.
    NodeName, "node");
name!(/// A service: one container of an app.
    ServiceName, "service");
name!(/// A principal's opaque id: who did something.
    PrincipalId, "principal");
name!(/// A secret, inside an app and environment.
    SecretName, "secret");

/// An app with its project. Written `shop/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId {
    /// The team's namespace.
    pub project: ProjectName,
    /// The app inside it.
    pub app: AppName,
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.app)
    }
}

impl FromStr for AppId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (project, app) = text.split_once('/').ok_or_else(|| NameError::App(text.to_owned()))?;
        Ok(Self { project: project.parse()?, app: app.parse()? })
    }
}
text_form!(AppId, "^[a-z0-9-]+/[a-z0-9-]+$");

/// An app in an environment: the unit that is deployed. Written `shop/web@prod`.
///
/// Copies of it share their memory, as those of a [`Slot`]: every slot, event and deployment names one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AppEnv(Arc<AppEnvParts>);

/// What an [`AppEnv`] is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppEnvParts {
    /// The app.
    pub app: AppId,
    /// Where it runs.
    pub environment: EnvironmentName,
}

thread_local! {
    static RECENT_APP_ENVS: Recent<AppEnv> = const { RefCell::new(Vec::new()) };
}

impl AppEnv {
    /// Of its parts.
    pub fn new(app: AppId, environment: EnvironmentName) -> Self {
        Self(Arc::new(AppEnvParts { app, environment }))
    }

    /// What follows of a text that begins as this is written.
    fn rest_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        let AppEnvParts { app, environment } = &*self.0;
        let rest = text.strip_prefix(app.project.as_str())?.strip_prefix('/')?;
        rest.strip_prefix(app.app.as_str())?.strip_prefix('@')?.strip_prefix(environment.as_str())
    }
}

impl ReadShared for AppEnv {
    fn is_written(&self, text: &str) -> bool {
        self.rest_of(text) == Some("")
    }

    fn read(text: &str) -> Result<Self, NameError> {
        let (app, environment) = text.split_once('@').ok_or_else(|| NameError::AppEnv(text.to_owned()))?;
        Ok(Self::new(app.parse()?, environment.parse()?))
    }
}

impl fmt::Display for AppEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.app, self.environment)
    }
}

impl FromStr for AppEnv {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        read_shared(&RECENT_APP_ENVS, text)
    }
}
shared_parts!(AppEnv, AppEnvParts);
text_form!(AppEnv, "^[a-z0-9-]+/[a-z0-9-]+@[a-z0-9-]+$");

/// A part of the fleet whose instances of an app may follow another revision than the rest.
/// Written `region:eu` or `node:eu-1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Every node of a region.
    Region(RegionName),
    /// One node.
    Node(NodeName),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(region) => write!(f, "region:{region}"),
            Self::Node(node) => write!(f, "node:{node}"),
        }
    }
}

impl FromStr for Place {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some(("region", region)) => Ok(Self::Region(region.parse()?)),
            Some(("node", node)) => Ok(Self::Node(node.parse()?)),
            _ => Err(NameError::Place(text.to_owned())),
        }
    }
}
text_form!(Place, "^(region|node):[a-z0-9-]+$");

/// One place an instance fills: the `index`th replica of a service. Written `shop/web@prod/web.0`.
///
/// Copies of it share their memory: State has most slots in three maps.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Slot(Arc<SlotParts>);

/// What a [`Slot`] is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotParts {
    /// The app in its environment.
    pub app_env: AppEnv,
    /// The service.
    pub service: ServiceName,
    /// From zero. For a service that runs on every matching node, the node's place in name order when first placed.
    pub index: u32,
}

thread_local! {
    static RECENT_SLOTS: Recent<Slot> = const { RefCell::new(Vec::new()) };
}

impl Slot {
    /// Of its parts.
    pub fn new(app_env: AppEnv, service: ServiceName, index: u32) -> Self {
        Self(Arc::new(SlotParts { app_env, service, index }))
    }

    /// Another one of the same service.
    #[must_use]
    pub fn with_index(&self, index: u32) -> Self {
        Self::new(self.app_env.clone(), self.service.clone(), index)
    }
}

impl ReadShared for Slot {
    fn is_written(&self, text: &str) -> bool {
        let service = self.app_env.rest_of(text).and_then(|rest| rest.strip_prefix('/'));
        let index = service.and_then(|rest| rest.strip_prefix(self.service.as_str())?.strip_prefix('.'));
        index.is_some_and(|index| index.parse() == Ok(self.index))
    }

    fn read(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Instance(text.to_owned());
        let (head, index) = text.rsplit_once('.').ok_or_else(error)?;
        let (app_env, service) = head.rsplit_once('/').ok_or_else(error)?;
        Ok(Self::new(app_env.parse()?, service.parse()?, index.parse().map_err(|_| error())?))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.app_env, self.service, self.index)
    }
}

impl FromStr for Slot {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        read_shared(&RECENT_SLOTS, text)
    }
}
shared_parts!(Slot, SlotParts);
text_form!(Slot, "^[a-z0-9-]+/[a-z0-9-]+@[a-z0-9-]+/[a-z0-9-]+[.][0-9]+$");

/// One container of a release on a node, filling a slot. Written `shop/web@prod/web.0-142`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The slot it fills.
    pub slot: Slot,
    /// Tells successive instances of one slot apart: the seq of the record that assigned it.
    pub serial: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.slot, self.serial)
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Instance(text.to_owned());
        let (slot, serial) = text.rsplit_once('-').ok_or_else(error)?;
        Ok(Self { slot: slot.parse()?, serial: serial.parse().map_err(|_| error())? })
    }
}
text_form!(InstanceId, "^[a-z0-9-]+/[a-z0-9-]+@[a-z0-9-]+/[a-z0-9-]+[.][0-9]+-[0-9]+$");

/// Position of a record in the log, from 1, without gaps. Zero means "before the first".
pub type Seq = u64;

/// A controller's Raft id. Never used again once removed.
pub type ControllerId = u64;

/// Microseconds since 1970-01-01T00:00:00Z. Strictly increasing along the log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Whole milliseconds between `earlier` and this time; zero when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn identifiers_are_read_back_from_their_text() {
        let id: InstanceId = "shop/web@prod/web-1.0-142".parse().unwrap();
        assert_eq!(id.slot.service.as_str(), "web-1");
        assert_eq!((id.slot.index, id.serial), (0, 142));
        assert_eq!(id.to_string(), "shop/web@prod/web-1.0-142");
    }

    #[test]
    fn slots_share_their_memory_and_compare_by_their_parts() {
        let texts =
            ["shop/web@prod/web.0", "shop/web@prod/web.1", "shop/web@prod/web-1.0", "shop/web-1@prod/web.0"];
        let read = |text: &str| text.parse::<Slot>().unwrap();
        for text in texts {
            assert!(Arc::ptr_eq(&read(text).0, &read(text).0), "{text}");
            assert_eq!(Slot::read(text).unwrap().to_string(), text);
            for other in texts {
                let (one, another) = (Slot::read(text).unwrap(), read(other));
                let parts = |slot: &Slot| (slot.app_env.clone(), slot.service.clone(), slot.index);
                assert_eq!(one == another, text == other, "{text} {other}");
                assert_eq!(one.cmp(&another), parts(&one).cmp(&parts(&another)), "{text} {other}");
                assert_eq!(read(text).cmp(&another), one.cmp(&another), "{text} {other}");
                assert_eq!(one.is_written(other), text == other, "{text} {other}");
            }
        }
        // What is read as the same number is the same slot.
        assert!(read("shop/web@prod/web.0").is_written("shop/web@prod/web.00"));
        assert_eq!(read("shop/web@prod/web.00"), read("shop/web@prod/web.0"));
        let many: Vec<String> =
            (0..3 * RECENT_TEXTS_MAX).map(|at| format!("shop/web@prod/web.{at}")).collect();
        assert!(many.iter().all(|text| read(text).to_string() == *text));
        for bad in ["shop/web@prod/web.", "shop/web@prod/web.0x", "shop/web@prod/web", "shop/web@prod/web.-1"]
        {
            assert!(bad.parse::<Slot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn apps_share_their_memory_and_compare_by_their_parts() {
        let texts = ["shop/web@prod", "shop/web@prod-1", "shop/web@pro", "shop/we@prod", "sho/web@prod"];
        let read = |text: &str| text.parse::<AppEnv>().unwrap();
        for text in texts {
            assert!(Arc::ptr_eq(&read(text).0, &read(text).0), "{text}");
            for other in texts {
                let (one, another) = (AppEnv::read(text).unwrap(), read(other));
                assert_eq!(one == another, text == other, "{text} {other}");
                let parts = |app_env: &AppEnv| (app_env.app.clone(), app_env.environment.clone());
                assert_eq!(one.cmp(&another), parts(&one).cmp(&parts(&another)), "{text} {other}");
                assert_eq!(one.is_written(other), text == other, "{text} {other}");
            }
        }
        // The app of a slot is the same one in memory.
        let slot: Slot = "shop/web@prod/web.0".parse().unwrap();
        assert!(Arc::ptr_eq(&slot.app_env.0, &read("shop/web@prod").0));
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "-a", "a-", "A", "a_b", "ä", &"x".repeat(64)] {
            assert!(ProjectName::new(bad).is_err(), "{bad:?}");
        }
        assert!("shop".parse::<AppId>().is_err());
        assert!("shop/web".parse::<AppEnv>().is_err());
        assert!("shop/web/x@prod".parse::<AppEnv>().is_err());
    }
}
