//! The errors of the system that the model gives, by their numbers on Linux.

use std::io;

/// An error of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(i32);

pub(super) type Result<T> = std::result::Result<T, Errno>;

impl Errno {
    pub(super) const NOENT: Errno = Errno(2);
    pub(super) const IO: Errno = Errno(5);
    pub(super) const ACCES: Errno = Errno(13);
    pub(super) const BUSY: Errno = Errno(16);
    pub(super) const EXIST: Errno = Errno(17);
    pub(super) const NOTDIR: Errno = Errno(20);
    pub(super) const ISDIR: Errno = Errno(21);
    pub(super) const INVAL: Errno = Errno(22);
    pub(super) const PERM: Errno = Errno(1);
    pub(super) const NOSPC: Errno = Errno(28);
    pub(super) const NAMETOOLONG: Errno = Errno(36);
    pub(super) const NOTEMPTY: Errno = Errno(39);
    pub(super) const LOOP: Errno = Errno(40);

    /// The number.
    pub(super) fn raw(self) -> i32 {
        self.0
    }
}

impl From<Errno> for io::Error {
    fn from(e: Errno) -> io::Error {
        io::Error::from_raw_os_error(e.0)
    }
}
