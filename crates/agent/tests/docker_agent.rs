//! The agent as a program, on the real Docker: killed, started again, and worked against by hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Child, Command, Stdio};

use stele_agent::identity::Engine;
use stele_model::release::Image;
use stele_model::wire::{AssignedInstance, ImagePolicy};
use support::{Controller, Fleet, Nats, Node, container, eventually, instance};

/// Most memory an idle agent may have of its own, in KiB.
const OWN_MEMORY_KIB_MAX: u64 = 15 * 1024;

/// The program; it ends with this value, and its containers with the fleet's.
struct Program(Child);

impl Program {
    fn start(node: &Node) -> Self {
        Self::start_with(node, &[])
    }

    fn start_with(node: &Node, arguments: &[&str]) -> Self {
        // A released program can be tried in place of the one built with these tests.
        let built = env!("CARGO_BIN_EXE_stele-agent").to_owned();
        let mut command = Command::new(std::env::var("STELE_TEST_AGENT").unwrap_or(built));
        command.args(["run", "--data"]).arg(node.path()).args(arguments).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Memory in use, in KiB: all of it, and without the program's own file.
    fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Everything with the fleet's label goes when it is dropped.
struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let filter = format!("label=io.stele.fleet={}", self.0);
        for (list, remove) in
            [(&["ps", "-aq"][..], &["rm", "-f", "-v"][..]), (&["network", "ls", "-q"], &["network", "rm"])]
        {
            let listed = Command::new("docker").args(list).args(["--filter", &filter]).output();
            let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for id in text.unwrap_or_default().split_whitespace() {
                let _ = Command::new("docker").args(remove).arg(id).output();
            }
        }
    }
}

/// The test image, by digest.
fn busybox() -> Image {
    let registry = std::env::var("STELE_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5055".to_owned());
    let url = format!("http://{registry}/v2/stele/busybox/manifests/v1");
    let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                  application/vnd.docker.distribution.manifest.v2+json";
    let response = ureq::get(&url)
        .header("Accept", accept)
        .call()
        .unwrap_or_else(|error| panic!("{url}: {error}; run `cargo xtask setup`"));
    let digest = response.headers()["docker-content-digest"].to_str().unwrap();
    Image { repository: format!("{registry}/stele/busybox"), digest: digest.parse().unwrap() }
}

fn sleeper() -> AssignedInstance {
    let mut container = container(busybox());
    container.command =
        ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"].map(str::to_owned).into();
    instance(0, container)
}

/// Id and start of the fleet's containers.
fn running(fleet: &str) -> Vec<String> {
    let ids = docker(&["ps", "-q", "--no-trunc", "--filter", &format!("label=io.stele.fleet={fleet}")]);
    ids.split_whitespace().map(|id| docker(&["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", id])).collect()
}

#[tokio::test]
async fn an_idle_agent_is_small() {
    let fleet = Fleet::new(&format!("test-agent-small-{}", std::process::id()));
    let _cleanup = Cleanup(fleet.name.clone());
    let nats = Nats::start().await;
    let engine = Engine::Docker { host: None, publish_address: "127.0.0.1".to_owned() };
    let node = Node::enroll(&nats, &fleet, engine);
    let controller = Controller::start(&nats, &fleet, node.keys.public()).await;
    controller.heard.lock().unwrap().sync_answer = Some(fleet.signed(1, vec![sleeper()]));
    let agent = Program::start(&node);
    controller.hears_healthy(1, &[0]).await;
    controller.hears("heartbeats", |heard| heard.heartbeats.len() >= 3).await;
    let (all, own) = agent.memory_kib();
    println!("VmRSS {all} KiB, RssAnon {own} KiB");
    // The file of a debug build is several times that of a release.
    assert!(own < OWN_MEMORY_KIB_MAX, "{own} KiB");
}

#[tokio::test]
async fn a_killed_agent_adopts_its_container_and_a_removed_container_comes_back() {
    let fleet = Fleet::new(&format!("test-agent-{}", std::process::id()));
    let _cleanup = Cleanup(fleet.name.clone());
    let nats = Nats::start().await;
    let engine = Engine::Docker { host: None, publish_address: "127.0.0.1".to_owned() };
    let node = Node::enroll(&nats, &fleet, engine);
    let controller = Controller::start(&nats, &fleet, node.keys.public()).await;
    controller.heard.lock().unwrap().sync_answer = Some(fleet.signed(1, vec![sleeper()]));

    let mut agent = Program::start(&node);
    controller.hears_healthy(1, &[0]).await;
    let before = running(&fleet.name);
    assert_eq!(before.len(), 1);
    agent.kill();
    assert_eq!(running(&fleet.name), before, "containers outlive their agent");

    controller.heard.lock().unwrap().reports.clear();
    let mut agent = Program::start(&node);
    let report = controller.hears_healthy(1, &[0]).await;
    assert_eq!(running(&fleet.name), before, "same container, never restarted");
    let id = report.instances[0].container.clone().unwrap().to_string();
    assert!(before[0].starts_with(&id));
    assert_eq!(report.instances[0].restarts, 0);

    docker(&["rm", "-f", &id]);
    eventually("it is made again", async || {
        let now = running(&fleet.name);
        now.len() == 1 && now != before
    })
    .await;

    // It also holds while there is no control plane at all.
    let kept = running(&fleet.name);
    drop(controller);
    drop(nats);
    agent.kill();
    let agent = Program::start(&node);
    docker(&["kill", kept[0].split_whitespace().next().unwrap()]);
    eventually("it is started again without NATS", async || {
        let now = running(&fleet.name);
        now.len() == 1 && now != kept
    })
    .await;
    let page = Command::new(env!("CARGO_BIN_EXE_stele-agent"))
        .args(["status", "--data"])
        .arg(node.path())
        .output()
        .unwrap();
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("agent       running"), "{page}");
    assert!(page.contains("epoch 1, seq 1, 1 instances"), "{page}");
    assert!(page.contains("shop/web@prod/web.0-1"), "{page}");
    drop(agent);
}

/// Puts an image that exists nowhere else into the registry, and leaves none of it on this machine.
fn fresh(fleet: &str, name: &str) -> Image {
    let registry = std::env::var("STELE_TEST_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5055".to_owned());
    let repository = format!("{registry}/stele/fresh");
    let to = format!("{repository}:{fleet}-{name}");
    let container = docker(&["create", &busybox().to_string()]);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("root.tar");
    docker(&["export", "--output", archive.to_str().unwrap(), &container]);
    docker(&["rm", &container]);
    let label = format!("LABEL test={to}");
    let command = "CMD [\"/bin/sh\", \"-c\", \"trap 'exit 0' TERM; sleep 100000 & wait\"]";
    docker(&["import", "--change", &label, "--change", command, archive.to_str().unwrap(), &to]);
    let pushed = docker(&["push", &to]);
    docker(&["rmi", &to]);
    let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    Image { repository, digest: digest.parse().unwrap() }
}

fn is_here(image: &Image) -> bool {
    let inspect = Command::new("docker").args(["image", "inspect", &image.to_string()]).output();
    inspect.unwrap().status.success()
}

#[tokio::test]
async fn images_that_nothing_needs_are_removed_from_docker_and_no_others() {
    let fleet = Fleet::new(&format!("test-agent-images-{}", std::process::id()));
    let images = ["kept", "dropped", "later", "runs"].map(|name| fresh(&fleet.name, name));
    let [kept, dropped, later, runs] = &images;
    let cleanup = Cleanup(fleet.name.clone());
    let nats = Nats::start().await;
    let engine = Engine::Docker { host: None, publish_address: "127.0.0.1".to_owned() };
    let node = Node::enroll(&nats, &fleet, engine);
    let controller = Controller::start(&nats, &fleet, node.keys.public()).await;
    let signed = |seq: u64, image: &Image, keep: &[&Image]| {
        let index = u32::try_from(seq).unwrap();
        let mut assignment = fleet.assignment(seq, vec![instance(index, container(image.clone()))]);
        let keep = Some(keep.iter().map(|image| (*image).clone()).collect());
        assignment.images = Some(ImagePolicy { seq, keep, mirror: None });
        fleet.sign(&assignment)
    };
    let begin = signed(1, kept, &images.each_ref());
    controller.heard.lock().unwrap().sync_answer = Some(begin);
    let agent = Program::start_with(&node, &["--prune-images", "2s"]);
    controller.hears_healthy(1, &[1]).await;
    controller.publish(&signed(2, dropped, &images.each_ref())).await;
    controller.hears_healthy(2, &[2]).await;
    controller.publish(&signed(3, later, &images.each_ref())).await;
    controller.hears_healthy(3, &[3]).await;
    controller.publish(&signed(4, runs, &[kept, later])).await;
    controller.hears_healthy(4, &[4]).await;
    eventually("what nothing needs is gone", async || !is_here(dropped)).await;
    controller.publish(&signed(5, runs, &[kept])).await;
    controller.hears_healthy(5, &[5]).await;
    // Once this one's own grace is over, that of all others is long over.
    eventually("what nothing needs any more is gone, too", async || !is_here(later)).await;
    assert!(is_here(kept) && is_here(runs), "long after the grace");
    assert!(is_here(&busybox()), "nor did it remove what it did not pull");
    drop(agent);
    drop(cleanup);
    for image in [kept, runs] {
        docker(&["rmi", &image.to_string()]);
    }
}
