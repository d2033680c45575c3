//! State at any point of the past: the milestone before it, and the records from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use stele_codec::{
    Chain, DecodeError, ProgressBytes, RecordBytes, Snapshot, StoredRecord, TargetBytes, decode_target,
};
use stele_model::delta::DeltaError;
use stele_model::{
    Answers, AppEnv, Delta, Excerpt, Header, Interest, Outline, Seq, State, TargetOutline, Time, fold,
    fold_about, fold_target,
};
use stele_store::{Reader, Records, StoreError};

use crate::limits::{
    MILESTONE_INTERVAL_RECORDS, PAST_FACT_BYTES, PAST_HELD_BYTES, PAST_REBUILT_MAX, PAST_RECENT_MAX,
    RECORDS_PER_FOLD_BYTES, RECORDS_PER_READ_BYTES,
};
use crate::milestones::{MilestoneError, Milestones, at_or_before, bases_of, level_of};

/// What differs at a milestone, as it is kept.
type Bytes = (Seq, Vec<u8>);

/// Why the past cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored bytes are not what they should be.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A milestone cannot be used.
    #[error(transparent)]
    Milestone(#[from] MilestoneError),
    /// A milestone does not continue the one it should.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// Records are missing here.
    #[error(
        "the record {0} is not here: this controller still fetches history, or the record was lost with a quorum; \
         ask another controller"
    )]
    Missing(Seq),
}

/// Rebuilds past States.
pub(crate) struct Past {
    reader: Reader,
    milestones: Milestones,
    known: Mutex<Known>,
}

/// Outlines kept in memory. They share most of what they are made of.
#[derive(Default)]
struct Known {
    /// Those spread over the log.
    anchors: BTreeMap<Seq, Anchor>,
    bytes: usize,
    /// What they may take.
    bytes_max: usize,
    /// Those read lately, the latest last: whoever looks at the past looks around there.
    recent: VecDeque<Outline>,
    /// The same of those that only say what should be.
    recent_targets: VecDeque<TargetOutline>,
    /// States rebuilt lately.
    states: Rebuilt,
    /// The same of States that only say what should be: what is planned is often done next, and then decided.
    targets: Rebuilt,
    /// Points at which one app was asked for lately, the latest last.
    asked: VecDeque<Seq>,
}

/// The latest last.
#[derive(Default)]
struct Rebuilt(VecDeque<State>);

struct Anchor {
    outline: Outline,
    /// What it takes beyond what it shares, about.
    bytes: usize,
}

/// A milestone and those that it rests on, the nearest first.
fn steps_to(milestone: Seq) -> Vec<Seq> {
    std::iter::once(milestone).chain(bases_of(milestone)).collect()
}

/// Ranges in order, each with those that follow it at once.
fn joined(ranges: Vec<(Seq, Seq)>) -> Vec<(Seq, Seq)> {
    let mut joined: Vec<(Seq, Seq)> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut() {
            Some(before) if before.1 + 1 == from => before.1 = to,
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// What was read of a milestone's bytes, or which milestone it is that cannot be read.
fn at_milestone<T>(seq: Seq, read: Result<T, DecodeError>) -> Result<T, MilestoneError> {
    read.map_err(|error| MilestoneError::Decode { seq, error })
}

impl Rebuilt {
    /// One that is needed again.
    fn again(&mut self, seq: Seq) -> Option<State> {
        let at = self.0.iter().position(|state| state.seq == seq)?;
        let state = self.0.remove(at)?;
        self.0.push_back(state.clone());
        Some(state)
    }

    /// Keeps a State; answers the one that goes for it, which takes a while to be freed.
    fn keep(&mut self, state: &State) -> Option<State> {
        // Two may have rebuilt the same at once.
        let same = self.0.iter().position(|known| known.seq == state.seq);
        let goes = same.or_else(|| (self.0.len() == PAST_REBUILT_MAX).then_some(0));
        let gone = goes.and_then(|at| self.0.remove(at));
        self.0.push_back(state.clone());
        gone
    }
}

/// Puts one last, in place of what is of its seq, or of the first where there are too many.
fn visit<T: Clone>(recent: &mut VecDeque<T>, outline: &T, seq: fn(&T) -> Seq) {
    recent.retain(|known| seq(known) != seq(outline));
    if recent.len() == PAST_RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(outline.clone());
}

impl Known {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    fn at(&self, seq: Seq) -> Option<&Outline> {
        let anchor = self.anchors.get(&seq).map(|anchor| &anchor.outline);
        anchor.or_else(|| self.recent.iter().find(|outline| outline.seq() == seq))
    }

    fn target_at(&self, seq: Seq) -> Option<TargetOutline> {
        let recent = self.recent_targets.iter().find(|outline| outline.seq() == seq);
        recent.cloned().or_else(|| self.at(seq).map(Outline::target))
    }

    /// Whether a point was asked for lately; notes that it is asked for.
    fn asks_again(&mut self, seq: Seq) -> bool {
        let again = self.asked.contains(&seq);
        visit(&mut self.asked, &seq, |seq| *seq);
        again
    }

    fn visit(&mut self, outline: &Outline) {
        visit(&mut self.recent, outline, Outline::seq);
    }

    fn visit_target(&mut self, outline: &TargetOutline) {
        visit(&mut self.recent_targets, outline, TargetOutline::seq);
    }

    fn keep(&mut self, outline: &Outline, facts: usize) {
        let bytes = facts.saturating_mul(PAST_FACT_BYTES);
        self.bytes += bytes;
        if let Some(replaced) = self.anchors.insert(outline.seq(), Anchor { outline: outline.clone(), bytes })
        {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > self.bytes_max {
            // Those that most others lie around go first.
            let least = self.anchors.keys().copied().min_by_key(|seq| (level_of(*seq), *seq));
            let Some(least) = least else { return };
            self.forget(least);
        }
    }

    fn forget(&mut self, seq: Seq) {
        let Some(forgotten) = self.anchors.remove(&seq) else { return };
        self.bytes -= forgotten.bytes;
        // What the next one shared with it is now its own.
        let before = self.anchors.range(..seq).next_back().map(|(_, before)| before.outline.clone());
        if let Some((_, next)) = self.anchors.range_mut(seq..).next() {
            let facts = Delta::between(&before.unwrap_or_default(), &next.outline).count();
            self.bytes -= next.bytes;
            next.bytes = facts.saturating_mul(PAST_FACT_BYTES);
            self.bytes += next.bytes;
        }
    }
}

impl Past {
    /// Keeps States in memory that take up to so many bytes.
    pub(crate) fn new(reader: Reader, bytes_max: usize) -> Self {
        let known = Mutex::new(Known::new(bytes_max));
        Self { milestones: Milestones::new(reader.clone()), reader, known }
    }

    pub(crate) fn milestones(&self) -> &Milestones {
        &self.milestones
    }

    /// Records from a seq on, in order, as they are stored.
    pub(crate) fn records(
        &self,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, StoredRecord, Chain)>, PastError> {
        let to = from.saturating_add(limit.max(1) as u64 - 1);
        let records = self.reader.records(from..=to, RECORDS_PER_READ_BYTES)?;
        // Nothing comes from beyond the end, nor from a gap: only the end may be taken for one.
        if records.is_empty()
            && self.reader.gaps().iter().any(|(first, last)| *first <= from && from <= *last)
        {
            return Err(PastError::Missing(from));
        }
        records
            .into_iter()
            .map(|(seq, bytes)| {
                let (record, chain) = StoredRecord::from_bytes(&bytes)?;
                Ok((seq, record, chain))
            })
            .collect()
    }

    pub(crate) fn header(&self, seq: Seq) -> Result<Header, PastError> {
        let bytes = self.reader.record(seq)?.ok_or(PastError::Missing(seq))?;
        Ok(RecordBytes::read(&bytes)?.0.header()?)
    }

    /// State right after a record, which a later State of this log helps to rebuild. It may lack what was
    /// answered, and then has no digest.
    pub(crate) fn state_at(&self, seq: Seq, later: &State) -> Result<State, PastError> {
        if let Some(state) = self.known().states.again(seq) {
            return Ok(state);
        }
        let milestone = self.milestone_before(seq)?;
        let mut state = match milestone {
            0 => self.snapshot_before(seq)?,
            _ => self.milestone(milestone)?.filled(later, seq),
        };
        self.fold_to(&mut state, seq)?;
        // Without a milestone it shares nothing with others, and is soon rebuilt or of a history that is fetched.
        if milestone > 0 {
            let gone = self.known().states.keep(&state);
            drop(gone);
        }
        Ok(state)
    }

    /// What should have been right after a record, and what governed: a State without what nodes were told and
    /// told, and without deployments. Most of what there is to put on and to fold is of those.
    pub(crate) fn target_at(&self, seq: Seq, later: &State) -> Result<State, PastError> {
        if let Some(state) = self.known().targets.again(seq) {
            return Ok(state);
        }
        let milestone = self.milestone_before(seq)?;
        let state = if milestone == 0 {
            self.state_at(seq, later)?
        } else {
            let mut state = self.target_milestone(milestone)?.filled(later, seq);
            self.fold_each(&mut state, seq, |state, record| {
                fold_target(state, &record.headline()?, || record.decode())
            })?;
            state
        };
        // Folding leaves traces of the rest.
        let state = TargetOutline::of(&state).filled(later, seq);
        if milestone > 0 {
            let gone = self.known().targets.keep(&state);
            drop(gone);
        }
        Ok(state)
    }

    /// State right after a record, of which only what is about some apps is sure to be there: what governed as a
    /// whole, what should have been of them, their latest deployments, and what nodes were told and told that ran
    /// something of them.
    pub(crate) fn state_about(
        &self,
        seq: Seq,
        later: &State,
        apps: BTreeSet<AppEnv>,
    ) -> Result<State, PastError> {
        let milestone = self.milestone_before(seq)?;
        // Whoever asks for another app at the same point may ask for more of them, and all of State is kept.
        let is_rebuilt_whole =
            milestone == 0 || seq - milestone >= MILESTONE_INTERVAL_RECORDS || self.known().asks_again(seq);
        if is_rebuilt_whole {
            return self.state_at(seq, later);
        }
        let mut steps = steps_to(milestone);
        let base = self.nearest_base(&mut steps, |known, seq| known.at(seq).cloned());
        let deltas = self.progress_of(&steps, PAST_HELD_BYTES)?;
        let records = self.records_between(milestone, seq, PAST_HELD_BYTES)?;
        // Where they are too many to be gone through twice.
        let (Some(records), Some(deltas)) = (records, deltas) else { return self.state_at(seq, later) };
        let deltas =
            deltas.iter().map(|(seq, bytes)| Ok((*seq, at_milestone(*seq, ProgressBytes::read(bytes))?)));
        let deltas: Vec<_> = deltas.collect::<Result<_, MilestoneError>>()?;
        let records = records.iter().map(|(_, bytes)| {
            let (record, _) = RecordBytes::read(bytes)?;
            Ok((record.headline()?, record))
        });
        let records: Vec<_> = records.collect::<Result<_, DecodeError>>()?;

        let mut interest = Interest::in_apps(apps);
        interest.in_hosts_at(&base);
        for (seq, delta) in &deltas {
            for change in at_milestone(*seq, delta.of_apps(interest.apps()))?.values() {
                interest.in_hosts_of(change);
            }
        }
        for (headline, _) in &records {
            interest.in_hosts_by(headline);
        }

        let mut excerpt = Excerpt::of(&base, &interest);
        for (seq, delta) in &deltas {
            at_milestone(*seq, delta.about(&interest))?.put_on(&mut excerpt)?;
        }
        let target = self.target_milestone_about(milestone, interest.apps())?;
        let mut state = excerpt.filled(&target, later, seq)?;
        for (headline, record) in &records {
            fold_about(&mut state, &interest, headline, || record.decode())?;
        }
        // Folding leaves traces of the rest.
        let target = TargetOutline::of(&state).about(interest.apps());
        Ok(Excerpt::of_state(&state, &interest).filled(&target, later, seq)?)
    }

    /// What became of targets in steps that are given from the last one back, in order; nothing when it takes more
    /// than so many bytes.
    fn progress_of(&self, steps: &[Seq], bytes_max: usize) -> Result<Option<Vec<Bytes>>, PastError> {
        let (mut deltas, mut bytes) = (Vec::new(), 0);
        for step in steps.iter().rev() {
            let delta = self.milestones.progress(*step)?.ok_or(PastError::Missing(*step))?;
            bytes += delta.len();
            if bytes > bytes_max {
                return Ok(None);
            }
            deltas.push((*step, delta));
        }
        Ok(Some(deltas))
    }

    /// The records after a seq, up to another one; nothing when they take more than so many bytes.
    fn records_between(
        &self,
        after: Seq,
        through: Seq,
        bytes_max: usize,
    ) -> Result<Option<Records>, PastError> {
        let (mut records, mut bytes) = (Records::new(), 0);
        let mut last = after;
        while last < through {
            let read = self.reader.records(last + 1..=through, RECORDS_PER_READ_BYTES)?;
            last = read.last().map(|(seq, _)| *seq).ok_or(PastError::Missing(last + 1))?;
            bytes += read.iter().map(|(_, record)| record.len()).sum::<usize>();
            records.extend(read);
            if bytes > bytes_max {
                return Ok(None);
            }
        }
        Ok(Some(records))
    }

    /// State right after a record with everything that belongs to it: for its digest.
    pub(crate) fn whole_state_at(&self, seq: Seq, later: &State) -> Result<State, PastError> {
        let milestone = self.milestone_before(seq)?;
        let mut state = if milestone == 0 {
            self.snapshot_before(seq)?
        } else {
            let mut state = self.milestone(milestone)?.filled(later, seq);
            self.answers(milestone)?.put_into(&mut state);
            state
        };
        self.fold_to(&mut state, seq)?;
        Ok(state)
    }

    /// What had been answered at a milestone.
    pub(crate) fn answers(&self, seq: Seq) -> Result<Answers, PastError> {
        let mut answers = Answers::default();
        if seq == 0 {
            return Ok(answers);
        }
        for step in steps_to(seq).into_iter().rev() {
            let delta = self.milestones.answers(step)?.ok_or(PastError::Missing(step))?;
            delta.put_on(&mut answers)?;
        }
        Ok(answers)
    }

    /// Folds the records after a State, up to a seq.
    pub(crate) fn fold_to(&self, state: &mut State, seq: Seq) -> Result<(), PastError> {
        self.fold_each(state, seq, |state, record| {
            fold(state, &record.decode()?);
            Ok(())
        })
    }

    fn fold_each(
        &self,
        state: &mut State,
        seq: Seq,
        fold: impl Fn(&mut State, RecordBytes<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), PastError> {
        while state.seq < seq {
            let next = state.seq + 1;
            let (mut folded, mut read) = (Ok(()), 0);
            self.reader.each_record(next..=seq, |_, bytes| {
                folded = RecordBytes::read(bytes).and_then(|(record, _)| fold(state, record));
                read += bytes.len();
                folded.is_ok() && read < RECORDS_PER_FOLD_BYTES
            })?;
            folded?;
            if state.seq < next {
                return Err(PastError::Missing(next));
            }
        }
        Ok(())
    }

    /// The milestone that rebuilding begins at. Zero where there is none, or where records are missing after it:
    /// then a snapshot is after those.
    fn milestone_before(&self, seq: Seq) -> Result<Seq, PastError> {
        let milestone = at_or_before(seq).min(self.milestones.through()?);
        let gaps = self.reader.gaps();
        // The snapshot that came instead of records is of the last of them.
        if gaps.iter().any(|(from, to)| *from <= seq && seq < *to) {
            return Err(PastError::Missing(seq));
        }
        let is_cut_off = gaps.iter().any(|(from, to)| milestone < *to && *from <= seq);
        Ok(if is_cut_off { 0 } else { milestone })
    }

    /// Before the first milestone there may be a snapshot; as the one that came instead of history, which is still
    /// being fetched or lost for good.
    fn snapshot_before(&self, seq: Seq) -> Result<State, PastError> {
        match self.reader.snapshot_at_or_before(seq)?.map(|snapshot| Snapshot::decode(&snapshot.data)) {
            Some(Ok(snapshot)) => Ok(snapshot.state),
            // One of an earlier version says nothing here; the records do, once they are there.
            None | Some(Err(DecodeError::Format { .. })) => Ok(State::default()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The outline of State at a milestone.
    pub(crate) fn milestone(&self, seq: Seq) -> Result<Outline, PastError> {
        if seq == 0 {
            return Ok(Outline::default());
        }
        let mut steps = steps_to(seq);
        let mut outline = self.nearest_base(&mut steps, |known, seq| known.at(seq).cloned());
        for step in steps.into_iter().rev() {
            let delta = self.milestones.get(step)?.ok_or(PastError::Missing(step))?;
            delta.put_on(&mut outline)?;
        }
        self.known().visit(&outline);
        Ok(outline)
    }

    /// The same of its target and what governs alone.
    fn target_milestone(&self, seq: Seq) -> Result<TargetOutline, PastError> {
        let mut steps = steps_to(seq);
        let mut outline = self.nearest_base(&mut steps, Known::target_at);
        for step in steps.into_iter().rev() {
            let delta = at_milestone(step, decode_target(&self.target_of(step)?))?;
            delta.put_on(&mut outline)?;
        }
        self.known().visit_target(&outline);
        Ok(outline)
    }

    /// The same of what governs and of some apps' targets.
    fn target_milestone_about(&self, seq: Seq, apps: &BTreeSet<AppEnv>) -> Result<TargetOutline, PastError> {
        let mut steps = steps_to(seq);
        let mut outline = self.nearest_base(&mut steps, Known::target_at).about(apps);
        for step in steps.into_iter().rev() {
            let bytes = self.target_of(step)?;
            let delta = TargetBytes::read(&bytes).and_then(|bytes| bytes.about(apps));
            at_milestone(step, delta)?.put_on(&mut outline)?;
        }
        Ok(outline)
    }

    fn target_of(&self, step: Seq) -> Result<Vec<u8>, PastError> {
        self.milestones.target(step)?.ok_or(PastError::Missing(step))
    }

    /// The outline to begin from, of those that `at` finds; leaves the steps that lead on from there.
    fn nearest_base<T: Default>(&self, steps: &mut Vec<Seq>, at: impl Fn(&Known, Seq) -> Option<T>) -> T {
        let known = self.known();
        let found = steps.iter().enumerate().find_map(|(step, seq)| Some((step, at(&known, *seq)?)));
        let (step, outline) = found.unwrap_or_else(|| (steps.len(), T::default()));
        steps.truncate(step);
        outline
    }

    /// Keeps an outline in memory that differs in so many facts from one that is kept already.
    pub(crate) fn keep(&self, outline: &Outline, facts: usize) {
        self.known().keep(outline, facts);
    }

    /// Keeps the outline of a milestone in memory as the neighbour of an earlier one: what is equal in
    /// both is kept once. Answers the one kept.
    pub(crate) fn keep_beside(&self, earlier: &Outline, seq: Seq) -> Result<Outline, PastError> {
        if let Some(kept) = self.known().anchors.get(&seq) {
            return Ok(kept.outline.clone());
        }
        let delta = Delta::between(earlier, &self.milestone(seq)?);
        let facts = delta.count();
        let mut shared = earlier.clone();
        delta.put_on(&mut shared)?;
        self.known().keep(&shared, facts);
        Ok(shared)
    }

    /// In how many facts two milestones differ.
    pub(crate) fn distance(&self, earlier: Seq, later: Seq) -> Result<usize, PastError> {
        Ok(Delta::between(&self.milestone(earlier)?, &self.milestone(later)?).count())
    }

    /// Whether there is room for more in memory.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_for(0)
    }

    /// Whether there is room for outlines that differ in so many facts from each other.
    pub(crate) fn has_room_for(&self, facts: usize) -> bool {
        // What the log grows by needs some, too.
        let more = facts.saturating_mul(PAST_FACT_BYTES);
        let known = self.known();
        known.bytes.saturating_add(more) < known.bytes_max / 8 * 7
    }

    /// How many milestones are kept in memory, and what they take there, about, in bytes.
    pub(crate) fn in_memory(&self) -> (usize, usize) {
        let known = self.known();
        (known.anchors.len(), known.bytes)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last record at or before a time; zero when there is none.
    pub(crate) fn seq_at(&self, time: Time, last: Seq) -> Result<Seq, PastError> {
        let gaps = joined(self.reader.gaps());
        let (mut low, mut high) = (0, last);
        // Log time is strictly increasing, so it can be searched by halves.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if let Some(&(from, to)) = gaps.iter().find(|(from, to)| *from <= middle && middle <= *to) {
                // Whoever is not inside of what is missing is on one side of it.
                if to < high && self.header(to + 1)?.time <= time {
                    low = to + 1;
                } else if low < from - 1 && self.header(from - 1)?.time > time {
                    high = from - 2;
                } else {
                    return Err(PastError::Missing(middle));
                }
            } else if self.header(middle)?.time <= time {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// The last seq at or before this one that ends a decision: no point lies inside one.
    pub(crate) fn whole(&self, seq: Seq) -> Result<Seq, PastError> {
        if seq == 0 {
            return Ok(0);
        }
        let decision = self.header(seq)?.decision;
        Ok(if decision.last() == seq { seq } else { decision.first - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A milestone at which so many reviews are due.
    fn milestone(number: u64) -> Outline {
        let mut state = State::default();
        state.seq = number * MILESTONE_INTERVAL_RECORDS;
        let principal = stele_model::decide::system();
        state.control.reviews = (1..=number).map(|seq| (seq, principal.clone())).collect();
        Outline::of(&state)
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(joined(vec![(1, 3), (4, 4), (5, 9), (11, 12)]), [(1, 9), (11, 12)]);
        assert_eq!(joined(Vec::new()), []);
    }

    #[test]
    fn what_is_forgotten_first_lies_between_others() {
        let facts = 100;
        let mut known = Known::new(10 * facts * PAST_FACT_BYTES);
        for number in 1..=40 {
            known.keep(&milestone(number), facts);
            assert!(known.bytes <= known.bytes_max);
            assert_eq!(known.bytes, known.anchors.values().map(|anchor| anchor.bytes).sum::<usize>());
        }
        let kept: Vec<_> = known.anchors.keys().map(|seq| seq / MILESTONE_INTERVAL_RECORDS).collect();
        assert!(kept.len() < 40, "{kept:?}");
        assert!(kept.contains(&16) && kept.contains(&32) && kept.contains(&4), "{kept:?}");
        assert!(!kept.contains(&1) && !kept.contains(&21), "{kept:?}");
    }

    #[test]
    fn what_was_read_lately_is_found_and_bounded() {
        let mut known = Known::default();
        for number in 1..=PAST_RECENT_MAX as u64 + 3 {
            known.visit(&milestone(number));
        }
        known.visit(&milestone(5));
        assert_eq!(known.recent.len(), PAST_RECENT_MAX);
        assert!(known.at(MILESTONE_INTERVAL_RECORDS).is_none());
        assert!(known.at(5 * MILESTONE_INTERVAL_RECORDS).is_some());
    }

    #[test]
    fn what_was_rebuilt_lately_is_kept_once_and_bounded() {
        let mut known = Rebuilt::default();
        let at = |seq| {
            let mut state = State::default();
            state.seq = seq;
            state
        };
        for seq in 1..=PAST_REBUILT_MAX as u64 + 1 {
            known.keep(&at(seq));
            known.keep(&at(seq));
        }
        assert_eq!(known.0.len(), PAST_REBUILT_MAX);
        assert!(known.again(1).is_none());
        assert_eq!(known.again(2).map(|state| state.seq), Some(2));
        let gone = known.keep(&at(9));
        assert_eq!(gone.map(|state| state.seq), Some(3), "what was needed again stays");
    }
}
