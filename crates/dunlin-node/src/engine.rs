//! The loop of one folder: the only writer of its index, and the only place that knows all stages.
//!
//! It runs on a thread of its own. Hints and messages come in; each round looks at what changed on
//! the disk, commits it, plans, applies, and says how things stand. Nothing that is queued here is
//! ever stored: a restart plans anew.

mod absences;
mod barriers;
mod brake;
mod damage;
mod doubts;
mod durable;
mod exchange;
mod flow;
mod history;
mod host;
mod left_alone;
mod looking;
mod moved_out;
mod nowhere;
mod overwriting;
mod planning;
mod size;
mod thread;
mod unreadable;
mod unshown;
mod whose;

pub use brake::{Decided, Settled, Undecided};
pub(crate) use damage::ASKED;
pub use history::{Again, Remade, Thing};
pub use host::{Fetched, Host, Input, Passed, Pulse, Start};
pub(crate) use thread::{note_damage, run};

use exchange::{Met, Renewals};
use planning::Backoff;
use unreadable::Unreadable;

use crate::disk::is_full;
use crate::site::Site;
use crate::stage::{control, root_trouble};
use crate::watch::{Hint, Watch};
use brake::Braking;
use doubts::Doubts;
use dunlin_core::brake::Held;
use dunlin_core::ids::{ContentId, DeviceId, NodeId, PARKED, ROOT};
use dunlin_core::kv::Read;
use dunlin_core::path::{Name, RelPath};
use dunlin_core::rows::{Position, Rows, Stamp, Totals};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after the last event a file is looked at: an editor's save is several events.
const QUIET: Duration = Duration::from_millis(1);
/// The same while a program has it open for writing.
const QUIET_WRITING: Duration = Duration::from_millis(150);
/// A file that never rests is looked at this often.
const NEVER_RESTS: Duration = Duration::from_secs(1);
/// How often everything is looked through when the watcher cannot watch everything.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(10);
/// How often everything is looked through anyway: the watcher only gives hints.
const RESCAN: Duration = Duration::from_secs(3600);
/// How long after a change it is noted beside the index how far that came.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// How often the root is looked at while it is not right.
const RECHECK_ROOT: Duration = Duration::from_secs(1);
/// How often the root is looked at while all is well: nothing tells when another file system is mounted
/// over it.
const CHECK_ROOT: Duration = Duration::from_secs(5);
/// How long a device that joins waits for the members' tree before it looks at its own disk.
const WAIT_FOR_TREE: Duration = Duration::from_secs(60);

struct Dirty {
    first: Instant,
    due: Instant,
    /// Hash it whatever the metadata say.
    force: bool,
    /// It was looked at, in vain.
    tried: bool,
}

/// Copies of a large file that changes while it is read.
#[derive(Default)]
struct Restless {
    tries: u32,
    kept: VecDeque<ContentId>,
}

/// The engine of one folder. It has no thread and no clock of its own: whoever drives it gives it what
/// comes in, and a turn when one is due.
pub struct Engine {
    folder: Arc<Site>,
    host: Arc<dyn Host>,
    watcher: Box<dyn Watch>,
    marker: String,
    /// The time of the turn or input being worked on.
    now: Instant,
    /// Positions on which something happened.
    dirty: BTreeMap<Position, Dirty>,
    /// Directories to look at, with all below them if so marked.
    dirs: VecDeque<(NodeId, bool)>,
    queued: BTreeSet<(NodeId, bool)>,
    /// Directories that could not be looked at, and when they are tried again.
    late_dirs: BTreeMap<NodeId, Instant>,
    /// Positions found empty, and when; not believed yet.
    absent: BTreeMap<Position, Instant>,
    doubts: Doubts,
    braking: Braking,
    restless: BTreeMap<Position, Restless>,
    /// Positions that were to be hashed whatever the metadata say, and how often that failed.
    vain: BTreeMap<Position, u32>,
    /// Where something was done before what is heard by now: to what, and what had been seen then.
    unseen: BTreeMap<Position, (Stamp, dunlin_core::state::Vector)>,
    fetching: BTreeMap<ContentId, NodeId>,
    flow: flow::Flow,
    backoff: BTreeMap<NodeId, Backoff>,
    /// Problems of steps and fetches, by node.
    troubles: BTreeMap<NodeId, (RelPath, String)>,
    unreadable: Unreadable,
    /// Directories that should go and are kept for what is in them, as far as they were met.
    kept: BTreeSet<NodeId>,
    /// Those of them that may be empty by now.
    let_go: BTreeSet<NodeId>,
    /// Places that something has which is not synced, and whose they should be.
    in_the_way: BTreeMap<Position, NodeId>,
    /// What this disk cannot show, and why.
    unshown: BTreeMap<RelPath, String>,
    /// Nodes with a damaged file here, as far as they were met.
    damaged: BTreeSet<NodeId>,
    /// Places over which another file system is mounted. Nothing tells when it goes.
    hidden: BTreeSet<Position>,
    barriers: Vec<(Option<Name>, Passed)>,
    replan: bool,
    scanning: bool,
    /// Changes may go unnoticed until everything is looked through again.
    unwatched: bool,
    /// The same of the look through everything that is under way.
    exhausted: bool,
    next_rescan: Option<Instant>,
    halted: Option<(String, Instant)>,
    next_root_check: Instant,
    /// Until when the members' tree is waited for.
    waits_for_tree: Option<Instant>,
    uniting: bool,
    /// What a new incarnation is made of, should this index turn out to be rolled back.
    fresh: (DeviceId, [u8; 16]),
    renewals: Renewals,
    met: Met,
    /// The sequence number that is noted beside the index, and when the next one is.
    noted: u64,
    note_at: Option<Instant>,
    clock: history::Clock,
}

impl Engine {
    /// An engine that has yet to look at its disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn new(
        folder: Arc<Site>,
        host: Arc<dyn Host>,
        watcher: Box<dyn Watch>,
        start: Start,
    ) -> Read<Engine> {
        let Start { marker, others, joining, fresh, history, now, limits, released } = start;
        let snapshot = folder.store.snapshot()?;
        let (totals, braking) = (snapshot.totals()?, Braking::new(&snapshot, limits, now)?);
        let doubts = Doubts::new(&snapshot)?;
        let (clock, number) = history::Clock::new(&snapshot, now, history)?;
        drop(snapshot);
        folder.stage.number_from(number);
        let wait = match (totals.uniting && others, joining) {
            (true, true) => Some(now + WAIT_FOR_TREE),
            (true, false) => Some(now + Duration::from_secs(3)),
            _ => None,
        };
        let mut engine = Engine {
            folder,
            host,
            watcher,
            marker,
            now,
            dirty: BTreeMap::new(),
            dirs: VecDeque::new(),
            queued: BTreeSet::new(),
            late_dirs: BTreeMap::new(),
            absent: BTreeMap::new(),
            doubts,
            braking,
            restless: BTreeMap::new(),
            vain: BTreeMap::new(),
            unseen: BTreeMap::new(),
            fetching: BTreeMap::new(),
            flow: flow::Flow::default(),
            backoff: BTreeMap::new(),
            troubles: BTreeMap::new(),
            unreadable: Unreadable::default(),
            kept: BTreeSet::new(),
            let_go: BTreeSet::new(),
            in_the_way: BTreeMap::new(),
            unshown: BTreeMap::new(),
            damaged: BTreeSet::new(),
            hidden: BTreeSet::new(),
            barriers: Vec::new(),
            replan: true,
            scanning: true,
            unwatched: false,
            exhausted: false,
            next_rescan: None,
            halted: None,
            next_root_check: now + CHECK_ROOT,
            waits_for_tree: wait,
            uniting: totals.uniting,
            fresh,
            renewals: Renewals::default(),
            met: Met::default(),
            noted: totals.seq,
            note_at: None,
            clock,
        };
        engine.push_dir(ROOT, true);
        engine.spare(&totals);
        engine.released(released)?;
        Ok(engine)
    }

    /// Does what is due, and says how things stand.
    ///
    /// # Errors
    /// When the index cannot be read or written: it cannot be used any more.
    pub fn turn(&mut self, now: Instant) -> Read<()> {
        self.now = now;
        self.round()?;
        self.publish()
    }

    /// When the next turn is due; a past time means at once.
    pub fn next_due(&self) -> Instant {
        let routine = self.next_root_check;
        let work = self.next_work();
        if self.halted.is_some() {
            work.unwrap_or(routine)
        } else {
            work.map_or(routine, |at| at.min(routine))
        }
    }

    /// The same, without the look at the root that goes on for ever: when there is something to do.
    pub fn next_work(&self) -> Option<Instant> {
        let now = self.now;
        if let Some((_, at)) = &self.halted {
            return Some(*at);
        }
        let looking = self.waits_for_tree.is_none() && !self.dirs.is_empty();
        if looking || (self.replan && self.may_plan()) {
            return Some(now);
        }
        let dirty = self.dirty.values().map(|d| d.due);
        let late = self.late_dirs.values().copied().chain(self.braking.due());
        let backoff = self.backoff.values().filter_map(Backoff::due);
        let others = self
            .waits_for_tree
            .into_iter()
            .chain(self.next_rescan)
            .chain(self.note_at)
            .chain(self.flow.due)
            .chain(self.renewals.due);
        dirty.chain(late).chain(backoff).chain(others).min()
    }

    fn round(&mut self) -> Read<()> {
        let now = self.now;
        if let Some((_, at)) = &self.halted {
            if now < *at || !self.check_root() {
                return self.halts();
            }
            self.push_dir(ROOT, true);
        }
        if now >= self.next_root_check {
            self.next_root_check = now + CHECK_ROOT;
            if !self.check_root() {
                return self.halts();
            }
            for at in std::mem::take(&mut self.hidden) {
                self.mark(at, Duration::ZERO, false);
            }
        }
        if self.waits_for_tree.is_some_and(|until| now >= until) {
            self.waits_for_tree = None;
        }
        if self.next_rescan.is_some_and(|at| now >= at) {
            self.next_rescan = None;
            // All of them are found again, where they are by now.
            self.unreadable.looks_at_all();
            self.push_dir(ROOT, true);
        }
        self.note_progress()?;
        self.age()?;
        self.renew_if_due()?;
        self.try_late_dirs();
        if self.waits_for_tree.is_none() {
            self.look()?;
        }
        self.tend_brake()?;
        let tries_again = self.backoff.values().filter_map(Backoff::due).any(|due| now >= due);
        let tangled = self.flow.due.is_some_and(|due| now >= due);
        self.replan |= self.removals_are_due() || tries_again || tangled;
        if self.replan && self.may_plan() {
            self.plan()?;
        }
        self.answer_barriers();
        Ok(())
    }

    /// Whoever asked is told so at once: it may be long until the right root is back.
    fn halts(&mut self) -> Read<()> {
        self.tend_brake()?;
        self.answer_barriers();
        Ok(())
    }

    /// While two trees are being united, nothing is applied before this disk was looked through.
    fn may_plan(&self) -> bool {
        self.halted.is_none() && !self.uniting
    }

    /// Looks at the root; `false`, and halted, if it is not right.
    fn check_root(&mut self) -> bool {
        match root_trouble(self.folder.disk.as_ref(), &self.marker) {
            None => {
                self.halted = None;
                // Where this fails, the step that needs it says why.
                let _ = self.folder.stage.make_dirs();
                true
            }
            Some(why) => {
                self.halted = Some((why, self.now + RECHECK_ROOT));
                false
            }
        }
    }

    /// Takes in what came from outside.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub fn handle(&mut self, input: Input, now: Instant) -> Read<()> {
        self.now = now;
        match input {
            Input::Hints(hints) => hints.into_iter().for_each(|h| self.hint(h)),
            Input::Open { from, heard, own } => self.open(&from, &heard, &own)?,
            Input::Noted { from, before } => self.noted(from, &before)?,
            Input::Rows { from, told, upto, last, rows } => self.rows((&from, told), upto, last, &rows)?,
            Input::Fetched(all) => all.into_iter().try_for_each(|(c, f)| self.fetched(c, f))?,
            Input::Peers => {
                self.ask_anew();
                self.backoff.retain(|_, b| !b.nowhere);
                self.replan = true;
            }
            Input::Verified { at, stamp, found } => self.verified(&at, &stamp, found)?,
            Input::Barrier(done) => self.barrier(done),
            Input::Again(what, done) => self.again(&what, done)?,
            Input::Released(all) => self.released(all)?,
            Input::Resume { accept, decided } => self.resume(accept, decided),
            Input::RootRemoved => self.root_was_removed()?,
            Input::Stop => {}
        }
        Ok(())
    }

    fn hint(&mut self, hint: Hint) {
        match hint {
            Hint::Entry { dir, name, .. } if dir == PARKED.0 => {
                for (waits, _) in &mut self.barriers {
                    if waits.as_ref() == Some(&name) {
                        *waits = None;
                    }
                }
            }
            // Of another form of a name than the disk lists nothing is told.
            Hint::Entry { dir, name, .. }
                if !self.folder.disk.keeps().forms && !name.as_bytes().is_ascii() =>
            {
                self.push_dir(NodeId(dir), false);
            }
            Hint::Entry { dir, name, writing } => {
                let wait = if writing { QUIET_WRITING } else { QUIET };
                self.mark(Position::new(NodeId(dir), name), wait, false);
            }
            // One that is gone may have another in its place by now, which nobody watches yet.
            Hint::Dir { dir } | Hint::Gone { dir } if dir != PARKED.0 => self.push_dir(NodeId(dir), false),
            Hint::Dir { .. } | Hint::Gone { .. } => {}
            Hint::Overflow => {
                self.push_dir(ROOT, true);
                // Barriers may have been lost with the rest; the scan takes their place.
                self.barriers.iter_mut().for_each(|(waits, _)| *waits = None);
            }
        }
    }

    /// Has a position looked at, a while after the last event there but before too long.
    fn mark(&mut self, at: Position, wait: Duration, force: bool) {
        let now = self.now;
        let d = self.dirty.entry(at).or_insert(Dirty { first: now, due: now + wait, force, tried: false });
        d.due = (now + wait).min(d.first + NEVER_RESTS);
        (d.force, d.tried) = (d.force | force, false);
    }

    fn push_dir(&mut self, dir: NodeId, deep: bool) {
        if dir == ROOT && deep {
            self.scanning = true;
            // Every directory is offered to the watcher again; there may be more watches by now.
            self.exhausted = self.watcher.add(&control(&[]), PARKED.0).is_err();
            self.unwatched |= self.exhausted;
        }
        if self.queued.insert((dir, deep)) {
            self.dirs.push_back((dir, deep));
        }
    }

    fn fetched(&mut self, content: ContentId, how: Fetched) -> Read<()> {
        if how == Fetched::Begun {
            let full = |node: &&NodeId| self.troubles.get(*node).is_some_and(|(_, w)| is_full(w));
            if let Some(node) = self.fetching.get(&content).filter(full) {
                self.troubles.remove(node);
            }
            return Ok(());
        }
        let Some(node) = self.fetching.remove(&content) else { return Ok(()) };
        match how {
            Fetched::Staged => {
                self.flow.staged.insert(node);
                self.backoff.remove(&node);
            }
            Fetched::Nowhere => {
                self.back_off(node, true);
                self.nowhere(node, content)?;
            }
            Fetched::Failed(why) => {
                self.trouble(node, self.path_of_node(node), why);
                self.back_off(node, false);
            }
            Fetched::Begun => {}
        }
        self.replan = true;
        Ok(())
    }

    fn back_off(&mut self, node: NodeId, nowhere: bool) {
        let tries = self.backoff.get(&node).map_or(0, |b| b.tries) + 1;
        let wait = Duration::from_millis(250 << tries.min(6));
        self.backoff.insert(node, Backoff { until: self.now + wait, tries, nowhere, offered: false });
    }

    fn publish(&mut self) -> Read<()> {
        let totals: Totals = self.folder.store.snapshot()?.totals()?;
        if totals.seq > self.noted && self.note_at.is_none() {
            self.note_at = Some(self.now + NOTE_AFTER);
        }
        let mut problems = self.unreadable.all().clone();
        problems.extend(self.troubles.values().cloned());
        problems.extend(self.unshown.clone());
        self.name_kept(&mut problems)?;
        self.name_damaged(&mut problems)?;
        if self.unwatched {
            let why = "not everything can be watched (fs.inotify.max_user_watches); changes are found by looking \
                       through the folder every 10 s";
            problems.insert(RelPath::root(), why.into());
        }
        if !self.folder.disk.keeps().renames {
            problems.insert(RelPath::root(), unshown::NO_RENAMES.into());
        }
        if let Some((why, _)) = &self.braking.untold {
            problems.insert(RelPath::root(), format!("the others cannot be told what was accepted: {why}"));
        }
        if let Some((why, _)) = &self.halted {
            problems.insert(RelPath::root(), why.clone());
        }
        let real = self.unreadable.all().len() + self.troubles.len() + self.unshown.len();
        let pulse = Pulse {
            totals,
            scanning: self.scanning,
            dirty: !(self.dirty.is_empty()
                && self.dirs.is_empty()
                && self.late_dirs.is_empty()
                && self.absent.is_empty()),
            problems: real as u64,
            halted: self.halted.as_ref().map(|(why, _)| why.clone()),
            failed: None,
            unwatched: self.unwatched,
            brake: self.braking.held.clone().filter(Held::holds),
        };
        self.host.stands(pulse, problems);
        Ok(())
    }
}
