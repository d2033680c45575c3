//! What a proof says: which nodes match, which do not and why, and the digests two people compare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConvergenceProof, NodeEvidence};
use crate::digest::Digest;
use crate::ids::{AppEnv, FleetName, NodeName, RegionName, Seq, Time};
use crate::limits::{INSPECTION_AGE_US_MAX, STATEMENT_AGE_US_MAX};
use crate::scope::Scope;
use crate::trie::Trie;
use crate::wire::Heartbeat;

/// A proof in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The fleet.
    pub fleet: FleetName,
    /// Which of its nodes.
    pub scope: Scope,
    /// The record State is as of.
    pub seq: Seq,
    /// Its time.
    pub time: Time,
    /// Digest of all of State there.
    pub state_digest: Digest,
    /// When the proof was made, by the controller's clock.
    pub made: Time,
    /// Whether every node matches. Of no nodes at all, nothing is proved.
    pub matches: bool,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them match.
    pub matching: usize,
    /// How many instances they were told to run.
    pub instances: u64,
    /// The oldest statement that counts, by its node's clock.
    pub oldest: Option<Time>,
    /// Folded over the regions: equal to `observed` exactly when every node matches.
    pub expected: Digest,
    /// Folded over the regions, from what nodes stated.
    pub observed: Digest,
    /// By region, in order of their names.
    pub regions: Vec<RegionSummary>,
    /// Nodes that do not match, in order of their names.
    pub differing: Vec<NodeSummary>,
    /// Apps whose nodes have not been told everything yet.
    pub moving: Vec<AppEnv>,
}

/// A region in a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionSummary {
    /// Its name.
    pub region: RegionName,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many of them match.
    pub matching: usize,
    /// Folded over its nodes: what they should be.
    pub expected: Digest,
    /// Folded over its nodes: what they say they are.
    pub observed: Digest,
}

/// A node that does not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Why, for people.
    pub why: Vec<String>,
}

/// What one node's evidence comes to.
struct Judged {
    /// What its statement says it is; nothing when there is none that counts.
    observed: Option<Digest>,
    stated: Option<Time>,
    /// Empty when it matches.
    why: Vec<String>,
}

/// Digest of one node's place in the fold: the version it works on, and what is there.
fn leaf(node: &NodeEvidence, version: &crate::wire::AssignmentVersion, content: &Digest) -> Digest {
    Digest::of_json(&(&node.name, version, content))
}

/// Judges every node and folds them. Signatures are none of its business: see [`super::open`].
pub fn summarise(proof: &ConvergenceProof) -> Summary {
    #[derive(Default)]
    struct Region {
        nodes: usize,
        matching: usize,
        expected: Vec<(String, Digest)>,
        observed: Vec<(String, Digest)>,
    }
    let mut regions: BTreeMap<&RegionName, Region> = BTreeMap::new();
    let mut differing = Vec::new();
    let mut oldest: Option<Time> = None;
    for node in &proof.nodes {
        let judged = judge(proof, node);
        let region = regions.entry(&node.region).or_default();
        region.nodes += 1;
        region.expected.push((node.name.to_string(), leaf(node, &node.assigned, &node.expected)));
        region.observed.extend(judged.observed.map(|leaf| (node.name.to_string(), leaf)));
        if judged.why.is_empty() {
            region.matching += 1;
            oldest = [oldest, judged.stated].into_iter().flatten().min();
        } else {
            differing.push(NodeSummary {
                name: node.name.clone(),
                region: node.region.clone(),
                why: judged.why,
            });
        }
    }
    let fold =
        |rows: &[(String, Digest)]| Trie::digest_of(rows.iter().map(|(name, leaf)| Trie::named(name, *leaf)));
    let regions: Vec<_> = regions
        .into_iter()
        .map(|(name, region)| RegionSummary {
            region: name.clone(),
            nodes: region.nodes,
            matching: region.matching,
            expected: fold(&region.expected),
            observed: fold(&region.observed),
        })
        .collect();
    let over = |digest: fn(&RegionSummary) -> Digest| {
        Trie::digest_of(regions.iter().map(|region| Trie::named(region.region.as_str(), digest(region))))
    };
    let matching = proof.nodes.len() - differing.len();
    Summary {
        fleet: proof.fleet.clone(),
        scope: proof.scope.clone(),
        seq: proof.seq,
        time: proof.time,
        state_digest: proof.state_digest,
        made: proof.made,
        matches: differing.is_empty() && !proof.nodes.is_empty(),
        nodes: proof.nodes.len(),
        matching,
        instances: proof.nodes.iter().map(|node| u64::from(node.instances)).sum(),
        oldest,
        expected: over(|region| region.expected),
        observed: over(|region| region.observed),
        regions,
        differing,
        moving: proof.moving.clone(),
    }
}

fn judge(proof: &ConvergenceProof, node: &NodeEvidence) -> Judged {
    let silent = |why: String| Judged { observed: None, stated: None, why: vec![why] };
    let Some(signed) = &node.statement else {
        return silent(if node.lost {
            "not heard of for longer than its grace period".to_owned()
        } else {
            "not heard of by this controller since it started".to_owned()
        });
    };
    let said = match signed.peek::<Heartbeat>() {
        Ok(said) => said,
        Err(error) => return silent(format!("its statement cannot be read: {error}")),
    };
    let Some(stated) = said.time else {
        return silent("its clock was never set, so nobody can tell how old its statement is".to_owned());
    };
    let age = proof.made.0.saturating_sub(stated.0);
    let ahead = stated.0.saturating_sub(proof.made.0);
    if age > STATEMENT_AGE_US_MAX {
        let heard = node.heard.map_or(0, |heard| proof.made.0.saturating_sub(heard.0));
        return silent(if heard > STATEMENT_AGE_US_MAX || node.lost {
            format!("not heard of for {} s", heard.max(age) / 1_000_000)
        } else {
            format!("its clock is {} s behind the controller's", age / 1_000_000)
        });
    }
    if ahead > STATEMENT_AGE_US_MAX {
        return silent(format!("its clock is {} s ahead of the controller's", ahead / 1_000_000));
    }
    let Some(observed) = &said.observed else {
        return Judged {
            observed: None,
            stated: Some(stated),
            why: vec!["it cannot look at its container engine".to_owned()],
        };
    };
    if let Some(inspected) = observed.inspected
        && stated.0.saturating_sub(inspected.0) > INSPECTION_AGE_US_MAX
    {
        let age = stated.0.saturating_sub(inspected.0) / 1_000_000;
        return silent(format!("a container of it was last inspected {age} s before it said so"));
    }
    let mut why = Vec::new();
    if said.applied != node.assigned {
        let (works_on, should) = (said.applied, node.assigned);
        why.push(if works_on.is_nothing() {
            "it was not told yet what to run".to_owned()
        } else if works_on.epoch != should.epoch {
            format!(
                "it works on an assignment of epoch {}, the fleet is in epoch {}",
                works_on.epoch, should.epoch
            )
        } else if works_on.seq == should.seq {
            format!("it has another assignment of seq {} than State", should.seq)
        } else {
            format!("it works on the assignment of seq {}, State's is of seq {}", works_on.seq, should.seq)
        });
    }
    if observed.digest != node.expected {
        why.extend(observed.differs.iter().map(|one| format!("{}: {}", one.instance, one.why)));
        if observed.more > 0 {
            why.push(format!("{} more instances are not as they should be", observed.more));
        }
        if why.is_empty() {
            why.push("what it observes is not what it was told to run".to_owned());
        }
    }
    let observed = leaf(node, &said.applied, &observed.digest);
    Judged { observed: Some(observed), stated: Some(stated), why }
}
