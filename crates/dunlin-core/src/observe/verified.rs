//! Bytes that are not what they were, although nothing was done to them: what reading a file again found, and what
//! a disk that does not keep its word brings back after a crash.

use super::Seen;
use crate::ids::ContentId;
use crate::kv::Read;
use crate::rows::{LocalRow, Position, Rows, Stamp};
use crate::state::Content;
use crate::tree::Work;

impl Work<'_> {
    /// The program has just started, and looks at all for the first time.
    #[must_use]
    pub fn after_start(mut self) -> Self {
        self.starting = true;
        self
    }

    /// Whether a file has lost all that it held, and nothing was done to it since it was looked at: who empties a file gives
    /// it new times. After a crash some disks bring files back so, though they had said that all was durable.
    pub(super) fn came_back_empty(&self, row: &LocalRow, seen: &Seen) -> Read<bool> {
        let Seen::File(_, _, stamp) = seen else { return Ok(false) };
        let held_something = matches!(row.content, Content::File { size: 1.., .. });
        let untouched = stamp.mtime == row.stamp.mtime && stamp.ctime <= row.stamp.ctime;
        let lost = held_something && stamp.size == 0 && untouched && stamp.is_same_inode(&row.stamp);
        // A write of the same tick may have that stamp too.
        Ok(lost && self.starting && self.tx.doubt()?.is_none_or(|doubt| !doubt.is_about(stamp.ctime)))
    }

    pub(super) fn lost_its_bytes(&mut self, at: &Position, row: LocalRow, seen: &Seen) -> Read<()> {
        let damaged = if let Seen::File(found, ..) = seen { Some(*found) } else { None };
        self.attributes_changed(at, LocalRow { damaged, ..row }, seen)
    }

    /// The file at `at`, untouched since `stamp` was taken of it, holds `found`. If that is not its
    /// content, it is damaged: a state of this disk, of which nothing is told, and a lack. Returns whether it
    /// is damaged; `None` if the index knows the file otherwise by now.
    pub fn verified(&mut self, at: &Position, stamp: &Stamp, found: ContentId) -> Read<Option<bool>> {
        let Some(row) = self.tx.local(at)?.filter(|row| row.stamp == *stamp) else { return Ok(None) };
        let Content::File { id, .. } = row.content else { return Ok(None) };
        let damaged = (found != id).then_some(found);
        self.set_local(at, Some(&LocalRow { damaged, ..row }))?;
        Ok(Some(damaged.is_some()))
    }
}
