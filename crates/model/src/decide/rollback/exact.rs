//! The result must be what was: a rollback that is not exact is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::RollbackPlan;
use crate::event::TargetDigest;
use crate::ids::{NodeName, ServiceName};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::State;

/// Compares what a plan came to with what was: as a whole, or node by node where a part of the app
/// was to stay as it is.
pub(super) fn check(
    past: &State,
    after: &State,
    plan: &RollbackPlan,
    scope: &Scope,
    except: &[Scope],
) -> Result<(), Rejection> {
    let held: Vec<_> = except.iter().filter(|scope| scope.covers_app_env(&plan.app_env)).collect();
    if held.is_empty() {
        as_a_whole(past, after, plan, scope)
    } else {
        by_node(past, after, plan, scope, &held)
    }
}

fn as_a_whole(past: &State, after: &State, plan: &RollbackPlan, scope: &Scope) -> Result<(), Rejection> {
    let place =
        Scope { region: scope.region.clone(), node: scope.node.clone(), ..Scope::app_env(&plan.app_env) };
    let moved = !plan.deviations.is_empty();
    let same_intent = past.intent_digest(&place) == after.intent_digest(&place);
    if same_intent && (moved || after.is_placed_as_in(past, &place)) {
        return Ok(());
    }
    let (wanted, found) = (past.target_digest(&place), after.target_digest(&place));
    let halves = |digest: TargetDigest| {
        format!("intent {}, placement {}", digest.intent.short(), digest.placement.short())
    };
    Err(mismatch(&place.to_string(), past, &halves(found), &halves(wanted)))
}

/// What an app is on a node: the revision in force, and how many instances of each service.
type Cell<'a> = (Option<&'a Revision>, BTreeMap<&'a ServiceName, u32>);

fn by_node(
    past: &State,
    after: &State,
    plan: &RollbackPlan,
    scope: &Scope,
    held: &[&Scope],
) -> Result<(), Rejection> {
    let region = |node: &NodeName| after.region_of(node).or_else(|| past.region_of(node));
    let is_restored = |node: &NodeName| {
        scope.covers_node(node, region(node)) && !held.iter().any(|held| held.covers_node(node, region(node)))
    };
    let cells = |state| cells(state, plan, &is_restored);
    let (wanted, found) = (cells(past), cells(after));
    let moved = !plan.deviations.is_empty();
    let nodes: BTreeSet<_> = wanted.keys().chain(found.keys()).copied().collect();
    for node in nodes {
        let (was, is) = (wanted.get(node), found.get(node));
        let same = match (was, is) {
            (Some(was), Some(is)) => was.0 == is.0 && (moved || was.1 == is.1),
            // One that is told to be placed anew is on another node than it was.
            _ => moved,
        };
        if !same {
            let told = |cell: Option<&Cell<'_>>| cell.map_or_else(|| "nothing".to_owned(), tell);
            return Err(mismatch(&format!("{} on node {node}", plan.app_env), past, &told(is), &told(was)));
        }
    }
    Ok(())
}

fn cells<'a>(
    state: &'a State,
    plan: &RollbackPlan,
    is_restored: &dyn Fn(&NodeName) -> bool,
) -> BTreeMap<&'a NodeName, Cell<'a>> {
    let mut cells: BTreeMap<&NodeName, Cell<'a>> = BTreeMap::new();
    let revisions = state.revisions(&plan.app_env);
    for (slot, node) in state.slots(&plan.app_env).filter(|(_, node)| is_restored(node)) {
        let cell = cells.entry(node).or_insert_with(|| (revisions.at(node), BTreeMap::new()));
        *cell.1.entry(&slot.service).or_default() += 1;
    }
    cells
}

fn tell((revision, services): &Cell<'_>) -> String {
    let release = revision.map_or_else(|| "no release".to_owned(), |it| it.release.short());
    let services: Vec<_> = services.iter().map(|(name, count)| format!("{count} of {name}")).collect();
    format!("{release}, {}", services.join(", "))
}

fn mismatch(what: &str, past: &State, found: &str, wanted: &str) -> Rejection {
    let seq = past.seq;
    Rejection::new(RejectionKind::Conflict, format!("{what} would not be what it was at seq {seq}: {found}"))
        .with_details(vec![format!("at seq {seq} it was {wanted}")])
}
