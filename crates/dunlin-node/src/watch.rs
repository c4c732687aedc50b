//! Hints from the kernel that something changed, one inotify watch per directory.
//!
//! A hint says where to look, never what is there. Watches do not recurse: the caller adds one for each
//! directory, then lists it (what was made in between gave no event), and adds those below. Not seen at
//! all are writes through a memory map, and changes other machines make on a network file system.

#[cfg(test)]
mod tests;

use crate::disk::Disk;
use crate::disk::posix::{PosixDisk, proc_path};
use dunlin_core::path::{Name, RelPath};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The caller's id of a directory.
pub type DirKey = [u8; 16];

/// What is watched. `EXCL_UNLINK` spares the events of files that are open but have no name any more.
const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Bytes of events fetched per system call: some 2,000 events.
const BUFFER: usize = 64 * 1024;

/// Events after which a read returns although more are waiting: as many as the kernel queues by default.
const READ_MAX: usize = 16 * 1024;

/// Somewhere to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An entry of a directory appeared, vanished, or changed.
    Entry {
        /// The directory.
        dir: DirKey,
        /// The entry's name in it.
        name: Name,
        /// It was written and, as far as seen, not closed yet: looking later saves reading it twice. Do
        /// look some time, since `truncate` writes without ever closing.
        writing: bool,
    },
    /// The directory itself changed or was moved, or an entry whose name is not a [`Name`]. The watch goes
    /// on, wherever the directory went: `remove` it if that is outside.
    Dir {
        /// The directory.
        dir: DirKey,
    },
    /// The directory was deleted or its file system unmounted, and the watch ended with it.
    Gone {
        /// The directory.
        dir: DirKey,
    },
    /// The kernel dropped events: everything has to be looked at.
    Overflow,
}

/// Why a directory could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel's limit of watches (`fs.inotify.max_user_watches`) or of open files is reached.
    #[error("no more directories can be watched")]
    Exhausted,
    /// The directory is not there, or something else is in its place.
    #[error("the directory to watch is gone")]
    Gone,
    /// Anything else.
    #[error("watching failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for WatchError {
    fn from(e: io::Error) -> WatchError {
        match Errno::from_io_error(&e) {
            Some(Errno::NOSPC | Errno::MFILE | Errno::NFILE) => WatchError::Exhausted,
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => WatchError::Gone,
            _ => WatchError::Io(e),
        }
    }
}

/// Who is asked to watch the directories of a folder.
pub trait Watch: Send + Sync {
    /// Watches the directory `dir` under the name `key`. See [`Watcher::add`].
    fn add(&self, dir: &RelPath, key: DirKey) -> Result<(), WatchError>;
}

/// The directories of a disk, watched by inotify.
#[derive(Debug)]
pub struct Watched {
    /// Who watches.
    pub watcher: Arc<Watcher>,
    /// Whose directories.
    pub disk: Arc<PosixDisk>,
}

impl Watch for Watched {
    fn add(&self, dir: &RelPath, key: DirKey) -> Result<(), WatchError> {
        self.watcher.add(&self.disk, dir, key)
    }
}

/// Watches directories. One thread reads while others add and remove.
///
/// # Order, and how to know that everything was read
///
/// The kernel queues the events of all watches in one order, before the call that caused them returns,
/// and [`read`](Watcher::read) never holds any back. So to be sure that all changes completed until now have
/// been read: watch the control directory like any other, call [`barrier`], and wait until a read
/// returns an [`Hint::Entry`] with that directory and name. Hints of everything before are then in that batch
/// or an earlier one (within a batch the order says nothing). If a batch with [`Hint::Overflow`] comes first,
/// the barrier may be among what was dropped: call it again. Reads must go through one thread for this, or
/// at least be handled in the order in which they returned.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    /// Readable for good once the watcher has [ended](Watcher::end).
    ended: OwnedFd,
    watches: Mutex<Watches>,
    /// Held for a whole read, so that two readers cannot split one order of events.
    buffer: Mutex<Box<[MaybeUninit<u8>]>>,
}

/// The two directions of one relation: each key has one watch, each watch one key.
#[derive(Debug, Default)]
struct Watches {
    by_wd: HashMap<i32, DirKey>,
    by_key: HashMap<DirKey, i32>,
}

impl Watches {
    fn forget_wd(&mut self, wd: i32) -> Option<DirKey> {
        let key = self.by_wd.remove(&wd)?;
        if self.by_key.get(&key) == Some(&wd) {
            self.by_key.remove(&key);
        }
        Some(key)
    }
}

impl Watcher {
    /// A watcher of nothing yet. Fails with EMFILE when the user's inotify instances are used up.
    pub fn new() -> io::Result<Watcher> {
        Ok(Watcher {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watches: Mutex::default(),
            ended: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            buffer: Mutex::new(vec![MaybeUninit::uninit(); BUFFER].into()),
        })
    }

    /// Watches the directory `dir` under the name `key`.
    ///
    /// A key that had a watch on another directory loses that one. A directory watched already (moved,
    /// and added again under its new id) goes over to `key`.
    pub fn add(&self, disk: &PosixDisk, dir: &RelPath, key: DirKey) -> Result<(), WatchError> {
        let fd = disk.dir_handle(dir)?;
        // Held across the call: the reader must not meet a watch that has no key yet.
        let mut watches = self.watches();
        let wd = inotify::add_watch(&self.inotify, proc_path(&fd), MASK).map_err(io::Error::from)?;
        if watches.by_key.get(&key) == Some(&wd) {
            return Ok(());
        }
        watches.forget_wd(wd);
        watches.by_wd.insert(wd, key);
        if let Some(old) = watches.by_key.insert(key, wd) {
            watches.by_wd.remove(&old);
            self.remove_wd(old);
        }
        Ok(())
    }

    /// Ends the watch of `key`, if there is one. Hints of it that were not read yet are dropped.
    pub fn remove(&self, key: DirKey) {
        let mut watches = self.watches();
        if let Some(wd) = watches.by_key.remove(&key) {
            watches.by_wd.remove(&wd);
            self.remove_wd(wd);
        }
    }

    /// The number of directories watched.
    pub fn count(&self) -> usize {
        self.watches().by_key.len()
    }

    /// Waits until there is something to tell, at most `timeout`, and returns all of it, each place once;
    /// empty if nothing came. Blocks: not to be called on a thread that runs async tasks.
    pub fn read(&self, timeout: Duration) -> io::Result<Vec<Hint>> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        loop {
            let hints = self.read_queued(&mut buffer)?;
            let left = timeout.saturating_sub(start.elapsed());
            if !hints.is_empty() || left.is_zero() {
                return Ok(hints);
            }
            if wait_readable(self.inotify.as_fd(), self.ended.as_fd(), left)? {
                return Ok(hints);
            }
        }
    }

    /// Has who waits in [`read`](Watcher::read) return at once, now and ever after.
    pub fn end(&self) {
        // It counts to 2^64, and nobody takes from it: that it was written to once is all that is asked.
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        wait_readable(self.ended.as_fd(), self.ended.as_fd(), Duration::ZERO).unwrap_or(true)
    }

    fn read_queued(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<Vec<Hint>> {
        let mut hints = Hints::default();
        let mut reader = inotify::Reader::new(&self.inotify, buffer);
        let mut events = 0;
        // Held while reading, which does not block: between an event and its look-up no key may change.
        let mut watches = self.watches();
        while events < READ_MAX || !reader.is_buffer_empty() {
            match reader.next() {
                Ok(event) => hints.take(&event, &mut watches),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            events += 1;
        }
        Ok(hints.list)
    }

    /// Fails only where the kernel removed the watch by itself: its directory is gone.
    fn remove_wd(&self, wd: i32) {
        let _ = inotify::remove_watch(&self.inotify, wd);
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        // Every change of the maps completes or does not begin; a panic elsewhere leaves them whole.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Watcher {
    /// Readable when [`Watcher::read`] would not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Hints in the order in which each place was first met.
#[derive(Default)]
struct Hints {
    list: Vec<Hint>,
    entries: HashMap<(DirKey, Name), usize>,
    dirs: HashMap<DirKey, usize>,
    overflow: bool,
}

impl Hints {
    fn take(&mut self, event: &Event<'_>, watches: &mut Watches) {
        let what = event.events();
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            if !self.overflow {
                self.list.push(Hint::Overflow);
            }
            self.overflow = true;
            return;
        }
        // IGNORED is the last event of a watch. If the key is still known, it was not us who removed it.
        if what.contains(ReadFlags::IGNORED) {
            if let Some(key) = watches.forget_wd(event.wd()) {
                self.dir(key, true);
            }
            return;
        }
        let Some(&key) = watches.by_wd.get(&event.wd()) else { return };
        match event.file_name().map(|name| Name::new(name.to_bytes())) {
            Some(Ok(name)) => self.entry(key, name, what),
            // DELETE_SELF and UNMOUNT come this way too; IGNORED follows them at once.
            Some(Err(_)) | None => self.dir(key, false),
        }
    }

    fn entry(&mut self, dir: DirKey, name: Name, what: ReadFlags) {
        match self.entries.entry((dir, name)) {
            Slot::Vacant(slot) => {
                let name = slot.key().1.clone();
                slot.insert(self.list.len());
                self.list.push(Hint::Entry { dir, name, writing: what.contains(ReadFlags::MODIFY) });
            }
            Slot::Occupied(slot) => {
                let Some(Hint::Entry { writing, .. }) = self.list.get_mut(*slot.get()) else { return };
                // A change of metadata says nothing about who is writing; all else replaces or closes.
                if what.contains(ReadFlags::MODIFY) {
                    *writing = true;
                } else if !what.contains(ReadFlags::ATTRIB) {
                    *writing = false;
                }
            }
        }
    }

    fn dir(&mut self, dir: DirKey, gone: bool) {
        let at = *self.dirs.entry(dir).or_insert_with(|| {
            self.list.push(Hint::Dir { dir });
            self.list.len() - 1
        });
        if gone && let Some(hint) = self.list.get_mut(at) {
            *hint = Hint::Gone { dir };
        }
    }
}

/// Makes and removes a file in `control`, which is watched, and returns its name. It is used once: no
/// earlier hint can be mistaken for it. See [`Watcher`].
pub fn barrier(disk: &dyn Disk, control: &RelPath) -> io::Result<Name> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = Name::new(format!("barrier-{}-{n}", std::process::id()).as_bytes())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let path = control.join(&name);
        match disk.create(&path) {
            Ok(_) => return disk.unlink(&path).map(|()| name),
            // Left by a process of the same id that was killed in between.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => disk.unlink(&path)?,
            Err(e) => return Err(e),
        }
    }
}

/// Waits until `fd` or `end` is readable, at most `timeout`; whether `end` is.
fn wait_readable(fd: BorrowedFd<'_>, end: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut both = [PollFd::new(&fd, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
    match poll(&mut both, Some(&timeout)) {
        Ok(_) => Ok(!both[1].revents().is_empty()),
        // Interrupted or out of time is no error: the caller looks again, and finds nothing.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
