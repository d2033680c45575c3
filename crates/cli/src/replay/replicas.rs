//! What every replica says of the log and of State.

use serde::Serialize;
use stele_api::ProblemKind;
use stele_api::wire::{CheckpointAnswer, ClusterAnswer, MemberRole, ShowAnswer};
use stele_model::{ControllerId, Digest, Seq};
use stele_proof::{Checkpoint, NoteError, SignedCheckpoint};

use super::divergence::Divergence;
use crate::client::{Client, origin, with_query};
use crate::commands::checkpoint::controller_keys;
use crate::context::Context;
use crate::exit::Failure;

/// One replica's word, at the seq it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Replica {
    /// Who says so.
    pub(crate) controller: ControllerId,
    /// As of which record.
    pub(crate) seq: Seq,
    /// The root of the Merkle tree over the records, when it was told in a checkpoint that it signed.
    pub(crate) root: Option<Digest>,
    /// State's digest.
    pub(crate) state: Digest,
}

/// A controller that could not be asked, and why.
pub(crate) type Unheard = (ControllerId, String);

/// Asks every controller of a fleet for its newest checkpoint. Those that cannot be asked are
/// listed with the reason; a checkpoint that does not verify is a divergence.
pub(crate) fn ask_all(client: &Client, context: &Context) -> Result<(Vec<Replica>, Vec<Unheard>), Failure> {
    let (mut replicas, mut unheard) = (Vec::new(), Vec::new());
    for (controller, own) in members(client, context)? {
        match own.and_then(|own| checkpoint(Some(controller), &own, context)) {
            Ok(replica) => replicas.extend(replica),
            Err(failure @ Failure::Diverged(_)) => return Err(failure),
            Err(failure) => unheard.push((controller, failure.to_string())),
        }
    }
    if !unheard.is_empty() {
        // Their own addresses may not be reachable from here, where those that were given are.
        for address in &context.addresses {
            let given = Client::new(&Context { addresses: vec![address.clone()], ..context.clone() })?;
            match checkpoint(None, &given, context) {
                Ok(replica) => replicas.extend(replica.filter(|replica: &Replica| {
                    let before = unheard.len();
                    unheard.retain(|(controller, _)| *controller != replica.controller);
                    unheard.len() < before
                })),
                Err(failure @ Failure::Diverged(_)) => return Err(failure),
                Err(_) => {}
            }
        }
    }
    Ok((replicas, unheard))
}

/// Asks every controller that gave no checkpoint for State's digest at a seq instead, which is its word alone. Those
/// that cannot be asked are listed once, with the reason.
pub(crate) fn compare_at(
    client: &Client,
    context: &Context,
    seq: Seq,
    heard: &[Replica],
    unheard: &mut Vec<Unheard>,
) -> Result<Vec<Replica>, Failure> {
    let mut replicas = Vec::new();
    for (controller, own) in members(client, context)? {
        if heard.iter().any(|replica| replica.controller == controller) {
            continue;
        }
        let query = [
            ("at", format!("seq:{seq}")),
            ("digest", "true".to_owned()),
            ("consistency", "stale".to_owned()),
        ]
        .map(|(name, value)| (name, Some(value)));
        let asked = own.and_then(|own| own.get::<ShowAnswer>(&with_query("/v1/show", &query)));
        let told = asked.and_then(|show| match show.state_digest {
            Some(state) => Ok((show.seq, state)),
            None => Err(Failure::Failed("it does not say what State was".to_owned())),
        });
        match told {
            // Nothing that it signed: why there is no checkpoint is told all the same.
            Ok((seq, state)) => replicas.push(Replica { controller, seq, root: None, state }),
            Err(_) if unheard.iter().any(|(named, _)| *named == controller) => {}
            Err(failure) => unheard.push((controller, failure.to_string())),
        }
    }
    Ok(replicas)
}

/// A controller, and how to talk to it alone.
pub(crate) type Member = (ControllerId, Result<Client, Failure>);

/// The controllers of a fleet, each on its own.
pub(crate) fn members(client: &Client, context: &Context) -> Result<Vec<Member>, Failure> {
    let cluster: ClusterAnswer = client.get("/v1/cluster?consistency=stale")?;
    let members = cluster.controllers.into_iter().filter(|it| it.role != MemberRole::Outside);
    let in_clear = |url: &str| url.starts_with("http://");
    let client_of = |api: Option<String>| match api {
        None => Err(Failure::Failed("the log does not know its address yet".to_owned())),
        // A token that came over TLS does not go on without it.
        Some(api) if in_clear(&api) && !context.addresses.iter().all(|it| in_clear(&origin(it))) => {
            Err(Failure::Failed(format!("its address {api} is without TLS")))
        }
        Some(api) => Client::new(&Context { addresses: vec![api], ..context.clone() }),
    };
    Ok(members.map(|member| (member.id, client_of(member.api))).collect())
}

/// A controller's newest checkpoint, as it signed it: this one's, or whoever's answers. None where controllers sign no
/// checkpoints, or have not yet.
fn checkpoint(of: Option<ControllerId>, own: &Client, context: &Context) -> Result<Option<Replica>, Failure> {
    let answer: CheckpointAnswer = match own.get("/v1/checkpoint") {
        Ok(answer) => answer,
        Err(Failure::Problem(problem)) if problem.known_kind() == Some(ProblemKind::NotFound) => {
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let controller = of.unwrap_or(answer.controller);
    let unfit = |why: &dyn std::fmt::Display| {
        let wanted = "one that it signed, with a key that the fleet's root certified";
        Divergence::new(answer.size, format!("checkpoint of controller {controller}"), why, wanted)
    };
    let signed: SignedCheckpoint = answer.note.parse().map_err(|error: NoteError| unfit(&error))?;
    let (keys, ..) = controller_keys(own, &answer, context.root.clone())?;
    let (by, _) = signed.verify(&keys, &[]).map_err(|error| unfit(&error))?;
    let Checkpoint { fleet, size, root, state, .. } = signed.checkpoint.clone();
    let name = Checkpoint::key_name(&fleet, controller);
    if !by.iter().any(|signed| signed.by.name() == name) {
        return Err(unfit(&format!("it is not signed by {name}")).into());
    }
    Ok(Some(Replica { controller, seq: size, root: Some(root), state }))
}
