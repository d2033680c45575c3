//! Every bound this crate enforces, each with its unit.

/// Largest spec file read, in bytes.
pub const SPEC_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of a request, in bytes: a whole spec with its files inlined.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most commands of one `POST /v1/batch`.
pub const BATCH_COMMANDS_MAX: usize = 1000;
/// Deepest nesting of a spec or request body, in levels.
pub const DEPTH_MAX: usize = 32;
/// Most values that the aliases of a YAML spec may stand for, together; the start and end of a list or map count, too.
pub const ALIAS_VALUES_MAX: usize = 10_000;
/// Longest names above a value of a spec, together, for which its place in the file is remembered, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest unknown name for which the one that was meant is looked for, in bytes.
pub const UNKNOWN_NAME_BYTES_MAX: usize = 128;
/// Longest duration written in a spec, in milliseconds (24 hours).
pub const DURATION_MS_MAX: u64 = 24 * 3600 * 1000;
/// Most environments of one spec.
pub const ENVIRONMENTS_COUNT_MAX: usize = 64;
/// Longest time between asking a container to stop and killing it, in seconds (one hour).
pub const STOP_GRACE_SECONDS_MAX: u32 = 3600;
/// Most attempts of a health check before a container is unhealthy.
pub const HEALTH_RETRIES_MAX: u32 = 100;
/// Most CPUs a container may be bounded to, in thousandths.
pub const CPU_MILLIS_MAX: u64 = 1024 * 1000;
/// Least memory a container can be bounded to, in bytes (Docker's own minimum).
pub const MEMORY_BYTES_MIN: u64 = 6 * 1024 * 1024;
/// Events on one page of `GET /v1/events`, unless asked otherwise.
pub const EVENTS_PAGE_DEFAULT: usize = 100;
/// Most events on one page of `GET /v1/events`.
pub const EVENTS_PAGE_MAX: usize = 1000;
/// Most raw records on one page of `GET /v1/records`.
pub const RECORDS_PAGE_MAX: usize = 1000;
/// Entries of a history, unless asked otherwise.
pub const HISTORY_ENTRIES_DEFAULT: usize = 50;
/// Most entries of a history.
pub const HISTORY_ENTRIES_MAX: usize = 500;
/// Log lines sent of an instance, unless asked otherwise.
pub const LOG_TAIL_LINES_DEFAULT: u32 = 100;
/// Most log lines sent of an instance before following it.
pub const LOG_TAIL_LINES_MAX: u32 = 10_000;
/// Candidates a rollback without a point is offered.
pub const ROLLBACK_CANDIDATES_COUNT: usize = 5;
/// Most candidates for a rollback in one answer.
pub const ROLLBACK_CANDIDATES_MAX: usize = 20;
/// Life of a token unless asked otherwise, in seconds (90 days).
pub const TOKEN_LIFE_SECONDS_DEFAULT: u64 = 90 * 24 * 3600;
/// Life of a node's join token unless asked otherwise, in seconds (one hour).
pub const JOIN_TOKEN_LIFE_SECONDS_DEFAULT: u64 = 3600;
