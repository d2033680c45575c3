//! Whether controllers have the whole log: who lacks records neither votes nor is led to.
//!
//! One that was far behind gets State as a snapshot and fetches the records from before it. Until it has them it is
//! no copy of the history. Were it to count for one, replacing controllers one after the other would end with
//! nobody who has the beginning.

use std::sync::PoisonError;
use std::time::Instant;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use stele_consensus::MembershipChange;
use stele_model::{ControllerId, Seq};
use stele_peer::RequestError;
use tokio::sync::oneshot;

use crate::forward::{PeerAnswer, PeerRequest};
use crate::handle::Handle;
use crate::limits::{
    HAND_OVER_INTERVAL, HAND_OVER_INTERVAL_MAX, HAND_OVER_LAG_RECORDS_MAX, HISTORY_DEADLINE,
    HOUSEKEEPING_INTERVAL, LEARNER_NOTICE_INTERVAL,
};
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

    /// How many records before the last one are missing.
    fn lacking(&self) -> u64 {
        self.gaps.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// Of the records from one on, the last of those that are here without a break; nothing if that one is not.
    fn reaches(&self, from: Seq) -> Option<Seq> {
        if self.last < from || self.gaps.iter().any(|(first, to)| (*first..=*to).contains(&from)) {
            return None;
        }
        let next = self.gaps.iter().map(|(first, _)| *first).filter(|first| *first > from).min();
        Some(next.map_or(self.last, |first| first - 1))
    }
}

/// Whether others have the records of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// As far as they say.
    Perhaps,
    /// Nobody who answers has these.
    Away(Vec<(Seq, Seq)>),
    /// All answered, and nobody has these.
    Lost(Vec<(Seq, Seq)>),
}

/// The first record of a range that none of them has.
fn first_missing(histories: &[History], (mut from, to): (Seq, Seq)) -> Option<Seq> {
    while from <= to {
        match histories.iter().filter_map(|history| history.reaches(from)).max() {
            Some(last) => from = last + 1,
            None => return Some(from),
        }
    }
    None
}

/// The records of a range that none of some has, as inclusive ranges.
fn missing(histories: &[History], (mut from, to): (Seq, Seq)) -> Vec<(Seq, Seq)> {
    let mut missing = Vec::new();
    while let Some(first) = first_missing(histories, (from, to)) {
        let begins = |history: &History| {
            let after = history.gaps.iter().map(|(_, to)| to + 1);
            after.filter(|seq| *seq > first && history.reaches(*seq).is_some()).min()
        };
        let last = histories.iter().filter_map(begins).min().map_or(to, |next| (next - 1).min(to));
        missing.push((first, last));
        from = last + 1;
    }
    missing
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

    /// If a record is one of those that no controller has any more: the last of those with it.
    pub(crate) fn lost_from(&self, seq: Seq) -> Option<Seq> {
        let lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().find(|(from, to)| (*from..=*to).contains(&seq)).map(|(_, to)| *to)
    }

    /// Looks for the records of a range with all others.
    pub(crate) async fn look_for(&self, others: &[ControllerId], range: (Seq, Seq)) -> Found {
        let answers = join_all(others.iter().map(|other| self.history_of(*other))).await;
        let (mut histories, mut is_sure) = (Vec::new(), true);
        for answer in answers {
            match answer {
                Ok(Some(history)) => histories.push(history),
                // It cannot say, and may have all.
                Ok(None) => return Found::Perhaps,
                Err(_) => is_sure = false,
            }
        }
        match missing(&histories, range) {
            missing if missing.is_empty() => Found::Perhaps,
            missing if is_sure => Found::Lost(missing),
            missing => Found::Away(missing),
        }
    }

    /// Why a controller should not be removed, if so: it may be the last that has records which the leader lacks.
    pub(crate) async fn records_need(&self, id: ControllerId) -> Option<String> {
        let gaps = self.history().gaps;
        if gaps.is_empty() {
            return None;
        }
        let control = self.published().state.control;
        let members = control.voters.iter().chain(&control.learners).copied();
        let staying: Vec<_> = members.filter(|other| *other != id && *other != self.id()).collect();
        let answers = join_all(staying.into_iter().map(|other| self.history_of(other))).await;
        let kept: Vec<_> = answers.into_iter().filter_map(|answer| answer.ok().flatten()).collect();
        let needed: Vec<_> = gaps.into_iter().flat_map(|gap| missing(&kept, gap)).collect();
        let (from, to) = *needed.first()?;
        let advice = format!(
            "Wait until they have been fetched (stele cluster status), or hand leadership to a controller that lacks \
             none (stele cluster transfer-leader). If they are lost in any case: stele cluster remove {id} --lose-records"
        );
        match self.history_of(id).await {
            Ok(Some(history))
                if needed.iter().all(|range| missing(std::slice::from_ref(&history), *range) == [*range]) =>
            {
                None
            }
            Ok(Some(_)) => Some(format!(
                "controller {id} is not removed while the leader lacks records {from} to {to}, which nobody else has. \
                 {advice}"
            )),
            Ok(None) | Err(_) => Some(format!(
                "controller {id} is not removed while the leader lacks records {from} to {to}: it does not say whether \
                 it has them, and nobody else does. {advice}"
            )),
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

    /// Why a controller should not lead, if so. Whoever leads decides who is removed and what is gone back to, and
    /// keeps one whole log by being one.
    pub(crate) async fn is_unfit_to_lead(&self, id: ControllerId) -> Option<String> {
        if id == self.id() {
            return None;
        }
        // One that does not answer gets leadership only if Raft finds it up to date.
        let history = self.history_of(id).await.ok()??;
        let own = self.history().lacking();
        let (from, to) = history.lacks(0).filter(|_| history.lacking() > own)?;
        let or_stop = if own > 0 { ", or stop this one: then another one leads" } else { "" };
        Some(format!(
            "controller {id} is not to lead while it lacks records {from} to {to}: wait until it has fetched them \
             (stele cluster status --addr, with its own), or choose another controller{or_stop}"
        ))
    }
}

/// Whoever leads and lacks records hands leadership to a voter that lacks fewer, for ever. What that one does not keep,
/// because its clock is off or it is slow, it gets again ever more seldom.
pub(crate) async fn hand_over(handle: Handle) {
    let mut pause = HAND_OVER_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        let (published, own) = (handle.published(), handle.history());
        if own.gaps.is_empty() {
            pause = HAND_OVER_INTERVAL;
            continue;
        }
        if !published.leads {
            continue;
        }
        let voters = published.state.control.voters.iter().copied().filter(|id| *id != handle.id());
        let answers = join_all(voters.map(async |id| Some((handle.history_of(id).await.ok()??, id)))).await;
        // Who is behind what is committed will lack that, too, if it gets State instead.
        let keeps_up = |history: &History| history.last + HAND_OVER_LAG_RECORDS_MAX >= own.last;
        let fit = answers.into_iter().flatten().filter(|(history, _)| keeps_up(history));
        let Some((fewest, to)) = fit.map(|(history, id)| (history.lacking(), id)).min() else { continue };
        if fewest < own.lacking() {
            tracing::info!(to, fewest, lacking = own.lacking(), "another controller has more of the history");
            let (answer, transferred) = oneshot::channel();
            if handle.push(Input::Transfer(to, answer)).is_ok() {
                let _ = transferred.await;
            }
            pause = (pause * 2).min(HAND_OVER_INTERVAL_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

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

    #[test]
    fn what_one_lacks_another_may_have() {
        let history = |last, gaps: &[_]| History { last, gaps: gaps.to_vec() };
        let (whole, late) = (history(9, &[]), history(20, &[(1, 8), (12, 14)]));
        assert_eq!(first_missing(&[], (3, 7)), Some(3));
        assert_eq!(first_missing(from_ref(&whole), (3, 7)), None);
        assert_eq!(first_missing(from_ref(&whole), (3, 10)), Some(10));
        assert_eq!(first_missing(&[late.clone(), whole.clone()], (3, 11)), None, "each has a part");
        assert_eq!(first_missing(&[late.clone(), whole.clone()], (3, 30)), Some(12));

        assert_eq!(missing(&[], (3, 7)), [(3, 7)]);
        assert_eq!(missing(from_ref(&whole), (3, 7)), []);
        assert_eq!(missing(from_ref(&late), (3, 30)), [(3, 8), (12, 14), (21, 30)]);
        assert_eq!(missing(from_ref(&late), (13, 13)), [(13, 13)]);
        assert_eq!(missing(&[late, whole], (3, 30)), [(12, 14), (21, 30)]);
        // What begins where another one's is missing, too, begins nowhere.
        assert_eq!(missing(&[history(20, &[(1, 5), (6, 9)])], (2, 20)), [(2, 9)]);
    }
}
