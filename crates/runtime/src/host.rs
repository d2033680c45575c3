//! What makes one node's containers its own on an engine it may share: names and labels.

use std::collections::BTreeMap;

use stele_model::signature::PublicKey;
use stele_model::wire::AssignedInstance;
use stele_model::{AppEnv, Digest, FleetName, InstanceId, NodeName};
use stele_reconcile::HostPolicy;

/// Label with the fleet's name.
pub const LABEL_FLEET: &str = "io.stele.fleet";
/// The first digits of its fleet's root key: two fleets of one name may share an engine.
pub const LABEL_ROOT: &str = "io.stele.root";
/// Label with the node's name.
pub const LABEL_NODE: &str = "io.stele.node";
/// Label with the instance's id.
pub const LABEL_INSTANCE: &str = "io.stele.instance";
/// Label with the slot the instance fills.
pub const LABEL_SLOT: &str = "io.stele.slot";
/// Label with the digest of the spec, as assigned.
pub const LABEL_SPEC: &str = "io.stele.spec";
/// Label with the app and environment of a network or volume.
pub const LABEL_APP_ENV: &str = "io.stele.app-env";
/// Label with what can be changed by hand later, as it was when the container was made.
pub const LABEL_CONFIG: &str = "io.stele.config";

/// Hex digits of the digest that ends every name.
const NAME_DIGITS: usize = 8;
/// Hex digits of the root key in a label.
const ROOT_DIGITS: usize = 16;

/// The node an agent acts for, and what its host allows.
#[derive(Clone, Debug)]
pub struct Host {
    /// The fleet.
    pub fleet: FleetName,
    /// The fleet's root key, which tells it from another of the same name.
    pub root: PublicKey,
    /// The node.
    pub node: NodeName,
    /// The host's address that ports are published on, such as `0.0.0.0` or `127.0.0.1`.
    pub publish_address: String,
    /// The host's own limits.
    pub policy: HostPolicy,
}

impl Host {
    /// The name of an instance's container: an engine has at most one of it.
    pub fn container_name(&self, id: &InstanceId) -> String {
        let slot = &id.slot;
        let readable =
            format!("{}-{}-{}-{}", self.app_part(&slot.app_env), slot.service, slot.index, id.serial);
        self.unambiguous(&readable, &id.to_string())
    }

    /// The name of an app's network.
    pub fn network_name(&self, app_env: &AppEnv) -> String {
        self.unambiguous(&self.app_part(app_env), &app_env.to_string())
    }

    /// The engine's name of an app's named volume.
    pub fn volume_name(&self, app_env: &AppEnv, volume: &str) -> String {
        self.unambiguous(&format!("{}-{volume}", self.app_part(app_env)), &format!("{app_env}:{volume}"))
    }

    fn app_part(&self, app_env: &AppEnv) -> String {
        format!("stele-{}-{}-{}-{}", self.node, app_env.app.project, app_env.app.app, app_env.environment)
    }

    /// Names are made of parts that may contain the hyphens that join them, and fleets may
    /// share an engine; without a digest `a-b/c` and `a/b-c` would share a network and volumes.
    fn unambiguous(&self, readable: &str, exact: &str) -> String {
        let digest = Digest::of_json(&[self.fleet.as_str(), &self.root.0, self.node.as_str(), exact]);
        format!("{readable}-{}", &digest.hex()[..NAME_DIGITS])
    }

    /// The labels of everything this node has.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let root = self.root.0.chars().take(ROOT_DIGITS).collect();
        [(LABEL_FLEET, self.fleet.to_string()), (LABEL_ROOT, root), (LABEL_NODE, self.node.to_string())]
            .map(|(label, text)| (label.to_owned(), text))
            .into()
    }

    /// The labels of something that belongs to an app.
    pub fn app_labels(&self, app_env: &AppEnv) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(LABEL_APP_ENV.to_owned(), app_env.to_string());
        labels
    }

    /// The labels an instance's container is found by.
    pub fn instance_labels(&self, instance: &AssignedInstance) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(LABEL_INSTANCE.to_owned(), instance.id.to_string());
        labels.insert(LABEL_SLOT.to_owned(), instance.id.slot.to_string());
        labels.insert(LABEL_SPEC.to_owned(), instance.spec_digest.to_string());
        labels
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn host(fleet: &str, node: &str) -> Host {
        Host {
            fleet: fleet.parse().unwrap(),
            root: PublicKey("ab".repeat(32)),
            node: node.parse().unwrap(),
            publish_address: "127.0.0.1".to_owned(),
            policy: HostPolicy::default(),
        }
    }

    #[test]
    fn names_are_readable_and_never_those_of_another() {
        let here = host("acme", "eu-1");
        let id: InstanceId = "shop/web@prod/web.0-142".parse().unwrap();
        assert!(here.container_name(&id).starts_with("stele-eu-1-shop-web-prod-web-0-142-"));
        assert_ne!(here.container_name(&id), host("other", "eu-1").container_name(&id));
        let namesake = Host { root: PublicKey("cd".repeat(32)), ..host("acme", "eu-1") };
        assert_ne!(here.container_name(&id), namesake.container_name(&id));
        assert_ne!(here.labels(), namesake.labels(), "each finds only its own");

        let names: Vec<_> = ["a-b/c@prod", "a/b-c@prod", "a/b@c-prod"]
            .map(|app_env| here.network_name(&app_env.parse().unwrap()))
            .into();
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{names:?}");
    }
}
