//! Memory: killed by the kernel for want of it, again and again, and how much of it a large directory takes.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `MEMORY_FILES=200000 MEMORY_MIB=128` for a tree as large as people have; the limit is that for all of a life then, and
/// nobody need be killed.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// A control group of memory, of either version.
struct Group {
    dir: PathBuf,
    files: [&'static str; 3],
}

impl Group {
    /// None where the kernel has none or gives none.
    fn new() -> Option<Group> {
        let versions = [
            (
                "/sys/fs/cgroup/memory",
                ["memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"],
            ),
            ("/sys/fs/cgroup", ["memory.current", "memory.max", "memory.events"]),
        ];
        versions.into_iter().find_map(|(at, files)| {
            let dir = Path::new(at).join(format!("dunlin-test-{}", std::process::id()));
            fs::create_dir(&dir).ok()?;
            let group = Group { dir, files };
            group.dir.join(files[1]).exists().then_some(group)
        })
    }

    fn usage(&self) -> u64 {
        fs::read_to_string(self.dir.join(self.files[0])).unwrap().trim().parse().unwrap()
    }

    /// Fails while more is in use that cannot be given back.
    fn limit(&self, bytes: Option<u64>) -> std::io::Result<()> {
        let none = if self.files[1] == "memory.max" { "max" } else { "-1" };
        fs::write(self.dir.join(self.files[1]), bytes.map_or(none.into(), |b| b.to_string()))
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.files[2])).unwrap();
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    }

    /// What to start a program with, so that it is in the group from its first page on.
    fn enter(&self) -> Vec<std::ffi::OsString> {
        let text = format!("echo $$ > '{}/cgroup.procs'; exec \"$@\"", self.dir.display());
        ["sh", "-c", &text, "sh"].map(Into::into).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty by then; what stays of it after a failure is a directory of the kernel's.
        let _ = fs::remove_dir(&self.dir);
    }
}

fn count(dir: &Path) -> u64 {
    let below = |d: PathBuf| fs::read_dir(d).map_or(0, |all| all.count() as u64);
    let dirs = fs::read_dir(dir).into_iter().flatten().flatten();
    dirs.filter(|e| e.file_name() != ".dunlin").map(|e| below(e.path())).sum()
}

#[test]
fn out_of_memory_is_a_kill_like_any_other() {
    let Some(group) = Group::new() else {
        return skipped("out of memory", "no control group of memory can be made here");
    };
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let files = number("MEMORY_FILES").unwrap_or(3000);
    let fixed = number("MEMORY_MIB").map(|mib| mib << 20);
    for i in 0..files {
        let path = a.path(format!("{}/{i}", i / 100));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(path, format!("file {i}"));
    }
    let ticket = a.share();
    b.before = group.enter();
    group.limit(fixed).unwrap();
    b.join(&ticket);
    let patience = Duration::from_secs(60 + files / 50);
    // Each life gets some way further.
    let (mut lives, mut had) = (1, 0);
    loop {
        let aim = if fixed.is_some() { files } else { (had + files / 10).min(files) };
        until("it gets further or is killed", patience, || count(&b.dir) >= aim || !b.lives());
        if b.lives() && aim < files {
            // All that can be given back is taken from it, again and again: what it needs next is not there.
            until("it is killed or done", patience, || {
                // Where it holds no more than it needs, that is refused.
                let _ = group.limit(Some(group.usage().saturating_sub(512 << 10)));
                count(&b.dir) >= files || !b.lives()
            });
        }
        group.limit(fixed).unwrap();
        if b.lives() {
            break;
        }
        assert!(!b.panicked(), "{}", b.errors());
        (had, lives) = (count(&b.dir), lives + 1);
        assert!(lives < 40, "it gets nowhere: {had} of {files}");
        b.kill();
        b.run();
    }
    let kills = group.kills();
    b.stop();
    b.before.clear();
    b.run();
    settle_within("at last", &[&a, &b], patience);
    assert_eq!(count(&b.dir), files);
    say(&format!("{files} files: killed {kills} times for want of memory, {lives} lives"));
    assert!(fixed.is_some() || kills > 0, "it was never killed");
    a.stop();
    b.stop();
}

/// Bytes of memory that a process had at most, page cache not counted.
fn peak(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// `MANY_ENTRIES=100000` for more.
#[test]
fn a_large_directory_takes_memory_in_proportion_on_both_sides() {
    // Of a debug build: what a node of few files has, and 3 KiB an entry.
    const FEW: u64 = 128 << 20;
    const ENTRY: u64 = 3 << 10;
    let (_temp, mut a, mut b) = pair();
    a.stop();
    let entries = number("MANY_ENTRIES").unwrap_or(10_000);
    fs::create_dir(a.path("d")).unwrap();
    for i in 0..entries {
        write(a.path(format!("d/entry {i}")), format!("file {i}"));
    }
    let begun = std::time::Instant::now();
    let patience = Duration::from_secs(60 + entries / 100);
    a.run_until_it_answers();
    a.until_connected(1, PATIENCE);
    settle_within("all is there", &[&a, &b], patience);
    let took = begun.elapsed();
    let peaks = [peak(&a), peak(&b)];
    say(&format!("{entries} entries in one directory: {took:.1?}, at most {peaks:?} bytes of memory"));
    assert_eq!(count(&b.dir), entries);
    assert!(peaks.iter().all(|bytes| *bytes < FEW + ENTRY * entries), "{peaks:?}");
    a.stop();
    b.stop();
}
