//! The tree as those see it who judge it.

use super::ModelDisk;
use super::tree::{Id, Node, Tree};
use dunlin_core::path::{CONTROL_DIR, Name, RelPath};
use dunlin_node::disk::FileTime;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum Thing {
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u16,
    },
    /// A file.
    File {
        /// Permission bits.
        mode: u16,
        /// Last change of the content.
        mtime: FileTime,
        /// The content.
        bytes: Arc<[u8]>,
        /// Inode number.
        ino: u64,
    },
    /// A link with this text.
    Link(Vec<u8>),
    /// A FIFO.
    Other,
}

impl fmt::Debug for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Dir { mode } => write!(f, "Dir({mode:o})"),
            Thing::File { mode, mtime, bytes, ino } => {
                let shown = &bytes[..bytes.len().min(40)];
                let (len, secs, nanos) = (bytes.len(), mtime.secs, mtime.nanos);
                write!(f, "File({mode:o} #{ino} {secs}.{nanos:09} {len}: \"{}\")", shown.escape_ascii())
            }
            Thing::Link(text) => write!(f, "Link(\"{}\")", text.escape_ascii()),
            Thing::Other => f.write_str("Other"),
        }
    }
}

impl ModelDisk {
    /// What would be at `path` after the worst crash now: everything lost that is not durable.
    pub fn durable(&self, path: &RelPath) -> Option<Thing> {
        let tree = self.tree();
        let at = path.names().iter().try_fold(tree.place, |at, name| tree.find_durable(at, name))?;
        Some(tree.durable_thing(at))
    }

    /// What of an entry would survive in the directory that is visible there, wherever a power cut leaves that.
    pub fn durable_entry(&self, path: &RelPath) -> Option<Thing> {
        let tree = self.tree();
        let (dir, name) = path.split_last()?;
        let dir = dir.names().iter().try_fold(tree.place, |at, name| tree.find(at, name).map(|f| f.1))?;
        Some(tree.durable_thing(tree.find_durable(dir, name)?))
    }

    /// The whole tree at the folder's path, without `.dunlin`.
    pub fn visible(&self) -> BTreeMap<RelPath, Thing> {
        let tree = self.tree();
        let mut out = BTreeMap::new();
        tree.collect(tree.place, &RelPath::root(), &mut out, true);
        out
    }

    /// What is at `path` now.
    pub fn visible_at(&self, path: &RelPath) -> Option<Thing> {
        let tree = self.tree();
        let found = path.names().iter().try_fold(tree.place, |at, name| tree.find(at, name).map(|f| f.1));
        found.map(|id| tree.thing(id))
    }

    /// How many names what is at `path` has: a power cut may bring back one that it had before.
    pub fn names_of(&self, path: &RelPath) -> u32 {
        let tree = self.tree();
        let found = path.names().iter().try_fold(tree.place, |at, name| tree.find(at, name).map(|f| f.1));
        found.map_or(0, |id| tree.inodes[id].nlink)
    }

    /// A path with the names of what is there as they are stored.
    pub fn stored(&self, path: &RelPath) -> RelPath {
        let tree = self.tree();
        let (mut at, mut out) = (Some(tree.place), RelPath::root());
        for name in path.names() {
            let found = at.and_then(|at| tree.find(at, name));
            let stored = tree.options.names.stored(name);
            out = out.join(found.as_ref().map_or(&*stored, |f| &f.0));
            at = found.map(|f| f.1);
        }
        out
    }

    /// Everything in the folder that is away, with its `.dunlin`.
    pub fn away(&self) -> BTreeMap<RelPath, Thing> {
        let tree = self.tree();
        let mut out = BTreeMap::new();
        if let Some(away) = tree.away {
            tree.collect(away, &RelPath::root(), &mut out, false);
        }
        out
    }

    /// Everything below `.dunlin`, by paths from the folder's root.
    pub fn control_tree(&self) -> BTreeMap<RelPath, Thing> {
        let tree = self.tree();
        let mut out = BTreeMap::new();
        let control =
            Name::new(CONTROL_DIR).ok().and_then(|name| Some((tree.find(tree.place, &name)?.1, name)));
        if let Some((id, name)) = control {
            tree.collect(id, &RelPath::root().join(&name), &mut out, false);
        }
        out
    }
}

impl Tree {
    /// What of a thing would survive.
    fn durable_thing(&self, id: Id) -> Thing {
        let kept = &self.inodes[id].kept;
        match self.thing(id) {
            Thing::Dir { .. } => Thing::Dir { mode: kept.mode },
            Thing::File { ino, .. } => {
                Thing::File { mode: kept.mode, mtime: kept.mtime, bytes: kept.data.clone(), ino }
            }
            other => other,
        }
    }

    fn find_durable(&self, dir: Id, name: &Name) -> Option<Id> {
        let entries = &self.inodes[dir].dir()?.durable;
        let same = || entries.iter().find(|(n, _)| self.options.names.same(n, name)).map(|(_, id)| *id);
        entries.get(name).copied().or_else(same)
    }

    fn thing(&self, id: Id) -> Thing {
        let inode = &self.inodes[id];
        match &inode.node {
            Node::Dir(_) => Thing::Dir { mode: inode.mode },
            Node::File(file) => {
                Thing::File { mode: inode.mode, mtime: inode.mtime, bytes: file.data.clone(), ino: inode.ino }
            }
            Node::Link(text) => Thing::Link(text.to_vec()),
            Node::Other => Thing::Other,
        }
    }

    pub(super) fn collect(
        &self,
        dir: Id,
        path: &RelPath,
        out: &mut BTreeMap<RelPath, Thing>,
        but_control: bool,
    ) {
        let Some(d) = self.inodes[dir].dir() else { return };
        for (name, id) in &d.entries {
            if but_control && path.is_root() && name.as_bytes() == CONTROL_DIR {
                continue;
            }
            let path = path.join(name);
            if self.inodes[*id].dir().is_some() {
                self.collect(*id, &path, out, but_control);
            }
            out.insert(path, self.thing(*id));
        }
    }
}
