//! A machine with all that is on it, kept at one moment and brought back later.

use crate::disk::{Image, Thing};
use crate::index::Stored;
use crate::kept::Taken;
use crate::users::content_of;
use crate::world::World;
use dunlin_core::ids::ContentId;
use dunlin_core::path::RelPath;
use dunlin_core::plan::path_of;
use dunlin_core::rows::Rows;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A machine at a moment.
pub struct Whole {
    disk: Image,
    index: Arc<Stored>,
    taken: Taken,
    /// What its users let go of until then.
    let_go: Vec<ContentId>,
}

impl World {
    /// Keeps a machine as it is; one that was never set up is not worth it.
    pub(crate) fn keep_all(&mut self, device: usize) {
        let machine = &mut self.machines[device];
        let index = machine.index.rows();
        let control = machine.disk.control_tree();
        let is_set_up = control.keys().any(|path| path.to_bytes().ends_with(b".dunlin/life"));
        if machine.away || !is_set_up || !index.totals().is_ok_and(|t| t.seq > 0) {
            return;
        }
        let (disk, taken) = (machine.disk.image(), machine.taken.clone());
        machine.whole = Some(Whole { disk, index, taken, let_go: self.ledger.all_let_go(device) });
    }

    /// Whether a machine can be brought back as it was.
    pub(crate) fn is_kept(&self, device: usize) -> bool {
        let machine = &self.machines[device];
        machine.whole.is_some() && !machine.away
    }

    /// A machine is again what it was. What its user wrote since was let go of with it, as far as nobody else has it.
    pub(crate) fn bring_back(&mut self, device: usize) {
        let before = self.contents(device);
        // What stood somewhere and was not recorded there yet, nobody was told: a move, half of which was, say.
        let untold = self.unrecorded(device);
        let torn = self.power.one_in(2);
        self.rough |= torn;
        let machine = &mut self.machines[device];
        let Some(whole) = &machine.whole else { return };
        machine.disk.bring_back(&whole.disk, torn.then_some(&mut self.power));
        machine.index.bring_back(whole.index.clone());
        machine.taken = whole.taken.clone();
        let after = self.contents(device);
        let elsewhere: BTreeSet<ContentId> = (0..self.machines.len())
            .filter(|other| *other != device)
            .flat_map(|other| {
                let disk = &self.machines[other].disk;
                disk.visible().into_values().chain(disk.away().into_values())
            })
            .filter_map(|thing| content_of(&thing))
            .collect();
        let lost = before.difference(&after).filter(|id| !elsewhere.contains(id));
        for lost in lost.copied().chain(untold).collect::<Vec<_>>() {
            self.ledger.excuse(lost);
            self.ledger.let_go(device, lost);
        }
    }

    /// Of two copies of a machine the other one is at work from now on. What its user had on this one counts as let go of
    /// with it, as far as nobody else has it: it may stay off for good.
    pub(crate) fn take_turns(&mut self, device: usize) {
        let machine = &self.machines[device];
        let (disk, index, taken) = (machine.disk.image(), machine.index.rows(), machine.taken.clone());
        let now = Whole { disk, index, taken, let_go: self.ledger.all_let_go(device) };
        self.bring_back(device);
        self.machines[device].whole = Some(now);
    }

    /// Another machine becomes what was kept of this one, torn or whole. What users had let go of there by then, and
    /// what is torn, they had in hand on this one too. `false`: nothing was kept.
    pub(crate) fn copy(&mut self, from: usize, to: usize) -> bool {
        let brake = self.machines[from].brake;
        let Some(whole) = &self.machines[from].whole else { return false };
        let torn = self.power.one_in(2);
        let (image, index) = (whole.disk.clone(), whole.index.clone());
        let (taken, mut let_go) = (whole.taken.clone(), whole.let_go.clone());
        let machine = &mut self.machines[to];
        (machine.taken, machine.brake) = (taken, brake);
        machine.index.bring_back(index);
        machine.disk.bring_back(&image, None);
        if torn {
            let before = self.contents(to);
            self.machines[to].disk.bring_back(&image, Some(&mut self.power));
            let after = self.contents(to);
            let_go.extend(before.difference(&after));
        }
        self.rough |= torn;
        let_go.into_iter().for_each(|id| self.ledger.let_go(to, id));
        true
    }

    /// A folder alone is again what it was, with the notes in it. What its user had there since is let go of, as if it had
    /// been replaced and deleted by hand, and what was there then is back.
    pub(crate) fn bring_back_folder(&mut self, device: usize) {
        self.rough = true;
        let machine = &mut self.machines[device];
        let Some(whole) = &machine.whole else { return };
        let had = machine.disk.visible();
        machine.disk.bring_back(&whole.disk, None);
        machine.taken = whole.taken.clone();
        let has = machine.disk.visible();
        for id in had.values().filter_map(content_of) {
            self.ledger.destroyed(id);
            self.ledger.let_go(device, id);
        }
        has.values().filter_map(content_of).for_each(|id| self.ledger.moved(id));
    }

    fn unrecorded(&self, device: usize) -> Vec<ContentId> {
        let rows = self.machines[device].index.rows();
        let recorded = |path: &RelPath, id: &ContentId| {
            let holders = rows.holders(*id).unwrap_or_default();
            holders.iter().any(|at| path_of(rows.as_ref(), at).ok().flatten().as_ref() == Some(path))
        };
        let visible = self.machines[device].disk.visible();
        let files = visible.iter().filter(|(_, thing)| matches!(thing, Thing::File { .. }));
        let contents = files.filter_map(|(path, thing)| Some((path, content_of(thing)?)));
        contents.filter(|(path, id)| !recorded(path, id)).map(|(_, id)| id).collect()
    }
}
