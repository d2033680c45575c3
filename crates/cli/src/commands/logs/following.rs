//! What several instances print, as it comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use stele_api::wire::{InstanceStatus, LogLine};
use stele_model::{InstanceId, NodeName};

use super::{Logs, Missing, is_of_node, lines, names};
use crate::client::Client;
use crate::exit::Failure;
use crate::limits::FOLLOWED_LINES_AHEAD;
use crate::session::Session;

/// A line, or why there are no more, with the index of the instance. One whose log has ended says nothing more.
type Heard = (usize, Result<LogLine, Failure>);

/// An instance whose log is wanted.
struct Wanted {
    at: usize,
    id: InstanceId,
    path: String,
}

impl Logs {
    /// Until the logs of all of them have ended; one that breaks off does not end the others.
    pub(super) fn follow_all(
        &self,
        session: &Session,
        client: Client,
        instances: Vec<InstanceStatus>,
    ) -> Result<(), Failure> {
        let (sender, heard) = sync_channel(FOLLOWED_LINES_AHEAD);
        let client = Arc::new(client);
        let mut on_nodes: BTreeMap<&NodeName, Vec<Wanted>> = BTreeMap::new();
        for (at, instance) in instances.iter().enumerate() {
            on_nodes.entry(&instance.node).or_default().push(Wanted {
                at,
                id: instance.id.clone(),
                path: self.path(&instance.id),
            });
        }
        // A node that does not answer holds up no other.
        for logs in on_nodes.into_values() {
            let (client, sender) = (Arc::clone(&client), sender.clone());
            thread::spawn(move || open(&client, logs, &sender));
        }
        drop(sender);
        let (names, mut missing) = (names(&instances), Missing::default());
        for (at, heard) in heard {
            match heard {
                Ok(line) => self.print(session.terminal, &instances[at].id, Some(&names[at]), &line)?,
                Err(failure) => missing.note(&instances[at], failure)?,
            }
        }
        missing.verdict(&self.of, instances.len())
    }
}

/// Opens the logs of one node, one after the other: agents of earlier versions ignore questions of which they are
/// asked too many at once.
fn open(client: &Client, logs: Vec<Wanted>, sender: &SyncSender<Heard>) {
    let mut silent = false;
    for Wanted { at, id, path } in logs {
        if silent {
            let why = Failure::Unreachable("its node did not answer before".to_owned());
            drop(sender.send((at, Err(why))));
            continue;
        }
        match lines(client, &id, &path) {
            Ok(lines) => {
                let sender = sender.clone();
                // It ends with the log, or with the program where nobody listens any more.
                thread::spawn(move || {
                    for line in lines {
                        let is_end = line.is_err();
                        if sender.send((at, line)).is_err() || is_end {
                            return;
                        }
                    }
                });
            }
            Err(failure) => {
                silent = is_of_node(&failure);
                drop(sender.send((at, Err(failure))));
            }
        }
    }
}
