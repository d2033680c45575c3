//! Which crate may depend on which, read from `cargo metadata`.
//!
//! The rules are few and the same for everybody; an exception is a line in a table here,
//! and so a line in a review.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::cargo;
use crate::progress::{Outcome, say};

/// Where a crate stands. A crate depends on lower layers; pure crates and shells also on
/// their own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Pure,
    Adapter,
    Shell,
    Dev,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Adapter => "adapter",
            Self::Shell => "shell",
            Self::Dev => "dev",
        }
    }
}

/// Every crate of the workspace has its line. A crate that is not listed fails the check.
const LAYERS: &[(&str, Layer)] = &[
    ("stele-model", Layer::Pure),
    ("stele-codec", Layer::Pure),
    ("stele-ledger", Layer::Pure),
    ("stele-proof", Layer::Pure),
    ("stele-planner", Layer::Pure),
    ("stele-consensus", Layer::Pure),
    ("stele-reconcile", Layer::Pure),
    ("stele-feed", Layer::Pure),
    ("stele-planted", Layer::Pure),
    ("stele-store", Layer::Adapter),
    ("stele-bus", Layer::Adapter),
    ("stele-runtime", Layer::Adapter),
    ("stele-peer", Layer::Adapter),
    ("stele-query", Layer::Adapter),
    ("stele-telemetry", Layer::Adapter),
    ("stele-api", Layer::Shell),
    ("stele-controller", Layer::Shell),
    ("stele-agent", Layer::Shell),
    ("stele-cli", Layer::Shell),
    ("stele-console", Layer::Shell),
    ("stele-linear", Layer::Dev),
    ("stele-testkit", Layer::Dev),
    ("stele-xtask", Layer::Dev),
    ("stele-simulations", Layer::Dev),
    ("stele-fuzz", Layer::Dev),
];

/// The names of the pure crates.
pub(crate) fn pure() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().filter(|(_, layer)| *layer == Layer::Pure).map(|(name, _)| *name)
}

/// What pure crates may use from outside: data structures, hashing, formats, errors, and
/// Ed25519, whose signatures are the same wherever and whenever they are made.
const PURE_MAY_USE: &[&str] = &[
    "arcstr",
    "base64",
    "bincode",
    "bytes",
    "crc32fast",
    "data-encoding",
    "ed25519-dalek",
    "hex",
    "imbl",
    "jiff",
    "prost",
    "raft",
    "schemars",
    "serde",
    "serde_json",
    "sha2",
    "slog",
    "strsim",
    "thiserror",
    "triomphe",
];

/// What no pure crate may reach, however many crates lie between: anything that waits,
/// talks or writes.
const PURE_NEVER_REACHES: &[&str] = &[
    "async-nats",
    "axum",
    "bollard",
    "fs-err",
    "hyper",
    "librocksdb-sys",
    "mio",
    "nix",
    "oci-client",
    "rocksdb",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "ureq",
];

/// Crates from outside that only their owners may name, and what for.
struct Owned {
    name: &'static str,
    owners: &'static [&'static str],
    why: &'static str,
    /// Whether dev crates and dev-dependencies may name it too.
    free_in_tests: bool,
}

const OWNED: &[Owned] = &[
    Owned {
        name: "raft",
        owners: &["stele-consensus", "stele-store", "stele-peer"],
        why: "its traps are handled in one place, and everything above speaks of entries and terms",
        free_in_tests: false,
    },
    Owned {
        name: "bincode",
        owners: &["stele-codec"],
        why: "it is unmaintained (RUSTSEC-2025-0141); the codec alone decides about stored bytes",
        free_in_tests: false,
    },
    Owned {
        name: "rocksdb",
        owners: &["stele-store"],
        why: "the store is the port to disk",
        free_in_tests: true,
    },
    Owned {
        name: "async-nats",
        owners: &["stele-bus"],
        why: "the bus is the port to NATS",
        free_in_tests: true,
    },
    Owned {
        name: "bollard",
        owners: &["stele-runtime"],
        why: "the runtime is the port to Docker",
        free_in_tests: true,
    },
];

/// Programs that must stay slim: what they may not link, however many crates lie between.
const NEVER_LINKS: &[(&str, &[&str], &str)] = &[
    (
        "stele-agent",
        &["rocksdb", "librocksdb-sys", "stele-store", "stele-query", "stele-controller", "raft"],
        "the agent is slim: it runs on every host and keeps no log",
    ),
    ("stele-agent", &["stele-planted"], "bugs are planted for the simulator alone"),
    ("stele-cli", &["stele-planted"], "bugs are planted for the simulator alone"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Linked into what is shipped.
    Linked,
    /// Run while something is built, and not linked.
    Build,
    /// Only in tests, examples and benchmarks.
    Dev,
}

/// Who names whom. Crates from outside have edges too, so that chains can be followed.
#[derive(Debug, Default)]
struct Graph {
    workspace: BTreeSet<String>,
    edges: BTreeMap<String, Vec<(String, Kind)>>,
}

impl Graph {
    fn edges(&self, from: &str) -> &[(String, Kind)] {
        self.edges.get(from).map_or(&[], Vec::as_slice)
    }

    /// The shortest chain of linked dependencies between two crates.
    fn chain(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            if at == to {
                let mut chain = vec![to.to_owned()];
                let mut step = to;
                while let Some(&previous) = came_from.get(step) {
                    chain.push(previous.to_owned());
                    step = previous;
                }
                chain.reverse();
                return Some(chain);
            }
            for (next, kind) in self.edges(at) {
                if *kind == Kind::Linked && next != from && !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

/// Checks the workspace as it is.
pub(crate) fn check() -> Result<Outcome> {
    let violations = violations(&read()?);
    for violation in &violations {
        say!("    {violation}");
    }
    Ok(match violations.len() {
        0 => Outcome::Passed,
        count => Outcome::Failed(format!("{count} broken; the rules: crates/xtask/src/layers.rs")),
    })
}

fn read() -> Result<Graph> {
    let mut command = MetadataCommand::new();
    command.current_dir(cargo::root()).other_options(["--locked".to_owned()]);
    let metadata = command.exec().context("cargo metadata failed")?;
    let mut graph = Graph::default();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
    for id in &metadata.workspace_members {
        if let Some(name) = names.get(id) {
            graph.workspace.insert(name.clone());
        }
    }
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    for node in &resolve.nodes {
        let Some(name) = names.get(&node.id) else { continue };
        let edges = graph.edges.entry(name.clone()).or_default();
        for dependency in &node.deps {
            let Some(to) = names.get(&dependency.pkg) else { continue };
            for kind in &dependency.dep_kinds {
                let kind = match kind.kind {
                    DependencyKind::Development => Kind::Dev,
                    DependencyKind::Build => Kind::Build,
                    _ => Kind::Linked,
                };
                edges.push((to.clone(), kind));
            }
        }
    }
    Ok(graph)
}

fn violations(graph: &Graph) -> Vec<String> {
    let layers: BTreeMap<&str, Layer> = LAYERS.iter().copied().collect();
    let mut found = Vec::new();
    for krate in &graph.workspace {
        let Some(&layer) = layers.get(krate.as_str()) else {
            found.push(format!("{krate} has no layer: add it to LAYERS in crates/xtask/src/layers.rs"));
            continue;
        };
        for (to, kind) in graph.edges(krate) {
            if let Some(&below) = layers.get(to.as_str()) {
                found.extend(between_layers(krate, layer, to, below, *kind));
            } else if layer == Layer::Pure && *kind != Kind::Dev && !PURE_MAY_USE.contains(&to.as_str()) {
                found.push(format!(
                    "{krate} depends on {to}: a pure crate uses only what is listed in \
                     PURE_MAY_USE"
                ));
            }
            found.extend(owned(krate, layer, to, *kind));
        }
        if layer == Layer::Pure {
            for never in PURE_NEVER_REACHES {
                found.extend(reaches(graph, krate, never, "a pure crate does no I/O"));
            }
        }
    }
    for (krate, nevers, why) in NEVER_LINKS {
        for never in *nevers {
            found.extend(reaches(graph, krate, never, why));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn between_layers(krate: &str, layer: Layer, to: &str, below: Layer, kind: Kind) -> Option<String> {
    if kind == Kind::Dev {
        // A test may build on anything; only what is shipped is layered.
        return None;
    }
    let allowed = match layer {
        Layer::Pure | Layer::Adapter => below == Layer::Pure,
        Layer::Shell => below <= Layer::Shell,
        Layer::Dev => true,
    };
    if allowed {
        return None;
    }
    let rule = match (layer, below) {
        (Layer::Pure, _) => "pure crates depend on pure crates alone",
        (Layer::Adapter, Layer::Adapter) => "adapters never depend on one another",
        (Layer::Adapter, _) => "adapters depend on pure crates alone",
        _ => "nothing that is shipped depends on a dev crate",
    };
    Some(format!("{krate} ({}) depends on {to} ({}): {rule}", layer.name(), below.name()))
}

fn owned(krate: &str, layer: Layer, to: &str, kind: Kind) -> Option<String> {
    let owned = OWNED.iter().find(|owned| owned.name == to)?;
    let in_tests = layer == Layer::Dev || kind == Kind::Dev;
    if owned.owners.contains(&krate) || (in_tests && owned.free_in_tests) {
        return None;
    }
    Some(format!("{krate} names {to}: only {} may, because {}", owned.owners.join(", "), owned.why))
}

fn reaches(graph: &Graph, from: &str, to: &str, why: &str) -> Option<String> {
    let chain = graph.chain(from, to)?;
    Some(format!("{from} reaches {to}: {why} (by way of {})", chain.join(" -> ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        with_dev(edges, &[])
    }

    fn with_dev(linked: &[(&str, &str)], dev: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        let edges =
            linked.iter().map(|edge| (edge, Kind::Linked)).chain(dev.iter().map(|edge| (edge, Kind::Dev)));
        for ((from, to), kind) in edges {
            for name in [from, to] {
                if name.starts_with("stele-") {
                    graph.workspace.insert((*name).to_owned());
                }
            }
            graph.edges.entry((*from).to_owned()).or_default().push(((*to).to_owned(), kind));
        }
        graph
    }

    /// Exactly one rule is broken, and the message names both crates and the rule.
    fn assert_one(graph: &Graph, words: &[&str]) {
        let found = violations(graph);
        assert_eq!(found.len(), 1, "{found:#?}");
        for word in words {
            assert!(found[0].contains(word), "{:?} lacks {word:?}", found[0]);
        }
    }

    #[test]
    fn the_intended_shape_breaks_no_rule() {
        let graph = with_dev(
            &[
                ("stele-model", "serde"),
                ("stele-codec", "bincode"),
                ("stele-codec", "stele-model"),
                ("stele-consensus", "raft"),
                ("stele-store", "stele-consensus"),
                ("stele-store", "raft"),
                ("stele-store", "rocksdb"),
                ("stele-runtime", "stele-reconcile"),
                ("stele-runtime", "bollard"),
                ("stele-controller", "stele-store"),
                ("stele-cli", "stele-controller"),
                ("stele-cli", "stele-agent"),
                ("stele-agent", "stele-runtime"),
                ("bollard", "tokio"),
                ("rocksdb", "librocksdb-sys"),
                ("stele-testkit", "async-nats"),
            ],
            &[("stele-model", "stele-testkit"), ("stele-reconcile", "stele-runtime")],
        );
        assert_eq!(violations(&graph), Vec::<String>::new());
    }

    #[test]
    fn a_pure_crate_may_not_depend_on_an_adapter() {
        assert_one(
            &graph(&[("stele-model", "stele-store")]),
            &["stele-model", "stele-store", "pure crates depend on pure crates alone"],
        );
    }

    #[test]
    fn a_pure_crate_may_not_name_what_is_not_listed() {
        assert_one(&graph(&[("stele-planner", "rand")]), &["stele-planner", "rand", "PURE_MAY_USE"]);
    }

    #[test]
    fn a_pure_crate_may_not_reach_io_through_others() {
        assert_one(
            &graph(&[("stele-model", "serde"), ("serde", "surprise"), ("surprise", "tokio")]),
            &["stele-model -> serde -> surprise -> tokio", "no I/O"],
        );
    }

    #[test]
    fn what_only_runs_while_building_is_not_reached() {
        let mut graph = graph(&[("stele-consensus", "raft")]);
        graph.edges.insert("raft".to_owned(), vec![("tempfile".to_owned(), Kind::Build)]);
        assert_eq!(violations(&graph), Vec::<String>::new());
    }

    #[test]
    fn adapters_may_not_depend_on_one_another() {
        assert_one(
            &graph(&[("stele-bus", "stele-peer")]),
            &["stele-bus", "stele-peer", "adapters never depend on one another"],
        );
    }

    #[test]
    fn adapters_may_not_depend_on_shells() {
        assert_one(
            &graph(&[("stele-bus", "stele-api")]),
            &["stele-bus", "stele-api", "adapters depend on pure crates alone"],
        );
    }

    #[test]
    fn only_three_crates_name_raft_even_in_tests() {
        assert_one(
            &graph(&[("stele-controller", "raft")]),
            &["stele-controller", "raft", "only stele-consensus, stele-store, stele-peer"],
        );
        assert_one(&with_dev(&[], &[("stele-controller", "raft")]), &["stele-controller", "raft"]);
    }

    #[test]
    fn only_the_codec_names_bincode() {
        assert_one(&graph(&[("stele-ledger", "bincode")]), &["stele-ledger", "bincode", "stele-codec"]);
    }

    #[test]
    fn the_agent_may_not_link_rocksdb_however_far_away() {
        let found = violations(&graph(&[
            ("stele-agent", "stele-runtime"),
            ("stele-runtime", "helper"),
            ("helper", "rocksdb"),
        ]));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("stele-agent -> stele-runtime -> helper -> rocksdb"), "{found:?}");
        assert!(found[0].contains("slim"), "{found:?}");
    }

    #[test]
    fn what_is_shipped_may_not_depend_on_a_dev_crate() {
        assert_one(&graph(&[("stele-cli", "stele-testkit")]), &["stele-cli", "stele-testkit", "dev crate"]);
    }

    #[test]
    fn a_crate_without_a_layer_is_noticed() {
        assert_one(&graph(&[("stele-novelty", "serde")]), &["stele-novelty", "has no layer"]);
    }
}
