//! Files whose bytes changed although nobody wrote to them.

use super::Engine;
use dunlin_core::decide::locals_of;
use dunlin_core::ids::{ContentId, NodeId};
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::plan::path_of;
use dunlin_core::rows::{Position, Rows, Stamp};
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

/// What is said of a damaged file.
const DAMAGED: &str = "damaged: its bytes changed although nobody wrote to it";
/// What is said while a device may still bring what it held.
pub(crate) const ASKED: &str =
    "damaged: its bytes changed although nobody wrote to it; what it held is being looked for";

impl Engine {
    /// A file was read again. That nothing was done to it since is asked of the disk once more.
    pub(super) fn verified(&mut self, at: &Position, stamp: &Stamp, found: ContentId) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let (Some(path), Some(row)) = (path_of(&snapshot, at)?, snapshot.local(at)?) else { return Ok(()) };
        let now = self.folder.disk.stat(&path).ok().flatten();
        if now.is_none_or(|s| s.stamp() != *stamp) {
            return Ok(());
        }
        let mut work = Work::new(&snapshot);
        if work.verified(at, stamp, found)? == Some(true) && self.damaged.insert(row.node) {
            self.host.problem(&path, DAMAGED);
        }
        self.commit(work)?;
        self.backoff.remove(&row.node);
        self.troubles.remove(&row.node);
        self.replan = true;
        Ok(())
    }

    /// A device came or went: what was said of damage for want of one may hold no more.
    pub(super) fn ask_anew(&mut self) {
        let vain = |node: &NodeId| self.backoff.get(node).is_some_and(|b| b.nowhere);
        for node in self.damaged.iter().filter(|node| vain(node)) {
            self.troubles.remove(node);
        }
    }

    /// Names the damaged files, each with what keeps it from being put right. They are lacking, which is
    /// what counts.
    pub(super) fn name_damaged(&mut self, problems: &mut BTreeMap<RelPath, String>) -> Read<()> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        for node in std::mem::take(&mut self.damaged) {
            for (at, row) in locals_of(&snapshot, node)? {
                if row.damaged.is_none() {
                    continue;
                }
                self.damaged.insert(node);
                let why = match self.troubles.get(&node) {
                    Some((_, why)) => format!("{DAMAGED}; {why}"),
                    None => ASKED.into(),
                };
                if let Some(path) = path_of(&snapshot, &at)? {
                    problems.insert(path, why);
                }
            }
        }
        Ok(())
    }

    /// Where a node should be, for a person.
    pub(super) fn path_of_node(&self, node: NodeId) -> RelPath {
        let find = || {
            let snapshot = self.folder.store.snapshot().ok()?;
            let wanted = dunlin_core::names::wanted(&snapshot, node).ok()?;
            dunlin_core::plan::path_of(&snapshot, &wanted.first()?.at).ok()?
        };
        find().unwrap_or_default()
    }
}
