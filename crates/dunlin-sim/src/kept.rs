//! What the program takes out of the folder: it may not be gone for good.

use crate::disk::{Effect, ModelDisk, Thing};
use crate::ledger::id_of;
use crate::users::content_of;
use crate::world::{Shared, World};
use dunlin_core::ids::ContentId;
use dunlin_core::path::{CONTROL_DIR, RelPath};
use dunlin_node::disk::{Disk, Rename};
use std::collections::BTreeSet;

/// A file on a disk: its inode and what it holds.
type File = (u64, ContentId);

/// What the program did to files of users on one machine.
#[derive(Clone, Default)]
pub struct Taken {
    /// Files that were visible, and lie in the program's own directory.
    out: BTreeSet<File>,
    /// What it put in place by its last change; if that comes out again it is its own still.
    placed: Option<File>,
    /// What was to come out by the last exchange, and where it lies if that did not fail.
    coming: Option<(RelPath, File)>,
}

pub(crate) fn is_own(path: &RelPath) -> bool {
    path.names().first().is_some_and(|n| n.as_bytes() == CONTROL_DIR)
}

fn is_history(path: &RelPath) -> bool {
    path.names().get(1).is_some_and(|n| n.as_bytes() == b"history")
}

fn file_at(disk: &ModelDisk, path: &RelPath) -> Option<File> {
    match disk.visible_at(path)? {
        Thing::File { bytes, ino, .. } => Some((ino, id_of(&bytes))),
        _ => None,
    }
}

/// Room is made of the history only where there is little.
fn is_full(disk: &ModelDisk) -> bool {
    disk.space().is_ok_and(|s| s.free < s.total / 16 || s.files.is_some_and(|f| f < 16))
}

fn holds_elsewhere(disk: &ModelDisk, path: &RelPath, content: &ContentId) -> bool {
    let all = disk.visible().into_iter().chain(disk.control_tree());
    all.into_iter().any(|(at, thing)| at != *path && content_of(&thing).as_ref() == Some(content))
}

impl Shared {
    /// The program is about to do this: what it took out of the folder must stay in the history.
    pub fn takes_away(&self, device: usize, effect: &Effect) {
        match effect {
            Effect::Rename { from, to, how } => {
                let mut world = self.world();
                world.confirm(device);
                world.removes(device, from, to);
                world.renames(device, from, to, *how);
            }
            Effect::Unlink(path) => {
                let mut world = self.world();
                world.confirm(device);
                world.unlinks(device, path);
            }
            _ => {}
        }
    }
}

impl World {
    /// One is told of an exchange before it is made: the disk may have refused it.
    fn confirm(&mut self, device: usize) {
        let machine = &mut self.machines[device];
        if let Some((path, file)) = machine.taken.coming.take()
            && file_at(&machine.disk, &path) != Some(file)
        {
            machine.taken.out.remove(&file);
        }
    }

    fn renames(&mut self, device: usize, from: &RelPath, to: &RelPath, how: Rename) {
        let machine = &mut self.machines[device];
        let (disk, taken) = (&machine.disk, &mut machine.taken);
        let mut put = None;
        match (is_own(from), is_own(to)) {
            (true, false) => {
                let out = file_at(disk, to).filter(|_| how == Rename::Exchange);
                put = file_at(disk, from);
                if let Some(back) = &put {
                    taken.out.remove(back);
                }
                let out = out.filter(|f| taken.placed != Some(*f) && !taken.out.contains(f));
                taken.out.extend(out);
                taken.coming = out.map(|file| (from.clone(), file));
            }
            (false, true) => taken.out.extend(file_at(disk, from)),
            _ => {}
        }
        taken.placed = put;
    }

    fn unlinks(&mut self, device: usize, path: &RelPath) {
        let machine = &mut self.machines[device];
        let Some(file) = file_at(&machine.disk, path) else { return };
        let was_taken = machine.taken.out.contains(&file);
        let yields = is_history(path) && is_full(&machine.disk);
        if yields {
            // It was let go of for room. A power cut may bring it back under a name it had on its way.
            machine.taken.out.remove(&file);
        }
        if (was_taken || !is_own(path)) && !yields && !holds_elsewhere(&machine.disk, path, &file.1) {
            self.breaks("what is taken away is kept", format!("device {device}: {path} is removed for good"));
        }
    }
}
