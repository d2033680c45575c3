use std::time::Duration;

/// Why something could not be sent, received or prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a NATS address.
    #[error("{url:?} is not a NATS address such as nats://nats.example.com:4222: {why}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No address was given.
    #[error("no NATS address is configured: give at least one, such as nats://nats.example.com:4222")]
    NoUrl,
    /// The region's subjects would be part of the public feed.
    #[error("no region may be called events: its subjects would be part of the public feed")]
    ReservedRegion,
    /// A message is over its bound; nothing was sent or believed.
    #[error("{what} of {bytes} bytes is too large: at most {max} bytes are allowed")]
    TooLarge {
        /// Which message.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The server would refuse the message.
    #[error(
        "{what} of {bytes} bytes is more than the NATS server carries: raise its max_payload from {max} to \
         {wanted}"
    )]
    ServerPayload {
        /// Which message.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The server's bound.
        max: usize,
        /// What Stele needs it to be.
        wanted: usize,
    },
    /// There is no connection at the moment; the client keeps trying.
    #[error("not connected to NATS at the moment")]
    Disconnected,
    /// Nothing came back in time.
    #[error("{what} was not answered within {} ms", .after.as_millis())]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Nobody listens there.
    #[error("nobody answers {what}: {hint}")]
    NoResponder {
        /// What was asked.
        what: &'static str,
        /// What that means.
        hint: &'static str,
    },
    /// The bytes are not the message expected.
    #[error("what arrived on {subject} is not {what}: {why}")]
    Malformed {
        /// Where it arrived.
        subject: String,
        /// Which message was expected.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A message that must be answered has no reply subject.
    #[error("{what} on {subject} does not say where to answer")]
    NoReply {
        /// Where it arrived.
        subject: String,
        /// Which message.
        what: &'static str,
    },
    /// NATS or its client failed.
    #[error("cannot {doing}")]
    Nats {
        /// What was being done.
        doing: &'static str,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The feed's source failed.
    #[error("the log could not be read for the public feed")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The source left a gap; the feed cannot be made right.
    #[error("the log gave record {found} where {expected} was due")]
    SourceGap {
        /// The seq that was due.
        expected: u64,
        /// The seq that came.
        found: u64,
    },
    /// Somebody else wrote to the feed, or it was replaced.
    #[error("the public feed is not what was published: {why}; it is looked at again")]
    FeedChanged {
        /// What showed it.
        why: String,
    },
    /// A NATS server could not be started.
    #[error("nats-server did not start: {why}")]
    Server {
        /// What went wrong, with the end of its log.
        why: String,
    },
    /// A file of the NATS server could not be written or read.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// Which file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn nats<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Nats { doing, source: source.into() }
    }
}
