//! Carries out the steps of a plan on the disk.
//!
//! The order is: contents durable, renames, directories durable; only then may the index record it.
//! Nothing is replaced blindly: a file is exchanged, and what came out is looked at. If it is not what
//! was expected, somebody edited it in between, and it goes back.

mod dirs;
mod expected;
mod ready;
mod stamps;

use crate::disk::{Disk, Entry, FileKind, Rename, Stat, explain};
use crate::stage::{Stage, control, takes_out};
use dirs::Dirs;
use dunlin_core::ids::ContentId;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::{Action, Outcome, Step};
use dunlin_core::rows::{LocalRow, Stamp};
use dunlin_core::state::Content;
use expected::{file_time, is_left_alone, wants_room};
use ready::{Ready, placed_file};
use stamps::{is_it, same_bytes, stamps};
use std::collections::BTreeMap;
use std::io;

/// What is said of a name that the file system makes another one of.
const OTHER_NAME: &str = "this file system would give it another name";

/// How one step ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// As the index is to record it.
    Ended(Outcome),
    /// The disk was not as expected: a local change that was not seen yet.
    Changed,
    /// Something of a kind that is not synced has the place.
    InTheWay,
    /// The system refused; why, for a person.
    Failed(String),
}

enum Stop {
    Changed,
    InTheWay,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Stop {
        match e.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Stop::Changed
            }
            _ => Stop::Io(e),
        }
    }
}

struct Applier<'a> {
    disk: &'a dyn Disk,
    stage: &'a Stage,
    /// Where the file of each placing step lies ready, by the step's number.
    ready: BTreeMap<usize, Ready>,
    dirs: Dirs,
    /// What was put in place, as it was just before: what a user makes of it afterwards is not ours.
    placed: BTreeMap<usize, Stamp>,
    /// What the history lent, as it was when it was verified.
    lent: BTreeMap<usize, Stamp>,
}

/// Carries out `steps`, all of them independent of each other; everything done is durable when this
/// returns. One result a step, in order.
pub fn apply(disk: &dyn Disk, stage: &Stage, steps: &[Step]) -> Vec<Applied> {
    let (ready, dirs, placed, lent) = Default::default();
    let mut a = Applier { disk, stage, ready, dirs, placed, lent };
    let mut failed = a.prepare(steps);
    let mut done = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        done.push(match failed.remove(&i) {
            Some(e) => Err(Stop::Io(e)),
            None => a.step(i, step).map_err(|stop| a.reason(step, stop)),
        });
    }
    a.put_rest_back();
    let synced = a.dirs.sync(disk);
    let mut out = Vec::with_capacity(steps.len());
    for (i, (step, result)) in steps.iter().zip(done).enumerate() {
        out.push(finish(disk, step, result, a.placed.get(&i), &synced));
    }
    out
}

fn finish(
    disk: &dyn Disk,
    step: &Step,
    result: Result<bool, Stop>,
    placed: Option<&Stamp>,
    synced: &io::Result<()>,
) -> Applied {
    let outcome = match (result, synced) {
        (Ok(_), Err(e)) => return Applied::Failed(format!("cannot be made durable: {e}")),
        (Err(Stop::Changed), _) => return Applied::Changed,
        (Err(Stop::InTheWay), _) => return Applied::InTheWay,
        (Err(Stop::Io(e)), _) => return Applied::Failed(explain(disk, &e)),
        (Ok(false), Ok(())) => return Applied::Ended(Outcome::Kept),
        (Ok(true), Ok(())) => stamps(disk, step, placed),
    };
    match outcome {
        Ok(outcome) => Applied::Ended(outcome),
        Err(e) => Applied::Failed(explain(disk, &e)),
    }
}

impl Applier<'_> {
    /// What stopped a step: a place that is taken may be so by what no look ever tells of.
    fn reason(&self, step: &Step, stop: Stop) -> Stop {
        match stop {
            Stop::Changed if wants_room(&step.action) => match self.disk.stat(&step.path) {
                Ok(Some(s)) if is_left_alone(&s) => Stop::InTheWay,
                _ => Stop::Changed,
            },
            other => other,
        }
    }

    /// `Ok(false)` means that a directory was kept because of what is in it.
    fn step(&mut self, i: usize, step: &Step) -> Result<bool, Stop> {
        let (dir, name) = step.path.split_last().ok_or(Stop::Changed)?;
        let parent = dir.clone();
        self.dirs.enter(self.disk, &parent);
        let done = match &step.action {
            Action::MakeDir { mode } => {
                self.writable(&parent, || self.disk.mkdir(&step.path, *mode))?;
                self.named_so(&step.path, || self.disk.rmdir(&step.path))?;
                let made = self.disk.stat(&step.path)?.ok_or(Stop::Changed)?;
                self.placed.insert(i, made.stamp());
                self.dirs.enter(self.disk, &step.path);
                self.dirs.changed(step.path.clone());
                true
            }
            Action::Place { content, replaces, was, .. } => {
                let from = self.to_place(i, step, content)?;
                let stamp = self.disk.stat(&from)?.ok_or(Stop::Changed)?.stamp();
                if self.lent.get(&i).is_some_and(|verified| !same_bytes(&stamp, verified)) {
                    return Err(Stop::Changed);
                }
                let staged = self.ready.get(&i).and_then(|(_, staged)| *staged);
                let placed =
                    self.place(i, &from, step, &parent, name, replaces.as_ref().map(|stamp| (stamp, *was)));
                if let (Err(_), Content::Link(text)) = (&placed, content)
                    && self.disk.read_link(&from).is_ok_and(|made| made[..] == text[..])
                {
                    // A link is made anew by the next plan. What was taken out for it is none of ours.
                    let _ = self.disk.unlink(&from);
                }
                placed?;
                staged.iter().for_each(|content| self.stage.placed(&from, content));
                self.placed.insert(i, stamp);
                self.ready.remove(&i);
                true
            }
            Action::Move { from_path, row, swap, .. } => {
                self.relocate(step, from_path, row, swap.as_ref(), &parent)?;
                true
            }
            Action::Meta { row, mode, mtime } => {
                self.expect(&step.path, row)?;
                if let Some(mode) = mode {
                    self.disk.set_mode(&step.path, *mode)?;
                }
                if let Some(mtime) = mtime {
                    self.disk.set_mtime(&step.path, file_time(*mtime))?;
                    if !self.disk.keeps().times() {
                        // What the disk made of it. A write of this moment is found by the look that follows.
                        let made = self.disk.stat(&step.path)?.map(|s| s.stamp());
                        self.placed.extend(made.map(|made| (i, Stamp { mtime: made.mtime, ..row.stamp })));
                    }
                }
                match &row.content {
                    Content::Dir => self.dirs.changed(step.path.clone()),
                    Content::File { .. } => self.dirs.dressed(step.path.clone()),
                    _ => {}
                }
                true
            }
            Action::Remove { row, kept } => self.remove(step, row, kept, &parent, name)?,
        };
        self.dirs.changed(dir);
        Ok(done)
    }

    fn to_place(&self, i: usize, step: &Step, content: &Content) -> Result<RelPath, Stop> {
        if let Content::Link(text) = content {
            let path = self.stage.swap_path(None, &takes_out(step));
            self.disk.symlink(text, &path)?;
            return Ok(path);
        }
        self.ready.get(&i).map(|(path, _)| path.clone()).ok_or(Stop::Changed)
    }

    fn place(
        &mut self,
        i: usize,
        from: &RelPath,
        step: &Step,
        parent: &RelPath,
        name: &Name,
        replaces: Option<(&Stamp, Option<ContentId>)>,
    ) -> Result<(), Stop> {
        let Some((expected, was)) = replaces else {
            self.writable(parent, || self.disk.rename(from, &step.path, Rename::NoReplace))?;
            return self.named_so(&step.path, || self.disk.rename(&step.path, from, Rename::NoReplace));
        };
        let now = self.disk.stat(&step.path)?.ok_or(Stop::Changed)?;
        if now.stamp() != *expected {
            return Err(Stop::Changed);
        }
        self.writable(parent, || self.disk.rename(from, &step.path, Rename::Exchange))?;
        // What lies there now was taken out: whatever fails, it must not go to the stage as what was placed.
        let ours = self.ready.remove(&i);
        let out = self.disk.stat(from)?;
        if !out.is_some_and(|s| same_bytes(&s.stamp(), expected)) {
            // Somebody wrote or renamed in between: theirs goes back where it was.
            self.disk.rename(from, &step.path, Rename::Exchange)?;
            // For a moment ours was there for everyone. What was written to it then is a user's, and stays in `swap`.
            if let Some((content, ..)) = placed_file(step)
                && self.stage.is_held(from, &content)
            {
                self.ready.extend(ours.map(|ours| (i, ours)));
            }
            return Err(Stop::Changed);
        }
        self.stage.keep(from, name, was)?;
        self.dirs.changed(control(&["history"]));
        Ok(())
    }

    fn expect(&self, path: &RelPath, row: &LocalRow) -> Result<(), Stop> {
        match self.disk.stat(path)? {
            Some(s) if is_it(row, &s) => Ok(()),
            _ => Err(Stop::Changed),
        }
    }

    fn relocate(
        &mut self,
        step: &Step,
        from: &RelPath,
        row: &LocalRow,
        swap: Option<&LocalRow>,
        parent: &RelPath,
    ) -> Result<(), Stop> {
        let (from_dir, _) = from.split_last().ok_or(Stop::Changed)?;
        self.dirs.enter(self.disk, &from_dir);
        self.expect(from, row)?;
        let how = if let Some(other) = swap {
            self.expect(&step.path, other)?;
            Rename::Exchange
        } else {
            Rename::NoReplace
        };
        let go = || self.writable(&from_dir, || self.disk.rename(from, &step.path, how));
        self.writable(parent, go)?;
        if !self.disk.stat(&step.path)?.is_some_and(|s| is_it(row, &s)) {
            self.disk.rename(&step.path, from, how)?;
            return Err(Stop::Changed);
        }
        self.dirs.changed(from_dir);
        Ok(())
    }

    fn remove(
        &mut self,
        step: &Step,
        row: &LocalRow,
        kept: &[Name],
        parent: &RelPath,
        name: &Name,
    ) -> Result<bool, Stop> {
        self.expect(&step.path, row)?;
        if row.content == Content::Dir {
            return match self.writable(parent, || self.disk.rmdir(&step.path)) {
                Ok(()) => {
                    self.dirs.removed(&step.path);
                    Ok(true)
                }
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    // Things that are left alone stay, and the directory with them; anything else
                    // is news.
                    let stays = |e: &Entry| {
                        let is_kept =
                            |s: &Stat| s.kind == FileKind::Dir && self.is_among(&step.path, e, kept);
                        e.stat.as_ref().is_ok_and(|s| is_left_alone(s) || is_kept(s))
                    };
                    let all = self.disk.list(&step.path)?.iter().all(stays);
                    if all { Ok(false) } else { Err(Stop::Changed) }
                }
                Err(e) => Err(e.into()),
            };
        }
        // By way of `swap`, whose names tell what was to come out: the program may end before it has looked.
        let out = self.stage.swap_path(None, &takes_out(step));
        self.writable(parent, || self.disk.rename(&step.path, &out, Rename::NoReplace))?;
        let kept = match self.disk.stat(&out) {
            Ok(Some(s)) if is_it(row, &s) => self.stage.keep(&out, name, row.holds()).map_err(Stop::Io),
            Ok(_) => Err(Stop::Changed),
            Err(e) => Err(Stop::Io(e)),
        };
        if let Err(stop) = kept {
            // If its name was taken meanwhile, or the disk fails, it comes back from there as a version.
            let _ = self.disk.rename(&out, &step.path, Rename::NoReplace);
            return Err(stop);
        }
        self.dirs.changed(control(&["history"]));
        Ok(true)
    }

    /// What was just made has the name that it was given. Some file systems drop dots and spaces at the end of one: under the
    /// name that is left it would be taken for something that a user renamed.
    fn named_so(&self, path: &RelPath, undo: impl FnOnce() -> io::Result<()>) -> Result<(), Stop> {
        if !self.disk.is_blind() || self.disk.stat(path)?.is_some() || self.disk.other_name(path)?.is_none() {
            return Ok(());
        }
        undo()?;
        Err(Stop::Io(io::Error::other(OTHER_NAME)))
    }

    /// Whether an entry is one of these, however the disk lists it.
    fn is_among(&self, dir: &RelPath, entry: &Entry, names: &[Name]) -> bool {
        let ino = |stat: &Stat| Some(stat.ino) == entry.stat.as_ref().ok().map(|s| s.ino);
        let leads_there = |name| self.disk.stat(&dir.join(name)).is_ok_and(|s| s.as_ref().is_some_and(ino));
        names.contains(&entry.name) || (!self.disk.keeps().forms && names.iter().any(leads_there))
    }

    /// Runs `change` in a directory, made writable for as long as that takes if it is ours and is not.
    fn writable<T>(&self, dir: &RelPath, change: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match change() {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !dir.is_root() => {
                let Some(mode) = self.disk.stat(dir)?.map(|s| s.mode & 0o777) else { return Err(e) };
                if mode & 0o300 == 0o300 || self.disk.set_mode(dir, mode | 0o700).is_err() {
                    return Err(e);
                }
                let result = change();
                self.disk.set_mode(dir, mode)?;
                result
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
