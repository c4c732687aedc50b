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
}

/// One change.
struct One {
    seq: u64,
    at: Moment,
    node: NodeId,
}

impl Run {
    /// Whether the two were one go. Edits and deletes of one are recorded apart: a delete is believed only after a while.
    fn goes_with(&self, its: Kind, other: &Run, kind: Kind, gap: u64) -> bool {
        let mass = |kind: Kind| matches!(kind, Kind::Changed | Kind::Deleted);
        let at_once = self.from < other.to && other.from < self.to;
        at_once || (mass(its) && mass(kind) && self.is_near(other, gap))
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
/// merely added does not count, and is no part of it. Nor does a file that is written all the time join what else was done.
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
        let best = newest(&done, least).map(|(_, run)| run.to);
        let older = |all: &Vec<One>, best: u64| all.first().is_none_or(|one| one.seq < best);
        if best.is_some_and(|best| going.values().all(|all| older(all, best))) {
            break;
        }
    }
    let left =
        going.into_iter().flat_map(|(sort, all)| parts(all, gap).into_iter().map(move |run| (sort, run)));
    done.extend(left);
    let Some(((who, kind), first)) = newest(&done, least).cloned() else { return Ok(None) };
    let among = |((whose, its), run): &&(Sort, Run)| {
        *whose == who && run.count >= least && run.goes_with(*its, &first, kind, gap)
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

/// The runs that changes make, of which no two are further apart than `gap`, given the newest first. They are cut where
/// for longer than that only things were changed that are written to all the time, and few of them.
fn parts(all: Vec<One>, gap: u64) -> Vec<Run> {
    let links = links(&all, gap);
    let run = |some: &[One]| {
        let (newest, oldest) = (some.first()?, some.last()?);
        let things: BTreeSet<NodeId> = some.iter().map(|o| o.node).collect();
        let (from, to) = (oldest.seq, newest.seq + 1);
        Some(Run { from, to, count: things.len(), reaches: oldest.at, ends: newest.at })
    };
    let mut out = Vec::new();
    let mut begun: Option<(usize, usize)> = None;
    for i in links.iter().enumerate().filter(|(_, links)| **links).map(|(i, _)| i) {
        begun = match begun {
            Some((first, last)) if all[last].at.running.saturating_sub(all[i].at.running) <= gap => {
                Some((first, i))
            }
            before => {
                out.extend(before.and_then(|(first, last)| run(&all[first..=last])));
                Some((i, i))
            }
        };
    }
    out.extend(begun.and_then(|(first, last)| run(&all[first..=last])));
    // Nothing but that: then this is all there is.
    if out.is_empty() { run(&all).into_iter().collect() } else { out }
}

/// Which of the changes say that something went on: those of things that are not written to all the time, and
/// those of so many things within a pause that they are a mass change themselves.
fn links(all: &[One], gap: u64) -> Vec<bool> {
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
    let mut out: Vec<bool> = all.iter().map(|one| !busy(one)).collect();
    // Those that are: how often each is among those of one pause, which begins ever further back.
    let (mut among, mut pause) = (BTreeMap::<NodeId, usize>::new(), VecDeque::<usize>::new());
    let mut marked = 0;
    let all_busy: Vec<usize> = (0..all.len()).filter(|i| !out[*i]).collect();
    for i in all_busy {
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
            out[first.max(marked)..=i].fill(true);
            marked = i + 1;
        }
    }
    out
}

fn newest(runs: &[(Sort, Run)], least: usize) -> Option<&(Sort, Run)> {
    runs.iter().filter(|(_, run)| run.count >= least).max_by_key(|(_, run)| run.to)
}
