//! The last mass change: what `undo` means when it is told nothing else.

use super::{Back, PAGE, Selection, back_to};
use crate::ids::{DeviceId, Incarnation, NodeId};
use crate::journal::{ChangeRow, Journal, Kind, Moment};
use crate::kv::{Read, View};
use crate::rows::Rows;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// So many changes of one kind by one device are a mass change …
pub const MASS: usize = 10;
/// … if no more than so many seconds lie between one and the next.
pub const PAUSE: u64 = 60;
/// Numbers looked at together, going back.
const WINDOW: u64 = 1024;

/// Many changes by one device, without a long pause between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// The changes.
    pub selection: Selection,
    /// How many there are.
    pub count: usize,
}

/// So many changes of one thing, each at another moment, within [`SPAN`] pauses around one of them: it is written to all the
/// time, and says nothing of what others are part of.
const BUSY: usize = 4;
const SPAN: u64 = 2;

#[derive(Clone)]
struct Run {
    from: u64,
    to: u64,
    /// How many things were changed.
    count: usize,
    /// When the oldest change of it was recorded.
    reaches: Moment,
    /// When its newest was.
    ends: Moment,
    /// Nothing but things that are written to all the time.
    steady: bool,
}

/// One change.
struct One {
    seq: u64,
    at: Moment,
    node: NodeId,
}

impl Run {
    /// Whether the two were one go. Edits and deletes of one are recorded apart: a delete is believed only after a while.
    /// What is written to all the time is part of that only if it was not before, nor after.
    fn goes_with(&self, its: Kind, other: &Run, kind: Kind, gap: u64) -> bool {
        if self.steady && !other.steady && !self.is_within(other, gap) {
            return false;
        }
        let mass = |kind: Kind| matches!(kind, Kind::Changed | Kind::Deleted);
        let at_once = self.from < other.to && other.from < self.to;
        at_once || (mass(its) && mass(kind) && self.is_near(other, gap))
    }

    /// Whether it began and ended no more than `gap` seconds before and after the other.
    fn is_within(&self, other: &Run, gap: u64) -> bool {
        self.reaches.running.saturating_add(gap) >= other.reaches.running
            && self.ends.running <= other.ends.running.saturating_add(gap)
    }

    /// Whether no more than `gap` seconds lie between the two.
    fn is_near(&self, other: &Run, gap: u64) -> bool {
        self.reaches.running <= other.ends.running.saturating_add(gap)
            && other.reaches.running <= self.ends.running.saturating_add(gap)
    }
}

/// Who, and what. A device makes changes under several incarnations; of one that nobody knows, that is who.
type Sort = (Result<DeviceId, Incarnation>, Kind);

/// The newest run of changes of one kind by one device, with at most `gap` seconds between one and the next, that
/// took away, brought back or altered at least `least` things; with the runs of other kinds, as large, that are no
/// further from it: edits are found at once, and deletes a moment later. Whoever is not in `by` is left out. What was
/// merely added does not count, and is no part of it. Nor does a file that is written all the time join what else was done;
/// many such files are what is meant only if nothing else was since they began.
pub fn last_burst(
    view: &dyn View,
    least: usize,
    gap: u64,
    by: Option<&BTreeSet<Incarnation>>,
) -> Read<Option<Burst>> {
    let moments = view.moments()?;
    let moment = |seq: u64| {
        let i = moments.partition_point(|(last, _)| *last < seq);
        moments.get(i).or(moments.last()).map_or(Moment::default(), |(_, m)| *m)
    };
    let mut authors: BTreeMap<Incarnation, Result<DeviceId, Incarnation>> = BTreeMap::new();
    let mut going: BTreeMap<Sort, Vec<One>> = BTreeMap::new();
    let mut done: Vec<(Sort, Run)> = Vec::new();
    let mut end = view.totals()?.seq + 1;
    while end > 0 {
        let start = end.saturating_sub(WINDOW);
        for (seq, row) in view.changes(start, end, usize::MAX)?.into_iter().rev() {
            let inc = row.by.inc;
            if row.kind == Kind::Created || by.is_some_and(|who| !who.contains(&inc)) {
                continue;
            }
            let who = match authors.get(&inc) {
                Some(who) => *who,
                None => *authors.entry(inc).or_insert(view.device_of(inc)?.ok_or(inc)),
            };
            let (sort, one) = ((who, row.kind), One { seq, at: moment(seq), node: row.node });
            let all = going.entry(sort).or_default();
            if all.last().is_some_and(|o| o.at.running.saturating_sub(one.at.running) > gap) {
                done.extend(parts(core::mem::take(all), gap).into_iter().map(|run| (sort, run)));
            }
            all.push(one);
        }
        end = start;
        // Whoever came later counts; one that still grows may yet become large enough.
        let best = newest(&done, least, gap).map(|(_, run)| run);
        let older = |all: &Vec<One>, best: &Run| all.first().is_none_or(|one| one.seq < best.to);
        let far = |best: &Run| moment(start).running.saturating_add(gap) < best.reaches.running;
        let is_last = |best: &Run| !best.steady || far(best);
        if best.is_some_and(|best| is_last(best) && going.values().all(|all| older(all, best))) {
            break;
        }
    }
    let left =
        going.into_iter().flat_map(|(sort, all)| parts(all, gap).into_iter().map(move |run| (sort, run)));
    done.extend(left);
    let Some(((who, kind), first)) = newest(&done, least, gap).cloned() else { return Ok(None) };
    let among = |((whose, its), run): &&(Sort, Run)| {
        // Few that are of the same kind are not written to all the time, and were at it, too.
        let many = run.count >= least || (*its == kind && first.steady && run.is_near(&first, gap));
        *whose == who && many && run.goes_with(*its, &first, kind, gap)
    };
    let mut burst = Burst {
        selection: Selection {
            from: first.from,
            to: first.to,
            by: Some(authors.iter().filter(|(_, its)| **its == who).map(|(inc, _)| *inc).collect()),
            kinds: Some(BTreeSet::new()),
        },
        count: 0,
    };
    for ((_, kind), run) in done.iter().filter(among) {
        burst.selection.from = burst.selection.from.min(run.from);
        burst.selection.to = burst.selection.to.max(run.to);
        burst.selection.kinds.get_or_insert_default().insert(*kind);
        burst.count += run.count;
    }
    Ok(Some(burst))
}

/// What is taken back of a burst, where `back` is what all of it comes to. One that was taken back within the pause is
/// part of one burst with that, and both come to nothing: if at least `least` things were changed and changed back, the last
/// change of each of those is meant, unless as many others were changed after that.
pub fn last_of_each(
    view: &dyn View,
    selection: &Selection,
    back: Vec<Back>,
    least: usize,
) -> Read<Vec<Back>> {
    let mut last: BTreeMap<NodeId, (u64, ChangeRow)> = BTreeMap::new();
    let mut from = selection.from;
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((end, _)) = page.last() else { break };
        from = end + 1;
        last.extend(page.into_iter().map(|(seq, row)| (row.node, (seq, row))));
    }
    let mut out = Vec::new();
    for (node, (seq, row)) in last {
        let stays = back.iter().any(|b| b.node == node) || !selection.has(seq, row.by, row.kind);
        let Some(now) = view.node(node)?.filter(|_| !stays) else { continue };
        out.extend(back_to(view, node, &now, seq, &row.before)?);
    }
    let before: &dyn Fn(&Back) -> bool = &|b| out.iter().all(|o: &Back| o.seq < b.seq);
    if out.len() < least || (back.len() >= least && back.iter().all(before)) {
        return Ok(back);
    }
    // What was taken back together is so again.
    if !back.iter().all(before) {
        out.extend(back);
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

/// The runs that changes make, of which no two are further apart than `gap`, given the newest first: those of things that
/// are not written to all the time, and those of so many others within a pause that they are a mass change themselves.
fn parts(all: Vec<One>, gap: u64) -> Vec<Run> {
    let busy = busy(&all, gap);
    let many = many(&all, &busy, gap);
    let mut out = runs(&all, gap, false, |i| !busy[i]);
    out.extend(runs(&all, gap, true, |i| many[i]));
    // Nothing but few such: then this is all there is.
    if out.is_empty() { runs(&all, u64::MAX, true, |_| true) } else { out }
}

/// The runs of those that are meant, cut where for longer than `gap` there was none.
fn runs(all: &[One], gap: u64, steady: bool, meant: impl Fn(usize) -> bool) -> Vec<Run> {
    let run = |some: &[One], meant: &[usize]| {
        let (newest, oldest) = (some.first()?, some.last()?);
        let things: BTreeSet<NodeId> = meant.iter().map(|i| all[*i].node).collect();
        let (from, to) = (oldest.seq, newest.seq + 1);
        Some(Run { from, to, count: things.len(), reaches: oldest.at, ends: newest.at, steady })
    };
    let meant: Vec<usize> = (0..all.len()).filter(|i| meant(*i)).collect();
    let parts = meant.chunk_by(|a, b| all[*a].at.running.saturating_sub(all[*b].at.running) <= gap);
    parts.filter_map(|part| run(&all[*part.first()?..=*part.last()?], part)).collect()
}

/// Which of the changes are of things that are written to all the time.
fn busy(all: &[One], gap: u64) -> Vec<bool> {
    let mut times: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
    for one in all.iter().rev() {
        let of = times.entry(one.node).or_default();
        if of.last() != Some(&one.at.running) {
            of.push(one.at.running);
        }
    }
    let busy = |one: &One| {
        let (now, span) = (one.at.running, gap.saturating_mul(SPAN));
        let of = times.get(&one.node).map_or(&[][..], |of| of);
        let near = |t: &u64| *t < now.saturating_sub(span);
        let from = of.partition_point(near);
        of.len() - from >= BUSY && of[from + BUSY - 1] <= now.saturating_add(span)
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
        let begins = all[i].at.running.saturating_add(gap);
        while let Some(newest) = pause.front().copied().filter(|newest| all[*newest].at.running > begins) {
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

/// The newest of the runs that are large enough. One of things that are written to all the time is not, if another one ended
/// since it began, or no more than `gap` seconds before that.
fn newest(runs: &[(Sort, Run)], least: usize, gap: u64) -> Option<&(Sort, Run)> {
    let last = |steady: bool| {
        let some = runs.iter().filter(move |(_, run)| run.count >= least && run.steady == steady);
        some.max_by_key(|(_, run)| run.to)
    };
    let (Some(steady), Some(other)) = (last(true), last(false)) else { return last(true).or(last(false)) };
    let since = steady.1.reaches.running;
    let yields = other.1.to > steady.1.to || other.1.ends.running.saturating_add(gap) >= since;
    Some(if yields { other } else { steady })
}
