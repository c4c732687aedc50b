//! From what a folder lacks to steps in an order that can be carried out: directories and moves first,
//! parents before children, deletes last and the deepest first. A plan is a bounded window of the
//! queue; what is not in it comes in the next one, and nothing of it is ever stored.

use crate::decide::{Lack, holds_more, lacks_of, overwrites, phase};
use crate::ids::{ContentId, Dot, NodeId, PARKED};
use crate::keeps::Keeps;
use crate::kv::{Read, View};
use crate::names::Wanted;
use crate::path::{Name, RelPath};
use crate::rows::{LocalRow, Position, Rows, Stamp};
use crate::state::{Content, Mtime, Vector};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

mod conclude;
mod lacked;
mod shown;
mod untangle;

pub use lacked::{Fetch, Lacked};
pub use shown::{Unshown, Why};

/// One change of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node it is for.
    pub node: NodeId,
    /// The version that is there afterwards.
    pub dot: Option<Dot>,
    /// What had been seen of the node when the step was planned.
    pub seen: Vector,
    /// Where it happens.
    pub at: Position,
    /// The path of `at` on the disk.
    pub path: RelPath,
    /// What is to be done.
    pub action: Action,
    /// This is all that the node lacks, of which nothing is here: as of this sequence number of the index.
    pub all: Option<u64>,
}

/// What a step does at its path. What is expected there is part of it: anything else found there is a
/// local change that was not seen yet, and is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and not for long")]
pub enum Action {
    /// Creates a directory where nothing is.
    MakeDir {
        /// Its permission bits.
        mode: u16,
    },
    /// Puts a staged file or a link in place; of what stood there (if anything did) the stamp.
    Place {
        /// A file or a link.
        content: Content,
        /// Permission bits of a file.
        mode: u16,
        /// Modification time of a file.
        mtime: Mtime,
        /// What is replaced.
        replaces: Option<Stamp>,
        /// What that held, if it was a file.
        was: Option<ContentId>,
    },
    /// Moves what is at `from` to the step's path, swapping with what is there if `swap` says so.
    Move {
        /// Where it is.
        from: Position,
        /// The path of `from`.
        from_path: RelPath,
        /// What it is.
        row: LocalRow,
        /// What is at the target, if the two swap places.
        swap: Option<LocalRow>,
    },
    /// Sets mode and modification time.
    Meta {
        /// What is there.
        row: LocalRow,
        /// The mode, unless it is a link.
        mode: Option<u16>,
        /// The modification time, of files.
        mtime: Option<Mtime>,
    },
    /// Removes a file, a link or an empty directory.
    Remove {
        /// What is there.
        row: LocalRow,
        /// Directories in it that are known to stay.
        kept: Vec<Name>,
    },
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps, in order. They are independent of each other's outcome.
    pub steps: Vec<Step>,
    /// Contents to bring in, of files that could be placed now.
    pub fetches: Vec<Fetch>,
    /// Nodes whose place is taken by a directory that is kept, with that place.
    pub blocked: Vec<(NodeId, RelPath)>,
    /// What this disk cannot show.
    pub unshown: Vec<Unshown>,
    /// Nothing could be done, and whether things stand in each other's way was not to be looked for.
    pub tangled: bool,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and durable: the stamp of what is at the path now, and at `from` after a swap.
    Done(Stamp, Option<Stamp>),
    /// The directory holds things that are not ours to remove.
    Kept,
    /// The disk was not as expected, or the system refused: nothing changed.
    Undone,
}

/// Finds for a position and its path the other position that the path leads to.
pub type Twins<'a> = &'a dyn Fn(&Position, &RelPath) -> Option<Position>;

static NONE: BTreeSet<NodeId> = BTreeSet::new();

/// What the planner has to know besides the index.
pub struct Window<'a> {
    /// Contents whose bytes are verified and staged.
    pub staged: &'a dyn Fn(&ContentId) -> bool,
    /// Nodes that are being worked on or failed a moment ago.
    pub skip: &'a BTreeSet<NodeId>,
    /// The most steps to plan.
    pub limit: usize,
    /// The most contents to ask for. With none, only `first` is looked at for what can be placed.
    pub fetches: usize,
    /// What is planned before all else that waits for a content: those whose contents were staged since the last plan.
    pub first: &'a BTreeSet<NodeId>,
    /// Whether what stands in each other's way is looked for though contents can be asked for, if nothing else can be
    /// done. That looks through all that is lacking.
    pub untangle: bool,
    /// Nothing is being fetched: it is looked for if no content can be asked for either.
    pub idle: bool,
    /// Whether files and directories may go. Not while the brake holds.
    pub removals: bool,
    /// Whether edits may replace what the history cannot keep. Not while the brake holds them.
    pub replaces: bool,
    /// What the disk keeps.
    pub keeps: Keeps,
    /// Where the disk has what a path leads to, if that is under another name: it takes both for one. Not
    /// asked of a disk that takes no two names for one.
    pub twin: Option<Twins<'a>>,
}

impl<'a> Window<'a> {
    /// Of so many steps, on an ordinary disk, with nothing held back.
    pub fn new(
        staged: &'a dyn Fn(&ContentId) -> bool,
        skip: &'a BTreeSet<NodeId>,
        limit: usize,
    ) -> Window<'a> {
        Window {
            staged,
            skip,
            limit,
            fetches: limit,
            first: &NONE,
            untangle: true,
            idle: true,
            removals: true,
            replaces: true,
            keeps: Keeps::default(),
            twin: None,
        }
    }
}

struct Planner<'a> {
    view: &'a dyn View,
    window: &'a Window<'a>,
    plan: Plan,
    used: BTreeSet<Position>,
    seq: u64,
    /// What is planned is all that its node lacks.
    all: bool,
}

/// Plans the next window.
pub fn plan(view: &dyn View, window: &Window<'_>) -> Read<Plan> {
    let (plan, used, seq) = (Plan::default(), BTreeSet::new(), view.totals()?.seq);
    let mut p = Planner { view, window, plan, used, seq, all: false };
    p.walk(phase::DIRS)?;
    // What changes directories changes the paths of everything below: it goes alone.
    let dirs = core::mem::take(&mut p.plan.steps);
    p.walk(phase::LIGHT)?;
    p.staged()?;
    if window.fetches > 0 {
        p.walk(phase::FILES)?;
    }
    if !dirs.is_empty() {
        p.plan.steps = dirs;
        return Ok(p.plan);
    }
    if p.plan.steps.is_empty() {
        let untangle = window.untangle || (window.idle && p.plan.fetches.is_empty());
        p.plan.tangled = !untangle;
        if untangle {
            p.untangle()?;
        }
    }
    let copying = p.plan.fetches.iter().any(|f| !f.holders.is_empty());
    if p.plan.steps.is_empty() && !copying && window.removals {
        p.walk(phase::REMOVE)?;
    }
    if p.plan.steps.is_empty() && !copying && window.removals {
        p.walk(phase::REMOVE_DIRS)?;
    }
    Ok(p.plan)
}

impl Planner<'_> {
    fn is_full(&self, phase: u8) -> bool {
        let fetches = if phase == phase::FILES { self.window.fetches } else { self.window.limit };
        self.plan.steps.len() >= self.window.limit
            || self.plan.fetches.len() >= fetches.min(self.window.limit)
    }

    /// What waited for a content that is staged by now. The queue is in the order of ids: to meet these in it, all others
    /// that still wait would have to be looked at again.
    fn staged(&mut self) -> Read<()> {
        for &node in self.window.first {
            if self.plan.steps.len() >= self.window.limit {
                return Ok(());
            }
            let is_ready = self.view.need(node)?.is_some_and(|need| need.phase == phase::FILES);
            if is_ready && !self.window.skip.contains(&node) && !self.node(node)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn walk(&mut self, phase: u8) -> Read<()> {
        let mut last = None;
        loop {
            let page = self.view.ready(phase, last, 256)?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(*end);
            for node in page {
                if self.is_full(phase) {
                    return Ok(());
                }
                let met = phase == phase::FILES && self.window.first.contains(&node);
                if !met && !self.window.skip.contains(&node) && !self.node(node)? {
                    return Ok(());
                }
            }
        }
    }

    /// Plans what a node lacks; `false` if nothing may be planned after it.
    fn node(&mut self, node: NodeId) -> Read<bool> {
        let lacks = lacks_of(self.view, node)?;
        for lack in &lacks {
            self.all = matches!(lacks[..], [Lack::Create(_)]);
            match lack {
                Lack::Create(w) => self.create(node, w)?,
                Lack::Replace(l, w) => self.place(node, w, Some(l))?,
                Lack::Meta(l, w) => self.meta(node, l, w)?,
                Lack::Remove(at, l) => self.remove(node, at, l)?,
                Lack::Move(from, l, w) => {
                    let fills = |other: &Lack| matches!(other, Lack::Create(c) if c.at == *from);
                    let filler = lacks.iter().find(|o| fills(o));
                    if self.relocate(node, from, l, w, filler)? && l.content == Content::Dir {
                        return Ok(false);
                    }
                }
            }
        }
        self.all = false;
        Ok(true)
    }

    fn create(&mut self, node: NodeId, w: &Wanted) -> Read<()> {
        if !self.view.is_on_disk(w.at.dir)? {
            return Ok(());
        }
        if let Some(there) = self.view.local(&w.at)? {
            return self.blocked(node, &w.at, &there);
        }
        if let Some(twin) = self.twin(&w.at)? {
            return self.yields(node, w, &twin);
        }
        if w.content == Content::Dir {
            self.push(node, w.dot, &w.at, Action::MakeDir { mode: w.mode })
        } else {
            self.place(node, w, None)
        }
    }

    fn place(&mut self, node: NodeId, w: &Wanted, old: Option<&LocalRow>) -> Read<()> {
        if matches!(w.content, Content::Link(_)) && !self.window.keeps.links {
            return self.unshown(node, w, Why::NoLinks);
        }
        if self.is_held(w, old)? || !self.is_here(node, w)? {
            return Ok(());
        }
        let action = Action::Place {
            content: w.content.clone(),
            mode: w.mode,
            mtime: w.mtime,
            replaces: old.map(|l| l.stamp),
            was: old.and_then(LocalRow::holds),
        };
        self.push(node, w.dot, &w.at, action)
    }

    /// Whether the brake holds what would replace something.
    fn is_held(&self, w: &Wanted, old: Option<&LocalRow>) -> Read<bool> {
        let Some(old) = old.filter(|_| !self.window.replaces) else { return Ok(false) };
        Ok(overwrites(self.view, &Lack::Replace(old.clone(), w.clone()))?.is_some())
    }

    /// Whether the bytes of a version are staged; plans their fetch if not.
    fn is_here(&mut self, node: NodeId, w: &Wanted) -> Read<bool> {
        let Content::File { id, size } = w.content else { return Ok(true) };
        if (self.window.staged)(&id) {
            return Ok(true);
        }
        let mut holders = Vec::new();
        for at in self.view.holders(id)? {
            holders.extend(self.path(&at)?);
        }
        let from = self.view.node(node)?.map_or(0, |r| r.from);
        if let Some(path) = self.path(&w.at)? {
            let looks = (w.mode, w.mtime);
            self.plan.fetches.push(Fetch { content: id, size, node, path, holders, from, looks });
        }
        Ok(false)
    }

    fn meta(&mut self, node: NodeId, l: &LocalRow, w: &Wanted) -> Read<()> {
        let mode = (!matches!(w.content, Content::Link(_))).then_some(w.mode);
        let mtime = matches!(w.content, Content::File { .. }).then_some(w.mtime);
        self.push(node, w.dot, &w.at, Action::Meta { row: l.clone(), mode, mtime })
    }

    fn remove(&mut self, node: NodeId, at: &Position, l: &LocalRow) -> Read<()> {
        let mut kept = Vec::new();
        if l.content == Content::Dir {
            if holds_more(self.view, node)? {
                return Ok(());
            }
            kept.extend(self.view.locals(node)?.into_iter().map(|(name, _)| name));
        }
        self.push(node, None, at, Action::Remove { row: l.clone(), kept })
    }

    /// Names what waits for a directory that stays: nothing planned here takes that away.
    fn blocked(&mut self, node: NodeId, at: &Position, there: &LocalRow) -> Read<()> {
        if there.kept
            && self.leaving(at)?.is_empty()
            && let Some(path) = self.path(at)?
        {
            self.plan.blocked.push((node, path));
        }
        Ok(())
    }

    /// Plans a move; returns whether it did.
    fn relocate(
        &mut self,
        node: NodeId,
        from: &Position,
        l: &LocalRow,
        w: &Wanted,
        filler: Option<&Lack>,
    ) -> Read<bool> {
        if !self.view.is_on_disk(w.at.dir)?
            || (l.content == Content::Dir && self.is_within(w.at.dir, node)?)
        {
            return Ok(false);
        }
        // Another version of the node takes the name over: it must be at hand first, so that the name
        // is never without a file for longer than two renames take.
        if let Some(Lack::Create(c)) = filler
            && !self.is_here(node, c)?
        {
            return Ok(false);
        }
        let Some(x) = self.view.local(&w.at)? else {
            return match self.twin(&w.at)? {
                // Only spelled otherwise: between two names that are one, nothing can be renamed at once.
                Some(twin) if twin == *from => self.step_aside(node, from, l),
                Some(twin) => self.yields(node, w, &twin).map(|()| false),
                None => self.push_move(node, w.dot, from, l, w.at.clone(), None),
            };
        };
        if self.leaving(&w.at)?.is_empty() {
            self.blocked(node, &w.at, &x)?;
            return Ok(false);
        }
        if x.content == Content::Dir && self.is_within(from.dir, x.node)? {
            // It is inside what it changes places with.
            return self.step_aside(node, from, l);
        }
        self.push_move(node, w.dot, from, l, w.at.clone(), Some(x))
    }

    /// Plans a move out of everyone's way, into Dunlin's own directory.
    fn step_aside(&mut self, node: NodeId, from: &Position, l: &LocalRow) -> Read<bool> {
        let Ok(name) = Name::new(format!("{node}-{}", l.stamp.ino).as_bytes()) else { return Ok(false) };
        if from.dir == PARKED {
            return Ok(false);
        }
        self.push_move(node, l.dot, from, l, Position::new(PARKED, name), None)
    }

    /// What takes away the thing that is at a position.
    fn leaving(&self, at: &Position) -> Read<Vec<(NodeId, Lack)>> {
        let Some(x) = self.view.local(at)? else { return Ok(Vec::new()) };
        let leaves = |l: &Lack| matches!(l, Lack::Move(from, ..) | Lack::Remove(from, _) if from == at);
        Ok(lacks_of(self.view, x.node)?.into_iter().filter(leaves).map(|l| (x.node, l)).collect())
    }

    fn push_move(
        &mut self,
        node: NodeId,
        dot: Option<Dot>,
        from: &Position,
        l: &LocalRow,
        to: Position,
        swap: Option<LocalRow>,
    ) -> Read<bool> {
        let moves_dirs = |r: &LocalRow| r.content == Content::Dir;
        let shifts_paths = moves_dirs(l) || swap.as_ref().is_some_and(moves_dirs);
        if self.used.contains(from) || (shifts_paths && !self.plan.steps.is_empty()) {
            return Ok(false);
        }
        let Some(from_path) = self.path(from)? else { return Ok(false) };
        let before = self.plan.steps.len();
        let action = Action::Move { from: from.clone(), from_path, row: l.clone(), swap };
        self.push(node, dot, &to, action)?;
        let planned = self.plan.steps.len() > before;
        if planned {
            self.used.insert(from.clone());
        }
        Ok(planned)
    }

    fn push(&mut self, node: NodeId, dot: Option<Dot>, at: &Position, action: Action) -> Read<()> {
        let Some(path) = self.path(at)? else { return Ok(()) };
        if !self.used.insert(at.clone()) {
            return Ok(());
        }
        let seen = self.view.node(node)?.map(|r| r.state.seen).unwrap_or_default();
        let all = core::mem::take(&mut self.all).then_some(self.seq);
        self.plan.steps.push(Step { node, dot, seen, at: at.clone(), path, action, all });
        Ok(())
    }

    /// Whether `dir` is `node` or below it on this disk.
    fn is_within(&self, dir: NodeId, node: NodeId) -> Read<bool> {
        let mut at = Some(dir);
        while let Some(d) = at {
            if d == node {
                return Ok(true);
            }
            at = self.view.dir_position(d)?.map(|p| p.dir);
        }
        Ok(false)
    }

    fn path(&self, at: &Position) -> Read<Option<RelPath>> {
        path_of(self.view, at)
    }
}

/// The path of a position on this disk; `None` if its directory is not there.
pub fn path_of(view: &dyn View, at: &Position) -> Read<Option<RelPath>> {
    let Some(mut names) = view.disk_path(at.dir)? else { return Ok(None) };
    names.push(at.name.clone());
    Ok(Some(names.into()))
}
