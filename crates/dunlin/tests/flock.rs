//! Three devices, then others, through everything that users and fate do to them: byte-identical at
//! every stage.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

struct Flock {
    _temp: tempfile::TempDir,
    base: std::path::PathBuf,
    a: Node,
    b: Node,
    c: Node,
}

impl Flock {
    /// A shares, B joins from A, C joins with an invitation made by B.
    fn new() -> Flock {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
        fs::create_dir(&a.dir).unwrap();
        first_tree(&a.dir);
        b.join(&a.share());
        c.join(&b.invite());
        Flock { _temp: temp, base, a, b, c }
    }

    fn settle(&self, what: &str) -> Tree {
        settle(what, &[&self.a, &self.b, &self.c])
    }
}

fn first_tree(root: &Path) {
    fs::create_dir_all(root.join("docs/deep/er")).unwrap();
    fs::create_dir_all(root.join("empty/inner")).unwrap();
    for i in 0..60u64 {
        write(root.join(format!("docs/{i}.txt")), noise(i, (i * 37) as usize));
        write(root.join(format!("docs/deep/er/{i}")), format!("deep {i}"));
    }
    write(root.join("large"), noise(1, 3_000_000));
    write(root.join("none"), b"");
    write(root.join("script"), b"#!/bin/sh\n");
    set_mode(&root.join("script"), 0o755);
    symlink("docs/1.txt", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    symlink("docs", root.join("to-dir")).unwrap();
}

fn names_of_all_bytes(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for byte in 1..=255u8 {
        if byte != b'/' && byte != b'.' {
            write(dir.join(name(&[byte])), [byte]);
            write(dir.join(name(&[b'd', byte, b'.'])), [byte, byte]);
        }
    }
    let long = [b'n'; 255];
    let bad = [0xff; 255];
    let dots = [b'.'; 255];
    let others: [&[u8]; 14] = [
        &long,
        &bad,
        &dots,
        b"...",
        b"-rf",
        b"*",
        b"%2e%2e",
        b"CON",
        b"aux.txt",
        b" lead",
        b"trail ",
        b"two\nlines\n",
        "\u{202e}gnp.exe".as_bytes(),
        "\u{ff0e}\u{ff0e}".as_bytes(),
    ];
    for other in others {
        write(dir.join(name(other)), other);
    }
    // The same letter composed and decomposed, and names like the one that is ours.
    for other in ["\u{e9}", "e\u{301}", ".dunlin", ".Dunlin", ".dunlin.", "Foo", "foo"] {
        write(dir.join(other), other);
    }
    fs::create_dir(dir.join(name(&[b'D'; 255]))).unwrap();
    write(dir.join(name(&[b'D'; 255])).join(name(&[0xfe; 255])), b"deep and long");
    symlink(name(b"\xff\n"), dir.join(name(b"link \xfd"))).unwrap();
}

#[test]
fn a_flock_stays_identical_through_everything() {
    let f = Flock::new();
    f.settle("after joining");

    let root = &f.b.dir;
    names_of_all_bytes(&root.join("names"));
    write(root.join(".Dunlin"), b"a user's");
    let all = f.settle("names");
    assert!(all.len() > 600 && conflicts(&all).is_empty(), "{:?}", conflicts(&all));

    // Change, append, truncate, chmod, touch: from every side.
    write(f.a.path("docs/1.txt"), b"changed by a");
    fs::File::options().append(true).open(f.b.path("docs/2.txt")).unwrap().write_all(b"appended").unwrap();
    fs::File::options().write(true).open(f.c.path("large")).unwrap().set_len(1_500_001).unwrap();
    set_mode(&f.a.path("docs/3.txt"), 0o640);
    set_mode(&f.b.path("docs/deep"), 0o750);
    set_mode(&f.c.path("script"), 0o644);
    set_mtime(&f.a.path("docs/4.txt"), 1_234_567_890, 123_456_789);
    set_mtime(&f.b.path("docs/5.txt"), 0, 1);
    set_mtime(&f.c.path("docs/6.txt"), -1, 999_999_999);
    set_mtime(&f.a.path("docs/7.txt"), 2_300_000_000, 7);
    let all = f.settle("changes");
    assert!(matches!(all[&b"large"[..]], Thing::File { size: 1_500_001, .. }));
    assert!(matches!(all[&b"docs/3.txt"[..]], Thing::File { mode: 0o640, .. }));
    assert!(matches!(all[&b"docs/4.txt"[..]], Thing::File { mtime: (1_234_567_890, 123_456_789), .. }));
    assert!(matches!(all[&b"docs/6.txt"[..]], Thing::File { mtime: (-1, 999_999_999), .. }));

    // Delete, rename, move of a directory, from every side.
    fs::remove_file(f.a.path("docs/8.txt")).unwrap();
    fs::remove_dir_all(f.b.path("empty")).unwrap();
    fs::rename(f.c.path("docs/9.txt"), f.c.path("docs/nine.txt")).unwrap();
    fs::rename(f.a.path("docs/deep"), f.a.path("moved")).unwrap();
    let all = f.settle("moves");
    assert!(all.contains_key(&b"moved/er/7"[..]) && !all.contains_key(&b"docs/deep"[..]));
    assert!(!all.contains_key(&b"empty"[..]));
    let applied = f.b.events("applied");
    let below = |e: &&serde_json::Value| e["path"].as_str().is_some_and(|p| p.starts_with("moved/"));
    assert_eq!(applied.iter().filter(below).count(), 0, "a moved directory is one change");

    kinds_replace_each_other(&f);
    swaps_and_what_is_left_alone(&f);
}

/// One kind of thing in place of another.
fn kinds_replace_each_other(f: &Flock) {
    fs::remove_file(f.a.path("none")).unwrap();
    fs::create_dir(f.a.path("none")).unwrap();
    write(f.a.path("none/inside"), b"x");
    fs::remove_dir_all(f.b.path("moved")).unwrap();
    write(f.b.path("moved"), b"a file now");
    fs::remove_file(f.c.path("link")).unwrap();
    write(f.c.path("link"), b"no link any more");
    let all = f.settle("file, directory and link for each other");
    assert!(matches!(all[&b"none"[..]], Thing::Dir { .. }));
    fs::remove_file(f.a.path("to-dir")).unwrap();
    fs::create_dir_all(f.a.path("to-dir/sub")).unwrap();
    fs::remove_file(f.b.path("script")).unwrap();
    symlink("elsewhere", f.b.path("script")).unwrap();
    fs::remove_dir_all(f.c.path("none")).unwrap();
    symlink("none", f.c.path("none")).unwrap();
    f.settle("the other replacements");
}

/// A swap of two files, and of names in a ring.
fn swaps_and_what_is_left_alone(f: &Flock) {
    fs::rename(f.a.path("docs/10.txt"), f.a.path("docs/tmp")).unwrap();
    fs::rename(f.a.path("docs/11.txt"), f.a.path("docs/10.txt")).unwrap();
    fs::rename(f.a.path("docs/tmp"), f.a.path("docs/11.txt")).unwrap();
    let all = f.settle("a swap");
    let of = |p: &[u8]| match &all[p] {
        Thing::File { size, .. } => *size,
        _ => 0,
    };
    assert_eq!((of(b"docs/10.txt"), of(b"docs/11.txt")), (11 * 37, 10 * 37));
    assert!(conflicts(&all).is_empty(), "{:?}", conflicts(&all));

    // What is no file, directory or link is left alone.
    assert!(std::process::Command::new("mkfifo").arg(f.a.path("docs/fifo")).status().unwrap().success());
    write(f.a.path("docs/beside"), b"the fifo");
    f.settle("a fifo");
    assert!(f.a.path("docs/fifo").exists() && !f.b.path("docs/fifo").exists());
}

#[test]
fn a_flock_survives_kills_and_the_loss_of_the_first() {
    let mut f = Flock::new();
    f.settle("after joining");
    for victim in 0..3usize {
        let nodes = [&mut f.a, &mut f.b, &mut f.c];
        nodes[victim].kill();
        for (i, node) in nodes.iter().enumerate() {
            let dir = format!("round-{victim}-by-{i}");
            fs::create_dir(node.path(&dir)).unwrap();
            for k in 0..20u64 {
                write(node.path(format!("{dir}/{k}")), noise(k, 2000));
            }
            write(node.path(format!("docs/{}.txt", victim * 10 + i)), format!("{victim} {i}"));
            fs::remove_file(node.path(format!("docs/{}.txt", 30 + victim * 10 + i))).unwrap();
        }
        let moved = &nodes[(victim + 1) % 3];
        fs::rename(moved.path("docs/deep"), moved.path("docs/deep.tmp")).unwrap();
        fs::rename(moved.path("docs/deep.tmp"), moved.path("docs/deep")).unwrap();
        let begun = Instant::now();
        nodes[victim].run();
        nodes[victim].until_connected(2, PATIENCE);
        let took = begun.elapsed();
        eprintln!("{} connected to both again {took:?} after its start", nodes[victim].name);
        assert!(took < Duration::from_secs(2), "{} took {took:?} to connect again", nodes[victim].name);
        let all = f.settle(&format!("after the death of {victim}"));
        assert!(conflicts(&all).is_empty(), "{:?}", conflicts(&all));
    }

    // The first is lost for good, with all it knew.
    f.a.kill();
    fs::remove_dir_all(&f.a.home).unwrap();
    fs::remove_dir_all(&f.a.dir).unwrap();
    write(f.b.path("without a"), b"b goes on");
    fs::rename(f.c.path("docs/deep"), f.c.path("deep")).unwrap();
    until("noticing that a is gone", Duration::from_secs(10), || {
        f.b.connections() == 1 && f.c.connections() == 1
    });
    settle("without the first", &[&f.b, &f.c]);

    // A fourth joins from one that never knew the first's invitation.
    let mut d = Node::new(&f.base, "d");
    d.join(&f.c.invite());
    settle("with the fourth", &[&f.b, &f.c, &d]);
    write(d.path("by d"), b"hello");
    fs::remove_dir_all(d.path("deep")).unwrap();
    write(f.b.path("docs/1.txt"), b"again");
    settle("edits with the fourth", &[&f.b, &f.c, &d]);

    // All at once away and back.
    f.b.stop();
    f.c.stop();
    d.stop();
    write(f.b.path("offline"), b"b");
    let begun = Instant::now();
    f.b.run();
    f.c.run();
    d.run();
    for node in [&f.b, &f.c, &d] {
        node.until_connected(2, PATIENCE);
    }
    eprintln!("three nodes connected {:?} after their start", begun.elapsed());
    settle("after a rest", &[&f.b, &f.c, &d]);
}

#[test]
fn without_discovery_remembered_addresses_are_enough() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    for node in [&mut a, &mut b, &mut c] {
        // A port that was free a moment ago: the same one after a restart.
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (node.listen, node.discovery) = (Some(free.to_string()), false);
    }
    b.join(&a.share());
    c.join(&b.invite());
    write(c.path("x"), b"by c");
    settle("joined", &[&a, &b, &c]);
    // Whoever is killed had no time to write anything down.
    for node in [&mut a, &mut b, &mut c] {
        node.kill();
    }
    for node in [&mut c, &mut a, &mut b] {
        node.run();
    }
    let begun = Instant::now();
    for node in [&a, &b, &c] {
        node.until_connected(2, Duration::from_secs(10));
    }
    eprintln!("without discovery connected {:?} after the last one's start", begun.elapsed());
    settle("again", &[&a, &b, &c]);
}
