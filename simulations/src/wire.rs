//! What travels in a world, and on whose behalf.

use std::cell::OnceCell;
use std::rc::Rc;

use stele_ledger::Outcome;
use stele_model::event::TargetDigest;
use stele_model::wire::{Heartbeat, Signed};
use stele_model::{AppEnv, Command, ControllerId, Decision, PrincipalId, ReleaseChoice, Scope, Seq};

/// Who asked.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// A controller itself: it looks again anyway.
    Nobody,
    /// A client, at its so manieth attempt.
    Client {
        /// Which.
        client: usize,
        /// Tells its attempts apart.
        attempt: u64,
    },
    /// Somebody at another controller, which forwarded the question.
    Peer {
        /// Who forwarded it.
        controller: ControllerId,
        /// For whom.
        asker: Box<Asker>,
    },
    /// Nodes whose reports were decided together: node, boot, number.
    Reports(Vec<(usize, u64, u64)>),
}

/// What a client wants, before a controller has made a command of it.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// A command as it is.
    Command(Command),
    /// A scope as it was at a point, written as people write it.
    Rollback {
        /// An app, or a place of it.
        scope: Scope,
        /// The point.
        point: String,
    },
    /// A decision taken back.
    Undo(Decision),
    /// State now.
    Read,
    /// State at a point in the past.
    ReadAt(Seq),
}

/// A request as a client sends it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Who.
    pub(crate) principal: PrincipalId,
    /// The idempotency key of a write.
    pub(crate) key: String,
    /// What.
    pub(crate) want: Want,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// What became of a write.
    Outcome(Outcome),
    /// What was read.
    State {
        /// The last record in it.
        seq: Seq,
        /// The target of the whole fleet in it.
        target: TargetDigest,
        /// Each app's value of the one variable that clients set.
        values: Vec<(AppEnv, Option<String>)>,
    },
    /// Nobody could answer; nothing was decided.
    Unavailable,
}

/// What travels to a controller, from a client or another controller.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// Raft's own.
    Raft(Vec<u8>),
    /// A request of a client.
    Ask(Asker, Rc<Asked>),
    /// A request made into a command and forwarded to the leader.
    Forward(Asker, Box<stele_model::Request>),
    /// The answer to a forwarded one.
    Answer(Asker, Told),
    /// Wants records.
    WantRecords {
        /// First.
        from: Seq,
        /// Last.
        to: Seq,
    },
    /// Records, as they are stored.
    Records(Vec<(Seq, Vec<u8>)>),
}

/// A signed message of a node, opened once for all who hear it.
#[derive(Debug)]
pub(crate) struct Letter<T> {
    /// As it travels.
    pub(crate) signed: Signed,
    /// What it says, if its signature is its node's.
    pub(crate) opened: OnceCell<Option<T>>,
}

impl<T> Letter<T> {
    /// One that nobody has opened.
    pub(crate) fn new(signed: Signed) -> Rc<Self> {
        Rc::new(Self { signed, opened: OnceCell::new() })
    }
}

/// What a node sends on NATS.
#[derive(Clone, Debug)]
pub(crate) enum FromNode {
    /// A sign of life.
    Heartbeat(Rc<Letter<Heartbeat>>),
    /// A report.
    Report(Rc<Signed>),
    /// A question for its assignment; the number tells which the answer is to.
    Sync(Rc<Signed>, u64),
}

/// What a node hears on NATS.
#[derive(Clone, Debug)]
pub(crate) enum ToNode {
    /// An assignment.
    Assignment(Rc<Signed>),
    /// The answer to a sync request.
    Synced(u64, Option<Rc<Signed>>),
    /// An acknowledgement of a report.
    Acked(Rc<Signed>),
}

/// What a controller gives out.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    /// To another controller.
    Peer(ControllerId, Packet),
    /// To a client.
    Client(usize, u64, Told),
    /// To a node over NATS.
    Node(usize, ToNode),
}

impl Want {
    /// It in a line.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Command(Command::Deploy {
                app_env,
                release: ReleaseChoice::Content { release, .. },
                ..
            }) => {
                let services = release.services.iter().map(|(name, service)| {
                    let image = service.container.image.repository.rsplit('/').next().unwrap_or_default();
                    format!("{name}: {image} {:?} {:?}", service.placement, service.update)
                });
                format!("deploy {app_env}: {}", services.collect::<Vec<_>>().join("; "))
            }
            Self::Command(Command::EnrollNode { node, .. }) => format!("enrol {}", node.name),
            Self::Command(Command::CreateJoinToken { .. }) => "create a join token".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

impl Told {
    /// It in a line.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Outcome(Outcome::Done(answer)) => match answer.decision {
                Some(decision) => format!("decided at {} ({} records)", decision.first, decision.count),
                None => "nothing had to change".to_owned(),
            },
            Self::Outcome(Outcome::Rejected(rejection)) => format!("refused: {}", rejection.message),
            Self::State { seq, values, .. } => format!("record {seq}: {values:?}"),
            other => format!("{other:?}"),
        }
    }
}
