//! Flocks on a network of their own: who starts when, who goes, what it costs. Needs root and `ip` for
//! most; says so loudly where it cannot.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Place {
    _temp: tempfile::TempDir,
    base: PathBuf,
}

fn place() -> Place {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    Place { _temp: temp, base }
}

fn networks() -> bool {
    let can = is_root() && can("network namespaces", "ip", &["netns", "list"]);
    if !can {
        skipped("network namespaces", "needs root and ip");
    }
    can
}

impl Place {
    fn node(&self, lan: &Lan, name: &str) -> Node {
        let mut node = Node::new(&self.base, name);
        node.netns = Some(lan.ns(name));
        node.listen = None;
        node
    }
}

fn lan_of(names: &[&str]) -> Lan {
    let lan = Lan::new(names);
    for (i, name) in names.iter().enumerate() {
        lan.address(name, &format!("10.78.{}.{}/16", i / 250, i % 250 + 1));
    }
    lan
}

#[test]
fn a_transfer_outlives_every_source_but_the_last() {
    let p = place();
    let [mut a, mut b, mut c, mut d] = ["a", "b", "c", "d"].map(|n| Node::new(&p.base, n));
    b.join(&a.share());
    c.join(&a.invite());
    d.join(&a.invite());
    settle("joined", &[&a, &b, &c, &d]);
    d.stop();
    for i in 0..6u64 {
        write(a.path(format!("large {i}")), noise(i, 20 << 20));
    }
    settle("three have it", &[&a, &b, &c]);
    d.run();
    d.until_connected(3, PATIENCE);
    let arrived = || {
        let placed = tree(&d.dir).len();
        let parts = fs::read_dir(d.path(".dunlin/stage")).map_or(0, Iterator::count);
        placed + parts
    };
    until("it begins", PATIENCE, || arrived() > 0);
    a.kill();
    let before = arrived();
    until("it goes on", PATIENCE, || arrived() > before || tree(&d.dir).len() == 6);
    b.kill();
    settle("from the last", &[&c, &d]);
    assert_eq!(tree(&d.dir).len(), 6);
}

#[test]
fn two_that_dial_each_other_at_once_keep_one_connection() {
    let p = place();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&p.base, n));
    for node in [&mut a, &mut b] {
        // The same address after a restart: both dial at once, and nobody is heard on the network.
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (node.listen, node.discovery) = (Some(free.to_string()), false);
    }
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    for round in 0..10 {
        a.kill();
        b.kill();
        a.run();
        b.run();
        for node in [&a, &b] {
            node.until_connected(1, PATIENCE);
        }
        write(a.path("round"), format!("{round}"));
        settle("again", &[&a, &b]);
        // Which of two stays is agreed on: nobody is seen to go once all is in sync.
        let gone = [&a, &b].map(|n| n.events("disconnected").len());
        write(b.path("later"), format!("{round}"));
        settle("later", &[&a, &b]);
        assert_eq!([&a, &b].map(|n| n.events("disconnected").len()), gone, "round {round}");
        assert_eq!([&a, &b].map(Node::connections), [1, 1]);
    }
}

/// Packets that each host has sent so far.
fn sent(lan: &Lan, names: &[&str]) -> u64 {
    let of = |name: &&str| {
        let text = lan.reads(name, "/proc/net/dev");
        let line = text.lines().find_map(|l| l.trim().strip_prefix("eth0:")).unwrap().to_owned();
        line.split_whitespace().nth(9).unwrap().parse::<u64>().unwrap()
    };
    names.iter().map(of).sum()
}

/// Starts a whole flock at the same moment; `DUNLIN_FLOCK=50` for more than a test should take. From 34 on the kernel has to
/// know more neighbours than it usually does, of all namespaces together: `net.ipv4.neigh.default.gc_thresh3=16384`.
#[test]
fn a_whole_flock_that_starts_at_once_connects() {
    if !networks() {
        return;
    }
    let count = std::env::var("DUNLIN_FLOCK").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let patience = PATIENCE * (1 + count as u32 / 10);
    let names: Vec<String> = (0..count).map(|i| format!("n{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (p, lan) = (place(), lan_of(&names));
    let mut nodes: Vec<Node> = names.iter().map(|n| p.node(&lan, n)).collect();
    let (first, others) = nodes.split_first_mut().unwrap();
    first.share();
    for other in others {
        other.join(&first.invite());
    }
    let all = |nodes: &[Node]| {
        nodes.iter().for_each(|n| {
            n.until_connected(count - 1, patience);
        })
    };
    all(&nodes);
    nodes.iter_mut().for_each(Node::kill);
    let before = sent(&lan, &names);
    let begun = Instant::now();
    nodes.iter_mut().for_each(Node::run);
    all(&nodes);
    let (took, packets) = (begun.elapsed(), sent(&lan, &names) - before);
    eprintln!("{count} nodes started at once were all connected after {took:?}, with {packets} packets");
    write(nodes[count / 2].path("by one"), b"for all");
    settle_within("in sync", &nodes.iter().collect::<Vec<_>>(), patience);
    // Handshakes are a dozen packets for each pair and side, and nobody floods.
    let bound = 150 * (count * count) as u64;
    assert!(packets < bound, "{packets} packets, more than {bound}");
}

/// What a process has read, and what it has written to disks, in bytes.
fn io(node: &Node) -> BTreeMap<String, u64> {
    // Below `nsenter`, which becomes the node.
    let text = fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    let line = |l: &str| l.split_once(": ").map(|(k, v)| (k.to_owned(), v.parse().unwrap()));
    text.lines().filter_map(line).collect()
}

#[test]
fn a_renamed_directory_moves_no_content_and_rest_writes_nothing() {
    if !networks() {
        return;
    }
    let (p, lan) = (place(), lan_of(&["a", "b"]));
    let [mut a, mut b] = ["a", "b"].map(|n| p.node(&lan, n));
    fs::create_dir_all(a.path("d/e")).unwrap();
    for i in 0..100u64 {
        write(a.path(format!("d/e/{i}")), noise(i, 1 << 20));
    }
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    let (bytes, reads) = (lan.received("a") + lan.received("b"), [&a, &b].map(|n| io(n)["rchar"]));
    fs::rename(a.path("d"), a.path("moved")).unwrap();
    let all = settle("renamed", &[&a, &b]);
    assert!(all.contains_key(&b"moved/e/7"[..]));
    let bytes = lan.received("a") + lan.received("b") - bytes;
    let now = [&a, &b].map(|n| io(n)["rchar"]);
    let read = [now[0] - reads[0], now[1] - reads[1]];
    eprintln!("a renamed directory of 100 MiB: {bytes} bytes on the wire, {read:?} bytes read");
    assert!(bytes < 1 << 20 && read.iter().all(|r| *r < 10 << 20), "{bytes}, {read:?}");
    // Nothing is to be done: soon nothing is written, and a word now and then says that one is alive.
    until("three seconds in which nothing is written", PATIENCE, || {
        let before = ([&a, &b].map(|n| io(n)["write_bytes"]), lan.received("a") + lan.received("b"));
        std::thread::sleep(Duration::from_secs(3));
        let bytes = lan.received("a") + lan.received("b") - before.1;
        eprintln!("in 3 s of rest {bytes} bytes on the wire");
        [&a, &b].map(|n| io(n)["write_bytes"]) == before.0 && bytes < 30_000
    });
}

/// `DUNLIN_BAD_NETWORK="0.2 0.02 0.03 0.01 0.001,…"` for worse ones than a test has time for.
#[test]
fn a_network_that_loses_delays_doubles_and_damages_packets_only_takes_longer() {
    if !networks() || !can("a bad network", "python3", &["-c", "open('/dev/net/tun', 'rb+', 0)"]) {
        return;
    }
    // Of the frames lost; seconds of delay, and of what varies in it; of the frames doubled and damaged.
    let mild = ["0.05", "0.001", "0.002", "0.05", "0.001"];
    let hows = match std::env::var("DUNLIN_BAD_NETWORK") {
        Ok(all) => all.split(',').map(|how| how.split(' ').map(str::to_owned).collect()).collect(),
        Err(_) => vec![mild.map(str::to_owned).to_vec()],
    };
    for how in hows {
        let (p, lan) = (place(), Lan::new(&["a", "b"]));
        let [mut a, mut b] = ["a", "b"].map(|n| p.node(&lan, n));
        let _bad = BadSwitch::new(&lan, &["a", "b"], &how);
        write_some(&mut a, 40);
        let begun = Instant::now();
        let ticket = a.share();
        b.join(&ticket);
        let all = settle_within("over a bad network", &[&a, &b], PATIENCE * 4);
        assert_eq!(all.len(), 42);
        eprintln!(
            "lost, delay, jitter, doubled, damaged {how:?}: 1.2 MB in 42 files after {:?}",
            begun.elapsed()
        );
    }
}

fn write_some(node: &mut Node, count: u64) {
    fs::create_dir(&node.dir).unwrap();
    for i in 0..count {
        write(node.path(format!("small {i}")), noise(i, 1000));
    }
    write(node.path("large"), noise(count, 1_200_000));
    fs::File::create(node.path("empty")).unwrap().flush().unwrap();
}
