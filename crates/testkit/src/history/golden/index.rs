//! What a golden log came to when it was written, and whether it still does.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, ensure};
use serde::{Deserialize, Serialize};
use stele_codec::{Chain, StoredRecord, Verifier};
use stele_model::event::TargetDigest;
use stele_model::{Digest, Header, Scope, Seq, State};

/// Records between two checkpoints, at least: a checkpoint ends a decision.
const CHECKPOINT_INTERVAL_RECORDS: u64 = 250;

/// Scopes whose target is looked at: relative in every way there is, and of a part of an app.
const SCOPES: [&str; 16] = [
    "fleet",
    "project:shop",
    "project:team-00",
    "env:prod",
    "env:staging",
    "project:shop,env:prod",
    "shop/web",
    "shop/web@prod",
    "region:eu",
    "region:us",
    "node:eu-1",
    "node:us-1",
    "env:prod,region:eu",
    "project:team-00,env:prod,region:us",
    "shop/web@prod,region:eu",
    "shop/web@prod,node:eu-1",
];

/// What to say when anything differs. The golden history is no test of what is written now.
const MEANING: &str = "The meaning of history has changed: this program folds records that are kept for ever into \
    something else than the programs before it did, so that replicas, replays and proofs of real fleets would part. \
    Never bless this, and never touch the golden files. Let every (kind, schema) that was ever released fold as it \
    did, and give what should be otherwise a new schema, or a new kind (docs/log-format.md, \"Versions\")";

/// How often each schema of a kind occurs.
pub type Kinds = BTreeMap<String, BTreeMap<u16, u64>>;

/// What a golden log came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Which generation.
    pub generation: u32,
    /// Seq of its first record: it follows the last one of the generation before.
    pub first: Seq,
    /// Seq of its last record.
    pub last: Seq,
    /// How often each kind of event occurs in it, by schema.
    pub kinds: Kinds,
    /// How many recorded State digests are in it.
    pub state_digests: u64,
    /// What it came to on its way, the last one at its end.
    pub checkpoints: Vec<Checkpoint>,
}

/// What the log came to at a seq.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The last record of a decision.
    pub seq: Seq,
    /// The chain after it.
    pub chain: Digest,
    /// State's digest.
    pub state: Digest,
    /// Digests of the target, by scope.
    pub targets: BTreeMap<String, TargetDigest>,
}

impl Checkpoint {
    fn of(
        state: &State,
        chain: Chain,
        scopes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> anyhow::Result<Self> {
        let mut targets = BTreeMap::new();
        for scope in scopes {
            let scope = scope.as_ref();
            targets.insert(scope.to_owned(), state.target_digest(&scope.parse::<Scope>()?));
        }
        // A copy is hashed: who folds on does so as if nobody had looked.
        Ok(Self { seq: state.seq, chain: chain.0, state: state.clone().digest(), targets })
    }

    /// Compares with what a log comes to now.
    pub fn check(&self, state: &State, chain: Chain) -> anyhow::Result<()> {
        let seq = self.seq;
        let now = Self::of(state, chain, self.targets.keys())?;
        ensure!(
            now.chain == self.chain,
            "the chain at seq {seq} was {} and is {}: a golden log was edited, or its leaves are hashed otherwise. \
             {MEANING}",
            self.chain,
            now.chain
        );
        for (scope, was) in &self.targets {
            let now = now.targets.get(scope).copied().unwrap_or_default();
            ensure!(
                now == *was,
                "the target of {scope} at seq {seq} was intent {}, placement {}, and is intent {}, placement {}. \
                 {MEANING}",
                was.intent,
                was.placement,
                now.intent,
                now.placement
            );
        }
        ensure!(
            now.state == self.state,
            "State at seq {seq} had the digest {} and has {}, though its targets are as they were. {MEANING}",
            self.state,
            now.state
        );
        Ok(())
    }
}

impl Index {
    /// Looks at a new log, which goes on where the verifier is.
    pub(super) fn of(
        generation: u32,
        records: &[StoredRecord],
        verifier: &mut Verifier,
    ) -> anyhow::Result<Self> {
        let first = verifier.state().seq + 1;
        let (matched, mut kinds, mut checkpoints) = (verifier.digests_matched(), Kinds::new(), Vec::new());
        let mut due = first + CHECKPOINT_INTERVAL_RECORDS;
        for (at, stored) in records.iter().enumerate() {
            let header = verifier.push(stored, None)?.header;
            count(&mut kinds, &header);
            let is_last = at + 1 == records.len();
            if header.seq == header.decision.last() && (header.seq >= due || is_last) {
                checkpoints.push(Checkpoint::of(verifier.state(), verifier.chain(), SCOPES)?);
                due = header.seq + CHECKPOINT_INTERVAL_RECORDS;
            }
        }
        let state_digests = verifier.digests_matched() - matched;
        Ok(Self { generation, first, last: verifier.state().seq, kinds, state_digests, checkpoints })
    }

    /// Verifies the generation's records, which go on where the verifier is, and compares all that is
    /// known of them. `at` is told of every checkpoint.
    pub fn verify(
        &self,
        records: &[StoredRecord],
        verifier: &mut Verifier,
        mut at: impl FnMut(&Checkpoint, &Verifier),
    ) -> anyhow::Result<()> {
        let generation = self.generation;
        let found = verifier.state().seq + 1;
        ensure!(
            found == self.first && self.first + records.len() as u64 == self.last + 1,
            "generation {generation} has the records {} to {}, and {} records from {found} on are there",
            self.first,
            self.last,
            records.len()
        );
        let (matched, mut kinds) = (verifier.digests_matched(), Kinds::new());
        let mut checkpoints = self.checkpoints.iter().peekable();
        for stored in records {
            let record = verifier.push(stored, None).map_err(|error| anyhow!("{error}. {MEANING}"))?;
            count(&mut kinds, &record.header);
            if let Some(checkpoint) = checkpoints.next_if(|it| it.seq == record.header.seq) {
                checkpoint.check(verifier.state(), verifier.chain())?;
                at(checkpoint, verifier);
            }
        }
        ensure!(
            checkpoints.peek().is_none(),
            "generation {generation} has checkpoints that lie beside its records"
        );
        let is_covered = self.checkpoints.last().is_some_and(|it| it.seq == self.last);
        ensure!(is_covered, "generation {generation} has no checkpoint at its end");
        ensure!(
            kinds == self.kinds,
            "generation {generation} had the kinds {:?} and has {kinds:?}. {MEANING}",
            self.kinds
        );
        let matched = verifier.digests_matched() - matched;
        ensure!(
            matched == self.state_digests,
            "generation {generation} recorded {} State digests, and {matched} were compared. {MEANING}",
            self.state_digests
        );
        Ok(())
    }

    pub(super) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self).context("an index is representable as JSON")? + "\n")
    }
}

fn count(kinds: &mut Kinds, header: &Header) {
    *kinds.entry(header.kind.clone()).or_default().entry(header.schema).or_default() += 1;
}
