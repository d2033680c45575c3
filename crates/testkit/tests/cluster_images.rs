//! A fleet with a mirror on the real Docker: what is deployed is copied, and when its registry is
//! gone and the host has pruned its images, a rollback still finds them.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use stele_model::wire::{Assignment, Signed};
use stele_testkit::docker::{containers, docker};
use stele_testkit::limits::DEADLINE;
use stele_testkit::{Cluster, ClusterConfig, NodeConfig, Runtime, eventually, ports, registry};

const USER: &str = "deployer";
const PASSWORD: &str = "s3cret-pw";
/// bcrypt of it.
const PASSWORD_HASH: &str = "$2y$05$abcdefghijklmnopqrstuuzSvhclVSvY9ufOheOOhcPviTPFJlqIC";

/// A registry of its own.
struct Server {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Self {
        Self::serve(tempfile::tempdir().unwrap(), ports::free().unwrap(), false)
    }

    /// Ends it; what it was, to be served again.
    fn gone(mut self) -> (tempfile::TempDir, SocketAddr) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        (std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()), self.address)
    }

    /// The same registry, for those alone who know its password.
    fn locked(self) -> Self {
        let (folder, address) = self.gone();
        Self::serve(folder, address, true)
    }

    fn serve(folder: tempfile::TempDir, address: SocketAddr, locked: bool) -> Self {
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": address.to_string()},
        });
        if locked {
            let users = folder.path().join("htpasswd");
            std::fs::write(&users, format!("{USER}:{PASSWORD_HASH}\n")).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": users}});
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("this test needs docker-registry");
        eventually(DEADLINE, "a registry answers", || TcpStream::connect(address).ok()).unwrap();
        Self { process, address, folder }
    }

    /// Whether a repository of it has a manifest.
    fn has(&self, repository: &str, digest: &str) -> bool {
        let of = format!("data/docker/registry/v2/repositories/{repository}/_manifests/revisions");
        let path: PathBuf = self.folder.path().join(of).join(digest.replace(':', "/")).join("link");
        path.exists()
    }
}

/// Puts an image that exists nowhere else into a registry, and leaves none of it on this machine;
/// its digest.
fn publish(origin: &Server, name: &str, version: &str) -> String {
    let from = format!("{}/stele/busybox:v1", registry());
    let to = format!("{}/shop/web:{version}", origin.address);
    let container = docker(&["create", &from]).unwrap();
    let archive = origin.folder.path().join("root.tar");
    docker(&["export", "--output", archive.to_str().unwrap(), &container]).unwrap();
    docker(&["rm", &container]).unwrap();
    let label = format!("LABEL test={name}-{version}");
    let command = "CMD [\"/bin/sh\", \"-c\", \"trap 'exit 0' TERM; sleep 100000 & wait\"]";
    docker(&["import", "--change", &label, "--change", command, archive.to_str().unwrap(), &to]).unwrap();
    let pushed = docker(&["push", &to]).unwrap();
    docker(&["rmi", &to]).unwrap();
    let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    digest.to_owned()
}

fn cluster(configure: impl FnOnce(&mut Value)) -> Cluster {
    let config = ClusterConfig {
        controllers: 1,
        nodes: Vec::new(),
        runtime: Runtime::Docker,
        ..ClusterConfig::simulated("images")
    };
    let mut cluster = Cluster::found(&config).unwrap();
    let path = cluster.folder(1).unwrap().join("controller.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    configure(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    cluster.start_controller(1).unwrap();
    cluster.leader().unwrap();
    let node =
        NodeConfig { name: "eu-1".to_owned(), region: "eu".to_owned(), address: "127.0.0.61".to_owned() };
    cluster.join_node(&node).unwrap();
    cluster.wait_for_nodes().unwrap();
    cluster
}

fn deploy(cluster: &Cluster, origin: &Server, version: &str) {
    deploy_with(cluster, origin, version, "");
}

fn deploy_with(cluster: &Cluster, origin: &Server, version: &str, more: &str) {
    let image = format!("{}/shop/web:{version}", origin.address);
    let text = format!(
        "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    image: {image}\n    replicas: 1\n    stop: {{grace: 2s}}\n{more}"
    );
    let path = cluster.dir().join("web.yaml");
    std::fs::write(&path, text).unwrap();
    cluster.run_cli(&["apply", "-f", path.to_str().unwrap(), "--wait"]).unwrap();
}

/// What a node was told last.
fn told(cluster: &Cluster, node: &str) -> Option<Assignment> {
    let bytes = std::fs::read(cluster.dir().join(format!("agent-{node}/assignment.json"))).ok()?;
    serde_json::from_slice::<Signed>(&bytes).ok()?.peek().ok()
}

/// Images of these registries, which are gone with it; after the containers, so it is made first.
struct Images([SocketAddr; 2]);

impl Drop for Images {
    fn drop(&mut self) {
        let format = "{{.Repository}}@{{.Digest}}";
        let listed = docker(&["images", "--digests", "--format", format]).unwrap_or_default();
        let of = |name: &&str| self.0.iter().any(|address| name.starts_with(&format!("{address}/")));
        for name in listed.lines().filter(of) {
            let _ = docker(&["rmi", name]);
        }
    }
}

#[test]
fn a_rollback_finds_its_image_in_the_mirror_when_its_registry_is_gone() {
    let (origin, mirror) = (Server::start(), Server::start());
    let _images = Images([origin.address, mirror.address]);
    let copies = format!("{}/copies", mirror.address);
    let cluster = cluster(|config| config["mirror"] = json!(copies));
    let digests = ["1", "2"].map(|version| publish(&origin, cluster.fleet(), version));
    for version in ["1", "2"] {
        deploy(&cluster, &origin, version);
    }
    let folder = format!("copies/{}/shop/web", origin.address.to_string().replace(':', "_"));
    eventually(DEADLINE, "the mirror has both", || {
        digests.iter().all(|digest| mirror.has(&folder, digest)).then_some(())
    })
    .unwrap();

    let images = told(&cluster, "eu-1").unwrap().images.unwrap();
    assert_eq!(images.mirror, Some(format!("{}/copies", mirror.address)));
    let kept: Vec<String> = images.keep.unwrap().iter().map(|image| image.digest.to_string()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(digests.iter().all(|digest| kept.contains(digest)));

    // Somebody prunes the host's images, and the registry burns down.
    docker(&["rmi", &format!("{}/shop/web@{}", origin.address, digests[0])]).unwrap();
    let address = origin.address;
    drop(origin);
    assert!(TcpStream::connect(address).is_err());

    let check = cluster.run_cli(&["rollback", "shop/web@prod", "--check"]).unwrap();
    assert!(check.contains("could be restored exactly right now"), "{check}");
    cluster.run_cli(&["rollback", "shop/web@prod", "--to", "v1", "--wait"]).unwrap();
    let ids = containers(cluster.fleet()).unwrap();
    assert_eq!(ids.len(), 1);
    let made_of = docker(&["inspect", "--format", "{{.Config.Image}}", &ids[0]]).unwrap();
    assert_eq!(made_of, format!("{}/{folder}@{}", mirror.address, digests[0]), "pulled from the mirror");
    // By inspection it is exactly what it should be.
    let prove = || cluster.output_of(&["status", "--prove"]).ok().filter(|output| output.status.success());
    eventually(DEADLINE, "the node vouches for it", prove).unwrap();

    assert_eq!(cluster.end().0, Vec::<String>::new());
}

#[test]
fn what_a_rollback_needs_is_looked_for_before_anything_is_written() {
    let origin = Server::start();
    let _images = Images([origin.address, origin.address]);
    let cluster = cluster(|_| {});
    let [first, _] = ["1", "2"].map(|version| publish(&origin, cluster.fleet(), version));
    let wanted: SocketAddr = format!("127.0.0.61:{}", ports::free().unwrap().port()).parse().unwrap();
    deploy_with(&cluster, &origin, "1", &format!("    ports: [\"{}:8080\"]\n", wanted.port()));
    deploy(&cluster, &origin, "2");
    let history = || cluster.run_cli(&["history", "shop/web@prod", "--output", "json"]).unwrap();
    let before: Value = serde_json::from_str(&history()).unwrap();
    let newest = before["entries"][0]["deployment"].to_string();
    let refused = |arguments: &[&str], words: &str| {
        let told = cluster.run_cli(arguments).unwrap_err().to_string();
        assert!(told.contains(words), "{arguments:?}: {told}");
    };
    let back = ["rollback", "shop/web@prod", "--to", "v1"];

    // A process of the host has the port meanwhile.
    let holder = std::net::TcpListener::bind(wanted).unwrap();
    let taken = format!("port {} on node eu-1 is taken by a process", wanted.port());
    refused(&back, &taken);
    let check = cluster.run_cli(&["rollback", "shop/web@prod", "--check"]).unwrap();
    assert!(check.contains(&taken), "{check}");
    let plan = cluster.output_of(&[&back[..], &["--plan"]].concat()).unwrap();
    let told = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.status.code() == Some(3) && told.contains(&taken), "{}: {told}", plan.status);
    refused(&["undo", "--deployment", &newest], &taken);
    drop(holder);

    // Then it is the image that nobody has any more.
    docker(&["rmi", &format!("{}/shop/web@{first}", origin.address)]).unwrap();
    let (folder, address) = origin.gone();
    refused(&back, "cannot be had");
    refused(&["undo", "--deployment", &newest], "cannot be had");
    assert_eq!(serde_json::from_str::<Value>(&history()).unwrap(), before, "nothing was deployed");
    let left = cluster.run_cli(&[&back[..], &["--best-effort", "--plan"]].concat()).unwrap();
    assert!(left.contains("cannot be had"), "{left}");

    let _origin = Server::serve(folder, address, false);
    cluster.run_cli(&[&back[..], &["--wait"]].concat()).unwrap();
    let published = docker(&["port", &containers(cluster.fleet()).unwrap()[0]]).unwrap();
    assert!(published.contains(&wanted.to_string()), "{published}");
    assert_eq!(cluster.end().0, Vec::<String>::new());
}

#[test]
fn what_to_keep_reaches_a_node_whose_assignment_stays_as_it_is() {
    let mut cluster = Cluster::start(ClusterConfig::simulated("keep")).unwrap();
    let apply = |cluster: &Cluster, app: &str, image: char, more: &str| {
        let reference = format!("{}/stele/{app}@sha256:{}", registry(), image.to_string().repeat(64));
        let text = format!(
            "app: shop/{app}\nenvironments: [prod]\nservices:\n  {app}:\n    image: {reference}\n{more}"
        );
        let path = cluster.dir().join("app.yaml");
        std::fs::write(&path, text).unwrap();
        cluster.run_cli(&["apply", "-f", path.to_str().unwrap(), "--wait"]).unwrap();
    };
    let keeps = |cluster: &Cluster, node: &str| {
        let keep = told(cluster, node)?.images?.keep?;
        let mut letters: Vec<_> = keep.iter().filter_map(|image| image.digest.hex().chars().next()).collect();
        letters.sort_unstable();
        Some(letters.into_iter().collect::<String>())
    };
    apply(&cluster, "web", 'a', "    replicas: 3\n");
    assert!(["eu-1", "us-1", "ap-1"].iter().all(|node| keeps(&cluster, node).as_deref() == Some("a")));
    let before = told(&cluster, "us-1").unwrap();
    apply(&cluster, "cart", 'b', "    replicas: 1\n    nodes: region in (eu, us)\n");
    apply(&cluster, "cart", 'c', "    replicas: 1\n    nodes: node=eu-1\n");

    // It asks when it starts, and from time to time.
    cluster.kill_agent("us-1").unwrap();
    cluster.start_agent("us-1").unwrap();
    eventually(DEADLINE, "us-1 knows what it must keep", || {
        (keeps(&cluster, "us-1").as_deref() == Some("ab")).then_some(())
    })
    .unwrap();
    let after = told(&cluster, "us-1").unwrap();
    if before.instances == after.instances {
        assert_eq!(after.version, before.version, "it never looked behind");
    }
    eventually(DEADLINE, "eu-1 keeps all", || {
        (keeps(&cluster, "eu-1").as_deref() == Some("abc")).then_some(())
    })
    .unwrap();
    assert_eq!(cluster.end().0, Vec::<String>::new());
}

/// Credentials in the form of Docker's `config.json`.
fn credentials(address: SocketAddr, password: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    json!({"auths": {address.to_string(): {"auth": auth}}}).to_string()
}

#[test]
fn a_registry_that_wants_a_password_gets_it_from_controllers_and_nodes() {
    let origin = Server::start();
    let _images = Images([origin.address, origin.address]);
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("registries.json");
    std::fs::write(&known, credentials(origin.address, "wrong")).unwrap();
    let mut cluster = cluster(|config| config["registries"] = json!(known));
    let digest = publish(&origin, cluster.fleet(), "locked");
    let origin = origin.locked();
    let anonymous = ureq::get(format!("http://{}/v2/", origin.address)).call().unwrap_err();
    assert!(matches!(anonymous, ureq::Error::StatusCode(401)), "{anonymous}");

    // Refused before anything is deployed, in the registry's own words.
    let image = format!("web={}/shop/web:locked", origin.address);
    let spec = format!(
        "app: shop/web\nenvironments: [prod]\nservices:\n  web: {{image: \"{}/shop/web:locked\", replicas: 1}}\n",
        origin.address
    );
    let file = cluster.dir().join("locked.yaml");
    std::fs::write(&file, spec).unwrap();
    let apply = ["apply", "-f", file.to_str().unwrap()];
    let refused = cluster.run_cli(&apply).unwrap_err().to_string().to_lowercase();
    assert!(refused.contains("unauthorized") || refused.contains("not authorized"), "{refused}");

    // The controller knows the password now, the node does not: there the instance fails, and says why.
    std::fs::write(&known, credentials(origin.address, PASSWORD)).unwrap();
    cluster.restart(1).unwrap();
    cluster.leader().unwrap();
    let failed = cluster.run_cli(&[&apply[..], &["--wait"]].concat()).unwrap_err().to_string().to_lowercase();
    assert!(failed.contains("unauthorized") || failed.contains("no basic auth"), "{failed}");

    std::fs::write(cluster.dir().join("agent-eu-1/registries.json"), credentials(origin.address, PASSWORD))
        .unwrap();
    cluster.kill_agent("eu-1").unwrap();
    cluster.start_agent("eu-1").unwrap();
    cluster.run_cli(&["deploy", "shop/web@prod", "--image", &image, "--again", "--wait"]).unwrap();
    let ids = containers(cluster.fleet()).unwrap();
    let made_of = docker(&["inspect", "--format", "{{.Config.Image}}", &ids[0]]).unwrap();
    assert_eq!(made_of, format!("{}/shop/web@{digest}", origin.address));
    assert_eq!(cluster.end().0, Vec::<String>::new());
}
