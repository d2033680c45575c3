//! What `stele verify` makes of what controllers sign: somebody stands between it and a whole fleet.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use support::stand_in::StandIn;
use support::{Fleet, Ran, run, spec};

/// Changes an answer, of which it knows the path.
type Forge = fn(&str, Value) -> (u16, Value);

/// Hands on what a fleet answers, and gives its own address for the controller's.
struct Between {
    stand_in: StandIn,
    own: Arc<Mutex<String>>,
}

impl Between {
    fn start(fleet: &Fleet, forge: Forge) -> Self {
        let (address, token) = (fleet.address.clone(), fleet.token.clone());
        let own = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&own);
        let stand_in = StandIn::start(move |path| {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let asked =
                agent.get(format!("{address}{path}")).header("authorization", format!("Bearer {token}"));
            let mut response = asked.call().unwrap();
            let status = response.status().as_u16();
            let mut answer: Value = response.body_mut().read_json().unwrap();
            if path.starts_with("/v1/cluster") {
                answer["controllers"][0]["api"] = told.lock().unwrap().clone().into();
            }
            let (forged, answer) = forge(path, answer);
            (if status == 200 { forged } else { status }, answer.to_string())
        });
        stand_in.address.clone_into(&mut own.lock().unwrap());
        Self { stand_in, own }
    }

    fn verify(&self, fleet: &Fleet, more: &[&str]) -> Ran {
        let asked = ["verify", "--addr", &self.stand_in.address, "--token", &fleet.token];
        run(fleet.home(), &[&asked, more].concat())
    }
}

fn as_it_is(_: &str, answer: Value) -> (u16, Value) {
    (200, answer)
}

fn unsigned(path: &str, answer: Value) -> (u16, Value) {
    match path {
        "/v1/checkpoint" => (
            404,
            json!({"type": "urn:stele:problem:not_found", "title": "", "status": 404, "detail": "none"}),
        ),
        _ => (200, answer),
    }
}

fn badly_signed(path: &str, mut answer: Value) -> (u16, Value) {
    if path == "/v1/checkpoint" {
        // Another root under the same signature.
        let note = answer["note"].as_str().unwrap();
        let mut lines: Vec<_> = note.split('\n').map(str::to_owned).collect();
        lines[2] = lines[2].chars().rev().collect::<String>().replace('=', "A") + "=";
        answer["note"] = lines.join("\n").into();
    }
    (200, answer)
}

#[test]
fn only_what_a_certified_key_signed_vouches_for_a_log() {
    let fleet = Fleet::start();
    fleet.write("web.yaml", &spec(1));
    fleet.run(&["apply", "-f", "web.yaml", "--wait"]).ok();

    let whole = Between::start(&fleet, as_it_is).verify(&fleet, &["-o", "json"]);
    let verified: Value = serde_json::from_str(&whole.ok()).unwrap();
    assert_eq!((&verified["unsigned"], verified["replicas"][0]["root"].is_string()), (&json!(false), true));

    // The address in the log leads nowhere from here: whoever is asked has its checkpoint, too.
    let elsewhere = Between::start(&fleet, as_it_is);
    "http://127.0.0.1:1".clone_into(&mut elsewhere.own.lock().unwrap());
    let verified: Value = serde_json::from_str(&elsewhere.verify(&fleet, &["-o", "json"]).ok()).unwrap();
    assert!(verified["replicas"][0]["root"].is_string(), "{verified}");
    assert_eq!(verified["unheard"], json!([]), "{verified}");

    let without = Between::start(&fleet, unsigned);
    let ran = without.verify(&fleet, &[]);
    assert!(ran.code == 8 && ran.out.contains("unsigned: no controller's signed checkpoint"), "{ran:?}");
    assert!(ran.out.contains("has that State"), "{ran:?}");
    assert_eq!(without.verify(&fleet, &["--print", "-o", "json"]).code, 8);
    assert_eq!(without.verify(&fleet, &["--to", "5"]).code, 0, "nothing is signed of what ends earlier");

    let forged = Between::start(&fleet, badly_signed);
    let ran = forged.verify(&fleet, &[]);
    assert!(ran.code == 7 && ran.err.contains("checkpoint of controller 1"), "{ran:?}");
    let ran = forged.verify(&fleet, &["-o", "json"]);
    assert!(ran.code == 7 && ran.out.contains("checkpoint of controller 1"), "{ran:?}");

    // Signed, and by nobody whom the root that was pinned certified.
    let context = json!({"addresses": [fleet.address], "token": fleet.token, "root": "5b".repeat(32)});
    let contexts = json!({"current": "other", "contexts": {"other": context}});
    std::fs::create_dir_all(fleet.home().join("stele")).unwrap();
    std::fs::write(fleet.home().join("stele/contexts.json"), contexts.to_string()).unwrap();
    let ran = fleet.run(&["verify"]);
    assert!(ran.code == 7 && ran.err.contains("checkpoint of controller 1"), "{ran:?}");
}
