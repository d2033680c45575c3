#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use stele_model::release::{EnvValue, Image};
use stele_model::{Digest, Sealed, Value};

use super::*;

pub(super) const WHOLE: &str = r#"
app: shop/web
owner: team-shop
on_call: "+49 30 1"
runbook: https://wiki.example.com/web
environments:
  staging:
  prod:
    env: {STAGE: prod}
    services:
      web: {replicas: 3, env: {GREETING: moin}}
services:
  web:
    image: registry/shop/web:1.2
    command: ["httpd", "-f"]
    env:
      GREETING: hello
      VERSION: 1.20
      PORT: 8080
      DEBUG: true
      PASSWORD: {secret: db-password}
      KEY: {sealed: true, value: hush}
    files:
      /www/index.html: {content: "<h1>hi</h1>"}
      /etc/x.conf: {source: ./x.conf}
      /etc/key: {secret: tls-key, mode: 0400}
    ports: [ "18080:8080", 9090, {container: 53, host: 53, protocol: udp} ]
    volumes:
      - {name: data, path: /data}
      - {host: /srv, path: /srv, read_only: true}
      - {memory: true, path: /tmp}
    health: { http: {port: 8080}, interval: 2s, timeout: 1s, retries: 3, start_period: 2s }
    resources: { cpu: 0.5, memory: 64MiB, pids: 64 }
    replicas: 2
    nodes: "region in (eu, us), disk=ssd"
    update: { max_unavailable: 1, order: stop_first, deadline: 60s }
    restart: on_failure
    stop: {signal: SIGQUIT, grace: 30s}
    labels: {team: shop}
    log: {driver: json-file, options: {max-size: 10m}}
    user: "1000:1000"
    workdir: /www
    docker: {HostConfig: {CapAdd: [NET_ADMIN]}}
  worker:
    image: registry/shop/worker@sha256:0101010101010101010101010101010101010101010101010101010101010101
    every_node: true
"#;

fn sealed() -> Sealed {
    Sealed { subject: "shop/web@prod".into(), key_version: 1, nonce: "00".into(), ciphertext: "aa".into() }
}

fn images(draft: &Draft) -> BTreeMap<ServiceName, Image> {
    let image =
        |name: &ServiceName| Image { repository: format!("registry/shop/{name}"), digest: Digest([1; 32]) };
    draft.images().into_keys().map(|name| (name.clone(), image(&name))).collect()
}

fn errors_of(yaml: &str) -> String {
    parse_yaml(yaml, "web.yaml").unwrap_err().to_string()
}

#[test]
fn a_whole_spec_becomes_a_release() {
    let mut file = parse_yaml(WHOLE, "web.yaml").unwrap();
    file.load_sources(|path| Ok(format!("read from {path}").into_bytes())).unwrap();
    let draft = file.draft(&"prod".parse().unwrap()).unwrap();
    assert_eq!(draft.app_env.to_string(), "shop/web@prod");
    assert_eq!(draft.contacts.owner.as_deref(), Some("team-shop"));
    let places: Vec<_> = draft.to_seal().into_iter().collect();
    let place = ValuePlace::Env("web".parse().unwrap(), "KEY".into());
    assert_eq!(places, [(place.clone(), "hush")]);

    let images = images(&draft);
    let unsealed = draft.clone().into_release(&images, &BTreeMap::new()).unwrap_err();
    assert_eq!(unsealed.to_string(), "services.web.env: the value was not sealed");
    let release = draft.into_release(&images, &BTreeMap::from([(place, sealed())])).unwrap();
    let text = serde_json::to_string_pretty(&release).unwrap() + "\n";
    assert!(!text.contains("hush"), "nothing to be sealed may stand in a release in clear");
    expectorate::assert_contents("tests/golden/release.json", &text);

    let web = &release.services[&"web".parse().unwrap()].container;
    let plain = |key: &str| match &web.env[key] {
        EnvValue::Value(Value::Plain(text)) => text.clone(),
        other => panic!("{key} is {other:?}"),
    };
    assert_eq!(plain("VERSION"), "1.20", "numbers stay as they were written");
    assert_eq!((plain("GREETING"), plain("STAGE")), ("moin".into(), "prod".into()));
    assert_eq!(web.files["/etc/key"].mode, 0o400);
}

#[test]
fn an_environment_that_differs_in_nothing_is_the_spec_itself() {
    let file = parse_yaml(&WHOLE.replace("{source: ./x.conf}", "{content: x}"), "web.yaml").unwrap();
    let services = file.spec.services_in(&"staging".parse().unwrap());
    assert_eq!(services, file.spec.services);
    assert_eq!(services[&"web".parse().unwrap()].replicas, Some(2));
}

#[test]
fn a_spec_survives_the_wire() {
    let file = parse_yaml(WHOLE, "web.yaml").unwrap();
    let wire = serde_json::to_vec(&file.spec).unwrap();
    assert_eq!(parse_json::<AppSpec>(&wire).unwrap(), file.spec);
    assert_eq!(serde_json::from_slice::<AppSpec>(&wire).unwrap(), file.spec, "other decoders read it too");
}

#[test]
fn the_starter_is_a_valid_spec() {
    let app = "shop/cart".parse().unwrap();
    let file = parse_yaml(&starter(&app, None), "stele.yaml").unwrap();
    assert_eq!(file.spec.app, app);
    assert!(file.draft(&"prod".parse().unwrap()).is_ok());
}

#[test]
fn the_schema_is_stable() {
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    expectorate::assert_contents("tests/golden/app.schema.json", &schema);
}

const BASE: &str = "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: registry/web:1\n";

/// Each bad line is appended to a good service, on line 6.
#[test]
fn errors_name_the_place_and_the_nearest_name() {
    let cases = [
        "    imge: x\n",
        "    restart: alwys\n",
        "    restart: sometimes-maybe\n",
        "    health: {htp: {port: 80}}\n",
        "    health: {http: {port: 80, pth: /}}\n",
        "    health: {http: {port: eighty}}\n",
        "    health: {http: {port: 99999}}\n",
        "    health: {interval: 5s}\n",
        "    health: {tcp: {port: 80}, interval: 5}\n",
        "    resources: {memory: 64mb}\n",
        "    resources: {memory: 1MiB}\n",
        "    resources: {cpu: lots}\n",
        "    command: httpd -f\n",
        "    env: {A: [1]}\n",
        "    env: {A: {sealed: false}}\n",
        "    env: {A: {secret: x, value: y}}\n",
        "    env: {A: {secrt: x}}\n",
        "    env: {\"A=B\": x}\n",
        "    files: {etc/x: {content: x}}\n",
        "    files: {/etc/x: {}}\n",
        "    files: {/etc/x: {content: x, mode: \"999\"}}\n",
        "    ports: [\"80:80:80\"]\n",
        "    ports: [0]\n",
        "    ports: [80, 80]\n",
        "    ports: [{contaner: 80}]\n",
        "    volumes: [{path: /x}]\n",
        "    volumes: [{name: a, host: /b, path: x}]\n",
        "    replicas: -1\n",
        "    replicas: 2\n    every_node: true\n",
        "    replicas: 99999\n",
        "    nodes: \"region in eu\"\n",
        "    update: {max_unavailable: 0}\n",
        "    stop: {signal: TERM, grace: 1500ms}\n",
        "    docker: [x]\n",
        "    image: registry/web:2\n",
        "    workdir: ../x\n",
        "    labels: {stele.node: x}\n",
        "   user: x\n",
        "    user: \"x\n",
        "  Web_2:\n    image: x\n",
        "  two:\n    command: []\n",
        "owner: {a: b}\n",
        "servces: {}\n",
    ];
    let mut golden = String::new();
    for case in cases {
        let errors = errors_of(&format!("{BASE}{case}"));
        golden.extend([case.trim_end(), "\n  -> ", &errors.replace('\n', "\n  -> "), "\n"]);
    }
    expectorate::assert_contents("tests/golden/spec-errors.txt", &golden);
}

#[test]
fn errors_of_whole_documents() {
    let cases = [
        ("nothing", ""),
        ("a text", "hello"),
        ("an app without its project", "app: web\nenvironments: [prod]\nservices: {web: {image: x}}\n"),
        ("no environment", "app: shop/web\nenvironments: []\nservices: {web: {image: x}}\n"),
        ("no service", "app: shop/web\nenvironments: [prod]\nservices: {}\n"),
        ("no services", "app: shop/web\nenvironments: [prod]\n"),
        ("two documents", "app: shop/web\n---\napp: shop/web\n"),
        (
            "an unknown service in an environment",
            "app: shop/web\nenvironments: {prod: {services: {wbe: {replicas: 2}}}}\nservices: {web: {image: x}}\n",
        ),
        (
            "a bad difference",
            "app: shop/web\nenvironments:\n  prod:\n    services:\n      web: {replicas: 2000000}\nservices: {web: {image: x}}\n",
        ),
        (
            "one host port twice",
            "app: shop/web\nenvironments: [prod]\nservices:\n  a: {image: x, ports: [\"80:80\"]}\n  b: {image: x, ports: [\"80:81\"]}\n",
        ),
        (
            "several at once",
            "app: shop/web\nenvironments: [prod]\nservices:\n  a:\n    image: \"x y\"\n    workdir: x\n    update: {max_unavailable: 0}\n",
        ),
    ];
    let mut golden = String::new();
    for (what, yaml) in cases {
        golden.extend([what, "\n  -> ", &errors_of(yaml).replace('\n', "\n  -> "), "\n"]);
    }
    expectorate::assert_contents("tests/golden/document-errors.txt", &golden);
}

#[test]
fn a_servers_error_gets_its_place_in_the_file() {
    let file = parse_yaml(BASE, "web.yaml").unwrap();
    let errors = SpecErrors {
        file: None,
        errors: vec![
            SpecError::new("services.web.image".into(), "not found", None),
            SpecError::new("services.web.files[\"/x\"]".into(), "unknown", None),
        ],
    };
    assert_eq!(
        file.locate(errors).to_string(),
        "web.yaml:5:5: services.web.image: not found\nweb.yaml:4:3: services.web.files[\"/x\"]: unknown"
    );
}

#[test]
fn bodies_are_read_with_paths_too() {
    let error = parse_json::<AppSpec>(
        br#"{"app": "shop/web", "environments": ["prod"], "services": {"web": {"imge": "x"}}}"#,
    );
    assert_eq!(error.unwrap_err().to_string(), "services.web: unknown field `imge`; did you mean `image`?");
    assert!(parse_json::<AppSpec>(b"{").unwrap_err().to_string().starts_with("this is not JSON"));
    let twice = parse_json::<AppSpec>(br#"{"app": "shop/web", "environments": ["prod"], "app": "shop/db"}"#);
    assert!(twice.unwrap_err().to_string().contains("`app` is written twice"));
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(parse_json::<AppSpec>(deep.as_bytes()).unwrap_err().to_string().contains("DEPTH_MAX"));
}

#[test]
fn the_environment_is_never_guessed() {
    let file = parse_yaml(WHOLE, "web.yaml").unwrap();
    assert!(file.spec.environment(None).is_err());
    assert!(file.spec.environment(Some(&"qa".parse().unwrap())).is_err());
    assert_eq!(file.spec.environment(Some(&"prod".parse().unwrap())).unwrap().as_str(), "prod");
    let one = parse_yaml(BASE, "web.yaml").unwrap();
    assert_eq!(one.spec.environment(None).unwrap().as_str(), "prod");
}

#[test]
fn what_is_nested_or_repeated_without_end_is_refused_early() {
    let deep = "[".repeat(40) + &"]".repeat(40);
    assert!(parse_yaml(&deep, "web.yaml").unwrap_err().to_string().contains("DEPTH_MAX"));
    let laughs = (1..10).fold("a0: &a0 [lol]\n".to_owned(), |laughs, level| {
        let before = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{laughs}a{level}: &a{level} [{before}]\n")
    });
    assert!(parse_yaml(&laughs, "web.yaml").is_err());
}

#[test]
fn long_names_cost_no_more_than_they_are_long() {
    let long = "k".repeat(100_000);
    // Every item has a place, and a path with all names above it.
    let node =
        Node::from_yaml(&format!("? {long}\n: [{}0]\nshort: [1]\n", "0,".repeat(1000)), "web.yaml").unwrap();
    let paths: Vec<_> = node.positions().into_keys().collect();
    assert_eq!(paths, ["", "short", "short[0]"]);
    assert_eq!(nearest(&long, ["services"]), None);
    assert_eq!(nearest("servics", ["services"]), Some("services"));
    let body = format!("{{\"{long}\": 1}}");
    let error = parse_json::<AppSpec>(body.as_bytes()).unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{}", &error[error.len() - 100..]);
}
