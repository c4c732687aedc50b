//! Changes of directories that are not durable yet, and what a power cut may leave of them.
//!
//! Each change of an entry may be kept or lost by itself, in any combination that a journaling file
//! system allows. What keeping one change needs is known when it is made:
//!
//! - the changes before it of the same entry;
//! - if it takes an entry away: everything else that leads to the same inode by then, so that what nobody
//!   deleted keeps one entry; and of a directory that is removed, that it was emptied;
//! - of a rename, that the other directory exists; within one directory, of a directory, and of an
//!   exchange, the other half. Only a file that moves to another directory may be found in both;
//! - of the first entry of an inode, that the one whose number it has is gone;
//! - of a directory that moves, the moves of directories before it, so that no circle can come about.

use super::file::{BLOCK, Change, Changed, File, Kept};
use super::tree::{Dir, Id, Node, Tree};
use crate::chance::Chance;
use dunlin_core::path::Name;
use std::collections::{BTreeSet, VecDeque};

/// The number of a change.
pub(super) type Seq = u64;

/// Changes after which the oldest are written back without being asked, as kernels do after a while.
const PARTS_MAX: usize = 256;
/// How many of them then.
const PARTS_BACK: usize = 64;

/// One change of one entry.
#[derive(Clone, Debug)]
pub(super) struct Part {
    dir: Id,
    name: Name,
    old: Option<Id>,
    new: Option<Id>,
    needs: Vec<Seq>,
    /// Directories that must exist for this to be kept.
    exist: Vec<Id>,
    done: bool,
}

impl Part {
    pub(super) fn new(dir: Id, name: &Name, old: Option<Id>, new: Option<Id>) -> Part {
        Part { dir, name: name.clone(), old, new, needs: Vec::new(), exist: Vec::new(), done: false }
    }
}

/// The changes of entries that are not durable, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    first: Seq,
    parts: VecDeque<Part>,
    last_dir_move: Option<Seq>,
}

impl Journal {
    /// A change that is still not durable.
    fn get(&self, seq: Seq) -> Option<&Part> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.parts.get(at).filter(|part| !part.done)
    }

    fn next(&self) -> Seq {
        self.first + self.parts.len() as u64
    }

    /// The changes that took entries of an inode away.
    pub(super) fn removals(&self, id: Id) -> Vec<Seq> {
        let of = |seq: &Seq| self.get(*seq).is_some_and(|part| part.old == Some(id));
        (self.first..self.next()).filter(of).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        let pending = self.parts.iter().filter(|part| !part.done);
        pending.flat_map(|part| [Some(part.dir), part.old, part.new].into_iter().flatten())
    }

    fn pending(&self) -> Vec<Seq> {
        (self.first..self.next()).filter(|seq| self.get(*seq).is_some()).collect()
    }
}

impl Tree {
    /// Notes an operation of one or two changes; returns the number of the first.
    pub(super) fn record(&mut self, parts: [Option<Part>; 2]) -> Option<Seq> {
        if self.journal.parts.len() >= PARTS_MAX {
            let oldest = self.journal.pending().into_iter().take(PARTS_BACK).collect();
            self.commit(oldest);
        }
        let first = self.journal.next();
        let count = parts.iter().flatten().count() as u64;
        let is_dir = |id: Option<Id>| id.is_some_and(|id| self.inodes[id].dir().is_some());
        let moves_dir = count == 2 && parts.iter().flatten().any(|part| is_dir(part.new));
        let one_dir = parts.iter().flatten().all(|p| parts[0].as_ref().is_some_and(|q| p.dir == q.dir));
        let whole = moves_dir || one_dir;
        let halves = [parts[0].as_ref().map(half), parts[1].as_ref().map(half)];
        for (i, mut part) in parts.into_iter().flatten().enumerate() {
            let other = halves[1 - i];
            self.before(&mut part);
            if let Some((other_dir, other_new)) = other {
                let takes_away = part.old.is_some() && part.old == other_new;
                if takes_away || whole {
                    part.needs.push(first + 1 - i as u64);
                    part.exist.push(other_dir);
                }
                if moves_dir {
                    part.needs.extend(self.journal.last_dir_move.filter(|seq| *seq < first));
                }
            }
            let moved_on = part.old.filter(|_| other.is_none_or(|(_, new)| new != part.old));
            if let Some(removed) = moved_on.and_then(|id| self.inodes[id].dir()) {
                part.needs.extend(&removed.pending);
            }
            let seq = first + i as u64;
            if let Some(added) = part.new {
                part.needs.extend(&self.inodes[added].freed);
                self.inodes[added].adds.push((seq, part.dir));
            }
            if let Some(dir) = self.inodes[part.dir].dir_mut() {
                dir.pending.push(seq);
            }
            self.journal.parts.push_back(part);
        }
        if moves_dir {
            self.journal.last_dir_move = Some(first);
        }
        Some(first)
    }

    /// What came before and must be kept if this is: of the same entry, and of the inode it loses.
    fn before(&mut self, part: &mut Part) {
        if let Some(dir) = self.inodes[part.dir].dir() {
            let same = |seq: &&Seq| {
                self.journal.get(**seq).is_some_and(|p| self.options.names.same(&p.name, &part.name))
            };
            part.needs.extend(dir.pending.iter().rev().find(same));
        }
        if let Some(old) = part.old {
            let mut adds = std::mem::take(&mut self.inodes[old].adds);
            adds.retain(|(seq, dir)| self.journal.get(*seq).is_some() || !self.births(*dir).is_empty());
            part.needs.extend(adds.iter().map(|(seq, _)| *seq));
            part.exist.extend(adds.iter().map(|(_, dir)| *dir));
            self.inodes[old].adds = adds;
        }
    }

    /// The changes that made this directory and those above it, as far as they are not durable.
    fn births(&self, dir: Id) -> Vec<Seq> {
        let (mut births, mut at) = (Vec::new(), Some(dir));
        while let Some(dir) = at.and_then(|id| self.inodes[id].dir()) {
            at = match dir.born.and_then(|born| self.journal.get(born).map(|part| (born, part.dir))) {
                Some((born, above)) => {
                    births.push(born);
                    Some(above)
                }
                None => dir.durable_parent,
            };
        }
        births
    }

    /// Makes these changes durable, and all that they need.
    fn commit(&mut self, mut todo: Vec<Seq>) {
        let mut found = BTreeSet::new();
        while let Some(seq) = todo.pop() {
            let Some(part) = self.journal.get(seq) else { continue };
            if !found.insert(seq) {
                continue;
            }
            todo.extend(&part.needs);
            for dir in &part.exist {
                todo.extend(self.births(*dir));
            }
        }
        for seq in found {
            let Some(part) = self.journal.parts.get_mut((seq - self.journal.first) as usize) else {
                continue;
            };
            part.done = true;
            let (dir, name, new) = (part.dir, part.name.clone(), part.new);
            if let Some(child) = new.and_then(|id| self.inodes[id].dir_mut()) {
                child.durable_parent = Some(dir);
                child.born = child.born.filter(|born| *born != seq);
            }
            let Some(d) = self.inodes[dir].dir_mut() else { continue };
            d.pending.retain(|other| *other != seq);
            match new {
                Some(id) => drop(d.durable.insert(name, id)),
                None => drop(d.durable.remove(&name)),
            }
        }
        while self.journal.parts.front().is_some_and(|part| part.done) {
            self.journal.parts.pop_front();
            self.journal.first += 1;
        }
    }

    /// Makes the entries of one directory durable.
    pub(super) fn sync_entries(&mut self, dir: Id) {
        let pending = self.inodes[dir].dir().map(|d| d.pending.clone()).unwrap_or_default();
        if !pending.is_empty() {
            self.commit(pending);
        }
        self.sync_inode(dir);
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        let pending = self.journal.pending();
        self.commit(pending);
        for id in std::mem::take(&mut self.dirty) {
            self.dirty.insert(id);
            self.sync_inode(id);
        }
    }

    /// The power goes: what is left is one of the states that may be.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        let style = Style::pick(chance);
        let mut kept = self.journal.pending();
        match style {
            Style::Nothing => kept.clear(),
            Style::Everything => {}
            Style::Until => kept.truncate(chance.below(kept.len() as u64 + 1) as usize),
            Style::Each(odds) => kept.retain(|_| chance.below(100) < odds),
        }
        self.commit(kept);
        for id in std::mem::take(&mut self.dirty) {
            let inode = &mut self.inodes[id];
            let changes = std::mem::take(&mut inode.pending);
            survive(&mut inode.kept, &changes, style, chance);
        }
        self.journal = Journal { first: self.journal.next(), ..Journal::default() };
        self.handles.clear();
        self.come_back();
    }

    /// What is durable is all there is.
    fn come_back(&mut self) {
        for inode in &mut self.inodes {
            (inode.nlink, inode.opens) = (0, 0);
            inode.adds.clear();
            inode.mode = inode.kept.mode;
            match &mut inode.node {
                Node::Dir(dir) => {
                    *dir = Dir {
                        entries: dir.durable.clone(),
                        durable: std::mem::take(&mut dir.durable),
                        ..Dir::default()
                    };
                }
                Node::File(file) => {
                    inode.mtime = inode.kept.mtime;
                    if !std::sync::Arc::ptr_eq(&file.data, &inode.kept.data) {
                        *file = File::from_data(inode.kept.data.clone());
                    }
                }
                _ => inode.mtime = inode.kept.mtime,
            }
        }
        (self.blocks, self.files) = (0, 0);
        let mut todo: Vec<Id> =
            [Some(self.place), self.away, self.outside.dir].into_iter().flatten().collect();
        todo.iter().for_each(|root| self.inodes[*root].nlink = 1);
        while let Some(id) = todo.pop() {
            self.files += 1;
            self.blocks += match &self.inodes[id].node {
                Node::Dir(_) => 1,
                Node::File(file) => file.allocated(),
                _ => 0,
            };
            let below: Vec<Id> =
                self.inodes[id].dir().map(|d| d.entries.values().copied().collect()).unwrap_or_default();
            for child in below {
                self.inodes[child].nlink += 1;
                if self.inodes[child].nlink == 1 {
                    todo.push(child);
                }
                if let Some(dir) = self.inodes[child].dir_mut() {
                    (dir.parent, dir.durable_parent) = (Some(id), Some(id));
                }
            }
        }
        let living: BTreeSet<u64> = self.inodes.iter().filter(|i| i.nlink > 0).map(|i| i.ino).collect();
        self.spare_inos.retain(|(ino, _)| !living.contains(ino));
    }
}

fn half(part: &Part) -> (Id, Option<Id>) {
    (part.dir, part.new)
}

/// How much a power cut leaves.
#[derive(Clone, Copy)]
enum Style {
    Nothing,
    Everything,
    /// Everything until some moment.
    Until,
    /// Each change with these odds, of 100.
    Each(u64),
}

impl Style {
    fn pick(chance: &mut Chance) -> Style {
        match chance.below(8) {
            0 => Style::Nothing,
            1 => Style::Everything,
            2 | 3 => Style::Until,
            4 => Style::Each(15),
            5 => Style::Each(85),
            _ => Style::Each(50),
        }
    }
}

/// Carries out what is left of the changes of one inode.
fn survive(kept: &mut Kept, changes: &[Change], style: Style, chance: &mut Chance) {
    let until = chance.below(changes.len() as u64 + 1);
    for (i, change) in changes.iter().enumerate() {
        let keep = match style {
            Style::Nothing => false,
            Style::Everything => true,
            Style::Until => (i as u64) < until,
            Style::Each(odds) => chance.below(100) < odds,
        };
        if keep {
            kept.change(change);
        } else if let (Changed::Write(at, bytes), Style::Each(_)) = (&change.what, style) {
            lose(kept, *at, bytes, change, chance);
        }
    }
}

/// A write that was not finished: perhaps the length arrived and not the bytes, or the first blocks only.
fn lose(kept: &mut Kept, at: usize, bytes: &[u8], change: &Change, chance: &mut Chance) {
    let end = at + bytes.len();
    match chance.below(3) {
        0 if end > kept.data.len() => {
            kept.change(&Change { what: Changed::Len(end), mtime: change.mtime });
        }
        1 if bytes.len() > BLOCK => {
            let blocks = chance.below((bytes.len() / BLOCK) as u64 + 1) as usize;
            let first = &bytes[..blocks * BLOCK];
            kept.change(&Change { what: Changed::Write(at, first.into()), mtime: change.mtime });
        }
        _ => {}
    }
}
