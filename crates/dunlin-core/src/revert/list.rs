//! What was there before, version by version.

use super::then::{Dirs, Then, each_change};
use super::{DEPTH_MAX, top};
use crate::ids::{Dot, NodeId, ROOT};
use crate::journal::{ChangeRow, Kind};
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
    /// Where that is by now, if directories above it were moved since; `None` if it lies elsewhere than asked for.
    pub here: Option<RelPath>,
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

/// Visits what was at or below a path and is not there any more as it was, the oldest change first: by the paths of then,
/// and by those that directories have by now.
pub fn versions(view: &dyn View, under: &RelPath, mut visit: impl FnMut(Version)) -> Read<()> {
    let (mut paths, mut dirs) = (Paths::default(), Dirs::read(view)?);
    each_change(view, 0, |seq, row| {
        let Some((_, place)) = row.before.placed() else { return Ok(()) };
        let then = dirs.path(view, &place.value, seq)?;
        if let Some(away) = moved_with(view, under, seq, &row, then.as_ref())? {
            visit(away);
        }
        let Some((author, content)) = top(&row.before) else { return Ok(()) };
        let here = paths.of(view, place.value.parent)?.map(|dir| dir.join(&place.value.name));
        let is_under = |path: &RelPath| path.names().starts_with(under.names());
        let (then, here) = (then.filter(is_under), here.filter(is_under));
        let Some(path) = then.or_else(|| here.clone()) else { return Ok(()) };
        let with = super::attributes(&row.before, author, content);
        visit(Version {
            node: row.node,
            seq,
            path,
            here,
            content: content.clone(),
            mode: with.mode,
            mtime: with.mtime,
            author,
            by: (row.by, row.kind),
        });
        Ok(())
    })
}

/// What was at a path before a directory above it was moved, and is elsewhere since then.
fn moved_with(
    view: &dyn View,
    path: &RelPath,
    seq: u64,
    row: &ChangeRow,
    then: Option<&RelPath>,
) -> Read<Option<Version>> {
    let is_above = |dir: &RelPath| {
        let names = path.names();
        dir.names().len() < names.len() && names.starts_with(dir.names())
    };
    if row.kind != Kind::Moved || !then.is_some_and(is_above) {
        return Ok(None);
    }
    let was = Then::before(view, seq)?.at(path)?;
    Ok(was.map(|was| Version { seq, by: (row.by, row.kind), ..was }))
}
