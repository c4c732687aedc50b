//! Four times as much must not cost much more than four times: processor's seconds of the nodes, in proportion to each
//! other, in one run on one machine. What makes work grow with the square of it costs sixteen times.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;

/// So many times as much …
const TIMES: usize = 4;
/// … may cost so many times.
const BOUND: f64 = 8.0;
/// Less than this, in ticks of 10 ms, says nothing.
const FEW: u64 = 10;

/// What the nodes used of the processor so far, in ticks.
fn used(nodes: &[&Node]) -> u64 {
    let ticks = |node: &&Node| {
        let text = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
        // The name in brackets may hold anything; of what follows it the 12th and 13th are times.
        let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
        fields.skip(11).take(2).map(|f| f.parse::<u64>().unwrap()).sum::<u64>()
    };
    nodes.iter().map(ticks).sum()
}

/// What each act with so many files costs two nodes.
fn costs(files: usize) -> Vec<(&'static str, u64)> {
    let (temp, mut a, mut b) = pair();
    let mut out = Vec::new();
    let mut before = used(&[&a, &b]);
    let mut cost = |what, a: &Node, b: &Node| {
        a.wait();
        settle(what, &[a, b]);
        let now = used(&[a, b]);
        out.push((what, now - std::mem::replace(&mut before, now)));
    };
    let beside = temp.path().join("beside");
    (0..7).for_each(|n| fs::create_dir_all(beside.join(format!("d{n}"))).unwrap());
    for n in 0..files {
        write(beside.join(format!("d{}/{n}", n % 7)), noise(n as u64, 1000));
    }
    fs::rename(&beside, a.path("all")).unwrap();
    cost("added", &a, &b);
    for n in (0..files).step_by(3) {
        fs::remove_file(a.path(format!("all/d{}/{n}", n % 7))).unwrap();
    }
    cost("deleted", &a, &b);
    for n in (1..files).step_by(3) {
        let name = |dir: &str| a.path(format!("all/{dir}{}/{n}", n % 7));
        let to = name("moved");
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(name("d"), to).unwrap();
    }
    cost("moved", &a, &b);
    for n in (2..files).step_by(3) {
        write(a.path(format!("all/d{}/{n}", n % 7)), noise(n as u64 + 1, 1001));
    }
    cost("edited", &a, &b);
    for node in [&mut a, &mut b] {
        node.kill();
        node.run();
    }
    settle("started again", &[&a, &b]);
    out.push(("started again", used(&[&a, &b])));
    out
}

#[test]
fn four_times_the_files_cost_about_four_times_the_work() {
    const FILES: usize = 400;
    let (few, many) = (costs(FILES), costs(FILES * TIMES));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        let ratio = many as f64 / few.max(FEW) as f64;
        eprintln!("{what}: {few} and {many} ticks, {ratio:.1} times");
        assert!(ratio < BOUND, "{what}: {TIMES} times as many files cost {ratio:.1} times");
    }
}

#[test]
fn four_times_the_bytes_cost_about_four_times_the_work() {
    const SIZE: usize = 32 << 20;
    let costs = |size: usize| {
        let (temp, a, b) = pair();
        let beside = temp.path().join("beside");
        let bytes = noise(1, size);
        let mut before = used(&[&a, &b]);
        let mut cost = |bytes: &[u8]| {
            write(&beside, bytes);
            fs::rename(&beside, a.path("large")).unwrap();
            a.wait();
            settle("large", &[&a, &b]);
            let now = used(&[&a, &b]);
            now - std::mem::replace(&mut before, now)
        };
        [("added", cost(&bytes)), ("a byte before it", cost(&[b"!", &bytes[..]].concat()))]
    };
    for ((what, few), (_, many)) in costs(SIZE).into_iter().zip(costs(SIZE * TIMES)) {
        let ratio = many as f64 / few.max(FEW) as f64;
        eprintln!("{what}: {few} and {many} ticks, {ratio:.1} times");
        assert!(ratio < BOUND, "{what}: {TIMES} times the bytes cost {ratio:.1} times");
    }
}
