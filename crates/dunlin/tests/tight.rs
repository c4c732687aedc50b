//! Disks that are nearly full: what an undo is to bring back has no room beside what the history keeps, and is not destroyed
//! for that.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Fewer than trip the brake.
const FILES: u64 = 99;
/// What all of them take.
const BYTES: u64 = 9_900_000;
const GROUPS: u64 = 3;
/// What it may take on a busy machine until all is back: a problem is tried again at least every 16 s.
const BACK: Duration = Duration::from_secs(120);

fn name(i: u64) -> String {
    format!("file {i}")
}

/// All that a disk of this many MB has room for besides the tree is less than the tree.
const DISK: &str = "size=12m";

/// Devices with the same files. All but the first have disks that are nearly full.
struct Flock {
    nodes: Vec<Node>,
    files: u64,
    before: Tree,
    disks: Vec<Mount>,
    _temp: tempfile::TempDir,
}

/// As editors do it: a version that is caught half written would be one more.
fn replace(path: &Path, bytes: Vec<u8>) {
    let beside = path.parent().unwrap().with_extension("new");
    write(&beside, bytes);
    fs::rename(beside, path).unwrap();
}

/// A command that was given; it is not waited for.
struct Asked(Child);

impl Drop for Asked {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn base() -> Option<(tempfile::TempDir, PathBuf)> {
    if let Some(why) = no_mounts() {
        skipped("disks that are nearly full", &why);
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    Some((temp, base))
}

fn flock(names: &[&str], files: u64) -> Option<Flock> {
    flock_on(DISK, names, files, BYTES / files)
}

fn flock_on(disk: &str, names: &[&str], files: u64, size: u64) -> Option<Flock> {
    let (temp, base) = base()?;
    let mut nodes: Vec<Node> = names.iter().map(|name| Node::new(&base, name)).collect();
    let disks = nodes[1..].iter().map(|node| Mount::memory(&node.dir, disk)).collect();
    fs::create_dir(&nodes[0].dir).unwrap();
    for i in 0..files {
        write(nodes[0].path(name(i)), noise(i, size as usize));
    }
    let mut ticket = nodes[0].share();
    // What is heard of later than the first of it would be young for a minute.
    nodes[0].wait();
    for keeper in nodes.iter_mut().skip(1) {
        keeper.join(&ticket);
        ticket = keeper.invite();
    }
    settle("joined", &nodes.iter().collect::<Vec<_>>());
    let before = tree(&nodes[0].dir);
    Some(Flock { nodes, files, before, disks, _temp: temp })
}

impl Flock {
    fn all(&self) -> Vec<&Node> {
        self.nodes.iter().collect()
    }

    /// Does this to every file, in groups: so the order in which the history got them is another one than that in which
    /// they are brought back.
    fn everywhere(&self, act: impl Fn(&Path, u64)) {
        for group in 0..GROUPS {
            for i in (0..self.files).filter(|i| i % GROUPS == group) {
                act(&self.nodes[0].path(name(i)), i);
            }
            settle("a part of the mistake", &self.all());
        }
        for keeper in &self.nodes[1..] {
            let kept = fs::read_dir(keeper.path(".dunlin/history")).unwrap().count() as u64;
            assert!(kept >= self.files, "{} has no room for the history to begin with", keeper.name);
        }
    }

    fn undo_on(&self, device: usize) {
        let (code, out, err) = self.nodes[device].asks(&["undo"]);
        assert_eq!(code, 0, "{out}{err}");
    }

    /// The same, without waiting for what comes of it.
    fn begins_to_undo_on(&self, device: usize) -> Asked {
        Asked(self.nodes[device].command(&["undo".as_ref()]).stdout(Stdio::null()).spawn().unwrap())
    }

    /// All is as it was, on every device.
    fn is_back(&self) {
        settle_within("all is back", &self.all(), BACK);
        for node in &self.nodes {
            assert!(tree(&node.dir) == self.before, "{} lacks {:?}", node.name, self.lacking(node));
        }
    }

    fn lacking(&self, node: &Node) -> Vec<String> {
        let is = tree(&node.dir);
        let lacks = self.before.iter().filter(|(path, thing)| is.get(*path) != Some(thing));
        lacks.map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }
}

#[test]
fn what_was_deleted_comes_back_where_there_is_no_room_for_copies() {
    let Some(flock) = flock(&["a", "b", "c"], FILES) else { return };
    flock.everywhere(|path, _| fs::remove_file(path).unwrap());
    flock.undo_on(1);
    flock.is_back();
}

#[test]
fn what_was_overwritten_comes_back_where_there_is_no_room_for_copies() {
    let Some(flock) = flock(&["a", "b", "c"], FILES) else { return };
    flock.everywhere(|path, i| replace(path, noise(1000 + i, 1000)));
    flock.undo_on(0);
    flock.is_back();
}

#[test]
fn one_keeper_suffices_while_the_other_is_frozen() {
    let Some(flock) = flock(&["a", "b", "c"], FILES) else { return };
    flock.everywhere(|path, _| fs::remove_file(path).unwrap());
    let _undo = flock.begins_to_undo_on(1);
    until("the first are back", PATIENCE, || !tree(&flock.nodes[0].dir).is_empty());
    flock.nodes[2].signal("STOP");
    until("one keeper has them all", BACK, || tree(&flock.nodes[1].dir) == flock.before);
    flock.nodes[2].signal("CONT");
    flock.is_back();
}

#[test]
fn a_keeper_that_is_killed_while_it_brings_back_loses_nothing() {
    let Some(mut flock) = flock(&["a", "b"], FILES) else { return };
    flock.everywhere(|path, _| fs::remove_file(path).unwrap());
    let _undo = flock.begins_to_undo_on(1);
    for part in [1, 20, 40, 60] {
        let keeper = flock.nodes[1].dir.clone();
        until("some are back", BACK, || tree(&keeper).len() >= part);
        flock.nodes[1].kill();
        flock.nodes[1].run_until_it_answers();
    }
    flock.is_back();
}

/// What was to come back and is not wanted any more is not gone for that: it can be had again.
#[test]
fn an_undo_that_is_taken_back_halfway_destroys_nothing() {
    // Twice as many deletes within a minute do not trip the brake either.
    let Some(mut flock) = flock(&["a", "b"], 45) else { return };
    flock.everywhere(|path, _| fs::remove_file(path).unwrap());
    let _undo = flock.begins_to_undo_on(1);
    until("some are back", BACK, || tree(&flock.nodes[1].dir).len() >= 10);
    flock.undo_on(1);
    settle_within("deleted again", &flock.all(), BACK);
    assert_eq!(tree(&flock.nodes[0].dir).len(), 0);
    flock.nodes[1].kill();
    flock.nodes[1].run_until_it_answers();
    settle("started again", &flock.all());
    flock.undo_on(1);
    flock.is_back();
}

/// More than half of the files are overwritten at once, on disks on which there is no room for what they were beside
/// them.
const OVERWRITTEN: u64 = 150;
const SIZE: u64 = 150_000;
/// So many of them there is room for.
const FIT: u64 = 70;

/// At once, or in two rounds, of which the first is carried out and has so many files.
fn overwritten(first: Option<u64>) -> Option<Flock> {
    let mut flock = flock_on("size=34m", &["a", "b", "c"], OVERWRITTEN, SIZE)?;
    if let Some(first) = first {
        // What there is room for is kept for longer than the test takes.
        for keeper in &mut flock.nodes[1..] {
            keeper.set("history", &serde_json::json!({"days": 30, "percent": 100}));
        }
        flock.nodes[0].until_connected(2, PATIENCE);
        (0..first).for_each(|i| flock.overwrite(i));
        settle("a part of the mistake", &flock.all());
    }
    (first.unwrap_or(0)..OVERWRITTEN).for_each(|i| flock.overwrite(i));
    for keeper in &flock.nodes[1..] {
        until("held", BACK, || {
            why_held(keeper).starts_with("150 of 150 files were overwritten by \"a\" within")
        });
    }
    Some(flock)
}

/// What is said of what the brake holds.
fn why_held(node: &Node) -> String {
    let folder = node.folder();
    let why =
        folder["problems"].as_array().unwrap().iter().find(|p| p["path"] == "").map(|p| p["why"].clone());
    why.filter(|_| folder["state"] == "halted").map_or(String::new(), |why| why.as_str().unwrap().into())
}

impl Flock {
    /// Every old version is on this device, in its place or in the history.
    fn has_all_old(&self, node: &Node) {
        let (old, mut has) = (contents(&self.before), contents(&tree(&node.dir)));
        has.extend(history(&node.dir));
        let gone = old.difference(&has).count();
        assert_eq!(gone, 0, "of {} on {}", old.len(), node.name);
    }

    fn overwrite(&self, i: u64) {
        replace(&self.nodes[0].path(name(i)), noise(1000 + i, SIZE as usize));
    }

    fn resume_on(&self, device: usize, how: &str) {
        let (code, out, err) = self.nodes[device].asks(&["resume", how]);
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn overwriting_more_than_the_history_has_room_for_is_held_and_rejecting_brings_all_back() {
    let Some(mut flock) = overwritten(Some(FIT)) else { return };
    assert!(why_held(&flock.nodes[1]).contains(" of them went to .dunlin/history"));
    // Additions arrive, and edits leave that nobody holds.
    write(flock.nodes[0].path("new"), b"by a");
    until("an addition arrives", PATIENCE, || {
        flock.nodes[1..].iter().all(|keeper| keeper.path("new").exists())
    });
    fs::remove_file(flock.nodes[1].path("new")).unwrap();
    until("a delete leaves", PATIENCE, || flock.all().iter().all(|node| !node.path("new").exists()));
    // A restart changes nothing, nor does a minute.
    flock.nodes[1].kill();
    flock.nodes[1].run_until_it_answers();
    until("held again", PATIENCE, || why_held(&flock.nodes[1]).contains("overwritten"));
    if has_time("what is held after a minute") {
        std::thread::sleep(Duration::from_secs(63));
    }
    for keeper in &flock.nodes[1..] {
        assert!(why_held(keeper).contains("--reject brings back everywhere"), "{}", why_held(keeper));
        flock.has_all_old(keeper);
    }
    flock.resume_on(1, "--reject");
    flock.is_back();
    assert!(flock.nodes.iter().all(|node| why_held(node).is_empty()));
}

#[test]
fn overwriting_that_is_accepted_goes_on_everywhere() {
    let Some(flock) = overwritten(None) else { return };
    flock.resume_on(2, "--accept");
    settle_within("accepted", &flock.all(), BACK);
    let now = tree(&flock.nodes[2].dir);
    assert!(now == tree(&flock.nodes[0].dir) && now.len() == flock.before.len());
    assert!(contents(&now).is_disjoint(&contents(&flock.before)));
}

#[test]
fn overwriting_goes_on_by_itself_once_there_is_room_and_is_not_held_where_there_is() {
    let Some(mut flock) = overwritten(None) else { return };
    for disk in &flock.disks {
        disk.remount("size=400m");
    }
    settle_within("room was made", &flock.all(), BACK);
    for keeper in &flock.nodes[1..] {
        flock.has_all_old(keeper);
    }
    // Again, with room.
    flock.before = tree(&flock.nodes[0].dir);
    let problems = flock.nodes[1].events("problem").len();
    for i in 0..OVERWRITTEN {
        replace(&flock.nodes[0].path(name(i)), noise(2000 + i, 1000));
    }
    settle_within("overwritten with room", &flock.all(), BACK);
    for keeper in &flock.nodes[1..] {
        flock.has_all_old(keeper);
    }
    assert_eq!(flock.nodes[1].events("problem").len(), problems);
}

/// Small versions, of which the history can keep all, were overwritten by larger ones, of which it cannot.
#[test]
fn what_an_undo_overwrites_is_not_held() {
    let Some(flock) = flock_on("size=34m", &["a", "b", "c"], 120, 5_000) else { return };
    for i in 0..120 {
        replace(&flock.nodes[0].path(name(i)), noise(1000 + i, 80_000));
    }
    settle("overwritten", &flock.all());
    flock.undo_on(1);
    flock.is_back();
    // Who hears of the edits before they were accepted may hold them for that moment (docs/decisions/0027); nobody had to decide.
    for keeper in &flock.nodes[1..] {
        assert_eq!(keeper.folder()["problems"], serde_json::json!([]));
    }
}

/// The first of many deletes are carried out everywhere before the brake halts, on the device where they are made if it has
/// one. More is added than there is room for, and a person rejects after more than a minute.
fn deleted_in_part(sender_has_a_brake: bool) {
    if !has_time("what was deleted before the brake halts, after a minute") {
        return;
    }
    let Some(mut flock) = flock_on("size=34m", &["a", "b", "c"], OVERWRITTEN, SIZE) else { return };
    if !sender_has_a_brake {
        flock.nodes[0].set("brake", &serde_json::json!({"percent": 100}));
        flock.nodes[0].until_connected(2, PATIENCE);
    }
    (0..FIT).for_each(|i| fs::remove_file(flock.nodes[0].path(name(i))).unwrap());
    settle("a part of the mistake", &flock.all());
    (FIT..OVERWRITTEN).for_each(|i| fs::remove_file(flock.nodes[0].path(name(i))).unwrap());
    let halted = if sender_has_a_brake { 0..1 } else { 1..3 };
    for node in &flock.nodes[halted.clone()] {
        until("held", BACK, || why_held(node).starts_with("150 of 150 files were deleted"));
        assert!(why_held(node).contains("70 of them"), "{}", why_held(node));
    }
    let added = |i: u64| flock.nodes[0].path(format!("new {i}"));
    (0..20).for_each(|i| write(added(i), noise(5000 + i, 1_000_000)));
    std::thread::sleep(Duration::from_secs(63));
    for keeper in &flock.nodes[1..] {
        assert!((0..20).any(|i| keeper.path(format!("new {i}")).exists()));
        flock.has_all_old(keeper);
    }
    flock.resume_on(halted.start, "--reject");
    (0..20).for_each(|i| fs::remove_file(added(i)).unwrap());
    flock.is_back();
}

#[test]
fn what_was_deleted_before_the_brake_halts_does_not_yield_until_that_is_decided() {
    deleted_in_part(false);
}

#[test]
fn nor_does_it_on_devices_that_are_not_halted_themselves() {
    deleted_in_part(true);
}
