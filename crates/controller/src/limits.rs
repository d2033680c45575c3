//! Every bound this crate enforces, each with its unit.

use std::time::Duration;

pub use stele_ledger::limits::MILESTONE_INTERVAL_RECORDS;
use stele_model::limits::{KEPT_IMAGES_MAX, REPOSITORY_BYTES_MAX};

/// Requests and messages waiting for the replica's thread; more are answered 429.
pub const INPUT_QUEUE_MAX: usize = 8192;
/// Inputs taken in before Raft gets a turn.
pub const INPUTS_PER_TURN_MAX: usize = 1024;
/// How long what Raft has ready is worked off before inputs are taken in again: others take a leader that they
/// do not hear for dead.
pub const READY_TURN_MAX: Duration = Duration::from_millis(50);
/// How long inputs are taken in before what Raft has ready is worked off.
pub const INPUTS_TURN_MAX: Duration = Duration::from_millis(50);
/// How long a follower may not hear of a commit because nothing is proposed after it.
pub const COMMIT_RIDE_MAX: Duration = Duration::from_millis(1);
/// Least time between two times that the work beside is told of what was committed: it looks at all that came
/// meanwhile at once.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);
/// How much the threads for nodes give way to those that Raft and requests need: a quarter of their share of a
/// processor, where there are not enough (`nice(2)`).
pub const NODES_NICENESS: i32 = 6;
/// One Raft tick.
pub const TICK: Duration = Duration::from_millis(100);
/// Silence of a leader after which it is said that it is still there, while its replica's thread computes: what is
/// between two heartbeats (`HEARTBEAT_TICKS`).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// Who leads and says nothing itself for longer is taken to hang, and its office is not kept up any more.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Computing that is worth a line in the log.
pub const SLOW_COMPUTING: Duration = Duration::from_millis(500);
/// Between two looks at deadlines, lost nodes and learners.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);
/// Longest a write waits for its commit, leader changes included.
pub const SUBMIT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to find a leader.
pub const SUBMIT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Longest a linearizable read waits for its quorum.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);
/// After which an unanswered ReadIndex is asked again.
pub const READ_RETRY_INTERVAL: Duration = Duration::from_millis(300);
/// How long the conductor looks at apps before others get a turn: Raft's messages must not wait for long.
pub const CONDUCTOR_TURN_MAX: Duration = Duration::from_millis(20);
/// How many times as long as it looked at apps in vain the conductor rests: of a large fleet every report is a
/// reason to look again, and that must not take the whole of the thread.
pub const CONDUCTOR_REST_FACTOR: u32 = 19;
/// What it looked at in vain for less time is free.
pub const CONDUCTOR_FREE: Duration = Duration::from_micros(200);
/// Commands the conductor gives before others get a turn.
pub const CONDUCTOR_COMMANDS_PER_TURN_MAX: usize = 1000;
/// Records between two snapshots of State, at least. More pass while State is larger than they are.
pub const SNAPSHOT_INTERVAL_RECORDS: u64 = 10_000;
/// After a snapshot did not come to be, because the disk had no room for it, until another one is tried.
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);
/// What Raft and the transport put around a snapshot when it is sent, in bytes, at most.
pub const SNAPSHOT_HEAD_BYTES_MAX: usize = 512 * 1024;
/// After State was too large for a snapshot, until another one is tried: to encode it is much work.
pub const SNAPSHOT_TOO_LARGE_RETRY: Duration = Duration::from_mins(10);
/// Raft entries kept behind a snapshot, for followers that are a little behind; fewer where the store does not have
/// so many in memory.
pub const ENTRIES_KEPT_BEHIND_SNAPSHOT: u64 = 1_000;
/// States of milestones that wait to be kept, most. Further ones are made of the records again.
pub const REACHED_MAX: usize = 16;
/// Milestones between two of the next level. A milestone is kept as what differs from the one before it of
/// its level or a higher one, so that one read puts on few differences, however long the log.
pub const MILESTONE_BRANCHING: u64 = 4;
/// Levels of milestones, of which the lowest one is kept in memory that there is room for.
pub const ANCHOR_LEVELS: std::ops::RangeInclusive<u32> = 1..=8;
/// Past States kept in memory where nothing is configured, most, in bytes, as estimated by [`PAST_FACT_BYTES`]. Beyond
/// it, those of the lowest level are forgotten, and read from the disk again.
pub const PAST_MEMORY_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// They take at most one part of so many of what memory the controller may use.
pub const PAST_MEMORY_SHARE: u64 = 8;
/// What may be configured for them, in MiB.
pub const PAST_MEMORY_MIB: std::ops::RangeInclusive<u64> = 16..=1024 * 1024;
/// Milestones kept in memory besides, because they were read lately.
pub const PAST_RECENT_MAX: usize = 16;
/// Differences that are held to rebuild what is about some apps at a point of the past, and as much of records, in
/// bytes as they are stored; what their headers name may take three times as much beside. Where there are more, State
/// is rebuilt as a whole.
pub const PAST_HELD_BYTES: usize = 32 * 1024 * 1024;
/// States kept in memory that were rebuilt lately. Most of each is shared with others.
pub const PAST_REBUILT_MAX: usize = 4;
/// What one fact in which a State differs from its neighbour takes in memory, about, in bytes: with the
/// nodes of the maps that are copied for it.
pub const PAST_FACT_BYTES: usize = 1024;
/// Bytes of records read from the store at once: enough that seeking costs little, and so few that what is read fits
/// a processor's cache and memory that is warm. By four MiB at a time, a busy leader spent a tenth of its processor time
/// on fresh pages of memory.
pub const RECORDS_PER_READ_BYTES: usize = 256 * 1024;
/// Bytes of records folded before the store is asked anew: what it writes and deletes meanwhile it keeps until then.
pub const RECORDS_PER_FOLD_BYTES: usize = 16 * 1024 * 1024;
/// States of the past looked at for what State forgot; each knows as many changes and deployments of an app as State
/// keeps.
pub const FORGOTTEN_STATES_MAX: usize = 64;
/// Records given in one answer of the API.
pub const RECORDS_PER_ANSWER_MAX: usize = 1000;
/// Least time between two checkpoints that a controller signs.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(250);
/// Most time that is waited on purpose between two checkpoints, however dear they are.
pub const CHECKPOINT_INTERVAL_MAX: Duration = Duration::from_millis(900);
/// How many times as long as making or comparing a checkpoint took is waited before the next: bounds its
/// share of a processor.
pub const CHECKPOINT_PAUSE_FACTOR: u32 = 9;
/// Longest a proof of convergence waits for a checkpoint of its State.
pub const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks at what the other controllers sign.
pub const CHECKPOINT_COMPARE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest the others are not asked, however dear a comparison was.
pub const CHECKPOINT_COMPARE_REST_MAX: Duration = Duration::from_secs(10);
/// Between two checkpoints written into the published folder.
pub const CHECKPOINT_PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// States of a controller's newest checkpoints kept in memory, to compare others' with.
pub const CHECKPOINT_STATES_KEPT: usize = 16;
/// How many of them are kept whatever they differ in, for controllers that are a little behind.
pub const CHECKPOINT_STATES_KEPT_MIN: usize = 3;
/// Facts in which further ones may differ, all together: each takes up to some KiB, with the nodes of the maps
/// that are copied for it.
pub const CHECKPOINT_FACTS_KEPT: usize = 10_000;
/// Published checkpoints for which cosignatures are looked for: the newest ones.
pub const COSIGNATURES_AWAITED_MAX: usize = 600;
/// Longest a git command on the published folder may take.
pub const GIT_DEADLINE: Duration = Duration::from_secs(30);
/// A node not heard of for this long is lost.
pub const NODE_GRACE: Duration = Duration::from_secs(30);
/// Between two times that nodes are told which controllers were removed: one that was away knows it so long after it is
/// back at most.
pub const REMOVED_INTERVAL: Duration = Duration::from_secs(30);
/// How long the replica may be busy with something else before it is taken to have heard no node meanwhile.
pub const LISTENING_GAP_MAX: Duration = Duration::from_secs(5);
/// How long reports are collected into one record.
pub const REPORT_BATCH_WINDOW: Duration = Duration::from_millis(50);
/// Batches of reports that one controller has under way; what comes meanwhile is collected for the next.
pub const REPORT_BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Reports in one record.
pub const REPORTS_PER_BATCH_MAX: usize = 256;
/// Instances that the reports in one record tell of, about: a record holds no more.
pub const REPORTED_INSTANCES_PER_BATCH_MAX: usize = 2048;
/// Assignments made, signed and sent before others get their turn on the same thread.
pub const ASSIGNMENTS_PER_TURN: usize = 32;
/// How long a node that was sent an assignment is sent no newer one, for each instance in it.
pub const ASSIGNMENT_REST_PER_INSTANCE: Duration = Duration::from_millis(3);
/// Longest that a changed assignment waits because the node was sent another just before.
pub const ASSIGNMENT_REST_MAX: Duration = Duration::from_secs(1);
/// Longest that assignments wait because more is to be assigned, which may be to the same nodes.
pub const ASSIGNMENTS_HELD_MAX: Duration = Duration::from_secs(2);
/// Between the first two offers of an assignment to a node that is behind; doubled at each further one.
pub const RESEND_INTERVAL: Duration = Duration::from_secs(5);
/// Longest until the next heartbeat of such a node has it offered again. A node that reconnects asks by itself.
pub const RESEND_INTERVAL_MAX: Duration = Duration::from_secs(20);
/// Bytes of specs that are measured to tell what assignments take, before it is told of those measured so far alone:
/// for one that is published, and for all that a question for the status asks about.
pub const SIZED_SPECS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Nodes of which a question for the status looks up which images they keep, because that may make their assignments
/// too large.
pub const SIZED_IMAGES_MAX: usize = 256;
/// What the images that a node keeps take of its assignment, most, in bytes.
pub const KEPT_IMAGES_BYTES_MAX: usize = KEPT_IMAGES_MAX * (REPOSITORY_BYTES_MAX + 128);
/// Longest a registry may take to resolve a tag.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(15);
/// Longest a request to another controller may take.
pub const PEER_REQUEST_DEADLINE: Duration = Duration::from_secs(8);
/// Between two lines in the log that say why a learner does not vote yet.
pub const LEARNER_NOTICE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest another controller may take to say which records it has.
pub const HISTORY_DEADLINE: Duration = Duration::from_secs(2);
/// Longest that one removal keeps another waiting. It ends before whoever asked another controller for it gives up.
pub const REMOVAL_DEADLINE: Duration = Duration::from_secs(3);
/// Between two looks of a leader that lacks records whether another controller lacks fewer.
pub const HAND_OVER_INTERVAL: Duration = Duration::from_secs(10);
/// Longest between two such looks, after some that led to nothing lasting.
pub const HAND_OVER_INTERVAL_MAX: Duration = Duration::from_mins(10);
/// How many records such a controller may be behind.
pub const HAND_OVER_LAG_RECORDS_MAX: u64 = 1_000;
/// Life of a controller's certificates, for its signatures and for TLS: 5 years.
pub const CERTIFICATE_LIFE: Duration = stele_peer::ca::CERTIFICATE_VALIDITY;
/// For how long a new administrator that was left beside a controller's configuration may be made known.
pub const NEW_ADMIN_LIFE: Duration = Duration::from_hours(24);
/// Before the end of a controller's certificates, from when on it is a problem, and is said at each start.
pub const CERTIFICATE_WARNING: Duration = Duration::from_hours(90 * 24);
/// Before the end of the last administrator's token, from when on it is a problem: without one, nobody makes another.
pub const TOKEN_WARNING: Duration = Duration::from_hours(30 * 24);
/// Free space below which a controller's disk gets full, in bytes (8 GiB): enough for days of a busy fleet's records.
pub const DISK_FREE_WARNING_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// The same as a part of the file system, in percent. Both must be so: of a large disk a few percent are much, and a small
/// one may be meant to be small.
pub const DISK_FREE_WARNING_PERCENT: u64 = 10;
/// Between two looks at how much room the disk has.
pub const DISK_INTERVAL: Duration = Duration::from_mins(1);
/// Between two lines in the log that say that the disk gets full.
pub const DISK_NOTICE_INTERVAL: Duration = Duration::from_hours(1);
/// Renewals of one controller's certificates in a day, each with files of its own.
pub const RENEWALS_PER_DAY_MAX: u32 = 99;
/// Longest time a controller may take to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Longest a client of the API may take for its TLS handshake.
pub const TLS_HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections to the API at once, at most; fewer where this process may not open so many files.
pub const API_CONNECTIONS_MAX: usize = 4096;
/// The same, at least.
pub const API_CONNECTIONS_MIN: usize = 64;
/// Open files that a controller asks the system for.
pub const FILES_WANTED: u64 = 65_536;
/// Open files that connections to the API leave to the log, other controllers and NATS.
pub const FILES_FOR_OTHERS: u64 = 768;
/// Longest until the head of a first or next request of a connection to the API is there; an answer may take longer.
/// More than clients keep connections for, so that it is mostly they who end them.
pub const API_IDLE_MAX: Duration = Duration::from_mins(2);
/// Longest head of a request to the API, in bytes.
pub const API_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Newest snapshots of State that are kept.
pub const SNAPSHOTS_KEPT: usize = 3;
/// Data keys in one answer to another controller.
pub const KEYS_PER_ANSWER_MAX: usize = 1024;
/// Between attempts to fetch the data keys of controllers that did not tell them.
pub const KEYS_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Between two times that a controller looks through all data keys of the others.
pub const KEYS_INTERVAL: Duration = Duration::from_hours(1);
/// Longest the leader gathers data keys of one controller before voters change.
pub const KEYS_GATHER_DEADLINE: Duration = Duration::from_secs(4);
/// Longest another controller may take then to keep what the leader has.
pub const KEYS_CONFIRM_DEADLINE: Duration = Duration::from_secs(3);
/// How long requests are told apart under one key, before another is used.
pub const REQUEST_KEY_LIFE: Duration = Duration::from_hours(6);
/// Between looks whether another is in use and an earlier one to be destroyed.
pub const REQUEST_KEYS_INTERVAL: Duration = Duration::from_mins(1);
/// Between attempts to destroy data keys that could not be destroyed.
pub const ERASURE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Longest an erasure's answer waits until every controller has destroyed its copies.
pub const ERASURE_CONFIRMATION_DEADLINE: Duration = Duration::from_secs(3);
/// Between looks whether they have.
pub const ERASURE_CONFIRMATION_INTERVAL: Duration = Duration::from_millis(50);
/// Most bytes of records read at once when the log is looked over for damage.
pub const SCRUB_CHUNK_BYTES: usize = 256 * 1024;
/// Between two such reads.
pub const SCRUB_PAUSE: Duration = Duration::from_millis(500);
/// Between the end of the log and its beginning, when it is looked over for damage.
pub const SCRUB_INTERVAL: Duration = Duration::from_hours(1);
/// Days for which images stay after what needs them was last in force, unless configured otherwise.
pub const IMAGE_RETENTION_DAYS: u32 = 30;
/// Most days that can be configured (ten years).
pub const IMAGE_RETENTION_DAYS_MAX: u32 = 3660;
/// Steps in which the retention window moves on.
pub const RETENTION_STEP: Duration = Duration::from_hours(1);
/// Rollbacks and undos in the window after which is looked what was pinned. With more, nodes are told to
/// remove no image.
pub const PIN_MOMENTS_MAX: usize = 10_000;
/// Images copied to the mirror at the same time.
pub const MIRROR_COPIES_MAX: usize = 2;
/// Longest one copy to the mirror may take.
pub const MIRROR_COPY_DEADLINE: Duration = Duration::from_mins(30);
/// Shortest pause before a copy that failed is tried again; doubled at each further failure.
pub const MIRROR_RETRY_INTERVAL_FIRST: Duration = Duration::from_secs(5);
/// Longest pause before a copy that failed is tried again.
pub const MIRROR_RETRY_INTERVAL_MAX: Duration = Duration::from_mins(15);
/// Between two looks whether the mirror still has an image.
pub const MIRROR_RECHECK_INTERVAL: Duration = Duration::from_hours(6);
/// Largest manifest that is copied, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most images (one for each platform) of one list that is copied.
pub const MANIFESTS_PER_IMAGE_MAX: usize = 64;
/// Most blobs of one image that is copied.
pub const BLOBS_PER_MANIFEST_MAX: usize = 512;
