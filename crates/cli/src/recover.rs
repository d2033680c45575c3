//! `stele controller recover`: going on with one controller after the others were lost for good.

use std::path::PathBuf;

use clap::Args;
use stele_controller::Config;
use stele_controller::recover::{Found, Survivor};
use stele_model::ControllerId;

use crate::exit::Failure;
use crate::server::{failed, log_to_stderr, wall_clock};
use crate::session::Session;
use crate::terminal::{one_line, time};

#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// The configuration of the controller that is left
    #[arg(long, value_name = "FILE", env = "STELE_CONTROLLER_CONFIG")]
    config: PathBuf,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Its log is an older copy, from a backup: go on with it even if it votes alone
    #[arg(long)]
    restored: bool,
    /// Only show what would be done
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Recover {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        log_to_stderr("warn");
        let terminal = session.terminal;
        let config = Config::read(&self.config).map_err(failed)?;
        let survivor = Survivor::examine(&config, self.reason.as_deref(), self.restored).map_err(failed)?;
        if self.plan {
            return terminal.answer(survivor.found(), |found| {
                format!("{}\n\nNothing was done: this was a plan.", told(found))
            });
        }
        terminal.note(&told(survivor.found()))?;
        let Found { given_up, controller, .. } = survivor.found();
        let question = if given_up.is_empty() {
            format!("Go on with this copy of controller {controller}'s log?")
        } else {
            format!(
                "Give up {} for ever, and go on with controller {controller} alone?",
                controllers(given_up)
            )
        };
        Session::ask(&question, self.yes)?;
        let found = survivor.recover().map_err(failed)?;
        terminal.answer(&found, |found| {
            format!(
                "Recovered: controller {} votes alone, epoch {}, seq {}.\nNext: stele controller run --config {}\n      \
                 then add new controllers, under ids never used before: stele controller prepare --help",
                found.controller,
                found.epoch,
                found.recovered_seq,
                self.config.display()
            )
        })
    }
}

/// `controllers 1 and 2`.
fn controllers(ids: &[ControllerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [only] => format!("controller {only}"),
        [first @ .., last] => format!("controllers {} and {last}", first.join(", ")),
        [] => "nobody".to_owned(),
    }
}

/// What was found, for the one who must decide.
fn told(found: &Found) -> String {
    let mut lines = vec![
        format!("Fleet {}, controller {}, which does not run:", found.fleet, found.controller),
        format!("  last record     seq {}, {}", found.last_seq, time(found.last_time)),
        format!("  last entry      term {}, index {}", found.last_term, found.last_index),
        format!("  clock here      {}", time(wall_clock())),
        format!(
            "  voters          {:?}{}",
            found.voters,
            if found.voted { "" } else { ", it was not one of them" }
        ),
    ];
    if !found.learners.is_empty() {
        lines.push(format!("  learners        {:?}", found.learners));
    }
    lines.push(format!(
        "  not certain     {} records are not known to be committed, and are kept",
        found.uncertain_records
    ));
    if !found.passed_over.is_empty() {
        lines.push(format!("  passed over     a change of members that had begun: {:?}", found.passed_over));
    }
    lines.push(match found.missing_records.as_slice() {
        [] => "  history         whole".to_owned(),
        missing => {
            let ranges: Vec<_> = missing.iter().map(|(from, to)| format!("{from} to {to}")).collect();
            format!("  history         LOST for good: records {}; State is whole", ranges.join(", "))
        }
    });
    lines.push(match found.missing_keys.as_slice() {
        [] => format!("  data keys       whole ({})", found.keys),
        missing => {
            let names: Vec<_> = missing
                .iter()
                .map(|(subject, version)| format!("{} version {version}", one_line(subject)))
                .collect();
            format!("  data keys       {} of {} are MISSING: {}", missing.len(), found.keys, names.join(", "))
        }
    });
    lines.push(String::new());
    lines.push(format!(
        "To be done: {} given up for ever, epoch {}, records up to seq {}. Nodes then run what this log says.",
        controllers(&found.given_up),
        found.epoch,
        found.recovered_seq
    ));
    lines.push(
        "What was acknowledged and is not in this log is lost. Of several controllers that are left, recover the one\n\
         whose last entry has the highest term, and of those the highest index; never two of them. Destroy the disks and\n\
         keys of those given up, or keep them from ever being started. Whoever has a checkpoint of more records than are\n\
         here will see a fork: tell witnesses and auditors."
            .to_owned(),
    );
    lines.join("\n")
}
