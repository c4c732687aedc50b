//! Deletes: how long they wait, and the brake that holds too many of them, and replacements that count like them, until a
//! person decides.
//!
//! What counts and when it trips is decided in `dunlin_core::brake`.

use super::Engine;
use super::history::NOTE_AGAIN;
use crate::store::Snapshot;
use dunlin_core::brake::{
    Brake, Count, Gone, Held, Limits, Patience, absent_files, held, overwriting, pending,
};
use dunlin_core::ids::{DeviceId, DotRange};
use dunlin_core::journal::Journal;
use dunlin_core::kv::{Read, View};
use dunlin_core::rows::{Position, Rows, Totals};
use dunlin_core::tree::Work;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Why a decision cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The brake holds nothing.
    NotHeld,
    /// The folder is halted for its root.
    Root(String),
    /// The decision counts here; the others could not be told yet, and are told later.
    Untold(String),
}

/// How many files a decision concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Those that were deleted.
    pub deleted: u64,
    /// Those that were replaced.
    pub replaced: u64,
}

/// Called once a decision was carried out.
pub type Decided = Box<dyn FnOnce(Result<Settled, Undecided>) + Send>;

/// Deletes that wait and deletes that are held.
pub(super) struct Braking {
    pub(super) brake: Brake,
    /// The brake's times are counted from here.
    pub(super) begun: Instant,
    /// Since when absences wait to be believed.
    pub(super) absences: Option<Patience>,
    /// Since when removals that were heard wait to be carried out, and how many there were.
    pub(super) removals: Option<Patience>,
    heard: u64,
    /// How many removals and replacements there were when what is held was counted.
    counted: (u64, u64),
    /// When it is looked for room for what held replacements would put into the history.
    pub(super) look_again: Option<Instant>,
    /// While a member holds something: since when that is known, and under which numbers nothing in the history yields for it.
    pub(super) elsewhere: Option<(Duration, Range<u64>)>,
    pub(super) held: Option<Held>,
    /// What is held is to be counted anew.
    pub(super) recount: bool,
    /// Deletes were accepted elsewhere: what is left may be few.
    relieved: bool,
    /// Deletes of the minute before the root was lost, while it is.
    before_loss: Option<Vec<DotRange>>,
    /// What a person decided, to be carried out once the disk was looked at.
    asked: Vec<(bool, Decided)>,
    /// Why the others could not be told of a release, and when that is tried again.
    pub(super) untold: Option<(String, Instant)>,
}

impl Braking {
    pub(super) fn new(view: &dyn View, limits: Limits, now: Instant) -> Read<Braking> {
        Ok(Braking {
            brake: Brake::new(limits),
            begun: now,
            absences: None,
            removals: None,
            heard: 0,
            counted: (0, 0),
            look_again: None,
            elsewhere: None,
            held: held(view)?,
            recount: true,
            relieved: false,
            before_loss: None,
            asked: Vec::new(),
            untold: None,
        })
    }

    /// Whether anything is held.
    pub(super) fn holds(&self) -> bool {
        self.held.as_ref().is_some_and(Held::holds)
    }

    /// Whether deletes are: not if only replacements are.
    pub(super) fn holds_deletes(&self) -> bool {
        self.held.as_ref().is_some_and(Held::holds_deletes)
    }

    /// When something is due.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        let waits = self.absences.iter().chain(&self.removals).map(|p| self.begun + p.due());
        waits.chain(self.untold.iter().map(|(_, at)| *at)).chain(self.looks_again())
    }

    pub(super) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

impl Engine {
    /// Whether files may be removed now: not while the brake holds, nor while more removals may come. Too many
    /// trip it.
    pub(super) fn may_remove(&mut self, totals: &Totals) -> Read<bool> {
        let now = self.braking.time(self.now);
        let braking = &mut self.braking;
        if totals.removals > braking.heard {
            braking.removals = Some(Patience::since(braking.removals, now));
        }
        braking.heard = totals.removals;
        if braking.holds_deletes() {
            braking.removals = None;
            return Ok(false);
        }
        if braking.brake.waits(totals.removals) && braking.removals.is_some() {
            return Ok(false);
        }
        braking.removals = None;
        if totals.removals == 0 {
            return Ok(true);
        }
        let absent: Vec<Position> = self.absent.keys().cloned().collect();
        Ok(!self.trips(totals, &absent)?)
    }

    /// Whether removals have just waited long enough.
    pub(super) fn removals_are_due(&mut self) -> bool {
        let now = self.braking.time(self.now);
        self.braking.removals.take_if(|p| now >= p.due()).is_some()
    }

    /// Removals were carried out.
    pub(super) fn removed(&mut self, gone: &Gone, changes: Vec<DotRange>) {
        let now = self.braking.time(self.now);
        self.braking.brake.done(now, gone, changes);
    }

    /// Whether the brake trips now that this vanished from the disk and more is to be removed; then it holds.
    pub(super) fn trips(&mut self, totals: &Totals, absent: &[Position]) -> Read<bool> {
        let now = self.braking.time(self.now);
        let snapshot = self.folder.store.snapshot()?;
        for is_last in [false, true] {
            let here = absent_files(&snapshot, &self.braking.brake, absent)?;
            let Some(count) = self.braking.brake.too_many(&snapshot, totals, now, here.living)? else {
                self.braking.brake.is_calm();
                return Ok(false);
            };
            if !is_last && self.spare_what_moved_out(&snapshot, &here.gone)? {
                continue;
            }
            if !self.may_turn_up_elsewhere() {
                self.halt(&snapshot, totals, here.living, &count)?;
            }
            break;
        }
        Ok(true)
    }

    /// So many deletes and replacements are too many: the brake holds them.
    pub(super) fn halt(
        &mut self,
        snapshot: &Snapshot,
        totals: &Totals,
        here: u64,
        count: &Count,
    ) -> Read<()> {
        let (now, brake) = (self.braking.time(self.now), &self.braking.brake);
        let edits = if count.replaced > 0 { overwriting(snapshot)? } else { Vec::new() };
        let mut who = BTreeMap::<Option<DeviceId>, u64>::new();
        for (range, files) in pending(snapshot)?.into_iter().chain(edits) {
            let own = range.inc == totals.inc;
            let device = if own { Some(self.fresh.0) } else { snapshot.device_of(range.inc)? };
            *who.entry(device).or_default() += files;
        }
        if here > 0 {
            *who.entry(Some(self.fresh.0)).or_default() += here;
        }
        let own = Some(self.fresh.0);
        let (deleted, theirs_done) = self.deleted(snapshot, totals, here)?;
        let most = who.iter().max_by_key(|(device, files)| (**files, **device == own));
        let most = most.and_then(|(device, _)| *device);
        let before = self.braking.held.take().filter(Held::holds).unwrap_or_default();
        let mut held = Held {
            by: most.filter(|_| most != own),
            here: most == own,
            several: who.len() > 1,
            from: before.from.or(brake.begins(now)),
            upto: self.folder.stage.number(),
            ..before
        };
        if !held.holds_deletes() {
            held.changes = brake.changes(now);
        }
        if count.replaced > 0 {
            (held.replacing, held.bytes) = (brake.replacing(now), brake.replaced_bytes(now));
        }
        held.are_of(self.fresh.0, deleted, theirs_done);
        let held = held.counted(count);
        let mut work = Work::new(snapshot);
        work.hold(Some(&held));
        self.commit(work)?;
        self.host.braked(Some(&held));
        self.braking.held = Some(held);
        self.braking.recount = true;
        Ok(())
    }

    /// Just these deletes were accepted by members.
    pub(super) fn released(&mut self, mut all: Vec<DotRange>) -> Read<()> {
        // What was accepted here, and could not be told yet, counts as well.
        all.extend(self.braking.held.iter().flat_map(|h| h.accepted.iter().copied()));
        let snapshot = self.folder.store.snapshot()?;
        let known = dunlin_core::brake::released(&snapshot)?;
        let mut work = Work::new(&snapshot);
        if work.release(&all)? {
            let went = self.braking.held.as_ref().is_some_and(|held| held.is_news(&known, &all));
            self.commit(work)?;
            self.replan = true;
            self.braking.recount = true;
            // What was accepted may be nothing of what is held here: that waits as before, be it ever so little.
            let pending = self.folder.store.snapshot()?.totals()?.removals;
            self.braking.relieved |= went || pending < snapshot.totals()?.removals;
        }
        Ok(())
    }

    /// A person decides about what is held.
    pub(super) fn resume(&mut self, accept: bool, decided: Decided) {
        self.braking.asked.push((accept, decided));
    }

    /// Whether it is known what is on the disk.
    fn has_looked(&self) -> bool {
        !self.scanning && self.dirs.is_empty() && !self.uniting && self.waits_for_tree.is_none()
    }

    /// Carries out what a person decided, and lets go when nothing is held any more.
    pub(super) fn tend_brake(&mut self) -> Read<()> {
        if let Some((why, _)) = &self.halted {
            for (_, decided) in std::mem::take(&mut self.braking.asked) {
                decided(Err(Undecided::Root(why.clone())));
            }
            if self.braking.before_loss.is_none() {
                self.braking.before_loss = Some(self.braking.brake.changes(self.braking.time(self.now)));
            }
            return Ok(());
        }
        self.braking.before_loss = None;
        if self.braking.untold.as_ref().is_none_or(|(_, at)| self.now >= *at) {
            self.tell_release()?;
        }
        if !self.braking.holds() {
            for (_, decided) in std::mem::take(&mut self.braking.asked) {
                decided(Err(Undecided::NotHeld));
            }
            return Ok(());
        }
        if !self.has_looked() {
            return Ok(());
        }
        for (accept, decided) in std::mem::take(&mut self.braking.asked) {
            if !self.braking.holds() {
                decided(Err(Undecided::NotHeld));
                continue;
            }
            let settled = if accept { self.accept()? } else { self.reject()? };
            // Whoever asked reads how things stand right after.
            self.recount()?;
            self.publish()?;
            match &self.braking.untold {
                Some((why, _)) => decided(Err(Undecided::Untold(why.clone()))),
                None => decided(Ok(settled)),
            }
        }
        self.recount()
    }

    /// Counts what is held.
    fn recount(&mut self) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let totals = snapshot.totals()?;
        let pending = (totals.removals, totals.replaces);
        let changed = std::mem::replace(&mut self.braking.counted, pending) != pending;
        let looks = self.braking.looks_again().is_some_and(|at| self.now >= at);
        if looks {
            self.braking.look_again = None;
        }
        let waits = self.braking.absences.is_some() && !self.absent.is_empty();
        if !(self.braking.recount || changed || looks) || waits || !self.braking.holds() {
            return Ok(());
        }
        self.braking.recount = false;
        let mut stale = BTreeSet::new();
        for at in self.absent.keys() {
            if snapshot.local(at)?.is_none() {
                stale.insert(at.clone());
            }
        }
        self.absent.retain(|at, _| !stale.contains(at));
        let (mut left, mut whose) = (0, None);
        if self.braking.holds_deletes() {
            let here = absent_files(&snapshot, &self.braking.brake, self.absent.keys())?.living;
            left = here + totals.removals;
            // Of one alone it is known how many they are.
            if self.braking.held.as_ref().is_some_and(|held| held.several) {
                whose = Some(self.deleted(&snapshot, &totals, here)?);
            }
        }
        let held_edits = self.braking.held.as_ref().is_some_and(|held| held.replaced > 0);
        let waits = held_edits && totals.replaces > 0 && !self.has_room_again(&snapshot)?;
        let edits = if waits { totals.replaces } else { 0 };
        let relieved = std::mem::take(&mut self.braking.relieved);
        let stay = totals.files.saturating_sub(totals.leaving);
        let few = relieved && !self.braking.brake.trips(&Brake::alone(left + edits, stay));
        if left + edits == 0 || few {
            if held_edits && totals.replaces == 0 {
                // What was accepted, or is taken back, may have the room of what it replaced.
                self.braking.brake.forget_replaced();
            }
            return self.let_go();
        }
        let Some(held) = &mut self.braking.held else { return Ok(()) };
        if held.pends(left, edits) {
            if let Some((who, theirs_done)) = whose {
                held.are_of(self.fresh.0, who, theirs_done);
            }
            // What is not held any more can be planned.
            self.replan = true;
            let mut work = Work::new(&snapshot);
            work.hold(Some(held));
            self.commit(work)?;
        }
        Ok(())
    }

    /// Nothing is held any more.
    fn let_go(&mut self) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.hold(None);
        self.commit(work)?;
        self.went();
        Ok(())
    }

    fn went(&mut self) {
        // What was asked for was never held, and nobody was told that it is.
        let was_held = self.braking.held.take().is_some_and(|held| held.deletes + held.replaced > 0);
        self.braking.untold = None;
        if !self.absent.is_empty() {
            let now = self.braking.time(self.now);
            self.braking.absences = Some(Patience::since(None, now));
        }
        self.replan = true;
        if was_held {
            self.host.braked(None);
        }
    }

    /// A person has decided on what was held: that counts no more.
    fn decided(&mut self, held: &Held) {
        if held.holds_deletes() {
            self.braking.brake.clear();
        } else {
            // Deletes of that minute, which were too few, count with others still.
            self.braking.brake.forget_replaced();
        }
    }

    /// What is held happens: what vanished is deleted, what was heard may go, and the others need not ask.
    fn accept(&mut self) -> Read<Settled> {
        let snapshot = self.folder.store.snapshot()?;
        let Some(mut held) = self.braking.held.clone() else { return Ok(Settled::default()) };
        let (before, mut gone, mut deletes, mut edits) = (held.clone(), Vec::new(), Vec::new(), Vec::new());
        if held.holds_deletes() {
            gone = self.still_absent(self.absent.keys().cloned().collect())?;
            deletes = pending(&snapshot)?;
        }
        if held.replaced > 0 {
            edits = overwriting(&snapshot)?;
        }
        let removals = if held.holds_deletes() { snapshot.totals()?.removals } else { 0 };
        let replaced = edits.iter().map(|(_, files)| files).sum();
        let mut accepted: Vec<DotRange> = held.changes.iter().chain(&held.replacing).copied().collect();
        accepted.extend(deletes.into_iter().chain(edits).map(|(range, _)| range));
        let known = dunlin_core::brake::released(&snapshot)?;
        let (_, vanished) = self.commit_deletes(gone, |work, changes| {
            accepted.extend(changes);
            held.accepted = DotRange::hull(accepted);
            let all: Vec<DotRange> = known.into_iter().chain(held.accepted.iter().copied()).collect();
            work.release(&all)?;
            work.hold(Some(&held).filter(|h| !h.accepted.is_empty()));
            Ok(())
        })?;
        self.braking.held = dunlin_core::brake::held(&self.folder.store.snapshot()?)?;
        self.decided(&before);
        match self.braking.held {
            Some(_) => self.tell_release()?,
            None => self.went(),
        }
        Ok(Settled { deleted: vanished.living + removals, replaced })
    }

    /// Commits a batch whose deletes a person asked for by name: they are accepted as those are that were held and let
    /// happen, on every device. While others are held, those count with them.
    pub(super) fn commit_asked(&mut self, mut work: Work<'_>, deletes: DotRange) -> Read<()> {
        if self.braking.holds() {
            return self.commit(work);
        }
        let mut held = self.braking.held.clone().unwrap_or_default();
        let known = dunlin_core::brake::released(&work.tx)?;
        let all: Vec<DotRange> = known.into_iter().chain([deletes]).collect();
        work.release(&all)?;
        held.accepted = DotRange::hull(held.accepted.into_iter().chain([deletes]));
        work.hold(Some(&held));
        self.commit(work)?;
        self.braking.held = Some(held);
        self.tell_release()
    }

    /// Has others told of what was accepted here.
    fn tell_release(&mut self) -> Read<()> {
        let Some(held) = self.braking.held.as_ref().filter(|h| !h.holds()) else { return Ok(()) };
        match self.host.release(&held.accepted) {
            Ok(()) => self.let_go(),
            Err(why) => {
                self.braking.untold = Some((why, self.now + NOTE_AGAIN));
                self.replan = true;
                Ok(())
            }
        }
    }

    /// The root is gone for good, and another directory is taken for it. What was deleted here in the minute before that
    /// was noticed went with it: whoever removes a directory with all that is in it removes the marker at some time, and
    /// not first.
    pub(super) fn root_was_removed(&mut self) -> Read<()> {
        let Some(changes) = self.braking.before_loss.take() else { return Ok(()) };
        let snapshot = self.folder.store.snapshot()?;
        let mut mine = Vec::new();
        for range in changes {
            if snapshot.device_of(range.inc)? == Some(self.fresh.0) {
                mine.push(range);
            }
        }
        let mut work = Work::new(&snapshot);
        work.take_deletes_of_back(&mine)?;
        self.commit(work)
    }

    /// What is held is not to happen: what vanished is wanted again, and what was heard is taken back.
    fn reject(&mut self) -> Read<Settled> {
        let Some(held) = self.braking.held.clone() else { return Ok(Settled::default()) };
        let (mut gone, mut edits, mut settled) = (Vec::new(), None, Settled::default());
        if held.holds_deletes() {
            gone = self.still_absent(self.absent.keys().cloned().collect())?;
        }
        let gone: Vec<Position> = gone.into_iter().map(|o| o.at).collect();
        let snapshot = self.folder.store.snapshot()?;
        let here = absent_files(&snapshot, &self.braking.brake, &gone)?.living;
        let mut work = Work::new(&snapshot);
        work.hold(None);
        if held.holds_deletes() {
            work.forget(&gone)?;
            settled.deleted = here + work.take_deletes_back(&held.changes)?;
        }
        if held.replaced > 0 {
            let before = work.tx.totals()?;
            settled.replaced = work.take_edits_back(&held.replacing)?;
            let last = work.tx.totals()?.counter;
            let first = before.counter + 1;
            edits = (last >= first).then_some(DotRange { inc: before.inc, first, last });
        }
        self.commit_decided(work, edits)?;
        // What is in the place of a directory stands beside it.
        gone.into_iter().for_each(|at| self.mark(at, Duration::ZERO, false));
        self.decided(&held);
        self.went();
        // Where the history is as short of room, what comes back would be held like what it replaces.
        self.braking.held = dunlin_core::brake::held(&self.folder.store.snapshot()?)?;
        self.tell_release()?;
        Ok(settled)
    }
}
