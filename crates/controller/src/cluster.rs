//! The controllers as a cluster: who they are, and changing that.

use stele_consensus::{MembershipChange, Status};
use stele_model::ControllerId;
use tokio::sync::oneshot;

use crate::forward::{MemberRequest, PeerAnswer, PeerRequest};
use crate::handle::{Handle, SubmitError};
use crate::limits::{PEER_REQUEST_DEADLINE, REMOVAL_DEADLINE};
use crate::replica::Input;

/// One controller, as another sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: ControllerId,
    /// Where its API answers.
    pub api: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Whether it votes; a learner only follows.
    pub votes: bool,
    /// Whether a connection to it stands; absent for the one that answers.
    pub connected: Option<bool>,
    /// Why it is not connected.
    pub error: Option<String>,
    /// Entries it lacks, as its leader knows.
    pub lag: Option<u64>,
}

/// The cluster, as one controller sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Who answers.
    pub id: ControllerId,
    /// Who leads, as far as known.
    pub leader: Option<ControllerId>,
    /// Raft's term.
    pub term: u64,
    /// The last committed record here.
    pub seq: u64,
    /// The last Raft entry applied here.
    pub applied: u64,
    /// Records that are still to be fetched, as inclusive ranges.
    pub missing: Vec<(u64, u64)>,
    /// Everybody.
    pub members: Vec<Member>,
}

impl Handle {
    async fn raft_status(&self) -> Result<Status, SubmitError> {
        let (answer, status) = oneshot::channel();
        self.push(Input::Status(answer))?;
        status.await.map_err(|_| SubmitError::Unavailable)
    }

    /// The cluster, as this controller sees it.
    pub async fn cluster(&self) -> Result<ClusterStatus, SubmitError> {
        let raft = self.raft_status().await?;
        let published = self.published();
        let links = self.peers().status();
        let known = &published.state.control.controllers;
        let ids = raft.conf_state.voters.iter().map(|id| (*id, true));
        let learners = raft.conf_state.learners.iter().map(|id| (*id, false));
        let members = ids.chain(learners).map(|(id, votes)| {
            let link = links.iter().find(|link| link.id == id);
            let matched = raft.progress.iter().find(|progress| progress.id == id);
            Member {
                id,
                api: known.get(&id).map(|controller| controller.api.clone()).unwrap_or_default(),
                peer: known.get(&id).map(|controller| controller.peer.clone()).unwrap_or_default(),
                votes,
                connected: link.map(|link| link.is_connected),
                error: link.and_then(|link| link.last_error.clone()),
                lag: matched.map(|progress| raft.last_index.saturating_sub(progress.matched)),
            }
        });
        Ok(ClusterStatus {
            id: raft.id,
            leader: raft.leader,
            term: raft.term,
            seq: published.state.seq,
            applied: raft.applied,
            missing: self.reader().gaps(),
            members: members.collect(),
        })
    }

    /// Lets a controller follow; it votes once it has caught up, history included. Its certificate and
    /// addresses must be known already ([`stele_model::Command::CertifyController`]).
    pub async fn add_member(&self, id: ControllerId) -> Result<(), SubmitError> {
        self.change_members(MemberRequest::Add(id)).await
    }

    /// Takes a controller out for good; with `lose_records` also one that may be the last which has records that the
    /// leader lacks.
    pub async fn remove_member(&self, id: ControllerId, lose_records: bool) -> Result<(), SubmitError> {
        let remove = if lose_records { MemberRequest::RemoveAnyway } else { MemberRequest::Remove };
        self.change_members(remove(id)).await
    }

    /// Hands leadership to another controller.
    pub async fn transfer_leader(&self, id: ControllerId) -> Result<(), SubmitError> {
        self.change_members(MemberRequest::Transfer(id)).await
    }

    async fn change_members(&self, request: MemberRequest) -> Result<(), SubmitError> {
        let published = self.published();
        let answer = if published.leads {
            self.change_members_here(request).await
        } else {
            let leader = published.leader.ok_or(SubmitError::Unavailable)?;
            self.ask_peer(leader, &PeerRequest::Member(request), PEER_REQUEST_DEADLINE)
                .await
                .map_err(|_| SubmitError::OutcomeUnknown)?
        };
        match answer {
            PeerAnswer::Ok => Ok(()),
            PeerAnswer::NotLeader => Err(SubmitError::Unavailable),
            PeerAnswer::Failed(why) => Err(SubmitError::Rejected(stele_model::Rejection::new(
                stele_model::RejectionKind::Conflict,
                why,
            ))),
            _ => Err(SubmitError::OutcomeUnknown),
        }
    }

    pub(crate) async fn change_members_here(&self, request: MemberRequest) -> PeerAnswer {
        let failed = |why: String| PeerAnswer::Failed(why);
        if !self.published().leads {
            return PeerAnswer::NotLeader;
        }
        let change = match request {
            MemberRequest::Add(id) => MembershipChange::AddLearner(id),
            MemberRequest::Remove(id) | MemberRequest::RemoveAnyway(id) if id == self.id() => {
                return failed(format!(
                    "controller {id} leads: hand leadership over first (stele cluster transfer-leader)"
                ));
            }
            MemberRequest::Remove(id) | MemberRequest::RemoveAnyway(id) => {
                return self.remove_here(id, matches!(request, MemberRequest::RemoveAnyway(_))).await;
            }
            MemberRequest::Transfer(to) => {
                if let Some(why) = self.is_unfit_to_lead(to).await {
                    return failed(why);
                }
                let (answer, transferred) = oneshot::channel();
                if self.push(Input::Transfer(to, answer)).is_err() {
                    return PeerAnswer::Busy;
                }
                return match transferred.await {
                    Ok(Ok(())) => PeerAnswer::Ok,
                    Ok(Err(why)) => failed(why),
                    Err(_) => PeerAnswer::Unknown,
                };
            }
        };
        self.propose_change(change).await
    }

    /// Removes a controller, if nobody misses what it has. Two are not removed at once: each might count on the other.
    async fn remove_here(&self, id: ControllerId, lose_records: bool) -> PeerAnswer {
        let _alone = self.0.removing.lock().await;
        if let Some(why) = self.keys_need(id).await {
            return PeerAnswer::Failed(why);
        }
        // Before it is asked: what comes to be missing meanwhile, the replica refuses by itself.
        let is_complete = self.history().gaps.is_empty();
        if !lose_records && let Some(why) = self.records_need(id).await {
            return PeerAnswer::Failed(why);
        }
        let remove = if is_complete { MembershipChange::Remove } else { MembershipChange::RemoveRegardless };
        let answer = self.propose_change(remove(id)).await;
        if matches!(answer, PeerAnswer::Ok) {
            let mut watch = self.watch();
            let left = watch.wait_for(|published| !published.state.control.voters.contains(&id));
            // Whoever asked waits for it, too, and longer.
            let _ = tokio::time::timeout(REMOVAL_DEADLINE, left).await;
        }
        answer
    }

    async fn propose_change(&self, change: MembershipChange) -> PeerAnswer {
        let (answer, changed) = oneshot::channel();
        if self.push(Input::Membership(change, answer)).is_err() {
            return PeerAnswer::Busy;
        }
        match changed.await {
            Ok(Ok(())) => PeerAnswer::Ok,
            Ok(Err(error)) => PeerAnswer::Failed(error.to_string()),
            Err(_) => PeerAnswer::Unknown,
        }
    }
}
