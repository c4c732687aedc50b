//! What is not synced, and stands where something should come or go.

use super::Engine;
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::rows::{Position, Rows};
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

/// What is said of a place that a FIFO, socket, device or mounted file system has.
pub(super) const IN_THE_WAY: &str = "something that is not synced is in the way";
/// What is said of a place that a kept directory has.
pub(super) const KEPT_IN_THE_WAY: &str =
    "a directory that was deleted elsewhere is in the way: it holds things that are not synced";
/// What is said of a kept directory.
const KEPT: &str = "kept: deleted elsewhere, but it holds things that are not synced";

impl Engine {
    /// Something happened at a position: what is not synced and was there may have gone.
    pub(super) fn may_have_gone(&mut self, at: &Position) {
        if self.kept.contains(&at.dir) {
            self.let_go.insert(at.dir);
        }
        // What had the name of something that is not shown may have gone.
        self.replan |= !self.unshown.is_empty();
        if let Some(node) = self.in_the_way.remove(at) {
            self.backoff.remove(&node);
            self.replan = true;
        }
    }

    /// Has the removal of kept directories tried again whose contents may have gone.
    pub(super) fn retry_kept(&mut self) -> Read<()> {
        if self.let_go.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        for dir in std::mem::take(&mut self.let_go) {
            work.retry_kept(dir)?;
        }
        self.commit(work)?;
        self.replan = true;
        Ok(())
    }

    /// Names the kept directories. They keep nothing from being in sync, so that they count for nothing.
    pub(super) fn name_kept(&mut self, problems: &mut BTreeMap<RelPath, String>) -> Read<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        for dir in std::mem::take(&mut self.kept) {
            let at = snapshot.dir_position(dir)?;
            let is_kept = match &at {
                Some(at) => snapshot.local(at)?.is_some_and(|row| row.kept),
                None => false,
            };
            if is_kept && let Some(names) = snapshot.disk_path(dir)? {
                problems.entry(RelPath::from(names)).or_insert_with(|| KEPT.into());
                self.kept.insert(dir);
            }
        }
        Ok(())
    }
}
