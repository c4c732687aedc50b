//! The benchmark itself, at a size that takes seconds: it measures, reports, and leaves nothing behind,
//! however it ends.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::{PATIENCE, skipped, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Dunlin, as built for its own tests; they run with this one in a workspace.
fn dunlin() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_dunlin-bench")).with_file_name("dunlin");
    if !built.is_file() {
        skipped("the benchmark", &format!("no dunlin is built at {}", built.display()));
    }
    Some(built).filter(|path| path.is_file())
}

fn bench(dunlin: &Path, out: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin-bench"));
    command.arg("--program").arg(dunlin).arg("--out").arg(out).args(["--limit", "60"]).args(args);
    command.stdin(Stdio::null()).stdout(fs::File::create(out.join("said")).unwrap()).spawn().unwrap()
}

/// Processes that have a path below `out` in their arguments, but `not` this one.
fn processes(out: &Path, not: u32) -> Vec<String> {
    let names = out.to_string_lossy().into_owned();
    let command = |pid: &str| {
        let text = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let others = pids.filter(|pid| pid.parse::<u32>().is_ok_and(|pid| pid != not));
    others.map(|pid| command(&pid)).filter(|text| text.contains(&names)).collect()
}

/// Trees that were not removed.
fn trees(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("work-")).collect()
}

/// Namespaces that a process made.
fn namespaces(pid: u32) -> Vec<String> {
    let all = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = all.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("dl{pid}x"))).collect()
}

#[test]
fn it_measures_reports_and_leaves_nothing() {
    let Some(dunlin) = dunlin() else { return };
    let out = tempfile::tempdir().unwrap();
    let args = [
        "--scale",
        "0.003",
        "--runs",
        "1",
        "--programs",
        "dunlin,rsync",
        "--workloads",
        "small-files,rename",
    ];
    let mut child = bench(&dunlin, out.path(), &args);
    let status = child.wait().unwrap();
    let said = fs::read_to_string(out.path().join("said")).unwrap();
    assert!(status.success(), "{said}");
    let report = fs::read_to_string(out.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    for work in 0..2 {
        let ours = &report["workloads"][work]["programs"][0];
        assert_eq!(ours["program"], "dunlin");
        assert!(ours["median"]["wall_s"].as_f64().is_some_and(|s| s > 0.0), "{ours}");
    }
    let text = fs::read_to_string(out.path().join("report.md")).unwrap();
    assert!(text.contains("## rename") && text.contains("| dunlin "), "{text}");
    assert_eq!((trees(out.path()), namespaces(child.id())), (vec![], vec![]));
    assert_eq!(processes(out.path(), 0), Vec::<String>::new());
}

#[test]
fn ended_in_the_middle_it_leaves_nothing_and_killed_no_process() {
    let Some(dunlin) = dunlin() else { return };
    let out = tempfile::tempdir().unwrap();
    // The second removes what the first, killed, could not.
    for signal in ["-KILL", "-TERM"] {
        let args = ["--scale", "0.01", "--runs", "50", "--programs", "dunlin", "--workloads", "edit"];
        let mut child = bench(&dunlin, out.path(), &args);
        let id = child.id();
        until("nodes run", PATIENCE, || processes(out.path(), id).len() >= 2);
        assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
        assert!(!child.wait().unwrap().success());
        until("no node is left", PATIENCE, || processes(out.path(), id).is_empty());
        if signal == "-TERM" {
            assert_eq!((trees(out.path()), namespaces(id)), (vec![], vec![]));
        } else {
            // What a killed one could not put away.
            for name in namespaces(id) {
                let _ = Command::new("ip").args(["netns", "delete", &name]).status();
            }
        }
    }
}
