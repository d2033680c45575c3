//! A leader's heartbeats while its replica computes.
//!
//! Deciding or folding one large request may take longer than followers wait for a word of their leader, and the
//! replica's thread can say none meanwhile. So a thread beside it says that the leader is still there, which is what
//! a heartbeat is that the network delivers once more; Raft holds where it does (Ongaro and Ousterhout, "In Search of
//! an Understandable Consensus Algorithm", 2014, section 2). Never while the replica waits for its disk: a leader
//! whose disk hangs is to be replaced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use anyhow::Context as _;
use stele_consensus::{Message, bare_heartbeat};
use stele_model::ControllerId;

use crate::limits::{HEARTBEAT_INTERVAL, SILENCE_MAX, SLOW_COMPUTING, TICK};

/// The office that is kept up.
struct Office {
    term: u64,
    /// When the replica itself last said something.
    spoke: Instant,
    /// When somebody last did.
    heard: Instant,
}

#[derive(Default)]
struct Kept {
    /// While this replica leads.
    office: Option<Office>,
    /// Whether the replica's thread says nothing because it computes.
    computes: bool,
}

impl Kept {
    /// The term to say that this replica leads in, if that is to be said now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let office = self.office.as_mut().filter(|_| self.computes)?;
        let since = |then| now.saturating_duration_since(then);
        if since(office.heard) < HEARTBEAT_INTERVAL || since(office.spoke) > SILENCE_MAX {
            return None;
        }
        office.heard = now;
        Some(office.term)
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps an office up as long as it lives.
pub(crate) struct Keepalive(Arc<Mutex<Kept>>);

impl Keepalive {
    /// Starts the thread that sends what is due; `peers` are asked who the others are each time.
    pub(crate) fn start(
        id: ControllerId,
        peers: impl Fn() -> Vec<ControllerId> + Send + 'static,
        send: impl Fn(Message) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let kept = Arc::new(Mutex::default());
        let weak = Arc::downgrade(&kept);
        let say = move |term| {
            for to in peers() {
                send(bare_heartbeat(id, term, to));
            }
        };
        std::thread::Builder::new()
            .name("keepalive".to_owned())
            .spawn(move || watch(&weak, say))
            .context("cannot start the thread that keeps a leader's office up")?;
        Ok(Self(kept))
    }

    /// This replica leads from now on, in a term, or does not.
    pub(crate) fn leads(&self, term: Option<u64>) {
        let now = Instant::now();
        lock(&self.0).office = term.map(|term| Office { term, spoke: now, heard: now });
    }

    /// The replica said something itself.
    pub(crate) fn spoke(&self) {
        if let Some(office) = &mut lock(&self.0).office {
            office.spoke = Instant::now();
            office.heard = office.spoke;
        }
    }

    /// The replica's thread computes until what this returns is dropped.
    pub(crate) fn computing(&self) -> Computing {
        lock(&self.0).computes = true;
        Computing { kept: Arc::clone(&self.0), since: Instant::now() }
    }
}

/// See [`Keepalive::computing`].
pub(crate) struct Computing {
    kept: Arc<Mutex<Kept>>,
    since: Instant,
}

impl Drop for Computing {
    fn drop(&mut self) {
        lock(&self.kept).computes = false;
        let took = self.since.elapsed();
        if took > SLOW_COMPUTING {
            tracing::info!(took_ms = took.as_millis() as u64, "something large kept this replica busy");
        }
    }
}

fn watch(kept: &Weak<Mutex<Kept>>, say: impl Fn(u64)) {
    while let Some(kept) = kept.upgrade() {
        let due = lock(&kept).due(Instant::now());
        // Or it would live for as long as this thread does.
        drop(kept);
        if let Some(term) = due {
            say(term);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_leader_that_computes_is_heard() {
        let (send, said) = std::sync::mpsc::channel();
        let peers = || vec![2, 3];
        let keepalive = Keepalive::start(1, peers, move |message| drop(send.send(message))).unwrap();
        keepalive.leads(Some(7));
        let computing = keepalive.computing();
        // Again and again.
        for to in [2, 3, 2, 3] {
            let message = said.recv_timeout(Duration::from_mins(1)).unwrap();
            assert_eq!(message, bare_heartbeat(1, 7, to));
            assert!(message.context.is_empty() && message.commit == 0, "it confirms nothing");
        }
        drop(computing);
        drop(keepalive);
        // It ends with its replica.
        while said.recv_timeout(Duration::from_mins(1)).is_ok() {}
    }

    #[test]
    fn an_office_is_kept_up_neither_for_ever_nor_without_need() {
        let began = Instant::now();
        let office = Office { term: 7, spoke: began, heard: began };
        let mut kept = Kept { office: Some(office), computes: true };
        assert_eq!(kept.due(began), None, "it was just heard");
        assert_eq!(kept.due(began + HEARTBEAT_INTERVAL), Some(7));
        assert_eq!(kept.due(began + HEARTBEAT_INTERVAL), None, "it was just heard again");
        // However many things it computes one after the other.
        for computes in [false, true] {
            kept.computes = computes;
            let due = kept.due(began + 2 * HEARTBEAT_INTERVAL);
            assert_eq!(due, computes.then_some(7), "it may wait for its disk");
        }
        let hangs = began + SILENCE_MAX + Duration::from_millis(1);
        assert_eq!(kept.due(hangs), None, "nobody hears anything else of it");
        kept.office = None;
        assert_eq!(kept.due(began + 3 * HEARTBEAT_INTERVAL), None);
    }

    #[test]
    fn who_leads_no_more_says_nothing_whatever_is_still_sent() {
        let keepalive = Keepalive(Arc::default());
        keepalive.leads(Some(7));
        keepalive.leads(None);
        keepalive.spoke();
        assert!(lock(&keepalive.0).office.is_none());
    }
}
