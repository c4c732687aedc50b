//! The engine's way from the disk into the index.

use super::{Engine, RESCAN, RESCAN_UNWATCHED};
use crate::disk::{Stat, is_gone};
use crate::scan::{self, Hashed, Scanned, ToHash};
use crate::store::Snapshot;
use crate::watch::WatchError;
use dunlin_core::ids::{NodeId, PARKED, ROOT};
use dunlin_core::kv::Read;
use dunlin_core::observe::{Observation, Seen, suspects};
use dunlin_core::path::{Name, RelPath};
use dunlin_core::rows::{LocalRow, Position, Rows};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::collections::BTreeSet;
use std::time::Duration;

/// So much is looked at in one round.
const ENTRIES_PER_ROUND: usize = 1000;
const BYTES_PER_ROUND: u64 = 64 << 20;
/// Larger files that never rest wait until they do.
const RESTLESS_MAX: u64 = 256 << 20;
/// What could not be read, listed or watched is tried again after this, then ever less often: it may
/// have been a moment's weakness of the disk, which tells nobody when it is over.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(1);
/// So often it is tried to hash what has to be hashed whatever the metadata say.
const VAIN_MAX: u32 = 10;
/// A directory that could not be looked at is tried again after this.
pub(super) const LATE_DIR: Duration = Duration::from_secs(2);
/// A large file that changed while it was read is tried again after this.
const RESTLESS_AGAIN: Duration = Duration::from_millis(700);

impl Engine {
    /// One round of looking: what is due, what is queued, what stays gone.
    pub(super) fn look(&mut self) -> Read<()> {
        self.braking.brake.age(self.braking.time(self.now), self.braking.holds());
        let mut scanned = self.look_at_due()?;
        if scanned.hash.len() + scanned.seen.len() < ENTRIES_PER_ROUND {
            self.look_at_dirs(&mut scanned)?;
        }
        self.take_in(scanned)?;
        self.retry_kept()?;
        if self.dirs.is_empty() {
            self.end_of_scan()?;
            self.believe_absences()?;
        }
        Ok(())
    }

    fn look_at_due(&mut self) -> Read<Scanned> {
        let (now, mut scanned) = (self.now, Scanned::default());
        let due = |(_, d): &(&Position, &super::Dirty)| d.due <= now;
        let positions: Vec<(Position, bool)> = self
            .dirty
            .iter()
            .filter(due)
            .take(ENTRIES_PER_ROUND)
            .map(|(at, d)| (at.clone(), d.force || self.is_doubted(at)))
            .collect();
        if positions.is_empty() {
            return Ok(scanned);
        }
        let snapshot = self.folder.store.snapshot()?;
        let mut confirmed = Vec::new();
        for (at, force) in positions {
            self.dirty.remove(&at);
            self.may_have_gone(&at);
            // What waited for it is planned anew.
            self.replan |= force;
            let Some(names) = snapshot.disk_path(at.dir)? else { continue };
            let dir = RelPath::from(names);
            let path = dir.join(&at.name);
            self.unreadable.looks_at(&path);
            if !self.is_at(&snapshot, at.dir, &dir)? {
                self.ask_parent(&snapshot, at.dir)?;
                if force {
                    self.look_in_vain(at);
                }
                continue;
            }
            let before = (scanned.problems.len(), scanned.found());
            let absent = scanned.absent.len();
            scan::scan_entry(self.folder.disk.as_ref(), &snapshot, &at, &dir, force, &mut scanned)?;
            if scanned.problems.len() > before.0 {
                if force {
                    self.look_in_vain(at);
                }
                continue;
            }
            self.unreadable.is_readable(&path);
            // It may be there as it always was.
            let is_back = scanned.absent.len() == absent && self.is_there(&at);
            if scanned.found() == before.1 {
                if is_back {
                    self.came_back(&snapshot, &at)?;
                }
                // It is as it was.
                confirmed.extend(self.unseen.remove(&at).map(|_| at));
            }
        }
        self.confirm(&snapshot, &confirmed)?;
        Ok(scanned)
    }

    /// Nothing was done there: what was heard is applied after all.
    fn confirm(&mut self, snapshot: &Snapshot, all: &[Position]) -> Read<()> {
        let mut work = Work::new(snapshot);
        for at in all {
            if let Some(row) = snapshot.local(at)? {
                work.touch(row.node);
            }
        }
        if all.is_empty() { Ok(()) } else { self.commit(work) }
    }

    /// What had to be looked at whatever the metadata say could not be: they will not say it the next time either.
    fn look_in_vain(&mut self, at: Position) {
        let tries = self.vain.entry(at.clone()).or_default();
        *tries += 1;
        if *tries > VAIN_MAX {
            // It may never be readable again, and what should come in its place would wait for good.
            self.vain.remove(&at);
        } else {
            self.try_again(at, UNREADABLE_AGAIN);
        }
    }

    fn look_at_dirs(&mut self, out: &mut Scanned) -> Read<()> {
        if self.dirs.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        let mut bytes = 0;
        while let Some((dir, deep)) = self.dirs.pop_front() {
            self.queued.remove(&(dir, deep));
            if dir == ROOT && !self.check_root() {
                return Ok(());
            }
            let Some(names) = snapshot.disk_path(dir)? else { continue };
            let path = RelPath::from(names);
            if !self.is_at(&snapshot, dir, &path)? {
                self.ask_parent(&snapshot, dir)?;
                continue;
            }
            // Watched first, then listed: what happens in between is seen by one or the other.
            self.unreadable.looks_into(&path);
            self.watch(dir, &path);
            match scan::scan_dir(self.folder.disk.as_ref(), &snapshot, (dir, &path), self.doubts.left())? {
                Ok(found) => {
                    self.unreadable.is_readable(&path);
                    if self.kept.contains(&dir) && !found.left_alone {
                        self.let_go.insert(dir);
                    }
                    self.may_be_back(&snapshot, dir, &found)?;
                    bytes += found.hash.iter().map(|f| f.size).sum::<u64>();
                    out.seen.extend(found.seen);
                    out.hash.extend(found.hash);
                    out.absent.extend(found.absent);
                    out.problems.extend(found.problems);
                    out.again.extend(found.again);
                    out.hidden.extend(found.hidden);
                    out.young.extend(found.young);
                }
                // It went, or became something else, since its parent was listed: its parent tells.
                Err(e) if is_gone(&e) => {
                    self.ask_parent(&snapshot, dir)?;
                    continue;
                }
                Err(e) => self.look_later(dir, &path, &e),
            }
            if deep {
                for (_, row) in snapshot.locals(dir)? {
                    self.damaged.extend(row.damaged.map(|_| row.node));
                    if row.content == Content::Dir {
                        if row.kept {
                            self.kept.insert(row.node);
                        }
                        self.push_dir(row.node, true);
                    }
                }
            }
            if out.hash.len() + out.seen.len() >= ENTRIES_PER_ROUND || bytes >= BYTES_PER_ROUND {
                break;
            }
        }
        Ok(())
    }

    /// A directory was listed: what was missing in it may be there again, as it always was.
    fn may_be_back(&mut self, snapshot: &Snapshot, dir: NodeId, found: &Scanned) -> Read<()> {
        // No name comes before this one.
        let Ok(first) = Name::new(&[1]) else { return Ok(()) };
        let missing = self.absent.range(Position::new(dir, first)..).map(|(at, _)| at);
        let missing: Vec<Position> = missing.take_while(|at| at.dir == dir).cloned().collect();
        if missing.is_empty() || !found.problems.is_empty() {
            return Ok(());
        }
        let absent: BTreeSet<&Position> = found.absent.iter().collect();
        let others = found.hash.iter().map(|file| &file.at).chain(&found.again);
        let differs: BTreeSet<&Position> = found.seen.iter().map(|o| &o.at).chain(others).collect();
        for at in missing.iter().filter(|at| !absent.contains(at)) {
            // The listing looked at its metadata alone.
            if self.is_doubted(at) {
                self.mark(at.clone(), Duration::ZERO, true);
            }
            self.is_there(at);
            if !differs.contains(at) {
                self.came_back(snapshot, at)?;
            }
        }
        Ok(())
    }

    /// Whether the directory at a path is the one that the index knows there: events come by
    /// directory, and a directory may have moved since the index was written.
    pub(super) fn is_at(&mut self, snapshot: &Snapshot, dir: NodeId, path: &RelPath) -> Read<bool> {
        // Where directories are parked is no row of the index, and always there.
        if dir == ROOT || dir == PARKED {
            return Ok(true);
        }
        let row = snapshot.dir_position(dir)?.map(|at| snapshot.local(&at)).transpose()?.flatten();
        let now = match self.folder.disk.stat(path) {
            Ok(now) => now,
            Err(e) => {
                self.look_later(dir, path, &e);
                return Ok(false);
            }
        };
        Ok(row.zip(now).is_some_and(|(row, now)| row.stamp.is_same_inode(&now.stamp())))
    }

    /// A directory is not where it was: whatever happened is seen by listing the directory above it.
    fn ask_parent(&mut self, snapshot: &Snapshot, dir: NodeId) -> Read<()> {
        if let Some(at) = snapshot.dir_position(dir)? {
            self.mark(at, Duration::ZERO, false);
        }
        Ok(())
    }

    fn watch(&mut self, dir: NodeId, path: &RelPath) {
        match self.watcher.add(path, dir.0) {
            // What is gone cannot be listed either, and its parent tells.
            Ok(()) | Err(WatchError::Gone) => {}
            Err(WatchError::Io(e)) => self.look_later(dir, path, &e),
            Err(WatchError::Exhausted) => {
                (self.unwatched, self.exhausted) = (true, true);
                self.next_rescan = Some(self.now + RESCAN_UNWATCHED);
            }
        }
    }

    /// A directory cannot be looked at now: until it was, nobody knows what is in it.
    fn look_later(&mut self, dir: NodeId, path: &RelPath, e: &std::io::Error) {
        self.late_dirs.insert(dir, self.now + LATE_DIR);
        self.cannot_read(path.clone(), e.to_string());
    }

    /// Directories that could not be looked at are tried again.
    pub(super) fn try_late_dirs(&mut self) {
        let now = self.now;
        let due: Vec<NodeId> = self.late_dirs.iter().filter(|(_, at)| **at <= now).map(|(d, _)| *d).collect();
        for dir in due {
            self.late_dirs.remove(&dir);
            self.push_dir(dir, true);
        }
    }

    /// Hashes, observes and commits what was found.
    fn take_in(&mut self, scanned: Scanned) -> Read<()> {
        for (path, why) in scanned.problems {
            self.cannot_read(path, why);
        }
        self.hidden.extend(scanned.hidden);
        scanned.young.iter().for_each(|(at, stamp)| self.doubt(at, stamp));
        for at in scanned.again {
            self.mark(at, Duration::from_millis(20), false);
        }
        scanned.absent.into_iter().for_each(|at| self.vanished(at));
        let mut seen = scanned.seen;
        for hashed in scan::hash_all(self.folder.disk.as_ref(), &self.folder.lists, &scanned.hash) {
            self.hashed(hashed, &mut seen);
        }
        self.look_at_other_links(&seen)?;
        self.put_off_replacements(&self.folder.store.snapshot()?, &mut seen)?;
        for o in &seen {
            self.is_there(&o.at);
        }
        self.observe(seen)?;
        self.settle_doubts();
        Ok(())
    }

    pub(super) fn hashed(&mut self, hashed: Hashed, seen: &mut Vec<Observation>) {
        match hashed {
            Hashed::Seen(o, bytes, young) => {
                self.vain.remove(&o.at);
                if let Seen::File(id, _, stamp) = &o.seen {
                    if young {
                        self.doubt(&o.at, stamp);
                    }
                    bytes.into_iter().for_each(|bytes| self.host.recent(*id, bytes));
                }
                if let Some(rested) = self.restless.remove(&o.at) {
                    rested.kept.iter().for_each(|old| self.folder.stage.forget(old));
                }
                seen.push(o);
            }
            Hashed::Restless(file) => self.restless(&file, seen),
            Hashed::Gone(at) => {
                self.vain.remove(&at);
                self.vanished(at);
            }
            Hashed::Failed(file, why) => {
                self.unreadable.note(file.path, why);
                if file.force {
                    self.look_in_vain(file.at);
                }
            }
        }
    }

    /// A file with several names was written through one of them: the others have changed too, and
    /// nothing tells of it.
    fn look_at_other_links(&mut self, seen: &[Observation]) -> Read<()> {
        for o in seen {
            if let Seen::File(_, _, stamp) = &o.seen
                && stamp.nlink > 1
            {
                for at in self.folder.store.snapshot()?.places_of_inode(stamp.ino)? {
                    if at != o.at {
                        self.mark(at, Duration::ZERO, false);
                    }
                }
            }
        }
        Ok(())
    }

    /// A large file changed while it was read. The first time it is tried again; one that goes on like
    /// this travels as a copy, which is served while the file itself is something else already.
    fn restless(&mut self, file: &ToHash, seen: &mut Vec<Observation>) {
        let copies = self.restless.entry(file.at.clone()).or_default();
        copies.tries += 1;
        if copies.tries < 2 {
            return self.mark(file.at.clone(), RESTLESS_AGAIN, false);
        }
        self.try_again(file.at.clone(), RESTLESS_AGAIN);
        if file.size > RESTLESS_MAX {
            return;
        }
        let stage = &self.folder.stage;
        let Ok((path, copy)) = stage.begin_copy() else { return };
        let made = scan::snapshot(self.folder.disk.as_ref(), file, copy.as_ref());
        let id =
            made.as_ref().ok().and_then(|o| if let Seen::File(id, ..) = o.seen { Some(id) } else { None });
        if stage.end_copy(&path, id).is_err() {
            return;
        }
        let copies = self.restless.entry(file.at.clone()).or_default();
        if let (Some(id), Ok(o)) = (id, made) {
            copies.kept.push_back(id);
            while copies.kept.len() > 2 {
                copies.kept.pop_front().iter().for_each(|old| stage.forget(old));
            }
            seen.push(o);
        }
    }

    fn observe(&mut self, mut seen: Vec<Observation>) -> Read<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        self.add_suspects(&snapshot, &mut seen)?;
        self.make_durable(&snapshot, &mut seen)?;
        let work = Work::new(&snapshot).on(self.folder.disk.keeps());
        let mut work = if self.doubts.is_first_look() { work.after_start() } else { work };
        let observed = work.observe(&seen)?;
        seen.iter().for_each(|o| drop(self.unseen.remove(&o.at)));
        self.commit(work)?;
        let (now, after) = (self.braking.time(self.now), self.folder.store.snapshot()?);
        self.braking.brake.saw(now, &snapshot, &after, &seen)?;
        self.damaged.extend(observed.damaged);
        for dir in observed.new_dirs {
            self.push_dir(dir, true);
        }
        self.replan = true;
        Ok(())
    }

    /// Looks at where things may have come from, so that a move is seen as one. What took a place there may have come from
    /// elsewhere in turn.
    pub(super) fn add_suspects(&mut self, snapshot: &Snapshot, seen: &mut Vec<Observation>) -> Read<()> {
        let mut looked = BTreeSet::new();
        loop {
            let mut more = suspects(snapshot, seen)?;
            more.retain(|at| looked.insert(at.clone()));
            if more.is_empty() {
                return Ok(());
            }
            more.into_iter().try_for_each(|at| self.look_at_suspect(snapshot, at, seen))?;
        }
    }

    fn look_at_suspect(
        &mut self,
        snapshot: &Snapshot,
        at: Position,
        seen: &mut Vec<Observation>,
    ) -> Read<()> {
        let (before, mut found) = (seen.len(), Scanned::default());
        let mut is_gone = true;
        if let Some(names) = snapshot.disk_path(at.dir)? {
            let (disk, dir) = (self.folder.disk.clone(), RelPath::from(names));
            scan::scan_entry(disk.as_ref(), snapshot, &at, &dir, false, &mut found)?;
            seen.extend(found.seen);
            let hashed = scan::hash_all(disk.as_ref(), &self.folder.lists, &found.hash);
            hashed.into_iter().for_each(|hashed| self.hashed(hashed, seen));
            // Of a file that cannot be read, or changes just now, it is known all the same that it is another one.
            let unread = !found.hash.is_empty() && !seen[before..].iter().any(|o| o.at == at);
            is_gone = !found.absent.is_empty()
                || unread
                    && snapshot.local(&at)?.zip(disk.stat(&dir.join(&at.name)).ok()).is_some_and(is_other);
        }
        if is_gone {
            self.is_there(&at);
            seen.push(Observation { at, seen: Seen::Absent });
        }
        Ok(())
    }

    /// Everything that was queued has been looked at.
    fn end_of_scan(&mut self) -> Read<()> {
        if self.scanning && self.halted.is_none() {
            self.scanning = false;
            self.doubts.looked_through();
            self.unwatched = self.exhausted;
            self.replan = true;
            self.braking.brake.knows(!self.uniting);
        }
        let mut wait = if self.unwatched { RESCAN_UNWATCHED } else { RESCAN };
        if let Some(tries) = self.unreadable.looked() {
            wait = wait.min(UNREADABLE_AGAIN * (1 << tries.min(12)));
        }
        if self.next_rescan.is_none() {
            self.unreadable.tries += 1;
        }
        let at = self.now + wait;
        self.next_rescan = Some(self.next_rescan.map_or(at, |next| next.min(at)));
        if self.uniting && self.halted.is_none() && self.waits_for_tree.is_none() {
            self.forget_absences()?;
            self.uniting = false;
            self.braking.brake.knows(true);
            self.replan = true;
            let snapshot = self.folder.store.snapshot()?;
            let mut work = Work::new(&snapshot);
            let mut totals = work.tx.totals()?;
            totals.uniting = false;
            work.tx.put_totals(&totals);
            self.commit(work)?;
            self.host.united();
        }
        Ok(())
    }
}

/// Whether nothing of what was at a position is there.
fn is_other((row, now): (LocalRow, Option<Stat>)) -> bool {
    !now.is_some_and(|now| now.stamp().is_same_inode(&row.stamp))
}
