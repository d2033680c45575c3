//! Every limit of the developer commands.

use std::time::Duration;

/// How long `dockerd` may take until it answers.
pub(crate) const DOCKER_START_DEADLINE: Duration = Duration::from_secs(90);

/// How long one call of `docker` may take, in seconds; a daemon that hangs would hang setup.
pub(crate) const DOCKER_CALL_SECONDS: u32 = 60;

/// How long the registry may take until it answers.
pub(crate) const REGISTRY_START_DEADLINE: Duration = Duration::from_secs(20);

/// How long a service may take to end after it was asked to.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How long to wait between two looks at something another process is to do.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a connection to a local service may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a local service may take for an answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read; none that is looked at comes near.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Lines of a service's log that an error quotes.
pub(crate) const LOG_TAIL_LINES: usize = 20;

/// Lines of one source file. A longer one holds more than one idea.
pub(crate) const MAX_FILE_LINES: usize = 700;
