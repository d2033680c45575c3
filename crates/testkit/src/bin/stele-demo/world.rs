//! The demo's fleet, and what can be seen of it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use stele_api::wire::ShowAnswer;
use stele_model::event::TargetDigest;
use stele_testkit::{Cluster, ClusterConfig, NodeConfig, Runtime, facts, registry};

use crate::limits::PAGE_TIMEOUT;
use crate::stage::{Done, Stage};

/// The app under way.
pub(crate) const APP: &str = "shop/web@prod";
/// The registry the specs name.
const SPEC_REGISTRY: &str = "127.0.0.1:5055";
/// Files whose bytes must be the same again.
const FILES: [&str; 2] = ["/etc/shop/shop.conf", "/srv/cgi-bin/hello"];
/// Nodes with the addresses their ports are published on.
const NODES: [(&str, &str, &str); 6] = [
    ("eu-1", "eu", "127.0.0.11"),
    ("eu-2", "eu", "127.0.0.12"),
    ("us-1", "us", "127.0.0.13"),
    ("us-2", "us", "127.0.0.14"),
    ("ap-1", "ap", "127.0.0.15"),
    ("ap-2", "ap", "127.0.0.16"),
];

/// The port the specs publish on each node.
pub(crate) const PORT: u16 = 18480;

pub(crate) type Containers = BTreeMap<String, facts::Container>;

pub(crate) fn config(fleet: String) -> ClusterConfig {
    let nodes = NODES.into_iter().map(|(name, region, address)| NodeConfig {
        name: name.to_owned(),
        region: region.to_owned(),
        address: address.to_owned(),
    });
    ClusterConfig { fleet, controllers: 3, nodes: nodes.collect(), runtime: Runtime::Docker }
}

/// The fleet and the folder of its specs.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) specs: PathBuf,
}

impl World {
    /// A `stele` command, with the words as the reader would type them.
    pub(crate) fn stele(&self, arguments: &[&str]) -> (String, Command) {
        let words = arguments
            .iter()
            .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() });
        let line = std::iter::once("stele".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
        (line, self.cluster.cli(arguments))
    }

    /// Runs a `stele` command that must succeed.
    pub(crate) fn run(&self, stage: &mut Stage, arguments: &[&str]) -> anyhow::Result<Done> {
        let (line, command) = self.stele(arguments);
        let done = stage.run(&line, command)?;
        anyhow::ensure!(done.status.success(), "`{line}` failed ({}); its words are above", done.status);
        Ok(done)
    }

    /// Path of a version's spec. Where another registry is used than the specs name, of a copy.
    pub(crate) fn spec(&self, version: &str) -> anyhow::Result<String> {
        let path = self.specs.join(format!("shop-web.{version}.yaml"));
        if registry() == SPEC_REGISTRY {
            return Ok(path.display().to_string());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let copy = self.cluster.dir().join(format!("shop-web.{version}.yaml"));
        fs::write(&copy, text.replace(SPEC_REGISTRY, &registry()))?;
        Ok(copy.display().to_string())
    }

    /// What Docker says of the fleet's containers.
    pub(crate) fn containers(&self) -> anyhow::Result<Containers> {
        facts::of_fleet(self.cluster.fleet(), &FILES)
    }

    /// Digest of what the app should be.
    pub(crate) fn digest(&self) -> anyhow::Result<TargetDigest> {
        let printed = self.cluster.run_cli(&["show", APP, "--output", "json"])?;
        let show: ShowAnswer = serde_json::from_str(&printed).context("stele show prints another form")?;
        Ok(show.digest)
    }
}

/// Fetches the app's page on every node with a web server; shows one of them.
pub(crate) fn pages(stage: &mut Stage, containers: &Containers, wanted: &str) -> anyhow::Result<()> {
    let with_web = |place: &&String| place.contains("/web.");
    let nodes: Vec<_> =
        containers.keys().filter(with_web).filter_map(|place| place.split(' ').next()).collect();
    let mut pages = Vec::new();
    for node in &nodes {
        pages.push(page(&url(node)?)?);
    }
    let first = nodes.first().context("no node has a web server")?;
    stage.typed(&format!("curl {}", url(first)?));
    stage.output(&pages[0]);
    let what = format!("all {} web servers say so: {}", nodes.len(), nodes.join(", "));
    stage.check(pages.iter().all(|page| page.trim() == wanted), &what, format!("{pages:?}, not {wanted:?}"))
}

fn url(node: &str) -> anyhow::Result<String> {
    let of_it = |it: &&(&str, &str, &str)| it.0 == node;
    let (_, _, address) = NODES.iter().find(of_it).with_context(|| format!("the demo has no node {node}"))?;
    Ok(format!("http://{address}:{PORT}/cgi-bin/hello"))
}

fn page(url: &str) -> anyhow::Result<String> {
    let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PAGE_TIMEOUT));
    let answer = config.build().new_agent().get(url).call();
    answer.and_then(|mut answer| answer.body_mut().read_to_string()).with_context(|| format!("GET {url}"))
}

/// Addresses the specs' ports are published on.
pub(crate) fn addresses() -> anyhow::Result<Vec<std::net::IpAddr>> {
    NODES.iter().map(|(_, _, address)| Ok(address.parse()?)).collect()
}

/// How many containers run of a service.
pub(crate) fn count(containers: &Containers, service: &str) -> usize {
    containers.keys().filter(|place| place.contains(&format!("/{service}."))).count()
}

/// Regions in which a service runs.
pub(crate) fn regions(containers: &Containers, service: &str) -> usize {
    let places = containers.keys().filter(|place| place.contains(&format!("/{service}.")));
    let regions: std::collections::BTreeSet<_> = places.filter_map(|place| place.split('-').next()).collect();
    regions.len()
}

/// Ids and starts: equal ones mean that nothing was stopped in between.
pub(crate) fn lives(containers: &Containers) -> Vec<(&str, &str, &str)> {
    containers.iter().map(|(place, it)| (place.as_str(), it.id.as_str(), it.started.as_str())).collect()
}

/// The folder of specs must be there before anything is started.
pub(crate) fn check_specs(specs: &Path) -> anyhow::Result<()> {
    let first = specs.join("shop-web.v1.yaml");
    anyhow::ensure!(
        first.exists(),
        "{} is not there; run the demo at the top of the checkout, or say --specs DIR",
        first.display()
    );
    Ok(())
}
