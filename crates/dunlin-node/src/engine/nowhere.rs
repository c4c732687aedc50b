//! Contents that nobody has who is connected.

use super::Engine;
use dunlin_core::ids::{ContentId, NodeId};
use dunlin_core::kv::Read;
use dunlin_core::tree::Work;

/// After so many vain attempts a content that nobody connected holds is named in status.
const NOWHERE_TRIES: u32 = 4;

impl Engine {
    /// A content is wanted that neither this disk nor anybody connected has.
    pub(super) fn nowhere(&mut self, node: NodeId, content: ContentId) -> Read<()> {
        let connected = self.host.connected();
        let tries = self.backoff.get(&node).map_or(0, |b| b.tries);
        let why = if connected.is_empty() {
            self.damaged.contains(&node).then_some("no other device is connected")
        } else if tries >= NOWHERE_TRIES {
            // Everybody was asked, again and again; and what is here was looked at.
            let at_rest = !self.scanning && self.dirty.is_empty() && self.dirs.is_empty();
            if at_rest && self.host.is_everybody(&connected) && self.withdraw(node, content)? {
                return Ok(());
            }
            Some("no connected device holds this version (any more)")
        } else {
            None
        };
        if let Some(why) = why {
            self.troubles.insert(node, (self.path_of_node(node), why.into()));
        }
        Ok(())
    }

    fn withdraw(&mut self, node: NodeId, content: ContentId) -> Read<bool> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        let withdrawn = work.withdraw(node, content)?;
        if withdrawn {
            self.commit(work)?;
            self.backoff.remove(&node);
            self.troubles.remove(&node);
        }
        Ok(withdrawn)
    }
}
