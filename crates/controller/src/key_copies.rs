//! Every data key on every controller, whoever comes and goes.
//!
//! A key is made once a majority of the voters keeps it, and whoever lacks one asks the others: while a majority of
//! them has none, no value was ever sealed under it. For that to stay so, each key is on a majority of the voters of
//! any time. So controllers fetch what they lack when they start and when the voters change; a learner votes, and a
//! voter is removed, only after the leader has what a majority has, and those it then counts on have it from the
//! leader.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use stele_model::ControllerId;
use tokio::time::{Instant, sleep, timeout};

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::keyring::{KeptKey, Keyring, KeyringError};
use crate::limits::{
    KEYS_CONFIRM_DEADLINE, KEYS_GATHER_DEADLINE, KEYS_INTERVAL, KEYS_PER_ANSWER_MAX, KEYS_RETRY_INTERVAL,
    PEER_REQUEST_DEADLINE,
};

/// Fetches the keys that other voters have, for ever.
pub(crate) async fn run(handle: Handle) {
    let (mut known, mut left) = (BTreeSet::new(), BTreeSet::new());
    let mut began = Instant::now();
    loop {
        let others: BTreeSet<_> = handle.other_controllers().into_iter().collect();
        // Now and then all of them: keys are made while some controller is away.
        if others != known || began.elapsed() > KEYS_INTERVAL {
            left.clone_from(&others);
            known = others;
            began = Instant::now();
        }
        for peer in left.clone() {
            match handle.fetch_keys(peer).await {
                Ok(()) => drop(left.remove(&peer)),
                Err(error) => {
                    tracing::debug!(peer, error = %format!("{error:#}"), "its data keys are not here yet");
                }
            }
        }
        sleep(KEYS_RETRY_INTERVAL).await;
    }
}

impl Handle {
    /// A page of the keys here, in order of their files' names, and the name to go on after.
    pub(crate) async fn keys_page(&self, after: Option<String>) -> PeerAnswer {
        let handle = self.clone();
        let page = move || handle.keyring().page(after.as_deref(), KEYS_PER_ANSWER_MAX);
        match tokio::task::spawn_blocking(page).await {
            Ok(Ok((kept, next))) => PeerAnswer::Keys { kept, next },
            Ok(Err(error)) => PeerAnswer::Failed(error.to_string()),
            Err(error) => PeerAnswer::Failed(error.to_string()),
        }
    }

    /// Keeps every key that another controller has.
    pub(crate) async fn fetch_keys(&self, peer: ControllerId) -> anyhow::Result<()> {
        let mut after: Option<String> = None;
        let mut new = 0;
        loop {
            let request = PeerRequest::Keys { after: after.clone() };
            let (kept, next) = match self.ask_peer(peer, &request, PEER_REQUEST_DEADLINE).await? {
                PeerAnswer::Keys { kept, next } => (kept, next),
                answer => anyhow::bail!("controller {peer} does not tell its keys: {answer:?}"),
            };
            let handle = self.clone();
            new += tokio::task::spawn_blocking(move || keep_all(handle.keyring(), &kept))
                .await
                .context("keeping data keys ended early")??;
            anyhow::ensure!(next.is_none() || next > after, "controller {peer} repeats its keys");
            after = next;
            if after.is_none() {
                break;
            }
        }
        if new > 0 {
            tracing::info!(peer, new, "fetched data keys");
        }
        Ok(())
    }

    /// Fetches what the other voters have, and says whether a majority of all has told: then each key that ever
    /// sealed anything is here.
    async fn gather_keys(&self) -> bool {
        let others = self.other_controllers();
        let fetched =
            join_all(others.iter().map(|peer| timeout(KEYS_GATHER_DEADLINE, self.fetch_keys(*peer))));
        let told = fetched.await.into_iter().filter(|fetched| matches!(fetched, Ok(Ok(())))).count();
        is_majority(told + 1, others.len() + 1)
    }

    /// Whether another controller says that it keeps every key that is here.
    async fn has_our_keys(
        &self,
        peer: ControllerId,
        within: Duration,
    ) -> Result<bool, stele_peer::RequestError> {
        Ok(matches!(self.ask_peer(peer, &PeerRequest::FetchKeys, within).await?, PeerAnswer::Ok))
    }

    /// Why a learner's vote would leave keys on a minority, if so. One of an earlier version cannot say.
    pub(crate) async fn lacks_keys(&self, learner: ControllerId) -> Option<String> {
        if !self.gather_keys().await {
            return Some("a majority of controllers has not told its data keys: some are away, or of an earlier version".to_owned());
        }
        match self.has_our_keys(learner, KEYS_CONFIRM_DEADLINE).await {
            Ok(true) | Err(stele_peer::RequestError::Failed { .. }) => None,
            Ok(false) => Some("it has not kept all data keys yet".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Why a voter's removal could lose keys, if so.
    pub(crate) async fn keys_need(&self, id: ControllerId) -> Option<String> {
        if !self.published().state.control.voters.contains(&id) {
            return None;
        }
        let advice =
            "see whether they are connected (stele cluster status) and of this version, and try again";
        if !self.gather_keys().await {
            return Some(format!(
                "controller {id} is not removed before a majority of controllers has told its data keys: {advice}"
            ));
        }
        let staying: Vec<_> = self.other_controllers().into_iter().filter(|other| *other != id).collect();
        let asked = staying.iter().map(|peer| self.has_our_keys(*peer, KEYS_CONFIRM_DEADLINE));
        let keepers = join_all(asked).await.into_iter().filter(|kept| matches!(kept, Ok(true))).count();
        if is_majority(keepers + 1, staying.len() + 1) {
            return None;
        }
        Some(format!(
            "controller {id} is not removed before a majority of the others keeps every data key: {advice}"
        ))
    }
}

fn is_majority(some: usize, all: usize) -> bool {
    some * 2 > all
}

/// Keeps keys; how many were new. One that cannot be kept is no reason to lack the others, unless the disk fails.
fn keep_all(keyring: &Keyring, keys: &[KeptKey]) -> Result<usize, KeyringError> {
    let mut new = 0;
    for key in keys {
        match keyring.keep_copy(key) {
            Ok(is_new) => new += usize::from(is_new),
            // The log said so here before it did there.
            Err(KeyringError::Destroyed(_)) => {}
            Err(error @ KeyringError::Io { .. }) => return Err(error),
            Err(error) => tracing::error!(version = key.version, %error, "a data key is not copied"),
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_are_copied_in_pages_and_never_replaced() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |folder: &tempfile::TempDir| Keyring::open(folder.path().to_owned(), [7; 32]).unwrap();
        let (from, to) = (open(&from), open(&to));
        let subjects: Vec<_> = (0..5).map(|app| format!("shop/app{app}@prod")).collect();
        for subject in &subjects {
            from.keep(&from.make(subject, 1).unwrap()).unwrap();
        }
        // One of them is another one here, and one is destroyed.
        to.keep(&to.make(&subjects[0], 1).unwrap()).unwrap();
        let own = to.key(&subjects[0], 1).unwrap();
        to.destroy(&subjects[1], 1).unwrap();

        let (mut after, mut new, mut pages) = (None, 0, 0);
        loop {
            let (kept, next) = from.page(after.as_deref(), 2).unwrap();
            new += keep_all(&to, &kept).unwrap();
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((pages, new), (3, 3));
        assert_eq!(to.key(&subjects[0], 1).unwrap(), own);
        assert_eq!(to.key(&subjects[1], 1).unwrap(), None);
        for subject in &subjects[2..] {
            assert_eq!(to.key(subject, 1).unwrap(), from.key(subject, 1).unwrap());
        }
        let (kept, _) = from.page(None, 10).unwrap();
        assert_eq!(kept.len(), 5);
        assert_eq!(keep_all(&to, &kept).unwrap(), 0, "again nothing is new");
    }
}
