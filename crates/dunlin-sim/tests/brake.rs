//! Mass deletes in simulated flocks: small trees with a brake that trips for four files, every fault, and a person
//! who accepts or rejects at any moment, and what is halted still when all else is at rest.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_sim::chance::Chance;
use dunlin_sim::rest;
use dunlin_sim::script::{Act, Script, What};
use dunlin_sim::{run_caught, shrink, workload};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names at the top of the trees of the usual scripts, and some that only these scripts give.
const NAMES: &[&str] = &["a", "b", "c.txt", "B", "d", "e", "f", "D", "m1", "m2", "m3", "m4", "m5", "m6"];

/// `BRAKE_SEEDS=100000` for more.
fn seeds() -> u64 {
    std::env::var("BRAKE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

/// The usual script of a seed, with brakes, mass deletes, and decisions.
fn script(seed: u64) -> Script {
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
    // The brakes are set before anything is started.
    acts.append(&mut script.acts);
    acts.sort_by_key(|a| a.at_ms);
    script.acts = acts;
    script
}

#[test]
fn mass_deletes_are_held_whatever_goes_wrong() {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
                return;
            }
            if let Some(broken) = run_caught(&script(seed)).broken {
                *failed.lock().unwrap() = Some((seed, broken));
            }
        }
    };
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    if let Some((seed, broken)) = failed.into_inner().unwrap() {
        let short = shrink::shrink(&script(seed), broken.invariant);
        panic!("seed {seed} breaks \"{}\": {}\n{short}", broken.invariant, broken.what);
    }
}

/// Six files on three devices; all are removed on the first, and then something happens.
fn ends_with(acts: &str, expected: usize, without: &[usize]) {
    for seed in 0..100 {
        let mut text = format!("flock {seed} 3 1 0 0\n");
        for device in 0..3 {
            if !without.contains(&device) {
                text += &format!("0 {device} brake 4\n");
            }
        }
        // They are there for a minute, or they would be young.
        (1..=6).for_each(|i| text += &format!("0 0 write m{i} {i}\n"));
        (0..3).for_each(|device| text += &format!("0 {device} start\n"));
        (1..=6).for_each(|i| text += &format!("70000 0 remove m{i}\n"));
        let script: Script = (text + acts).parse().unwrap();
        let rest = rest::run(&script);
        assert_eq!(rest.outcome.broken, None, "seed {seed}:\n{script}");
        for tree in &rest.trees {
            assert_eq!(tree.len(), expected, "seed {seed}: {tree:?}\n{script}");
        }
    }
}

#[test]
fn what_a_person_decides_holds_for_all() {
    ends_with("81000 0 accept", 0, &[]);
    ends_with("81000 0 reject", 6, &[]);
    // The first has no brake; the others hold.
    ends_with("81000 1 accept", 0, &[0]);
    ends_with("81000 2 reject", 6, &[0]);
    ends_with("71000 1 kill\n72000 2 stop\n81000 1 accept\n91000 2 start", 0, &[0]);
    ends_with("71000 0 kill\n76000 0 power-cut\n81000 0 reject", 6, &[]);
    // It was decided before the last had heard of it.
    ends_with("70000 2 cut 0\n70000 2 cut 1\n81000 1 accept\n91000 2 heal 0\n91000 2 heal 1", 0, &[0]);
    ends_with("70000 2 cut 0\n70000 2 cut 1\n81000 1 reject\n91000 2 heal 0\n91000 2 heal 1", 6, &[0]);
}
