//! Nodes and tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use stele_api::ProblemKind;
use stele_api::limits::{JOIN_TOKEN_LIFE_SECONDS_DEFAULT, TOKEN_LIFE_SECONDS_DEFAULT};
use stele_api::wire::{
    LabelsRequest, NodeTokenAnswer, NodeTokenRequest, NodesAnswer, ReadQuery, TokenAnswer, TokenRequest,
    TokenStatus, TokensAnswer, WithdrawRequest,
};
use stele_bus::join::JoinLine;
use stele_model::event::{JoinToken, Token};
use stele_model::wire::Signed;
use stele_model::{Command, Digest, NodeName, PrincipalId, Scope, Time};

use super::asked::{Asked, Why};
use super::changes::changed;
use super::failure::Failure;
use super::limits::TOKEN_BYTES;
use super::status::{node as node_status, nodes as node_statuses, state_at, staying};
use super::{Answered, json};
use crate::handle::{Handle, SubmitError};
use crate::join::EnrollError;
use crate::keyring::random;

/// A new token's text. The prefix lets scanners of leaked secrets find it.
fn new_secret(prefix: &str) -> Result<String, Failure> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>()?)))
}

fn expiry(handle: &Handle, life_seconds: u64) -> Time {
    Time(handle.now().0.saturating_add(life_seconds.saturating_mul(1_000_000)))
}

/// A repeated request has another secret than the one that was decided: that one was shown once.
fn shown_once() -> Failure {
    Failure::new(
        ProblemKind::Conflict,
        "this was done before, under the same Idempotency-Key, and the secret was shown that once",
    )
    .with_next("make another with a new Idempotency-Key")
}

pub(super) async fn create_token(handle: &Handle, asked: &Asked) -> Answered {
    let request: TokenRequest = asked.body()?;
    let text = new_secret("stele_")?;
    let token = Token {
        principal: request.principal.clone(),
        hash: Digest::of(&[text.as_bytes()]),
        role: request.role,
        holder: request.holder,
        expires: expiry(handle, request.life_seconds.unwrap_or(TOKEN_LIFE_SECONDS_DEFAULT)),
    };
    if asked.answered_before(handle).await?.is_some() {
        return Err(shown_once());
    }
    let now = handle.now();
    let before = asked.state.control.tokens.get(&request.principal);
    let replaced = before.is_some_and(|token| token.expires > now);
    let why = Why { reason: request.reason, links: request.links };
    let command = Command::CreateToken { token: token.clone() };
    asked.submit(handle, command, None, why).await?;
    let state = handle.read(crate::handle::Consistency::Linearizable).await?;
    if !state.control.bearers.contains_key(&token.hash) {
        return Err(shown_once());
    }
    json(&TokenAnswer { principal: request.principal, token: text, expires: token.expires, replaced })
}

pub(super) async fn tokens(handle: &Handle, asked: &Asked) -> Answered {
    let query: ReadQuery = asked.query()?;
    let state = state_at(handle, &asked.state, &Scope::fleet(), query.at.as_deref()).await?;
    // In the past, what was believed then counts.
    let now = if query.at.is_some() { state.time } else { handle.now() };
    let tokens = state.control.tokens.values().map(|token| TokenStatus {
        principal: token.principal.clone(),
        role: token.role,
        holder: token.holder,
        expires: token.expires,
        expired: token.expires <= now,
    });
    json(&TokensAnswer { tokens: tokens.collect() })
}

pub(super) async fn revoke_token(handle: &Handle, asked: &Asked) -> Answered {
    let WithdrawRequest { reason, links } = asked.body_or_default()?;
    let principal: PrincipalId = asked.path("principal")?;
    let command = Command::RevokeToken { principal };
    let answer = asked.submit(handle, command, None, Why { reason, links }).await?;
    json(&changed(&answer))
}

pub(super) async fn create_node_token(handle: &Handle, asked: &Asked) -> Answered {
    let request: NodeTokenRequest = asked.body()?;
    let secret = new_secret("")?;
    let token = JoinToken {
        hash: Digest::of(&[secret.as_bytes()]),
        node: request.node,
        region: request.region,
        labels: request.labels,
        expires: expiry(handle, request.life_seconds.unwrap_or(JOIN_TOKEN_LIFE_SECONDS_DEFAULT)),
    };
    if asked.answered_before(handle).await?.is_some() {
        return Err(shown_once());
    }
    let why = Why { reason: request.reason, links: request.links };
    let command = Command::CreateJoinToken { token: token.clone() };
    asked.submit(handle, command, None, why).await?;
    let state = handle.read(crate::handle::Consistency::Linearizable).await?;
    if !state.control.join_tokens.contains_key(&token.hash) {
        return Err(shown_once());
    }
    let identity = handle.identity();
    let members = state.control.voters.iter().chain(state.control.learners.iter());
    let controllers: Vec<_> =
        members.filter_map(|id| Some(state.control.controllers.get(id)?.api.clone())).collect();
    if controllers.is_empty() {
        return Err(Failure::new(
            ProblemKind::Conflict,
            "no controller's address is in the log yet; ask again shortly",
        ));
    }
    let line = JoinLine {
        fleet: identity.fleet.clone(),
        root: identity.root.clone(),
        secret,
        controllers,
        tls_root: identity.api_authority.clone(),
    };
    json(&NodeTokenAnswer { line: line.to_string(), expires: token.expires })
}

pub(super) async fn nodes(handle: &Handle, asked: &Asked) -> Answered {
    let query: ReadQuery = asked.query()?;
    let state = state_at(handle, &asked.state, &Scope::fleet(), query.at.as_deref()).await?;
    json(&NodesAnswer { nodes: node_statuses(&state, &Scope::fleet()) })
}

pub(super) async fn node(handle: &Handle, asked: &Asked) -> Answered {
    let query: ReadQuery = asked.query()?;
    let name: NodeName = asked.path("node")?;
    let state = state_at(handle, &asked.state, &Scope::of_node(&name), query.at.as_deref()).await?;
    let Some(node) = state.control.nodes.get(&name) else {
        let then = query.at.map(|_| format!(" at seq:{}", state.seq)).unwrap_or_default();
        return Err(Failure::not_found(format!("there is no node {name}{then}")).with_next("stele node list"));
    };
    let mut status = node_status(&state, node);
    if query.at.is_none() {
        status.staying = staying(&state, &name);
    }
    json(&status)
}

pub(super) async fn label_node(handle: &Handle, asked: &Asked) -> Answered {
    let request: LabelsRequest = asked.body()?;
    let command = Command::LabelNode { node: asked.path("node")?, labels: request.labels };
    let why = Why { reason: request.reason, links: request.links };
    let answer = asked.submit(handle, command, None, why).await?;
    json(&changed(&answer))
}

pub(super) async fn remove_node(handle: &Handle, asked: &Asked) -> Answered {
    let WithdrawRequest { reason, links } = asked.body_or_default()?;
    let command = Command::RemoveNode { node: asked.path("node")? };
    let answer = asked.submit(handle, command, None, Why { reason, links }).await?;
    json(&changed(&answer))
}

pub(super) async fn drain_node(handle: &Handle, asked: &Asked) -> Answered {
    let WithdrawRequest { reason, links } = asked.body_or_default()?;
    let command = Command::DrainNode { node: asked.path("node")? };
    let answer = asked.submit(handle, command, None, Why { reason, links }).await?;
    json(&changed(&answer))
}

pub(super) async fn resume_node(handle: &Handle, asked: &Asked) -> Answered {
    let WithdrawRequest { reason, links } = asked.body_or_default()?;
    let command = Command::ResumeNode { node: asked.path("node")? };
    let answer = asked.submit(handle, command, None, Why { reason, links }).await?;
    json(&changed(&answer))
}

pub(super) async fn join(handle: &Handle, asked: &Asked) -> Answered {
    let signed: Signed = asked.body()?;
    match handle.join(&signed).await {
        Ok(answer) => json(&answer),
        Err(EnrollError::Request(error)) => Err(Failure::new(ProblemKind::Forbidden, error.to_string())),
        Err(EnrollError::Submit(error @ SubmitError::Rejected(_))) => {
            Err(Failure::from(error).with_next("stele node token --region REGION"))
        }
        Err(EnrollError::Submit(error)) => Err(error.into()),
    }
}
