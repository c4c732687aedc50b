//! Versions restored to places outside the folder, and restores and undos on full disks, with real nodes.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::{
    Mount, Node, no_mounts, noise, pair, set_mode, set_mtime, settle, skipped, tree, write,
};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A command in a directory.
fn asks_in(node: &Node, dir: &Path, args: &[&str]) -> (i32, String, String) {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    dunlin_testkit::told(node.command(&args).current_dir(dir).output().unwrap())
}

fn told_in(node: &Node, dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = asks_in(node, dir, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

/// It fails as one clear line and a hint, and nothing is there but what was.
fn refused_in(node: &Node, dir: &Path, args: &[&str], why: &str) {
    let before = (tree(&node.dir), tree(dir));
    let (code, out, err) = asks_in(node, dir, args);
    assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
    assert!(err.contains(why) && err.lines().count() == 2 && err.contains("hint:"), "{args:?}: {err}");
    assert_eq!((tree(&node.dir), tree(dir)), before, "{args:?} changed something");
}

/// Makes of all that a history holds something else, without a change of its size.
fn damage_history(node: &Node) {
    for entry in fs::read_dir(node.path(".dunlin/history")).unwrap() {
        let path = entry.unwrap().path();
        let size = fs::metadata(&path).unwrap().len() as usize;
        fs::write(path, vec![b'x'; size]).unwrap();
    }
}

fn unless_root() -> bool {
    let why = no_mounts();
    if let Some(why) = &why {
        skipped("a full disk", why);
    }
    why.is_some()
}

#[test]
fn a_version_is_put_outside_every_folder_as_it_was_and_never_over_anything() {
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    let out = base.join("out");
    fs::create_dir_all(out.join("sub")).unwrap();
    let large = noise(1, 40 << 20);
    write(a.path("note"), "one");
    set_mode(&a.path("note"), 0o640);
    set_mtime(&a.path("note"), 1_000_000_000, 7);
    write(a.path("large"), &large);
    settle("the first", &[&a, &b]);
    write(a.path("note"), "two");
    write(a.path("large"), "small");
    settle("the second", &[&a, &b]);
    let before = tree(&a.dir);
    // The device that overwrote it has it no more. Where it goes is meant from the working directory.
    for (node, to) in [(&a, "sub/had"), (&b, "kept")] {
        told_in(node, &out, &["restore", node.path("note").to_str().unwrap(), "--to", to]);
        let meta = fs::metadata(out.join(to)).unwrap();
        assert_eq!(fs::read(out.join(to)).unwrap(), b"one");
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 1_000_000_000, 7));
        assert_eq!(meta.uid(), fs::metadata(&out).unwrap().uid());
    }
    told_in(&a, &out, &["restore", "large", "--to", "large"]);
    assert!(fs::read(out.join("large")).unwrap() == large);
    // What nobody has whole is not put there.
    damage_history(&b);
    refused_in(&b, &out, &["restore", "large", "--to", "damaged"], "no connected device has what it takes");
    refused_in(&a, &out, &["restore", "large", "--to", "damaged"], "no connected device has what it takes");
    // Nothing is replaced, whatever it is, and nothing made above it.
    std::os::unix::fs::symlink("nowhere", out.join("link")).unwrap();
    for there in ["sub", "kept", "link"] {
        refused_in(&a, &out, &["restore", "note", "--to", there], "is there already");
    }
    refused_in(&a, &out, &["restore", "note", "--to", "no/such/place"], "is not there");
    refused_in(&a, &out, &["restore", "note", "--to", "kept/below"], "is no directory");
    refused_in(&a, &out, &["restore", "never", "--to", "x"], "nothing is known of never");
    refused_in(&a, &out, &["restore", "note", "--version", "0123456789", "--to", "x"], "no such version");
    assert_eq!(tree(&a.dir), before);
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kept", "large", "link", "sub"], "nothing else is left");
}

#[test]
fn what_is_damaged_here_is_taken_from_another_device() {
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    let mut c = Node::new(&base, "c");
    c.join(&a.invite());
    let large = noise(1, 2 << 20);
    write(a.path("large"), &large);
    settle("the first", &[&a, &b, &c]);
    write(a.path("large"), "small");
    settle("the second", &[&a, &b, &c]);
    damage_history(&b);
    for node in [&a, &b, &c] {
        told_in(node, &base, &["restore", "large", "--to", &format!("large of {}", node.name)]);
        assert!(fs::read(base.join(format!("large of {}", node.name))).unwrap() == large);
    }
}

#[test]
fn a_directory_is_put_outside_with_what_any_device_kept() {
    let (temp, mut a, mut b) = pair();
    let base = temp.path().canonicalize().unwrap();
    let out = base.join("out");
    fs::create_dir(&out).unwrap();
    // Moved in whole: a file that is seen before its bytes came has a version more.
    let made = base.join("made");
    fs::create_dir_all(made.join("sub/empty")).unwrap();
    for i in 0..30u32 {
        write(made.join(format!("f{i}")), format!("file {i}"));
    }
    write(made.join("sub/deep"), "deep");
    std::os::unix::fs::symlink("/nowhere", made.join("link")).unwrap();
    fs::rename(made, a.path("docs")).unwrap();
    settle("there", &[&a, &b]);
    set_mode(&a.path("docs/sub"), 0o555);
    set_mode(&a.path("docs"), 0o711);
    settle("modes", &[&a, &b]);
    let before = tree(&a.path("docs"));
    set_mode(&a.path("docs/sub"), 0o755);
    fs::remove_dir_all(a.path("docs")).unwrap();
    settle("deleted", &[&a, &b]);
    for node in [&a, &b] {
        let to = format!("of {}", node.name);
        let said = told_in(node, &out, &["restore", "docs", "--to", &to, "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["restored"], 35, "{said}");
        let mode = |path: &str| fs::metadata(out.join(&to).join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(""), 0o711);
        let mut expected = before.clone();
        let mut found = tree(&out.join(&to));
        // A mode set just before a delete may be part of it.
        for tree in [&mut expected, &mut found] {
            tree.remove(&b"sub"[..]);
        }
        assert_eq!(found, expected);
        assert!(!node.path("docs").exists());
    }
    // What changed a moment ago is also in the memory of who wrote it, and of whom it was sent to with its row.
    for node in [&mut a, &mut b] {
        node.stop();
        node.run_until_it_answers();
    }
    settle("started again", &[&a, &b]);
    // What nobody has is named, and the rest is there.
    let kept = fs::read_dir(b.path(".dunlin/history")).unwrap().map(|e| e.unwrap().path());
    for file in kept.filter(|p| !p.is_symlink()).take(10) {
        fs::remove_file(file).unwrap();
    }
    let (code, said, err) = asks_in(&a, &out, &["restore", "docs", "--to", "rest"]);
    assert!(code == 1 && err.contains("no connected device has 10 of them"), "{err}");
    assert!(said.contains("held by nobody connected:\n  docs/"), "{said}");
    assert_eq!(tree(&out.join("rest")).len(), before.len() - 10);
}

#[test]
fn a_full_disk_outside_is_a_clear_line_and_leaves_nothing() {
    if unless_root() {
        return;
    }
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    fs::create_dir(a.path("docs")).unwrap();
    for i in 0..30u64 {
        write(a.path(format!("docs/f{i}")), noise(i, 100_000));
    }
    settle("there", &[&a, &b]);
    fs::remove_dir_all(a.path("docs")).unwrap();
    settle("deleted", &[&a, &b]);
    // Too few bytes is known before; too few files only when they are made.
    for (small, enough) in [("size=1m", "size=8m"), ("size=8m,nr_inodes=20", "nr_inodes=100")] {
        let disk = Mount::memory(&base.join("out"), small);
        for node in [&a, &b] {
            refused_in(node, &base.join("out"), &["restore", "docs", "--to", "docs"], "its disk is full");
            assert_eq!(fs::read_dir(base.join("out")).unwrap().count(), 0, "nothing hidden is left");
        }
        disk.remount(enough);
        for node in [&a, &b] {
            told_in(node, &base.join("out"), &["restore", "docs", "--to", &node.name]);
            assert_eq!(tree(&base.join("out").join(&node.name)).len(), 30);
        }
    }
}

#[test]
fn a_full_disk_of_the_folder_refuses_restore_and_undo_and_both_work_with_room() {
    if unless_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let disk = Mount::memory(&b.dir, "size=16m,nr_inodes=1000");
    fs::create_dir_all(a.path("docs")).unwrap();
    for i in 0..20u64 {
        write(a.path(format!("docs/large {i}")), noise(i, 200_000));
    }
    for i in 0..20u64 {
        write(a.path(format!("docs/small {i}")), noise(i, 100));
    }
    b.join(&a.share());
    let before = settle("there", &[&a, &b]);
    // Deleted on b: what comes back has to come from a, and needs room.
    fs::remove_dir_all(b.path("docs")).unwrap();
    let gone = settle("deleted", &[&a, &b]);
    let filled = b.path(".dunlin/theirs");
    let refuse = |why: &str| {
        for args in [&["restore", "docs"][..], &["undo"]] {
            let (code, out, err) = b.asks(args);
            assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
            assert!(err.contains("nothing was changed") && err.contains(why), "{args:?}: {err}");
            assert!(err.lines().count() == 2 && err.contains("hint: make room"), "{args:?}: {err}");
        }
        assert_eq!(settle("refused", &[&a, &b]), gone);
    };
    let used = |kib: usize| fs::write(&filled, vec![7; kib << 10]).unwrap();
    used(14 << 10);
    refuse("the disk is full: needs");
    fs::remove_file(&filled).unwrap();
    disk.remount("nr_inodes=40");
    refuse("no more files");
    disk.remount("nr_inodes=2000");
    let (code, _, err) = b.asks(&["undo"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(settle("undone", &[&a, &b]), before);
    // The other way round: restored where there is room, it comes to the full disk when that has some.
    fs::remove_dir_all(b.path("docs")).unwrap();
    settle("deleted again", &[&a, &b]);
    used(14 << 10);
    let (code, _, err) = a.asks(&["restore", "docs"]);
    assert_eq!(code, 0, "{err}");
    dunlin_testkit::until("what does not fit is told", std::time::Duration::from_secs(60), || {
        b.folder()["problems"].to_string().contains("the disk is full")
    });
    fs::remove_file(&filled).unwrap();
    assert_eq!(settle("restored", &[&a, &b]), before);
    b.stop();
}
