//! What is not on the disk any more: waited with, and then believed, or held by the brake.

use super::Engine;
use super::looking::LATE_DIR;
use crate::disk::FileKind;
use crate::scan::{self, Scanned};
use crate::store::Snapshot;
use dunlin_core::brake::{Absent, FRESH, Patience, absent_files};
use dunlin_core::ids::DotRange;
use dunlin_core::kv::{Read, View};
use dunlin_core::observe::{Observation, Seen, suspects};
use dunlin_core::path::{Name, RelPath};
use dunlin_core::rows::{Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Whether something else is in the place of a directory of ours: no directory, or one that came from elsewhere.
fn replaces_dir(view: &dyn View, o: &Observation) -> Read<bool> {
    let Some(row) = view.local(&o.at)?.filter(|row| row.content == Content::Dir) else { return Ok(false) };
    Ok(match &o.seen {
        Seen::Absent => false,
        Seen::File(..) | Seen::Link(..) => true,
        Seen::Dir(_, stamp) => {
            !row.stamp.is_same_inode(stamp) && !suspects(view, std::slice::from_ref(o))?.is_empty()
        }
    })
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

    /// Something is there (again); whether that was waited for.
    pub(super) fn is_there(&mut self, at: &Position) -> bool {
        let was_absent = self.absent.remove(at).is_some();
        self.braking.recount |= was_absent;
        self.replan |= was_absent;
        was_absent
    }

    /// What was gone is as it was. A directory may be another one all the same, with the same inode and, where clocks are
    /// coarse, the same stamp: nobody watches that one, and what is in it was not listed.
    pub(super) fn came_back(&mut self, snapshot: &Snapshot, at: &Position) -> Read<()> {
        if let Some(row) = snapshot.local(at)?.filter(|row| row.content == Content::Dir) {
            self.push_dir(row.node, true);
        }
        Ok(())
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
        if self.braking.holds_deletes() {
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
        let all: Vec<Position> = gone.iter().map(|o| &o.at).chain(self.absent.keys()).cloned().collect();
        // An index that only unites deletes nothing.
        if !self.uniting && self.trips(&snapshot.totals()?, &all)? {
            self.absent.extend(gone.into_iter().map(|o| (o.at, self.now)));
            return Ok(());
        }
        let (changes, vanished) = self.commit_deletes(gone, |_, _| Ok(()))?;
        // A removal that failed half-way is seen like this, too.
        self.removed(&vanished.gone, changes.into_iter().collect());
        Ok(())
    }

    /// Both trees are united now. What was found empty meanwhile is no delete, and must not become one later.
    pub(super) fn forget_absences(&mut self) -> Read<()> {
        let found = self.absent.keys().cloned().collect();
        let gone = self.still_absent(found)?;
        self.braking.absences = None;
        if gone.is_empty() { Ok(()) } else { self.commit_deletes(gone, |_, _| Ok(())).map(drop) }
    }

    /// Something else is in the place of a directory that held files which count at the brake: that waits like other things that
    /// vanished, and is often found elsewhere meanwhile. What is there now is taken in together with that, so that one decision is
    /// about both.
    pub(super) fn put_off_replacements(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut Vec<Observation>,
    ) -> Read<()> {
        let mut out = Vec::with_capacity(seen.len());
        for o in std::mem::take(seen) {
            if replaces_dir(snapshot, &o)? && absent_files(snapshot, &self.braking.brake, [&o.at])?.living > 0
            {
                self.vanished(o.at);
            } else {
                out.push(o);
            }
        }
        *seen = out;
        Ok(())
    }

    /// What is seen at those of the positions at which nothing is still, or something else than a directory of ours;
    /// none of them is waited with any more.
    pub(super) fn still_absent(&mut self, found: Vec<Position>) -> Read<Vec<Observation>> {
        let snapshot = self.folder.store.snapshot()?;
        let mut gone = Vec::new();
        self.replan |= !found.is_empty();
        for at in found {
            self.absent.remove(&at);
            if snapshot.local(&at)?.is_none() {
                continue;
            }
            match snapshot.disk_path(at.dir)? {
                Some(names) if !self.has_no_directory(&names) => {
                    self.look_at_absent(&snapshot, at, &RelPath::from(names), &mut gone)?;
                }
                // Its directory is something else by now.
                Some(_) | None => gone.push(Observation { at, seen: Seen::Absent }),
            }
        }
        Ok(gone)
    }

    fn look_at_absent(
        &mut self,
        snapshot: &Snapshot,
        at: Position,
        dir: &RelPath,
        gone: &mut Vec<Observation>,
    ) -> Read<()> {
        let mut found = Scanned::default();
        let force = self.is_doubted(&at);
        scan::scan_entry(self.folder.disk.as_ref(), snapshot, &at, dir, force, &mut found)?;
        if found.problems.is_empty() && found.absent.is_empty() && found.found() == 0 {
            self.came_back(snapshot, &at)?;
        }
        for (path, why) in std::mem::take(&mut found.problems) {
            // Gone or not, it is not known now.
            self.try_again(at.clone(), LATE_DIR);
            self.cannot_read(path, why);
        }
        gone.extend(found.absent.drain(..).map(|at| Observation { at, seen: Seen::Absent }));
        let mut seen = std::mem::take(&mut found.seen);
        if snapshot.local(&at)?.is_some_and(|row| row.content == Content::Dir) {
            for hashed in scan::hash_all(self.folder.disk.as_ref(), &self.folder.lists, &found.hash) {
                self.hashed(hashed, &mut seen);
            }
        } else if !found.hash.is_empty() {
            self.mark(at, Duration::ZERO, force);
        }
        for o in seen {
            if replaces_dir(snapshot, &o)? {
                gone.push(o);
            } else {
                self.mark(o.at, Duration::ZERO, false);
            }
        }
        Ok(())
    }

    /// Whether the way to a position leads through something that is no directory (any more). A directory that is
    /// just not there may have been moved.
    fn has_no_directory(&self, names: &[Name]) -> bool {
        (1..=names.len()).any(|n| {
            let there = self.folder.disk.stat(&RelPath::from(names[..n].to_vec()));
            there.is_ok_and(|there| there.is_some_and(|stat| stat.kind != FileKind::Dir))
        })
    }

    /// Records deletes with what came in their place, and what `more` adds; returns the changes they became and what
    /// they are. What cannot be made durable is left out, and looked at again.
    pub(super) fn commit_deletes(
        &mut self,
        mut gone: Vec<Observation>,
        more: impl FnOnce(&mut Work<'_>, Option<DotRange>) -> Read<()>,
    ) -> Read<(Option<DotRange>, Absent)> {
        let snapshot = self.folder.store.snapshot()?;
        let asked: BTreeSet<Position> = gone.iter().map(|o| o.at.clone()).collect();
        self.add_suspects(&snapshot, &mut gone)?;
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        for o in gone {
            let names = snapshot.disk_path(o.at.dir)?;
            let no_dir = names.is_some_and(|names| self.has_no_directory(&names));
            if no_dir { lost.push(o) } else { kept.push(o) }
        }
        self.make_durable(&snapshot, &mut kept)?;
        // Of a directory that is something else by now nothing can be synced. Should a power cut bring it back, what is
        // in it is new.
        let gone: Vec<Observation> = kept.into_iter().chain(lost).collect();
        let vanished = absent_files(
            &snapshot,
            &self.braking.brake,
            gone.iter().map(|o| &o.at).filter(|at| asked.contains(at)),
        )?;
        let mut work = Work::new(&snapshot).on(self.folder.disk.keeps());
        let before = snapshot.totals()?;
        let observed = work.observe(&gone)?;
        let last = work.tx.totals()?.counter;
        let changes =
            (last > before.counter).then_some(DotRange { inc: before.inc, first: before.counter + 1, last });
        more(&mut work, changes)?;
        gone.iter().for_each(|o| drop(self.unseen.remove(&o.at)));
        self.commit(work)?;
        self.damaged.extend(observed.damaged);
        observed.new_dirs.into_iter().for_each(|dir| self.push_dir(dir, true));
        self.replan = true;
        Ok((changes, vanished))
    }
}
