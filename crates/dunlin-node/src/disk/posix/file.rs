//! Open files.

use super::{convert, stat_fd, timestamps};
use crate::disk::{FileTime, ReadFile, Stat, WriteFile};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Mode, StatxFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A regular file, open.
pub(super) struct PosixFile(File);

impl PosixFile {
    pub(super) fn new(fd: OwnedFd) -> PosixFile {
        PosixFile(File::from(fd))
    }
}

impl ReadFile for PosixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(convert(&stat_fd(&self.0, StatxFlags::empty())?))
    }

    fn forget_cached(&self) {
        // Advice: where it is not taken, memory is read, as at any other time.
        let _ = fs::fadvise(&self.0, 0, None, fs::Advice::DontNeed);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

impl WriteFile for PosixFile {
    fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        // The kernel counts in units of 512 bytes, whatever the file system does.
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn share(&self, from: &dyn ReadFile) -> bool {
        // Whatever hinders it (another file system, one that cannot, no room for what it notes), it can be copied.
        from.fd().is_some_and(|from| fs::ioctl_ficlone(&self.0, from).is_ok())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn set_mode(&self, mode: u16) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode((mode & 0o777).into()))?)
    }

    fn set_mtime(&self, mtime: FileTime) -> io::Result<()> {
        Ok(fs::futimens(&self.0, &timestamps(mtime)?)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
