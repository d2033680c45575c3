#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use stele_model::Digest;
use stele_model::release::{Container, InstanceSpec};

use super::*;

const GRACE_MS: u64 = 1_000;

fn image(at: u8) -> Image {
    Image { repository: "registry.example/shop".to_owned(), digest: Digest::of(&[&[at]]) }
}

fn here(at: u8) -> ImageHere {
    ImageHere { names: vec![image(at)], is_tagged: false, is_used: false }
}

fn instance(at: u8) -> AssignedInstance {
    let id: stele_model::InstanceId = format!("shop/web@prod/web.{at}-1").parse().unwrap();
    let container = Container::new(image(at));
    let spec = InstanceSpec { app_env: id.slot.app_env.clone(), service: id.slot.service.clone(), container };
    AssignedInstance { spec_digest: spec.digest(), id, spec, replaces: None }
}

fn policy(keep: impl IntoIterator<Item = u8>) -> ImagePolicy {
    ImagePolicy { seq: 1, keep: Some(keep.into_iter().map(image).collect()), mirror: None }
}

fn pulled(images: impl IntoIterator<Item = u8>) -> PulledImages {
    let mut pulled = PulledImages::default();
    for at in images {
        assert!(pulled.pulls(&image(at)));
        assert!(!pulled.pulls(&image(at)), "it is written down already");
    }
    pulled
}

#[test]
fn only_what_was_not_needed_for_the_whole_grace_goes() {
    let mut images = pulled([1, 2, 3]);
    let present: Vec<_> = (1..5).map(here).collect();
    let (assigned, keep) = ([instance(1)], policy([2]));
    let none: Vec<Image> = Vec::new();
    assert_eq!(images.look(&present, &assigned, Some(&keep), 600, GRACE_MS), none);
    // Nobody pulled 4, 1 runs, 2 is kept.
    assert_eq!(images.look(&present, &assigned, Some(&keep), 600, GRACE_MS), [image(3)]);
    images.removed(&image(3), true);
    assert!(!images.contains(&image(3)));
    assert_eq!(images.look(&present, &assigned, Some(&policy([])), 600, GRACE_MS), none);
    // Needed again in between: the grace begins anew.
    assert_eq!(images.look(&present, &assigned, Some(&keep), 600, GRACE_MS), none);
    assert_eq!(images.look(&present, &assigned, Some(&policy([])), 600, GRACE_MS), none);
    assert_eq!(images.look(&present, &assigned, Some(&policy([])), 600, GRACE_MS), [image(2)]);
    images.removed(&image(2), false);
    assert_eq!(images.look(&present, &assigned, Some(&policy([])), 600, GRACE_MS), none, "tried later");
}

#[test]
fn without_word_on_what_to_keep_nothing_goes_and_the_grace_begins_anew() {
    let mut images = pulled([1]);
    let unsure = ImagePolicy { seq: 1, keep: None, mirror: None };
    let present = [here(1)];
    for policy in [None, Some(&unsure)] {
        assert_eq!(images.look(&present, &[], Some(&self::policy([])), 900, GRACE_MS), Vec::<Image>::new());
        assert_eq!(images.look(&present, &[], policy, 10 * GRACE_MS, GRACE_MS), Vec::<Image>::new());
    }
    assert_eq!(images.look(&present, &[], Some(&self::policy([])), 900, GRACE_MS), Vec::<Image>::new());
}

#[test]
fn what_is_gone_already_is_forgotten_and_what_was_kept_is_read_back() {
    let mut images = pulled([1, 2]);
    images.look(&[here(2)], &[], Some(&policy([])), 5, GRACE_MS);
    let text = serde_json::to_string(&images).unwrap();
    let again: PulledImages = serde_json::from_str(&text).unwrap();
    assert_eq!(again, images);
    assert!(!again.contains(&image(1)) && again.contains(&image(2)));
}

proptest! {
    #[test]
    fn nothing_that_anybody_needs_is_ever_given_up(
        ours in proptest::collection::btree_set(0..8_u8, 0..8),
        rounds in proptest::collection::vec(
            (
                proptest::collection::vec((0..8_u8, any::<bool>(), any::<bool>()), 0..8),
                proptest::collection::btree_set(0..8_u8, 0..4),
                proptest::option::of(proptest::collection::btree_set(0..8_u8, 0..4)),
                0..GRACE_MS,
            ),
            1..12,
        ),
    ) {
        let mut images = pulled(ours.iter().copied());
        // For how long each was seen unneeded without interruption.
        let mut unneeded = [0_u64; 8];
        for (present, assigned, keep, elapsed) in rounds {
            let present: Vec<_> = present
                .into_iter()
                .map(|(at, is_tagged, is_used)| ImageHere { is_tagged, is_used, ..here(at) })
                .collect();
            let assigned: Vec<_> = assigned.into_iter().map(instance).collect();
            let keep = keep.map(policy);
            let given_up = images.look(&present, &assigned, keep.as_ref(), elapsed, GRACE_MS);
            for at in 0..8_u8 {
                let name = image(at);
                let runs = assigned.iter().any(|one| one.spec.container.image == name);
                let kept = keep.as_ref().is_none_or(|it| it.keep.as_ref().unwrap().contains(&name));
                let last = present.iter().rfind(|one| one.names.contains(&name));
                let wanted = last.is_none_or(|one| one.is_tagged || one.is_used);
                let total = &mut unneeded[usize::from(at)];
                *total = if runs || kept || wanted { 0 } else { *total + elapsed };
                let may_go = ours.contains(&at) && *total >= GRACE_MS;
                prop_assert!(may_go || !given_up.contains(&name), "{at} was given up");
            }
        }
    }
}
