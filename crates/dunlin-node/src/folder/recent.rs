//! Small contents of the last moments, in memory: those that changed here, so that they can be served even if they change
//! again, and those that came with the rows that tell of them, so that they need not be asked for.

use dunlin_core::ids::ContentId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const RECENT_BYTES: usize = 8 << 20;

struct Held {
    bytes: Arc<[u8]>,
    /// They were read from this disk.
    own: bool,
}

/// Contents by their hash; whoever puts one has verified it.
#[derive(Default)]
pub(crate) struct Recent {
    by_id: BTreeMap<ContentId, Held>,
    order: VecDeque<ContentId>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn put(&mut self, id: ContentId, bytes: Vec<u8>, own: bool) {
        if let Some(held) = self.by_id.get_mut(&id) {
            held.own |= own;
            return;
        }
        self.bytes += bytes.len();
        self.by_id.insert(id, Held { bytes: bytes.into(), own });
        self.order.push_back(id);
        while self.bytes > RECENT_BYTES {
            let Some(old) = self.order.pop_front() else { return };
            self.bytes -= self.by_id.remove(&old).map_or(0, |held| held.bytes.len());
        }
    }

    pub(crate) fn get(&self, id: &ContentId) -> Option<Arc<[u8]>> {
        self.by_id.get(id).map(|held| held.bytes.clone())
    }

    /// The same of what was read from this disk. What others sent, they send to everybody themselves.
    pub(crate) fn own(&self, id: &ContentId) -> Option<Arc<[u8]>> {
        self.by_id.get(id).filter(|held| held.own).map(|held| held.bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_what_others_sent_is_not_told_on() {
        let id = |n: u8| ContentId([n; 32]);
        let mut recent = Recent::default();
        recent.put(id(1), vec![1; RECENT_BYTES / 2], true);
        recent.put(id(2), vec![2; RECENT_BYTES / 2], false);
        assert!(recent.own(&id(1)).is_some() && recent.own(&id(2)).is_none() && recent.get(&id(2)).is_some());
        recent.put(id(2), Vec::new(), true);
        assert!(recent.own(&id(2)).is_some());
        recent.put(id(3), vec![3], true);
        assert!(recent.get(&id(1)).is_none() && recent.get(&id(3)).is_some());
    }
}
