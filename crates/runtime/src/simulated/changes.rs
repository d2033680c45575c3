//! Who listens to a simulated engine, and what they have not heard yet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::Notify;

use crate::runtime::Change;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All who listen.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(Arc<Mutex<Vec<Weak<Listener>>>>);

#[derive(Debug, Default)]
struct Listener {
    unheard: Mutex<Unheard>,
    news: Notify,
}

/// A container is in it once, however often it changed.
#[derive(Debug, Default)]
struct Unheard {
    containers: BTreeSet<String>,
    unknown: bool,
}

impl Changes {
    pub(super) fn tell(&self, change: &Change) {
        lock(&self.0).retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            let mut unheard = lock(&listener.unheard);
            match change {
                Change::Container(id) => drop(unheard.containers.insert(id.clone())),
                Change::Unknown => unheard.unknown = true,
            }
            listener.news.notify_one();
            true
        });
    }

    /// What is told from now on.
    pub(super) fn listen(&self) -> BoxStream<'static, Change> {
        let listener = Arc::new(Listener::default());
        lock(&self.0).push(Arc::downgrade(&listener));
        let next = |listener: Arc<Listener>| async move {
            let change = loop {
                if let Some(change) = lock(&listener.unheard).take() {
                    break change;
                }
                listener.news.notified().await;
            };
            Some((change, listener))
        };
        futures::stream::unfold(listener, next).boxed()
    }
}

impl Unheard {
    fn take(&mut self) -> Option<Change> {
        if std::mem::take(&mut self.unknown) {
            return Some(Change::Unknown);
        }
        self.containers.pop_first().map(Change::Container)
    }
}
