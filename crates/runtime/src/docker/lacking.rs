//! What the host cannot do, because its kernel or its control groups do not: the engine leaves it out, and makes the
//! container all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::models::SystemInfo;

use super::{Docker, engine_error};
use crate::limits::LOOK_TIMEOUT_MS;
use crate::runtime::RuntimeError;

impl Docker {
    /// The keys of `HostConfig` that have no effect on this host, which stay the same until the host is started anew.
    /// None while the engine does not say, which costs no more than a container that is made once more.
    pub(super) async fn lacking(&self) -> BTreeSet<&'static str> {
        let limit = Duration::from_millis(LOOK_TIMEOUT_MS);
        let asked = self
            .lacking
            .get_or_try_init(async || Ok(of(&self.client().await?.info().await.map_err(engine_error)?)));
        let why = match tokio::time::timeout(limit, asked).await {
            Ok(Ok(lacking)) => return lacking.clone(),
            Ok(Err::<_, RuntimeError>(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOK_TIMEOUT_MS} ms"),
        };
        tracing::warn!(%why, "the engine does not say what its host can do");
        BTreeSet::new()
    }
}

fn of(info: &SystemInfo) -> BTreeSet<&'static str> {
    let keys: [(Option<bool>, &[&str]); 6] = [
        (info.memory_limit, &["Memory", "MemoryReservation"]),
        (info.pids_limit, &["PidsLimit"]),
        (info.cpu_cfs_period, &["CpuPeriod"]),
        (info.cpu_cfs_quota, &["CpuQuota"]),
        (info.cpu_shares, &["CpuShares"]),
        (info.cpu_set, &["CpusetCpus", "CpusetMems"]),
    ];
    // An engine that does not say is taken to be able to.
    keys.into_iter().filter(|(can, _)| *can == Some(false)).flat_map(|(_, keys)| keys).copied().collect()
}
