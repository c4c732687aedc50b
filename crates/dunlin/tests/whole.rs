//! Whole or not at all: kills in mid-transfer, what is fetched again, and the order of syncs.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How many bytes of partial files a folder holds.
fn staged(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root.join(".dunlin/stage")) else { return 0 };
    entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.blocks() * 512).sum()
}

#[test]
fn kills_in_mid_transfer_show_no_partial_file() {
    const SIZE: u64 = 160 << 20;
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    fs::create_dir(&a.dir).unwrap();
    let content = noise(1, SIZE as usize);
    write(a.path("big"), &content);
    write(a.path("small"), b"small");
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let ticket = a.share();
    a.wait();
    let shown = b.path("big");
    std::thread::scope(|s| {
        let _ends = SetOnDrop(&done);
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(meta) = fs::metadata(&shown) {
                    assert_eq!(meta.len(), SIZE, "a partial file is visible");
                    if looks.load(Ordering::Relaxed) % 500 == 0 {
                        assert!(fs::read(&shown).unwrap() == content, "a file that is not whole is visible");
                    }
                }
                looks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        b.join(&ticket);
        // The receiver, and the sender, each at several stages.
        for (i, percent) in [10, 25, 40, 55, 70, 85].into_iter().enumerate() {
            until(&format!("{percent} % of the transfer"), PATIENCE, || {
                staged(&b.dir) >= SIZE * percent / 100
            });
            assert!(!shown.exists(), "too quick to be killed at {percent} %");
            let victim = if i % 2 == 0 { &mut b } else { &mut a };
            victim.kill();
            victim.run();
            b.until_connected(1, PATIENCE);
        }
        settle("after the kills", &[&a, &b]);
    });
    assert!(fs::read(&shown).unwrap() == content);
    let left: Vec<_> =
        fs::read_dir(b.path(".dunlin/stage")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left in the stage: {left:?}");
    eprintln!("looked {} times", looks.into_inner());
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_not_wanted_any_more_does_not_stay_in_the_stage() {
    let (_temp, a, b) = pair();
    write(a.path("big"), noise(4, 80 << 20));
    until("the transfer is under way", PATIENCE, || staged(&b.dir) > 8 << 20);
    write(a.path("big"), b"small");
    settle("replaced", &[&a, &b]);
    let left = || fs::read_dir(b.path(".dunlin/stage")).unwrap().count();
    until("nothing is left in the stage", PATIENCE, || left() == 0);
}

#[test]
fn a_kill_at_half_costs_little_more_than_the_rest() {
    const SIZE: u64 = 200 << 20;
    if !is_root() || !can("bytes on the wire", "ip", &["netns", "list"]) {
        skipped("bytes on the wire", "needs root and ip");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let lan = Lan::new(&["a", "b"]);
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    for (node, ip) in [(&mut a, "10.77.1.1/24"), (&mut b, "10.77.1.2/24")] {
        lan.address(&node.name, ip);
        node.netns = Some(lan.ns(&node.name));
        node.listen = None;
    }
    fs::create_dir(&a.dir).unwrap();
    write(a.path("big"), noise(2, SIZE as usize));
    let ticket = a.share();
    a.wait();
    b.join(&ticket);
    until("half of the transfer", PATIENCE, || staged(&b.dir) >= SIZE / 2);
    b.kill();
    assert!(!b.path("big").exists(), "too quick to be killed at half");
    let (have, before) = (staged(&b.dir), lan.received("b"));
    b.run();
    settle("after the kill", &[&a, &b]);
    let again = lan.received("b") - before;
    let mib = |n: u64| n >> 20;
    eprintln!(
        "of {} MiB, {} were there at the kill; {} MiB crossed the wire after it",
        mib(SIZE),
        mib(have),
        mib(again)
    );
    assert!(again <= SIZE * 6 / 10, "{again} bytes were fetched again, of {SIZE}");
    // A change in the middle of a large file moves little more than itself.
    let before = lan.received("b");
    let file = fs::File::options().write(true).open(a.path("big")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(3, 1000), SIZE / 3).unwrap();
    drop(file);
    settle("after a small change", &[&a, &b]);
    let again = lan.received("b") - before;
    eprintln!("a change of 1,000 bytes moved {} KiB", again >> 10);
    assert!(again < 8 << 20, "{again} bytes for a change of 1,000");
}

/// One system call of a trace, with the lines of its begin and end.
struct Call {
    begun: usize,
    ended: usize,
    name: String,
    args: String,
    ok: bool,
}

/// Reads what `strace -f -y` wrote.
fn calls(log: &str) -> Vec<Call> {
    let (mut open, mut out) = (BTreeMap::<&str, (usize, String)>::new(), Vec::new());
    for (i, line) in log.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let (begun, whole) = if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, (i, head.to_owned()));
            continue;
        } else if let Some((_, tail)) = rest.strip_prefix("<... ").and_then(|r| r.split_once(" resumed>")) {
            let Some((begun, head)) = open.remove(pid) else { continue };
            (begun, format!("{head}{tail}"))
        } else {
            (i, rest.to_owned())
        };
        let Some((name, after)) = whole.split_once('(') else { continue };
        let Some((args, result)) = after.rsplit_once(" = ") else { continue };
        let ok = !result.starts_with('-');
        out.push(Call { begun, ended: i, name: name.to_owned(), args: args.trim_end().to_owned(), ok });
    }
    out
}

/// The paths in the arguments of a call: those of its descriptors, each joined with the name that
/// follows it where one does.
fn paths(args: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    let mut rest = args;
    while let Some(at) = rest.find(['<', '"']) {
        let (open, tail) = (rest.as_bytes()[at], &rest[at + 1..]);
        let Some(end) = tail.find(if open == b'<' { '>' } else { '"' }) else { break };
        if open == b'<' || tail.starts_with('/') {
            out.push(tail[..end].into());
        } else if let Some(last) = out.last_mut() {
            last.push(&tail[..end]);
        }
        rest = &tail[end + 1..];
    }
    out
}

/// What a trace shows of durability; panics where something was visible or recorded too early.
fn check_order(log: &str, dir: &Path) -> (usize, usize, usize) {
    let all = calls(log);
    let (mut placed, mut syncfs, mut commits) = (0, 0, 0);
    let control = dir.join(".dunlin");
    let inside = |p: &Path| p.starts_with(dir) && !p.starts_with(&control);
    // In the order in which it counts: syncs when they ended, the rest, and commits, when it began.
    let mut events: Vec<(usize, &Call)> = Vec::new();
    for call in all.iter().filter(|c| c.ok) {
        let sync = call.name.contains("sync") && !call.args.contains("index.redb");
        events.push((if sync { call.ended } else { call.begun }, call));
    }
    events.sort_by_key(|(at, _)| *at);
    let (mut unsynced, mut dirty) = (BTreeSet::<PathBuf>::new(), BTreeSet::<PathBuf>::new());
    for (at, call) in events {
        // What is written is no part of the path it is written to.
        let described = call.args.split_once('>').map_or(call.args.as_str(), |(first, _)| first);
        let data = call.name.contains("write");
        let on = paths(&if data { format!("{described}>") } else { call.args.clone() });
        match call.name.as_str() {
            "pwrite64" | "write" | "ftruncate" | "fallocate"
                if on.first().is_some_and(|p| p.starts_with(dir)) =>
            {
                unsynced.insert(on[0].clone());
            }
            "syncfs" => {
                syncfs += 1;
                unsynced.clear();
                dirty.clear();
            }
            "fsync" | "fdatasync" if call.args.contains("index.redb") => {
                commits += 1;
                assert!(dirty.is_empty(), "line {at}: a commit before {dirty:?} was synced");
            }
            "fsync" | "fdatasync" => {
                let Some(on) = on.first() else { panic!("line {at}: {}({})", call.name, call.args) };
                unsynced.remove(on);
                dirty.remove(on);
            }
            "renameat2" | "renameat" | "rename" => {
                let [from, to] = &on[..] else { panic!("line {at}: {}({})", call.name, call.args) };
                assert!(
                    !(inside(to) && unsynced.contains(from)),
                    "line {at}: {to:?} placed before its data was synced"
                );
                if unsynced.remove(from) {
                    unsynced.insert(to.clone());
                }
                if inside(to) {
                    placed += usize::from(from.starts_with(&control));
                    dirty.extend(to.parent().map(Path::to_path_buf));
                }
                if inside(from) {
                    dirty.extend(from.parent().map(Path::to_path_buf));
                }
            }
            "mkdirat" | "unlinkat" | "symlinkat" if on.first().is_some_and(|p| inside(p)) => {
                dirty.extend(on[0].parent().map(Path::to_path_buf));
            }
            _ => {}
        }
    }
    (placed, syncfs, commits)
}

#[test]
fn data_is_durable_before_it_is_visible_and_that_before_it_is_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let log = base.join("trace");
    if !can("the order of syncs", "strace", &["-f", "-qq", "-y", "-o", "/dev/null", "true"]) {
        return;
    }
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    fs::create_dir_all(a.path("d/e")).unwrap();
    for i in 0..200u64 {
        write(a.path(format!("d/{i}")), noise(i, 500));
    }
    write(a.path("large"), noise(1, 3 << 20));
    let ticket = a.share();
    let traced = "trace=pwrite64,write,ftruncate,fallocate,rename,renameat,renameat2,fsync,fdatasync,syncfs,mkdirat,unlinkat,symlinkat";
    b.wrapper = ["strace", "-D", "-f", "-qq", "-y", "-s", "256", "-e", traced, "-o"].map(Into::into).into();
    b.wrapper.push(log.clone().into());
    b.join(&ticket);
    settle("first sync", &[&a, &b]);
    // Few files, new and replaced, moved and deleted: each synced by itself.
    write(a.path("d/1"), b"replaced");
    write(a.path("d/e/new"), b"new");
    settle("a few", &[&a, &b]);
    fs::rename(a.path("d/2"), a.path("d/e/2")).unwrap();
    fs::remove_file(a.path("d/3")).unwrap();
    write(a.path("large"), noise(2, 3 << 20));
    settle("more", &[&a, &b]);
    b.stop();
    // strace writes on until its last process is gone.
    let read = || fs::read(&log).unwrap();
    let mut last = read();
    until("the end of the trace", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = read();
        std::mem::replace(&mut last, now) == last
    });
    let (placed, syncfs, commits) = check_order(&String::from_utf8_lossy(&last), &b.dir);
    eprintln!("{placed} files placed, {syncfs} syncfs, {commits} syncs of the index");
    assert!(placed >= 204, "the trace shows {placed} files placed");
    assert!((1..=60).contains(&syncfs), "{syncfs} syncfs: many files are synced together");
    assert!(commits >= 3);
}

#[test]
fn the_check_of_the_order_sees_what_is_wrong() {
    let dir = Path::new("/r");
    let good = "1 pwrite64(5</r/.dunlin/stage/x>, \"abc\"..., 3, 0) = 3\n\
                1 fdatasync(5</r/.dunlin/stage/x> <unfinished ...>\n\
                2 syncfs(9</elsewhere>) = -1 EIO\n\
                1 <... fdatasync resumed>) = 0\n\
                1 renameat2(6</r/.dunlin/stage>, \"x\", 7</r/.dunlin/swap>, \"1\", RENAME_NOREPLACE) = 0\n\
                1 renameat2(7</r/.dunlin/swap>, \"1\", 3</r>, \"f\", RENAME_NOREPLACE) = 0\n\
                1 fsync(3</r>) = 0\n\
                1 fdatasync(8</home/index.redb>) = 0\n";
    assert_eq!(check_order(good, dir), (1, 0, 1));
    let without = |what: &str| {
        let log: Vec<&str> = good.lines().filter(|l| !l.contains(what)).collect();
        std::panic::catch_unwind(|| check_order(&log.join("\n"), dir)).is_err()
    };
    assert!(without("fdatasync(5") && without("fsync(3"));
}
