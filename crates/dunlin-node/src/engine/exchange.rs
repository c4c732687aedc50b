//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use crate::store::Snapshot;
use dunlin_core::decide::locals_of;
use dunlin_core::ids::{Incarnation, NodeId, ROOT};
use dunlin_core::kv::Read;
use dunlin_core::life::{Heard, vouches};
use dunlin_core::message::RowBytes;
use dunlin_core::plan::path_of;
use dunlin_core::rows::Rows;
use dunlin_core::session::Speaker;
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::time::{Duration, Instant};

/// How long the tree of the others is waited for before an index that was rolled back looks at its disk.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(3);

/// How long after the first renewal in a life of the program there may be another; it doubles with each.
const RENEW_AGAIN: Duration = Duration::from_secs(8);
const RENEW_DOUBLES_MAX: u32 = 7;

/// That an index was rolled back is only said by others, and one of them may lie, again and again. So the first
/// word is believed at once, and those after it ever later.
#[derive(Default)]
pub(super) struct Renewals {
    count: u32,
    last: Option<Instant>,
    /// When the next one is, that was asked for.
    pub(super) due: Option<Instant>,
}

impl Renewals {
    fn free_at(&self, now: Instant) -> Instant {
        let doubled = self.count.saturating_sub(1).min(RENEW_DOUBLES_MAX);
        self.last.map_or(now, |last| last + RENEW_AGAIN * (1 << doubled))
    }
}

impl Engine {
    pub(super) fn open(&mut self, from: &Speaker, heard: &Heard) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.opened(from)?;
        let rolled_back = !vouches(&snapshot, heard)?;
        self.commit(work)?;
        if rolled_back { self.ask_to_renew() } else { Ok(()) }
    }

    fn ask_to_renew(&mut self) -> Read<()> {
        self.renewals.due = Some(self.renewals.free_at(self.now));
        self.renew_if_due()
    }

    pub(super) fn renew_if_due(&mut self) -> Read<()> {
        if self.renewals.due.is_some_and(|at| self.now >= at) { self.renew() } else { Ok(()) }
    }

    /// Others know more of this index than it does itself. What is on the disk may be older than what they
    /// know, so both are united again.
    fn renew(&mut self) -> Read<()> {
        let count = self.renewals.count + 1;
        self.renewals = Renewals { count, last: Some(self.now), due: None };
        let mut random = self.fresh.1;
        random.iter_mut().zip(u64::from(count).to_le_bytes()).for_each(|(r, n)| *r ^= n);
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.renew(Incarnation::new(self.fresh.0, random))?;
        self.commit(work)?;
        self.uniting = true;
        self.braking.brake.knows(false);
        self.waits_for_tree = Some(self.now + WAIT_FOR_OTHERS);
        self.push_dir(ROOT, true);
        self.host.renewed();
        Ok(())
    }

    /// What is heard of something that is here already needs no step. But if it was removed or written to before this
    /// was heard, and nobody looked yet, that change has not seen it.
    fn hold_back(&mut self, snapshot: &Snapshot, news: &[NodeId]) -> Read<()> {
        for node in news {
            for (at, row) in locals_of(snapshot, *node)? {
                let Some(path) = path_of(snapshot, &at)? else { continue };
                let now = self.folder.disk.stat(&path).ok().flatten().map(|s| s.stamp());
                let is_there = now.is_some_and(|now| match row.content {
                    Content::Dir => now.is_same_inode(&row.stamp),
                    _ => now == row.stamp,
                });
                if is_there {
                    continue;
                }
                let all = snapshot.node(*node)?.map(|n| n.state.seen).unwrap_or_default();
                let seen = (row.stamp, row.seen.unwrap_or(all));
                if self.unseen.get(&at).is_none_or(|(stamp, _)| *stamp != row.stamp) {
                    self.unseen.insert(at.clone(), seen);
                }
                self.mark(at, Duration::ZERO, false);
            }
        }
        Ok(())
    }

    pub(super) fn rows(&mut self, from: &Speaker, upto: u64, rows: &[RowBytes]) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        let Ok(taken) = work.take_rows(from, upto, rows, self.renewals.due.is_some())? else {
            self.host.refuse(from.device, "a row cannot be read");
            return Ok(());
        };
        if taken.foretold && self.now >= self.renewals.free_at(self.now) {
            drop(work);
            // They come again, over the connections that are made now.
            return self.renew();
        }
        self.hold_back(&snapshot, &taken.news)?;
        self.commit(work)?;
        self.braking.brake.heard(self.braking.time(self.now), &snapshot, &taken.news)?;
        self.replan |= !taken.news.is_empty();
        for node in &taken.news {
            // That nobody had its old content says nothing of the new one.
            if self.backoff.get(node).is_some_and(|b| b.nowhere) {
                self.backoff.remove(node);
            }
        }
        self.host.acknowledge(from.device, taken.received);
        if taken.foretold { self.ask_to_renew() } else { Ok(()) }
    }
}
