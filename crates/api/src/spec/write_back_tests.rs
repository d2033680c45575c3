#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use stele_model::release::{File, Image, Port, Protocol, Resources, Stop, Update};
use stele_model::{Digest, Sealed, canonical_json};

use super::super::{SpecFile, parse_yaml, starter};
use super::*;

/// Any sealed value: what is in it is nothing to a spec.
fn sealed(of: &str) -> Sealed {
    Sealed { subject: of.to_owned(), key_version: 1, nonce: "00".into(), ciphertext: "aa".into() }
}

/// The release a spec comes to, with a digest for every tag and something sealed for every value to be sealed.
fn release_of(file: &SpecFile, environment: &str) -> (AppEnv, Contacts, Release) {
    let draft = file.draft(&environment.parse().unwrap()).unwrap();
    let (app_env, contacts) = (draft.app_env.clone(), draft.contacts.clone());
    let image = |(name, asked): (ServiceName, String)| {
        let (repository, digest) = asked.split_once('@').unwrap_or((&asked, ""));
        let digest = digest.parse().unwrap_or(Digest([7; 32]));
        (name, Image { repository: repository.split(":1").next().unwrap().to_owned(), digest })
    };
    let images = draft.images().into_iter().map(image).collect();
    let to_seal = draft.to_seal().into_keys();
    let sealed = to_seal.map(|place| (place.clone(), sealed(&place.path()))).collect();
    let release = draft.into_release(&images, &sealed).unwrap();
    (app_env, contacts, release)
}

/// Writes a release back, and goes the way forward by the text as a person would who applies it.
fn there_and_back(app_env: &AppEnv, contacts: &Contacts, release: &Release) -> WrittenBack {
    let written = write_back(app_env, contacts, release);
    assert_eq!(written.deviations, [], "{:?}", written.spec);
    let json = written.spec.to_json().unwrap();
    for text in [written.spec.to_yaml().unwrap(), json] {
        let read = parse_yaml(&text, "app.yaml").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(read.spec, written.spec, "{text}");
        let draft = read.draft(&app_env.environment).unwrap();
        assert_eq!((&draft.app_env, &draft.contacts), (app_env, contacts));
        for (name, image) in draft.images() {
            assert_eq!(image, release.services[&name].container.image.to_string());
        }
        let kept = draft.kept(Some(release)).unwrap();
        let images = release.services.iter().map(|(name, it)| (name.clone(), it.container.image.clone()));
        let again = draft.into_release(&images.collect(), &kept).unwrap();
        assert_eq!(again, *release, "{text}");
        assert_eq!(again.digest(), release.digest(), "{text}");
    }
    written
}

/// Every spec this repository shows to anybody, and the one that uses every field.
fn corpus() -> Vec<SpecFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = vec![
        ("the whole spec".to_owned(), super::super::tests::WHOLE.to_owned()),
        ("the starter".to_owned(), starter(&"shop/cart".parse().unwrap(), None)),
    ];
    for folder in ["docs/examples", "deploy/demo"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "yaml") {
                texts.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let read = texts.iter().filter(|(_, text)| text.contains("\nservices:")).map(|(name, text)| {
        let mut file = parse_yaml(text, name).unwrap_or_else(|errors| panic!("{errors}"));
        file.load_sources(|path| Ok(format!("{path}:\n\tread\n").into_bytes())).unwrap();
        file
    });
    read.collect()
}

#[test]
fn every_spec_we_show_is_written_back_to_the_same_release() {
    let corpus = corpus();
    assert!(corpus.len() >= 6, "a folder of specs has moved");
    for file in corpus {
        for environment in file.spec.environments.0.keys() {
            let (app_env, contacts, release) = release_of(&file, environment.as_str());
            let written = there_and_back(&app_env, &contacts, &release);
            assert_eq!(written.spec.environments.0.keys().collect::<Vec<_>>(), [environment]);
        }
    }
}

#[test]
fn a_whole_release_written_back_is_stable() {
    let mut file = parse_yaml(super::super::tests::WHOLE, "web.yaml").unwrap();
    file.load_sources(|path| Ok(format!("read from {path}").into_bytes())).unwrap();
    let (app_env, contacts, release) = release_of(&file, "prod");
    let written = there_and_back(&app_env, &contacts, &release);
    let yaml = written.spec.to_yaml().unwrap();
    assert!(!yaml.contains("hush"), "a sealed value stands in the spec in clear");
    expectorate::assert_contents("tests/golden/written-back.yaml", &yaml);
    assert_eq!(written.kept, [ValuePlace::Env("web".parse().unwrap(), "KEY".into())]);
    let names: Vec<_> = written.secrets.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["db-password", "tls-key"]);
}

#[test]
fn a_kept_value_is_kept_where_it_is_and_nowhere_else() {
    let text = "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: registry/web:1\n    \
                env: {KEY: {value: hush, sealed: true}, OPEN: x}\n    files: {/k: {content: y, sealed: true}}\n";
    let file = parse_yaml(text, "web.yaml").unwrap();
    let (app_env, contacts, release) = release_of(&file, "prod");
    let written = write_back(&app_env, &contacts, &release);
    let draft = written.spec.draft(&app_env.environment).unwrap();
    assert!(draft.keeps_values() && !file.draft(&app_env.environment).unwrap().keeps_values());
    assert_eq!(draft.kept(Some(&release)).unwrap().len(), 2);

    let nowhere = draft.kept(None).unwrap_err().to_string();
    assert!(
        nowhere.contains("services.web.env.KEY: no sealed value is in force here in shop/web@prod"),
        "{nowhere}"
    );
    assert!(nowhere.contains("services.web.files[\"/k\"]: "), "{nowhere}");
    // Neither a value in clear nor one of another place is taken for it.
    let moved = serde_json::to_string(&written.spec)
        .unwrap()
        .replace("KEY", "OPEN2")
        .replace("\"OPEN\":\"x\"", "\"OPEN\":{\"sealed\":true}");
    let moved = parse_yaml(&moved, "web.yaml").unwrap().draft(&app_env.environment).unwrap();
    let refused = moved.kept(Some(&release)).unwrap_err();
    let paths: Vec<_> = refused.errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["services.web.env.OPEN", "services.web.env.OPEN2"]);
    let images = release.services.iter().map(|(name, it)| (name.clone(), it.container.image.clone()));
    assert!(draft.into_release(&images.collect(), &BTreeMap::new()).is_err(), "nothing stands in for it");
}

#[test]
fn what_a_spec_cannot_say_is_told() {
    let (app_env, contacts, mut release) = release_of(&corpus()[0], "prod");
    let web = release.services.get_mut(&"web".parse().unwrap()).unwrap();
    web.container.docker = Some("[]".into());
    web.container.stop.grace_seconds = u32::MAX;
    web.container.workdir = Some("relative".into());
    let deviations = write_back(&app_env, &contacts, &release).deviations;
    let paths: Vec<_> = deviations.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["services.web.docker", "services.web.stop.grace", "services.web.workdir"]);
    // The neighbour of the number that this is read as.
    let web = release.services.get_mut(&"web".parse().unwrap()).unwrap();
    web.container.docker = Some("{\"a\":-526523000.98287684}".into());
    web.container.stop.grace_seconds = 1;
    web.container.workdir = None;
    let deviations = write_back(&app_env, &contacts, &release).deviations;
    assert_eq!(deviations[0].path, "services.web.docker");
    assert!(deviations[0].message.contains("something else"), "{deviations:?}");
}

/// Texts that YAML's plain, quoted and block forms get wrong first, and any other.
fn text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "~",
        "null",
        "yes",
        "No",
        "on",
        "true",
        "1.20",
        "0x1f",
        "010",
        "1e3",
        ".inf",
        "1_000",
        "12:30:00",
        "2026-01-31",
        "a: b",
        "a #b",
        "#",
        "- a",
        "? a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        "'",
        "\"",
        "'a",
        "a\\nb",
        "\n",
        "\n\n",
        "a\n",
        "a\n\n",
        "\na",
        " a\nb",
        "a \nb",
        "a\tb",
        "\ta",
        "\r\n",
        "a\r\nb",
        "a\rb",
        "\u{85}",
        "a\u{2028}b",
        "\u{feff}",
        "\u{7f}",
        "\u{1b}[0m",
        "\u{1}",
        "---",
        "...",
        "--- a",
        "=",
        "<<",
        "é",
        "😀",
        "key: |\n  block\n    more\n\n",
        "\\",
        "$HOME ${X} `x`",
        " lead",
        "trail ",
        "\u{a0}",
    ]);
    prop_oneof![odd.prop_map(str::to_owned), any::<String>(), "[ -~\n\t]{0,200}"]
        .prop_map(|text| text.replace('\0', ""))
}

fn name() -> impl Strategy<Value = ServiceName> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn path() -> impl Strategy<Value = String> {
    text().prop_filter_map("an absolute path of a file", |text| {
        let path = format!("/{text}");
        (!path.ends_with('/') && path.split('/').all(|part| part != "..")).then_some(path)
    })
}

fn value() -> impl Strategy<Value = EnvValue> {
    prop_oneof![
        3 => text().prop_map(|text| EnvValue::Value(Value::Plain(text))),
        1 => Just(EnvValue::Value(Value::Sealed(sealed("shop/web@prod")))),
        1 => Just(EnvValue::Secret("db-password".parse().unwrap())),
    ]
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        // With more digits, JSON's reader is not exact, which is told: see `what_a_spec_cannot_say_is_told`.
        any::<i32>().prop_map(|number| serde_json::Value::from(f64::from(number) / 1000.0)),
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        number,
        text().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            btree_map(text(), inner, 0..3).prop_map(|map| map.into_iter().collect::<serde_json::Value>()),
        ]
    })
}

prop_compose! {
    fn container()(
        image in ("[a-z]{1,5}(:[1-9][0-9]{3})?(/[a-z]{1,5}){1,2}", any::<[u8; 32]>()),
        entrypoint in option::of(vec(text(), 0..3)),
        command in vec(text(), 0..3),
        env in btree_map("[A-Za-z_. ~#:]{1,8}", value(), 0..4),
        files in btree_map(path(), (value(), 0..=0o7777_u32), 0..3),
        ports in btree_map(1..=u16::MAX, prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)], 0..3),
        volumes in vec((0..3_u8, any::<bool>()), 0..4),
        health in option::of((0..3_u8, 100..86_400_000_u64, 1..10_u32, text())),
        resources in (option::of(1..256_000_u64), option::of((8_u64 << 20)..(1 << 50)), option::of(1..u32::MAX)),
        restart in prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)],
        grace_seconds in 0..300_u32,
        labels in btree_map("[A-Z]{1,3}[ -~]{0,5}", text(), 0..3),
        log in option::of((text(), btree_map(text(), text(), 0..3))),
        names in (option::of(text()), option::of(path())),
        docker in option::of(btree_map(text(), json(), 0..3)),
    ) -> Container {
        let port = |(at, (container, protocol)): (usize, (u16, Protocol))| {
            Port { container, host: (at > 0).then_some(container), protocol }
        };
        let volume = |(at, (kind, read_only)): (usize, (u8, bool))| Volume {
            source: match kind {
                0 => VolumeSource::Named(format!("data-{at}")),
                1 => VolumeSource::Host(format!("/srv/{at}")),
                _ => VolumeSource::Memory,
            },
            path: format!("/mnt/{at}"),
            read_only,
        };
        let health_check = |(kind, millis, retries, text): (u8, u64, u32, String)| Health {
            check: match kind {
                0 => Check::Http { port: 80, path: format!("/{text}") },
                1 => Check::Tcp { port: 443 },
                _ => Check::Exec { command: vec![text] },
            },
            interval_ms: millis,
            timeout_ms: millis,
            retries,
            start_period_ms: millis - 100,
        };
        let log_driver = |(driver, options): (String, BTreeMap<String, String>)| {
            LogDriver { driver, options: options.into_iter().collect() }
        };
        Container {
            entrypoint,
            command,
            env: env.into_iter().collect(),
            files: files.into_iter().map(|(path, (content, mode))| (path, File { content, mode })).collect(),
            ports: ports.into_iter().enumerate().map(port).collect(),
            volumes: volumes.into_iter().enumerate().map(volume).collect(),
            health: health.map(health_check),
            resources: Resources { cpu_millis: resources.0, memory_bytes: resources.1, pids: resources.2 },
            restart,
            stop: Stop { signal: "SIGQUIT".to_owned(), grace_seconds },
            labels: labels.into_iter().collect(),
            log: log.map(log_driver),
            user: names.0,
            workdir: names.1,
            docker: docker.map(|map| String::from_utf8(canonical_json(&map)).unwrap()),
            ..Container::new(Image { repository: image.0, digest: Digest(image.1) })
        }
    }
}

fn service() -> impl Strategy<Value = Service> {
    let nodes =
        prop_oneof![Just(""), Just("region in (eu, us), !spot"), Just("disk=ssd"), Just("tier notin (a, b)")];
    let placement = (nodes, option::of(0..1000_u32)).prop_map(|(nodes, count)| {
        let nodes = nodes.parse().unwrap();
        match count {
            Some(count) => Placement::Replicas { count, nodes },
            None => Placement::Every { nodes },
        }
    });
    let update =
        (1..50_u32, any::<bool>(), 1000..86_400_000_u64).prop_map(|(max_unavailable, first, deadline_ms)| {
            let order = if first { Order::StartFirst } else { Order::StopFirst };
            Update { max_unavailable, order, deadline_ms }
        });
    (container(), placement, update).prop_map(|(container, placement, update)| Service {
        container,
        placement,
        update,
    })
}

prop_compose! {
    fn release()(
        mut services in btree_map(name(), service(), 1..4),
        contacts in (option::of(text()), option::of(text()), option::of(text())),
    ) -> (Contacts, Release) {
        // A port of the host is one service's.
        for service in services.values_mut().skip(1) {
            service.container.ports.clear();
        }
        let release = Release { app: "shop/web".parse().unwrap(), services: services.into_iter().collect() };
        (Contacts { owner: contacts.0, on_call: contacts.1, runbook: contacts.2 }, release)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_release_is_written_back_to_itself((contacts, release) in release()) {
        there_and_back(&"shop/web@prod".parse().unwrap(), &contacts, &release);
    }
}
