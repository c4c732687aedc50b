//! A folder on a real file system.
//!
//! Other programs change the folder while we work in it, so a path that was checked says nothing about
//! the next call. Each call therefore resolves its path anew, beneath the root's descriptor and without
//! following anything, and then acts on the descriptor it got, or on one name in the directory it got.

mod beneath;
mod file;
#[cfg(test)]
pub(crate) mod tests;

use super::{Disk, Entry, FileKind, FileTime, ReadFile, Rename, RootIdentity, Space, Stat, WriteFile};
use beneath::{Beneath, is_dir, stat_at, stat_fd};
use dunlin_core::path::{Name, RelPath};
use file::PosixFile;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Statx, StatxAttributes, StatxFlags,
    StatxTimestamp, Timespec, Timestamps,
};
use rustix::io::{Errno, retry_on_intr};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Bytes of directory entries fetched per system call: about 2,000 entries.
const LIST_BUFFER: usize = 64 * 1024;

/// The longest text a link can have; `readlink` cuts silently, so one byte more is asked for.
const LINK_MAX: usize = 4095;

/// How a regular file is opened. `O_NONBLOCK` keeps a FIFO in its place from blocking us; on a regular
/// file it only matters where another program holds a lease: then the open fails (EAGAIN).
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A folder on a real file system, by the descriptor of its root.
#[derive(Debug)]
pub struct PosixDisk {
    beneath: Beneath,
    /// The root once more: the kernel tells an error of the disk once to each open description.
    beside: OwnedFd,
    path: PathBuf,
}

impl PosixDisk {
    /// Opens the directory at `root`. The path itself may lead through links.
    ///
    /// The handle keeps meaning this directory, also when it is renamed; see [`Disk::root_identity`].
    pub fn open(root: &Path) -> io::Result<PosixDisk> {
        // Made absolute, since the working directory may change and the path is looked up again later.
        let path = std::path::absolute(root)?;
        PosixDisk::of(Beneath::open(&path)?, path)
    }

    fn of(beneath: Beneath, path: PathBuf) -> io::Result<PosixDisk> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beside = retry_on_intr(|| fs::openat(beneath.root(), c".", flags, Mode::empty()))?;
        Ok(PosixDisk { beneath, beside, path })
    }

    /// Opens a directory as a handle (`O_PATH`), for what the `Disk` trait does not know, such as watches.
    pub fn dir_handle(&self, dir: &RelPath) -> io::Result<OwnedFd> {
        Ok(self.beneath.open_at(dir.names(), OFlags::PATH | OFlags::DIRECTORY)?)
    }

    /// Opens for reading, without leaving a trace in the access time where that is permitted.
    fn open_quietly(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | flags;
        match self.beneath.open_at(path.names(), flags | OFlags::NOATIME) {
            // Only a file's owner may ask for it.
            Err(Errno::PERM) => self.beneath.open_at(path.names(), flags),
            result => result,
        }
    }

    fn open_for_reading(&self, path: &RelPath) -> io::Result<OwnedFd> {
        regular(self.open_quietly(path, FILE_FLAGS)?)
    }

    /// Waits until what was opened is durable. What nobody may read cannot be opened for that; the file system as a whole can.
    fn sync_opened(&self, opened: io::Result<OwnedFd>) -> io::Result<()> {
        match opened {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => self.sync_all(),
            opened => Ok(fs::fsync(opened?)?),
        }
    }

    /// The metadata of an entry as the rest of Dunlin sees it.
    fn entry_stat(&self, stat: &Statx) -> Stat {
        let mounted = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let mut converted = convert(stat);
        // A btrfs subvolume is no mount, but another device: nothing can be renamed into it either.
        if mounted || (is_dir(stat) && self.beneath.is_foreign(stat)) {
            converted.kind = FileKind::Mount;
        }
        converted
    }
}

impl Disk for PosixDisk {
    /// Sorted by name, each name once: an entry replaced while we read can be met twice, and then the later
    /// look counts.
    fn list(&self, dir: &RelPath) -> io::Result<Vec<Entry>> {
        let fd = self.open_quietly(dir, OFlags::DIRECTORY)?;
        let mut buf = vec![MaybeUninit::uninit(); LIST_BUFFER];
        let mut raw = RawDir::new(&fd, &mut buf);
        let mut entries = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match stat_at(&fd, name) {
                // Gone between the two calls: a listing a moment later would not have had it.
                Err(Errno::NOENT) => continue,
                Err(e) => Err(e.raw_os_error()),
                Ok(stat) => Ok(self.entry_stat(&stat)),
            };
            // Some file systems have names beyond 255 bytes; leaving one out would be a partial listing.
            let name = Name::new(name.to_bytes()).map_err(|_| Errno::NAMETOOLONG)?;
            entries.push(Entry { name, stat });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Ok(entries)
    }

    fn names(&self, dir: &RelPath) -> io::Result<Vec<Name>> {
        let fd = self.open_quietly(dir, OFlags::DIRECTORY)?;
        let mut buf = vec![MaybeUninit::uninit(); LIST_BUFFER];
        let mut raw = RawDir::new(&fd, &mut buf);
        let mut names = Vec::new();
        while let Some(entry) = raw.next() {
            match entry {
                Err(Errno::INTR) => {}
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                entry => {
                    let name = Name::new(entry?.file_name().to_bytes());
                    names.push(name.map_err(|_| Errno::NAMETOOLONG)?);
                }
            }
        }
        Ok(names)
    }

    /// `None` also where a parent is a link. Where a parent is another mounted file system this is an
    /// error (EXDEV): what the mount hides is not absent.
    fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        if path.is_root() {
            // The root may be a mount point; it is our directory nevertheless.
            return Ok(Some(convert(&stat_fd(self.beneath.root(), StatxFlags::empty())?)));
        }
        let stat = self.beneath.parent(path.names()).and_then(|(dir, name)| stat_at(&dir, name.as_bytes()));
        match stat {
            Ok(stat) => Ok(Some(self.entry_stat(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(PosixFile::new(self.open_for_reading(path)?)))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (dir, name) = self.beneath.parent(path.names())?;
        let mut buf = vec![0; LINK_MAX + 1];
        let len = retry_on_intr(|| fs::readlinkat_raw(&dir, name.as_bytes(), &mut *buf))?;
        if len > LINK_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        buf.truncate(len);
        Ok(buf)
    }

    fn create(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        let (dir, name) = self.beneath.parent(path.names())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | FILE_FLAGS;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = retry_on_intr(|| fs::openat(&dir, name.as_bytes(), flags, mode))?;
        // A umask may have taken even the owner's bits.
        where_kept(fs::fchmod(&fd, mode))?;
        Ok(Box::new(PosixFile::new(fd)))
    }

    fn open_write(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        let fd = self.beneath.open_at(path.names(), OFlags::RDWR | FILE_FLAGS)?;
        Ok(Box::new(PosixFile::new(regular(fd)?)))
    }

    /// Exactly `mode` (masked to 0o777), whatever the umask and the parent's set-group-id bit say, except
    /// on a file system that keeps no modes.
    fn mkdir(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        let (dir, name) = match self.beneath.parent(path.names()) {
            Err(Errno::BUSY) if path.is_root() => return Err(Errno::EXIST.into()),
            found => found?,
        };
        let wanted = permissions(mode);
        fs::mkdirat(&dir, name.as_bytes(), wanted)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |how| retry_on_intr(|| fs::openat(&dir, name.as_bytes(), flags | how, Mode::empty()));
        let fd = open(OFlags::PATH)?;
        if convert(&stat_fd(&fd, StatxFlags::empty())?).mode == mode & 0o777 {
            return Ok(());
        }
        Ok(where_kept(chmod_handle(&fd, wanted, || open(OFlags::RDONLY)))?)
    }

    fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()> {
        let (dir, name) = self.beneath.parent(path.names())?;
        Ok(fs::symlinkat(text, &dir, name.as_bytes())?)
    }

    fn rename(&self, from: &RelPath, to: &RelPath, how: Rename) -> io::Result<()> {
        let flags = match how {
            Rename::NoReplace => RenameFlags::NOREPLACE,
            Rename::Exchange => RenameFlags::EXCHANGE,
        };
        let (from_dir, from_name) = self.beneath.parent(from.names())?;
        let (to_dir, to_name) = self.beneath.parent(to.names())?;
        Ok(fs::renameat_with(&from_dir, from_name.as_bytes(), &to_dir, to_name.as_bytes(), flags)?)
    }

    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        let (dir, name) = self.beneath.parent(path.names())?;
        Ok(fs::unlinkat(&dir, name.as_bytes(), AtFlags::empty())?)
    }

    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        let (dir, name) = self.beneath.parent(path.names())?;
        Ok(fs::unlinkat(&dir, name.as_bytes(), AtFlags::REMOVEDIR)?)
    }

    fn set_mode(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        let fd = self.beneath.open_at(path.names(), OFlags::PATH | OFlags::NOFOLLOW)?;
        match convert(&stat_fd(&fd, StatxFlags::empty())?).kind {
            FileKind::File | FileKind::Dir => {}
            FileKind::Link => return Err(Errno::LOOP.into()),
            FileKind::Other | FileKind::Mount => return Err(Errno::INVAL.into()),
        }
        Ok(chmod_handle(&fd, permissions(mode), || self.beneath.open_at(path.names(), FILE_FLAGS))?)
    }

    fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()> {
        let times = timestamps(mtime)?;
        let fd = self.beneath.open_at(path.names(), OFlags::PATH | OFlags::NOFOLLOW)?;
        match fs::utimensat(&fd, c"", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8 the flag is unknown here.
            Err(Errno::INVAL) => Ok(fs::utimensat(fs::CWD, proc_path(&fd), &times, AtFlags::empty())?),
            result => Ok(result?),
        }
    }

    /// Cheaper where the file is readable: sync before taking its permissions away.
    fn sync_file(&self, path: &RelPath) -> io::Result<()> {
        self.sync_opened(self.open_for_reading(path))
    }

    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        self.sync_opened(self.open_quietly(dir, OFlags::DIRECTORY).map_err(io::Error::from))
    }

    /// Waits of several threads for the disk are one wait to a journalling file system.
    fn sync_each(&self, files: &[RelPath], dirs: &[RelPath]) -> Vec<io::Result<()>> {
        let files = files.iter().map(|path| (path, false));
        let all: Vec<(&RelPath, bool)> = files.chain(dirs.iter().map(|dir| (dir, true))).collect();
        let sync = |(path, is_dir): (&RelPath, bool)| {
            if is_dir { self.sync_dir(path) } else { self.sync_file(path) }
        };
        let Some((first, others)) = all.split_first() else { return Vec::new() };
        std::thread::scope(|s| {
            let begin = |one| std::thread::Builder::new().spawn_scoped(s, move || sync(one));
            let others: Vec<_> = others.iter().map(|one| (*one, begin(*one))).collect();
            let mut out = vec![sync(*first)];
            out.extend(others.into_iter().map(|(one, thread)| match thread {
                // A panic in there is a bug, passed on as what it is.
                Ok(thread) => thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)),
                // No more threads are to be had.
                Err(_) => sync(one),
            }));
            out
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(self.beneath.root())?)
    }

    fn sync_beside(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.beside)?)
    }

    fn now(&self) -> FileTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        FileTime { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }

    fn space(&self) -> io::Result<Space> {
        let stat = fs::fstatvfs(self.beneath.root())?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let files = (stat.f_files > 0).then_some(stat.f_favail);
        Ok(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks), files })
    }

    fn root_identity(&self) -> io::Result<RootIdentity> {
        let held = fs::fstat(self.beneath.root())?;
        let in_place = match retry_on_intr(|| fs::stat(&self.path)) {
            Ok(found) => (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
            Err(e) => return Err(e.into()),
        };
        // The types differ between architectures.
        #[allow(clippy::useless_conversion)]
        Ok(RootIdentity { dev: held.st_dev.into(), ino: held.st_ino.into(), in_place })
    }
}

/// Refuses what is not a regular file.
fn regular(fd: OwnedFd) -> io::Result<OwnedFd> {
    match convert(&stat_fd(&fd, StatxFlags::empty())?).kind {
        FileKind::File => Ok(fd),
        _ => Err(Errno::INVAL.into()),
    }
}

/// Sets the mode of what an `O_PATH` handle holds, which must not be a link. `fchmod` refuses such handles,
/// and opening for reading would need the very permissions that may be missing; the handle's entry in
/// `/proc` leads to exactly what it holds. `reopen` serves where `/proc` is not mounted.
fn chmod_handle(
    fd: &OwnedFd,
    mode: Mode,
    reopen: impl FnOnce() -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<()> {
    match fs::chmod(proc_path(fd), mode) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let reopened = reopen()?;
    let (held, found) = (fs::fstat(fd)?, fs::fstat(&reopened)?);
    if (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino) {
        return Err(Errno::AGAIN);
    }
    fs::fchmod(&reopened, mode)
}

/// Forgives a mode that could not be set on what we have just created: nobody but its owner being allowed
/// to, that is how FAT and others without modes refuse.
fn where_kept(chmod: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match chmod {
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// The path by which the kernel finds again what `fd` holds.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Permission bits as the system call takes them. Never the set-id and sticky bits: those would be another
/// device's say over this one's privileges.
fn permissions(mode: u16) -> Mode {
    Mode::from_raw_mode((mode & 0o777).into())
}

/// Sets the modification time only. Nanoseconds out of range are refused: the kernel takes two such
/// values for "now" and "leave it".
fn timestamps(mtime: FileTime) -> rustix::io::Result<Timestamps> {
    if mtime.nanos > 999_999_999 {
        return Err(Errno::INVAL);
    }
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    })
}

/// The metadata in Dunlin's terms, mounts aside.
fn convert(stat: &Statx) -> Stat {
    let time = |t: StatxTimestamp| FileTime { secs: t.tv_sec, nanos: t.tv_nsec };
    let has_btime = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Stat {
        kind: match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        },
        size: stat.stx_size,
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        btime: has_btime.then(|| time(stat.stx_btime)),
        ino: stat.stx_ino,
        nlink: stat.stx_nlink,
        mode: stat.stx_mode & 0o7777,
    }
}
