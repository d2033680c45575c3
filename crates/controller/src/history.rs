//! Whether controllers have the whole log: who lacks records neither votes nor is led to.
//!
//! One that was far behind gets State as a snapshot and fetches the records from before it. Until it has them it is
//! no copy of the history. Were it to count for one, replacing controllers one after the other would end with
//! nobody who has the beginning.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use stele_consensus::MembershipChange;
use stele_model::{ControllerId, Seq};
use stele_peer::RequestError;
use tokio::sync::oneshot;

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::limits::{HISTORY_DEADLINE, HOUSEKEEPING_INTERVAL, LEARNER_NOTICE_INTERVAL};
use crate::replica::Input;

/// The records that a controller has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    /// The last one.
    pub(crate) last: Seq,
    /// Those missing before it, as inclusive ranges.
    pub(crate) gaps: Vec<(Seq, Seq)>,
}

impl History {
    /// The first range it lacks of the records up to one.
    fn lacks(&self, through: Seq) -> Option<(Seq, Seq)> {
        let gap = self.gaps.first().copied();
        gap.or((self.last < through).then_some((self.last + 1, through)))
    }
}

/// Has learners vote once they have the whole log, for ever.
pub(crate) async fn promote(handle: Handle) {
    // A learner that has not begun lacks nothing that it knows of. It must have all there was at the last look.
    let mut through = Seq::MAX;
    let mut said = Instant::now();
    loop {
        tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
        let published = handle.published();
        if published.leads {
            for id in &published.state.control.learners {
                match handle.promote(*id, through).await {
                    Ok(()) => tracing::info!(id, "a learner has caught up and votes from now on"),
                    Err(why) if said.elapsed() > LEARNER_NOTICE_INTERVAL => {
                        said = Instant::now();
                        tracing::info!(id, why, "a learner does not vote yet");
                    }
                    Err(why) => tracing::debug!(id, why, "a learner does not vote yet"),
                }
            }
        }
        through = published.state.seq;
    }
}

impl Handle {
    /// The records that are here.
    pub(crate) fn history(&self) -> History {
        // In this order: a snapshot installed in between moves the last one, and leaves a gap.
        let last = self.reader().last_seq();
        History { last, gaps: self.reader().gaps() }
    }

    /// The records that another controller has; nothing from one of an earlier version, which cannot say.
    async fn history_of(&self, id: ControllerId) -> Result<Option<History>, RequestError> {
        match self.ask_peer(id, &PeerRequest::History, HISTORY_DEADLINE).await {
            Ok(PeerAnswer::History(history)) => Ok(Some(history)),
            Ok(_) | Err(RequestError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn promote(&self, id: ControllerId, through: Seq) -> Result<(), String> {
        let history = self.history_of(id).await.map_err(|error| error.to_string())?;
        // What the leader lacks itself may be lost for good: then nobody who waits for it would ever vote.
        if let Some((from, to)) = history.and_then(|history| history.lacks(through))
            && self.history().gaps.is_empty()
        {
            return Err(format!("it lacks records {from} to {to}"));
        }
        if let Some(why) = self.lacks_keys(id).await {
            return Err(why);
        }
        let (answer, changed) = oneshot::channel();
        let promote = Input::Membership(MembershipChange::Promote(id), answer);
        self.push(promote).map_err(|error| error.to_string())?;
        match changed.await {
            Ok(changed) => changed.map_err(|error| error.to_string()),
            Err(_) => Err("the replica stopped".to_owned()),
        }
    }

    /// Why a controller should not lead, if so. Whoever leads decides who is removed, and keeps one whole log by
    /// being one; where the leader itself lacks records, nothing is kept by staying.
    pub(crate) async fn is_unfit_to_lead(&self, id: ControllerId) -> Option<String> {
        if id == self.id() || !self.history().gaps.is_empty() {
            return None;
        }
        // One that does not answer gets leadership only if Raft finds it up to date.
        let (from, to) = self.history_of(id).await.ok()??.lacks(0)?;
        Some(format!(
            "controller {id} is not to lead while it lacks records {from} to {to}: wait until it has fetched them \
             (stele cluster status --addr, with its own), or choose another controller"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_begun_and_who_has_a_gap_lack_records() {
        let history = |last, gaps: &[_]| History { last, gaps: gaps.to_vec() };
        assert_eq!(history(9, &[]).lacks(9), None);
        assert_eq!(history(12, &[]).lacks(9), None);
        assert_eq!(history(0, &[]).lacks(9), Some((1, 9)));
        assert_eq!(history(12, &[(3, 5)]).lacks(9), Some((3, 5)));
        assert_eq!(history(12, &[(3, 5)]).lacks(0), Some((3, 5)), "wherever it is");
    }
}
