//! What had a path at a time, whatever became of the directories above it; and what belongs to the last mass change.
#![allow(clippy::unwrap_used)]

use crate::common::Device;
use crate::known::{dir, file, known_at, p};
use dunlin_core::ids::ContentId;
use dunlin_core::journal::Kind;
use dunlin_core::revert::{Unmet, Version, Which, choose, last_burst, number_at, select, versions};
use dunlin_core::rows::Rows;
use dunlin_core::state::Content;

fn text(v: &Version) -> String {
    let all = ["one", "two", "three", "x", "y", "in the new one"];
    match &v.content {
        Content::File { id, .. } => {
            let is = |t: &&&str| *id == ContentId(*blake3::hash(t.as_bytes()).as_bytes());
            all.iter().find(is).map_or_else(|| id.to_string(), |t| (*t).to_owned())
        }
        Content::Dir => "/".to_owned(),
        _ => "other".to_owned(),
    }
}

fn at(d: &Device, seconds: i64) -> Which {
    Which::Before(number_at(&d.index, 1000 + seconds).unwrap().unwrap())
}

fn chosen(d: &Device, path: &str, which: &Which, copy: bool) -> Result<Vec<String>, Unmet> {
    let told = |all: Vec<Version>| all.iter().map(|v| format!("{} {}", v.path, text(v))).collect();
    choose(&d.index, &p(path), which, copy).unwrap().map(told)
}

fn listed(d: &Device, under: &str) -> Vec<String> {
    let mut out = Vec::new();
    let was = |v: &Version| v.was.as_ref().map_or_else(String::new, |was| format!(" as {was}"));
    let told = |v: Version| out.push(format!("{} {} {:?}{}", v.path, text(&v), v.by.1, was(&v)));
    versions(&d.index, &p(under), told).unwrap();
    out
}

/// A directory with a file that is edited, renamed, moved below another one, and deleted in the end.
fn wandered() -> Device {
    let mut d = Device::new("a");
    dir(&mut d, "d");
    dir(&mut d, "d/sub");
    file(&mut d, "d/f", "one");
    file(&mut d, "d/sub/x", "x");
    known_at(&mut d, 1);
    file(&mut d, "d/f", "two");
    known_at(&mut d, 2);
    d.disk.rename(&p("d"), &p("e"));
    known_at(&mut d, 3);
    file(&mut d, "e/f", "three");
    known_at(&mut d, 4);
    dir(&mut d, "up");
    known_at(&mut d, 5);
    d.disk.rename(&p("e"), &p("up/g"));
    known_at(&mut d, 6);
    d
}

#[test]
fn what_had_a_path_then_is_found_by_it() {
    let mut d = wandered();
    for gone in [false, true] {
        // By the path of then, at the time of then, with all that was in it, changed since or not.
        let whole = ["d /", "d/f one", "d/sub /", "d/sub/x x"].map(String::from);
        for copy in [false, true] {
            assert_eq!(chosen(&d, "d", &at(&d, 1), copy).unwrap(), whole, "{gone} {copy}");
            assert_eq!(chosen(&d, "d/f", &at(&d, 1), copy).unwrap(), ["d/f one"]);
            assert_eq!(chosen(&d, "d/f", &at(&d, 2), copy).unwrap(), ["d/f two"]);
            assert_eq!(chosen(&d, "d/sub/x", &at(&d, 2), copy).unwrap(), ["d/sub/x x"]);
            assert_eq!(chosen(&d, "e/sub", &at(&d, 5), copy).unwrap(), ["e/sub /", "e/sub/x x"]);
            assert_eq!(chosen(&d, "e/f", &at(&d, 3), copy).unwrap(), ["e/f two"]);
            // It was not there yet, or not any more.
            assert_eq!(chosen(&d, "d/f", &at(&d, 3), copy), Err(Unmet::Nothing));
            assert_eq!(chosen(&d, "e/f", &at(&d, 2), copy), Err(Unmet::Nothing));
            assert_eq!(chosen(&d, "never", &at(&d, 2), copy), Err(Unmet::Unknown));
        }
        // Without a time: what it was last.
        assert_eq!(chosen(&d, "d/f", &Which::Newest, false).unwrap(), ["d/f two"], "{gone}");
        let newest = ["d /", "d/f two", "d/sub /", "d/sub/x x"].map(String::from);
        assert_eq!(chosen(&d, "d", &Which::Newest, false).unwrap(), newest, "{gone}: no bare directory");
        // What had the path is listed, with how it went from there.
        assert_eq!(listed(&d, "d/f"), ["d/f one Changed", "d/f two Moved"], "{gone}");
        assert_eq!(listed(&d, "d/sub/x"), ["d/sub/x x Moved"]);
        assert_eq!(listed(&d, "d"), ["d/f one Changed", "d / Moved"]);
        let all = listed(&d, "e/f");
        assert_eq!(all, ["e/f one Changed as d/f", "e/f two Changed", "e/f three Moved"], "{gone}");
        if !gone {
            // By the path of today what was there before is found, too.
            assert_eq!(listed(&d, "up/g/f"), ["up/g/f one Changed as d/f", "up/g/f two Changed as e/f"]);
            assert_eq!(chosen(&d, "up/g/f", &Which::Newest, false).unwrap(), ["up/g/f two"]);
            d.disk.remove(&p("up"));
            known_at(&mut d, 7);
        }
    }
    // What is there at a path by now is something else.
    dir(&mut d, "d");
    file(&mut d, "d/f", "in the new one");
    known_at(&mut d, 8);
    assert_eq!(chosen(&d, "d/f", &at(&d, 1), false).unwrap(), ["d/f one"]);
    assert_eq!(chosen(&d, "d", &at(&d, 1), false).unwrap(), ["d/f one", "d/sub /", "d/sub/x x"]);
    assert_eq!(chosen(&d, "d", &Which::Newest, false), Err(Unmet::Same), "nothing was deleted in it");
    d.check_totals();
}

#[test]
fn what_has_another_name_by_now_is_found_by_both() {
    let mut d = Device::new("a");
    dir(&mut d, "old");
    for (seconds, text) in [(1, "one"), (2, "two")] {
        file(&mut d, "doc", text);
        file(&mut d, "old/f", text);
        known_at(&mut d, seconds);
    }
    d.disk.rename(&p("doc"), &p("paper"));
    d.disk.rename(&p("old"), &p("new"));
    known_at(&mut d, 3);
    let before = ["paper one Changed as doc", "paper two Moved as doc"];
    assert_eq!(listed(&d, "paper"), before);
    assert_eq!(listed(&d, "doc"), ["doc one Changed", "doc two Moved"]);
    assert_eq!(listed(&d, "new/f"), ["new/f one Changed as old/f"]);
    let (one, two) = (["paper one".to_owned()], ["paper two".to_owned()]);
    for copy in [false, true] {
        assert_eq!(chosen(&d, "paper", &Which::Newest, copy).unwrap(), one);
        assert_eq!(chosen(&d, "paper", &at(&d, 1), copy).unwrap(), one);
        let id = Which::Content(blake3::hash(b"one").to_hex()[..16].to_owned());
        assert_eq!(chosen(&d, "paper", &id, copy).unwrap(), one);
        assert_eq!(chosen(&d, "doc", &Which::Newest, copy).unwrap(), ["doc two"]);
        assert_eq!(chosen(&d, "doc", &id, copy).unwrap(), ["doc one"]);
        assert_eq!(chosen(&d, "doc", &at(&d, 1), copy).unwrap(), ["doc one"]);
        assert_eq!(chosen(&d, "doc", &at(&d, 3), copy), Err(Unmet::Nothing), "it is elsewhere");
    }
    assert_eq!(chosen(&d, "paper", &at(&d, 2), false), Err(Unmet::Same));
    assert_eq!(chosen(&d, "paper", &at(&d, 2), true).unwrap(), two);
    // A directory is what was in it, where that is by now.
    assert_eq!(chosen(&d, "new", &at(&d, 1), false).unwrap(), ["new/f one"]);
    assert_eq!(chosen(&d, "new", &Which::Newest, false), Err(Unmet::Same), "nothing was deleted in it");
    // What was deleted had other names, too; and what is renamed after that is no part of it.
    file(&mut d, "paper", "three");
    known_at(&mut d, 4);
    d.disk.remove(&p("paper"));
    known_at(&mut d, 5);
    let gone = ["paper two Changed", "paper three Deleted"];
    assert_eq!(listed(&d, "paper"), [&before[..], &gone[..]].concat());
    assert_eq!(chosen(&d, "paper", &at(&d, 1), false).unwrap(), one);
    assert_eq!(chosen(&d, "paper", &Which::Newest, false).unwrap(), ["paper three"]);
    assert_eq!(listed(&d, "doc"), ["doc one Changed", "doc two Moved"]);
    d.check_totals();
}

#[test]
fn the_newest_that_differs_is_another_one_each_time() {
    let mut d = Device::new("a");
    for (seconds, text) in [(1, "one"), (2, "two"), (3, "three")] {
        file(&mut d, "n", text);
        known_at(&mut d, seconds);
    }
    d.disk.remove(&p("n"));
    known_at(&mut d, 4);
    let newest = |d: &Device| chosen(d, "n", &Which::Newest, false);
    for (seconds, text) in [(5, "three"), (6, "two"), (7, "three"), (8, "two")] {
        assert_eq!(newest(&d).unwrap(), [format!("n {text}")], "{seconds}");
        file(&mut d, "n", text);
        known_at(&mut d, seconds);
    }
    // Only if none differs it is as it was.
    file(&mut d, "m", "x");
    known_at(&mut d, 9);
    d.disk.remove(&p("m"));
    known_at(&mut d, 10);
    file(&mut d, "m", "x");
    known_at(&mut d, 11);
    assert_eq!(chosen(&d, "m", &Which::Newest, false), Err(Unmet::Same));
    // A directory that had the name is in nobody's place.
    d.disk.remove(&p("m"));
    known_at(&mut d, 12);
    dir(&mut d, "m");
    known_at(&mut d, 13);
    assert_eq!(chosen(&d, "m", &Which::Newest, false).unwrap(), ["m x"]);
    d.check_totals();
}

#[test]
fn names_that_went_round_are_those_of_then() {
    let mut d = Device::new("a");
    for (path, text) in [("f", "one"), ("g", "two"), ("h", "three")] {
        file(&mut d, path, text);
    }
    known_at(&mut d, 1);
    for (from, to) in [("f", "tmp"), ("h", "f"), ("g", "h"), ("tmp", "g")] {
        d.disk.rename(&p(from), &p(to));
    }
    known_at(&mut d, 2);
    for (path, was) in [("f", "one"), ("g", "two"), ("h", "three")] {
        assert_eq!(chosen(&d, path, &at(&d, 1), false).unwrap(), [format!("{path} {was}")]);
        // Names that go round in one go count as edits.
        assert_eq!(listed(&d, path), [format!("{path} {was} Changed")]);
    }
}

fn count(d: &Device) -> Option<(usize, usize)> {
    let burst = last_burst(&d.index, 10, 60, None).unwrap()?;
    Some((burst.count, select(&d.index, &burst.selection).unwrap().back.len()))
}

#[test]
fn a_file_that_is_written_all_the_time_joins_nothing() {
    let mut d = Device::new("a");
    for i in 0..40 {
        file(&mut d, &format!("f{i}"), "at first");
    }
    file(&mut d, "log", "0");
    known_at(&mut d, 1);
    // It is written for longer than any mass change lasts, before, between and after.
    let mut now = 1000;
    let log = |d: &mut Device, now: &mut u64, times: usize| {
        for _ in 0..times {
            *now += 15;
            file(d, "log", &now.to_string());
            known_at(d, *now);
        }
    };
    log(&mut d, &mut now, 10);
    assert_eq!(count(&d), None, "one file, however often");
    for i in 0..20 {
        file(&mut d, &format!("f{i}"), "good");
    }
    known_at(&mut d, now);
    log(&mut d, &mut now, 7);
    for i in 20..35 {
        file(&mut d, &format!("f{i}"), "a mistake");
    }
    known_at(&mut d, now);
    log(&mut d, &mut now, 20);
    let undo = |d: &Device| {
        let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap().selection;
        let back = select(&d.index, &burst).unwrap().back;
        let path = |b: &dunlin_core::revert::Back| b.path.to_string();
        back.iter().map(path).filter(|path| path != "log").collect::<Vec<_>>()
    };
    let mistake: Vec<String> = (20..35).map(|i| format!("f{i}")).collect();
    assert_eq!(undo(&d), mistake);
    // Nor does it join deletes to edits.
    for i in 0..20 {
        d.disk.remove(&p(&format!("f{i}")));
    }
    known_at(&mut d, now);
    log(&mut d, &mut now, 3);
    let mut removed: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    removed.sort();
    assert_eq!(undo(&d), removed);
}

#[test]
fn many_files_that_are_written_all_the_time_hide_no_mistake() {
    let mut d = Device::new("a");
    for i in 0..40 {
        file(&mut d, &format!("f{i}"), "at first");
    }
    let mut now = 1000;
    let log = |d: &mut Device, now: &mut u64, times: usize| {
        for _ in 0..times {
            *now += 15;
            for i in 0..12 {
                file(d, &format!("log{i}"), &now.to_string());
            }
            known_at(d, *now);
        }
    };
    log(&mut d, &mut now, 1);
    now += 1000;
    log(&mut d, &mut now, 40);
    let undo = |d: &Device| {
        let burst = last_burst(&d.index, 10, 60, None).unwrap().unwrap().selection;
        let back = select(&d.index, &burst).unwrap().back;
        let mut paths: Vec<_> = back.iter().map(|b| b.path.to_string()).collect();
        paths.sort();
        paths
    };
    let some = |name: &str, some: std::ops::Range<usize>| {
        let mut paths: Vec<_> = some.map(|i| format!("{name}{i}")).collect();
        paths.sort();
        paths
    };
    assert_eq!(undo(&d), some("log", 0..12), "nothing else was done");
    // They go on for long after it; so they do before.
    for i in 0..15 {
        file(&mut d, &format!("f{i}"), "a mistake");
    }
    known_at(&mut d, now);
    log(&mut d, &mut now, 40);
    assert_eq!(undo(&d), some("f", 0..15));
    for i in 15..30 {
        d.disk.remove(&p(&format!("f{i}")));
    }
    now += 2;
    known_at(&mut d, now);
    log(&mut d, &mut now, 40);
    assert_eq!(undo(&d), some("f", 15..30));
    // What was done before they began is older than they are.
    now += 1000;
    log(&mut d, &mut now, 40);
    assert_eq!(undo(&d), some("log", 0..12));
}

#[test]
fn a_mass_change_in_many_rounds_is_one() {
    let mut d = Device::new("a");
    for i in 0..30 {
        file(&mut d, &format!("f{i}"), "at first");
    }
    known_at(&mut d, 1);
    for round in 0..6 {
        // Half of them are gone over again and again.
        for i in 0..if round == 2 { 30 } else { 15 } {
            file(&mut d, &format!("f{i}"), &format!("round {round}"));
        }
        known_at(&mut d, 1000 + 10 * round);
    }
    assert_eq!(count(&d), Some((30, 30)));
}

#[test]
fn a_slow_mass_change_is_one() {
    // A delete of 2,000 files takes a minute; a busy file beside it is none of it.
    let mut d = Device::new("a");
    for i in 0..2000 {
        file(&mut d, &format!("f{i}"), "at first");
    }
    file(&mut d, "log", "0");
    known_at(&mut d, 1);
    for round in 0..20 {
        for i in 0..100 {
            d.disk.remove(&p(&format!("f{}", 100 * round + i)));
        }
        file(&mut d, "log", &round.to_string());
        known_at(&mut d, 100 + 3 * round);
    }
    assert_eq!(count(&d), Some((2000, 2000)));

    // A script that goes over its files slowly, more than once, and over each of them in several steps.
    let mut d = Device::new("a");
    for i in 0..12 {
        file(&mut d, &format!("f{i}"), "at first");
    }
    known_at(&mut d, 1);
    let mut now = 1000;
    for i in 0..12 {
        for step in 0..2 {
            now += 25;
            file(&mut d, &format!("f{i}"), &format!("step {step}"));
            known_at(&mut d, now);
        }
    }
    assert_eq!(count(&d), Some((12, 12)));
    assert!(d.index.totals().unwrap().files == 12);
    let kinds = last_burst(&d.index, 10, 60, None).unwrap().unwrap().selection.kinds;
    assert_eq!(kinds, Some([Kind::Changed].into()));
}
