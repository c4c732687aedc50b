//! What nodes lack, and the counters of the index.

use super::{Rows, Table, encode, key};
use crate::ids::{Incarnation, NodeId};
use crate::kv::{Read, Tx};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// What a node still lacks on this disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NeedRow {
    /// In which round of a plan it comes.
    #[n(0)]
    pub phase: u8,
    /// The directory that must be on the disk (or, for a removal, empty) first.
    #[n(1)]
    pub waits: Option<NodeId>,
    /// Content to be fetched, in bytes.
    #[n(2)]
    pub bytes: u64,
    /// Files and links that are to be removed because they were deleted, and nobody accepted that yet.
    #[cbor(n(3), default)]
    pub removals: u32,
    /// Files here whose content is to be replaced by an edit, which nobody accepted.
    #[cbor(n(4), default)]
    pub replaces: u32,
    /// What those hold, in bytes.
    #[cbor(n(5), default)]
    pub replaced: u64,
    /// Files and links that are to be removed because they were deleted, as a person accepted.
    #[cbor(n(6), default)]
    pub leaving: u32,
}

impl NeedRow {
    /// Bytes to be fetched for what replaces something.
    fn replacing(&self) -> u64 {
        if self.replaces > 0 { self.bytes } else { 0 }
    }
}

/// Counters of the index. Sums wrap; they are taken apart only in differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// The last sequence number given to a row.
    #[n(0)]
    pub seq: u64,
    /// The last counter given to a dot of this incarnation.
    #[n(1)]
    pub counter: u64,
    /// The incarnation under which changes are made.
    #[n(2)]
    pub inc: Incarnation,
    /// The sum of the hashes of all states.
    #[n(3)]
    pub digest: [u64; 4],
    /// Files and links on this disk.
    #[n(4)]
    pub files: u64,
    /// Bytes of the files on this disk.
    #[n(5)]
    pub bytes: u64,
    /// Nodes that lack something on this disk.
    #[n(6)]
    pub need_files: u64,
    /// Bytes to be fetched.
    #[n(7)]
    pub need_bytes: u64,
    /// Conflict copies on this disk.
    #[n(8)]
    pub conflicts: u64,
    /// Whether the tree on this disk was never yet united with the members' tree: what is found is
    /// then older than everything that is known.
    #[n(9)]
    pub uniting: bool,
    /// The sum of what nodes have to be removed for (`NeedRow::removals`).
    #[cbor(n(10), default)]
    pub removals: u64,
    /// The incarnation that the sequence numbers belong to, if that is not the one under which changes are made.
    #[cbor(n(11), default)]
    pub index: Incarnation,
    /// The last counter that was given under that one.
    #[cbor(n(12), default)]
    pub index_counter: u64,
    /// The sum of the files that are to be replaced (`NeedRow::replaces`).
    #[cbor(n(13), default)]
    pub replaces: u64,
    /// What those hold, in bytes.
    #[cbor(n(14), default)]
    pub replaced: u64,
    /// What is to be fetched for nodes with such files, in bytes.
    #[cbor(n(15), default)]
    pub replacing: u64,
    /// The sum of what is to be removed as a person accepted (`NeedRow::leaving`).
    #[cbor(n(16), default)]
    pub leaving: u64,
}

impl Totals {
    /// The incarnation that the sequence numbers belong to, and the last counter given under it.
    pub fn of_index(&self) -> (Incarnation, u64) {
        if self.is_confirmed() { (self.inc, self.counter) } else { (self.index, self.index_counter) }
    }

    /// Files and links that are to be removed because they were deleted, accepted or not.
    pub fn to_delete(&self) -> u64 {
        self.removals.saturating_add(self.leaving)
    }

    /// Whether changes are made under the incarnation that the sequence numbers belong to.
    pub fn is_confirmed(&self) -> bool {
        self.index == Incarnation::default()
    }
}

impl Tx<'_> {
    /// Writes what a node lacks, with its queue and the totals.
    pub(crate) fn put_need(&mut self, node: NodeId, row: Option<&NeedRow>) -> Read<()> {
        let old = self.need(node)?;
        if old.as_ref() == row {
            return Ok(());
        }
        let mut totals = self.totals()?;
        let queue = |n: &NeedRow| match n.waits {
            Some(dir) => key(Table::Waiting, &[&dir.0, &node.0]),
            None => key(Table::Ready, &[&[n.phase], &node.0]),
        };
        if let Some(old) = &old {
            self.remove(queue(old));
            totals.need_files -= 1;
            totals.need_bytes = totals.need_bytes.wrapping_sub(old.bytes);
            totals.removals = totals.removals.wrapping_sub(old.removals.into());
            totals.leaving = totals.leaving.wrapping_sub(old.leaving.into());
            totals.replaces = totals.replaces.wrapping_sub(old.replaces.into());
            totals.replaced = totals.replaced.wrapping_sub(old.replaced);
            totals.replacing = totals.replacing.wrapping_sub(old.replacing());
        }
        match row {
            Some(row) => {
                self.put(queue(row), Vec::new());
                self.put(key(Table::Need, &[&node.0]), encode(row));
                totals.need_files += 1;
                totals.need_bytes = totals.need_bytes.wrapping_add(row.bytes);
                totals.removals = totals.removals.wrapping_add(row.removals.into());
                totals.leaving = totals.leaving.wrapping_add(row.leaving.into());
                totals.replaces = totals.replaces.wrapping_add(row.replaces.into());
                totals.replaced = totals.replaced.wrapping_add(row.replaced);
                totals.replacing = totals.replacing.wrapping_add(row.replacing());
            }
            None => self.remove(key(Table::Need, &[&node.0])),
        }
        self.put_totals(&totals);
        Ok(())
    }

    /// Writes the counters.
    pub fn put_totals(&mut self, totals: &Totals) {
        self.put(alloc::vec![Table::Totals as u8], encode(totals));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_before_removals_were_counted_are_read() {
        // [phase, waits, bytes]
        let need: NeedRow = super::super::decode(&[0x83, 3, 0xf6, 7], "need").unwrap();
        assert_eq!(need, NeedRow { phase: 3, bytes: 7, ..NeedRow::default() });
        let mut old = encode(&Totals { files: 5, uniting: true, ..Totals::default() });
        assert_eq!(old[0], 0x80 | 17);
        // [… removals, an incarnation of 16 bytes, its counter, three of what is replaced, and what is leaving]
        old.truncate(old.len() - 1 - 17 - 1 - 3 - 1);
        old[0] = 0x80 | 10;
        let totals: Totals = super::super::decode(&old, "totals").unwrap();
        assert_eq!((totals.files, totals.uniting, totals.removals), (5, true, 0));
    }
}
