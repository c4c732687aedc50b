//! What a finished step is recorded with.

use crate::disk::{Disk, FileKind, Stat};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Outcome, Step};
use dunlin_core::rows::{LocalRow, Stamp};
use dunlin_core::state::Content;
use std::io;

/// The stamps of what a finished step left on the disk. If somebody was at it since, the stamp is the
/// one of what was put there, so that the next look sees the difference: the index must never hold
/// our content with a user's stamp.
pub(super) fn stamps(disk: &dyn Disk, step: &Step, placed: Option<&Stamp>) -> io::Result<Outcome> {
    let ours = |path: &RelPath, expected: &Stamp| -> io::Result<Stamp> {
        let now = disk.stat(path)?.map(|s| s.stamp());
        Ok(now.filter(|now| same_bytes(now, expected)).unwrap_or(*expected))
    };
    // Another directory in its place is a user's doing, and to be seen by the next look.
    let of_dir = |expected: &Stamp| -> io::Result<Stamp> {
        let now = disk.stat(&step.path)?.map(|s| s.stamp());
        Ok(now.filter(|now| now.is_same_inode(expected)).unwrap_or(*expected))
    };
    let is_dir = |row: &LocalRow| row.content == Content::Dir;
    Ok(match &step.action {
        Action::Remove { .. } => Outcome::Done(Stamp::default(), None),
        Action::MakeDir { .. } => Outcome::Done(of_dir(placed.unwrap_or(&Stamp::default()))?, None),
        Action::Place { .. } => Outcome::Done(ours(&step.path, placed.unwrap_or(&Stamp::default()))?, None),
        Action::Meta { row, .. } if is_dir(row) => Outcome::Done(of_dir(&row.stamp)?, None),
        Action::Meta { row, mtime, .. } => {
            let expected = Stamp { mtime: mtime.unwrap_or(row.stamp.mtime), ..row.stamp };
            Outcome::Done(ours(&step.path, placed.unwrap_or(&expected))?, None)
        }
        Action::Move { from_path, row, swap, .. } => {
            let of = |path: &RelPath, row: &LocalRow| {
                if is_dir(row) { Ok(row.stamp) } else { ours(path, &row.stamp) }
            };
            let there = swap.as_ref().map(|other| of(from_path, other)).transpose()?;
            Outcome::Done(of(&step.path, row)?, there)
        }
    })
}

/// Whether `s` is the inode of `row`, not written to since.
pub(super) fn is_it(row: &LocalRow, s: &Stat) -> bool {
    let now = s.stamp();
    let kind = match row.content {
        Content::Dir => s.kind == FileKind::Dir,
        Content::File { .. } => s.kind == FileKind::File,
        Content::Link(_) => s.kind == FileKind::Link,
        Content::Unknown { .. } => false,
    };
    kind && now.is_same_inode(&row.stamp) && (row.content == Content::Dir || same_bytes(&row.stamp, &now))
}

/// A rename changes the ctime, so that it is no evidence afterwards.
pub(super) fn same_bytes(a: &Stamp, b: &Stamp) -> bool {
    (a.ino, a.size, a.mtime) == (b.ino, b.size, b.mtime)
}
