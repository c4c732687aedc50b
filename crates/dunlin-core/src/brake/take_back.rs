//! Deletes and replacements that a person rejects: what was there is wanted again.

use super::held::each_overwrite;
use crate::change::{Attributes, replace_all};
use crate::decide::is_accepted;
use crate::ids::{Dot, DotRange, NodeId};
use crate::kv::{Read, View};
use crate::revert::before_edits;
use crate::rows::{NodeRow, Position, Rows, Table, after};
use crate::state::{Content, DotStore, Place, Ranked};
use crate::tree::Work;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Nodes looked at together.
const PAGE: usize = 256;

impl Work<'_> {
    /// What vanished from this disk is not deleted: it is forgotten here, and so lacking.
    pub fn forget(&mut self, absent: &[Position]) -> Read<()> {
        for at in absent {
            let Some(row) = self.tx.local(at)? else { continue };
            let mut rows = vec![(at.clone(), row)];
            let mut next = 0;
            while let Some((_, row)) = rows.get(next).cloned() {
                if row.content == Content::Dir {
                    let inner = self.tx.locals(row.node)?.into_iter();
                    rows.extend(inner.map(|(name, inner)| (Position::new(row.node, name), inner)));
                }
                next += 1;
            }
            for (at, _) in rows.into_iter().rev() {
                self.set_local(&at, None)?;
            }
        }
        Ok(())
    }

    /// Takes back deletes, as changes of this device: those that were heard, not accepted and not carried out here, and
    /// those made by `changes`. Files, links and directories get the place, mode and time they had. What lives again
    /// already stays as it is. Returns how many files and links that were.
    pub fn take_deletes_back(&mut self, changes: &[DotRange]) -> Read<u64> {
        self.revive_all(changes, true)
    }

    /// The same of those made by `changes` alone: what was heard and not carried out here happens.
    pub fn take_deletes_of_back(&mut self, changes: &[DotRange]) -> Read<u64> {
        self.revive_all(changes, false)
    }

    fn revive_all(&mut self, changes: &[DotRange], pending: bool) -> Read<u64> {
        let (mut from, mut files) = (vec![Table::Node as u8], 0);
        loop {
            let page = self.tx.range(&from, &after(&[Table::Node as u8]), PAGE)?;
            let Some((end, _)) = page.last() else { break };
            from = [&end[..], &[0]].concat();
            for node in page.iter().filter_map(|(key, _)| key.get(1..).and_then(NodeId::from_slice)) {
                let Some(row) = self.tx.node(node)? else { continue };
                files += u64::from(self.revive(node, &row, changes, pending)?);
            }
        }
        Ok(files)
    }

    /// Takes back edits, as changes of this device: where they were not carried out here the file becomes again what is
    /// here, and what these `changes` replaced is wanted again. What something else was made of since stays as it is.
    /// Returns how many files that were.
    pub fn take_edits_back(&mut self, changes: &[DotRange]) -> Read<u64> {
        let (mut pending, mut files) = (BTreeMap::<NodeId, Vec<_>>::new(), 0);
        each_overwrite(&self.tx, |node, old, new| {
            pending.entry(node).or_default().push((old.clone(), new.clone()));
            Ok(())
        })?;
        for back in before_edits(&self.tx, changes, &|node| pending.contains_key(node))? {
            if self.take_back(&back)? {
                pending.remove(&back.node);
                files += 1;
            }
        }
        for (node, all) in pending {
            let Some(row) = self.tx.node(node)? else { continue };
            self.applied_until_now(node, &row.state)?;
            for (old, new) in all {
                let attributes = Attributes { mode: Some(old.mode), mtime: Some(old.mtime) };
                let made = self.edit(node, &new.content, None, old.content, attributes)?;
                self.tx.put_again(made);
                files += 1;
            }
        }
        Ok(files)
    }

    /// Returns whether a file or link lives again.
    fn revive(&mut self, node: NodeId, row: &NodeRow, changes: &[DotRange], pending: bool) -> Read<bool> {
        let state = &row.state;
        if state.alive() || state.gone.is_empty() {
            return Ok(false);
        }
        let pending = pending && self.tx.need(node)?.is_some() && !is_accepted(&self.tx, state)?;
        let mine = |gone: Dot| pending || changes.iter().any(|r| r.covers(gone));
        let taken: Vec<(Dot, Content)> = state
            .content
            .ordered()
            .into_iter()
            .filter(|(d, c)| state.taken_by(*d, mine) && !matches!(c.value, Content::Unknown { .. }))
            .map(|(d, c)| (*d, c.value.clone()))
            .collect();
        let (Some((first, content)), Some((_, place))) = (taken.first(), state.placed()) else {
            return Ok(false);
        };
        let place = Place { earlier: None, ..place.value.clone() };
        let content = self.at_hand(node, content)?;
        let is_file = content != Content::Dir;
        // What is on this disk was applied from the state as it was before, as when something is heard.
        for (at, mut local) in crate::decide::locals_of(&self.tx, node)? {
            if local.seen.is_none() {
                local.seen = Some(state.seen.clone());
                self.tx.put_local(&at, Some(&local))?;
            }
        }
        let (mode, mtime) = (state.mode_of(Some(*first)), state.mtime_of(Some(*first)));
        let made = self.write(node, |s, dot| {
            replace_all(&mut s.place, dot, place);
            let others = taken[1..].iter().map(|(d, _)| *d).collect::<Vec<_>>();
            let rank = s.content.next_rank(|_| true);
            // Those that follow get a change each.
            s.content.retain(|d, _| others.contains(&d));
            s.content.insert(dot, Ranked::new(rank, content));
            s.gone = DotStore::default();
            if let Some(mode) = mode {
                replace_all(&mut s.mode, dot, mode);
            }
            if let Some(mtime) = mtime {
                replace_all(&mut s.mtime, dot, mtime);
            }
        })?;
        self.tx.put_again(made);
        for (old, content) in &taken[1..] {
            let (mode, mtime) = (state.mode_of(Some(*old)), state.mtime_of(Some(*old)));
            let made = self.write(node, |s, dot| {
                s.content.retain(|d, _| d != *old);
                s.content.insert(dot, Ranked::new(1, content.clone()));
                if let Some(mode) = mode {
                    s.mode.insert(dot, Ranked::new(1, mode));
                }
                if let Some(mtime) = mtime {
                    s.mtime.insert(dot, Ranked::new(1, mtime));
                }
            })?;
            self.tx.put_again(made);
        }
        Ok(is_file)
    }

    /// The content, or what is still on this disk of the node if that is another version: of the deleted one perhaps
    /// nobody has the bytes.
    fn at_hand(&self, node: NodeId, content: &Content) -> Read<Content> {
        let locals = crate::decide::locals_of(&self.tx, node)?;
        let Content::File { id, .. } = content else { return Ok(content.clone()) };
        if !self.tx.holders(*id)?.is_empty() {
            return Ok(content.clone());
        }
        let older = locals.into_iter().map(|(_, l)| l.content).find(|c| *c != Content::Dir);
        Ok(older.unwrap_or_else(|| content.clone()))
    }
}
