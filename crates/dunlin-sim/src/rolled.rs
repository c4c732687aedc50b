//! Scripts in which a whole machine goes back in time, or was copied and both copies are at work by turns: what it did
//! since then, whom it meets first, and what is done on it before that.

use crate::chance::Chance;
use crate::script::{Act, Script, What};
use crate::workload;

/// Names of the usual scripts, for more changes of the same things.
const NAMES: &[&str] = &["a", "b", "c.txt", "d/a", "e/b"];

struct Writer {
    chance: Chance,
    device: usize,
    devices: usize,
    next_content: u32,
    acts: Vec<Act>,
}

impl Writer {
    fn push(&mut self, at_ms: u64, device: usize, what: What) {
        self.acts.push(Act { at_ms, device, inside: 0, what });
    }

    /// A few changes within so many milliseconds, most of them on the machine itself.
    fn changes(&mut self, from: u64, within: u64) {
        for _ in 0..self.chance.below(6) {
            let at = from + self.chance.below(within + 1);
            let other = self.chance.below(self.devices as u64) as usize;
            let device = if self.chance.one_in(3) { other } else { self.device };
            let path = (*self.chance.pick(NAMES)).to_owned();
            self.next_content += 1;
            let what = match self.chance.below(6) {
                0 => What::Remove { path },
                1 => What::Move { from: path, to: (*self.chance.pick(NAMES)).to_owned() },
                2 => What::Chmod { path, mode: 0o600 },
                _ => What::Save { path, content: self.next_content },
            };
            self.push(at, device, what);
        }
    }

    fn others(&mut self, at_ms: u64, one_in: u64, what: impl Fn(usize) -> What) {
        for with in 0..self.devices {
            if with != self.device && self.chance.one_in(one_in) {
                self.push(at_ms, self.device, what(with));
            }
        }
    }
}

/// The usual script of a seed, in which one machine is kept and brought back once or twice.
pub fn script(seed: u64, devices: usize) -> Script {
    again(seed, devices, &What::RollBackAll, Chance::new(seed, "rolled"), 2)
}

/// The usual script of a seed, in which one machine is copied, and the copies are at work by turns, up to five times.
pub fn copied(seed: u64, devices: usize) -> Script {
    again(seed, devices, &What::TakeTurns, Chance::new(seed, "copied"), 5)
}

fn again(seed: u64, devices: usize, what: &What, mut chance: Chance, times: u64) -> Script {
    let mut script = workload::script_with(seed, devices);
    let end = script.acts.last().map_or(1000, |a| a.at_ms);
    let device = chance.below(devices as u64) as usize;
    let mut w = Writer { chance, device, devices, next_content: 700, acts: Vec::new() };
    let mut at = w.chance.below(end + 1);
    w.push(at, device, What::KeepAll);
    for _ in 0..1 + w.chance.below(times) {
        let within = 50 + w.chance.below(4000);
        if w.chance.one_in(2) {
            let kill = at + w.chance.below(within);
            w.push(kill, device, What::Kill);
        }
        w.changes(at, within);
        at += within;
        w.others(at, 2, |with| What::Cut { with });
        w.push(at, device, what.clone());
        let within = 50 + w.chance.below(3000);
        w.changes(at, within);
        at += within;
        w.others(at, 2, |with| What::Heal { with });
    }
    script.acts.extend(w.acts);
    script.acts.sort_by_key(|act| act.at_ms);
    script
}
