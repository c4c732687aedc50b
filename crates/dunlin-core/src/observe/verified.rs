//! What reading a file again found: bytes that are not what they were, although nothing was done to it.

use crate::ids::ContentId;
use crate::kv::Read;
use crate::rows::{LocalRow, Position, Rows, Stamp};
use crate::state::Content;
use crate::tree::Work;

impl Work<'_> {
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
