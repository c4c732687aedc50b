//! Room that is held so that a folder can be opened on a disk that is full: what a start writes is little, and without it
//! nothing could be removed there for others either.

use super::control;
use crate::disk::Disk;
use std::io;

const NAME: &str = "reserve";
/// More than is written before a folder is open, in blocks of the usual size.
const BYTES: usize = 64 << 10;
/// Where less is free nothing is held: it is others' by now.
const FROM: u64 = 16 * BYTES as u64;

/// Before a folder is opened: gives up what is held if there is hardly any other room.
pub fn give_up_reserve(disk: &dyn Disk) -> io::Result<()> {
    let path = control(&[NAME]);
    if disk.space()?.free >= BYTES as u64 || disk.stat(&path)?.is_none() {
        return Ok(());
    }
    disk.unlink(&path)
}

/// Holds room for the next start, where there is some.
pub fn hold_reserve(disk: &dyn Disk) -> io::Result<()> {
    let path = control(&[NAME]);
    if disk.space()?.free < FROM || disk.stat(&path)?.is_some_and(|s| s.size == BYTES as u64) {
        return Ok(());
    }
    let file = match disk.stat(&path)? {
        Some(_) => disk.open_write(&path)?,
        None => disk.create(&path)?,
    };
    // Bytes that no file system leaves out.
    file.write_at(&[0x5a; BYTES], 0)
}
