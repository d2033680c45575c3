//! What is known of a container that the engine lists and does not answer for.

use bollard::models::ContainerSummary;
use stele_reconcile::{ContainerState, ObservedContainer};

use crate::host::{LABEL_INSTANCE, LABEL_SPEC};

/// As far as it is listed, and why no more is known. Nothing where its label does not name an instance.
pub(super) fn listed(listed: &ContainerSummary, why: String) -> Option<ObservedContainer> {
    let labels = listed.labels.as_ref()?;
    let created = listed.created.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    Some(ObservedContainer {
        id: listed.id.clone()?,
        instance: labels.get(LABEL_INSTANCE)?.parse().ok()?,
        spec_digest: labels.get(LABEL_SPEC).and_then(|text| text.parse().ok()),
        state: ContainerState::Unknown,
        exit_code: None,
        oom_killed: false,
        error: Some(why),
        restart_count: 0,
        created_ms: created.saturating_mul(1000),
        started_ms: None,
        stop_grace_seconds: 0,
        address: None,
        drift: None,
        left_out: None,
    })
}
