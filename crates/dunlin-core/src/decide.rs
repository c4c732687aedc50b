//! What is on this disk of one node against what should be: the whole decision table.

use crate::ids::{Dot, NodeId};
use crate::kv::{Read, Tx, View};
use crate::names::Wanted;
use crate::rows::{LocalRow, NeedRow, Position, Rows, is_released};
use crate::state::{Content, State};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// One thing that differs between the disk and what should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing of this version is on the disk.
    Create(Wanted),
    /// The version is elsewhere on the disk; its content may differ too, which comes after.
    Move(Position, LocalRow, Wanted),
    /// An older version is at the right place, or the right one with damaged bytes.
    Replace(LocalRow, Wanted),
    /// Only the mode or the modification time differ.
    Meta(LocalRow, Wanted),
    /// What is on the disk should not be.
    Remove(Position, LocalRow),
}

/// What a version on the disk is to become.
pub type Pair = ((Position, LocalRow), Wanted);

/// In which round of a plan a lack comes: what makes room first, what takes away last.
pub mod phase {
    /// Directories appear and move.
    pub const DIRS: u8 = 0;
    /// Moves, links and metadata: no content has to be fetched.
    pub const LIGHT: u8 = 1;
    /// Files whose content is needed.
    pub const FILES: u8 = 2;
    /// Files and links go.
    pub const REMOVE: u8 = 3;
    /// Directories go.
    pub const REMOVE_DIRS: u8 = 4;
}

fn same_kind(a: &Content, b: &Content) -> bool {
    (*a == Content::Dir) == (*b == Content::Dir)
}

/// Matches what is on the disk with what should be: the same version first, then equal content, then
/// what stands at the right place, then whatever is of the same kind.
pub fn pair(
    locals: Vec<(Position, LocalRow)>,
    wanted: Vec<Wanted>,
) -> (Vec<Pair>, Vec<(Position, LocalRow)>, Vec<Wanted>) {
    type Match = fn(&(Position, LocalRow), &Wanted) -> bool;
    let rules: [Match; 4] = [
        |(at, l), w| l.dot == w.dot && l.content == w.content && *at == w.at,
        |(_, l), w| l.content == w.content,
        |(at, _), w| *at == w.at,
        |_, _| true,
    ];
    let (mut pairs, mut locals, mut wanted) = (Vec::new(), locals, wanted);
    for rule in rules {
        let mut rest = Vec::new();
        for local in locals {
            let fits = |w: &Wanted| same_kind(&local.1.content, &w.content) && rule(&local, w);
            match wanted.iter().position(fits) {
                Some(i) => pairs.push((local, wanted.remove(i))),
                None => rest.push(local),
            }
        }
        locals = rest;
    }
    (pairs, locals, wanted)
}

/// What one pair lacks first, if anything.
fn compare(((at, local), wanted): Pair) -> Option<Lack> {
    if at != wanted.at {
        return Some(Lack::Move(at, local, wanted));
    }
    if local.content != wanted.content || local.damaged.is_some() {
        return Some(Lack::Replace(local, wanted));
    }
    let mode = local.mode != wanted.mode && !matches!(wanted.content, Content::Link(_));
    let mtime = local.mtime != wanted.mtime && matches!(wanted.content, Content::File { .. });
    (mode || mtime).then_some(Lack::Meta(local, wanted))
}

/// Everything that differs for one node.
pub fn decide(locals: Vec<(Position, LocalRow)>, wanted: Vec<Wanted>) -> Vec<Lack> {
    let (pairs, gone, new) = pair(locals, wanted);
    let mut out: Vec<Lack> = pairs.into_iter().filter_map(compare).collect();
    out.extend(new.into_iter().map(Lack::Create));
    out.extend(gone.into_iter().filter(|(_, l)| !l.kept).map(|(at, l)| Lack::Remove(at, l)));
    out
}

/// The versions of a node on this disk.
pub fn locals_of(view: &dyn View, node: NodeId) -> Read<Vec<(Position, LocalRow)>> {
    let mut out = Vec::new();
    for at in view.places_of(node)? {
        if let Some(row) = view.local(&at)? {
            out.push((at, row));
        }
    }
    Ok(out)
}

/// Everything that differs for `node`, read from the index.
pub fn lacks_of(view: &dyn View, node: NodeId) -> Read<Vec<Lack>> {
    let wanted = crate::names::wanted(view, node)?;
    if holds_unknown(view, node, &wanted)? {
        return Ok(Vec::new());
    }
    Ok(decide(locals_of(view, node)?, wanted))
}

/// Whether a node lives, and is nothing but of kinds that only a newer program knows: then it is left on the disk as
/// it is. A version of such a kind beside others, or one that was deleted, holds nothing back. `wanted`: what shows of it.
fn holds_unknown(view: &dyn View, node: NodeId, wanted: &[Wanted]) -> Read<bool> {
    // Only what is known shows.
    if wanted.iter().any(|w| w.dot.is_some()) {
        return Ok(false);
    }
    let unknown = |c: &Content| matches!(c, Content::Unknown { .. });
    let Some(state) = view.node(node)?.map(|r| r.state) else { return Ok(false) };
    if !state.content.entries().iter().any(|(_, c)| unknown(&c.value)) {
        return Ok(false);
    }
    let shown = state.versions();
    Ok(!shown.is_empty() && shown.iter().all(|(_, c)| unknown(c)))
}

/// Records what `node` needs, given what should show of it. A node that needs nothing has all of its
/// state applied here, which is recorded too.
pub(crate) fn refresh(tx: &mut Tx<'_>, node: NodeId, wanted: Vec<Wanted>) -> Read<()> {
    let locals = locals_of(tx, node)?;
    if holds_unknown(tx, node, &wanted)? {
        // What stands here may be anything: that is not in sync.
        return tx.put_need(node, Some(&NeedRow { phase: u8::MAX, ..NeedRow::default() }));
    }
    if locals.is_empty() && wanted.is_empty() {
        return tx.put_need(node, None);
    }
    let lacks = decide(locals.clone(), wanted.clone());
    if lacks.is_empty() {
        for ((at, mut local), wanted) in pair(locals, wanted).0 {
            if local.dot != wanted.dot || local.seen.is_some() || local.kept {
                (local.dot, local.seen, local.kept) = (wanted.dot, None, false);
                wanted.dot.map_or(Ok(()), |dot| tx.remove_again(dot))?;
                tx.put_local(&at, Some(&local))?;
            }
        }
        return tx.put_need(node, None);
    }
    let need = need_of(tx, node, &lacks)?;
    tx.put_need(node, Some(&need))
}

fn need_of(view: &dyn View, node: NodeId, lacks: &[Lack]) -> Read<NeedRow> {
    let (removals, leaving) = removals(view, node, lacks)?;
    let mut need = NeedRow { phase: u8::MAX, removals, leaving, ..NeedRow::default() };
    let mut blocked = None;
    for lack in lacks {
        if let Lack::Create(w) | Lack::Replace(_, w) = lack {
            need.bytes = need.bytes.saturating_add(missing_bytes(view, &w.content)?);
        }
        if let Some(replaced) = overwrites(view, lack)? {
            need.replaces += 1;
            need.replaced = need.replaced.saturating_add(replaced);
        }
        match waits_for(view, node, lack)? {
            Some(dir) => blocked = blocked.or(Some(dir)),
            None => need.phase = need.phase.min(phase_of(lack)),
        }
    }
    if need.phase == u8::MAX {
        need.waits = blocked;
    }
    Ok(need)
}

/// How many bytes of a file on this disk are replaced by an edit that nobody accepted, if any are.
pub(crate) fn overwrites(view: &dyn View, lack: &Lack) -> Read<Option<u64>> {
    let Lack::Replace(LocalRow { content: Content::File { size, .. }, damaged: None, .. }, w) = lack else {
        return Ok(None);
    };
    let accepted = w.dot.map_or(Ok(false), |dot| is_released(view, dot))?;
    Ok((*size > 0 && !accepted).then_some(*size))
}

/// How many files and links are to go because the node was deleted: those for which nobody accepted that yet, and those for
/// which somebody did. What goes while the node lives (a conflict copy, something that is a node of its own by now) is no
/// delete of it.
fn removals(view: &dyn View, node: NodeId, lacks: &[Lack]) -> Read<(u32, u32)> {
    let is_file = |lack: &&Lack| matches!(lack, Lack::Remove(_, l) if l.content != Content::Dir);
    let count = lacks.iter().filter(is_file).count();
    let Some(row) = view.node(node)?.filter(|r| count > 0 && !r.state.alive()) else { return Ok((0, 0)) };
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(if is_accepted(view, &row.state)? { (0, count) } else { (count, 0) })
}

/// Whether the deletes that a person accepted are enough for a node to be gone.
pub(crate) fn is_accepted(view: &dyn View, state: &State) -> Read<bool> {
    let mut accepted = BTreeSet::new();
    for (dot, _) in state.gone.entries() {
        if is_released(view, *dot)? {
            accepted.insert(*dot);
        }
    }
    let taken = |dot: Dot| state.taken_by(dot, |gone| accepted.contains(&gone));
    Ok(!accepted.is_empty() && state.content.entries().iter().all(|(dot, _)| taken(*dot)))
}

fn missing_bytes(view: &dyn View, content: &Content) -> Read<u64> {
    match content {
        Content::File { id, size } if view.holders(*id)?.is_empty() => Ok(*size),
        _ => Ok(0),
    }
}

/// The directory whose appearing (or, for a removal, emptying) has to come before.
fn waits_for(view: &dyn View, node: NodeId, lack: &Lack) -> Read<Option<NodeId>> {
    match lack {
        Lack::Create(w) | Lack::Move(_, _, w) => Ok((!view.is_on_disk(w.at.dir)?).then_some(w.at.dir)),
        Lack::Remove(_, l) if l.content == Content::Dir => Ok(holds_more(view, node)?.then_some(node)),
        _ => Ok(None),
    }
}

/// Whether anything of ours that goes or stays for itself is on this disk in a directory: everything
/// but directories that are kept for what is in them.
pub(crate) fn holds_more(view: &dyn View, dir: NodeId) -> Read<bool> {
    let (mut last, mut limit) = (None, 1);
    loop {
        let page = view.locals_after(dir, last.as_ref(), limit)?;
        if page.iter().any(|(_, l)| !l.kept) {
            return Ok(true);
        }
        let Some((end, _)) = page.into_iter().next_back() else { return Ok(false) };
        (last, limit) = (Some(end), 256);
    }
}

/// The round in which a lack comes.
pub fn phase_of(lack: &Lack) -> u8 {
    match lack {
        Lack::Create(w) if w.content == Content::Dir => phase::DIRS,
        Lack::Move(_, l, _) if l.content == Content::Dir => phase::DIRS,
        Lack::Create(Wanted { content: Content::Link(_), .. }) | Lack::Move(..) | Lack::Meta(..) => {
            phase::LIGHT
        }
        Lack::Replace(_, Wanted { content: Content::Link(_), .. }) => phase::LIGHT,
        Lack::Create(_) | Lack::Replace(..) => phase::FILES,
        Lack::Remove(_, l) if l.content == Content::Dir => phase::REMOVE_DIRS,
        Lack::Remove(..) => phase::REMOVE,
    }
}
