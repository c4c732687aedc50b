//! A disk of which is known what it can do, and on which a name means only what is listed under it.
//!
//! Some file systems take several names for one: `Foo` and `foo`, or two forms of `é`. To all above this
//! seam each name is one of its own there, too: [`Disk::stat`] finds an entry by the name that the
//! directory lists, and by no other. What takes names for one is never worked out here. The disk is
//! asked: what a name leads to, and under which name that is listed.

use super::probe::Abilities;
use super::{Disk, Entry, FileTime, ReadFile, Rename, RootIdentity, Space, Stat, WriteFile};
use dunlin_core::keeps::Keeps;
use dunlin_core::path::{CONTROL_DIR, Name, RelPath};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk that was looked at.
pub struct KnownDisk {
    disk: Arc<dyn Disk>,
    keeps: Keeps,
    /// Set once it showed that it takes two names for one, if only in a part of the folder.
    blind: AtomicBool,
}

/// Whether a path is in the control directory, where every name is our own and there is one form of it.
fn is_ours(path: &RelPath) -> bool {
    path.names().first().is_none_or(|n| n.as_bytes() == CONTROL_DIR)
}

fn control() -> io::Result<RelPath> {
    let name = Name::new(CONTROL_DIR).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    Ok(RelPath::root().join(&name))
}

impl KnownDisk {
    /// A disk, and what was found out about it.
    pub fn new(disk: Arc<dyn Disk>, found: &Abilities) -> KnownDisk {
        KnownDisk { disk, keeps: found.keeps(), blind: AtomicBool::new(found.blind) }
    }

    /// The name that the directory lists of what `path` leads to.
    fn listed(&self, path: &RelPath, stat: &Stat) -> io::Result<Option<Name>> {
        let Some((dir, name)) = path.split_last() else { return Ok(None) };
        if self.disk.names(&dir)?.contains(name) {
            return Ok(Some(name.clone()));
        }
        let is_it = |e: &Entry| e.stat.as_ref().is_ok_and(|s| (s.ino, s.kind) == (stat.ino, stat.kind));
        let mut all: Vec<Name> = self.disk.list(&dir)?.into_iter().filter(is_it).map(|e| e.name).collect();
        // A file may have several names here. The one that is spelled most alike is meant.
        all.sort_by_key(|other| !other.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        Ok(all.into_iter().next())
    }

    /// Whether an entry listed as `listed` may be the one that was made as `name`.
    fn is_form(&self, name: &Name, listed: &Name) -> bool {
        name == listed || (!self.keeps.forms && !name.as_bytes().is_ascii())
    }

    /// What is refused because something is there: if nothing of that name is listed, names are taken for one.
    fn learn<T>(&self, to: &RelPath, result: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &result
            && e.kind() == io::ErrorKind::AlreadyExists
            && !self.is_blind()
            && !is_ours(to)
            && let Ok(Some(stat)) = self.disk.stat(to)
            && let Ok(Some(listed)) = self.listed(to, &stat)
            && to.names().last() != Some(&listed)
        {
            self.blind.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Disk for KnownDisk {
    /// The control directory keeps its name, however a user spells it.
    fn list(&self, dir: &RelPath) -> io::Result<Vec<Entry>> {
        let mut entries = self.disk.list(dir)?;
        if dir.is_root()
            && self.is_blind()
            && entries.iter().all(|e| e.name.as_bytes() != CONTROL_DIR)
            && let Some(ours) = self.disk.stat(&control()?)?
        {
            let is_it = |e: &Entry| e.stat.as_ref().is_ok_and(|s| s.ino == ours.ino);
            entries.retain(|e| !is_it(e));
        }
        Ok(entries)
    }

    fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        let found = self.disk.stat(path)?;
        let Some(stat) = found.filter(|_| self.is_blind() && !is_ours(path)) else { return Ok(found) };
        let Some(name) = path.names().last() else { return Ok(found) };
        if path.names().len() == 1 && self.disk.stat(&control()?)?.is_some_and(|ours| ours.ino == stat.ino) {
            return Ok(None);
        }
        Ok(self.listed(path, &stat)?.filter(|listed| self.is_form(name, listed)).map(|_| stat))
    }

    fn other_name(&self, path: &RelPath) -> io::Result<Option<Name>> {
        if !self.is_blind() || path.is_root() {
            return Ok(None);
        }
        let Some(stat) = self.disk.stat(path)? else { return Ok(None) };
        Ok(self.listed(path, &stat)?.filter(|listed| path.names().last() != Some(listed)))
    }

    fn keeps(&self) -> Keeps {
        self.keeps
    }

    fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Relaxed)
    }

    fn mkdir(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.learn(path, self.disk.mkdir(path, mode))
    }

    fn rename(&self, from: &RelPath, to: &RelPath, how: Rename) -> io::Result<()> {
        self.learn(to, self.disk.rename(from, to, how))
    }

    /// Where modes are not kept, none is set: some file systems refuse, others keep half of it.
    fn set_mode(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        if self.keeps.modes { self.disk.set_mode(path, mode) } else { Ok(()) }
    }

    fn names(&self, dir: &RelPath) -> io::Result<Vec<Name>> {
        self.disk.names(dir)
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn ReadFile>> {
        self.disk.open(path)
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.disk.read_link(path)
    }

    fn create(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.disk.create(path)
    }

    fn open_write(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.disk.open_write(path)
    }

    fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()> {
        self.disk.symlink(text, path)
    }

    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        self.disk.rmdir(path)
    }

    fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()> {
        self.disk.set_mtime(path, mtime)
    }

    fn sync_file(&self, path: &RelPath) -> io::Result<()> {
        self.disk.sync_file(path)
    }

    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn sync_each(&self, files: &[RelPath], dirs: &[RelPath]) -> Vec<io::Result<()>> {
        self.disk.sync_each(files, dirs)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }

    fn sync_beside(&self) -> io::Result<()> {
        self.disk.sync_beside()
    }

    fn now(&self) -> FileTime {
        self.disk.now()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn root_identity(&self) -> io::Result<RootIdentity> {
        self.disk.root_identity()
    }
}
