//! Faults that came later than the others: cuts in one direction, connections that cross, an index that cannot be
//! written, listings that break off, and a folder that alone goes back in time.

use crate::chance::Chance;
use crate::script::{Act, What};

/// Adds them to the scripts of some seeds, anywhere. They draw from a stream of their own: other seeds stay as they were.
pub(crate) fn add(seed: u64, devices: usize, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "troubles");
    if !chance.one_in(4) {
        return;
    }
    let end = acts.last().map_or(0, |act| act.at_ms) + 1000;
    let kinds: Vec<u64> = (0..1 + chance.below(2)).map(|_| chance.below(5)).collect();
    for _ in 0..1 + chance.below(6) {
        let mut at_ms = chance.below(end);
        let device = chance.below(devices as u64) as usize;
        let with = (device + 1 + chance.below(devices as u64 - 1) as usize) % devices;
        let inside = if chance.one_in(2) { 1 + chance.below(24) as u32 } else { 0 };
        let mut push = |at_ms, inside, what| acts.push(Act { at_ms, device, inside, what });
        match *chance.pick(&kinds) {
            0 => {
                push(at_ms, 0, What::Deaf { with });
                at_ms += [5, 400, 9_000][chance.below(3) as usize] + chance.below(500);
                push(at_ms, 0, What::Heal { with });
            }
            1 => push(at_ms, 0, What::Cross { with }),
            2 => push(at_ms, inside, What::FailCommit { made: chance.one_in(2) }),
            3 => {
                push(at_ms, inside, What::ShortList { lists: 1 + chance.below(4) as u32 });
                // So that something is listed.
                push(at_ms + 1, 0, What::Overflow);
            }
            _ => {
                push(at_ms, inside, What::KeepAll);
                at_ms += 50 + chance.below(4_000);
                if chance.one_in(2) {
                    push(at_ms, inside, What::Kill);
                    at_ms += chance.below(1_000);
                }
                push(at_ms, 0, What::RollBackFolder);
            }
        }
    }
    acts.sort_by_key(|act| act.at_ms);
}
