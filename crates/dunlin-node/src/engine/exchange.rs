//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use crate::store::Snapshot;
use dunlin_core::decide::locals_of;
use dunlin_core::ids::{DeviceId, Incarnation, NodeId};
use dunlin_core::journal::Journal;
use dunlin_core::kv::Read;
use dunlin_core::life::{Heard, is_worn, vouches};
use dunlin_core::message::RowBytes;
use dunlin_core::plan::path_of;
use dunlin_core::rows::Rows;
use dunlin_core::session::Speaker;
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So many incarnations are taken from one message.
const OWN_MAX: usize = 300;

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

/// Which devices were met in this life of the program.
#[derive(Default)]
pub(super) struct Met {
    /// They have nothing of this index that it does not know.
    vouched: BTreeSet<DeviceId>,
    /// They told all they know besides, and there was nothing of that kind.
    whole: BTreeSet<DeviceId>,
    /// They noted that they heard this life, and had heard none before that the index does not know: whichever other
    /// copy of it they hear from now on, they tell it of this one.
    noted: BTreeSet<DeviceId>,
}

impl Engine {
    pub(super) fn open(&mut self, from: &Speaker, heard: &Heard, own: &[Incarnation]) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.opened(from)?;
        for inc in own.iter().take(OWN_MAX) {
            // Who says it first is believed: others may lie.
            if snapshot.device_of(*inc)?.is_none() {
                work.record_author(*inc, from.device)?;
            }
        }
        let rolled_back = !vouches(&snapshot, heard)?;
        self.commit(work)?;
        if rolled_back {
            self.met.vouched.remove(&from.device);
            return self.ask_to_renew();
        }
        self.met.vouched.insert(from.device);
        Ok(())
    }

    /// A peer noted this life. Of two copies that begin at one moment it hears one first: the other one is told so with
    /// this, even if the peer had not heard anything yet as it opened the exchange.
    pub(super) fn noted(&mut self, from: DeviceId, before: &Heard) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        if snapshot.totals()?.of_index().0 != before.of {
            return Ok(());
        }
        if !vouches(&snapshot, before)? {
            return self.ask_to_renew();
        }
        self.met.noted.insert(from);
        let mut work = Work::new(&snapshot);
        let worn = self.confirm_if_met(&mut work)?;
        self.commit(work)?;
        if worn { self.ask_to_renew() } else { Ok(()) }
    }

    /// Once every other member told all it knows, and none of them knows more of this index than it does itself, nobody
    /// does. `true`: the index is to be renewed, as too many lives could not be confirmed.
    fn confirm_if_met(&mut self, work: &mut Work<'_>) -> Read<bool> {
        let met = &self.met.whole & &self.met.noted;
        let waits = self.renewals.due.is_some() || work.tx.totals()?.is_confirmed();
        if waits || !self.host.is_everybody(&met) {
            return Ok(false);
        }
        work.confirm()?;
        is_worn(&work.tx)
    }

    fn ask_to_renew(&mut self) -> Read<()> {
        self.renewals.due = Some(self.renewals.free_at(self.now));
        self.renew_if_due()
    }

    pub(super) fn renew_if_due(&mut self) -> Read<()> {
        if self.renewals.due.is_some_and(|at| self.now >= at) { self.renew() } else { Ok(()) }
    }

    /// Others know more of this index than it does itself: the disk that it is on was brought back, and the folder
    /// with it, or the note there would have told so at the start. So what the index says of the folder is true.
    fn renew(&mut self) -> Read<()> {
        let count = self.renewals.count + 1;
        self.renewals = Renewals { count, last: Some(self.now), due: None };
        let mut random = self.fresh.1;
        random.iter_mut().zip(u64::from(count).to_le_bytes()).for_each(|(r, n)| *r ^= n);
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.renew(Incarnation::new(self.fresh.0, random), false)?;
        self.commit(work)?;
        self.met = Met::default();
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

    pub(super) fn rows(
        &mut self,
        (from, told): (&Speaker, Incarnation),
        upto: u64,
        last: bool,
        rows: &[RowBytes],
    ) -> Read<()> {
        if last {
            self.waits_for_tree = None;
        }
        let snapshot = self.folder.store.snapshot()?;
        if snapshot.totals()?.of_index().0 != told {
            // Meant for the index before it was renewed, and without what came from that. All come again.
            return Ok(());
        }
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
        if last && !taken.foretold && self.renewals.due.is_none() && self.met.vouched.contains(&from.device) {
            self.met.whole.insert(from.device);
        }
        let worn = self.confirm_if_met(&mut work)?;
        self.commit(work)?;
        let (now, after) = (self.braking.time(self.now), self.folder.store.snapshot()?);
        self.braking.brake.heard(now, &snapshot, &after, &taken.news)?;
        self.replan |= !taken.news.is_empty();
        for node in &taken.news {
            // That nobody had its old content says nothing of the new one.
            if self.backoff.get(node).is_some_and(|b| b.nowhere) {
                self.backoff.remove(node);
            }
        }
        self.host.acknowledge(from.device, taken.receipt);
        if taken.foretold || worn { self.ask_to_renew() } else { Ok(()) }
    }
}
