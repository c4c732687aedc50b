//! Moments in which two devices do something to one file, so close that the step which carries out the one meets the
//! other: a user writes between two of its calls. Random workloads meet them too seldom.

use crate::chance::Chance;
use crate::script::{Act, What};

const FILES: &[&str] = &["a", "b", "c.txt"];
/// Contents from here on are written in crossings alone.
const FIRST_CONTENT: u32 = 1000;
/// Contents from here on are written in new directories alone.
const FIRST_IN_NEW: u32 = 6000;

/// Adds crossings to the end of the scripts of some seeds, with kills if they have such. They draw from a stream of their own: other seeds stay as they
/// were.
pub fn add(seed: u64, devices: usize, kills: bool, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "crossings");
    if !chance.one_in(6) {
        return;
    }
    let mut now = acts.last().map_or(0, |act| act.at_ms);
    let mut content = FIRST_CONTENT;
    for _ in 0..2 + chance.below(4) {
        let path = (*chance.pick(FILES)).to_owned();
        let here = chance.below(devices as u64) as usize;
        let there = (here + 1 + chance.below(devices as u64 - 1) as usize) % devices;
        // All of one length, as those of a game's save or of a picture: what tells them apart is not their size.
        let mut fresh = || {
            content += 3;
            content
        };
        // There is something for both, mostly at rest.
        now += 400 + chance.below(1200);
        acts.push(Act {
            at_ms: now,
            device: here,
            inside: 0,
            what: What::Save { path: path.clone(), content: fresh() },
        });
        now += 600 + chance.below(600);
        let one = match chance.below(7) {
            6 => What::Move { from: path.clone(), to: format!("moved{}", chance.below(2)) },
            0 | 1 => What::Touch { path: path.clone(), secs: 1_000_000 + chance.below(3) as i64 },
            2 => What::Chmod { path: path.clone(), mode: *chance.pick(&[0o600, 0o644, 0o755]) },
            3 | 4 => What::Remove { path: path.clone() },
            _ => What::Save { path: path.clone(), content: fresh() },
        };
        // A delete is believed after 300 ms, the rest is told within some milliseconds.
        let heard = if matches!(one, What::Remove { .. }) { 300 } else { 4 };
        acts.push(Act { at_ms: now, device: here, inside: 0, what: one });
        now += heard + chance.below(4);
        let other = if chance.one_in(4) {
            What::Append { path: path.clone(), content: fresh() }
        } else {
            What::Write { path: path.clone(), content: fresh() }
        };
        let inside = 1 + chance.below(14) as u32;
        acts.push(Act { at_ms: now, device: there, inside, what: other });
        if chance.one_in(4) {
            let (at_ms, what) = (now + chance.below(30), What::Remove { path });
            acts.push(Act { at_ms, device: there, inside: inside + 1 + chance.below(8) as u32, what });
        }
        if chance.one_in(3) && kills {
            acts.push(Act {
                at_ms: now,
                device: there,
                inside: 8 + chance.below(14) as u32,
                what: What::Kill,
            });
        }
    }
}

/// Adds to the end of the scripts of some seeds directories into which a user goes on writing as they are looked at for
/// the first time, and nobody after that. They draw from a stream of their own.
pub fn add_new_directories(seed: u64, devices: usize, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "new-directories");
    if !chance.one_in(8) {
        return;
    }
    let mut now = acts.iter().map(|act| act.at_ms).max().unwrap_or(0);
    let mut content = FIRST_IN_NEW;
    for round in 0..1 + chance.below(4) {
        let device = chance.below(devices as u64) as usize;
        let dir = format!("new{round}");
        now += 600 + chance.below(900);
        let mut act = |at_ms, inside, what| acts.push(Act { at_ms, device, inside, what });
        act(now, 0, What::Mkdir { path: dir.clone() });
        for name in ["a", "b"] {
            content += 1;
            act(now, 1 + chance.below(16) as u32, What::Write { path: format!("{dir}/{name}"), content });
        }
    }
}
