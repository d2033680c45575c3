//! What every replica says of the log and of State.

use serde::{Deserialize, Serialize};
use stele_api::ProblemKind;
use stele_api::wire::{ClusterAnswer, MemberRole, ShowAnswer};
use stele_model::{ControllerId, Digest, Seq};

use crate::client::{Client, with_query};
use crate::context::Context;
use crate::exit::Failure;

/// One replica's word, at the seq it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Replica {
    /// Who says so.
    pub(crate) controller: ControllerId,
    /// As of which record.
    pub(crate) seq: Seq,
    /// The root of the Merkle tree over the records, when it was told in a checkpoint.
    pub(crate) root: Option<Digest>,
    /// State's digest.
    pub(crate) state: Digest,
}

/// What is read of a checkpoint. It is believed no more than the rest: all of it is compared.
#[derive(Deserialize)]
struct Told {
    size: u64,
    root: Digest,
    state: Digest,
}

/// A controller that could not be asked, and why.
pub(crate) type Unheard = (ControllerId, String);

/// Asks every controller of a fleet for its newest checkpoint. Those that cannot be asked are
/// listed with the reason.
pub(crate) fn ask_all(client: &Client, context: &Context) -> Result<(Vec<Replica>, Vec<Unheard>), Failure> {
    let (mut replicas, mut unheard) = (Vec::new(), Vec::new());
    for (controller, own) in members(client, context)? {
        match own.and_then(|own| checkpoint(controller, &own)) {
            Ok(replica) => replicas.extend(replica),
            Err(failure) => unheard.push((controller, failure.to_string())),
        }
    }
    Ok((replicas, unheard))
}

/// Asks every controller that gave no checkpoint for State's digest at a seq instead.
pub(crate) fn compare_at(
    client: &Client,
    context: &Context,
    seq: Seq,
    heard: &[Replica],
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
        // One that is behind or away was named already.
        let told = asked.ok().and_then(|show| Some((show.seq, show.state_digest?)));
        if let Some((seq, state)) = told {
            replicas.push(Replica { controller, seq, root: None, state });
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
        Some(api) if in_clear(&api) && !context.addresses.iter().all(|address| in_clear(address)) => {
            Err(Failure::Failed(format!("its address {api} is without TLS")))
        }
        Some(api) => Client::new(&Context { addresses: vec![api], ..context.clone() }),
    };
    Ok(members.map(|member| (member.id, client_of(member.api))).collect())
}

/// None where controllers sign no checkpoints, or have not yet.
fn checkpoint(controller: ControllerId, own: &Client) -> Result<Option<Replica>, Failure> {
    match own.get::<Told>("/v1/checkpoint") {
        Ok(Told { size, root, state }) => {
            Ok(Some(Replica { controller, seq: size, root: Some(root), state }))
        }
        Err(Failure::Problem(problem)) if problem.known_kind() == Some(ProblemKind::NotFound) => Ok(None),
        Err(failure) => Err(failure),
    }
}
