//! Several folders on one device: what one of them has needs not come over the network for another.
//!
//! Needs root and `ip` to count bytes; says so loudly where it has none.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const LARGE: usize = 8 << 20;
/// Fewer than the brake asks about, twice.
const FILES: u64 = 40;
const SIZE: usize = 20_000;

struct Lans {
    lan: Lan,
    nodes: Vec<Node>,
    base: PathBuf,
    _temp: tempfile::TempDir,
}

impl Lans {
    fn new(names: &[&str]) -> Option<Lans> {
        if !is_root() || !can("folders", "ip", &["netns", "list"]) {
            skipped("folders", "needs root and ip");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let lan = Lan::new(names);
        let node = |(i, name): (usize, &&str)| {
            let mut node = Node::new(&base, name);
            (node.netns, node.listen) = (Some(lan.ns(name)), None);
            lan.address(name, &format!("10.78.0.{}/24", i + 1));
            node
        };
        let nodes = names.iter().enumerate().map(node).collect();
        Some(Lans { lan, nodes, base, _temp: temp })
    }

    fn other(&self, node: usize) -> PathBuf {
        self.base.join(format!("{}.other", self.nodes[node].name))
    }

    /// The second folder of the first node, joined by these.
    fn share_other(&self, by: &[usize]) {
        let told = |node: usize, args: &[&OsStr]| {
            let out = self.nodes[node].command(args).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let first = self.other(0);
        fs::create_dir(&first).unwrap();
        told(0, &["share".as_ref(), first.as_os_str()]);
        for &node in by {
            let ticket = told(0, &["invite".as_ref(), first.as_os_str()]);
            told(node, &["join".as_ref(), ticket.trim().as_ref(), self.other(node).as_os_str()]);
            self.settle_other(node);
        }
    }

    fn settle_other(&self, node: usize) {
        self.settle([(0, self.other(0)), (node, self.other(node))]);
        assert_eq!(differences(&tree(&self.other(0)), &tree(&self.other(node))), Vec::<String>::new());
    }

    /// In sync by their own words, both folders at once.
    fn settle<const N: usize>(&self, all: [(usize, PathBuf); N]) {
        until("in sync", PATIENCE * 2, || {
            let rests = |(node, dir): &(usize, PathBuf)| {
                self.nodes[*node].asks(&["wait", dir.to_str().unwrap(), "--timeout", "5"]).0 == 0
            };
            all.iter().all(rests)
        });
    }

    fn received(&self) -> u64 {
        self.nodes.iter().map(|n| self.lan.received(&n.name)).sum()
    }
}

fn fill(dir: &Path) {
    fs::create_dir(dir).unwrap();
    write(dir.join("large"), noise(1, LARGE));
    (0..FILES).for_each(|n| write(dir.join(n.to_string()), noise(n + 2, SIZE)));
}

#[test]
fn a_move_between_folders_is_not_sent() {
    let Some(mut all) = Lans::new(&["a", "b"]) else { return };
    fill(&{
        fs::create_dir(&all.nodes[0].dir).unwrap();
        all.nodes[0].path("big")
    });
    let ticket = all.nodes[0].share();
    all.nodes[1].join(&ticket);
    settle_within("the first folder", &[&all.nodes[0], &all.nodes[1]], PATIENCE * 2);
    all.share_other(&[1]);
    // There and back: the one folder is looked at before the other, or after it.
    let places = [all.nodes[0].path("big"), all.other(0).join("big")];
    for (round, [from, to]) in [[0, 1], [1, 0], [0, 1]].into_iter().enumerate() {
        let before = all.received();
        fs::rename(&places[from], &places[to]).unwrap();
        let dirs = all.nodes.iter().map(|n| n.dir.clone()).collect::<Vec<_>>();
        all.settle([(0, dirs[0].clone()), (0, all.other(0)), (1, dirs[1].clone()), (1, all.other(1))]);
        assert_eq!(differences(&tree(&dirs[0]), &tree(&dirs[1])), Vec::<String>::new());
        all.settle_other(1);
        let sent = all.received() - before;
        eprintln!("round {round}: {sent} bytes");
        // Rows of 41 files, twice.
        assert!(sent < LARGE as u64 / 16, "round {round}: {sent}");
        assert!(places[to].join("large").exists());
    }
}

/// That all of it is gone here is no mass delete, on any device that has both folders.
#[test]
fn all_of_a_folder_may_be_moved_to_another() {
    let Some(mut all) = Lans::new(&["a", "b"]) else { return };
    fill(&{
        fs::create_dir(&all.nodes[0].dir).unwrap();
        all.nodes[0].path("d")
    });
    fs::create_dir(all.nodes[0].path("e")).unwrap();
    for n in 0..160 {
        write(all.nodes[0].path(format!("d/more {n}")), noise(900 + n, 900));
        write(all.nodes[0].path(format!("e/{n}")), noise(2000 + n, 900));
    }
    let ticket = all.nodes[0].share();
    // What is there at the start is not young.
    all.nodes[0].wait();
    all.nodes[1].join(&ticket);
    settle_within("the first folder", &[&all.nodes[0], &all.nodes[1]], PATIENCE * 2);
    all.share_other(&[1]);
    let dirs = all.nodes.iter().map(|n| n.dir.clone()).collect::<Vec<_>>();
    fs::rename(all.nodes[0].path("d"), all.other(0).join("d")).unwrap();
    all.settle([(0, dirs[0].clone()), (0, all.other(0)), (1, dirs[1].clone()), (1, all.other(1))]);
    all.settle_other(1);
    assert!(all.other(1).join("d/more 159").exists() && dirs.iter().all(|dir| !dir.join("d").exists()));
    for node in &all.nodes {
        assert!(node.events("problem").is_empty(), "{}: {:?}", node.name, node.events("problem"));
    }
    // What goes and came nowhere else is one, be there as many folders as there may.
    fs::remove_dir_all(dirs[0].join("e")).unwrap();
    until("halted", PATIENCE, || {
        let (_, out, _) = all.nodes[0].asks(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&out).unwrap();
        let folders = status["folders"].as_array().unwrap();
        folders.iter().any(|f| f["path"] == dirs[0].to_str().unwrap() && f["state"] == "halted")
    });
    assert!(dirs[1].join("e/159").exists());
}

/// Who is in one folder only must not get what is in another by knowing its hash.
#[test]
fn what_others_may_not_have_is_not_taken_from_another_folder() {
    let Some(mut all) = Lans::new(&["a", "b", "c"]) else { return };
    fs::create_dir(&all.nodes[0].dir).unwrap();
    write(all.nodes[0].path("private"), noise(1, LARGE));
    let ticket = all.nodes[0].share();
    all.nodes[1].join(&ticket);
    settle_within("the first folder", &[&all.nodes[0], &all.nodes[1]], PATIENCE * 2);
    all.nodes[2].start(&["run".as_ref()]);
    until("c runs", PATIENCE, || all.nodes[2].asks(&["status"]).0 == 0);
    all.share_other(&[1, 2]);
    // The same bytes in the folder that a third is in, too: they are sent.
    let before = all.lan.received("b");
    fs::copy(all.nodes[0].path("private"), all.other(0).join("public")).unwrap();
    all.settle_other(1);
    all.settle_other(2);
    let sent = all.lan.received("b") - before;
    assert!(sent > LARGE as u64, "{sent}");
}
