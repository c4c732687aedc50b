//! Looks at what shows, all the time.

use crate::Ledger;
use crate::tree::hash_of;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that hashes every visible file below a root again and again, and notes what no user wrote.
pub struct Poller {
    stop: Arc<AtomicBool>,
    seen: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    wrong: Mutex<Vec<String>>,
    files: AtomicU64,
    rounds: AtomicU64,
}

/// What tells whether a file is the one that was hashed before.
type Stamp = (u64, u64, i64, i64, i64, i64, u64);

impl Poller {
    /// Watches one root from now on.
    pub fn new(root: &Path, ledger: Arc<Ledger>) -> Poller {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Shared::default()));
        let (ends, notes, root) = (stop.clone(), seen.clone(), root.to_path_buf());
        let thread = std::thread::spawn(move || {
            let mut known = HashMap::new();
            while !ends.load(Ordering::Relaxed) {
                look(&root, &root, &ledger, &notes, &mut known);
                notes.rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Poller { stop, seen, thread: Some(thread) }
    }

    /// Ends it, so that nothing below the root is open any more; panics with what nobody wrote. How many
    /// files it hashed.
    pub fn end(mut self) -> u64 {
        self.rest();
        let wrong = self.seen.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = wrong.iter().take(12).map(String::as_str).collect();
        assert!(
            wrong.is_empty(),
            "{} visible contents that nobody wrote:\n{}",
            wrong.len(),
            lines.join("\n")
        );
        self.seen.files.load(Ordering::Relaxed)
    }

    /// How often it has looked at everything.
    pub fn rounds(&self) -> u64 {
        self.seen.rounds.load(Ordering::Relaxed)
    }

    fn rest(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Whatever cannot be read now is looked at in the next round.
fn look(root: &Path, dir: &Path, ledger: &Ledger, notes: &Shared, known: &mut HashMap<PathBuf, Stamp>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if dir == root && entry.file_name() == ".dunlin" {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            look(root, &entry.path(), ledger, notes, known);
        } else if kind.is_file() {
            check(&entry.path(), ledger, notes, known);
        }
    }
}

fn stamp(file: &fs::File) -> Option<Stamp> {
    let m = file.metadata().ok()?;
    Some((m.dev(), m.ino(), m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec(), m.size()))
}

fn check(path: &Path, ledger: &Ledger, notes: &Shared, known: &mut HashMap<PathBuf, Stamp>) {
    use rustix::fs::{Mode, OFlags};
    // A link or a pipe may stand there by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return };
    let mut file = fs::File::from(file);
    let Some(before) = stamp(&file) else { return };
    if known.get(path) == Some(&before) {
        return;
    }
    let Ok(hash) = hash_of(&mut file) else { return };
    notes.files.fetch_add(1, Ordering::Relaxed);
    if !ledger.knows(&hash) {
        let text = format!("{}: {} of {} bytes", path.display(), &hash.to_hex()[..12], before.6);
        notes.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
    known.insert(path.to_path_buf(), before);
}
