//! What is not where it was any more.

use super::note;
use crate::change::Attributes;
use crate::kv::Read;
use crate::names::{self, Wanted};
use crate::path::Name;
use crate::rows::{LocalRow, Position, Rows};
use crate::state::Content;
use crate::tree::Work;
use alloc::vec::Vec;

impl Work<'_> {
    /// What was at these positions is gone, with all below. What each was is settled for all of them
    /// before the first is dropped: a version that goes gives its name to the next.
    pub(super) fn vanish<'a>(&mut self, gone: impl IntoIterator<Item = &'a Position>) -> Read<()> {
        let mut rows = Vec::new();
        for at in gone {
            if let Some(row) = self.tx.local(at)? {
                let from = rows.len();
                self.with_all_below(at, row, &mut Vec::new(), &mut rows)?;
                rows[from..].sort_by(|(a, ..), (b, ..)| (b.len(), a).cmp(&(a.len(), b)));
            }
        }
        let (mut meant, mut nameless) = (Vec::new(), Vec::new());
        for (_, at, row) in rows {
            // Where something else should be by now, the delete was not of that; but what merely is to give up its
            // name to another one was what it was.
            let version = self.wanted_version(&row, &at)?;
            let unmoved = self.tx.node(row.node)?.and_then(|n| n.raw()).is_some_and(|raw| raw == at);
            let is_it = |w: &Wanted| (w.at == at || unmoved && !w.copy) && w.content == row.content;
            let deleted = version.as_ref().is_some_and(is_it);
            if version.is_some_and(|w| w.copy && w.at != at) {
                nameless.push(row.clone());
            }
            meant.push((at, row, deleted));
        }
        for (at, ..) in &meant {
            self.set_local(at, None)?;
        }
        for (at, row, deleted) in meant {
            if row.dot.is_some() && !self.went_on(&at, &row, deleted)? && deleted {
                self.drop_version(row.node, &row.content, row.seen.as_ref())?;
            }
        }
        nameless.iter().try_for_each(|row| self.lose_nameless(row))
    }

    /// A row and all rows below it, with the names that lead to them.
    pub(super) fn with_all_below(
        &self,
        at: &Position,
        row: LocalRow,
        way: &mut Vec<Name>,
        out: &mut Vec<(Vec<Name>, Position, LocalRow)>,
    ) -> Read<()> {
        if row.content == Content::Dir {
            for (name, inner) in self.tx.locals(row.node)? {
                way.push(name.clone());
                self.with_all_below(&Position::new(row.node, name), inner, way, out)?;
                way.pop();
            }
        }
        out.push((way.clone(), at.clone(), row));
        Ok(())
    }

    /// What was at a position may have been moved over what has its place by now: there it was seen already, as if it
    /// had always been there. Tells whether its version lives on in that.
    fn went_on(&mut self, at: &Position, row: &LocalRow, deleted: bool) -> Read<bool> {
        if row.content == Content::Dir || row.stamp.nlink > 1 {
            return Ok(false);
        }
        for to in self.tx.places_of_inode(row.stamp.ino)? {
            let Some(mut there) = self.tx.local(&to)? else { continue };
            let same = there.stamp.is_same_inode(&row.stamp) && there.stamp.nlink <= 1;
            if to == *at || !same || there.content != row.content {
                continue;
            }
            if there.node == row.node {
                let wanted = self.wanted_version(row, at)?;
                if deleted && wanted.is_some_and(|w| !w.copy && w.at == *at) {
                    self.relocate(row.node, &to, row.seen.as_ref())?;
                }
                // A version that lost its name gets it again by a step.
                return Ok(true);
            }
            if self.is_superseded(&to, &there)? {
                // Of the one that it replaced, others made something else meanwhile.
                let attributes = Attributes { mode: Some(there.mode), mtime: Some(there.mtime) };
                let dot = self.add_version(there.node, there.content.clone(), attributes, 1)?;
                there.dot = Some(dot);
                note(&mut there.seen, dot);
                self.set_local(&to, Some(&there))?;
            }
        }
        Ok(false)
    }

    /// Whether something else is wanted by now where this is.
    pub(super) fn is_superseded(&self, at: &Position, row: &LocalRow) -> Read<bool> {
        let wanted = names::wanted(&self.tx, row.node)?;
        Ok(!wanted.iter().any(|w| w.at == *at && w.content == row.content))
    }
}
