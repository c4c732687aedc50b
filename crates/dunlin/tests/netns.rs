//! Every node on a host of its own: network namespaces on a switch, no gateway, no name server. Needs
//! root and `ip`; says so loudly where it cannot.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Place {
    // The nodes are dropped (and killed) by the tests before the networks go.
    _temp: tempfile::TempDir,
    base: PathBuf,
}

fn place() -> Option<Place> {
    if !is_root() || !can("network namespaces", "ip", &["netns", "list"]) {
        skipped("network namespaces", "needs root and ip");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    Some(Place { _temp: temp, base })
}

impl Place {
    fn node(&self, lan: &Lan, name: &str) -> Node {
        let mut node = Node::new(&self.base, name);
        node.netns = Some(lan.ns(name));
        node.listen = None;
        node
    }
}

fn connected(node: &Node, to: &str) -> bool {
    let folder = node.folder();
    let devices = folder["devices"].as_array().cloned().unwrap_or_default();
    devices.iter().any(|d| d["name"] == to && d["connected"] == true)
}

#[test]
fn devices_on_a_lan_find_each_other_whatever_happens_to_it() {
    let Some(p) = place() else { return };
    let lan = Lan::new(&["a", "b", "c"]);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| p.node(&lan, n));
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        lan.address(name, &format!("10.77.0.{}/24", i + 1));
    }
    b.join(&a.share());
    write(a.path("first"), b"by a");
    c.join(&b.invite());
    write(c.path("second"), b"by c");
    settle("on the LAN", &[&a, &b, &c]);

    // A restart: connected to both, who still believe the old connection alive. Several times: all have
    // the same port, and the invitations loopback addresses too, where everybody meets only himself.
    for _ in 0..5 {
        c.kill();
        let begun = Instant::now();
        c.run();
        c.until_connected(2, PATIENCE);
        let took = begun.elapsed();
        eprintln!("restarted after kill -9, connected to two after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    // All off, with other addresses when they come back: nothing that was remembered helps.
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        lan.address(name, &format!("10.99.0.{}/24", i + 41));
    }
    write(b.path("third"), b"by b, offline");
    a.run();
    c.run();
    c.until_connected(1, PATIENCE);
    let begun = Instant::now();
    b.run();
    b.until_connected(2, PATIENCE);
    let took = begun.elapsed();
    eprintln!("with other addresses, connected to two after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    settle("with other addresses", &[&a, &b, &c]);

    // The cable of b is pulled, and comes back; both go on meanwhile.
    lan.on("b", &["link", "set", "eth0", "down"]);
    let noticed = until("a notices that b is gone", Duration::from_secs(10), || !connected(&a, "b"));
    write(a.path("while down"), b"by a");
    write(b.path("while cut off"), b"by b");
    until("b notices too", Duration::from_secs(10), || b.connections() == 0);
    settle("a and c alone", &[&a]);
    lan.on("b", &["link", "set", "eth0", "up"]);
    let back = b.until_connected(2, PATIENCE);
    eprintln!("a pulled cable was noticed after {noticed:?}, plugged in again connected after {back:?}");
    assert!(back < Duration::from_secs(10), "{back:?}");
    settle("after the cable", &[&a, &b, &c]);

    // The power of c fails: no word to anybody.
    lan.on("c", &["link", "delete", "eth0"]);
    c.kill();
    let noticed =
        until("c's death is noticed", Duration::from_secs(10), || !connected(&a, "c") && !connected(&b, "c"));
    eprintln!("a device without power was noticed after {noticed:?}");
    write(a.path("after c"), b"x");
    settle("without c", &[&a, &b]);
}

#[test]
fn two_lans_and_a_device_on_both() {
    let Some(p) = place() else { return };
    let (one, two) = (Lan::new(&["a", "b"]), Lan::new(&["c"]));
    one.address("a", "10.77.1.1/24");
    one.address("b", "10.77.1.2/24");
    two.plug_other(&one, "b", "eth1");
    one.on("b", &["address", "add", "10.77.2.2/24", "dev", "eth1"]);
    two.address("c", "10.77.2.3/24");
    let [mut a, mut b] = ["a", "b"].map(|n| p.node(&one, n));
    let mut c = p.node(&two, "c");
    // The one on both LANs shares: its invitation carries both addresses.
    fs::create_dir(&b.dir).unwrap();
    write(b.path("first"), b"by b");
    let ticket = b.share();
    a.join(&ticket);
    c.join(&b.invite());
    until("b connected to both", PATIENCE, || b.connections() == 2);
    write(a.path("by a"), b"through b");
    write(c.path("by c"), b"through b too");
    until("all have all", PATIENCE, || tree(&a.dir).len() == 3 && tree(&c.dir).len() == 3);
    b.wait();
    identical("over two LANs", &[&a, &b, &c]);
    assert!(!connected(&a, "c"), "there is no way between them");
    // All restart; b has a new address on one side.
    for node in [&mut a, &mut b, &mut c] {
        node.stop();
    }
    one.on("b", &["address", "flush", "dev", "eth1"]);
    one.on("b", &["address", "add", "10.77.2.77/24", "dev", "eth1"]);
    for node in [&mut a, &mut c, &mut b] {
        node.run();
    }
    let took = b.until_connected(2, PATIENCE);
    eprintln!("on two LANs, connected to both after {took:?}");
    write(c.path("again"), b"c");
    until("it crosses", PATIENCE, || a.path("again").exists());
}

#[test]
fn nothing_but_loopback_is_enough_for_one_machine() {
    let Some(p) = place() else { return };
    let lan = Lan::new(&["alone"]);
    lan.on("alone", &["link", "set", "eth0", "down"]);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| {
        let mut node = Node::new(&p.base, n);
        node.netns = Some(lan.ns("alone"));
        node.listen = None;
        node
    });
    b.join(&a.share());
    c.join(&b.invite());
    write(a.path("x"), b"x");
    settle("on loopback", &[&a, &b, &c]);
    // Ports change: nobody has the one that was remembered, in another order.
    for node in [&mut a, &mut b, &mut c] {
        node.kill();
    }
    let begun = Instant::now();
    for node in [&mut c, &mut b, &mut a] {
        node.run();
    }
    for node in [&a, &b, &c] {
        node.until_connected(2, PATIENCE);
    }
    let took = begun.elapsed();
    eprintln!("three on nothing but loopback connected after {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    write(c.path("y"), b"y");
    settle("on loopback again", &[&a, &b, &c]);
}

#[test]
fn a_network_that_comes_late_is_used() {
    let Some(p) = place() else { return };
    let lan = Lan::new(&["a", "b"]);
    lan.address("a", "10.77.3.1/24");
    lan.address("b", "10.77.3.2/24");
    let [mut a, mut b] = ["a", "b"].map(|n| p.node(&lan, n));
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    a.stop();
    b.stop();
    for host in ["a", "b"] {
        lan.on(host, &["link", "set", "eth0", "down"]);
        lan.on(host, &["-4", "address", "flush", "dev", "eth0"]);
    }
    a.run();
    b.run();
    write(a.path("early"), b"x");
    until("a runs without a network", PATIENCE, || a.asks(&["status"]).0 == 0 && b.asks(&["status"]).0 == 0);
    assert_eq!(a.connections(), 0);
    for (host, ip) in [("a", "10.77.4.1/24"), ("b", "10.77.4.2/24")] {
        lan.on(host, &["link", "set", "eth0", "up"]);
        lan.address(host, ip);
    }
    let took = a.until_connected(1, PATIENCE);
    eprintln!("a network that came late was used after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    settle("with the network", &[&a, &b]);
}
