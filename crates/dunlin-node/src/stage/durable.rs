//! Contents that are made durable while the engine does other things: many with one sync of the file system.

use super::{Looks, Stage};
use dunlin_core::ids::ContentId;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Up to so many files (or directories) each is synced by itself; beyond, the file system as a whole.
pub const SYNC_EACH_MAX: usize = 8;

/// A content that is staged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Staged {
    /// The mode and time that its file has by now, if those were given.
    pub looks: Option<Looks>,
    /// It was the so-manieth to be put here; 0 of what came otherwise or was changed since.
    pub number: u64,
}

/// How far what was put into the stage is durable.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// How many contents were put, as far as their last write.
    put: AtomicU64,
    /// Up to this number they are durable,
    durable: AtomicU64,
    /// but for those up to this one: a sync failed, and the disk may not hold them.
    doubtful: AtomicU64,
    /// Held by whoever syncs.
    one: Mutex<()>,
}

impl Syncs {
    /// The number of one more content, all of which was written.
    pub fn number(&self) -> u64 {
        self.put.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Makes durable what has these numbers, up to `mine`.
    fn settle(&self, mine: u64, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if mine <= self.doubtful.load(Ordering::SeqCst) {
            return Err(io::Error::other("a sync of the disk failed"));
        }
        if mine <= self.durable.load(Ordering::SeqCst) {
            return Ok(());
        }
        let all = self.put.load(Ordering::SeqCst);
        let synced = sync();
        let reached = if synced.is_ok() { &self.durable } else { &self.doubtful };
        reached.store(all, Ordering::SeqCst);
        synced
    }

    fn is_durable(&self, number: u64) -> bool {
        number > self.doubtful.load(Ordering::SeqCst) && number <= self.durable.load(Ordering::SeqCst)
    }
}

impl Stage {
    /// Makes those of these contents durable that were put here, with their modes and times: by the sync of somebody else, if
    /// one began since. One at a time, so that all who come meanwhile share the next.
    ///
    /// # Errors
    /// Those of the disk. These contents may be lost then: the caller forgets them.
    pub fn settle(&self, contents: impl Iterator<Item = ContentId>) -> io::Result<()> {
        let numbers = {
            let whole = self.whole();
            contents.filter_map(|content| whole.get(&content).map(|staged| staged.number)).max()
        };
        match numbers {
            // What was copied or lent is the applier's.
            None | Some(0) => Ok(()),
            Some(mine) => self.syncs.settle(mine, || self.disk.sync_beside()),
        }
    }

    /// Whether a staged content was made durable, and not changed since.
    pub fn is_durable(&self, content: &ContentId) -> bool {
        self.whole().get(content).is_some_and(|staged| self.syncs.is_durable(staged.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::posix::PosixDisk;
    use dunlin_core::state::Mtime;
    use std::sync::Arc;

    #[test]
    fn durable_is_what_was_written_before_a_sync_began() {
        let syncs = Syncs::default();
        assert!(!syncs.is_durable(0));
        let before = syncs.number();
        let mut during = 0;
        syncs
            .settle(before, || {
                during = syncs.number();
                Ok(())
            })
            .unwrap();
        assert!(syncs.is_durable(before) && !syncs.is_durable(during) && !syncs.is_durable(0));
        syncs.settle(during, || Ok(())).unwrap();
        assert!(syncs.is_durable(during));
        syncs.settle(during, || panic!("nothing was put since")).unwrap();
    }

    #[test]
    fn a_sync_that_failed_leaves_all_before_it_in_doubt_for_good() {
        let syncs = Syncs::default();
        let first = syncs.number();
        syncs.settle(first, || Ok(())).unwrap();
        let lost = syncs.number();
        assert!(syncs.settle(lost, || Err(io::Error::other("EIO"))).is_err());
        // Who waited meanwhile hears of it: the next sync would find nothing wrong.
        assert!(syncs.settle(lost, || panic!("it does not help")).is_err());
        let next = syncs.number();
        syncs.settle(next, || Ok(())).unwrap();
        assert!(syncs.is_durable(next) && !syncs.is_durable(lost) && !syncs.is_durable(first));
    }

    #[test]
    fn what_is_changed_after_it_was_durable_is_so_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::open(Arc::new(PosixDisk::open(dir.path()).unwrap())).unwrap();
        let [one, other] = [5, 6].map(|secs| (0o644, Mtime { secs, nanos: 0 }));
        let content = ContentId(*blake3::hash(b"new").as_bytes());
        stage.put(content, b"new", Some(one)).unwrap();
        assert!(!stage.is_durable(&content));
        stage.settle([content].into_iter()).unwrap();
        assert!(stage.redress(&content, one) && stage.is_durable(&content));
        assert!(!stage.redress(&content, other) && !stage.is_durable(&content));
        // What was copied has no number, and nothing is said of it.
        let copied = ContentId(*blake3::hash(b"copied").as_bytes());
        let (path, file) = stage.begin_copy().unwrap();
        file.write_at(b"copied", 0).unwrap();
        stage.end_copy(&path, Some(copied)).unwrap();
        stage.settle([copied].into_iter()).unwrap();
        assert!(!stage.is_durable(&copied));
        // Put anew, it is another file.
        stage.forget(&content);
        stage.put(content, b"new", Some(other)).unwrap();
        assert!(!stage.is_durable(&content));
        stage.settle([content].into_iter()).unwrap();
        assert!(stage.is_durable(&content));
    }
}
