//! Every row of docs/conflicts.md, under many seeds of the network, of the order of events and of the clocks.

use crate::case_kit::{apart, number, together};
use dunlin_sim::disk::Thing;
use dunlin_sim::rest;
use dunlin_sim::script::{Script, Setup};
use dunlin_testkit::conflicts::{ROWS, Row, Shown, acts, is_documented};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Seeds of each row; "here" and "there" change places with every second one.
const SEEDS: u64 = 60;
const DEVICES: usize = 3;

/// So long after an act it was seen.
const LOOK_MS: u64 = 400;

fn done(mut at_ms: u64, device: usize, text: &str) -> String {
    acts(text, None).iter().fold(String::new(), |mut out, act| {
        match act[0].as_str() {
            "look" => at_ms += LOOK_MS,
            _ => drop(writeln!(out, "{at_ms} {device} {}", act.join(" "))),
        }
        out
    })
}

fn script(row: &Row, seed: u64) -> Script {
    // The first device is the one that shares.
    let (here, there) = if seed.is_multiple_of(2) || row.before.is_none() { (0, 1) } else { (1, 0) };
    let mut text = "flock 1 1 1 0 0\n".to_owned();
    match row.before {
        Some(before) => text += &done(0, 0, before),
        None => text += &[done(0, here, row.first.0), done(0, there, row.first.1)].concat(),
    }
    // Who joins is to meet the one that shares first, and not another that joins.
    text += "0 0 start\n0 1 start\n";
    text += if row.before.is_none() { "10000 2 start\n" } else { "0 2 start\n" };
    let rounds = [row.first, row.then].into_iter().skip(usize::from(row.before.is_none()));
    for (round, (this, that)) in rounds.filter(|r| *r != ("", "")).enumerate() {
        let at = 5_000 + 30_000 * round as u64;
        text += &apart(at, DEVICES);
        text += &done(at + 1_000, here, this);
        text += &done(at + 1_000 + seed % 3, there, that);
        text += &together(at + 2_500, DEVICES, seed);
    }
    let mut script: Script = text.parse().unwrap_or_else(|e| panic!("{e:?}: {text}"));
    let tick_ns = if seed % 4 < 2 { 1 } else { 4_000_000 };
    let skew_s = [0, -3600, 315_360_000][(seed % 3) as usize];
    script.setup = Setup { seed, devices: DEVICES, tick_ns, errors: 0, skew_s, disks: Vec::new() };
    script
}

fn shown(tree: &BTreeMap<String, Thing>) -> BTreeMap<String, Shown> {
    let one = |thing: &Thing| match thing {
        Thing::Dir { mode } => Shown { word: "/".into(), mode: (*mode).into(), secs: 0 },
        Thing::File { mode, mtime, bytes, .. } => {
            Shown { word: number(bytes).to_string(), mode: (*mode).into(), secs: mtime.secs }
        }
        Thing::Link(_) | Thing::Other => Shown { word: "?".into(), mode: 0, secs: 0 },
    };
    tree.iter().map(|(path, thing)| (path.clone(), one(thing))).collect()
}

#[test]
fn every_row_becomes_what_is_documented() {
    let mut wrong = Vec::new();
    for row in ROWS {
        for seed in 0..SEEDS {
            let script = script(row, seed);
            let rest = rest::run(&script);
            let documented = rest.trees.iter().all(|tree| is_documented(row, &shown(tree)));
            if rest.outcome.broken.is_some() || !documented {
                let Some(tree) = rest.trees.first() else { continue };
                wrong.push(format!(
                    "{} x {}: seed {seed}: {:?}, shows {:?}\n{script}",
                    row.here,
                    row.there,
                    rest.outcome.broken,
                    shown(tree)
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
