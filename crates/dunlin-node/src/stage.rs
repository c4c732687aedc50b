//! The folder's own directory, `.dunlin`: where content is gathered and verified before it is
//! visible, and where what was replaced or deleted is kept.
//!
//! ```text
//! .dunlin/folder     the marker: which folder this is
//! .dunlin/stage/     contents by their hash; NAME.part while bytes are missing, NAME.lent if they are the history's
//! .dunlin/swap/      what is changing places; anything found here at rest goes to the history
//! .dunlin/history/   what was replaced or deleted
//! .dunlin/reserve    room for the next start
//! ```

mod durable;
mod history;
mod lent;
mod marker;
mod reserve;
mod room;
mod settle;
mod stranded;

use crate::disk::{Disk, FileTime, Rename, WriteFile};
use dunlin_core::ids::ContentId;
use dunlin_core::path::{CONTROL_DIR, Name, RelPath};
use dunlin_core::state::Mtime;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use durable::SYNC_EACH_MAX;
use durable::Staged;
pub use marker::{Noted, note, noted, root_trouble, write_marker};
pub use reserve::{give_up_reserve, hold_reserve};
pub use room::{Claim, Lacks, Left, NoRoom, Room};
pub use stranded::{Stranded, takes_out};

/// The control directory of one folder.
pub struct Stage {
    disk: Arc<dyn Disk>,
    /// Contents that are whole and verified.
    whole: Mutex<BTreeMap<ContentId, Staged>>,
    /// How far those that were put here are durable.
    syncs: durable::Syncs,
    /// Those of them, and of what is about to be placed, that the history lent.
    lent: Mutex<lent::Lent>,
    claims: Mutex<room::Claims>,
    /// Something was put into `stage` or `swap` since they were last cleared.
    used: AtomicBool,
    /// Something was found stranded when that was last looked at.
    strands: AtomicBool,
    counter: AtomicU64,
    history: Mutex<history::Known>,
    /// The numbers under which nothing in the history yields.
    spared: Mutex<Range<u64>>,
}

/// The mode and the modification time of a file.
pub type Looks = (u16, Mtime);

/// A path below `.dunlin`; the parts are ours and always names.
pub fn control(parts: &[&str]) -> RelPath {
    let names = std::iter::once(CONTROL_DIR).chain(parts.iter().map(|p| p.as_bytes()));
    RelPath::from(names.filter_map(|n| Name::new(n).ok()).collect::<Vec<_>>())
}

const DIRS: [&str; 3] = ["stage", "swap", "history"];

/// Makes those that are missing in the control directory; whether there were any.
fn make(disk: &dyn Disk, dirs: &[&str]) -> io::Result<bool> {
    let mut made = false;
    for dir in dirs.iter().map(|d| control(&[d])) {
        if disk.stat(&dir)?.is_none() {
            disk.mkdir(&dir, 0o700)?;
            made = true;
        }
    }
    Ok(made)
}

impl Stage {
    /// Opens (and where missing, creates) the control directory. What an interrupted exchange left
    /// behind goes to the history; staged contents are verified again.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Stage> {
        if disk.stat(&control(&[]))?.is_none() {
            disk.mkdir(&control(&[]), 0o700)?;
        }
        make(disk.as_ref(), &DIRS)?;
        let counter = AtomicU64::new(start_number(disk.as_ref()));
        let (used, strands) = (AtomicBool::new(true), AtomicBool::new(true));
        let (whole, syncs, lent, claims, history) = Default::default();
        let spared = Mutex::new(0..0);
        let stage = Stage { disk, whole, syncs, lent, claims, used, strands, counter, history, spared };
        stage.recover()?;
        stage.look_for_stranded()?;
        Ok(stage)
    }

    /// Makes what somebody removed of the directories; what was in it is fetched again.
    pub fn make_dirs(&self) -> io::Result<()> {
        if make(self.disk.as_ref(), &DIRS[..1])? {
            self.whole().clear();
        }
        make(self.disk.as_ref(), &DIRS[1..]).map(drop)
    }

    /// What a file holds; nothing is known of one that cannot be opened.
    fn held(&self, path: &RelPath) -> io::Result<Option<ContentId>> {
        let Ok(file) = self.disk.open(path) else { return Ok(None) };
        let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; 256 << 10], 0);
        loop {
            let n = file.read_at(&mut buffer, offset)?;
            if n == 0 {
                return Ok(Some(ContentId(*hasher.finalize().as_bytes())));
            }
            hasher.update(&buffer[..n]);
            offset += n as u64;
        }
    }

    /// Whether a file is known to hold this.
    pub fn is_held(&self, path: &RelPath, content: &ContentId) -> bool {
        self.held(path).is_ok_and(|held| held.as_ref() == Some(content))
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContentId, Staged>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a content is staged, whole and verified.
    pub fn has(&self, content: &ContentId) -> bool {
        self.whole().contains_key(content)
    }

    /// Where a content is staged.
    pub fn path(&self, content: &ContentId) -> RelPath {
        if self.is_lent(content) {
            return Stage::lent_path(content);
        }
        control(&["stage", &content.to_string()])
    }

    fn part_path(&self, content: &ContentId) -> RelPath {
        control(&["stage", &format!("{content}.part")])
    }

    /// A staged file is to get this mode and time; tells whether it has them already.
    pub fn redress(&self, content: &ContentId, looks: Looks) -> bool {
        let mut whole = self.whole();
        let Some(has) = whole.get_mut(content) else { return false };
        if has.looks == Some(looks) {
            return true;
        }
        // It may be that it gets but one of them.
        *has = Staged::default();
        false
    }

    /// Stages a content that was verified by the caller, with the mode and time that it will most likely get. It is durable
    /// once [`Stage::settle`] said so, or the applier saw to it.
    pub fn put(&self, content: ContentId, bytes: &[u8], looks: Option<Looks>) -> io::Result<()> {
        if self.has(&content) {
            return Ok(());
        }
        let path = self.path(&content);
        self.used.store(true, Ordering::Relaxed);
        let file = match self.disk.create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.unlink(&path)?;
                self.disk.create(&path)?
            }
            other => other?,
        };
        // A file that its owner may not open could not be given another mode and time in its place.
        let looks = looks.filter(|(mode, _)| mode & 0o600 == 0o600);
        let dress = |(mode, mtime): Looks| {
            if self.disk.keeps().modes {
                file.set_mode(mode)?;
            }
            file.set_mtime(FileTime { secs: mtime.secs, nanos: mtime.nanos })
        };
        let put = file.write_at(bytes, 0).and_then(|()| looks.map_or(Ok(()), dress));
        if let Err(e) = put {
            drop(file);
            // The first error counts; what was written is swept at the next start at the latest.
            let _ = self.disk.unlink(&path);
            return Err(e);
        }
        // Numbered after the last write: what is synced after that is durable.
        let number = self.syncs.number();
        self.whole().insert(content, Staged { looks, number });
        Ok(())
    }

    /// Opens (or creates) the partial file of a content; tells whether it is new, and so empty.
    pub fn open_part(&self, content: &ContentId) -> io::Result<(Box<dyn WriteFile>, bool)> {
        let path = self.part_path(content);
        self.used.store(true, Ordering::Relaxed);
        match self.disk.open_write(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((self.disk.create(&path)?, true)),
            other => Ok((other?, false)),
        }
    }

    /// Marks a partial file, verified as a whole by the caller, as staged.
    pub fn finish_part(&self, content: ContentId) -> io::Result<()> {
        if self.has(&content) {
            // What is there may be lent, and all that is left of it: it is not exchanged for this.
            return self.drop_part(&content);
        }
        let (from, to) = (self.part_path(&content), self.path(&content));
        if self.disk.stat(&to)?.is_some() {
            self.disk.unlink(&to)?;
        }
        self.disk.rename(&from, &to, Rename::NoReplace)?;
        self.whole().insert(content, Staged::default());
        Ok(())
    }

    /// A new file in `swap/` for a copy whose content is not known before it is made.
    pub fn begin_copy(&self) -> io::Result<(RelPath, Box<dyn WriteFile>)> {
        let path = self.swap_path(None, "");
        let file = self.disk.create(&path)?;
        Ok((path, file))
    }

    /// Stages a copy under the content it turned out to hold; `None` throws it away.
    pub fn end_copy(&self, path: &RelPath, content: Option<ContentId>) -> io::Result<()> {
        match content {
            Some(content) if !self.has(&content) => self.put_back(content, path),
            _ => self.disk.unlink(path),
        }
    }

    /// Throws a partial file away (it did not hold what it was to hold).
    pub fn drop_part(&self, content: &ContentId) -> io::Result<()> {
        match self.disk.unlink(&self.part_path(content)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Takes a staged content out for placing: it is at the returned path in `swap/` afterwards.
    pub fn take(&self, content: &ContentId, takes_out: &str) -> io::Result<RelPath> {
        // The name tells after a crash whether this was placed already.
        let to = self.swap_path(Some(content), takes_out);
        self.disk.rename(&self.path(content), &to, Rename::NoReplace)?;
        self.whole().remove(content);
        Ok(to)
    }

    /// A content was placed from where it lay: what is staged of it from now on is another file.
    pub fn placed(&self, from: &RelPath, content: &ContentId) {
        if *from == self.path(content) {
            self.whole().remove(content);
        }
        self.lent().remove(content);
    }

    /// Puts back what [`Stage::take`] took out; what was to be placed from the stage itself never left it, unless what
    /// failed came after that.
    pub fn put_back(&self, content: ContentId, from: &RelPath) -> io::Result<()> {
        if *from == self.path(&content) {
            if !matches!(self.disk.stat(from), Ok(Some(_))) {
                // Should it be there and only not be seen, it is fetched again, and replaces that.
                self.placed(from, &content);
            }
            return Ok(());
        }
        match self.disk.rename(from, &self.path(&content), Rename::NoReplace) {
            Ok(()) => {
                self.whole().insert(content, Staged::default());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.disk.unlink(from),
            Err(e) => Err(e),
        }
    }

    /// Forgets a staged content that the disk turned out not to hold.
    pub fn forget(&self, content: &ContentId) {
        if self.is_lent(content) {
            // By whoever wants it from there it is verified. If it cannot go, it stays, under a name that says what it is.
            let _ = self.give_back(content, *content);
            return;
        }
        self.whole().remove(content);
        // It may be half there; the next fetch begins anew.
        let _ = self.disk.unlink(&self.path(content));
    }
}

/// Numbers go on from where the clock is, so that those of an earlier run are not met again.
fn start_number(disk: &dyn Disk) -> u64 {
    let now = disk.now();
    u64::try_from(now.secs).unwrap_or(0).saturating_mul(1_000_000).saturating_add(u64::from(now.nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::posix::PosixDisk;

    #[test]
    fn what_an_exchange_left_behind_is_kept_and_stages_are_verified_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let content = ContentId(*blake3::hash(b"new").as_bytes());
        stage.put(content, b"new", None).unwrap();
        assert!(stage.has(&content));
        std::fs::write(dir.path().join(".dunlin/swap/old"), b"old work").unwrap();
        let [cut, placed] = [b"cut", b"put"].map(|bytes| {
            let content = ContentId(*blake3::hash(bytes).as_bytes());
            stage.put(content, bytes, None).unwrap();
            content
        });
        std::fs::write(dir.path().join(stage.path(&cut).to_string()), b"\0\0\0").unwrap();
        std::fs::hard_link(dir.path().join(stage.path(&placed).to_string()), dir.path().join("f")).unwrap();
        let stage = Stage::open(disk).unwrap();
        assert!(stage.has(&content), "who had it may be gone");
        assert!(!stage.has(&cut), "it holds something else by now");
        assert!(!stage.has(&placed), "a user may write to it");
        assert_eq!(std::fs::read_dir(dir.path().join(".dunlin/stage")).unwrap().count(), 1);
        let kept: Vec<_> = std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(std::fs::read(kept[0].as_ref().unwrap().path()).unwrap(), b"old work");
    }

    #[test]
    fn what_was_placed_before_something_failed_is_staged_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk).unwrap();
        let content = ContentId(*blake3::hash(b"new").as_bytes());
        stage.put(content, b"new", None).unwrap();
        let at = stage.path(&content);
        stage.put_back(content, &at).unwrap();
        assert!(stage.has(&content), "it never left");
        std::fs::rename(dir.path().join(at.to_string()), dir.path().join("placed")).unwrap();
        stage.put_back(content, &at).unwrap();
        assert!(!stage.has(&content));
        stage.put(content, b"new", None).unwrap();
        assert!(stage.has(&content) && dir.path().join(at.to_string()).exists());
    }

    #[test]
    fn a_content_taken_out_and_never_placed_is_staged_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let content = ContentId(*blake3::hash(b"new").as_bytes());
        stage.put(content, b"new", None).unwrap();
        stage.take(&content, "").unwrap();
        // Another one was exchanged with what a user had.
        let other = ContentId(*blake3::hash(b"placed").as_bytes());
        stage.put(other, b"placed", None).unwrap();
        let at = stage.take(&other, "").unwrap();
        std::fs::write(dir.path().join(at.to_string()), b"a user's old file").unwrap();
        drop(stage);
        let stage = Stage::open(disk).unwrap();
        assert!(stage.has(&content));
        let staged = dir.path().join(stage.path(&content).to_string());
        assert_eq!(std::fs::read(staged).unwrap(), b"new");
        let kept: Vec<_> = std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().collect();
        assert_eq!(kept.len(), 1);
        // And is found by what it holds, for it may be all that is left of it.
        let theirs = ContentId(*blake3::hash(b"a user's old file").as_bytes());
        assert!(stage.kept(&theirs).is_some());
    }

    #[test]
    fn a_name_that_came_back_of_what_was_placed_is_no_history() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let content = ContentId(*blake3::hash(b"placed").as_bytes());
        stage.put(content, b"placed", None).unwrap();
        let at = dir.path().join(stage.take(&content, "").unwrap().to_string());
        std::fs::hard_link(&at, dir.path().join("f")).unwrap();
        // A part of the same content is in the way of its return to the stage.
        stage.open_part(&content).unwrap();
        Stage::open(disk).unwrap();
        assert!(!at.exists());
        assert_eq!(std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().count(), 0);
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"placed");
        // Edited since: it is kept, and does not change with the file.
        std::fs::write(dir.path().join("f"), b"edited").unwrap();
        std::fs::hard_link(dir.path().join("f"), &at).unwrap();
        Stage::open(stage.disk.clone()).unwrap();
        std::fs::write(dir.path().join("f"), b"edited again").unwrap();
        let kept: Vec<_> = std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().collect();
        assert_eq!(std::fs::read(kept[0].as_ref().unwrap().path()).unwrap(), b"edited");
        assert!(!at.exists());
    }

    #[test]
    fn what_nothing_wants_any_more_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk).unwrap();
        let (kept, old) = (ContentId([1; 32]), ContentId([2; 32]));
        stage.put(kept, b"served", None).unwrap();
        stage.put(old, b"old", None).unwrap();
        stage.open_part(&ContentId([3; 32])).unwrap();
        let swap = dir.path().join(".dunlin/swap");
        std::fs::write(dir.path().join(stage.swap_path(None, "").to_string()), b"a user's file").unwrap();
        std::fs::write(swap.join("00-17"), b"parked, and in the index").unwrap();
        let in_swap = || std::fs::read_dir(&swap).unwrap().count();
        stage.clear(&|c| *c == kept).unwrap();
        let in_stage = || std::fs::read_dir(dir.path().join(".dunlin/stage")).unwrap().count();
        assert!(stage.has(&kept) && !stage.has(&old));
        assert_eq!((in_stage(), in_swap()), (1, 1));
        let history: Vec<_> = std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().collect();
        assert_eq!(std::fs::read(history[0].as_ref().unwrap().path()).unwrap(), b"a user's file");
        stage.clear(&|_| false).unwrap();
        assert_eq!(in_stage(), 1, "nothing was used since");
        stage.put(old, b"old", None).unwrap();
        stage.clear(&|_| false).unwrap();
        assert_eq!(in_stage(), 0);
    }

    #[test]
    fn only_what_should_not_have_come_out_is_found_in_swap_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let node = dunlin_core::ids::NodeId([7; 16]);
        let at = |name: &str| dir.path().join(".dunlin/swap").join(name);
        let id = |text: &[u8]| ContentId(*blake3::hash(text).as_bytes());
        // Nothing was there at the start, and nothing is looked for before all is at rest again.
        std::fs::write(at(&format!("0000000000000001.none.{node}")), b"a user's").unwrap();
        assert!(stage.kept(&id(b"a user's")).is_none());
        let stage = Stage::open(disk).unwrap();
        std::fs::write(at("0000000000000002"), b"changing places").unwrap();
        assert!(stage.kept(&id(b"a user's")).is_some());
        assert!(stage.kept(&id(b"changing places")).is_none());
    }

    #[test]
    fn taken_and_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let content = ContentId(*blake3::hash(b"x").as_bytes());
        stage.put(content, b"x", None).unwrap();
        let at = stage.take(&content, "").unwrap();
        assert!(!stage.has(&content) && disk.stat(&at).unwrap().is_some());
        stage.put_back(content, &at).unwrap();
        assert!(stage.has(&content));
    }

    #[test]
    fn what_may_have_got_another_mode_is_dressed_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let (content, one) =
            (ContentId(*blake3::hash(b"new").as_bytes()), (0o640, Mtime { secs: 7, nanos: 8 }));
        stage.put(content, b"new", Some(one)).unwrap();
        let stat = disk.stat(&stage.path(&content)).unwrap().unwrap();
        assert_eq!((stat.mode & 0o777, stat.mtime), (0o640, FileTime { secs: 7, nanos: 8 }));
        assert!(stage.redress(&content, one) && stage.redress(&content, one));
        assert!(!stage.redress(&content, (0o644, one.1)));
        // The step that gave it that one may have failed, and another wants the first.
        assert!(!stage.redress(&content, one));
        // Its owner could not open it to give it another one.
        let closed = ContentId(*blake3::hash(b"closed").as_bytes());
        stage.put(closed, b"closed", Some((0o400, one.1))).unwrap();
        assert!(!stage.redress(&closed, (0o400, one.1)));
        assert_eq!(disk.stat(&stage.path(&closed)).unwrap().unwrap().mode & 0o777, 0o600);
    }
}
