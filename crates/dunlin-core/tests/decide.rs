//! The whole decision table, written out: what is on the disk of one node, against what should be.
#![allow(clippy::unwrap_used)]

use dunlin_core::decide::{Lack, decide};
use dunlin_core::ids::{ContentId, Dot, Incarnation, NodeId, ROOT};
use dunlin_core::names::Wanted;
use dunlin_core::path::Name;
use dunlin_core::rows::{LocalRow, Position, Stamp};
use dunlin_core::state::{Content, Mtime};
use std::fmt::Write;

fn at(name: &str) -> Position {
    Position::new(ROOT, Name::new(name.as_bytes()).unwrap())
}

fn content(what: &str) -> Content {
    match what {
        "dir" => Content::Dir,
        "link" => Content::Link(b"text".as_slice().into()),
        version => Content::File { id: ContentId([version.as_bytes()[1]; 32]), size: 1 },
    }
}

fn word(c: &Content) -> String {
    match c {
        Content::Dir => "dir".into(),
        Content::Link(_) => "link".into(),
        Content::File { id, .. } => format!("v{}", id.0[0] as char),
        Content::Unknown { .. } => "unknown".into(),
    }
}

/// A place, a content, its mode, and whether it is a kept directory, or a damaged file.
type Thing = (Position, Content, u16, bool, bool);

/// "v1@a", with "!" a mode of its own, with "k" a kept directory, with "x" a damaged file.
fn parse(text: &str) -> Vec<Thing> {
    let one = |t: &str| {
        let (what, place) = t.split_once('@').unwrap();
        let (mode, kept) = (if t.contains('!') { 0o600 } else { 0o644 }, t.ends_with('k'));
        (at(place.trim_end_matches(['!', 'k', 'x'])), content(what), mode, kept, t.ends_with('x'))
    };
    text.split_whitespace().map(one).collect()
}

fn dot(c: &Content) -> Option<Dot> {
    let counter = if let Content::File { id, .. } = c { u64::from(id.0[0]) } else { 1 };
    Some(Dot { inc: Incarnation([1; 16]), counter })
}

fn local((at, content, mode, kept, damaged): Thing) -> (Position, LocalRow) {
    let (node, dot, stamp) = (NodeId([1; 16]), dot(&content), Stamp::default());
    let damaged = damaged.then_some(ContentId([9; 32]));
    (at, LocalRow { node, dot, seen: None, content, mode, mtime: Mtime::default(), stamp, kept, damaged })
}

fn wanted((at, content, mode, ..): Thing) -> Wanted {
    Wanted { at, dot: dot(&content), content, mode, mtime: Mtime::default(), copy: false }
}

fn say(lack: &Lack) -> String {
    let version = |w: &Wanted| format!("{}@{}", word(&w.content), w.at.name);
    match lack {
        Lack::Create(w) => format!("create {}", version(w)),
        Lack::Move(from, l, w) => format!("move {}@{} to {}", word(&l.content), from.name, version(w)),
        Lack::Replace(l, w) => format!("replace {} by {}", word(&l.content), version(w)),
        Lack::Meta(_, w) => format!("set mode of {}", version(w)),
        Lack::Remove(from, l) => format!("remove {}@{}", word(&l.content), from.name),
    }
}

#[test]
fn every_combination_of_disk_and_tree() {
    let disks = [
        "",
        "v2@a",
        "v2@a!",
        "v2@ax",
        "v2@bx",
        "v1@a",
        "v2@b",
        "v1@b",
        "link@a",
        "dir@a",
        "dir@b",
        "dir@ak",
        "v2@a v1@b",
        "v1@a v2@b",
        "v2@a v2@b",
        "dir@a v1@b",
    ];
    let trees = ["", "v2@a", "link@a", "dir@a", "v2@a v1@c", "dir@a v2@c"];
    let mut table = String::new();
    for tree in trees {
        writeln!(table, "should be: {}", if tree.is_empty() { "nothing" } else { tree }).unwrap();
        for disk in disks {
            let locals = parse(disk).into_iter().map(local).collect();
            let lacks = decide(locals, parse(tree).into_iter().map(wanted).collect());
            let lacks: Vec<String> = lacks.iter().map(say).collect();
            let lacks = if lacks.is_empty() { "-".into() } else { lacks.join(", ") };
            writeln!(table, "  {:12} {lacks}", if disk.is_empty() { "nothing" } else { disk }).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}
