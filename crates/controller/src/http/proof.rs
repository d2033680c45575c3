//! Checkpoints, proofs and tiles of the log's tree.

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stele_api::ProblemKind;
use stele_api::wire::{
    CheckpointAnswer, ComparedCheckpoint, ConsistencyAnswer, ConsistencyQuery, InclusionAnswer,
    InclusionQuery,
};
use stele_proof::tile::TilePath;

use super::asked::Asked;
use super::failure::Failure;
use super::{Answered, json};
use crate::handle::Handle;
use crate::proof::TreeError;

/// A tile never changes. Only who holds a token may keep what needed one.
const KEPT_PRIVATELY: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
const KEPT_BY_ANYBODY: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) fn checkpoint(handle: &Handle, asked: &Asked) -> Answered {
    let proofs = handle.proofs();
    let signed = proofs.checkpoint().ok_or(TreeError::NoCheckpoint)?;
    let checkpoint = &signed.checkpoint;
    let verdicts = proofs.verdicts().into_iter();
    json(&CheckpointAnswer {
        controller: handle.id(),
        size: checkpoint.size,
        root: checkpoint.root,
        state: checkpoint.state,
        chain: checkpoint.chain,
        note: signed.to_string(),
        cosigned: proofs.cosigned().map(|cosigned| cosigned.to_string()),
        witnesses: proofs.witnesses().iter().map(ToString::to_string).collect(),
        certificates: asked.state.control.controllers.values().map(|it| it.certificate.clone()).collect(),
        compared: verdicts
            .map(|(controller, it)| ComparedCheckpoint { controller, size: it.size, differs: it.differs })
            .collect(),
    })
}

pub(super) async fn inclusion(handle: &Handle, asked: &Asked) -> Answered {
    let InclusionQuery { seq, size } = asked.query()?;
    let size = size_or_newest(handle, size)?;
    let index = seq.checked_sub(1).ok_or_else(|| Failure::invalid("records are counted from 1"))?;
    let (hashes, root) =
        handle.in_tree(move |proofs| Ok((proofs.inclusion(index, size)?, proofs.root(size)?))).await?;
    let leaf = handle.in_tree(move |proofs| proofs.leaf(seq)).await?;
    json(&InclusionAnswer { seq, size, leaf: STANDARD.encode(leaf), root, hashes })
}

pub(super) async fn consistency(handle: &Handle, asked: &Asked) -> Answered {
    let ConsistencyQuery { from, to } = asked.query()?;
    let to = size_or_newest(handle, to)?;
    let answer = handle.in_tree(move |proofs| {
        let hashes = proofs.consistency(from, to)?;
        Ok(ConsistencyAnswer { from, to, from_root: proofs.root(from)?, to_root: proofs.root(to)?, hashes })
    });
    json(&answer.await?)
}

fn size_or_newest(handle: &Handle, size: Option<u64>) -> Result<u64, Failure> {
    match size {
        Some(size) => Ok(size),
        None => Ok(handle.proofs().checkpoint().ok_or(TreeError::NoCheckpoint)?.checkpoint.size),
    }
}

/// `/log/checkpoint`: the signed note itself.
pub(super) fn log_checkpoint(handle: &Handle) -> Answered {
    let signed = handle.proofs().checkpoint().ok_or(TreeError::NoCheckpoint)?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], signed.to_string()).into_response())
}

/// `/log/tile/…`: hashes and entries.
pub(super) async fn log_tile(handle: &Handle, asked: &Asked) -> Answered {
    let rest: String = asked.path("tile")?;
    let path: TilePath = format!("tile/{rest}")
        .parse()
        .map_err(|error: stele_proof::ProofError| Failure::not_found(error.to_string()))?;
    let Some(bytes) = handle.in_tree(move |proofs| proofs.tile(&path)).await? else {
        return Err(Failure::not_found(format!("the log has not grown to {path} yet")));
    };
    let mut response = ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response();
    let kept = if asked.caller.is_some() { KEPT_PRIVATELY } else { KEPT_BY_ANYBODY };
    response.headers_mut().insert(CACHE_CONTROL, kept);
    Ok(response)
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        let kind = match &error {
            TreeError::Missing(_) | TreeError::NoCheckpoint => ProblemKind::Unavailable,
            TreeError::Proof(
                stele_proof::ProofError::Outside { .. } | stele_proof::ProofError::Order { .. },
            ) => ProblemKind::Invalid,
            _ => ProblemKind::Internal,
        };
        let failure = Self::new(kind, error.to_string());
        if kind == ProblemKind::Invalid { failure.with_next("stele checkpoint") } else { failure }
    }
}
