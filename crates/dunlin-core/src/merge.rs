//! What other devices say of a node, merged into what is known here.

use crate::codec::{STATE_MAX, encode_state};
use crate::ids::NodeId;
use crate::kv::Read;
use crate::rows::Rows;
use crate::state::State;
use crate::tree::Work;

impl Work<'_> {
    /// Merges a state heard from the peer with this number. Returns whether anything was new. What
    /// would grow beyond all measure is left alone: it could not be passed on any more.
    ///
    /// What is on this disk was applied from the state as it was before: the rows remember that, so
    /// that a later local change replaces nothing that was merely heard of.
    pub fn hear(&mut self, node: NodeId, heard: &State, from: u32) -> Read<bool> {
        let old = self.tx.node(node)?.map(|r| r.state).unwrap_or_default();
        let merged = old.merge(heard);
        if merged == old || encode_state(&merged).len() > STATE_MAX {
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
