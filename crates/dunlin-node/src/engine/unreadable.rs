//! What cannot be read, listed, watched or made durable: until it was, nobody knows what is there.

use super::Engine;
use dunlin_core::path::RelPath;
use dunlin_core::rows::Position;
use std::collections::BTreeMap;
use std::time::Duration;

/// All that cannot be read now.
#[derive(Default)]
pub(super) struct Unreadable {
    /// Why, by path.
    now: BTreeMap<RelPath, String>,
    /// What was told of it: not again with each look.
    told: BTreeMap<RelPath, String>,
    /// So many looks through everything found some.
    pub(super) tries: u32,
}

impl Unreadable {
    pub(super) fn all(&self) -> &BTreeMap<RelPath, String> {
        &self.now
    }

    /// Something cannot be read. Whether that is news.
    pub(super) fn found(&mut self, path: RelPath, why: String) -> bool {
        self.now.insert(path.clone(), why.clone());
        self.told.insert(path, why.clone()).is_none_or(|told| told != why)
    }

    /// Something cannot be read, and nobody is told of it but by who asks how things stand.
    pub(super) fn note(&mut self, path: RelPath, why: String) {
        self.now.insert(path, why);
    }

    /// It is looked at again.
    pub(super) fn looks_at(&mut self, path: &RelPath) {
        self.now.remove(path);
    }

    /// A directory is looked at again, with what is in it.
    pub(super) fn looks_into(&mut self, dir: &RelPath) {
        self.now.retain(|path, _| path != dir && path.split_last().is_none_or(|(parent, _)| parent != *dir));
    }

    /// All of it is looked for again.
    pub(super) fn looks_at_all(&mut self) {
        self.now.clear();
    }

    /// It was read after all.
    pub(super) fn is_readable(&mut self, path: &RelPath) {
        self.told.remove(path);
    }

    /// Everything was looked at. How often it was in vain.
    pub(super) fn looked(&mut self) -> Option<u32> {
        if self.now.is_empty() {
            (self.told, self.tries) = (BTreeMap::new(), 0);
            return None;
        }
        Some(self.tries)
    }
}

impl Engine {
    pub(super) fn cannot_read(&mut self, path: RelPath, why: String) {
        if self.unreadable.found(path.clone(), why.clone()) {
            self.host.problem(&path, &why);
        }
    }

    /// Has a position that was looked at in vain looked at again, after a while: nobody waits for that.
    pub(super) fn try_again(&mut self, at: Position, wait: Duration) {
        let is_marked = self.dirty.contains_key(&at);
        self.mark(at.clone(), wait, true);
        if let Some(d) = self.dirty.get_mut(&at).filter(|_| !is_marked) {
            d.tried = true;
        }
    }
}
