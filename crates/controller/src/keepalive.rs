//! A leader's heartbeats while its replica computes: what it said last, said again.
//!
//! Deciding or folding one large request may take longer than followers wait for a word of their leader, and the
//! replica's thread can say none meanwhile. Raft holds where messages are delivered twice (Ongaro and Ousterhout,
//! "In Search of an Understandable Consensus Algorithm", 2014, section 2), so a thread beside it repeats the last
//! heartbeats. Never while the replica waits for its disk: a leader whose disk hangs is to be replaced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use anyhow::Context as _;
use stele_consensus::{Message, heartbeat_to_repeat};
use stele_model::ControllerId;

use crate::limits::{COMPUTING_MAX, HEARTBEAT_REPEAT_INTERVAL, SLOW_COMPUTING};

#[derive(Default)]
struct Kept {
    /// The last heartbeat to each follower, in the term this replica leads.
    heartbeats: BTreeMap<ControllerId, Message>,
    /// When the last of them was said, for the first time or again.
    said: Option<Instant>,
    /// Since when the replica's thread says nothing because it computes.
    computing: Option<Instant>,
}

impl Kept {
    /// What is to be said again now.
    fn due(&mut self, now: Instant) -> Vec<Message> {
        let ago = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let is_silent = ago(self.said).is_some_and(|silent| silent >= HEARTBEAT_REPEAT_INTERVAL);
        let computes = ago(self.computing).is_some_and(|computing| computing <= COMPUTING_MAX);
        if !is_silent || !computes {
            return Vec::new();
        }
        self.said = Some(now);
        self.heartbeats.values().cloned().collect()
    }
}

/// Repeats heartbeats as long as it lives.
pub(crate) struct Keepalive(Arc<Mutex<Kept>>);

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keepalive {
    /// Starts the thread that says again what is due, by `send`.
    pub(crate) fn start(send: impl Fn(Message) + Send + 'static) -> anyhow::Result<Self> {
        let kept = Arc::new(Mutex::default());
        let weak = Arc::downgrade(&kept);
        std::thread::Builder::new()
            .name("keepalive".to_owned())
            .spawn(move || repeat(&weak, send))
            .context("cannot start the thread that repeats heartbeats")?;
        Ok(Self(kept))
    }

    /// A message was sent by a leader.
    pub(crate) fn sent(&self, message: &Message) {
        if let Some(heartbeat) = heartbeat_to_repeat(message) {
            let mut kept = lock(&self.0);
            kept.heartbeats.insert(heartbeat.to, heartbeat);
            kept.said = Some(Instant::now());
        }
    }

    /// This replica leads no more, or in another term.
    pub(crate) fn forget(&self) {
        lock(&self.0).heartbeats.clear();
    }

    /// The replica's thread computes until the answer is dropped.
    pub(crate) fn computing(&self) -> Computing {
        let since = Instant::now();
        lock(&self.0).computing = Some(since);
        Computing { kept: Arc::clone(&self.0), since }
    }
}

/// See [`Keepalive::computing`].
pub(crate) struct Computing {
    kept: Arc<Mutex<Kept>>,
    since: Instant,
}

impl Drop for Computing {
    fn drop(&mut self) {
        lock(&self.kept).computing = None;
        let took = self.since.elapsed();
        if took > SLOW_COMPUTING {
            tracing::info!(took_ms = took.as_millis() as u64, "something large kept this replica busy");
        }
    }
}

fn repeat(kept: &Weak<Mutex<Kept>>, send: impl Fn(Message)) {
    while let Some(kept) = kept.upgrade() {
        let due = lock(&kept).due(Instant::now());
        // Or it would live for as long as this thread does.
        drop(kept);
        due.into_iter().for_each(&send);
        std::thread::sleep(HEARTBEAT_REPEAT_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// As Raft numbers it.
    const MSG_HEARTBEAT: i32 = 8;

    fn heartbeat(to: ControllerId, term: u64) -> Message {
        Message { msg_type: MSG_HEARTBEAT, to, from: 1, term, context: vec![1], ..Message::default() }
    }

    #[test]
    fn a_leader_that_computes_says_again_what_it_said_last() {
        let (send, said) = crossbeam_channel::unbounded();
        let keepalive = Keepalive::start(move |message| drop(send.send(message))).unwrap();
        keepalive.sent(&heartbeat(2, 7));
        let computing = keepalive.computing();
        // It comes again and again.
        for _ in 0..3 {
            let again = said.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!((again.to, again.term), (2, 7));
            assert!(again.context.is_empty(), "a read that was asked for once is confirmed once");
        }
        drop(computing);
        drop(keepalive);
        // And ends with its replica.
        while said.recv_timeout(Duration::from_secs(60)).is_ok() {}
    }

    #[test]
    fn nothing_is_said_again_for_ever_or_without_need() {
        let began = Instant::now();
        let mut kept = Kept { computing: Some(began), said: Some(began), ..Kept::default() };
        kept.heartbeats.insert(2, heartbeat(2, 7));
        let due_after = |kept: &mut Kept, after| kept.due(began + after).len();
        assert_eq!(due_after(&mut kept, Duration::ZERO), 0, "the last one was just said");
        assert_eq!(due_after(&mut kept, HEARTBEAT_REPEAT_INTERVAL), 1);
        assert_eq!(due_after(&mut kept, HEARTBEAT_REPEAT_INTERVAL), 0, "it was just said again");
        assert_eq!(due_after(&mut kept, 2 * HEARTBEAT_REPEAT_INTERVAL), 1);
        assert_eq!(due_after(&mut kept, COMPUTING_MAX + Duration::from_millis(1)), 0, "it hangs");
        kept.computing = None;
        assert_eq!(due_after(&mut kept, 3 * HEARTBEAT_REPEAT_INTERVAL), 0, "it waits, perhaps for its disk");
    }

    #[test]
    fn only_heartbeats_of_a_leader_are_said_again() {
        let keepalive = Keepalive(Arc::default());
        keepalive.sent(&Message { msg_type: 3, ..heartbeat(2, 7) });
        assert!(lock(&keepalive.0).heartbeats.is_empty());
        keepalive.sent(&heartbeat(2, 7));
        keepalive.sent(&heartbeat(2, 8));
        keepalive.sent(&heartbeat(3, 8));
        let terms: Vec<_> = lock(&keepalive.0).heartbeats.values().map(|it| (it.to, it.term)).collect();
        assert_eq!(terms, [(2, 8), (3, 8)]);
        keepalive.forget();
        assert!(lock(&keepalive.0).heartbeats.is_empty());
    }
}
