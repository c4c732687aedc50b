//! Beacon and transport on real links: network namespaces made for each test, as root. This
//! program runs itself again inside them (`child`), since a process cannot change its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use dunlin_node::net::beacon::{Beacon, BeaconMode, BeaconOptions, Sighting};
use dunlin_node::net::connection::Connection;
use dunlin_node::net::transport::{BindOptions, Transport};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ALPN: &[u8] = b"dunlin-test/1";
const ROLE: &str = "DUNLIN_TEST_ROLE";
const SEED: &str = "DUNLIN_TEST_SEED";
const LISTEN: &str = "DUNLIN_TEST_LISTEN";

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A network namespace with loopback up; gone when dropped.
struct Space(String);

impl Space {
    fn new(name: &str) -> Space {
        let name = format!("dl{}{name}", std::process::id());
        ip(&format!("netns add {name}"));
        let space = Space(name);
        space.ip("link set lo up");
        space
    }

    fn ip(&self, args: &str) {
        ip(&format!("-n {} {args}", self.0));
    }

    /// A cable to `other`, with an address at either end, or none.
    fn cable(&self, at: &str, addr: Option<&str>, other: &Space, other_at: &str, other_addr: Option<&str>) {
        self.ip(&format!("link add {at} type veth peer name {other_at} netns {}", other.0));
        for (space, at, addr) in [(self, at, addr), (other, other_at, other_addr)] {
            if let Some(addr) = addr {
                // Without duplicate detection, which takes a second and more.
                let extra = if addr.contains(':') { "nodad" } else { "brd +" };
                space.ip(&format!("addr add {addr} dev {at} {extra}"));
            }
            space.ip(&format!("link set {at} up"));
        }
    }

    fn run(&self, role: &str, seed: u8, listen: &str) -> Node {
        let [enter, ns] = dunlin_testkit::in_netns(&self.0);
        let mut child = Command::new(enter)
            .arg(ns)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "net_namespaces::child", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(SEED, seed.to_string())
            .env(LISTEN, listen)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tx, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once("@@ ") {
                    let _ = tx.send(said.to_owned());
                }
            }
        });
        let node = Node { child, lines };
        node.wait("ready", 10_000);
        node
    }

    fn node(&self, seed: u8) -> Node {
        self.run("node", seed, "")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

struct Node {
    child: Child,
    lines: Receiver<String>,
}

impl Node {
    /// The next line that begins with `what`.
    fn wait(&self, what: &str, ms: u64) -> String {
        let end = Instant::now() + Duration::from_millis(ms);
        let mut heard = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(what) => return line,
                Ok(line) => heard.push(line),
                Err(_) => panic!("no {what:?} within {ms} ms, only {heard:#?}"),
            }
        }
    }

    /// Waits for a sighting of `seed`; gives the milliseconds since that node asked.
    fn sees(&self, seed: u8, ms: u64) -> u64 {
        let line = self.wait(&format!("seen {seed} "), ms);
        line.split(' ').nth(2).unwrap().parse().unwrap()
    }

    fn kill(mut self) {
        // The power is pulled: nothing is said any more.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether namespaces can be made; says so when not, since a skipped test looks like a passed one.
fn can() -> bool {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")));
    let ok = root && Command::new("ip").arg("netns").output().is_ok_and(|o| o.status.success());
    if !ok {
        dunlin_testkit::skipped("network namespaces", "needs root and ip netns");
    }
    ok
}

fn seed_of(id: [u8; 32]) -> u8 {
    (0..=255).find(|s| *iroh::SecretKey::from_bytes(&[*s; 32]).public().as_bytes() == id).unwrap()
}

#[test]
#[ignore = "run by the other tests, in a namespace"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let seed: u8 = std::env::var(SEED).unwrap().parse().unwrap();
    let listen = std::env::var(LISTEN).unwrap();
    let listen = (!listen.is_empty()).then(|| listen.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let options = BindOptions { listen, ..BindOptions::new([seed; 32], vec![ALPN.to_vec()]) };
        let transport = Transport::bind(options).await.unwrap();
        let mode = match role.as_str() {
            "mute" => BeaconMode::Off,
            _ => BeaconMode::for_listen(listen),
        };
        let (tx, mut sightings) = tokio::sync::mpsc::channel(64);
        let start = Instant::now();
        let options = BeaconOptions { secret_key: [seed; 32], ports: transport.ports(), mode };
        let beacon = Beacon::start(options, tx).unwrap();
        println!(
            "\n@@ ready {:?} {:?} deaf={}",
            transport.ports(),
            transport.local_addrs(),
            beacon.is_deaf()
        );
        let mut known = HashSet::new();
        let mut dials = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                Some(Sighting { device, addrs }) = sightings.recv() => {
                    let other = seed_of(device);
                    println!("@@ seen {other} {} {addrs:?}", start.elapsed().as_millis());
                    if transport.id() > device && known.insert(device) {
                        let dialled = Instant::now();
                        match transport.connect(device, &addrs, ALPN, Duration::from_secs(5)).await {
                            Ok(conn) => {
                                println!("@@ connected {other} in {:?}", dialled.elapsed());
                                dials.spawn(follow(conn, other));
                            }
                            Err(e) => { known.remove(&device); println!("@@ failed {other} {e}"); }
                        }
                    }
                }
                Some(conn) = transport.accept() => {
                    let other = seed_of(conn.remote_id());
                    println!("@@ accepted {other}");
                    dials.spawn(follow(conn, other));
                }
            }
        }
    });
}

async fn follow(conn: Connection, other: u8) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("@@ at {other} {:?}", conn.remote_addr());
    println!("@@ closed {other} {}", conn.closed().await);
}

#[test]
fn two_hosts_without_a_gateway_see_each_other() {
    if !can() {
        return;
    }
    let (a, b) = (Space::new("a"), Space::new("b"));
    a.cable("e0", Some("10.99.0.1/24"), &b, "e0", Some("10.99.0.2/24"));
    let first = a.node(1);
    let second = b.node(2);
    let took = second.sees(1, 2_000);
    println!("two hosts, no gateway: seen after {took} ms");
    assert!(took < 300, "{took}");
    first.sees(2, 1_000);
    println!(
        "{}",
        if seed_order(1, 2) { first.wait("connected 2", 2_000) } else { second.wait("connected 1", 2_000) }
    );
}

/// Whether the device of `a` is the one that dials.
fn seed_order(a: u8, b: u8) -> bool {
    let id = |s| *iroh::SecretKey::from_bytes(&[s; 32]).public().as_bytes();
    id(a) > id(b)
}

#[test]
fn two_nodes_with_only_loopback_up_see_each_other() {
    if !can() {
        return;
    }
    for listen in ["", "127.0.0.1:0", "127.0.0.5:0"] {
        let a = Space::new("l");
        let first = a.run("node", 1, listen);
        let second = a.run("node", 2, listen);
        let took = second.sees(1, 2_000);
        println!("only loopback, listen {listen:?}: seen after {took} ms");
        assert!(took < 300, "{took}");
        let dialler = if seed_order(1, 2) { &first } else { &second };
        dialler.wait("connected", 2_000);
    }
}

#[test]
fn the_default_port_falls_back_to_a_free_one() {
    if !can() {
        return;
    }
    let a = Space::new("p");
    let first = a.node(1);
    let second = a.node(2);
    // The one that came second announces the port it really has.
    let line = first.wait("seen 2 ", 2_000);
    assert!(!line.contains(":9000"), "{line}");
    assert!(second.wait("seen 1 ", 2_000).contains(":9000"));
}

#[test]
fn a_host_with_two_lans_sees_both() {
    if !can() {
        return;
    }
    let (a, b, c) = (Space::new("x"), Space::new("y"), Space::new("z"));
    a.cable("e0", Some("10.98.0.1/24"), &b, "e0", Some("10.98.0.2/24"));
    a.cable("e1", Some("10.97.0.1/24"), &c, "e0", Some("10.97.0.2/24"));
    let (_b, _c) = (b.node(2), c.node(3));
    let middle = a.node(1);
    let took = [2, 3].map(|_| {
        let line = middle.wait("seen ", 2_000);
        let mut fields = line.split(' ').skip(1).map(|f| f.parse::<u64>().unwrap_or(0));
        (fields.next().unwrap(), fields.next().unwrap())
    });
    println!("two LANs: (device, ms) {took:?}");
    assert_eq!(took.iter().map(|t| t.0).collect::<HashSet<_>>().len(), 2);
    assert!(took.iter().all(|t| t.1 < 300));
}

#[test]
fn a_link_that_swallows_multicast_is_helped_by_the_fallback() {
    if !can() {
        return;
    }
    // A switch that forwards no multicast at all.
    let (a, b, switch) = (Space::new("m"), Space::new("n"), Space::new("o"));
    a.cable("e0", Some("10.96.0.1/24"), &switch, "p0", None);
    b.cable("e0", Some("10.96.0.2/24"), &switch, "p1", None);
    switch.ip("link add br0 type bridge mcast_snooping 0");
    switch.ip("link set br0 up");
    for port in ["p0", "p1"] {
        switch.ip(&format!("link set {port} master br0"));
        switch.ip(&format!("link set {port} type bridge_slave mcast_flood off"));
    }
    std::thread::sleep(Duration::from_millis(500));
    let first = a.node(1);
    let second = b.node(2);
    let took = second.sees(1, 3_000);
    println!("no multicast: seen after {took} ms");
    // Sooner, and multicast came through after all.
    assert!((100..1_000).contains(&took), "{took}");
    first.sees(2, 1_000);
}

#[test]
fn a_link_with_only_ipv6_works() {
    if !can() {
        return;
    }
    let (a, b) = (Space::new("s"), Space::new("t"));
    a.cable("e0", Some("fd99::1/64"), &b, "e0", Some("fd99::2/64"));
    // The multicast route of a new interface appears with its carrier.
    std::thread::sleep(Duration::from_millis(500));
    let first = a.node(1);
    let second = b.node(2);
    let took = second.sees(1, 3_000);
    println!("IPv6 only: seen after {took} ms");
    let dialler = if seed_order(1, 2) { &first } else { &second };
    println!("{}", dialler.wait("connected", 6_000));
    println!("{}", dialler.wait("at", 1_000));
}

#[test]
fn a_new_interface_is_used_at_once() {
    if !can() {
        return;
    }
    let (a, b) = (Space::new("u"), Space::new("v"));
    let (first, second) = (a.node(1), b.node(2));
    let start = Instant::now();
    a.cable("e0", Some("10.95.0.1/24"), &b, "e0", Some("10.95.0.2/24"));
    first.sees(2, 5_000);
    second.sees(1, 5_000);
    println!("new interface: seen after {:?}", start.elapsed());
}

#[test]
fn a_dead_peer_is_noticed() {
    if !can() {
        return;
    }
    let (a, b) = (Space::new("d"), Space::new("e"));
    a.cable("e0", Some("10.94.0.1/24"), &b, "e0", Some("10.94.0.2/24"));
    let (first, second) = (a.node(1), b.node(2));
    first.wait("at 2", 3_000);
    second.wait("at 1", 3_000);
    std::thread::sleep(Duration::from_millis(1_000));
    a.ip("link del e0");
    let start = Instant::now();
    println!("cable gone: {} after {:?}", first.wait("closed 2", 10_000), start.elapsed());
    println!("cable gone: {} after {:?}", second.wait("closed 1", 10_000), start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_peer_started_anew_with_the_same_key_and_port_is_back_at_once() {
    if !can() {
        return;
    }
    let (a, b) = (Space::new("f"), Space::new("g"));
    a.cable("e0", Some("10.93.0.1/24"), &b, "e0", Some("10.93.0.2/24"));
    // The one that dials is the one that dies: the other need not know the old one is dead.
    let (stays, dies) = if seed_order(1, 2) { (2, 1) } else { (1, 2) };
    let first = a.node(stays);
    let second = b.node(dies);
    first.wait("accepted", 3_000);
    std::thread::sleep(Duration::from_millis(500));
    second.kill();
    let start = Instant::now();
    let _again = b.node(dies);
    first.wait("accepted", 5_000);
    println!("accepted anew {:?} after the kill", start.elapsed());
    println!("old one: {} {:?} after the kill", first.wait("closed", 10_000), start.elapsed());
}
