//! What changes cost the program, counted in what does not hang on the machine: rows of the index that are read, and
//! commits. Work that grows with the square of what there is shows as a share of a file that grows; a step that reads
//! many times what it did shows against its limit.
//!
//! The limits are what was measured when they were written, and a sixth more; who raises one says why.

#![allow(clippy::unwrap_used, reason = "a test")]

use crate::case_kit::{cases, words};
use std::cell::Cell;

/// What something costs one device.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Rows of the index that its program read.
    rows: u64,
    commits: u64,
}

/// Schedules that are tried: one that happens to look in the midst of what a user does looks again.
const SCHEDULES: u64 = 4;

/// What a script costs both of two devices until all is at rest, under the schedule that is the cheapest for each.
fn cost(acts: &str) -> [Cost; 2] {
    let out = Cell::new([Cost { rows: u64::MAX, commits: u64::MAX }; 2]);
    cases(
        SCHEDULES,
        2,
        |_| acts.to_owned(),
        |_, rest| {
            assert!(words(&rest.trees[0]) == words(&rest.trees[1]), "the trees differ");
            let before = out.get();
            let least = |d: usize| Cost {
                rows: before[d].rows.min(rest.reads[d]),
                commits: before[d].commits.min(rest.commits[d]),
            };
            out.set([least(0), least(1)]);
        },
    );
    out.get()
}

/// What `then` costs more than the files it is done with.
fn beyond(files: usize, then: &str) -> [Cost; 2] {
    let first = added(files);
    let nothing = "30000 0 remove nothing\n".repeat(then.lines().count());
    let [without, with] = [nothing.as_str(), then].map(|then| cost(&(first.clone() + then)));
    [0, 1].map(|d| Cost {
        rows: with[d].rows.saturating_sub(without[d].rows),
        commits: with[d].commits.saturating_sub(without[d].commits),
    })
}

fn path(i: usize) -> String {
    format!("d{}/{i}", i % DIRS)
}

const DIRS: usize = 4;
const FEW: usize = 200;
const MANY: usize = 800;

/// A user writes so many files.
fn added(files: usize) -> String {
    let dirs: String = (0..DIRS).map(|d| format!("3000 0 mkdir d{d}\n")).collect();
    dirs + &(0..files).map(|i| format!("3001 0 write {} {}\n", path(i), 10 + i)).collect::<String>()
}

fn each(files: usize, act: impl Fn(usize) -> String) -> String {
    (0..files).map(|i| format!("30000 0 {}\n", act(i))).collect()
}

/// So many rows are read for each file, by who made the change and by who hears of it; not more for each of many.
fn is_in_proportion(what: &str, limits: [u64; 2], cost: impl Fn(usize) -> [Cost; 2]) {
    let (few, many) = (cost(FEW), cost(MANY));
    for d in 0..2 {
        let share = |of: Cost, files: usize| of.rows as f64 / files as f64;
        let (a, b) = (share(few[d], FEW), share(many[d], MANY));
        eprintln!("{what}, device {d}: {a:.1} and {b:.1} rows a file, {:?} and {:?}", few[d], many[d]);
        assert!(
            b < 1.2 * a,
            "{what}, device {d}: {a:.1} rows for each of {FEW} files, {b:.1} for each of {MANY}"
        );
        assert!(b < limits[d] as f64, "{what}, device {d}: {b:.1} rows a file");
        let commits = many[d].commits;
        assert!(commits < MANY as u64 / 8, "{what}, device {d}: {commits} commits for {MANY} files");
    }
}

#[test]
fn what_each_of_many_files_costs_does_not_grow() {
    is_in_proportion("added", [39, 73], |n| cost(&added(n)));
    is_in_proportion("edited", [76, 89], |n| {
        beyond(n, &each(n, |i| format!("write {} {}", path(i), 5000 + i)))
    });
    is_in_proportion("deleted", [55, 68], |n| beyond(n, &each(n, |i| format!("remove {}", path(i)))));
    is_in_proportion("moved", [110, 95], |n| {
        beyond(n, &each(n, |i| format!("move {} d{}/m{i}", path(i), (i + 1) % DIRS)))
    });
}

#[test]
fn one_change_among_many_files_costs_what_it_costs_among_few() {
    // What is in a renamed directory is looked through once.
    const LOOKED_AT: u64 = 3;
    for (what, limits, act, looks) in [
        ("an edit", [165, 260], "30000 0 write d1/1 5000\n", 0),
        ("a delete", [125, 120], "30000 0 remove d1/1\n", 0),
        ("a file made", [155, 250], "30000 0 write d1/new 5000\n", 0),
        ("a directory renamed", [150, 150], "30000 0 move d1 e\n", LOOKED_AT),
    ] {
        for files in [FEW, MANY] {
            for (d, cost) in beyond(files, act).into_iter().enumerate() {
                eprintln!("{what} among {files}, device {d}: {cost:?}");
                let limit = limits[d] + looks * (files / DIRS) as u64;
                assert!(cost.rows < limit, "{what} among {files}, device {d}: {cost:?}");
                assert!(cost.commits < 6, "{what} among {files}, device {d}: {cost:?}");
            }
        }
    }
}
