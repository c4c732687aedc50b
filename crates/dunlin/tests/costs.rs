//! What things cost, counted and not timed: bytes on the wire, bytes read and written, waits for the disk.
//! The limits are what was measured when they were written, times two or more;
//! who raises one says why in the change that does it.
//!
//! Needs root, `ip` and strace for its counters; says so loudly where it has none.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Two nodes on hosts of their own, whose waits for the disk are written down.
struct Pair {
    nodes: [Node; 2],
    lan: Lan,
    base: PathBuf,
    _temp: tempfile::TempDir,
}

/// What was used so far, by both.
#[derive(Clone, Copy, Debug)]
struct Used {
    received: u64,
    fsyncs: u64,
    read: u64,
    written: u64,
}

impl Pair {
    fn new() -> Option<Pair> {
        let args = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "true"];
        let lan = is_root() && can("costs", "ip", &["netns", "list"]) && can("costs", "strace", &args);
        if !lan {
            skipped("costs", "needs root, ip and strace");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let lan = Lan::new(&["a", "b"]);
        let node = |name: &str| {
            let mut node = Node::new(&base, name);
            (node.netns, node.listen) = (Some(lan.ns(name)), None);
            let calls = base.join(format!("{name}.calls"));
            node.wrapper =
                ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none"].map(OsString::from).into();
            node.wrapper.extend(["-e", "trace=fsync,fdatasync,syncfs", "-o"].map(OsString::from));
            node.wrapper.push(calls.into_os_string());
            node
        };
        let nodes = ["a", "b"].map(node);
        lan.address("a", "10.76.0.1/24");
        lan.address("b", "10.76.0.2/24");
        nodes.iter().for_each(|node| fs::create_dir(&node.dir).unwrap());
        Some(Pair { nodes, lan, base, _temp: temp })
    }

    fn join(&mut self) {
        let [a, b] = &mut self.nodes;
        b.join(&a.share());
        settle_within("joined", &[a, b], PATIENCE * 2);
    }

    fn used(&self) -> Used {
        let fsyncs = |name: &&str| {
            let text = fs::read_to_string(self.base.join(format!("{name}.calls"))).unwrap_or_default();
            text.lines().filter(|line| line.contains("sync(") || line.contains("syncfs(")).count() as u64
        };
        let (mut read, mut written) = (0, 0);
        for node in &self.nodes {
            // strace's child is the node.
            let pid = node.pid();
            let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let io = fs::read_to_string(format!("/proc/{}/io", child.trim())).unwrap_or_default();
            let count = |name: &str| -> u64 {
                io.lines().find_map(|l| l.strip_prefix(name)).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            };
            read += count("rchar:");
            written += count("wchar:");
        }
        let received = self.lan.received("a") + self.lan.received("b");
        Used { received, fsyncs: ["a", "b"].iter().map(fsyncs).sum(), read, written }
    }

    /// What an act costs until both are in sync again.
    fn cost(&mut self, what: &str, act: impl FnOnce(&Path)) -> Used {
        let before = self.used();
        act(&self.nodes[0].dir);
        self.nodes[0].wait();
        settle_within(what, &[&self.nodes[0], &self.nodes[1]], PATIENCE * 2);
        let now = self.used();
        let used = Used {
            received: now.received - before.received,
            fsyncs: now.fsyncs - before.fsyncs,
            read: now.read - before.read,
            written: now.written - before.written,
        };
        eprintln!("{what}: {used:?}");
        used
    }
}

#[test]
fn what_things_cost_stays_in_bounds() {
    let Some(mut pair) = Pair::new() else { return };
    const FILES: u64 = 300;
    const SIZE: u64 = 4096;
    const LARGE: u64 = 16 << 20;
    let noise_of = |n: u64| noise(n, SIZE as usize);
    (0..FILES).for_each(|n| write(pair.nodes[0].path(format!("{n}")), noise_of(n)));
    pair.join();
    let first = pair.used();
    eprintln!("{FILES} files of {SIZE} bytes: {first:?}");
    let content = FILES * SIZE;
    // A row, a request and an answer for each file, beside its bytes.
    assert!(first.received < content * 3 / 2, "{first:?}");
    assert!(first.fsyncs < FILES / 2, "{first:?}");
    assert!(first.written < content * 4, "{first:?}");

    let large = noise(FILES, LARGE as usize);
    let sent = pair.cost("a large file", |dir| write(dir.join("large"), &large));
    assert!(sent.received < LARGE * 11 / 10, "{sent:?}");
    assert!(sent.read < LARGE * 10, "{sent:?}");

    let beside = pair.base.join("edited");
    write(&beside, [b"!", &large[..]].concat());
    let insert = pair.cost("a byte before it", |dir| fs::rename(&beside, dir.join("large")).unwrap());
    // A chunk or two, the page that they are in, and the list of pages.
    assert!(insert.received < 190_000, "{insert:?}");
    assert!(insert.read < LARGE * 10, "{insert:?}");

    let patch = pair.cost("16 bytes in two places of it", |dir| {
        let file = fs::File::options().write(true).open(dir.join("large")).unwrap();
        [3 << 20, 9 << 20].into_iter().for_each(|at| file.write_all_at(b"patched!", at).unwrap());
    });
    // Two leaves of 16 KiB, what the leaves of their blocks are, and the list of the blocks.
    assert!(patch.received < 90_000, "{patch:?}");
    assert!(patch.read < LARGE * 8, "{patch:?}");

    let moved = pair.cost("renamed and appended to", |dir| {
        fs::rename(dir.join("large"), dir.join("renamed")).unwrap();
        fs::File::options().append(true).open(dir.join("renamed")).unwrap().write_all(b"and more").unwrap();
    });
    assert!(moved.received < 190_000, "{moved:?}");
    assert!(moved.read < LARGE * 10, "{moved:?}");

    let edit = pair.cost("an edit of a small file", |dir| write(dir.join("7"), b"edited"));
    assert!(edit.received < 12_000, "{edit:?}");
    assert!(edit.fsyncs < 30, "{edit:?}");
    assert!(edit.read < 1 << 20 && edit.written < 600_000, "{edit:?}");

    let into = |dir: &Path| {
        fs::create_dir_all(dir.join("all/deep")).unwrap();
        fs::rename(dir.join("renamed"), dir.join("all/large")).unwrap();
        (0..FILES).for_each(|n| {
            let to = if n % 2 == 0 { "all" } else { "all/deep" };
            fs::rename(dir.join(n.to_string()), dir.join(to).join(n.to_string())).unwrap();
        });
    };
    let each = pair.cost("all files moved into a directory", into);
    assert!(each.received < FILES * 500, "{each:?}");
    // One change, however much is in it: no content is read, and nothing is told of what is in it.
    let renamed = |dir: &Path| {
        fs::create_dir(dir.join("way")).unwrap();
        fs::rename(dir.join("all"), dir.join("way/all of them")).unwrap();
    };
    let moved = pair.cost("a directory with all of them renamed", renamed);
    assert!(moved.received < 12_000, "{moved:?}");
    assert!(moved.fsyncs < 40 && moved.read < 1 << 20 && moved.written < 600_000, "{moved:?}");
}
