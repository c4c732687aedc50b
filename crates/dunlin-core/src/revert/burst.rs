//! The last mass change: what `undo` means when it is told nothing else.

use super::Selection;
use crate::ids::Incarnation;
use crate::journal::{Journal, Kind, Moment};
use crate::kv::{Read, View};
use crate::rows::Rows;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Numbers looked at together, going back.
const WINDOW: u64 = 1024;

/// Many changes of one device, without a long pause between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// The changes.
    pub selection: Selection,
    /// Who made them.
    pub by: Incarnation,
    /// How many things were taken away or brought back by them.
    pub count: usize,
}

struct Run {
    from: u64,
    to: u64,
    count: usize,
    /// When the oldest change of it that was met so far was recorded.
    reaches: Moment,
}

/// The newest run of changes by one device, with at most `gap` seconds between one and the next, that took
/// away or brought back at least `least` things. Whoever is not in `by` is left out. What was merely added
/// does not count, and is no part of it.
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
    let mut runs: BTreeMap<Incarnation, Run> = BTreeMap::new();
    let mut done: Vec<(Incarnation, Run)> = Vec::new();
    let mut end = view.totals()?.seq + 1;
    while end > 0 {
        let start = end.saturating_sub(WINDOW);
        for (seq, row) in view.changes(start, end, usize::MAX)?.into_iter().rev() {
            let counts = row.kind.takes_away() || row.kind == Kind::Revived;
            let inc = row.by.inc;
            if !counts || by.is_some_and(|who| !who.contains(&inc)) {
                continue;
            }
            let now = moment(seq);
            match runs.get_mut(&inc) {
                Some(run) if run.reaches.running.saturating_sub(now.running) <= gap => {
                    (run.from, run.reaches) = (seq, now);
                    run.count += 1;
                }
                _ => {
                    let fresh = Run { from: seq, to: seq + 1, count: 1, reaches: now };
                    done.extend(runs.insert(inc, fresh).map(|old| (inc, old)));
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
    Ok(newest(&done, least).map(|(inc, run)| Burst {
        selection: Selection { from: run.from, to: run.to, by: Some(BTreeSet::from([*inc])), created: false },
        by: *inc,
        count: run.count,
    }))
}

fn newest(runs: &[(Incarnation, Run)], least: usize) -> Option<&(Incarnation, Run)> {
    runs.iter().filter(|(_, run)| run.count >= least).max_by_key(|(_, run)| run.to)
}
