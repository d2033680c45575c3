//! The CLI against a whole fleet: a change, a look at it, and the way back.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{Fleet, image, spec};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_release_is_deployed_and_rolled_back_exactly() {
    let fleet = Fleet::start();
    fleet.write("web.yaml", &spec(1));
    fleet.write("elsewhere.yaml", &spec(1).replace("shop/web\n", "shop/elsewhere\n"));

    let plan = fleet.run(&["apply", "-f", "web.yaml", "--plan"]).ok();
    assert!(plan.contains("+ services.web: registry.example.com/shop/web@sha256:"), "{plan}");
    let status = json(&fleet.run(&["status", "-o", "json"]).ok());
    assert_eq!(status["apps"], json("[]"), "a plan changes nothing");

    fleet.run(&["apply", "-f", "web.yaml", "--wait", "--reason", "first", "--ticket", "T-1"]).ok();
    let again = fleet.run(&["apply", "-f", "web.yaml"]).ok();
    assert!(again.contains("nothing had to change"), "{again}");
    let v1 = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());

    fleet.run(&["deploy", "shop/web@prod", "--image", &image(2), "--wait"]).ok();
    let status = json(&fleet.run(&["status", "shop/web@prod", "-o", "json"]).ok());
    assert_eq!(status["apps"][0]["condition"], "converged");
    assert_eq!(status["apps"][0]["release"], 2);
    assert_eq!(status["apps"][0]["services"][0]["healthy"], 2);

    let candidates = json(&fleet.run(&["rollback", "shop/web@prod", "-o", "json"]).ok());
    assert_eq!(candidates["candidates"][0]["to"], "v1");
    assert_eq!(candidates["candidates"][0]["verdict"], "good");
    let plan = json(&fleet.run(&["rollback", "shop/web@prod", "--to", "v1", "--plan", "-o", "json"]).ok());
    assert_eq!((&plan["planned"], &plan["apps"][0]["from"]), (&json("true"), &json("2")));

    let text =
        fleet.run(&["rollback", "shop/web@prod", "--to", "last-good", "--wait", "--reason", "broken"]).ok();
    assert!(text.contains("equal"), "{text}");
    let now = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());
    assert_eq!(now["digest"]["intent"], v1["digest"]["intent"]);
    assert_eq!(now["apps"][0]["content"], v1["apps"][0]["content"]);

    // The rejected release stays out until a person lets it in.
    let ci = fleet.run(&["token", "create", "ci", "--role", "deployer", "--service"]).ok();
    let ci = ci.trim();
    let refused = fleet.run(&["deploy", "shop/web@prod", "--release", "v2", "--token", ci]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("next: stele unlatch shop/web@prod"), "{refused:?}");
    assert_eq!(fleet.run(&["unlatch", "shop/web@prod", "--token", ci]).code, 3);
    let lifted = fleet.run(&["unlatch", "shop/web@prod", "--reason", "fixed"]).ok();
    assert!(lifted.ends_with("may be deployed again: v2\n"), "{lifted}");
    let again = fleet.run(&["unlatch", "shop/web@prod"]).ok();
    assert!(again.contains("nothing had to change") && !again.contains("may be deployed"), "{again}");
    fleet.run(&["deploy", "shop/web@prod", "--release", "v2", "--token", ci, "--wait"]).ok();

    let history = json(&fleet.run(&["history", "shop/web@prod", "-o", "json"]).ok());
    let entries = history["entries"].as_array().unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["deploy", "rollback", "deploy", "deploy"]);
    assert_eq!((&entries[0]["principal"], &entries[1]["reason"]), (&"ci".into(), &"broken".into()));
    assert_eq!(entries[3]["links"]["ticket"], "T-1");

    // Who misspells an app is told so, and not that nothing happened to it.
    let misspelt = fleet.run(&["events", "--scope", "shop/wbe@prod"]);
    assert_eq!(misspelt.code, 4, "{misspelt:?}");
    assert_eq!(fleet.run(&["events", "--scope", "node:gone"]).code, 0, "nodes go, and their events stay");
    let followed = fleet.run(&["events", "--follow", "--scope", "shop/wbe@prod"]);
    assert!(followed.code == 4 && followed.err.contains("did you mean shop/web?"), "{followed:?}");

    // A proof about nothing proves nothing.
    let misspelt = fleet.run(&["status", "region:ue", "--prove"]);
    assert!(misspelt.code == 4 && misspelt.err.contains("no region ue; did you mean"), "{misspelt:?}");
    fleet.run(&["apply", "-f", "elsewhere.yaml", "--wait"]).ok();
    fleet.run(&["remove", "shop/elsewhere@prod", "--yes", "--wait"]).ok();
    let empty = fleet.run(&["status", "shop/elsewhere@prod", "--prove"]);
    assert!(empty.code == 1 && empty.err.contains("nothing is proved"), "{empty:?}");
    assert_eq!(fleet.run(&["status", "--log"]).code, 2, "a proof is compared with the log");

    let verified = json(&fleet.run(&["verify", "-o", "json"]).ok());
    assert_eq!(verified["replicas"][0]["controller"], 1);
    assert!(verified["state_digests_matched"].as_u64().unwrap() > 0);
    let without_scheme = fleet.address.strip_prefix("http://").unwrap();
    let verified = json(&fleet.run(&["verify", "--from", without_scheme, "-o", "json"]).ok());
    assert_eq!((&verified["replicas"][0]["controller"], &verified["unheard"]), (&1.into(), &json("[]")));
}

#[test]
fn once_more_is_what_is_in_force_there() {
    let fleet = Fleet::start();
    let of_release = |number: u8| spec(number).replace("[prod]", "[prod, dev, test]");
    fleet.write("one.yaml", &of_release(1));
    fleet.write("two.yaml", &of_release(2));
    fleet.run(&["apply", "-f", "one.yaml", "--env", "prod", "--wait"]).ok();
    fleet.run(&["apply", "-f", "two.yaml", "--env", "dev", "--wait"]).ok();
    fleet.run(&["apply", "-f", "two.yaml", "--env", "test", "--wait"]).ok();
    fleet.run(&["remove", "shop/web@test", "--yes", "--wait"]).ok();

    let plan = fleet.run(&["deploy", "shop/web@prod", "--again", "--plan"]).ok();
    assert!(plan.contains("shop/web@prod v1: nothing would change"), "{plan}");
    let plan = json(&fleet.run(&["deploy", "shop/web@prod", "--release", "v2", "--plan", "-o", "json"]).ok());
    assert_eq!((&plan["release"], &plan["seq"]), (&2.into(), &Value::Null), "{plan}");
    fleet.run(&["deploy", "shop/web@prod", "--again", "--wait"]).ok();
    let history = json(&fleet.run(&["history", "shop/web@prod", "-o", "json"]).ok());
    assert_eq!(
        (&history["entries"][0]["from"], &history["entries"][0]["to"]),
        (&1.into(), &1.into()),
        "{history}"
    );
    assert_eq!(history["entries"].as_array().unwrap().len(), 2, "{history}");
    let newest = fleet.run(&["deploy", "shop/web@prod", "--plan", "-o", "json"]).ok();
    assert!(newest.contains(&image(2)), "without it, the app's newest: {newest}");
    let gone = fleet.run(&["deploy", "shop/web@test", "--again"]);
    assert_eq!(gone.code, 4, "{gone:?}");
    assert!(
        gone.err.contains("no release of shop/web is in force in test") && gone.err.contains("--release"),
        "{gone:?}"
    );
    let misspelt = fleet.run(&["deploy", "shop/web@prd", "--again"]);
    assert!(misspelt.code == 4 && misspelt.err.contains("did you mean prod?"), "{misspelt:?}");
}

#[test]
fn secrets_and_config_are_set_and_never_shown() {
    let fleet = Fleet::start();
    let with_secret =
        spec(1).replace("{GREETING: hello}", "{PASSWORD: {secret: db}, KEY: {value: hush, sealed: true}}");
    fleet.write("web.yaml", &with_secret);
    let missing = fleet.run(&["apply", "-f", "web.yaml"]);
    assert_eq!(missing.code, 4, "{missing:?}");
    assert!(missing.err.contains("next: stele secret set shop/web@prod db"), "{missing:?}");
    // An app's first release may need secrets, so they are set before anybody knows the app.
    let set = fleet.run_with_input(&["secret", "set", "shop/web@prod", "db"], "s3cret\n");
    assert!(set.code == 0 && set.err.contains("nothing uses it yet"), "{set:?}");
    fleet.run(&["apply", "-f", "web.yaml", "--wait"]).ok();
    fleet.run(&["config", "set", "shop/web@prod", "THEME=dark", "--wait"]).ok();
    assert!(fleet.run(&["config", "show", "shop/web@prod"]).ok().contains("THEME     dark"));
    let from_file = ["config", "set", "shop/web@prod", "--sealed", "--from-file", "API_KEY=-", "--wait"];
    assert_eq!(fleet.run_with_input(&from_file, "s3cret3\n").code, 0);
    fleet.write("region.txt", "eu\r\n");
    fleet.run(&["config", "set", "shop/web@prod", "--from-file", "REGION=region.txt", "--wait"]).ok();
    let shown = fleet.run(&["config", "show", "shop/web@prod"]).ok();
    assert!(shown.contains("API_KEY   <sealed>") && shown.contains("REGION    eu\n"), "{shown}");
    let bare = fleet.run(&["config", "set", "shop/web@prod", "--sealed", "API_KEY"]);
    assert!(bare.code == 2 && bare.err.contains("--from-file KEY=PATH"), "{bare:?}");
    for twice in [["A=-", "B=-"], ["A=region.txt", "A=region.txt"]] {
        let twice =
            fleet.run(&["config", "set", "shop/web@prod", "--from-file", twice[0], "--from-file", twice[1]]);
        assert_eq!(twice.code, 2, "{twice:?}");
    }
    let again = fleet.run_with_input(&["secret", "set", "shop/web@prod", "db", "--wait"], "s3cret2\n");
    assert!(again.code == 0 && !again.err.contains("nothing uses it"), "{again:?}");
    let misspelt = fleet.run(&["config", "set", "shop/web@prd", "THEME=light", "--wait"]);
    assert!(
        misspelt.code == 4 && misspelt.err.contains("no environment prd; known are: prod"),
        "{misspelt:?}"
    );

    // What waits for a deployment is shown, and not as if it were in force.
    fleet.run(&["remove", "shop/web@prod", "--yes", "--wait"]).ok();
    let set = fleet.run(&["config", "set", "shop/web@prod", "THEME=light"]);
    assert!(set.code == 0 && set.err.contains("nothing uses it yet"), "{set:?}");
    let shown = fleet.run(&["config", "show", "shop/web@prod"]);
    assert!(shown.out.contains("THEME     light") && shown.err.contains("not in force"), "{shown:?}");
    fleet.run(&["apply", "-f", "web.yaml", "--wait"]).ok();
    let shown = fleet.run(&["config", "show", "shop/web@prod"]);
    assert!(shown.out.contains("THEME     light") && shown.err.is_empty(), "{shown:?}");
    let log = fleet.run(&["events", "--after", "0", "-n", "10000", "-o", "json"]).ok();
    assert!(log.contains("secret_changed") && log.contains("config_changed"));
    assert!(!log.contains("s3cret") && !log.contains("hush"), "secrets stand in the log in clear");
}

#[test]
fn the_server_s_errors_are_shown_in_the_file() {
    let fleet = Fleet::start();
    // Nothing listens there: the registry cannot resolve the tag.
    fleet.write("web.yaml", &spec(1).replace(&image(1), "127.0.0.1:1/shop/web:1.0"));
    let ran = fleet.run(&["apply", "-f", "web.yaml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.starts_with("error: web.yaml:6:5: services.web.image: "), "{ran:?}");
    let status = json(&fleet.run(&["status", "-o", "json"]).ok());
    assert_eq!(status["apps"], json("[]"), "nothing is deployed of what cannot be resolved");
}

#[test]
fn a_first_deployment_that_fails_is_not_sent_back_to_nothing() {
    let fleet = Fleet::start();
    fleet.write("web.yaml", &spec(1).replace("shop/web@sha256", "shop/crash@sha256"));
    let way_on = "fix the spec and apply it again, or: stele remove shop/web@prod --plan";
    let ran = fleet.run(&["apply", "-f", "web.yaml", "--wait"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(way_on) && !ran.err.contains("stele rollback"), "{ran:?}");
    let status = fleet.run(&["status", "shop/web@prod"]).ok();
    assert!(status.contains(way_on) && !status.contains("stele rollback"), "{status}");
    let candidates = fleet.run(&["rollback", "shop/web@prod"]).ok();
    assert!(candidates.contains("no earlier state to go back to"), "{candidates}");

    // Once something was healthy, it can be gone back to.
    fleet.write("good.yaml", &spec(1));
    fleet.run(&["apply", "-f", "good.yaml", "--wait"]).ok();
    assert_eq!(fleet.run(&["apply", "-f", "web.yaml", "--wait"]).code, 1);
    let status = fleet.run(&["status", "shop/web@prod"]).ok();
    assert!(status.contains("next: stele rollback shop/web@prod --to last-good --plan"), "{status}");
}

#[test]
fn large_rollbacks_want_to_be_confirmed() {
    let fleet = Fleet::start();
    for name in ["web", "cart"] {
        let text = spec(1).replace("shop/web\n", &format!("shop/{name}\n"));
        fleet.write("app.yaml", &text);
        fleet.run(&["apply", "-f", "app.yaml", "--wait"]).ok();
    }
    let before = json(&fleet.run(&["show", "project:shop", "-o", "json"]).ok());
    let point = format!("seq:{}", json(&fleet.run(&["status", "-o", "json"]).ok())["seq"]);
    for name in ["web", "cart"] {
        fleet.run(&["deploy", &format!("shop/{name}@prod"), "--image", &image(9), "--wait"]).ok();
    }
    let asked = fleet.run(&["rollback", "project:shop", "--to", &point]);
    assert_eq!(asked.code, 2, "off a terminal nobody can be asked: {asked:?}");
    assert!(asked.err.contains("2 apps") && asked.err.contains("shop/cart@prod: v2 -> v1"), "{asked:?}");
    fleet.run(&["rollback", "project:shop", "--to", &point, "--yes", "--wait"]).ok();
    let after = json(&fleet.run(&["show", "project:shop", "-o", "json"]).ok());
    assert_eq!(before["digest"]["intent"], after["digest"]["intent"]);
}

#[test]
fn lists_begin_where_they_are_told_to_and_say_that_there_is_more() {
    let fleet = Fleet::start();
    fleet.write("web.yaml", &spec(1));
    fleet.run(&["apply", "-f", "web.yaml", "--wait"]).ok();
    let seq = json(&fleet.run(&["status", "-o", "json"]).ok())["seq"].as_u64().unwrap();
    fleet.run(&["deploy", "shop/web@prod", "--image", &image(2), "--wait"]).ok();

    let since = format!("seq:{seq}");
    let ran = fleet.run(&["events", "--since", &since, "-n", "2", "-o", "json"]);
    let seqs: Vec<_> = ran.out.lines().map(|line| json(line)["header"]["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [seq + 1, seq + 2], "{ran:?}");
    assert_eq!(ran.err, format!("more follow: --after {}\n", seq + 2));
    let ran = fleet.run(&["events", "--since", &since, "-n", "100000"]);
    assert!(ran.err.is_empty() && ran.out.lines().count() > 2, "{ran:?}");
    // What is before the log begins is its beginning.
    let ran = fleet.run(&["events", "--since", "2020-01-01T00:00:00Z", "-n", "1", "-o", "json"]);
    assert_eq!(json(&ran.out)["header"]["seq"], 1, "{ran:?}");
    let all = fleet.run(&["events", "--since", "v1", "--scope", "shop/web@prod", "-n", "100000"]).ok();
    assert!(all.contains("v2"), "{all}");
    let now = fleet.run(&["events", "--since", "now"]);
    assert_eq!((now.code, now.out.as_str()), (0, ""), "{now:?}");

    let ran = fleet.run(&["history", "shop/web@prod", "-n", "1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "earlier ones are not listed: --limit N lists up to 500\n"));
    let ran = fleet.run(&["history", "shop/web@prod", "-n", "2"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn a_dev_fleet_starts_again_from_its_folder_however_it_ended() {
    use nix::sys::signal::Signal;
    let mut fleet = Fleet::start();
    fleet.write("web.yaml", &spec(1));
    fleet.run(&["apply", "-f", "web.yaml", "--wait"]).ok();
    let digest = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok())["digest"].clone();
    // Killed without a word, it leaves its nats-server behind; hung up on, it must not.
    for signal in [Signal::SIGKILL, Signal::SIGHUP, Signal::SIGTERM] {
        fleet.restart(signal);
        let shown = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());
        assert_eq!(shown["digest"], digest, "{signal}");
        fleet.run(&["config", "set", "shop/web@prod", &format!("AFTER={signal}"), "--wait"]).ok();
        fleet.run(&["rollback", "shop/web@prod", "--to", "prev", "--wait"]).ok();
    }
    let twice = fleet.run(&["dev", "--folder", "fleet"]);
    assert!(twice.code == 1 && twice.err.contains("another stele dev runs"), "{twice:?}");
}

#[test]
fn a_dev_fleet_is_not_silently_another_one() {
    let fleet = Fleet::start();
    let home = fleet.home().to_owned();
    std::fs::create_dir(home.join("other")).unwrap();
    std::fs::copy(home.join("fleet/dev.json"), home.join("other/dev.json")).unwrap();
    let refused = fleet.run(&["dev", "--folder", "other", "--controllers", "3", "--runtime", "docker"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("made with --controllers 1 --runtime simulated"), "{refused:?}");
}

/// A spec with what is not simply written down again: a secret, sealed values, a file beside it, what differs in an
/// environment.
fn many_things() -> String {
    format!(
        r#"
app: shop/web
owner: team-shop
on_call: "+49 30 1"
environments:
  staging:
  prod:
    env: {{STAGE: prod}}
    services: {{web: {{replicas: 2}}}}
services:
  web:
    image: {}
    command: ["httpd", "-f"]
    env: {{VERSION: 1.20, PASSWORD: {{secret: db}}, KEY: {{value: hush, sealed: true}}}}
    files:
      /etc/x.conf: {{source: ./x.conf}}
      /etc/key: {{content: "hush\ntoo\n", sealed: true, mode: "0400"}}
    ports: ["8080"]
    volumes: [{{memory: true, path: /tmp}}]
    health: {{http: {{port: 8080}}, interval: 1s}}
    resources: {{cpu: 0.5, memory: 64MiB}}
    nodes: region
    docker: {{Hostname: "web 1"}}
  worker: {{image: {}, every_node: true, labels: {{a b: "yes"}}}}
"#,
        image(1),
        image(2)
    )
}

#[test]
fn what_is_in_force_is_a_spec_that_changes_nothing() {
    let fleet = Fleet::start();
    fleet.write("web.yaml", &many_things());
    fleet.write("x.conf", "workers = 4\n\n[log]\n\tlevel = 1\n");
    assert_eq!(fleet.run(&["show", "shop/web@prod", "--spec"]).code, 4);
    fleet.run_with_input(&["secret", "set", "shop/web@prod", "db"], "s3cret\n");
    fleet.run(&["apply", "-f", "web.yaml", "--env", "prod", "--wait"]).ok();
    fleet.run(&["config", "set", "shop/web@prod", "MOTTO=it's on", "--wait"]).ok();
    let before = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());

    let shown = fleet.run(&["show", "shop/web@prod", "--spec"]);
    for missing in [
        "services.web.env.KEY is sealed: the value in force in shop/web@prod is kept",
        "services.web.files[\"/etc/key\"] is sealed",
        "stele secret set shop/web@prod db",
        r"stele config set shop/web@prod 'MOTTO=it'\''s on'",
    ] {
        assert!(shown.err.contains(missing) && shown.out.contains(missing), "{missing}: {shown:#?}");
    }
    for secret in ["hush", "s3cret"] {
        assert!(!shown.out.contains(secret) && !shown.err.contains(secret), "{shown:#?}");
    }
    let yaml = shown.ok();
    fleet.write("again.yaml", &yaml);
    fleet.write("again.json", &fleet.run(&["show", "shop/web@prod", "--spec", "-o", "json"]).ok());
    for file in ["again.yaml", "again.json"] {
        let plan = fleet.run(&["apply", "-f", file, "--plan"]).ok();
        assert!(plan.contains("nothing would change"), "{plan}");
        let what_if = fleet.run(&["what-if", "-f", file]);
        assert!(what_if.code == 0, "{what_if:?}");
        let applied = fleet.run(&["apply", "-f", file]).ok();
        assert!(applied.contains("nothing had to change"), "{applied}");
    }
    let after = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());
    assert_eq!((&before["digest"], &before["apps"]), (&after["digest"], &after["apps"]));

    // At three in the morning, one thing is changed, by whoever knows no password.
    fleet.write("more.yaml", &yaml.replace("replicas: 2", "replicas: 3"));
    let plan = json(&fleet.run(&["apply", "-f", "more.yaml", "--plan", "-o", "json"]).ok());
    let differences = plan["differences"].as_array().unwrap().iter();
    let paths: Vec<_> = differences.map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["release", "services.web.placement.replicas.count"], "{plan:#}");
    fleet.run(&["apply", "-f", "more.yaml", "--wait"]).ok();
    let now = json(&fleet.run(&["show", "shop/web@prod", "-o", "json"]).ok());
    let key =
        |shown: &Value| shown["apps"][0]["content"]["services"]["web"]["container"]["env"]["KEY"].clone();
    assert_eq!(key(&now), key(&before));
    assert!(!key(&now).is_null());
    let then = fleet.run(&["show", "shop/web@prod", "--spec", "--at", "v1"]);
    assert!(then.out.contains("replicas: 2") && then.err.contains("--to v1"), "{then:#?}");
    assert!(then.err.contains("KEY is sealed: the value in force"), "it is the same one still: {then:#?}");

    // Another value was sealed since, or none: what an apply makes of that is said.
    let other = many_things().replace("{value: hush, sealed: true}", "{value: hush-hush, sealed: true}");
    fleet.write("other.yaml", &other.replace("      /etc/key", "      # /etc/key"));
    fleet.run(&["apply", "-f", "other.yaml", "--env", "prod", "--wait"]).ok();
    let then = fleet.run(&["show", "shop/web@prod", "--spec", "--at", "v1"]);
    assert!(then.err.contains("env.KEY was another sealed value: the one in force now is kept"), "{then:#?}");
    assert!(
        then.err.contains("\"/etc/key\"] was sealed, and nothing sealed is in force there now"),
        "{then:#?}"
    );
    let refused = fleet.run(&["apply", "-f", "again.yaml"]);
    assert!(refused.code == 2 && refused.err.contains("again.yaml:"), "{refused:#?}");
    assert!(refused.err.contains("\"/etc/key\"]: no sealed value is in force"), "{refused:#?}");

    // Elsewhere there is nothing to keep, and nothing is deployed without it.
    fleet.write("elsewhere.yaml", &yaml.replace("  prod: {}", "  staging: {}"));
    let refused = fleet.run(&["apply", "-f", "elsewhere.yaml"]);
    assert!(
        refused.code == 2 && refused.err.contains("services.web.env.KEY: no sealed value"),
        "{refused:#?}"
    );
    for no_app in ["fleet", "shop/web", "shop/web@prod,region:eu"] {
        let refused = fleet.run(&["show", no_app, "--spec"]);
        assert!(refused.code == 2 && refused.err.contains("one app in one environment"), "{refused:?}");
    }
}
