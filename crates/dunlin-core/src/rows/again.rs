//! Which versions were made again, and were not on this disk since: they are wanted though nobody may have them now.

use super::{Rows, Table, key};
use crate::ids::Dot;
use crate::kv::{Read, Tx};
use alloc::vec::Vec;

fn row_key(dot: Dot) -> Vec<u8> {
    key(Table::Again, &[&dot.inc.0, &dot.counter.to_be_bytes()])
}

/// Whether a version was made of what there was before, and is not known to have been on this disk since.
pub(crate) fn is_again(view: &(impl Rows + ?Sized), dot: Dot) -> Read<bool> {
    Ok(view.get(&row_key(dot))?.is_some())
}

impl Tx<'_> {
    /// A version is made of what there was before.
    pub(crate) fn put_again(&mut self, dot: Dot) {
        self.put(row_key(dot), Vec::new());
    }

    /// A version is on this disk. Only of those that this device makes any is made again.
    pub(crate) fn remove_again(&mut self, dot: Dot) -> Read<()> {
        if dot.inc == self.totals()?.inc && is_again(self, dot)? {
            self.remove(row_key(dot));
        }
        Ok(())
    }
}
