//! Differences as people read them: by app, files line by line, placement by node.

use std::collections::BTreeMap;

use stele_model::Difference;

use crate::limits::{DIFFERENCES_SHOWN_MAX, DIGEST_CHARS_SHOWN, SAME_CHARS_SHOWN};
use crate::lines::{Line, compare};
use crate::session::count;
use crate::terminal::{Terminal, Tone, cell, one_line};

impl Terminal {
    /// Differences app by app: what comes with `+`, what goes with `-`, what changes with `~`.
    pub(crate) fn differences(self, differences: &[Difference]) -> String {
        let shown = &differences[..differences.len().min(DIFFERENCES_SHOWN_MAX)];
        let mut lines = Vec::new();
        for app in shown.chunk_by(|one, other| one.app_env == other.app_env) {
            lines.push(app[0].app_env.to_string());
            let (placement, fields): (Vec<_>, Vec<_>) =
                app.iter().partition(|difference| slot_of(difference).is_some());
            for difference in fields {
                self.difference(difference, &mut lines);
            }
            self.placement(&placement, &mut lines);
        }
        if differences.len() > shown.len() {
            let more = differences.len() - shown.len();
            lines.push(format!("  … and {more} more; all of them with --output json"));
        }
        lines.join("\n")
    }

    fn difference(self, difference: &Difference, lines: &mut Vec<String>) {
        let (path, shown) = (&difference.path, one_line(&difference.path));
        match (&difference.before, &difference.after) {
            (before, after) if path.is_empty() => self.whole_app(before.as_ref(), after.as_ref(), lines),
            (None, None) => {}
            (None, Some(after)) => {
                lines.push(self.paint(Tone::Good, &format!("  + {shown}: {}", brief(path, after))));
            }
            (Some(before), None) => {
                lines.push(self.paint(Tone::Bad, &format!("  - {shown}: {}", brief(path, before))));
            }
            (Some(before), Some(after)) if before.contains('\n') || after.contains('\n') => {
                lines.push(self.paint(Tone::Busy, &format!("  ~ {shown}:")));
                lines.extend(compare(before, after).into_iter().map(|line| self.compared(line)));
            }
            (Some(_), Some(_)) if (1..=DIFFERENCES_SHOWN_MAX).contains(&parts(difference).len()) => {
                for part in parts(difference) {
                    self.difference(&part, lines);
                }
            }
            (Some(before), Some(after)) => {
                let brief = (brief(path, before), brief(path, after));
                let (before, after) =
                    if brief.0 == brief.1 { from_where_they_differ(before, after) } else { brief };
                lines.push(self.paint(Tone::Busy, &format!("  ~ {shown}: {before} -> {after}")));
            }
        }
    }

    fn compared(self, line: Line<'_>) -> String {
        match line {
            Line::At { before, after } => self.paint(Tone::Faint, &format!("      @@ -{before} +{after} @@")),
            Line::Same(text) => format!("       {}", one_line(text)),
            Line::Gone(text) => self.paint(Tone::Bad, &format!("      -{}", one_line(text))),
            Line::Come(text) => self.paint(Tone::Good, &format!("      +{}", one_line(text))),
        }
    }

    /// An app that comes or goes: what it runs.
    fn whole_app(self, before: Option<&String>, after: Option<&String>, lines: &mut Vec<String>) {
        let (tone, sign) = if after.is_some() { (Tone::Good, '+') } else { (Tone::Bad, '-') };
        let text = after.or(before);
        let app: serde_json::Value =
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let release = app["release"].as_str().unwrap_or("the app");
        lines.push(self.paint(tone, &format!("  {sign} {}", one_line(release))));
        for (name, service) in app["services"].as_object().into_iter().flatten() {
            let image = service["container"]["image"].as_str().unwrap_or_default();
            lines.push(
                self.paint(tone, &format!("  {sign} services.{}: {}", one_line(name), one_line(image))),
            );
        }
    }

    /// Where instances come and go, node by node.
    fn placement(self, differences: &[&Difference], lines: &mut Vec<String>) {
        let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for difference in differences {
            let Some(slot) = slot_of(difference) else { continue };
            let (before, after) = (difference.before.as_deref(), difference.after.as_deref());
            if let Some(node) = before {
                let to = after.map(|node| format!(" (to {node})")).unwrap_or_default();
                nodes.entry(node).or_default().push(self.paint(Tone::Bad, &format!("-{slot}{to}")));
            }
            if let Some(node) = after {
                let from = before.map(|node| format!(" (from {node})")).unwrap_or_default();
                nodes.entry(node).or_default().push(self.paint(Tone::Good, &format!("+{slot}{from}")));
            }
        }
        if !nodes.is_empty() {
            lines.push("  placement".to_owned());
        }
        lines.extend(nodes.into_iter().map(|(node, changes)| format!("    {node}: {}", changes.join(", "))));
    }
}

/// What differs inside two values that both have parts: cut to a line, they would look the same.
fn parts(difference: &Difference) -> Vec<Difference> {
    let object = |value: &Option<String>| -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_str(value.as_ref()?).ok()
    };
    let (Some(before), Some(after)) = (object(&difference.before), object(&difference.after)) else {
        return Vec::new();
    };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Difference {
            path: format!("{}.{key}", difference.path),
            before: before.get(key).map(text),
            after: after.get(key).map(text),
            ..difference.clone()
        })
        .collect()
}

/// The slot a difference of placement is about.
fn slot_of(difference: &Difference) -> Option<&str> {
    difference.path.strip_prefix("placement.")
}

/// A service that comes or goes is told by its image, and an image by the beginning of its digest.
fn brief(path: &str, value: &str) -> String {
    let is_service = path.strip_prefix("services.").is_some_and(|name| !name.contains('.'));
    let service = is_service.then(|| serde_json::from_str::<serde_json::Value>(value).ok()).flatten();
    let image = service.as_ref().and_then(|service| service["container"]["image"].as_str());
    match image.unwrap_or(value).split_once("@sha256:") {
        Some((name, digest))
            if digest.len() > DIGEST_CHARS_SHOWN
                && (is_service || path.rsplit('.').next() == Some("image")) =>
        {
            let digest: String = digest.chars().take(DIGEST_CHARS_SHOWN).collect();
            cell(&format!("{name}@sha256:{digest}…"))
        }
        _ => cell(image.unwrap_or(value)),
    }
}

/// Two values without most of what both begin with.
fn from_where_they_differ(before: &str, after: &str) -> (String, String) {
    let same = before.chars().zip(after.chars()).take_while(|(one, other)| one == other).count();
    let left_out = same.saturating_sub(SAME_CHARS_SHOWN);
    let rest = |text: &str| {
        let rest: String = text.chars().skip(left_out).collect();
        cell(&if left_out > 0 { format!("…{rest}") } else { rest })
    };
    (rest(before), rest(after))
}

/// How many apps came, went and changed: `2 apps: 1 added, 1 changed (7 differences)`.
pub(crate) fn summary(differences: &[Difference]) -> String {
    let (mut apps, mut added, mut removed) = (0, 0, 0);
    for app in differences.chunk_by(|one, other| one.app_env == other.app_env) {
        let whole = app.iter().find(|difference| difference.path.is_empty());
        apps += 1;
        added += usize::from(whole.is_some_and(|difference| difference.before.is_none()));
        removed += usize::from(whole.is_some_and(|difference| difference.after.is_none()));
    }
    let parts = [(added, "added"), (removed, "removed"), (apps - added - removed, "changed")];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    format!("{}: {} ({})", count(apps, "app"), parts.join(", "), count(differences.len(), "difference"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Output;

    fn difference(app: &str, path: &str, before: Option<&str>, after: Option<&str>) -> Difference {
        #[allow(clippy::unwrap_used)]
        let app_env = app.parse().unwrap();
        let text = |value: Option<&str>| value.map(str::to_owned);
        Difference { app_env, path: path.to_owned(), before: text(before), after: text(after) }
    }

    #[test]
    fn each_app_is_told_by_itself() {
        let whole = r#"{"release":"v1","services":{"web":{"container":{"image":"shop:1@sha256:aa"}}}}"#;
        let image = |digit: char| format!("shop:1@sha256:{}", digit.to_string().repeat(64));
        let file = "services.web.container.files./etc/web.conf.content";
        let differences = [
            difference("shop/cart@prod", "", None, Some(whole)),
            difference("shop/cart@prod", "placement.web.0", None, Some("eu-1")),
            difference("shop/web@prod", "release", Some("v1"), Some("v2")),
            difference("shop/web@prod", file, Some("one\ntwo\n"), Some("one\nthree\n")),
            difference("shop/web@prod", "services.web.container.image", Some(&image('a')), Some(&image('b'))),
            difference("shop/web@prod", "secrets.db", Some("version 1"), None),
            difference("shop/web@prod", "placement.web.0", Some("eu-1"), Some("us-1")),
            difference("shop/web@prod", "placement.web.1", Some("eu-1"), None),
        ];
        let text = Terminal::new(Output::Table).differences(&differences);
        let expected = "\
shop/cart@prod
  + v1
  + services.web: shop:1@sha256:aa
  placement
    eu-1: +web.0
shop/web@prod
  ~ release: v1 -> v2
  ~ services.web.container.files./etc/web.conf.content:
      @@ -1 +1 @@
       one
      -two
      +three
  ~ services.web.container.image: shop:1@sha256:aaaaaaaaaaaa… -> shop:1@sha256:bbbbbbbbbbbb…
  - secrets.db: version 1
  placement
    eu-1: -web.0 (to us-1), -web.1
    us-1: +web.0 (from eu-1)";
        assert_eq!(text, expected);
        assert_eq!(summary(&differences), "2 apps: 1 added, 1 changed (8 differences)");
    }

    #[test]
    fn what_differs_inside_a_value_is_told_by_itself() {
        let health = |start: u32, check: &str| {
            format!(
                r#"{{"check":{check},"interval_ms":1000,"retries":3,"start_period_ms":{start},"timeout_ms":900}}"#
            )
        };
        let (before, after) = (health(1000, r#"{"port":80}"#), health(6000, r#"{"path":"/","port":80}"#));
        let path = "services.web.container.health";
        let text = |before: &str, after: &str| {
            Terminal::new(Output::Table).differences(&[difference(
                "shop/web@prod",
                path,
                Some(before),
                Some(after),
            )])
        };
        let expected = "\
shop/web@prod
  + services.web.container.health.check.path: /
  ~ services.web.container.health.start_period_ms: 1000 -> 6000";
        assert_eq!(text(&before, &after), expected);
        // What is too long to be shown is shown from where it differs.
        let long = |end: &str| format!("{}{end}", "0123456789".repeat(10));
        let cut = text(&long("one"), &long("two"));
        assert!(cut.ends_with("health: …0123456789one -> …0123456789two"), "{cut}");
        // The same to whoever reads JSON, and not the same text.
        assert!(text("{\"a\":1}", "{ \"a\": 1 }").ends_with("health: {\"a\":1} -> { \"a\": 1 }"));
    }
}
