//! `docs/limits.md`: every limit of every crate, read from the sources.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

const INTRODUCTION: &str = "# Limits

Every limit Stele has: sizes, counts, queues, timeouts. Each is a named constant in a module
`limits` of its crate; this page is generated from them. After changing one, run
`cargo xtask check --bless`.
";

/// One constant.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    value: String,
    meaning: String,
}

/// The page as it should be, from all `limits.rs` files: `(path from the root, text)`.
pub(crate) fn page<'a>(sources: impl Iterator<Item = (&'a Path, &'a str)>) -> Result<String> {
    let mut page = INTRODUCTION.to_owned();
    for (path, text) in sources {
        let limits = parse(text).with_context(|| format!("{}", path.display()))?;
        if limits.is_empty() {
            continue;
        }
        let krate =
            path.components().nth(1).map(|part| part.as_os_str().to_string_lossy()).unwrap_or_default();
        let _ = write!(
            page,
            "\n## {krate}\n\nFrom `{}`.\n\n| limit | value | meaning |\n| --- | --- | --- |\n",
            path.display()
        );
        for limit in limits {
            let _ =
                writeln!(page, "| `{}` | `{}` | {} |", limit.name, cell(&limit.value), cell(&limit.meaning));
        }
    }
    Ok(page)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Finds `/// meaning` and `pub const NAME: Type = value;`, over as many lines as each takes.
fn parse(text: &str) -> Result<Vec<Limit>> {
    let mut limits = Vec::new();
    let mut meaning = String::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            append(&mut meaning, doc.trim());
        } else if let Some(constant) = constant(line) {
            let mut declaration = constant.to_owned();
            while !declaration.ends_with(';') {
                let Some(more) = lines.next() else {
                    bail!("`{declaration}` does not end with `;`");
                };
                append(&mut declaration, more);
            }
            let declaration = declaration.trim_end_matches(';');
            let (head, value) =
                declaration.split_once(" = ").with_context(|| format!("`{declaration}` has no value"))?;
            let name = head.split(':').next().unwrap_or_default().trim();
            if meaning.is_empty() {
                bail!("{name} has no `///` line that says what it limits and in which unit");
            }
            limits.push(Limit {
                name: name.to_owned(),
                value: value.trim().to_owned(),
                meaning: std::mem::take(&mut meaning),
            });
        } else if !line.starts_with('#') {
            meaning.clear();
        }
    }
    Ok(limits)
}

fn constant(line: &str) -> Option<&str> {
    ["pub const ", "pub(crate) const "]
        .iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .filter(|rest| !rest.starts_with("fn "))
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn constants_are_read_with_meaning_and_value() {
        let text = "//! Limits.\n\nuse std::time::Duration;\n\n/// Bytes of one payload,\n/// at most.\n\
            pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;\n\n/// Wait | pause.\n\
            pub(crate) const WAIT: Duration =\n    Duration::from_secs(5);\n\n\
            /// A function is no limit.\npub const fn twice(n: u32) -> u32 { n * 2 }\n";
        let page = page([(Path::new("crates/store/src/limits.rs"), text)].into_iter()).unwrap();
        assert!(page.contains("## store\n"), "{page}");
        assert!(
            page.contains("| `MAX_PAYLOAD_BYTES` | `1024 * 1024` | Bytes of one payload, at most. |"),
            "{page}"
        );
        assert!(page.contains("| `WAIT` | `Duration::from_secs(5)` | Wait \\| pause. |"), "{page}");
        assert!(!page.contains("twice"), "{page}");
    }

    #[test]
    fn a_limit_without_a_meaning_is_refused() {
        let text = "/// Of something else.\nuse x;\npub const NAKED: u8 = 1;\n";
        let error = parse(text).unwrap_err();
        assert!(error.to_string().contains("NAKED"), "{error}");
    }
}
