//! What must hold in the end, when nothing fails any more (docs/reliability.md lists it).

use crate::disk::Thing;
use crate::flock::Flock;
use crate::ledger::Entry;
use crate::links::{MS, Time};
use crate::users::content_of;
use crate::world::World;
use dunlin_core::ids::ContentId;
use dunlin_core::path::RelPath;
use dunlin_core::rows::Rows;
use dunlin_node::disk::FileTime;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A flock that can be at rest and is not after this time never will be.
const REST_MAX: Time = 600_000 * MS;
/// After this, what is said to be held by nobody is.
const HOPE: Time = 120_000 * MS;
/// How long idleness is watched.
const IDLE: Time = 30_000 * MS;

/// What is compared of a thing: all that is to be identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Dir(u16),
    File(u16, FileTime, ContentId),
    Link(ContentId),
    Other,
}

pub(crate) type Tree = BTreeMap<RelPath, Shape>;

fn shape(thing: &Thing) -> Shape {
    match thing {
        Thing::Dir { mode } => Shape::Dir(*mode),
        Thing::File { mode, mtime, .. } => {
            Shape::File(*mode, *mtime, content_of(thing).unwrap_or(ContentId([0; 32])))
        }
        Thing::Link(_) => Shape::Link(content_of(thing).unwrap_or(ContentId([0; 32]))),
        Thing::Other => Shape::Other,
    }
}

pub(crate) fn difference(a: &Tree, b: &Tree) -> Option<String> {
    let paths: BTreeSet<&RelPath> = a.keys().chain(b.keys()).collect();
    let differ: Vec<String> = paths
        .into_iter()
        .filter(|p| a.get(*p) != b.get(*p))
        .map(|p| format!("{p}: {:?} | {:?}", a.get(p), b.get(p)))
        .collect();
    if differ.is_empty() { None } else { Some(differ.join("; ")) }
}

impl Flock {
    pub(crate) fn tree(&self, device: usize) -> Tree {
        let disk = self.shared.world().machines[device].disk.clone();
        disk.visible().iter().map(|(p, t)| (p.clone(), shape(t))).collect()
    }

    /// The devices that stayed.
    pub(crate) fn staying(&self) -> Vec<usize> {
        self.devices.iter().filter(|d| !d.left).map(|d| d.number).collect()
    }

    /// What is not at rest, for a person; empty if all is.
    pub(crate) fn restless(&self) -> String {
        self.unrest(usize::MAX).join("; ")
    }

    /// So many things that are not at rest, or all.
    fn unrest(&self, enough: usize) -> Vec<String> {
        let mut out = Vec::new();
        let staying = self.staying();
        for &i in &staying {
            if out.len() >= enough {
                return out;
            }
            let d = &self.devices[i];
            let Some(life) = &d.life else {
                out.push(format!("{i} does not run"));
                continue;
            };
            let (busy, told_need) = {
                let told = life.host.told();
                (told.pulse.busy(), told.pulse.need())
            };
            let lacks = told_need > 0 && !self.lacks_only_unshown(i);
            if busy || lacks {
                let told = life.host.told();
                out.push(format!("{i} {:?} {:?}", told.pulse, told.problems));
            }
            let pending = self.shared.world().machines[i].disk.events_pending();
            // Every root is looked at now and then, for ever: among many devices one always is about to.
            let soon = self.instant() + Duration::from_millis(1_500);
            let works = life.engine.next_work().is_some_and(|at| at < soon);
            if d.hints_at.is_some() || pending || d.fed || works {
                out.push(format!("{i} has something to do"));
            }
            let totals = life.site.store.snapshot().and_then(|s| s.totals()).unwrap_or_default();
            for &j in staying.iter().filter(|j| **j != i) {
                let mut known = self.links.known(i, j);
                if let Some(standing) = known.standing.as_mut().filter(|_| self.lacks_only_unshown(j)) {
                    standing.need = 0;
                }
                if !known.in_sync(totals.digest, totals.seq) {
                    out.push(format!("{i} does not know {j} to be in sync"));
                }
            }
        }
        out
    }

    /// Whether a version is wanted that a user deleted where nobody had another copy, while another user moved the
    /// file: nobody holds it, every device says so, and that is how it stays (docs/conflicts.md). Or all others are gone,
    /// and what one of them had with them.
    fn is_hopeless(&self) -> bool {
        let staying = self.staying();
        let is_alone = |d: &crate::device::Device| {
            staying == [d.number] && d.life.as_ref().is_some_and(|l| l.host.told().pulse.need() > 0)
        };
        let says = |d: &crate::device::Device| {
            let lives = d.life.as_ref();
            lives.is_some_and(|l| {
                l.host.told().problems.values().any(|why| why.starts_with("no connected device"))
            })
        };
        self.now > self.calm_since + HOPE && self.devices.iter().any(|d| says(d) || is_alone(d))
    }

    pub(crate) fn rest(&mut self) -> bool {
        let limit = self.now + REST_MAX;
        while self.busy_queue() || !self.unrest(1).is_empty() {
            if self.is_hopeless() {
                self.hopeless = true;
                return true;
            }
            if self.now > limit {
                self.never_rests();
                return false;
            }
            self.look_at_halted();
            if !self.step(Time::MAX) {
                return false;
            }
        }
        // What is deleted from here on is meant.
        self.accepts = true;
        true
    }

    /// After so long nothing that differs is only on its way.
    fn never_rests(&self) {
        let staying = self.staying();
        let tree = self.tree(staying[0]);
        let differs = staying[1..].iter().find_map(|d| self.differs(&tree, *d));
        match differs {
            Some(differs) => self.breaks("trees are equal", format!("{differs}; {}", self.restless())),
            None => self.breaks("comes to rest", self.restless()),
        }
    }

    /// Brings a calm flock to rest and looks at what became of everything.
    pub(crate) fn judge(&mut self) {
        if !self.rest() {
            return;
        }
        let staying = self.staying();
        for &device in &staying {
            self.shared.world().check_visible(device);
        }
        if self.hopeless {
            self.shared.world().check_ledger(&staying);
            return self.all_else_is_done();
        }
        let tree = self.tree(staying[0]);
        for &other in &staying[1..] {
            if let Some(differs) = self.differs(&tree, other) {
                self.breaks("trees are equal", format!("{} | {other}: {differs}", staying[0]));
            }
        }
        self.shared.world().check_ledger(&staying);
        self.is_bounded();
        if self.is_broken() || !self.stays_idle() || !self.equals_a_fresh_look(&tree) {
            return;
        }
        if self.rebuilds(&tree) && !self.has_unshown() {
            self.changes_at_rest(&tree);
            self.takes_back_at_rest();
        }
    }

    fn traffic(&self) -> Vec<(u64, u64)> {
        let world = self.shared.world();
        let each = world.machines.iter().map(|m| (m.disk.counts().changes(), m.index.commits()));
        each.chain([(self.messages, 0)]).collect()
    }

    fn stays_idle(&mut self) -> bool {
        // The last changes are noted beside the index a moment after they were made, or later where the disk was
        // full.
        let noted = self.now + 40_000 * MS;
        while self.step(noted) {}
        let before = self.traffic();
        let until = self.now + IDLE;
        while self.step(until) {}
        let after = self.traffic();
        if after != before {
            self.breaks(
                "idle is silent",
                format!("(changes, commits) of each, messages: {before:?}, {after:?}"),
            );
        }
        !self.is_broken()
    }

    fn equals_a_fresh_look(&mut self, tree: &Tree) -> bool {
        let seqs = |f: &Flock| -> Vec<u64> {
            let rows = f.shared.world().machines.iter().map(|m| m.index.rows()).collect::<Vec<_>>();
            rows.iter().map(|r| r.totals().map_or(0, |t| t.seq)).collect()
        };
        let before = seqs(self);
        for device in self.staying() {
            self.look_through(device);
        }
        if !self.rest() {
            return false;
        }
        if seqs(self) != before {
            self.breaks("the index equals a fresh scan", format!("{before:?}, {:?}", seqs(self)));
        }
        for device in self.staying() {
            let rows = self.shared.world().machines[device].index.rows();
            if let Err(fault) = dunlin_core::check::check(rows.as_ref()) {
                self.breaks("the index can be read", format!("{device}: {}", fault.why));
            }
        }
        self.same_tree(tree, "the index equals a fresh scan")
    }

    pub(crate) fn same_tree(&self, tree: &Tree, invariant: &'static str) -> bool {
        for device in self.staying() {
            if let Some(differs) = self.differs(tree, device) {
                self.breaks(invariant, format!("{device}: {differs}"));
                return false;
            }
        }
        !self.is_broken()
    }

    /// One device loses its index when all is at rest: nothing may come of it.
    fn rebuilds(&mut self, tree: &Tree) -> bool {
        let staying = self.staying();
        // Where a file stays under its old name, an index that does not know of it takes it for another one.
        if self.draw(4) || staying.len() < 2 || self.has_unshown() {
            return true;
        }
        let device = staying[staying.len() - 1];
        self.lose_index(device);
        self.rest() && self.same_tree(tree, "an index rebuilt from nothing gives the same tree")
    }

    /// Whether a device that says it is in sync with another is.
    pub(crate) fn check_in_sync(&self, device: usize) {
        let Some(life) = &self.devices[device].life else { return };
        let pulse = life.host.told().pulse.clone();
        let quiet = |d: usize| {
            let pending = self.shared.world().machines[d].disk.events_pending();
            !pending && self.devices[d].hints_at.is_none() && !self.devices[d].fed
        };
        if pulse.busy() || pulse.need() > 0 || !quiet(device) {
            return;
        }
        for peer in self.links.connected(device) {
            let claims = self.links.known(device, peer).in_sync(pulse.totals.digest, pulse.totals.seq);
            let still = self.links.is_still(device, peer) && self.links.answers(device, peer) && quiet(peer);
            let rests = self.devices[peer].life.as_ref().is_some_and(|l| {
                let told = l.host.told();
                !told.pulse.busy() && told.pulse.totals.digest == pulse.totals.digest
            });
            if claims
                && still
                && rests
                && let Some(differs) = self.differ(device, peer)
            {
                self.breaks("in sync is true when shown", format!("{device} | {peer}: {differs}"));
            }
        }
    }
}

impl World {
    /// Everything users wrote is somewhere, and what nobody deleted is where it can be seen.
    fn check_ledger(&mut self, staying: &[usize]) {
        let (mut seen, mut kept) = (BTreeMap::<ContentId, u32>::new(), BTreeSet::new());
        for &device in staying {
            let disk = &self.machines[device].disk;
            if device == staying[0] {
                for id in disk.visible().values().filter_map(content_of) {
                    *seen.entry(id).or_default() += 1;
                }
            }
            kept.extend(disk.control_tree().values().filter_map(content_of));
        }
        let gone = |e: &Entry| !staying.contains(&e.by);
        let mut found = None;
        for (id, entry) in &self.ledger.0 {
            let count = seen.get(id).copied().unwrap_or(0);
            if count == 0 && !entry.destroyed && !entry.excused && !gone(entry) {
                let where_ = if kept.contains(id) { "only kept" } else { "nowhere" };
                found = Some(("nothing is lost", format!("{:?}: {where_}", entry.text)));
                break;
            }
            if count > entry.made + entry.handled && !self.rough {
                let what = format!("{:?}: made {} times, shows {count} times", entry.text, entry.made);
                found = Some(("nothing is doubled without end", what));
                break;
            }
        }
        if let Some((invariant, what)) = found {
            self.breaks(invariant, what);
        }
    }
}
