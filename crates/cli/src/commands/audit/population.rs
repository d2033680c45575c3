//! Every change, and the proof that there is no other.

use std::io::Write as _;

use serde::Serialize;
use stele_model::{FleetName, Scope, Seq};
use stele_proof::pack::{Regions, touches};

use super::change::{Change, is_change, moment};
use super::csv::push_row;
use super::log::{Log, note_region};
use super::range::Between;
use crate::commands::checkpoint::{Believed, Trust, UNWITNESSED};
use crate::exit::Failure;
use crate::limits::POPULATION_ROWS_MAX;
use crate::session::{Session, count};
use crate::terminal::{Output, Terminal, Tone, visible};

/// List every change between two points, as CSV, and prove that none is left out
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele audit population --between 2026-01-01T00:00:00Z 2026-04-01T00:00:00Z > q1.csv\n  stele audit population --between seq:0 now shop/web@prod\n  stele audit population --between \"7d ago\" now env:prod --output json | jq .count\n\nA change is a record by anybody but the controllers themselves, or by them on somebody's behalf, or about who may\ndo what: fleet, controllers, tokens. Refusals change nothing and are not listed; neither is what the controllers made\nof a change: both are in `stele audit export`. Of a scope it is every change that touches it, or may: also what is\nabout the whole fleet, such as tokens.\n\nThe rows go to standard output once every record of the range was fetched, hashed and led to the root of a signed\ncheckpoint, which is verified as `stele checkpoint` does. Count, range, root and tree size go to standard error.\n\nThe CSV is as in RFC 4180, with plain newlines. A cell that a spreadsheet could take for a formula begins with an\napostrophe that is not part of it. --output csv is what is printed anyway; --output json and yaml have all of it in\none document, texts as they are."
)]
pub(crate) struct Population {
    /// Of what
    #[arg(default_value = "fleet")]
    scope: Scope,
    #[command(flatten)]
    between: Between,
    #[command(flatten)]
    trust: Trust,
}

/// Which records were looked at, and what they were proved against.
#[derive(Serialize)]
pub(super) struct Proved {
    pub(super) fleet: FleetName,
    pub(super) scope: Scope,
    /// The points asked for: from just after the first up to the second.
    between: [String; 2],
    first: Seq,
    last: Seq,
    first_time: String,
    last_time: String,
    /// Changes among them.
    pub(super) count: usize,
    checkpoint: Believed,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    proved: Proved,
    changes: Vec<Change>,
}

impl Population {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let (proved, changes) = population(session, &self.between, &self.scope, &self.trust)?;
        let terminal = session.terminal;
        if matches!(terminal.output, Output::Json | Output::Yaml) {
            return terminal.answer(&Answer { proved, changes }, |_| String::new());
        }
        print_rows(&Change::COLUMNS, changes.iter().map(Change::cells))?;
        proved.say(terminal);
        Ok(())
    }
}

/// All changes of a range that touch a scope, proved.
pub(super) fn population(
    session: &Session,
    between: &Between,
    scope: &Scope,
    trust: &Trust,
) -> Result<(Proved, Vec<Change>), Failure> {
    let client = session.client()?;
    let range = between.resolve(&client, scope)?;
    let mut log = Log::open(session, &client, trust, range.last(), between.read)?;
    let mut regions = Regions::new();
    let mut found = Vec::new();
    let (mut first_time, mut last_time) = (None, String::new());
    let leaves = log.read(&range, |stored, header, leaf| {
        // Of a range that begins later, an enrolment may have been kept back: then no node's region is known.
        if range.first() == 1 {
            note_region(&mut regions, &stored, &header);
        }
        last_time = moment(header.time);
        first_time.get_or_insert_with(|| last_time.clone());
        if !is_change(&header) {
            return Ok(());
        }
        if found.len() == POPULATION_ROWS_MAX {
            return Err(Failure::Usage(format!(
                "more than {POPULATION_ROWS_MAX} changes lie in this range\n  next: take several shorter ranges, each \
                 beginning where the one before it ends"
            )));
        }
        found.push((header, leaf));
        Ok(())
    })?;
    log.prove(range.first(), &leaves)?;
    range.check(&mut log)?;
    // A node may be enrolled after what happened on it first was read: so this is told at the end.
    found.retain(|(header, _)| touches(scope, &regions, &header.kind, &header.scopes));
    let changes: Vec<_> = found.into_iter().map(|(header, leaf)| Change::new(header, leaf)).collect();
    let proved = Proved {
        fleet: log.checkpoint.fleet.clone(),
        scope: scope.clone(),
        first: range.first(),
        last: range.last(),
        between: [range.from.written, range.to.written],
        first_time: first_time.unwrap_or_default(),
        last_time,
        count: changes.len(),
        checkpoint: log.checkpoint,
    };
    Ok((proved, changes))
}

/// Prints a spreadsheet's rows.
pub(super) fn print_rows<const N: usize>(
    columns: &[&str],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut text = String::new();
    push_row(&mut text, columns.iter().copied());
    out.write_all(text.as_bytes())?;
    for row in rows {
        text.clear();
        push_row(&mut text, row.iter().map(String::as_str));
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

impl Proved {
    /// Says on standard error what the rows are, and on what they rest.
    pub(super) fn say(&self, terminal: Terminal) {
        let records = self.last - self.first + 1;
        eprintln!(
            "{} ({}) among {} of fleet {}: seq {} to {}, {} to {}",
            count(self.count, "change"),
            self.scope,
            count(records as usize, "record"),
            self.fleet,
            self.first,
            self.last,
            self.first_time,
            self.last_time
        );
        eprintln!("asked for: after {}, up to {}", self.between[0], self.between[1]);
        eprintln!(
            "no record is left out: the hashes of all {records} lead to the root of a signed tree of {} records",
            self.checkpoint.size
        );
        eprintln!("root {}", self.checkpoint.root);
        for line in self.checkpoint.reasons() {
            eprintln!("{line}");
        }
        for line in warnings(&self.checkpoint) {
            say_warning(terminal, &line);
        }
        match self.checkpoint.witnessed_size.unwrap_or(0) {
            0 => say_warning(terminal, UNWITNESSED),
            size if size < self.last => {
                say_warning(terminal, &format!("{UNWITNESSED} after record {size}"));
            }
            _ => {}
        }
    }
}

/// What whoever believes a checkpoint should know, besides who witnessed it.
pub(super) fn warnings(checkpoint: &Believed) -> Vec<String> {
    let mut lines = checkpoint.differing.clone();
    if !checkpoint.pinned {
        lines.push(
            "the root key is only what the controllers say it is; give the one you know: --root KEY"
                .to_owned(),
        );
    }
    lines
}

/// A line on standard error, in colour where somebody watches it.
pub(super) fn say_warning(terminal: Terminal, line: &str) {
    if Terminal::is_watched() {
        eprintln!("{}", terminal.paint(Tone::Busy, &visible(line)));
    } else {
        eprintln!("{}", visible(line));
    }
}
