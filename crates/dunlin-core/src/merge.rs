//! What other devices say of a node, merged into what is known here.

use crate::codec::{STATE_MAX, encode_state};
use crate::ids::NodeId;
use crate::kv::Read;
use crate::rows::Rows;
use crate::state::State;
use crate::tree::Work;

/// The most versions of one node that stand beside each other, and the most placements, modes, times or deletes.
pub const BESIDE_MAX: usize = 100;
/// The most incarnations that changed one node. What a delete adds is as long as their list, and has room beside it.
pub const SEEN_MAX: usize = 1000;

fn fits(s: &State) -> bool {
    let most = [s.place.entries().len(), s.content.entries().len(), s.mode.entries().len()]
        .into_iter()
        .chain([s.mtime.entries().len(), s.gone.entries().len()])
        .max();
    let seen = s.seen.entries().len();
    most <= Some(BESIDE_MAX) && seen <= SEEN_MAX && encode_state(s).len() <= STATE_MAX
}

impl Work<'_> {
    /// Merges a state heard from the peer with this number. Returns whether anything was new. What is larger than
    /// any state may be is left alone: it could not be passed on. If only both together are, as two of a member that
    /// lies may be, every device keeps the same one of them.
    ///
    /// What is on this disk was applied from the state as it was before: the rows remember that, so
    /// that a later local change replaces nothing that was merely heard of.
    pub fn hear(&mut self, node: NodeId, heard: &State, from: u32) -> Read<bool> {
        let old = self.tx.node(node)?.map(|r| r.state).unwrap_or_default();
        let mut merged = old.merge(heard);
        if merged != old && !fits(&merged) {
            merged = if fits(heard) && has_seen_more(heard, &old) { heard.clone() } else { old.clone() };
        }
        if merged == old {
            return Ok(false);
        }
        self.applied_until_now(node, &old)?;
        let from = if merged == *heard { from } else { 0 };
        self.put_state(node, merged, from)?;
        Ok(true)
    }

    /// What is on this disk of a node was applied from its state as it is: what changes that without coming from
    /// this disk has it remembered first.
    pub(crate) fn applied_until_now(&mut self, node: NodeId, state: &State) -> Read<()> {
        for (at, mut local) in crate::decide::locals_of(&self.tx, node)? {
            if local.seen.is_none() {
                local.seen = Some(state.seen.clone());
                self.tx.put_local(&at, Some(&local))?;
            }
        }
        Ok(())
    }
}

/// Of two states the one that is kept where only one can be: the one that has seen more.
fn has_seen_more(state: &State, other: &State) -> bool {
    let weight = |s: &State| {
        let entries = s.seen.entries();
        (entries.len(), entries.iter().map(|e| u128::from(e.1)).sum::<u128>(), encode_state(s))
    };
    weight(state) > weight(other)
}
