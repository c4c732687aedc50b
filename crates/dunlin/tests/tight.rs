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
    _disks: Vec<Mount>,
    _temp: tempfile::TempDir,
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
    let (temp, base) = base()?;
    let mut nodes: Vec<Node> = names.iter().map(|name| Node::new(&base, name)).collect();
    let disks = nodes[1..].iter().map(|node| Mount::memory(&node.dir, DISK)).collect();
    fs::create_dir(&nodes[0].dir).unwrap();
    for i in 0..files {
        write(nodes[0].path(name(i)), noise(i, (BYTES / files) as usize));
    }
    let mut ticket = nodes[0].share();
    for keeper in nodes.iter_mut().skip(1) {
        keeper.join(&ticket);
        ticket = keeper.invite();
    }
    settle("joined", &nodes.iter().collect::<Vec<_>>());
    let before = tree(&nodes[0].dir);
    Some(Flock { nodes, files, before, _disks: disks, _temp: temp })
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
    flock.everywhere(|path, i| {
        // As editors do it: a version that is caught half written would be one more.
        let beside = path.parent().unwrap().with_extension("new");
        write(&beside, noise(1000 + i, 1000));
        fs::rename(beside, path).unwrap();
    });
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
