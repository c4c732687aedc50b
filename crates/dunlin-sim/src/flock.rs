//! A flock in one process: real engines, a model of everything they touch, and one order of events that
//! follows from the seed.

use crate::bounds::Sent;
use crate::chance::Chance;
use crate::device::Device;
use crate::disk::{Faults, ModelDisk, Names, Options};
use crate::index::ModelIndex;
use crate::liar::Liar;
use crate::links::{Links, MS, Time};
use crate::script::{Act, Script, Setup};
use crate::world::{Broken, Shared};
use crossed::Crossing;
use dunlin_core::ids::FolderId;
use dunlin_core::message::Message;
use dunlin_core::plan::Fetch;
use dunlin_node::disk::FileTime;
use dunlin_node::engine::Input;
use dunlin_node::watch::Hint;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

mod again;
mod at_rest;
mod crossed;
mod exchange;
mod fetching;
pub mod hostile;
mod machines;
mod person;
mod taken_back;
mod twins;

/// The folder of every flock.
pub(crate) const FOLDER: FolderId = FolderId([7; 32]);
/// The wall clock at the start, in seconds since 1970.
const EPOCH_S: i64 = 1_800_000_000;
/// A run that takes more events than this does not come to rest.
const EVENTS_MAX: u64 = 60_000;
/// What is armed inside the program and did not come to pass in this time happens anyway.
const ARMED: Time = 40 * MS;
/// Ample room on a disk.
const ROOM: (u64, u64) = (1 << 30, 1 << 20);

/// Something that is to happen.
pub(crate) enum Event {
    /// A message arrives.
    Arrives { from: usize, to: usize, conn: u64, message: Message },
    /// A content that was asked for arrives, or not.
    Fetched { device: usize, life: u64, fetch: Fetch },
    /// It comes, on a stream of its own.
    Brought { device: usize, life: u64, fetch: Fetch, bytes: Vec<u8> },
    /// Two devices connect.
    Dial { a: usize, b: usize },
    /// Both sides of a silent connection give it up.
    GivenUp { a: usize, b: usize, conn: u64 },
    /// Something happens to one of two connections that cross.
    Crosses(Crossing),
    /// Something happens between two copies of a machine.
    Twins(twins::Twins),
    /// A program is started.
    Start { device: usize },
    /// What is armed inside a program happens now.
    Disarm { device: usize },
    /// A liar says something to a device.
    Lie { liar: usize, to: usize },
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The invariant that broke, if one did.
    pub broken: Option<Broken>,
    /// Events: turns of engines, messages, fetches, acts.
    pub events: u64,
    /// Calls of the programs to their disks that change or sync something.
    pub effects: u64,
    /// It ended with something wanted that no device holds any more, because a user deleted it everywhere: what comes after
    /// rest was not looked at.
    pub hopeless: bool,
    /// So many programs were stopped since their device ran twice.
    pub twice: u64,
}

/// A flock.
pub struct Flock {
    base: Instant,
    pub(crate) now: Time,
    pub(crate) devices: Vec<Device>,
    /// What is odd about their disks.
    pub(crate) odd: Vec<crate::odd::Odd>,
    pub(crate) links: Links,
    queue: BTreeMap<(Time, u64), Event>,
    queued: u64,
    acts: VecDeque<Act>,
    schedule: Chance,
    pub(crate) shared: Shared,
    events: u64,
    /// Messages sent so far.
    pub(crate) messages: u64,
    /// What was sent in them, and of contents.
    pub(crate) sent: Sent,
    /// When the faults ended.
    pub(crate) calm_since: Time,
    /// Something is wanted that nobody holds any more.
    pub(crate) hopeless: bool,
    /// A user was refused something after the script.
    refused: bool,
    /// Members that lie; none but in runs that are about them.
    liars: Vec<Liar>,
    /// Contents travel on streams of their own, and small ones ride along with rows; in some seeds.
    streams: Option<Chance>,
    /// Decides about deletes that are held when all else is at rest.
    person: Chance,
    /// When two copies of a machine take each other's place, and what is decided about them.
    twins: Chance,
    stopped_twice: u64,
    /// Takes mass changes back at rest, in the seeds that have restores.
    restores: Option<Chance>,
    /// While that goes on disks are nearly full, in some seeds.
    tight: Option<Chance>,
    /// All deletes are meant from now on.
    pub(crate) accepts: bool,
    trace: Option<Trace>,
}

/// Is told what happens.
pub type Trace = fn(String);

/// Runs a script; `trace` is told what happens.
pub fn run(script: &Script, trace: Option<Trace>) -> Outcome {
    let mut flock = Flock::played(script, trace);
    if !flock.is_broken() {
        flock.judge();
    }
    flock.outcome()
}

/// The hook of a disk holds the world, and the world the disk: neither would end by itself.
impl Drop for Flock {
    fn drop(&mut self) {
        for machine in &self.shared.world().machines {
            machine.disk.set_hook(None);
        }
    }
}

impl Flock {
    /// A flock after its script, with all faults over; or broken.
    pub(crate) fn played(script: &Script, trace: Option<Trace>) -> Flock {
        let mut flock = Flock::new(&script.setup, script.acts.clone(), trace);
        flock.play();
        if !flock.is_broken() {
            flock.calm_down();
        }
        flock
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let world = self.shared.world();
        let effects = world.machines.iter().map(|m| m.disk.counts().changes()).sum();
        let broken = world.broken.clone();
        Outcome { broken, events: self.events, effects, hopeless: self.hopeless, twice: self.stopped_twice }
    }

    fn new(setup: &Setup, acts: Vec<Act>, trace: Option<Trace>) -> Flock {
        let machine = |i: usize| {
            let options = Options {
                tick_ns: setup.tick_ns,
                space: ROOM.0,
                files: ROOM.1,
                names: Names::Exact,
                as_root: true,
                reuse_inodes: setup.seed % 2 == 1,
                ..Options::default()
            };
            let odd = setup.disks.get(i).copied().unwrap_or_default();
            let disk = ModelDisk::new(odd.options(options));
            if setup.errors > 0 {
                disk.set_faults(Faults {
                    chance: Chance::new(setup.seed.wrapping_add(i as u64), "disk"),
                    read_eio: setup.errors,
                    list_eio: setup.errors,
                    write_eio: setup.errors,
                    write_enospc: setup.errors,
                    sync_eio: setup.errors,
                    short_lists: 0,
                });
            }
            (disk, ModelIndex::default())
        };
        let shared = Shared::new((0..setup.devices).map(machine).collect(), setup.seed);
        // What was put in place and could not be recorded may be seen as something new.
        shared.world().rough = setup.errors > 0;
        let odd = |i: usize| setup.disks.get(i).is_some_and(|odd| odd.any());
        let device = |i: usize| {
            let mut device = Device::new(i, setup.skew_s * i as i64);
            device.odd = odd(i);
            device
        };
        let mut devices: Vec<Device> = (0..setup.devices).map(device).collect();
        twins::await_copies(&mut devices, &acts);
        Flock {
            base: Instant::now(),
            now: 0,
            devices,
            odd: setup.disks.clone(),
            links: Links::new(setup.devices, setup.seed),
            queue: BTreeMap::new(),
            queued: 0,
            acts: acts.into(),
            schedule: Chance::new(setup.seed, "schedule"),
            shared,
            events: 0,
            messages: 0,
            sent: Sent::default(),
            calm_since: 0,
            hopeless: false,
            refused: false,
            liars: Vec::new(),
            streams: fetching::streams(setup.seed),
            person: Chance::new(setup.seed, "person"),
            twins: Chance::new(setup.seed, "twins"),
            stopped_twice: 0,
            restores: crate::restores::chance(setup.seed),
            tight: taken_back::tight(setup.seed),
            accepts: false,
            trace,
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.shared.world().broken.is_some()
    }

    pub(crate) fn breaks(&self, invariant: &'static str, what: String) {
        self.shared.world().breaks(invariant, what);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    pub(crate) fn later(&mut self, after: Time, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), event);
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace(format!("{:>9.3} {}", self.now as f64 / MS as f64, text()));
        }
    }

    /// The wall clock of a device moves with the time.
    fn set_clock(&self, device: usize) {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        let secs = EPOCH_S + self.devices[device].skew_s + now / 1_000_000_000;
        let nanos = u32::try_from(now % 1_000_000_000).unwrap_or(0);
        self.shared.world().now = self.now;
        self.shared.world().machines[device].disk.set_now(FileTime { secs, nanos });
    }

    /// Whether something is queued that is still to happen.
    pub(crate) fn busy_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// One in `n`.
    pub(crate) fn draw(&mut self, n: u64) -> bool {
        self.schedule.one_in(n)
    }

    fn play(&mut self) {
        while !self.acts.is_empty() && self.step(Time::MAX) {}
    }

    /// The next thing happens, unless that is after `until`; `false` when there is none.
    pub(crate) fn step(&mut self, until: Time) -> bool {
        let act = self.acts.front().map(|a| a.at_ms * MS);
        let event = self.queue.keys().next().map(|k| k.0);
        let devices = self.devices.iter();
        let turn = devices.clone().filter_map(|d| Some((d.turn_at?, d.number))).min();
        let hints = devices.filter_map(|d| Some((d.hints_at?, d.number))).min();
        let times = [act, event, turn.map(|t| t.0), hints.map(|h| h.0)];
        let Some(at) = times.into_iter().flatten().min().filter(|at| *at <= until) else { return false };
        self.now = self.now.max(at);
        self.events += 1;
        if self.events > EVENTS_MAX {
            self.breaks("comes to rest", format!("after {EVENTS_MAX} events: {}", self.restless()));
            return false;
        }
        if act == Some(at) {
            let Some(act) = self.acts.pop_front() else { return false };
            self.act(act);
        } else if event == Some(at) {
            let Some((_, event)) = self.queue.pop_first() else { return false };
            self.happens(event);
        } else if let Some((_, device)) = hints.filter(|h| h.0 == at) {
            self.read_hints(device);
        } else if let Some((_, device)) = turn {
            self.turn(device);
        }
        !self.is_broken()
    }

    fn turn(&mut self, device: usize) {
        self.set_clock(device);
        let now = self.instant();
        self.devices[device].turn_at = None;
        let Some(life) = &mut self.devices[device].life else { return };
        let result = life.engine.turn(now);
        self.devices[device].fed = false;
        self.after(device, result);
    }

    fn read_hints(&mut self, device: usize) {
        self.devices[device].hints_at = None;
        let hints = self.shared.world().machines[device].disk.take_events();
        self.note(|| format!("{device} is told {}", hints.iter().map(hinted).collect::<Vec<_>>().join(" ")));
        self.input(device, Input::Hints(hints));
    }

    /// Hands something to an engine.
    pub(crate) fn input(&mut self, device: usize, input: Input) {
        self.set_clock(device);
        let now = self.instant();
        let Some(life) = &mut self.devices[device].life else { return };
        let result = life.engine.handle(input, now);
        self.devices[device].fed = true;
        self.after(device, result);
    }

    /// What an engine told is carried out.
    fn after(&mut self, device: usize, result: dunlin_core::kv::Read<()>) {
        if self.shared.world().machines[device].died {
            self.note(|| format!("{device} died"));
            return self.died(device);
        }
        let failed = self.shared.world().machines[device].index.take_failed();
        if failed && result.as_ref().is_err_and(|fault| !fault.damage) {
            // As the program does: the folder is closed, and opened again.
            self.note(|| format!("{device} could not commit"));
            return self.died(device);
        }
        if let Err(fault) = result {
            return self.breaks("the index can be read", format!("device {device}: {fault}"));
        }
        let Some(life) = &self.devices[device].life else { return };
        let (number, host) = (life.number, life.host.clone());
        let (wants, acks, refused, applied, changed, united) = {
            let mut told = host.told();
            let told = &mut *told;
            let changed = std::mem::take(&mut told.changed);
            let (wants, acks) = (std::mem::take(&mut told.wants), std::mem::take(&mut told.acks));
            let (refused, applied) = (std::mem::take(&mut told.refused), std::mem::take(&mut told.applied));
            (wants, acks, refused, applied, changed, told.united)
        };
        for (peer, why) in refused {
            match self.liar(&peer) {
                Some(liar) => self.sent_away(liar, device),
                None => self.breaks("honest peers are never refused", format!("by device {device}: {why}")),
            }
        }
        if std::mem::take(&mut host.told().renewed) {
            self.note(|| format!("{device} was rolled back"));
            for other in self.links.connected(device) {
                self.disconnect(device, other);
            }
            (0..self.liars.len()).for_each(|liar| self.sent_away(liar, device));
        }
        if united {
            self.devices[device].united();
        }
        for path in applied {
            self.note(|| format!("{device} applied {path}"));
            self.shared.world().check_path(device, &path);
        }
        self.tell_releases(device);
        for fetch in wants {
            let after = self.links.delay();
            self.later(after, Event::Fetched { device, life: number, fetch });
        }
        for (peer, receipt) in acks {
            let is_it = |to: &usize| self.devices[*to].id == peer;
            if let Some(to) = self.links.connected(device).into_iter().find(is_it) {
                self.send(device, to, receipt.told(FOLDER));
            }
        }
        if changed {
            self.note(|| {
                let told = host.told();
                let (need, busy) = (told.pulse.need(), told.pulse.busy());
                format!("{device} stands: need {need}, busy {busy} {:?}", told.problems)
            });
            self.say(device);
        }
        self.wake(device);
        if self.schedule.one_in(8) {
            self.check_in_sync(device);
        }
    }

    /// Sets when a device has its next turn, and when it reads its watcher.
    pub(crate) fn wake(&mut self, device: usize) {
        let longest = if self.schedule.one_in(30) { 30 * MS } else { MS / 3 };
        let jitter = 20_000 + self.schedule.below(longest);
        let slow = self.schedule.one_in(20);
        let read = MS / 20 + self.schedule.below(if slow { 40 * MS } else { MS });
        let pending = self.shared.world().machines[device].disk.events_pending();
        let (base, now) = (self.base, self.now);
        let d = &mut self.devices[device];
        let Some(life) = &d.life else { return };
        let due = life.engine.next_due().saturating_duration_since(base);
        let due = Time::try_from(due.as_nanos()).unwrap_or(Time::MAX);
        d.turn_at = Some(due.max(now).saturating_add(jitter));
        if pending && d.hints_at.is_none() {
            d.hints_at = Some(now + read);
        }
    }

    fn act(&mut self, act: Act) {
        let device = act.device;
        if device >= self.devices.len() || self.devices[device].left {
            return;
        }
        self.note(|| format!("act {act}"));
        self.set_clock(device);
        if act.inside > 0 && self.devices[device].life.is_some() {
            self.shared.arm(act);
            return self.later(ARMED, Event::Disarm { device });
        }
        self.machine(act);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { from, to, conn, message } => self.arrives(from, to, conn, message),
            Event::Crosses(crossing) => self.crosses(crossing),
            Event::Fetched { device, life, fetch } => self.fetched(device, life, &fetch),
            Event::Brought { device, life, fetch, bytes } => self.brought(device, life, &fetch, &bytes),
            Event::Dial { a, b } => self.connect(a, b),
            Event::GivenUp { a, b, conn } => {
                if self.links.pair(a, b).has(conn) {
                    self.disconnect(a, b);
                }
            }
            Event::Twins(what) => self.of_twins(what),
            Event::Start { device } => self.start(device),
            Event::Lie { liar, to } => self.lies(liar, to),
            Event::Disarm { device } => {
                self.set_clock(device);
                self.shared.disarm(device);
                self.after_hands(device);
            }
        }
    }
}

fn hinted(hint: &Hint) -> String {
    match hint {
        Hint::Entry { name, .. } => format!("{name}"),
        Hint::Dir { .. } => "a directory".into(),
        Hint::Gone { .. } => "a directory that is gone".into(),
        Hint::Overflow => "of an overflow".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flock_that_is_over_leaves_no_memory_behind() {
        let flock = Flock::played(&crate::workload::script(1), None);
        let shared = flock.shared.clone();
        assert!(shared.handles() > 2, "its disks have one each");
        drop(flock);
        assert_eq!(shared.handles(), 1);
    }
}
