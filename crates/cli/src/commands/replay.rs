//! Replaying the log without trusting the controllers, or their disks.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use stele_api::wire::{DiffAnswer, EventsPage};
use stele_model::point::PointError;
use stele_model::{ControllerId, Digest, Point, Record, Seq};

use super::event_line::event_line;
use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::folder::Folder;
use crate::limits::REPLAY_PROGRESS_INTERVAL;
use crate::options::{Globals, ReadOptions, point};
use crate::replay::{Checks, FromApi, FromStore, Replayed, Replica, Source, ask_all, compare_at, replay};
use crate::session::{Session, count};
use crate::terminal::{Output, Terminal, one_line};

/// Replay the log from its first record, and compare everything that was ever worked out from it
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele replay\n  stele replay --from https://10.0.0.2:7400 --to \"2h ago\"\n  stele replay --data /var/lib/stele/data\n  stele replay --print           # every record, once it is verified\n\nChecked: no record is missing or out of order, times only grow, decisions are whole, every payload matches its\nheader's hash, every header is chained to the one before it, and every State digest in the log equals the one\nfolded here. From controllers, also that every replica's newest checkpoint is what its records come to,\nand signed with a key that the fleet's root certified; of a controller that gives none, only its State, on its word. In a data folder, also the chain stored beside every record, and every snapshot and milestone.\nThe folder is only read; its controller may be stopped or running (then its newest milestones are not there yet).\n\nThe first difference ends it with exit code 7, and names the record, the field and both values; so does a checkpoint\nthat does not verify. Where no controller's signed checkpoint was compared, the exit code is 8, unless --to is given.",
    mut_arg("stale", |stale| stale.conflicts_with("data"))
)]
pub(crate) struct Replay {
    /// A controller's data folder, instead of a running fleet
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    data: Option<PathBuf>,
    /// A controller's address, instead of the context's
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Only up to this point: seq:N, a time, or "2h ago"
    #[arg(long, value_name = "POINT")]
    to: Option<String>,
    /// Print every record as it is verified
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    read: ReadOptions,
}

/// What was replayed, and everything equal.
#[derive(Serialize)]
struct Report {
    records: Seq,
    state_digests_matched: u64,
    snapshots_matched: u64,
    milestones_matched: u64,
    replicas: Vec<Replica>,
    unheard: Vec<Unheard>,
    /// Whether no controller's signed checkpoint was among it, where one should have been.
    unsigned: bool,
    chain: Digest,
    root: Digest,
    state_digest: Digest,
    seconds: f64,
    events_per_second: f64,
}

/// A controller that could not be asked.
#[derive(Serialize)]
struct Unheard {
    controller: ControllerId,
    why: String,
}

impl Replay {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let ended = match &self.data {
            Some(folder) => self.run_folder(session, folder),
            None => self.run_fleet(session),
        };
        if let (Err(Failure::Diverged(diverged)), false) = (&ended, session.terminal.output == Output::Table)
        {
            session.terminal.answer(&Diverged { diverged }, |_| String::new())?;
        }
        ended
    }

    fn run_folder(&self, session: &Session, folder: &Path) -> Result<(), Failure> {
        let folder = Folder::open(folder)?;
        let last = folder.reader.last_seq();
        let to = match self.point()? {
            None => last,
            Some(point) => folder.seq_of(&point)?.ok_or_else(|| {
                Failure::Usage(format!(
                    "{point} is about an app, and a folder is replayed as a whole: write seq:N or a time"
                ))
            })?,
        };
        session.terminal.note(&format!(
            "the log of controller {} of fleet {} in {}: {last} records",
            folder.identity.node,
            folder.identity.fleet,
            folder.path().display()
        ))?;
        let mut checks = Checks::of_store(folder.reader.clone())?;
        self.report(session, FromStore(folder.reader), to, &mut checks, Vec::new(), false)
    }

    fn run_fleet(&self, session: &Session) -> Result<(), Failure> {
        let context = match &self.from {
            None => session.context()?,
            Some(url) => {
                let globals = Globals { addr: vec![url.clone()], context: None, ..session.globals().clone() };
                Session::new(globals).context()?
            }
        };
        let client = Client::new(&context)?;
        let asked = self.point()?.map(|point| self.end_at(&client, &point)).transpose()?;
        let (mut replicas, mut unheard) = ask_all(&client, &context)?;
        // The log goes on growing: what was there at the first look is what is replayed, and what was signed.
        let mut to = if let Some(to) = asked {
            to
        } else {
            let query = [("limit", Some("1".to_owned())), self.read.consistency()];
            client.get::<EventsPage>(&with_query("/v1/events", &query))?.last
        };
        // Who has no quorum may lack what others signed.
        if asked.is_none() && !self.read.is_stale() {
            to = replicas.iter().map(|replica| replica.seq).fold(to, Seq::max);
        }
        // The last record at or before it that ends a decision.
        to = self.end_at(&client, &Point::Seq(to))?;
        let is_replayed = |replica: &mut Replica| (1..=to).contains(&replica.seq);
        let beyond: Vec<_> = replicas.extract_if(.., |replica| !is_replayed(replica)).collect();
        if asked.is_none() {
            let why =
                |seq| format!("its checkpoint is of record {seq}, and the log given ends at record {to}");
            unheard.extend(beyond.iter().map(|replica| (replica.controller, why(replica.seq))));
        }
        replicas.extend(compare_at(&client, &context, to, &replicas, &mut unheard)?);
        let mut checks = Checks::of_replicas(replicas);
        let unheard = unheard.into_iter().map(|(controller, why)| Unheard { controller, why }).collect();
        // Of a log that ends earlier, nothing is signed that could be compared.
        self.report(session, FromApi(client, self.read), to, &mut checks, unheard, asked.is_none())
    }

    /// The seq of a point, as a controller sees it.
    fn end_at(&self, client: &Client, point: &Point) -> Result<Seq, Failure> {
        // Nothing differs between a point and itself: only its seq is wanted.
        let query =
            [("from", Some(point.to_string())), ("to", Some(point.to_string())), self.read.consistency()];
        Ok(client.get::<DiffAnswer>(&with_query("/v1/diff", &query))?.to)
    }

    /// A bare number is a seq.
    fn point(&self) -> Result<Option<Point>, Failure> {
        let Some(text) = &self.to else { return Ok(None) };
        if let Ok(seq) = text.parse() {
            return Ok(Some(Point::Seq(seq)));
        }
        let read = point(text).and_then(|text| text.parse().map_err(|error: PointError| error.to_string()));
        read.map(Some).map_err(Failure::Usage)
    }

    /// Replays, and says what was equal.
    fn report(
        &self,
        session: &Session,
        source: impl Source,
        to: Seq,
        checks: &mut Checks,
        unheard: Vec<Unheard>,
        wants_signature: bool,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let terminal = session.terminal;
        let mut progress = Progress::new(to, self.print);
        let replayed = replay(source, to, checks, |record: &Record| {
            progress.at(record.header.seq);
            if self.print { terminal.item(record, |record| event_line(terminal, record)) } else { Ok(()) }
        });
        progress.end();
        let Replayed { records, digests, chain, root, state } = replayed?;
        let seconds = began.elapsed().as_secs_f64();
        let replicas = std::mem::take(&mut checks.replicas_matched);
        let report = Report {
            unsigned: wants_signature && replicas.iter().all(|replica| replica.root.is_none()),
            records,
            state_digests_matched: digests,
            snapshots_matched: checks.snapshots_matched,
            milestones_matched: checks.milestones_matched,
            replicas,
            unheard,
            chain: chain.0,
            root,
            state_digest: state,
            seconds,
            events_per_second: records as f64 / seconds.max(f64::EPSILON),
        };
        if !self.print || terminal.output == Output::Table {
            terminal.answer(&report, render)?;
        }
        if report.unsigned { Err(Failure::Unwitnessed) } else { Ok(()) }
    }
}

#[derive(Serialize)]
struct Diverged<'a> {
    diverged: &'a crate::replay::Divergence,
}

fn render(report: &Report) -> String {
    let mut equal = vec![count(report.state_digests_matched as usize, "State digest")];
    for (number, what) in [
        (report.snapshots_matched, "snapshot"),
        (report.milestones_matched, "milestone"),
        (report.replicas.len() as u64, "replica"),
    ] {
        if number > 0 {
            equal.push(count(number as usize, what));
        }
    }
    let mut lines = vec![
        format!(
            "{} replayed from genesis in {:.1} s ({:.0} events/s)",
            count(report.records as usize, "record"),
            report.seconds,
            report.events_per_second
        ),
        format!("equal: {}", equal.join(", ")),
    ];
    for replica in &report.replicas {
        let what = if replica.root.is_some() { "signed that root and State" } else { "has that State" };
        lines.push(format!("controller {} {what} at seq {}", replica.controller, replica.seq));
    }
    for Unheard { controller, why } in &report.unheard {
        lines.push(format!("controller {controller} gave no signed checkpoint: {}", one_line(why)));
    }
    if report.unsigned {
        lines.push(
            "unsigned: no controller's signed checkpoint was compared, so this may be any log".to_owned(),
        );
    }
    lines.push(format!("chain {}\nroot  {}\nstate {}", report.chain, report.root, report.state_digest));
    lines.join("\n")
}

/// How far it is, for people.
struct Progress {
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Progress {
    fn new(to: Seq, prints: bool) -> Self {
        let bar = (Terminal::is_watched() && !prints).then(|| {
            let template = "{spinner} replaying [{bar:32}] {pos}/{len} records, {per_sec}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(to).with_style(style)
        });
        Self { bar, shown: Instant::now() }
    }

    fn at(&mut self, seq: Seq) {
        let Some(bar) = &self.bar else { return };
        // A look at the clock is dear beside folding a record.
        if seq.is_multiple_of(256) && self.shown.elapsed() >= REPLAY_PROGRESS_INTERVAL {
            bar.set_position(seq);
            self.shown = Instant::now();
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
