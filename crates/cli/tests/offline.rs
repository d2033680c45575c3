//! What the CLI says without a fleet: help, usage errors, specs that make no sense.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Stdio;

use support::{run, stele};

/// The commands below one, deepest first in the order of its help.
fn leaves(home: &Path, command: &[String]) -> Vec<Vec<String>> {
    let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = run(home, &words).ok();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    if names.is_empty() {
        return vec![command.to_vec()];
    }
    let below = names.into_iter().filter(|name| *name != "help");
    below.flat_map(|name| leaves(home, &[command, &[name.to_owned()]].concat())).collect()
}

#[test]
fn every_command_explains_itself() {
    let home = tempfile::tempdir().unwrap();
    let mut golden = run(home.path(), &["--help"]).ok();
    let commands = leaves(home.path(), &[]);
    assert!(commands.len() > 40, "the help is read wrongly: {commands:?}");
    let mut without: Vec<Vec<String>> = Vec::new();
    for command in commands {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = run(home.path(), &words).ok();
        if !help.contains("Example") {
            without.push(command.clone());
        }
        golden.extend(["\n=== stele ", &command.join(" "), "\n", &help]);
    }
    assert_eq!(without, Vec::<Vec<String>>::new(), "these have no examples");
    expectorate::assert_contents("tests/golden/help.txt", &golden);
}

#[test]
fn errors_say_where_and_what_next() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("typo.yaml", "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    imge: httpd\n");
    write(
        "source.yaml",
        "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: httpd\n    files:\n      /x: {source: ./none.conf}\n",
    );
    let large = "app: shop/web # ä\n".repeat(stele_api::limits::SPEC_BYTES_MAX / 8);
    write("large.yaml", &large);
    write("two.yaml", "app: shop/web\nenvironments: [dev, prod]\nservices: {web: {image: httpd}}\n");
    let cases: &[(&[&str], i32)] = &[
        (&["status"], 2),
        (&["apply", "-f", "typo.yaml"], 2),
        (&["apply", "-f", "source.yaml"], 2),
        (&["apply", "-f", "two.yaml"], 2),
        (&["apply", "-f", "two.yaml", "--env", "qa"], 2),
        (&["apply", "-f", "none.yaml"], 2),
        (&["deploy", "shop/web"], 2),
        (&["deploy", "shop/web@prod", "--release", "x"], 2),
        (&["deploy", "shop/web@prod", "--image", "a=b", "--image", "c"], 2),
        (&["status", "web"], 2),
        (&["rollback", "shop/web@prod", "--plan"], 2),
        (&["rolback"], 2),
        (&["context", "use", "prod"], 2),
        (&["login"], 2),
        (&["logs", "shop/web", "--addr", "127.0.0.1:1"], 2),
        (&["secret", "set", "shop/web@prod", "x", "--addr", "127.0.0.1:1"], 2),
        (&["remove", "shop/web@prod", "--addr", "127.0.0.1:1"], 2),
        (&["status", "--addr", "127.0.0.1:1,127.0.0.1:2", "--token", "x"], 5),
        (&["unlatch", "shop/web@prod", "--addr", "127.0.0.1:1", "--token", "x"], 5),
        (&["status", "--at", "yesterday", "--addr", "127.0.0.1:1"], 2),
        (&["diff", "shop/web@prod", "v", "--addr", "127.0.0.1:1"], 2),
        (&["rollback", "shop/web@prod", "--to", "2026-13-31T12:00:00Z", "--addr", "127.0.0.1:1"], 2),
        (&["verify", "--to", "2026-13-31T12:00:00Z", "--addr", "127.0.0.1:1"], 2),
        (&["apply", "-f", "large.yaml", "--addr", "127.0.0.1:1"], 2),
    ];
    let mut golden = String::new();
    for (args, code) in cases {
        let ran = run(home.path(), args);
        assert_eq!(ran.code, *code, "{args:?}: {ran:?}");
        assert_eq!(ran.out, "", "errors go to standard error");
        golden.extend(["$ stele ", &args.join(" "), "\n", &ran.err, "\n"]);
    }
    expectorate::assert_contents("tests/golden/errors.txt", &golden);
}

#[test]
fn the_starter_spec_and_the_schema_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let starter = run(home.path(), &["init", "shop/cart", "--file", "-"]).ok();
    let file = stele_api::spec::parse_yaml(&starter, "stele.yaml").unwrap();
    assert_eq!(file.spec.app.to_string(), "shop/cart");
    run(home.path(), &["init", "shop/cart"]).ok();
    assert_eq!(std::fs::read_to_string(home.path().join("stele.yaml")).unwrap(), starter);
    assert_eq!(run(home.path(), &["init"]).code, 2, "an existing file is kept");
    let schema: serde_json::Value = serde_json::from_str(&run(home.path(), &["schema"]).ok()).unwrap();
    assert_eq!(schema, stele_api::spec::json_schema());
}

#[test]
fn what_nobody_reads_did_not_work() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = stele(home.path());
    let ran = command.arg("schema").stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let ran = ran.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(141), "as of a program that a closed pipe ended: {ran:?}");
    assert_eq!(ran.stderr, b"", "nobody is told twice that they went away");
}

#[test]
fn completions_know_the_commands() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(home.path(), &["completions", shell]).ok().contains("rollback"), "{shell}");
    }
}
