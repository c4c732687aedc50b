//! From a few acts to many runs, and what they end with in words.

#![allow(dead_code, reason = "each of the tests that share this uses a part of it")]

use dunlin_core::names::is_conflict_name;
use dunlin_core::path::Name;
use dunlin_sim::chance::Chance;
use dunlin_sim::disk::Thing;
use dunlin_sim::rest::{self, Rest};
use dunlin_sim::script::{Script, Setup};
use dunlin_sim::users::bytes;
use std::collections::BTreeMap;

/// Seeds of a case, of which a developer's run takes a fifth.
pub const SEEDS: u64 = 200;

/// Tells the script if a check of it panics.
struct Telling<'a>(&'a Script);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the script:\n{}", self.0);
        }
    }
}

/// Runs the acts of each seed; every device starts at once unless the acts say so.
pub fn cases(seeds: u64, devices: usize, acts: impl Fn(u64) -> String, check: impl Fn(u64, &Rest)) {
    // All of them in `.ci/run`; so many times as many, for a long run.
    let times = std::env::var("CASE_TIMES").ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = times.map_or(if seeds < SEEDS / 2 { seeds } else { seeds / 5 }, |times| seeds * times);
    for seed in 0..seeds {
        let text = acts(seed);
        let starts: String = (0..devices).map(|d| format!("0 {d} start\n")).collect();
        let starts = if text.contains("start") { "" } else { &starts };
        // What is before everything else is there before the programs run.
        let (before, after): (Vec<&str>, Vec<&str>) = text.lines().partition(|l| l.trim().starts_with("0 "));
        let text = format!("flock 1 1 1 0 0\n{}\n{starts}{}", before.join("\n"), after.join("\n"));
        let mut script: Script = text.parse().unwrap_or_else(|e| panic!("{e:?}"));
        let tick_ns = if seed % 2 == 0 { 1 } else { 4_000_000 };
        let skew_s = [0, 0, -3600, 315_360_000][(seed % 4) as usize];
        script.setup = Setup { seed, devices, tick_ns, errors: 0, skew_s, disks: Vec::new() };
        let telling = Telling(&script);
        let rest = rest::run(&script);
        assert_eq!(rest.outcome.broken, None, "seed {seed}");
        check(seed, &rest);
        drop(telling);
    }
}

pub fn case(devices: usize, acts: &str, check: impl Fn(&Rest)) {
    cases(SEEDS, devices, |_| acts.to_owned(), |_, rest| check(rest));
}

/// Acts in order of their time.
pub fn sorted(text: &str) -> String {
    let at = |line: &&str| line.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(at);
    lines.join("\n")
}

/// The number of a content; of what no act wrote there is none.
pub fn number(bytes_of: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(bytes_of);
    let n = text.split_whitespace().nth(1).and_then(|w| w.parse().ok()).unwrap_or(0);
    assert_eq!(bytes(n), bytes_of, "no content of an act");
    n
}

/// The tree as words: a file is its content's number, a directory a slash, a link an arrow and its text.
pub fn words(tree: &BTreeMap<String, Thing>) -> BTreeMap<&str, String> {
    let word = |t: &Thing| match t {
        Thing::Dir { .. } => "/".to_owned(),
        Thing::File { bytes, .. } => number(bytes).to_string(),
        Thing::Link(text) => format!("> {}", String::from_utf8_lossy(text)),
        Thing::Other => "?".to_owned(),
    };
    tree.iter().map(|(p, t)| (p.as_str(), word(t))).collect()
}

/// The tree that all devices show is just this: `path word` each.
#[track_caller]
pub fn shows(rest: &Rest, expected: &[(&str, &str)]) {
    let expected: BTreeMap<&str, String> = expected.iter().map(|(p, w)| (*p, (*w).to_owned())).collect();
    for tree in &rest.trees {
        assert_eq!(words(tree), expected);
    }
}

/// The conflict copies in the tree of all devices.
pub fn copies(rest: &Rest) -> Vec<String> {
    let is = |p: &&String| {
        p.rsplit('/').next().and_then(|n| Name::new(n.as_bytes()).ok()).is_some_and(|n| is_conflict_name(&n))
    };
    rest.trees[0].keys().filter(is).cloned().collect()
}

/// The contents of files in the tree of all devices.
pub fn contents(rest: &Rest) -> Vec<u32> {
    let file = |t: &Thing| match t {
        Thing::File { bytes, .. } => Some(number(bytes)),
        _ => None,
    };
    let mut all: Vec<u32> = rest.trees[0].values().filter_map(file).collect();
    all.sort_unstable();
    all
}

pub fn pairs(devices: usize) -> Vec<(usize, usize)> {
    (0..devices).flat_map(|a| (a + 1..devices).map(move |b| (a, b))).collect()
}

/// Nobody can reach anybody from this moment.
pub fn apart(at_ms: u64, devices: usize) -> String {
    pairs(devices).iter().map(|(a, b)| format!("{at_ms} {a} cut {b}\n")).collect()
}

/// They can again, pair by pair, in an order of the seed, from this moment on.
pub fn together(mut at_ms: u64, devices: usize, seed: u64) -> String {
    let (mut order, mut chance, mut out) = (pairs(devices), Chance::new(seed, "together"), String::new());
    while !order.is_empty() {
        let (a, b) = order.swap_remove(chance.below(order.len() as u64) as usize);
        out += &format!("{at_ms} {a} heal {b}\n");
        at_ms += [0, 3, 40, 900][chance.below(4) as usize];
    }
    out
}

/// `before` is everywhere; then, while nobody reaches anybody, each line of `meanwhile` happens.
pub fn while_apart(devices: usize, before: &str, meanwhile: &str, seed: u64) -> String {
    let mut chance = Chance::new(seed, "meanwhile");
    let before: String = before.lines().map(|l| format!("0 {}\n", l.trim())).collect();
    let mut at = 6000;
    let meanwhile: String = meanwhile
        .lines()
        .map(|l| {
            at += chance.below(3) * 7;
            format!("{at} {}\n", l.trim())
        })
        .collect();
    format!("{before}{}{meanwhile}{}", apart(5000, devices), together(7000, devices, seed))
}

pub fn apart_case(devices: usize, before: &str, meanwhile: &str, check: impl Fn(&Rest)) {
    cases(SEEDS, devices, |seed| while_apart(devices, before, meanwhile, seed), |_, rest| check(rest));
}
