//! Taking back what one change did to a tree of fields, and keeping what came later.
//!
//! A three-way merge: `after` the change, `before` it, and `now`. A field the change left
//! alone stays as it is now; one that is still as the change left it becomes what it was
//! before; one that is something else by now is a conflict, unless it is what it was before.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use crate::fields::{self, Path};

/// A field that was changed again since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) path: Path,
    /// What it would become.
    pub(crate) wanted: Json,
    /// What it is.
    pub(crate) present: Json,
}

/// The tree without the change, as far as nothing clashes.
pub(crate) fn take_back(after: &Json, before: &Json, now: &Json, clashes: &mut Vec<Clash>) -> Json {
    merge(&mut Vec::new(), [after, before, now], clashes)
}

fn merge(path: &mut Path, [after, before, now]: [&Json; 3], clashes: &mut Vec<Clash>) -> Json {
    if after == before || now == before {
        return now.clone();
    }
    if now == after {
        return before.clone();
    }
    // Where there is no bundle, it has no members.
    let empty = Json::Object(Map::new());
    let is_bundle =
        matches!(path.as_slice(), [name] if ["config", "secrets", "pins"].contains(&name.as_str()));
    let sides = [after, before, now].map(|side| if is_bundle && side.is_null() { &empty } else { side });
    if let Some(maps) = fields::members(path, &sides) {
        let mut merged = Map::new();
        for key in keys(&maps) {
            path.push(key.clone());
            let member = |at: usize| maps[at].get(key).unwrap_or(&Json::Null);
            let value = merge(path, [member(0), member(1), member(2)], clashes);
            path.pop();
            if !value.is_null() || maps.iter().any(|map| map.get(key).is_some_and(Json::is_null)) {
                merged.insert(key.clone(), value);
            }
        }
        let is_none = is_bundle && merged.is_empty() && before.is_null();
        return if is_none { Json::Null } else { Json::Object(merged) };
    }
    let known = clashes.len();
    match sides.map(|side| side.is_object() && !is_one(path, side)) {
        // What it added was changed since: that would go with it.
        [true, false, true] if before.is_null() => {
            clash(path, [after, before, now], &|[after, _, now]| !now.is_null() && now != after, clashes);
        }
        // What it took away was made anew, and differently.
        [false, true, true] if after.is_null() => {
            clash(path, [after, before, now], &|[_, before, now]| before != now, clashes);
        }
        // What it changed is gone.
        [true, true, false] if now.is_null() => {
            let lost = |[after, before, _]: [&Json; 3]| after != before && !before.is_null();
            clash(path, [after, before, now], &lost, clashes);
        }
        _ => clashes.push(Clash { path: path.clone(), wanted: before.clone(), present: now.clone() }),
    }
    // Nothing of it is left to take back, or nothing else would go with it.
    if clashes.len() == known && !now.is_null() { before.clone() } else { now.clone() }
}

fn is_one(path: &[String], side: &Json) -> bool {
    fields::members(path, &[side]).is_none()
}

fn keys<'a>(maps: &[&'a Map<String, Json>]) -> BTreeSet<&'a String> {
    maps.iter().flat_map(|map| map.keys()).collect()
}

/// Adds every field for which `clashes_at` holds.
fn clash(
    path: &mut Path,
    sides: [&Json; 3],
    clashes_at: &dyn Fn([&Json; 3]) -> bool,
    clashes: &mut Vec<Clash>,
) {
    let there: Vec<_> = sides.into_iter().filter(|side| !side.is_null()).collect();
    let Some(maps) = fields::members(path, &there).filter(|maps| !maps.is_empty()) else {
        if clashes_at(sides) {
            let (wanted, present) = (sides[1].clone(), sides[2].clone());
            clashes.push(Clash { path: path.clone(), wanted, present });
        }
        return;
    };
    for key in keys(&maps) {
        path.push(key.clone());
        clash(path, sides.map(|side| side.get(key).unwrap_or(&Json::Null)), clashes_at, clashes);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(env: &[(&str, &str)], replicas: u32) -> Json {
        let env: Map<_, _> =
            env.iter().map(|(name, text)| ((*name).to_owned(), json!({"value": {"plain": text}}))).collect();
        json!({"services": {"web": {
            "container": {"image": {"repository": "r", "digest": "d"}, "env": env, "user": null},
            "placement": {"replicas": {"count": replicas, "nodes": ""}},
        }}})
    }

    fn taken_back(after: &Json, before: &Json, now: &Json) -> Result<Json, Vec<String>> {
        let mut clashes = Vec::new();
        let merged = take_back(after, before, now, &mut clashes);
        let paths: Vec<_> = clashes.iter().map(|clash| fields::written(&clash.path)).collect();
        if paths.is_empty() { Ok(merged) } else { Err(paths) }
    }

    #[test]
    fn what_came_later_stays() {
        let (before, after) = (app(&[("A", "1")], 2), app(&[("A", "2"), ("B", "1")], 2));
        let now = app(&[("A", "2"), ("B", "1"), ("C", "1")], 3);
        assert_eq!(taken_back(&after, &before, &now), Ok(app(&[("A", "1"), ("C", "1")], 3)));
        assert_eq!(
            taken_back(&after, &before, &after),
            Ok(before.clone()),
            "the last change is undone whole"
        );
        assert_eq!(taken_back(&after, &before, &before), Ok(before), "what is undone already stays so");
    }

    #[test]
    fn a_field_that_changed_again_clashes() {
        let (before, after) = (app(&[("A", "1")], 2), app(&[("A", "2")], 3));
        let now = app(&[("A", "3")], 3);
        assert_eq!(taken_back(&after, &before, &now), Err(vec!["services.web.container.env.A".to_owned()]));
        let reverted = app(&[("A", "1")], 3);
        assert_eq!(taken_back(&after, &before, &reverted), Ok(before), "being what it was is no clash");
    }

    #[test]
    fn what_comes_or_goes_as_a_whole_is_not_torn() {
        let (one, two) = (app(&[("A", "1")], 2), app(&[("A", "2")], 2));
        assert_eq!(taken_back(&one, &Json::Null, &one), Ok(Json::Null), "an app that was added goes");
        assert_eq!(
            taken_back(&Json::Null, &one, &Json::Null),
            Ok(one.clone()),
            "one that was removed returns"
        );
        let clash = vec!["services.web.container.env.A".to_owned()];
        assert_eq!(taken_back(&one, &Json::Null, &two), Err(clash.clone()), "it was changed since");
        assert_eq!(taken_back(&Json::Null, &one, &two), Err(clash.clone()), "another is there by now");
        assert_eq!(taken_back(&two, &one, &Json::Null), Err(clash), "it is gone by now");
    }

    #[test]
    fn one_way_of_placing_is_not_mixed_with_another() {
        let every = |nodes: &str| {
            let mut app = app(&[], 2);
            app["services"]["web"]["placement"] = json!({"every": {"nodes": nodes}});
            app
        };
        let clash = vec!["services.web.placement".to_owned()];
        assert_eq!(taken_back(&app(&[], 3), &app(&[], 2), &every("disk")), Err(clash));
        assert_eq!(taken_back(&every("disk"), &app(&[], 2), &every("disk")), Ok(app(&[], 2)));
    }

    #[test]
    fn bundles_are_merged_by_their_members() {
        let config = |variables: Json| {
            let mut app = app(&[], 2);
            if !variables.is_null() {
                app["config"] = variables;
            }
            app
        };
        let (k, l) = (json!({"plain": "k"}), json!({"plain": "l"}));
        let (first, both) = (config(json!({"K": k})), config(json!({"K": k, "L": l})));
        assert_eq!(taken_back(&first, &config(Json::Null), &both), Ok(config(json!({"L": l}))));
        assert_eq!(taken_back(&first, &config(Json::Null), &first), Ok(config(Json::Null)));
    }
}
