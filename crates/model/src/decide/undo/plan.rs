//! What an undo would change, app by app.
//!
//! Decisions are taken back newest first, each by a merge of what an app was just before it,
//! what it was just after it, and what it is now. A field that was changed again since stands
//! in the way of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::super::rollback::{
    places::{pinned_anew, restore},
    plan_rollback,
};
use super::content::{Made, mixed};
use crate::digest::Digest;
use crate::event::{Deviation, Event, Pin};
use crate::fields;
use crate::header::Decision;
use crate::hold::Hold;
use crate::ids::{AppEnv, NodeName, Place, Seq, Slot};
use crate::merge::take_back;
use crate::rejection::{Rejection, RejectionKind};
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::{ReleaseRecord, State};

/// A field that was changed again after the change that should be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// The app and environment.
    pub app_env: AppEnv,
    /// Which field, as in differences.
    pub path: String,
    /// First seq of the decision that should be undone.
    pub decision: Seq,
    /// What it would become; absent when it would not be there.
    pub wanted: Option<String>,
    /// What it is; absent when it is not there.
    pub present: Option<String>,
}

/// What an undo would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoPlan {
    /// The apps that would change.
    pub apps: Vec<UndoneApp>,
    /// Why nothing would; empty when it can be done.
    pub conflicts: Vec<Conflict>,
    /// Chosen decisions that changed no app's intent, so that there is nothing of them to undo.
    pub without_effect: Vec<Seq>,
}

/// What an undo would do to one app in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoneApp {
    /// Which.
    pub app_env: AppEnv,
    /// What is in force.
    pub from: Option<Revision>,
    /// What would be.
    pub to: Option<Revision>,
    /// The app would be exactly what it was just before the oldest of the chosen decisions, at this seq.
    pub restores: Option<Seq>,
    /// How instances would be placed otherwise than they were then, or later.
    pub deviations: Vec<Deviation>,
    /// Why it cannot be done; empty when it can.
    pub blocked: Vec<String>,
    pub(super) pins: Vec<(Place, Option<Pin>)>,
    pub(super) slots: Vec<(Slot, Option<NodeName>)>,
    pub(super) rejected: Option<Digest>,
    /// What has to be made for it: a release and a config bundle that never were before.
    pub(super) made: Vec<Event>,
}

/// An app on its way back.
struct Merged {
    fields: Json,
    /// Just before the oldest decision that touched it.
    before: Seq,
}

/// What taking decisions back would change, app by app. `past` holds State just before and
/// just after each of them.
pub fn plan_undo(
    state: &State,
    decisions: &[Decision],
    past: &BTreeMap<Seq, State>,
) -> Result<UndoPlan, Rejection> {
    let at_hand = |seq: Seq| {
        past.get(&seq).ok_or_else(|| {
            Rejection::new(RejectionKind::NotFound, format!("State at seq {seq} is not at hand"))
        })
    };
    let chosen: BTreeMap<Seq, Decision> = decisions.iter().map(|it| (it.first, *it)).collect();
    let mut plan = UndoPlan::default();
    let mut merged: BTreeMap<AppEnv, Merged> = BTreeMap::new();
    for decision in chosen.values().rev() {
        let (before, after) = (at_hand(decision.first.saturating_sub(1))?, at_hand(decision.last())?);
        let touched: Vec<_> = touched(before, after).into_iter().cloned().collect();
        if touched.is_empty() {
            plan.without_effect.push(decision.first);
        }
        for app_env in touched {
            let now = match merged.get(&app_env) {
                Some(merged) => merged.fields.clone(),
                None => fields::of_app(state, &app_env),
            };
            let (was, made) = (fields::of_app(before, &app_env), fields::of_app(after, &app_env));
            let mut clashes = Vec::new();
            let fields = take_back(&made, &was, &now, &mut clashes);
            plan.conflicts.extend(clashes.into_iter().map(|clash| Conflict {
                app_env: app_env.clone(),
                path: fields::written(&clash.path),
                decision: decision.first,
                wanted: fields::show(&clash.path, &clash.wanted),
                present: fields::show(&clash.path, &clash.present),
            }));
            merged.insert(app_env, Merged { fields, before: before.seq });
        }
    }
    if !plan.conflicts.is_empty() {
        return Ok(plan);
    }
    let mut made = Made::default();
    for (app_env, merged) in merged {
        if merged.fields == fields::of_app(state, &app_env) {
            continue;
        }
        let before = at_hand(merged.before)?;
        let mut app = if merged.fields == fields::of_app(before, &app_env) {
            restored(state, before, &app_env)
        } else {
            mixed(state, past, &app_env, &merged.fields, &mut made)?
        };
        app.keep_apart(state, before);
        if app.is_change() {
            plan.apps.push(app);
        }
    }
    Ok(plan)
}

/// Apps of which a decision changed what they should be.
fn touched<'a>(before: &'a State, after: &'a State) -> BTreeSet<&'a AppEnv> {
    let mut touched: BTreeSet<_> = before.targeted().into_iter().chain(after.targeted()).collect();
    touched.retain(|app_env| {
        before.target.intent.get(*app_env) != after.target.intent.get(*app_env)
            || !before.pins(app_env).eq(after.pins(app_env))
    });
    touched
}

/// The app as it was, with its instances where they were: a rollback of this app alone.
fn restored(state: &State, before: &State, app_env: &AppEnv) -> UndoneApp {
    let from = state.target.intent.get(app_env).map(|revision| revision.as_ref().clone());
    let mut app = UndoneApp {
        app_env: app_env.clone(),
        to: from.clone(),
        from,
        restores: Some(before.seq),
        deviations: Vec::new(),
        blocked: Vec::new(),
        pins: Vec::new(),
        slots: Vec::new(),
        rejected: None,
        made: Vec::new(),
    };
    let plan = plan_rollback(state, before, &Scope::app_env(app_env), &[]).into_iter().next();
    if let Some(plan) = plan.filter(|plan| plan.is_change(state)) {
        app.deviations = plan.told().cloned().collect();
        app.to = plan.to;
        (app.pins, app.slots) = (plan.pins, plan.slots);
        (app.blocked, app.rejected) = (plan.blocked, plan.rejected);
    }
    app
}

impl UndoPlan {
    /// The barriers that chosen decisions raised, as they are told.
    pub fn barriers(&self, state: &State, decisions: &[Decision]) -> Vec<String> {
        let is_chosen =
            |seq: Seq| decisions.iter().any(|decision| (decision.first..=decision.last()).contains(&seq));
        self.apps
            .iter()
            .flat_map(|app| {
                let range = (app.app_env.clone(), 0)..=(app.app_env.clone(), Seq::MAX);
                state.history.barriers.range(range)
            })
            .filter(|((_, seq), _)| is_chosen(*seq))
            .map(|((app_env, seq), why)| format!("{app_env}: deploy:{seq} {why}"))
            .collect()
    }
}

impl UndoneApp {
    /// That a place went back is undone for that place alone, where the rest of the app is held: what failed goes on
    /// nowhere else by that. `past` is what was before.
    fn keep_apart(&mut self, state: &State, past: &State) {
        let app_env = self.app_env.clone();
        if self.from != self.to {
            return;
        }
        let hold = state.unsuccessful(&app_env);
        let present: BTreeMap<Place, Pin> =
            state.pins(&app_env).map(|(place, pin)| (place.clone(), pin.as_ref().clone())).collect();
        let mut pins = present.clone();
        for (place, pin) in &self.pins {
            match pin {
                Some(pin) => pins.insert(place.clone(), pin.clone()),
                None => pins.remove(place),
            };
        }
        let kept = hold.map(|hold| hold.keep_apart(state, &app_env, &mut pins)).unwrap_or_default();
        let why = hold.map(Hold::why).unwrap_or_default();
        for place in &kept {
            self.restores = None;
            let why = format!("goes on without the rest of the app, which stays as it is: {why}");
            self.deviations.push(Deviation { what: format!("{app_env}, {place}"), why });
            self.pins.retain(|(changed, _)| changed != place);
            if pins.get(place) != present.get(place) {
                self.pins.push((place.clone(), pins.get(place).cloned()));
            }
        }
        self.pins.sort_by(|left, right| left.0.cmp(&right.0));
        // While some place is pinned, nobody but this places instances there.
        if self.restores.is_none() && self.slots.is_empty() && !pins.is_empty() {
            let mut after = state.clone();
            let changed: Vec<Place> = self.pins.iter().map(|(place, _)| place.clone()).collect();
            for place in &changed {
                let scope = Scope::app_env(&app_env).at(place);
                let part = restore(&after, past, &app_env, &scope, &[]);
                for (slot, node) in part.slots {
                    after.put_slot(&slot, node.as_ref());
                    self.slots.push((slot, node));
                }
                self.deviations.extend(part.deviations);
            }
        }
    }

    fn is_change(&self) -> bool {
        self.from != self.to || !self.pins.is_empty() || !self.slots.is_empty() || !self.blocked.is_empty()
    }

    /// Whether what it would become was rejected by a rollback.
    pub(super) fn is_latched(&self, state: &State) -> bool {
        let pinned = pinned_anew(state, &self.app_env, &self.pins);
        self.to.iter().chain(pinned).any(|revision| state.is_latched(&self.app_env, &revision.release))
    }

    /// Sets what the plan says in a State, so that it can be looked at; digests of State are not kept up.
    pub fn apply(&self, state: &mut State) {
        let app_env = &self.app_env;
        for event in &self.made {
            match event {
                Event::ReleaseCreated { number, digest, release, images } => {
                    let (release, images) = (release.clone(), images.clone());
                    let record = ReleaseRecord { number: *number, seq: state.seq, release, images };
                    state.history.releases.insert(*digest, state.seq, Arc::new(record));
                    state.history.numbers.insert((app_env.app.clone(), *number), state.seq, *digest);
                }
                Event::ConfigChanged { version, digest, variables, .. } => {
                    state.history.config_versions.insert((app_env.clone(), *version), state.seq, *digest);
                    state.history.configs.insert(*digest, state.seq, Arc::new(variables.clone()));
                }
                _ => {}
            }
        }
        match &self.to {
            Some(revision) => state.target.intent.insert(app_env.clone(), Arc::new(revision.clone())),
            None => state.target.intent.remove(app_env),
        };
        for (place, pin) in &self.pins {
            let key = (app_env.clone(), place.clone());
            match pin {
                Some(pin) => state.target.pins.insert(key, Arc::new(pin.clone())),
                None => state.target.pins.remove(&key),
            };
        }
        for (slot, node) in &self.slots {
            state.put_slot(slot, node.as_ref());
        }
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quoted = |value: &Option<String>| match value {
            Some(value) => format!("{value:?}"),
            None => "absent".to_owned(),
        };
        let path = if self.path.is_empty() { "the app" } else { &self.path };
        write!(
            f,
            "{} {path}: undoing seq {} would make it {}, and by now it is {}",
            self.app_env,
            self.decision,
            quoted(&self.wanted),
            quoted(&self.present)
        )
    }
}
