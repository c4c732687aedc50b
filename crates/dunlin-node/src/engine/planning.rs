//! The engine's way from the index to the disk.

use super::Engine;
use super::left_alone::{IN_THE_WAY, KEPT_IN_THE_WAY};
use super::unshown::twin;
use crate::apply::{Applied, apply};
use crate::control::Change;
use crate::disk::{DISK_FULL, NO_INODES};
use crate::scan::racy_ms;
use dunlin_core::brake::{Brake, Gone, counts};
use dunlin_core::ids::{ContentId, DotRange, NodeId, ROOT};
use dunlin_core::kv::{Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Fetch, Outcome, Plan, Step, Window, plan};
use dunlin_core::rows::{Position, Rows, Stamp};
use dunlin_core::state::{Content, Mtime};
use dunlin_core::tree::Work;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The most steps of one plan.
pub(super) const STEPS_MAX: usize = 1024;
/// The most contents that are being fetched at once.
const FETCHES_MAX: usize = 4096;
/// More is asked for once so many can be.
const FETCHES_FEW: usize = 1024;
/// At most so many bytes are placed (and made durable) in one go.
const BATCH_BYTES: u64 = 64 << 20;

/// Steps are recorded together until they touch so many nodes. A step that makes a directory touches all that waits for it,
/// and a batch takes about 1 KB of memory a node.
const TOUCHED_MAX: usize = 4096;

/// When a node that failed is planned again.
pub(super) struct Backoff {
    pub(super) until: Instant,
    pub(super) tries: u32,
    /// For want of somebody who holds the content, not for an error here.
    pub(super) nowhere: bool,
    /// A plan was made since.
    pub(super) offered: bool,
}

impl Backoff {
    /// When a plan is to be made for it.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.offered).then_some(self.until)
    }
}

impl Engine {
    /// Plans one window, applies its steps and asks for what is lacking.
    pub(super) fn plan(&mut self) -> Read<()> {
        let now = self.now;
        let snapshot = self.folder.store.snapshot()?;
        let totals = snapshot.totals()?;
        if totals.need_files == 0 {
            self.replan = false;
            self.troubles.clear();
            self.backoff.clear();
            self.in_the_way.clear();
            self.flow.rests();
            self.cannot_show(Vec::new());
            return self.clear_stage();
        }
        let mut skip: BTreeSet<NodeId> = self.fetching.values().copied().collect();
        skip.extend(self.backoff.iter().filter(|(_, b)| b.until > now).map(|(n, _)| *n));
        self.skip_absent(&snapshot, &mut skip)?;
        let folder = self.folder.clone();
        let staged = |id: &ContentId| is_empty(id) || folder.stage.has(id);
        let replaces = self.may_replace(&totals)?;
        let removals = self.may_remove(&totals)?;
        self.spare(&totals);
        let twin = |at: &Position, path: &RelPath| twin(folder.disk.as_ref(), &snapshot, at, path);
        let room = FETCHES_MAX.saturating_sub(self.fetching.len());
        let window = Window {
            removals,
            replaces,
            untangle: self.flow.may_untangle(now),
            idle: self.fetching.is_empty(),
            // To find what else can be asked for, the queue is walked past all that was: not for a few.
            fetches: if room < FETCHES_FEW { 0 } else { room },
            first: &self.flow.staged,
            keeps: folder.disk.keeps(),
            twin: if folder.disk.is_blind() { Some(&twin) } else { None },
            ..Window::new(&staged, &skip, STEPS_MAX)
        };
        let Plan { mut steps, fetches, blocked, unshown, tangled } = plan(&snapshot, &window)?;
        drop(snapshot);
        self.flow.planned(&steps, &skip, now, tangled, totals.need_files);
        let stuck = steps.is_empty() && fetches.is_empty() && !unshown.is_empty();
        self.cannot_show(unshown);
        // What has to step aside for others is planned whether it was just tried or not.
        let waits = |step: &Step| self.backoff.get(&step.node).is_some_and(|b| b.until > now);
        steps.retain(|step| !self.is_in_doubt(step) && !waits(step));
        // What still cannot be planned waits for something else to change, and not for the time.
        self.backoff.values_mut().filter(|b| b.until <= now).for_each(|b| b.offered = true);
        let stuck = stuck && !self.waits_for_more();
        if stuck {
            // Nothing else is lacking: what stood in the way of it does no more.
            self.troubles.clear();
            self.backoff.clear();
        }
        for (node, path) in blocked {
            self.trouble(node, path, KEPT_IN_THE_WAY.into());
        }
        if stuck {
            self.replan = false;
            return self.clear_stage();
        }
        let asked = self.ask(fetches);
        let worked = self.apply(bounded(steps))?;
        self.replan = worked || asked;
        Ok(())
    }

    /// Whether something is to be tried again when its time comes.
    pub fn will_try_again(&self) -> bool {
        self.backoff.values().any(|b| b.due().is_some())
    }

    /// What was found gone, and is not believed yet, counts as there in the index: what is planned with it would be wrong,
    /// and so would be what is planned with where it was moved to.
    fn skip_absent(&self, snapshot: &crate::store::Snapshot, skip: &mut BTreeSet<NodeId>) -> Read<()> {
        if !self.braking.holds_deletes() {
            for at in self.absent.keys() {
                let Some(row) = snapshot.local(at)? else { continue };
                skip.insert(row.node);
                for other in snapshot.places_of_inode(row.stamp.ino)? {
                    skip.extend(snapshot.local(&other)?.map(|row| row.node));
                }
            }
        }
        Ok(())
    }

    /// Whether a step is about something whose metadata may hide a user's write: it would be taken for what the
    /// index says it is, and put aside. It is looked at first.
    fn is_in_doubt(&self, step: &Step) -> bool {
        let in_doubt = |at| {
            let is_gone = self.absent.contains_key(at) && self.is_doubted(at);
            is_gone || self.dirty.get(at).is_some_and(|d| d.force)
        };
        self.doubts.is_about(step)
            || in_doubt(&step.at)
            || matches!(&step.action, Action::Move { from, .. } if in_doubt(from))
    }

    /// All is in place: what is staged still was wanted for something that is gone, or is a copy for others. What
    /// users wrote just before a step, and was taken out with that, comes back as a version.
    fn clear_stage(&mut self) -> Read<()> {
        if !self.fetching.is_empty() {
            return Ok(());
        }
        let Ok(stranded) = self.folder.stage.stranded() else {
            self.back_off(ROOT, false);
            return Ok(());
        };
        if !stranded.is_empty() {
            let snapshot = self.folder.store.snapshot()?;
            let mut work = Work::new(&snapshot);
            for s in stranded {
                let content = Content::File { id: s.content, size: s.stat.size };
                let mode = if self.folder.disk.keeps().modes { s.stat.mode & 0o777 } else { 0o644 };
                work.bring_back(s.node, content, mode, s.stat.stamp().mtime)?;
            }
            self.commit(work)?;
            self.replan = true;
        }
        let served = |c: &ContentId| self.restless.values().any(|r| r.kept.contains(c));
        // What cannot be removed now is tried again when all is in place the next time.
        let _ = self.folder.stage.clear(&served);
        Ok(())
    }

    fn ask(&mut self, fetches: Vec<Fetch>) -> bool {
        let mut new = Vec::new();
        for fetch in fetches {
            if let std::collections::btree_map::Entry::Vacant(e) = self.fetching.entry(fetch.content) {
                e.insert(fetch.node);
                new.push(fetch);
            }
        }
        let any = !new.is_empty();
        if any {
            self.host.want(new);
        }
        any
    }

    /// Applies steps and records how they ended; returns whether any was done.
    fn apply(&mut self, steps: Vec<Step>) -> Read<bool> {
        if steps.is_empty() || !self.check_root() {
            return Ok(false);
        }
        let racy_ms = racy_ms(self.folder.disk.as_ref());
        self.note_number();
        let disk = self.folder.disk.as_ref();
        let applied = apply(disk, &self.folder.stage, &steps);
        let (mut done, mut removed, mut changes) = (false, Gone::default(), Vec::new());
        let mut rest = steps.iter().zip(applied).peekable();
        while rest.peek().is_some() {
            let snapshot = self.folder.store.snapshot()?;
            let mut work = Work::new(&snapshot);
            for (step, applied) in rest.by_ref() {
                if let Some(outcome) = self.ended(step, applied) {
                    work.conclude(step, &outcome)?;
                    if matches!(outcome, Outcome::Done(..)) {
                        let deleted = deleted_by(&snapshot, &self.braking.brake, step)?;
                        removed.extend((!deleted.is_empty()).then_some(step.node));
                        changes.extend(deleted);
                        self.note_replaced(&snapshot, step)?;
                        self.tell(step);
                    }
                    if let Some(stamp) = may_hide_a_write(step, &outcome, racy_ms) {
                        self.doubt(&step.at, stamp);
                    }
                    done = true;
                }
                // All that waits for a directory hangs on its being there.
                if work.touched() >= TOUCHED_MAX {
                    break;
                }
            }
            self.commit(work)?;
        }
        self.removed(&removed, changes);
        let snapshot = self.folder.store.snapshot()?;
        for step in &steps {
            self.watch_new(&snapshot, step)?;
        }
        Ok(done)
    }

    /// What follows for the next rounds from how a step ended; its outcome, if it did.
    fn ended(&mut self, step: &Step, applied: Applied) -> Option<Outcome> {
        match applied {
            Applied::Ended(outcome) => {
                self.flow.staged.remove(&step.node);
                self.backoff.remove(&step.node);
                self.troubles.remove(&step.node);
                if outcome == Outcome::Kept {
                    self.kept.insert(step.node);
                }
                return Some(outcome);
            }
            Applied::InTheWay => {
                self.trouble(step.node, step.path.clone(), IN_THE_WAY.into());
                self.back_off(step.node, false);
                self.in_the_way.insert(step.at.clone(), step.node);
            }
            Applied::Changed => {
                self.look_again(step);
                self.back_off(step.node, false);
            }
            Applied::Failed(why) => {
                self.trouble(step.node, step.path.clone(), why);
                self.back_off(step.node, false);
            }
        }
        None
    }

    /// Something stands in the way of one node. If the disk is full, what is only kept for later yields.
    pub(super) fn trouble(&mut self, node: NodeId, path: RelPath, why: String) {
        // What did not fit by its claim has had what could yield already.
        if why == DISK_FULL || why == NO_INODES {
            // What cannot be removed now is tried again with the next failure.
            let _ = self.folder.make_room();
        }
        if self.troubles.insert(node, (path.clone(), why.clone())).is_none() {
            self.host.problem(&path, &why);
        }
    }

    /// The disk was not as expected: everything the step is about is looked at.
    fn look_again(&mut self, step: &Step) {
        self.mark(step.at.clone(), Duration::ZERO, true);
        match &step.action {
            Action::Move { from, .. } => self.mark(from.clone(), Duration::ZERO, true),
            Action::Remove { row, .. } if row.content == Content::Dir => self.push_dir(row.node, true),
            _ => {}
        }
    }

    /// A directory made here is watched at once, and listed: somebody may have been quick.
    fn watch_new(&mut self, snapshot: &crate::store::Snapshot, step: &Step) -> Read<()> {
        if matches!(step.action, Action::MakeDir { .. })
            && snapshot.local(&step.at)?.is_some_and(|l| l.node == step.node)
        {
            self.push_dir(step.node, false);
        }
        Ok(())
    }

    fn tell(&self, step: &Step) {
        let kind = match &step.action {
            Action::MakeDir { .. } | Action::Place { replaces: None, .. } => Change::Created,
            Action::Place { .. } => Change::Changed,
            Action::Move { .. } => Change::Moved,
            Action::Meta { .. } => Change::Metadata,
            Action::Remove { .. } => Change::Deleted,
        };
        if kind != Change::Deleted && dunlin_core::names::is_conflict_name(&step.at.name) {
            self.host.conflict(&step.path);
        }
        self.host.applied(&step.path, kind);
    }
}

/// The stamp that is recorded, if it may be that of a user's write too: one just before the time was set is
/// hidden by it, and one just after a file was placed if it got the time that the file has.
fn may_hide_a_write<'a>(step: &Step, outcome: &'a Outcome, racy_ms: i64) -> Option<&'a Stamp> {
    let ms = |t: Mtime| t.secs.saturating_mul(1000).saturating_add(i64::from(t.nanos / 1_000_000));
    let Outcome::Done(stamp, _) = outcome else { return None };
    let hides = match &step.action {
        Action::Meta { row, .. } => row.content != Content::Dir,
        Action::Place { content: Content::File { .. }, .. } => {
            ms(stamp.ctime).saturating_sub(ms(stamp.mtime)).saturating_abs() < racy_ms
        }
        _ => false,
    };
    hides.then_some(stamp)
}

/// The deletes that a step carried out, if they count at the brake.
fn deleted_by(view: &dyn View, brake: &Brake, step: &Step) -> Read<Vec<DotRange>> {
    match &step.action {
        Action::Remove { row, .. } if row.content != Content::Dir && !brake.is_young(step.node) => {
            counts(view, step.node)
        }
        _ => Ok(Vec::new()),
    }
}

/// The content of no bytes at all is always here.
fn is_empty(id: &ContentId) -> bool {
    id.0 == *blake3::hash(b"").as_bytes()
}

/// So many steps that their contents stay within the bound; at least one.
fn bounded(steps: Vec<Step>) -> Vec<Step> {
    let mut bytes = 0;
    let size = |s: &Step| match &s.action {
        Action::Place { content: Content::File { size, .. }, .. } => *size,
        _ => 0,
    };
    let mut out = Vec::new();
    for step in steps {
        bytes = u64::saturating_add(bytes, size(&step));
        if bytes > BATCH_BYTES && !out.is_empty() {
            break;
        }
        out.push(step);
    }
    out
}
