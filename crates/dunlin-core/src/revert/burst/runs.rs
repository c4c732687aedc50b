//! Runs of changes of one kind by one device, and which of them were one go.

use super::{Who, gap_of};
use crate::ids::{Incarnation, NodeId};
use crate::journal::Kind;
use crate::revert::MASS;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// So many changes of one thing, each at another moment, within [`SPAN`] pauses around one of them: it is written to all the
/// time, and says nothing of what others are part of.
const BUSY: usize = 4;
/// How many pauses that are.
pub(super) const SPAN: u64 = 2;

/// One change.
#[derive(Clone, Copy)]
pub(super) struct One {
    pub(super) seq: u64,
    /// When it was recorded, in seconds of running.
    pub(super) at: u64,
    pub(super) node: NodeId,
    pub(super) inc: Incarnation,
    pub(super) who: Who,
    /// What was made of the thing.
    pub(super) kind: Kind,
    /// What that counts as: what is written into what was made a moment before is part of having made it.
    pub(super) counts: Kind,
}

/// Many changes of one kind by one device.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) who: Who,
    pub(super) kind: Kind,
    pub(super) from: u64,
    pub(super) to: u64,
    /// Which things were changed.
    pub(super) things: BTreeSet<NodeId>,
    /// When the oldest change of it was recorded.
    pub(super) reaches: u64,
    /// When its newest was.
    pub(super) ends: u64,
    /// Nothing but things that are written to all the time.
    pub(super) steady: bool,
}

impl Run {
    /// Whether the two were one go. Edits and deletes of one are recorded apart: a delete is believed only after a while.
    /// What is written to all the time is part of that only if it was not before, nor after.
    fn goes_with(&self, other: &Run, gap: u64) -> bool {
        if self.steady && !other.steady && !self.is_within(other, gap) {
            return false;
        }
        let mass = |kind: Kind| matches!(kind, Kind::Changed | Kind::Deleted);
        let at_once = self.from < other.to && other.from < self.to;
        at_once || (mass(self.kind) && mass(other.kind) && self.is_near(other, gap))
    }

    /// Whether what one of the two deleted the other one made again: an old copy is put in the place of all.
    fn replaces(&self, other: &Run, gap: u64) -> bool {
        let kinds = [self.kind, other.kind];
        (kinds == [Kind::Revived, Kind::Deleted] || kinds == [Kind::Deleted, Kind::Revived])
            && self.is_near(other, gap)
            && !self.things.is_disjoint(&other.things)
    }

    /// Whether it began and ended no more than `gap` seconds before and after the other.
    fn is_within(&self, other: &Run, gap: u64) -> bool {
        self.reaches.saturating_add(gap) >= other.reaches && self.ends <= other.ends.saturating_add(gap)
    }

    /// Whether no more than `gap` seconds lie between the two.
    fn is_near(&self, other: &Run, gap: u64) -> bool {
        self.reaches <= other.ends.saturating_add(gap) && other.reaches <= self.ends.saturating_add(gap)
    }
}

/// The newest mass change: the newest run that is large enough, with those that were one go with it, or with one of those.
/// No other device's is.
pub(super) fn together(all: Vec<Run>, least: usize, gap: u64) -> Vec<Run> {
    let Some(first) = newest(&all, least, gap) else { return Vec::new() };
    let first = all[first].clone();
    let mut rest: Vec<Run> = all.into_iter().filter(|run| run.who == first.who && *run != first).collect();
    let joins = |run: &Run, member: &Run| {
        // Few that are of the same kind are not written to all the time, and were at it, too.
        let many =
            run.things.len() >= least || (run.kind == first.kind && first.steady && run.is_near(&first, gap));
        (many && run.goes_with(member, gap)) || run.replaces(member, gap)
    };
    let mut out = alloc::vec![first.clone()];
    let mut next = 0;
    while let Some(member) = out.get(next).cloned() {
        let (new, others) = rest.into_iter().partition(|run| joins(run, &member));
        rest = others;
        out.extend::<Vec<Run>>(new);
        next += 1;
    }
    out
}

impl PartialEq for Run {
    fn eq(&self, other: &Run) -> bool {
        let of = |run: &Run| (run.who, run.kind, run.from, run.to, run.steady);
        of(self) == of(other)
    }
}

/// The newest of the runs that are large enough. One of things that are written to all the time is not, if another one ended
/// since it began, or no more than `gap` seconds before that.
fn newest(runs: &[Run], least: usize, gap: u64) -> Option<usize> {
    let last = |steady: bool| {
        let large = |i: &usize| runs[*i].things.len() >= least && runs[*i].steady == steady;
        (0..runs.len()).filter(large).max_by_key(|i| runs[*i].to)
    };
    let (Some(steady), Some(other)) = (last(true), last(false)) else { return last(true).or(last(false)) };
    let [s, o] = [&runs[steady], &runs[other]];
    let yields = o.to > s.to || o.ends.saturating_add(gap) >= s.reaches;
    Some(if yields { other } else { steady })
}

/// The runs that changes of one kind make, given the newest first. No two of a run are further apart than `gap`.
pub(super) fn of_one_kind(all: &[One], gap: u64) -> Vec<Run> {
    all.chunk_by(|a, b| gap_of(a, b) <= gap).flat_map(|part| parts(part, gap)).collect()
}

/// Those of things that are not written to all the time, and those of so many others within a pause that they are a mass
/// change themselves.
fn parts(all: &[One], gap: u64) -> Vec<Run> {
    let busy = busy(all, gap);
    let many = many(all, &busy, gap);
    let mut out = runs(all, gap, false, |i| !busy[i]);
    out.extend(runs(all, gap, true, |i| many[i]));
    // Nothing but few such: then this is all there is.
    if out.is_empty() { runs(all, u64::MAX, true, |_| true) } else { out }
}

/// The runs of those that are meant, cut where for longer than `gap` there was none.
fn runs(all: &[One], gap: u64, steady: bool, meant: impl Fn(usize) -> bool) -> Vec<Run> {
    let run = |part: &[usize]| {
        let (newest, oldest) = (all[*part.first()?], all[*part.last()?]);
        Some(Run {
            who: newest.who,
            kind: newest.counts,
            from: oldest.seq,
            to: newest.seq + 1,
            things: part.iter().map(|i| all[*i].node).collect(),
            reaches: oldest.at,
            ends: newest.at,
            steady,
        })
    };
    let meant: Vec<usize> = (0..all.len()).filter(|i| meant(*i)).collect();
    meant.chunk_by(|a, b| gap_of(&all[*a], &all[*b]) <= gap).filter_map(run).collect()
}

/// Which of the changes are of things that are written to all the time.
pub(super) fn busy(all: &[One], gap: u64) -> Vec<bool> {
    let mut times: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
    for one in all.iter().rev() {
        let of = times.entry(one.node).or_default();
        if of.last() != Some(&one.at) {
            of.push(one.at);
        }
    }
    let busy = |one: &One| {
        let span = gap.saturating_mul(SPAN);
        let of = times.get(&one.node).map_or(&[][..], |of| of);
        let from = of.partition_point(|t| *t < one.at.saturating_sub(span));
        of.len() - from >= BUSY && of[from + BUSY - 1] <= one.at.saturating_add(span)
    };
    all.iter().map(busy).collect()
}

/// Which of those are of so many things within a pause that they are a mass change themselves.
fn many(all: &[One], busy: &[bool], gap: u64) -> Vec<bool> {
    let mut out = alloc::vec![false; all.len()];
    // How often each is among those of one pause, which begins ever further back.
    let (mut among, mut pause) = (BTreeMap::<NodeId, usize>::new(), VecDeque::<usize>::new());
    let mut marked = 0;
    for i in (0..all.len()).filter(|i| busy[*i]) {
        let begins = all[i].at.saturating_add(gap);
        while let Some(newest) = pause.front().copied().filter(|newest| all[*newest].at > begins) {
            pause.pop_front();
            if let Some(n) = among.get_mut(&all[newest].node) {
                *n -= 1;
                if *n == 0 {
                    among.remove(&all[newest].node);
                }
            }
        }
        pause.push_back(i);
        *among.entry(all[i].node).or_default() += 1;
        if among.len() >= MASS {
            let first = pause.front().map_or(i, |first| *first);
            (first.max(marked)..=i).filter(|i| busy[*i]).for_each(|i| out[i] = true);
            marked = i + 1;
        }
    }
    out
}
