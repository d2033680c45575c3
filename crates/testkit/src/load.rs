//! A steady load of writes that remembers what it was promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use stele_model::{Event, Record, Seq};
use ureq::http::Method;

use crate::client::Client;
use crate::limits::{RECOVERY_DEADLINE, WRITE_TIMEOUT};
use crate::waiting::{eventually, pause};

/// The label each write sets to its number.
const LABEL: &str = "write";

/// One acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The writer's own count, from 1.
    pub write: u64,
    /// Where the log has it, as the controller said.
    pub seq: Seq,
}

/// One writer for each node, each changing its own node's label again and again, in order, until
/// stopped. A write without a good answer is repeated under its key with another controller.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<(String, JoinHandle<Vec<Ack>>)>,
}

/// What a load was promised: by node, its writes in order.
pub type Promises = Vec<(String, Vec<Ack>)>;

impl Load {
    /// Starts one writer for each node, each with a pause after every write.
    pub fn start(clients: &[Client], nodes: &[&str], pause_between: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = nodes.iter().enumerate().map(|(turn, node)| {
            let writer = Writer {
                clients: clients.iter().map(|client| client.clone().with_timeout(WRITE_TIMEOUT)).collect(),
                node: (*node).to_owned(),
                turn,
                pause: pause_between,
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
            };
            ((*node).to_owned(), std::thread::spawn(move || writer.run()))
        });
        let writers = writers.collect();
        Self { stop, acknowledged, writers }
    }

    /// Writes acknowledged so far, by all writers.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until more writes are acknowledged than there were.
    pub fn goes_on(&self, writes: u64) -> anyhow::Result<()> {
        let goal = self.acknowledged() + writes;
        eventually(RECOVERY_DEADLINE, "writes are acknowledged", || {
            (self.acknowledged() >= goal).then_some(())
        })
    }

    /// Ends it after the writes on their way are acknowledged.
    pub fn stop(self) -> Promises {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.into_iter().map(|(node, writer)| (node, writer.join().unwrap_or_default())).collect()
    }
}

struct Writer {
    clients: Vec<Client>,
    node: String,
    turn: usize,
    pause: Duration,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let write = acks.len() as u64 + 1;
            let Some(seq) = self.write(write) else { break };
            acks.push(Ack { write, seq });
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            if pause(self.pause).is_err() {
                break;
            }
        }
        acks
    }

    fn write(&mut self, write: u64) -> Option<Seq> {
        let path = format!("/v1/nodes/{}/labels", self.node);
        let key = format!("{}-{write}", self.node);
        let body = json!({"labels": {LABEL: write.to_string()}}).to_string();
        loop {
            let client = self.clients.get(self.turn % self.clients.len().max(1))?;
            match client.send(Method::PUT, &path, &[("idempotency-key", &key)], Some(&body)) {
                Ok(answer) if answer.status == 200 => return answer.body["seq"].as_u64(),
                Ok(answer) if answer.status < 500 && answer.status != 429 => {
                    eprintln!("write {write} of {} is refused: {}", self.node, answer.body);
                    return None;
                }
                // Nobody there, no leader, or an unknown outcome: the same again elsewhere.
                _ => self.turn += 1,
            }
            pause(Duration::from_millis(20)).ok()?;
        }
    }
}

/// Compares promises with a log: every write acknowledged is in it, once, in order, at its seq.
/// A write may be there without an acknowledgement, when nobody was left to give it.
pub fn broken_promises(promises: &Promises, log: &[Record]) -> Vec<String> {
    let mut broken = Vec::new();
    for (node, acks) in promises {
        let written: Vec<(Seq, u64)> = log.iter().filter_map(|record| written(record, node)).collect();
        for (index, ack) in acks.iter().enumerate() {
            match written.get(index) {
                Some((seq, write)) if (*seq, *write) == (ack.seq, ack.write) => {}
                found => broken.push(format!(
                    "{node}: write {} was acknowledged at seq {}; the log has {found:?} there",
                    ack.write, ack.seq
                )),
            }
        }
        if written.len() > acks.len() + 1 {
            broken.push(format!("{node}: {} writes are logged, {} promised", written.len(), acks.len()));
        }
    }
    broken
}

fn written(record: &Record, of: &str) -> Option<(Seq, u64)> {
    match &record.event {
        Event::NodeLabelled { node, labels } if node.as_str() == of => {
            Some((record.header.seq, labels.get(LABEL)?.parse().ok()?))
        }
        _ => None,
    }
}

/// The number of the last write, in a node's answer.
pub fn last_write(node: &Value) -> Option<u64> {
    node["labels"][LABEL].as_str()?.parse().ok()
}
