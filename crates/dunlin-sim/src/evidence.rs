//! A delete has evidence: what a device tells the others to be gone, its users had in hand, and removed or replaced
//! or moved away; or it was lost with the machine.

use crate::ledger::id_of_link;
use crate::users::content_of;
use crate::world::{World, after, position};
use dunlin_core::ids::ContentId;
use dunlin_core::kv::{Changes, Read, View};
use dunlin_core::rows::Rows;
use dunlin_core::state::Content;

/// What the ledger counts of a content.
pub(crate) fn counted(content: &Content) -> Option<ContentId> {
    match content {
        Content::File { id, .. } => Some(*id),
        Content::Link(text) => Some(id_of_link(text)),
        _ => None,
    }
}

impl World {
    /// With a commit something that was on this disk becomes a delete by this device.
    pub(crate) fn check_evidence(&mut self, device: usize, before: &dyn View, changes: &Changes) -> Read<()> {
        let vanished = |(k, v): &(&Vec<u8>, &Option<Vec<u8>>)| k.first() == Some(&b'l') && v.is_none();
        if !changes.iter().any(|c| vanished(&c)) {
            return Ok(());
        }
        let after = after(before, changes);
        let totals = after.totals()?;
        let own = [totals.inc, totals.of_index().0];
        for (key, _) in changes.iter().filter(vanished) {
            let Some(at) = position(key) else { continue };
            let Some(row) = before.local(&at)? else { continue };
            let Some(id) = counted(&row.content) else { continue };
            let (Some(was), Some(is)) = (before.node(row.node)?, after.node(row.node)?) else { continue };
            let mut gone = is.state.gone.entries().iter().map(|(dot, _)| dot);
            let told = gone.any(|dot| own.contains(&dot.inc) && was.state.gone.get(*dot).is_none());
            // Of a file in a directory that is another one now, what is told is that it is in that one.
            let shows = || self.machines[device].disk.visible().values().any(|t| content_of(t) == Some(id));
            if told && !is.state.alive() && !self.ledger.let_go_on(device, &id) && !shows() {
                let text = self.ledger.0.get(&id).map(|e| e.text.clone()).unwrap_or_default();
                let what = format!("device {device} tells that {:?} is gone: {text:?}", at.name);
                self.breaks("a delete has evidence", what);
            }
        }
        Ok(())
    }
}
