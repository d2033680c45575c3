//! Bugs to plant, and the switch that plants one.
//!
//! Owns the names of the bugs that the simulator must notice, and one switch per thread. It must
//! never be linked into a product: the crates that misbehave on request depend on it under a
//! feature that only the simulator's own run asks for, and a test sees to that.
//!
//! ```
//! use stele_planted::{Bug, is_planted, plant};
//!
//! assert!(!is_planted(Bug::AckBeforeSync));
//! plant(Some(Bug::AckBeforeSync));
//! assert!(is_planted(Bug::AckBeforeSync));
//! plant(None);
//! ```

use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static REPLICA: Cell<u64> = const { Cell::new(0) };
}

/// Plants one bug on this thread, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted on this thread.
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Says on behalf of which replica this thread works, for bugs that not every replica has.
pub fn work_for(replica: u64) {
    REPLICA.set(replica);
}

/// On behalf of which replica this thread works.
pub fn replica() -> u64 {
    REPLICA.get()
}

/// Declares the catalogue once: variant, where it is planted, and what it does.
macro_rules! bugs {
    ($($bug:ident, $place:expr, $what:literal;)*) => {
        /// A bug that the simulator must notice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &'static [Self] = &[$(Self::$bug,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => stringify!($bug),)* }
            }

            /// Where it is planted: a crate of the product, or the simulator's shell.
            pub const fn place(self) -> Place {
                match self { $(Self::$bug => $place,)* }
            }

            /// What it does, as a sentence without its end.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$bug => $what,)* }
            }
        }
    };
}

/// Where a bug is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a crate of the product, under the feature `planted`.
    Crate(&'static str),
    /// In the simulator's equivalent of the controller's or the agent's shell.
    Shell,
}

const CONSENSUS: Place = Place::Crate("consensus");
const LEDGER: Place = Place::Crate("ledger");
const MODEL: Place = Place::Crate("model");
const PLANNER: Place = Place::Crate("planner");
const RECONCILE: Place = Place::Crate("reconcile");
const FEED: Place = Place::Crate("feed");
const SHELL: Place = Place::Shell;

bugs! {
    AckBeforeSync, CONSENSUS, "Votes and acknowledgements leave before what they promise is synced";
    SnapshotStampedAhead, CONSENSUS, "A snapshot is stamped with the last index instead of the applied one";
    AppliedNotStored, CONSENSUS, "The applied index is not stored with what applying left";
    VoteNotStored, CONSENSUS, "A vote is given and not stored";
    KeepStaleTail, CONSENSUS, "Entries behind an installed snapshot are kept";
    SyncErrorIgnored, CONSENSUS, "A failed sync counts as one that worked";
    ReadsNotChecked, CONSENSUS, "What a disk gives is believed without its checksum";
    TailForgotten, CONSENSUS, "Who is left of a lost quorum forgets what it does not know to be committed";
    KeepSpeculation, LEDGER, "A leader reuses its speculation of an earlier term";
    AnswerOnSpeculation, LEDGER, "A refusal or a no-op is answered before what it saw has committed";
    PoisonEvent, LEDGER, "An event that no replica can fold is proposed";
    TimeOfTheWall, LEDGER, "Log time is the leader's clock, even when that went back";
    AnyClockIsBelieved, LEDGER, "One clock a day ahead is believed as the leader's";
    IgnoreKeys, MODEL, "A repeated idempotency key is decided again";
    DedupByTime, MODEL, "A request is taken for a repetition because of when it comes";
    WrongDigest, MODEL, "A leader records a State digest that is not State's";
    FoldPerReplica, MODEL, "Folding depends on which replica folds";
    OldReportCounts, MODEL, "An older report of the same boot is taken for news";
    FoldInMapOrder, MODEL, "Folding depends on the order in which a map gives its keys";
    ReportCountsTwice, MODEL, "A report that is delivered twice is taken for news twice";
    AssignmentKeepsSeq, MODEL, "Withdrawing an instance does not raise the assignment's seq";
    RollbackForgetsConfig, MODEL, "A rollback restores the release and forgets the config";
    UndoneEverywhere, MODEL, "To undo that a place went back lets the rest of its app go on with what failed";
    EpochKept, MODEL, "A fleet that lost its quorum goes on in the same epoch";
    BudgetOffByOne, PLANNER, "A rollout replaces one slot more at once than it may";
    NoHealthGate, PLANNER, "Old instances are withdrawn before new ones are healthy";
    FinishEarly, PLANNER, "A deployment is called a success before it is healthy";
    HoldForgotten, PLANNER, "A place that goes back takes the rest of its app on with what failed";
    DrainForgotten, PLANNER, "New instances come to a drained node";
    DrainTakesAway, PLANNER, "A replica on a drained node ends where no other node has room";
    AcceptOlder, RECONCILE, "An agent accepts an older assignment";
    RestartBudgetOffByOne, RECONCILE, "A container may end once more before it is said to be in a crash loop";
    AcceptUnsigned, RECONCILE, "An agent does not check the assignment's signature";
    AcceptForeign, RECONCILE, "An agent accepts another node's assignment";
    RemoveUnprepared, RECONCILE, "A running container is removed before its replacement can be made";
    FeedCountsUnacked, FEED, "A message on the feed that nobody acknowledged counts as published";
    FeedNotCompared, FEED, "What the feed shows is not compared with the log";
    FeedComparesLast, FEED, "Of what the feed shows only the last record is compared with the log";
    FeedRepetitionProves, FEED, "What the server takes for a repetition counts as proof of what stands there";
    AnswerBeforeCommit, SHELL, "A decision is answered when it is proposed";
    NoOpUnconfirmed, SHELL, "\"Nothing had to change\" is answered without confirming leadership";
    ReadWithoutIndex, SHELL, "A read is answered from what this controller knows, without a ReadIndex";
    ActOnSpeculation, SHELL, "Assignments are published from speculative State";
    PlanOnCommitted, SHELL, "The conductor plans on committed State while its last plan is in flight";
    ForgetDirty, SHELL, "A new leader does not look at rollouts its predecessor left";
    NoGrace, SHELL, "A new leader does not grant nodes their grace period";
    NeverReturned, SHELL, "A lost node that is heard of again stays lost";
    AckReportEarly, SHELL, "A report is acknowledged when it arrives instead of when it commits";
    SnapshotForgetsKeys, SHELL, "A snapshot leaves out the idempotency keys";
    RecoverShort, SHELL, "A restart does not fold the last record";
    PastOffByOne, SHELL, "A rollback is decided on the State one record before its point";
    MembersNotRecorded, SHELL, "A membership change is not recorded in the log";
    BackfillAnything, SHELL, "History after a snapshot is filled without its chain being checked or complete";
    StopOnSilence, SHELL, "An agent stops its containers when it hears nothing";
    StartFromNothing, SHELL, "An agent that starts reconciles before it has read what it last verified";
    ActBeforePersist, SHELL, "An agent acts on an assignment without having kept it";
    SameBoot, SHELL, "An agent that starts again counts its reports from one under the same boot";
}
