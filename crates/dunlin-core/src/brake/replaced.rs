//! Edits that replace what the history cannot keep: they count like deletes. Those whose old versions it can keep never do.
//! So that this is known while the old versions are there, what the history got within the last minute does not
//! yield once so much happens that the brake may trip.

use super::held::each_overwrite;
use super::{Brake, Count, Held, STEP, WINDOW};
use crate::ids::{ContentId, Dot, DotRange, NodeId};
use crate::kv::{Read, View};
use crate::rows::{Rows, Totals};
use crate::state::Content;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// So many files that were replaced are known; the others count as long as they are pending.
const REPLACED_MAX: usize = 1 << 16;
/// What a file takes is a multiple of this, about, in bytes.
const BLOCK: u64 = 4096;

/// What a history has room for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// New contents may take so much before anything yields that was put there within the last minute.
    pub disk: u64,
    /// What is replaced may take so much: it is the share of the disk that the history is given.
    pub kept: u64,
    /// Something that is to replace a file did not fit.
    pub full: bool,
}

impl Room {
    fn has(&self, new: u64, old: u64) -> bool {
        !self.full && new <= self.disk && old <= self.kept
    }
}

/// What a device tells of its history.
pub trait History {
    /// What it has room for. With `all` what could yield is summed up, else what is free.
    fn room(&self, all: bool) -> Room;
    /// Whether a content is at hand, so that it needs no room.
    fn has(&self, content: &ContentId) -> bool;
}

/// A file that was replaced.
#[derive(Clone, Debug)]
struct One {
    since: Duration,
    last: Duration,
    /// What it held before, in bytes.
    bytes: u64,
    /// The first change and the last.
    by: [Dot; 2],
}

/// What was replaced within the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    files: BTreeMap<NodeId, One>,
    /// Which number what was put into the history next got, and when.
    numbers: VecDeque<(Duration, u64)>,
}

impl Replaced {
    fn recent(&self, now: Duration) -> impl Iterator<Item = (&NodeId, &One)> {
        self.files.iter().filter(move |(_, one)| now.saturating_sub(one.last) < WINDOW)
    }
}

/// What is to be replaced.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    files: u64,
    /// Those of them that were replaced before within the minute.
    again: u64,
    /// What they hold, in bytes.
    old: u64,
    /// What comes in their place and is not at hand, in bytes.
    new: u64,
}

/// From the first number of both to the last.
pub fn hull(a: Option<Range<u64>>, b: Option<Range<u64>>) -> Option<Range<u64>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.start.min(b.start)..a.end.max(b.end)),
        (a, b) => a.or(b),
    }
}

impl Brake {
    /// What is put into the history from now on gets this number, or a higher one.
    pub fn numbers(&mut self, now: Duration, number: u64) {
        let numbers = &mut self.replaced.numbers;
        if numbers.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= STEP) {
            numbers.push_back((now, number));
        }
        while numbers.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            numbers.pop_front();
        }
    }

    /// A file of so many bytes was replaced, by this change.
    pub fn replaced(&mut self, now: Duration, node: NodeId, bytes: u64, by: Dot) {
        let files = &mut self.replaced.files;
        if files.len() >= REPLACED_MAX {
            files.retain(|_, one| now.saturating_sub(one.last) < WINDOW);
        }
        if files.len() >= REPLACED_MAX && !files.contains_key(&node) {
            return;
        }
        let one = files.entry(node).or_insert(One { since: now, last: now, bytes, by: [by, by] });
        if now.saturating_sub(one.since) >= WINDOW {
            *one = One { since: now, last: now, bytes, by: [by, by] };
        }
        (one.last, one.by[1]) = (now, by);
    }

    /// The changes by which something was replaced within the last minute.
    pub fn replacing(&self, now: Duration) -> Vec<DotRange> {
        DotRange::hull(self.replaced.recent(now).flat_map(|(_, one)| one.by.map(DotRange::of)))
    }

    /// What they replaced, in bytes.
    pub fn replaced_bytes(&self, now: Duration) -> u64 {
        self.replaced.recent(now).fold(0, |sum, (_, one)| sum.saturating_add(one.bytes))
    }

    /// The number from which on what the history got within the last minute is, if it got anything.
    pub fn begins(&self, now: Duration) -> Option<u64> {
        let old = |(at, _): &&(Duration, u64)| now.saturating_sub(*at) >= WINDOW;
        let numbers = &self.replaced.numbers;
        numbers.iter().take_while(old).last().or(numbers.front()).map(|(_, number)| *number)
    }

    /// The numbers under which nothing in the history yields: while deletes or replacements are held, what was put there in the
    /// minute before that; and as soon as there are so many that they may be the first of too many, what was in the last one.
    pub fn spares(&self, now: Duration, totals: &Totals, held: Option<&Held>) -> Option<Range<u64>> {
        let pending = totals.removals.saturating_add(totals.replaces);
        let deleted = self.done.files(now);
        let done = deleted.saturating_add(self.replaced.recent(now).count() as u64);
        let may_trip = self.limits.percent < 100 || self.limits.most.is_some();
        let waits = may_trip && self.waits(pending.saturating_add(done));
        let last = self.begins(now).filter(|_| waits).map(|from| from..u64::MAX);
        let held = held.filter(|held| held.holds());
        hull(last, held.and_then(|held| Some(held.from?..held.upto)))
    }

    /// Whether too many files go in the sense of [`Brake::trips`] if those count that are to be replaced and cannot be
    /// kept. `here`: files that vanished from this disk.
    pub fn overwritten(
        &self,
        view: &dyn View,
        totals: &Totals,
        now: Duration,
        here: u64,
        history: &dyn History,
    ) -> Read<Option<Count>> {
        if totals.replaces == 0 {
            return Ok(None);
        }
        let (done, kept) = (self.replaced.recent(now).count() as u64, self.replaced_bytes(now));
        let with = |count: Count, pending: u64, done: u64| Count {
            replaced: pending.saturating_add(done),
            replaced_done: done,
            ..count
        };
        // Mostly that is enough to know.
        if !self.trips(&with(self.at_most(totals, now, here), totals.replaces, done)) {
            return Ok(None);
        }
        let new = totals.replacing.saturating_add(totals.replaces.saturating_mul(BLOCK));
        if history.room(false).has(new, totals.replaced.saturating_add(kept)) {
            return Ok(None);
        }
        let met: BTreeSet<NodeId> = self.replaced.recent(now).map(|(node, _)| *node).collect();
        let pending = self.pending_replacements(view, &met, history)?;
        // What is to be replaced once more is one file, and pending.
        let done = done.saturating_sub(pending.again);
        let all = with(self.exactly(view, totals, now, here)?, pending.files, done);
        // A few deletes of the same minute are not held with them.
        let edits = Count { deletes: 0, done: 0, ..all };
        let trips = [edits, all].into_iter().find(|count| pending.files > 0 && self.trips(count));
        let fits = || history.room(true).has(pending.new, pending.old.saturating_add(kept));
        Ok(trips.filter(|_| !fits()))
    }

    /// Whether the history has room by now for what held replacements would put there.
    pub fn has_room(&self, view: &dyn View, held: &Held, history: &dyn History) -> Read<bool> {
        let pending = self.pending_replacements(view, &BTreeSet::new(), history)?;
        Ok(history.room(true).has(pending.new, pending.old.saturating_add(held.bytes)))
    }

    fn pending_replacements(
        &self,
        view: &dyn View,
        before: &BTreeSet<NodeId>,
        history: &dyn History,
    ) -> Read<Pending> {
        let mut out = Pending::default();
        each_overwrite(view, |node, old, new| {
            if self.is_young(node) {
                return Ok(());
            }
            out.files += 1;
            out.again += u64::from(before.contains(&node));
            if let Content::File { size, .. } = old.content {
                out.old = out.old.saturating_add(size);
            }
            if let Content::File { id, size } = &new.content
                && view.holders(*id)?.is_empty()
                && !history.has(id)
            {
                out.new = out.new.saturating_add(size.next_multiple_of(BLOCK));
            }
            Ok(())
        })?;
        Ok(out)
    }
}
