//! What was replaced or removed: kept by number, and found again by what it holds.

use super::{Stage, control};
use crate::disk::{FileKind, ReadFile, Rename};
use dunlin_core::ids::ContentId;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::Lacked;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// So many entries can be found by what they hold: the newest, when they are listed.
const KNOWN_MAX: usize = 100_000;
/// Digits of a content in the name of what holds it.
const DIGITS: usize = 16;

/// Names in the history by the beginning of what they hold, of each the oldest first; listed when first asked for.
#[derive(Default)]
pub(super) struct Known(Option<BTreeMap<String, BTreeSet<Name>>>);

impl Known {
    fn insert(&mut self, digits: String, name: Name) {
        let Some(known) = &mut self.0 else { return };
        if known.len() >= KNOWN_MAX {
            known.pop_first();
        }
        known.entry(digits).or_default().insert(name);
    }

    /// It is there again.
    pub(super) fn insert_again(&mut self, content: &ContentId, name: Name) {
        self.insert(digits_of(content), name);
    }

    /// It is not there any more.
    pub(super) fn remove(&mut self, content: &ContentId, name: &Name) {
        if let Some(names) = self.0.as_mut().and_then(|known| known.get_mut(&digits_of(content))) {
            names.remove(name);
        }
    }
}

fn digits_of(content: &ContentId) -> String {
    let mut digits = content.to_string();
    digits.truncate(DIGITS);
    digits
}

/// The number under which something was kept; of what somebody else put there, none.
fn number_in(name: &Name) -> Option<u64> {
    let digits = name.as_bytes().get(..16).filter(|_| name.as_bytes().get(16) == Some(&b'~'))?;
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// What an entry says that it holds: the part between the first two tildes. What has none may look as if it
/// had, so that nothing found here counts before it was verified.
fn digits_in(name: &Name) -> Option<String> {
    let part = name.as_bytes().split(|b| *b == b'~').nth(1)?;
    let is_digits = part.len() == DIGITS && part.iter().all(u8::is_ascii_hexdigit);
    is_digits.then(|| String::from_utf8_lossy(part).into_owned())
}

/// Whether an entry says that it holds something that is lacked: it may be all that is left of it, and does not yield.
fn is_lacked(name: &Name, lacked: &Lacked) -> bool {
    let beginning = digits_in(name).and_then(|digits| u64::from_str_radix(&digits, 16).ok());
    beginning.is_some_and(|beginning| lacked.has(beginning.to_be_bytes()))
}

impl Stage {
    /// Moves a file or link into the history. `name` is what it was called, `content` what it holds.
    pub fn keep(&self, from: &RelPath, name: &Name, content: Option<ContentId>) -> io::Result<RelPath> {
        let digits = content.as_ref().map(digits_of);
        let holds = digits.as_ref().map(|d| format!("{d}~")).unwrap_or_default();
        let number = format!("{:016x}~{holds}", self.counter.fetch_add(1, Ordering::Relaxed));
        let room = dunlin_core::path::NAME_MAX - number.len();
        let tail = name.as_bytes();
        let kept = [number.as_bytes(), &tail[..tail.len().min(room)]].concat();
        let kept = Name::new(&kept).map_err(io::Error::other)?;
        let to = control(&["history"]).join(&kept);
        self.disk.rename(from, &to, Rename::NoReplace)?;
        if let Some(digits) = digits {
            self.known().insert(digits, kept);
        }
        Ok(to)
    }

    /// The same for what may have another name: a power cut may bring back the one from which it was placed. A copy is kept
    /// then, or the history would change with the file.
    pub(super) fn keep_apart(
        &self,
        from: &RelPath,
        name: &Name,
        content: Option<ContentId>,
    ) -> io::Result<()> {
        if !self.disk.stat(from)?.is_some_and(|s| s.kind == FileKind::File && s.nlink > 1) {
            return self.keep(from, name, content).map(drop);
        }
        let (path, copy) = self.begin_copy()?;
        let (file, mut buffer, mut offset) = (self.disk.open(from)?, vec![0; 256 << 10], 0);
        loop {
            let n = file.read_at(&mut buffer, offset)?;
            if n == 0 {
                break;
            }
            copy.write_at(&buffer[..n], offset)?;
            offset += n as u64;
        }
        copy.sync_data()?;
        self.keep(&path, name, content)?;
        // What it is a copy of may have other names only in this directory, which are removed next.
        self.disk.sync_dir(&control(&["history"]))?;
        self.disk.unlink(from)
    }

    /// A file of the history that says it holds this; whoever reads it verifies that.
    pub fn kept(&self, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        let dir = control(&["history"]);
        for name in self.entries_of(content).ok()? {
            match self.disk.open(&dir.join(&name)) {
                Ok(file) => return Some(file),
                // Somebody cleared it away.
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.known().remove(content, &name),
                // It may be that the disk fails for a moment only.
                Err(_) => {}
            }
        }
        self.stranded_file(content)
    }

    /// Whether something in the history says that it holds this.
    pub fn keeps(&self, content: &ContentId) -> bool {
        self.entries_of(content).is_ok_and(|entries| !entries.is_empty())
    }

    /// Reads what the history says it holds of this. What is something else by now stays where it is, and counts as that no
    /// more. Whether anything is left.
    pub fn verify_kept(&self, content: &ContentId) -> bool {
        let dir = control(&["history"]);
        for name in self.entries_of(content).unwrap_or_default() {
            match self.held(&dir.join(&name)) {
                Ok(Some(held)) if held == *content => return true,
                Ok(Some(_)) => self.known().remove(content, &name),
                // It may be that the disk fails for a moment only.
                Ok(None) | Err(_) => {}
            }
        }
        self.kept(content).is_some()
    }

    /// The entries of the history that say they hold this, the newest first.
    pub(super) fn entries_of(&self, content: &ContentId) -> io::Result<Vec<Name>> {
        let mut known = self.known();
        if known.0.is_none() {
            let mut names = self.disk.names(&control(&["history"]))?;
            names.sort();
            let mut newest = BTreeMap::<String, BTreeSet<Name>>::new();
            let known_by = names.into_iter().rev().filter_map(|n| Some((digits_in(&n)?, n)));
            for (digits, name) in known_by.take(KNOWN_MAX) {
                newest.entry(digits).or_default().insert(name);
            }
            known.0 = Some(newest);
        }
        let names = known.0.as_ref().and_then(|known| known.get(&digits_of(content)));
        Ok(names.into_iter().flatten().rev().cloned().collect())
    }

    /// The number that the next thing kept gets.
    pub fn number(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Has numbers go on above one that was given before, whatever the clock says.
    pub fn number_from(&self, given: u64) {
        self.counter.fetch_max(given.saturating_add(1), Ordering::Relaxed);
    }

    /// What is kept under these numbers does not yield, until others are said.
    pub fn spare(&self, numbers: Range<u64>) {
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner) = numbers;
    }

    /// Whether an entry may go when something has to: it is not lacked, nor one of those that stay for now.
    pub(super) fn may_go(&self, name: &Name, lacked: &Lacked) -> bool {
        // Replaced as a whole: a panic elsewhere leaves it right.
        let spared = self.spared.lock().unwrap_or_else(PoisonError::into_inner);
        !is_lacked(name, lacked) && number_in(name).is_none_or(|number| !spared.contains(&number))
    }

    /// Removes what was kept under numbers below `before`, then the oldest until the rest takes no more than this
    /// share of the file system. What is lacked stays, and what is spared.
    pub fn age(&self, before: u64, percent: u8, lacked: &Lacked) -> io::Result<()> {
        let dir = control(&["history"]);
        let most = self.disk.space()?.total / 100 * u64::from(percent);
        let entries = self.disk.list(&dir)?;
        let size = |e: &crate::disk::Entry| e.stat.map_or(0, |s| if s.nlink == 1 { s.size } else { 0 });
        let mut bytes: u64 = entries.iter().map(size).sum();
        // In the order of their numbers: the oldest first.
        for entry in &entries {
            let Some(number) = number_in(&entry.name) else { continue };
            if number >= before && bytes <= most {
                break;
            }
            if !self.may_go(&entry.name, lacked) {
                continue;
            }
            self.disk.unlink(&dir.join(&entry.name))?;
            bytes -= size(entry);
        }
        Ok(())
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::posix::PosixDisk;
    use std::sync::Arc;

    fn read(file: Option<Box<dyn ReadFile>>) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 64];
        let n = file?.read_at(&mut buffer, 0).unwrap();
        buffer.truncate(n);
        Some(buffer)
    }

    #[test]
    fn what_is_old_goes_and_of_the_rest_the_oldest_until_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk).unwrap();
        let id = |text: &str| ContentId(*blake3::hash(text.as_bytes()).as_bytes());
        let keep = |name: &str| {
            std::fs::write(dir.path().join(name), name).unwrap();
            let (content, name) = (id(name), Name::new(name.as_bytes()).unwrap());
            stage.keep(&RelPath::root().join(&name), &name, Some(content)).unwrap();
        };
        let age = |before, percent, lacked: &[ContentId]| {
            stage.age(before, percent, &lacked.iter().copied().collect()).unwrap();
        };
        let kept = || {
            let names = std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap();
            let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
            let mut names: Vec<String> =
                names.map(|e| name(e).split('~').next_back().unwrap().into()).collect();
            names.sort();
            names
        };
        keep("one");
        keep("two");
        let before = stage.number();
        keep("three");
        std::fs::write(dir.path().join(".dunlin/history/not ours"), "").unwrap();
        age(0, 100, &[]);
        assert_eq!(kept().len(), 4);
        age(before, 100, &[id("one")]);
        assert_eq!(kept(), ["not ours", "one", "three"], "it is wanted");
        age(before, 100, &[]);
        assert_eq!(kept(), ["not ours", "three"]);
        age(before, 0, &[id("three")]);
        assert_eq!(kept(), ["not ours", "three"]);
        age(before, 0, &[]);
        assert_eq!(kept(), ["not ours"], "nothing fits into nothing");
        // Numbers go on above what was given before, though the clock was set back.
        stage.number_from(u64::MAX / 2);
        assert!(stage.number() > u64::MAX / 2);
    }

    #[test]
    fn what_cannot_be_opened_for_a_moment_is_found_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk).unwrap();
        let content = ContentId(*blake3::hash(b"one").as_bytes());
        std::fs::write(dir.path().join("one"), "one").unwrap();
        let name = Name::new(b"one").unwrap();
        let at = stage.keep(&RelPath::root().join(&name), &name, Some(content)).unwrap();
        let (at, aside) = (dir.path().join(at.to_string()), dir.path().join("aside"));
        // A link is not opened: an error, and not that nothing is there.
        std::fs::rename(&at, &aside).unwrap();
        std::os::unix::fs::symlink("nowhere", &at).unwrap();
        assert_eq!(read(stage.kept(&content)), None);
        std::fs::rename(&aside, &at).unwrap();
        assert_eq!(read(stage.kept(&content)), Some(b"one".to_vec()));
        std::fs::remove_file(&at).unwrap();
        assert!(read(stage.kept(&content)).is_none() && !stage.keeps(&content));
    }

    #[test]
    fn what_is_spared_stays_whatever_is_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let stage = Stage::open(disk).unwrap();
        let keep = |name: &str| {
            std::fs::write(dir.path().join(name), name).unwrap();
            let name = Name::new(name.as_bytes()).unwrap();
            stage.keep(&RelPath::root().join(&name), &name, None).unwrap();
        };
        let count = || std::fs::read_dir(dir.path().join(".dunlin/history")).unwrap().count();
        keep("before");
        let from = stage.number();
        ["one", "two"].iter().for_each(|name| keep(name));
        stage.spare(from..stage.number());
        keep("after");
        stage.age(u64::MAX, 0, &Lacked::default()).unwrap();
        assert_eq!(count(), 2);
        stage.spare(0..0);
        stage.age(u64::MAX, 0, &Lacked::default()).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_kept_is_found_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir.path()).unwrap());
        let id = |bytes: &[u8]| ContentId(*blake3::hash(bytes).as_bytes());
        let keep = |stage: &Stage, name: &str, content| {
            std::fs::write(dir.path().join(name), name).unwrap();
            let name = Name::new(name.as_bytes()).unwrap();
            stage.keep(&RelPath::root().join(&name), &name, content).unwrap()
        };
        let stage = Stage::open(disk.clone()).unwrap();
        keep(&stage, "before", Some(id(b"before")));
        assert_eq!(read(stage.kept(&id(b"before"))).unwrap(), b"before");
        keep(&stage, "unknown~0123456789abcdef", None);
        let long = "n".repeat(255);
        keep(&stage, &long, Some(id(long.as_bytes())));
        for stage in [stage, Stage::open(disk.clone()).unwrap()] {
            assert_eq!(read(stage.kept(&id(long.as_bytes()))).unwrap(), [b'n'; 64]);
            assert_eq!(read(stage.kept(&id(b"unknown"))), None);
        }
        let stage = Stage::open(disk).unwrap();
        let cleared = keep(&stage, "cleared", Some(id(b"cleared")));
        assert!(stage.kept(&id(b"cleared")).is_some());
        std::fs::remove_file(dir.path().join(cleared.to_string())).unwrap();
        assert!(stage.kept(&id(b"cleared")).is_none());
    }
}
