//! Deployments, and every way in which one can end.

use anyhow::{Context as _, ensure};
use stele_model::event::Outcome;
use stele_model::limits::DEPLOYMENTS_PER_APP_MAX;
use stele_model::wire::{Phase, Remarks};
use stele_model::{AppEnv, Command, Point, ReleaseChoice};

use super::super::specs::Style;
use super::super::story::{Story, Wish};

/// Deployments beyond those that State remembers of an app.
const FORGOTTEN: usize = 5;
/// Names of environments beside the two there are.
const ELSEWHERE: [&str; 4] = ["canary", "demo", "load-test", "preview"];

fn outcome(story: &Story, app_env: &AppEnv) -> anyhow::Result<Outcome> {
    let (_, deployment) = story.state().latest_deployment(app_env).context("it was deployed")?;
    Ok(deployment.finished.clone().context("its deployment ended")?.2)
}

pub(super) fn of_every_style(story: &mut Story) -> anyhow::Result<()> {
    for style in Style::PLACEABLE {
        let app_env = story.app()?;
        story.deployed("ci", &app_env, style, None)?;
    }
    Ok(())
}

pub(super) fn fails(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    story.deploy("ci", &app_env, Style::Crowd, None)?;
    story.fail(&app_env, story.round.is_multiple_of(2))?;
    ensure!(matches!(outcome(story, &app_env)?, Outcome::Failed { .. }), "{app_env} did not fail");
    story.roll_back_app("erik", &app_env, &Point::LastGood, &Wish::default())?;
    story.must("erik", Command::Unlatch { app_env })?;
    Ok(())
}

pub(super) fn fits_nowhere(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deployed("grace", &app_env, Style::Homeless, None)?;
    ensure!(matches!(outcome(story, &app_env)?, Outcome::Unplaced { .. }), "{app_env} was placed");
    story.roll_back_app("grace", &app_env, &Point::Previous(1), &Wish::default())?;
    Ok(())
}

pub(super) fn is_superseded(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deploy("ci", &app_env, Style::Web, None)?;
    story.deploy("dana", &app_env, Style::Web, None)?;
    story.world.settle(&app_env)
}

pub(super) fn is_slow(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deploy("ci", &app_env, Style::Crowd, None)?;
    let now = story.world.scribe.now();
    while let Some(command) = stele_planner::plan_app(story.state(), &app_env, now) {
        story.world.conduct(command)?;
    }
    for phase in [Phase::Pending, Phase::Pulling, Phase::Starting, Phase::Unhealthy] {
        story.world.scribe.pass(1_000_000);
        story.report_as(&app_env, |report| {
            report.phase = phase;
            if phase < Phase::Starting {
                (report.container, report.spec_digest) = (None, None);
            }
            let reason = (phase == Phase::Unhealthy).then(|| "answers 503".to_owned());
            report.remarks = Remarks::of(reason, None, Vec::new());
        })?;
    }
    story.report_as(&app_env, |report| {
        report.phase = Phase::Completed;
        report.remarks = Remarks::of(None, Some(0), Vec::new());
    })?;
    story.world.settle(&app_env)
}

pub(super) fn raises_a_barrier(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    story.deployed("fatima", &app_env, Style::Web, Some("migrates orders"))?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let refused = story.roll_back_app("dana", &app_env, &Point::Previous(2), &Wish::default());
    ensure!(refused.is_err(), "{app_env} was rolled back past a barrier");
    let wish = Wish { pass_barriers: true, now: true, ..Wish::default() };
    story.roll_back_app("dana", &app_env, &Point::Previous(2), &wish)?;
    Ok(())
}

pub(super) fn is_removed(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.must("dana", Command::Remove { app_env: app_env.clone() })?;
    story.world.settle(&app_env)?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    story.roll_back_app("fatima", &app_env, &Point::Previous(1), &wish)?;
    Ok(())
}

pub(super) fn goes_elsewhere(story: &mut Story) -> anyhow::Result<()> {
    let app = story.app()?.app.clone();
    let environment = ELSEWHERE[story.round % ELSEWHERE.len()].parse()?;
    story.deployed("ci", &AppEnv::new(app, environment), Style::Web, None)?;
    Ok(())
}

pub(super) fn of_an_old_release(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    story.ask("grace", Command::Unlatch { app_env: app_env.clone() })?;
    let number = story.state().newest_release(&app_env.app);
    for (number, again) in [(number.saturating_sub(1).max(1), true), (number, true)] {
        let command = Command::Deploy {
            app_env: app_env.clone(),
            contacts: None,
            release: ReleaseChoice::Number(number),
            again,
            barrier: None,
        };
        story.must("grace", command)?;
        story.world.settle(&app_env)?;
    }
    Ok(())
}

/// More deployments of one app than State remembers: which are forgotten is part of how a log folds.
pub(super) fn without_end(story: &mut Story) -> anyhow::Result<()> {
    if story.round > 0 {
        return Ok(());
    }
    let app_env = story.app()?;
    story.deployed("ci", &app_env, Style::Agent, None)?;
    let number = story.state().newest_release(&app_env.app);
    for _ in 0..DEPLOYMENTS_PER_APP_MAX + FORGOTTEN {
        let command = Command::Deploy {
            app_env: app_env.clone(),
            contacts: None,
            release: ReleaseChoice::Number(number),
            again: true,
            barrier: None,
        };
        story.world.scribe.pass(30_000_000);
        // Nobody has a key for it, or a reason.
        story.system_for("ci", command)?;
    }
    story.world.settle(&app_env)
}
