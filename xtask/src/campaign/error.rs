//! A disk that answers with errors for a while, while users work.

use super::field::{Field, heal, rest};
use dunlin_testkit::{Node, until};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The calls that fail, and how often: the first, and every so many from there on.
const FAULTS: &[(&str, &str)] = &[
    ("fsync,fdatasync,syncfs", "1+1"),
    ("fsync,fdatasync,syncfs", "2+3"),
    ("pread64", "5+11"),
    ("pread64", "1+1"),
    ("getdents64", "1+2"),
    ("getdents64", "1+1"),
    ("pwrite64", "3+5"),
    ("renameat2", "1+2"),
    ("openat2", "2+5"),
    ("statx", "3+7"),
];

/// What strace says of each call that it had fail, in `log`.
fn attach(node: &Node, calls: &str, when: &str, log: &Path) -> Child {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EIO:when={when}"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-o"]).arg(log).arg("-p");
    strace.arg(node.pid().to_string()).stdin(Stdio::null()).stderr(Stdio::null());
    strace.spawn().expect("strace")
}

/// Lets go of the node, which runs on. A signal that comes as strace attaches may be missed by it.
fn detach(mut strace: Child) {
    let pid = strace.id().to_string();
    until("strace lets go", Duration::from_secs(30), || {
        let over = !matches!(strace.try_wait(), Ok(None));
        if !over {
            let _ = Command::new("kill").args(["-INT", &pid]).status();
            std::thread::sleep(Duration::from_millis(100));
        }
        over
    });
}

/// How many calls failed so far.
fn failed(log: &Path) -> usize {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).matches("(INJECTED)").count()
}

/// One run: the seed says which calls fail.
pub fn run(field: &mut Field) -> String {
    let (calls, when) = FAULTS[(field.seed.saturating_sub(1) % FAULTS.len() as u64) as usize];
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| field.node(name)).into();
    field.found(&mut nodes);
    let pollers = field.watch(&nodes);
    let crowd = field.crowd(&nodes, 80);
    let mut errors = 0;
    for time in 0..3 {
        rest(&mut field.dice, 400);
        let log = field.base().join(format!("errors {time}"));
        let strace = attach(&nodes[1], calls, when, &log);
        until("a call fails", Duration::from_secs(20), || failed(&log) > 0);
        rest(&mut field.dice, 1800);
        detach(strace);
        errors += failed(&log);
    }
    crowd.end();
    let halted = heal(&nodes[1]);
    format!("{calls} {when}, {errors} errors{halted}, {}", field.judge(&nodes, pollers))
}
