//! Short texts that are met again and again: kept once, and compared by where they are before by what they say.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use arcstr::ArcStr;

use crate::limits::RECENT_TEXTS_MAX;

/// A text that shares its memory with equal ones made lately by the same thread.
///
/// A record that places five hundred instances names their app five hundred times, and State keeps each of
/// those names for as long as the instance is there: so it takes one word, where `Arc<str>` takes two.
#[derive(Clone)]
pub(crate) struct SharedText(ArcStr);

thread_local! {
    // Bounded, and forgetful: where two texts want the same place, the later one has it. So nobody fills the
    // memory with names, and nothing is locked.
    static RECENT: RefCell<Vec<Option<ArcStr>>> = const { RefCell::new(Vec::new()) };
}

/// Where a text is remembered, if it is. FNV-1a, 64 bits (Fowler, Noll, Vo): the texts are short, and nothing but
/// speed depends on it.
pub(crate) fn cell_of(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Names that follow each other differ in their last bytes, which have reached few bits by then. Multiplied by
    // 2^64 over the golden ratio (Knuth, volume 3, section 6.4), the upper half depends on all of them.
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % RECENT_TEXTS_MAX
}

impl SharedText {
    pub(crate) fn new(text: &str) -> Self {
        let shared = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            recent.resize(RECENT_TEXTS_MAX, None);
            let present = &mut recent[cell_of(text)];
            match present {
                Some(present) if present == text => present.clone(),
                _ => present.insert(text.into()).clone(),
            }
        });
        // A thread that is about to end has forgotten all.
        Self(shared.unwrap_or_else(|_| text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for SharedText {
    fn eq(&self, other: &Self) -> bool {
        ArcStr::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for SharedText {}

impl PartialOrd for SharedText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SharedText {
    fn cmp(&self, other: &Self) -> Ordering {
        if ArcStr::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Hash for SharedText {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_texts_share_their_memory() {
        let (one, other) = (SharedText::new("web"), SharedText::new("web"));
        assert!(ArcStr::ptr_eq(&one.0, &other.0));
    }

    #[test]
    fn texts_that_follow_each_other_have_places_of_their_own() {
        for shape in ["eu-", "shop/web@prod/web.", "n", "shop/web@prod/web-1.0-1"] {
            let places: BTreeSet<usize> =
                (0..RECENT_TEXTS_MAX / 4).map(|at| cell_of(&format!("{shape}{at}"))).collect();
            // By chance, 0.88 of them had one.
            assert!(places.len() > RECENT_TEXTS_MAX / 5, "{shape}: {}", places.len());
        }
    }

    #[test]
    fn more_texts_than_are_remembered_are_each_themselves() {
        let texts: Vec<String> = (0..3 * RECENT_TEXTS_MAX).map(|at| format!("n-{at}")).collect();
        let shared: Vec<SharedText> = texts.iter().map(|text| SharedText::new(text)).collect();
        assert!(texts.iter().zip(&shared).all(|(text, shared)| text == shared.as_str()));
        RECENT.with(|recent| assert_eq!(recent.borrow().len(), RECENT_TEXTS_MAX));
    }

    proptest! {
        #[test]
        fn they_compare_as_their_texts_do(one in "[ab]{0,3}", other in "[ab]{0,3}") {
            let fresh = SharedText(one.as_str().into());
            let (shared, others) = (SharedText::new(&one), SharedText::new(&other));
            prop_assert_eq!(shared.cmp(&others), one.cmp(&other));
            prop_assert_eq!(shared == others, one == other);
            prop_assert_eq!(shared.cmp(&fresh), Ordering::Equal);
            prop_assert!(shared == fresh);
        }
    }
}
