//! The subjects Stele uses, as text. All of them begin with `stele.<fleet>.`.

use stele_model::ids::{FleetName, NodeName, RegionName};

/// Second level of the public feed's subjects, so no region may be called so.
pub const EVENTS: &str = "events";

/// Whether the name would make a region's subjects part of the public feed.
pub fn is_reserved_region(region: &RegionName) -> bool {
    region.as_str() == EVENTS
}

/// What is told to or by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeTopic {
    /// Controllers to the node: its whole desired state.
    Assignment,
    /// The node to controllers: everything on it, acknowledged once committed.
    Report,
    /// The node to controllers: it is alive.
    Heartbeat,
    /// Controllers to the node: a question.
    Ask,
}

impl NodeTopic {
    const fn word(self) -> &'static str {
        match self {
            Self::Assignment => "assignment",
            Self::Report => "report",
            Self::Heartbeat => "heartbeat",
            Self::Ask => "ask",
        }
    }
}

/// `stele.<fleet>.<region>.node.<node>.<topic>`.
pub fn node(fleet: &FleetName, region: &RegionName, node: &NodeName, topic: NodeTopic) -> String {
    format!("stele.{fleet}.{region}.node.{node}.{}", topic.word())
}

/// A topic of every node of the fleet.
pub fn every_node(fleet: &FleetName, topic: NodeTopic) -> String {
    format!("stele.{fleet}.*.node.*.{}", topic.word())
}

/// `stele.<fleet>.<region>.sync`: where nodes of a region ask for their assignment.
pub fn sync(fleet: &FleetName, region: &RegionName) -> String {
    format!("stele.{fleet}.{region}.sync")
}

/// The sync subjects of all regions.
pub fn every_sync(fleet: &FleetName) -> String {
    format!("stele.{fleet}.*.sync")
}

/// `stele.<fleet>.removed`: every node is told here which controllers were removed.
pub fn removed(fleet: &FleetName) -> String {
    format!("stele.{fleet}.removed")
}

/// `stele.<fleet>.events.<kind>`: one kind of event on the public feed.
pub fn event(fleet: &FleetName, kind: &str) -> String {
    format!("stele.{fleet}.{EVENTS}.{kind}")
}

/// Every event on the public feed.
pub fn every_event(fleet: &FleetName) -> String {
    format!("stele.{fleet}.{EVENTS}.*")
}

/// Name of the JetStream stream that holds the public feed.
pub fn feed_stream(fleet: &FleetName) -> String {
    format!("STELE_{fleet}_EVENTS")
}

/// Controllers share messages for one of them under this queue group.
pub fn controllers_group(fleet: &FleetName) -> String {
    format!("stele-{fleet}-controllers")
}

/// Region and node of a [`node`] subject of this fleet and topic.
pub fn parse_node(fleet: &FleetName, topic: NodeTopic, subject: &str) -> Option<(RegionName, NodeName)> {
    let rest = subject.strip_prefix("stele.")?.strip_prefix(fleet.as_str())?.strip_prefix('.')?;
    let mut words = rest.split('.');
    let (region, word, node) = (words.next()?, words.next()?, words.next()?);
    if word != "node" || words.next()? != topic.word() || words.next().is_some() {
        return None;
    }
    Some((region.parse().ok()?, node.parse().ok()?))
}

/// Region of a [`sync`] subject of this fleet.
pub fn parse_sync(fleet: &FleetName, subject: &str) -> Option<RegionName> {
    let rest = subject.strip_prefix("stele.")?.strip_prefix(fleet.as_str())?.strip_prefix('.')?;
    rest.strip_suffix(".sync")?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subjects_are_spelt_as_documented_and_read_back() {
        let fleet: FleetName = "acme".parse().unwrap();
        let region: RegionName = "eu".parse().unwrap();
        let name: NodeName = "eu-1".parse().unwrap();
        for (topic, text) in [
            (NodeTopic::Assignment, "stele.acme.eu.node.eu-1.assignment"),
            (NodeTopic::Report, "stele.acme.eu.node.eu-1.report"),
            (NodeTopic::Heartbeat, "stele.acme.eu.node.eu-1.heartbeat"),
            (NodeTopic::Ask, "stele.acme.eu.node.eu-1.ask"),
        ] {
            assert_eq!(node(&fleet, &region, &name, topic), text);
            assert_eq!(parse_node(&fleet, topic, text), Some((region.clone(), name.clone())));
        }
        assert_eq!(sync(&fleet, &region), "stele.acme.eu.sync");
        assert_eq!(parse_sync(&fleet, "stele.acme.eu.sync"), Some(region));
        assert_eq!(removed(&fleet), "stele.acme.removed");
        assert_eq!(event(&fleet, "node_enrolled"), "stele.acme.events.node_enrolled");
        assert_eq!(feed_stream(&fleet), "STELE_acme_EVENTS");
    }

    #[test]
    fn foreign_subjects_are_not_read() {
        let fleet: FleetName = "acme".parse().unwrap();
        for bad in [
            "stele.acme2.eu.node.eu-1.report",
            "stele.acme.eu.node.eu-1.heartbeat",
            "stele.acme.eu.node.eu-1.report.more",
            "stele.acme.eu.host.eu-1.report",
            "stele.acme.EU.node.eu-1.report",
            "stele.acme",
            "",
        ] {
            assert_eq!(parse_node(&fleet, NodeTopic::Report, bad), None, "{bad}");
        }
        assert_eq!(parse_sync(&fleet, "stele.acme.eu.node.sync"), None);
    }

    #[test]
    fn a_region_cannot_hide_in_the_feed() {
        assert!(is_reserved_region(&"events".parse().unwrap()));
        assert!(!is_reserved_region(&"eu".parse().unwrap()));
    }
}
