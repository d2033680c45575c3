//! What is printed, and how: tables for people, JSON and YAML for programs.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use stele_api::wire::PinnedPlace;
use stele_model::Time;

use crate::exit::Failure;
use crate::limits::{CELL_CHARS_MAX, PINS_SHOWN_MAX};

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// The API's answer, for programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// Rows for a spreadsheet. Only few answers are rows, so it is named where they are explained.
    #[value(hide = true)]
    Csv,
}

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) output: Output,
    /// Whether what is printed is seen by people at once.
    is_seen: bool,
    color: bool,
}

/// A colour that means something.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Bad,
    Busy,
    Faint,
}

impl Terminal {
    pub(crate) fn new(output: Output) -> Self {
        let is_seen = std::io::stdout().is_terminal();
        let color = is_seen && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Self { output, is_seen, color }
    }

    /// Whether people read along on standard error.
    pub(crate) fn is_watched() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Prints an answer in the form asked for.
    pub(crate) fn answer<T: Serialize>(
        self,
        answer: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = match self.output {
            Output::Table | Output::Csv => table(answer),
            Output::Json => serde_json::to_string_pretty(answer)
                .map_err(|error| Failure::Failed(format!("cannot print the answer: {error}")))?,
            Output::Yaml => serde_saphyr::to_string(answer)
                .map_err(|error| Failure::Failed(format!("cannot print the answer: {error}")))?,
        };
        self.line(text.trim_end())
    }

    /// Prints one item of a stream: a line of text, a line of JSON, or a YAML document.
    pub(crate) fn item<T: Serialize>(self, item: &T, line: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.output {
            Output::Json => {
                let text = serde_json::to_string(item)
                    .map_err(|error| Failure::Failed(format!("cannot print the answer: {error}")))?;
                self.line(&text)
            }
            Output::Yaml => {
                self.line("---")?;
                self.answer(item, |_| String::new())
            }
            Output::Table | Output::Csv => self.line(&line(item)),
        }
    }

    /// Prints a line for people; programs that asked for JSON or YAML do not get it.
    pub(crate) fn note(self, text: &str) -> Result<(), Failure> {
        if self.output == Output::Table { self.line(text) } else { Ok(()) }
    }

    /// Prints a line.
    #[allow(clippy::unused_self)] // Where a terminal's lines go is the terminal's to know.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok(())
    }

    /// A line that a program printed: as it is, except on a terminal, to which it can do nothing there.
    pub(crate) fn printed(self, text: &str) -> Cow<'_, str> {
        if self.is_seen { tame(text).into() } else { text.into() }
    }

    /// Colours a word, on a terminal.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Busy => "33",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A table without frames, which people can read and `awk` can cut.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header = header.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| visible_width(cell)).max().unwrap_or(0)
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - visible_width(cell))));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Characters seen of a text that may be painted.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut in_escape = false;
    for character in text.chars() {
        match character {
            '\u{1b}' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ => width += 1,
        }
    }
    width
}

/// Somebody's text, that can do nothing to the terminal it is shown on: but for the ends of
/// lines, characters that terminals act on, or that make text read in another order, are written out.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if (character.is_control() && character != '\n') || is_deceptive(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A line of a program's output as [`one_line`], but with its tabs, and without its colours.
fn tame(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let code = after.trim_start_matches(|it: char| it.is_ascii_digit() || it == ';' || it == ':');
        rest = code.strip_prefix('m').unwrap_or_else(|| {
            plain.push_str("\u{1b}[");
            after
        });
    }
    plain.push_str(rest);
    // What is left may have become a sequence only now: nothing of it is sent as it is.
    plain.split('\t').map(one_line).collect::<Vec<_>>().join("\t")
}

/// Whether a character cannot be seen, and changes in which order or on which line others are: Unicode's
/// controls of direction, and its separators of lines and paragraphs.
const fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Somebody's text on one line, whole: it can pass for no other line than its own.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace('\n', "⏎")
}

/// A value short enough for a line.
pub(crate) fn cell(text: &str) -> String {
    let line = one_line(text);
    if line.chars().count() <= CELL_CHARS_MAX {
        return line;
    }
    let start: String = line.chars().take(CELL_CHARS_MAX - 1).collect();
    format!("{start}…")
}

/// An absent thing.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `v12`.
pub(crate) fn version(number: Option<u32>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("v{number}"))
}

/// Places with the release of each, the first of them by name: `v1 in region:eu, not in node:eu-3`.
pub(crate) fn places(places: &[PinnedPlace]) -> String {
    let told = places.iter().map(|pin| match pin.release {
        Some(release) => format!("v{release} in {}", pin.place),
        None => format!("not in {}", pin.place),
    });
    let mut shown: Vec<_> = told.take(PINS_SHOWN_MAX).collect();
    let more = places.len().saturating_sub(PINS_SHOWN_MAX);
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// A time to the second, in UTC.
pub(crate) fn time(time: Time) -> String {
    written(time, "%Y-%m-%dT%H:%M:%SZ")
}

/// A time to the millisecond, in UTC.
pub(crate) fn exact_time(time: Time) -> String {
    written(time, "%Y-%m-%dT%H:%M:%S.%3fZ")
}

fn written(time: Time, format: &str) -> String {
    let timestamp =
        i64::try_from(time.0).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    timestamp.map_or_else(|| time.0.to_string(), |timestamp| timestamp.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time(Time(1_770_000_000_000_000)), "2026-02-02T02:40:00Z");
        assert_eq!(time(Time(u64::MAX)), u64::MAX.to_string());
        assert_eq!(exact_time(Time(1_770_000_000_012_999)), "2026-02-02T02:40:00.012Z");
    }

    #[test]
    fn colours_take_no_room_in_tables() {
        let terminal = Terminal { output: Output::Table, is_seen: true, color: true };
        let painted = terminal.paint(Tone::Good, "up");
        let text = table(&["NODE", "STATE", "N"], vec![vec!["eu-1".into(), painted.clone(), "1".into()]]);
        assert_eq!(text, format!("NODE  STATE  N\neu-1  {painted}     1"));
    }

    #[test]
    fn nobodys_text_moves_the_cursor() {
        assert_eq!(visible("a\u{1b}[2Jb\rc\nd"), "a\\u{1b}[2Jb\\rc\nd");
        assert_eq!(cell("a\u{1b}[31m\nb"), "a\\u{1b}[31m⏎b");
        assert_eq!(one_line("a\r\nseq 7  root\n"), "a\\r⏎seq 7  root⏎");
    }

    #[test]
    fn what_programs_print_drives_no_terminal() {
        let terminal = Terminal { output: Output::Table, is_seen: true, color: false };
        let shown = |text: &'static str| terminal.printed(text).into_owned();
        assert_eq!(shown("\u{1b}[1;31merror\u{1b}[0m:\tit broke\u{1b}[m"), "error:\tit broke");
        assert_eq!(
            shown("a\u{1b}[2Jb\u{1b}]0;title\u{7}c\rd\u{9b}2Je"),
            "a\\u{1b}[2Jb\\u{1b}]0;title\\u{7}c\\rd\\u{9b}2Je"
        );
        assert_eq!(shown("\u{1b}\u{1b}[m[2J"), "\\u{1b}[2J", "no colour hides another sequence");
        assert_eq!(shown("a\u{1b}[38;5"), "a\\u{1b}[38;5");
        assert_eq!(shown("one\nweb.0 | two\u{202e}"), "one⏎web.0 | two\\u{202e}");
        let raw = "\u{1b}[2J\tx\r";
        assert_eq!(Terminal { is_seen: false, ..terminal }.printed(raw), raw, "into a pipe it goes as it is");
    }

    #[test]
    fn nobodys_text_is_read_in_another_order() {
        for hidden in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'] {
            assert_eq!(visible(&format!("a{hidden}b")), format!("a{}b", hidden.escape_default()));
        }
        let hebrew = "שלום, 2 עולמות";
        assert_eq!(visible(hebrew), hebrew, "a script written from right to left is text as any other");
    }

    #[test]
    fn long_cells_are_cut() {
        let cut = cell(&"ä".repeat(100));
        assert_eq!(cut.chars().count(), CELL_CHARS_MAX);
        assert!(cut.ends_with('…'));
    }
}
