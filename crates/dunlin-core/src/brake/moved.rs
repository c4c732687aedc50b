//! Files that are to go here and came to another folder of the same device within the minute: they were moved there,
//! which is no delete. The folders have trees of their own, so contents have to tell.

use super::held::each_need;
use super::young::YOUNG_MAX;
use super::{Brake, Gone, LONGEST, WINDOW};
use crate::decide::{Lack, lacks_of, locals_of};
use crate::ids::{ContentId, NodeId};
use crate::journal::Journal;
use crate::kv::{Read, View};
use crate::rows::Rows;
use crate::state::Content;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// The files that vanished here and those that are to be removed, by what they hold; at most as many as can be spared.
pub fn leaving(view: &dyn View, gone: &Gone) -> Read<BTreeMap<ContentId, Vec<NodeId>>> {
    let mut nodes: BTreeSet<NodeId> = gone.nodes().iter().take(YOUNG_MAX).copied().collect();
    each_need(view, |node| {
        if nodes.len() < YOUNG_MAX && view.need(node)?.is_some_and(|need| need.removals > 0) {
            nodes.insert(node);
        }
        Ok(())
    })?;
    let mut out = BTreeMap::<_, Vec<NodeId>>::new();
    for node in nodes {
        for id in locals_of(view, node)?.iter().filter_map(|(_, row)| row.holds()) {
            out.entry(id).or_default().push(node);
        }
    }
    Ok(out)
}

/// Which of these contents came to a folder since then, in seconds of the wall clock, or are about to come.
pub fn came(view: &dyn View, contents: &BTreeSet<ContentId>, since: i64) -> Read<BTreeSet<ContentId>> {
    let mut out = BTreeSet::new();
    for id in contents {
        for at in view.holders(*id)? {
            let Some(row) = view.local(&at)? else { continue };
            let seq = view.node(row.node)?.map_or(0, |row| row.seq);
            // Not noted yet: it was just now.
            if view.moment_of(seq)?.is_none_or(|moment| moment.wall >= since) {
                out.insert(*id);
                break;
            }
        }
    }
    each_need(view, |node| {
        for lack in lacks_of(view, node)? {
            let Lack::Create(wanted) = lack else { continue };
            if let Content::File { id, .. } = wanted.content {
                out.extend(contents.get(&id));
            }
        }
        Ok(())
    })?;
    Ok(out)
}

impl Brake {
    /// These files do not count as they go.
    pub fn spare(&mut self, now: Duration, nodes: impl IntoIterator<Item = NodeId>) {
        nodes.into_iter().for_each(|node| self.made(now, node));
    }

    /// It would trip. Whether that waits, on a device with other folders: they may not have seen yet what was moved there. So
    /// it does for [`LONGEST`], once within [`WINDOW`].
    pub fn waits_for_other_folders(&mut self, now: Duration) -> bool {
        let since = self.elsewhere.filter(|since| now < *since + WINDOW).unwrap_or(now);
        self.elsewhere = Some(since);
        now < since + LONGEST
    }

    /// It would not trip, and the next time is another one.
    pub fn is_calm(&mut self) {
        self.elsewhere = None;
    }
}
