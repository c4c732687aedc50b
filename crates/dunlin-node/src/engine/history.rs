//! The history of a folder, as its engine keeps it: when changes were made, what of them is taken back or made
//! again, and what is old enough to go.

use super::Engine;
use dunlin_core::ids::DotRange;
use dunlin_core::journal::{Journal, Kept, Mark, Moment};
use dunlin_core::kv::{Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Back, MASS};
use dunlin_core::rows::Rows;
use dunlin_core::state::{Content, Mtime};
use dunlin_core::tree::Work;
use std::time::{Duration, Instant};

/// How often it is noted how far the history reaches, and what is old goes.
const MARK_EVERY: u64 = 3600;
/// When that failed, it is tried again after this.
pub(super) const NOTE_AGAIN: Duration = Duration::from_secs(30);
/// Changes forgotten in one go; the rest at the next.
const FORGET_MAX: usize = 10_000;
/// Things made again or taken back in one commit.
const AGAIN_MAX: usize = 4096;

/// Something that was there, and where it is to be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// Where.
    pub path: RelPath,
    /// What.
    pub content: Content,
    /// Permission bits.
    pub mode: Option<u16>,
    /// Modification time of a file.
    pub mtime: Option<Mtime>,
}

/// What is to be again as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nodes are taken back to what they were.
    Back(Vec<Back>),
    /// Things are made at paths.
    Make(Vec<Thing>),
}

/// Told which of them were changed, or why none could be.
pub type Remade = Box<dyn FnOnce(Result<Vec<bool>, String>) + Send>;

/// What the engine knows of time.
pub(super) struct Clock {
    started: Instant,
    /// Seconds that the program had run with this index before.
    before: u64,
    /// Under which number the present second is recorded, and its seconds since 1970.
    recorded: Option<(u64, i64)>,
    /// The last sequence number whose moment is recorded.
    seq: u64,
    /// The running time of the last mark.
    marked: u64,
    limits: Kept,
}

impl Clock {
    pub(super) fn new(view: &dyn View, now: Instant, limits: Kept) -> Read<(Clock, u64)> {
        let before = view.last_moment()?.map_or(0, |m| m.running);
        let mark = view.marks()?.pop();
        let marked = mark.map_or(before, |m| m.at.running);
        let seq = view.totals()?.seq;
        let clock = Clock { started: now, before, recorded: None, seq, marked, limits };
        Ok((clock, mark.map_or(0, |m| m.number)))
    }
}

impl Engine {
    /// The share of the disk that the history is given, in percent.
    pub(super) fn history_share(&self) -> u8 {
        let Kept { days, percent } = self.clock.limits;
        if days == 0 { 0 } else { percent }
    }

    /// Notes now and then beside the index how far it came: so it is known should it be rolled back.
    pub(super) fn note_progress(&mut self) -> Read<()> {
        if self.note_at.is_none_or(|at| self.now < at) {
            return Ok(());
        }
        self.clear_doubts()?;
        let seq = self.folder.store.snapshot()?.totals()?.seq;
        let done = self.folder.note(seq).is_ok();
        self.note_at = if done { None } else { Some(self.now + NOTE_AGAIN) };
        if done {
            self.noted = seq;
        }
        Ok(())
    }

    fn moment(&self) -> Moment {
        let run = self.now.saturating_duration_since(self.clock.started).as_secs();
        Moment { wall: self.folder.disk.now().secs, running: self.clock.before + run }
    }

    /// Commits a batch, with the time of what changed in it. Nothing that was heard counts as applied where
    /// something was done before.
    pub(super) fn commit(&mut self, mut work: Work<'_>) -> Read<()> {
        for (at, (stamp, seen)) in &self.unseen {
            work.not_seen(at.clone(), *stamp, seen.clone());
        }
        work.leave_in_doubt(self.doubts.all());
        let totals = work.tx.totals()?;
        if totals.seq <= self.clock.seq {
            return self.folder.commit(work);
        }
        let moment = self.moment();
        let same = self.clock.recorded.filter(|(_, wall)| *wall == moment.wall).map(|(seq, _)| seq);
        work.record_moment(moment, same)?;
        work.record_author(totals.inc, self.fresh.0)?;
        self.folder.commit(work)?;
        (self.clock.seq, self.clock.recorded) = (totals.seq, Some((totals.seq, moment.wall)));
        Ok(())
    }

    /// Notes now and then how far the history reaches, and has go what is older than it is kept.
    pub(super) fn age(&mut self) -> Read<()> {
        let at = self.moment();
        if at.running < self.clock.marked + MARK_EVERY || self.halted.is_some() {
            return Ok(());
        }
        let snapshot = self.folder.store.snapshot()?;
        let old = snapshot.outlived(at, self.clock.limits)?;
        let mut work = Work::new(&snapshot);
        let seq = work.tx.totals()?.seq;
        work.record_mark(Mark { at, seq, number: self.folder.stage.number() });
        let more = match &old {
            Some(old) => work.forget_changes(old.seq, FORGET_MAX)?,
            None => false,
        };
        self.folder.commit(work)?;
        // What cannot be removed now is tried again in an hour.
        let _ = self.folder.age(old.map_or(0, |m| m.number), self.clock.limits.percent);
        if !more {
            self.clock.marked = at.running;
        }
        Ok(())
    }

    /// Has things be again as they were: as changes of this device, which go to the disk and to others like those
    /// that were heard of.
    pub(super) fn again(&mut self, what: &Again, done: Remade) -> Read<()> {
        if let Some((why, _)) = &self.halted {
            done(Err(why.clone()));
            return Ok(());
        }
        if self.uniting {
            done(Err("the folder is still being united with what others have".into()));
            return Ok(());
        }
        let count = match what {
            Again::Back(all) => all.len(),
            Again::Make(all) => all.len(),
        };
        let mut changed = Vec::with_capacity(count);
        // No earlier act has this number: changes of it were given lower ones.
        let act = self.folder.store.snapshot()?.totals()?.seq + 1;
        while changed.len() < count {
            let snapshot = self.folder.store.snapshot()?;
            let mut work = Work::new(&snapshot).part_of(act);
            let some = changed.len()..count.min(changed.len() + AGAIN_MAX);
            let (before, begun, mut deletes) = (work.tx.totals()?, changed.len(), false);
            match what {
                Again::Back(all) => {
                    for back in &all[some] {
                        changed.push(work.take_back(back)?);
                        deletes |= work.tx.node(back.node)?.is_some_and(|row| !row.state.alive());
                    }
                }
                Again::Make(all) => {
                    for Thing { path, content, mode, mtime } in &all[some] {
                        changed.push(work.make(path, content, *mode, *mtime)?);
                    }
                }
            }
            let (first, last) = (before.counter + 1, work.tx.totals()?.counter);
            // Few changes trip no brake, and what is accepted is told to everybody.
            let may_halt = deletes || changed[begun..].iter().filter(|changed| **changed).count() >= MASS;
            if may_halt && first <= last {
                // Who asked for it has decided; what others delete or replace counts as ever.
                self.commit_asked(work, DotRange { inc: before.inc, first, last })?;
            } else {
                self.commit(work)?;
            }
        }
        self.replan = true;
        self.publish()?;
        done(Ok(changed));
        Ok(())
    }
}
