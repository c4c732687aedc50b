//! Runs of changes of one kind by one device, and which of them were one go.

use super::{BESIDE, WRITING, Who, gap_of};
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
    /// How many things that are: a directory that was moved counts with what is in it.
    pub(super) weight: usize,
    /// What shows of what it was before; see [`super::again`].
    pub(super) was: u64,
    /// It brought back what had been there before, with many others.
    pub(super) again: bool,
    /// The undo of this device that it is a part of.
    pub(super) act: Option<u64>,
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
    /// How many that are, with what is in directories that were moved.
    pub(super) size: usize,
    /// When the oldest change of it was recorded.
    pub(super) reaches: u64,
    /// When its newest was.
    pub(super) ends: u64,
    /// Nothing but things that are written to all the time.
    pub(super) steady: bool,
    /// A pause parts it from a mass change after it, of which it is no part.
    pub(super) apart: bool,
    /// When the oldest change was recorded of all that no pause of a minute parts from it.
    pub(super) follows: u64,
    /// That of it which makes it a mass change.
    core: Core,
}

/// From the first ten or more at once of a run to the last ten or more at once. All of it if it goes on slowly.
#[derive(Clone, Copy, Default)]
struct Core {
    /// When the oldest change of it was recorded.
    reaches: u64,
    /// When its newest was.
    ends: u64,
    /// The number after its newest.
    to: u64,
    /// The longest pause within it.
    longest: u64,
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
        let near = self.steady || other.steady || !self.is_parted(other);
        near && (at_once || (mass(self.kind) && mass(other.kind) && self.is_near(other, gap)))
    }

    /// Whether a pause lies between the two that neither has: then the older one is what somebody did before a slip. What goes
    /// on slowly may be slow at its beginning.
    fn is_parted(&self, other: &Run) -> bool {
        let (mut older, mut newer) = (self.core, other.core);
        if older.to > newer.to {
            core::mem::swap(&mut older, &mut newer);
        }
        let pause = newer.reaches.saturating_sub(older.ends);
        pause >= WRITING && pause > newer.longest.saturating_mul(2)
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
    // Beside a mass change few others are not meant, even where few would do.
    let many = least.max(first.size.min(MASS));
    let joins = |run: &Run, member: &Run| {
        // Few that are of the same kind are not written to all the time, and were at it, too.
        let many = run.size >= many || (run.kind == first.kind && first.steady && run.is_near(&first, gap));
        (many && !run.apart && run.goes_with(member, gap)) || run.replaces(member, gap)
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
        let large = |i: &usize| runs[*i].size >= least && runs[*i].steady == steady;
        (0..runs.len()).filter(large).max_by_key(|i| runs[*i].core.to)
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

/// The runs of those that are meant, cut where for longer than `gap` there was none, and where a mass change begins.
fn runs(all: &[One], gap: u64, steady: bool, meant: impl Fn(usize) -> bool) -> Vec<Run> {
    let meant: Vec<usize> = (0..all.len()).filter(|i| meant(*i)).collect();
    let mut out = Vec::new();
    for part in meant.chunk_by(|a, b| gap_of(&all[*a], &all[*b]) <= gap) {
        let follows = part.last().map_or(0, |oldest| all[*oldest].at);
        let cut = if steady { part.len() } else { begins(all, part, gap) };
        for (part, apart) in [(&part[..cut], false), (&part[cut..], true)] {
            let (Some(newest), Some(oldest)) = (part.first(), part.last()) else { continue };
            let (newest, oldest) = (all[*newest], all[*oldest]);
            out.push(Run {
                who: newest.who,
                kind: newest.counts,
                from: oldest.seq,
                to: newest.seq + 1,
                things: part.iter().map(|i| all[*i].node).collect(),
                size: size(part.iter().map(|i| &all[*i])),
                reaches: oldest.at,
                ends: newest.at,
                steady,
                apart,
                follows,
                core: core(all, part, gap, steady),
            });
        }
    }
    out
}

/// How many of some changes, given the newest first, are a mass change and what came after it, if few others, or slow ones,
/// were before it and a pause between: those are what somebody did before a slip. All of them if there is no such pause.
fn begins(all: &[One], part: &[usize], gap: u64) -> usize {
    let Some((after, cut)) = at_once(all, part, gap) else { return part.len() };
    let Some(older) = part.get(cut) else { return part.len() };
    let pause = gap_of(&all[part[cut - 1]], &all[*older]);
    // What goes on slowly may be slow at its beginning.
    let few = size(part[cut..].iter().map(|i| &all[*i])) < MASS;
    let is_cut = pause > 2 * longest(all, &part[after..cut]) && (few || pause > WRITING);
    if is_cut { cut } else { part.len() }
}

/// Where the last ten or more at once stand among some changes, given the newest first, and where the first of those end that
/// no pause of more than `gap` parts from them.
fn at_once(all: &[One], part: &[usize], gap: u64) -> Option<(usize, usize)> {
    let between = |a: &usize, b: &usize| gap_of(&all[*a], &all[*b]);
    let at_once: Vec<&[usize]> = part.chunk_by(|a, b| between(a, b) <= BESIDE).collect();
    let is_mass = |of: &[usize]| size(of.iter().map(|i| &all[*i])) >= MASS;
    let newest = at_once.iter().position(|of| is_mass(of))?;
    let mut first = newest;
    for (i, of) in at_once.iter().enumerate().skip(newest + 1) {
        let pause = at_once[first].last().zip(of.first()).map_or(0, |(newer, older)| between(newer, older));
        if pause > gap {
            break;
        }
        if is_mass(of) {
            first = i;
        }
    }
    let count = |upto: usize| at_once[..upto].iter().map(|of| of.len()).sum::<usize>();
    Some((count(newest), count(first + 1)))
}

/// The longest pause between one and the next.
fn longest(all: &[One], part: &[usize]) -> u64 {
    part.windows(2).map(|two| gap_of(&all[two[0]], &all[two[1]])).max().unwrap_or(0)
}

fn core(all: &[One], part: &[usize], gap: u64, steady: bool) -> Core {
    let (after, cut) = if steady { None } else { at_once(all, part, gap) }.unwrap_or((0, part.len()));
    let part = &part[after..cut];
    let (Some(newest), Some(oldest)) = (part.first(), part.last()) else { return Core::default() };
    let (newest, oldest) = (all[*newest], all[*oldest]);
    Core { reaches: oldest.at, ends: newest.at, to: newest.seq + 1, longest: longest(all, part) }
}

/// How many things some changes are of, with what is in directories that were moved.
pub(super) fn size<'a>(of: impl Iterator<Item = &'a One>) -> usize {
    of.map(|one| (one.node, one.weight)).collect::<BTreeMap<_, _>>().values().sum()
}

/// Which of the changes are of things that are written to all the time.
/// None is because it was taken back and made again: that is done by people.
pub(super) fn busy(all: &[One], gap: u64) -> Vec<bool> {
    let mut times: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
    for one in all.iter().rev().filter(|one| !one.again) {
        let of = times.entry(one.node).or_default();
        if of.last() != Some(&one.at) {
            of.push(one.at);
        }
    }
    let busy = |one: &One| {
        let span = gap.saturating_mul(SPAN);
        let of = times.get(&one.node).map_or(&[][..], |of| of);
        let from = of.partition_point(|t| *t < one.at.saturating_sub(span));
        !one.again && of.len() - from >= BUSY && of[from + BUSY - 1] <= one.at.saturating_add(span)
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
