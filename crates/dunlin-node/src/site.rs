//! A folder as it stands on this device: its disk, its control directory and its index. What the
//! engine, the server of contents and the fetcher all work on.

use crate::blocks::Lists;
use crate::chunks::{self, CHUNKED_MIN};
use crate::disk::{Disk, ReadFile, WriteFile};
use crate::stage::{Claim, NoRoom, Noted, Room, Stage, note, noted};
use crate::store::{Index, Snapshot};
use dunlin_core::ids::{ContentId, Incarnation, LifeId, ROOT};
use dunlin_core::kv::{Fault, Read};
use dunlin_core::life::{outran, remembers};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Fetch, Lacked, path_of};
use dunlin_core::rows::{Position, Rows, Stamp};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A folder on this device.
pub struct Site {
    /// Its file system.
    pub disk: Arc<dyn Disk>,
    /// Its control directory.
    pub stage: Stage,
    /// Its index.
    pub store: Box<dyn Index>,
    /// Chunk lists of the last contents that were moved.
    pub chunk_lists: chunks::Lists,
    /// Lists of blocks of contents that were hashed lately.
    pub lists: Lists,
    life: Mutex<Option<Noted>>,
    /// How often was committed.
    commits: AtomicU64,
    /// What was lacked after so many commits.
    lacked: Mutex<(u64, Option<Arc<Lacked>>)>,
}

/// So many counters are reserved at a time.
const RESERVED: u64 = 1 << 16;

impl Site {
    /// A folder whose program has yet to begin its life.
    pub fn new(disk: Arc<dyn Disk>, stage: Stage, store: Box<dyn Index>) -> Site {
        Site {
            disk,
            stage,
            store,
            chunk_lists: chunks::Lists::default(),
            lists: Lists::default(),
            life: Mutex::default(),
            commits: AtomicU64::default(),
            lacked: Mutex::default(),
        }
    }

    /// A life of the program begins here, with `own` for its changes until it is confirmed. The index is renewed as
    /// `fresh` if it was rolled back: then it does not know the life that was noted in the folder last; or if the folder
    /// was, and the index knows more than what is noted there. In any case it goes on above all counters that may have been given. Tells whether one was rolled back.
    ///
    /// # Errors
    /// Those of the disk; a [`Fault`] of the index within.
    pub fn begin_life(&self, life: LifeId, own: Incarnation, fresh: Incarnation) -> io::Result<bool> {
        let before = noted(self.disk.as_ref())?;
        let begin = || {
            let snapshot = self.store.snapshot()?;
            let mut work = Work::new(&snapshot);
            let known = match before {
                Some(Noted { life, seq, .. }) => {
                    remembers(&snapshot, life, seq)? && !outran(&snapshot, life, seq)?
                }
                None => true,
            };
            if !known {
                work.renew(fresh, true)?;
            }
            let counter = work.begin_life(life, own, before.map_or(0, |noted| noted.reserved))?;
            let seq = work.tx.totals()?.seq;
            // In the index first: what is noted, the index must know.
            self.store.commit(work.finish()?)?;
            Ok((!known, counter, seq))
        };
        let (rolled_back, counter, seq) = begin().map_err(|e: Fault| io::Error::other(e))?;
        let now = Noted { life, reserved: counter + RESERVED, seq };
        note(self.disk.as_ref(), &now)?;
        *self.life() = Some(now);
        Ok(rolled_back)
    }

    /// The life of the program ends here: nothing is changed in it any more.
    ///
    /// # Errors
    /// Those of the index; then it counts as one that did not end in order.
    pub fn end_life(&self) -> Read<()> {
        let snapshot = self.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.end_life()?;
        self.store.commit(work.finish()?)
    }

    /// Notes beside the index how far it came.
    ///
    /// # Errors
    /// Those of the disk; then what was noted before stands.
    pub fn note(&self, seq: u64) -> io::Result<()> {
        let mut life = self.life();
        let Some(now) = life.as_mut() else { return Ok(()) };
        let next = Noted { seq, ..*now };
        note(self.disk.as_ref(), &next)?;
        *now = next;
        Ok(())
    }

    /// The life of the program; zeros before it began.
    pub fn life_id(&self) -> LifeId {
        self.life().as_ref().map_or(LifeId::default(), |noted| noted.life)
    }

    fn life(&self) -> MutexGuard<'_, Option<Noted>> {
        // Replaced as a whole: a panic elsewhere leaves it right.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits changes of the index; durable when it returns. Counters are reserved before they are given, so that
    /// an index that is rolled back gives none of them again.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn commit(&self, work: Work<'_>) -> Read<()> {
        let counter = work.tx.totals()?.counter;
        let mut life = self.life();
        if let Some(now) = life.as_mut().filter(|now| counter > now.reserved) {
            let next = Noted { reserved: counter + RESERVED, ..*now };
            // On a full disk the work goes on: the note counts only should the index be rolled back too.
            if note(self.disk.as_ref(), &next).is_ok() {
                *now = next;
            }
        }
        drop(life);
        let done = self.store.commit(work.finish()?);
        self.commits.fetch_add(1, Ordering::Release);
        done
    }

    /// Sets aside the room that a content needs. Where something would have to yield for it and the history holds it,
    /// that is moved instead of copied: what yields might be what is wanted next.
    ///
    /// # Errors
    /// Those of the disk, and of the index if it cannot say what may yield.
    pub fn claim(&self, content: &ContentId, size: u64) -> io::Result<Result<Room<'_>, NoRoom>> {
        if let Some(claim) = self.stage.claim_free(content, size)? {
            return Ok(Ok(Room::Claimed(claim)));
        }
        if self.stage.lend(content)? {
            return Ok(Ok(Room::Lent));
        }
        Ok(self.stage.claim(content, size, &|| self.lacked())?.map(Room::Claimed))
    }

    /// Makes room after a change of the disk failed for want of it. What is lacked does not yield.
    ///
    /// # Errors
    /// As [`Site::claim`].
    pub fn make_room(&self) -> io::Result<()> {
        self.stage.make_room(&|| self.lacked())
    }

    /// Bytes that contents may take; see [`Stage::room`].
    ///
    /// # Errors
    /// As [`Site::claim`].
    pub fn room(&self, all: bool) -> io::Result<u64> {
        self.stage.room(all, &|| self.lacked())
    }

    /// This share of the file system, in bytes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn share(&self, percent: u8) -> io::Result<u64> {
        Ok(self.disk.space()?.total / 100 * u64::from(percent))
    }

    /// Removes what the history is to keep no longer; see [`Stage::age`].
    ///
    /// # Errors
    /// As [`Site::claim`].
    pub fn age(&self, before: u64, percent: u8) -> io::Result<()> {
        self.stage.age(before, percent, self.lacked()?.as_ref())
    }

    /// What nodes lack: it may be that only the history still has it.
    ///
    /// # Errors
    /// Those of the index.
    pub fn lacked(&self) -> io::Result<Arc<Lacked>> {
        let mut known = self.lacked.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before it is looked: what is committed meanwhile is looked at the next time.
        let commits = self.commits.load(Ordering::Acquire);
        if let (at, Some(lacked)) = &*known
            && *at == commits
        {
            return Ok(lacked.clone());
        }
        let look = || Lacked::of(&self.store.snapshot()?);
        let lacked = Arc::new(look().map_err(|e: Fault| io::Error::other(e))?);
        *known = (commits, Some(lacked.clone()));
        Ok(lacked)
    }

    /// Finds a content: where it stands if it still is what the index says, else where it is staged, else in the
    /// history, where nothing but its name says so.
    pub fn find(&self, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        self.find_in(&self.store.snapshot().ok()?, content)
    }

    /// The same, by an index as it was a moment ago.
    pub fn find_in(&self, snapshot: &Snapshot, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        self.at_hand(snapshot, content).or_else(|| self.stage.kept(content))
    }

    /// The same but for the history.
    fn at_hand(&self, snapshot: &Snapshot, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        for at in snapshot.holders(*content).ok()? {
            let row = snapshot.local(&at).ok()??;
            let path = path_of(snapshot, &at).ok()??;
            let holds = matches!(&row.content, Content::File { id, .. } if id == content);
            if let Ok(file) = self.disk.open(&path)
                && holds
                && file.stat().is_ok_and(|s| s.stamp() == row.stamp)
            {
                return Some(file);
            }
        }
        let staged = self.stage.has(content).then(|| self.disk.open(&self.stage.path(content)));
        staged.and_then(Result::ok)
    }

    /// Whether a content of `size` bytes is here. What only the history says it holds is read for that, as long as `budget`
    /// has as many bytes left.
    pub fn has(&self, content: &ContentId, size: u64, budget: &mut u64) -> bool {
        let Ok(snapshot) = self.store.snapshot() else { return false };
        if self.at_hand(&snapshot, content).is_some() {
            return true;
        }
        match budget.checked_sub(size) {
            Some(left) if self.stage.keeps(content) => {
                *budget = left;
                self.stage.verify_kept(content)
            }
            _ => self.stage.kept(content).is_some(),
        }
    }

    /// What the file at `path` is by the index, and the stamp with which it is that.
    pub fn known_at(&self, path: &RelPath) -> Option<(ContentId, Stamp)> {
        let snapshot = self.store.snapshot().ok()?;
        let (name, dirs) = path.names().split_last()?;
        let mut dir = ROOT;
        for name in dirs {
            dir = snapshot.local(&Position::new(dir, name.clone())).ok()??.node;
        }
        let row = snapshot.local(&Position::new(dir, name.clone())).ok()??;
        Some((row.holds()?, row.stamp))
    }

    /// Stages a copy of what another file here holds, or the history, or what `more` finds elsewhere on this device;
    /// `false` if none does (any more). Whatever it is, it is verified. If the room for a copy is gone meanwhile, what the
    /// history holds is moved.
    pub fn copy(
        &self,
        fetch: &Fetch,
        claim: &Claim<'_>,
        more: impl FnOnce() -> Vec<Box<dyn ReadFile>>,
    ) -> bool {
        let (mut tried, mut failed) = (false, false);
        let holders = fetch.holders.iter().filter_map(|holder| self.disk.open(holder).ok());
        let kept = std::iter::once_with(|| self.stage.kept(&fetch.content)).flatten();
        for from in holders.chain(kept).chain(std::iter::once_with(more).flatten()) {
            tried = true;
            // A copy that fails half-way leaves a part, which the fetch from a peer takes up.
            let Ok((part, _)) = self.stage.open_part(&fetch.content) else {
                failed = true;
                break;
            };
            let (holds, full) = filled(part.as_ref(), from.as_ref(), claim);
            failed |= full;
            if holds == fetch.content && part.set_len(fetch.size).is_ok() {
                return self.stage.finish_part(fetch.content).is_ok();
            }
        }
        if tried && !failed {
            // What the history has under that name may be something else by now: then nobody is to wait for it.
            self.stage.verify_kept(&fetch.content);
        }
        // Whatever hinders this too is told when the content is asked of others.
        if failed && self.stage.lend(&fetch.content).unwrap_or(false) {
            return true;
        }
        if fetch.size < CHUNKED_MIN && tried {
            // Small contents are not taken up; the part would stay for nothing.
            let _ = self.stage.drop_part(&fetch.content);
        }
        false
    }
}

/// Fills a file with what another one holds, with bytes that both share where that can be: what it holds then, and
/// whether it could not be written.
fn filled(part: &dyn WriteFile, from: &dyn ReadFile, claim: &Claim<'_>) -> (ContentId, bool) {
    let (mut buffer, mut offset, mut hasher) = (vec![0; 256 << 10], 0, blake3::Hasher::new());
    let (shared, mut failed) = (part.share(from), false);
    // What is verified is what was made, and not what it was made of: that may change meanwhile.
    let read =
        |buffer: &mut [u8], at| if shared { part.read_at(buffer, at) } else { from.read_at(buffer, at) };
    while let Ok(n) = read(&mut buffer, offset) {
        failed |= !shared && part.write_at(&buffer[..n], offset).is_err();
        if n == 0 || failed {
            break;
        }
        claim.left().wrote(n);
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
    (ContentId(*hasher.finalize().as_bytes()), failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::posix::PosixDisk;
    use crate::disk::posix::tests::{prepared_dir, run_prepared};
    use crate::store::Store;
    use dunlin_core::ids::NodeId;
    use dunlin_core::path::Name;
    use dunlin_core::state::Mtime;

    #[test]
    fn where_nothing_is_free_the_history_lends() {
        let dir = tempfile::tempdir().unwrap();
        let prepare = "mount -t tmpfs -o size=4m none \"$DUNLIN_TEST_DIR\"";
        let ran = run_prepared(&["-Urm"], prepare, dir.path(), "site::tests::on_4_mib");
        assert_ne!(ran, Some(false));
    }

    #[test]
    #[ignore = "run by where_nothing_is_free_the_history_lends"]
    fn on_4_mib() {
        let (root, index) = (prepared_dir(), tempfile::tempdir_in("/dev/shm").unwrap());
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(&root).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let store = Box::new(Store::open(&index.path().join("index")).unwrap());
        let site = Site::new(disk, stage, store);
        let bytes = |n: u8| vec![n; 1 << 20];
        let id = |n: u8| ContentId(*blake3::hash(&bytes(n)).as_bytes());
        let kept = || std::fs::read_dir(root.join(".dunlin/history")).unwrap().count();
        for n in 0..3 {
            std::fs::write(root.join("f"), bytes(n)).unwrap();
            let name = Name::new(b"f").unwrap();
            site.stage.keep(&RelPath::root().join(&name), &name, Some(id(n))).unwrap();
        }
        let fetch = |n: u8| Fetch {
            content: id(n),
            size: 1 << 20,
            node: NodeId([1; 16]),
            path: RelPath::root(),
            holders: Vec::new(),
            from: 0,
            looks: (0o644, Mtime::default()),
        };
        // Half-way through a copy somebody takes the rest of the disk.
        let claim = site.stage.claim_free(&id(2), 1 << 19).unwrap().unwrap();
        std::fs::write(root.join("theirs"), vec![1; 600 << 10]).unwrap();
        assert!(site.copy(&fetch(2), &claim, Vec::new) && site.stage.is_lent(&id(2)));
        drop(claim);
        assert_eq!(kept(), 2);
        // There is no room for a copy to begin with.
        assert!(matches!(site.claim(&id(1), 1 << 20).unwrap(), Ok(Room::Lent)));
        assert_eq!(kept(), 1);
        // What it does not have takes the place of what nobody lacks.
        assert!(matches!(site.claim(&id(9), 1 << 20).unwrap(), Ok(Room::Claimed(_))));
        assert_eq!(kept(), 0);
    }

    #[test]
    fn copies_share_their_bytes_where_the_file_system_lets_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        let prepare = "truncate -s 120M \"$DUNLIN_TEST_DIR.image\" && mkfs.btrfs -q \"$DUNLIN_TEST_DIR.image\" && \
            mount -o loop \"$DUNLIN_TEST_DIR.image\" \"$DUNLIN_TEST_DIR\"";
        let ran = run_prepared(&["-m"], prepare, &dir.path().join("disk"), "site::tests::on_btrfs");
        assert_ne!(ran, Some(false));
    }

    #[test]
    #[ignore = "run by copies_share_their_bytes_where_the_file_system_lets_them"]
    fn on_btrfs() {
        let (root, index) = (prepared_dir(), tempfile::tempdir_in("/dev/shm").unwrap());
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(&root).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let store = Box::new(Store::open(&index.path().join("index")).unwrap());
        let site = Site::new(disk.clone(), stage, store);
        let bytes = dunlin_testkit::noise(1, 26 << 20);
        let content = ContentId(*blake3::hash(&bytes).as_bytes());
        std::fs::write(root.join("f"), &bytes).unwrap();
        let size = bytes.len() as u64;
        let holders = vec![RelPath::parse(b"f").unwrap()];
        let looks = (0o644, Mtime::default());
        let fetch =
            Fetch { content, size, node: NodeId([1; 16]), path: RelPath::root(), holders, from: 0, looks };
        disk.sync_all().unwrap();
        let before = disk.space().unwrap().free;
        assert!(before < size, "a copy has no room: {before}");
        // Room that is not there is none of its business.
        let claim = site.stage.claim_free(&content, 1).unwrap().unwrap();
        assert!(site.copy(&fetch, &claim, Vec::new));
        drop(claim);
        disk.sync_all().unwrap();
        assert!(before - disk.space().unwrap().free < 4 << 20);
        // What is written to one of them does not change the other.
        std::fs::write(root.join("f"), b"edited").unwrap();
        assert!(site.stage.is_held(&site.stage.path(&content), &content));
        // A copy of what is not that is found out.
        site.stage.forget(&content);
        assert!(!site.copy(&fetch, &site.stage.claim_free(&content, 1).unwrap().unwrap(), Vec::new));
    }

    #[test]
    fn what_only_the_history_holds_is_found_and_copied_if_it_is_that() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let open = || {
            let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(&root).unwrap());
            let stage = Stage::open(disk.clone()).unwrap();
            Site::new(disk, stage, Box::new(Store::open(&dir.path().join("index")).unwrap()))
        };
        let site = open();
        let content = ContentId(*blake3::hash(b"kept").as_bytes());
        let fetch = Fetch {
            content,
            size: 4,
            node: NodeId([1; 16]),
            path: RelPath::root(),
            holders: Vec::new(),
            from: 0,
            looks: (0o644, Mtime::default()),
        };
        let copies =
            |site: &Site| site.copy(&fetch, &site.stage.claim_free(&content, 4).unwrap().unwrap(), Vec::new);
        assert!(site.find(&content).is_none() && !copies(&site));
        std::fs::write(root.join("f"), b"kept").unwrap();
        let name = Name::new(b"f").unwrap();
        let kept = site.stage.keep(&RelPath::root().join(&name), &name, Some(content)).unwrap();
        assert!(site.find(&content).is_some());
        std::fs::write(root.join(kept.to_string()), b"kaput").unwrap();
        assert!(site.has(&content, 4, &mut 3), "so much is not read");
        assert!(!copies(&site) && !site.stage.has(&content), "it is verified");
        assert!(site.find(&content).is_none() && !site.has(&content, 4, &mut 4), "nobody waits for it");
        drop(site);
        // What it was called says so again at the next start, and that is found out as before.
        let site = open();
        assert!(
            site.find(&content).is_some() && !site.has(&content, 4, &mut 4) && site.find(&content).is_none()
        );
        drop(site);
        std::fs::write(root.join(kept.to_string()), b"kept").unwrap();
        let (site, mut budget) = (open(), 5);
        assert!(site.has(&content, 4, &mut budget) && budget == 1);
        assert!(copies(&site) && site.stage.has(&content) && site.has(&content, 4, &mut 0));
    }
}
