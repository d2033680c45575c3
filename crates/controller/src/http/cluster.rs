//! The controllers.

use std::collections::BTreeSet;

use stele_api::ProblemKind;
use stele_api::wire::{
    AddMemberRequest, Certified, ClusterAnswer, ControllerStatus, HealthAnswer, LeaderRequest, MemberRole,
    RemoveMemberRequest,
};
use stele_model::{Command, ControllerId, Scope, State, admit};

use super::asked::{Asked, Why};
use super::failure::Failure;
use super::limits::LEAVE_DEADLINE;
use super::status::state_at;
use super::{Answered, json};
use crate::handle::{Consistency, Handle};

pub(super) fn health(handle: &Handle) -> Answered {
    let published = handle.published();
    json(&HealthAnswer {
        controller: handle.id(),
        leader: if published.leads { Some(handle.id()) } else { published.leader },
        seq: published.state.seq,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(super) async fn cluster(handle: &Handle, asked: &Asked) -> Answered {
    let query: stele_api::wire::ReadQuery = asked.query()?;
    match query.at {
        None => overview(handle).await,
        Some(at) => {
            let state = state_at(handle, &asked.state, &Scope::fleet(), Some(&at)).await?;
            json(&overview_then(handle, &state))
        }
    }
}

/// The controllers as the log had them; who was connected to whom it does not say.
fn overview_then(handle: &Handle, state: &State) -> ClusterAnswer {
    let State { control, history, .. } = state;
    let leader = (history.term > 0).then_some(history.leader);
    let ids: BTreeSet<_> =
        control.voters.iter().chain(control.learners.iter()).chain(control.controllers.keys()).collect();
    let controllers = ids.into_iter().map(|id| {
        let known = control.controllers.get(id);
        ControllerStatus {
            id: *id,
            role: match (control.voters.contains(id), control.learners.contains(id)) {
                (true, _) => MemberRole::Voter,
                (false, true) => MemberRole::Learner,
                (false, false) => MemberRole::Outside,
            },
            leader: leader == Some(*id),
            api: known.map(|controller| controller.api.clone()),
            peer: known.map(|controller| controller.peer.clone()),
            certified_until: known.map(|controller| controller.certificate.body.not_after),
            connections_until: None,
            connected: None,
            error: None,
            lag: None,
        }
    });
    ClusterAnswer {
        fleet: control.fleet.as_ref().map(|fleet| fleet.name.clone()),
        root: control.fleet.as_ref().map(|fleet| fleet.root.clone()),
        epoch: control.fleet.as_ref().map_or(0, |fleet| fleet.epoch),
        term: history.term,
        leader,
        answered_by: handle.id(),
        seq: state.seq,
        missing: Vec::new(),
        controllers: controllers.collect(),
    }
}

async fn overview(handle: &Handle) -> Answered {
    let status = handle.cluster().await?;
    let control = handle.published().state.control;
    let certified_until = |id: &ControllerId| Some(control.controllers.get(id)?.certificate.body.not_after);
    let shown = handle.connections_until();
    let mut controllers: Vec<_> = status
        .members
        .iter()
        .map(|member| ControllerStatus {
            id: member.id,
            role: if member.votes { MemberRole::Voter } else { MemberRole::Learner },
            leader: status.leader == Some(member.id),
            api: Some(member.api.clone()).filter(|it| !it.is_empty()),
            peer: Some(member.peer.clone()).filter(|it| !it.is_empty()),
            certified_until: certified_until(&member.id),
            connections_until: shown.get(&member.id).copied(),
            connected: member.connected.filter(|_| member.id != status.id),
            error: member.error.clone().filter(|_| member.connected != Some(true)),
            lag: member.lag,
        })
        .collect();
    let outside = control.controllers.iter().filter(|(id, _)| status.members.iter().all(|it| it.id != **id));
    controllers.extend(outside.map(|(id, controller)| ControllerStatus {
        id: *id,
        role: MemberRole::Outside,
        leader: false,
        api: Some(controller.api.clone()),
        peer: Some(controller.peer.clone()),
        certified_until: certified_until(id),
        connections_until: shown.get(id).copied(),
        connected: None,
        error: None,
        lag: None,
    }));
    json(&ClusterAnswer {
        fleet: control.fleet.as_ref().map(|fleet| fleet.name.clone()),
        root: control.fleet.as_ref().map(|fleet| fleet.root.clone()),
        epoch: control.fleet.as_ref().map_or(0, |fleet| fleet.epoch),
        term: status.term,
        leader: status.leader,
        answered_by: status.id,
        seq: status.seq,
        missing: status.missing,
        controllers,
    })
}

pub(super) async fn add_member(handle: &Handle, asked: &Asked) -> Answered {
    let request: AddMemberRequest = asked.body()?;
    let id = request.controller;
    let why = Why { reason: request.reason, links: request.links };
    match request.certified {
        Some(Certified { certificate, .. }) if certificate.body.controller != id => {
            let detail =
                format!("the certificate is of controller {}, not of {id}", certificate.body.controller);
            return Err(Failure::invalid(detail));
        }
        // First who it is, then that it takes part: its peers must know whom they speak to.
        Some(Certified { certificate, api, peer }) => {
            asked.submit(handle, Command::CertifyController { certificate, api, peer }, None, why).await?;
        }
        // All that is logged then is what the controllers find: that it takes part.
        None if asked.state.control.controllers.contains_key(&id) => asked.refuse_why(&why)?,
        None => {
            return Err(Failure::not_found(format!("the log does not know controller {id}"))
                .with_next(format!("stele cluster add {id} --config controller-{id}/controller.json")));
        }
    }
    handle.add_member(id).await?;
    overview(handle).await
}

pub(super) async fn remove_member(handle: &Handle, asked: &Asked) -> Answered {
    let RemoveMemberRequest { reason, links, lose_records } = asked.body_or_default()?;
    let id: ControllerId = asked.path("id")?;
    let command = Command::ForgetController { controller: id };
    let request = asked.submission(handle, command, None, Why { reason, links }).await?;
    // What would be refused once it has left must be refused while it still takes part.
    let state = handle.read(Consistency::Linearizable).await?;
    if admit(&state, &request, handle.now())?.is_some() {
        return overview(handle).await;
    }
    let control = &state.control;
    let is_member = control.voters.contains(&id) || control.learners.contains(&id);
    if !is_member && !control.controllers.contains_key(&id) {
        return Err(
            Failure::not_found(format!("there is no controller {id}")).with_next("stele cluster status")
        );
    }
    if is_member {
        handle.remove_member(id, lose_records).await?;
        wait_until_left(handle, id).await?;
    }
    asked.submit_as_is(handle, request).await?;
    overview(handle).await
}

/// Its key is forgotten only once the log says that it takes no part any more.
async fn wait_until_left(handle: &Handle, id: ControllerId) -> Result<(), Failure> {
    let mut watch = handle.watch();
    let left = watch.wait_for(|published| {
        let control = &published.state.control;
        !control.voters.contains(&id) && !control.learners.contains(&id)
    });
    match tokio::time::timeout(LEAVE_DEADLINE, left).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Failure::new(
            ProblemKind::OutcomeUnknown,
            format!("controller {id} was asked to leave, and is not known to have left yet"),
        )
        .with_next(format!("stele cluster remove {id}"))),
    }
}

pub(super) async fn transfer_leader(handle: &Handle, asked: &Asked) -> Answered {
    let request: LeaderRequest = asked.body()?;
    asked.refuse_why(&Why::default())?;
    handle.transfer_leader(request.controller).await?;
    overview(handle).await
}
