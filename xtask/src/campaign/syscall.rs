//! A kill at the n-th call of one kind, while about twenty files are taken over.

use super::field::{Field, PATIENCE, no_panic};
use dunlin_testkit::Node;
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// The calls, each swept from its first on, and by how much n grows at a time.
const SETS: &[(&str, u64)] = &[
    ("renameat2", 1),
    ("fdatasync,fsync,syncfs", 1),
    ("pwrite64,write", 5),
    ("openat,openat2", 7),
    ("unlinkat,mkdirat,symlinkat", 1),
    ("getdents64", 1),
    ("utimensat,fchmod,fchmodat,fchmodat2", 1),
    ("pread64,read", 9),
];

fn wrapper(set: &str, n: u64) -> Vec<OsString> {
    let inject = format!("inject={set}:signal=KILL:when={n}");
    let trace = format!("trace={set}");
    ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(Into::into).into()
}

/// One run: the seed says which call, and which of them.
pub fn run(field: &mut Field) -> String {
    let sets = SETS.len() as u64;
    let (set, step) = SETS[(field.seed.saturating_sub(1) % sets) as usize];
    let n = 1 + field.seed.saturating_sub(1) / sets * step;
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| field.node(name)).into();
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    let [a, b] = &mut nodes[..] else { unreachable!("two devices") };
    field.work(&[a, b], 20);
    field.come_to_rest(&[a, b]);
    b.stop();
    b.wrapper = wrapper(set, n);
    b.run();
    field.work(&[a], 20);
    let died = until_dead(b, a);
    no_panic(b);
    b.kill();
    b.wrapper.clear();
    b.run();
    let how = if died { "died" } else { "not reached" };
    format!("{set} {n}: {how}, {}", field.judge(&nodes, pollers))
}

/// Waits until it died, or has all and so will not die any more.
fn until_dead(node: &mut Node, other: &Node) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if !node.lives() {
            return true;
        }
        if node.connections() == 1 && other.asks(&["wait", "--timeout", "1"]).0 == 0 {
            // What is still done at rest may kill it, too.
            std::thread::sleep(Duration::from_millis(200));
            return !node.lives();
        }
    }
    panic!("{} neither dies nor has all: {:#}\n{:#}", node.name, node.folder(), other.folder());
}
