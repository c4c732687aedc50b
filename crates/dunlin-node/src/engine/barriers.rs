//! Barriers: whoever asks is told once everything that happened on the disk before is in the index.

use super::{Engine, Passed};
use crate::stage::control;
use dunlin_core::ids::ROOT;
use dunlin_core::path::Name;

impl Engine {
    pub(super) fn barrier(&mut self, done: Passed) {
        let now = self.now;
        for d in self.dirty.values_mut() {
            d.due = now;
        }
        let was_halted = self.halted.is_some();
        if self.check_root() {
            if was_halted {
                // The right root is back; what was done there meanwhile nobody told of.
                self.push_dir(ROOT, true);
            }
            match (self.unwatched, crate::watch::barrier(self.folder.disk.as_ref(), &control(&[]))) {
                (false, Ok(name)) => return self.barriers.push((Some(name), done)),
                _ => self.push_dir(ROOT, true),
            }
        }
        self.barriers.push((None, done));
    }

    pub(super) fn answer_barriers(&mut self) {
        if self.barriers.is_empty() {
            return;
        }
        if self.barriers.iter().any(|(waits, _)| waits.is_none()) {
            let now = self.now;
            self.dirty.values_mut().filter(|d| !d.tried).for_each(|d| d.due = now);
        }
        // What the brake holds is known of, and waits for a person.
        let absent = !self.absent.is_empty() && !self.braking.holds_deletes();
        // What cannot be read may never be: who asks how things stand is told of it.
        let clean = self.dirty.values().all(|d| d.tried) && self.dirs.is_empty() && !absent;
        // Of a root that is lost no event comes any more.
        let halted = self.halted.is_some();
        if clean || halted {
            let (answered, waiting) = std::mem::take(&mut self.barriers)
                .into_iter()
                .partition(|(waits, _)| halted || waits.is_none());
            self.barriers = waiting;
            let answered: Vec<(Option<Name>, Passed)> = answered;
            if !answered.is_empty() {
                // Whoever asked reads how things stand right after.
                let _ = self.publish();
            }
            for (_, done) in answered {
                done();
            }
        }
    }
}
