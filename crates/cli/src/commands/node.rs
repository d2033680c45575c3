//! Nodes of the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use stele_api::wire::{
    ChangeAnswer, LabelsRequest, NodeStatus, NodeTokenAnswer, NodeTokenRequest, NodesAnswer, StatusAnswer,
    WithdrawRequest,
};
use stele_model::{NodeName, RegionName, Scope};
use ureq::http::Method;

use super::drain;
use super::status::nodes;
use super::what_if::if_drained;
use crate::client::with_query;
use crate::exit::Failure;
use crate::limits::WAIT_DEFAULT;
use crate::options::{ChangeOptions, ReadOptions, point, span};
use crate::session::{Session, count};
use crate::terminal::{or_dash, table, time};

/// Let nodes join, list, label, drain and remove them
#[derive(Subcommand, Debug)]
pub(crate) enum Node {
    Token(NodeToken),
    List(ListNodes),
    Show(ShowNode),
    Label(LabelNode),
    Drain(DrainNode),
    Resume(ResumeNode),
    Remove(RemoveNode),
}

impl Node {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Token(it) => it.run(session),
            Self::List(it) => it.run(session),
            Self::Show(it) => it.run(session),
            Self::Label(it) => it.run(session),
            Self::Drain(it) => it.run(session),
            Self::Resume(it) => it.run(session),
            Self::Remove(it) => it.run(session),
        }
    }
}

/// Make a one-time token with which a node joins: one line to paste there
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele node token --region eu --name eu-1 --label disk=ssd\n  ssh eu-1 stele-agent join \"$(stele node token --region eu --name eu-1)\""
)]
pub(crate) struct NodeToken {
    /// The region the node will be in
    #[arg(long)]
    region: RegionName,
    /// The only name that may join with it
    #[arg(long)]
    name: Option<NodeName>,
    /// A label the node will have
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = super::key_value)]
    labels: Vec<(String, String)>,
    /// How long it can be used, such as 15m, 2h or 7d, or a number of seconds; an hour unless said otherwise
    #[arg(long, value_name = "SPAN", value_parser = span)]
    life: Option<Duration>,
    #[command(flatten)]
    change: ChangeOptions,
}

impl NodeToken {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let request = NodeTokenRequest {
            node: self.name,
            region: self.region,
            labels: self.labels.into_iter().collect(),
            life_seconds: self.life.map(|life| life.as_secs()),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: NodeTokenAnswer = session.client()?.write(
            Method::POST,
            "/v1/node-tokens",
            Some(&request),
            &self.change.conditions(),
        )?;
        eprintln!("works once, until {}; on the node: stele-agent join LINE", time(answer.expires));
        session.terminal.answer(&answer, |answer| answer.line.clone())
    }
}

/// List nodes
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele node list\n  stele node list --output json | jq -r '.nodes[] | select(.reachable | not) | .name'"
)]
pub(crate) struct ListNodes {
    /// As of when: seq:N, a time, or "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
}

impl ListNodes {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let answer: NodesAnswer =
            session.client()?.get(&with_query("/v1/nodes", &[("at", self.at), self.read.consistency()]))?;
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| match answer.nodes.as_slice() {
            [] => "The fleet has no node yet.\nnext: stele node token --region REGION".to_owned(),
            list => nodes(terminal, list),
        })
    }
}

/// Show a node and what runs on it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele node show eu-1\n  stele node show eu-1 --at \"1d ago\"")]
pub(crate) struct ShowNode {
    /// Its name
    node: NodeName,
    /// As of when: seq:N, a time, or "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
}

impl ShowNode {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let path = format!("/v1/nodes/{}", self.node);
        let fresh = self.read.consistency();
        let node: NodeStatus = client.get(&with_query(&path, &[("at", self.at.clone()), fresh.clone()]))?;
        let scope = Scope::of_node(&self.node).to_string();
        let status: StatusAnswer =
            client.get(&with_query("/v1/status", &[("scope", Some(scope)), ("at", self.at), fresh]))?;
        let terminal = session.terminal;
        terminal.answer(&node, |node| {
            let rows: Vec<_> = status
                .apps
                .iter()
                .flat_map(|app| &app.instances)
                .map(|instance| {
                    vec![
                        instance.id.to_string(),
                        instance.phase.map_or_else(
                            || "unknown".to_owned(),
                            |phase| format!("{phase:?}").to_lowercase(),
                        ),
                        instance.restarts.to_string(),
                        or_dash(
                            instance.container.as_deref().map(|id| id.chars().take(12).collect::<String>()),
                        ),
                    ]
                })
                .collect();
            let mut text = nodes(terminal, std::slice::from_ref(node));
            if rows.is_empty() {
                text.push_str("\n\nNothing runs on it.");
            } else {
                let rows = table(&["INSTANCE", "PHASE", "RESTARTS", "CONTAINER"], rows);
                text = format!("{text}\n\n{rows}");
            }
            if !node.staying.is_empty() {
                text = format!("{text}\n\nStill there:\n{}", drain::reasons(&node.staying).join("\n"));
            }
            text
        })
    }
}

/// Set and remove labels of a node
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele node label eu-1 disk=ssd rack=12\n  stele node label eu-1 --unset rack"
)]
pub(crate) struct LabelNode {
    /// Its name
    node: NodeName,
    /// Labels to set
    #[arg(value_name = "KEY=VALUE", value_parser = super::key_value, required_unless_present = "unset")]
    labels: Vec<(String, String)>,
    /// Remove this label
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    change: ChangeOptions,
}

impl LabelNode {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let node: NodeStatus = client.get(&format!("/v1/nodes/{}", self.node))?;
        let mut labels: BTreeMap<String, String> = node.labels;
        for key in &self.unset {
            labels.remove(key);
        }
        labels.extend(self.labels);
        let request =
            LabelsRequest { labels, reason: self.change.reason.clone(), links: self.change.links() };
        let path = format!("/v1/nodes/{}/labels", self.node);
        let answer: ChangeAnswer =
            client.write(Method::PUT, &path, Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("node {} labels", self.node), &answer, None)
    }
}

/// Give a node nothing new, and have what runs on it go elsewhere: before maintenance, or for good
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele node drain eu-1 --plan\n  stele node drain eu-1 --reason \"new kernel\" --wait\n  stele node resume eu-1\n\nEach replica goes once another one is healthy in its place (what is stop_first before that). What has no other place,\nor writes to a volume, stays until that changes, and stele node show says why. What runs on every node stops there\nuntil the node is resumed."
)]
pub(crate) struct DrainNode {
    /// Its name
    node: NodeName,
    /// Only show what would go where, and what would stay
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Wait until nothing runs there any more
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, such as 90s, 15m or 2h, or a number of seconds
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = WAIT_DEFAULT, requires = "wait")]
    timeout: Duration,
    #[command(flatten)]
    change: ChangeOptions,
}

impl DrainNode {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        if self.plan {
            return if_drained(session, &client, self.node);
        }
        let path = format!("/v1/nodes/{}", self.node);
        let node: NodeStatus = client.get(&path)?;
        if node.assigned > 0 && node.drained.is_none() {
            let runs = count(node.assigned, "instance");
            session.confirm(&format!("Have {runs} leave node {}?", self.node), self.yes)?;
        }
        let request = WithdrawRequest { reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::PUT, &format!("{path}/drain"), Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("node {} drain", self.node), &answer, None)?;
        if self.wait {
            drain::until_empty(&client, &self.node, self.timeout)?;
            session.terminal.note(&format!("nothing runs on {} any more", self.node))?;
        }
        Ok(())
    }
}

/// Let a drained node get something again; what left it stays where it is
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele node resume eu-1")]
pub(crate) struct ResumeNode {
    /// Its name
    node: NodeName,
    #[command(flatten)]
    change: ChangeOptions,
}

impl ResumeNode {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let path = format!("/v1/nodes/{}/drain", self.node);
        let request = WithdrawRequest { reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::DELETE, &path, Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("node {} resume", self.node), &answer, None)
    }
}

/// Take a node out of the fleet; its instances are placed elsewhere
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele node remove eu-1 --reason \"hardware failed\" --yes")]
pub(crate) struct RemoveNode {
    /// Its name
    node: NodeName,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

impl RemoveNode {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        session.confirm(&format!("Take node {} out of the fleet?", self.node), self.yes)?;
        let path = format!("/v1/nodes/{}", self.node);
        let request = WithdrawRequest { reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::DELETE, &path, Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("node {} remove", self.node), &answer, None)
    }
}
