use std::path::PathBuf;

use stele_bus::join::JoinLineError;

/// Why the agent cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another agent works with the data directory.
    #[error("another stele-agent is running with {}", .0.display())]
    Locked(PathBuf),
    /// There is nothing to run yet.
    #[error("{} belongs to no node yet; join a fleet first: stele-agent join TOKEN --name NAME --data {}", .0.display(), .0.display())]
    NotJoined(PathBuf),
    /// The data directory belongs to a node already.
    #[error(
        "{} already belongs to node {node} of fleet {fleet}; use another --data, or delete it to give that node up",
        .path.display()
    )]
    AlreadyJoined {
        /// The data directory.
        path: PathBuf,
        /// Its node.
        node: String,
        /// Its fleet.
        fleet: String,
    },
    /// The join token cannot be read.
    #[error(transparent)]
    Token(#[from] JoinLineError),
    /// A controller answered no.
    #[error("the controller at {controller} refused: {why}")]
    Refused {
        /// Which.
        controller: String,
        /// Its words.
        why: String,
    },
    /// No controller could be asked.
    #[error("no controller could be reached:\n{0}")]
    Unreachable(String),
    /// The answer must not be trusted.
    #[error("the answer from {controller} is not believed: {why}")]
    NotBelieved {
        /// Which.
        controller: String,
        /// Why not.
        why: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// NATS is configured wrongly.
    #[error("NATS cannot be used: {0}")]
    Bus(#[from] stele_bus::Error),
    /// The container engine is configured wrongly.
    #[error("the container engine cannot be used: {0}")]
    Engine(String),
    /// Part of the agent ended by itself, which is a bug: better to be started anew.
    #[error("a part of the agent ended unexpectedly: {0}")]
    Broken(String),
}

impl Error {
    /// What the process exits with: 3 when the data directory is taken, 4 when it belongs to no
    /// node, 5 when a controller refused, 6 when none was reached, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked(_) => 3,
            Self::NotJoined(_) => 4,
            Self::Refused { .. } | Self::NotBelieved { .. } | Self::AlreadyJoined { .. } => 5,
            Self::Unreachable(_) => 6,
            _ => 1,
        }
    }
}
