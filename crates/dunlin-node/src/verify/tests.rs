//! A disk that gives other bytes than it was given.

use super::*;
use crate::disk::posix::PosixDisk;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open file that reads as if one bit of it had turned.
struct Rotten<'a>(Box<dyn ReadFile>, &'a AtomicBool);

impl ReadFile for Rotten<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = self.0.read_at(buf, offset)?;
        if n > 0 && offset == 0 {
            buf[0] ^= 1;
        }
        Ok(n)
    }
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn forget_cached(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

fn row(disk: &dyn Disk, path: &RelPath, held: &[u8]) -> LocalRow {
    let stat = disk.stat(path).unwrap().unwrap();
    LocalRow {
        node: NodeId([1; 16]),
        dot: None,
        seen: None,
        content: Content::File { id: id(held), size: stat.size },
        mode: stat.mode,
        mtime: stat.stamp().mtime,
        stamp: stat.stamp(),
        kept: false,
        damaged: None,
    }
}

/// A file as the index would know it, old enough to be judged.
fn file(dir: &Path, disk: &dyn Disk, bytes: &[u8]) -> RelPath {
    std::fs::write(dir.join("f"), bytes).unwrap();
    let path = RelPath::parse(b"f").unwrap();
    while is_younger(disk, &disk.stat(&path).unwrap().unwrap(), YOUNG_MS) {
        std::thread::yield_now();
    }
    path
}

#[test]
fn bytes_that_changed_by_themselves_are_found_from_the_disk_and_not_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PosixDisk::open(dir.path()).unwrap();
    let path = file(dir.path(), &disk, b"bytes");
    let file = disk.open(&path).unwrap();
    let asked = AtomicBool::new(false);
    let found = hash(&Rotten(file, &asked), &mut |_| true).unwrap();
    assert_eq!(found, Some(id(b"cytes")));
    assert!(asked.load(Ordering::Relaxed));
}

#[test]
fn only_what_nothing_was_done_to_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PosixDisk::open(dir.path()).unwrap();
    let path = file(dir.path(), &disk, b"bytes");
    let go_on = &mut |_| true;
    let right = row(&disk, &path, b"bytes");
    let damaged = row(&disk, &path, b"other");
    assert_eq!(examine(&disk, &path, &right, go_on), Verdict::Right);
    assert_eq!(examine(&disk, &path, &damaged, go_on), Verdict::Damaged(id(b"bytes")));
    assert_eq!(examine(&disk, &path, &damaged, &mut |_| false), Verdict::Ended);
    std::fs::write(dir.path().join("f"), b"an edit").unwrap();
    assert_eq!(examine(&disk, &path, &damaged, go_on), Verdict::Touched);
    assert_eq!(examine(&disk, &path, &row(&disk, &path, b"other"), go_on), Verdict::Touched, "too young");
    std::fs::remove_file(dir.path().join("f")).unwrap();
    assert_eq!(examine(&disk, &path, &right, go_on), Verdict::Touched);
}

#[test]
fn what_is_written_while_it_is_read_is_an_edit() {
    let dir = tempfile::tempdir().unwrap();
    let disk = PosixDisk::open(dir.path()).unwrap();
    let path = file(dir.path(), &disk, b"bytes");
    let row = row(&disk, &path, b"bytes");
    let mut first = true;
    let mut write = |_| {
        if std::mem::take(&mut first) {
            std::fs::write(dir.path().join("f"), b"bytes and more").unwrap();
        }
        true
    };
    assert_eq!(examine(&disk, &path, &row, &mut write), Verdict::Touched);
}
