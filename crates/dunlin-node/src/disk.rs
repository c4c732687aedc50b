//! The seam to the disk: what scan, stage and apply may ask of a folder's file system.
//!
//! Every path is relative to the folder's root and made of validated names. No call follows a link
//! in any component or crosses into another mounted file system, and none leaves the root.

pub mod known;
pub mod posix;
pub mod probe;

use dunlin_core::keeps::Keeps;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::rows::Stamp;
use dunlin_core::state::Mtime;
use rustix::fd::BorrowedFd;
use std::io;

/// A point in time as the file system keeps it: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds since 1970-01-01 00:00 UTC; negative before.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device: left alone.
    Other,
    /// The root of another mounted file system (or a subvolume): left alone, and what it hides is still there.
    Mount,
}

/// What the file system says of an entry, the link itself and not its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes; for a link, the length of its text.
    pub size: u64,
    /// Last change of the content.
    pub mtime: FileTime,
    /// Last change of the inode; no program can set it.
    pub ctime: FileTime,
    /// Birth time, where the file system has it.
    pub btime: Option<FileTime>,
    /// Inode number.
    pub ino: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Permission bits, 0o7777.
    pub mode: u16,
}

impl Stat {
    /// What identifies the inode and tells whether it was touched, as the index keeps it.
    pub fn stamp(&self) -> Stamp {
        let time = |t: FileTime| Mtime { secs: t.secs, nanos: t.nanos };
        Stamp {
            ino: self.ino,
            btime: self.btime.map(time),
            ctime: time(self.ctime),
            mtime: time(self.mtime),
            size: self.size,
            nlink: self.nlink,
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its metadata, or why that could not be read.
    pub stat: Result<Stat, i32>,
}

/// Whether an error says that something is not there, or that something else is on the way to it.
pub fn is_gone(e: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(e.kind(), NotFound | NotADirectory)
        || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// How [`Disk::rename`] treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// Fails with `AlreadyExists` (renameat2 NOREPLACE).
    NoReplace,
    /// Both names swap what they hold (renameat2 EXCHANGE); the target must exist.
    Exchange,
}

/// A file open for reading.
pub trait ReadFile: Send + Sync {
    /// Reads at `offset` into `buf`; returns the number of bytes, 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The metadata of the open file.
    fn stat(&self) -> io::Result<Stat>;
    /// Has what follows read from the disk itself where that can be had, not from memory. Does nothing to
    /// what is not written back yet.
    fn forget_cached(&self) {}
    /// The file as the system knows it, if it does: for what can be done between two files.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A file open for reading and writing, below the control directory.
pub trait WriteFile: ReadFile {
    /// Bytes of the disk that it takes: less than its size where it has holes.
    fn allocated(&self) -> io::Result<u64>;
    /// Writes all of `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Has this file be of the same bytes as another one, which takes no room, where the file system lets files share
    /// them (a reflink). Tells whether it is; if not, nothing happened. What it holds then is to be verified like any copy.
    fn share(&self, from: &dyn ReadFile) -> bool {
        let _ = from;
        false
    }
    /// Sets the length.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Sets the permission bits (masked to 0o777).
    fn set_mode(&self, mode: u16) -> io::Result<()>;
    /// Sets the modification time.
    fn set_mtime(&self, mtime: FileTime) -> io::Result<()>;
    /// Makes the content durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
}

/// Free and total room of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes an unprivileged program may still write.
    pub free: u64,
    /// Size of the file system in bytes.
    pub total: u64,
    /// Files that may still be created; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// A folder's file system. All calls block. Errors are the operating system's (`raw_os_error` is set).
pub trait Disk: Send + Sync {
    /// All entries of a directory, each with its metadata. Fails rather than return a part.
    fn list(&self, dir: &RelPath) -> io::Result<Vec<Entry>>;
    /// The metadata at `path`; `None` if nothing is there (or a parent is no directory).
    fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>>;
    /// Opens a regular file for reading; never blocks on a FIFO, never follows a link.
    fn open(&self, path: &RelPath) -> io::Result<Box<dyn ReadFile>>;
    /// The text of a link, at most 4,095 bytes.
    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>>;
    /// Creates a new file (fails if anything is there), mode 0600.
    fn create(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>>;
    /// Opens an existing regular file for reading and writing.
    fn open_write(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>>;
    /// Creates a directory.
    fn mkdir(&self, path: &RelPath, mode: u16) -> io::Result<()>;
    /// Creates a link with this text.
    fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()>;
    /// Renames within the folder, atomically.
    fn rename(&self, from: &RelPath, to: &RelPath, how: Rename) -> io::Result<()>;
    /// Removes a file or link.
    fn unlink(&self, path: &RelPath) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &RelPath) -> io::Result<()>;
    /// Sets the permission bits of a file or directory (masked to 0o777); never of a link.
    fn set_mode(&self, path: &RelPath, mode: u16) -> io::Result<()>;
    /// Sets the modification time of a file, link or directory, links not followed.
    fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()>;
    /// Makes one file durable by its path, with its mode and time (fsync).
    fn sync_file(&self, path: &RelPath) -> io::Result<()>;
    /// Makes a directory's entries durable (fsync).
    fn sync_dir(&self, dir: &RelPath) -> io::Result<()>;
    /// Makes some files and then some directories durable, as [`Disk::sync_file`] and [`Disk::sync_dir`] do, all at once
    /// where that is sooner; what came of each, in order.
    fn sync_each(&self, files: &[RelPath], dirs: &[RelPath]) -> Vec<io::Result<()>> {
        let files = files.iter().map(|path| self.sync_file(path));
        files.chain(dirs.iter().map(|dir| self.sync_dir(dir))).collect()
    }
    /// Makes everything written so far on this file system durable (syncfs).
    fn sync_all(&self) -> io::Result<()>;
    /// The same, for whoever does it beside others: an error of the disk is told once to each of the two ways, so that
    /// neither takes it away from the other.
    fn sync_beside(&self) -> io::Result<()> {
        self.sync_all()
    }
    /// The clock that stamps files.
    fn now(&self) -> FileTime;
    /// Free and total space.
    fn space(&self) -> io::Result<Space>;
    /// Device and inode of the root, and whether the root's path still leads to it.
    fn root_identity(&self) -> io::Result<RootIdentity>;
    /// The names in a directory.
    fn names(&self, dir: &RelPath) -> io::Result<Vec<Name>> {
        Ok(self.list(dir)?.into_iter().map(|entry| entry.name).collect())
    }
    /// What is kept of what is given to it.
    fn keeps(&self) -> Keeps {
        Keeps::default()
    }
    /// Whether it may take different names for one.
    fn is_blind(&self) -> bool {
        false
    }
    /// The name under which the directory lists what `path` leads to, if that is another one.
    fn other_name(&self, path: &RelPath) -> io::Result<Option<Name>> {
        let _ = path;
        Ok(None)
    }
}

/// Which directory the root handle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootIdentity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Whether the path the folder was opened by still names this directory.
    pub in_place: bool,
}

/// What is said of a full disk.
pub const DISK_FULL: &str = "the disk is full";
/// What is said of a file system that has no place for another file, however small.
pub const NO_INODES: &str = "no more files can be created on the disk (out of inodes)";

/// An error of the disk as a person would say it.
pub fn explain(disk: &dyn Disk, e: &io::Error) -> String {
    match e.kind() {
        // The same error says both.
        io::ErrorKind::StorageFull if disk.space().is_ok_and(|s| s.files == Some(0)) => NO_INODES.into(),
        io::ErrorKind::StorageFull => DISK_FULL.into(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::CrossesDevices => "another file system is mounted there".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        _ => e.to_string(),
    }
}

/// Whether an explanation says that there is no room, in whatever way.
pub fn is_full(why: &str) -> bool {
    why.starts_with(DISK_FULL) || why == NO_INODES
}
