//! Taking changes back, and making again what was there before: as new changes, of which others hear as of
//! any other, and which can be taken back in turn.

use crate::change::Attributes;
use crate::ids::{ContentId, Dot, DotRange, Incarnation, NodeId, ROOT};
use crate::journal::{ChangeRow, Journal, Kind};
use crate::kv::{Read, View};
use crate::names::{self, Wanted};
use crate::path::{Name, RelPath};
use crate::rows::{NodeRow, Position, Rows};
use crate::state::{Content, DotStore, Mtime, Place, State};
use crate::tree::Work;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

mod burst;
mod choose;
mod list;
mod then;

pub use burst::{BESIDE, Beside, Burst, MASS, PAUSE, last_burst, last_of_each};
pub use choose::{Unmet, Which, choose, number_at};
pub use list::{Version, versions};

/// Changes read at a time.
const PAGE: usize = 1024;
/// Directories above each other, at most, on the way to a root.
const DEPTH_MAX: usize = 4096;

/// Which changes are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The first number.
    pub from: u64,
    /// The first number that is not meant any more.
    pub to: u64,
    /// Whose; anybody's if none.
    pub by: Option<BTreeSet<Incarnation>>,
    /// Of what kinds; all if none. What was created is removed then.
    pub kinds: Option<BTreeSet<Kind>>,
    /// Just those of these numbers; all if none.
    pub just: Option<BTreeSet<u64>>,
    /// What was made then, with the numbers of that: it stays, unless it is in the place of what comes back.
    pub made: BTreeMap<NodeId, u64>,
}

impl Selection {
    /// All changes from a number on.
    pub fn since(from: u64) -> Selection {
        Selection { from, to: u64::MAX, by: None, kinds: None, just: None, made: BTreeMap::new() }
    }

    fn has(&self, seq: u64, by: Dot, kind: Kind) -> bool {
        (self.from..self.to).contains(&seq)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
            && self.by.as_ref().is_none_or(|who| who.contains(&by.inc))
            && self.just.as_ref().is_none_or(|just| just.contains(&seq))
    }

    /// Whether something is made that stays: what is written into it, then, is no change of what was there.
    fn keeps(&self, seq: u64, row: &ChangeRow) -> bool {
        let all = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&Kind::Created));
        let mine = self.by.as_ref().is_none_or(|who| who.contains(&row.by.inc));
        row.kind == Kind::Created
            && !all
            && mine
            && self.just.is_none()
            && (self.from..self.to).contains(&seq)
    }
}

/// One node to be taken back to what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// The node.
    pub node: NodeId,
    /// The number of the change before which it was that.
    pub seq: u64,
    /// The number of its last change: if it has another one by then, it is left alone.
    pub last: u64,
    /// What was made of it since.
    pub kind: Kind,
    /// Where it was; for what was created, where it is.
    pub path: RelPath,
    /// The content that has to come back for it, if it was a file that is gone or holds something else, and its size in
    /// bytes.
    pub content: Option<(ContentId, u64)>,
}

/// What taking changes back comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// What is taken back, by path.
    pub back: Vec<Back>,
    /// What was changed since by something that is not meant, and is left as it is.
    pub changed_since: Vec<RelPath>,
}

/// The path of a placement, whether or not what is above it is there now.
pub fn path_of_place(view: &dyn View, place: &Place) -> Read<Option<RelPath>> {
    let (mut names, mut at) = (alloc::vec![place.name.clone()], place.parent);
    while at != ROOT {
        let Some(up) = view.node(at)?.and_then(|r| r.settled(at)) else { return Ok(None) };
        names.push(up.name);
        at = up.dir;
        if names.len() > DEPTH_MAX {
            return Ok(None);
        }
    }
    names.reverse();
    Ok(Some(names.into()))
}

/// The same of a state.
pub fn path_of_state(view: &dyn View, state: &State) -> Read<Option<RelPath>> {
    match state.placed() {
        Some((_, place)) => path_of_place(view, &place.value),
        None => Ok(None),
    }
}

/// The version of a state that has the name.
fn top(state: &State) -> Option<(Dot, &Content)> {
    state.versions().into_iter().next()
}

fn file_of(state: &State) -> Option<(ContentId, u64)> {
    match top(state) {
        Some((_, Content::File { id, size })) => Some((*id, *size)),
        _ => None,
    }
}

/// What goes with a version.
fn attributes(state: &State, dot: Dot, content: &Content) -> Attributes {
    let mode = (!matches!(content, Content::Link(_)))
        .then(|| state.mode_of(Some(dot)).unwrap_or(names::default_mode(content)));
    let mtime = if matches!(content, Content::File { .. }) { state.mtime_of(Some(dot)) } else { None };
    Attributes { mode, mtime }
}

/// What taking back a selection comes to. Of each node the last changes in a row that are meant are taken back; what
/// somebody else changed after them is left alone, and named.
pub fn select(view: &dyn View, selection: &Selection) -> Read<Undo> {
    /// The first of the last meant changes in a row, and whether the last change of all is one of them.
    struct Run {
        first: Option<u64>,
        any: bool,
        /// It was made meanwhile, and stays.
        new: bool,
    }
    let mut runs: BTreeMap<NodeId, Run> = BTreeMap::new();
    let mut from = selection.from;
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        for (seq, row) in &page {
            let run = runs.entry(row.node).or_insert(Run { first: None, any: false, new: false });
            run.new |= selection.keeps(*seq, row);
            let written = run.new && !matches!(row.kind, Kind::Deleted | Kind::Revived);
            if selection.has(*seq, row.by, row.kind) && !written {
                run.any = true;
                run.first.get_or_insert(*seq);
            } else {
                run.first = None;
            }
        }
    }
    let mut out = Undo::default();
    for (node, run) in runs.into_iter().filter(|(_, run)| run.any) {
        let Some(now) = view.node(node)? else { continue };
        let Some(first) = run.first else {
            out.changed_since.extend(path_of_state(view, &now.state)?);
            continue;
        };
        let Some((seq, row)) = view.changes(first, first + 1, 1)?.pop() else { continue };
        out.back.extend(back_to(view, node, &now, seq, &row.before)?);
    }
    let in_the_way = in_the_way(view, selection, &out.back)?;
    out.back.extend(in_the_way);
    out.back.sort_by(|a, b| a.path.cmp(&b.path));
    out.changed_since.sort();
    Ok(out)
}

/// What was made meanwhile in the place of something that comes back.
fn in_the_way(view: &dyn View, selection: &Selection, back: &[Back]) -> Read<Vec<Back>> {
    let (mut places, mut out) = (BTreeSet::new(), Vec::new());
    for b in back.iter().filter(|_| !selection.made.is_empty()) {
        for (_, row) in view.changes(b.seq, b.seq + 1, 1)? {
            places.extend(row.before.placed().map(|(_, p)| (p.value.parent, p.value.name.clone())));
        }
    }
    for (node, seq) in &selection.made {
        let Some(now) = view.node(*node)?.filter(|row| row.state.alive()) else { continue };
        if now.raw().is_some_and(|at| places.contains(&(at.dir, at.name))) {
            out.extend(back_to(view, *node, &now, *seq, &State::default())?);
        }
    }
    Ok(out)
}

/// Nodes as they were before the first of these changes gave them another content, unless something else was made of them
/// since; where that does not matter, `anyway`.
pub(crate) fn before_edits(
    view: &dyn View,
    changes: &[DotRange],
    anyway: &dyn Fn(&NodeId) -> bool,
) -> Read<Vec<Back>> {
    let mut first: BTreeMap<NodeId, (u64, State)> = BTreeMap::new();
    let mut out = Vec::new();
    if changes.is_empty() {
        return Ok(out);
    }
    then::each_change(view, 0, |seq, row| {
        if row.kind == Kind::Changed && changes.iter().any(|range| range.covers(row.by)) {
            first.entry(row.node).or_insert((seq, row.before));
        } else if !anyway(&row.node) {
            first.remove(&row.node);
        }
        Ok(())
    })?;
    for (node, (seq, before)) in first {
        let Some(now) = view.node(node)? else { continue };
        out.extend(back_to(view, node, &now, seq, &before)?);
    }
    Ok(out)
}

/// A node as it was before a change of this number; `None` if that is what it is.
fn back_to(view: &dyn View, node: NodeId, now: &NodeRow, seq: u64, before: &State) -> Read<Option<Back>> {
    let Some(kind) = Kind::of(before, &now.state) else { return Ok(None) };
    let shown = if kind == Kind::Created { &now.state } else { before };
    let Some(path) = path_of_state(view, shown)? else { return Ok(None) };
    let comes_back = matches!(kind, Kind::Deleted | Kind::Changed);
    let content = file_of(before).filter(|_| comes_back);
    Ok(Some(Back { node, seq, last: now.seq, kind, path, content }))
}

/// What shows at a path.
pub fn shown_at(view: &dyn View, path: &RelPath) -> Read<Option<(NodeId, Wanted)>> {
    let (mut dir, mut found) = (ROOT, None);
    for name in path.names() {
        let Some((node, w)) = names::visible_at(view, &Position::new(dir, name.clone()))? else {
            return Ok(None);
        };
        dir = node;
        found = Some((node, w));
    }
    Ok(found)
}

impl Work<'_> {
    /// Takes a node back; `false` if it was changed since it was selected.
    pub fn take_back(&mut self, back: &Back) -> Read<bool> {
        let Some(row) = self.tx.node(back.node)? else { return Ok(false) };
        let Some((_, change)) = self.tx.changes(back.seq, back.seq + 1, 1)?.pop() else { return Ok(false) };
        if row.seq != back.last || change.node != back.node {
            return Ok(false);
        }
        self.applied_until_now(back.node, &row.state)?;
        let ChangeRow { before, .. } = change;
        let place = before.placed().map(|(_, p)| Position::new(p.value.parent, p.value.name.clone()));
        match (top(&before), &place, row.state.alive()) {
            (Some((dot, content)), Some(at), false) => {
                let (_, made) =
                    self.create(at, Some(back.node), content.clone(), attributes(&before, dot, content))?;
                self.tx.put_again(made);
                self.have_beside(back.node, &before)?;
            }
            (Some((dot, content)), _, true) => {
                self.become_again(back.node, &row.state, content, attributes(&before, dot, content))?;
                self.have_beside(back.node, &before)?;
            }
            (_, _, alive) => {
                let mode = before.mode_of(None).unwrap_or(names::default_mode(&Content::Dir));
                if place.is_some() && row.state.mode_of(None).is_some_and(|now| now != mode) {
                    // A directory that was deleted showed for what lives in it.
                    self.set_mode(back.node, None, None, mode)?;
                }
                if alive {
                    self.remove_node(back.node)?;
                }
            }
        }
        if let Some(to) = place
            && self.tx.node(back.node)?.and_then(|now| now.raw()).as_ref() != Some(&to)
        {
            self.relocate(back.node, &to, None)?;
        }
        Ok(true)
    }

    /// A node has the conflict copies again that it had. One that took the name when what had it was removed is one of them.
    fn have_beside(&mut self, node: NodeId, before: &State) -> Read<()> {
        for (dot, beside) in before.versions().into_iter().skip(1) {
            let now = self.tx.node(node)?;
            if now.is_none_or(|now| now.state.versions().iter().all(|(_, has)| *has != beside)) {
                let made = self.add_version(node, beside.clone(), attributes(before, dot, beside), 0)?;
                self.tx.put_again(made);
            }
        }
        Ok(())
    }

    /// A node that lives gets another content, mode and time.
    fn become_again(
        &mut self,
        node: NodeId,
        now: &State,
        content: &Content,
        attributes: Attributes,
    ) -> Read<()> {
        let Some((dot, is)) = top(now) else { return Ok(()) };
        if is != content {
            let made = self.edit(node, is, None, content.clone(), attributes)?;
            self.tx.put_again(made);
            return Ok(());
        }
        if let Some(mode) = attributes.mode.filter(|m| Some(*m) != now.mode_of(Some(dot))) {
            self.set_mode(node, Some(dot), None, mode)?;
        }
        if let Some(mtime) = attributes.mtime.filter(|t| Some(*t) != now.mtime_of(Some(dot))) {
            self.set_mtime(node, Some(dot), None, mtime)?;
        }
        Ok(())
    }

    /// Makes something again at a path: in place of the file or link that is there, else anew, with the
    /// directories above it. `false` if it is there already, or something of another kind is.
    pub fn make(
        &mut self,
        path: &RelPath,
        content: &Content,
        mode: Option<u16>,
        mtime: Option<Mtime>,
    ) -> Read<bool> {
        let Some((above, name)) = path.split_last() else { return Ok(false) };
        let Some(dir) = self.make_dirs(above.names())? else { return Ok(false) };
        let at = Position::new(dir, name.clone());
        let attributes = Attributes {
            mode: mode.filter(|_| !matches!(content, Content::Link(_))),
            mtime: mtime.filter(|_| matches!(content, Content::File { .. })),
        };
        let Some((node, w)) = names::visible_at(&self.tx, &at)? else {
            self.create_unapplied(&at, content.clone(), attributes)?;
            return Ok(true);
        };
        let Some(row) = self.tx.node(node)? else { return Ok(false) };
        let dirs = [&w.content, content].map(|c| *c == Content::Dir);
        if w.copy || dirs[0] != dirs[1] {
            return Ok(false);
        }
        let before = row.seq;
        self.applied_until_now(node, &row.state)?;
        self.become_again(node, &row.state, content, attributes)?;
        Ok(self.tx.node(node)?.is_some_and(|r| r.seq != before))
    }

    /// The directory of a path, made where it is missing; `None` if something else is in its way.
    fn make_dirs(&mut self, names: &[Name]) -> Read<Option<NodeId>> {
        let mut dir = ROOT;
        for name in names {
            let at = Position::new(dir, name.clone());
            dir = match names::visible_at(&self.tx, &at)? {
                Some((node, w)) if w.content == Content::Dir => node,
                Some(_) => return Ok(None),
                None => {
                    let attributes = Attributes { mode: Some(0o755), mtime: None };
                    self.create_unapplied(&at, Content::Dir, attributes)?
                }
            };
        }
        Ok(Some(dir))
    }

    fn create_unapplied(&mut self, at: &Position, content: Content, with: Attributes) -> Read<NodeId> {
        let node = self.fresh(at)?;
        if let Some(row) = self.tx.node(node)? {
            self.applied_until_now(node, &row.state)?;
        }
        let (_, made) = self.create(at, Some(node), content, with)?;
        self.tx.put_again(made);
        Ok(node)
    }

    /// Removes a node, whatever of it shows. What lives in it keeps it.
    fn remove_node(&mut self, node: NodeId) -> Read<()> {
        self.write(node, |s, dot| {
            let mut at_delete = s.seen.clone();
            at_delete.add(dot);
            s.gone = DotStore::default();
            s.gone.insert(dot, at_delete);
        })?;
        Ok(())
    }
}
