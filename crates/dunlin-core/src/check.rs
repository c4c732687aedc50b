//! Whether the rows of an index add up: damage that no row tells of by itself, as when one lies under another key.

use crate::ids::NodeId;
use crate::kv::{Fault, Read, View};
use crate::rows::Rows;
use crate::tree::add_hash;
use alloc::vec::Vec;

/// Rows that are read at a time.
const PAGE: usize = 1024;
/// After the last key: the kinds of rows are letters.
const END: &[u8] = &[0x7f];

/// Reads all rows of an index.
///
/// # Errors
/// One of them cannot be read, the states do not amount to the digest, or their numbers do not lead to them: damage.
pub fn check(view: &dyn View) -> Read<()> {
    let totals = view.totals()?;
    let (mut digest, mut numbered, mut numbers) = ([0; 4], 0_u64, 0_u64);
    let mut from = Vec::new();
    loop {
        let page = view.range(&from, END, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &page {
            match key.split_first() {
                Some((b'n', id)) => {
                    let id = NodeId(id.try_into().map_err(|_| Fault::damage("a node without an id"))?);
                    let Some(row) = view.node(id)? else { continue };
                    if !row.state.is_blank() {
                        add_hash(&mut digest, id, &row.state, true);
                    }
                    numbered += u64::from(row.seq > 0);
                }
                Some((b's', seq)) => {
                    let leads = node_of(value).map(|id| view.node(id)).transpose()?.flatten();
                    let seq = seq.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
                    if seq > totals.seq || leads.is_none_or(|row| row.seq != seq) {
                        return Err(Fault::damage("a number leads to no row"));
                    }
                    numbers += 1;
                }
                _ => {}
            }
        }
    }
    if digest == totals.digest && numbers == numbered {
        Ok(())
    } else {
        Err(Fault::damage("the rows of the index do not add up"))
    }
}

fn node_of(value: &[u8]) -> Option<NodeId> {
    value.try_into().ok().map(NodeId)
}
