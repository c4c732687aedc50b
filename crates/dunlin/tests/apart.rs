//! What was done while apart: nothing is lost, and it looks the same everywhere.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Three joined devices that hold what `first` makes, all stopped again.
fn three(first: impl Fn(&Path)) -> (tempfile::TempDir, [Node; 3]) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    fs::create_dir(&a.dir).unwrap();
    first(&a.dir);
    b.join(&a.share());
    c.join(&b.invite());
    settle("before they part", &[&a, &b, &c]);
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
    (temp, [a, b, c])
}

/// All run again, and are alike.
fn heal(nodes: &mut [Node; 3]) -> Tree {
    for node in nodes.iter_mut() {
        node.run();
    }
    let [a, b, c] = nodes;
    settle("after they met again", &[a, b, c])
}

/// The files of a tree with this content.
fn holding(root: &Path, tree: &Tree, text: &str) -> Vec<String> {
    let is = |p: &&Vec<u8>| {
        matches!(tree[*p], Thing::File { .. }) && fs::read(root.join(name(p))).unwrap() == text.as_bytes()
    };
    tree.keys().filter(is).map(|p| p.escape_ascii().to_string()).collect()
}

fn long_name() -> String {
    format!("{}.long", "l".repeat(250))
}

const FILES: [&str; 12] = [
    "two",
    "three",
    "edit-delete",
    "delete-edit",
    "move-delete",
    "edit-move",
    "equal",
    "meta",
    "gone",
    "again",
    "both-gone",
    "kind",
];

fn before(root: &Path) {
    for dir in ["old", "deleted-dir", "moved-dir", "twice", "x", "y"] {
        fs::create_dir(root.join(dir)).unwrap();
        write(root.join(dir).join("in"), format!("in {dir}"));
    }
    for file in FILES {
        write(root.join(format!("{file}.txt")), format!("first {file}"));
    }
    set_mode(&root.join("two.txt"), 0o755);
}

fn edit_files(a: &Node, b: &Node, c: &Node) {
    write(a.path("two.txt"), b"two by a");
    write(b.path("two.txt"), b"two by b");
    set_mtime(&b.path("two.txt"), 1_000_000_000, 42);
    for (n, by) in [(a, "a"), (b, "b"), (c, "c")] {
        write(n.path("three.txt"), format!("three by {by}"));
    }
    // An edit beats a delete, whoever does which.
    fs::remove_file(a.path("edit-delete.txt")).unwrap();
    write(b.path("edit-delete.txt"), b"edited by b");
    write(a.path("delete-edit.txt"), b"edited by a");
    fs::remove_file(b.path("delete-edit.txt")).unwrap();
    fs::remove_file(c.path("delete-edit.txt")).unwrap();
    // A move beats a delete.
    fs::rename(a.path("move-delete.txt"), a.path("old/moved.txt")).unwrap();
    fs::remove_file(c.path("move-delete.txt")).unwrap();
    // An edit follows a moved file.
    fs::rename(a.path("edit-move.txt"), a.path("old/edit-moved.txt")).unwrap();
    fs::File::options().append(true).open(b.path("edit-move.txt")).unwrap().write_all(b", edited").unwrap();
    // Equal content is no conflict; nor are other mode and time.
    write(a.path("equal.txt"), b"the same");
    write(b.path("equal.txt"), b"the same");
    set_mtime(&b.path("equal.txt"), 1_500_000_000, 0);
    write(a.path("new-equal.txt"), b"the same, new");
    write(c.path("new-equal.txt"), b"the same, new");
    set_mode(&a.path("meta.txt"), 0o600);
    set_mtime(&b.path("meta.txt"), 1_400_000_000, 5);
    // Deleted stays deleted.
    fs::remove_file(a.path("gone.txt")).unwrap();
    fs::remove_file(a.path("both-gone.txt")).unwrap();
    fs::remove_file(b.path("both-gone.txt")).unwrap();
    // Deleted and made again, older.
    fs::remove_file(b.path("again.txt")).unwrap();
    write(b.path("again.txt"), b"made again");
    set_mtime(&b.path("again.txt"), 1_000_000, 0);
}

fn edit_directories(a: &Node, b: &Node, c: &Node) {
    // Edits follow a moved directory; one deleted here and filled there stays.
    fs::rename(a.path("moved-dir"), a.path("old/moved-dir")).unwrap();
    write(b.path("moved-dir/in"), b"edited in moved-dir");
    write(b.path("moved-dir/new"), b"new in moved-dir");
    fs::remove_dir_all(a.path("deleted-dir")).unwrap();
    write(b.path("deleted-dir/new"), b"new in deleted-dir");
    // One directory moved to two places, and two moved into each other.
    fs::rename(a.path("twice"), a.path("twice-a")).unwrap();
    fs::rename(b.path("twice"), b.path("twice-b")).unwrap();
    fs::rename(a.path("x"), a.path("y/x")).unwrap();
    fs::rename(b.path("y"), b.path("x/y")).unwrap();
    // New things of one name and different kinds, and long names.
    write(a.path("new-kinds"), b"new-kinds is a file");
    fs::create_dir(b.path("new-kinds")).unwrap();
    write(b.path("new-kinds/in"), b"new-kinds is a directory");
    fs::remove_file(c.path("kind.txt")).unwrap();
    symlink("some/where", c.path("kind.txt")).unwrap();
    write(a.path(long_name()), b"long by a");
    write(b.path(long_name()), b"long by b");
}

#[test]
fn edits_made_apart_merge_and_lose_nothing() {
    let (_temp, mut nodes) = three(before);
    let [a, b, c] = &nodes;
    edit_files(a, b, c);
    edit_directories(a, b, c);
    let all = heal(&mut nodes);
    let root = nodes[0].dir.clone();
    let has = |text: &str| holding(&root, &all, text);
    let once = |text: &str| {
        let found = has(text);
        let names: Vec<String> = all.keys().map(|k| k.escape_ascii().to_string()).collect();
        assert_eq!(found.len(), 1, "{text:?} is at {found:?}: {names:?}");
        found.into_iter().next().unwrap()
    };
    let copies_of = |of: &str| conflicts(&all).into_iter().filter(|c| c.contains(of)).collect::<Vec<_>>();

    let two = [once("two by a"), once("two by b")];
    assert!(two.contains(&"two.txt".to_owned()), "{two:?}");
    assert_eq!(copies_of("two").len(), 1, "{two:?}");
    let meta = fs::metadata(root.join(&two[1])).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.mode() & 0o777), (1_000_000_000, 42, 0o755));
    let three: Vec<String> = ["a", "b", "c"].map(|by| once(&format!("three by {by}"))).into();
    assert!(three.contains(&"three.txt".to_owned()), "{three:?}");
    assert_eq!(copies_of("three").len(), 2, "no copies of copies: {three:?}");

    for (text, at) in [
        ("edited by b", "edit-delete.txt"),
        ("edited by a", "delete-edit.txt"),
        ("first move-delete", "old/moved.txt"),
        ("first edit-move, edited", "old/edit-moved.txt"),
        ("edited in moved-dir", "old/moved-dir/in"),
        ("new in moved-dir", "old/moved-dir/new"),
        ("the same", "equal.txt"),
        ("the same, new", "new-equal.txt"),
        ("first meta", "meta.txt"),
        ("made again", "again.txt"),
        ("new in deleted-dir", "deleted-dir/new"),
    ] {
        assert_eq!(once(text), at);
    }
    for gone in ["first gone", "first both-gone", "first again", "first two"] {
        assert!(has(gone).is_empty(), "{gone} is back");
    }
    for somewhere in ["in twice", "in x", "in y", "new-kinds is a file", "new-kinds is a directory"] {
        once(somewhere);
    }
    assert!(matches!(all[&b"kind.txt"[..]], Thing::Link { .. }));
    let long = [once("long by a"), once("long by b")];
    assert!(long.iter().any(|l| l.contains("conflict")), "{long:?}");
    let expected = ["two", "three", "new-kinds", "lllll"];
    let other = conflicts(&all).into_iter().filter(|c| !expected.iter().any(|e| c.contains(e)));
    assert_eq!(other.collect::<Vec<_>>(), Vec::<String>::new(), "conflicts nobody made");

    // Nothing more happens, and a restart changes nothing: no copies of copies, no resurrection.
    for node in &mut nodes {
        node.stop();
    }
    let again = heal(&mut nodes);
    assert!(again == all, "{:#?}", differences(&all, &again));
    // A user resolves a conflict: it stays resolved.
    fs::remove_file(nodes[1].path(&copies_of("two")[0])).unwrap();
    let [a, b, c] = &nodes;
    let resolved = settle("resolved", &[a, b, c]);
    assert_eq!(conflicts(&resolved).len(), conflicts(&all).len() - 1);
}

fn two_full(fill: impl Fn(&Path, &Path)) -> (tempfile::TempDir, Node, Node) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [a, b] = ["a", "b"].map(|n| Node::new(&base, n));
    fs::create_dir(&a.dir).unwrap();
    fs::create_dir(&b.dir).unwrap();
    fill(&a.dir, &b.dir);
    (temp, a, b)
}

#[test]
fn joining_two_full_folders_unites_them() {
    let (_temp, mut a, mut b) = two_full(|a, b| {
        for (root, by) in [(a, "a"), (b, "b")] {
            fs::create_dir_all(root.join("common/deep")).unwrap();
            fs::create_dir(root.join(format!("only-{by}"))).unwrap();
            write(root.join("common/deep/same"), b"same");
            write(root.join("common/differs"), format!("differs {by}"));
            write(root.join("differs.txt"), format!("top differs {by}"));
            write(root.join(format!("common/only-{by}")), format!("only {by}"));
            for i in 0..50 {
                write(root.join(format!("only-{by}/{i}")), format!("{by} {i}"));
                write(root.join(format!("common/same{i}")), format!("same {i}"));
            }
        }
        write(a.join("kinds"), b"a file");
        fs::create_dir(b.join("kinds")).unwrap();
        write(b.join("kinds/in"), b"below a directory");
        symlink("x", a.join("links")).unwrap();
        symlink("y", b.join("links")).unwrap();
    });
    b.join(&a.share());
    let all = settle("united", &[&a, &b]);
    let once = |text: &str| {
        let found = holding(&a.dir, &all, text);
        assert_eq!(found.len(), 1, "{text:?} is at {found:?}");
    };
    for by in ["a", "b"] {
        once(&format!("differs {by}"));
        once(&format!("top differs {by}"));
        once(&format!("only {by}"));
        (0..50).for_each(|i| once(&format!("{by} {i}")));
    }
    (0..50).for_each(|i| once(&format!("same {i}")));
    once("a file");
    once("below a directory");
    let links = all.values().filter(|t| matches!(t, Thing::Link { .. })).count();
    assert_eq!(links, 2);
    assert_eq!(conflicts(&all).len(), 4, "{:?}", conflicts(&all));
    assert_eq!(b.folder()["conflicts"], 4);
}

#[test]
fn joining_identical_folders_touches_nothing() {
    let (_temp, mut a, mut b) = two_full(|a, b| {
        for root in [a, b] {
            fs::create_dir(root.join("d")).unwrap();
            for i in 0..100u32 {
                let path = root.join(format!("d/{i}"));
                write(&path, noise(u64::from(i), 3000));
                set_mtime(&path, 1_600_000_000 + i64::from(i), i + 1);
            }
            write(root.join("large"), noise(1000, 8 << 20));
            set_mtime(&root.join("large"), 1_500_000_000, 77);
        }
    });
    let inodes = |root: &Path| {
        let paths = tree(root).into_keys().map(|p| root.join(name(&p)));
        let facts = |p: PathBuf| {
            let m = fs::symlink_metadata(&p).unwrap();
            (p, m.ino(), m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec())
        };
        paths.map(facts).collect::<Vec<_>>()
    };
    let before = (inodes(&a.dir), inodes(&b.dir));
    b.join(&a.share());
    let all = settle("joined", &[&a, &b]);
    assert!(conflicts(&all).is_empty());
    assert!(before == (inodes(&a.dir), inodes(&b.dir)), "something was written");
    for node in [&a, &b] {
        assert_eq!(node.events("applied"), Vec::<serde_json::Value>::new());
    }
}

#[test]
fn equal_content_takes_one_time_everywhere_and_deletes_survive_an_absence() {
    let (_temp, mut a, mut b) = two_full(|a, b| {
        write(a.join("same"), b"same content");
        write(b.join("same"), b"same content");
        set_mtime(&a.join("same"), 1_000, 1);
        set_mtime(&b.join("same"), 4_000_000_000, 2);
        set_mode(&b.join("same"), 0o600);
    });
    b.join(&a.share());
    let all = settle("joined", &[&a, &b]);
    assert_eq!(all.len(), 1, "{all:?}");
    for i in 0..30 {
        write(a.path(format!("t{i}")), format!("temporary {i}"));
    }
    settle("filled", &[&a, &b]);
    // While b is away, a deletes; b, whose files may be dated in the future, brings nothing back.
    b.stop();
    for i in 0..30 {
        fs::remove_file(a.path(format!("t{i}"))).unwrap();
    }
    fs::remove_file(a.path("same")).unwrap();
    a.wait();
    b.run();
    let all = settle("back", &[&a, &b]);
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn a_move_that_outlives_a_delete_gets_its_version_from_a_history() {
    let (temp, a, b) = pair();
    let mut c = Node::new(&temp.path().canonicalize().unwrap(), "c");
    c.join(&a.invite());
    // Too large to be held in memory for a while.
    write(a.path("f"), noise(1, 300_000));
    settle("made", &[&a, &b, &c]);
    c.stop();
    let edited = noise(2, 300_000);
    write(a.path("f"), &edited);
    settle("edited", &[&a, &b]);
    fs::remove_file(a.path("f")).unwrap();
    settle("deleted", &[&a, &b]);
    // Only what was put aside here when it was deleted there holds the edit.
    fs::rename(c.path("f"), c.path("g")).unwrap();
    c.run();
    settle("moved", &[&a, &b, &c]);
    assert_eq!(fs::read(c.path("g")).unwrap(), edited);
}

/// Where a node keeps the index of its only folder.
fn index_of(node: &Node) -> PathBuf {
    let folders = fs::read_dir(node.home.join("folders")).unwrap();
    folders.map(|e| e.unwrap().path().join("index.redb")).find(|p| p.exists()).unwrap()
}

#[test]
fn an_index_that_was_rolled_back_loses_nothing() {
    let (temp, [mut a, mut b, mut c]) = three(|root| {
        write(root.join("old"), b"old");
        write(root.join("edited"), b"first");
        write(root.join("removed"), b"removed");
    });
    let backup = temp.path().join("backup");
    fs::copy(index_of(&b), &backup).unwrap();
    for node in [&mut a, &mut b, &mut c] {
        node.run();
    }
    settle("again", &[&a, &b, &c]);
    // What the backup does not know: made, edited, moved and removed, by itself and by others.
    write(b.path("made by b"), b"made by b");
    write(b.path("edited"), b"second");
    fs::rename(b.path("old"), b.path("moved")).unwrap();
    fs::remove_file(b.path("removed")).unwrap();
    write(a.path("made by a"), b"made by a");
    let before = settle("beyond the backup", &[&a, &b, &c]);
    let life = b.path(".dunlin/life");
    until("it is noted how far the index came", PATIENCE, || {
        let text = fs::read_to_string(&life).unwrap_or_default();
        text.lines().nth(2).is_some_and(|seq| seq.parse::<u64>().is_ok_and(|seq| seq >= 7))
    });
    b.stop();
    fs::copy(&backup, index_of(&b)).unwrap();
    // It goes on alone at first, and gives new numbers to new things.
    a.stop();
    c.stop();
    write(b.path("made after"), b"made after");
    b.run();
    until("it has looked at its disk", PATIENCE, || {
        b.asks(&["status"]).0 == 0 && b.folder()["state"] != "scanning"
    });
    a.run();
    c.run();
    let after = settle("united", &[&a, &b, &c]);
    for (path, thing) in &before {
        assert_eq!(after.get(path), Some(thing), "{}", path.escape_ascii());
    }
    assert!(after.contains_key(&b"made after"[..]));
    // What it met as new while alone may show twice; nothing else is there.
    let hash = |t: &Thing| if let Thing::File { hash, .. } = t { Some(*hash) } else { None };
    let kept = |t: &Thing| before.values().any(|b| hash(b) == hash(t));
    let news: Vec<_> =
        after.iter().filter(|(_, t)| !kept(t)).map(|(p, _)| p.escape_ascii().to_string()).collect();
    assert_eq!(news, ["made after"], "{:?}", differences(&before, &after));
}
