//! What users and machines share with the program: the disks, the indexes, the ledger. The program
//! itself is no part of it, so that everything here may happen between any two of its effects.

use crate::chance::Chance;
use crate::disk::{ModelDisk, Thing};
use crate::given::Given;
use crate::index::ModelIndex;
use crate::kept::Taken;
use crate::ledger::{Ledger, id_of};
use crate::links::Time;
use crate::script::{Act, What};
use crate::users::{Hands, content_of};
use crate::whole::Whole;
use dunlin_core::ids::{ContentId, NodeId};
use dunlin_core::kv::{Changes, Read, Tx, View};
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::path_of;
use dunlin_core::rows::{LocalRow, Position, Rows};
use dunlin_core::state::Content;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, as docs/reliability.md lists it.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// One machine.
pub struct Machine {
    /// Its file system.
    pub disk: ModelDisk,
    /// Its index.
    pub index: ModelIndex,
    /// What is to happen inside the program, and after how many of its effects.
    armed: Vec<(u32, Act)>,
    /// The program was killed in the midst of its work.
    pub died: bool,
    /// For so many commits users have just moved things about: where a path leads is then not the program's doing.
    moving: u32,
    /// A user moved something there, ever.
    moved: bool,
    /// Its folder is away: what stands in its place is nobody's.
    pub away: bool,
    /// What the program took out of the folder.
    pub(crate) taken: Taken,
    /// So many deletes are a mass delete here, if they are half of the files.
    pub(crate) brake: Option<u64>,
    /// Which files were deleted, and when, in this life of its program.
    pub(crate) deletes: VecDeque<(Time, NodeId)>,
    /// Those of them that live again, and are not here yet.
    pub(crate) coming: VecDeque<(Time, NodeId)>,
    /// What was kept of all of it.
    pub(crate) whole: Option<Whole>,
    /// When files appeared on it that are young still, in this life of its program.
    pub(crate) made: BTreeMap<NodeId, Time>,
}

/// All machines and users.
pub struct World {
    /// The machines, by their number.
    pub machines: Vec<Machine>,
    /// What was written.
    pub ledger: Ledger,
    /// The first invariant that broke.
    pub broken: Option<Broken>,
    /// What survives a power cut.
    pub(crate) power: Chance,
    /// The time, in nanoseconds.
    pub(crate) now: Time,
    /// Power was cut, or an index lost: names may then double.
    pub rough: bool,
    /// Which numbers were given, and for what.
    pub(crate) given: Given,
}

/// The world, shared with the hooks that the program calls.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    /// Whether anything is armed for a device: spares the lock in nearly every effect.
    armed: Arc<Vec<AtomicBool>>,
}

impl Shared {
    /// A world of these machines.
    pub fn new(machines: Vec<(ModelDisk, ModelIndex)>, seed: u64) -> Shared {
        let armed = machines.iter().map(|_| AtomicBool::new(false)).collect();
        let machines = machines
            .into_iter()
            .map(|(disk, index)| Machine {
                disk,
                index,
                armed: Vec::new(),
                died: false,
                moving: 0,
                moved: false,
                away: false,
                taken: Taken::default(),
                brake: None,
                deletes: VecDeque::new(),
                coming: VecDeque::new(),
                whole: None,
                made: BTreeMap::new(),
            })
            .collect();
        let (ledger, power) = (Ledger::default(), Chance::new(seed, "power"));
        let given = Given::default();
        let world = World { machines, ledger, broken: None, power, now: 0, rough: false, given };
        Shared { world: Arc::new(Mutex::new(world)), armed: Arc::new(armed) }
    }

    /// The world.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many handles to the world there are.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.world)
    }

    /// Has an act happen inside the program.
    pub fn arm(&self, act: Act) {
        let device = act.device;
        self.world().machines[device].armed.push((act.inside, act));
        self.armed[device].store(true, Ordering::Relaxed);
    }

    /// Carries out what is armed for a device and did not come to pass.
    pub fn disarm(&self, device: usize) {
        if self.armed[device].swap(false, Ordering::Relaxed) {
            let mut world = self.world();
            for (_, act) in std::mem::take(&mut world.machines[device].armed) {
                world.carry_out(&act);
            }
        }
    }

    /// The program is about to do something to its disk.
    pub fn effect(&self, device: usize) {
        if !self.armed[device].load(Ordering::Relaxed) {
            return;
        }
        let mut world = self.world();
        let armed = &mut world.machines[device].armed;
        armed.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        let (due, later) = std::mem::take(armed).into_iter().partition(|(left, _)| *left == 0);
        world.machines[device].armed = later;
        let due: Vec<(u32, Act)> = due;
        self.armed[device].store(!world.machines[device].armed.is_empty(), Ordering::Relaxed);
        for (_, act) in due {
            world.carry_out(&act);
        }
    }

    /// A commit is about to be made: what it claims of the disk must be durable.
    pub fn commits(&self, device: usize, before: &dyn View, changes: &Changes) {
        let mut world = self.world();
        let mut check = || {
            world.check_claims(device, before, changes)?;
            world.check_counters(device, before, changes)?;
            world.check_evidence(device, before, changes)?;
            world.check_brake(device, before, changes)
        };
        if let Err(e) = check() {
            world.breaks("the index can be read", e.to_string());
        }
    }
}

/// The rows once these changes are made.
pub(crate) fn after<'v>(before: &'v dyn View, changes: &Changes) -> Tx<'v> {
    let mut tx = Tx::new(before);
    for (key, value) in changes {
        match value {
            Some(value) => tx.put(key.clone(), value.clone()),
            None => tx.remove(key.clone()),
        }
    }
    tx
}

pub(crate) fn position(key: &[u8]) -> Option<Position> {
    let dir = key.get(1..17).and_then(NodeId::from_slice)?;
    Some(Position::new(dir, Name::new(&key[17..]).ok()?))
}

/// Whether a path is that of something between the folder and the history.
fn is_swap(path: &RelPath) -> bool {
    path.names().get(1).is_some_and(|n| n.as_bytes() == b"swap")
}

fn is_history(path: &RelPath) -> bool {
    path.names().get(1).is_some_and(|n| n.as_bytes() == b"history")
}

impl World {
    /// An invariant does not hold; the first one counts.
    pub fn breaks(&mut self, invariant: &'static str, what: String) {
        self.broken.get_or_insert(Broken { invariant, what });
    }

    /// Does what users and machines do.
    pub fn carry_out(&mut self, act: &Act) {
        let device = act.device;
        match &act.what {
            What::Kill => self.kill(device),
            // The disk that is away has power of its own.
            What::PowerCut if self.machines[device].away => self.kill(device),
            What::Refuse => {
                self.machines[device].index.kill();
                self.machines[device].died = true;
            }
            What::PowerCut => self.cut_power(device),
            What::KeepAll => self.keep_all(device),
            What::FailCommit { made } => self.machines[device].index.fail_next(*made),
            What::ShortList { lists } => self.machines[device].disk.list_short(*lists),
            _ if self.machines[device].away => {}
            what => {
                if matches!(
                    what,
                    What::Move { .. } | What::Exchange { .. } | What::Mkdir { .. } | What::Remove { .. }
                ) {
                    self.machines[device].moving = 8;
                }
                self.machines[device].moved |= matches!(what, What::Move { .. } | What::Exchange { .. });
                let disk = self.machines[device].disk.clone();
                // What the system refuses did not happen.
                let _ = Hands { disk: &disk, device, ledger: &mut self.ledger }.act(what);
            }
        }
    }

    fn kill(&mut self, device: usize) {
        let machine = &mut self.machines[device];
        machine.index.kill();
        machine.disk.halt();
        machine.died = true;
    }

    /// Contents that are anywhere on a machine, with what users cannot see: the program's own, and a folder that is
    /// away. An empty file there is no content of a user's: a power cut may have emptied it.
    pub(crate) fn contents(&self, device: usize) -> BTreeSet<ContentId> {
        let disk = &self.machines[device].disk;
        let visible = disk.visible().into_values();
        let holds = |t: &Thing| !matches!(t, Thing::File { bytes, .. } if bytes.is_empty());
        let own = disk.control_tree().into_values().filter(holds);
        let away = disk.away().into_values().filter(holds);
        visible.chain(own).chain(away).filter_map(|t| content_of(&t)).collect()
    }

    /// The power goes. What the index claims must survive; what nobody knew of may be lost.
    fn cut_power(&mut self, device: usize) {
        self.rough = true;
        let visible = self.machines[device].disk.visible();
        let disk = &self.machines[device].disk;
        // What a user wrote just before a step is taken out with it for a moment, and no more durable than it was.
        let swapped = disk.control_tree().into_iter().filter(|(path, _)| is_swap(path));
        let swapped: Vec<Thing> = swapped.map(|(_, thing)| thing).collect();
        let before: BTreeSet<ContentId> = visible.values().chain(&swapped).filter_map(content_of).collect();
        let (disk, index) = (self.machines[device].disk.clone(), self.machines[device].index.clone());
        index.kill();
        disk.crash(&mut self.power);
        self.machines[device].died = true;
        let after = self.contents(device);
        let rows = index.rows();
        for lost in before.difference(&after) {
            let claims = rows.holders(*lost).unwrap_or_default();
            for at in claims {
                let path = path_of(rows.as_ref(), &at).ok().flatten();
                let stood = path.as_ref().and_then(|p| visible.get(p));
                // A user may have made the same of it anew, which nobody knew of.
                let row = rows.local(&at).ok().flatten();
                let anew = stood.zip(row).is_some_and(|(thing, row)| is_anew(&row, thing));
                if stood.and_then(content_of) == Some(*lost) && !anew {
                    let what = format!("device {device}: {path:?} was in the index and lost to a power cut");
                    self.breaks("recorded is durable", what);
                }
            }
            self.ledger.excuse(*lost);
            self.ledger.let_go(device, *lost);
        }
        // A write to a name that an earlier cut brought back beside the file is copied to the history at a start; that makes it
        // no more durable where the user had it.
        let shown: BTreeSet<ContentId> = self.shown(device);
        for lost in before.intersection(&after).filter(|id| !shown.contains(*id)) {
            if rows.holders(*lost).unwrap_or_default().is_empty() {
                self.ledger.excuse(*lost);
            }
        }
    }

    /// Contents that are anywhere on a machine but in its history.
    fn shown(&self, device: usize) -> BTreeSet<ContentId> {
        let disk = &self.machines[device].disk;
        let own = disk.control_tree().into_iter().filter(|(path, _)| !is_history(path));
        let own = own.map(|(_, thing)| thing).chain(disk.away().into_values());
        disk.visible().into_values().chain(own).filter_map(|t| content_of(&t)).collect()
    }

    /// Whether it is noted in a device's folder that its index came further than its backup.
    pub fn is_noted_beyond(&self, device: usize) -> bool {
        let machine = &self.machines[device];
        let control = machine.disk.control_tree();
        let note = control.iter().find(|(path, _)| path.to_bytes().ends_with(b".dunlin/life"));
        let Some((_, Thing::File { bytes, .. })) = note else { return false };
        let seq = std::str::from_utf8(bytes).ok().and_then(|text| text.lines().nth(2)?.parse::<u64>().ok());
        let kept = machine.index.kept().map(|rows| rows.totals().map_or(0, |t| t.seq));
        seq.zip(kept).is_some_and(|(noted, kept)| noted > kept)
    }

    /// Whether a device has a content that is nowhere else.
    pub fn holds_alone(&self, device: usize) -> bool {
        let mut elsewhere = BTreeSet::new();
        for other in (0..self.machines.len()).filter(|other| *other != device) {
            elsewhere.extend(self.contents(other));
        }
        !self.contents(device).is_subset(&elsewhere)
    }

    fn check_claims(&mut self, device: usize, before: &dyn View, changes: &Changes) -> Read<()> {
        let moving = &mut self.machines[device].moving;
        if *moving > 0 {
            *moving -= 1;
            return Ok(());
        }
        let claims = |(k, v): &(&Vec<u8>, &Option<Vec<u8>>)| k.first() == Some(&b'l') && v.is_some();
        if !changes.iter().any(|c| claims(&c)) {
            return Ok(());
        }
        let tx = after(before, changes);
        for (key, _) in changes.iter().filter(claims) {
            let Some(at) = position(key) else { continue };
            let (Some(row), Some(path)) = (tx.local(&at)?, path_of(&tx, &at)?) else { continue };
            let old = before.local(&at)?;
            if old.is_some_and(|old| old.content == row.content && old.stamp == row.stamp) {
                // Claimed before; what users did since is theirs.
                continue;
            }
            let disk = &self.machines[device].disk;
            let shows = disk.visible_at(&path).is_some_and(|t| is_of(&row, &t));
            // A directory that a user exchanged and exchanged back is where it was recorded, and a power cut may part the two.
            let moved = self.machines[device].moved;
            let durable = if moved { disk.durable_entry(&path) } else { disk.durable(&path) };
            if shows && !durable.as_ref().is_some_and(|t| is_of(&row, t)) {
                let what = format!("device {device}: {path} is recorded, and {durable:?}");
                self.breaks("recorded is durable", what);
            }
        }
        Ok(())
    }

    /// Whether everything that is visible was made by users.
    pub fn check_visible(&mut self, device: usize) {
        self.check_outside(device);
        for (path, thing) in self.machines[device].disk.visible() {
            self.check_thing(device, &path, &thing);
        }
    }

    /// Whether what is visible at a path was made by users.
    pub fn check_path(&mut self, device: usize, path: &dunlin_core::path::RelPath) {
        self.check_outside(device);
        if let Some(thing) = self.machines[device].disk.visible_at(path) {
            self.check_thing(device, path, &thing);
        }
    }

    fn check_outside(&mut self, device: usize) {
        if let Some((path, thing)) = self.machines[device].disk.outside().pop_first() {
            self.breaks("no effect outside the root", format!("device {device}: {path} outside: {thing:?}"));
        }
    }

    fn check_thing(&mut self, device: usize, path: &dunlin_core::path::RelPath, thing: &Thing) {
        if let Some(id) = content_of(thing)
            && !self.ledger.knows(&id)
        {
            let what = format!("device {device}: {path} holds {thing:?}, which nobody wrote");
            self.breaks("every visible file is something a user wrote", what);
        }
    }
}

/// Whether a file is of another time than its row.
fn is_anew(row: &LocalRow, thing: &Thing) -> bool {
    let recorded = row.stamp.mtime;
    matches!(thing, Thing::File { mtime, .. } if (mtime.secs, mtime.nanos) != (recorded.secs, recorded.nanos))
}

/// Whether a row is about just this thing.
fn is_of(row: &LocalRow, thing: &Thing) -> bool {
    match (&row.content, thing) {
        (Content::File { id, .. }, Thing::File { bytes, ino, .. }) => {
            *ino == row.stamp.ino && *id == id_of(bytes)
        }
        _ => false,
    }
}
