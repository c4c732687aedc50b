//! Scripts with brakes that trip for four files, mass deletes, and a person who accepts or rejects at any moment. In some
//! many files are overwritten on one device while another one's disk is full.

use crate::chance::Chance;
use crate::script::{Act, Script, What};
use crate::workload;

/// Names at the top of the trees of the usual scripts, and some that only these scripts give.
const NAMES: &[&str] = &["a", "b", "c.txt", "B", "d", "e", "f", "D", "m1", "m2", "m3", "m4", "m5", "m6"];

/// The usual script of a seed, with brakes, mass deletes, and decisions.
pub fn script(seed: u64) -> Script {
    let mut script = workload::script_with(seed, 3);
    script.setup.disks.clear();
    let mut chance = Chance::new(seed, "brake");
    let end = script.acts.last().map_or(1000, |a| a.at_ms);
    let mut acts = Vec::new();
    // One device may have none: others hold what it tells.
    let without = chance.below(6) as usize;
    for device in (0..3).filter(|d| *d != without) {
        acts.push(Act { at_ms: 0, device, inside: 0, what: What::Brake { files: 4 } });
    }
    for i in 1..=6 {
        let what = What::Save { path: format!("m{i}"), content: 500 + i };
        acts.push(Act {
            at_ms: chance.below(end / 2 + 1),
            device: chance.below(3) as usize,
            inside: 0,
            what,
        });
    }
    for _ in 0..1 + chance.below(2) {
        let (mut at_ms, device) = (end / 2 + chance.below(end + 1), chance.below(3) as usize);
        // Of files made within the minute, or of old ones.
        at_ms += *chance.pick(&[0, 60_000, 60_000]);
        // All at once, or in rounds.
        let apart = *chance.pick(&[0, 0, 1, 60, 400, 900]);
        for name in NAMES {
            let inside = if chance.one_in(8) { 1 + chance.below(20) as u32 } else { 0 };
            acts.push(Act { at_ms, device, inside, what: What::Remove { path: (*name).into() } });
            at_ms += apart;
        }
        for _ in 0..chance.below(4) {
            let what = match chance.below(6) {
                0 => What::Accept,
                1 => What::Reject,
                2 => What::Kill,
                3 => What::Refuse,
                4 => What::Save { path: "m7".into(), content: 600 },
                _ => What::Save { path: "d/m8".into(), content: 601 },
            };
            let device = chance.below(3) as usize;
            acts.push(Act { at_ms: at_ms + chance.below(3000), device, inside: 0, what });
        }
    }
    overwrite(seed, end, &mut acts);
    // The brakes are set before anything is started.
    acts.append(&mut script.acts);
    acts.sort_by_key(|a| a.at_ms);
    script.acts = acts;
    script
}

/// In one seed of four, from a stream of its own: the others are what they were without it.
fn overwrite(seed: u64, end: u64, acts: &mut Vec<Act>) {
    let mut chance = Chance::new(seed, "overwritten");
    if !chance.one_in(4) {
        return;
    }
    let device = chance.below(3) as usize;
    let full = (device + 1 + chance.below(2) as usize) % 3;
    // Of old files: young ones do not count.
    let begun = end + 61_000 + chance.below(end + 1);
    let mut push = |at_ms, device, inside, what| acts.push(Act { at_ms, device, inside, what });
    push(begun - chance.below(50), full, 0, What::Full);
    let apart = *chance.pick(&[0, 1, 60, 400]);
    for i in 1..=6 {
        let inside = if chance.one_in(8) { 1 + chance.below(20) as u32 } else { 0 };
        let what = What::Save { path: format!("m{i}"), content: 700 + i };
        push(begun + u64::from(i) * apart, device, inside, what);
    }
    for _ in 0..chance.below(4) {
        let what = match chance.below(5) {
            0 => What::Accept,
            1 => What::Reject,
            2 => What::Kill,
            3 => What::Save { path: format!("m{}", 1 + chance.below(6)), content: 710 },
            _ => What::Remove { path: format!("m{}", 1 + chance.below(6)) },
        };
        let device = *chance.pick(&[full, full, device]);
        push(begun + chance.below(4000), device, 0, what);
    }
    push(begun + 100 + chance.below(8000), full, 0, What::Room);
}
