//! What restore and undo do where not all is as one would wish: nothing comes of it, not all can be had, deletes are held, or
//! whoever has it goes away.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use serde_json::Value;
use std::fs;

#[path = "undo/again.rs"]
mod again;

const FILES: usize = 60;

/// Three devices with a tree of files in two directories.
fn three() -> (tempfile::TempDir, Node, Node, Node) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    fs::create_dir_all(a.path("d/deep")).unwrap();
    for i in 0..FILES {
        write(a.path(file(i)), format!("content {i}"));
    }
    let ticket = a.share();
    // Who joins is to hear of them as what is there already: what comes later is young for a minute.
    a.wait();
    b.join(&ticket);
    c.join(&b.invite());
    settle("the beginning", &[&a, &b, &c]);
    (temp, a, b, c)
}

fn file(i: usize) -> String {
    if i.is_multiple_of(3) { format!("d/deep/{i}") } else { format!("d/{i}") }
}

/// A command that must fail as one clear line and a hint, and change nothing.
fn refused(node: &Node, args: &[&str], says: &[&str]) -> String {
    let before = tree(&node.dir);
    let (code, out, err) = node.asks(args);
    assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
    assert!(err.lines().count() == 2 && err.contains("hint:"), "{args:?}: {err}");
    says.iter().for_each(|what| assert!(err.contains(what), "{args:?}: {err}"));
    assert_eq!(differences(&tree(&node.dir), &before), Vec::<String>::new(), "{args:?} changed something");
    err
}

fn json(node: &Node, args: &[&str]) -> Value {
    let (code, out, err) = node.asks(&[args, &["--json"]].concat());
    assert_eq!(code, 0, "{args:?} on {}: {out}{err}", node.name);
    serde_json::from_str(&out).unwrap()
}

/// Nobody is halted for deletes.
fn none_are_held(nodes: &[&Node]) {
    for node in nodes {
        let halts = node.events("problem").into_iter().filter(|e| e["path"] == "");
        assert_eq!(halts.collect::<Vec<_>>(), Vec::<Value>::new(), "{}", node.name);
    }
}

#[test]
fn a_directory_that_lives_for_what_others_did_in_it_is_the_one_that_comes_back() {
    let (_temp, a, mut b, c) = three();
    b.stop();
    fs::remove_dir_all(a.path("d")).unwrap();
    settle("deleted", &[&a, &c]);
    write(b.path("d/deep/new"), "made meanwhile");
    write(b.path(file(1)), "edited meanwhile");
    let before = tree(&b.dir);
    b.run();
    let left = settle("together", &[&a, &b, &c]);
    let names: Vec<String> = left.keys().map(|k| k.escape_ascii().to_string()).collect();
    assert_eq!(names, ["d", "d/1", "d/deep", "d/deep/new"]);
    for node in [&a, &c] {
        assert_eq!(node.asks(&["undo"]).0, 0, "{}", node.name);
        assert_eq!(differences(&settle("taken back", &[&a, &b, &c]), &before), Vec::<String>::new());
        assert_eq!(node.asks(&["undo"]).0, 0, "{}", node.name);
        assert_eq!(differences(&settle("and again", &[&a, &b, &c]), &left), Vec::<String>::new());
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// From now on a brake trips for 20 files already.
fn with_a_tight_brake(node: &mut Node) {
    node.set("brake", &serde_json::json!({"files": 20}));
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_changed() {
    let (_temp, a, b, c) = three();
    write(a.path("x"), "a file");
    settle("a file", &[&a, &b, &c]);
    fs::remove_file(a.path("x")).unwrap();
    fs::remove_dir_all(a.path("d")).unwrap();
    settle("deleted", &[&a, &b, &c]);
    fs::create_dir(a.path("x")).unwrap();
    write(a.path("x/inside"), "of another kind");
    fs::create_dir(a.path("d")).unwrap();
    write(a.path("d/deep"), "of another kind, too");
    settle("in the way", &[&a, &b, &c]);
    for node in [&a, &b] {
        refused(node, &["restore", "x"], &["x cannot be restored, since x is a directory now", "--to PATH"]);
        refused(node, &["restore", "d/deep/0"], &["d/deep/0 cannot be restored, since d/deep is a file now"]);
    }
    // What nothing stands in the way of is restored; the rest is named.
    let (code, out, err) = b.asks(&["restore", "d"]);
    assert!(code == 1 && out.contains("d/deep is a file now"), "{out}{err}");
    assert!(err.contains("20 could not be restored: something else is in the way"), "{err}");
    let all = settle("restored", &[&a, &b, &c]);
    let there = |i: &usize| matches!(all.get(file(*i).as_bytes()), Some(Thing::File { .. }));
    assert_eq!((0..FILES).filter(there).count(), FILES - 20);
    refused(&b, &["restore", "d"], &["nor can 19 others be"]);
}

#[test]
fn what_is_asked_while_deletes_are_held_names_them() {
    let (_temp, mut a, mut b, mut c) = three();
    for node in [&mut a, &mut b, &mut c] {
        with_a_tight_brake(node);
    }
    // An earlier mass change, which nobody means.
    let before = settle("before", &[&a, &b, &c]);
    // The journal knows seconds.
    let since = format!("@{}", seconds());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    (0..15).for_each(|i| write(a.path(file(i)), format!("edited {i}")));
    let edited = settle("edited", &[&a, &b, &c]);
    fs::remove_dir_all(a.path("d")).unwrap();
    until("halted", PATIENCE, || a.folder()["state"] == "halted");
    let root = a.dir.to_str().unwrap();
    let command = format!("dunlin resume {root} --accept");
    let elsewhere = a.dir.with_file_name("elsewhere");
    for args in [
        &["undo"][..],
        &["undo", "--dry-run"],
        &["undo", "--since", "1m"],
        &["restore", "d/1"],
        &["restore", "d"],
        &["restore", "d/50", "--to", elsewhere.to_str().unwrap()],
    ] {
        let err = refused(&a, args, &["60 of 60 files were deleted here", &command, "--reject"]);
        assert!(!err.contains("nothing to undo") && !err.contains("as it was"), "{err}");
    }
    assert_eq!(differences(&tree(&b.dir), &edited), Vec::<String>::new(), "nothing came of it");
    // Nor does another device take for the last change what is older than what is held.
    for node in [&b, &c] {
        for args in [&["undo"][..], &["undo", "--dry-run"], &["undo", "--by", "a"]] {
            refused(node, args, &["what was changed last is held on \"a\"", "resume", "--since"]);
        }
        assert_eq!(json(node, &["undo", "--since", &since, "--dry-run"])["count"], 15);
    }
    assert_eq!(a.asks(&["resume", "--reject"]).0, 0);
    assert_eq!(differences(&settle("rejected", &[&a, &b, &c]), &edited), Vec::<String>::new());
    let undone = json(&a, &["undo"]);
    assert_eq!(undone["count"], 15, "{undone}");
    assert_eq!(contents(&settle("and undone", &[&a, &b, &c])), contents(&before));
}

#[test]
fn an_undo_that_lacks_something_changes_nothing_unless_asked_to() {
    let (_temp, mut a, mut b, mut c) = three();
    write(a.path("new"), "made in the same moment");
    let mut before = settle("before", &[&a, &b, &c]);
    fs::remove_dir_all(a.path("d")).unwrap();
    write(a.path("made"), "what is made stays");
    settle("deleted", &[&a, &b, &c]);
    // Half of it only one device has, which is away.
    let mut kept: Vec<_> =
        fs::read_dir(b.path(".dunlin/history")).unwrap().map(|e| e.unwrap().path()).collect();
    // What was made here may have been seen before anything was written to it: that is a version, too.
    kept.retain(|path| fs::metadata(path).unwrap().len() > 0);
    assert_eq!(kept.len(), FILES);
    kept.iter().take(FILES / 2).for_each(|path| fs::remove_file(path).unwrap());
    c.stop();
    for node in [&mut a, &mut b] {
        // Small files of a moment ago are remembered, too.
        node.stop();
        node.run_until_it_answers();
    }
    settle("one is away", &[&a, &b]);
    for node in [&a, &b] {
        let says = [
            "30 of 62 that would come back are held by no connected device",
            "not connected: c",
            "--partial",
        ];
        let err = node.asks(&["undo"]).2;
        says.iter().for_each(|what| assert!(err.contains(what), "{err}"));
        let all = tree(&node.dir);
        assert_eq!(all.len(), 2, "{all:?}");
        let (code, out, err) = node.asks(&["undo", "--dry-run"]);
        assert!(
            code == 1 && out.contains("to take back: 32 items by a") && out.contains("and 12 more"),
            "{out}{err}"
        );
        assert!(
            out.contains("32 items deleted: restored") && err.contains("without --partial"),
            "{out}{err}"
        );
    }
    let (code, out, err) = a.asks(&["undo", "--partial"]);
    assert!(
        code == 1 && out.contains("held by nobody connected") && err.contains("30 of it are held"),
        "{out}{err}"
    );
    let some = settle("a part", &[&a, &b]);
    assert_eq!(some.len(), 2 + 32, "{some:?}");
    // Later, as the hint says it.
    let command = err.split("but: dunlin ").nth(1).unwrap().trim().to_owned();
    let command: Vec<&str> = command.split(' ').collect();
    c.run();
    settle("all are there", &[&a, &b, &c]);
    for node in [&b, &a] {
        let (code, _, err) = node.asks(
            &command[..1]
                .iter()
                .copied()
                .chain(["--dry-run"])
                .chain(command[2..].iter().copied())
                .collect::<Vec<_>>(),
        );
        assert_eq!(code, 0, "{err}");
    }
    let (code, out, err) = a.asks(&command);
    assert_eq!(code, 0, "{command:?}: {out}{err}");
    let after = settle("the rest", &[&a, &b, &c]);
    before.insert(b"made".to_vec(), after[&b"made"[..]].clone());
    assert_eq!(differences(&after, &before), Vec::<String>::new());
}

#[test]
fn what_an_undo_removes_is_not_held_and_what_users_delete_is() {
    let (_temp, mut a, mut b, mut c) = three();
    for node in [&mut a, &mut b, &mut c] {
        with_a_tight_brake(node);
    }
    let whole = settle("before", &[&a, &b, &c]);
    (0..50).for_each(|i| fs::remove_file(a.path(file(i))).unwrap());
    until("halted", PATIENCE, || a.folder()["state"] == "halted");
    assert_eq!(a.asks(&["resume", "--accept"]).0, 0);
    let few = settle("accepted", &[&a, &b, &c]);
    assert_eq!(json(&b, &["undo"])["count"], 50);
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &whole), Vec::<String>::new());
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
        node.run_until_it_answers();
    }
    settle("started anew", &[&a, &b, &c]);
    // An undo of the undo removes most of the files: somebody asked for that, on whichever device.
    assert_eq!(json(&c, &["undo"])["count"], 50);
    assert_eq!(differences(&settle("and that again", &[&a, &b, &c]), &few), Vec::<String>::new());
    none_are_held(&[&a, &b, &c]);
    assert_eq!(json(&a, &["undo"])["count"], 50);
    assert_eq!(differences(&settle("and back", &[&a, &b, &c]), &whole), Vec::<String>::new());
    none_are_held(&[&a, &b, &c]);
    // One who deletes as many by hand, in the same minute, is asked.
    (0..50).for_each(|i| fs::remove_file(b.path(file(i))).unwrap());
    until("halted", PATIENCE, || b.folder()["state"] == "halted");
    let why = b.folder()["problems"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("50 of 60 files were deleted here"), "{why}");
    assert_eq!(b.asks(&["resume", "--reject"]).0, 0);
    assert_eq!(differences(&settle("rejected", &[&a, &b, &c]), &whole), Vec::<String>::new());
}

#[test]
fn a_restore_ends_when_the_last_holder_goes_and_what_is_missing_comes_with_it() {
    const SIZE: usize = 192 << 20;
    let (_temp, a, mut b) = pair();
    let mut bytes = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    write(a.path("large"), &bytes);
    let before = settle("before", &[&a, &b]);
    fs::remove_file(a.path("large")).unwrap();
    settle("deleted", &[&a, &b]);
    let (code, out, err) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| a.asks(&["restore", "large"]));
        until("it comes", PATIENCE, || a.folder()["need_bytes"].as_u64().unwrap() > 0);
        b.kill();
        asked.join().unwrap()
    });
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("problem: large: no connected device has it any more"), "{out}{err}");
    assert!(err.contains("1 could not be put in place yet") && err.contains("hint: "), "{err}");
    assert!(!a.path("large").exists());
    b.run();
    assert_eq!(differences(&settle("it is back", &[&a, &b]), &before), Vec::<String>::new());
}

#[test]
fn what_had_a_path_then_is_had_by_it_again() {
    let (_temp, a, b, c) = three();
    let at = seconds();
    // The journal knows seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let before = tree(&a.dir);
    fs::rename(a.path("d"), a.path("e")).unwrap();
    settle("renamed", &[&a, &b, &c]);
    write(a.path("e/1"), "edited since");
    settle("edited", &[&a, &b, &c]);
    fs::remove_dir_all(a.path("e")).unwrap();
    settle("deleted", &[&a, &b, &c]);
    let time = format!("@{at}");
    for node in [&a, &b] {
        let listed = json(node, &["history", "d/1"]);
        let versions = listed["versions"].as_array().unwrap();
        let fields = |v: &Value| (v["path"].clone(), v["fate"].clone(), v["by"].clone());
        let all: Vec<_> = versions.iter().map(fields).collect();
        assert_eq!(all, [("d/1".into(), "moved".into(), "a".into())], "{listed}");
    }
    let elsewhere = b.dir.with_file_name("elsewhere");
    let (code, _, err) = b.asks(&["restore", "d", "--at", &time, "--to", elsewhere.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    let below = |tree: &Tree| -> Tree {
        let inner = tree.iter().filter_map(|(p, t)| Some((p.strip_prefix(b"d/")?.to_vec(), t.clone())));
        inner.collect()
    };
    assert_eq!(differences(&tree(&elsewhere), &below(&before)), Vec::<String>::new());
    let restored = json(&c, &["restore", "d", "--at", &time]);
    assert_eq!(restored["restored"], FILES + 2, "{restored}");
    assert_eq!(differences(&settle("restored", &[&a, &b, &c]), &before), Vec::<String>::new());
}

#[test]
fn what_an_undo_would_do_is_said_of_each_thing_with_whose_it_was() {
    let (_temp, a, b, c) = three();
    let at = seconds();
    // The journal knows seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let before = tree(&a.dir);
    (0..12).for_each(|i| write(a.path(file(i)), format!("by a {i}")));
    write(a.path("made"), "by a");
    settle("a's", &[&a, &b, &c]);
    (6..15).for_each(|i| fs::remove_file(b.path(file(i))).unwrap());
    fs::rename(b.path("d/20"), b.path("moved")).unwrap();
    write(b.path("made"), "edited by b");
    settle("b's", &[&a, &b, &c]);
    let since = format!("@{at}");
    for node in [&a, &c] {
        let said = json(node, &["undo", "--since", &since, "--dry-run"]);
        let whose = serde_json::json!([["a", 7], ["b", 10]]);
        assert_eq!((&said["whose"], &said["done"]), (&whose, &false.into()), "{said}");
        let of = |path: &str| {
            let all = said["things"].as_array().unwrap();
            let one = all.iter().find(|t| t["path"] == path).unwrap();
            (one["fate"].as_str().unwrap().to_owned(), one["by"].as_str().unwrap().to_owned())
        };
        let is = |fate: &str, by: &str| (fate.to_owned(), by.to_owned());
        // Edited by one and deleted by the other: who deleted it.
        assert_eq!(of(&file(7)), is("deleted", "b"));
        assert_eq!(of(&file(1)), is("changed", "a"));
        assert_eq!(of("d/20"), is("moved", "b"));
        assert_eq!(of("made"), is("created", "a"));
        let (_, out, _) = node.asks(&["undo", "--since", &since, "--dry-run"]);
        for line in [
            "to take back: 7 items by a, 10 items by b",
            "9 items deleted: restored",
            "6 items changed: replaced by what it was",
            "1 item moved: moved back",
            "1 item created: removed",
        ] {
            assert!(out.contains(line), "{line}: {out}");
        }
        assert!(out.lines().any(|l| l.contains("removed") && l.contains("made  (created by a, ")), "{out}");
    }
    let said = json(&c, &["undo", "--dry-run", "--by", "b"]);
    assert_eq!((&said["by"], &said["whose"]), (&"b".into(), &serde_json::json!([["b", 11]])), "{said}");
    assert_eq!(json(&c, &["undo", "--since", &since])["count"], 17);
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &before), Vec::<String>::new());
}

#[test]
fn a_copy_made_and_the_original_removed_is_one_command_back() {
    let (_temp, a, b, c) = three();
    let before = tree(&a.dir);
    for args in [&["-a", "d", "copy"][..], &["-r", "d", "copy without times"]] {
        let copied = std::process::Command::new("cp").args(args).current_dir(&a.dir).status().unwrap();
        assert!(copied.success());
    }
    fs::remove_dir_all(a.path("d")).unwrap();
    let copies = settle("copied and removed", &[&a, &b, &c]);
    assert_eq!(copies.len(), 2 * (FILES + 2));
    assert_eq!(json(&b, &["undo"])["by"], "a");
    let mut whole = before;
    whole.extend(copies);
    // What was added stays.
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &whole), Vec::<String>::new());
}

#[test]
fn few_of_other_kinds_that_belong_to_a_mistake_go_back_with_it() {
    let (_temp, a, b, c) = three();
    write(a.path(file(50)), "edited on purpose, a while before");
    a.wait();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let before = settle("before", &[&a, &b, &c]);
    (0..40).for_each(|i| fs::remove_file(a.path(file(i))).unwrap());
    (40..43).for_each(|i| write(a.path(file(i)), "overwritten"));
    (43..47).for_each(|i| fs::rename(a.path(file(i)), a.path(format!("moved {i}"))).unwrap());
    write(a.path("made"), "meanwhile");
    let mut whole = before.clone();
    whole.insert(b"made".to_vec(), settle("a mistake", &[&a, &b, &c])[&b"made"[..]].clone());
    // What is no part of it is told, with what takes it back, too.
    let said = json(&b, &["undo", "--dry-run"]);
    let (left, made) = (&said["beside"]["left"], &said["beside"]["made"]);
    assert_eq!((&said["count"], &left[0]["path"], made), (&47.into(), &file(50).into(), &1.into()), "{said}");
    let (_, out, _) = b.asks(&["undo", "--dry-run"]);
    let command = |out: &str, begins: &str| {
        let line = out.lines().find_map(|line| line.trim().strip_prefix(begins).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{begins}: {out}"))
    };
    let too = command(&out, "this takes it back, too: dunlin ");
    let args: Vec<&str> = too.split(' ').chain(["--dry-run"]).collect();
    assert_eq!(json(&b, &args)["count"], 48);
    let (code, out, err) = b.asks(&["undo"]);
    assert_eq!(code, 0, "{out}{err}");
    let all = settle("undone", &[&a, &b, &c]);
    assert_eq!(differences(&all, &whole), Vec::<String>::new(), "{out}{err}");
    // After it, that takes back what is left, and nothing else.
    let too = command(&out, "this removes it, too: dunlin ");
    let args: Vec<&str> = too.split(' ').collect();
    assert_eq!(json(&b, &args)["count"], 2);
    let all = settle("that, too", &[&a, &b, &c]);
    assert!(!all.contains_key(&b"made"[..]) && all.len() == before.len());
    assert_eq!(fs::read_to_string(b.path(file(50))).unwrap(), "content 50");
}

#[test]
fn files_that_are_copied_slowly_were_made_and_not_edited() {
    let (_temp, a, b, c) = three();
    for round in 0.. {
        let begun = std::time::Instant::now();
        let name = |i: usize| a.path(format!("copy {round} {i}"));
        for what in ["", "the first part of it", "the first part of it, and the second"] {
            (0..15).for_each(|i| write(name(i), what));
            // It is known as it is now.
            a.wait();
        }
        // What is written to later is edited.
        if begun.elapsed() < std::time::Duration::from_secs(8) {
            break;
        }
    }
    let all = settle("copied", &[&a, &b, &c]);
    for node in [&a, &b] {
        refused(node, &["undo"], &["there is nothing to undo"]);
    }
    // Beside a mistake, too.
    (0..12).for_each(|i| write(a.path(file(i)), "a mistake"));
    (0..5).for_each(|i| write(a.path(format!("more {i}")), ""));
    a.wait();
    (0..5).for_each(|i| write(a.path(format!("more {i}")), "whole"));
    let mistaken = settle("a mistake", &[&a, &b, &c]);
    assert_eq!(json(&b, &["undo"])["count"], 12);
    let mut whole = mistaken;
    whole.extend(all);
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &whole), Vec::<String>::new());
}

#[test]
fn what_is_in_the_place_of_something_that_nobody_has_stays() {
    let (_temp, mut a, mut b, mut c) = three();
    (0..12).for_each(|i| fs::remove_file(a.path(file(i))).unwrap());
    settle("deleted", &[&a, &b, &c]);
    write(a.path("beside"), "in its place");
    a.wait();
    fs::rename(a.path("beside"), a.path(file(0))).unwrap();
    settle("replaced", &[&a, &b, &c]);
    for node in [&b, &c] {
        let kept = fs::read_dir(node.path(".dunlin/history")).unwrap().map(|e| e.unwrap().path());
        let it: Vec<_> = kept.filter(|path| fs::read(path).unwrap() == b"content 0").collect();
        assert_eq!(it.len(), 1, "{}", node.name);
        fs::remove_file(&it[0]).unwrap();
    }
    for node in [&mut a, &mut b, &mut c] {
        // Small files of a moment ago are remembered, too.
        node.stop();
        node.run_until_it_answers();
    }
    settle("started anew", &[&a, &b, &c]);
    let (code, out, err) = b.asks(&["undo", "--partial"]);
    assert!(code == 1 && err.contains("1 of it are held by no connected device"), "{out}{err}");
    let all = settle("a part", &[&a, &b, &c]);
    assert_eq!(fs::read(c.path(file(0))).unwrap(), b"in its place", "{all:?}");
    assert!((1..12).all(|i| c.path(file(i)).exists()), "{all:?}");
}
