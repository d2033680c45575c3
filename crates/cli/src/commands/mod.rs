//! The commands, one module for each group.

mod audit;
pub(crate) mod checkpoint;
mod cluster;
mod configure;
mod convergence;
mod deploy;
mod drain;
mod erase;
mod event_line;
mod events;
mod history;
mod login;
mod logs;
mod node;
mod proof;
mod reason;
mod replay;
mod review;
mod rollback;
mod show_spec;
mod spec;
mod status;
mod token;
mod undo;
mod what_if;
mod why;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::exit::{EXIT_CODES, Failure};
use crate::options::Globals;
use crate::session::Session;
use crate::terminal::Output;

/// Deploys containers to a fleet, shows what runs, and brings any earlier state back.
#[derive(Parser, Debug)]
#[command(name = "stele", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Dev(crate::dev::Dev),
    #[command(subcommand)]
    Controller(crate::server::Controller),
    Init(spec::Init),
    Schema(spec::Schema),
    Apply(spec::Apply),
    Deploy(deploy::Deploy),
    Remove(deploy::Remove),
    Status(status::Status),
    History(history::History),
    Events(events::Events),
    Show(history::Show),
    Diff(history::Diff),
    Rollback(rollback::Rollback),
    MarkBad(review::MarkBad),
    Review(review::Review),
    Erase(erase::Erase),
    Reason(reason::Reason),
    Unlatch(rollback::Unlatch),
    Undo(undo::Undo),
    Why(why::Why),
    WhatIf(what_if::WhatIf),
    #[command(subcommand)]
    Config(configure::Config),
    #[command(subcommand)]
    Secret(configure::Secret),
    Logs(logs::Logs),
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Token(token::Token),
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    Login(login::Login),
    #[command(subcommand)]
    Context(login::ContextCommand),
    #[command(visible_alias = "verify")]
    Replay(replay::Replay),
    Checkpoint(checkpoint::Checkpoint),
    #[command(subcommand)]
    Proof(proof::Proof),
    #[command(subcommand)]
    Audit(audit::Audit),
    Completions(Completions),
}

/// Print a script that completes commands in a shell
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele completions bash > /etc/bash_completion.d/stele\n  stele completions fish > ~/.config/fish/completions/stele.fish"
)]
struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Command {
    /// Whether its answer can be a spreadsheet's rows.
    fn has_rows(&self) -> bool {
        matches!(self, Self::Audit(audit) if audit.has_rows())
    }
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let session = Session::new(self.globals);
        if session.terminal.output == Output::Csv && !self.command.has_rows() {
            return Err(Failure::Usage(
                "only `stele audit population` and `stele audit sample` answer with rows for a spreadsheet\n  next: \
                 repeat with --output json"
                    .to_owned(),
            ));
        }
        match self.command {
            Command::Dev(it) => it.run(&session),
            Command::Controller(it) => it.run(&session),
            Command::Init(it) => it.run(&session),
            Command::Schema(spec::Schema {}) => spec::Schema::run(&session),
            Command::Apply(it) => it.run(&session),
            Command::Deploy(it) => it.run(&session),
            Command::Remove(it) => it.run(&session),
            Command::Status(it) => it.run(&session),
            Command::History(it) => it.run(&session),
            Command::Events(it) => it.run(&session),
            Command::Show(it) => it.run(&session),
            Command::Diff(it) => it.run(&session),
            Command::Rollback(it) => it.run(&session),
            Command::MarkBad(it) => it.run(&session),
            Command::Review(it) => it.run(&session),
            Command::Erase(it) => it.run(&session),
            Command::Reason(it) => it.run(&session),
            Command::Undo(it) => it.run(&session),
            Command::Why(it) => it.run(&session),
            Command::WhatIf(it) => it.run(&session),
            Command::Unlatch(it) => it.run(&session),
            Command::Config(it) => it.run(&session),
            Command::Secret(it) => it.run(&session),
            Command::Logs(it) => it.run(&session),
            Command::Node(it) => it.run(&session),
            Command::Token(it) => it.run(&session),
            Command::Cluster(it) => it.run(&session),
            Command::Login(it) => it.run(&session),
            Command::Context(it) => it.run(&session),
            Command::Replay(it) => it.run(&session),
            Command::Checkpoint(it) => it.run(&session),
            Command::Proof(it) => it.run(&session),
            Command::Audit(it) => it.run(&session),
            Command::Completions(it) => {
                let mut script = Vec::new();
                clap_complete::generate(it.shell, &mut Self::command(), "stele", &mut script);
                session.terminal.line(String::from_utf8_lossy(&script).trim_end())
            }
        }
    }
}

/// `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?}: write KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
