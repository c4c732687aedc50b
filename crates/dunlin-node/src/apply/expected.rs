//! What a step expects of the disk.

use crate::disk::{FileKind, Stat};
use dunlin_core::plan::Action;
use dunlin_core::rows::{LocalRow, Stamp};
use dunlin_core::state::{Content, Mtime};

/// Whether a step needs its place free.
pub(super) fn wants_room(action: &Action) -> bool {
    matches!(
        action,
        Action::MakeDir { .. } | Action::Place { replaces: None, .. } | Action::Move { swap: None, .. }
    )
}

/// Whether an entry is of a kind that is not synced.
pub(super) fn is_left_alone(s: &Stat) -> bool {
    matches!(s.kind, FileKind::Other | FileKind::Mount)
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

pub(super) fn file_time(t: Mtime) -> crate::disk::FileTime {
    crate::disk::FileTime { secs: t.secs, nanos: t.nanos }
}
