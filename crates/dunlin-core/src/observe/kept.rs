//! What of an observation says something: a disk may keep no modes, and times only roughly.

use super::Seen;
use crate::change::Attributes;
use crate::rows::LocalRow;
use crate::state::Mtime;
use crate::tree::Work;

impl Work<'_> {
    /// Mode and time as found, as far as this disk keeps them.
    pub(super) fn attributes_of(&self, seen: &Seen) -> Attributes {
        let mut attributes = seen.attributes();
        attributes.mode = attributes.mode.filter(|_| self.keeps.modes);
        attributes
    }

    /// The mode of what was seen; where the disk keeps none, `known`.
    pub(super) fn mode_of(&self, seen: &Seen, known: u16) -> u16 {
        if self.keeps.modes || matches!(seen, Seen::Link(..)) { seen.mode() } else { known }
    }

    /// The time of what was seen. While the disk shows what it made of the one that it was given, it is that one.
    pub(super) fn mtime_of(&self, seen: &Seen, row: &LocalRow) -> Mtime {
        let is_kept = !self.keeps.times() && seen.mtime() == row.stamp.mtime;
        if is_kept { row.mtime } else { seen.mtime() }
    }
}
