//! When trees are equal: watched for by what is cheap to see, then confirmed by hash. The same for every
//! program.

use crate::tell::Limit;
use dunlin_testkit::{Thing, Tree, differences, tree};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What programs keep in the folder for themselves.
const THEIRS: &[&str] = &[".stfolder", ".stversions", ".stignore"];
/// Entries looked at in one go, at first and at most.
const BATCH: (usize, usize) = (64, 8192);

struct Entry {
    path: PathBuf,
    is_file: bool,
    size: u64,
    /// Whole seconds: Unison keeps no finer ones.
    mtime_s: i64,
}

/// What is to show elsewhere.
pub struct Expected {
    entries: Vec<Entry>,
    /// Paths that are to be gone.
    gone: Vec<PathBuf>,
}

impl Expected {
    /// What shows below `dir` now.
    pub fn of(dir: &Path) -> Result<Expected, String> {
        let mut entries = Vec::new();
        collect(dir, Path::new(""), &mut entries).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Expected { entries, gone: Vec::new() })
    }

    /// The same with a directory renamed, so that the old one is to be gone.
    pub fn renamed(mut self, old: &str, new: &str) -> Expected {
        for entry in &mut self.entries {
            if let Ok(below) = entry.path.strip_prefix(old) {
                entry.path = Path::new(new).join(below);
            }
        }
        self.gone.push(old.into());
        self
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.size).sum()
    }
}

fn is_theirs(name: &std::ffi::OsStr) -> bool {
    name == ".dunlin" || THEIRS.iter().any(|theirs| name == *theirs)
}

fn collect(root: &Path, below: &Path, out: &mut Vec<Entry>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name();
        if below.as_os_str().is_empty() && is_theirs(&name) {
            continue;
        }
        let (path, meta) = (below.join(&name), entry.metadata()?);
        let is_file = meta.is_file();
        if meta.is_dir() {
            collect(root, &path, out)?;
        }
        // The sizes of directories and the times of all but files are nobody's promise.
        let (size, mtime_s) = if is_file { (meta.len(), meta.mtime()) } else { (0, 0) };
        out.push(Entry { path, is_file, size, mtime_s });
    }
    Ok(())
}

fn shows(dir: &Path, entry: &Entry) -> bool {
    let Ok(meta) = fs::symlink_metadata(dir.join(&entry.path)) else { return false };
    if !entry.is_file {
        return !meta.is_file();
    }
    meta.is_file() && meta.len() == entry.size && meta.mtime() == entry.mtime_s
}

/// A look at one folder that goes on where it was: what once showed as expected is not looked at again
/// before the confirmation, so that the watching costs little and the same for all.
struct Watch<'a> {
    dir: &'a Path,
    expected: &'a Expected,
    missing: Vec<usize>,
    at: usize,
    batch: usize,
}

impl Watch<'_> {
    /// Looks at some; whether nothing is missing any more.
    fn look(&mut self) -> bool {
        let mut found = 0;
        for _ in 0..self.batch.min(self.missing.len()) {
            self.at = if self.at < self.missing.len() { self.at } else { 0 };
            if shows(self.dir, &self.expected.entries[self.missing[self.at]]) {
                self.missing.swap_remove(self.at);
                found += 1;
            } else {
                self.at += 1;
            }
        }
        let fruitful = found * 2 > self.batch;
        self.batch = if fruitful { (self.batch * 2).min(BATCH.1) } else { BATCH.0 };
        let is_gone = |path: &PathBuf| fs::symlink_metadata(self.dir.join(path)).is_err();
        self.missing.is_empty() && self.expected.gone.iter().all(is_gone)
    }
}

/// Waits until all of `dirs` show what is expected; the moment in which they did.
pub fn wait(
    dirs: &[&Path],
    expected: &Expected,
    limit: Limit,
    mut check: impl FnMut() -> Result<(), String>,
) -> Result<Instant, String> {
    let watch = |dir| {
        let missing = (0..expected.entries.len()).collect();
        Watch { dir, expected, missing, at: 0, batch: BATCH.0 }
    };
    let mut watches: Vec<Watch> = dirs.iter().map(|dir| watch(*dir)).collect();
    let mut checked = Instant::now();
    loop {
        watches.retain_mut(|watch| !watch.look());
        if watches.is_empty() {
            return Ok(Instant::now());
        }
        if checked.elapsed() > Duration::from_millis(250) {
            check()?;
            checked = Instant::now();
        }
        if watches.iter().all(|watch| watch.batch == BATCH.0) {
            let missing: usize = watches.iter().map(|watch| watch.missing.len()).sum();
            limit.pause(&format!("{missing} of {} entries are missing", expected.len()), 2)?;
        }
    }
}

/// Whether the folders hold the same, by hash. Something may still be tidied up: it gets a moment.
pub fn confirm(first: &Path, others: &[&Path]) -> Result<(), String> {
    let expected = ours(first);
    for other in others {
        let begun = Instant::now();
        loop {
            let different = differences(&expected, &ours(other));
            if different.is_empty() {
                break;
            }
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(format!("the trees differ: {}", different[..different.len().min(3)].join("; ")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// The tree without what is a program's own.
fn ours(dir: &Path) -> Tree {
    let mut all = tree(dir);
    all.retain(|path, _| {
        let first = path.split(|b| *b == b'/').next().unwrap_or_default();
        !THEIRS.iter().any(|theirs| theirs.as_bytes() == first)
    });
    for thing in all.values_mut() {
        if let Thing::File { mtime, .. } = thing {
            mtime.1 = 0;
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn equal_is_what_holds_the_same_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| temp.path().join(name));
        for dir in [&a, &b] {
            fs::create_dir_all(dir.join("d")).unwrap();
            fs::write(dir.join("d/f"), "one").unwrap();
            dunlin_testkit::set_mtime(&dir.join("d/f"), 7, 0);
        }
        fs::create_dir(b.join(".stfolder")).unwrap();
        let expected = Expected::of(&a).unwrap();
        assert_eq!((expected.len(), expected.bytes()), (2, 3));
        let short = || Limit::new(Duration::from_millis(20));
        let at_b = |expected: &Expected| wait(&[&b], expected, short(), || Ok(())).is_ok();
        assert!(at_b(&expected) && confirm(&a, &[&b]).is_ok());
        // The same to the eye, and other bytes: only the hash tells.
        fs::write(b.join("d/f"), "two").unwrap();
        dunlin_testkit::set_mtime(&b.join("d/f"), 7, 0);
        assert!(at_b(&expected) && confirm(&a, &[&b]).is_err());
        fs::write(b.join("d/f"), "later").unwrap();
        assert!(!at_b(&expected));
        fs::write(a.join("d/f"), "later").unwrap();
        dunlin_testkit::set_mtime(&a.join("d/f"), 8, 0);
        dunlin_testkit::set_mtime(&b.join("d/f"), 8, 0);
        let expected = Expected::of(&a).unwrap().renamed("d", "e");
        assert!(!at_b(&expected));
        fs::rename(b.join("d"), b.join("e")).unwrap();
        assert!(at_b(&expected) && confirm(&a, &[&b]).is_err());
        fs::create_dir(b.join("d")).unwrap();
        assert!(!at_b(&expected));
    }
}
