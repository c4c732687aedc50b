//! What the index knows of deletes and replacements that are held, and of those that were accepted.

use super::{Brake, Count, Gone};
use crate::decide::{Lack, lacks_of, overwrites};
use crate::ids::{DeviceId, DotRange, Incarnation, NodeId};
use crate::kv::{Read, View};
use crate::names::Wanted;
use crate::rows::{LocalRow, Position, Rows, Table, after, all_released, decode, encode};
use crate::state::Content;
use crate::tree::Work;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use minicbor::{Decode, Encode};

/// Nodes looked at together.
const PAGE: usize = 256;

/// Deletes, and replacements that count like them, that the brake holds until a person decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    /// Whose deletes they are, as far as that is known; most of them, if they are of several devices.
    #[n(0)]
    pub by: Option<DeviceId>,
    /// They were made on this disk.
    #[n(1)]
    pub here: bool,
    /// How many, those included that were carried out within the minute before.
    #[n(2)]
    pub deletes: u64,
    /// Of how many files.
    #[n(3)]
    pub of: u64,
    /// Those that were carried out.
    #[n(4)]
    pub done: u64,
    /// The changes by which those were.
    #[n(5)]
    pub changes: Vec<DotRange>,
    /// A person accepted them, by these changes, and the others are still to be told.
    #[n(6)]
    pub accepted: Vec<DotRange>,
    /// How many files are replaced though the history cannot keep what they were, those included that were replaced
    /// within the minute before.
    #[cbor(n(7), default)]
    pub replaced: u64,
    /// Those that were.
    #[cbor(n(8), default)]
    pub replaced_done: u64,
    /// The changes by which they were.
    #[cbor(n(9), default)]
    pub replacing: Vec<DotRange>,
    /// What these held, in bytes.
    #[cbor(n(10), default)]
    pub bytes: u64,
    /// The number from which on nothing in the history yields meanwhile …
    #[cbor(n(11), default)]
    pub from: Option<u64>,
    /// They are of more than one device.
    #[cbor(n(12), default)]
    pub several: bool,
    /// … up to this one, which it was when they were held.
    #[cbor(n(13), default)]
    pub upto: u64,
    /// Files that this device deleted of all these, as far as it is known …
    #[cbor(n(14), default)]
    pub mine: u64,
    /// … and those that others did, the most first.
    #[cbor(n(15), default)]
    pub others: Vec<(DeviceId, u64)>,
    /// Those of the latter that were carried out.
    #[cbor(n(16), default)]
    pub theirs_done: u64,
}

impl Held {
    /// Whether deletes are held: not if only replacements are.
    pub fn holds_deletes(&self) -> bool {
        self.holds() && self.deletes > 0
    }

    /// So many are pending by now; what was carried out stays as it was. Tells whether that changes what was known.
    pub fn pends(&mut self, deletes: u64, replaced: u64) -> bool {
        let before = (self.deletes, self.replaced);
        if self.deletes > 0 {
            self.deletes = self.deletes.max(deletes + self.done);
        }
        if replaced == 0 {
            (self.replaced, self.replaced_done, self.bytes, self.replacing) = (0, 0, 0, Vec::new());
        } else {
            self.replaced = self.replaced.max(replaced + self.replaced_done);
        }
        self.of = self.of.max(self.deletes);
        before != (self.deletes, self.replaced)
    }

    /// So many files were deleted by whom by now, and so many of those of others carried out. What counted before counts still,
    /// though it was longer ago than a minute.
    pub fn are_of(&mut self, own: DeviceId, who: BTreeMap<DeviceId, u64>, theirs_done: u64) {
        let mut all: BTreeMap<DeviceId, u64> =
            self.others.iter().copied().chain([(own, self.mine)]).collect();
        for (device, files) in who {
            let known = all.entry(device).or_default();
            *known = files.max(*known);
        }
        self.mine = all.remove(&own).unwrap_or_default();
        self.others = all.into_iter().filter(|(_, files)| *files > 0).collect();
        self.others.sort_by_key(|(_, files)| core::cmp::Reverse(*files));
        self.theirs_done = self.theirs_done.max(theirs_done);
        self.several |= self.others.len() + usize::from(self.mine > 0) > 1;
    }

    /// Whether what was carried out of these deletes is accepted by now, and was not when just `known` was.
    pub fn is_news(&self, known: &[DotRange], accepted: &[DotRange]) -> bool {
        let mut news = accepted.iter().filter(|range| !known.contains(range));
        news.any(|range| self.changes.iter().any(|held| range.meets(held)))
    }

    /// This counted when it tripped. What was held before is held still.
    #[must_use]
    pub fn counted(self, count: &Count) -> Held {
        let Count { deletes, of, done, replaced, replaced_done } = *count;
        let (of, held) = (of.max(self.of), self.holds_deletes());
        let (deletes, done) = if held { (self.deletes.max(deletes), self.done) } else { (deletes, done) };
        let edits =
            if replaced > 0 { (replaced, replaced_done) } else { (self.replaced, self.replaced_done) };
        Held { deletes, of, done, replaced: edits.0, replaced_done: edits.1, ..self }
    }

    /// Whether anything is still held: not if all that is left is to tell the others.
    pub fn holds(&self) -> bool {
        self.accepted.is_empty()
    }
}

/// What the brake holds.
pub fn held(view: &dyn View) -> Read<Option<Held>> {
    view.get(&[Table::Brake as u8])?.map(|b| decode(&b, "brake")).transpose()
}

/// The changes whose deletes were accepted.
pub fn released(view: &dyn View) -> Read<Vec<DotRange>> {
    all_released(view)
}

/// Files and links that vanished from this disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absent {
    /// They would be deleted, and count.
    pub living: u64,
    /// They were to be removed anyway, and count as such.
    pub pending: u64,
    /// All of them.
    pub gone: Gone,
}

/// What vanished with these positions and all below them, but for what does not count for its youth.
pub fn absent_files<'a>(
    view: &dyn View,
    brake: &Brake,
    absent: impl IntoIterator<Item = &'a Position>,
) -> Read<Absent> {
    let absent: BTreeSet<&Position> = absent.into_iter().collect();
    let mut out = Absent::default();
    for at in &absent {
        let Some(row) = view.local(at)? else { continue };
        let mut todo = vec![(row.node, row.content)];
        while let Some((node, content)) = todo.pop() {
            if content != Content::Dir && brake.is_young(node) {
                continue;
            }
            if content != Content::Dir {
                let living = view.node(node)?.is_some_and(|r| r.state.alive());
                let pending = view.need(node)?.is_some_and(|n| n.removals > 0);
                (out.living, out.pending) =
                    (out.living + u64::from(living), out.pending + u64::from(pending));
                out.gone.extend((living || pending).then_some(node));
                continue;
            }
            for (name, inner) in view.locals(node)? {
                // One that is a position of its own is counted there.
                if !absent.contains(&Position::new(node, name)) {
                    todo.push((inner.node, inner.content));
                }
            }
        }
    }
    Ok(out)
}

/// The deletes that are heard, not accepted and not carried out here: by whom, and how many files.
pub fn pending(view: &dyn View) -> Read<Vec<(DotRange, u64)>> {
    let mut out = BTreeMap::new();
    each_need(view, |node| {
        let files = view.need(node)?.map_or(0, |n| n.removals);
        let Some(row) = view.node(node)?.filter(|_| files > 0) else { return Ok(()) };
        for (dot, _) in row.state.gone.entries() {
            let (range, count) = out.entry(dot.inc).or_insert((DotRange::of(*dot), 0));
            (range.first, range.last) = (range.first.min(dot.counter), range.last.max(dot.counter));
            *count += u64::from(files);
        }
        Ok(())
    })?;
    Ok(out.into_values().collect())
}

/// The deletes that were carried out within the last minute: by whom, and how many files, as far as it is known.
pub fn carried_out(view: &dyn View, brake: &Brake, now: Duration) -> Read<Vec<(Incarnation, u64)>> {
    let mut out = BTreeMap::<Incarnation, u64>::new();
    for node in brake.done.known(now) {
        let Some(row) = view.node(node)?.filter(|row| !row.state.alive()) else { continue };
        // Of several who deleted it at once, one did.
        if let Some((dot, _)) = row.state.gone.entries().first() {
            *out.entry(dot.inc).or_default() += 1;
        }
    }
    Ok(out.into_iter().collect())
}

/// The edits that are heard, not accepted, and would replace what is here: by whom, and how many files.
pub fn overwriting(view: &dyn View) -> Read<Vec<(DotRange, u64)>> {
    let mut out = BTreeMap::new();
    each_overwrite(view, |_, _, new| {
        let Some(dot) = new.dot else { return Ok(()) };
        let (range, count) = out.entry(dot.inc).or_insert((DotRange::of(dot), 0));
        (range.first, range.last) = (range.first.min(dot.counter), range.last.max(dot.counter));
        *count += 1;
        Ok(())
    })?;
    Ok(out.into_values().collect())
}

/// Visits each file on this disk that an edit is to replace which nobody accepted, with what that is.
pub(super) fn each_overwrite(
    view: &dyn View,
    mut f: impl FnMut(NodeId, &LocalRow, &Wanted) -> Read<()>,
) -> Read<()> {
    each_need(view, |node| {
        if view.need(node)?.is_none_or(|need| need.replaces == 0) {
            return Ok(());
        }
        for lack in lacks_of(view, node)? {
            if overwrites(view, &lack)?.is_some()
                && let Lack::Replace(old, new) = &lack
            {
                f(node, old, new)?;
            }
        }
        Ok(())
    })
}

/// The changes that deleted a node which is to go for that and counts; none if it does not count.
pub fn counts(view: &dyn View, node: NodeId) -> Read<Vec<DotRange>> {
    let counts = view.need(node)?.is_some_and(|n| n.removals > 0);
    let row = view.node(node)?.filter(|_| counts);
    Ok(row.map_or(Vec::new(), |r| r.state.gone.entries().iter().map(|(d, _)| DotRange::of(*d)).collect()))
}

pub(super) fn each_need(view: &dyn View, mut f: impl FnMut(NodeId) -> Read<()>) -> Read<()> {
    let mut from = vec![Table::Need as u8];
    loop {
        let page = view.range(&from, &after(&[Table::Need as u8]), PAGE)?;
        let Some((end, _)) = page.last() else { return Ok(()) };
        from = [&end[..], &[0]].concat();
        for (key, _) in &page {
            if let Some(node) = key.get(1..).and_then(NodeId::from_slice) {
                f(node)?;
            }
        }
    }
}

impl Work<'_> {
    /// Records what the brake holds.
    pub fn hold(&mut self, held: Option<&Held>) {
        let key = vec![Table::Brake as u8];
        match held {
            Some(held) => self.tx.put(key, encode(held)),
            None => self.tx.remove(key),
        }
    }

    /// Just these deletes are accepted. Returns whether that is news; what was to go for them, or is again, is looked
    /// at anew.
    pub fn release(&mut self, accepted: &[DotRange]) -> Read<bool> {
        let before: BTreeSet<DotRange> = all_released(&self.tx)?.into_iter().collect();
        let now: BTreeSet<DotRange> = accepted.iter().copied().collect();
        if before == now {
            return Ok(false);
        }
        before.difference(&now).for_each(|r| self.tx.remove_released(r));
        now.difference(&before).for_each(|r| self.tx.put_released(r));
        let mut due = Vec::new();
        each_need(&self.tx, |node| {
            due.push(node);
            Ok(())
        })?;
        for node in due {
            let replaces = self.tx.need(node)?.is_some_and(|need| need.replaces > 0);
            if replaces || self.tx.node(node)?.is_some_and(|r| !r.state.alive()) {
                self.touch(node);
            }
        }
        Ok(true)
    }
}
