//! The log, as it is and as it grows.

use std::collections::VecDeque;
use std::time::Instant;

use stele_api::limits::EVENTS_PAGE_MAX;
use stele_api::wire::EventsPage;
use stele_model::{PrincipalId, Record, Scope, Seq};

use super::event_line::event_line;
use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::limits::{LOOK_BACK_FACTOR, RETRY_DEADLINE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use crate::options::{ReadOptions, point};
use crate::session::Session;

/// Print events of the log
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele events --since \"2h ago\" --limit 1000\n  stele events --after 0 --limit 1000\n  stele events --at \"2h ago\" -n 20\n  stele events --follow --scope shop/web@prod\n  stele events --kind deployment_finished,rolled_back --principal ci\n  stele events --follow --output json | jq .event"
)]
pub(crate) struct Events {
    /// Only events after this record; without it, the newest ones
    #[arg(long, value_name = "SEQ")]
    after: Option<Seq>,
    /// Only events after this point, as for --at
    #[arg(long, value_name = "POINT", value_parser = point, conflicts_with = "after")]
    since: Option<String>,
    /// The log as it was at this point: seq:N, a time, "2h ago", and of one app's scope v3, prev, last-good
    #[arg(long, value_name = "POINT", value_parser = point, conflicts_with = "follow")]
    at: Option<String>,
    /// Go on as the log grows, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only events that touch something in this scope
    #[arg(long)]
    scope: Option<Scope>,
    /// Only events of these kinds, separated by commas
    #[arg(long, value_name = "KIND[,KIND]")]
    kind: Option<String>,
    /// Only events caused by this principal
    #[arg(long)]
    principal: Option<PrincipalId>,
    /// Most events printed; with --follow, of the past
    #[arg(short = 'n', long, default_value_t = 100, allow_negative_numbers = true)]
    limit: usize,
    #[command(flatten)]
    read: ReadOptions,
}

impl Events {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let after = if self.after.is_some() || self.since.is_some() {
            self.print_from(session, &client)?
        } else {
            self.print_newest(session, &client)?
        };
        if self.follow { self.follow(session, &client, after) } else { Ok(()) }
    }

    /// Prints the first events after where it was told to begin, and says so when more follow.
    fn print_from(&self, session: &Session, client: &Client) -> Result<Seq, Failure> {
        let (mut printed, mut after) = (0, self.after);
        loop {
            let wanted = (self.limit - printed).min(EVENTS_PAGE_MAX);
            // A page has one event at least. Where none is wanted, it still tells where to go on.
            let page: EventsPage = client.get(&self.path(after, Some(wanted.max(1))))?;
            for record in page.events.iter().take(wanted) {
                session.terminal.item(record, |record| event_line(session.terminal, record))?;
                printed += 1;
            }
            let left = page.events.get(wanted);
            let reached = left.map_or(page.after, |record| record.header.seq.saturating_sub(1));
            if reached >= page.last {
                return Ok(reached);
            }
            if printed >= self.limit {
                // Whoever follows gets them.
                if !self.follow {
                    let is_sure = self.scope.is_none() && self.kind.is_none() && self.principal.is_none();
                    let more = if is_sure { "more follow" } else { "more may follow" };
                    eprintln!("{more}: --after {reached}");
                }
                return Ok(reached);
            }
            after = Some(reached);
        }
    }

    /// Looks back from the end, further and further, until enough events are found.
    fn print_newest(&self, session: &Session, client: &Client) -> Result<Seq, Failure> {
        let last = client.get::<EventsPage>(&self.path(Some(0), Some(1)))?.last;
        let mut found: VecDeque<Record> = VecDeque::new();
        let (mut end, mut window) = (last, self.limit as u64);
        while end > 0 && found.len() < self.limit {
            let begin = end.saturating_sub(window);
            let mut earlier = Vec::new();
            let mut after = begin;
            while after < end {
                let page: EventsPage = client.get(&self.path(Some(after), Some(EVENTS_PAGE_MAX)))?;
                earlier.extend(page.events.into_iter().filter(|record| record.header.seq <= end));
                after = page.after;
            }
            for record in earlier.into_iter().rev() {
                found.push_front(record);
            }
            end = begin;
            window = window.saturating_mul(LOOK_BACK_FACTOR);
        }
        for record in found.iter().skip(found.len().saturating_sub(self.limit)) {
            session.terminal.item(record, |record| event_line(session.terminal, record))?;
        }
        Ok(last)
    }

    fn path(&self, after: Option<Seq>, limit: Option<usize>) -> String {
        with_query(
            "/v1/events",
            &[
                ("after", after.map(|after| after.to_string())),
                ("since", self.since.clone().filter(|_| after.is_none())),
                ("scope", self.scope.as_ref().map(ToString::to_string)),
                ("kind", self.kind.clone()),
                ("principal", self.principal.as_ref().map(ToString::to_string)),
                ("limit", limit.map(|limit| limit.to_string())),
                ("at", self.at.clone()),
                self.read.consistency(),
            ],
        )
    }

    /// Streams, and goes on where it was when the stream breaks.
    fn follow(&self, session: &Session, client: &Client, mut after: Seq) -> Result<(), Failure> {
        let mut pause = RETRY_PAUSE_MIN;
        let mut broke: Option<Instant> = None;
        loop {
            let stream = match client.stream(&self.path(Some(after), None), "text/event-stream") {
                Ok(stream) => stream,
                // A controller that is started again refuses connections for a moment.
                Err(Failure::Unreachable(_)) if broke.is_some_and(|at| at.elapsed() < RETRY_DEADLINE) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            for line in stream.lines() {
                let Ok(line) = line else { break };
                if let Some(id) = line.strip_prefix("id:") {
                    if let Ok(seq) = id.trim().parse() {
                        after = seq;
                        pause = RETRY_PAUSE_MIN;
                    }
                } else if let Some(data) = line.strip_prefix("data:") {
                    let record: Record = serde_json::from_str(data.trim_start())
                        .map_err(|error| Failure::Failed(format!("an event cannot be read: {error}")))?;
                    session.terminal.item(&record, |record| event_line(session.terminal, record))?;
                }
            }
            broke = Some(Instant::now());
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}
