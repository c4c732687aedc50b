//! Large contents over TCP, and over QUIC where that fails: devices on hosts of their own. Needs root and
//! `ip`; says so loudly where it cannot.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// With which 1,000 and more packets come, however the kernel puts them together.
const LARGE: u64 = 128 * MIB;
/// With less than this nothing large came.
const FEW: u64 = 700;

struct Two {
    lan: Lan,
    nodes: [Node; 2],
    _temp: tempfile::TempDir,
}

fn two(prepare: impl Fn(&mut Node)) -> Option<Two> {
    if !is_root() || !can("network namespaces", "ip", &["netns", "list"]) {
        skipped("network namespaces", "needs root and ip");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let lan = Lan::new(&["a", "b"]);
    for (i, name) in ["a", "b"].iter().enumerate() {
        lan.address(name, &format!("10.81.0.{}/24", i + 1));
    }
    // Room for a rule before the kernel's first.
    lan.on("b", &["rule", "add", "pref", "10", "lookup", "local"]);
    lan.on("b", &["rule", "del", "pref", "0"]);
    let mut nodes = ["a", "b"].map(|name| {
        let mut node = Node::new(&base, name);
        (node.netns, node.listen) = (Some(lan.ns(name)), None);
        node
    });
    nodes.iter_mut().for_each(prepare);
    let [a, b] = &mut nodes;
    b.join(&a.share());
    settle("joined", &[a, b]);
    Some(Two { lan, nodes, _temp: temp })
}

impl Two {
    /// Packets that a host has got over TCP and over UDP.
    fn packets(&self, host: &str) -> (u64, u64) {
        let out = self.lan.reads(host, "/proc/net/snmp");
        let lines = |of: &str| -> Vec<Vec<String>> {
            let words = |l: &str| l.split_whitespace().map(str::to_owned).collect();
            out.lines().filter(|l| l.starts_with(of)).map(words).collect()
        };
        let number = |of: &str, what: &str| -> u64 {
            let all = lines(of);
            let at = all[0].iter().position(|w| w == what).unwrap();
            all[1][at].parse().unwrap()
        };
        (number("Tcp:", "InSegs"), number("Udp:", "InDatagrams"))
    }

    /// A large file goes from one to the other; the packets that took.
    fn goes(&self, from: usize, name: &str, len: u64) -> (u64, u64) {
        let host = if from == 0 { "b" } else { "a" };
        let before = self.packets(host);
        let seed = name.bytes().fold(0, |seed, b| (seed * 251 + u64::from(b)) % (1 << 40));
        write(self.nodes[from].path(name), noise(seed, usize::try_from(len).unwrap()));
        let [a, b] = &self.nodes;
        settle(name, &[a, b]);
        let after = self.packets(host);
        (after.0 - before.0, after.1 - before.1)
    }

    /// What the second says of the first's TCP.
    fn tcp(&self) -> serde_json::Value {
        self.nodes[1].folder()["devices"][0]["tcp"].clone()
    }

    /// From now on TCP packets to the second are swallowed, and nothing is told of it.
    fn swallow(&self) {
        self.lan.on("b", &["rule", "add", "pref", "5", "iif", "eth0", "ipproto", "tcp", "blackhole"]);
    }

    fn swallow_no_more(&self) {
        self.lan.on("b", &["rule", "del", "pref", "5"]);
    }
}

#[test]
fn large_files_go_over_tcp_and_small_ones_do_not() {
    let Some(two) = two(|_| ()) else { return };
    assert_eq!(two.packets("b").0, 0, "nothing large, no TCP");
    assert_eq!(two.tcp(), "closed");
    for from in [0, 1] {
        let bytes = two.lan.received(["b", "a"][from]);
        let (tcp, udp) = two.goes(from, &format!("large {from}"), LARGE);
        assert!(tcp >= FEW && udp < FEW, "from {from}: {tcp} packets over TCP, {udp} over UDP");
        let bytes = two.lan.received(["b", "a"][from]) - bytes;
        assert!(bytes < LARGE * 108 / 100, "{bytes} bytes for {LARGE}");
    }
    assert_eq!(two.tcp(), "open");
    let (code, out, _) = two.nodes[1].asks(&["status"]);
    assert!(code == 0 && out.contains("10.81.0.1:9000, large files over TCP"), "{out}");
    let before = two.packets("b");
    let (tcp, _) = two.goes(0, "small", MIB / 2);
    assert!(tcp < 20, "{tcp} packets, {before:?} before");
    // What nobody needs is closed.
    until("it is closed", PATIENCE * 2, || two.tcp() == "closed");
}

#[test]
fn where_tcp_is_swallowed_quic_does_it_until_it_works_again() {
    let Some(two) = two(|_| ()) else { return };
    two.swallow();
    let (tcp, udp) = two.goes(0, "large", LARGE);
    assert!(tcp < 20 && udp >= FEW, "{tcp} packets over TCP, {udp} over UDP");
    until("it is said", PATIENCE, || two.tcp() == "fails");
    let (_, out, _) = two.nodes[1].asks(&["status"]);
    assert!(out.contains("10.81.0.1:9000, no TCP: all over QUIC"), "{out}");
    two.swallow_no_more();
    let begun = Instant::now();
    for i in 0.. {
        let (tcp, _) = two.goes(0, &format!("again {i}"), 8 * MIB);
        // A connection that came too late for what asked for it is open, and has proven nothing yet:
        // the requests after it do not wait for more of them until something came over it.
        if two.tcp() == "open" && tcp >= 20 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE * 2, "not tried again");
        std::thread::sleep(Duration::from_millis(500));
    }
    let (tcp, udp) = two.goes(0, "large again", LARGE);
    assert!(tcp >= FEW && udp < FEW, "{tcp} packets over TCP, {udp} over UDP");
}

#[test]
fn a_lane_that_breaks_in_the_middle_loses_nothing_and_fetches_little_twice() {
    let Some(two) = two(|_| ()) else { return };
    let len = 384 * MIB;
    let before = two.lan.received("b");
    write(two.nodes[0].path("large"), noise(1, usize::try_from(len).unwrap()));
    until("it comes", PATIENCE, || two.lan.received("b") - before > 16 * MIB);
    two.swallow();
    let [a, b] = &two.nodes;
    settle_within("over QUIC", &[a, b], PATIENCE * 3);
    assert_eq!(two.tcp(), "fails", "it did break");
    let bytes = two.lan.received("b") - before;
    assert!(bytes < len * 120 / 100, "{bytes} bytes for {len}");
}

#[test]
fn a_device_that_moves_is_asked_over_tcp_where_it_is() {
    let Some(two) = two(|_| ()) else { return };
    two.goes(0, "before", 8 * MIB);
    until("open", PATIENCE, || two.tcp() == "open");
    two.lan.address("a", "10.81.0.77/24");
    let there = || {
        let device = two.nodes[1].folder()["devices"][0].clone();
        device["connected"] == true && device["address"].as_str().unwrap().starts_with("10.81.0.77:")
    };
    until("it is there", PATIENCE * 2, there);
    assert_ne!(two.tcp(), "open", "what led elsewhere counts no more");
    let (tcp, udp) = two.goes(0, "after", LARGE);
    assert!(tcp >= FEW && udp < FEW, "{tcp} packets over TCP, {udp} over UDP");
    assert_eq!(two.tcp(), "open");
}

#[test]
fn where_one_of_two_wants_no_tcp_there_is_none() {
    let off = |node: &mut Node| {
        if node.name == "a" {
            fs::DirBuilder::new().mode(0o700).create(&node.home).unwrap();
            let path: PathBuf = node.home.join("node.json");
            write(&path, r#"{"tcp": false}"#);
            set_mode(&path, 0o600);
        }
    };
    let Some(two) = two(off) else { return };
    for from in [0, 1] {
        let (tcp, udp) = two.goes(from, &format!("large {from}"), LARGE);
        assert!(tcp == 0 && udp >= FEW, "from {from}: {tcp} packets over TCP, {udp} over UDP");
    }
    assert_eq!(two.tcp(), serde_json::Value::Null);
}
