//! The last mass change: what `undo` means when it is told nothing else.

use super::Selection;
use crate::ids::{DeviceId, Incarnation};
use crate::journal::{Journal, Kind, Moment};
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

fn newest(runs: &[(Sort, Run)], least: usize) -> Option<&(Sort, Run)> {
    runs.iter().filter(|(_, run)| run.count >= least).max_by_key(|(_, run)| run.to)
}
