//! What this disk cannot show: of several names that it takes for one, the one that is in place stays, and
//! the others are not wanted here as long as it does. Nothing is renamed or deleted for that, and nobody is told.

use super::Planner;
use crate::decide::{Lack, lacks_of};
use crate::ids::NodeId;
use crate::kv::Read;
use crate::names::Wanted;
use crate::path::{Name, RelPath};
use crate::rows::{LocalRow, Position, Rows};
use crate::state::Content;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Why something cannot be shown on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The disk has something under this name, and takes both names for one.
    Twin(Name),
    /// It is a symbolic link, and the disk has none.
    NoLinks,
}

/// Something that this disk cannot show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unshown {
    /// Which node.
    pub node: NodeId,
    /// Where it should be.
    pub path: RelPath,
    /// Why.
    pub why: Why,
}

impl Planner<'_> {
    /// Where the disk has what the name of a position leads to, if that is under another name.
    pub(super) fn twin(&self, at: &Position) -> Read<Option<Position>> {
        let Some(twin) = self.window.twin else { return Ok(None) };
        Ok(self.path(at)?.and_then(|path| twin(at, &path)).filter(|twin| twin != at))
    }

    /// What of ours is where the name of a position leads to on this disk.
    pub(super) fn there(&self, at: &Position) -> Read<Option<(Position, LocalRow)>> {
        if let Some(row) = self.view.local(at)? {
            return Ok(Some((at.clone(), row)));
        }
        let Some(twin) = self.twin(at)? else { return Ok(None) };
        Ok(self.view.local(&twin)?.map(|row| (twin, row)))
    }

    /// What takes away the thing that a position's name leads to.
    pub(super) fn leaving_from(&self, at: &Position) -> Read<Vec<(NodeId, Lack)>> {
        match self.there(at)? {
            Some((at, _)) => self.leaving(&at),
            None => Ok(Vec::new()),
        }
    }

    /// The name is taken by one that is the same to this disk: until that leaves, if ever.
    pub(super) fn yields(&mut self, node: NodeId, w: &Wanted, twin: &Position) -> Read<()> {
        if self.leaving(twin)?.is_empty() {
            return self.unshown(node, w, Why::Twin(twin.name.clone()));
        }
        Ok(())
    }

    /// Whether something should leave for a name that it cannot have here. Others are not to wait for that.
    pub(super) fn leaves_for_nothing(&self, from: &Position, to: &Wanted) -> Read<bool> {
        Ok(self.window.twin.is_some()
            && (self.cannot_be(&to.at, Some(from))? || self.cannot_be_in(to.at.dir)?))
    }

    /// Whether a name is taken by one that is the same to this disk, and that stays.
    fn cannot_be(&self, at: &Position, from: Option<&Position>) -> Read<bool> {
        if !self.view.is_on_disk(at.dir)? || self.view.local(at)?.is_some() {
            return Ok(false);
        }
        let Some(twin) = self.twin(at)? else { return Ok(false) };
        Ok(Some(&twin) != from && self.leaving(&twin)?.is_empty())
    }

    /// Whether a directory cannot be shown, or one that it is to be in.
    fn cannot_be_in(&self, mut dir: NodeId) -> Read<bool> {
        let mut met = BTreeSet::new();
        while !self.view.is_on_disk(dir)? && met.insert(dir) {
            let brings = |l: &Lack| matches!(l, Lack::Create(w) if w.content == Content::Dir);
            let Some(Lack::Create(w)) = lacks_of(self.view, dir)?.into_iter().find(brings) else { break };
            if self.cannot_be(&w.at, None)? {
                return Ok(true);
            }
            dir = w.at.dir;
        }
        Ok(false)
    }

    pub(super) fn unshown(&mut self, node: NodeId, w: &Wanted, why: Why) -> Read<()> {
        if let Some(path) = self.path(&w.at)? {
            self.plan.unshown.push(Unshown { node, path, why });
        }
        Ok(())
    }
}
