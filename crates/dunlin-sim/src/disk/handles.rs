//! Open files, by whose name they were opened and where that name went since.

use super::tree::Id;
use dunlin_core::path::Name;
use std::collections::BTreeMap;

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: Id,
    /// The entry it was opened by, wherever that was moved.
    pub(super) entry: Option<(Id, Name)>,
    /// That entry is there no more. What is done to the inode is still told under its last name, but
    /// not writing and closing.
    pub(super) unlinked: bool,
    pub(super) writes: bool,
    /// Opened by the program, not by a user.
    pub(super) program: bool,
}

/// All open files.
#[derive(Clone, Debug, Default)]
pub(super) struct Handles {
    next: u64,
    open: BTreeMap<u64, Open>,
}

impl Handles {
    pub(super) fn add(&mut self, open: Open) -> u64 {
        self.next += 1;
        self.open.insert(self.next, open);
        self.next
    }

    pub(super) fn get(&self, number: u64) -> Option<&Open> {
        self.open.get(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Open> {
        self.open.remove(&number)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.open.values().map(|open| open.id).chain(self.dirs())
    }

    /// The directories in which they were opened.
    pub(super) fn dirs(&self) -> impl Iterator<Item = Id> + '_ {
        self.open.values().filter_map(|open| open.entry.as_ref().map(|entry| entry.0))
    }

    /// Closes all of the program's; returns what they held.
    pub(super) fn end_program(&mut self) -> Vec<Id> {
        let gone = self.open.extract_if(.., |_, open| open.program);
        gone.map(|(_, open)| open.id).collect()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    fn at<'a>(&'a mut self, dir: Id, name: &'a Name) -> impl Iterator<Item = &'a mut Open> {
        let is_it = move |open: &&mut Open| {
            !open.unlinked && open.entry.as_ref().is_some_and(|e| e.0 == dir && e.1 == *name)
        };
        self.open.values_mut().filter(is_it)
    }

    pub(super) fn unlinked(&mut self, dir: Id, name: &Name) {
        self.at(dir, name).for_each(|open| open.unlinked = true);
    }

    pub(super) fn moved(&mut self, from: (Id, &Name), to: (Id, &Name)) {
        self.at(from.0, from.1).for_each(|open| open.entry = Some((to.0, to.1.clone())));
    }

    pub(super) fn exchanged(&mut self, a: (Id, &Name), b: (Id, &Name)) {
        for open in self.open.values_mut().filter(|open| !open.unlinked) {
            let Some((dir, name)) = &open.entry else { continue };
            if (*dir, name) == a {
                open.entry = Some((b.0, b.1.clone()));
            } else if (*dir, name) == b {
                open.entry = Some((a.0, a.1.clone()));
            }
        }
    }
}
