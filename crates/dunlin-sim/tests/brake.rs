//! Mass deletes in simulated flocks: small trees with a brake that trips for four files, every fault, and a person
//! who accepts or rejects at any moment, and what is halted still when all else is at rest.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_sim::disk::Thing;
use dunlin_sim::masses::script;
use dunlin_sim::script::Script;
use dunlin_sim::{rest, run_caught, shrink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// `.ci/run` takes 1,000; `BRAKE_SEEDS=100000` for more.
fn seeds() -> u64 {
    std::env::var("BRAKE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
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

/// Of twelve files the third device deletes five one by one, of which the others hear, and makes one; three deletes more are too many, and held. Somebody
/// elsewhere takes back what was heard: what was made goes, as that person accepts. What is held here stays held, however little it is.
#[test]
fn what_is_held_waits_for_a_person_whatever_others_take_back() {
    for (end, expected) in [("reject", 12), ("accept", 9)] {
        for seed in 0..60 {
            let mut text = format!("flock {seed} 3 1 0 0\n0 2 brake 4\n");
            (1..=12).for_each(|i| text += &format!("0 0 write m{i:02} {i}\n"));
            (0..3).for_each(|device| text += &format!("0 {device} start\n"));
            (1..=5).for_each(|i| text += &format!("{} 2 remove m{i:02}\n", 69_000 + 500 * i));
            text += "71700 2 write made 50\n";
            (6..=8).for_each(|i| text += &format!("73000 2 remove m{i:02}\n"));
            text += "75000 2 kill\n75000 2 cut 0\n75000 2 cut 1\n78000 0 undo-since 20\n90000 2 heal 0\n90000 2 heal 1\n";
            text += &format!("130000 2 {end}\n");
            let script: Script = text.parse().unwrap();
            let rest = rest::run(&script);
            assert_eq!(rest.outcome.broken, None, "seed {seed}:\n{script}");
            for tree in &rest.trees {
                assert_eq!(tree.len(), expected, "seed {seed}: {tree:?}\n{script}");
            }
        }
    }
}

/// Six old files are overwritten on the first device while the disk of the second is full, and then something happens; in
/// the end all devices show one of the versions, the one that is expected.
fn overwritten(acts: &str, expected: u64) {
    for seed in 0..50 {
        let mut text = format!("flock {seed} 3 1 0 0\n0 1 brake 4\n");
        (1..=6).for_each(|i| text += &format!("0 0 write m{i} {i}\n"));
        (0..3).for_each(|device| text += &format!("0 {device} start\n"));
        text += "65000 1 full\n";
        (1..=6).for_each(|i| text += &format!("70000 0 write m{i} {}\n", 100 + i));
        let script: Script = (text + acts + "\n99000 1 room").parse().unwrap();
        let rest = rest::run(&script);
        assert_eq!(rest.outcome.broken, None, "seed {seed}:\n{script}");
        let expected: Vec<String> = (1..=6).map(|i| format!("content {}", expected + i)).collect();
        for tree in &rest.trees {
            let first = |thing: &Thing| match thing {
                Thing::File { bytes, .. } => String::from_utf8_lossy(bytes).lines().next().map(str::to_owned),
                _ => None,
            };
            let shown: Vec<String> = tree.values().filter_map(first).collect();
            assert_eq!(shown, expected, "seed {seed}:\n{script}");
        }
    }
}

#[test]
fn edits_that_a_history_has_no_room_for_are_decided_for_all() {
    overwritten("81000 1 accept", 100);
    overwritten("81000 1 reject", 0);
    overwritten("75000 2 kill\n81000 1 reject", 0);
    // Once there is room nothing has to be decided.
    overwritten("", 100);
}
