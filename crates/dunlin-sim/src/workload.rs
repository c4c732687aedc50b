//! From a seed to a script: few names and few contents, so that collisions are the rule, and for each
//! seed its own choice of what goes wrong.

use crate::chance::Chance;
use crate::crossings;
use crate::restores;
use crate::script::{Act, Script, Setup, What};

const FILES: &[&str] = &["a", "b", "c.txt", "B", "e\u{301}", "\u{e9}"];
const DIRS: &[&str] = &["d", "e", "f", "D"];

/// What may go wrong in a run.
#[derive(Default)]
struct Faults {
    kills: bool,
    cuts_of_power: bool,
    stops: bool,
    indexes: bool,
    roll_backs: bool,
    clocks: bool,
    roots: bool,
    full: bool,
    overflows: bool,
    leaves: bool,
    network: bool,
    inside: bool,
    machines: bool,
}

struct Writer {
    workload: Chance,
    faults: Faults,
    devices: usize,
    /// Paths that were made at some time, by anybody.
    known: Vec<String>,
    next_content: u32,
    now_ms: u64,
    acts: Vec<Act>,
}

/// The script of a seed.
pub fn script(seed: u64) -> Script {
    let mut chance = Chance::new(seed, "setup");
    let devices = match chance.below(10) {
        0..2 => 2,
        2..8 => 3,
        8 => 4,
        _ => 5 + chance.below(3) as usize,
    };
    script_with(seed, devices)
}

/// The script of a seed, with so many devices.
pub fn script_with(seed: u64, devices: usize) -> Script {
    let mut faulty = Chance::new(seed, "faults");
    let mut may = |one_in| faulty.one_in(one_in);
    let calm = may(4);
    let mut faults = Faults {
        kills: !calm && may(2),
        cuts_of_power: !calm && may(3),
        stops: !calm && may(2),
        indexes: !calm && may(6),
        roll_backs: !calm && may(6),
        clocks: !calm && may(4),
        roots: !calm && may(8),
        full: !calm && may(8),
        overflows: !calm && may(6),
        leaves: !calm && may(8),
        network: !calm && may(2),
        inside: may(2),
        machines: false,
    };
    let errors = if !calm && may(6) { 50 + faulty.below(200) as u32 } else { 0 };
    let tick_ns = *faulty.pick(&[1, 1, 1_000_000, 4_000_000, 10_000_000]);
    let skew_s = if faulty.one_in(4) { *faulty.pick(&[-315_360_000, -3600, 5, 315_360_000]) } else { 0 };
    faults.machines = !calm && faulty.one_in(5);
    let workload = Chance::new(seed, "workload");
    let mut writer = Writer {
        workload,
        faults,
        devices,
        known: Vec::new(),
        next_content: 10,
        now_ms: 0,
        acts: Vec::new(),
    };
    writer.write();
    crossings::add(seed, devices, writer.faults.kills, &mut writer.acts);
    let Faults { kills, cuts_of_power, full, .. } = writer.faults;
    restores::add(seed, devices, restores::May { kills, cuts_of_power, full }, &mut writer.acts);
    crate::patterns::add(seed, devices, &mut writer.acts);
    if !calm {
        crate::troubles::add(seed, devices, &mut writer.acts);
    }
    crate::by_link::add(seed, devices, &mut writer.acts);
    crossings::add_new_directories(seed, devices, &mut writer.acts);
    Script {
        setup: Setup { seed, devices, tick_ns, errors, skew_s, disks: crate::odd::disks(seed, devices) },
        acts: writer.acts,
    }
}

impl Writer {
    fn write(&mut self) {
        // Some have files before they ever run; they start one by one or all at once.
        for device in 0..self.devices {
            for _ in 0..[0, 0, 1, 4][self.workload.below(4) as usize] {
                let what = self.user();
                self.push(device, 0, what);
            }
        }
        for device in 0..self.devices {
            if self.workload.one_in(2) {
                self.wait();
            }
            self.push(device, 0, What::Start);
        }
        let count = 6 + self.workload.below(40);
        for _ in 0..count {
            self.wait();
            let device = self.workload.below(self.devices as u64) as usize;
            let what = match self.workload.below(5) {
                0 => self.event(device),
                _ => None,
            };
            let inside = match (self.faults.inside, self.workload.below(3)) {
                (true, 0) => 1 + self.workload.below(24) as u32,
                _ => 0,
            };
            match what {
                Some(what) => {
                    let inside = if matches!(what, What::Kill | What::Refuse | What::PowerCut | What::KeepAll)
                    {
                        inside
                    } else {
                        0
                    };
                    self.push(device, inside, what);
                }
                None => {
                    let what = self.user();
                    self.push(device, inside, what);
                }
            }
        }
    }

    fn push(&mut self, device: usize, inside: u32, what: What) {
        self.acts.push(Act { at_ms: self.now_ms, device, inside, what });
    }

    /// Bursts, moments, and long rests.
    fn wait(&mut self) {
        let c = &mut self.workload;
        self.now_ms += match c.below(10) {
            0..3 => 0,
            3..6 => 1 + c.below(6),
            6..8 => 5 + c.below(60),
            8 => 100 + c.below(400),
            _ => 500 + c.below(3000),
        };
    }

    fn fresh_path(&mut self, leaf: &[&str]) -> String {
        let c = &mut self.workload;
        let dirs: Vec<String> = self.known.iter().filter(|p| is_dir(p)).cloned().collect();
        let name = (*c.pick(leaf)).to_owned();
        if dirs.is_empty() || c.one_in(3) { name } else { format!("{}/{name}", c.pick(&dirs)) }
    }

    fn some_path(&mut self) -> String {
        if self.known.is_empty() || self.workload.one_in(6) {
            return self.fresh_path(FILES);
        }
        self.workload.pick(&self.known).clone()
    }

    fn some_file(&mut self) -> String {
        let files: Vec<String> = self.known.iter().filter(|p| !is_dir(p)).cloned().collect();
        if files.is_empty() || self.workload.one_in(4) {
            return self.fresh_path(FILES);
        }
        self.workload.pick(&files).clone()
    }

    /// Mostly one that nobody wrote before, so that the ledger can tell them apart.
    fn content(&mut self) -> u32 {
        if self.workload.one_in(5) {
            return self.workload.below(4) as u32;
        }
        self.next_content += 1;
        self.next_content
    }

    fn learn(&mut self, path: &str) {
        let depth = path.split('/').count();
        if depth <= 4 && self.known.len() < 24 && !self.known.iter().any(|p| p == path) {
            self.known.push(path.to_owned());
        }
    }

    /// Something that a user does.
    fn user(&mut self) -> What {
        match self.workload.below(20) {
            0..5 => {
                let (path, content) = (self.some_file(), self.content());
                self.learn(&path);
                What::Write { path, content }
            }
            5..8 => {
                let (path, content) = (self.some_file(), self.content());
                self.learn(&path);
                What::Save { path, content }
            }
            8 => What::Append { path: self.some_file(), content: self.content() },
            9 => match self.workload.below(3) {
                0 => What::Truncate { path: self.some_file() },
                1 => What::Chmod {
                    path: self.some_path(),
                    mode: *self.workload.pick(&[0o600, 0o644, 0o755, 0o700]),
                },
                _ => What::Touch { path: self.some_path(), secs: 1_000_000 + self.workload.below(3) as i64 },
            },
            10..13 => {
                let path = self.fresh_path(DIRS);
                self.learn(&path);
                What::Mkdir { path }
            }
            13..16 => {
                let from = self.some_path();
                let to = match (self.workload.below(3), is_dir(&from)) {
                    (0, _) => self.some_path(),
                    (_, true) => self.fresh_path(DIRS),
                    (_, false) => self.fresh_path(FILES),
                };
                self.learn(&to);
                What::Move { from, to }
            }
            16 => What::Exchange { a: self.some_path(), b: self.some_path() },
            17 | 18 => What::Remove { path: self.some_path() },
            _ => {
                let path = self.fresh_path(FILES);
                What::Link { path, text: (*self.workload.pick(&["a", "d", "../x", "/nowhere"])).to_owned() }
            }
        }
    }

    /// Something that happens to a machine or the network, if this seed has it.
    fn event(&mut self, device: usize) -> Option<What> {
        let with = {
            let other = self.workload.below(self.devices as u64 - 1) as usize;
            if other >= device { other + 1 } else { other }
        };
        let f = &self.faults;
        let mut may: Vec<What> = Vec::new();
        let mut add = |on: bool, what: &[What]| {
            if on {
                may.extend_from_slice(what);
            }
        };
        add(f.kills, &[What::Kill, What::Refuse]);
        add(f.cuts_of_power, &[What::PowerCut]);
        add(f.stops, &[What::Stop, What::Start]);
        add(f.indexes, &[What::LoseIndex]);
        add(f.roll_backs, &[What::KeepIndex, What::RollBack]);
        add(f.machines, &[What::KeepAll, What::RollBackAll]);
        add(f.clocks, &[What::Jump { secs: [-86_400, 3_600, 315_360_000][with % 3] }]);
        add(f.roots, &[What::LoseRoot, What::BringRoot]);
        add(f.full, &[What::Full, What::Room]);
        add(f.overflows, &[What::Overflow]);
        add(f.leaves && device + 1 == self.devices, &[What::Leave]);
        add(
            f.network,
            &[What::Cut { with }, What::Silence { with }, What::Heal { with }, What::Again { with }],
        );
        if may.is_empty() { None } else { Some(self.workload.pick(&may).clone()) }
    }
}

fn is_dir(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| DIRS.contains(&name))
}
