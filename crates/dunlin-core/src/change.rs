//! Local changes of one node, each with a dot of its own. A change replaces only what was applied on
//! this disk, never what was merely heard of: `applied` is what had been seen when that was applied.

use crate::ids::{Dot, NodeId};
use crate::kv::Read;
use crate::path::Name;
use crate::rows::{LocalRow, NodeRow, Position, Rows};
use crate::state::{Content, DotStore, Mtime, Place, Ranked, State, Vector};
use crate::tree::Work;
use alloc::collections::BTreeSet;

/// Mode and modification time as found on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, 0o777; not of links.
    pub mode: Option<u16>,
    /// Modification time, of files only.
    pub mtime: Option<Mtime>,
}

impl Work<'_> {
    /// Applies `change` under a new dot, which is returned.
    pub(crate) fn write(&mut self, node: NodeId, change: impl FnOnce(&mut State, Dot)) -> Read<Dot> {
        let mut state = self.tx.node(node)?.unwrap_or_default().state;
        let dot = self.next_dot(&state)?;
        change(&mut state, dot);
        state.seen.add(dot);
        self.put_state(node, state, 0)?;
        Ok(dot)
    }

    /// The node that a creation at `at` makes: independent creations of one path coincide, and a
    /// name that was deleted is taken up again, unless what had it is still on this disk, elsewhere.
    pub(crate) fn fresh(&self, at: &Position) -> Read<NodeId> {
        let mut n = 0;
        loop {
            let id = NodeId::created(at.dir, &at.name, n);
            let Some(row) = self.tx.node(id)? else { return Ok(id) };
            let free = !row.state.alive() && row.raw().is_none_or(|raw| raw == *at);
            if free && self.tx.places_of(id)?.is_empty() {
                return Ok(id);
            }
            n += 1;
        }
    }

    /// A new node (or `id`, for a version that becomes one: on every device that sees that the same, as long as that node has
    /// come to be nothing else).
    pub(crate) fn create(
        &mut self,
        at: &Position,
        id: Option<NodeId>,
        content: Content,
        attributes: Attributes,
    ) -> Read<(NodeId, Dot)> {
        let node = match id {
            Some(id) if self.is_nothing_else(id, &content)? => id,
            _ => self.fresh(at)?,
        };
        let dot = self.write(node, |s, dot| {
            let place = Place { parent: at.dir, name: at.name.clone(), earlier: None };
            replace_all(&mut s.place, dot, place);
            replace_all(&mut s.content, dot, content);
            s.gone = DotStore::default();
            s.mode = DotStore::default();
            s.mtime = DotStore::default();
            set_attributes(s, dot, attributes);
        })?;
        Ok((node, dot))
    }

    /// Whether a node holds no other content, and is not on this disk: what it held would count as replaced. A directory that
    /// is there for what lives in it is the same one.
    fn is_nothing_else(&self, id: NodeId, content: &Content) -> Read<bool> {
        let other = |row: NodeRow| row.state.versions().iter().any(|(_, held)| *held != content);
        let is_it = |row: LocalRow| *content == Content::Dir && row.content == Content::Dir;
        for at in self.tx.places_of(id)? {
            if !self.tx.local(&at)?.is_none_or(is_it) {
                return Ok(false);
            }
        }
        Ok(!self.tx.node(id)?.is_some_and(other))
    }

    /// A version beside those that were heard of but never applied here. `rank` 0 yields to all of them.
    pub(crate) fn add_version(
        &mut self,
        node: NodeId,
        content: Content,
        attributes: Attributes,
        rank: u64,
    ) -> Read<Dot> {
        self.write(node, |s, dot| {
            s.content.insert(dot, Ranked::new(rank, content));
            set_attributes(s, dot, attributes);
        })
    }

    /// The version `old` was replaced by `content`.
    pub(crate) fn edit(
        &mut self,
        node: NodeId,
        old: &Content,
        applied: Option<&Vector>,
        content: Content,
        attributes: Attributes,
    ) -> Read<Dot> {
        self.write(node, |s, dot| {
            let applied = applied.cloned().unwrap_or_else(|| s.seen.clone());
            let rank = s.content.next_rank(|d| applied.covers(d));
            s.settle_deletes(|s, d| !s.shows(d));
            s.content.retain(|d, v| v.value != *old || !applied.covers(d));
            s.content.insert(dot, Ranked::new(rank, content));
            s.gone = DotStore::default();
            let beside = s.content.clone();
            if let Some(mtime) = attributes.mtime {
                replace_free(&mut s.mtime, &beside, dot, &applied, None, mtime);
            }
            if let Some(mode) = attributes.mode {
                replace_free(&mut s.mode, &beside, dot, &applied, None, mode);
            }
        })
    }

    /// The version `old` left the node: it became one of its own.
    pub(crate) fn take_version(&mut self, node: NodeId, old: &Content, applied: Option<&Vector>) -> Read<()> {
        self.write(node, |s, _| {
            let applied = applied.cloned().unwrap_or_else(|| s.seen.clone());
            s.content.retain(|d, v| v.value != *old || !applied.covers(d));
        })?;
        Ok(())
    }

    /// The version `old` was deleted; other versions of the node stay.
    pub(crate) fn drop_version(&mut self, node: NodeId, old: &Content, applied: Option<&Vector>) -> Read<()> {
        let Some(row) = self.tx.node(node)? else { return Ok(()) };
        let seen = applied.cloned().unwrap_or_else(|| row.state.seen.clone());
        let state = &row.state;
        let stays = |d: Dot, c: &Content| state.shows(d) && (c != old || !seen.covers(d));
        if state.content.entries().iter().any(|(d, c)| stays(*d, &c.value)) {
            return self.take_version(node, old, applied);
        }
        self.write(node, |s, dot| {
            s.gone.retain(|d, _| !seen.covers(d));
            let mut at_delete = seen;
            at_delete.add(dot);
            s.gone.insert(dot, at_delete);
        })?;
        Ok(())
    }

    /// The node was moved to `to`. Where the ways from its old place and from there up to the root lead
    /// over a placement that was cut, what shows is written first: else the move could close or leave a
    /// loop, and that placement would show again.
    pub(crate) fn relocate(&mut self, node: NodeId, to: &Position, applied: Option<&Vector>) -> Read<Dot> {
        let old = self.tx.node(node)?.and_then(|r| r.settled(node)).map(|at| at.dir);
        let mut met = BTreeSet::new();
        for start in old.into_iter().chain([to.dir]) {
            let mut up = start;
            while met.insert(up) {
                let Some(row) = self.tx.node(up)? else { break };
                let Some(shown) = row.settled(up) else { break };
                if row.raw().as_ref() != Some(&shown) {
                    self.place(up, &shown, None)?;
                }
                up = shown.dir;
            }
        }
        self.place(node, to, applied)
    }

    fn place(&mut self, node: NodeId, to: &Position, applied: Option<&Vector>) -> Read<Dot> {
        self.write(node, |s, dot| {
            let applied = applied.cloned().unwrap_or_else(|| s.seen.clone());
            let earlier: Option<(NodeId, Name)> =
                s.placed().map(|(_, p)| (p.value.parent, p.value.name.clone()));
            let rank = s.place.next_rank(|d| applied.covers(d));
            // What was moved outlives the deletes that were not applied here yet, and no others.
            s.settle_deletes(|s, d| s.taken_by(d, |gone| applied.covers(gone)));
            s.place.retain(|d, _| !applied.covers(d));
            let place = Place { parent: to.dir, name: to.name.clone(), earlier };
            s.place.insert(dot, Ranked::new(rank, place));
            s.gone = DotStore::default();
        })
    }

    /// The mode of the version `version` was set.
    pub(crate) fn set_mode(
        &mut self,
        node: NodeId,
        version: Option<Dot>,
        applied: Option<&Vector>,
        mode: u16,
    ) -> Read<Dot> {
        self.write(node, |s, dot| {
            let applied = applied.cloned().unwrap_or_else(|| s.seen.clone());
            let beside = s.content.clone();
            replace_free(&mut s.mode, &beside, dot, &applied, version, mode);
        })
    }

    /// The modification time of the version `version` was set.
    pub(crate) fn set_mtime(
        &mut self,
        node: NodeId,
        version: Option<Dot>,
        applied: Option<&Vector>,
        mtime: Mtime,
    ) -> Read<Dot> {
        self.write(node, |s, dot| {
            let applied = applied.cloned().unwrap_or_else(|| s.seen.clone());
            let beside = s.content.clone();
            replace_free(&mut s.mtime, &beside, dot, &applied, version, mtime);
        })
    }
}

fn set_attributes(s: &mut State, dot: Dot, attributes: Attributes) {
    if let Some(mode) = attributes.mode {
        s.mode.insert(dot, Ranked::new(s.mode.next_rank(|_| true), mode));
    }
    if let Some(mtime) = attributes.mtime {
        s.mtime.insert(dot, Ranked::new(s.mtime.next_rank(|_| true), mtime));
    }
}

pub(crate) fn replace_all<T: Clone + crate::state::Tie>(store: &mut DotStore<Ranked<T>>, dot: Dot, value: T) {
    let rank = store.next_rank(|_| true);
    *store = DotStore::default();
    store.insert(dot, Ranked::new(rank, value));
}

/// Replaces the values that belong to `version` or to no version that stands beside it, as far as
/// they were applied; what belongs to other versions stays theirs.
fn replace_free<T: Clone + crate::state::Tie>(
    store: &mut DotStore<Ranked<T>>,
    beside: &DotStore<Ranked<Content>>,
    dot: Dot,
    applied: &Vector,
    version: Option<Dot>,
    value: T,
) {
    let rank = store.next_rank(|d| applied.covers(d));
    store.retain(|d, _| !applied.covers(d) || (Some(d) != version && beside.get(d).is_some()));
    store.insert(dot, Ranked::new(rank, value));
}
