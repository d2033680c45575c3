//! Which images a node gives up.
//!
//! Only those that the agent itself pulled, that no container uses, that nobody gave a tag, that
//! the last verified assignment neither runs nor wants kept, and all of this for a grace period.
//! What is not known for sure counts as needed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stele_model::release::Image;
use stele_model::wire::{AssignedInstance, ImagePolicy};

use crate::limits::PULLED_IMAGES_MAX;

/// An image that is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHere {
    /// Every repository it can be named by, with its digest.
    pub names: Vec<Image>,
    /// Whether somebody gave it a tag: then somebody wants it who is not the agent.
    pub is_tagged: bool,
    /// Whether a container is made of it, whoever made that, and whether or not it runs.
    pub is_used: bool,
}

/// An image the agent pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledImage {
    /// Which.
    pub image: Image,
    /// For how long it was seen not to be needed, in milliseconds. Counted while the agent looks,
    /// so that neither a wrong clock nor an agent that was away makes it longer.
    pub unneeded_ms: u64,
}

/// What the agent pulled, as it is kept across its restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PulledImage>", into = "Vec<PulledImage>")]
pub struct PulledImages(BTreeMap<Image, u64>);

impl From<Vec<PulledImage>> for PulledImages {
    fn from(images: Vec<PulledImage>) -> Self {
        Self(images.into_iter().map(|one| (one.image, one.unneeded_ms)).collect())
    }
}

impl From<PulledImages> for Vec<PulledImage> {
    fn from(images: PulledImages) -> Self {
        images.0.into_iter().map(|(image, unneeded_ms)| PulledImage { image, unneeded_ms }).collect()
    }
}

impl PulledImages {
    /// Remembers an image that is about to be pulled. Whether that has to be written down.
    ///
    /// It is remembered before it is pulled: one that was pulled and forgotten would stay for ever.
    pub fn pulls(&mut self, image: &Image) -> bool {
        // An image that is not remembered is never removed, which is the safe side.
        if self.0.len() >= PULLED_IMAGES_MAX && !self.0.contains_key(image) {
            return false;
        }
        self.0.insert(image.clone(), 0) != Some(0)
    }

    /// Whether the agent pulled it, as far as it remembers.
    pub fn contains(&self, image: &Image) -> bool {
        self.0.contains_key(image)
    }

    /// Takes in what is here and what is needed, `elapsed_ms` after the last time; what may be
    /// removed now, that which was not needed for longest first.
    ///
    /// Without an assignment, or with one that does not say what to keep, that is nothing.
    pub fn look(
        &mut self,
        here: &[ImageHere],
        assigned: &[AssignedInstance],
        policy: Option<&ImagePolicy>,
        elapsed_ms: u64,
        grace_ms: u64,
    ) -> Vec<Image> {
        let by_name: BTreeMap<&Image, &ImageHere> =
            here.iter().flat_map(|one| one.names.iter().map(move |name| (name, one))).collect();
        // Somebody else removed it, or it could not be pulled.
        self.0.retain(|image, _| by_name.contains_key(image));
        let Some(keep) = policy.and_then(|policy| policy.keep.as_ref()) else {
            self.0.values_mut().for_each(|unneeded_ms| *unneeded_ms = 0);
            return Vec::new();
        };
        // By content: whatever repository an image was pulled from, its bytes are what is needed.
        let assigned = assigned.iter().map(|instance| &instance.spec.container.image);
        let needed: BTreeSet<_> = assigned.chain(keep).map(|image| image.digest).collect();
        let mut removable = Vec::new();
        for (image, unneeded_ms) in &mut self.0 {
            let is_wanted = by_name.get(image).is_none_or(|one| one.is_tagged || one.is_used);
            if is_wanted || needed.contains(&image.digest) {
                *unneeded_ms = 0;
                continue;
            }
            *unneeded_ms = unneeded_ms.saturating_add(elapsed_ms);
            if *unneeded_ms >= grace_ms {
                removable.push((std::cmp::Reverse(*unneeded_ms), image.clone()));
            }
        }
        removable.sort();
        removable.into_iter().map(|(_, image)| image).collect()
    }

    /// Takes in how removing one went. One that could not be removed is tried again after
    /// another grace period.
    pub fn removed(&mut self, image: &Image, is_gone: bool) {
        if is_gone {
            self.0.remove(image);
        } else if let Some(unneeded_ms) = self.0.get_mut(image) {
            *unneeded_ms = 0;
        }
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
