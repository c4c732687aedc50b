//! The brake holds: no device carries out or tells a mass delete that nobody accepted.

use crate::evidence::counted;
use crate::kept::is_own;
use crate::links::{MS, Time};
use crate::world::{World, after};
use dunlin_core::brake::{held, released};
use dunlin_core::ids::NodeId;
use dunlin_core::kv::{Changes, Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;

const INVARIANT: &str = "the brake holds";
/// Deletes within this time are one.
const MINUTE: Time = 60_000 * MS;

/// Whether a node is gone, and no person accepted that.
fn is_deleted(view: &dyn View, node: NodeId) -> Read<bool> {
    let accepted = released(view)?;
    let Some(row) = view.node(node)?.filter(|r| !r.state.alive()) else { return Ok(false) };
    let gone = row.state.gone.entries();
    Ok(!gone.iter().any(|(dot, _)| accepted.iter().any(|r| r.covers(*dot))))
}

impl World {
    /// A program that starts anew begins to count anew.
    pub(crate) fn forget_deletes(&mut self, device: usize) {
        self.machines[device].deletes.clear();
        self.machines[device].coming.clear();
        self.machines[device].made.clear();
    }

    /// What vanished from a disk becomes deletes with a commit.
    pub(crate) fn check_brake(&mut self, device: usize, before: &dyn View, changes: &Changes) -> Read<()> {
        if self.machines[device].brake.is_none() {
            return Ok(());
        }
        let after = after(before, changes);
        let holds = |view: &dyn View| held(view).map(|h| h.is_some_and(|h| h.holds_deletes()));
        let (held_before, held_after) = (holds(before)?, holds(&after)?);
        if held_before && !held_after {
            self.machines[device].deletes.clear();
            self.machines[device].coming.clear();
        }
        self.note_made(device, before, &after, changes)?;
        self.note_rejected(device, before, &after, changes)?;
        let (mut deleted, mut others) = (Vec::new(), Vec::new());
        for key in changes.iter().filter(|(k, v)| k.first() == Some(&b'l') && v.is_none()).map(|(k, _)| k) {
            let Some(at) = crate::world::position(key) else { continue };
            let Some(row) = before.local(&at)?.filter(|r| r.content != Content::Dir) else { continue };
            let lived = before.node(row.node)?.is_some_and(|r| r.state.alive());
            let young = self.machines[device].made.contains_key(&row.node);
            deleted.extend((lived && !young && is_deleted(&after, row.node)?).then_some(row.node));
            // Another version of it is to come.
            let lives = after.node(row.node)?.is_some_and(|row| row.state.alive());
            let coming = lived && !young && lives && after.places_of(row.node)?.is_empty();
            others.extend(coming.then_some((self.now, row.node)));
        }
        if !deleted.is_empty() && held_before && held_after {
            self.breaks(
                INVARIANT,
                format!("device {device} tells of {} deletes while it is halted", deleted.len()),
            );
        }
        let files = after.totals()?.files;
        self.count(device, deleted, files);
        self.machines[device].coming.extend(others);
        Ok(())
    }

    /// Edits that a person rejects are let go of by who saw them held, and what was there may show once more.
    fn note_rejected(
        &mut self,
        device: usize,
        before: &dyn View,
        after: &dyn View,
        changes: &Changes,
    ) -> Read<()> {
        let holds = |view: &dyn View| held(view).map(|h| h.is_some_and(|h| h.holds() && h.replaced > 0));
        if !holds(before)? || holds(after)? {
            return Ok(());
        }
        for key in changes.iter().filter(|(k, v)| k.first() == Some(&b'n') && v.is_some()).map(|(k, _)| k) {
            let Some(node) = key.get(1..).and_then(NodeId::from_slice) else { continue };
            let [was, is] = [before.node(node)?, after.node(node)?].map(|row| {
                let state = row.map(|row| row.state).unwrap_or_default();
                state.versions().into_iter().filter_map(|(_, content)| counted(content)).collect::<Vec<_>>()
            });
            is.iter().filter(|id| !was.contains(id)).for_each(|id| self.ledger.moved(*id));
            for id in was.iter().filter(|id| !is.contains(id)) {
                self.ledger.destroyed(*id);
                self.ledger.let_go(device, *id);
            }
        }
        Ok(())
    }

    /// What is made on a device, or heard of for the first time, is young for a minute, and longer while it is halted.
    fn note_made(
        &mut self,
        device: usize,
        before: &dyn View,
        after: &dyn View,
        changes: &Changes,
    ) -> Read<()> {
        let now = self.now;
        let made = &mut self.machines[device].made;
        if !held(before)?.is_some_and(|h| h.holds()) {
            made.retain(|_, at| now <= *at + MINUTE);
        }
        for key in changes.iter().filter(|(k, v)| k.first() == Some(&b'l') && v.is_some()).map(|(k, _)| k) {
            let Some(at) = crate::world::position(key) else { continue };
            let Some(row) = after.local(&at)?.filter(|r| r.content != Content::Dir) else { continue };
            if before.node(row.node)?.is_none_or(|was| !was.state.alive()) {
                made.insert(row.node, now);
            }
        }
        for key in changes.iter().filter(|(k, v)| k.first() == Some(&b'n') && v.is_some()).map(|(k, _)| k) {
            let Some(node) = key.get(1..).and_then(NodeId::from_slice) else { continue };
            if before.node(node)?.is_none() {
                made.insert(node, now);
            }
        }
        Ok(())
    }

    /// The program takes something out of the folder.
    pub(crate) fn removes(&mut self, device: usize, from: &RelPath, to: &RelPath) {
        if self.machines[device].brake.is_none() || is_own(from) || !is_own(to) {
            return;
        }
        let (rows, made) = (self.machines[device].index.rows(), &self.machines[device].made);
        let removed = || -> Read<Option<NodeId>> {
            let Some((mut names, name)) = from.split_last().map(|(dir, name)| (dir, name.clone())) else {
                return Ok(None);
            };
            let mut dir = dunlin_core::ids::ROOT;
            for name in std::mem::take(&mut names).names() {
                let Some(row) = rows.local(&Position::new(dir, name.clone()))? else { return Ok(None) };
                dir = row.node;
            }
            let row = rows.local(&Position::new(dir, name))?.filter(|r| r.content != Content::Dir);
            let Some(row) = row.filter(|r| !made.contains_key(&r.node)) else { return Ok(None) };
            Ok(is_deleted(rows.as_ref(), row.node)?.then_some(row.node))
        };
        let Ok(Some(node)) = removed() else { return };
        if held(rows.as_ref()).is_ok_and(|h| h.is_some_and(|h| h.holds_deletes())) {
            self.breaks(INVARIANT, format!("device {device} removes {from} while it is halted"));
        }
        let files = rows.totals().map_or(0, |t| t.files.saturating_sub(1));
        self.count(device, vec![node], files);
    }

    /// So many more files were deleted; so many are left.
    fn count(&mut self, device: usize, deleted: Vec<NodeId>, files: u64) {
        let now = self.now;
        let machine = &mut self.machines[device];
        // What lives again was taken back, and is one of the files that are left; before it is here, too.
        let rows = machine.index.rows();
        let lives = |node: &NodeId| rows.node(*node).ok().flatten().is_some_and(|row| row.state.alive());
        let is_here = |node: &NodeId| rows.places_of(*node).is_ok_and(|places| !places.is_empty());
        machine.coming.extend(machine.deletes.iter().filter(|(_, node)| lives(node)).copied());
        machine.coming.retain(|(at, node)| now <= at + MINUTE && lives(node) && !is_here(node));
        machine.deletes.retain(|(at, node)| now <= at + MINUTE && !lives(node));
        let files = files + machine.coming.len() as u64;
        let before = machine.deletes.len();
        for node in deleted {
            // One that failed half-way is tried again.
            if machine.deletes.iter().all(|(_, n)| *n != node) {
                machine.deletes.push_back((now, node));
            }
        }
        let (all, least) = (machine.deletes.len() as u64, machine.brake.unwrap_or(u64::MAX));
        if machine.deletes.len() > before && all >= least && all > files {
            self.breaks(
                INVARIANT,
                format!("device {device}: {all} deletes in a minute, {files} files are left"),
            );
        }
    }
}
