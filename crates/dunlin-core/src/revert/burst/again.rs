//! What brings back what was there before, as an undo does. No change says of itself that it is one: what shows
//! afterwards is compared with what showed earlier.

use super::runs::{One, size};
use super::{BESIDE, MASS, Past, Who};
use crate::ids::{NodeId, ROOT, value_hash};
use crate::journal::{ChangeRow, Journal, Kind};
use crate::kv::{Read, View};
use crate::names;
use crate::revert::top;
use crate::rows::Rows;
use crate::state::{Content, State};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// What nothing shows of.
const GONE: u64 = 0;
/// So many numbers are looked at, at most, for what was there before.
const LOOKED: u64 = 100_000;
/// Numbers looked at together.
const WINDOW: u64 = 1024;

/// Digits of what shows of a state: two that differ in nothing that shows have the same.
pub(super) fn shape(state: &State) -> u64 {
    let Some((dot, content)) = top(state).filter(|_| state.alive()) else { return GONE };
    let mode = state.mode_of(Some(dot)).unwrap_or(names::default_mode(content)).to_le_bytes();
    let mtime = state.mtime_of(Some(dot)).unwrap_or_default();
    let (secs, nanos) = (mtime.secs.to_le_bytes(), mtime.nanos.to_le_bytes());
    let (parent, name) = match state.placed() {
        Some((_, place)) => (place.value.parent, place.value.name.as_bytes()),
        None => (ROOT, &[][..]),
    };
    let (kind, holds): ([u8; 1], &[u8]) = match content {
        Content::Dir => ([0], &[]),
        Content::File { id, .. } => ([1], &id.0),
        Content::Link(text) => ([2], text),
        Content::Unknown { kind, bytes } => ([*kind], bytes),
    };
    let hash = value_hash("dunlin shape", &[&mode, &secs, &nanos, &parent.0, name, &[0], &kind, holds]);
    hash.iter().take(8).fold(0, |all, byte| (all << 8) | u64::from(*byte)).max(GONE + 1)
}

/// How many things a change is of, up to [`MASS`]: a directory that was moved counts with what is in it now.
pub(in crate::revert) fn weight(view: &dyn View, kind: Kind, row: &ChangeRow) -> Read<usize> {
    let is_dir = top(&row.before).is_none_or(|(_, content)| *content == Content::Dir);
    if kind != Kind::Moved || !is_dir {
        return Ok(1);
    }
    let (mut count, mut next) = (1, alloc::vec![row.node]);
    while let Some(dir) = next.pop().filter(|_| count < MASS) {
        let inside = view.settled_in(dir, None, MASS - count)?;
        count += inside.len();
        next.extend(inside.into_iter().map(|(_, node)| node));
    }
    Ok(count)
}

impl Past<'_> {
    /// Marks the changes that brought back what had been before, many at once.
    pub(super) fn mark_again(&mut self) -> Read<()> {
        let mut of: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (i, one) in self.all.iter().enumerate() {
            of.entry(one.node).or_default().push(i);
        }
        for (node, its) in of {
            let (mut was, mut revived) = (BTreeSet::new(), false);
            for n in (0..its.len()).rev() {
                let after = match n.checked_sub(1) {
                    Some(next) => self.all[its[next]].was,
                    None if was.is_empty() => GONE,
                    None => self.view.node(node)?.map_or(GONE, |row| shape(&row.state)),
                };
                let one = &mut self.all[its[n]];
                // What is gone was not there before it was made: that alone says nothing.
                one.again = if after == GONE { revived } else { was.contains(&after) };
                revived = one.again && one.kind == Kind::Revived;
                was.insert(one.was);
            }
        }
        self.just_many();
        Ok(())
    }

    /// What of all that is meant is part of an undo that was not the last, and has nothing in common with the rest: it is one of
    /// its own.
    pub(super) fn of_other_acts(&self, meant: &BTreeSet<u64>) -> Vec<u64> {
        let meant: Vec<&One> = self.all.iter().filter(|one| meant.contains(&one.seq)).collect();
        let mut acts: BTreeMap<NodeId, BTreeSet<Option<u64>>> = BTreeMap::new();
        for one in &meant {
            acts.entry(one.node).or_default().insert(one.act);
        }
        let mut kept: BTreeSet<Option<u64>> =
            acts.into_values().filter(|acts| acts.len() > 1).flatten().collect();
        kept.extend([None, meant.first().and_then(|newest| newest.act)]);
        meant.into_iter().filter(|one| !kept.contains(&one.act)).map(|one| one.seq).collect()
    }

    /// Few are no undo of a mass change.
    fn just_many(&mut self) {
        let mut by: BTreeMap<Who, Vec<usize>> = BTreeMap::new();
        for (i, one) in self.all.iter().enumerate().filter(|(_, one)| one.again) {
            by.entry(one.who).or_default().push(i);
        }
        for its in by.into_values() {
            let at = |i: &usize| self.all[*i].at;
            let at_once = its.chunk_by(|newer, older| at(newer).saturating_sub(at(older)) <= BESIDE);
            let few = at_once.filter(|part| size(part.iter().map(|i| &self.all[*i])) < MASS);
            for i in few.flatten().copied().collect::<Vec<usize>>() {
                self.all[i].again = false;
            }
        }
    }

    /// Whether what some changes made had been there before, as far as one can see: they are an undo, or a copy of then.
    pub(super) fn brought_back(&self, meant: &[&One]) -> Read<bool> {
        // Of each what was made of it last; some of them are enough.
        let mut sought: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for one in meant.iter().filter(|one| one.kind != Kind::Deleted) {
            if sought.len() == MASS {
                break;
            }
            if !sought.contains_key(&one.node)
                && let Some(now) = self.view.node(one.node)?.map(|row| shape(&row.state))
                && now != GONE
            {
                sought.insert(one.node, (one.seq, now));
            }
        }
        if sought.is_empty() {
            return Ok(false);
        }
        for one in &self.all {
            if sought.get(&one.node).is_some_and(|(seq, now)| one.seq < *seq && one.was == *now) {
                sought.remove(&one.node);
            }
        }
        let (mut end, stop) = (self.start, self.start.saturating_sub(LOOKED));
        while end > stop && !sought.is_empty() {
            let from = end.saturating_sub(WINDOW).max(stop);
            for (_, row) in self.view.changes(from, end, usize::MAX)? {
                if sought.get(&row.node).is_some_and(|(_, now)| shape(&row.before) == *now) {
                    sought.remove(&row.node);
                }
            }
            end = from;
        }
        Ok(sought.is_empty())
    }
}
