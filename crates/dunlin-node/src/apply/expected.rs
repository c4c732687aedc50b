//! What a step expects of the disk.

use crate::disk::{FileKind, Stat};
use dunlin_core::plan::Action;
use dunlin_core::state::Mtime;

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

pub(super) fn file_time(t: Mtime) -> crate::disk::FileTime {
    crate::disk::FileTime { secs: t.secs, nanos: t.nanos }
}
