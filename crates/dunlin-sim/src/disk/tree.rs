//! The file system as a kernel keeps it: inodes, directories, who may do what, and what each call
//! changes. Who watches is told here, and what is not durable yet is noted here.

use super::errno::{Errno, Result};
use super::events::{Events, Wd, What};
use super::file::{Change, File, Kept};
use super::handles::Handles;
use super::journal::{Journal, Part, Seq};
use super::outside::Outside;
use super::{Counts, Faults, Options};
use dunlin_core::path::Name;
use dunlin_node::disk::{FileKind, FileTime, Rename, Stat};
use std::collections::{BTreeMap, BTreeSet};

/// The place of an inode in the table; not its number, which may come back.
pub(super) type Id = usize;

/// The device number of every model disk.
pub(super) const DEV: u64 = 77;

/// What an inode is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(File),
    Dir(Dir),
    Link(Box<[u8]>),
    Other,
}

/// A directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) entries: BTreeMap<Name, Id>,
    /// What the worst crash would leave of the entries.
    pub(super) durable: BTreeMap<Name, Id>,
    /// Changes of entries that are not durable, in order.
    pub(super) pending: Vec<Seq>,
    pub(super) parent: Option<Id>,
    pub(super) durable_parent: Option<Id>,
    pub(super) watch: Option<Wd>,
    /// The change that created it, while that is not durable.
    pub(super) born: Option<Seq>,
}

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) ino: u64,
    pub(super) node: Node,
    pub(super) mode: u16,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) btime: FileTime,
    /// Entries that lead here; for a directory, whether one does.
    pub(super) nlink: u32,
    pub(super) opens: u32,
    /// What the worst crash would leave of content and metadata.
    pub(super) kept: Kept,
    /// What was changed since, in order.
    pub(super) pending: Vec<Change>,
    /// Entries that were made for it, and in which directories, as far as a crash may lose them.
    pub(super) adds: Vec<(Seq, Id)>,
    /// The changes that set its number free: no crash keeps it without them.
    pub(super) freed: Vec<Seq>,
}

impl Inode {
    pub(super) fn dir(&self) -> Option<&Dir> {
        if let Node::Dir(dir) = &self.node { Some(dir) } else { None }
    }

    pub(super) fn dir_mut(&mut self) -> Option<&mut Dir> {
        if let Node::Dir(dir) = &mut self.node { Some(dir) } else { None }
    }

    pub(super) fn kind(&self) -> FileKind {
        match self.node {
            Node::File(_) => FileKind::File,
            Node::Dir(_) => FileKind::Dir,
            Node::Link(_) => FileKind::Link,
            Node::Other => FileKind::Other,
        }
    }
}

/// Everything of one disk.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) options: Options,
    pub(super) now: FileTime,
    pub(super) inodes: Vec<Inode>,
    /// Slots of the table that nothing leads to, and numbers that may be given again.
    pub(super) spare: Vec<Id>,
    pub(super) spare_inos: Vec<(u64, Vec<Seq>)>,
    pub(super) next_ino: u64,
    /// So many slots before the next search for spare ones.
    pub(super) gc_at: usize,
    /// The directory the program's handle holds.
    pub(super) held: Id,
    /// The directory at the folder's path.
    pub(super) place: Id,
    /// The one that was there before it was replaced.
    pub(super) away: Option<Id>,
    /// Where links lead, for who follows them.
    pub(super) outside: Outside,
    /// The life of the program that may use the disk; none after it was halted.
    pub(super) alive: Option<u64>,
    pub(super) lives: u64,
    pub(super) blocks: u64,
    pub(super) files: u64,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) events: Events,
    pub(super) handles: Handles,
    pub(super) journal: Journal,
    /// Inodes with changes that are not durable.
    pub(super) dirty: BTreeSet<Id>,
}

/// A kind of permission, of the owner: all programs here run as one user.
#[derive(Clone, Copy)]
pub(super) enum May {
    Read = 0o400,
    Write = 0o200,
    Search = 0o100,
}

impl Tree {
    pub(super) fn new(options: Options) -> Tree {
        let mut tree = Tree {
            options,
            now: FileTime { secs: 1_700_000_000, nanos: 0 },
            inodes: Vec::new(),
            spare: Vec::new(),
            spare_inos: Vec::new(),
            next_ino: 2,
            gc_at: 0,
            held: 0,
            place: 0,
            away: None,
            outside: Outside::default(),
            alive: Some(0),
            lives: 0,
            blocks: 0,
            files: 0,
            faults: Faults::default(),
            counts: Counts::default(),
            events: Events::default(),
            handles: Handles::default(),
            journal: Journal::default(),
            dirty: BTreeSet::new(),
        };
        tree.held = tree.new_root();
        tree.place = tree.held;
        tree
    }

    /// A directory that stands by itself, durable at once.
    pub(super) fn new_root(&mut self) -> Id {
        let id = self.new_inode(Node::Dir(Dir::default()), 0o755);
        self.inodes[id].nlink = 1;
        id
    }

    /// The clock as inodes are stamped by it.
    pub(super) fn stamp(&self) -> FileTime {
        self.rounded(self.now)
    }

    /// A time as far as it is kept.
    pub(super) fn rounded(&self, time: FileTime) -> FileTime {
        let tick = i128::from(self.options.tick_ns.max(1));
        let ns = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        let ns = ns.div_euclid(tick) * tick;
        let (secs, nanos) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
        FileTime { secs: secs as i64, nanos: nanos as u32 }
    }

    pub(super) fn stat(&self, id: Id) -> Stat {
        let i = &self.inodes[id];
        let (size, nlink) = match &i.node {
            Node::File(file) => (file.data.len() as u64, i.nlink),
            Node::Link(text) => (text.len() as u64, i.nlink),
            Node::Dir(dir) => {
                let below = dir.entries.values().filter(|c| self.inodes[**c].dir().is_some()).count();
                (4096, if i.nlink == 0 { 0 } else { 2 + below as u32 })
            }
            Node::Other => (0, i.nlink),
        };
        Stat {
            kind: i.kind(),
            size,
            mtime: i.mtime,
            ctime: i.ctime,
            btime: Some(i.btime),
            ino: i.ino,
            nlink,
            mode: i.mode,
        }
    }

    pub(super) fn may(&self, id: Id, may: May) -> Result<()> {
        let allowed = self.options.as_root || self.inodes[id].mode & may as u16 != 0;
        if allowed { Ok(()) } else { Err(Errno::ACCES) }
    }

    /// The entry of a directory by that name: its name as stored, and where it leads.
    pub(super) fn find(&self, dir: Id, name: &Name) -> Option<(Name, Id)> {
        let entries = &self.inodes[dir].dir()?.entries;
        if let Some((stored, id)) = entries.get_key_value(name) {
            return Some((stored.clone(), *id));
        }
        if self.options.names == super::Names::Exact {
            return None;
        }
        let found = entries.iter().find(|(stored, _)| self.options.names.same(stored, name));
        found.map(|(stored, id)| (stored.clone(), *id))
    }

    /// One step of a path.
    pub(super) fn step(&self, dir: Id, name: &Name) -> Result<Id> {
        self.may(dir, May::Search)?;
        let entries = &self.inodes[dir].dir().ok_or(Errno::NOTDIR)?.entries;
        if let Some(id) = entries.get(name) {
            return Ok(*id);
        }
        self.find(dir, name).map(|(_, id)| id).ok_or(Errno::NOENT)
    }

    /// What is at `names` below `at`: a link itself, not where it leads, and none on the way.
    pub(super) fn walk(&self, at: Id, names: &[Name]) -> Result<Id> {
        let Some((last, parents)) = names.split_last() else { return Ok(at) };
        self.step(self.walk_dir(at, parents)?, last)
    }

    /// The same for what must be a directory.
    pub(super) fn walk_dir(&self, mut at: Id, names: &[Name]) -> Result<Id> {
        for name in names {
            let next = self.step(at, name)?;
            at = match &self.inodes[next].node {
                Node::Dir(_) => next,
                Node::Link(text) => self.follow(at, text)?,
                _ => return Err(Errno::NOTDIR),
            };
        }
        Ok(at)
    }

    /// The directory that holds the last of `names`; the root is held by none.
    pub(super) fn parent<'a>(&self, at: Id, names: &'a [Name]) -> Result<(Id, &'a Name)> {
        let (last, parents) = names.split_last().ok_or(Errno::BUSY)?;
        Ok((self.walk_dir(at, parents)?, last))
    }

    /// The same for an entry that is there, with its name as stored.
    pub(super) fn entry_at(&self, at: Id, names: &[Name]) -> Option<(Id, Name)> {
        let (dir, name) = self.parent(at, names).ok()?;
        Some((dir, self.find(dir, name)?.0))
    }

    pub(super) fn watch_of(&self, id: Id) -> Option<Wd> {
        self.inodes[id].dir().and_then(|d| d.watch)
    }

    /// Tells the watcher of `dir` about an entry.
    pub(super) fn tell(&mut self, dir: Id, name: &Name, what: What) {
        let wd = self.watch_of(dir);
        self.events.entry(wd, name, what);
    }

    /// Sets an entry of a directory, without any check.
    fn put(&mut self, dir: Id, name: &Name, id: Option<Id>) {
        let stamp = self.stamp();
        let inode = &mut self.inodes[dir];
        (inode.mtime, inode.ctime) = (stamp, stamp);
        let Some(d) = inode.dir_mut() else { return };
        match id {
            Some(id) => {
                d.entries.insert(name.clone(), id);
                if let Some(child) = self.inodes[id].dir_mut() {
                    child.parent = Some(dir);
                }
            }
            None => drop(d.entries.remove(name)),
        }
    }

    fn touch(&mut self, id: Id) {
        self.inodes[id].ctime = self.stamp();
    }

    /// Whether an entry may be made in `dir`.
    fn may_create(&self, dir: Id) -> Result<()> {
        if self.inodes[dir].nlink == 0 {
            return Err(Errno::NOENT);
        }
        self.may(dir, May::Write)?;
        self.may(dir, May::Search)
    }

    fn may_delete(&self, dir: Id, id: Id, as_dir: bool) -> Result<()> {
        self.may(dir, May::Write)?;
        self.may(dir, May::Search)?;
        match (as_dir, self.inodes[id].dir().is_some()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// Makes an entry for a new inode.
    pub(super) fn create(&mut self, dir: Id, name: &Name, node: Node, mode: u16) -> Result<Id> {
        let name = &*self.options.names.stored(name);
        match self.step(dir, name) {
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
            Ok(_) => return Err(Errno::EXIST),
        }
        self.may_create(dir)?;
        let takes = u64::from(matches!(node, Node::Dir(_)));
        if self.files >= self.options.files || self.blocks + takes > self.options.blocks() {
            return Err(Errno::NOSPC);
        }
        let id = self.new_inode(node, mode);
        self.inodes[id].nlink = 1;
        self.put(dir, name, Some(id));
        let seq = self.record([Some(Part::new(dir, name, None, Some(id))), None]);
        if let Some(d) = self.inodes[id].dir_mut() {
            d.born = seq;
        }
        self.tell(dir, name, What::Other);
        Ok(id)
    }

    /// Another entry for a file or link.
    pub(super) fn link(&mut self, id: Id, dir: Id, name: &Name) -> Result<()> {
        let name = &*self.options.names.stored(name);
        match self.step(dir, name) {
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
            Ok(_) => return Err(Errno::EXIST),
        }
        self.may_create(dir)?;
        if self.inodes[id].dir().is_some() {
            return Err(Errno::PERM);
        }
        self.inodes[id].nlink += 1;
        self.touch(id);
        self.put(dir, name, Some(id));
        self.record([Some(Part::new(dir, name, None, Some(id))), None]);
        self.tell(dir, name, What::Other);
        Ok(())
    }

    /// Removes an entry: of an empty directory with `as_dir`, of anything else without.
    pub(super) fn remove(&mut self, dir: Id, name: &Name, as_dir: bool) -> Result<()> {
        let id = self.step(dir, name)?;
        self.may_delete(dir, id, as_dir)?;
        self.must_be_empty(id)?;
        let stored = self.find(dir, name).map_or_else(|| name.clone(), |f| f.0);
        self.put(dir, &stored, None);
        self.record([Some(Part::new(dir, &stored, Some(id), None)), None]);
        self.handles.unlinked(dir, &stored);
        self.unlinked(id);
        self.tell(dir, &stored, What::Other);
        Ok(())
    }

    fn must_be_empty(&self, id: Id) -> Result<()> {
        let empty = self.inodes[id].dir().is_none_or(|d| d.entries.is_empty());
        if empty { Ok(()) } else { Err(Errno::NOTEMPTY) }
    }

    /// One entry less leads to `id`.
    fn unlinked(&mut self, id: Id) {
        self.touch(id);
        self.inodes[id].nlink -= 1;
        self.end_watch(id);
        self.release(id);
    }

    /// A directory that was removed is gone to its watcher once nobody has open what was in it.
    pub(super) fn end_watch(&mut self, id: Id) {
        let pinned = self.handles.dirs().any(|dir| self.is_within(dir, id));
        if self.inodes[id].nlink == 0 && !pinned {
            let watch = self.inodes[id].dir_mut().and_then(|d| d.watch.take());
            self.events.gone(watch);
        }
    }

    /// Renames; `how` is `None` for what POSIX does: replace what is there.
    pub(super) fn rename(&mut self, from: (Id, &Name), to: (Id, &Name), how: Option<Rename>) -> Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (from, to);
        let to_name = &*self.options.names.stored(to_name);
        self.may(from_dir, May::Search)?;
        self.may(to_dir, May::Search)?;
        let id = self.step(from_dir, from_name)?;
        let target = match self.step(to_dir, to_name) {
            Err(Errno::NOENT) => None,
            found => Some(found?),
        };
        match (how, target) {
            (Some(Rename::NoReplace), Some(_)) => return Err(Errno::EXIST),
            (Some(Rename::Exchange), None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.is_within(to_dir, id) {
            return Err(Errno::INVAL);
        }
        if target.is_some_and(|target| self.is_within(from_dir, target)) {
            return Err(if how == Some(Rename::Exchange) { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        let is_dir = |id: Id| self.inodes[id].dir().is_some();
        let stored = self.find(from_dir, from_name).map_or_else(|| from_name.clone(), |f| f.0);
        let respelled = from_dir == to_dir
            && stored != *to_name
            && self.find(to_dir, to_name).is_some_and(|f| f.0 == stored);
        if target == Some(id) && !respelled {
            return Ok(());
        }
        self.may_delete(from_dir, id, is_dir(id))?;
        match target {
            None => self.may_create(to_dir)?,
            Some(t) if how == Some(Rename::Exchange) => self.may_delete(to_dir, t, is_dir(t))?,
            Some(t) => self.may_delete(to_dir, t, is_dir(id))?,
        }
        if from_dir != to_dir {
            for moved in [Some(id), target.filter(|_| how == Some(Rename::Exchange))].into_iter().flatten() {
                if is_dir(moved) {
                    self.may(moved, May::Write)?;
                }
            }
        }
        if how == Some(Rename::Exchange) {
            self.exchange((from_dir, stored, id), (to_dir, to_name));
            return Ok(());
        }
        let replaced = target.filter(|t| *t != id);
        replaced.map_or(Ok(()), |t| self.must_be_empty(t))?;
        self.move_to((from_dir, stored, id), (to_dir, to_name), replaced);
        Ok(())
    }

    fn move_to(&mut self, from: (Id, Name, Id), to: (Id, &Name), replaced: Option<Id>) {
        let (from_dir, from_name, id) = from;
        let (to_dir, to_name) = to;
        let to_name = self.find(to_dir, to_name).filter(|f| f.1 != id).map_or(to_name.clone(), |f| f.0);
        self.put(from_dir, &from_name, None);
        self.put(to_dir, &to_name, Some(id));
        self.touch(id);
        self.record([
            Some(Part::new(from_dir, &from_name, Some(id), None)),
            Some(Part::new(to_dir, &to_name, replaced, Some(id))),
        ]);
        self.handles.unlinked(to_dir, &to_name);
        self.handles.moved((from_dir, &from_name), (to_dir, &to_name));
        self.tell(from_dir, &from_name, What::Other);
        self.tell(to_dir, &to_name, What::Other);
        for touched in replaced.into_iter().chain([id]) {
            let watch = self.watch_of(touched);
            self.events.dir(watch);
        }
        if let Some(replaced) = replaced {
            self.unlinked(replaced);
        }
    }

    fn exchange(&mut self, from: (Id, Name, Id), to: (Id, &Name)) {
        let (from_dir, from_name, a) = from;
        let Some((to_name, b)) = self.find(to.0, to.1) else { return };
        self.put(from_dir, &from_name, Some(b));
        self.put(to.0, &to_name, Some(a));
        self.record([
            Some(Part::new(from_dir, &from_name, Some(a), Some(b))),
            Some(Part::new(to.0, &to_name, Some(b), Some(a))),
        ]);
        self.handles.exchanged((from_dir, &from_name), (to.0, &to_name));
        for (dir, name) in [(from_dir, &from_name), (to.0, &to_name)] {
            self.tell(dir, name, What::Other);
        }
        for id in [a, b] {
            self.touch(id);
            let watch = self.watch_of(id);
            self.events.dir(watch);
        }
    }

    /// Whether `id` is `of`, or somewhere below it.
    fn is_within(&self, id: Id, of: Id) -> bool {
        let mut at = Some(id);
        while let Some(here) = at {
            if here == of {
                return true;
            }
            at = self.inodes[here].dir().and_then(|d| d.parent);
        }
        false
    }
}
