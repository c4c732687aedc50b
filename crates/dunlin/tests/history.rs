//! What was replaced or deleted: listed, had again, taken back, with real nodes.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::{Node, Tree, identical, pair, settle, tree, until, write};
use serde_json::Value;
use std::fs;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn told(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = node.asks(args);
    assert_eq!(code, 0, "{args:?} on {}: {out}{err}", node.name);
    out
}

fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&told(node, &[args, &["--json"]].concat())).unwrap()
}

/// A command that must fail as one clear line and a hint, and change nothing.
fn refused(node: &Node, args: &[&str], why: &str) {
    let before = tree(&node.dir);
    let (code, out, err) = node.asks(args);
    assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
    assert!(err.contains(why) && err.lines().count() == 2 && err.contains("hint:"), "{args:?}: {err}");
    assert_eq!(tree(&node.dir), before, "{args:?} changed something");
}

fn kept(node: &Node) -> usize {
    fs::read_dir(node.path(".dunlin/history")).unwrap().count()
}

fn forget_history(node: &Node) {
    for entry in fs::read_dir(node.path(".dunlin/history")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// Some of a tree.
fn part(tree: &Tree, which: impl Fn(&[u8]) -> bool) -> Tree {
    tree.iter().filter(|(path, _)| which(path)).map(|(path, thing)| (path.clone(), thing.clone())).collect()
}

/// Three devices with a small tree.
fn three() -> (tempfile::TempDir, Node, Node, Node) {
    let (temp, a, b) = pair();
    let base = temp.path().canonicalize().unwrap();
    fs::create_dir_all(a.path("docs/sub/empty")).unwrap();
    for i in 0..30 {
        write(a.path(format!("docs/f{i}")), format!("file {i}"));
    }
    write(a.path("docs/sub/deep"), "deep");
    std::os::unix::fs::symlink("f1", a.path("docs/link")).unwrap();
    dunlin_testkit::set_mode(&a.path("docs/f1"), 0o640);
    dunlin_testkit::set_mtime(&a.path("docs/f2"), 1_000_000_000, 7);
    let mut c = Node::new(&base, "c");
    c.join(&b.invite());
    settle("three devices", &[&a, &b, &c]);
    (temp, a, b, c)
}

/// Whole as it comes: what is written in place may be seen before anything is, and is a version more then.
fn save(node: &Node, name: &str, text: &str) {
    let beside = node.dir.with_extension("saved");
    write(&beside, text);
    fs::rename(beside, node.path(name)).unwrap();
}

#[test]
fn versions_are_listed_with_who_and_who_has_them_and_each_can_be_had_again() {
    let (_temp, a, b, c) = three();
    save(&a, "note", "one");
    settle("the first", &[&a, &b, &c]);
    save(&b, "note", "two, by b");
    settle("the second", &[&a, &b, &c]);
    save(&a, "note", "three");
    settle("the third", &[&a, &b, &c]);
    let listed = json(&a, &["history", "note"]);
    let versions = listed["versions"].as_array().unwrap();
    let field = |key: &str| versions.iter().map(|v| v[key].clone()).collect::<Vec<_>>();
    assert_eq!(field("by"), ["a", "b"]);
    assert_eq!(field("author"), ["b", "a"]);
    assert_eq!(field("size"), [9, 3]);
    assert_eq!(field("fate"), ["changed", "changed"]);
    let id = |bytes: &str| blake3::hash(bytes.as_bytes()).to_hex()[..16].to_owned();
    assert_eq!(field("version"), [id("two, by b"), id("one")]);
    // The device that overwrote it has it no more; those that took the change over have.
    assert_eq!(field("here"), [false, true]);
    assert_eq!(versions[0]["devices"], serde_json::json!(["b", "c"]));
    // The newest that differs; by its name; as it was at a time; somewhere else.
    told(&a, &["restore", "note"]);
    assert_eq!(fs::read(a.path("note")).unwrap(), b"two, by b");
    settle("restored", &[&a, &b, &c]);
    assert_eq!(fs::read(c.path("note")).unwrap(), b"two, by b", "everywhere");
    told(&c, &["restore", "note", "--version", &id("one")]);
    settle("restored by c", &[&a, &b, &c]);
    assert_eq!(fs::read(a.path("note")).unwrap(), b"one");
    let elsewhere = b.path("old/notes/note");
    told(&b, &["restore", "note", "--version", &id("three"), "--to", elsewhere.to_str().unwrap()]);
    settle("restored elsewhere", &[&a, &b, &c]);
    assert_eq!(fs::read(a.path("old/notes/note")).unwrap(), b"three");
    assert_eq!(fs::read(b.path("note")).unwrap(), b"one", "what is there stays");
}

#[test]
fn a_renamed_file_has_its_history_and_the_newest_that_differs_is_another_each_time() {
    let (_temp, a, b) = pair();
    save(&a, "doc", "one");
    settle("the first", &[&a, &b]);
    std::thread::sleep(Duration::from_millis(2100));
    let then = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 1;
    save(&b, "doc", "two");
    settle("the second", &[&a, &b]);
    fs::rename(a.path("doc"), a.path("paper")).unwrap();
    settle("renamed", &[&a, &b]);
    let listed = told(&b, &["history", "paper"]);
    let of = |rest: &str| listed.lines().filter(|line| line.contains(rest)).count();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert_eq!(
        (of("  paper  as doc  written by a, on"), of("  paper  as doc  written by b, on")),
        (1, 1),
        "{listed}"
    );
    let versions = json(&b, &["history", "paper"]);
    assert_eq!(versions["versions"][1]["was"]["path"], "doc", "{versions}");
    let one = versions["versions"][1]["version"].as_str().unwrap().to_owned();
    let holds = |how: &[&str], text: &str| {
        let said = told(&b, &[&["restore", "paper"], how].concat());
        let to = format!("restored 1 item, 3 bytes, to {}\n", b.path("paper").display());
        assert_eq!((said, fs::read(b.path("paper")).unwrap()), (to, text.as_bytes().to_vec()), "{how:?}");
        settle("restored", &[&a, &b]);
    };
    holds(&[], "one");
    holds(&[], "two");
    holds(&[], "one");
    holds(&[], "two");
    holds(&["--version", &one], "one");
    holds(&[], "two");
    holds(&["--at", &format!("@{then}")], "one");
    assert!(!b.path("doc").exists());
    // What had the old name is found by that, too, and made a second time.
    told(&b, &["restore", "doc"]);
    assert_eq!(fs::read(b.path("doc")).unwrap(), b"two");
    assert_eq!(fs::read(b.path("paper")).unwrap(), b"one");
}

#[test]
fn a_deleted_directory_comes_back_as_it_was_with_what_others_kept() {
    let (_temp, a, b, c) = three();
    let before = tree(&a.dir);
    fs::remove_dir_all(a.path("docs")).unwrap();
    settle("deleted", &[&a, &b, &c]);
    assert!(!b.path("docs").exists() && kept(&b) > 30 && kept(&a) == 0);
    // One of those that kept it has lost it, too: it comes from the other.
    forget_history(&c);
    let restored = json(&c, &["restore", "docs"]);
    assert_eq!(restored["restored"], 35, "{restored}");
    let after = settle("restored", &[&a, &b, &c]);
    assert_eq!(after, before);
}

#[test]
fn a_mass_change_is_taken_back_everywhere_and_that_again() {
    let (_temp, a, b, c) = three();
    write(a.path("beside"), "before");
    let before = settle("before", &[&a, &b, &c]);
    write(a.path("beside"), "edited a while before");
    a.wait();
    std::thread::sleep(Duration::from_secs(4));
    fs::remove_dir_all(a.path("docs")).unwrap();
    settle("deleted", &[&a, &b, &c]);
    let said = json(&b, &["undo", "--dry-run"]);
    assert_eq!((&said["by"], &said["count"], &said["done"]), (&"a".into(), &35.into(), &false.into()));
    assert!(!b.path("docs").exists(), "only said");
    let gone = identical("only said", &[&a, &b, &c]);
    let done = json(&b, &["undo"]);
    assert_eq!((&done["count"], &done["done"]), (&35.into(), &true.into()));
    let after = settle("taken back", &[&a, &b, &c]);
    let of = |t: &Tree| part(t, |path| path.starts_with(b"docs"));
    assert_eq!(of(&after), of(&before));
    assert_eq!(fs::read(c.path("beside")).unwrap(), b"edited a while before", "no part of it");
    // What was taken back is a change like another.
    json(&c, &["undo"]);
    assert_eq!(settle("deleted again", &[&a, &b, &c]), gone);
    json(&a, &["undo"]);
    assert_eq!(settle("and back", &[&a, &b, &c]), after);
}

#[test]
fn everything_since_a_time_is_taken_back_but_not_what_others_did_on_top() {
    let (_temp, a, b, c) = three();
    let before = tree(&a.dir);
    // The journal knows seconds.
    std::thread::sleep(Duration::from_millis(2100));
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 1;
    fs::rename(a.path("docs/sub"), a.path("moved")).unwrap();
    write(a.path("docs/f1"), "overwritten");
    write(a.path("new"), "made");
    fs::remove_file(a.path("docs/f3")).unwrap();
    dunlin_testkit::set_mode(&a.path("docs/f4"), 0o600);
    settle("a's changes", &[&a, &b, &c]);
    write(b.path("docs/f1"), "b's, on top of a's");
    settle("b's change", &[&a, &b, &c]);
    let since = format!("@{since}");
    let by_a = json(&c, &["undo", "--since", &since, "--by", "a"]);
    assert_eq!(by_a["left"][0]["path"], "docs/f1", "{by_a}");
    let after = settle("taken back", &[&a, &b, &c]);
    assert_eq!(fs::read(a.path("docs/f1")).unwrap(), b"b's, on top of a's");
    let rest = |t: &Tree| part(t, |path| path != b"docs/f1");
    assert_eq!(rest(&after), rest(&before));
    assert!(!b.path("new").exists());
}

#[test]
fn what_cannot_be_had_is_a_clear_line_and_changes_nothing() {
    let (_temp, mut a, mut b, c) = three();
    refused(&a, &["undo"], "nothing to undo");
    refused(&a, &["restore", "docs/f1"], "is as it was");
    refused(&a, &["restore", "docs"], "is as it was");
    refused(&a, &["restore", "never/there"], "nothing is known of");
    refused(&a, &["history", "never/there"], "nothing is known of");
    refused(&a, &["restore", "docs/f1", "--version", "0123456789"], "no such version");
    refused(&a, &["restore", "docs/f1", "--at", "2001-01-01"], "does not reach back");
    refused(&a, &["undo", "--since", "2001-01-01"], "does not reach back");
    refused(&a, &["undo", "--since", "2001-01-01"], "hint: it begins ");
    refused(&a, &["undo", "--by", "nobody"], "no device is called");
    let taken = a.path("docs/f2");
    refused(
        &a,
        &["restore", "docs/f1", "--to", taken.to_str().unwrap(), "--version", "0123"],
        "is there already",
    );
    assert_eq!(a.asks(&["restore", "docs/f1", "--version", "xyz"]).0, 2);
    // A version that nobody who is connected has.
    write(a.path("docs/f1"), "overwritten");
    settle("overwritten", &[&a, &b, &c]);
    b.stop();
    let mut c = c;
    c.stop();
    until("alone", PATIENCE, || a.connections() == 0);
    refused(&a, &["restore", "docs/f1"], "no connected device has this version of docs/f1");
    let listed = told(&a, &["history", "docs/f1"]);
    assert!(listed.contains("held by nobody connected"), "{listed}");
    b.run();
    a.until_connected(1, PATIENCE);
    told(&a, &["restore", "docs/f1"]);
    assert_eq!(fs::read(a.path("docs/f1")).unwrap(), b"file 1");
    // What went for room, or for its age, on all that had it.
    write(a.path("docs/f2"), "overwritten");
    settle("overwritten again", &[&a, &b]);
    forget_history(&b);
    for node in [&mut a, &mut b] {
        // Small files of a moment ago are remembered, too.
        node.stop();
        node.run();
    }
    settle("started anew", &[&a, &b]);
    refused(&a, &["restore", "docs/f2"], "no connected device has this version of docs/f2 (any more)");
    refused(&b, &["restore", "docs/f2"], "no connected device has this version of docs/f2 (any more)");
    let listed = told(&a, &["history", "docs/f2"]);
    assert!(listed.contains("held by nobody connected"), "{listed}");
    // Nothing is held, and nothing is wrong with the directory.
    let root = a.dir.to_str().unwrap();
    for how in ["--accept", "--reject"] {
        refused(&a, &["resume", root, how], "there is nothing to decide");
    }
    refused(&a, &["resume", root, "--unite"], "there is nothing to unite");
    // An index that was lost knows nothing of before, and says so.
    a.stop();
    let folder = fs::read_dir(a.home.join("folders")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(folder.join("index.redb")).unwrap();
    a.run();
    settle("united again", &[&a, &b]);
    refused(&a, &["restore", "docs/f1"], "is as it was");
}

/// Nothing is waited for that is there no more, and nothing is changed for it.
#[test]
fn a_version_that_rotted_in_the_history_is_named_and_nothing_changes() {
    let (_temp, mut a, b) = pair();
    save(&a, "f", "first");
    save(&a, "g", "first of g");
    settle("first", &[&a, &b]);
    save(&a, "f", "other");
    save(&a, "g", "other of g");
    settle("other", &[&a, &b]);
    let kept = |name: &str| {
        let entries = fs::read_dir(b.path(".dunlin/history")).unwrap().map(|e| e.unwrap().path());
        entries.into_iter().find(|p| p.to_string_lossy().ends_with(&format!("~{name}"))).unwrap()
    };
    let mut bytes = fs::read(kept("f")).unwrap();
    bytes[1] ^= 1;
    fs::write(kept("f"), &bytes).unwrap();
    a.stop();
    refused(&b, &["restore", "f"], "what the history has of this version of f is damaged");
    assert_eq!(
        (fs::read(b.path("f")).unwrap(), b.folder()["need_files"].as_u64()),
        (b"other".to_vec(), Some(0))
    );
    // What is whole comes back, and what is not is still there for who wants to look at it.
    let (code, out, err) = b.asks(&["restore", "g"]);
    assert_eq!((code, fs::read(b.path("g")).unwrap()), (0, b"first of g".to_vec()), "{out}{err}");
    assert_eq!(fs::read(kept("f")).unwrap(), bytes);
}
