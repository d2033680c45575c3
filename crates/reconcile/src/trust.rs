//! Whose signature a node believes.

use std::collections::BTreeMap;

use stele_model::ids::ControllerId;
use stele_model::limits::REMOVED_CONTROLLERS_MAX;
use stele_model::signature::{Certificate, PublicKey, Purpose, SignatureError};
use stele_model::wire::{OpenError, RemovedControllers, Signed};
use stele_model::{FleetName, NodeName, Time};

/// What the agent was told when it was enrolled, and never learns from the wire.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The fleet's root key.
    pub root: PublicKey,
    /// The fleet.
    pub fleet: FleetName,
    /// The agent's own node.
    pub node: NodeName,
}

/// Which controllers the agent believes: those the root vouches for, but for those that were removed since.
#[derive(Clone, Debug)]
pub struct Trust {
    pinned: Pinned,
    /// Removed controllers, and until when the root vouched for the one that was meant.
    removed: BTreeMap<ControllerId, Time>,
    /// What was said of them last: it is said again and again.
    said: Option<RemovedControllers>,
}

impl Trust {
    /// What was pinned, and which controllers were removed as far as this is known.
    pub fn new(pinned: Pinned, removed: BTreeMap<ControllerId, Time>) -> Self {
        Self { pinned, removed, said: None }
    }

    /// What was pinned.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// The removed controllers, to be kept.
    pub fn removed(&self) -> &BTreeMap<ControllerId, Time> {
        &self.removed
    }

    /// Believes a controller or says why not. `now` is the wall clock if it can be trusted; without it the
    /// certificate's validity period is not checked.
    pub fn check(&self, controller: &Certificate, now: Option<Time>) -> Result<(), SignatureError> {
        controller.check(&self.pinned.root, &self.pinned.fleet, now)?;
        let body = &controller.body;
        match self.removed.get(&body.controller) {
            Some(removed) if body.not_before <= *removed => Err(SignatureError::Removed(body.controller)),
            _ => Ok(()),
        }
    }

    /// Believes what a controller says of removed ones. Answers whether something is to be kept that was not before.
    ///
    /// Nobody is ever believed again: a controller that knows of fewer is behind, or was restored from a backup. A
    /// stolen key can name others, as it can assign whatever it likes, until it is removed itself.
    pub fn learn(&mut self, signed: &Signed, now: Option<Time>) -> Result<bool, OpenError> {
        let told: RemovedControllers = signed.peek()?;
        if self.said.as_ref().is_some_and(|said| said.controllers == told.controllers) {
            return Ok(false);
        }
        self.check(&told.controller, now)?;
        signed.verify(&told.controller.body.key, Purpose::Removed)?;
        if told.fleet != self.pinned.fleet {
            let expected = self.pinned.fleet.clone();
            return Err(SignatureError::Fleet { found: told.fleet, expected }.into());
        }
        let before = self.removed.clone();
        for id in &told.controllers {
            let removed = self.removed.entry(*id).or_insert(told.at);
            *removed = told.at.max(*removed);
        }
        while self.removed.len() > REMOVED_CONTROLLERS_MAX {
            self.removed.pop_first();
        }
        self.said = Some(told);
        Ok(self.removed != before)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ed25519_dalek::SigningKey;
    use stele_model::signature::{CertificateBody, public_key};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn certificate(controller: ControllerId, not_before: u64) -> Certificate {
        let body = CertificateBody {
            fleet: "acme".parse().unwrap(),
            controller,
            key: public_key(&key(u8::try_from(controller).unwrap())),
            not_before: Time(not_before),
            not_after: Time(1_000),
        };
        Certificate::issue(&key(9), body)
    }

    fn trust() -> Trust {
        let pinned = Pinned {
            root: public_key(&key(9)),
            fleet: "acme".parse().unwrap(),
            node: "eu-1".parse().unwrap(),
        };
        Trust::new(pinned, BTreeMap::new())
    }

    /// What a controller says.
    fn said(by: ControllerId, controllers: &[ControllerId], at: u64) -> Signed {
        let told = RemovedControllers {
            fleet: "acme".parse().unwrap(),
            controllers: controllers.iter().copied().collect(),
            at: Time(at),
            controller: certificate(by, 10),
        };
        Signed::new(&key(u8::try_from(by).unwrap()), Purpose::Removed, &told)
    }

    const NOW: Option<Time> = Some(Time(500));

    #[test]
    fn a_removed_controller_is_not_believed_any_more() {
        let mut trust = trust();
        trust.check(&certificate(2, 10), NOW).unwrap();
        assert!(trust.learn(&said(1, &[2], 100), NOW).unwrap());
        assert_eq!(trust.check(&certificate(2, 10), NOW), Err(SignatureError::Removed(2)));
        trust.check(&certificate(1, 10), NOW).unwrap();
        // Nor does it get to say so of others.
        let refused = trust.learn(&said(2, &[1], 200), NOW).unwrap_err();
        assert!(matches!(refused, OpenError::Signature(SignatureError::Removed(2))), "{refused}");
        trust.check(&certificate(1, 10), NOW).unwrap();
    }

    #[test]
    fn nothing_is_learned_twice_and_nothing_forgotten() {
        let mut trust = trust();
        assert!(trust.learn(&said(1, &[2, 3], 100), NOW).unwrap());
        assert!(!trust.learn(&said(1, &[2, 3], 200), NOW).unwrap(), "it is said again and again");
        assert!(!trust.learn(&said(1, &[], 300), NOW).unwrap(), "it knows less");
        assert_eq!(trust.removed().len(), 2);
        let mut again = Trust::new(trust.pinned().clone(), trust.removed().clone());
        assert_eq!(again.check(&certificate(3, 10), NOW), Err(SignatureError::Removed(3)));
        // It is the same set, but who starts cannot know since when.
        assert!(again.learn(&said(1, &[2, 3], 400), NOW).unwrap());
    }

    #[test]
    fn what_the_root_signs_later_is_another_controller() {
        let mut trust = trust();
        trust.learn(&said(1, &[2], 100), NOW).unwrap();
        trust.check(&certificate(2, 101), NOW).unwrap();
        trust.learn(&said(1, &[], 200), NOW).unwrap();
        trust.learn(&said(1, &[2], 300), NOW).unwrap();
        assert_eq!(trust.check(&certificate(2, 101), NOW), Err(SignatureError::Removed(2)));
    }

    #[test]
    fn a_renewed_certificate_is_believed_as_the_old_one_was() {
        let old = certificate(2, 10);
        let body = CertificateBody { not_after: Time(5_000), ..old.body.clone() };
        let renewed = Certificate::issue(&key(9), body);
        let mut trust = trust();
        // What was sent before the renewal may come after it.
        for believed in [&old, &renewed, &old] {
            trust.check(believed, NOW).unwrap();
        }
        let later = Some(Time(1_001));
        assert_eq!(trust.check(&old, later), Err(SignatureError::Expired(2)));
        trust.check(&renewed, later).unwrap();
        // It is no other controller: removed, it stays so, whenever it was renewed.
        assert!(trust.learn(&said(1, &[2], 100), NOW).unwrap());
        assert_eq!(trust.check(&renewed, NOW), Err(SignatureError::Removed(2)));
    }

    #[test]
    fn only_a_believed_controller_is_listened_to() {
        let mut trust = trust();
        let forged =
            Signed::new(&key(5), Purpose::Removed, &said(1, &[2], 1).peek::<RemovedControllers>().unwrap());
        trust.learn(&forged, NOW).unwrap_err();
        let other = Signed::new(
            &key(1),
            Purpose::Assignment,
            &said(1, &[2], 1).peek::<RemovedControllers>().unwrap(),
        );
        trust.learn(&other, NOW).unwrap_err();
        trust.learn(&Signed { body: "{}".to_owned(), ..forged }, NOW).unwrap_err();
        assert!(trust.removed().is_empty());
    }
}
