//! Devices whose disk goes back in time: state directory and folder together, as with a virtual machine, or the
//! folder alone, from a backup.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A copy of all that a stopped device has.
fn keep(node: &Node, backup: &Path) {
    fs::create_dir(backup).unwrap();
    copy(&node.home, &backup.join("state"));
    copy(&node.dir, &backup.join("folder"));
}

fn bring_back(node: &Node, backup: &Path) {
    fs::remove_dir_all(&node.home).unwrap();
    fs::remove_dir_all(&node.dir).unwrap();
    copy(&backup.join("state"), &node.home);
    copy(&backup.join("folder"), &node.dir);
}

fn named(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn conflict_copies(all: &Tree) -> Vec<String> {
    let names = all.keys().map(|p| p.escape_ascii().to_string());
    names.filter(|p| p.contains("~conflict-")).collect()
}

/// Three devices; the first was kept as it was, and then it and the others went on and are in sync.
fn went_on() -> (tempfile::TempDir, [Node; 3], Tree) {
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    let (mut a, mut c) = (a, Node::new(&base, "c"));
    for name in ["kept", "theirs", "own", "gone", "moved"] {
        write(a.path(name), format!("{name}, old"));
    }
    c.join(&b.invite());
    settle("before", &[&a, &b, &c]);
    a.stop();
    keep(&a, &base.join("backup"));
    a.run();
    a.until_connected(2, PATIENCE);
    write(a.path("own"), "own, newer");
    write(a.path("made"), "made");
    fs::remove_file(a.path("gone")).unwrap();
    settle("by itself", &[&a, &b, &c]);
    write(b.path("theirs"), "theirs, newer");
    fs::rename(c.path("moved"), c.path("moved away")).unwrap();
    let newer = settle("went on", &[&a, &b, &c]);
    a.stop();
    (temp, [a, b, c], newer)
}

#[test]
fn a_machine_that_went_back_takes_what_is_newer_and_brings_nothing_old() {
    let (temp, [mut a, b, c], newer) = went_on();
    bring_back(&a, &temp.path().join("backup"));
    a.run();
    a.until_connected(2, PATIENCE);
    let all = settle("back", &[&a, &b, &c]);
    assert_eq!(differences(&newer, &all), Vec::<String>::new());
    // And it goes on as any other.
    write(a.path("own"), "own, after that");
    let all = settle("after that", &[&a, &b, &c]);
    assert_eq!(fs::read(b.path("own")).unwrap(), b"own, after that");
    assert_eq!(conflict_copies(&all), Vec::<String>::new());
}

#[test]
fn what_is_changed_on_a_machine_that_went_back_before_it_meets_others_is_kept_with_what_they_have() {
    let (temp, [mut a, mut b, mut c], newer) = went_on();
    b.stop();
    c.stop();
    bring_back(&a, &temp.path().join("backup"));
    a.run_until_it_answers();
    write(a.path("kept"), "kept, edited");
    write(a.path("own"), "own, edited");
    write(a.path("alone"), "alone");
    a.wait();
    b.run();
    c.run();
    let all = settle("met", &[&a, &b, &c]);
    for (name, text) in [("kept", "kept, edited"), ("alone", "alone"), ("theirs", "theirs, newer")] {
        assert_eq!(fs::read_to_string(b.path(name)).unwrap(), text);
    }
    let copies = conflict_copies(&all);
    assert!(copies.len() == 1 && copies[0].starts_with("own~conflict-"), "{copies:?}");
    let both = [fs::read_to_string(c.path("own")).unwrap(), fs::read_to_string(c.path(&copies[0])).unwrap()];
    assert!(both.contains(&"own, newer".to_owned()) && both.contains(&"own, edited".to_owned()), "{both:?}");
    for name in ["made", "moved away"] {
        assert_eq!(all.get(&named(name)), newer.get(&named(name)), "{name}");
    }
    assert!(!all.contains_key(&named("gone")) && !all.contains_key(&named("moved")));
}

/// As of `rsync -a --delete backup/ folder/`, without the program's own directory: each file is renamed over what is
/// there, and then what the backup lacks is deleted.
fn restore(node: &Node, backup: &Path) {
    restore_dir(&node.dir, backup, &node.dir.with_extension("restored"));
}

fn restore_dir(dir: &Path, backup: &Path, beside: &Path) {
    let entries = |dir: &Path| {
        let all = fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|e| e.file_name() != ".dunlin");
        all.map(|e| (e.file_name(), e.file_type().unwrap().is_dir())).collect::<Vec<_>>()
    };
    for (name, is_dir) in entries(backup) {
        if is_dir {
            fs::create_dir_all(dir.join(&name)).unwrap();
            restore_dir(&dir.join(&name), &backup.join(&name), beside);
        } else {
            let old = backup.join(&name);
            fs::copy(&old, beside).unwrap();
            let time = fs::metadata(&old).unwrap().modified().unwrap();
            fs::File::options().write(true).open(beside).unwrap().set_modified(time).unwrap();
            fs::rename(beside, dir.join(&name)).unwrap();
        }
    }
    for (name, is_dir) in entries(dir) {
        match fs::symlink_metadata(backup.join(&name)) {
            Ok(_) => {}
            Err(_) if is_dir => fs::remove_dir_all(dir.join(&name)).unwrap(),
            Err(_) => fs::remove_file(dir.join(&name)).unwrap(),
        }
    }
}

/// Three devices with 40 files, and a backup of the first one's folder.
fn with_a_backup() -> (tempfile::TempDir, [Node; 3], PathBuf) {
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    let mut c = Node::new(&base, "c");
    c.join(&b.invite());
    // Each in one step: what is seen half written is an edit a moment later, and of the same minute as the rest.
    for i in 0..40 {
        write(base.join("new"), format!("file {i}, old"));
        fs::rename(base.join("new"), a.path(format!("f{i}"))).unwrap();
    }
    settle("an hour ago", &[&a, &b, &c]);
    let backup = base.join("backup");
    copy(&a.dir, &backup);
    (temp, [a, b, c], backup)
}

#[test]
fn an_old_backup_over_one_folder_is_taken_back_everywhere_with_one_command() {
    for running in [false, true] {
        let (_temp, [mut a, b, c], backup) = with_a_backup();
        // Since then most were edited, and some made.
        for i in 0..30 {
            write(b.path(format!("f{i}")), format!("file {i}, newer"));
            write(c.path(format!("new{i}")), format!("made {i}"));
        }
        let newer = settle("now", &[&a, &b, &c]);
        if running {
            restore(&a, &backup);
        } else {
            a.stop();
            restore(&a, &backup);
            a.run();
            a.until_connected(2, PATIENCE);
        }
        let old = settle("restored", &[&a, &b, &c]);
        assert_eq!(old.len(), 40, "running: {running}");
        assert_eq!(fs::read(c.path("f7")).unwrap(), b"file 7, old");
        let (code, out, err) = b.asks(&["undo"]);
        assert_eq!(code, 0, "running: {running}: {out}{err}");
        let all = settle("undone", &[&a, &b, &c]);
        assert_eq!(differences(&newer, &all), Vec::<String>::new(), "running: {running}: {out}{err}");
    }
}

/// As of a program that empties a folder and then brings back one file after the other, every second one under another name
/// at first.
fn empty_and_fill(node: &Node, backup: &Path, pauses: [u64; 2]) {
    let names = |dir: &Path| {
        let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        all.filter(|name| name != ".dunlin").collect::<Vec<_>>()
    };
    names(&node.dir).iter().for_each(|name| fs::remove_file(node.path(name)).unwrap());
    std::thread::sleep(Duration::from_millis(pauses[0]));
    let pause = || std::thread::sleep(Duration::from_millis(pauses[1]));
    for (i, name) in names(backup).iter().enumerate() {
        // What was renamed into a place that nothing had any more was added.
        if i % 2 == 0 || name.to_str().unwrap().starts_with("f3") {
            copy(&backup.join(name), &node.path(name));
        } else {
            copy(&backup.join(name), &node.path(".new"));
            pause();
            fs::rename(node.path(".new"), node.path(name)).unwrap();
        }
        pause();
    }
}

#[test]
fn an_old_backup_that_comes_slowly_after_all_was_deleted_is_taken_back_with_one_command() {
    for pauses in [[0, 50], [0, 250], [4000, 20]] {
        let (_temp, [a, b, c], backup) = with_a_backup();
        fs::remove_dir_all(backup.join(".dunlin")).unwrap();
        // Since then some were edited, some were made and some are gone.
        for i in 0..12 {
            write(b.path(format!("f{i}")), format!("file {i}, newer"));
            write(c.path(format!("new{i}")), format!("made {i}"));
        }
        (30..35).for_each(|i| fs::remove_file(c.path(format!("f{i}"))).unwrap());
        let newer = settle("now", &[&a, &b, &c]);
        // What was made a moment before would be part of it.
        std::thread::sleep(Duration::from_secs(4));
        empty_and_fill(&a, &backup, pauses);
        assert_eq!(settle("restored", &[&a, &b, &c]).len(), 40, "{pauses:?}");
        assert_eq!(fs::read(c.path("f7")).unwrap(), b"file 7, old");
        let (code, out, err) = b.asks(&["undo"]);
        assert_eq!(code, 0, "{pauses:?}: {out}{err}");
        let all = settle("undone", &[&a, &b, &c]);
        assert_eq!(differences(&newer, &all), Vec::<String>::new(), "{pauses:?}: {out}{err}");
    }
}

/// More than half of what there is was made since the backup: what the backup lacks is no delete yet.
#[test]
fn an_old_backup_that_lacks_too_much_halts_and_all_of_it_comes_back() {
    for running in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
        fs::create_dir_all(a.path("d")).unwrap();
        for i in 0..60 {
            write(a.path(format!("f{i}")), format!("file {i}, old"));
        }
        let backup = base.join("backup");
        copy(&a.dir, &backup);
        for i in 0..30 {
            write(a.path(format!("f{i}")), format!("file {i}, newer"));
        }
        for i in 0..240 {
            write(a.path(format!("d/new{i}")), format!("made {i}"));
        }
        // Who joins hears of them as what is there already: what comes later is young for a minute.
        let ticket = a.share();
        a.wait();
        b.join(&ticket);
        c.join(&b.invite());
        let newer = settle("now", &[&a, &b, &c]);
        if running {
            restore(&a, &backup);
        } else {
            a.stop();
            restore(&a, &backup);
            a.run();
            a.until_connected(2, PATIENCE);
        }
        let begun = std::time::Instant::now();
        loop {
            let (folder, count) = (a.folder(), "240 of 300 files were deleted");
            if folder["state"] == "halted" && folder["problems"].to_string().contains(count) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "running: {running}: {folder:#}");
        }
        // What is old and there is an edit, and goes on; what is not there is held.
        until("edits go on", PATIENCE, || fs::read(c.path("f7")).unwrap() == b"file 7, old");
        for node in [&b, &c] {
            assert_eq!(fs::read_dir(node.path("d")).unwrap().count(), 240, "running: {running}");
        }
        let (code, out, err) = a.asks(&["resume", "--reject"]);
        assert_eq!(code, 0, "running: {running}: {out}{err}");
        let back = settle("rejected", &[&a, &b, &c]);
        assert_eq!(back.len(), newer.len(), "running: {running}");
        let (code, out, err) = b.asks(&["undo"]);
        assert_eq!(code, 0, "running: {running}: {out}{err}");
        let all = settle("undone", &[&a, &b, &c]);
        assert_eq!(differences(&newer, &all), Vec::<String>::new(), "running: {running}: {out}{err}");
    }
}
