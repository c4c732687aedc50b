//! The program's view: the traits of the disk and of watches.

use super::errno::{Errno, Result};
use super::events::What;
use super::file::Who;
use super::handles::Open;
use super::tree::{DEV, Dir, Id, May, Node, Tree};
use super::{Effect, ModelDisk};
use dunlin_core::path::{Name, RelPath};
use dunlin_node::disk::{
    Disk, Entry, FileKind, FileTime, ReadFile, Rename, RootIdentity, Space, Stat, WriteFile,
};
use dunlin_node::watch::{DirKey, Watch, WatchError};
use std::io;
use std::sync::MutexGuard;

/// What may go wrong with a call.
#[derive(Clone, Copy)]
enum Trouble {
    Read,
    List,
    /// A change that takes no room.
    Change,
    /// A change that takes room.
    Grow,
    Sync,
}

impl Tree {
    fn trouble(&mut self, kind: Trouble) -> Result<()> {
        let f = &mut self.faults;
        let odds = match kind {
            Trouble::Read => f.read_eio,
            Trouble::List => f.list_eio,
            Trouble::Change | Trouble::Grow => f.write_eio,
            Trouble::Sync => f.sync_eio,
        };
        if f.chance.one_in(odds.into()) {
            return Err(Errno::IO);
        }
        if matches!(kind, Trouble::Grow) && f.chance.one_in(f.write_enospc.into()) {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    /// What is at a path, which the program opens below its handle of the root: the root itself as `.`.
    fn below(&self, names: &[Name]) -> Result<Id> {
        if names.is_empty() {
            self.may(self.held, May::Search)?;
        }
        self.walk(self.held, names)
    }

    /// Opens what must be a regular file.
    pub(super) fn open(&mut self, path: &RelPath, writes: bool, program: bool) -> Result<u64> {
        let id = if program { self.below(path.names()) } else { self.walk(self.held, path.names()) }?;
        match self.inodes[id].node {
            Node::Link(_) => return Err(Errno::LOOP),
            Node::Dir(_) if writes => return Err(Errno::ISDIR),
            _ => {}
        }
        self.may(id, May::Read)?;
        if writes {
            self.may(id, May::Write)?;
        }
        let entry = self.entry_at(self.held, path.names());
        if self.inodes[id].kind() != FileKind::File {
            // It was open for a moment.
            if let Some((dir, name)) = entry.filter(|_| writes) {
                self.tell(dir, &name, What::Other);
            }
            return Err(Errno::INVAL);
        }
        self.inodes[id].opens += 1;
        Ok(self.handles.add(Open { id, entry, unlinked: false, writes, program }))
    }

    /// The file of an open handle.
    pub(super) fn opened(&self, number: u64) -> Result<Id> {
        self.handles.get(number).map(|open| open.id).ok_or(Errno::IO)
    }

    /// Tells of what was done to an open file.
    pub(super) fn tell_open(&mut self, number: u64, what: What) {
        let Some(open) = self.handles.get(number) else { return };
        if let Some((dir, name)) = open.entry.clone() {
            self.tell(dir, &name, what);
        }
    }

    /// Tells of a write into an open file.
    pub(super) fn tell_written(&mut self, number: u64) {
        if self.handles.get(number).is_some_and(|open| !open.unlinked) {
            self.tell_open(number, What::Modify);
        }
    }

    pub(super) fn close(&mut self, number: u64) {
        let Some(open) = self.handles.remove(number) else { return };
        if let Some((dir, name)) = &open.entry {
            if open.writes && !open.unlinked {
                self.tell(*dir, name, What::Other);
            }
            let mut at = Some(*dir);
            while let Some(above) = at {
                self.end_watch(above);
                at = self.inodes[above].dir().and_then(|d| d.parent);
            }
        }
        self.inodes[open.id].opens -= 1;
        self.release(open.id);
    }

    /// Sets the mode of what is at a path, and tells.
    pub(super) fn change_mode(&mut self, at: Id, names: &[Name], mode: u16, who: Who) -> Result<()> {
        let id = if who == Who::Program { self.below(names) } else { self.walk(at, names) }?;
        match self.inodes[id].kind() {
            FileKind::File | FileKind::Dir => {}
            FileKind::Link => return Err(Errno::LOOP),
            FileKind::Other if who == Who::Program => return Err(Errno::INVAL),
            FileKind::Other | FileKind::Mount => {}
        }
        self.set_mode(id, mode);
        self.tell_attributes(at, names, id, What::Attrib);
        Ok(())
    }

    pub(super) fn change_mtime(&mut self, at: Id, names: &[Name], mtime: FileTime, who: Who) -> Result<()> {
        if mtime.nanos > 999_999_999 {
            return Err(Errno::INVAL);
        }
        let id = if who == Who::Program { self.below(names) } else { self.walk(at, names) }?;
        self.set_mtime(id, mtime);
        // Users' programs set both times. Setting this one alone is told as if it were written to.
        let what = if who == Who::Program { What::Modify } else { What::Attrib };
        self.tell_attributes(at, names, id, what);
        Ok(())
    }

    fn tell_attributes(&mut self, at: Id, names: &[Name], id: Id, what: What) {
        if let Some((dir, name)) = self.entry_at(at, names) {
            self.tell(dir, &name, what);
        }
        let watch = self.watch_of(id);
        self.events.dir(watch);
    }

    fn dir_below(&self, path: &RelPath) -> Result<Id> {
        if path.is_root() { self.below(&[]) } else { self.walk_dir(self.held, path.names()) }
    }

    fn listed(&self, path: &RelPath) -> Result<Id> {
        let dir = self.dir_below(path)?;
        self.may(dir, May::Read).map(|()| dir)
    }
}

/// An open file of the program.
struct Handle {
    disk: ModelDisk,
    path: RelPath,
    number: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.tree().close(self.number);
    }
}

impl ReadFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.before(|| Effect::Read(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.reads += 1;
        tree.trouble(Trouble::Read)?;
        let data = tree.data(tree.opened(self.number)?)?;
        let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.disk.before(|| Effect::Stat(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.stats += 1;
        tree.trouble(Trouble::List)?;
        Ok(tree.stat(tree.opened(self.number)?))
    }
}

impl WriteFile for Handle {
    fn allocated(&self) -> io::Result<u64> {
        let tree = self.disk.alive()?;
        match &tree.inodes[tree.opened(self.number)?].node {
            Node::File(file) => Ok(file.allocated() * super::file::BLOCK as u64),
            _ => Ok(0),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.disk.before(|| Effect::Write(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.writes += 1;
        tree.trouble(Trouble::Grow)?;
        let id = tree.opened(self.number)?;
        tree.write(id, buf, offset, Who::Program)?;
        if !buf.is_empty() {
            tree.tell_written(self.number);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.before(|| Effect::SetLen(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.writes += 1;
        tree.trouble(Trouble::Change)?;
        let id = tree.opened(self.number)?;
        tree.set_len(id, len, Who::Program)?;
        tree.tell_open(self.number, What::Modify);
        Ok(())
    }

    fn set_mode(&self, mode: u16) -> io::Result<()> {
        self.disk.before(|| Effect::SetMode(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.metas += 1;
        tree.trouble(Trouble::Change)?;
        let id = tree.opened(self.number)?;
        tree.set_mode(id, mode & 0o777);
        tree.tell_open(self.number, What::Attrib);
        Ok(())
    }

    fn set_mtime(&self, mtime: FileTime) -> io::Result<()> {
        self.disk.before(|| Effect::SetMtime(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.metas += 1;
        tree.trouble(Trouble::Change)?;
        if mtime.nanos > 999_999_999 {
            return Err(Errno::INVAL.into());
        }
        let id = tree.opened(self.number)?;
        tree.set_mtime(id, mtime);
        tree.tell_open(self.number, What::Modify);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.before(|| Effect::SyncFile(self.path.clone()));
        let mut tree = self.disk.alive()?;
        tree.counts.syncs += 1;
        tree.trouble(Trouble::Sync)?;
        let id = tree.opened(self.number)?;
        tree.sync_inode(id);
        Ok(())
    }
}

impl ModelDisk {
    /// The tree, if this handle's life goes on.
    fn alive(&self) -> io::Result<MutexGuard<'_, Tree>> {
        let mut tree = self.tree();
        tree.outside.follows = tree.options.follows;
        Some(tree).filter(|tree| tree.alive == Some(self.life)).ok_or(Errno::IO.into())
    }

    fn handle(&self, path: &RelPath, number: u64) -> Box<Handle> {
        Box::new(Handle { disk: self.clone(), path: path.clone(), number })
    }
}

impl Disk for ModelDisk {
    fn list(&self, dir: &RelPath) -> io::Result<Vec<Entry>> {
        self.before(|| Effect::List(dir.clone()));
        let mut tree = self.alive()?;
        tree.counts.lists += 1;
        tree.trouble(Trouble::List)?;
        let id = tree.listed(dir)?;
        let searchable = tree.may(id, May::Search).map_err(Errno::raw);
        let short = tree.faults.short_lists > 0;
        tree.faults.short_lists = tree.faults.short_lists.saturating_sub(1);
        let entries: Vec<(&Name, &Id)> = tree.inodes[id].dir().iter().flat_map(|d| &d.entries).collect();
        let whole = if short { entries.len() / 2 } else { entries.len() };
        let stat =
            |i: usize, id| if i < whole { searchable.map(|()| tree.stat(id)) } else { Err(Errno::IO.raw()) };
        let entries = entries.into_iter().enumerate();
        Ok(entries.map(|(i, (name, id))| Entry { name: name.clone(), stat: stat(i, *id) }).collect())
    }

    fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        self.before(|| Effect::Stat(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.stats += 1;
        tree.trouble(Trouble::List)?;
        match tree.walk(tree.held, path.names()) {
            Ok(id) => Ok(Some(tree.stat(id))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn ReadFile>> {
        self.before(|| Effect::Open(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.opens += 1;
        tree.trouble(Trouble::Read)?;
        let number = tree.open(path, false, true)?;
        Ok(self.handle(path, number))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.before(|| Effect::ReadLink(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.reads += 1;
        tree.trouble(Trouble::Read)?;
        let (dir, name) = tree.parent(tree.held, path.names())?;
        match &tree.inodes[tree.step(dir, name)?].node {
            Node::Link(text) => Ok(text.to_vec()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn create(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.before(|| Effect::Create(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.creates += 1;
        tree.trouble(Trouble::Grow)?;
        let (dir, name) = tree.parent(tree.held, path.names())?;
        let name = tree.options.names.stored(name).into_owned();
        let id = tree.create(dir, &name, Node::File(Default::default()), 0o600)?;
        tree.tell(dir, &name, What::Attrib);
        tree.inodes[id].opens += 1;
        let entry = Some((dir, name));
        let number = tree.handles.add(Open { id, entry, unlinked: false, writes: true, program: true });
        Ok(self.handle(path, number))
    }

    fn open_write(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.before(|| Effect::OpenWrite(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.opens += 1;
        tree.trouble(Trouble::Change)?;
        let number = tree.open(path, true, true)?;
        Ok(self.handle(path, number))
    }

    fn mkdir(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.before(|| Effect::Mkdir(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.creates += 1;
        tree.trouble(Trouble::Grow)?;
        if path.is_root() {
            return Err(Errno::EXIST.into());
        }
        let (dir, name) = tree.parent(tree.held, path.names())?;
        tree.create(dir, name, Node::Dir(Dir::default()), mode & 0o777)?;
        Ok(())
    }

    fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()> {
        self.before(|| Effect::Symlink(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.creates += 1;
        tree.trouble(Trouble::Grow)?;
        let (dir, name) = tree.parent(tree.held, path.names())?;
        Ok(tree.make_link(dir, name, text)?)
    }

    fn rename(&self, from: &RelPath, to: &RelPath, how: Rename) -> io::Result<()> {
        self.before(|| Effect::Rename { from: from.clone(), to: to.clone(), how });
        let mut tree = self.alive()?;
        tree.counts.renames += 1;
        tree.trouble(Trouble::Change)?;
        let from = tree.parent(tree.held, from.names())?;
        let to = tree.parent(tree.held, to.names())?;
        Ok(tree.rename(from, to, Some(how))?)
    }

    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        self.before(|| Effect::Unlink(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.removes += 1;
        tree.trouble(Trouble::Change)?;
        let (dir, name) = tree.parent(tree.held, path.names())?;
        Ok(tree.remove(dir, name, false)?)
    }

    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        self.before(|| Effect::Rmdir(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.removes += 1;
        tree.trouble(Trouble::Change)?;
        let (dir, name) = tree.parent(tree.held, path.names())?;
        Ok(tree.remove(dir, name, true)?)
    }

    fn set_mode(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.before(|| Effect::SetMode(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.metas += 1;
        tree.trouble(Trouble::Change)?;
        let held = tree.held;
        Ok(tree.change_mode(held, path.names(), mode & 0o777, Who::Program)?)
    }

    fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()> {
        self.before(|| Effect::SetMtime(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.metas += 1;
        tree.trouble(Trouble::Change)?;
        let held = tree.held;
        Ok(tree.change_mtime(held, path.names(), mtime, Who::Program)?)
    }

    fn sync_file(&self, path: &RelPath) -> io::Result<()> {
        self.before(|| Effect::SyncFile(path.clone()));
        let mut tree = self.alive()?;
        tree.counts.syncs += 1;
        tree.trouble(Trouble::Sync)?;
        let number = match tree.open(path, false, true) {
            // What nobody may read is made durable with all else.
            Err(Errno::ACCES) => {
                tree.sync_all();
                return Ok(());
            }
            opened => opened?,
        };
        let id = tree.opened(number)?;
        tree.sync_inode(id);
        tree.close(number);
        Ok(())
    }

    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        self.before(|| Effect::SyncDir(dir.clone()));
        let mut tree = self.alive()?;
        tree.counts.syncs += 1;
        tree.trouble(Trouble::Sync)?;
        match tree.listed(dir) {
            Err(Errno::ACCES) => tree.sync_all(),
            listed => tree.sync_entries(listed?),
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.before(|| Effect::SyncAll);
        let mut tree = self.alive()?;
        tree.counts.syncs += 1;
        tree.trouble(Trouble::Sync)?;
        tree.sync_all();
        Ok(())
    }

    fn now(&self) -> FileTime {
        self.tree().now
    }

    fn space(&self) -> io::Result<Space> {
        let tree = self.alive()?;
        let free = tree.options.blocks().saturating_sub(tree.blocks) * super::file::BLOCK as u64;
        let files = tree.options.files.saturating_sub(tree.files);
        let files = Some(files).filter(|_| tree.options.files < u64::MAX);
        Ok(Space { free, total: tree.options.space.saturating_add(tree.options.others), files })
    }

    fn root_identity(&self) -> io::Result<RootIdentity> {
        let tree = self.alive()?;
        let (ino, in_place) = (tree.inodes[tree.held].ino, tree.held == tree.place);
        Ok(RootIdentity { dev: DEV, ino, in_place })
    }
}

impl Watch for ModelDisk {
    fn add(&self, dir: &RelPath, key: DirKey) -> std::result::Result<(), WatchError> {
        let mut tree = self.alive()?;
        tree.counts.watches += 1;
        let id = tree.listed(dir).map_err(io::Error::from)?;
        let before = tree.watch_of(id);
        let (wd, lost) = tree.events.add(before, key);
        if let Some(lost) = lost {
            for inode in &mut tree.inodes {
                if let Some(dir) = inode.dir_mut().filter(|d| d.watch == Some(lost)) {
                    dir.watch = None;
                }
            }
        }
        if let Some(d) = tree.inodes[id].dir_mut() {
            d.watch = Some(wd);
        }
        Ok(())
    }
}
