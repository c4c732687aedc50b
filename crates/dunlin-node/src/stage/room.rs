//! Room on the disk: what a content needs is set aside before it is fetched, so that what does not fit
//! is refused at once, and does not take the room of what would.

use super::{Stage, control};
use crate::disk::{DISK_FULL, Entry, FileTime, NO_INODES, Space};
use dunlin_core::ids::ContentId;
use dunlin_core::path::RelPath;
use dunlin_core::plan::Lacked;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

/// This share of a file system is left to others, but no more than so many bytes.
const RESERVE_SHARE: u64 = 100;
const RESERVE_MAX: u64 = 1 << 30;
/// When a change of the disk fails for want of room, so much is made free: this share, at most so many bytes.
const ROOM_SHARE: u64 = 16;
const ROOM_MAX: u64 = 64 << 20;
/// The same in files.
const ROOM_FILES: u64 = 16;
/// What a file takes is a multiple of this, about.
const BLOCK: u64 = 4096;
/// How long what could yield is not summed up anew, in nanoseconds of the disk's clock.
const SUM_AGAIN_NS: i128 = 200_000_000;

/// Whether what was summed up at `then` still counts. A clock that was set back says nothing.
fn is_just_after(now: FileTime, then: FileTime) -> bool {
    let ns = |t: FileTime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    (0..SUM_AGAIN_NS).contains(&(ns(now) - ns(then)))
}

fn reserve(space: &Space) -> u64 {
    (space.total / RESERVE_SHARE).min(RESERVE_MAX)
}

/// What is set aside for the contents being fetched, and not written yet.
#[derive(Default)]
pub(super) struct Claims {
    left: BTreeMap<ContentId, Left>,
    /// What idle parts and the history hold, and when that was summed up.
    yields: Option<(FileTime, u64)>,
}

impl Claims {
    /// What may still be set aside.
    fn usable(&self, space: &Space) -> u64 {
        let taken = self.left.values().map(Left::get).sum::<u64>();
        space.free.saturating_sub(reserve(space)).saturating_sub(taken)
    }
}

/// Bytes set aside that are not written yet.
#[derive(Clone, Default)]
pub struct Left(Arc<AtomicU64>);

impl Left {
    /// So many more bytes have been written.
    pub fn wrote(&self, bytes: usize) {
        let less = |left: u64| Some(left.saturating_sub(bytes as u64));
        // Always succeeds: there is always a next value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Room set aside for one content, until this is dropped.
pub struct Claim<'a> {
    stage: &'a Stage,
    content: ContentId,
    left: Left,
}

/// What there is to begin a content with.
pub enum Room<'a> {
    /// Room that was set aside.
    Claimed(Claim<'a>),
    /// The content itself: the history lent it.
    Lent,
}

impl Claim<'_> {
    /// To be told of what is written.
    pub fn left(&self) -> Left {
        self.left.clone()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.stage.claims().left.remove(&self.content);
    }
}

/// Tells what is lacked: that does not yield. Asked when something has to.
pub type Lacks<'a> = &'a dyn Fn() -> io::Result<Arc<Lacked>>;

/// Why a content cannot be fetched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Its bytes, and how many may be written, without the reserve and what others will write.
    Bytes {
        /// Bytes it still needs.
        needs: u64,
        /// Bytes there are for it.
        free: u64,
    },
    /// No file can be created.
    Files,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoRoom::Bytes { needs, free } => {
                write!(f, "{DISK_FULL}: needs {}, {} free", size(*needs), size(*free))
            }
            NoRoom::Files => f.write_str(NO_INODES),
        }
    }
}

/// Bytes as a person would say them, in the units the command prints.
fn size(bytes: u64) -> String {
    let (unit, by) = match bytes {
        0..1_000_000 => ("kB", 1_000),
        1_000_000..1_000_000_000 => ("MB", 1_000_000),
        _ => ("GB", 1_000_000_000),
    };
    format!("{}.{} {unit}", bytes / by, bytes % by * 10 / by)
}

impl Stage {
    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets aside what a content of `size` bytes still needs. Where that is not there, what is only kept
    /// for later yields if that suffices: parts of contents that nothing fetches now, then the oldest of
    /// the history, but for what is lacked.
    pub fn claim(
        &self,
        content: &ContentId,
        size: u64,
        lacks: Lacks<'_>,
    ) -> io::Result<Result<Claim<'_>, NoRoom>> {
        let mut claims = self.claims();
        let mut fits = self.fits(&claims, content, size)?;
        if fits == Err(NoRoom::Files) {
            self.free_history(|space| space.files != Some(0), lacks)?;
            fits = self.fits(&claims, content, size)?;
        }
        if let Err(NoRoom::Bytes { needs, free }) = fits
            && free.saturating_add(self.yields(&mut claims, Some(content), lacks)?) >= needs
        {
            let enough = |space: &Space| claims.usable(space) >= needs;
            self.cut_parts(&claims, Some(content), enough)?;
            self.free_history(enough, lacks)?;
            claims.yields = None;
            fits = self.fits(&claims, content, size)?;
        }
        Ok(fits.map(|needs| self.set_aside(&mut claims, content, needs)))
    }

    /// The same, if nothing has to yield for it.
    pub fn claim_free(&self, content: &ContentId, size: u64) -> io::Result<Option<Claim<'_>>> {
        let mut claims = self.claims();
        let fits = self.fits(&claims, content, size)?;
        Ok(fits.ok().map(|needs| self.set_aside(&mut claims, content, needs)))
    }

    /// How many bytes a content still needs, if there is room for them.
    fn fits(&self, claims: &Claims, content: &ContentId, size: u64) -> io::Result<Result<u64, NoRoom>> {
        let part = if size < crate::chunks::CHUNKED_MIN { None } else { self.allocated(content)? };
        let needs = size.next_multiple_of(BLOCK).saturating_sub(part.unwrap_or(0));
        let space = self.disk.space()?;
        if space.files == Some(0) && part.is_none() {
            return Ok(Err(NoRoom::Files));
        }
        let free = claims.usable(&space);
        Ok(if free < needs { Err(NoRoom::Bytes { needs, free }) } else { Ok(needs) })
    }

    fn set_aside(&self, claims: &mut Claims, content: &ContentId, needs: u64) -> Claim<'_> {
        let left = Left(Arc::new(AtomicU64::new(needs)));
        claims.left.insert(*content, left.clone());
        Claim { stage: self, content: *content, left }
    }

    /// Whether files of these sizes, and so many other things, fit without anything yielding for them.
    pub fn has_room(&self, sizes: impl Iterator<Item = u64>, others: u64) -> io::Result<Result<(), NoRoom>> {
        let claims = self.claims();
        let space = self.disk.space()?;
        let (mut needs, mut files) = (0u64, others);
        for size in sizes {
            needs = needs.saturating_add(size.next_multiple_of(BLOCK));
            files += 1;
        }
        if space.files.is_some_and(|left| left == 0 || left < files) {
            return Ok(Err(NoRoom::Files));
        }
        let free = claims.usable(&space);
        Ok(if free < needs { Err(NoRoom::Bytes { needs, free }) } else { Ok(()) })
    }

    /// Bytes that contents may take, those included that are being fetched; with `all` also what yields to them.
    pub fn room(&self, all: bool, lacks: Lacks<'_>) -> io::Result<u64> {
        let mut claims = self.claims();
        let space = self.disk.space()?;
        let mut bytes = space.free.saturating_sub(reserve(&space));
        if all {
            for content in claims.left.keys() {
                bytes = bytes.saturating_add(self.allocated(content)?.unwrap_or(0));
            }
            bytes = bytes.saturating_add(self.yields(&mut claims, None, lacks)?);
        }
        Ok(bytes)
    }

    /// Makes room after a change failed for want of it: parts that nothing fills now are cut back, then
    /// the oldest of the history goes, but for what is lacked, until there is some or nothing is left.
    pub fn make_room(&self, lacks: Lacks<'_>) -> io::Result<()> {
        let bytes = |space: &Space| space.free >= (space.total / ROOM_SHARE).min(ROOM_MAX);
        self.cut_parts(&self.claims(), None, bytes)?;
        self.free_history(|space| bytes(space) && space.files.is_none_or(|files| files >= ROOM_FILES), lacks)
    }

    /// What the part of a content takes, if there is one.
    fn allocated(&self, content: &ContentId) -> io::Result<Option<u64>> {
        match self.disk.open_write(&self.part_path(content)) {
            Ok(part) => part.allocated().map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Bytes that idle parts and the history hold; about, since it is not summed up each time.
    fn yields(&self, claims: &mut Claims, but: Option<&ContentId>, lacks: Lacks<'_>) -> io::Result<u64> {
        let now = self.disk.now();
        if let Some((_, bytes)) = claims.yields.filter(|(at, _)| is_just_after(now, *at)) {
            return Ok(bytes);
        }
        let mut bytes = 0u64;
        for path in self.idle_parts(claims, but)? {
            bytes = bytes.saturating_add(self.disk.open_write(&path)?.allocated()?);
        }
        for entry in self.may_yield(lacks)? {
            // What has another name somewhere gives nothing back.
            bytes = bytes.saturating_add(entry.stat.map_or(0, |s| if s.nlink == 1 { s.size } else { 0 }));
        }
        claims.yields = Some((now, bytes));
        Ok(bytes)
    }

    /// The parts of contents that nothing fetches now.
    fn idle_parts(&self, claims: &Claims, but: Option<&ContentId>) -> io::Result<Vec<RelPath>> {
        let busy: Vec<Vec<u8>> =
            claims.left.keys().chain(but).map(|c| format!("{c}.part").into_bytes()).collect();
        let dir = control(&["stage"]);
        let idle = self.disk.list(&dir)?.into_iter().map(|e| e.name).filter(|name| {
            name.as_bytes().ends_with(b".part") && !busy.iter().any(|busy| busy == name.as_bytes())
        });
        Ok(idle.map(|name| dir.join(&name)).collect())
    }

    /// Cuts idle parts back until there is enough. They are filled from the front, about: the front is
    /// what a later fetch goes on from.
    fn cut_parts(
        &self,
        claims: &Claims,
        but: Option<&ContentId>,
        enough: impl Fn(&Space) -> bool,
    ) -> io::Result<()> {
        if enough(&self.disk.space()?) {
            return Ok(());
        }
        for path in self.idle_parts(claims, but)? {
            let part = self.disk.open_write(&path)?;
            let mut keep = part.allocated()?;
            while keep > 0 && !enough(&self.disk.space()?) {
                // In steps: how much is enough only the disk knows.
                keep = keep.saturating_sub(keep / 8 + (1 << 20));
                part.set_len(keep)?;
            }
            if keep == 0 {
                drop(part);
                self.disk.unlink(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the oldest of the history until there is enough, or nothing is left that may yield.
    fn free_history(&self, enough: impl Fn(&Space) -> bool, lacks: Lacks<'_>) -> io::Result<()> {
        if enough(&self.disk.space()?) {
            return Ok(());
        }
        let history = control(&["history"]);
        // Names begin with a number that grows: in their order the oldest come first.
        for entry in self.may_yield(lacks)? {
            if enough(&self.disk.space()?) {
                break;
            }
            self.disk.unlink(&history.join(&entry.name))?;
        }
        Ok(())
    }

    /// What of the history may go: what is lacked may not, nor what is spared.
    fn may_yield(&self, lacks: Lacks<'_>) -> io::Result<Vec<Entry>> {
        let mut entries = self.disk.list(&control(&["history"]))?;
        if !entries.is_empty() {
            let lacked = lacks()?;
            entries.retain(|entry| self.may_go(&entry.name, &lacked));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::posix::PosixDisk;
    use crate::disk::posix::tests::{prepared_dir, run_prepared};
    use dunlin_core::path::Name;

    const MIB: u64 = 1 << 20;

    fn nothing() -> io::Result<Arc<Lacked>> {
        Ok(Arc::default())
    }

    fn id(n: u8) -> ContentId {
        ContentId([n; 32])
    }

    /// On a file system of its own of 20 MiB.
    #[test]
    fn contents_claim_room_and_what_is_idle_yields() {
        let dir = tempfile::tempdir().unwrap();
        let prepare = "mount -t tmpfs -o size=20m none \"$DUNLIN_TEST_DIR\"";
        let ran = run_prepared(&["-Urm"], prepare, dir.path(), "stage::room::tests::on_20_mib");
        assert_ne!(ran, Some(false));
    }

    #[test]
    #[ignore = "run by contents_claim_room_and_what_is_idle_yields"]
    fn on_20_mib() {
        let dir = prepared_dir();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(&dir).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        let claim = |n, size| stage.claim(&id(n), size, &nothing).unwrap();
        let refused = |n, size| matches!(claim(n, size), Err(NoRoom::Bytes { .. }));
        // Nothing is written for what does not fit, and what does is not hindered.
        assert!(refused(1, 100 * MIB) && refused(1, 20 * MIB));
        let two = claim(2, 15 * MIB).unwrap();
        assert!(refused(3, 10 * MIB));
        drop(claim(3, 2 * MIB).unwrap());
        // What is written is not counted twice.
        let (part, _) = stage.open_part(&id(2)).unwrap();
        part.set_len(15 * MIB).unwrap();
        part.write_at(&vec![7; 10 << 20], 0).unwrap();
        two.left().wrote(10 << 20);
        drop(claim(3, 4 * MIB).unwrap());
        assert!(refused(3, 6 * MIB), "5 MiB are still to come");
        drop(two);
        assert!(claim(2, 15 * MIB).is_ok(), "what it holds already is not needed again");
        // The history stays where it would not suffice, and goes where it does, but only as far as needed.
        for n in 0..4 {
            std::fs::write(dir.join("f"), vec![n; 1 << 20]).unwrap();
            stage.keep(&RelPath::parse(b"f").unwrap(), &Name::new(b"f").unwrap(), None).unwrap();
        }
        let kept = || std::fs::read_dir(dir.join(".dunlin/history")).unwrap().count();
        std::thread::sleep(std::time::Duration::from_nanos(SUM_AGAIN_NS as u64));
        assert!(refused(4, 30 * MIB));
        assert_eq!(kept(), 4);
        // First the idle part yields, and keeps what it may.
        drop(claim(4, 8 * MIB).unwrap());
        let rest = stage.allocated(&id(2)).unwrap().unwrap();
        assert!((MIB..10 * MIB).contains(&rest), "{rest}");
        assert_eq!(kept(), 4);
        std::thread::sleep(std::time::Duration::from_nanos(SUM_AGAIN_NS as u64));
        let five = claim(5, 17 * MIB).unwrap();
        assert_eq!((stage.allocated(&id(2)).unwrap(), kept()), (None, 2));
        drop(five);
        // What is lacked does not yield, and counts for nothing.
        std::fs::write(dir.join("f"), vec![9; 1 << 20]).unwrap();
        let wanted = ContentId(*blake3::hash(&vec![9; 1 << 20]).as_bytes());
        stage.keep(&RelPath::parse(b"f").unwrap(), &Name::new(b"f").unwrap(), Some(wanted)).unwrap();
        std::thread::sleep(std::time::Duration::from_nanos(SUM_AGAIN_NS as u64));
        let lacks = || Ok(Arc::new([wanted].into_iter().collect()));
        let lacking = |size| stage.claim(&id(6), size, &lacks).unwrap();
        assert!(lacking(19 * MIB).is_err() && lacking(18 * MIB).is_ok());
        assert_eq!(kept(), 1);
        stage.make_room(&|| Ok(Arc::new([wanted].into_iter().collect()))).unwrap();
        assert!(stage.kept(&wanted).is_some());
        // Small files take more of a disk than their bytes.
        let usable = disk.space().map(|s| s.free - reserve(&s)).unwrap();
        let fits = |count: u64, size| stage.has_room((0..count).map(|_| size), 0).unwrap().is_ok();
        assert!(fits(1, usable - BLOCK) && !fits(1, usable + 1));
        assert!(fits(usable / BLOCK, 10) && !fits(usable / BLOCK + 1, 10));
        stage.make_room(&nothing).unwrap();
        assert_eq!(kept(), 1, "there is room");
    }

    #[test]
    fn a_file_system_without_inodes_says_so_and_takes_from_the_history() {
        let dir = tempfile::tempdir().unwrap();
        let prepare = "mount -t tmpfs -o size=20m,nr_inodes=60 none \"$DUNLIN_TEST_DIR\"";
        let ran = run_prepared(&["-Urm"], prepare, dir.path(), "stage::room::tests::without_inodes");
        assert_ne!(ran, Some(false));
    }

    #[test]
    #[ignore = "run by a_file_system_without_inodes_says_so_and_takes_from_the_history"]
    fn without_inodes() {
        let dir = prepared_dir();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(&dir).unwrap());
        let stage = Stage::open(disk.clone()).unwrap();
        std::fs::write(dir.join("old"), b"old").unwrap();
        stage.keep(&RelPath::parse(b"old").unwrap(), &Name::new(b"old").unwrap(), None).unwrap();
        let fill =
            || (0..).find_map(|_| tempfile::NamedTempFile::new_in(&dir).and_then(|f| Ok(f.keep()?)).err());
        let full = fill().unwrap();
        assert_eq!(crate::disk::explain(disk.as_ref(), &full), NO_INODES);
        assert!(stage.has_room(std::iter::empty(), 0).unwrap().is_err());
        assert!(stage.claim(&id(1), 10, &nothing).unwrap().is_ok(), "the history gave one back");
        let room = |files, others| stage.has_room((0..files).map(|_| 1), others).unwrap();
        assert!(room(1, 0).is_ok() && room(0, 1).is_ok());
        assert_eq!(room(1, 1), Err(NoRoom::Files));
        fill();
        assert_eq!(stage.claim(&id(1), 10, &nothing).unwrap().err(), Some(NoRoom::Files));
        assert!(crate::disk::is_full(&NoRoom::Files.to_string()));
    }

    #[test]
    fn it_is_said_in_numbers() {
        let lacks = NoRoom::Bytes { needs: 104_857_600, free: 18_250 };
        assert_eq!(lacks.to_string(), "the disk is full: needs 104.8 MB, 18.2 kB free");
        assert!(crate::disk::is_full(&lacks.to_string()));
    }
}
