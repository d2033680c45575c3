//! Three etcd members on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stele_testkit::{Client, Process, eventually, ports};

use crate::{client, first_line};

/// Longest the members may take to elect a leader.
const READY_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Etcd {
    leader: Client,
    // In this order: the processes end before their folder goes.
    _members: Vec<Process>,
    _dir: tempfile::TempDir,
}

impl Etcd {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("stele-bench-etcd-").tempdir()?;
        let places = (0..3)
            .map(|_| Ok((ports::free()?, ports::free()?)))
            .collect::<anyhow::Result<Vec<(SocketAddr, SocketAddr)>>>()?;
        let peers: Vec<_> =
            places.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://{peer}")).collect();
        let mut members = Vec::new();
        for (at, (api, peer)) in places.iter().enumerate() {
            let data = dir.path().join(format!("m{at}"));
            let arguments = [
                format!("--name=m{at}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls=http://{api}"),
                format!("--advertise-client-urls=http://{api}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                "--log-level=error".to_owned(),
            ];
            let log = dir.path().join(format!("m{at}.log"));
            members.push(Process::start(Path::new("etcd"), &arguments, &log)?);
        }
        let leader = eventually(READY_DEADLINE, "etcd elects a leader", || {
            places.iter().map(|(api, _)| client(*api)).find(is_leader)
        })?;
        Ok(Self { leader, _members: members, _dir: dir })
    }

    pub(crate) fn version() -> anyhow::Result<String> {
        first_line("etcd", "--version")
    }

    pub(crate) fn put(&self, value: &str) -> anyhow::Result<()> {
        let body = json!({"key": STANDARD.encode("write"), "value": STANDARD.encode(value)});
        let answer = self.leader.post("/v3/kv/put", &body).context("etcd did not answer")?;
        anyhow::ensure!(answer.status == 200, "etcd refused a write: {}", answer.body);
        Ok(())
    }
}

fn is_leader(member: &Client) -> bool {
    let Ok(answer) = member.post("/v3/maintenance/status", &json!({})) else { return false };
    let own = &answer.body["header"]["member_id"];
    own.is_string() && *own == answer.body["leader"]
}
