//! Whose hand it was: a user's, or a step of ours that was not recorded.

use super::Seen;
use crate::change::Attributes;
use crate::decide::locals_of;
use crate::ids::{ContentId, NodeId};
use crate::kv::Read;
use crate::names::Wanted;
use crate::rows::{LocalRow, Rows, is_again};
use crate::state::{Content, Mtime};
use crate::tree::Work;

impl Work<'_> {
    /// Whether a user put this in place, and not a step of ours that was not recorded. That is a change then, though the
    /// bytes are those that were heard of: a delete of them elsewhere has not seen it. A step gives a file the time that is
    /// wanted, and never takes one that this disk has as something else. While two trees are being united, what is equal
    /// is one.
    pub(super) fn is_theirs(&self, node: NodeId, wanted: &Wanted, seen: &Seen) -> Read<bool> {
        if !matches!(seen, Seen::File(..)) || self.tx.totals()?.uniting {
            return Ok(false);
        }
        if !self.keeps.may_be(seen.mtime(), wanted.mtime) {
            return Ok(true);
        }
        for at in self.tx.places_of_inode(seen.stamp().ino)? {
            if self
                .tx
                .local(&at)?
                .is_some_and(|row| row.node != node && row.stamp.is_same_inode(&seen.stamp()))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A version that lost its name, and was gone before it got its new one: it was in the user's hand. Nobody
    /// else may hold it, and then it would be wanted for good. Where another row of the node holds it too, it has its name.
    pub(super) fn lose_nameless(&mut self, row: &LocalRow) -> Read<()> {
        let has_name = locals_of(&self.tx, row.node)?.iter().any(|(_, l)| l.content == row.content);
        if row.dot.is_none() || has_name {
            return Ok(());
        }
        self.drop_version(row.node, &row.content, row.seen.as_ref())
    }

    /// Nobody has a version that this device made, and its user took away where others had moved or renamed it from
    /// meanwhile: that is no delete of what is in the new place, but nobody had fetched this version there. It would be
    /// wanted for good. Only what this device made, and no row of its disk holds, is withdrawn; tells whether there was
    /// such a version. What was made again of what there was before stays: a person wants it, and who has it may come back.
    pub fn withdraw(&mut self, node: NodeId, content: ContentId) -> Read<bool> {
        let Some(row) = self.tx.node(node)? else { return Ok(false) };
        let is_it = |c: &Content| matches!(c, Content::File { id, .. } if *id == content);
        let own = crate::life::own(&self.tx)?;
        let mut versions = row.state.content.entries().iter().filter(|(_, c)| is_it(&c.value)).peekable();
        let Some((_, version)) = versions.peek() else { return Ok(false) };
        let gone = version.value.clone();
        let is_here = locals_of(&self.tx, node)?.iter().any(|(_, l)| is_it(&l.content));
        if is_here || self.tx.totals()?.uniting {
            return Ok(false);
        }
        for (dot, _) in versions {
            if !own.contains(&dot.inc) || is_again(&self.tx, *dot)? {
                return Ok(false);
            }
        }
        self.drop_version(node, &gone, None)?;
        Ok(true)
    }

    /// What a user wrote, and was taken out of the folder before anybody saw it, stands beside what there is by now.
    pub fn bring_back(&mut self, node: NodeId, content: Content, mode: u16, mtime: Mtime) -> Read<()> {
        let Some(row) = self.tx.node(node)? else { return Ok(()) };
        if row.state.versions().iter().any(|(_, c)| **c == content) {
            return Ok(());
        }
        let attributes = Attributes { mode: Some(mode), mtime: Some(mtime) };
        self.add_version(node, content, attributes, 1)?;
        Ok(())
    }
}
