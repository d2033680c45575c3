//! Payloads as earlier schemas had them, read for ever and raised to the kinds of today.
//!
//! A structure here is frozen: logs that hold it exist. What it lacked is given the
//! meaning it had then, which is that nothing of the kind was said.

use serde::Deserialize;
use stele_model::event::{DeploymentKind, Deviation, TargetDigest};
use stele_model::release::Revision;
use stele_model::{AppEnv, Event, Header, Seq, Slot};

use crate::error::DecodeError;
use crate::record::decode_payload;

/// Number of the variant, which comes before the fields.
type Variant = u32;
const DEPLOYMENT_STARTED: Variant = 20;
const ROLLED_BACK: Variant = 26;

/// What a deployment could be in schema 1.
#[derive(Deserialize)]
enum DeploymentKind1 {
    Deploy,
    Configure,
    Rollback,
    Remove,
}

/// `deployment_started`, schema 1: a deployment raised no barrier.
#[derive(Deserialize)]
struct DeploymentStarted1 {
    app_env: AppEnv,
    kind: DeploymentKind1,
    from: Option<Revision>,
    to: Option<Revision>,
    now: bool,
}

/// `rolled_back`, schema 1: nothing was excepted, and only instances placed anew deviated.
#[derive(Deserialize)]
struct RolledBack1 {
    scope: String,
    point: String,
    seq: Seq,
    before: TargetDigest,
    after: TargetDigest,
    replaced: Vec<(Slot, String)>,
}

/// The event, if its header names an earlier schema that is known.
pub(crate) fn decode(header: &Header, payload: &[u8]) -> Option<Result<Event, DecodeError>> {
    match (header.kind.as_str(), header.schema) {
        ("deployment_started", 1) => Some(fields(payload, DEPLOYMENT_STARTED).map(|was| {
            let DeploymentStarted1 { app_env, kind, from, to, now } = was;
            let kind = match kind {
                DeploymentKind1::Deploy => DeploymentKind::Deploy,
                DeploymentKind1::Configure => DeploymentKind::Configure,
                DeploymentKind1::Rollback => DeploymentKind::Rollback,
                DeploymentKind1::Remove => DeploymentKind::Remove,
            };
            Event::DeploymentStarted { app_env, kind, from, to, now, barrier: None }
        })),
        ("rolled_back", 1) => Some(fields(payload, ROLLED_BACK).map(|was| {
            let RolledBack1 { scope, point, seq, before, after, replaced } = was;
            let deviations =
                replaced.into_iter().map(|(slot, why)| Deviation { what: slot.to_string(), why }).collect();
            Event::RolledBack { scope, except: Vec::new(), point, seq, before, after, deviations }
        })),
        _ => None,
    }
}

fn fields<T: serde::de::DeserializeOwned>(payload: &[u8], variant: Variant) -> Result<T, DecodeError> {
    let (found, fields) = decode_payload::<(Variant, T)>(payload)?;
    if found == variant {
        return Ok(fields);
    }
    Err(DecodeError::Malformed {
        what: "record",
        why: format!("its header says variant {variant}, its payload is variant {found}"),
    })
}
