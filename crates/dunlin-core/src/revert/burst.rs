//! The last mass change: what `undo` means when it is told nothing else.

mod again;
mod runs;

use super::{Back, PAGE, Selection, back_to};
use crate::ids::{DeviceId, Incarnation, NodeId};
use crate::journal::{ChangeRow, Journal, Kind, Moment};
use crate::kv::{Read, View};
use crate::rows::Rows;
use again::{shape, weight};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use runs::{One, Run, SPAN, busy, of_one_kind, together};

/// So many changes of one kind by one device are a mass change …
pub const MASS: usize = 10;
/// … if no more than so many seconds lie between one and the next.
pub const PAUSE: u64 = 60;
/// What the same device did no more than so many seconds before or after one is part of it: deletes are believed up to two
/// seconds later than edits are found, and recorded to the second.
pub const BESIDE: u64 = 3;
/// What is written into something no more than so many seconds after it was made, or after that, is part of making it: large
/// files and slow disks show much that is half written.
const WRITING: u64 = 10;
/// Numbers looked at together, going back.
const WINDOW: u64 = 1024;

/// Many changes by one device, without a long pause between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// The changes.
    pub selection: Selection,
    /// How many things were changed.
    pub count: usize,
    /// What the same device did within a pause of it, and is not meant.
    pub beside: Beside,
    /// It brought back what had been there before, as an undo does.
    pub brought_back: bool,
}

/// What was done about the time of a burst, and is none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Which things were changed.
    pub things: BTreeSet<NodeId>,
    /// Which were made.
    pub made: BTreeSet<NodeId>,
    /// What the burst changed and was changed before it: it comes back as it was between the two.
    pub earlier: BTreeSet<NodeId>,
    /// How many seconds before the burst the first of these changes was.
    pub earlier_by: u64,
    /// The first and the last number of these changes and of the burst.
    pub between: (u64, u64),
}

/// Who. A device makes changes under several incarnations; of one that nobody knows, that is who.
type Who = Result<DeviceId, Incarnation>;

/// Seconds between a change and one before it.
fn gap_of(newer: &One, older: &One) -> u64 {
    newer.at.saturating_sub(older.at)
}

/// The newest run of changes of one kind by one device, with at most `gap` seconds between one and the next, that
/// took away, brought back or altered at least `least` things; with the runs of other kinds, as large, that are no
/// further from it, and with whatever else that device did in just that time: edits are found at once, and deletes a moment
/// later. Whoever is not in `by` is left out. What was merely added does not count, and is no part of it, nor is what was
/// written into it meanwhile. Nor does a file that is written all the time join what else was done;
/// many such files are what is meant only if nothing else was since they began.
pub fn last_burst(
    view: &dyn View,
    least: usize,
    gap: u64,
    by: Option<&BTreeSet<Incarnation>>,
) -> Read<Option<Burst>> {
    let mut past = Past::new(view)?;
    loop {
        past.reach_back()?;
        let found = past.last(least, gap, by);
        let whole = |found: &Found| past.is_known(found.follows(), gap);
        if past.start == 0 || found.as_ref().is_some_and(whole) {
            return found.map(|found| past.burst(&found, gap)).transpose();
        }
    }
}

/// The changes there were, as far as one looked back.
struct Past<'v> {
    view: &'v dyn View,
    moments: Vec<(u64, Moment)>,
    authors: BTreeMap<Incarnation, Who>,
    /// The newest first.
    all: Vec<One>,
    /// The number of the oldest of them.
    start: u64,
    /// How many numbers are looked at next.
    window: u64,
}

/// The runs that were one go, and what of the changes is meant by that.
struct Found {
    runs: Vec<Run>,
    meant: BTreeSet<u64>,
    /// What the device made meanwhile.
    made: BTreeSet<NodeId>,
    /// That, and what it made after that without a pause; with the numbers of that.
    since: BTreeMap<NodeId, u64>,
}

impl Found {
    fn begins(&self) -> u64 {
        self.runs.iter().map(|run| run.reaches).min().unwrap_or_default()
    }

    /// When all that began of which it may be a part.
    fn follows(&self) -> u64 {
        self.runs.iter().map(|run| run.follows).min().unwrap_or_default()
    }

    fn ends(&self) -> u64 {
        self.runs.iter().map(|run| run.ends).max().unwrap_or_default()
    }

    /// Whether something was made after the first change: it was not there before.
    fn is_after_its_first(&self, node: &NodeId) -> bool {
        let first = self.runs.iter().map(|run| run.from).min();
        self.since.get(node).copied() > first
    }

    /// Whether a change is of its time, or no more than so many seconds off.
    fn is_near(&self, one: &One, seconds: u64) -> bool {
        self.begins() <= one.at.saturating_add(seconds) && one.at <= self.ends().saturating_add(seconds)
    }
}

impl<'v> Past<'v> {
    fn new(view: &'v dyn View) -> Read<Past<'v>> {
        let (moments, start) = (view.moments()?, view.totals()?.seq + 1);
        Ok(Past { view, moments, authors: BTreeMap::new(), all: Vec::new(), start, window: WINDOW })
    }

    /// When the change of a number was recorded.
    fn at(&self, seq: u64) -> u64 {
        let i = self.moments.partition_point(|(last, _)| *last < seq);
        self.moments.get(i).or(self.moments.last()).map_or(0, |(_, m)| m.running)
    }

    /// Looks at changes further back, at twice as many each time.
    fn reach_back(&mut self) -> Read<()> {
        let end = self.start.saturating_sub(self.window);
        while self.start > end {
            let from = self.start.saturating_sub(WINDOW).max(end);
            for (seq, row) in self.view.changes(from, self.start, usize::MAX)?.into_iter().rev() {
                let inc = row.by.inc;
                let who = match self.authors.get(&inc) {
                    Some(who) => *who,
                    None => *self.authors.entry(inc).or_insert(self.view.device_of(inc)?.ok_or(inc)),
                };
                let (at, kind, node) = (self.at(seq), row.kind, row.node);
                let (weight, was) = (weight(self.view, kind, &row)?, shape(&row.before));
                let (counts, again, act) = (kind, false, row.act);
                self.all.push(One { seq, at, node, inc, who, kind, counts, weight, was, again, act });
            }
            self.start = from;
        }
        self.window = self.window.saturating_mul(2);
        self.mark_again()
    }

    /// Whether all is known that may have to do with what began at that time.
    fn is_known(&self, begins: u64, gap: u64) -> bool {
        self.at(self.start).saturating_add(gap.saturating_mul(SPAN)) < begins
    }

    /// The last mass change, as far as one can tell.
    fn last(&mut self, least: usize, gap: u64, by: Option<&BTreeSet<Incarnation>>) -> Option<Found> {
        let mut made: BTreeMap<NodeId, bool> = BTreeMap::new();
        loop {
            self.count_as(&made);
            let mut sorts: BTreeMap<(Who, Kind), Vec<One>> = BTreeMap::new();
            for one in &self.all {
                if one.counts != Kind::Created && by.is_none_or(|who| who.contains(&one.inc)) {
                    sorts.entry((one.who, one.counts)).or_default().push(*one);
                }
            }
            let runs = sorts.values().flat_map(|of| of_one_kind(of, gap)).collect();
            let found = self.meant(together(runs, least, gap), gap)?;
            let before = made.clone();
            for one in self.all.iter().filter(|one| found.meant.contains(&one.seq)) {
                if one.counts != Kind::Revived && found.made.contains(&one.node) {
                    *made.entry(one.node).or_default() |= found.is_after_its_first(&one.node);
                }
            }
            // What was made in the time of it was not there before: what of it is an edit looks otherwise now.
            if made == before {
                return Some(found);
            }
        }
    }

    /// Sets what each change counts as. What was `made` meanwhile is made for long; what of that came after the first change,
    /// and went again at once, is nothing.
    fn count_as(&mut self, made: &BTreeMap<NodeId, bool>) {
        struct Making {
            who: Who,
            kind: Kind,
            began: u64,
            last: u64,
        }
        let mut making: BTreeMap<NodeId, Making> = BTreeMap::new();
        for one in self.all.iter_mut().rev() {
            one.counts = one.kind;
            let before = making.remove(&one.node).filter(|making| making.who == one.who);
            let within = |then: u64, seconds: u64| one.at.saturating_sub(then) <= seconds;
            let goes_on = before.filter(|making| {
                let new = made.get(&one.node).filter(|_| making.kind == Kind::Created);
                match one.kind {
                    Kind::Created => false,
                    Kind::Deleted => new == Some(&true) && within(making.began, BESIDE),
                    Kind::Revived => new == Some(&true) && within(making.last, WRITING),
                    _ => new.is_some() || within(making.last, WRITING),
                }
            });
            let (who, last) = (one.who, one.at);
            one.counts = goes_on.as_ref().map_or(one.kind, |making| making.kind);
            if matches!(one.counts, Kind::Created | Kind::Revived) {
                // One name may have many temporary files, one after the other.
                let goes_on = goes_on.filter(|_| one.kind != Kind::Revived);
                let began = goes_on.map_or(one.at, |making| making.began);
                making.insert(one.node, Making { who, kind: one.counts, began, last });
            }
        }
    }

    /// The changes of what a device writes to all the time.
    fn busy(&self, who: Who, gap: u64) -> BTreeSet<u64> {
        let is_edit = |one: &&One| !matches!(one.counts, Kind::Created | Kind::Deleted);
        let its: Vec<One> = self.all.iter().filter(|one| one.who == who).filter(is_edit).copied().collect();
        its.iter().zip(busy(&its, gap)).filter(|(_, busy)| *busy).map(|(one, _)| one.seq).collect()
    }

    /// Which changes are meant by runs that were one go.
    fn meant(&self, runs: Vec<Run>, gap: u64) -> Option<Found> {
        let who = runs.first()?.who;
        let busy = self.busy(who, gap);
        let (meant, made, since) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let mut found = Found { runs, meant, made, since };
        let its = || self.all.iter().rev().filter(|one| one.who == who);
        let (begins, mut until) = (found.begins(), found.ends());
        for one in its().filter(|one| one.kind == Kind::Created && one.at + BESIDE >= begins) {
            if one.at <= until.saturating_add(gap) {
                until = until.max(one.at);
                found.since.insert(one.node, one.seq);
            }
        }
        let made = its().filter(|one| one.kind == Kind::Created && found.is_near(one, BESIDE));
        found.made = made.map(|one| one.node).collect();
        let near = |run: &Run, one: &One| {
            !run.steady && run.reaches <= one.at + BESIDE && one.at <= run.ends + BESIDE
        };
        // What was deleted, and is there again without a pause, was put in its own place.
        let mut gone: BTreeMap<NodeId, u64> = BTreeMap::new();
        for one in its().filter(|one| one.counts != Kind::Created) {
            let of_run = |run: &Run| run.kind == one.counts && (run.from..run.to).contains(&one.seq);
            // What came and went meanwhile was not there before.
            let fleeting = one.kind == Kind::Deleted && found.is_after_its_first(&one.node);
            let beside = || !busy.contains(&one.seq) && found.runs.iter().any(|run| near(run, one));
            let again = || {
                let at = gone.get(&one.node).filter(|_| one.counts == Kind::Revived);
                at.is_some_and(|at| one.at.saturating_sub(*at) <= gap)
            };
            let is_meant = found.runs.iter().any(of_run) || (!fleeting && beside()) || again();
            if is_meant {
                found.meant.insert(one.seq);
            }
            if is_meant && matches!(one.counts, Kind::Deleted | Kind::Revived) {
                gone.insert(one.node, one.at);
            } else {
                gone.remove(&one.node);
            }
        }
        for seq in self.of_other_acts(&found.meant) {
            found.meant.remove(&seq);
        }
        Some(found)
    }

    fn burst(&self, found: &Found, gap: u64) -> Read<Burst> {
        let who = found.runs.first().map(|run| run.who);
        let (mut things, mut kinds) = (BTreeSet::new(), BTreeSet::new());
        let meant: Vec<&One> = self.all.iter().filter(|one| found.meant.contains(&one.seq)).collect();
        for one in &meant {
            things.insert(one.node);
            kinds.insert(one.kind);
        }
        let brought_back = self.brought_back(&meant)?;
        let first = found.meant.first().copied().unwrap_or_default();
        let last = found.meant.last().copied().unwrap_or_default();
        let mut beside = Beside { between: (first, last), ..Beside::default() };
        // What is the last that became of what was made meanwhile.
        let mut ends: BTreeMap<NodeId, &One> = BTreeMap::new();
        for one in self.all.iter().rev() {
            let its = Some(one.who) == who && one.counts != Kind::Created;
            if found.since.contains_key(&one.node) {
                ends.insert(one.node, one);
            } else if its && found.is_near(one, gap) && !found.meant.contains(&one.seq) {
                if !things.contains(&one.node) {
                    beside.things.insert(one.node);
                } else if one.at < found.begins() {
                    beside.earlier.insert(one.node);
                    beside.earlier_by = beside.earlier_by.max(found.begins() - one.at);
                } else {
                    continue;
                }
                beside.between = (beside.between.0.min(one.seq), beside.between.1.max(one.seq));
            }
        }
        let mut made = BTreeMap::new();
        for (node, one) in ends.into_iter().filter(|(node, _)| !things.contains(node)) {
            if one.counts == Kind::Created && one.kind != Kind::Deleted && Some(one.who) == who {
                made.extend(found.since.get(&node).map(|seq| (node, *seq)));
            }
        }
        let near = |one: &&One| one.kind == Kind::Created && found.is_near(one, gap);
        let about: BTreeSet<NodeId> = self.all.iter().filter(near).map(|one| one.node).collect();
        for (node, seq) in made.iter().filter(|(node, _)| about.contains(*node)) {
            beside.made.insert(*node);
            beside.between = (beside.between.0.min(*seq), beside.between.1.max(*seq));
        }
        let by = self.authors.iter().filter(|(_, its)| Some(**its) == who).map(|(inc, _)| *inc).collect();
        let selection = Selection {
            from: first,
            to: last + 1,
            by: Some(by),
            kinds: Some(kinds),
            just: Some(found.meant.clone()),
            made,
        };
        Ok(Burst { selection, count: things.len(), beside, brought_back })
    }
}

/// What is taken back of a burst, where `back` is what all of it comes to. One that was taken back within the pause is
/// part of one burst with that, and both come to nothing: if at least `least` things were changed and changed back, the last
/// change of each of those is meant, unless as many others were changed after that. Not so if something that was changed before
/// others were changed back is not as it was: then that is what is meant, and the others are as they were already.
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
    let (mut out, mut size) = (Vec::new(), 0);
    let goes_back: BTreeSet<NodeId> = back.iter().map(|b| b.node).collect();
    for (node, (seq, row)) in last {
        let stays = goes_back.contains(&node) || !selection.has(seq, row.by, row.kind);
        let Some(now) = view.node(node)?.filter(|_| !stays) else { continue };
        if let Some(one) = back_to(view, node, &now, seq, &row.before)? {
            size += weight(view, row.kind, &row)?;
            out.push(one);
        }
    }
    let newest = out.iter().map(|o: &Back| o.seq).max();
    if size < least || back.len() >= least || back.iter().any(|b| Some(b.seq) < newest) {
        return Ok(back);
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}
