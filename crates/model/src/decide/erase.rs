//! Destroying a subject's data keys, so that what they sealed is unreadable for ever.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::limits::{ERASED_SUBJECTS_MAX, SUBJECT_BYTES_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::{EnvValue, InstanceSpec, Release};
use crate::state::{History, State};
use crate::value::{Sealed, Value, is_subject};

pub(super) fn erase(state: &State, subject: &str, even_in_use: bool) -> Result<Vec<Event>, Rejection> {
    if !is_subject(subject) {
        return Err(Rejection::new(
            RejectionKind::Invalid,
            format!("a subject is 1 to {SUBJECT_BYTES_MAX} bytes of text"),
        ));
    }
    let through = state.key_version(subject);
    let in_use = state.uses_of(subject);
    if !in_use.is_empty() && !even_in_use {
        return Err(Rejection::new(
            RejectionKind::Conflict,
            format!("what is sealed for {subject} is in use: its containers could not be made again"),
        )
        .with_details(in_use.into_iter().collect())
        .with_next(format!("deploy without these values, or: stele erase {subject} --even-in-use")));
    }
    if !state.control.erased.contains_key(subject) && state.control.erased.len() >= ERASED_SUBJECTS_MAX {
        return Err(Rejection::new(
            RejectionKind::TooLarge,
            format!("keys of {ERASED_SUBJECTS_MAX} subjects are destroyed already"),
        ));
    }
    Ok(vec![Event::SubjectErased { subject: subject.to_owned(), through }])
}

impl State {
    /// The version of the key that seals for a subject from now on: one after those destroyed.
    pub fn key_version(&self, subject: &str) -> u32 {
        self.control.erased.get(subject).map_or(1, |through| through.saturating_add(1))
    }

    /// Whether the key that sealed a value is destroyed.
    pub fn is_erased(&self, sealed: &Sealed) -> bool {
        self.control.erased.get(&sealed.subject).is_some_and(|through| sealed.key_version <= *through)
    }

    /// Whether a value in the log is sealed under a key: a release's, a config bundle's or a secret. It looks through
    /// all of them.
    pub fn has_sealed(&self, subject: &str, version: u32) -> bool {
        self.sealed().any(|sealed| sealed.key_version == version && sealed.subject == subject)
    }

    /// The keys that such values are sealed under, but for those destroyed: subject and version. It looks through all
    /// of them.
    pub fn sealing_keys(&self) -> BTreeSet<(String, u32)> {
        let readable = self.sealed().filter(|sealed| !self.is_erased(sealed));
        readable.map(|sealed| (sealed.subject.clone(), sealed.key_version)).collect()
    }

    fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        let History { releases, configs, secrets, .. } = &self.history;
        let in_releases = releases.values().flat_map(|record| sealed_of(&record.release));
        let in_configs = configs.values().flat_map(|config| config.values().filter_map(Value::sealed));
        in_releases.chain(in_configs).chain(secrets.values())
    }

    /// Readable values sealed for a subject that containers have, or should have.
    fn uses_of(&self, subject: &str) -> BTreeSet<String> {
        let intent = self.target.intent.iter().map(|(app_env, to)| (app_env, to.as_ref()));
        let pinned = self.target.pins.iter().filter_map(|((app_env, _), pin)| match pin.as_ref() {
            crate::event::Pin::Revision(revision) => Some((app_env, revision)),
            crate::event::Pin::Absent => None,
        });
        let assigned = self.assigned.values().flat_map(|assigned| assigned.instances.iter());
        // Of the revision that an instance was made of, its own service alone still runs for certain.
        let assigned =
            assigned.map(|(id, to)| (&id.slot.app_env, to.revision.as_ref(), Some(&id.slot.service)));
        let should_be = intent.chain(pinned).map(|(app_env, revision)| (app_env, revision, None));
        let mut seen = BTreeSet::new();
        let mut uses = BTreeSet::new();
        for (app_env, revision, only) in should_be.chain(assigned) {
            // A thousand instances of one revision are one use.
            if !seen.insert((app_env, revision.release, revision.config, &revision.secrets, only)) {
                continue;
            }
            let Some(record) = self.history.releases.get(&revision.release) else { continue };
            let services = record.release.services.keys();
            for service in services.filter(|service| only.is_none_or(|only| only == *service)) {
                let Some(spec) = self.instance_spec(app_env, revision, service) else { continue };
                for (name, sealed) in sealed_in(&spec) {
                    if sealed.subject == subject && !self.is_erased(sealed) {
                        uses.insert(format!("{app_env}: {name} of service {service}"));
                    }
                }
            }
        }
        uses
    }
}

/// A value sealed by a key that was destroyed meanwhile would be lost before it was ever read.
pub(super) fn check_readable<'a>(
    state: &State,
    values: impl IntoIterator<Item = &'a Sealed>,
) -> Result<(), Rejection> {
    match values.into_iter().find(|sealed| state.is_erased(sealed)) {
        None => Ok(()),
        Some(sealed) => Err(Rejection::new(
            RejectionKind::Conflict,
            format!("the key that sealed a value for {} was destroyed just now", sealed.subject),
        )
        .with_next("try again: there is a new key")),
    }
}

/// The sealed values of a release.
pub(super) fn sealed_of(release: &Release) -> impl Iterator<Item = &Sealed> {
    release.services.values().flat_map(|service| {
        let files = service.container.files.values().map(|file| &file.content);
        service.container.env.values().chain(files).filter_map(|value| match value {
            EnvValue::Value(Value::Sealed(sealed)) => Some(sealed),
            _ => None,
        })
    })
}

/// The sealed values of a container: variables by name and files by path.
pub(super) fn sealed_in(spec: &InstanceSpec) -> impl Iterator<Item = (&String, &Sealed)> {
    let env = spec.container.env.iter();
    let files = spec.container.files.iter().map(|(path, file)| (path, &file.content));
    env.chain(files).filter_map(|(name, value)| match value {
        EnvValue::Value(Value::Sealed(sealed)) => Some((name, sealed)),
        _ => None,
    })
}
