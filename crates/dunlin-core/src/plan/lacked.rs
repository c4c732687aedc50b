//! Which contents are lacked: what only the history has of them may not yield.

use crate::ids::{ContentId, NodeId};
use crate::kv::{Fault, Read, View};
use crate::path::RelPath;
use crate::rows::{Rows, Table, after};
use crate::state::{Content, Mtime};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// A content that is needed and not staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The content.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// The node that needs it.
    pub node: NodeId,
    /// Where it will show (for people).
    pub path: RelPath,
    /// Files on this disk that hold it.
    pub holders: Vec<RelPath>,
    /// The number of the peer that told of it, or 0.
    pub from: u32,
    /// The permission bits and the time that the file is to have, if nothing changes that.
    pub looks: (u16, Mtime),
}

/// Nodes looked at together.
const PAGE: usize = 1024;

/// Contents that nodes lack, by how their ids begin: as much as the name of what holds one tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacked(BTreeSet<[u8; 8]>);

fn beginning(content: &ContentId) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&content.0[..8]);
    out
}

impl Lacked {
    /// All versions of every node that lacks anything. Some of them may be in place already; none that has yet to
    /// come, or come back, is left out.
    ///
    /// # Errors
    /// Those of the index.
    pub fn of(view: &dyn View) -> Read<Lacked> {
        let (mut from, mut out) = (vec![Table::Need as u8], BTreeSet::new());
        loop {
            let page = view.range(&from, &after(&[Table::Need as u8]), PAGE)?;
            let Some((end, _)) = page.last() else { return Ok(Lacked(out)) };
            from = [&end[..], &[0]].concat();
            for (key, _) in &page {
                let node = key.get(1..).and_then(NodeId::from_slice);
                let node = node.ok_or_else(|| Fault::damage("a need cannot be read"))?;
                let Some(row) = view.node(node)? else { continue };
                let contents = row.state.versions().into_iter().filter_map(|(_, content)| match content {
                    Content::File { id, .. } => Some(beginning(id)),
                    _ => None,
                });
                out.extend(contents);
            }
        }
    }

    /// Whether a content whose id begins so is lacked.
    pub fn has(&self, beginning: [u8; 8]) -> bool {
        self.0.contains(&beginning)
    }
}

impl FromIterator<ContentId> for Lacked {
    fn from_iter<I: IntoIterator<Item = ContentId>>(contents: I) -> Lacked {
        Lacked(contents.into_iter().map(|content| beginning(&content)).collect())
    }
}
