//! The chapters of the story: each is something that fleets go through, told several times.

mod deployments;
mod fleet;
mod people;
mod rollbacks;
mod undo;

use super::story::Story;

/// One thing that fleets go through.
pub(super) type Chapter = fn(&mut Story) -> anyhow::Result<()>;

/// In the order in which they are told. More may be added; those there are need not stay as they are,
/// because what was told once is kept as a log, and not as code.
pub(super) const CHAPTERS: [(&str, Chapter); 31] = [
    ("controllers come", fleet::controllers_come),
    ("back across the upgrade", rollbacks::across_the_upgrade),
    ("releases of every style", deployments::of_every_style),
    ("a deployment fails", deployments::fails),
    ("a deployment fits nowhere", deployments::fits_nowhere),
    ("a deployment is superseded", deployments::is_superseded),
    ("a deployment is slow", deployments::is_slow),
    ("a deployment raises a barrier", deployments::raises_a_barrier),
    ("an app is removed and comes back", deployments::is_removed),
    ("an app goes elsewhere", deployments::goes_elsewhere),
    ("an old release again", deployments::of_an_old_release),
    ("a pipeline gone mad", deployments::without_end),
    ("sealed config", people::seal_config),
    ("rollback of apps", rollbacks::of_apps),
    ("rollback of environments and projects", rollbacks::of_environments_and_projects),
    ("rollback of places", rollbacks::of_places),
    ("rollback of intersections", rollbacks::of_intersections),
    ("rollback of all but some", rollbacks::of_all_but_some),
    ("rollback of the fleet", rollbacks::of_the_fleet),
    ("rollback to before an app was there", rollbacks::to_before_it_was_there),
    ("nodes are lost and return", fleet::nodes_are_lost),
    ("a node is replaced", fleet::node_is_replaced),
    ("a node is drained and resumed", fleet::node_is_drained),
    ("agents start anew", fleet::agents_start_anew),
    ("one change is undone", undo::one),
    ("several changes are undone", undo::several),
    ("people come and go", people::come_and_go),
    ("marks and reviews", people::mark_and_review),
    ("a subject is erased", people::erase),
    ("controllers go", fleet::controllers_go),
    ("a quorum is lost for good", fleet::quorum_is_lost),
];
