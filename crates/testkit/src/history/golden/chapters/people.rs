//! People: their tokens, what they are refused, what they say of the past, and what is theirs.

use anyhow::{Context as _, ensure};
use stele_model::event::{Holder, JoinToken, Role};
use stele_model::limits::REFUSAL_WINDOW_US;
use stele_model::{Command, Digest, Point, Scope, Time, Value};

use super::super::specs::Style;
use super::super::story::{Story, Wish};

/// How long a join token is good for, in microseconds: an hour.
const JOIN_TOKEN_US: u64 = 3600 * 1_000_000;
/// More refusals than are logged of one principal in a minute.
const REFUSALS: u64 = 12;

pub(super) fn seal_config(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    let sealed = Value::Sealed(story.world.seal(&app_env.to_string()));
    let level = story.world.chance.below(1000).to_string();
    let variables = [("SMTP_PASSWORD", Some(sealed)), ("LEVEL", Some(level.as_str().into()))];
    story.configure("fatima", &app_env, &variables)?;
    story.configure("dana", &app_env, &[("LEVEL", None)])?;
    story.world.set_secret(&app_env)?;
    story.deployed("ci", &app_env, Style::Database, None)?;
    // In use, so that a new version of it is a deployment.
    story.world.set_secret(&app_env)
}

pub(super) fn come_and_go(story: &mut Story) -> anyhow::Result<()> {
    for (name, role, holder) in [
        ("intern", Role::Auditor, Holder::Person),
        ("deputy", Role::Admin, Holder::Person),
        ("backup", Role::Deployer, Holder::Service),
    ] {
        let hash = Digest::of(&[name.as_bytes(), story.world.chance.hex(8).as_bytes()]);
        let token = story.world.token(name, hash, role, holder)?;
        story.must("admin", Command::CreateToken { token })?;
    }
    for name in ["intern", "deputy", "backup"] {
        story.must("admin", Command::RevokeToken { principal: name.parse()? })?;
    }
    story.world.make_tokens()?;
    // For whichever node comes, and none does.
    let token = JoinToken {
        hash: Digest::of(&[story.world.chance.hex(8).as_bytes()]),
        node: None,
        region: "sa".parse()?,
        labels: [("disk".to_owned(), "hdd".to_owned())].into(),
        expires: Time(story.world.scribe.now().0 + JOIN_TOKEN_US),
    };
    story.must("admin", Command::CreateJoinToken { token })?;
    for at in 0..REFUSALS {
        let command = Command::RecordRefusal {
            action: "rollback".to_owned(),
            scope: if at % 2 == 0 { "env:prod" } else { "shop/web@prod" }.to_owned(),
            why: "intern has no valid token".to_owned(),
        };
        story.world.scribe.pass(1_000_000);
        story.system_for("intern", command)?;
    }
    // The last moment of a window, and the first of the next one.
    for pause in [REFUSAL_WINDOW_US + 1, REFUSAL_WINDOW_US, 1] {
        let command = Command::RecordRefusal {
            action: "deploy".to_owned(),
            scope: "fleet".to_owned(),
            why: "visitor has no valid token".to_owned(),
        };
        story.world.scribe.pass(pause);
        story.system_for("visitor", command)?;
    }
    Ok(())
}

pub(super) fn mark_and_review(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    let seq = story.deployed("ci", &app_env, Style::Web, None)?.last();
    for scope in [Scope::app_env(&app_env), Scope::fleet(), "region:eu".parse()?] {
        story.must("fatima", Command::MarkPoint { scope, seq, bad: true })?;
    }
    story.deployed("ci", &app_env, Style::Web, None)?;
    story.must("fatima", Command::MarkPoint { scope: Scope::fleet(), seq, bad: false })?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    // The point before would do, but for the mark.
    story.roll_back_app("erik", &app_env, &Point::LastGood, &wish)?;
    let owed: Vec<_> = story.state().control.reviews.iter().map(|(seq, who)| (*seq, who.clone())).collect();
    ensure!(!owed.is_empty(), "no rollback waits for a review");
    for (rollback, who) in owed.into_iter().take(4) {
        let reviewer = if who.as_str() == "grace" { "dana" } else { "grace" };
        story.must(reviewer, Command::Review { rollback })?;
    }
    Ok(())
}

/// The keys of an app's values are destroyed: what they sealed cannot be brought back, and new values
/// have a new key.
pub(super) fn erase(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.world.set_secret(&app_env)?;
    story.deployed("ci", &app_env, Style::Database, None)?;
    story.deployed("ci", &app_env, Style::Agent, None)?;
    for subject in [app_env.to_string(), "reasons".to_owned(), format!("person-{}", story.round)] {
        story.must("admin", Command::EraseSubject { subject, even_in_use: true })?;
    }
    let refused = story.roll_back_app("dana", &app_env, &Point::Previous(1), &Wish::default());
    ensure!(refused.is_err(), "{app_env} was rolled back to values that nobody can read");
    // Others go back with it, and it stays.
    let other = story.state().target.intent.keys().find(|other| **other != app_env).cloned();
    let other = other.context("there is another app")?;
    story.deployed("ci", &other, Style::Web, None)?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    story.roll_back("dana", "fleet", 1, &wish)?;
    story.world.set_secret(&app_env)?;
    let sealed = Value::Sealed(story.world.seal(&app_env.to_string()));
    story.configure("dana", &app_env, &[("SMTP_PASSWORD", Some(sealed))])?;
    story.deployed("ci", &app_env, Style::Database, None)?;
    Ok(())
}
