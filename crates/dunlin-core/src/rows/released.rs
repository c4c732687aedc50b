//! Which deletes were accepted by a person, and so do not count at the brake.

use super::{Rows, Table, after, bad, key};
use crate::ids::{Dot, DotRange, Incarnation};
use crate::kv::{Read, Tx, View};
use alloc::vec::Vec;

fn row_key(range: &DotRange) -> Vec<u8> {
    key(Table::Released, &[&range.inc.0, &range.first.to_be_bytes(), &range.last.to_be_bytes()])
}

fn range_of(key: &[u8]) -> Option<DotRange> {
    let number = |at: usize| key.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let inc = Incarnation::from_slice(key.get(1..17)?)?;
    Some(DotRange { inc, first: number(17)?, last: number(25)? })
}

fn ranges(view: &(impl View + ?Sized), prefix: &[u8]) -> Read<Vec<DotRange>> {
    let pairs = view.range(prefix, &after(prefix), usize::MAX)?;
    pairs.iter().map(|(k, _)| range_of(k).ok_or_else(|| bad("release"))).collect()
}

/// The changes whose deletes were accepted, sorted.
pub(crate) fn all_released(view: &(impl Rows + ?Sized)) -> Read<Vec<DotRange>> {
    ranges(view, &[Table::Released as u8])
}

/// Whether the delete `dot` was accepted.
pub(crate) fn is_released(view: &(impl Rows + ?Sized), dot: Dot) -> Read<bool> {
    Ok(ranges(view, &key(Table::Released, &[&dot.inc.0]))?.iter().any(|r| r.covers(dot)))
}

impl Tx<'_> {
    pub(crate) fn put_released(&mut self, range: &DotRange) {
        self.put(row_key(range), Vec::new());
    }

    pub(crate) fn remove_released(&mut self, range: &DotRange) {
        self.remove(row_key(range));
    }
}
