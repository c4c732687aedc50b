//! The visible tree, kept as derived rows: which nodes are present, where they settle after loops
//! are cut, and which names have to be looked at again. Only what a change touches is recomputed.
//!
//! A node is present if it lives, or if a present node is placed in it (the ancestors of the living are
//! kept). A loop made by concurrent moves is cut at its youngest placement, which falls back to its
//! place before, else to the root; of several loops the one with the youngest placement goes first.

use crate::codec::encode_state;
use crate::ids::{Dot, NodeId, ROOT, state_hash};
use crate::keeps::Keeps;
use crate::kv::{Changes, Read, Tx, View};
use crate::names;
use crate::rows::{Doubt, LocalRow, NodeRow, Position, Rows, Stamp};
use crate::state::{Content, Ranked, State, Vector};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A batch of changes of node states, with what has to be derived anew at its end.
pub struct Work<'v> {
    /// The rows being changed.
    pub tx: Tx<'v>,
    /// What this disk keeps of what is observed on it.
    pub(crate) keeps: Keeps,
    groups: BTreeSet<Position>,
    touched: BTreeSet<NodeId>,
    moved: BTreeSet<NodeId>,
    unseen: BTreeMap<Position, (Stamp, Vector)>,
    doubt: Option<Option<Doubt>>,
    /// What is observed is what a crash may have left.
    pub(crate) starting: bool,
    /// What the journal calls the act that is carried out.
    pub(crate) act: Option<u64>,
}

impl<'v> Work<'v> {
    /// A batch without changes.
    pub fn new(base: &'v dyn View) -> Work<'v> {
        let (groups, touched, moved, unseen) = Default::default();
        Work {
            tx: Tx::new(base),
            keeps: Keeps::default(),
            groups,
            touched,
            moved,
            unseen,
            doubt: None,
            starting: false,
            act: None,
        }
    }

    /// The same, on a disk that keeps this.
    #[must_use]
    pub fn on(self, keeps: Keeps) -> Work<'v> {
        Work { keeps, ..self }
    }

    /// The same, as part of one act, which the journal of this device knows by a number: an undo, which may take several batches.
    #[must_use]
    pub fn part_of(self, act: u64) -> Work<'v> {
        Work { act: Some(act), ..self }
    }

    /// Cuts loops, derives what each touched node needs, and returns what is to be committed.
    pub fn finish(mut self) -> Read<Changes> {
        self.settle()?;
        for (at, (stamp, seen)) in core::mem::take(&mut self.unseen) {
            if let Some(row) = self.tx.local(&at)?.filter(|row| row.seen.is_none() && row.stamp == stamp) {
                self.tx.put_local(&at, Some(&LocalRow { seen: Some(seen), ..row }))?;
            }
        }
        // A batch that changes nothing is none.
        if !self.tx.is_empty()
            && let Some(doubt) = self.doubt
        {
            self.tx.put_doubt(doubt)?;
        }
        Ok(self.tx.into_changes())
    }

    /// Writes what is in doubt though nothing else changes.
    pub fn settle_doubt(&mut self, doubt: Option<Doubt>) -> Read<()> {
        self.tx.put_doubt(doubt)
    }

    /// What is in doubt once this batch is committed.
    pub fn leave_in_doubt(&mut self, doubt: Option<Doubt>) {
        self.doubt = Some(doubt);
    }

    /// Something was done to what had this stamp before the last of what was heard: though that may need nothing there,
    /// it was not applied there. `seen` is what had been.
    pub fn not_seen(&mut self, at: Position, stamp: Stamp, seen: Vector) {
        self.unseen.insert(at, (stamp, seen));
    }

    /// Has what `node` needs on this disk looked at again.
    pub fn touch(&mut self, node: NodeId) {
        self.touched.insert(node);
    }

    /// How many nodes it will look at in the end: what the batch takes in memory grows with it.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Replaces the state of a node. `from` is the number of the peer that sent exactly this state, or 0.
    pub fn put_state(&mut self, id: NodeId, state: State, from: u32) -> Read<()> {
        let mut row = self.tx.node(id)?.unwrap_or_default();
        let old = row.clone();
        self.number(id, &mut row, &state)?;
        self.record(id, &old.state, &state, row.seq)?;
        (row.state, row.from) = (state, from);
        row.present = row.state.alive() || row.kids > 0;
        self.touched.insert(id);
        self.replace(id, &old, row)
    }

    /// Gives the changed row its sequence number and moves the digest.
    fn number(&mut self, id: NodeId, row: &mut NodeRow, state: &State) -> Read<()> {
        let mut totals = self.tx.totals()?;
        if !row.state.is_blank() {
            add_hash(&mut totals.digest, id, &row.state, false);
        }
        add_hash(&mut totals.digest, id, state, true);
        totals.seq += 1;
        if row.seq > 0 {
            self.tx.remove_seq(row.seq);
        }
        row.seq = totals.seq;
        self.tx.put_seq(row.seq, id);
        self.tx.put_totals(&totals);
        Ok(())
    }

    /// Writes a row and keeps the child table, the counts of kids and the marks in step.
    fn replace(&mut self, id: NodeId, old: &NodeRow, mut row: NodeRow) -> Read<()> {
        let (was, is) = (old.raw(), row.raw());
        // Not the dot alone: one that lies may tell another place for a change that somebody else made.
        let moved = old.state.placed() != row.state.placed();
        if moved && row.cut.take().is_some() {
            self.tx.set_cut(id, false);
        }
        let (from, to) =
            (old.present.then(|| old.settled(id)).flatten(), row.present.then(|| row.settled(id)).flatten());
        if from != to {
            if let Some(at) = &from {
                self.tx.remove_child(at, id);
            }
            if let Some(at) = &to {
                self.tx.put_child(at, id);
            }
        }
        self.groups.extend(from.clone());
        self.groups.extend(to.clone());
        if row.present && (moved || !old.present) {
            self.moved.insert(id);
        }
        let kept = !row.state.alive() && row.present;
        self.tx.put_node(id, &row);
        let before = old.present.then_some(was).flatten().map(|p| p.dir);
        let after = row.present.then_some(is).flatten().map(|p| p.dir);
        if before != after {
            if let Some(parent) = after {
                self.count_kid(parent, 1)?;
            }
            if let Some(parent) = before {
                self.count_kid(parent, -1)?;
            }
        }
        for at in [from, to].into_iter().flatten() {
            self.mark_parent(at.dir)?;
        }
        if kept { self.drop_dead_loop(id) } else { Ok(()) }
    }

    /// What is no living directory by its content shows as one while something living is in it; and
    /// as long as it is dead, the same holds of what it is in.
    fn mark_parent(&mut self, parent: NodeId) -> Read<()> {
        let (mut at, mut met) = (parent, BTreeSet::new());
        while at != ROOT && met.insert(at) {
            let Some(row) = self.tx.node(at)? else { return Ok(()) };
            let (alive, settled) = (row.state.alive(), row.settled(at));
            let state = &row.state;
            let dir = |(d, c): &(Dot, Ranked<Content>)| c.value == Content::Dir && state.shows(*d);
            if !state.content.entries().iter().any(dir) {
                self.groups.extend(settled.clone());
                self.touched.insert(at);
            }
            match settled {
                Some(up) if !alive => at = up.dir,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn count_kid(&mut self, parent: NodeId, by: i32) -> Read<()> {
        if parent == ROOT {
            return Ok(());
        }
        let old = self.tx.node(parent)?.unwrap_or_default();
        let mut row = old.clone();
        row.kids = row.kids.saturating_add_signed(by);
        row.present = row.state.alive() || row.kids > 0;
        if row.present == old.present {
            let kept = by < 0 && !row.state.alive() && row.present;
            self.tx.put_node(parent, &row);
            return if kept { self.drop_dead_loop(parent) } else { Ok(()) };
        }
        self.touched.insert(parent);
        self.replace(parent, &old, row)
    }

    /// Dead directories that keep each other by a loop of their placements, and keep nothing that
    /// lives, go together.
    fn drop_dead_loop(&mut self, start: NodeId) -> Read<()> {
        let (mut members, mut at) = (Vec::new(), start);
        loop {
            let Some(row) = self.tx.node(at)? else { return Ok(()) };
            if !row.present || row.kids != 1 || row.state.alive() {
                return Ok(());
            }
            let Some(up) = row.raw() else { return Ok(()) };
            members.push((at, row));
            at = up.dir;
            if at == start {
                break;
            }
            if at == ROOT || members.iter().any(|(n, _)| *n == at) {
                return Ok(());
            }
        }
        for (id, mut row) in members {
            if let Some(at) = row.settled(id) {
                self.tx.remove_child(&at, id);
                self.groups.insert(at);
            }
            (row.present, row.kids, row.cut) = (false, 0, None);
            self.tx.set_cut(id, false);
            self.tx.put_node(id, &row);
            self.touched.insert(id);
        }
        Ok(())
    }

    fn settle(&mut self) -> Read<()> {
        self.cut_loops()?;
        let mut groups = core::mem::take(&mut self.groups);
        for at in groups.clone() {
            groups.extend(names::bases(&self.tx, &at)?);
        }
        let mut done = BTreeSet::new();
        for at in &groups {
            let shown = names::group(&self.tx, at)?;
            for node in self.tx.settled_at(at)? {
                let wanted = shown.iter().filter(|(n, _)| *n == node).map(|(_, w)| w.clone()).collect();
                crate::decide::refresh(&mut self.tx, node, wanted)?;
                done.insert(node);
            }
        }
        for node in core::mem::take(&mut self.touched) {
            if !done.contains(&node) {
                let wanted = names::wanted(&self.tx, node)?;
                crate::decide::refresh(&mut self.tx, node, wanted)?;
            }
        }
        Ok(())
    }

    fn cut_loops(&mut self) -> Read<()> {
        let old_cuts = self.tx.cuts()?;
        let mut starts: BTreeSet<NodeId> = old_cuts.iter().copied().collect();
        for node in core::mem::take(&mut self.moved) {
            if self.tx.node(node)?.is_some_and(|r| r.present && r.kids > 0) {
                starts.insert(node);
            }
        }
        let mut loops = Loops { tx: &self.tx, places: BTreeMap::new() };
        while let Some(node) = loops.youngest(&starts)? {
            loops.cut(node)?;
            starts.insert(node);
        }
        let cuts: BTreeMap<NodeId, Position> =
            loops.places.into_iter().filter(|(_, p)| p.was_cut).map(|(n, p)| (n, p.at)).collect();
        let changed: BTreeSet<NodeId> = old_cuts.into_iter().chain(cuts.keys().copied()).collect();
        for node in changed {
            self.set_settled(node, cuts.get(&node).cloned())?;
        }
        Ok(())
    }

    fn set_settled(&mut self, node: NodeId, cut: Option<Position>) -> Read<()> {
        let Some(mut row) = self.tx.node(node)? else { return Ok(()) };
        let cut = cut.filter(|_| row.present);
        self.tx.set_cut(node, cut.is_some());
        if row.cut == cut {
            return Ok(());
        }
        let from = row.settled(node);
        row.cut = cut;
        let to = row.settled(node);
        self.tx.put_node(node, &row);
        for at in from.iter().chain(&to) {
            self.groups.insert(at.clone());
        }
        if let (true, Some(from), Some(to)) = (row.present, from, to) {
            self.tx.remove_child(&from, node);
            self.tx.put_child(&to, node);
            self.mark_parent(from.dir)?;
            self.mark_parent(to.dir)?;
        }
        self.touched.insert(node);
        Ok(())
    }
}

/// Adds what a state counts for in the digest of an index, or takes it away.
pub(crate) fn add_hash(digest: &mut [u64; 4], id: NodeId, state: &State, add: bool) {
    let hash = state_hash(id, &encode_state(state));
    for (sum, bytes) in digest.iter_mut().zip(hash.chunks(8)) {
        let word = bytes.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        *sum = if add { sum.wrapping_add(word) } else { sum.wrapping_sub(word) };
    }
}

/// A placement while loops are being looked for.
#[derive(Clone)]
struct Placed {
    at: Position,
    age: (u64, Dot),
    earlier: Option<Position>,
    was_cut: bool,
}

struct Loops<'a, 'v> {
    tx: &'a Tx<'v>,
    places: BTreeMap<NodeId, Placed>,
}

impl Loops<'_, '_> {
    /// The placement of a node, not minding earlier cuts; `None` at the root and where the way ends
    /// at a node of which nothing is known yet.
    fn placed(&mut self, node: NodeId) -> Read<Option<Placed>> {
        if let Some(p) = self.places.get(&node) {
            return Ok(Some(p.clone()));
        }
        let Some(row) = self.tx.node(node)? else { return Ok(None) };
        let Some((dot, ranked)) = row.state.placed() else { return Ok(None) };
        let place = &ranked.value;
        let placed = Placed {
            at: Position::new(place.parent, place.name.clone()),
            age: (ranked.rank, dot),
            earlier: place.earlier.clone().map(|(dir, name)| Position { dir, name }),
            was_cut: false,
        };
        self.places.insert(node, placed.clone());
        Ok(Some(placed))
    }

    /// The youngest placement of all that stand in a loop reachable from `starts`.
    fn youngest(&mut self, starts: &BTreeSet<NodeId>) -> Read<Option<NodeId>> {
        let (mut best, mut clean) = (None, BTreeSet::new());
        for &start in starts {
            let (mut way, mut at) = (Vec::new(), start);
            while at != ROOT && !clean.contains(&at) && !way.contains(&at) {
                way.push(at);
                match self.placed(at)? {
                    Some(p) => at = p.at.dir,
                    None => break,
                }
            }
            if let Some(first) = way.iter().position(|n| *n == at).filter(|_| !clean.contains(&at))
                && self.places.contains_key(&at)
            {
                for &node in &way[first..] {
                    // One that lies may give the same number to several placements.
                    let age = (self.places.get(&node).map(|p| p.age), node);
                    best = best.max(Some(age));
                }
            }
            clean.extend(way);
        }
        Ok(best.map(|(_, n)| n))
    }

    fn cut(&mut self, node: NodeId) -> Read<()> {
        let Some(mut p) = self.placed(node)? else { return Ok(()) };
        let earlier = p.earlier.take();
        match earlier {
            Some(e) if e.dir != p.at.dir && self.is_present(e.dir)? => p.at = e,
            _ => p.at.dir = ROOT,
        }
        p.was_cut = true;
        self.places.insert(node, p);
        Ok(())
    }

    fn is_present(&self, dir: NodeId) -> Read<bool> {
        Ok(dir == ROOT || self.tx.node(dir)?.is_some_and(|r| r.present))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::kv::Memory;
    use crate::path::Name;
    use crate::state::Place;

    fn id(n: u8) -> NodeId {
        if n == 0 { ROOT } else { NodeId([n; 16]) }
    }

    fn at(dir: u8, name: &str) -> Position {
        Position::new(id(dir), Name::new(name.as_bytes()).unwrap())
    }

    /// A living directory `n`, placed in `parent` by a change of this rank, before that in `earlier`.
    fn dir(work: &mut Work<'_>, n: u8, parent: u8, rank: u64, earlier: Option<u8>) {
        let dot = Dot { inc: Incarnation([n; 16]), counter: 1 };
        let name = Name::new(&[b'a' + n]).unwrap();
        let earlier = earlier.map(|e| (id(e), Name::new(b"was").unwrap()));
        let mut state = State::default();
        state.seen.add(dot);
        state.place.insert(dot, Ranked::new(rank, Place { parent: id(parent), name, earlier }));
        state.content.insert(dot, Ranked::new(1, Content::Dir));
        work.hear(id(n), &state, 0).unwrap();
    }

    /// Where the nodes settle; each is (node, parent, rank, parent before).
    fn settled(nodes: &[(u8, u8, u64, Option<u8>)]) -> Vec<Option<Position>> {
        let mut index = Memory::default();
        let mut work = Work::new(&index);
        for &(n, parent, rank, earlier) in nodes {
            dir(&mut work, n, parent, rank, earlier);
        }
        let changes = work.finish().unwrap();
        index.apply(changes);
        nodes.iter().map(|n| index.node(id(n.0)).unwrap().unwrap().cut).collect()
    }

    #[test]
    fn a_loop_is_cut_at_its_youngest_placement() {
        assert_eq!(settled(&[(1, 2, 2, Some(0)), (2, 1, 3, Some(0))]), [None, Some(at(0, "was"))]);
        assert_eq!(settled(&[(1, 2, 3, Some(0)), (2, 1, 2, Some(0))]), [Some(at(0, "was")), None]);
    }

    #[test]
    fn of_several_loops_the_one_with_the_youngest_placement_goes_first() {
        // 4 falls back into 1 of the other loop, which is cut afterwards and elsewhere.
        let nodes = [(1, 2, 2, Some(0)), (2, 1, 3, Some(0)), (3, 4, 4, Some(0)), (4, 3, 5, Some(1))];
        assert_eq!(settled(&nodes), [None, Some(at(0, "was")), None, Some(at(1, "was"))]);
    }

    #[test]
    fn an_earlier_place_is_used_once() {
        // 3 falls back into 1, then 2 into 3, which closes a loop of all three: 3 goes to the root.
        let nodes = [(1, 2, 2, Some(0)), (2, 1, 3, Some(3)), (3, 4, 4, Some(1)), (4, 3, 2, Some(0))];
        assert_eq!(settled(&nodes), [None, Some(at(3, "was")), Some(at(0, "was")), None]);
    }

    #[test]
    fn an_earlier_place_that_is_the_same_directory_or_not_present_is_no_way_out() {
        assert_eq!(settled(&[(1, 2, 2, Some(0)), (2, 1, 3, Some(1))]), [None, Some(at(0, "c"))]);
        assert_eq!(settled(&[(1, 2, 2, Some(0)), (2, 1, 3, Some(9))]), [None, Some(at(0, "c"))]);
    }

    #[test]
    fn without_a_loop_the_earlier_place_does_not_count() {
        assert_eq!(settled(&[(1, 0, 2, Some(9)), (2, 1, 3, Some(9))]), [None, None]);
    }
}
