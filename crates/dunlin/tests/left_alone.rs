//! What is not synced, where something of the folder should come or go.
#![allow(clippy::unwrap_used)]

use dunlin_testkit::{Node, PATIENCE, can, is_root, pair, settle, skipped, until, write};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What is said of a path in status.
fn problem(node: &Node, path: &str) -> Option<String> {
    let folder = node.folder();
    let problems = folder["problems"].as_array().unwrap();
    let of = |p: &&Value| p["path"] == path;
    problems.iter().find(of).map(|p| p["why"].as_str().unwrap().to_owned())
}

fn until_said(node: &Node, path: &str, words: &str) {
    until(words, PATIENCE, || problem(node, path).is_some_and(|why| why.contains(words)));
}

fn in_sync(node: &Node) -> bool {
    node.folder()["in_sync"] == true
}

#[test]
fn a_deleted_directory_stays_for_what_is_not_synced_and_goes_with_it() {
    let (_temp, a, mut b) = pair();
    fs::create_dir_all(a.path("d/sub/deep")).unwrap();
    write(a.path("d/sub/f"), "file");
    settle("made", &[&a, &b]);
    fifo(&b.path("d/sub/pipe"));
    let _socket = UnixListener::bind(b.path("d/sub/socket")).unwrap();
    fs::remove_dir_all(a.path("d")).unwrap();
    a.wait();
    b.wait();
    assert!(b.path("d/sub/pipe").exists());
    assert!(!b.path("d/sub/f").exists() && !b.path("d/sub/deep").exists());
    for path in ["d", "d/sub"] {
        until_said(&b, path, "kept: deleted elsewhere");
    }
    assert!(in_sync(&a) && in_sync(&b));
    // It is not announced again, and a restart knows it still.
    b.stop();
    b.run();
    b.until_connected(1, PATIENCE);
    until_said(&b, "d/sub", "kept: deleted elsewhere");
    until("in sync again", PATIENCE, || in_sync(&a) && in_sync(&b));
    assert!(!a.path("d").exists());

    fs::remove_file(b.path("d/sub/pipe")).unwrap();
    write(b.path("mark"), "a later change");
    settle_mark(&a, &b);
    assert!(b.path("d/sub/socket").exists());
    fs::remove_file(b.path("d/sub/socket")).unwrap();
    until("it goes with the last of them", PATIENCE, || !b.path("d").exists());
    settle("gone", &[&a, &b]);
    assert_eq!(b.folder()["problems"], serde_json::json!([]));
}

/// Waits until both are in sync, whatever the kept directories are.
fn settle_mark(a: &Node, b: &Node) {
    b.wait();
    a.wait();
    assert!(a.path("mark").exists());
}

#[test]
fn a_kept_directory_that_gets_a_file_is_announced_again() {
    let (_temp, a, b) = pair();
    fs::create_dir_all(a.path("d/sub")).unwrap();
    settle("made", &[&a, &b]);
    fifo(&b.path("d/sub/pipe"));
    fs::remove_dir_all(a.path("d")).unwrap();
    until_said(&b, "d", "kept: deleted elsewhere");
    b.wait();
    assert!(!a.path("d").exists());
    write(b.path("d/sub/new"), "new");
    settle("a directory again", &[&a, &b]);
    assert!(a.path("d/sub/new").exists());
    assert_eq!(problem(&b, "d"), None);
}

#[test]
fn what_is_not_synced_and_in_the_way_is_named_and_the_rest_goes_on() {
    let (_temp, a, b) = pair();
    for name in ["file", "dir", "moved"] {
        fifo(&b.path(name));
    }
    write(a.path("here"), "moves");
    write(a.path("file"), "file");
    fs::create_dir(a.path("dir")).unwrap();
    write(a.path("dir/inside"), "inside");
    for path in ["file", "dir"] {
        until_said(&b, path, "something that is not synced is in the way");
    }
    until("the rest comes", PATIENCE, || b.path("here").exists());
    fs::rename(a.path("here"), a.path("moved")).unwrap();
    until_said(&b, "moved", "something that is not synced is in the way");
    assert!(!in_sync(&b) && b.path("here").exists());
    for name in ["file", "dir", "moved"] {
        fs::remove_file(b.path(name)).unwrap();
    }
    settle("free", &[&a, &b]);
    assert_eq!(b.folder()["problems"], serde_json::json!([]));
}

#[test]
fn a_file_where_a_kept_directory_is_comes_when_that_goes() {
    let (_temp, a, b) = pair();
    fs::create_dir(a.path("d")).unwrap();
    settle("made", &[&a, &b]);
    fifo(&b.path("d/pipe"));
    fs::remove_dir(a.path("d")).unwrap();
    until_said(&b, "d", "kept: deleted elsewhere");
    write(a.path("d"), "a file now");
    until_said(&b, "d", "is in the way: it holds things that are not synced");
    fs::remove_file(b.path("d/pipe")).unwrap();
    settle("a file", &[&a, &b]);
    assert_eq!(fs::read(b.path("d")).unwrap(), b"a file now");
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn what_another_file_system_hides_is_not_deleted() {
    let (_temp, a, mut b) = pair();
    fs::create_dir(a.path("d")).unwrap();
    write(a.path("d/f"), "hidden at times");
    settle("made", &[&a, &b]);
    b.stop();
    let at = b.path("d");
    let args = ["-t", "tmpfs", "none", at.to_str().unwrap()];
    if !is_root() || !can("a mount in a folder", "mount", &args) {
        skipped("a mount in a folder", "needs root and mount");
        return;
    }
    let mounted = Mounted(&at);
    b.run();
    b.until_connected(1, PATIENCE);
    until_said(&b, "d", "another file system is mounted here");
    write(b.path("later"), "later");
    until("later changes travel", PATIENCE, || a.path("later").exists());
    write(a.path("d/f"), "changed while hidden");
    until_said(&b, "d/f", "another file system is mounted there");
    assert!(a.path("d/f").exists() && !b.path("d/f").exists());
    drop(mounted);
    settle("unmounted", &[&a, &b]);
    assert_eq!(fs::read(b.path("d/f")).unwrap(), b"changed while hidden");
    assert_eq!(b.folder()["problems"], serde_json::json!([]));
}

#[test]
fn what_is_not_synced_or_not_yet_known_goes_with_the_directory_it_is_in() {
    let (_temp, a, b) = pair();
    fs::create_dir_all(a.path("d/sub")).unwrap();
    write(a.path("d/sub/f"), "f");
    settle("d", &[&a, &b]);
    // Renamed by the other device: the pipe stays inside, and so does what nobody has heard of yet.
    fifo(&b.path("d/sub/pipe"));
    write(b.path("d/sub/meanwhile"), "made while the other renames");
    fs::rename(a.path("d"), a.path("e")).unwrap();
    settle("renamed by the other", &[&a, &b]);
    assert!(b.path("e/sub/pipe").exists() && !b.path("d").exists() && !a.path("e/sub/pipe").exists());
    assert_eq!(fs::read(a.path("e/sub/meanwhile")).unwrap(), b"made while the other renames");
    // Renamed here, with things of both kinds made just before and after.
    fifo(&b.path("e/pipe"));
    write(b.path("e/before"), "before");
    fs::rename(b.path("e"), b.path("g")).unwrap();
    write(b.path("g/after"), "after");
    let all = settle("renamed here", &[&a, &b]);
    assert!(b.path("g/pipe").exists() && b.path("g/sub/pipe").exists());
    let names: Vec<String> = all.keys().map(|k| k.escape_ascii().to_string()).collect();
    assert_eq!(names, ["g", "g/after", "g/before", "g/sub", "g/sub/f", "g/sub/meanwhile"]);
}

#[test]
fn a_directory_moved_over_the_one_it_was_in_is_that_directory() {
    for pipe in [false, true] {
        let (_temp, a, b) = pair();
        fs::create_dir_all(a.path("x/y")).unwrap();
        write(a.path("x/y/f"), "f");
        settle("x/y", &[&a, &b]);
        if pipe {
            fifo(&b.path("x/y/pipe"));
        }
        write(b.path("x/y/meanwhile"), "made while the other moves");
        fs::rename(a.path("x/y"), a.path("tmp")).unwrap();
        fs::remove_dir(a.path("x")).unwrap();
        fs::rename(a.path("tmp"), a.path("x")).unwrap();
        let all = settle("moved over", &[&a, &b]);
        let names: Vec<String> = all.keys().map(|k| k.escape_ascii().to_string()).collect();
        assert_eq!(names, ["x", "x/f", "x/meanwhile"]);
        assert!(!pipe || b.path("x/pipe").exists());
    }
}
