//! Machines that go back in time with all that is on them (a virtual machine's snapshot, a backup of everything): what
//! others have stays, what is newer wins, and what is done on them afterwards counts.

#![allow(clippy::unwrap_used, reason = "a test")]

use crate::case_kit::{SEEDS, cases, contents, copies, shows, sorted, words};
use dunlin_sim::script::Script;
use dunlin_sim::{rolled, run_caught, shrink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// `.ci/run` takes 2,000; `ROLLED_SEEDS=100000` for more.
fn seeds() -> u64 {
    std::env::var("ROLLED_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// What is everywhere when the machine of device 0 is kept.
const BEFORE: &str = "0 0 write kept 10\n0 0 write theirs 11\n0 0 write own 12\n0 1 write gone 13\n0 1 write m 14\n\
    0 2 mkdir d\n0 2 write d/e 15\n4000 0 keep-all\n";

/// What happens after that, on device 0 and on others, and is everywhere too.
const SINCE: &str = "4500 1 save theirs 21\n4600 0 save own 22\n4700 0 remove gone\n4800 2 move m d/m\n\
    4900 0 write fresh 24\n5000 1 write d/new 25\n5100 0 save own 26\n";

const NEWER: &[(&str, &str)] = &[
    ("d", "/"),
    ("d/e", "15"),
    ("d/m", "14"),
    ("d/new", "25"),
    ("fresh", "24"),
    ("kept", "10"),
    ("own", "26"),
    ("theirs", "21"),
];

/// In some seeds the program was started anew before or after it was kept, so that what it did since was done in
/// another life of it.
fn restarts(seed: u64) -> &'static str {
    ["", "4200 0 kill\n", "3000 0 kill\n", "3900 0 kill\n4300 0 kill\n4950 0 kill\n"][(seed % 4) as usize]
}

#[test]
fn what_others_know_is_newer_and_nothing_old_comes_back() {
    let acts = |seed| sorted(&format!("{BEFORE}{SINCE}{}18000 0 roll-back-all", restarts(seed)));
    cases(SEEDS, 3, acts, |_, rest| shows(rest, NEWER));
}

#[test]
fn it_may_go_back_again_and_again() {
    let acts = |seed| {
        let again = "18000 0 roll-back-all\n31000 1 save theirs 31\n31500 0 save own 32\n45000 0 roll-back-all\n\
            55000 2 save kept 33\n65000 0 roll-back-all\n";
        sorted(&format!("{BEFORE}{SINCE}{}{again}", restarts(seed)))
    };
    let expected: Vec<(&str, &str)> = NEWER
        .iter()
        .map(|(path, word)| match *path {
            "theirs" => ("theirs", "31"),
            "own" => ("own", "32"),
            "kept" => ("kept", "33"),
            _ => (*path, *word),
        })
        .collect();
    cases(SEEDS, 3, acts, |_, rest| shows(rest, &expected));
}

/// Edits before it meets anybody are made beside what it forgot, not on top of it, as often as it does that.
#[test]
fn what_is_changed_before_it_meets_anybody_counts_beside_what_it_forgot() {
    let acts = |seed: u64| {
        let apart = "17000 0 cut 1\n17000 0 cut 2\n18000 0 roll-back-all\n";
        let alone = "19000 0 save kept 40\n19000 0 save own 41\n19100 0 write alone 42\n19200 0 remove d/e\n";
        let met = "23000 0 heal 1\n23000 0 heal 2\n";
        let restart = if seed.is_multiple_of(3) { "20000 0 kill\n" } else { "" };
        sorted(&format!("{BEFORE}{SINCE}{}{apart}{alone}{restart}{met}", restarts(seed)))
    };
    cases(SEEDS, 3, acts, |_, rest| {
        assert_eq!(contents(rest), [14, 21, 24, 25, 26, 40, 41, 42]);
        let copies = copies(rest);
        assert!(copies.len() == 1 && copies[0].starts_with("own~conflict-"), "{copies:?}");
        let words = words(&rest.trees[0]);
        assert_eq!((&*words["kept"], &*words["alone"], &*words["theirs"]), ("40", "42", "21"));
    });
}

/// Whom it meets first knows no more than it does itself; who does, and that it met another, comes later.
#[test]
fn whom_it_meets_first_may_be_behind_too() {
    let acts = |seed: u64| {
        let behind = "1 0 start\n1 1 start\n1 2 start\n4100 2 stop\n";
        let since = "4500 1 save theirs 21\n4600 0 save own 22\n5100 0 write fresh 24\n";
        let apart = "17000 0 cut 1\n17000 1 cut 2\n18000 2 start\n18000 0 roll-back-all\n";
        let both = "21000 0 save own 41\n21000 0 write alone 42\n22000 2 save kept 43\n";
        // What was done meanwhile reaches the one that knows more by way of the other, or by itself.
        let met = if seed.is_multiple_of(2) {
            "25000 1 heal 2\n27000 0 heal 1\n"
        } else {
            "25000 0 heal 1\n27000 1 heal 2\n"
        };
        sorted(&format!("{BEFORE}{behind}{since}{}{apart}{both}{met}", restarts(seed)))
    };
    cases(SEEDS, 3, acts, |_, rest| {
        assert_eq!(contents(rest), [13, 14, 15, 21, 22, 24, 41, 42, 43]);
        let copies = copies(rest);
        assert!(copies.len() == 1 && copies[0].starts_with("own~conflict-"), "{copies:?}");
    });
}

/// One was copied, and the copies take turns: what either made, and told, counts beside what the other made.
#[test]
fn what_two_copies_of_a_machine_made_by_turns_is_all_there() {
    let acts = |seed| {
        let turns = "18000 0 take-turns\n22000 0 save own 31\n22100 0 write first 32\n26000 0 take-turns\n\
            30000 0 save own 41\n30100 0 write second 42\n34000 0 take-turns\n38000 0 save first 51\n";
        sorted(&format!("{BEFORE}{SINCE}{}{turns}", restarts(seed)))
    };
    let mut expected: Vec<(&str, &str)> = NEWER.iter().filter(|(path, _)| *path != "own").copied().collect();
    expected.extend([("own", "41"), ("first", "51"), ("second", "42")]);
    cases(SEEDS, 3, acts, |_, rest| shows(rest, &expected));
}

#[test]
fn flocks_hold_all_invariants_with_machines_that_go_back() {
    all_hold(seeds(), |seed| rolled::script(seed, 3));
}

#[test]
fn flocks_hold_all_invariants_with_machines_that_were_copied() {
    all_hold(seeds() / 2, |seed| rolled::copied(seed, 3));
}

fn all_hold(seeds: u64, script: impl Fn(u64) -> Script + Sync) {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Some(broken) = run_caught(&script(seed)).broken {
                *failed.lock().unwrap() = Some((seed, broken));
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(work);
        }
    });
    if let Some((seed, broken)) = failed.into_inner().unwrap() {
        let short = shrink::shrink(&script(seed), broken.invariant);
        panic!("seed {seed} breaks \"{}\": {}\n{short}", broken.invariant, broken.what);
    }
}
