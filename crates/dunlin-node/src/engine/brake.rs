//! Deletes: how long they wait, and the brake that holds too many of them until a person decides.
//!
//! What counts and when it trips is decided in `dunlin_core::brake`.

use super::Engine;
use super::history::NOTE_AGAIN;
use super::looking::{LATE_DIR, is_gone};
use crate::scan::{self, Scanned};
use crate::store::Snapshot;
use dunlin_core::brake::{Brake, Count, FRESH, Held, Limits, Patience, absent_files, held, pending};
use dunlin_core::ids::DotRange;
use dunlin_core::kv::{Read, View};
use dunlin_core::observe::{Observation, Seen, suspects};
use dunlin_core::path::{Name, RelPath};
use dunlin_core::rows::{Position, Rows, Stamp, Totals};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What is in the place of a directory whose files are not believed to be deleted yet is looked at again after this.
const POSTPONED: Duration = Duration::from_millis(400);

fn stamp_of(seen: &Seen) -> Option<&Stamp> {
    match seen {
        Seen::Absent => None,
        Seen::Dir(_, stamp) | Seen::File(_, _, stamp) | Seen::Link(_, stamp) => Some(stamp),
    }
}

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

/// Called with the number of files concerned once a decision was carried out.
pub type Decided = Box<dyn FnOnce(Result<u64, Undecided>) + Send>;

/// Deletes that wait and deletes that are held.
pub(super) struct Braking {
    brake: Brake,
    /// The brake's times are counted from here.
    begun: Instant,
    /// Since when absences wait to be believed.
    absences: Option<Patience>,
    /// Since when removals that were heard wait to be carried out, and how many there were.
    removals: Option<Patience>,
    heard: u64,
    pub(super) held: Option<Held>,
    /// What is held is to be counted anew.
    recount: bool,
    /// Deletes were accepted elsewhere: what is left may be few.
    relieved: bool,
    /// What a person decided, to be carried out once the disk was looked at.
    asked: Vec<(bool, Decided)>,
    /// What is in the place of directories whose deletes are held: looked at when they are not any more.
    postponed: BTreeSet<Position>,
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
            held: held(view)?,
            recount: true,
            relieved: false,
            asked: Vec::new(),
            postponed: BTreeSet::new(),
            untold: None,
        })
    }

    /// Whether deletes are held.
    pub(super) fn holds(&self) -> bool {
        self.held.as_ref().is_some_and(Held::holds)
    }

    /// When something is due.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        let waits = self.absences.iter().chain(&self.removals).map(|p| self.begun + p.due());
        waits.chain(self.untold.iter().map(|(_, at)| *at))
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

impl Engine {
    /// Nothing is at a position any more.
    pub(super) fn vanished(&mut self, at: Position) {
        if let std::collections::btree_map::Entry::Vacant(e) = self.absent.entry(at) {
            e.insert(self.now);
            let braking = &mut self.braking;
            braking.absences = Some(Patience::since(braking.absences, braking.time(self.now)));
            braking.recount = true;
        }
    }

    /// Something is there (again).
    pub(super) fn is_there(&mut self, at: &Position) {
        self.braking.recount |= self.absent.remove(at).is_some();
    }

    /// What was found empty and still is was deleted, unless that is too much at once.
    pub(super) fn believe_absences(&mut self) -> Read<()> {
        let Some(waits) = self.braking.absences else { return Ok(()) };
        let hurry = self.barriers.iter().any(|(waits, _)| waits.is_none());
        let due = self.braking.time(self.now) >= waits.due();
        if !(hurry || due) || !self.check_root() {
            return Ok(());
        }
        self.braking.absences = None;
        if self.braking.holds() {
            self.braking.recount = true;
            return Ok(());
        }
        let old = |found: &Instant| hurry || *found + FRESH <= self.now;
        let found = self.absent.iter().filter(|(_, found)| old(found)).map(|(at, _)| at.clone()).collect();
        let gone = self.still_absent(found)?;
        if !self.absent.is_empty() {
            self.braking.absences = Some(Patience::since(None, self.braking.time(self.now)));
        }
        if gone.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        let vanished = absent_files(&snapshot, gone.iter().map(|o| &o.at))?;
        let all = absent_files(&snapshot, gone.iter().map(|o| &o.at).chain(self.absent.keys()))?.living;
        // An index that only unites deletes nothing.
        if !self.uniting && self.trips(&snapshot.totals()?, all)? {
            self.absent.extend(gone.into_iter().map(|o| (o.at, self.now)));
            return Ok(());
        }
        let changes = self.commit_deletes(gone, |_, _| Ok(()))?;
        // A removal that failed half-way is seen like this, too.
        self.removed(vanished.living + vanished.pending, changes.into_iter().collect());
        Ok(())
    }

    /// Something else is in the place of a directory, with all that was in it: that is deleted first, like other
    /// things that vanished, if it is much or deletes are held.
    pub(super) fn deletes_first(&mut self, snapshot: &Snapshot, seen: &mut Vec<Observation>) -> Read<()> {
        let mut out = Vec::with_capacity(seen.len());
        for o in std::mem::take(seen) {
            let row = snapshot.local(&o.at)?.filter(|row| row.content == Content::Dir);
            let (Some(row), Some(now)) = (row, stamp_of(&o.seen)) else {
                out.push(o);
                continue;
            };
            let is_dir = matches!(o.seen, Seen::Dir(..));
            let other = !row.stamp.is_same_inode(now)
                && (!is_dir || !suspects(snapshot, std::slice::from_ref(&o))?.is_empty());
            let files = if other { absent_files(snapshot, [&o.at])?.living } else { 0 };
            if files == 0 || !(self.braking.holds() || self.braking.brake.waits(files)) {
                out.push(o);
                continue;
            }
            for (name, _) in snapshot.locals(row.node)? {
                self.vanished(Position::new(row.node, name));
            }
            if self.braking.holds() {
                self.braking.postponed.insert(o.at);
            } else {
                self.mark(o.at, POSTPONED, false);
            }
        }
        *seen = out;
        Ok(())
    }

    /// Those of the positions that are empty still; none of them is waited with any more.
    fn still_absent(&mut self, found: Vec<Position>) -> Read<Vec<Observation>> {
        let snapshot = self.folder.store.snapshot()?;
        let mut gone = Vec::new();
        for at in found {
            self.absent.remove(&at);
            if snapshot.local(&at)?.is_none() {
                continue;
            }
            let mut found = Scanned::default();
            match snapshot.disk_path(at.dir)? {
                Some(names) if !self.has_no_directory(&at, &names) => {
                    let dir = RelPath::from(names);
                    scan::scan_entry(self.folder.disk.as_ref(), &snapshot, &at, &dir, false, &mut found)?;
                    if found.absent.is_empty() && (!found.hash.is_empty() || !found.seen.is_empty()) {
                        self.mark(at, Duration::ZERO, false);
                    } else if !found.problems.is_empty() {
                        // Gone or not, it is not known now.
                        self.mark(at, LATE_DIR, false);
                    }
                    for (path, why) in std::mem::take(&mut found.problems) {
                        self.cannot_read(path, why);
                    }
                }
                // Its directory is something else by now.
                Some(_) | None => found.absent.push(at),
            }
            gone.extend(found.absent.into_iter().map(|at| Observation { at, seen: Seen::Absent }));
        }
        Ok(gone)
    }

    /// Whether the way to a position leads through something that is no directory (any more).
    fn has_no_directory(&self, at: &Position, names: &[Name]) -> bool {
        let path = RelPath::from(names.to_vec()).join(&at.name);
        self.folder.disk.stat(&path).is_err_and(|e| is_gone(&e))
    }

    /// Records deletes, and what `more` adds; returns the changes they became.
    fn commit_deletes(
        &mut self,
        gone: Vec<Observation>,
        more: impl FnOnce(&mut Work<'_>, Option<DotRange>) -> Read<()>,
    ) -> Read<Option<DotRange>> {
        let snapshot = self.folder.store.snapshot()?;
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        for o in gone {
            let names = snapshot.disk_path(o.at.dir)?;
            let no_dir = names.is_some_and(|names| self.has_no_directory(&o.at, &names));
            if no_dir { lost.push(o) } else { kept.push(o) }
        }
        self.make_durable(&snapshot, &mut kept)?;
        // Of a directory that is something else by now nothing can be synced. Should a power cut bring it back, what is
        // in it is new.
        let gone: Vec<Observation> = kept.into_iter().chain(lost).collect();
        let mut work = Work::new(&snapshot);
        let before = snapshot.totals()?;
        work.observe(&gone)?;
        let last = work.tx.totals()?.counter;
        let changes =
            (last > before.counter).then_some(DotRange { inc: before.inc, first: before.counter + 1, last });
        more(&mut work, changes)?;
        gone.iter().for_each(|o| drop(self.unseen.remove(&o.at)));
        self.commit(work)?;
        self.replan = true;
        Ok(changes)
    }

    /// Whether files may be removed now: not while the brake holds, nor while more removals may come. Too many
    /// trip it.
    pub(super) fn may_remove(&mut self, totals: &Totals) -> Read<bool> {
        let now = self.braking.time(self.now);
        let braking = &mut self.braking;
        if totals.removals > braking.heard {
            braking.removals = Some(Patience::since(braking.removals, now));
        }
        braking.heard = totals.removals;
        if braking.holds() {
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
        let here = absent_files(&self.folder.store.snapshot()?, self.absent.keys())?.living;
        Ok(!self.trips(totals, here)?)
    }

    /// Whether removals have just waited long enough.
    pub(super) fn removals_are_due(&mut self) -> bool {
        let now = self.braking.time(self.now);
        self.braking.removals.take_if(|p| now >= p.due()).is_some()
    }

    /// Removals were carried out.
    pub(super) fn removed(&mut self, files: u64, changes: Vec<DotRange>) {
        let now = self.braking.time(self.now);
        self.braking.brake.done(now, files, changes);
    }

    /// Whether the brake trips now that `here` files vanished from this disk and more are to be removed; then it holds.
    fn trips(&mut self, totals: &Totals, here: u64) -> Read<bool> {
        let now = self.braking.time(self.now);
        let count = self.braking.brake.count(now, here + totals.removals, totals.files);
        if !self.braking.brake.trips(&count) {
            return Ok(false);
        }
        let Count { deletes, of, done } = count;
        let snapshot = self.folder.store.snapshot()?;
        let most = pending(&snapshot)?.into_iter().max_by_key(|(_, files)| *files);
        let by = most.filter(|(range, files)| *files > here && range.inc != totals.inc);
        let peers = snapshot.peers()?;
        let device = by.and_then(|(range, _)| peers.iter().find(|(_, p)| p.inc == range.inc).map(|p| p.0));
        let changes = self.braking.brake.changes(now);
        let held = Held { by: device, here: by.is_none(), deletes, of, done, changes, accepted: Vec::new() };
        let mut work = Work::new(&snapshot);
        work.hold(Some(&held));
        self.commit(work)?;
        self.host.braked(Some(&held));
        self.braking.held = Some(held);
        self.braking.recount = true;
        Ok(true)
    }

    /// Just these deletes were accepted by members.
    pub(super) fn released(&mut self, mut all: Vec<DotRange>) -> Read<()> {
        // What was accepted here, and could not be told yet, counts as well.
        all.extend(self.braking.held.iter().flat_map(|h| h.accepted.iter().copied()));
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        if work.release(&all)? {
            self.commit(work)?;
            self.replan = true;
            (self.braking.relieved, self.braking.recount) = (true, true);
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
            return Ok(());
        }
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
            let files = if accept { self.accept()? } else { self.reject()? };
            // Whoever asked reads how things stand right after.
            self.recount()?;
            self.publish()?;
            match &self.braking.untold {
                Some((why, _)) => decided(Err(Undecided::Untold(why.clone()))),
                None => decided(Ok(files)),
            }
        }
        self.recount()
    }

    /// Counts what is held.
    fn recount(&mut self) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let totals = snapshot.totals()?;
        let changed = std::mem::replace(&mut self.braking.heard, totals.removals) != totals.removals;
        let waits = self.braking.absences.is_some() && !self.absent.is_empty();
        if !(self.braking.recount || changed) || waits || !self.braking.holds() {
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
        let left = absent_files(&snapshot, self.absent.keys())?.living + totals.removals;
        let relieved = std::mem::take(&mut self.braking.relieved);
        let few = relieved && !self.braking.brake.trips(&Brake::alone(left, totals.files));
        if left == 0 || few {
            return self.let_go();
        }
        let Some(held) = &mut self.braking.held else { return Ok(()) };
        if left + held.done > held.deletes {
            held.deletes = left + held.done;
            held.of = held.of.max(held.deletes);
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
        self.braking.held = None;
        self.braking.untold = None;
        for at in std::mem::take(&mut self.braking.postponed) {
            self.mark(at, POSTPONED, false);
        }
        if !self.absent.is_empty() {
            let now = self.braking.time(self.now);
            self.braking.absences = Some(Patience::since(None, now));
        }
        self.replan = true;
        self.host.braked(None);
    }

    /// What is held happens: what vanished is deleted, what was heard may go, and the others need not ask.
    fn accept(&mut self) -> Read<u64> {
        let snapshot = self.folder.store.snapshot()?;
        let Some(mut held) = self.braking.held.clone() else { return Ok(0) };
        let gone = self.still_absent(self.absent.keys().cloned().collect())?;
        let vanished = absent_files(&snapshot, gone.iter().map(|o| &o.at))?;
        let files = vanished.living + snapshot.totals()?.removals;
        let mut accepted: Vec<DotRange> = held.changes.clone();
        accepted.extend(pending(&snapshot)?.into_iter().map(|(range, _)| range));
        let known = dunlin_core::brake::released(&snapshot)?;
        self.commit_deletes(gone, |work, changes| {
            accepted.extend(changes);
            held.accepted = DotRange::hull(accepted);
            let all: Vec<DotRange> = known.into_iter().chain(held.accepted.iter().copied()).collect();
            work.release(&all)?;
            work.hold(Some(&held).filter(|h| !h.accepted.is_empty()));
            Ok(())
        })?;
        self.braking.held = dunlin_core::brake::held(&self.folder.store.snapshot()?)?;
        self.braking.brake.clear();
        match self.braking.held {
            Some(_) => self.tell_release()?,
            None => self.went(),
        }
        Ok(files)
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

    /// What is held is not to happen: what vanished is wanted again, and what was heard is taken back.
    fn reject(&mut self) -> Read<u64> {
        let Some(held) = self.braking.held.clone() else { return Ok(0) };
        let gone = self.still_absent(self.absent.keys().cloned().collect())?;
        let gone: Vec<Position> = gone.into_iter().map(|o| o.at).collect();
        let snapshot = self.folder.store.snapshot()?;
        let here = absent_files(&snapshot, &gone)?.living;
        let mut work = Work::new(&snapshot);
        work.forget(&gone)?;
        let files = here + work.take_deletes_back(&held.changes)?;
        work.hold(None);
        self.commit(work)?;
        self.braking.brake.clear();
        self.went();
        Ok(files)
    }
}
