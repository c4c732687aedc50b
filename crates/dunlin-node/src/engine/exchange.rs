//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use dunlin_core::ids::{Incarnation, ROOT};
use dunlin_core::kv::Read;
use dunlin_core::life::{Heard, vouches};
use dunlin_core::message::RowBytes;
use dunlin_core::session::Speaker;
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
        self.folder.commit(work)?;
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
        self.folder.commit(work)?;
        self.uniting = true;
        self.waits_for_tree = Some(self.now + WAIT_FOR_OTHERS);
        self.push_dir(ROOT, true);
        self.host.renewed();
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
        self.folder.commit(work)?;
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
