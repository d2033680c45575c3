//! Every bound this crate enforces, each with its unit.

/// Longest name of a project, app, environment, region, node or service, in bytes (RFC 1123 label).
pub const NAME_BYTES_MAX: usize = 63;
/// Certificates whose signatures a thread remembers to have verified.
pub const VOUCHED_MAX: usize = 16;
/// So many names a thread remembers, to keep equal ones once, and so many apps, slots and digests: 32 KiB for where
/// those of a kind are, and what those take that nobody else has any more.
pub const RECENT_TEXTS_MAX: usize = 4096;
/// Longest environment variable or label key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest environment value, in bytes.
pub const ENV_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Largest content of one config file, in bytes.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Most environment variables of one service.
pub const ENV_COUNT_MAX: usize = 512;
/// Most config files of one service.
pub const FILES_COUNT_MAX: usize = 64;
/// Most services of one app.
pub const SERVICES_COUNT_MAX: usize = 64;
/// Most replicas of one service.
pub const REPLICAS_MAX: u32 = 10_000;
/// Most ports of one service.
pub const PORTS_COUNT_MAX: usize = 64;
/// Most volumes of one service.
pub const VOLUMES_COUNT_MAX: usize = 64;
/// Most labels of a node or container.
pub const LABELS_COUNT_MAX: usize = 64;
/// Largest payload of one record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Changes of slots, assignments or nodes in one record: as many as have room for the nodes' names in its header.
pub const CHANGES_PER_RECORD_MAX: usize = 512;
/// What nodes are told in one record, in bytes as [`ASSIGNMENT_BYTES`] counts them: well below a payload, whatever
/// encoding adds.
pub const ASSIGNED_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
/// More than a change of what a node is told takes in a record without the versions of its secrets, in bytes: names
/// are the most of it.
pub const ASSIGNMENT_BYTES: usize = 1024;
/// What nodes told in one record, in bytes of text and `REPORTED_INSTANCE_BYTES` for each instance: well below a
/// payload, whatever encoding adds.
pub const REPORTED_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
/// More than an instance takes in a record without its reason and log lines, in bytes: names are the most of it.
pub const REPORTED_INSTANCE_BYTES: usize = 512;
/// Names of the nodes that told, and of the apps they told of, in one record's header, in bytes: the rest of a header
/// has room beside them.
pub const REPORTED_SCOPES_BYTES_MAX: usize = HEADER_BYTES_MAX / 4 * 3;
/// What a rollback could not bring back as it was, in one record, in bytes of text and `DEVIATION_BYTES` for each: well
/// below a payload, whatever encoding adds.
pub const DEVIATIONS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
/// More than encoding adds to a deviation, in bytes.
pub const DEVIATION_BYTES: usize = 32;
/// Largest encoded decision (all records of one command), in bytes.
pub const DECISION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest record header, in bytes (a leaf must stay a C2SP tlog-tiles entry).
pub const HEADER_BYTES_MAX: usize = 60_000;
/// Longest `reason` or link, in bytes.
pub const REASON_BYTES_MAX: usize = 4096;
/// Longest name of a subject that values are sealed for, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Most subjects whose keys can be destroyed.
pub const ERASED_SUBJECTS_MAX: usize = 1_000_000;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// How long an idempotency key is remembered, in microseconds of log time (24 hours).
pub const IDEMPOTENCY_WINDOW_US: u64 = 24 * 3600 * 1_000_000;
/// Most idempotency keys remembered at once.
pub const IDEMPOTENCY_COUNT_MAX: usize = 100_000;
/// Log lines kept of a failed instance.
pub const LOG_TAIL_LINES_MAX: usize = 50;
/// Longest line kept of a failed instance's log, in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Most instances one node may be assigned.
pub const INSTANCES_PER_NODE_MAX: usize = 1000;
/// Longest name of an image's repository in a mirror, in bytes; a longer one is hashed.
pub const REPOSITORY_BYTES_MAX: usize = 200;
/// Most images a node is told to keep. With more, it is told to remove none.
pub const KEPT_IMAGES_MAX: usize = 4096;
/// Releases of an app that are kept however long ago they were in force, the one in force included.
pub const RELEASES_KEPT_MIN: usize = 3;
/// Most changes of target kept per app and environment for `history` and points such as `v3`.
pub const CHANGES_PER_APP_MAX: usize = 1000;
/// Most barriers remembered per app and environment; the oldest are forgotten.
pub const BARRIERS_PER_APP_MAX: usize = 1000;
/// Most rollbacks that wait for somebody's review; the oldest are forgotten.
pub const REVIEWS_OWED_MAX: usize = 10_000;
/// Most points marked bad in a fleet at once.
pub const MARKED_BAD_MAX: usize = 10_000;
/// Decisions that one undo takes back at most.
pub const UNDO_DECISIONS_MAX: usize = 100;
/// Records in the answer to a why.
pub const WHY_STEPS_MAX: usize = 64;
/// Records of one decision looked at to say why; of a larger one, those near the record in question.
pub const WHY_DECISION_RECORDS_MAX: usize = 64;
/// Finished deployments kept in State per app and environment (the log keeps them all).
pub const DEPLOYMENTS_PER_APP_MAX: usize = 100;
/// Refusals logged per principal in one window; later ones are only counted.
pub const REFUSALS_PER_WINDOW_MAX: u32 = 10;
/// Window of the refusal limit, in microseconds of log time (one minute).
pub const REFUSAL_WINDOW_US: u64 = 60 * 1_000_000;
/// Shortest life of a token, in seconds.
pub const TOKEN_LIFE_SECONDS_MIN: u64 = 60;
/// Longest life of a token, in seconds (one year).
pub const TOKEN_LIFE_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// A node's statement older than this says nothing about now, nor does one from a clock that is so
/// far from the controller's. Microseconds (30 seconds).
pub const STATEMENT_AGE_US_MAX: u64 = 30 * 1_000_000;
/// A container not inspected for longer than this before its node's statement is not vouched for by it.
/// Microseconds (5 minutes).
pub const INSPECTION_AGE_US_MAX: u64 = 5 * 60 * 1_000_000;
/// Instances that differ named in one statement; more are only counted.
pub const STATEMENT_DIFFERENCES_MAX: usize = 8;
/// Longest reason in a statement, in bytes.
pub const STATEMENT_REASON_BYTES_MAX: usize = 200;

/// Boots of agents from this on were drawn by chance, by agents that kept no count of them. Those that do take the
/// microseconds since 1970 where that is higher, which are less than this for some centuries.
pub const UNORDERED_BOOT_MIN: u64 = 1 << 53;
/// Most removed controllers that nodes are told of: those with the highest ids.
pub const REMOVED_CONTROLLERS_MAX: usize = 1024;
