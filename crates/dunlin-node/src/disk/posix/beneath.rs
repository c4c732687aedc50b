//! Opening what lies below a root, and nothing else.

use dunlin_core::path::Name;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::{Errno, Result, retry_on_intr};
use std::path::Path;

/// How often `openat2` is asked again when a rename elsewhere disturbed it (EAGAIN).
const OPENAT2_TRIES: u32 = 64;

/// The longest path handed to the kernel in one piece; `PATH_MAX` is 4,096 with the final NUL. Deeper
/// paths are opened in several steps.
const PIECE_MAX: usize = 4000;

/// `STATX_ATTR_MOUNT_ROOT` and the mount id came with Linux 5.8; without the latter `st_dev` decides.
const STAT_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// A directory, and the ways to open what is below it.
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
    dev: (u32, u32),
    mount: Option<u64>,
    /// `openat2` is missing (before Linux 5.6) or forbidden (old seccomp filters of containers).
    walk: bool,
}

/// A directory that holds the final component of a path.
pub(super) enum Parent<'a> {
    /// The root itself, which is open already.
    Root(BorrowedFd<'a>),
    /// A directory below it.
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Root(fd) => *fd,
            Parent::Below(fd) => fd.as_fd(),
        }
    }
}

impl Beneath {
    /// Opens the root. Its own path may lead through links: the user chose it.
    pub(super) fn open(path: &Path) -> Result<Beneath> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| fs::open(path, flags, Mode::empty()))?;
        let stat = stat_fd(&root, StatxFlags::MNT_ID)?;
        let mut beneath = Beneath { root, dev: dev(&stat), mount: mount(&stat), walk: false };
        // EPERM is what old container runtimes answer to system calls they do not know.
        match beneath.open_at(&[], OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => {}
            Err(Errno::NOSYS | Errno::PERM) => beneath.walk = true,
            Err(e) => return Err(e),
        }
        Ok(beneath)
    }

    /// The same, resolving component by component as if `openat2` were missing.
    #[cfg(test)]
    pub(super) fn open_walking(path: &Path) -> Result<Beneath> {
        Ok(Beneath { walk: true, ..Beneath::open(path)? })
    }

    /// The root's own descriptor.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether a directory with this metadata belongs to another file system than the root. Asked of
    /// directories only: overlayfs gives the device of a lower layer to what is not a directory.
    pub(super) fn is_foreign(&self, stat: &Statx) -> bool {
        dev(stat) != self.dev
    }

    /// Opens the directory that holds the last of `names`, and returns that last name. The root is
    /// held by no directory below the root: EBUSY.
    pub(super) fn parent<'a, 'b>(&'a self, names: &'b [Name]) -> Result<(Parent<'a>, &'b Name)> {
        let (last, parents) = names.split_last().ok_or(Errno::BUSY)?;
        let parent = match parents {
            [] => Parent::Root(self.root.as_fd()),
            names => Parent::Below(self.open_at(names, OFlags::PATH | OFlags::DIRECTORY)?),
        };
        Ok((parent, last))
    }

    /// Opens `names` below the root with `flags`. No component may be a link or another mount; the last
    /// one may be a link only where `O_PATH | O_NOFOLLOW` asks for the link itself.
    pub(super) fn open_at(&self, names: &[Name], flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.walk {
            return self.walk(names, flags);
        }
        let mut held: Option<OwnedFd> = None;
        let mut path = Vec::with_capacity(256);
        for name in names {
            if path.len() + name.as_bytes().len() > PIECE_MAX {
                let at = held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                held = Some(openat2(at, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
                path.clear();
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        if path.is_empty() {
            path.push(b'.');
        }
        openat2(held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd), &path, flags)
    }

    /// What `open_at` does, without `openat2`.
    fn walk(&self, names: &[Name], flags: OFlags) -> Result<OwnedFd> {
        let Some((last, parents)) = names.split_last() else {
            return retry_on_intr(|| fs::openat(&self.root, c".", flags, Mode::empty()));
        };
        let mut held: Option<OwnedFd> = None;
        for name in parents {
            let at = held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            held = Some(self.step(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
        }
        self.step(held.as_ref().map_or(self.root.as_fd(), AsFd::as_fd), last, flags)
    }

    fn step(&self, at: BorrowedFd<'_>, name: &Name, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW;
        let fd = retry_on_intr(|| fs::openat(at, name.as_bytes(), flags, Mode::empty()))?;
        let stat = stat_fd(&fd, StatxFlags::TYPE | StatxFlags::MNT_ID)?;
        let other_mount = match (mount(&stat), self.mount) {
            (Some(a), Some(b)) => a != b,
            _ => is_dir(&stat) && self.is_foreign(&stat),
        };
        if other_mount { Err(Errno::XDEV) } else { Ok(fd) }
    }
}

/// One call of `openat2` that stays beneath `at`.
fn openat2(at: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let mut tries = 0;
    loop {
        match fs::openat2(at, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            // A file under a lease says EAGAIN to O_NONBLOCK as well, and goes on saying it: hence the bound.
            Err(Errno::AGAIN) if tries < OPENAT2_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// The metadata of an open descriptor, `O_PATH` ones included.
pub(super) fn stat_fd(fd: impl AsFd, more: StatxFlags) -> Result<Statx> {
    let fd = fd.as_fd();
    retry_on_intr(|| fs::statx(fd, c"", AtFlags::EMPTY_PATH, STAT_MASK | more))
}

/// The metadata of the entry `name` of a directory: the link itself, and an unmounted automount point as it is.
pub(super) fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<Statx> {
    let dir = dir.as_fd();
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    retry_on_intr(|| fs::statx(dir, name, flags, STAT_MASK))
}

/// Whether this is a directory.
pub(super) fn is_dir(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
}

fn dev(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn mount(stat: &Statx) -> Option<u64> {
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    known.then_some(stat.stx_mnt_id)
}
