//! Deletes that were carried out within the last minute: of how many files, and by which changes. A file that is deleted
//! again and again is one file.

use super::{STEP, WINDOW};
use crate::ids::{DotRange, NodeId};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

/// So many files are known by their nodes; others count each time.
pub(super) const KNOWN_MAX: usize = 1 << 16;

/// Files whose deletes were carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Those that are known.
    nodes: Vec<NodeId>,
    /// So many more.
    more: u64,
}

impl Gone {
    /// Those that are known.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// How many there are.
    pub fn files(&self) -> u64 {
        self.more.saturating_add(self.nodes.len() as u64)
    }

    /// One more; beyond the bound it is only counted.
    fn note(&mut self, node: NodeId) {
        if self.nodes.len() < KNOWN_MAX {
            self.nodes.push(node);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Extend<NodeId> for Gone {
    fn extend<T: IntoIterator<Item = NodeId>>(&mut self, nodes: T) {
        nodes.into_iter().for_each(|node| self.note(node));
    }
}

impl FromIterator<NodeId> for Gone {
    fn from_iter<T: IntoIterator<Item = NodeId>>(nodes: T) -> Gone {
        let mut out = Gone::default();
        out.extend(nodes);
        out
    }
}

/// What was carried out within one step of time.
#[derive(Clone, Debug)]
struct Step {
    at: Duration,
    files: u64,
    changes: Vec<DotRange>,
}

/// The steps of the last minute, and in which of them each file went last.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    steps: VecDeque<Step>,
    last: BTreeMap<NodeId, Duration>,
}

impl Done {
    pub(super) fn add(&mut self, now: Duration, gone: &Gone, changes: impl IntoIterator<Item = DotRange>) {
        if gone.files() == 0 {
            return;
        }
        self.forget(now);
        if self.steps.back().is_none_or(|s| now.saturating_sub(s.at) >= STEP) {
            self.steps.push_back(Step { at: now, files: 0, changes: Vec::new() });
        }
        let Some(at) = self.steps.back().map(|s| s.at) else { return };
        let mut files = gone.more;
        for node in &gone.nodes {
            files = files.saturating_add(1);
            if let Some(before) = self.last.get_mut(node) {
                let before = core::mem::replace(before, at);
                // It counts as what it was last.
                if let Ok(found) = self.steps.binary_search_by(|s| s.at.cmp(&before)) {
                    self.steps[found].files = self.steps[found].files.saturating_sub(1);
                }
            } else if self.last.len() < KNOWN_MAX {
                self.last.insert(*node, at);
            }
        }
        if let Some(step) = self.steps.back_mut() {
            step.files = step.files.saturating_add(files);
            step.changes = DotRange::hull(step.changes.iter().copied().chain(changes));
        }
    }

    pub(super) fn files(&self, now: Duration) -> u64 {
        self.recent(now).map(|s| s.files).sum()
    }

    pub(super) fn changes(&self, now: Duration) -> Vec<DotRange> {
        DotRange::hull(self.recent(now).flat_map(|s| s.changes.iter().copied()))
    }

    /// The files of the last minute, as far as they are known.
    pub(super) fn known(&self, now: Duration) -> impl Iterator<Item = NodeId> {
        let recent = move |at: Duration| now.saturating_sub(at) < WINDOW + STEP;
        self.last.iter().filter(move |(_, at)| recent(**at)).map(|(node, _)| *node)
    }

    fn recent(&self, now: Duration) -> impl Iterator<Item = &Step> {
        // What is counted in one step is as old as its youngest.
        self.steps.iter().filter(move |s| now.saturating_sub(s.at) < WINDOW + STEP)
    }

    fn forget(&mut self, now: Duration) {
        let before = self.steps.len();
        while self.steps.front().is_some_and(|s| now.saturating_sub(s.at) >= WINDOW + STEP) {
            self.steps.pop_front();
        }
        if self.steps.len() < before {
            let oldest = self.steps.front().map_or(now, |s| s.at);
            self.last.retain(|_, at| *at >= oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn node(n: u64) -> NodeId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn a_file_deleted_again_and_again_is_one_and_as_young_as_its_last_delete() {
        let mut done = Done::default();
        for round in 0..100 {
            done.add(MS(round * 500), &[node(1)].into_iter().collect(), []);
        }
        done.add(MS(49_600), &[node(1), node(2)].into_iter().collect(), []);
        assert_eq!(done.files(MS(49_600)), 2);
        assert_eq!(done.files(MS(109_000)), 2);
        assert_eq!(done.files(MS(110_000)), 0);
        done.add(MS(200_000), &[node(2)].into_iter().collect(), []);
        assert_eq!((done.files(MS(200_000)), done.last.len()), (1, 1));
    }

    #[test]
    fn those_beyond_the_bound_count_each_time() {
        let all: Gone = (0..KNOWN_MAX as u64 + 7).map(node).collect();
        assert_eq!(all.files(), KNOWN_MAX as u64 + 7);
        let mut done = Done::default();
        done.add(MS(0), &all, []);
        done.add(MS(1000), &all, []);
        assert_eq!(done.files(MS(1000)), KNOWN_MAX as u64 + 14);
        assert_eq!(done.last.len(), KNOWN_MAX);
        let beyond = vec![node(u64::MAX)];
        done.add(MS(2000), &beyond.iter().copied().collect(), []);
        done.add(MS(3000), &beyond.into_iter().collect(), []);
        assert_eq!(done.files(MS(3000)), KNOWN_MAX as u64 + 16);
    }
}
