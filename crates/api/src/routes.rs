//! The routes of the API as data: the server, its `OpenAPI` document and the docs are made of this one table.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use stele_model::event::Role;

use crate::spec::AppSpec;
use crate::wire::{
    AddMemberRequest, ApplyRequest, BatchAnswer, BatchRequest, CandidatesAnswer, CandidatesQuery,
    ChangeAnswer, CheckpointAnswer, ClusterAnswer, ConfigRequest, ConsistencyAnswer, ConsistencyQuery,
    ConvergenceQuery, DeployRequest, DeploymentQuery, DeploymentStatus, DiffAnswer, DiffQuery, ErasureAnswer,
    ErasureRequest, ErasuresAnswer, EventsPage, EventsQuery, HealthAnswer, HistoryAnswer, HistoryQuery,
    InclusionAnswer, InclusionQuery, LabelsRequest, LeaderRequest, LogLine, LogsQuery, MarkAnswer,
    MarkRequest, NodeStatus, NodeTokenAnswer, NodeTokenRequest, NodesAnswer, ReadQuery, ReasonAnswer,
    ReasonQuery, RecordsPage, RecordsQuery, RemoveMemberRequest, RemoveRequest, ReviewRequest, ReviewsAnswer,
    RollbackAnswer, RollbackRequest, SecretRequest, ShowAnswer, ShowQuery, StatusAnswer, StatusQuery,
    TokenAnswer, TokenRequest, TokensAnswer, UndoAnswer, UndoRequest, UnlatchRequest, WhatIfAnswer,
    WhatIfRequest, WhyQuery, WithdrawRequest,
};

/// Where the API lives.
pub const PREFIX: &str = "/v1";

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes.
    Post,
    /// Sets.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// As in `OpenAPI`.
    pub const fn lowercase(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// What can be asked for. A server handles every one of them, or does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operation {
    Health,
    OpenApi,
    AppSchema,
    Apply,
    Batch,
    Deploy,
    Deployment,
    Remove,
    Status,
    Convergence,
    History,
    Events,
    Records,
    Show,
    Diff,
    Rollback,
    RollbackCandidates,
    Undo,
    WhatIf,
    Why,
    MarkPoint,
    Reviews,
    Review,
    Erase,
    Erasures,
    Reason,
    Unlatch,
    SetConfig,
    SetSecret,
    Logs,
    CreateNodeToken,
    Nodes,
    Node,
    LabelNode,
    RemoveNode,
    DrainNode,
    ResumeNode,
    Join,
    CreateToken,
    Tokens,
    RevokeToken,
    Cluster,
    AddMember,
    RemoveMember,
    TransferLeader,
    Checkpoint,
    InclusionProof,
    ConsistencyProof,
    LogCheckpoint,
    LogTile,
}

/// Makes or refers to a type's schema.
pub type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

/// What a successful answer is.
#[derive(Clone, Copy, Debug)]
pub enum Success {
    /// JSON of this schema.
    Json(SchemaFn),
    /// JSON of this schema, or a stream of server-sent events when asked for.
    JsonOrEvents(SchemaFn),
    /// A stream of lines of text.
    Text,
    /// A stream of lines of text, or of lines of JSON of this schema when asked for.
    TextOrJsonLines(SchemaFn),
    /// Bytes of a form given elsewhere.
    Bytes,
}

/// How a stream of lines of JSON is asked for, and sent.
pub const JSON_LINES: &str = "application/x-ndjson";

/// The header with which log lines come when there are older ones that were asked for, too.
pub const LINES_LEFT_OUT: &str = "x-stele-lines-left-out";

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{name}` for parts that vary.
    pub path: &'static str,
    /// What it does.
    pub operation: Operation,
    /// That, in a sentence.
    pub summary: &'static str,
    /// The least role it needs; absent when no token is needed.
    pub role: Option<Role>,
    /// Its query parameters: the fields of this struct.
    pub query: Option<SchemaFn>,
    /// Its body.
    pub request: Option<SchemaFn>,
    /// Its answer.
    pub success: Success,
}

impl Route {
    /// Whether it changes something: such a request takes an `Idempotency-Key`.
    pub const fn is_write(&self) -> bool {
        !matches!(self.method, Method::Get)
    }

    /// Whether its body may be left out, because the path says what is asked.
    pub const fn may_lack_body(&self) -> bool {
        matches!(
            self.operation,
            Operation::Remove
                | Operation::RemoveNode
                | Operation::DrainNode
                | Operation::ResumeNode
                | Operation::RevokeToken
                | Operation::RemoveMember
        )
    }

    /// The parts of a path that vary, by name, if it is one of this route's.
    pub fn parts_of(&self, path: &str) -> Option<std::collections::BTreeMap<String, String>> {
        let (mut expected, mut given) = (self.path.split('/'), path.split('/'));
        // Most paths are another route's: nothing is made of those, and nobody reads them to their end.
        loop {
            match (expected.next(), given.next()) {
                (None, None) => break,
                (Some(expected), Some(given)) if fits(expected, given) => {}
                _ => return None,
            }
        }
        let parts = self.path.split('/').zip(path.split('/'));
        Some(parts.filter_map(|(part, given)| Some((name_of(part)?.to_owned(), given.to_owned()))).collect())
    }

    /// Names of the parts of its path that vary.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        let names = self.path.split('/').filter_map(name_of);
        // A star stands for the whole rest of a path.
        names.map(|name| name.trim_start_matches('*'))
    }

    /// Whether it asks what one controller signed and can prove, which needs no quorum.
    pub const fn is_of_one_controller(&self) -> bool {
        matches!(
            self.operation,
            Operation::Checkpoint
                | Operation::InclusionProof
                | Operation::ConsistencyProof
                | Operation::LogCheckpoint
                | Operation::LogTile
        )
    }
}

/// Whether a part of a path can stand where a route has one.
fn fits(expected: &'static str, given: &str) -> bool {
    if name_of(expected).is_some() { !given.is_empty() } else { expected == given }
}

/// What a part of a route's path is called, if it varies.
fn name_of(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A document whose form is given elsewhere.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

const fn read(
    path: &'static str,
    operation: Operation,
    summary: &'static str,
    query: SchemaFn,
    success: SchemaFn,
) -> Route {
    Route {
        method: Method::Get,
        path,
        operation,
        summary,
        role: Some(Role::Auditor),
        query: Some(query),
        request: None,
        success: Success::Json(success),
    }
}

const fn write(
    role: Role,
    method: Method,
    path: &'static str,
    operation: Operation,
    summary: &'static str,
    request: Option<SchemaFn>,
    success: SchemaFn,
) -> Route {
    let success = Success::Json(success);
    Route { method, path, operation, summary, role: Some(role), query: None, request, success }
}

const fn open(
    method: Method,
    path: &'static str,
    operation: Operation,
    summary: &'static str,
    request: Option<SchemaFn>,
    success: SchemaFn,
) -> Route {
    Route {
        method,
        path,
        operation,
        summary,
        role: None,
        query: None,
        request,
        success: Success::Json(success),
    }
}

use Method::{Delete, Get, Post, Put};
use Role::{Admin, Auditor, Deployer};

/// Every route.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    open(Get, "/v1/health", Operation::Health,
        "Whether this controller is alive, and whom it follows.", None, of::<HealthAnswer>),
    open(Get, "/v1/openapi.json", Operation::OpenApi,
        "This API as an OpenAPI 3.1 document.", None, any_object),
    open(Get, "/v1/schema/app.json", Operation::AppSchema,
        "The JSON Schema of an app's spec, for editors.", None, any_object),
    write(Deployer, Post, "/v1/apply", Operation::Apply,
        "Make an app in an environment what a spec says, or answer what that would change.",
        Some(of::<ApplyRequest>), of::<ChangeAnswer>),
    write(Deployer, Post, "/v1/batch", Operation::Batch,
        "Ask for many changes at once. Each is decided on its own and has its own answer; one that is refused \
         stops none of the others.", Some(of::<BatchRequest>), of::<BatchAnswer>),
    write(Deployer, Post, "/v1/deployments", Operation::Deploy,
        "Deploy another image or release of an app that exists.", Some(of::<DeployRequest>), of::<ChangeAnswer>),
    read("/v1/deployments/{id}", Operation::Deployment,
        "A deployment and how far it is.", of::<DeploymentQuery>, of::<DeploymentStatus>),
    write(Deployer, Delete, "/v1/apps/{project}/{app}/{env}", Operation::Remove,
        "Remove an app from an environment.", Some(of::<RemoveRequest>), of::<ChangeAnswer>),
    read("/v1/status", Operation::Status,
        "How apps, instances and nodes are, and what is wrong.", of::<StatusQuery>, of::<StatusAnswer>),
    read("/v1/convergence", Operation::Convergence,
        "Proof of how far nodes are what State says: their own signed statements beside what each was told.",
        of::<ConvergenceQuery>, of::<stele_model::wire::Signed>),
    read("/v1/history", Operation::History,
        "Deployments: what, when, who, why and how it ended.", of::<HistoryQuery>, of::<HistoryAnswer>),
    Route { success: Success::JsonOrEvents(of::<EventsPage>), ..read("/v1/events", Operation::Events,
        "Events of the log, a page at a time; as server-sent events when `Accept` asks for `text/event-stream`, \
         resumable by `Last-Event-ID`.", of::<EventsQuery>, of::<EventsPage>) },
    read("/v1/records", Operation::Records,
        "Records of the log as they are stored, to verify them oneself.", of::<RecordsQuery>, of::<RecordsPage>),
    read("/v1/show", Operation::Show,
        "What should be, now or at a point, with its digest.", of::<ShowQuery>, of::<ShowAnswer>),
    read("/v1/diff", Operation::Diff,
        "What differs between two points.", of::<DiffQuery>, of::<DiffAnswer>),
    write(Deployer, Post, "/v1/rollbacks", Operation::Rollback,
        "Set a scope's target to what it was at an earlier point, or answer what that would change.",
        Some(of::<RollbackRequest>), of::<RollbackAnswer>),
    read("/v1/rollbacks/candidates", Operation::RollbackCandidates,
        "The newest points an app could be rolled back to, with what each would change.",
        of::<CandidatesQuery>, of::<CandidatesAnswer>),
    write(Deployer, Post, "/v1/undo", Operation::Undo,
        "Take chosen changes back and keep later ones, or answer what that would change and what is in the way.",
        Some(of::<UndoRequest>), of::<UndoAnswer>),
    write(Deployer, Post, "/v1/what-if", Operation::WhatIf,
        "What a change would come to, now or at any earlier point. Nothing is written.",
        Some(of::<WhatIfRequest>), of::<WhatIfAnswer>),
    read("/v1/why", Operation::Why,
        "Why an instance, an app or a node is as it is, back to whoever asked for it.",
        of::<WhyQuery>, of::<stele_model::why::Why>),
    write(Deployer, Post, "/v1/marks", Operation::MarkPoint,
        "Mark a point so that it is never offered as last-good, or take that back.",
        Some(of::<MarkRequest>), of::<MarkAnswer>),
    read("/v1/reviews", Operation::Reviews,
        "Rollbacks that nobody but who did them has looked at yet.", of::<ReadQuery>, of::<ReviewsAnswer>),
    write(Deployer, Post, "/v1/reviews", Operation::Review,
        "Say that you looked at a rollback somebody else did.", Some(of::<ReviewRequest>), of::<ChangeAnswer>),
    write(Admin, Post, "/v1/erasures", Operation::Erase,
        "Destroy the keys of a subject, so that what they sealed can never be read again.",
        Some(of::<ErasureRequest>), of::<ErasureAnswer>),
    read("/v1/erasures", Operation::Erasures,
        "Subjects whose keys are destroyed.", of::<ReadQuery>, of::<ErasuresAnswer>),
    Route { role: Some(Admin), ..read("/v1/reasons/{seq}", Operation::Reason,
        "Why a record was asked for, opened if it is sealed.", of::<ReasonQuery>, of::<ReasonAnswer>) },
    write(Deployer, Post, "/v1/unlatch", Operation::Unlatch,
        "Let a rejected release be deployed again.", Some(of::<UnlatchRequest>), of::<ChangeAnswer>),
    write(Deployer, Post, "/v1/config", Operation::SetConfig,
        "Change variables of an app's config bundle and deploy.", Some(of::<ConfigRequest>), of::<ChangeAnswer>),
    write(Deployer, Post, "/v1/secrets", Operation::SetSecret,
        "Set a secret's next version and deploy where it is used.", Some(of::<SecretRequest>), of::<ChangeAnswer>),
    Route { success: Success::TextOrJsonLines(of::<LogLine>), ..read("/v1/logs", Operation::Logs,
        "Log lines of an instance, as text; each as JSON, with its time, when `Accept` asks for \
         `application/x-ndjson`. With `X-Stele-Lines-Left-Out` where older lines were asked for that do not fit in.",
        of::<LogsQuery>, any_object) },
    write(Admin, Post, "/v1/node-tokens", Operation::CreateNodeToken,
        "Make a token with which one node joins.", Some(of::<NodeTokenRequest>), of::<NodeTokenAnswer>),
    read("/v1/nodes", Operation::Nodes, "Nodes of the fleet.", of::<ReadQuery>, of::<NodesAnswer>),
    read("/v1/nodes/{node}", Operation::Node, "One node.", of::<ReadQuery>, of::<NodeStatus>),
    write(Admin, Put, "/v1/nodes/{node}/labels", Operation::LabelNode,
        "Set a node's labels.", Some(of::<LabelsRequest>), of::<ChangeAnswer>),
    write(Admin, Delete, "/v1/nodes/{node}", Operation::RemoveNode,
        "Take a node out of the fleet.", Some(of::<WithdrawRequest>), of::<ChangeAnswer>),
    write(Admin, Put, "/v1/nodes/{node}/drain", Operation::DrainNode,
        "Give a node nothing new, and have what runs on it go elsewhere.",
        Some(of::<WithdrawRequest>), of::<ChangeAnswer>),
    write(Admin, Delete, "/v1/nodes/{node}/drain", Operation::ResumeNode,
        "Let a drained node get something again.", Some(of::<WithdrawRequest>), of::<ChangeAnswer>),
    open(Post, "/v1/join", Operation::Join,
        "Join the fleet as a node, with a join token and signed by the node's own key.",
        Some(of::<stele_model::wire::Signed>), of::<stele_model::wire::Signed>),
    write(Admin, Post, "/v1/tokens", Operation::CreateToken,
        "Make a principal's token.", Some(of::<TokenRequest>), of::<TokenAnswer>),
    read("/v1/tokens", Operation::Tokens,
        "All tokens, without their texts and hashes.", of::<ReadQuery>, of::<TokensAnswer>),
    write(Admin, Delete, "/v1/tokens/{principal}", Operation::RevokeToken,
        "Stop believing a principal's token.", Some(of::<WithdrawRequest>), of::<ChangeAnswer>),
    Route { role: Some(Auditor), ..read("/v1/cluster", Operation::Cluster,
        "The controllers.", of::<ReadQuery>, of::<ClusterAnswer>) },
    write(Admin, Post, "/v1/cluster/members", Operation::AddMember,
        "Add a controller.", Some(of::<AddMemberRequest>), of::<ClusterAnswer>),
    write(Admin, Delete, "/v1/cluster/members/{id}", Operation::RemoveMember,
        "Remove a controller, for ever.", Some(of::<RemoveMemberRequest>), of::<ClusterAnswer>),
    write(Admin, Post, "/v1/cluster/leader", Operation::TransferLeader,
        "Hand leadership to another controller.", Some(of::<LeaderRequest>), of::<ClusterAnswer>),
    Route { query: None, ..read("/v1/checkpoint", Operation::Checkpoint,
        "What this controller signed last about the log, with cosignatures.", any_object, of::<CheckpointAnswer>) },
    read("/v1/proofs/inclusion", Operation::InclusionProof,
        "A proof that a record is in the log.", of::<InclusionQuery>, of::<InclusionAnswer>),
    read("/v1/proofs/consistency", Operation::ConsistencyProof,
        "A proof that the log only grew.", of::<ConsistencyQuery>, of::<ConsistencyAnswer>),
    Route { query: None, success: Success::Text, ..read("/log/checkpoint", Operation::LogCheckpoint,
        "The newest checkpoint as a signed note (C2SP tlog-tiles).", any_object, any_object) },
    Route { query: None, success: Success::Bytes, ..read("/log/tile/{*tile}", Operation::LogTile,
        "A tile of the log's tree, `<L>/<N>[.p/<W>]`, or of its entries, `entries/<N>[.p/<W>]` (C2SP tlog-tiles).",
        any_object, any_object) },
];

/// The route of an operation.
pub fn route_of(operation: Operation) -> &'static Route {
    // One of them for each: a test checks it.
    ROUTES.iter().find(|route| route.operation == operation).unwrap_or(&ROUTES[0])
}

/// The schema of a spec, for the document's components.
pub(crate) fn spec_schema(generator: &mut SchemaGenerator) -> Schema {
    of::<AppSpec>(generator)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_is_told_apart_by_its_parts() {
        let labels = ROUTES.iter().find(|route| route.operation == Operation::LabelNode).unwrap();
        let parts = labels.parts_of("/v1/nodes/eu-1/labels").unwrap();
        assert_eq!(parts.into_iter().collect::<Vec<_>>(), [("node".to_owned(), "eu-1".to_owned())]);
        for other in
            ["/v1/nodes//labels", "/v1/nodes/eu-1", "/v1/nodes/eu-1/labels/", "/v1/apps/eu-1/labels", "", "/"]
        {
            assert_eq!(labels.parts_of(other), None, "{other}");
        }
    }
}
