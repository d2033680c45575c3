//! Every bound this crate enforces, each with its unit.

use std::time::Duration;

/// Largest message a NATS server must carry for Stele, in bytes: its `max_payload`.
pub const NATS_PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest signed assignment, in bytes as sent.
pub const ASSIGNMENT_BYTES_MAX: usize = NATS_PAYLOAD_BYTES_MAX;
/// Largest signed report, in bytes as sent.
pub const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest signed heartbeat, sync request or acknowledgement, in bytes as sent.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Largest signed question to a node, in bytes as sent: as many of the longest image names as may be asked for.
pub const QUESTION_BYTES_MAX: usize = 256 * 1024;
/// Largest signed answer of a node, in bytes as sent.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most images one question may name.
pub const ASKED_IMAGES_MAX: usize = 256;
/// Most ports one question may name.
pub const ASKED_PORTS_MAX: usize = 1024;
/// Most log lines one question may ask for.
pub const LOGS_LINES_MAX: u32 = 10_000;
/// How far a question may be from the node's clock, in microseconds (5 minutes).
pub const QUESTION_AGE_US_MAX: u64 = 5 * 60 * 1_000_000;

/// Longest wait for room in the client's send queue.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a controller's answer to a sync request.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one attempt to connect to one server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between pings on an idle connection; two unanswered ones end it.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Longest delay before the first attempt to connect, in milliseconds; doubled at each further one. After a lost
/// connection, the first attempt of a node is another matter: `AGENT_RECONNECT_SPREAD_MS`.
pub const RECONNECT_FIRST_MS: u64 = 200;
/// A node that lost its connection tries again after up to so many milliseconds, by chance: mostly the server is
/// gone, for all nodes at once. Each has its assignment confirmed then, and ten thousand of them at once keep
/// controllers and NATS from all else. A node that was cut off alone waits as long.
pub const AGENT_RECONNECT_SPREAD_MS: u64 = 5_000;
/// Longest delay between two attempts to connect, in milliseconds.
pub const RECONNECT_MS_MAX: u64 = 10_000;
/// Messages waiting to be sent by one controller.
pub const CONTROLLER_SEND_QUEUE: usize = 1024;
/// Messages waiting to be read, per subscription of a controller; more are dropped and healed by resending.
pub const CONTROLLER_RECEIVE_QUEUE: usize = 16 * 1024;
/// Messages waiting to be sent by one agent.
pub const AGENT_SEND_QUEUE: usize = 32;
/// Messages waiting to be read, per subscription of an agent; more are dropped and healed by sync.
pub const AGENT_RECEIVE_QUEUE: usize = 16;
/// Read buffer of an agent's connection, in bytes.
pub const AGENT_READ_BUFFER_BYTES: u16 = 8 * 1024;

/// How long the public feed keeps an event (30 days).
pub const FEED_AGE_MAX: Duration = Duration::from_hours(30 * 24);
/// Most bytes the public feed keeps.
pub const FEED_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Largest event on the public feed, in bytes; a larger one is announced without its content.
pub const FEED_EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long committed records are collected before they are published.
pub const FEED_LINGER: Duration = Duration::from_millis(5);
/// How long NATS recognises an event published twice by its id.
pub const FEED_DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// Longest a NATS server started here may take until it accepts connections.
pub const SERVER_START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between looks at a NATS server that is starting.
pub const SERVER_START_POLL: Duration = Duration::from_millis(20);
/// Longest first line read from a NATS server that is starting, in bytes.
pub const SERVER_GREETING_BYTES_MAX: u64 = 16 * 1024;
/// Most bytes of its own log a failed NATS server is quoted with.
pub const SERVER_LOG_QUOTE_BYTES: usize = 2 * 1024;

/// Longest join line, in bytes.
pub const JOIN_LINE_BYTES_MAX: usize = 16 * 1024;
/// Most controller addresses in a join line.
pub const JOIN_CONTROLLERS_MAX: usize = 16;
