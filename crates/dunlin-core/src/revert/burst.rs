//! The last mass change: what `undo` means when it is told nothing else.

use super::{Back, PAGE, Selection, back_to};
use crate::ids::{DeviceId, Incarnation, NodeId};
use crate::journal::{ChangeRow, Journal, Kind, Moment};
use crate::kv::{Read, View};
use crate::rows::Rows;
use alloc::collections::{BTreeMap, BTreeSet};
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

#[derive(Clone)]
struct Run {
    from: u64,
    to: u64,
    count: usize,
    /// When the oldest change of it that was met so far was recorded.
    reaches: Moment,
    /// When its newest was.
    ends: Moment,
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
/// further from it: edits are found at once, and deletes a moment later. Whoever is not in `by` is left out. What was merely added does not count, and is no part of it.
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
    let mut runs: BTreeMap<Sort, Run> = BTreeMap::new();
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
            let sort = (who, row.kind);
            let now = moment(seq);
            match runs.get_mut(&sort) {
                Some(run) if run.reaches.running.saturating_sub(now.running) <= gap => {
                    (run.from, run.reaches) = (seq, now);
                    run.count += 1;
                }
                _ => {
                    let fresh = Run { from: seq, to: seq + 1, count: 1, reaches: now, ends: now };
                    done.extend(runs.insert(sort, fresh).map(|old| (sort, old)));
                }
            }
        }
        end = start;
        // Whoever came later counts; one that still grows may yet become large enough.
        let best = newest(&done, least).map(|(_, run)| run.to);
        if best.is_some_and(|best| runs.values().all(|run| run.to < best)) {
            break;
        }
    }
    done.extend(runs);
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

fn newest(runs: &[(Sort, Run)], least: usize) -> Option<&(Sort, Run)> {
    runs.iter().filter(|(_, run)| run.count >= least).max_by_key(|(_, run)| run.to)
}
