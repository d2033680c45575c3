//! Every bound of the client, each with its unit.

use std::time::Duration;

/// How long one request may take, answer included, when it is not a stream.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long opening a connection may take before the next controller is tried.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a controller to say that it is there, where there are others to ask: one that stands still takes
/// connections and never answers.
pub(crate) const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an unanswered or refused-for-now request is tried again, under the same idempotency key.
pub(crate) const RETRY_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before the first repetition; it doubles up to [`RETRY_PAUSE_MAX`].
pub(crate) const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between repetitions.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between two looks at a deployment that is waited for.
pub(crate) const WAIT_PAUSE: Duration = Duration::from_millis(400);
/// How long a deployment is waited for unless asked otherwise.
pub(crate) const WAIT_DEFAULT: &str = "15m";
/// Largest answer read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest value read from standard input or a file, in bytes.
pub(crate) const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Largest proof of convergence read from a file, in bytes.
pub(crate) const PROOF_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Differences printed of one plan before the rest is only counted.
pub(crate) const DIFFERENCES_SHOWN_MAX: usize = 200;
/// Longest value printed in a table cell, in characters.
pub(crate) const CELL_CHARS_MAX: usize = 80;
/// Of what two values begin with that are too long to be shown, as much is shown before they differ, in characters.
pub(crate) const SAME_CHARS_SHOWN: usize = 10;
/// Random bytes of an idempotency key.
pub(crate) const KEY_BYTES: usize = 16;
/// How much further back each look for the newest events goes than the one before.
pub(crate) const LOOK_BACK_FACTOR: u64 = 4;
/// Bytes of records a replay links before it hands them on to be folded.
pub(crate) const REPLAY_CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks of a replay that wait to be folded.
pub(crate) const REPLAY_CHUNKS_AHEAD: usize = 4;
/// Records looked up in a data folder for one why.
pub(crate) const FOLDER_WHY_LOOKUPS_MAX: usize = 200;
/// Between two looks of a replay's progress bar at the clock.
pub(crate) const REPLAY_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Lines shown around a change in a file.
pub(crate) const CONTEXT_LINES: usize = 3;
/// Most pairs of lines compared to tell how a file changed; of a larger one, all is shown as replaced.
pub(crate) const LINE_PAIRS_COMPARED_MAX: usize = 4_000_000;
/// Steps of a plan printed before the rest is only counted.
pub(crate) const STEPS_SHOWN_MAX: usize = 200;
/// Instances whose logs are followed at the same time, each over a connection of its own.
pub(crate) const FOLLOWED_INSTANCES_MAX: usize = 16;
/// Lines of followed logs that wait to be printed.
pub(crate) const FOLLOWED_LINES_AHEAD: usize = 1024;
/// Most bytes of log lines that are held to be put in the order of their times.
pub(crate) const MERGED_LINES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Characters printed of an image's digest where two are told apart.
pub(crate) const DIGEST_CHARS_SHOWN: usize = 12;
/// Nodes of one app shown in a rollback's plan.
pub(crate) const NODES_SHOWN_MAX: usize = 20;
/// Largest evidence pack read, in bytes.
pub(crate) const PACK_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// How long fetching an evidence pack by its address may take.
pub(crate) const PACK_FETCH_TIMEOUT: Duration = Duration::from_mins(10);
/// How long the controllers are given to sign a checkpoint of records that are there already.
pub(crate) const CHECKPOINT_DEADLINE: Duration = Duration::from_mins(1);
/// Largest tile of the log's tree, in bytes: 256 hashes of 32.
pub(crate) const TILE_BYTES_MAX: u64 = 256 * 32;
/// Tiles of the log's tree kept in memory while something is proved.
pub(crate) const TILES_KEPT_MAX: usize = 4096;
/// Most changes in one population; their rows are held until all of them are proved.
pub(crate) const POPULATION_ROWS_MAX: usize = 1_000_000;
/// Rows of a sample unless asked otherwise.
pub(crate) const SAMPLE_ROWS_DEFAULT: usize = 25;
/// Places with another release that are named in a table.
pub(crate) const PINS_SHOWN_MAX: usize = 3;
/// How much a controller's threads that serve requests give way to those that Raft needs: two thirds of the share of
/// a processor, where there are not enough (`nice(2)`). With more, slow answers become slower: under 1000 clients
/// p99 was 95 ms with none, 108 with this, 126 with 5.
pub(crate) const REQUESTS_NICENESS: i32 = 2;
/// Memory for past States of each controller of `stele dev`, in MiB.
pub(crate) const DEV_PAST_MEMORY_MIB: u64 = 256;
/// How far the time that a proof says it was made at may be from the clock here where it was asked for just now, in
/// microseconds (5 minutes).
pub(crate) const PROOF_AGE_US_MAX: u64 = 300_000_000;
