//! A machine that was copied, with its key, and both copies at work at once: both are stopped as soon as somebody
//! notices, a person makes one of them a device of its own, and nothing of either is lost.

#![allow(clippy::unwrap_used, reason = "a test")]

use crate::case_kit::{SEEDS, cases, contents, copies, sorted, words};
use dunlin_sim::rest::Rest;
use dunlin_sim::{run_caught, shrink, twice};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// `.ci/run` takes 500; `TWICE_SEEDS=100000` for more.
fn seeds() -> u64 {
    std::env::var("TWICE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

/// What is everywhere when device 0 is copied, as it runs, to what is then device 3.
const BEFORE: &str = "1 0 start\n1 1 start\n1 2 start\n0 0 write kept 10\n0 0 write own 12\n0 1 write m 14\n0 2 mkdir d\n0 2 write d/e 15\n\
    4000 0 keep-all\n4100 0 copy 3\n";

/// What is done on both and on others at once, each at files of its own.
const AT_ONCE: &str = "4500 0 write at-0 31\n4550 3 write at-3 32\n4600 1 write at-1 33\n4900 0 save own 22\n\
    5200 3 save m 24\n5300 2 save d/e 25\n5400 3 move kept d/kept\n";

/// What is done when both were stopped, and on others.
const STOPPED: &str = "20000 0 write late-0 41\n20100 3 write late-3 42\n20200 2 write late-2 43\n";

const ALL: &[(&str, &str)] = &[
    ("at-0", "31"),
    ("at-1", "33"),
    ("at-3", "32"),
    ("d", "/"),
    ("d/e", "25"),
    ("d/kept", "10"),
    ("late-0", "41"),
    ("late-2", "43"),
    ("late-3", "42"),
    ("m", "24"),
    ("own", "22"),
];

/// The contents of what is changed since.
const OLD: &[&str] = &["12", "14", "15"];

/// One of the two becomes a device of its own.
fn parted(at_ms: u64, seed: u64) -> String {
    format!("{at_ms} {} part\n", if seed.is_multiple_of(4) { 0 } else { 3 })
}

/// All versions there are, each once.
fn versions(rest: &Rest) -> Vec<u32> {
    let mut all = contents(rest);
    all.dedup();
    all
}

/// What either wrote is there, under its name where nobody else wrote. Beside that are at most the old versions that
/// the folder of the one that joins had, as where any two folders unite.
fn all_is_there(rest: &Rest, more: &[(&str, &str)]) {
    let words = words(&rest.trees[0]);
    let is_new = |path: &str| path.contains('-');
    for (path, word) in ALL.iter().chain(more).filter(|(path, _)| is_new(path)) {
        assert_eq!(words.get(*path).map(String::as_str), Some(*word), "{path}");
    }
    let wanted = |word: &str| ALL.iter().chain(more).any(|(_, w)| *w == word) || OLD.contains(&word);
    let found: BTreeSet<&str> = words.values().map(String::as_str).collect();
    assert!(found.iter().all(|word| wanted(word)), "{words:?}");
    assert!(ALL.iter().chain(more).all(|(_, word)| found.contains(word)), "{words:?}");
}

#[test]
fn others_notice_and_what_both_made_is_there() {
    let acts = |seed| sorted(&format!("{BEFORE}{AT_ONCE}{STOPPED}{}", parted(25_000, seed)));
    cases(SEEDS, 4, acts, |_, rest| {
        assert_eq!(rest.outcome.twice, 2);
        all_is_there(rest, &[]);
    });
}

/// They are in one network, and nobody else is.
#[test]
fn they_hear_each_other_where_nobody_else_is() {
    let acts = |seed| {
        let alone = "4050 0 cut 1\n4050 0 cut 2\n4100 3 cut 1\n4100 3 cut 2\n4200 3 hear\n";
        let met = "26000 0 heal 1\n26010 0 heal 2\n27000 3 heal 1\n27000 3 heal 2\n";
        sorted(&format!("{BEFORE}{alone}{AT_ONCE}{STOPPED}{}{met}", parted(25_000, seed)))
    };
    cases(SEEDS, 4, acts, |_, rest| {
        assert_eq!(rest.outcome.twice, 2);
        all_is_there(rest, &[]);
    });
}

/// The one that was confirmed goes on out of reach, while the others take its copy for it: what both write at one path is
/// there, and what only one of them changed is that.
#[test]
fn what_one_makes_out_of_reach_of_all_who_know_the_other_counts_beside_that() {
    let acts = |seed: u64| {
        let (away, there) = if seed.is_multiple_of(2) { (0, 3) } else { (3, 0) };
        let cuts = format!("4100 {away} cut 1\n4100 {away} cut 2\n");
        let both = format!(
            "5000 {away} save own 31\n5100 {away} write at-away 32\n5200 {away} save m 33\n\
            6000 {there} save own 41\n6100 {there} write at-there 42\n6200 {there} save kept 43\n"
        );
        let restart = if seed.is_multiple_of(3) { format!("8000 {away} kill\n") } else { String::new() };
        format!(
            "{BEFORE}{cuts}{both}{restart}12000 {away} heal 1\n12100 {away} heal 2\n{}",
            parted(25_000, seed)
        )
    };
    cases(SEEDS, 4, acts, |_, rest| {
        assert_eq!(rest.outcome.twice, 2);
        let versions = versions(rest);
        for n in [15, 31, 32, 33, 41, 42, 43] {
            assert!(versions.contains(&n), "{n} of {versions:?}");
        }
        let words = words(&rest.trees[0]);
        let of = |path: &str| words.get(path).cloned().unwrap_or_default();
        assert_eq!([of("at-away"), of("at-there"), of("d/e")], ["32", "42", "15"]);
        assert!(copies(rest).iter().any(|copy| copy.starts_with("own~conflict-")), "{:?}", copies(rest));
    });
}

/// A person who did not understand starts both again, and they are stopped again.
#[test]
fn both_are_started_again_and_stopped_again() {
    let acts = |seed| {
        let again = "21000 0 start\n21000 3 start\n22000 0 write more-0 51\n22100 3 write more-3 52\n";
        sorted(&format!("{BEFORE}{AT_ONCE}{STOPPED}{again}{}", parted(45_000, seed)))
    };
    cases(SEEDS, 4, acts, |_, rest| {
        assert_eq!(rest.outcome.twice, 4);
        all_is_there(rest, &[("more-0", "51"), ("more-3", "52")]);
    });
}

/// It was off when it was copied: both begin anew, and only one of them is taken for what it was.
#[test]
fn a_machine_that_was_stopped_is_copied() {
    let acts = |seed: u64| {
        let stopped = BEFORE.replace("4000 0 keep-all", "3500 0 stop\n4000 0 keep-all\n4100 0 start");
        let away = if seed.is_multiple_of(2) {
            "4100 3 cut 1\n4100 3 cut 2\n9000 3 heal 1\n9900 3 heal 2\n"
        } else {
            ""
        };
        sorted(&format!("{stopped}{away}{AT_ONCE}{STOPPED}{}", parted(25_000, seed)))
    };
    cases(SEEDS, 4, acts, |_, rest| {
        assert_eq!(rest.outcome.twice, 2);
        all_is_there(rest, &[]);
    });
}

#[test]
fn flocks_hold_all_invariants_with_machines_that_run_twice() {
    let (next, noticed, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(None));
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
                return;
            }
            let outcome = run_caught(&twice::script(seed, 3));
            noticed.fetch_add(u64::from(outcome.twice > 1), Ordering::Relaxed);
            if let Some(broken) = outcome.broken {
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
        let short = shrink::shrink(&twice::script(seed, 3), broken.invariant);
        panic!("seed {seed} breaks \"{}\": {}\n{short}", broken.invariant, broken.what);
    }
    assert!(noticed.into_inner() > seeds() / 2, "too few were noticed");
}
