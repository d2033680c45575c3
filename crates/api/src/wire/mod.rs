//! What is asked of the API and what it answers, one module per part.

mod batch;
mod changes;
mod cluster;
mod erasure;
mod history;
mod logs;
mod proof;
mod query;
mod rollback;
mod status;
mod tokens;
mod undo;
mod what_if;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use batch::{BatchAnswer, BatchRequest, BatchedAnswer, BatchedCommand};
pub use changes::{
    ApplyRequest, ChangeAnswer, ConfigRequest, ConfigValue, DeployRequest, RemoveRequest, SecretRequest,
    UnlatchRequest,
};
pub use cluster::{
    AddMemberRequest, Certified, ClusterAnswer, ControllerStatus, HealthAnswer, LabelsRequest, LeaderRequest,
    MemberRole, NodeTokenAnswer, NodeTokenRequest, NodesAnswer, RemoveMemberRequest, WithdrawRequest,
};
pub use erasure::{ErasedSubject, ErasureAnswer, ErasureRequest, ErasuresAnswer, ReasonAnswer};
pub use history::{
    DiffAnswer, EventsPage, HistoryAnswer, HistoryEntry, RawRecord, RecordsPage, ShowAnswer, ShownApp,
};
pub use logs::{LogLine, Printed};
pub use proof::{
    CheckpointAnswer, ComparedCheckpoint, ConsistencyAnswer, ConsistencyQuery, InclusionAnswer,
    InclusionQuery,
};
pub use query::{
    CandidatesQuery, ConvergenceQuery, DeploymentQuery, DiffQuery, EventsQuery, HistoryQuery, LogsQuery,
    ReadQuery, ReasonQuery, RecordsQuery, ShowQuery, StatusQuery, WhyQuery,
};
pub use rollback::{
    Barrier, Candidate, CandidatesAnswer, MarkAnswer, MarkRequest, NodeChange, ReviewOwed, ReviewRequest,
    ReviewsAnswer, RollbackAnswer, RollbackApp, RollbackRequest,
};
pub use status::{
    AppStatus, Condition, DeploymentStatus, FinishedStatus, InstanceStatus, NodeStatus, PinnedPlace,
    ProblemStatus, ServiceStatus, StatusAnswer, StayingStatus,
};
pub use tokens::{TokenAnswer, TokenRequest, TokenStatus, TokensAnswer};
pub use undo::{UndoAnswer, UndoApp, UndoRequest, UndoneDecision};
pub use what_if::{PlannedAction, PlannedStep, WhatIfAnswer, WhatIfChange, WhatIfRequest};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadConsistency {
    /// Nothing that was acknowledged before is missing. Needs a quorum.
    #[default]
    Linearizable,
    /// What this controller has, which may be behind. Answers without a quorum.
    Stale,
}
