//! What an index that was rolled back says of the disk, and is no evidence any more.

use super::Observation;
use crate::kv::Read;
use crate::life::own;
use crate::rows::Rows;
use crate::tree::Work;
use alloc::vec::Vec;

impl Work<'_> {
    /// While an index that was rolled back unites, what it says of the disk may be long past: where that is not so any
    /// more, it is no evidence of an edit, a move or a delete. What is there is then met as for the first time.
    pub(super) fn forget_stale(&mut self, batch: &[Observation]) -> Read<()> {
        if !self.tx.totals()?.uniting {
            return Ok(());
        }
        let incs = own(&self.tx)?;
        for o in batch {
            let Some(row) = self.tx.local(&o.at)? else { continue };
            let own = row.dot.is_some_and(|dot| incs.contains(&dot.inc));
            if own || o.seen.content().is_some_and(|content| content == row.content) {
                continue;
            }
            let mut rows = Vec::new();
            self.with_all_below(&o.at, row, &mut Vec::new(), &mut rows)?;
            for (_, at, _) in rows {
                self.set_local(&at, None)?;
            }
        }
        Ok(())
    }
}
