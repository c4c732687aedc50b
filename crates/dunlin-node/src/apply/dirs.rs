//! The directories whose entries a batch of steps changed, the files whose mode or time it did, and how those become
//! durable.
//!
//! Users move directories at any moment. A path that named one directory when a step changed what is in it may name
//! another one, or none, when it is synced; so each is known by its inode as well.

use crate::disk::{Disk, is_gone};
use crate::stage::SYNC_EACH_MAX;
use dunlin_core::path::RelPath;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Directories that steps changed.
#[derive(Default)]
pub(super) struct Dirs {
    changed: BTreeSet<RelPath>,
    /// Which inodes they were before anything was done in them. Not noted of so many that the file system is synced
    /// as a whole.
    inodes: BTreeMap<RelPath, Option<u64>>,
    /// Files with another mode or time: lost to a power cut, that would look as if a user had taken it back.
    dressed: BTreeSet<RelPath>,
}

impl Dirs {
    /// Something is about to be done in `dir`.
    pub fn enter(&mut self, disk: &dyn Disk, dir: &RelPath) {
        if self.inodes.len() <= SYNC_EACH_MAX && !self.inodes.contains_key(dir) {
            self.inodes.insert(dir.clone(), inode(disk, dir));
        }
    }

    /// The entries of `dir` were changed.
    pub fn changed(&mut self, dir: RelPath) {
        self.changed.insert(dir);
    }

    /// A file got another mode or time.
    pub fn dressed(&mut self, file: RelPath) {
        self.dressed.insert(file);
    }

    /// A step removed `dir`.
    pub fn removed(&mut self, dir: &RelPath) {
        self.changed.remove(dir);
        self.inodes.remove(dir);
    }

    /// Makes durable what was changed, wherever the directories are by now.
    pub fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        if self.changed.len().max(self.dressed.len()) > SYNC_EACH_MAX {
            return disk.sync_all();
        }
        for file in &self.dressed {
            match disk.sync_file(file) {
                // Moved by a user, or nobody may read it now.
                Err(e) if is_gone(&e) || e.kind() == io::ErrorKind::PermissionDenied => {
                    return disk.sync_all();
                }
                other => other?,
            }
        }
        for dir in &self.changed {
            match disk.sync_dir(dir) {
                Err(e) if is_gone(&e) => {}
                other => other?,
            }
        }
        let is_another = |dir: &RelPath| self.inodes.get(dir).is_some_and(|was| *was != inode(disk, dir));
        if self.changed.iter().any(is_another) { disk.sync_all() } else { Ok(()) }
    }
}

/// What cannot be looked at is not where it was.
fn inode(disk: &dyn Disk, dir: &RelPath) -> Option<u64> {
    disk.stat(dir).ok().flatten().map(|s| s.stamp().ino)
}
