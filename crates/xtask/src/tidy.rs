//! What no compiler checks: sizes of files, what docs must list, what may not be left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::limits::MAX_FILE_LINES;
use crate::progress::{Outcome, say};
use crate::{cargo, goals_page, layers, limits_page};

/// Folders with sources, from the top of the checkout.
const SOURCE_DIRS: &[&str] = &["crates", "simulations"];
const LIMITS_PAGE: &str = "docs/limits.md";
const BENCHES_DIR: &str = "docs/benchmarks";
const GOALS_PAGE: &str = "docs/benchmarks/goals.md";
const DEPENDENCIES_PAGE: &str = "docs/dependencies.md";
/// Spelt in two halves so that this file does not find itself.
const LEFT_BEHIND: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];

/// Checks the checkout; with `bless`, writes the generated pages instead of comparing them.
pub(crate) fn check(bless: bool) -> Result<Outcome> {
    let root = cargo::root();
    let mut files = Vec::new();
    for dir in SOURCE_DIRS {
        walk(&root.join(dir), &mut files)?;
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = file.strip_prefix(&root).unwrap_or(&file).to_path_buf();
        sources.push((path, text));
    }

    let mut complaints = Vec::new();
    for (path, text) in &sources {
        complaints.extend(about_source(path, text));
    }
    complaints.extend(about_dependencies(&root)?);
    complaints.extend(about_pure_lints(&root));
    let page = limits_page::page(
        sources
            .iter()
            .filter(|(path, _)| path.ends_with("limits.rs"))
            .map(|(path, text)| (path.as_path(), text.as_str())),
    )?;
    complaints.extend(generated(&root.join(LIMITS_PAGE), LIMITS_PAGE, &page, bless)?);
    let benches = goals_page::read(&root.join(BENCHES_DIR))?;
    let page = goals_page::page(benches.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
    complaints.extend(generated(&root.join(GOALS_PAGE), GOALS_PAGE, &page, bless)?);

    for complaint in &complaints {
        say!("    {complaint}");
    }
    Ok(match complaints.len() {
        0 => Outcome::Passed,
        1 => Outcome::Failed("1 complaint".to_owned()),
        count => Outcome::Failed(format!("{count} complaints")),
    })
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                walk(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn about_source(path: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let shown = path.display();
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        complaints
            .push(format!("{shown}: {lines} lines, {MAX_FILE_LINES} at most: split it where its ideas part"));
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for left in LEFT_BEHIND {
            if code.contains(left) {
                complaints.push(format!("{shown}:{}: `{left}` was left behind", number + 1));
            }
        }
    }
    let opens_a_crate = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if opens_a_crate && !text.starts_with("//!") {
        complaints.push(format!(
            "{shown}: begins without `//!`: say what the crate owns, what it must never do, and show one example"
        ));
    }
    complaints
}

fn about_dependencies(root: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let page = fs::read_to_string(root.join(DEPENDENCIES_PAGE))
        .with_context(|| format!("cannot read {DEPENDENCIES_PAGE}"))?;
    let mut complaints = compare_dependencies(&manifest, &page);

    let mut manifests = String::new();
    for dir in SOURCE_DIRS {
        manifests.push_str(&fs::read_to_string(root.join(dir).join("Cargo.toml")).unwrap_or_default());
        manifests.push('\n');
        let Ok(entries) = fs::read_dir(root.join(dir)) else {
            continue;
        };
        for entry in entries.flatten() {
            manifests.push_str(&fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default());
            manifests.push('\n');
        }
    }
    complaints.extend(unused(&manifest, &manifests));
    Ok(complaints)
}

/// Dependencies the workspace declares and none of its crates names.
fn unused(manifest: &str, manifests: &str) -> Vec<String> {
    let named: BTreeSet<&str> =
        manifests.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
    declared(manifest)
        .difference(&named)
        .map(|name| format!("Cargo.toml: no crate uses `{name}`; remove it"))
        .collect()
}

/// Clippy reads the nearest `clippy.toml` alone, so each pure crate has a copy of the same.
fn about_pure_lints(root: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut first: Option<(PathBuf, String)> = None;
    for krate in layers::pure() {
        let dir = Path::new("crates").join(krate.trim_start_matches("stele-"));
        if !root.join(&dir).join("Cargo.toml").is_file() {
            continue;
        }
        let path = dir.join("clippy.toml");
        match (fs::read_to_string(root.join(&path)), &first) {
            (Err(_), _) => complaints.push(format!(
                "{}: missing: a pure crate bans clocks, I/O and unordered maps; copy another's",
                path.display()
            )),
            (Ok(text), None) => first = Some((path, text)),
            (Ok(text), Some((other, wanted))) if text != *wanted => complaints.push(format!(
                "{} differs from {}: the rules are the same for every pure crate",
                path.display(),
                other.display()
            )),
            (Ok(_), Some(_)) => {}
        }
    }
    complaints
}

fn compare_dependencies(manifest: &str, page: &str) -> Vec<String> {
    let used = declared(manifest);
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let mut complaints: Vec<String> = used
        .difference(&listed)
        .map(|name| format!("{DEPENDENCIES_PAGE}: no line says why `{name}` was chosen"))
        .collect();
    complaints.extend(
        listed
            .difference(&used)
            .map(|name| format!("{DEPENDENCIES_PAGE}: `{name}` is no dependency any more; remove its line")),
    );
    complaints
}

/// The names under `[workspace.dependencies]` that come from outside.
fn declared(manifest: &str) -> BTreeSet<&str> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim_start().starts_with('#') && !line.contains("path ="))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().split('.').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect()
}

fn generated(path: &Path, shown: &str, wanted: &str, bless: bool) -> Result<Option<String>> {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found == wanted {
        return Ok(None);
    }
    if bless {
        fs::write(path, wanted).with_context(|| format!("cannot write {shown}"))?;
        say!("    wrote {shown}");
        return Ok(None);
    }
    Ok(Some(format!("{shown} is not what the sources say; run: cargo xtask check --bless")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_what_was_left_behind_are_named() {
        let mut text = "//! Docs.\n".to_owned();
        text.push_str(&"\n".repeat(MAX_FILE_LINES));
        text.push_str("    ");
        text.push_str(LEFT_BEHIND[0]);
        text.push_str(")\n");
        let complaints = about_source(Path::new("crates/a/src/lib.rs"), &text);
        assert_eq!(complaints.len(), 2, "{complaints:#?}");
        assert!(complaints[0].contains("lines"), "{complaints:?}");
        assert!(complaints[1].contains("lib.rs:702"), "{complaints:?}");
    }

    #[test]
    fn a_crate_opens_with_its_docs() {
        let complaints = about_source(Path::new("crates/a/src/lib.rs"), "mod a;\n");
        assert!(complaints[0].contains("//!"), "{complaints:?}");
        assert!(about_source(Path::new("crates/a/src/inner.rs"), "fn a() {}\n").is_empty());
    }

    #[test]
    fn each_dependency_has_its_line_and_no_other_has() {
        let manifest = "[workspace.dependencies]\nstele-model = { path = \"x\" }\n# why\n\
            serde = \"1\"\ntokio = { version = \"1\" }\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
        let page = "| crate | why |\n| --- | --- |\n| `serde` | formats |\n| `rand` | gone |\n";
        let complaints = compare_dependencies(manifest, page);
        assert_eq!(complaints.len(), 2, "{complaints:#?}");
        assert!(complaints[0].contains("`tokio`"), "{complaints:?}");
        assert!(complaints[1].contains("`rand`"), "{complaints:?}");
    }

    #[test]
    fn a_dependency_nobody_uses_is_named() {
        let manifest = "[workspace.dependencies]\nserde = \"1\"\nserde_json = \"1\"\ntokio = \"1\"\n";
        let manifests = "[dependencies]\nserde_json.workspace = true\ntokio = { workspace = true }\n";
        let complaints = unused(manifest, manifests);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("`serde`"), "{complaints:?}");
    }
}
