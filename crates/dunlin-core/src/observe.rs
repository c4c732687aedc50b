//! What was seen on the disk, turned into changes of the index.
//!
//! A path maps first to the node that is visible there, only else to a new one. What is found as it
//! should be (a step of ours that was not recorded, or the same edit made by a person) is taken over
//! without a new change. Directories are known by their inode; of files the name counts more than
//! the inode, because editors save by renaming a new file over the old one.

mod gone;
mod kept;
mod ours;
mod stale;
mod theirs;
mod together;
mod verified;

use crate::change::Attributes;
use crate::ids::{ContentId, NodeId, PARKED};
use crate::kv::{Read, View};
use crate::names::{self, Wanted};
use crate::rows::{LocalRow, Position, Rows, Stamp};
use crate::state::{Content, Mtime, Vector};
use crate::tree::Work;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub use together::{is_seen_elsewhere, leave_out};

/// What was seen at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing (or something that is left alone: a FIFO, a socket, a device, a mount point).
    Absent,
    /// A directory with these permission bits.
    Dir(u16, Stamp),
    /// A regular file: its content, permission bits and modification time.
    File(ContentId, u16, Stamp),
    /// A link with this text.
    Link(Box<[u8]>, Stamp),
}

impl Seen {
    fn stamp(&self) -> Stamp {
        match self {
            Seen::Absent => Stamp::default(),
            Seen::Dir(_, s) | Seen::File(_, _, s) | Seen::Link(_, s) => *s,
        }
    }

    fn content(&self) -> Option<Content> {
        match self {
            Seen::Absent => None,
            Seen::Dir(..) => Some(Content::Dir),
            Seen::File(id, _, stamp) => Some(Content::File { id: *id, size: stamp.size }),
            Seen::Link(text, _) => Some(Content::Link(text.clone())),
        }
    }

    fn mode(&self) -> u16 {
        match self {
            Seen::Dir(mode, _) | Seen::File(_, mode, _) => mode & 0o777,
            Seen::Absent | Seen::Link(..) => 0o777,
        }
    }

    fn mtime(&self) -> Mtime {
        if let Seen::File(_, _, s) = self { s.mtime } else { Mtime::default() }
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            mode: (!matches!(self, Seen::Link(..))).then(|| self.mode()),
            mtime: matches!(self, Seen::File(..)).then(|| self.mtime()),
        }
    }
}

impl LocalRow {
    /// The row of what was seen, of no node yet.
    fn of(seen: &Seen, content: Content) -> LocalRow {
        LocalRow {
            node: NodeId::default(),
            dot: None,
            seen: None,
            content,
            mode: seen.mode(),
            mtime: seen.mtime(),
            stamp: seen.stamp(),
            kept: false,
            damaged: None,
        }
    }
}

/// Something seen at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where. Its directory is known already.
    pub at: Position,
    /// What.
    pub seen: Seen,
}

/// What the writer of the index should look at next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Directories that are new to this disk's rows, or came from elsewhere: what is in them was not
    /// seen yet, or not since.
    pub new_dirs: Vec<NodeId>,
    /// Files that came back empty.
    pub damaged: Vec<NodeId>,
}

/// Whether what is at `row` could have become what was seen: same inode, and nothing rewrote it.
fn could_be(row: &LocalRow, seen: &Seen) -> bool {
    let s = seen.stamp();
    let same = row.stamp.is_same_inode(&s);
    match (&row.content, seen) {
        (Content::Dir, Seen::Dir(..)) => same,
        (Content::File { .. }, Seen::File(..)) => {
            same && s.nlink <= 1 && row.stamp.size == s.size && row.stamp.mtime == s.mtime
        }
        (Content::Link(a), Seen::Link(b, _)) => same && a == b,
        _ => false,
    }
}

/// Whether what was seen may be the file of `row`, written to after it was moved. Without a time of birth nothing tells it
/// from another file that was given the same number.
fn could_be_edited(row: &LocalRow, seen: &Seen) -> bool {
    let (Content::File { .. }, Seen::File(_, _, s)) = (&row.content, seen) else { return false };
    let one_name = row.stamp.nlink <= 1 && s.nlink <= 1;
    s.btime.is_some() && row.stamp.is_same_inode(s) && one_name && s.size > 0
}

/// Whether an observation continues what its position held.
fn continues(row: &LocalRow, seen: &Seen) -> bool {
    match (&row.content, seen) {
        (Content::Dir, Seen::Dir(..)) => could_be(row, seen),
        (Content::Dir, _) | (_, Seen::Dir(..) | Seen::Absent) => false,
        _ => true,
    }
}

/// Positions to look at in the same batch, because what was seen may have come from there.
pub fn suspects(view: &dyn View, batch: &[Observation]) -> Read<Vec<Position>> {
    let looked: BTreeSet<&Position> = batch.iter().map(|o| &o.at).collect();
    let mut out = BTreeSet::new();
    for o in batch.iter().filter(|o| o.seen != Seen::Absent) {
        for at in origins(view, o, |row| could_be(row, &o.seen) || could_be_edited(row, &o.seen))? {
            if !looked.contains(&at) {
                out.insert(at);
            }
        }
    }
    Ok(out.into_iter().collect())
}

/// Other positions from which what was seen may have come.
fn origins(view: &dyn View, o: &Observation, may_be: impl Fn(&LocalRow) -> bool) -> Read<Vec<Position>> {
    if view.local(&o.at)?.is_some_and(|row| continues(&row, &o.seen)) {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for at in view.places_of_inode(o.seen.stamp().ino)? {
        if at != o.at && view.local(&at)?.is_some_and(|row| may_be(&row)) {
            out.push(at);
        }
    }
    Ok(out)
}

impl Work<'_> {
    /// Takes over a batch of observations. Absences must be evident: from a complete listing.
    pub fn observe(&mut self, batch: &[Observation]) -> Read<Observed> {
        let mut out = Observed::default();
        self.forget_stale(batch)?;
        self.take_over(batch, &mut out)?;
        let moved = self.observe_moves(batch, &mut out)?;
        // What lies parked is not the user's: nothing is made or edited there.
        let here = |o: &&Observation| o.seen != Seen::Absent && o.at.dir != PARKED;
        for o in batch.iter().filter(here).filter(|o| !moved.contains(&o.at)) {
            self.observe_one(&o.at, &o.seen, &mut out)?;
        }
        let absent = batch.iter().filter(|o| o.seen == Seen::Absent && !moved.contains(&o.at));
        self.vanish(absent.map(|o| &o.at))?;
        Ok(out)
    }

    /// Finds what was moved and records it; returns the positions that need nothing more.
    fn observe_moves(&mut self, batch: &[Observation], out: &mut Observed) -> Read<BTreeSet<Position>> {
        let seen: BTreeMap<&Position, &Seen> = batch.iter().map(|o| (&o.at, &o.seen)).collect();
        let mut moves: BTreeMap<Position, &Observation> = BTreeMap::new();
        for o in batch.iter().filter(|o| o.seen != Seen::Absent) {
            let mut left = Vec::new();
            for from in origins(&self.tx, o, |row| could_be(row, &o.seen) || could_be_edited(row, &o.seen))? {
                if let (Some(now), Some(row)) = (seen.get(&from), self.tx.local(&from)?)
                    && !could_be(&row, now)
                    && !moves.contains_key(&from)
                {
                    let edited = !could_be(&row, &o.seen);
                    // Where something else took its name that is the file, as editors save; and what lies parked is not the
                    // user's.
                    if !edited || (**now == Seen::Absent && ![from.dir, o.at.dir].contains(&PARKED)) {
                        left.push((edited, self.is_superseded(&from, &row)?, from));
                    }
                }
            }
            // Where it was seen twice on its way, it came from where it belongs.
            let first = left.into_iter().min_by_key(|(edited, superseded, _)| (*edited, *superseded));
            if let Some((_, _, from)) = first {
                moves.insert(from, o);
            }
        }
        // Everything leaves its old position before anything takes its new one: swaps and rotations.
        let mut carried = Vec::new();
        for (from, o) in &moves {
            if let Some(row) = self.tx.local(from)? {
                self.set_local(from, None)?;
                carried.push((from.clone(), row, *o));
            }
        }
        let mut done = BTreeSet::new();
        for (from, row, o) in carried {
            if row.content == Content::Dir {
                if self.leads_through(o.at.dir, row.node)? {
                    // Seen half-way: below itself it cannot be. The next look sees the rest.
                    self.set_local(&from, Some(&row))?;
                    continue;
                }
                // What happened in it while the index still had it elsewhere was told of no place.
                out.new_dirs.push(row.node);
            }
            self.vanish([&o.at])?;
            self.arrive(row, &from, o)?;
            done.insert(o.at.clone());
            if seen.get(&from).is_some_and(|s| **s == Seen::Absent) {
                done.insert(from);
            }
        }
        Ok(done)
    }

    fn arrive(&mut self, mut row: LocalRow, from: &Position, o: &Observation) -> Read<()> {
        let wanted = self.wanted_version(&row, from)?;
        let planned =
            names::wanted(&self.tx, row.node)?.iter().any(|w| w.at == o.at && w.content == row.content);
        row.stamp = o.seen.stamp();
        if planned || o.at.dir == PARKED {
            // It went where it should go, or a step that failed half-way left it where things are parked.
        } else if let Some(w) = wanted.filter(|w| w.copy) {
            self.split(&mut row, &w, &o.at, &o.seen)?;
        } else {
            let dot = self.relocate(row.node, &o.at, row.seen.as_ref())?;
            note(&mut row.seen, dot);
        }
        self.set_local(&o.at, Some(&row))?;
        match row.content {
            Content::Dir => self.attributes_changed(&o.at, row, &o.seen),
            _ => self.changed(&o.at, row, &o.seen),
        }
    }

    /// Whether the way from the root to `dir` on this disk leads through `node`.
    fn leads_through(&self, dir: NodeId, node: NodeId) -> Read<bool> {
        let (mut at, mut steps) = (dir, 0);
        while at != node {
            match self.tx.dir_position(at)? {
                Some(up) if steps < 4096 => at = up.dir,
                _ => return Ok(false),
            }
            steps += 1;
        }
        Ok(true)
    }

    /// The wanted version that a row on the disk is.
    fn wanted_version(&self, row: &LocalRow, at: &Position) -> Read<Option<Wanted>> {
        let wanted = names::wanted(&self.tx, row.node)?;
        let exact = wanted.iter().position(|w| w.dot == row.dot && w.content == row.content && w.at == *at);
        let equal = || wanted.iter().position(|w| w.content == row.content);
        Ok(exact.or_else(equal).map(|i| wanted[i].clone()))
    }

    /// A version that lost its name becomes a node of its own, and leaves the old one.
    fn split(&mut self, row: &mut LocalRow, w: &Wanted, at: &Position, seen: &Seen) -> Read<()> {
        let (Some(dot), Some(content)) = (w.dot, seen.content()) else { return Ok(()) };
        let (mode, mtime) = (self.mode_of(seen, row.mode), self.mtime_of(seen, row));
        let attributes = Attributes { mode: seen.attributes().mode.and(Some(mode)), ..seen.attributes() };
        let id = NodeId::split(row.node, dot);
        let (node, new) = self.create(at, Some(id), content.clone(), attributes)?;
        self.take_version(row.node, &row.content, row.seen.as_ref())?;
        self.touch(row.node);
        *row = LocalRow { node, dot: Some(new), mode, mtime, ..LocalRow::of(seen, content) };
        Ok(())
    }

    fn observe_one(&mut self, at: &Position, seen: &Seen, out: &mut Observed) -> Read<()> {
        match self.tx.local(at)? {
            None => self.appear(at, seen, out),
            Some(row) if row.content == Content::Dir && is_same_dir(&row, seen) => {
                // Another directory in its place; or one that perhaps could not be entered before.
                if !row.stamp.is_same_inode(&seen.stamp()) || row.mode != self.mode_of(seen, row.mode) {
                    out.new_dirs.push(row.node);
                }
                self.attributes_changed(at, row, seen)
            }
            Some(row) if self.came_back_empty(&row, seen)? => {
                out.damaged.push(row.node);
                self.lost_its_bytes(at, row, seen)
            }
            Some(row) if continues(&row, seen) => self.changed(at, row, seen),
            Some(_) => {
                self.vanish([at])?;
                self.appear(at, seen, out)
            }
        }
    }

    /// Something is at a position where nothing of ours was.
    fn appear(&mut self, at: &Position, seen: &Seen, out: &mut Observed) -> Read<()> {
        let Some(content) = seen.content() else { return Ok(()) };
        let mode = self.mode_of(seen, names::default_mode(&content));
        let mut row = LocalRow { mode, ..LocalRow::of(seen, content.clone()) };
        let attributes = self.attributes_of(seen);
        let visible = match names::visible_at(&self.tx, at)? {
            Some((node, w)) if !self.is_elsewhere(node, &w)? => Some((node, w)),
            _ => None,
        };
        let plain = |c: &Content| *c != Content::Dir;
        match visible {
            Some((node, w)) if w.content == content => {
                (row.node, row.dot) = (node, w.dot);
                row.seen = self.tx.node(node)?.map(|n| n.state.seen);
            }
            Some((node, w)) if !w.copy && plain(&w.content) && plain(&content) => {
                let rank = u64::from(!self.tx.totals()?.uniting);
                let dot = self.add_version(node, content.clone(), attributes, rank)?;
                let mut applied = Vector::default();
                applied.add(dot);
                (row.node, row.dot, row.seen) = (node, Some(dot), Some(applied));
            }
            _ => {
                let (node, dot) = self.create(at, None, content.clone(), attributes)?;
                (row.node, row.dot) = (node, Some(dot));
            }
        }
        if content == Content::Dir {
            out.new_dirs.push(row.node);
        }
        self.set_local(at, Some(&row))
    }

    /// Whether the version is on the disk already, at another position.
    fn is_elsewhere(&self, node: NodeId, w: &Wanted) -> Read<bool> {
        let locals = crate::decide::locals_of(&self.tx, node)?;
        let is_dir = w.content == Content::Dir;
        Ok(locals
            .iter()
            .any(|(_, l)| if is_dir { l.content == Content::Dir } else { l.content == w.content }))
    }

    /// A file or link is at the position of a file or link of ours.
    fn changed(&mut self, at: &Position, mut row: LocalRow, seen: &Seen) -> Read<()> {
        let Some(content) = seen.content() else { return Ok(()) };
        if content == row.content {
            row.damaged = None;
            return self.attributes_changed(at, row, seen);
        }
        if matches!(content, Content::File { id, .. } if row.damaged == Some(id)) {
            // Nobody wrote these bytes: they are no edit, whatever else was done to the file.
            return self.attributes_changed(at, row, seen);
        }
        row.damaged = None;
        let mut here =
            names::wanted(&self.tx, row.node)?.into_iter().find(|w| w.at == *at && w.content == content);
        if let Some(w) = &here
            && self.is_theirs(row.node, w, seen)?
        {
            here = None;
        }
        let version = self.wanted_version(&row, at)?;
        // What two versions of a node held may have changed places: then the version that was here is at
        // another place by now, and must not be replaced.
        let locals = crate::decide::locals_of(&self.tx, row.node)?;
        let twin = locals.iter().any(|(p, l)| p != at && l.content == row.content);
        let was = row.clone();
        let taken_over = here.is_some();
        if let Some(w) = here {
            row.dot = w.dot;
            row.seen = self.tx.node(row.node)?.map(|n| n.state.seen);
        } else if let Some(w) = version.as_ref().filter(|w| w.copy && w.at == *at) {
            self.split(&mut row, w, at, seen)?;
        } else if let Some(dot) = row.dot.filter(|_| twin) {
            let id = NodeId::split(row.node, dot);
            let attributes = self.attributes_of(seen);
            let (node, new) = self.create(at, Some(id), content.clone(), attributes)?;
            self.touch(row.node);
            (row.node, row.dot, row.seen) = (node, Some(new), None);
        } else {
            let mut attributes = self.attributes_of(seen);
            if seen.mode() == row.mode {
                attributes.mode = None;
            }
            let dot = self.edit(row.node, &row.content, row.seen.as_ref(), content.clone(), attributes)?;
            row.dot = Some(dot);
            note(&mut row.seen, dot);
        }
        (row.mode, row.mtime) = (self.mode_of(seen, row.mode), seen.mtime());
        (row.content, row.stamp) = (content, seen.stamp());
        self.set_local(at, Some(&row))?;
        if taken_over && version.is_some_and(|w| w.copy && w.at != *at) {
            self.lose_nameless(&was)?;
        }
        Ok(())
    }

    /// The content is as it was; mode and time may have been set.
    fn attributes_changed(&mut self, at: &Position, mut row: LocalRow, seen: &Seen) -> Read<()> {
        let mut now = self.attributes_of(seen);
        now.mtime = now.mtime.and(Some(self.mtime_of(seen, &row)));
        if row.kept {
            // It should not be there any more: nobody is told of its mode.
            row.mode = now.mode.take().unwrap_or(row.mode);
        }
        if let Some(mode) = now.mode.filter(|m| *m != row.mode) {
            let dot = self.set_mode(row.node, row.dot, row.seen.as_ref(), mode)?;
            note(&mut row.seen, dot);
            row.mode = mode;
        }
        if let Some(mtime) = now.mtime.filter(|t| *t != row.mtime) {
            let dot = self.set_mtime(row.node, row.dot, row.seen.as_ref(), mtime)?;
            note(&mut row.seen, dot);
            row.mtime = mtime;
        }
        row.stamp = seen.stamp();
        self.set_local(at, Some(&row))
    }

    /// Records what is on the disk at a position, and has everything looked at that hangs on it.
    pub(crate) fn set_local(&mut self, at: &Position, row: Option<&LocalRow>) -> Read<()> {
        let old = self.tx.local(at)?;
        if old.as_ref() == row {
            return Ok(());
        }
        self.tx.put_local(at, row)?;
        for node in old.iter().chain(row).map(|r| r.node).collect::<Vec<_>>() {
            self.touch(node);
        }
        if let Some(dir) = row.filter(|r| r.content == Content::Dir) {
            self.touch_waiting(dir.node)?;
        }
        if row.is_none_or(|r| r.kept) {
            self.touch_waiting(at.dir)?;
        }
        if row.is_none() { self.retry_kept(at.dir) } else { Ok(()) }
    }

    fn touch_waiting(&mut self, dir: NodeId) -> Read<()> {
        for node in self.tx.waiting(dir)? {
            self.touch(node);
        }
        Ok(())
    }
}

/// Whether a directory goes on as the one that was there. One that was only kept and is another one now
/// was made by somebody.
fn is_same_dir(row: &LocalRow, seen: &Seen) -> bool {
    (!row.kept || row.stamp.is_same_inode(&seen.stamp())) && matches!(seen, Seen::Dir(..))
}

/// Own changes count as applied.
fn note(seen: &mut Option<Vector>, dot: crate::ids::Dot) {
    if let Some(seen) = seen {
        seen.add(dot);
    }
}
