//! The newest raft entries, in memory: what raft and followers read all the time.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use raft::eraftpb::Entry;

use crate::limits::RECENT_ENTRIES_BYTES;

/// The end of the log, without a hole, up to [`RECENT_ENTRIES_BYTES`].
#[derive(Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    /// Index of the oldest; `u64::MAX` without one.
    pub(crate) fn first(&self) -> u64 {
        self.entries.front().map_or(u64::MAX, |entry| entry.index)
    }

    /// Those with an index from `low` on and below `high`.
    pub(crate) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first();
        let from = low.max(first).saturating_sub(first) as usize;
        let until = high.saturating_sub(first) as usize;
        self.entries.iter().take(until).skip(from)
    }

    /// Adds what follows, in place of what has its index already.
    pub(crate) fn push(&mut self, entry: Entry) {
        while self.entries.back().is_some_and(|last| last.index >= entry.index) {
            self.forget_last();
        }
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.bytes > RECENT_ENTRIES_BYTES && !self.entries.is_empty() {
            self.forget_first();
        }
    }

    /// Leaves out what is deleted at one of the ends.
    pub(crate) fn forget(&mut self, gone: &RangeInclusive<u64>) {
        while self.entries.back().is_some_and(|last| gone.contains(&last.index)) {
            self.forget_last();
        }
        while self.entries.front().is_some_and(|first| gone.contains(&first.index)) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
        }
    }

    fn forget_last(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.bytes -= weight(&entry);
        }
    }
}

fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + entry.context.len()
}
