//! What was there before, version by version.

use super::{DEPTH_MAX, PAGE, top};
use crate::ids::{Dot, NodeId, ROOT};
use crate::journal::{Journal, Kind};
use crate::kv::{Read, View};
use crate::path::RelPath;
use crate::rows::Rows;
use crate::state::{Content, Mtime};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What a node was, until a change made something else of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The node.
    pub node: NodeId,
    /// The number of the change that ended it.
    pub seq: u64,
    /// Where it was.
    pub path: RelPath,
    /// What it was, and held.
    pub content: Content,
    /// Its permission bits.
    pub mode: Option<u16>,
    /// Its modification time, if it was a file.
    pub mtime: Option<Mtime>,
    /// The change that had written it.
    pub author: Dot,
    /// The change that ended it, and what that made of the node.
    pub by: (Dot, Kind),
}

/// Paths of directories, each found once.
#[derive(Default)]
struct Paths(BTreeMap<NodeId, Option<RelPath>>);

impl Paths {
    fn of(&mut self, view: &dyn View, dir: NodeId) -> Read<Option<RelPath>> {
        let (mut way, mut at) = (Vec::new(), dir);
        let mut path = loop {
            if at == ROOT {
                break Some(RelPath::root());
            }
            if let Some(known) = self.0.get(&at) {
                break known.clone();
            }
            let Some(up) = view.node(at)?.and_then(|row| row.settled(at)) else { break None };
            way.push((at, up.name));
            at = up.dir;
            if way.len() > DEPTH_MAX {
                break None;
            }
        };
        for (dir, name) in way.into_iter().rev() {
            path = path.map(|p| p.join(&name));
            self.0.insert(dir, path.clone());
        }
        Ok(path)
    }
}

/// Visits what was at or below a path and is not there any more as it was, the oldest change first.
pub fn versions(view: &dyn View, under: &RelPath, mut visit: impl FnMut(Version)) -> Read<()> {
    let (mut paths, mut from) = (Paths::default(), 0);
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last + 1;
        for (seq, row) in page {
            let Some((author, content)) = top(&row.before) else { continue };
            let Some((_, place)) = row.before.placed() else { continue };
            let Some(dir) = paths.of(view, place.value.parent)? else { continue };
            let path = dir.join(&place.value.name);
            if !path.names().starts_with(under.names()) {
                continue;
            }
            let with = super::attributes(&row.before, author, content);
            visit(Version {
                node: row.node,
                seq,
                path,
                content: content.clone(),
                mode: with.mode,
                mtime: with.mtime,
                author,
                by: (row.by, row.kind),
            });
        }
    }
}

/// Of each node that was changed since a number, the first change since: its number, and what it was.
pub fn first_changes(view: &dyn View, from: u64) -> Read<BTreeMap<NodeId, (u64, Kind)>> {
    let (mut out, mut from) = (BTreeMap::new(), from);
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(out) };
        from = last + 1;
        for (seq, row) in page {
            out.entry(row.node).or_insert((seq, row.kind));
        }
    }
}
