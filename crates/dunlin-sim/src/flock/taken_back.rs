//! A mass change in a flock that rests, taken back, that taken back too, and one thing had again: what comes of each can
//! be told beforehand, whatever dies meanwhile.

use super::again::Asked;
use super::{Flock, ROOM};
use crate::chance::Chance;
use crate::judge::{Shape, Tree};
use crate::links::{MS, Time};
use crate::script::{Act, What};
use crate::users::path;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{MASS, PAUSE};
use dunlin_node::disk::Disk;

/// Contents that nothing else writes.
const FIRST: u32 = 910_000;
const DIR: &str = "mass";
const OTHER_DIR: &str = "moved-mass";
const UNDONE: &str = "an undo at rest brings back what the burst took";
const RESTORED: &str = "a restore at rest makes the path hold that version";

/// The most blocks that are free on a disk that is nearly full, but for what is left to others: less than what comes back
/// takes.
const FREE_MAX: u64 = 6;
/// Of so many bytes that others have some are left to them, in which a folder can be opened.
const OTHERS: u64 = 4 << 20;

/// The stream of chance of a seed with disks that are nearly full. It is one of their own: other seeds stay as they were.
pub(super) fn tight(seed: u64) -> Option<Chance> {
    let mut chance = Chance::new(seed, "tight");
    chance.one_in(3).then_some(chance)
}

impl Flock {
    /// Takes a mass change back, and that, in the seeds that have restores.
    pub(crate) fn takes_back_at_rest(&mut self) {
        let Some(mut chance) = self.restores.take() else { return };
        let staying = self.staying();
        if self.is_broken() || self.refused || self.hopeless || staying.len() < 2 {
            return;
        }
        let mut some = || staying[chance.below(staying.len() as u64) as usize];
        let (maker, hand, undoer, again) = (some(), some(), some(), some());
        // Of edits with deletes there must be enough of each.
        let how = chance.below(5);
        let names: Vec<String> =
            (0..if how == 4 { 2 * MASS } else { MASS + 1 }).map(|i| format!("{DIR}/f{i}")).collect();
        self.hands(maker, What::Mkdir { path: DIR.into() });
        self.hands(maker, What::Mkdir { path: OTHER_DIR.into() });
        for (i, name) in (FIRST..).zip(&names) {
            self.hands(maker, What::Save { path: name.clone(), content: i });
        }
        self.hands(maker, What::Chmod { path: names[1].clone(), mode: 0o600 });
        self.hands(maker, What::Touch { path: names[2].clone(), secs: 1_000_000 });
        let Some(before) = self.settled() else { return };
        // What was done before is no part of it.
        let until = self.now + (PAUSE + 2) * 1_000 * MS;
        while self.step(until) {}
        self.now = self.now.max(until);
        self.bursts(hand, &names, how);
        let Some(after) = self.settled() else { return };
        let differ = before.iter().filter(|(path, shape)| after.get(*path) != Some(*shape)).count();
        if self.refused || differ < MASS {
            // Not every disk has modes.
            return;
        }
        if self.undoes(undoer, hand, (&after, &before), &mut chance)
            && self.undoes(again, hand, (&before, &after), &mut chance)
        {
            let name = &names[chance.below(names.len() as u64) as usize];
            self.restores_one(maker, name, &before, after);
        }
    }

    /// What is there when all is at rest.
    fn settled(&mut self) -> Option<Tree> {
        (self.rest() && !self.is_broken() && !self.hopeless && !self.has_unshown())
            .then(|| self.tree(self.staying()[0]))
    }

    /// A user changes all of them in one go.
    fn bursts(&mut self, hand: usize, names: &[String], how: u64) {
        if how == 0 {
            return self.hands(hand, What::Remove { path: DIR.into() });
        }
        for (i, path) in names.iter().cloned().enumerate() {
            let content = FIRST + 1000 + u32::try_from(i).unwrap_or(0);
            let to = path.replacen(DIR, OTHER_DIR, 1);
            self.hands(
                hand,
                match how {
                    1 => What::Save { path, content },
                    2 => What::Move { from: path, to },
                    3 => What::Chmod { path, mode: 0o640 },
                    // Edits are found at once, and deletes a moment later.
                    _ if i % 2 == 0 => What::Save { path, content },
                    _ => What::Remove { path },
                },
            );
        }
    }

    /// A device takes the last mass change back, while something happens to it or to another one; whether all is as it
    /// was.
    fn undoes(&mut self, device: usize, other: usize, trees: (&Tree, &Tree), chance: &mut Chance) -> bool {
        self.tightens(other);
        let inside = 1 + chance.below(60) as u32;
        let is_moved =
            |path: &RelPath| path.names().len() == 2 && path.names()[0].as_bytes() == OTHER_DIR.as_bytes();
        let moved = trees.0.keys().chain(trees.1.keys()).any(is_moved);
        let full = match chance.below(5) {
            0 => self.arms(device, inside, What::Kill),
            // Half of a move may be there after a power cut, and shows twice.
            1 if moved => self.arms(device, inside, What::Kill),
            1 => self.arms(device, inside, What::PowerCut),
            // It has to fetch what it had deleted.
            2 => other != device && self.devices.len() > 2,
            _ => false,
        };
        let asked = self.takes_back(device, None, MASS);
        if full {
            let disk = self.shared.world().machines[other].disk.clone();
            disk.set_quota(0, 0);
            let until: Time = self.now + 1_500 * MS;
            while self.step(until) {}
            disk.set_quota(ROOM.0, ROOM.1);
            self.after_hands(other);
        }
        let now = self.settled();
        self.loosens();
        let Some(now) = now else { return false };
        let (from, to) = trees;
        // Of what nobody was told either is right.
        let expected = if asked == Asked::Untold && now == *from { from } else { to };
        if asked == Asked::Not {
            self.breaks(UNDONE, format!("device {device} found nothing to take back"));
        }
        self.same_tree(expected, UNDONE) && expected == to
    }

    /// Who has in its history what is to come back has no room for copies of it; who has to fetch it does.
    fn tightens(&mut self, fetches: usize) {
        let Some(chance) = &mut self.tight else { return };
        let disks: Vec<_> = self.shared.world().machines.iter().map(|m| m.disk.clone()).collect();
        for (device, disk) in disks.iter().enumerate() {
            let free = OTHERS / 100 + chance.below(FREE_MAX + 1) * 4096;
            // What is removed and may come back after a power cut takes none of it.
            if device != fetches
                && disk.sync_all().is_ok()
                && let Ok(space) = disk.space()
            {
                disk.set_quota(space.total.saturating_sub(space.free) + free, ROOM.1);
                disk.set_others(OTHERS);
            }
        }
    }

    /// What went into the history meanwhile may have yielded: whoever takes back that next has room to fetch.
    fn loosens(&mut self) {
        if self.tight.take().is_none() {
            return;
        }
        for device in 0..self.devices.len() {
            let disk = self.shared.world().machines[device].disk.clone();
            disk.set_quota(ROOM.0, ROOM.1);
            disk.set_others(0);
            self.after_hands(device);
        }
    }

    fn arms(&mut self, device: usize, inside: u32, what: What) -> bool {
        self.act(Act { at_ms: 0, device, inside, what });
        false
    }

    /// One thing is had again as it was before the mass change.
    fn restores_one(&mut self, device: usize, name: &str, before: &Tree, mut tree: Tree) {
        let asked = self.asks_again(device, &What::Restore { path: name.into() });
        let Some(now) = self.settled() else { return };
        let at = path(name);
        if before.get(&at) == tree.get(&at) {
            return;
        }
        // A mode or time alone makes no version that differs.
        let holds = |shape: Option<&Shape>| match shape {
            Some(Shape::File(_, _, id)) => Some(*id),
            _ => None,
        };
        if holds(before.get(&at)) == holds(tree.get(&at)) {
            return;
        }
        if asked != Asked::Done {
            return self.breaks(RESTORED, format!("device {device} was asked for {name}: {asked:?}"));
        }
        tree.extend(before.get(&at).map(|shape| (at.clone(), shape.clone())));
        if let Some(dir @ Shape::Dir(_)) = now.get(&path(DIR)) {
            tree.insert(path(DIR), dir.clone());
        }
        self.same_tree(&tree, RESTORED);
    }
}
