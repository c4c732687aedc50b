//! What there was before a change, by the paths of then: directories above may have been moved or deleted since.

use super::{DEPTH_MAX, PAGE, Version, attributes, top};
use crate::ids::{Dot, Incarnation, NodeId, ROOT};
use crate::journal::{ChangeRow, Journal, Kind};
use crate::kv::{Read, View};
use crate::names::{self, Wanted};
use crate::path::{Name, RelPath};
use crate::rows::{Position, Rows};
use crate::state::{Content, Place};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Where directories were, as far as that was another place than where they are.
pub(super) struct Dirs {
    /// Of each directory: until which change it was where.
    places: BTreeMap<NodeId, Vec<(u64, Place)>>,
    /// The numbers of all these changes.
    moves: Vec<u64>,
    /// Paths found between two of them.
    found: (usize, BTreeMap<NodeId, Option<RelPath>>),
}

impl Dirs {
    pub(super) fn read(view: &dyn View) -> Read<Dirs> {
        let mut dirs = Dirs { places: BTreeMap::new(), moves: Vec::new(), found: (0, BTreeMap::new()) };
        each_change(view, 0, |seq, row| {
            let moves = matches!(row.kind, Kind::Moved | Kind::Deleted | Kind::Revived);
            let is_dir = top(&row.before).is_none_or(|(_, content)| *content == Content::Dir);
            if let (true, Some((_, place))) = (moves && is_dir, row.before.placed()) {
                dirs.places.entry(row.node).or_default().push((seq, place.value.clone()));
                dirs.moves.push(seq);
            }
            Ok(())
        })?;
        Ok(dirs)
    }

    /// The path of a placement before the change of a number.
    pub(super) fn path(&mut self, view: &dyn View, place: &Place, seq: u64) -> Read<Option<RelPath>> {
        let period = self.moves.partition_point(|moved| *moved < seq);
        if self.found.0 != period {
            self.found = (period, BTreeMap::new());
        }
        let (mut way, mut at) = (Vec::new(), place.parent);
        let mut path = loop {
            if at == ROOT {
                break Some(RelPath::root());
            }
            if let Some(known) = self.found.1.get(&at) {
                break known.clone();
            }
            let Some((parent, name)) = self.place(view, at, seq)? else { break None };
            way.push((at, name));
            at = parent;
            if way.len() > DEPTH_MAX {
                break None;
            }
        };
        for (dir, name) in way.into_iter().rev() {
            path = path.map(|p| p.join(&name));
            self.found.1.insert(dir, path.clone());
        }
        Ok(path.map(|p| p.join(&place.name)))
    }

    fn place(&self, view: &dyn View, dir: NodeId, seq: u64) -> Read<Option<(NodeId, Name)>> {
        let then = self.places.get(&dir).and_then(|all| all.iter().find(|(until, _)| *until >= seq));
        Ok(match then {
            Some((_, place)) => Some((place.parent, place.name.clone())),
            None => view.node(dir)?.and_then(|row| row.settled(dir)).map(|at| (at.dir, at.name)),
        })
    }
}

pub(super) fn each_change(
    view: &dyn View,
    mut from: u64,
    mut visit: impl FnMut(u64, ChangeRow) -> Read<()>,
) -> Read<()> {
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last + 1;
        page.into_iter().try_for_each(|(seq, row)| visit(seq, row))?;
    }
}

/// A node as it was; its path is just its name.
struct Was {
    version: Version,
    /// A directory that had been deleted, and showed if something lived in it.
    hollow: bool,
}

/// The whole tree before the change of a number.
pub(super) struct Then<'v> {
    view: &'v dyn View,
    /// All nodes that were changed since; those that were not there have none.
    changed: BTreeMap<NodeId, Option<Was>>,
    /// What was in a directory, of those.
    inside: BTreeMap<NodeId, Vec<NodeId>>,
}

impl<'v> Then<'v> {
    pub(super) fn before(view: &'v dyn View, seq: u64) -> Read<Then<'v>> {
        let mut then = Then { view, changed: BTreeMap::new(), inside: BTreeMap::new() };
        each_change(view, seq, |seq, row| {
            if then.changed.contains_key(&row.node) {
                return Ok(());
            }
            let was = row.before.placed().map(|(_, place)| {
                then.inside.entry(place.value.parent).or_default().push(row.node);
                was(&row, seq, place.value.name.clone())
            });
            then.changed.insert(row.node, was);
            Ok(())
        })?;
        Ok(then)
    }

    /// What was at a path and below it, the directories before what was in them.
    pub(super) fn tree(&self, path: &RelPath) -> Read<Vec<Version>> {
        let mut todo = Vec::new();
        match path.split_last() {
            None => todo.extend(self.inside(ROOT, None)?.into_iter().map(|v| (path.clone(), v))),
            Some((above, _)) => todo.extend(self.find(path)?.map(|v| (above.clone(), v))),
        }
        self.below(todo)
    }

    /// What something was, and all in it, under whatever name it had, as if it had been at this path.
    pub(super) fn tree_of(&self, node: NodeId, now: Option<Wanted>, path: &RelPath) -> Read<Vec<Version>> {
        let Some((above, name)) = path.split_last() else { return Ok(Vec::new()) };
        let was = match self.changed.get(&node) {
            Some(changed) => changed.as_ref().map(|was| (was.version.clone(), was.hollow)),
            None => now.map(|w| (as_it_is(node, w), false)),
        };
        let Some((version, hollow)) = was else { return Ok(Vec::new()) };
        let version = Version { path: alloc::vec![name.clone()].into(), ..version };
        self.below(alloc::vec![(above, (version, hollow))])
    }

    /// Some things, each below a path, and all that was in them.
    fn below(&self, mut todo: Vec<(RelPath, (Version, bool))>) -> Read<Vec<Version>> {
        let (mut out, mut met) = (Vec::new(), BTreeSet::new());
        while let Some((above, (mut version, hollow))) = todo.pop() {
            let Some(name) = version.path.names().last() else { continue };
            let path = above.join(name);
            version.path = path.clone();
            if !met.insert((version.node, version.author)) {
                continue;
            }
            let inner = match version.content {
                Content::Dir => self.inside(version.node, None)?,
                _ => Vec::new(),
            };
            if !hollow || !inner.is_empty() {
                out.push(version);
            }
            todo.extend(inner.into_iter().map(|v| (path.clone(), v)));
        }
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }

    /// What was at a path.
    fn find(&self, path: &RelPath) -> Read<Option<(Version, bool)>> {
        let (mut dir, mut found) = (ROOT, None);
        for name in path.names() {
            found = self.inside(dir, Some(name))?.into_iter().next();
            let Some((version, _)) = &found else { return Ok(None) };
            dir = version.node;
        }
        Ok(found)
    }

    /// The same, with its whole path.
    pub(super) fn at(&self, path: &RelPath) -> Read<Option<Version>> {
        Ok(self.find(path)?.map(|(version, _)| Version { path: path.clone(), ..version }))
    }

    /// What was in a directory, or what had this name there.
    fn inside(&self, dir: NodeId, name: Option<&Name>) -> Read<Vec<(Version, bool)>> {
        let fits = |v: &Version| name.is_none_or(|name| v.path.names().last() == Some(name));
        let changed = self.inside.get(&dir).into_iter().flatten();
        let changed = changed.filter_map(|node| self.changed.get(node)?.as_ref());
        let mut out: Vec<(Version, bool)> =
            changed.map(|was| (was.version.clone(), was.hollow)).filter(|(v, _)| fits(v)).collect();
        let mut names: Vec<Name> = match name {
            Some(name) => alloc::vec![name.clone()],
            None => self.view.settled_in(dir, None, usize::MAX)?.into_iter().map(|(name, _)| name).collect(),
        };
        names.dedup();
        for name in names {
            let at = Position::new(dir, name.clone());
            let mut taken = out.iter().any(|(v, _)| v.path.names().last() == Some(&name));
            for (node, mut w) in names::group(self.view, &at)? {
                if self.changed.contains_key(&node) {
                    continue;
                }
                // What has its name by now may not have been there.
                if !w.copy && !core::mem::replace(&mut taken, true) {
                    w.at.name = name.clone();
                }
                let version = as_it_is(node, w);
                out.extend(fits(&version).then_some((version, false)));
            }
        }
        Ok(out)
    }
}

fn was(row: &ChangeRow, seq: u64, name: Name) -> Was {
    let nobody = Dot { inc: Incarnation::default(), counter: 0 };
    let (author, content, hollow) = match top(&row.before) {
        Some((author, content)) => (author, content.clone(), false),
        None => (nobody, Content::Dir, true),
    };
    let with = attributes(&row.before, author, &content);
    let version = Version {
        node: row.node,
        seq,
        path: alloc::vec![name].into(),
        was: None,
        here: None,
        content,
        mode: with.mode,
        mtime: with.mtime,
        author,
        by: (row.by, row.kind),
    };
    Was { version, hollow }
}

/// What was not changed since.
fn as_it_is(node: NodeId, w: Wanted) -> Version {
    let is_file = matches!(w.content, Content::File { .. });
    let author = w.dot.unwrap_or(Dot { inc: Incarnation::default(), counter: 0 });
    Version {
        node,
        seq: u64::MAX,
        path: alloc::vec![w.at.name].into(),
        was: None,
        here: None,
        mode: (!matches!(w.content, Content::Link(_))).then_some(w.mode),
        mtime: is_file.then_some(w.mtime),
        content: w.content,
        author,
        by: (author, Kind::Attributes),
    }
}
