//! Scripts in which a machine is copied, and both copies are at work at once: what is done on them until it is noticed, and
//! what a person makes of it.

use crate::chance::Chance;
use crate::odd::Odd;
use crate::script::{Act, Script, What};
use crate::workload;

/// Names of the usual scripts, for more changes of the same things.
const NAMES: &[&str] = &["a", "b", "c.txt", "d/a", "e/b"];

struct Writer {
    chance: Chance,
    /// The machine, and its copy, which is the last device.
    copies: [usize; 2],
    next_content: u32,
    acts: Vec<Act>,
}

impl Writer {
    fn push(&mut self, at_ms: u64, device: usize, what: What) {
        self.acts.push(Act { at_ms, device, inside: 0, what });
    }

    fn any(&mut self) -> usize {
        self.chance.below(self.copies[1] as u64 + 1) as usize
    }

    fn one(&mut self) -> usize {
        *self.chance.pick(&self.copies)
    }

    fn other(&mut self) -> usize {
        self.chance.below(self.copies[1] as u64) as usize
    }

    /// A few changes within so many milliseconds, most of them on the two copies.
    fn changes(&mut self, from: u64, within: u64, most: u64) {
        for _ in 0..self.chance.below(most + 1) {
            let at = from + self.chance.below(within + 1);
            let device = if self.chance.one_in(4) { self.any() } else { self.one() };
            let path = (*self.chance.pick(NAMES)).to_owned();
            self.next_content += 1;
            let what = match self.chance.below(8) {
                0 => What::Remove { path },
                1 => What::Move { from: path, to: (*self.chance.pick(NAMES)).to_owned() },
                2 => What::Chmod { path, mode: 0o600 },
                3 => What::Write { path, content: self.next_content },
                _ => What::Save { path, content: self.next_content },
            };
            let inside = if self.chance.one_in(4) { 1 + self.chance.below(24) as u32 } else { 0 };
            self.acts.push(Act { at_ms: at, device, inside, what });
        }
    }

    /// What goes wrong with the copies meanwhile.
    fn trouble(&mut self, from: u64, within: u64) {
        let at = from + self.chance.below(within + 1);
        let (device, with) = (self.one(), self.other());
        let what = match self.chance.below(10) {
            0 | 1 => What::Kill,
            2 => What::PowerCut,
            3..6 => What::Cut { with },
            6 => What::Again { with },
            7 => What::Silence { with },
            _ => What::Heal { with },
        };
        self.push(at, device, what);
    }

    /// One of the copies, or both, are out of reach of all others for a while.
    fn away(&mut self, from: u64, within: u64) {
        let device = self.one();
        for with in 0..self.copies[1] {
            self.push(from, device, What::Cut { with });
        }
        for with in 0..self.copies[1] {
            let at = from + within / 2 + self.chance.below(within);
            self.push(at, device, What::Heal { with });
        }
    }
}

/// The usual script of a seed, with one device more: a copy of one of the others, made at any moment.
pub fn script(seed: u64, devices: usize) -> Script {
    let mut script = workload::script_with(seed, devices);
    let end = script.acts.last().map_or(1000, |a| a.at_ms);
    let mut chance = Chance::new(seed, "twice");
    let original = chance.below(devices as u64) as usize;
    let mut w = Writer { chance, copies: [original, devices], next_content: 700, acts: Vec::new() };
    let kept = 20 + w.chance.below(end + 1);
    let is_off = w.chance.one_in(5);
    let inside = if !is_off && w.chance.one_in(2) { 1 + w.chance.below(24) as u32 } else { 0 };
    if is_off {
        w.push(kept, original, What::Stop);
    }
    w.acts.push(Act { at_ms: kept, device: original, inside, what: What::KeepAll });
    let wait = if w.chance.one_in(2) { 50 } else { 50 + w.chance.below(4000) };
    w.changes(kept, wait, 4);
    let mut at = kept + wait;
    w.push(at, original, What::Copy { to: devices });
    if is_off {
        // Both begin at nearly the same moment.
        let start = at + w.chance.below(60);
        w.push(start, original, What::Start);
    }
    if w.chance.one_in(3) {
        let hear = at + w.chance.below(2000);
        w.push(hear, original, What::Hear);
    }
    for _ in 0..1 + w.chance.below(4) {
        let within = 50 + w.chance.below(4000);
        if w.chance.one_in(3) {
            w.away(at, within);
        }
        w.changes(at, within, 8);
        for _ in 0..w.chance.below(3) {
            w.trouble(at, within);
        }
        if w.chance.one_in(4) {
            // Nobody decided, and one is started all the same, or both.
            let again = at + w.chance.below(within);
            let device = w.one();
            w.push(again, device, What::Start);
        }
        at += within;
    }
    if !w.chance.one_in(4) {
        let own = w.one();
        w.push(at, own, What::Part);
        let within = 50 + w.chance.below(3000);
        w.changes(at, within, 6);
    }
    script.setup.devices += 1;
    if let Some(odd) = script.setup.disks.get(original).copied() {
        script.setup.disks.resize(devices, Odd::default());
        script.setup.disks.push(odd);
    }
    script.acts.extend(w.acts);
    script.acts.sort_by_key(|act| act.at_ms);
    script
}
