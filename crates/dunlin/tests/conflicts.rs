//! Every row of docs/conflicts.md, with three real nodes.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::conflicts::{ROWS, Row, Shown, acts, is_documented};
use dunlin_testkit::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Does what the words of an act say.
fn does(root: &Path, act: &[String]) {
    let path = |i: usize| root.join(&act[i]);
    let text = |n: &str| format!("content {n}\n");
    match act[0].as_str() {
        "write" => fs::write(path(1), text(&act[2])).unwrap(),
        "save" => write(path(1), text(&act[2])),
        "move" => fs::rename(path(1), path(2)).unwrap(),
        "exchange" => {
            let aside = root.join("aside");
            fs::rename(path(1), &aside).unwrap();
            fs::rename(path(2), path(1)).unwrap();
            fs::rename(aside, path(2)).unwrap();
        }
        "remove" if path(1).is_dir() => fs::remove_dir_all(path(1)).unwrap(),
        "remove" => fs::remove_file(path(1)).unwrap(),
        "mkdir" => fs::create_dir(path(1)).unwrap(),
        "chmod" => set_mode(&path(1), u32::from_str_radix(&act[2], 8).unwrap()),
        "touch" => set_mtime(&path(1), act[2].parse().unwrap(), 0),
        other => panic!("no act: {other}"),
    }
}

fn do_all(root: &Path, at: usize, text: &str) {
    for act in acts(text, Some(&format!("row {at}"))).iter().filter(|act| act[0] != "look") {
        does(root, act);
    }
}

/// Does its part of every row; where a row asks for it, the device looks in between, alone.
fn does_its_part(node: &mut Node, part: impl Fn(&Row) -> &'static str) {
    let parts = || ROWS.iter().enumerate().filter_map(|(at, row)| Some((at, part(row).split_once("look;")?)));
    for (at, (before, _)) in parts() {
        do_all(&node.dir, at, before);
    }
    if parts().next().is_some() {
        let files = tree(&node.dir).values().filter(|t| !matches!(t, Thing::Dir { .. })).count();
        node.run();
        until("it has looked", PATIENCE, || {
            let (code, out, _) = node.asks(&["status", "--json"]);
            let Ok(status) = serde_json::from_str::<serde_json::Value>(&out) else { return false };
            let folder = &status["folders"][0];
            code == 0 && folder["state"] != "scanning" && folder["files"] == files
        });
        node.stop();
    }
    for (at, row) in ROWS.iter().enumerate() {
        do_all(&node.dir, at, part(row).split_once("look;").map_or(part(row), |(_, after)| after));
    }
}

/// What is in the directory of a row.
fn shown(root: &Path, all: &Tree, at: usize) -> BTreeMap<String, Shown> {
    let dir = format!("row {at}/");
    let mut out = BTreeMap::new();
    for (path, thing) in all {
        let path = String::from_utf8(path.clone()).unwrap();
        let Some(below) = path.strip_prefix(&dir) else { continue };
        let shown = match thing {
            Thing::Dir { mode } => Shown { word: "/".into(), mode: *mode, secs: 0 },
            Thing::File { mode, mtime, .. } => {
                let text = fs::read_to_string(root.join(&path)).unwrap();
                let word = text.strip_prefix("content ").unwrap_or(&text).trim_end().to_owned();
                Shown { word, mode: *mode, secs: mtime.0 }
            }
            Thing::Link { .. } => panic!("no row has links"),
        };
        out.insert(below.to_owned(), shown);
    }
    out
}

fn rounds(nodes: &mut [Node; 3]) -> Tree {
    let mut tree = Tree::new();
    for round in 0..2 {
        nodes.iter_mut().for_each(Node::stop);
        // Who joined has done its part by now.
        let acts = |row: &Row| match round {
            0 if row.before.is_none() => ("", ""),
            0 => row.first,
            _ => row.then,
        };
        does_its_part(&mut nodes[0], |row| acts(row).0);
        does_its_part(&mut nodes[1], |row| acts(row).1);
        nodes.iter_mut().for_each(Node::run);
        let [a, b, c] = &*nodes;
        tree = settle("they met again", &[a, b, c]);
    }
    tree
}

#[test]
fn every_row_becomes_what_is_documented() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    for (at, row) in ROWS.iter().enumerate() {
        fs::create_dir_all(a.path(format!("row {at}"))).unwrap();
        match row.before {
            Some(before) => do_all(&a.dir, at, before),
            None => {
                fs::create_dir_all(b.path(format!("row {at}"))).unwrap();
                do_all(&a.dir, at, row.first.0);
                do_all(&b.dir, at, row.first.1);
            }
        }
    }
    b.join(&a.share());
    c.join(&b.invite());
    settle("joined", &[&a, &b, &c]);
    let mut nodes = [a, b, c];
    let tree = rounds(&mut nodes);
    let mut wrong = Vec::new();
    for (at, row) in ROWS.iter().enumerate() {
        let shown = shown(&nodes[0].dir, &tree, at);
        if !is_documented(row, &shown) {
            wrong.push(format!("{} x {}: {shown:?}", row.here, row.there));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows of the document are those that are tested, word for word.
#[test]
fn the_document_has_just_these_rows() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conflicts.md")).unwrap();
    let rows =
        text.lines().skip_while(|l| !l.starts_with("| here |")).skip(2).take_while(|l| l.starts_with('|'));
    let documented: Vec<[String; 2]> = rows
        .map(|line| {
            let mut cells = line.split('|').skip(1).map(|c| c.trim().to_owned());
            [cells.next().unwrap(), cells.next().unwrap()]
        })
        .collect();
    let tested: Vec<[String; 2]> = ROWS.iter().map(|r| [r.here.to_owned(), r.there.to_owned()]).collect();
    assert_eq!(documented, tested);
}
