//! Contexts: which fleet is talked to, and as whom. Kept in `$XDG_CONFIG_HOME/stele/contexts.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stele_model::signature::PublicKey;

use crate::client::origin;
use crate::exit::Failure;

/// One fleet, and who we are there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// Controllers, tried in this order.
    pub(crate) addresses: Vec<String>,
    /// The bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// PEM of the authority behind `https` addresses; the system's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_root: Option<String>,
    /// The fleet root's public key, pinned when the context was made: what certifies controllers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<PublicKey>,
}

impl Context {
    /// Whether these are its own addresses: some or all of them, in any order. None are nobody's.
    pub(crate) fn has_addresses(&self, addresses: &[String]) -> bool {
        !addresses.is_empty() && origins(addresses).is_subset(&origins(&self.addresses))
    }
}

fn origins(addresses: &[String]) -> BTreeSet<String> {
    addresses.iter().map(|address| origin(address)).collect()
}

/// All contexts.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// The one used unless another is named.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Where they are kept.
    pub(crate) fn path() -> Result<PathBuf, Failure> {
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".config")))
            .ok_or_else(|| Failure::Usage("neither XDG_CONFIG_HOME nor HOME is set".to_owned()))?;
        Ok(config.join("stele/contexts.json"))
    }

    /// Reads them; none are there before the first login.
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = Self::path()?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::Failed(format!("cannot read {}: {error}", path.display()))),
        };
        serde_json::from_slice(&text)
            .map_err(|error| Failure::Usage(format!("{} is damaged: {error}", path.display())))
    }

    /// Writes them, readable by their owner alone, all or nothing.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = Self::path()?;
        let fail =
            |error: std::io::Error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::Failed(format!("cannot write contexts: {error}")))?;
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail)?;
        std::fs::rename(&temporary, &path).map_err(fail)
    }

    /// The context whose addresses these are. A context's token is for its own addresses: one that has
    /// not all of them is not meant. Of several it is the current one, else one that has no others, else
    /// the first by name.
    pub(crate) fn with_addresses(&self, addresses: &[String]) -> Option<&Context> {
        let current = self.current.as_ref().and_then(|name| self.contexts.get(name));
        let fitting = || self.contexts.values().filter(|context| context.has_addresses(addresses));
        current
            .filter(|context| context.has_addresses(addresses))
            .or_else(|| fitting().find(|context| origins(&context.addresses) == origins(addresses)))
            .or_else(|| fitting().next())
    }

    /// The context named, or else the current one.
    pub(crate) fn select(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        self.contexts.get(name).map(Some).ok_or_else(|| {
            let known: Vec<_> = self.contexts.keys().cloned().collect();
            Failure::Usage(format!(
                "there is no context {name:?}; known: {}\n  next: stele login --name {name} --addr ADDRESS",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })
    }
}

/// Saves a context and makes it the current one.
pub(crate) fn remember(name: &str, context: Context) -> Result<(), Failure> {
    let mut contexts = Contexts::load()?;
    contexts.contexts.insert(name.to_owned(), context);
    contexts.current = Some(name.to_owned());
    contexts.save()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn contexts(current: &str) -> Contexts {
        let context = |token: &str, addresses: &[&str]| Context {
            addresses: texts(addresses),
            token: Some(token.to_owned()),
            tls_root: None,
            root: None,
        };
        let three = &["http://127.0.0.1:7400", "127.0.0.1:7402", "http://127.0.0.1:7404/"];
        let all = [
            ("a-wide", context("wide", &["https://c1.example", "https://c2.example", "https://c3.example"])),
            ("b-exact", context("exact", &["https://c1.example", "https://c2.example"])),
            ("dev", context("dev", three)),
        ];
        let contexts = all.into_iter().map(|(name, context)| (name.to_owned(), context)).collect();
        Contexts { current: Some(current.to_owned()), contexts }
    }

    fn token(contexts: &Contexts, addresses: &[&str]) -> Option<String> {
        contexts.with_addresses(&texts(addresses)).and_then(|context| context.token.clone())
    }

    #[test]
    fn a_token_is_for_any_of_its_context_s_addresses() {
        let contexts = contexts("none");
        let dev = Some("dev".to_owned());
        assert_eq!(token(&contexts, &["http://127.0.0.1:7404"]), dev);
        assert_eq!(token(&contexts, &["127.0.0.1:7404", "http://127.0.0.1:7400/"]), dev);
        assert_eq!(token(&contexts, &[" http://127.0.0.1:7402"]), dev);
    }

    #[test]
    fn a_token_goes_to_no_other_address() {
        let contexts = contexts("dev");
        for others in [
            &[][..],
            &["http://127.0.0.1:7401"],
            &["http://127.0.0.1:7400", "http://127.0.0.1:7401"],
            &["https://127.0.0.1:7400"],
            &["http://c1.example"],
            &["https://c1.example.evil.example"],
            &["https://c1.example", "http://127.0.0.1:7400"],
        ] {
            assert_eq!(token(&contexts, others), None, "{others:?}");
        }
    }

    #[test]
    fn of_several_contexts_the_current_one_is_meant() {
        let both = ["https://c2.example", "https://c1.example"];
        assert_eq!(token(&contexts("a-wide"), &both), Some("wide".to_owned()));
        assert_eq!(token(&contexts("b-exact"), &["https://c1.example"]), Some("exact".to_owned()));
        assert_eq!(token(&contexts("dev"), &both), Some("exact".to_owned()));
        assert_eq!(token(&contexts("dev"), &["https://c1.example"]), Some("wide".to_owned()));
    }
}
