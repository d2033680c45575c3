//! What holds for the packs of any log.

use proptest::prelude::*;
use stele_model::signature::public_key;
use stele_proof::pack::{Regions, Section, Trust, Witnessed, touches, verify};

use crate::evidence::{Kept, key, trust, verified};
use crate::random_log::Step;

const SCOPES: [&str; 8] = [
    "fleet",
    "project:shop",
    "env:prod",
    "shop/web",
    "shop/web@prod",
    "region:eu",
    "node:us-1",
    "shop/web@prod,region:eu",
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..3, 0_u8..4, 0_u8..3).prop_map(|(app, image, replicas)| Step::Deploy {
            app,
            image,
            replicas
        }),
        (0_usize..3, 0_u8..3).prop_map(|(app, value)| Step::SetConfig { app, value }),
        (0_usize..3, 1_u32..3).prop_map(|(app, steps)| Step::Rollback { app, steps }),
        (0_usize..3, 0_usize..4, 1_u32..3).prop_map(|(app, part, steps)| Step::RollbackPart {
            app,
            part,
            steps
        }),
        (0_usize..3).prop_map(|back| Step::Undo { back }),
        (0_usize..3).prop_map(|app| Step::Remove { app }),
        (0_usize..3).prop_map(|node| Step::Enrol { node }),
        (0_usize..3).prop_map(|node| Step::RemoveNode { node }),
        Just(Step::Conduct),
        any::<bool>().prop_map(|failing| Step::Report { failing }),
        Just(Step::RecordDigest),
        Just(Step::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pack_of_any_part_of_any_log_is_verified(
        steps in proptest::collection::vec(step(), 0..40),
        scope in 0..SCOPES.len(),
        ends in any::<[prop::sample::Index; 2]>(),
        sizes in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let kept = Kept::of(&steps);
        let count = kept.records.len();
        let mut range = ends.map(|end| end.index(count) + 1);
        range.sort_unstable();
        let [first, last] = range;
        let mut checkpoints = vec![kept.cosigned(last + (count - last) / 2, 1)];
        checkpoints.extend(sizes.iter().map(|size| kept.signed(size.index(count) + 1, 2)));
        let pack = kept.pack(&kept.contents(SCOPES[scope], (first, last), checkpoints));
        let seen = verified(&pack);
        prop_assert_eq!((seen.first, seen.last), (first as u64, last as u64));
        prop_assert_eq!(seen.witnessed, Witnessed::Whole);
        prop_assert_eq!(seen.not_decoded, vec![]);
        // Without the witness, nobody vouches that there is no other log.
        let alone = verify(&pack, &Trust { witnesses: vec![], ..trust() }).unwrap();
        prop_assert_eq!(alone.witnessed, Witnessed::UpTo(0));
        // Nor is another root's fleet this one.
        let other = verify(&pack, &Trust { root: public_key(&key(3)), ..trust() }).unwrap_err();
        prop_assert!(other.why.contains("root key"), "{}", other);
        // Where no region matters, which payloads are there can be told beforehand; and of a range that begins later,
        // since whoever makes the pack could leave out what enrolled a node.
        let scope: stele_model::Scope = SCOPES[scope].parse().unwrap();
        if scope.region.is_none() || first > 1 {
            let of_scope = kept.headers[first - 1..last]
                .iter()
                .filter(|header| touches(&scope, &Regions::new(), &header.kind, &header.scopes));
            prop_assert_eq!(seen.payloads, of_scope.count());
        }
    }
}

#[test]
fn a_witness_vouches_only_for_what_it_saw() {
    let kept = Kept::busy();
    let count = kept.records.len();
    let checkpoints = vec![kept.cosigned(20, 1), kept.signed(count, 2)];
    let pack = kept.pack(&kept.contents("fleet", (10, 30), checkpoints));
    assert_eq!(verified(&pack).witnessed, Witnessed::UpTo(20));
}

/// A later version's records are proved by a program that cannot read them.
#[test]
fn what_is_not_understood_is_proved_all_the_same() {
    let mut kept = Kept::busy();
    kept.make_unknown("refused");
    let count = kept.records.len();
    let pack = kept.pack(&kept.contents("shop/web@prod", (1, count), vec![kept.cosigned(count, 1)]));
    let seen = verified(&pack);
    assert_eq!(seen.witnessed, Witnessed::Whole);
    let [unknown] = seen.not_decoded.as_slice() else { panic!("{:?}", seen.not_decoded) };
    assert_eq!((unknown.kind.as_str(), unknown.schema), ("xefused", 1));
    assert!(seen.report.contains("xefused"), "{}", seen.report);
}

#[test]
fn the_report_says_what_happened_to_whom_by_whom_and_why() {
    let kept = Kept::busy();
    let count = kept.records.len();
    let pack = kept.pack(&kept.contents("shop/web@prod", (1, count), vec![kept.signed(count, 1)]));
    let seen = verified(&pack);
    let report = &seen.report;
    assert!(report.starts_with("Evidence pack of fleet demo\nscope shop/web@prod\n"), "{report}");
    let digests = kept.headers.iter().filter(|header| header.kind == "state_digest_recorded").count();
    assert_eq!(seen.state_digests.len(), digests);
    let releases = report.split("Releases in force\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let changes =
        kept.headers.iter().filter(|it| it.kind == "target_changed" && it.scopes == ["shop/web@prod"]);
    assert_eq!(releases.lines().count(), changes.count());
    // What nodes report together may be of other apps, too.
    let others = report.lines().filter(|line| line.contains("blog/site@prod"));
    others.for_each(|line| assert!(line.contains("shop/web@prod"), "{line}"));
    assert!(!releases.contains("blog/site@prod"), "{report}");
    assert!(report.contains("by anna because \"it is \\\"slow\\\",\\nthey say"), "{report}");
    assert!(report.contains("because (sealed) ticket OPS-1 commit \"\" ci_run"), "{report}");
}

#[test]
fn a_pack_that_could_prove_nothing_is_not_made() {
    let kept = Kept::busy();
    let trusts = |contents: &stele_proof::pack::Contents| verify(&kept.pack(contents), &trust());
    // No checkpoint reaches the end of the range.
    let error = trusts(&kept.contents("fleet", (5, 30), vec![kept.signed(29, 1)])).unwrap_err();
    assert_eq!(error.section, Section::Checkpoints);
    // Nothing says whose keys to believe.
    let mut contents = kept.contents("fleet", (20, 30), vec![kept.signed(40, 1)]);
    contents.others.clear();
    let error = trusts(&contents).unwrap_err();
    assert!(error.why.contains("fleet_created"), "{error}");
}
