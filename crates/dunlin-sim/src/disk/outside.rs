//! What is outside of the folder. No call of the program leads there, unless it follows links: a switch of the disk, to
//! show that the simulator would see it.

use super::ModelDisk;
use super::errno::{Errno, Result};
use super::tree::{Id, Node, Tree};
use super::view::Thing;
use dunlin_core::path::{Name, RelPath};
use std::collections::BTreeMap;

/// The longest text a link can have.
const LINK_MAX: usize = 4095;

/// Where links lead.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside {
    /// The directory that all links out of the folder lead to.
    pub(super) dir: Option<Id>,
    /// Whoever has the disk now follows them.
    pub(super) follows: bool,
}

impl Tree {
    pub(super) fn make_link(&mut self, dir: Id, name: &Name, text: &[u8]) -> Result<()> {
        match text.len() {
            0 => Err(Errno::NOENT),
            1..=LINK_MAX if text.contains(&0) => Err(Errno::INVAL),
            _ if !self.options.links => Err(Errno::PERM),
            1..=LINK_MAX => self.create(dir, name, Node::Link(text.into()), 0o777).map(drop),
            _ => Err(Errno::NAMETOOLONG),
        }
    }

    /// Where a link on the way of a path leads: nowhere, as the program opens paths.
    pub(super) fn follow(&self, dir: Id, text: &[u8]) -> Result<Id> {
        if !self.outside.follows {
            return Err(Errno::LOOP);
        }
        if text.starts_with(b"/") || text.starts_with(b"..") {
            return self.outside.dir.ok_or(Errno::NOENT);
        }
        let name = Name::new(text).map_err(|_| Errno::NOENT)?;
        let id = self.step(dir, &name)?;
        if matches!(self.inodes[id].node, Node::Dir(_)) { Ok(id) } else { Err(Errno::NOTDIR) }
    }
}

impl ModelDisk {
    /// What was made outside of the folder.
    pub fn outside(&self) -> BTreeMap<RelPath, Thing> {
        let (tree, mut out) = (self.tree(), BTreeMap::new());
        if let Some(dir) = tree.outside.dir {
            tree.collect(dir, &RelPath::root(), &mut out, false);
        }
        out
    }
}
