//! The docs stay true: every `stele` command in them is one this program understands, and the spec's
//! reference says what the schema says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Nothing listens there: a command that is understood gets this far and no further.
const NOBODY: &str = "http://127.0.0.1:1";
/// "The command makes no sense", as clap and `stele` both say it.
const USAGE: i32 = 2;

fn root() -> PathBuf {
    Path::new("../..").canonicalize().unwrap()
}

/// README.md and the pages of `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}

/// A page's fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(info, _)| *info == language)),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.into_iter().map(|(_, text)| text).collect()
}

/// The logical lines of a page's `sh` blocks.
fn shell_lines(page: &str) -> Vec<String> {
    let text = blocks(page, "sh").concat().replace("\\\n", "");
    text.lines().map(ToOwned::to_owned).collect()
}

/// The words of a `stele` command up to where the shell takes over; `None` for other commands.
fn stele_words(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '|' | '<' | '>' | '&' | ';') => break,
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    (words.first().is_some_and(|first| first == "stele")).then(|| words.split_off(1))
}

/// Commands that would run for ever, ask other hosts or need what nobody made: only their words are checked.
fn must_not_run(words: &[String]) -> bool {
    let is = |at: usize, word: &str| words.get(at).is_some_and(|present| present == word);
    // A pack, or an exported proof, would have to be there to be verified.
    let verifies = (is(0, "audit") && is(1, "verify")) || words.iter().any(|word| word == "--verify");
    let runs_on = is(0, "dev") || (is(0, "controller") && is(1, "run"));
    // It is of a controller's host, where its folder is elsewhere.
    let is_of_host = is(0, "controller") && is(1, "new-admin");
    verifies || runs_on || is_of_host || words.iter().any(|word| word == "--addr")
}

fn stele(words: &[String], folder: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stele"))
        .args(words)
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("STELE_ADDR", NOBODY)
        .env("STELE_TOKEN", "nobody")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing has closed its end already.
    let _ = child.stdin.take().expect("it was piped").write_all(b"text\n");
    child.wait_with_output().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn every_command_in_the_docs_is_understood() {
    let mut count = 0;
    for page in pages() {
        // Commands of a page may need what earlier ones made.
        let folder = tempfile::tempdir().unwrap();
        copy(&root().join("docs/examples"), &folder.path().join("docs/examples"));
        for line in shell_lines(&std::fs::read_to_string(&page).unwrap()) {
            let Some(mut words) = stele_words(&line) else { continue };
            count += 1;
            let only_parse = must_not_run(&words);
            if only_parse {
                words.push("--help".to_owned());
            }
            // What the shell would have put into a file: some spec.
            if let Some((_, file)) = line.split_once("--spec > ") {
                let example = folder.path().join("docs/examples/shop-web.yaml");
                std::fs::copy(example, folder.path().join(file.trim())).unwrap();
            }
            let output = stele(&words, folder.path());
            let (code, said) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
            let understood = if only_parse { code == Some(0) } else { matches!(code, Some(0 | 5)) };
            assert!(understood, "{}:\n  {line}\n{code:?}: {said}", page.display());
        }
    }
    assert!(count > 50, "only {count} commands were found: the docs are read wrongly");
}

/// A spec is read before anybody is asked, so getting as far as nobody means that it is valid.
#[test]
fn every_spec_in_the_docs_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("web.conf"), "workers = 4\n").unwrap();
    let examples = std::fs::read_dir(root().join("docs/examples")).unwrap();
    let mut specs: Vec<_> =
        examples.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    specs.extend(pages().iter().flat_map(|page| blocks(&std::fs::read_to_string(page).unwrap(), "yaml")));
    assert!(specs.len() >= 2);
    let apply = |spec: &str| {
        std::fs::write(folder.path().join("spec.yaml"), spec).unwrap();
        let words = ["apply", "-f", "spec.yaml", "--plan"].map(ToOwned::to_owned);
        stele(&words, folder.path())
    };
    for spec in specs {
        let output = apply(&spec);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{spec}\n{said}");
    }
    assert_eq!(apply("app: shop/web\nservice: {}\n").status.code(), Some(USAGE));
}

/// The tests above can fail: what this program does not understand is told apart.
#[test]
fn a_command_that_is_wrong_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = ["stele rollback shop/web@prod --back", "stele status web", "stele deploy shop/web"];
    for line in wrong {
        let words = stele_words(line).unwrap();
        assert_eq!(stele(&words, folder.path()).status.code(), Some(USAGE), "{line}");
    }
    let line = "stele events --scope 'a b' --kind \"c\" -n 3 --output json | jq .event  # all";
    let words = ["events", "--scope", "a b", "--kind", "c", "-n", "3", "--output", "json"];
    assert_eq!(stele_words(line).unwrap(), words);
    assert_eq!(stele_words("cargo xtask demo"), None);
}

/// A page without code, in which brackets mean something else.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut lines = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !fence && !inside
    });
    let without_code = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("");
    let mut text = String::new();
    for line in &mut lines {
        text += &without_code(line);
        text.push('\n');
    }
    text
}

/// The anchors of a page's headings, as code hosts make them.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let kept = |character: &char| character.is_alphanumeric() || "- _".contains(*character);
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars().filter(kept).map(|character| if character == ' ' { '-' } else { character }).collect()
    };
    headings.map(slug).collect()
}

/// Every link from a page to a file or heading leads somewhere.
#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for rest in prose(&text).split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(other.exists(), "{}: {target}", page.display());
            if !anchor.is_empty() {
                let found = anchors(&std::fs::read_to_string(&other).unwrap());
                assert!(found.iter().any(|it| it == anchor), "{}: {target}", page.display());
            }
        }
    }
}

/// What a field may be, in a few words.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(constant) = schema.get("const") {
        return format!("`{}`", constant.as_str().unwrap());
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[alternatives].as_array() {
            let names: Vec<_> = schemas.iter().map(type_of).filter(|name| name != "null").collect();
            return names.join(" or ");
        }
    }
    let names = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => vec![name.as_str().unwrap_or("any")],
    };
    let names: Vec<_> =
        names.into_iter().filter(|name| *name != "null" || schema["type"] == "null").collect();
    match names[..] {
        ["array"] => format!("list of {}", type_of(&schema["items"])),
        ["object"] if schema["properties"].is_object() => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            let names: Vec<_> = fields.map(|(name, _)| name.as_str()).collect();
            format!("`{{{}}}`", names.join(", "))
        }
        ["object"] => {
            let pattern = schema["patternProperties"].as_object().and_then(|of| of.values().next());
            match pattern.or_else(|| schema.get("additionalProperties").filter(|of| of.is_object())) {
                Some(of) => format!("map to {}", type_of(of)),
                None => "map".to_owned(),
            }
        }
        _ => names.join(" or "),
    }
}

fn one_line(text: Option<&str>) -> String {
    text.unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// A definition: its fields as a table, or what it may be.
fn section(out: &mut String, schema: &Value) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    if let Some(fields) = schema["properties"].as_object() {
        out.push_str("| field | what it is | meaning |\n| --- | --- | --- |\n");
        for (name, field) in fields {
            let must = if required.iter().any(|it| *it == name) { " (required)" } else { "" };
            let meaning = one_line(field["description"].as_str());
            writeln!(out, "| `{name}`{must} | {} | {meaning} |", type_of(field)).unwrap();
        }
    } else if let Some(words) = schema["oneOf"].as_array() {
        for word in words {
            writeln!(out, "- {}: {}", type_of(word), one_line(word["description"].as_str())).unwrap();
        }
    } else {
        let pattern = schema["pattern"].as_str().map(|it| format!(", matching `{it}`")).unwrap_or_default();
        writeln!(out, "A {}{}.", type_of(schema), pattern.replace('|', "\\|")).unwrap();
    }
    out.push('\n');
}

/// The reference in `docs/spec.md` is made of `stele schema`. `EXPECTORATE=overwrite` writes it anew.
#[test]
fn the_spec_reference_says_what_the_schema_says() {
    const MARK: &str =
        "<!-- Below, everything is made from `stele schema` by crates/cli/tests/docs.rs. -->\n";
    let folder = tempfile::tempdir().unwrap();
    let output = stele(&["schema".to_owned()], folder.path());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = root().join("docs/spec.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (written, _) = page.split_once(MARK).expect("the page says where the reference begins");
    let mut made = format!("{written}{MARK}\n## The whole spec\n\n");
    section(&mut made, &schema);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        writeln!(made, "### {name}\n").unwrap();
        if let Some(description) = definition["description"].as_str() {
            writeln!(made, "{}\n", one_line(Some(description))).unwrap();
        }
        section(&mut made, definition);
    }
    expectorate::assert_contents(path, &(made.trim_end().to_owned() + "\n"));
}
