//! What is announced must survive a power cut here. Else an empty file would come back from one, look like
//! an edit, and spread; or a file would be gone, look deleted, and be deleted everywhere.

use super::Engine;
use crate::disk::is_gone;
use crate::store::Snapshot;
use dunlin_core::ids::NodeId;
use dunlin_core::kv::Read;
use dunlin_core::observe::{Observation, Seen, is_seen_elsewhere, leave_out};
use dunlin_core::path::RelPath;
use dunlin_core::plan::path_of;
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// Up to so many files and directories are synced one by one; beyond, the file system as a whole.
const SYNC_EACH_MAX: usize = 8;
/// What cannot be made durable is looked at again after this.
const SYNC_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Makes durable what was observed: contents of files, modes of directories, and the names in their directories. (A file whose
    /// inode is the one of its row may have been renamed away and back.) What cannot be made durable is not
    /// taken in yet. Where a directory is gone, what came out of it is durable with the file system as a whole.
    pub(super) fn make_durable(&mut self, snapshot: &Snapshot, seen: &mut Vec<Observation>) -> Read<()> {
        let is_file = |o: &&Observation| matches!(o.seen, Seen::File(..));
        let files: Vec<Position> = seen.iter().filter(is_file).map(|o| o.at.clone()).collect();
        let (mut dirs, mut dressed) = (BTreeSet::new(), BTreeMap::new());
        for o in seen.iter() {
            let row = snapshot.local(&o.at)?;
            if o.seen != Seen::Absent || row.is_some() {
                dirs.insert(o.at.dir);
            }
            // The mode of a directory is in itself, not in the one that it is in.
            if let (Seen::Dir(mode, _), Some(row)) = (&o.seen, row)
                && row.content == Content::Dir
                && row.mode != mode & 0o777
            {
                dirs.insert(row.node);
                dressed.insert(o.at.clone(), row.node);
            }
        }
        if files.len() + dirs.len() > SYNC_EACH_MAX {
            if let Err(e) = self.folder.disk.sync_all() {
                self.postpone(snapshot, seen, &e, |_| true)?;
            }
            return Ok(());
        }
        let mut paths = Vec::new();
        for at in files {
            paths.extend(path_of(snapshot, &at)?.map(|path| (at, path)));
        }
        let mut in_dirs = Vec::new();
        for dir in dirs {
            in_dirs.extend(snapshot.disk_path(dir)?.map(|names| (dir, RelPath::from(names))));
        }
        let of_files: Vec<RelPath> = paths.iter().map(|(_, path)| path.clone()).collect();
        let of_dirs: Vec<RelPath> = in_dirs.iter().map(|(_, path)| path.clone()).collect();
        let mut synced = self.folder.disk.sync_each(&of_files, &of_dirs).into_iter();
        for ((at, _), done) in paths.into_iter().zip(synced.by_ref()) {
            if let Err(e) = done {
                self.postpone(snapshot, seen, &e, |o| o.at == at)?;
            }
        }
        let mut moved = false;
        for ((dir, path), done) in in_dirs.into_iter().zip(synced) {
            match done {
                // Users move directories at any moment: what was synced may be another one.
                Ok(()) => moved |= !self.is_at(snapshot, dir, &path)?,
                Err(e) => {
                    let mut left = BTreeSet::new();
                    for o in seen.iter().filter(|o| is_gone(&e) && o.at.dir == dir) {
                        if is_seen_elsewhere(snapshot, seen, o)? {
                            left.insert(o.at.clone());
                        }
                    }
                    moved |= !left.is_empty();
                    let hangs = |o: &Observation| o.at.dir == dir || dressed.get(&o.at) == Some(&dir);
                    self.postpone(snapshot, seen, &e, |o| hangs(o) && !left.contains(&o.at))?;
                }
            }
        }
        if moved && let Err(e) = self.folder.disk.sync_all() {
            self.postpone(snapshot, seen, &e, |_| true)?;
        }
        Ok(())
    }

    /// Leaves observations out until they can be made durable, and with them what tells of the same things.
    fn postpone(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut Vec<Observation>,
        e: &io::Error,
        which: impl Fn(&Observation) -> bool,
    ) -> Read<()> {
        let mut paths = BTreeMap::<NodeId, RelPath>::new();
        let (rest, late) = leave_out(snapshot, std::mem::take(seen), which)?;
        *seen = rest;
        if is_gone(e) {
            // Whatever is there now, if anything, is looked at: it may be back by the time this is recorded.
            late.into_iter().for_each(|o| self.mark(o.at, Duration::ZERO, true));
            return Ok(());
        }
        for o in late {
            if let std::collections::btree_map::Entry::Vacant(entry) = paths.entry(o.at.dir) {
                let names = snapshot.disk_path(o.at.dir)?;
                entry.insert(RelPath::from(names.unwrap_or_default()));
            }
            if let Some(dir) = paths.get(&o.at.dir) {
                self.unreadable.note(dir.join(&o.at.name), format!("cannot be made durable: {e}"));
            }
            self.try_again(o.at, SYNC_AGAIN);
        }
        Ok(())
    }
}
