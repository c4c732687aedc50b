//! What is young: files that this device has known for less than a minute. Their deletes do not count, and neither are
//! they files that others are a part of.

use super::{Brake, Count, WINDOW};
use crate::decide::locals_of;
use crate::ids::NodeId;
use crate::kv::{Read, View};
use crate::observe::{Observation, Seen};
use crate::rows::{Rows, Totals};
use crate::state::Content;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// So many files are known to be young; the others count.
pub(super) const YOUNG_MAX: usize = 1 << 14;

/// The files that are young, or were when they were deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Young {
    pub(super) since: BTreeMap<NodeId, Duration>,
    /// It is known what there was: what appears now was made now.
    known: bool,
}

impl Brake {
    /// What there is has been looked through and united with what others have (or is to be again): how old files are
    /// that are met while it is not known what there was is not known either.
    pub fn knows(&mut self, known: bool) {
        self.young.known = known;
    }

    /// Things were seen on this disk. Those files are young that were not there `before` in any way: one that lived
    /// was moved, or is what others made here too.
    pub fn saw(
        &mut self,
        now: Duration,
        before: &dyn View,
        after: &dyn View,
        seen: &[Observation],
    ) -> Read<()> {
        for o in seen.iter().filter(|o| matches!(o.seen, Seen::File(..) | Seen::Link(..))) {
            let Some(row) = after.local(&o.at)?.filter(|_| self.young.known) else { continue };
            // One that is to be removed, and is met because that failed halfway, is as old as it was.
            if before.local(&o.at)?.is_some_and(|was| was.node == row.node) {
                continue;
            }
            if before.node(row.node)?.is_none_or(|was| !was.state.alive()) {
                self.made(now, row.node);
            }
            self.came(now, after, &o.at)?;
        }
        Ok(())
    }

    /// Nodes were heard of. Those are young that nothing was known of `before`, as far as can be told.
    pub fn heard(&mut self, now: Duration, before: &dyn View, after: &dyn View, news: &[NodeId]) -> Read<()> {
        if !self.young.known {
            return Ok(());
        }
        for node in news {
            let was = before.node(*node)?;
            if was.is_none() {
                self.made(now, *node);
            }
            let Some(row) = after.node(*node)?.filter(|row| row.state.alive()) else { continue };
            if let Some(at) = row.raw().filter(|at| was.and_then(|was| was.raw()).as_ref() != Some(at)) {
                self.came(now, after, &at)?;
            }
        }
        Ok(())
    }

    pub(super) fn made(&mut self, now: Duration, node: NodeId) {
        let since = &mut self.young.since;
        if since.len() < YOUNG_MAX || since.contains_key(&node) {
            since.insert(node, now);
        }
    }

    /// What has been known for a minute is young no more. While deletes are held, what was young when it was deleted
    /// stays so until a person decided.
    pub fn age(&mut self, now: Duration, holds: bool) {
        if !holds {
            self.young.since.retain(|_, since| now.saturating_sub(*since) < WINDOW);
        }
    }

    /// Whether the delete of a file counts for nothing, since it is young.
    pub fn is_young(&self, node: NodeId) -> bool {
        self.young.since.contains_key(&node)
    }

    /// Whether the brake trips now that `here` files that count vanished from this disk and more are to be removed; how
    /// it stands if so.
    pub fn too_many(
        &self,
        view: &dyn View,
        totals: &Totals,
        now: Duration,
        here: u64,
    ) -> Read<Option<Count>> {
        if !self.trips(&self.at_most(totals, now, here)) {
            return Ok(None);
        }
        let count = self.exactly(view, totals, now, here)?;
        Ok(self.trips(&count).then_some(count))
    }

    /// How it stands as if all that is young were there and stayed: mostly that is enough to know.
    pub(super) fn at_most(&self, totals: &Totals, now: Duration, here: u64) -> Count {
        self.but_for(totals, now, here, self.young.since.len() as u64, 0)
    }

    pub(super) fn exactly(&self, view: &dyn View, totals: &Totals, now: Duration, here: u64) -> Read<Count> {
        let (mut young, mut going) = (0, 0);
        let mut totals = totals.clone();
        for node in self.young.since.keys() {
            // What was heard of and is not on this disk yet is none of the files here.
            let here = locals_of(view, *node)?;
            young += here.iter().filter(|(_, row)| row.content != Content::Dir).count() as u64;
            let need = view.need(*node)?.unwrap_or_default();
            going += u64::from(need.removals);
            totals.leaving = totals.leaving.saturating_sub(need.leaving.into());
        }
        let mut count = self.but_for(&totals, now, here, young, going);
        for node in self.done.known(now) {
            // What was deleted and lives again was taken back; once it is here it is one of the files, too.
            if view.node(node)?.is_some_and(|row| row.state.alive()) {
                (count.deletes, count.done) = (count.deletes.saturating_sub(1), count.done.saturating_sub(1));
                count.of = count.of.saturating_sub(u64::from(!locals_of(view, node)?.is_empty()));
            }
        }
        Ok(count)
    }

    fn but_for(&self, totals: &Totals, now: Duration, here: u64, young: u64, going: u64) -> Count {
        // What goes as a person accepted is none of those that stay if the others go.
        let files = totals.files.saturating_sub(young).saturating_sub(totals.leaving);
        self.count(now, here + totals.removals.saturating_sub(going), files)
    }
}
