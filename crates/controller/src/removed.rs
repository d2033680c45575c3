//! Telling nodes which controllers were removed: the root's word for a removed controller's key still holds, and
//! whoever stole that key could go on telling nodes what to run.

use stele_bus::purposes;
use stele_model::limits::REMOVED_CONTROLLERS_MAX;
use stele_model::wire::{RemovedControllers, Signed};

use crate::app::Published;
use crate::handle::Handle;
use crate::limits::REMOVED_INTERVAL;

/// Says it when it changes and from time to time, while this controller leads.
pub(crate) async fn run(handle: Handle) {
    let mut follow = handle.follow();
    loop {
        let published = follow.borrow_and_update().clone();
        let retired = &published.state.control.retired;
        if published.leads && !retired.is_empty() {
            let sent = handle.bus().publish_removed(&said(&handle, &published)).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "which controllers were removed is said again later");
            }
        }
        let has_changed = |now: &Published| {
            now.leads && (!published.leads || now.state.control.retired != published.state.control.retired)
        };
        tokio::select! {
            changed = follow.wait_for(has_changed) => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(REMOVED_INTERVAL) => {}
        }
    }
}

fn said(handle: &Handle, published: &Published) -> Signed {
    let retired = published.state.control.retired.iter().rev();
    let identity = handle.identity();
    let removed = RemovedControllers {
        fleet: identity.fleet.clone(),
        controllers: retired.take(REMOVED_CONTROLLERS_MAX).copied().collect(),
        at: handle.now(),
        controller: identity.certificate.clone(),
    };
    identity.sign(purposes::REMOVED, &removed)
}
