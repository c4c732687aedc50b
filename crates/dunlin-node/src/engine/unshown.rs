//! What this disk cannot show: named in status, and not wanted here.

use super::Engine;
use crate::disk::Disk;
use crate::store::Snapshot;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::{Unshown, Why};
use dunlin_core::rows::{Position, Rows};
use std::collections::BTreeMap;

/// What is said of a disk on which nothing can be replaced without a moment without it.
pub(super) const NO_RENAMES: &str = "this file system cannot exchange two names (renameat2): what others change of a file that is here already cannot be put in place";
/// What is said of a link.
const NO_LINKS: &str = "a symbolic link, and this file system has none";

/// Where the disk has what a path leads to, if that is under another name.
pub(super) fn twin(disk: &dyn Disk, view: &Snapshot, at: &Position, path: &RelPath) -> Option<Position> {
    // Where the disk cannot tell, the step that needs the name fails and says why.
    let other = || Some(Position::new(at.dir, disk.other_name(path).ok()??));
    if disk.keeps().forms {
        return other();
    }
    // It lists names in another form than they were given in: what of ours leads there?
    let (dir, _) = path.split_last()?;
    let ino = disk.stat(path).ok()??.ino;
    let leads_there = |name: &Name| disk.stat(&dir.join(name)).is_ok_and(|s| s.is_some_and(|s| s.ino == ino));
    let ours = view.locals(at.dir).ok()?.into_iter().map(|(name, _)| name);
    let found = ours.filter(|name| *name != at.name).find(leads_there);
    found.map(|name| Position::new(at.dir, name)).or_else(other)
}

impl Engine {
    /// Names what cannot be shown; that is all of it.
    pub(super) fn cannot_show(&mut self, all: Vec<Unshown>) {
        let mut now = BTreeMap::new();
        for Unshown { node, path, why } in all {
            let why = match why {
                Why::Twin(other) => {
                    format!("this file system takes its name and \"{other}\" for one: rename one of them")
                }
                Why::NoLinks => NO_LINKS.into(),
            };
            if !self.unshown.contains_key(&path) {
                self.host.problem(&path, &why);
            }
            self.troubles.remove(&node);
            now.insert(path, why);
        }
        self.unshown = now;
    }

    /// Whether something else is under way that a plan waits for.
    pub(super) fn waits_for_more(&self) -> bool {
        !self.fetching.is_empty() || self.backoff.values().any(|b| b.until > self.now) || self.braking.holds()
    }
}
