//! One device: its program's lives, with the real engine, stage and scan on a model disk.

use crate::disk::ModelDisk;
use crate::links::Time;
use crate::outbox::Outbox;
use crate::world::Shared;
use dunlin_core::brake::Limits;
use dunlin_core::ids::{DeviceId, DotRange, Incarnation, LifeId};
use dunlin_core::journal::Kept;
use dunlin_core::runs::Runs;
use dunlin_node::disk::Disk;
use dunlin_node::disk::known::KnownDisk;
use dunlin_node::disk::probe::probe;
use dunlin_node::engine::{Engine, Start};
use dunlin_node::site::Site;
use dunlin_node::stage::{Stage, control, write_marker};
use dunlin_node::store::begin;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The text of every root's marker.
pub const MARKER: &str = "the flock\nits token\n";

/// The program, from a start to its end.
pub struct Life {
    /// The real one.
    pub engine: Engine,
    /// What it works on.
    pub site: Arc<Site>,
    /// What it told.
    pub host: Arc<Outbox>,
    /// Which life it is; those of two copies of a machine are others.
    pub number: u64,
    /// Which lives of other devices said hello.
    pub runs: BTreeMap<DeviceId, Runs>,
}

/// A device.
pub struct Device {
    /// Its key; while there are two copies of a machine, that of both.
    pub id: DeviceId,
    /// Its place in the flock.
    pub number: usize,
    /// The running program.
    pub life: Option<Life>,
    /// How many there were.
    pub(crate) lives: u64,
    /// It is to run.
    pub wanted: bool,
    /// It is gone for good.
    pub left: bool,
    /// It is to be a copy of another one, and was not made yet.
    pub absent: bool,
    /// The other one of two copies of a machine.
    pub twin: Option<usize>,
    /// It is known that there are two copies, since it was stopped for that once.
    pub twice: bool,
    /// The two copies can hear each other.
    pub hears: bool,
    /// The marker is in its root.
    pub(crate) marked: bool,
    /// Its tree and the members' were united once.
    pub(crate) joined: bool,
    /// Its disk is not an ordinary one.
    pub odd: bool,
    /// By how much its wall clock is off, in seconds.
    pub skew_s: i64,
    /// When its brake trips.
    pub limits: Limits,
    /// The deletes it knows to be accepted.
    pub released: Vec<DotRange>,
    /// Since when a person could have seen that it is halted.
    pub halted_since: Option<Time>,
    /// Its engine was told something and had no turn since.
    pub fed: bool,
    /// When its engine has its next turn.
    pub turn_at: Option<Time>,
    /// When it reads the watcher.
    pub hints_at: Option<Time>,
}

impl Device {
    /// A device that never ran.
    pub fn new(number: usize, skew_s: i64) -> Device {
        Device {
            id: device_id(number),
            number,
            life: None,
            lives: 0,
            wanted: false,
            left: false,
            absent: false,
            twin: None,
            twice: false,
            hears: false,
            marked: false,
            joined: number == 0,
            odd: false,
            skew_s,
            limits: Limits::default(),
            released: Vec::new(),
            halted_since: None,
            fed: false,
            turn_at: None,
            hints_at: None,
        }
    }

    /// Starts the program, with these other members.
    ///
    /// # Errors
    /// As opening a folder: the disk, the root, the index.
    pub fn start(&mut self, shared: &Shared, others: BTreeSet<DeviceId>, now: Instant) -> io::Result<()> {
        self.lives += 1;
        let number = self.number;
        let (disk, index) = {
            let mut world = shared.world();
            let machine = &mut world.machines[number];
            if machine.away && !self.marked {
                return Err(io::Error::other("the folder is not there"));
            }
            machine.disk = machine.disk.restart();
            machine.died = false;
            (machine.disk.clone(), machine.index.clone())
        };
        hook(&disk, shared, number);
        if !self.marked {
            write_marker(&disk, MARKER)?;
            self.marked = true;
        }
        if let Some(why) = dunlin_node::stage::root_trouble(&disk, MARKER) {
            return Err(io::Error::other(why));
        }
        let watch = {
            let shared = shared.clone();
            move |before: &dyn dunlin_core::kv::View, changes: &dunlin_core::kv::Changes| {
                shared.commits(number, before, changes);
            }
        };
        let handle = index.open(watch);
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.lives.to_le_bytes());
        random[8] = 1;
        begin(&handle, self.id, random).map_err(|e| io::Error::other(e.to_string()))?;
        let stage = Stage::open(Arc::new(disk.clone()))?;
        let mut known: Arc<dyn Disk> = Arc::new(disk.clone());
        if self.odd {
            let found = probe(&disk, &control(&[]))?;
            known = Arc::new(KnownDisk::new(known, &found));
        }
        let site = Arc::new(Site::new(known, stage, Box::new(handle)));
        let unused = |kind: u8| {
            let mut out = random;
            out[8] = kind;
            out
        };
        let own = Incarnation::new(self.id, unused(2));
        site.begin_life(LifeId(unused(2)), own, Incarnation::new(self.id, unused(3)))?;
        // Renewals count in the first bytes: they must not come to be those of another life.
        let mut renewing = unused(4);
        renewing[12..].copy_from_slice(&(self.lives as u32).to_be_bytes());
        let host = Arc::new(Outbox::default());
        host.told().others = others;
        host.told().pulse.scanning = true;
        let start = Start {
            marker: MARKER.into(),
            others: number > 0 || self.lives > 1,
            joining: !self.joined,
            fresh: (self.id, renewing),
            history: Kept::default(),
            limits: self.limits,
            released: self.released.clone(),
            now,
        };
        let engine = Engine::new(site.clone(), host.clone(), Box::new(disk), start)
            .map_err(|e| io::Error::other(e.to_string()))?;
        self.life = Some(Life { engine, site, host, number: self.lives, runs: BTreeMap::new() });
        Ok(())
    }

    /// The trees were united.
    pub fn united(&mut self) {
        self.joined = true;
    }

    /// The program is not there any more.
    pub fn end(&mut self) {
        self.life = None;
        self.turn_at = None;
        self.hints_at = None;
    }
}

pub(crate) fn device_id(number: usize) -> DeviceId {
    DeviceId([u8::try_from(number + 1).unwrap_or(u8::MAX); 32])
}

fn hook(disk: &ModelDisk, shared: &Shared, device: usize) {
    let shared = shared.clone();
    disk.set_hook(Some(Box::new(move |effect| {
        shared.effect(device);
        shared.takes_away(device, &effect);
    })));
}
