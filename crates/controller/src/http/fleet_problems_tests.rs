#![allow(clippy::unwrap_used)]

use ed25519_dalek::SigningKey;
use stele_model::Digest;
use stele_model::event::{Holder, Token};
use stele_model::signature::{Certificate, CertificateBody, PublicKey};

use super::*;
use crate::small_fleet::name;

const DAY_US: u64 = 86_400_000_000;

fn link(id: ControllerId, error: Option<&str>) -> PeerStatus {
    let last_error = error.map(str::to_owned);
    PeerStatus { id, address: String::new(), is_connected: last_error.is_none(), last_error }
}

/// What controller 1 sees when all is well.
fn seen(links: Vec<PeerStatus>) -> Seen {
    let (missing, shown) = (Vec::new(), BTreeMap::new());
    Seen { by: 1, links, missing, reaches_nodes: true, shown, disk: None, now: Time(0) }
}

fn of_voters(voters: impl IntoIterator<Item = ControllerId>) -> State {
    let mut state = State::default();
    state.control.voters = voters.into_iter().collect();
    state
}

fn messages(problems: &[ProblemStatus]) -> Vec<&str> {
    problems.iter().map(|problem| problem.message.as_str()).collect()
}

#[test]
fn a_member_that_does_not_answer_is_a_problem() {
    let mut state = of_voters(1..=3);
    assert_eq!(unconnected(&of_voters([1]), &seen(Vec::new())), [], "one alone waits for nobody");
    assert_eq!(unconnected(&state, &seen(vec![link(2, None), link(3, None)])), []);
    // One that is no member any more is nobody's.
    let one_away = seen(vec![link(2, Some("connection refused")), link(3, None), link(4, Some("gone"))]);
    let told = unconnected(&state, &one_away);
    assert_eq!(
        messages(&told),
        [
            "controller 2 does not answer controller 1: connection refused; no other may be lost, or nothing can be \
          changed any more"
        ]
    );
    assert_eq!(told[0].next.as_deref(), Some("stele cluster status"));

    state.control.voters = (1_u64..=5).collect();
    let told =
        unconnected(&state, &seen(vec![link(2, Some("x")), link(3, None), link(4, None), link(5, None)]));
    assert_eq!(
        messages(&told),
        ["controller 2 does not answer controller 1: x; 1 more may be lost before nothing can be changed"]
    );

    state.control.voters = (1_u64..=3).collect();
    state.control.learners = [4_u64].into_iter().collect();
    let told = unconnected(&state, &seen(vec![link(2, Some("x"))]));
    let follows = "without a majority, nothing can be changed";
    assert_eq!(
        messages(&told),
        [
            format!("controller 2 does not answer controller 1: x; {follows}"),
            format!("controller 3 does not answer controller 1: where it is is not known; {follows}"),
            "controller 4 does not answer controller 1: where it is is not known; it does not vote"
                .to_owned(),
        ]
    );
}

#[test]
fn records_that_are_missing_are_a_problem() {
    let mut seen = seen(Vec::new());
    assert_eq!(lacking(&seen), []);
    let missing = |from, to, is_lost| Missing { from, to, is_lost };
    seen.missing = vec![
        missing(1, 9, true),
        missing(20, 29, false),
        missing(40, 40, false),
        missing(50, 59, false),
        missing(70, 79, false),
    ];
    assert_eq!(
        messages(&lacking(&seen)),
        [
            "controller 1 lacks records: 20 to 29, 40 to 40, 50 to 59, 1 more. It fetches them from the others, \
             as far as they have them",
            "no controller has these records any more: 1 to 9",
        ]
    );
}

#[test]
fn a_controller_without_nats_is_a_problem() {
    let mut seen = seen(Vec::new());
    assert_eq!(fleet_problems(&of_voters([1]), &seen), [], "all is well");
    seen.reaches_nodes = false;
    let told = fleet_problems(&of_voters([1]), &seen);
    assert!(told[0].message.starts_with("controller 1 is not connected to NATS:"), "{told:?}");
    assert_eq!(told.len(), 1);
}

#[test]
fn a_disk_that_gets_full_is_a_problem() {
    let mut seen = seen(Vec::new());
    seen.disk = Some(("/srv/data".to_owned(), Space { free_bytes: 3 << 30, total_bytes: 20 << 30 }));
    assert_eq!(full_disk(&seen), None);
    seen.disk = Some(("/srv/data".to_owned(), Space { free_bytes: 1 << 30, total_bytes: 20 << 30 }));
    let told = full_disk(&seen).unwrap();
    assert!(
        told.message.starts_with("the disk of controller 1 gets full: 1.0 of 20.0 GiB are free."),
        "{told:?}"
    );
    assert_eq!(told.next.as_deref(), Some("df -h /srv/data"));
}

#[test]
fn the_end_of_the_last_administrator_is_a_problem_in_time() {
    let mut state = State::default();
    assert_eq!(last_administrator(&state, Time(0)), None, "before the fleet is founded there is none");
    let mut give = |who: &str, role, days| {
        let hash = Digest::of(&[who.as_bytes()]);
        let token =
            Token { principal: name(who), hash, role, holder: Holder::Person, expires: in_days(days) };
        state.control.tokens.insert(name(who), token);
        state.clone()
    };
    let warned = TOKEN_WARNING.as_secs() / 86_400;
    give("ci", Role::Deployer, 1000);
    give("dana", Role::Admin, 100);
    let state = give("admin", Role::Admin, 200);
    assert_eq!(last_administrator(&state, in_days(200 - warned - 1)), None);
    let told = last_administrator(&state, in_days(200 - warned)).unwrap();
    assert!(
        told.message.starts_with("the last administrator's token ends on 1970-07-20 (that of admin):"),
        "{told:?}"
    );
    assert_eq!(told.next.as_deref(), Some("stele token create NAME --role admin"));
    let told = last_administrator(&state, in_days(201)).unwrap();
    assert!(told.message.starts_with("the last administrator's token ended on 1970-07-20"), "{told:?}");
}

/// A fleet's controllers, whose certificates end so many days after the beginning.
fn certified(until: &[(ControllerId, u64)]) -> State {
    let mut state = State::default();
    for (id, days) in until {
        let body = CertificateBody {
            fleet: name("demo"),
            controller: *id,
            key: PublicKey("33".repeat(32)),
            not_before: Time(0),
            not_after: in_days(*days),
        };
        let certificate = Certificate::issue(&SigningKey::from_bytes(&[1; 32]), body);
        let controller = Controller { certificate, api: String::new(), peer: String::new() };
        state.control.controllers.insert(*id, controller);
    }
    state
}

fn in_days(days: u64) -> Time {
    Time(days * DAY_US)
}

#[test]
fn certificates_that_end_soon_are_a_problem_in_time() {
    let warned = CERTIFICATE_WARNING.as_secs() / 86_400;
    let state = certified(&[(1, 1_000), (2, 2_000), (3, 2_000)]);
    // Nothing is known of the connections of controller 2, which is away.
    let shown = BTreeMap::from([(1, in_days(2_000)), (3, in_days(1_500)), (4, in_days(1))]);
    let told = |day: u64| certificates(&state, &shown, in_days(day));
    assert_eq!(told(1_000 - warned), []);
    let soon = told(1_001 - warned);
    let [problem] = soon.as_slice() else { panic!("{soon:?}") };
    let said = &problem.message;
    assert!(
        said.starts_with("controller 1 needs new certificates: that for its signatures ends on 1972-09-27."),
        "{said}"
    );
    assert!(problem.next.as_deref().unwrap().starts_with("stele controller renew --config "), "{problem:?}");
    assert_eq!(problem.scope, Scope::fleet());

    // Each of the two counts, and one that has ended all the more.
    let said = |day| -> Vec<String> {
        let ends =
            |it: ProblemStatus| it.message.split(": ").nth(1).unwrap().split('.').next().unwrap().into();
        told(day).into_iter().map(ends).collect()
    };
    assert_eq!(
        said(1_501 - warned),
        ["that for its signatures ended on 1972-09-27", "that for its connections ends on 1974-02-09",]
    );
    assert_eq!(said(1_999).len(), 3);
    assert_eq!(
        said(1_999)[2],
        "that for its signatures ends on 1975-06-24, that for its connections ended on 1974-02-09"
    );
}
