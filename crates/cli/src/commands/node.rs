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

use super::status::nodes;
use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ChangeOptions, ReadOptions, point, span};
use crate::session::Session;
use crate::terminal::{or_dash, table, time};

/// Let nodes join, list, label and remove them
#[derive(Subcommand, Debug)]
pub(crate) enum Node {
    Token(NodeToken),
    List(ListNodes),
    Show(ShowNode),
    Label(LabelNode),
    Remove(RemoveNode),
}

impl Node {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Token(it) => it.run(session),
            Self::List(it) => it.run(session),
            Self::Show(it) => it.run(session),
            Self::Label(it) => it.run(session),
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
            let overview = nodes(terminal, std::slice::from_ref(node));
            if rows.is_empty() {
                return format!("{overview}\n\nNothing runs on it.");
            }
            format!("{overview}\n\n{}", table(&["INSTANCE", "PHASE", "RESTARTS", "CONTAINER"], rows))
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
