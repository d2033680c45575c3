//! The controllers.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use stele_api::wire::{
    AddMemberRequest, Certified, ClusterAnswer, ControllerStatus, LeaderRequest, MemberRole,
    RemoveMemberRequest,
};
use stele_model::ControllerId;
use ureq::http::Method;

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ChangeOptions, ReadOptions, point};
use crate::session::Session;
use crate::terminal::{Terminal, Tone, cell, or_dash, table, time};

/// Show, add and remove controllers
#[derive(Subcommand, Debug)]
pub(crate) enum Cluster {
    Status(ClusterStatus),
    Add(AddMember),
    Remove(RemoveMember),
    TransferLeader(TransferLeader),
}

impl Cluster {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Status(it) => it.run(session),
            Self::Add(it) => it.run(session),
            Self::Remove(it) => it.run(session),
            Self::TransferLeader(it) => it.run(session),
        }
    }
}

/// Show the controllers and who leads
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele cluster status\n  stele cluster status --stale    # when there is no quorum\n  stele cluster status --exit-code || page-somebody"
)]
pub(crate) struct ClusterStatus {
    #[command(flatten)]
    read: ReadOptions,
    /// As of when: seq:N, a time, or "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    /// Exit with 1 when nobody leads, a controller is not connected, or the one that answers lacks records
    // Who was connected in the past is not known.
    #[arg(long, conflicts_with = "at")]
    exit_code: bool,
}

impl ClusterStatus {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let path = with_query("/v1/cluster", &[self.read.consistency(), ("at", self.at)]);
        let answer: ClusterAnswer = session.client()?.get(&path)?;
        print(session.terminal, &answer)?;
        if self.exit_code && !is_whole(&answer) { Err(Failure::Found) } else { Ok(()) }
    }
}

/// Whether somebody leads, all who take part are there, and nothing is missing, as the controller that answers sees it.
fn is_whole(answer: &ClusterAnswer) -> bool {
    let is_there = |controller: &ControllerStatus| {
        controller.role == MemberRole::Outside
            || controller.id == answer.answered_by
            || controller.connected == Some(true)
    };
    answer.leader.is_some() && answer.missing.is_empty() && answer.controllers.iter().all(is_there)
}

fn print(terminal: Terminal, answer: &ClusterAnswer) -> Result<(), Failure> {
    terminal.answer(answer, |answer| {
        let rows = answer.controllers.iter().map(|controller| {
            let role = match controller.role {
                _ if controller.leader => terminal.paint(Tone::Good, "leader"),
                MemberRole::Voter => "voter".to_owned(),
                MemberRole::Learner => terminal.paint(Tone::Busy, "learner"),
                MemberRole::Outside => terminal.paint(Tone::Faint, "outside"),
            };
            vec![
                controller.id.to_string(),
                role,
                match controller.connected {
                    None => "-".to_owned(),
                    Some(true) => "yes".to_owned(),
                    Some(false) => {
                        let why = controller.error.as_deref().unwrap_or("no");
                        terminal.paint(Tone::Bad, &cell(why))
                    }
                },
                or_dash(controller.lag),
                or_dash(controller.api.as_deref().map(cell)),
                or_dash(controller.peer.as_deref().map(cell)),
                // Whichever ends first: without either it takes no part.
                controller
                    .certified_until
                    .into_iter()
                    .chain(controller.connections_until)
                    .min()
                    .map_or_else(|| "-".to_owned(), time),
            ]
        });
        let table =
            table(&["ID", "ROLE", "CONNECTED", "LAG", "API", "PEER", "CERTIFIED UNTIL"], rows.collect());
        let missing = answer.missing.iter().map(|(from, to)| {
            format!("\nit lacks records {from} to {to}, and fetches what others have of them")
        });
        format!(
            "fleet {}, root {}\nterm {}, seq {}, answered by controller {}{}\n\n{table}",
            or_dash(answer.fleet.as_ref()),
            or_dash(answer.root.as_ref()),
            answer.term,
            answer.seq,
            answer.answered_by,
            missing.collect::<String>()
        )
    })
}

/// Add a controller: it follows until it has caught up, then votes
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele cluster add 4 --config fleet/controller-4/controller.json\n\nThe file is made by stele controller prepare; of it, only the certificate and the addresses are sent."
)]
pub(crate) struct AddMember {
    /// Its id, never used before
    id: ControllerId,
    /// Its configuration, which holds its certificate and addresses
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeOptions,
}

impl AddMember {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let request = AddMemberRequest {
            controller: self.id,
            certified: self.config.as_deref().map(read_certified).transpose()?,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ClusterAnswer = session.client()?.write(
            Method::POST,
            "/v1/cluster/members",
            Some(&request),
            &self.change.conditions(),
        )?;
        print(session.terminal, &answer)
    }
}

fn read_certified(path: &Path) -> Result<Certified, Failure> {
    let config =
        stele_controller::Config::read(path).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    Ok(Certified { certificate: config.certificate, api: config.api_url, peer: config.peer_address })
}

/// Remove a controller; its id is never used again
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele cluster remove 3 --reason \"its disk failed\" --yes")]
pub(crate) struct RemoveMember {
    /// Its id
    id: ControllerId,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Remove it although it may be the last that has records which the leader lacks. They are lost then
    #[arg(long)]
    lose_records: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

impl RemoveMember {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let lost = if self.lose_records { ", and with it whatever records no other has" } else { "" };
        session.confirm(&format!("Remove controller {} for ever{lost}?", self.id), self.yes)?;
        let path = format!("/v1/cluster/members/{}", self.id);
        let request = RemoveMemberRequest {
            reason: self.change.reason.clone(),
            links: self.change.links(),
            lose_records: self.lose_records,
        };
        let answer: ClusterAnswer =
            client.write(Method::DELETE, &path, Some(&request), &self.change.conditions())?;
        print(session.terminal, &answer)
    }
}

/// Hand leadership to another controller
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele cluster transfer-leader 2")]
pub(crate) struct TransferLeader {
    /// To whom
    id: ControllerId,
}

impl TransferLeader {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let request = LeaderRequest { controller: self.id };
        let answer: ClusterAnswer = session.client()?.write(
            Method::POST,
            "/v1/cluster/leader",
            Some(&request),
            &crate::client::Conditions::default(),
        )?;
        print(session.terminal, &answer)
    }
}
