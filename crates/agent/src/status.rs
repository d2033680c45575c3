//! What the host itself can tell while everything else is down.

use std::fmt::Write as _;

use stele_reconcile::Observation;

use crate::desired::Desired;
use crate::engine::AgentConfig;
use crate::error::Error;
use crate::identity::{Engine, Enrollment, Keys};

/// A page about the node, from its own files and its container engine alone.
pub async fn status(config: &AgentConfig) -> Result<String, Error> {
    let data = &config.data;
    let not_joined = || Error::NotJoined(data.path().to_owned());
    let enrollment = Enrollment::load(data)?.ok_or_else(not_joined)?;
    let keys = Keys::load(data)?.ok_or_else(not_joined)?;
    let agent = match data.lock() {
        Ok(_released) => "not running: containers run on, but nothing restarts or replaces them",
        Err(Error::Locked(_)) => "running",
        Err(error) => return Err(error),
    };
    let (desired, problem) = Desired::load(data.clone(), enrollment.pinned(), enrollment.epoch, keys.sealing);
    let mut page = String::new();
    let _ = writeln!(
        page,
        "node        {} in region {} of fleet {}",
        enrollment.node, enrollment.region, enrollment.fleet
    );
    let _ = writeln!(page, "root key    {}", enrollment.root);
    let _ = writeln!(page, "agent       {agent}");
    let version = desired.version();
    match (&problem, desired.assignment()) {
        (Some(why), _) => {
            let _ = writeln!(page, "assignment  LOST: {why}; containers are left as they are until sync");
        }
        (None, None) => {
            let _ = writeln!(page, "assignment  none was ever verified; containers are left as they are");
        }
        (None, Some(assignment)) => {
            let count = assignment.instances.len();
            let _ = writeln!(
                page,
                "assignment  epoch {}, seq {}, {count} instances, {}; verified",
                version.epoch, version.seq, version.digest
            );
        }
    }
    if let Some(images) = desired.assignment().and_then(|assignment| assignment.images.as_ref()) {
        let keeps = images.keep.as_ref().map_or_else(
            || "what to keep is not known, so none is removed".to_owned(),
            |keep| format!("{} are kept for what runs and for rollbacks", keep.len()),
        );
        let mirror = images.mirror.as_deref().map_or_else(String::new, |mirror| format!("; mirror {mirror}"));
        let _ = writeln!(page, "images      {keeps}{mirror}");
    }
    if enrollment.engine == Engine::Simulated {
        page.push_str("containers  simulated, in the agent's memory\n");
        return Ok(page);
    }
    match config.engine(&enrollment)?.observe().await {
        Ok(observation) => containers(&mut page, &desired, &observation),
        Err(error) => {
            let _ = writeln!(page, "containers  cannot be seen: {error}");
        }
    }
    Ok(page)
}

fn containers(page: &mut String, desired: &Desired, observation: &Observation) {
    let assigned = desired.assignment().map_or(&[][..], |assignment| &assignment.instances);
    let mut rows = Vec::new();
    for instance in assigned {
        let container = observation.of(&instance.id);
        let state =
            container.map_or_else(|| "missing".to_owned(), |one| format!("{:?}", one.state).to_lowercase());
        let id = container.map_or("-", |one| one.id.get(..12).unwrap_or(&one.id));
        rows.push((instance.id.to_string(), id.to_owned(), state));
    }
    for container in observation.containers() {
        if !assigned.iter().any(|instance| instance.id == container.instance) {
            let state = format!("{:?}, not assigned", container.state).to_lowercase();
            let id = container.id.get(..12).unwrap_or(&container.id);
            rows.push((container.instance.to_string(), id.to_owned(), state));
        }
    }
    if rows.is_empty() {
        page.push_str("containers  none\n");
        return;
    }
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(8);
    let _ = writeln!(page, "\n{:width$}  {:12}  STATE", "INSTANCE", "CONTAINER");
    for (name, id, state) in rows {
        let _ = writeln!(page, "{name:width$}  {id:12}  {state}");
    }
    page.push_str(
        "\nIn an emergency work on containers directly, such as with: docker logs CONTAINER\n\
         The running agent undoes what differs from the assignment; stop it first to keep a change.\n",
    );
}
