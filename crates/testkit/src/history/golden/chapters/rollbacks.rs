//! Rollbacks of every kind of scope.

use anyhow::{Context as _, ensure};
use stele_model::{AppEnv, Command, NodeName, Point, Scope};

use super::super::specs::Style;
use super::super::story::{Story, Wish};

/// What most rollbacks of many apps are asked with, so that one app in the way does not stop all.
fn generous() -> Wish<'static> {
    Wish { best_effort: true, pass_barriers: true, ..Wish::default() }
}

/// A deployment, so that there is something to go back from.
fn moved(story: &mut Story) -> anyhow::Result<AppEnv> {
    moved_in(story, "fleet")
}

/// The same, of an app in a scope.
fn moved_in(story: &mut Story, scope: &str) -> anyhow::Result<AppEnv> {
    let app_env = story.app_in(&scope.parse()?)?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    Ok(app_env)
}

/// To a point in the log of the version before.
pub(super) fn across_the_upgrade(story: &mut Story) -> anyhow::Result<()> {
    if story.round > 0 {
        return Ok(());
    }
    let app_env: AppEnv = "shop/web@prod".parse()?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    let first = story.world.scribe.began_after();
    let scope = Scope::app_env(&app_env);
    let point = story.state().earlier(&scope, 0).map(|earlier| earlier.point).find(|seq| *seq <= first);
    let seq = point.context("nothing was deployed before the upgrade")?;
    let decision = story.rollback_to("dana", &scope, (seq, format!("seq:{seq}")), &generous())?;
    ensure!(decision.is_some(), "{app_env} is as it was before the upgrade");
    story.settle_all()
}

pub(super) fn of_apps(story: &mut Story) -> anyhow::Result<()> {
    let app_env = moved(story)?;
    story.roll_back_app("grace", &app_env, &Point::Previous(1), &Wish { strict: true, ..Wish::default() })?;
    let app_env = moved(story)?;
    story.deployed("ci", &app_env, Style::Web, None)?;
    story.roll_back_app("erik", &app_env, &Point::Previous(2), &Wish { now: true, ..generous() })?;
    let app_env = moved(story)?;
    let before = story.state().timeline(&app_env).into_iter().skip(1).find_map(|entry| entry.release);
    let number = before.with_context(|| format!("{app_env} has no release before"))?;
    story.roll_back_app("dana", &app_env, &Point::Release(number), &generous())?;
    Ok(())
}

pub(super) fn of_environments_and_projects(story: &mut Story) -> anyhow::Result<()> {
    moved_in(story, "env:prod")?;
    story.roll_back("grace", "env:prod", 1, &generous())?;
    moved_in(story, "env:staging")?;
    story.roll_back("dana", "env:staging", 0, &generous())?;
    story.roll_back("erik", "project:shop", 0, &generous())?;
    story.roll_back("fatima", "project:team-00", 2, &generous())?;
    Ok(())
}

/// A node that an app is on.
fn node_of(story: &Story, app_env: &AppEnv) -> anyhow::Result<NodeName> {
    let node = story.state().slots(app_env).map(|(_, node)| node.clone()).last();
    node.with_context(|| format!("{app_env} is nowhere"))
}

pub(super) fn of_places(story: &mut Story) -> anyhow::Result<()> {
    moved(story)?;
    story.roll_back("grace", "region:eu", 0, &generous())?;
    moved(story)?;
    story.roll_back("erik", "region:us", 1, &generous())?;
    let app_env = moved(story)?;
    let node = node_of(story, &app_env)?;
    story.roll_back("dana", &format!("node:{node}"), 0, &generous())?;
    Ok(())
}

pub(super) fn of_intersections(story: &mut Story) -> anyhow::Result<()> {
    moved_in(story, "env:prod")?;
    story.roll_back("dana", "env:prod,region:eu", 0, &generous())?;
    let app_env = moved(story)?;
    story.roll_back("grace", &format!("{app_env},region:us"), 0, &generous())?;
    moved_in(story, "project:team-00,env:prod")?;
    story.roll_back("erik", "project:team-00,env:prod", 0, &generous())?;
    let app_env = moved_in(story, "project:team-00")?;
    let node = node_of(story, &app_env)?;
    story.roll_back("erik", &format!("project:team-00,node:{node}"), 0, &generous())?;
    Ok(())
}

pub(super) fn of_all_but_some(story: &mut Story) -> anyhow::Result<()> {
    moved_in(story, "env:prod")?;
    story.roll_back("grace", "env:prod", 0, &Wish { except: &["region:eu"], ..generous() })?;
    let app_env = moved(story)?;
    let kept = format!("project:{}", app_env.app.project);
    let app_env = moved(story)?;
    let node = format!("node:{}", node_of(story, &app_env)?);
    story.roll_back("dana", "fleet", 1, &Wish { except: &[&kept, &node], ..generous() })?;
    moved(story)?;
    story.roll_back("fatima", "region:eu", 0, &Wish { except: &["node:eu-1"], ..generous() })?;
    Ok(())
}

pub(super) fn of_the_fleet(story: &mut Story) -> anyhow::Result<()> {
    let app_env = moved(story)?;
    let gone = (app_env, "image registry.example.com/web is not to be had any more".to_owned());
    story.roll_back("admin", "fleet", 3, &Wish { unobtainable: vec![gone], ..generous() })?;
    story.roll_back("admin", "fleet", 0, &generous())?;
    Ok(())
}

/// A region goes back to when an app was nowhere: there it stays away, and elsewhere it stays.
pub(super) fn to_before_it_was_there(story: &mut Story) -> anyhow::Result<()> {
    let seq = story.state().seq;
    let environment = format!("trial-{}", story.state().control.environments.len()).parse()?;
    let app_env = AppEnv::new(story.app()?.app.clone(), environment);
    story.deployed("ci", &app_env, Style::Web, None)?;
    let node = node_of(story, &app_env)?;
    let region = story.state().region_of(&node).context("a node has a region")?;
    let scope: Scope = format!("{app_env},region:{region}").parse()?;
    let decision = story.rollback_to("grace", &scope, (seq, format!("seq:{seq}")), &Wish::default())?;
    ensure!(decision.is_some(), "{app_env} was not in the region");
    story.settle_all()?;
    // The next deployment is for everywhere again.
    if story.round > 0 {
        story.deployed("ci", &app_env, Style::Web, None)?;
        story.must("dana", Command::Remove { app_env })?;
    }
    story.settle_all()
}
