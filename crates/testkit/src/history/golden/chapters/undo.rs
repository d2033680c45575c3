//! Undo: what later changes did stays.

use super::super::specs::Style;
use super::super::story::{Story, Wish};

pub(super) fn one(story: &mut Story) -> anyhow::Result<()> {
    let app_env = story.app()?;
    let chosen = story.configure("dana", &app_env, &[("UNDONE", Some("1".into()))])?;
    story.configure("erik", &app_env, &[("LATER", Some(story.round.to_string().as_str().into()))])?;
    story.undo("dana", &[chosen])?;
    let app_env = story.app()?;
    let chosen = story.deployed("ci", &app_env, Style::Crowd, None)?;
    let undone = story.undo("dana", &[chosen])?;
    // Second thoughts.
    story.undo("grace", &[undone])?;
    Ok(())
}

pub(super) fn several(story: &mut Story) -> anyhow::Result<()> {
    let (one, other) = (story.app()?, story.app()?);
    let first = story.configure("dana", &one, &[("CHOSEN", Some("1".into()))])?;
    let second = story.configure("dana", &other, &[("CHOSEN_TOO", Some("2".into()))])?;
    story.configure("erik", &one, &[("KEPT", Some(story.round.to_string().as_str().into()))])?;
    story.undo("fatima", &[first, second])?;
    story.deployed("ci", &one, Style::Web, None)?;
    let wish = Wish { best_effort: true, pass_barriers: true, ..Wish::default() };
    let rollback = story.roll_back("grace", &one.to_string(), 0, &wish)?;
    story.undo("erik", &[rollback])?;
    Ok(())
}
