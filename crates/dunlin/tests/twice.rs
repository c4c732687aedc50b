//! A state directory that was copied, and runs twice at once: both stop, say so, and spread nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A device and its copy, both stopped, and one that they know, running.
fn copied(discovery: bool) -> (tempfile::TempDir, [Node; 3]) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut twin] = ["a", "b", "twin"].map(|n| Node::new(&base, n));
    for node in [&mut a, &mut b, &mut twin] {
        node.discovery = discovery;
    }
    b.join(&a.share());
    write(a.path("file"), b"everywhere");
    settle("joined", &[&a, &b]);
    a.stop();
    copy(&a.home, &twin.home);
    copy(&a.dir, &twin.dir);
    // On another machine it would be at the same place.
    let folders = twin.home.join("folders");
    let config = fs::read_dir(folders).unwrap().next().unwrap().unwrap().path().join("folder.json");
    let hex = |path: &Path| path.to_str().unwrap().bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let text = fs::read_to_string(&config).unwrap();
    let moved = text.replace(&hex(&a.dir), &hex(&twin.dir));
    assert_ne!(moved, text);
    fs::write(&config, moved).unwrap();
    (temp, [a, b, twin])
}

fn has_stopped(node: &Node) -> bool {
    let folder = node.folder();
    let why = folder["problems"][0]["why"].as_str().unwrap_or_default();
    folder["state"] == "halted"
        && why.contains("runs a second time")
        && why.contains("remove its state directory")
}

fn both_stop(a: &mut Node, b: &Node, twin: &mut Node) {
    a.run_until_it_answers();
    twin.run_until_it_answers();
    until("both stop", PATIENCE, || has_stopped(a) && has_stopped(twin));
    // What is done there now goes nowhere, and nothing new comes.
    write(a.path("at a"), b"a");
    write(twin.path("at the twin"), b"twin");
    write(b.path("at b"), b"b");
    b.asks(&["wait", "--timeout", "3"]);
    for (node, other) in [(&*a, "at the twin"), (&*twin, "at a"), (b, "at a"), (b, "at the twin")] {
        assert!(!node.path(other).exists(), "{} has {other}", node.name);
    }
    assert!(!a.path("at b").exists() && !twin.path("at b").exists());
    assert_eq!(b.folder()["state"], "idle", "{:#}", b.folder());
    let (code, _, err) = a.asks(&["wait"]);
    assert!(code == 1 && err.contains("runs a second time"), "{err}");
    let (code, _, err) = a.asks(&["invite"]);
    assert!(code == 1 && err.contains("runs a second time"), "{err}");
}

fn one_goes_on(a: &mut Node, b: &Node, twin: &mut Node) {
    twin.stop();
    fs::remove_dir_all(&twin.home).unwrap();
    a.stop();
    a.run();
    settle("with one of them", &[a, b]);
    assert!(b.path("at a").exists() && a.path("at b").exists());
    // The other one's folder is not lost: it joins as a device of its own.
    twin.join(&a.invite());
    let tree = settle("the other one as a device of its own", &[a, b, twin]);
    assert_eq!(tree.keys().filter(|path| path.starts_with(b"at ")).count(), 3);
}

#[test]
fn on_one_network_they_hear_each_other_and_stop() {
    let (_temp, [mut a, b, mut twin]) = copied(true);
    both_stop(&mut a, &b, &mut twin);
    one_goes_on(&mut a, &b, &mut twin);
}

#[test]
fn where_they_cannot_hear_each_other_a_third_device_tells_them() {
    let (_temp, [mut a, b, mut twin]) = copied(false);
    both_stop(&mut a, &b, &mut twin);
    let told = b.events("note");
    assert!(
        told.iter().any(|note| note["text"].as_str().unwrap().contains("runs twice at once")),
        "{told:?}"
    );
    one_goes_on(&mut a, &b, &mut twin);
}
