//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Name and fact.
pub fn facts(work_dir: &Path) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let (processor, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&processor, "model name").unwrap_or_else(|| "unknown".into());
    let network = if crate::place::has_namespaces() {
        "each node in a network namespace of its own, on a bridge"
    } else {
        "all nodes on loopback (no root)"
    };
    vec![
        ("processor", format!("{cores} × {model}")),
        ("memory", field(&memory, "MemTotal").unwrap_or_default()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system(work_dir)),
        ("load at the beginning", read("/proc/loadavg").trim().to_owned()),
        ("network", network.into()),
        ("TCP's congestion control", read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned()),
        (
            "time of processors",
            crate::meter::how().unwrap_or_else(|| "not counted (no control groups)".into()),
        ),
    ]
}

fn file_system(dir: &Path) -> String {
    let output = Command::new("findmnt").args(["-no", "FSTYPE,OPTIONS", "-T"]).arg(dir).output();
    output.map_or_else(|_| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
