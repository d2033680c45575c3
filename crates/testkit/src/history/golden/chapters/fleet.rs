//! Controllers and nodes.

use anyhow::Context as _;
use stele_model::signature::{Certificate, CertificateBody, Signature};
use stele_model::{Command, ControllerId, Event, NodeName, Time};

use super::super::specs::Style;
use super::super::story::{Story, Wish};

/// How many controllers vote when none is coming or going.
const CONTROLLERS: usize = 3;
/// How long a certificate is good for, in microseconds: ninety days.
const CERTIFICATE_US: u64 = 90 * 24 * 3600 * 1_000_000;

/// The root's word for a controller. The root key of the earlier log was never anybody's, so that the
/// signature is one in its form alone; folding does not look at it.
fn certify(story: &mut Story, controller: ControllerId) -> anyhow::Result<()> {
    let now = story.world.scribe.now().0;
    let fleet = story.state().control.fleet.as_ref().context("there is a fleet")?.name.clone();
    let body = CertificateBody {
        fleet,
        controller,
        key: story.key(),
        not_before: Time(now),
        not_after: Time(now + CERTIFICATE_US),
    };
    let signature = Signature(story.world.chance.hex(64));
    let (api, peer) = (
        format!("https://controller-{controller}.example.com:7400"),
        format!("controller-{controller}.example.com:7401"),
    );
    story.write(
        "admin",
        Event::ControllerCertified { certificate: Certificate { body, signature }, api, peer },
    )
}

fn voters(story: &Story) -> Vec<ControllerId> {
    story.state().control.voters.iter().copied().collect()
}

fn lead(story: &mut Story, controller: ControllerId) -> anyhow::Result<()> {
    let term = story.state().history.term + 1;
    story.world.system(Command::StartTerm { term, controller })
}

pub(super) fn controllers_come(story: &mut Story) -> anyhow::Result<()> {
    let leader = story.state().history.leader;
    if voters(story).is_empty() {
        certify(story, leader)?;
        story.world.system(Command::RecordMembership { voters: vec![leader], learners: Vec::new() })?;
    }
    while voters(story).len() < CONTROLLERS {
        let control = &story.state().control;
        let new = control.controllers.keys().chain(&control.retired).max().map_or(1, |newest| newest + 1);
        certify(story, new)?;
        let mut voters = voters(story);
        story.world.system(Command::RecordMembership { voters: voters.clone(), learners: vec![new] })?;
        voters.push(new);
        story.world.system(Command::RecordMembership { voters, learners: Vec::new() })?;
        lead(story, new)?;
    }
    // A certificate ends, and the next one is for another key.
    certify(story, leader)
}

pub(super) fn controllers_go(story: &mut Story) -> anyhow::Result<()> {
    let mut voters = voters(story);
    let gone = voters.remove(0);
    lead(story, *voters.first().context("somebody stays")?)?;
    story.world.system(Command::RecordMembership { voters, learners: Vec::new() })?;
    story.must("admin", Command::ForgetController { controller: gone })?;
    Ok(())
}

/// One controller goes on; the others come anew, and nodes hear of a new epoch.
pub(super) fn quorum_is_lost(story: &mut Story) -> anyhow::Result<()> {
    controllers_come(story)?;
    let voters = voters(story);
    let (left, lost) = voters.split_last().context("somebody stays")?;
    lead(story, *left)?;
    story.world.system(Command::RecoverFleet { controller: *left, given_up: lost.to_vec() })?;
    lead(story, *left)?;
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    controllers_come(story)
}

pub(super) fn nodes_are_lost(story: &mut Story) -> anyhow::Result<()> {
    let nodes: Vec<NodeName> = story.state().control.nodes.keys().cloned().collect();
    let at = story.world.chance.below(nodes.len().saturating_sub(3));
    let lost = nodes[at..at + 3].to_vec();
    story.world.system(Command::MarkNodes { lost: lost.clone(), returned: Vec::new() })?;
    let app_env = story.app()?;
    story.deploy("ci", &app_env, Style::Web, None)?;
    story.settle_all()?;
    story.world.system(Command::MarkNodes { lost: Vec::new(), returned: lost[1..].to_vec() })?;
    story.settle_all()?;
    story.world.system(Command::MarkNodes { lost: Vec::new(), returned: lost })?;
    story.settle_all()
}

/// A node leaves for good, and what a rollback would put there is placed elsewhere.
pub(super) fn node_is_replaced(story: &mut Story) -> anyhow::Result<()> {
    let region = ["eu", "us"][story.round % 2];
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let old = story.state().slots(&app_env).map(|(_, node)| node.clone()).next();
    let old = old.with_context(|| format!("{app_env} is nowhere"))?;
    story.world.remove_node(&old)?;
    story.settle_all()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    story.roll_back("grace", &app_env.to_string(), 0, &wish)?;
    let new = story.world.enrol(usize::from(region == "us") * 2 + 1)?;
    story.world.label()?;
    story.must(
        "admin",
        Command::LabelNode { node: new, labels: [("spot".to_owned(), "1".to_owned())].into() },
    )?;
    story.settle_all()
}

/// A node is taken out of service for a while, with what runs on it, and one that is drained leaves for good.
pub(super) fn node_is_drained(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let node = story.state().slots(&app_env).map(|(_, node)| node.clone()).next();
    let node = node.with_context(|| format!("{app_env} is nowhere"))?;
    story.must("admin", Command::DrainNode { node: node.clone() })?;
    story.settle_all()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    story.roll_back("grace", &app_env.to_string(), 0, &wish)?;
    story.must("admin", Command::ResumeNode { node: node.clone() })?;
    story.settle_all()?;
    story.must("admin", Command::DrainNode { node: node.clone() })?;
    story.settle_all()?;
    let region = story.state().region_of(&node).map(ToString::to_string);
    story.world.remove_node(&node)?;
    story.world.enrol(usize::from(region.as_deref() == Some("us")) * 2 + 1)?;
    story.settle_all()
}

pub(super) fn agents_start_anew(story: &mut Story) -> anyhow::Result<()> {
    story.world.boot += 1;
    for _ in 0..4 {
        story.world.restart()?;
    }
    Ok(())
}
