//! What is found as it should be: a step of ours that was not recorded, or the same done by a person.

use super::{Observation, Observed, Seen, could_be, origins};
use crate::ids::PARKED;
use crate::kv::Read;
use crate::names;
use crate::rows::{LocalRow, Position, Rows};
use crate::state::Content;
use crate::tree::Work;

impl Work<'_> {
    /// Takes over what is where it should be, before anything else of a batch changes what should be there: what a
    /// program that was killed had placed is of the node that it was placed for, wherever a user moved that node since.
    pub(super) fn take_over(&mut self, batch: &[Observation], out: &mut Observed) -> Read<()> {
        for o in batch.iter().filter(|o| o.seen != Seen::Absent && o.at.dir != PARKED) {
            let came = || origins(&self.tx, o, |row| could_be(row, &o.seen));
            if self.tx.local(&o.at)?.is_some() || !came()?.is_empty() {
                continue;
            }
            if let Some(row) = self.as_it_should_be(&o.at, &o.seen)? {
                if row.content == Content::Dir {
                    out.new_dirs.push(row.node);
                }
                self.set_local(&o.at, Some(&row))?;
            }
        }
        Ok(())
    }

    /// The row of what was seen where nothing of ours was, if just that should be there.
    fn as_it_should_be(&self, at: &Position, seen: &Seen) -> Read<Option<LocalRow>> {
        let Some(content) = seen.content() else { return Ok(None) };
        let Some((node, w)) = names::visible_at(&self.tx, at)? else { return Ok(None) };
        if w.content != content || self.is_elsewhere(node, &w)? {
            return Ok(None);
        }
        Ok(Some(LocalRow {
            node,
            dot: w.dot,
            seen: self.tx.node(node)?.map(|n| n.state.seen),
            mode: self.mode_of(seen, names::default_mode(&content)),
            ..LocalRow::of(seen, content)
        }))
    }
}
