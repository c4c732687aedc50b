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
    /// Where it was, or where what it belongs to is, or was last, of what was asked after.
    pub path: RelPath,
    /// Where it was, if that is another path.
    pub was: Option<RelPath>,
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

/// What was at or below a path at some time.
#[derive(Default)]
struct Were {
    /// By which change each of that ended to be there as it was for the last time, and where that was.
    last: BTreeMap<NodeId, (u64, RelPath)>,
    /// What left the path with a directory above it, by the changes that moved that.
    away: BTreeMap<u64, Version>,
}

impl Were {
    fn read(view: &dyn View, under: &RelPath, dirs: &mut Dirs) -> Read<Were> {
        let mut were = Were::default();
        each_change(view, 0, |seq, row| {
            let Some((_, place)) = row.before.placed() else { return Ok(()) };
            let Some(then) = dirs.path(view, &place.value, seq)? else { return Ok(()) };
            if let Some(away) = moved_with(view, under, seq, &row, &then)? {
                were.last.insert(away.node, (seq, away.path.clone()));
                were.away.insert(seq, away);
            }
            if then.names().starts_with(under.names()) {
                were.last.insert(row.node, (seq, then));
            }
            Ok(())
        })?;
        Ok(were)
    }
}

/// Visits what was at or below a path and is not there any more as it was, the oldest change first: by the paths of then,
/// by those that directories have by now, and what something that is or was there had been under other names before.
pub fn versions(view: &dyn View, under: &RelPath, mut visit: impl FnMut(Version)) -> Read<()> {
    let (mut paths, mut dirs) = (Paths::default(), Dirs::read(view)?);
    let mut were = Were::read(view, under, &mut dirs)?;
    let is_under = |path: &RelPath| path.names().starts_with(under.names());
    each_change(view, 0, |seq, row| {
        let Some((_, place)) = row.before.placed() else { return Ok(()) };
        if let Some(away) = were.away.remove(&seq) {
            visit(away);
        }
        let Some((author, content)) = top(&row.before) else { return Ok(()) };
        let then = dirs.path(view, &place.value, seq)?;
        let here = paths.of(view, place.value.parent)?.map(|dir| dir.join(&place.value.name));
        let here = here.filter(is_under);
        let path = match then.clone().filter(is_under).or_else(|| here.clone()) {
            Some(path) => path,
            None if then.is_none() => return Ok(()),
            // The same under another name: as long as it is there, or until it was for the last time.
            None => match (paths.of(view, row.node)?.filter(is_under), were.last.get(&row.node)) {
                (Some(now), _) => now,
                (None, Some((last, path))) if seq < *last => path.clone(),
                _ => return Ok(()),
            },
        };
        let with = super::attributes(&row.before, author, content);
        visit(Version {
            node: row.node,
            seq,
            was: then.filter(|then| *then != path),
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
    then: &RelPath,
) -> Read<Option<Version>> {
    let is_above = |dir: &RelPath| {
        let names = path.names();
        dir.names().len() < names.len() && names.starts_with(dir.names())
    };
    if row.kind != Kind::Moved || !is_above(then) {
        return Ok(None);
    }
    let was = Then::before(view, seq)?.at(path)?;
    Ok(was.map(|was| Version { seq, by: (row.by, row.kind), ..was }))
}
