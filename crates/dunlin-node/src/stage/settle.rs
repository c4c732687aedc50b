//! What is left in `stage` and `swap`: at a start what an earlier run did not come to, at rest what nothing wants any more.

use super::durable::Staged;
use super::{Stage, control, lent, stranded};
use crate::disk::{FileKind, Rename};
use dunlin_core::ids::ContentId;
use dunlin_core::path::{Name, RelPath};
use std::io;
use std::sync::atomic::Ordering;

/// So many bytes of what was gathered are read at a start. What is more is verified like any part, or fetched again.
const READ_AT_START: u64 = 1 << 30;

/// The content that a name of the control directory begins with.
pub(super) fn content_in(name: &Name) -> Option<ContentId> {
    let hash = name.as_bytes().get(..64).and_then(|b| std::str::from_utf8(b).ok());
    hash.and_then(ContentId::from_hex)
}

impl Stage {
    /// What was gathered before counts again if it still is what it was: who it came from may be gone.
    pub(super) fn recover(&self) -> io::Result<()> {
        let (disk, dir) = (&self.disk, control(&["stage"]));
        let mut read = 0;
        for entry in disk.list(&dir)? {
            let path = dir.join(&entry.name);
            if entry.name.as_bytes().ends_with(b".part") {
                continue;
            }
            let (size, nlink) = entry.stat.map(|s| (s.size, s.nlink)).unwrap_or((0, 1));
            if nlink > 1 {
                // It was placed, and a power cut brought this name of it back: what it holds is a user's by now.
                disk.unlink(&path)?;
                continue;
            }
            let reads = read + size <= READ_AT_START;
            read += if reads { size } else { 0 };
            if lent::is_lent_name(&entry.name) {
                self.admit_lent(&path, &entry.name, reads)?;
                continue;
            }
            if reads && self.admit(&path, &entry.name) {
                continue;
            }
            let part = Name::new(&[entry.name.as_bytes(), b".part"].concat());
            match part {
                // Large ones are worth checking chunk by chunk; small ones are fetched again.
                Ok(part) if size >= crate::chunks::CHUNKED_MIN => {
                    if disk.rename(&path, &dir.join(&part), Rename::NoReplace).is_err() {
                        disk.unlink(&path)?;
                    }
                }
                _ => disk.unlink(&path)?,
            }
        }
        self.empty_swap(false)
    }

    /// Takes a file in `stage` for what its name says, if it is that.
    fn admit(&self, path: &RelPath, name: &Name) -> bool {
        let hash = std::str::from_utf8(name.as_bytes()).ok();
        let content = hash.and_then(ContentId::from_hex).filter(|content| self.is_held(path, content));
        content.is_some_and(|content| self.whole().insert(content, Staged::default()).is_none())
    }

    /// What an exchange left in `swap` goes to the history, and what was never placed back to the stage. What is
    /// stranded goes only if it is known to the index by now.
    fn empty_swap(&self, stranded: bool) -> io::Result<()> {
        for entry in self.disk.list(&control(&["swap"]))? {
            let path = control(&["swap"]).join(&entry.name);
            let kind = entry.stat.map(|s| s.kind).ok();
            // What the planner parked (its names hold a dash) is still in the index, and goes on.
            if kind == Some(FileKind::Dir) || entry.name.as_bytes().contains(&b'-') {
                continue;
            }
            // By what it holds it is found again: it may be all that is left of a version.
            let held = if kind == Some(FileKind::File) { self.held(&path)? } else { None };
            let is_stranded =
                held.is_some_and(|held| stranded::stranded(entry.name.as_bytes(), &held).is_some());
            if (is_stranded && !stranded) || self.return_unplaced(&path, &entry.name, held)? {
                continue;
            }
            self.keep_apart(&path, &entry.name, held)?;
        }
        Ok(())
    }

    /// Removes what nothing wants any more, and clears what failed steps left in `swap`. Only to be called
    /// while nothing is wanted or being placed, and the index knows what was [`stranded`](Stage::stranded); `keep` is
    /// what is staged for others.
    pub fn clear(&self, keep: &dyn Fn(&ContentId) -> bool) -> io::Result<()> {
        if !self.used.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let cleared = self.empty_swap(true).and_then(|()| self.empty_stage(keep));
        if cleared.is_err() {
            self.used.store(true, Ordering::Relaxed);
        }
        cleared
    }

    fn empty_stage(&self, keep: &dyn Fn(&ContentId) -> bool) -> io::Result<()> {
        let dir = control(&["stage"]);
        for entry in self.disk.list(&dir)? {
            let content = content_in(&entry.name);
            if content.as_ref().is_some_and(keep) {
                continue;
            }
            if lent::is_lent_name(&entry.name) {
                self.take_back(&dir.join(&entry.name), &entry.name, content)?;
                continue;
            }
            if let Some(content) = content.filter(|content| !self.is_lent(content)) {
                self.whole().remove(&content);
            }
            self.disk.unlink(&dir.join(&entry.name))?;
        }
        Ok(())
    }

    /// A staged content that was taken out and not placed goes back.
    /// Anything else under such a name is what it was exchanged with: somebody's work.
    fn return_unplaced(&self, path: &RelPath, name: &Name, held: Option<ContentId>) -> io::Result<bool> {
        let Some(content) = content_in(name) else { return Ok(false) };
        if held != Some(content) {
            return Ok(false);
        }
        if self.disk.stat(path)?.is_some_and(|s| s.nlink > 1) {
            // It was placed, and a power cut brought this name of it back.
            self.disk.unlink(path)?;
            return Ok(true);
        }
        // Nobody knows any more whether the history lent it: it may be all that is left of a version.
        self.lent().entry(content).or_default();
        self.put_back(content, path)?;
        Ok(true)
    }
}
