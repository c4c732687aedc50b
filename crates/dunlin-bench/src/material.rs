//! What there is to move: the same for every program and every run, from the same seed.

use dunlin_testkit::noise;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of one directory.
const IN_ONE: usize = 500;
/// Bytes made at once.
const BLOCK: usize = 1 << 20;

fn told<T>(path: &Path, done: std::io::Result<T>) -> Result<T, String> {
    done.map_err(|e| format!("{}: {e}", path.display()))
}

/// So many files of this size, some hundred to a directory.
pub fn files(dir: &Path, count: usize, size: usize) -> Result<(), String> {
    let bytes = noise(1, size + count);
    for i in 0..count {
        if i % IN_ONE == 0 {
            let below = dir.join(format!("d{}", i / IN_ONE));
            told(&below, fs::create_dir_all(&below))?;
        }
        // Each begins at another byte: no two are alike, and none takes long to make.
        let path = dir.join(format!("d{}/file {i}", i / IN_ONE));
        told(&path, fs::write(&path, &bytes[i..i + size]))?;
        if i % 4096 == 0 && crate::tell::is_ended() {
            return Err("ended".into());
        }
    }
    Ok(())
}

/// One file of this size, in which no block is like another.
pub fn large(path: &Path, size: u64) -> Result<(), String> {
    let mut file = BufWriter::with_capacity(BLOCK, told(path, File::create(path))?);
    let (mut left, mut seed) = (size, 0);
    while left > 0 {
        let len = (BLOCK as u64).min(left);
        seed += 1;
        told(path, file.write_all(&noise(seed, len as usize)))?;
        left -= len;
    }
    told(path, file.flush())
}

/// The same file with `first` before it, as a new one.
pub fn copy_with_front(path: &Path, new: &Path, first: &[u8]) -> Result<(), String> {
    let mut out = told(new, File::create(new))?;
    told(new, out.write_all(first))?;
    told(path, File::open(path).and_then(|mut old| std::io::copy(&mut old, &mut out)))?;
    Ok(())
}

/// So many patches of eight bytes, evenly spread, in place.
pub fn patch(path: &Path, count: u64) -> Result<(), String> {
    let file = told(path, File::options().write(true).open(path))?;
    let size = told(path, file.metadata())?.len();
    for i in 0..count {
        let at = (size / count * i + size / count / 2).min(size.saturating_sub(8));
        told(path, file.write_all_at(b"patched!", at))?;
    }
    Ok(())
}

/// A tree of people's making that is there wherever this project is built: the toolchain's documentation.
pub fn real_tree() -> Result<PathBuf, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().map_err(|e| e.to_string())?;
    let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let doc = Path::new(&root).join("share/doc");
    let html = doc.join("rust/html");
    if html.is_dir() { Ok(doc) } else { Err("the toolchain has no documentation (rust-docs)".into()) }
}

/// A copy of a tree; of every so many files only one.
pub fn copy(from: &Path, to: &Path, one_of: usize) -> Result<(), String> {
    copy_some(from, to, one_of, &mut 0)
}

fn copy_some(from: &Path, to: &Path, one_of: usize, seen: &mut usize) -> Result<(), String> {
    told(to, fs::create_dir_all(to))?;
    for entry in told(from, fs::read_dir(from))? {
        let entry = told(from, entry)?;
        let (path, new) = (entry.path(), to.join(entry.file_name()));
        let kind = told(&path, entry.file_type())?;
        if kind.is_dir() {
            copy_some(&path, &new, one_of, seen)?;
        } else if kind.is_file() {
            *seen += 1;
            if seen.is_multiple_of(one_of) {
                told(&path, fs::copy(&path, &new))?;
            }
        }
    }
    Ok(())
}

/// How many files there are below a directory.
pub fn count_files(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => count_files(&entry.path()),
        Ok(kind) => u64::from(kind.is_file()),
        Err(_) => 0,
    };
    entries.map(count).sum()
}

/// Bytes of all files below a directory, as they stand on the disk.
pub fn on_disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => on_disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn edits_are_what_they_say() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("large");
        large(&path, 3_000_000).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(before.len(), 3_000_000);
        let path = temp.path().join("edited");
        copy_with_front(&temp.path().join("large"), &path, b"!").unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!((after[0], &after[1..] == before.as_slice()), (b'!', true));
        patch(&path, 10).unwrap();
        let patched = fs::read(&path).unwrap();
        let differ = patched.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!((70..=80).contains(&differ), "{differ}");
        files(temp.path(), 1001, 10).unwrap();
        assert_eq!(fs::read_dir(temp.path().join("d2")).unwrap().count(), 1);
        assert_ne!(
            fs::read(temp.path().join("d0/file 1")).unwrap(),
            fs::read(temp.path().join("d0/file 2")).unwrap()
        );
    }
}
