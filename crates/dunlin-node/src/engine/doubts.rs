//! Files whose recorded stamp another write may have as well: they are looked at once more, whatever their metadata say.
//! Should the program end before that, the index tells the next start which they are.

use super::Engine;
use dunlin_core::kv::{Read, View};
use dunlin_core::plan::{Action, Step};
use dunlin_core::rows::{Doubt, Position, Rows, Stamp};
use dunlin_core::state::{Content, Mtime};
use dunlin_core::tree::Work;
use std::collections::BTreeMap;
use std::time::Duration;

/// A file that changed a moment ago is looked at once more after this.
const RACY_AGAIN_MS: u64 = 20;

/// What is in doubt.
pub(super) struct Doubts {
    /// What the last run left, until everything was looked through.
    left: Option<Doubt>,
    /// When what was recorded of these positions was changed.
    young: BTreeMap<Position, Mtime>,
    /// Everything was looked through once.
    looked: bool,
}

impl Doubts {
    pub(super) fn new(view: &dyn View) -> Read<Doubts> {
        Ok(Doubts { left: view.doubt()?, young: BTreeMap::new(), looked: false })
    }

    /// What the last run left in doubt.
    pub(super) fn left(&self) -> Option<Doubt> {
        self.left
    }

    /// Whether all is still looked at for the first time.
    pub(super) fn is_first_look(&self) -> bool {
        !self.looked
    }

    /// Everything was looked through.
    pub(super) fn looked_through(&mut self) {
        self.left = None;
        self.looked = true;
    }

    /// All that is in doubt, as the index keeps it.
    pub(super) fn all(&self) -> Option<Doubt> {
        self.young.values().copied().map(Doubt::from).chain(self.left).reduce(Doubt::and)
    }

    /// Whether a step is about a file of which the last run left in doubt what it holds.
    pub(super) fn is_about(&self, step: &Step) -> bool {
        let Some(left) = self.left else { return false };
        match &step.action {
            Action::Place { replaces: Some(stamp), .. } => left.is_about(stamp.ctime),
            Action::Move { row, swap, .. } => {
                let mut rows = swap.iter().chain([row]).filter(|row| row.content != Content::Dir);
                rows.any(|row| left.is_about(row.stamp.ctime))
            }
            Action::Meta { row, .. } | Action::Remove { row, .. } => {
                row.content != Content::Dir && left.is_about(row.stamp.ctime)
            }
            Action::Place { replaces: None, .. } | Action::MakeDir { .. } => false,
        }
    }
}

impl Engine {
    /// What is recorded of a position with this stamp may be what somebody wrote just after.
    pub(super) fn doubt(&mut self, at: &Position, stamp: &Stamp) {
        self.doubts.young.insert(at.clone(), stamp.ctime);
        self.mark(at.clone(), self.racy_again(), true);
    }

    /// After this a file that changed a moment ago shows whether it changed again.
    pub(super) fn racy_again(&self) -> Duration {
        Duration::from_millis(self.folder.disk.keeps().tick_ms(RACY_AGAIN_MS))
    }

    /// What is in doubt no more is not left so for long: what the disk damages meanwhile would be taken for an edit.
    pub(super) fn clear_doubts(&mut self) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let doubt = self.doubts.all();
        if snapshot.doubt()? == doubt {
            return Ok(());
        }
        let mut work = Work::new(&snapshot);
        work.settle_doubt(doubt)?;
        self.folder.commit(work)
    }

    /// The program ends.
    ///
    /// # Errors
    /// When the index cannot be read or written.
    pub fn stop(&mut self) -> Read<()> {
        self.clear_doubts()?;
        self.folder.end_life()
    }

    /// Whether what is at a position is to be looked at whatever the metadata say.
    pub(super) fn is_doubted(&self, at: &Position) -> bool {
        self.doubts.young.contains_key(at)
    }

    /// What was looked at is in doubt no more. What was found gone was not: with the number that a file had, and in
    /// the same tick, somebody may write another one there, which has the stamp that is recorded.
    pub(super) fn settle_doubts(&mut self) {
        let (dirty, absent) = (&self.dirty, &self.absent);
        let waits = |at: &Position| absent.contains_key(at) || dirty.get(at).is_some_and(|d| d.force);
        self.doubts.young.retain(|at, _| waits(at));
    }
}
