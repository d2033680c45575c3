//! Three etcd members on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use serde_json::json;
use stele_testkit::{Client, Process, eventually, ports};

use crate::first_line;
use crate::load::Server;

/// Longest the members may take to elect a leader.
const READY_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Etcd {
    leader: SocketAddr,
    // In this order: the processes end before their folder goes.
    members: Vec<Process>,
    _dir: tempfile::TempDir,
}

/// `etcdserverpb.PutRequest`, as far as it is used here.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RequestOp`.
#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
}

/// `etcdserverpb.TxnRequest`.
#[derive(Clone, PartialEq, Message)]
struct Transaction {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
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
            places.iter().map(|(api, _)| *api).find(|api| is_leader(&Client::new(*api, None)))
        })?;
        Ok(Self { leader, members, _dir: dir })
    }

    pub(crate) fn version() -> anyhow::Result<String> {
        first_line("etcd", &["--version"])
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.members.iter().map(Process::id).collect()
    }

    /// One put of a value a request.
    pub(crate) fn puts(&self, value: fn(u64) -> String) -> Server {
        let request = move |number| put(number, value).encode_to_vec();
        Server::Grpc { address: self.leader, path: "/etcdserverpb.KV/Put", request: Box::new(request) }
    }

    /// So many puts, of a key each, in one transaction a request.
    pub(crate) fn transactions(&self, puts: u64, value: fn(u64) -> String) -> Server {
        let request = move |number: u64| {
            let operations = (0..puts).map(|at| {
                let put = put(number.wrapping_mul(puts).wrapping_add(at), value);
                Operation { put: Some(Put { key: format!("write-{at}").into_bytes(), ..put }) }
            });
            Transaction { success: operations.collect() }.encode_to_vec()
        };
        Server::Grpc { address: self.leader, path: "/etcdserverpb.KV/Txn", request: Box::new(request) }
    }
}

fn put(number: u64, value: fn(u64) -> String) -> Put {
    Put { key: b"write".to_vec(), value: value(number).into_bytes() }
}

fn is_leader(member: &Client) -> bool {
    let Ok(answer) = member.post("/v3/maintenance/status", &json!({})) else { return false };
    let own = &answer.body["header"]["member_id"];
    own.is_string() && *own == answer.body["leader"]
}
