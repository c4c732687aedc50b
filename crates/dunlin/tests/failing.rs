//! Disks that fail in one place: what cannot be read is not deleted, and the rest goes on.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// strace on a running node, whose calls fail meanwhile.
struct Faults(Option<Child>);

impl Faults {
    /// `only`: of calls on this path. Returns as soon as it has hold of the node.
    fn of(node: &Node, only: Option<&Path>, calls: &str, error: &str) -> Option<Faults> {
        if !can(
            "faults",
            "strace",
            &["-f", "-qq", "-o", "/dev/null", "-e", "inject=close:error=EIO:when=1000", "true"],
        ) {
            return None;
        }
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null"]);
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{error}")]);
        if let Some(path) = only {
            strace.arg("-P").arg(path);
        }
        let pid = node.pid();
        let child =
            strace.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let faults = Faults(Some(child));
        let traced = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap);
            let status = |t: fs::DirEntry| fs::read_to_string(t.path().join("status")).unwrap_or_default();
            tasks.map(status).all(|s| s.is_empty() || !s.contains("TracerPid:\t0"))
        };
        until("strace has hold of the node", PATIENCE, traced);
        Some(faults)
    }

    /// Lets go of the node, which runs on.
    fn end(mut self) {
        self.let_go();
    }

    fn let_go(&mut self) {
        if let Some(mut strace) = self.0.take() {
            let _ = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
            let _ = strace.wait();
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn problem(node: &Node, path: &str) -> String {
    let folder = node.folder();
    let problems = folder["problems"].as_array().unwrap().clone();
    let of = |p: &&serde_json::Value| p["path"] == path;
    problems.iter().find(of).map_or(String::new(), |p| p["why"].as_str().unwrap().to_owned())
}

/// Puts a file in place whole: one that is written there is empty for a moment, and that is a content which can be read.
fn put(node: &Node, name: &str, bytes: &[u8]) {
    let outside = node.dir.with_file_name("outside");
    write(&outside, bytes);
    fs::rename(&outside, node.path(name)).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_not_deleted() {
    let (_temp, a, b) = pair();
    write(a.path("bad"), b"readable at first");
    settle("before", &[&a, &b]);
    let Some(faults) = Faults::of(&a, Some(&a.path("bad")), "read,pread64,openat2", "error=EIO") else {
        return;
    };
    put(&a, "bad", b"not readable any more");
    put(&a, "good", b"good");
    until("it is named", PATIENCE, || !problem(&a, "bad").is_empty());
    until("the others go on", PATIENCE, || b.path("good").exists());
    fs::remove_file(b.path("good")).unwrap();
    until("both ways", PATIENCE, || !a.path("good").exists());
    assert_eq!(fs::read(b.path("bad")).unwrap(), b"readable at first");
    assert_eq!(a.folder()["in_sync"], false);
    faults.end();
    settle("readable again", &[&a, &b]);
    assert_eq!(
        (fs::read(b.path("bad")).unwrap(), problem(&a, "bad")),
        (b"not readable any more".into(), String::new())
    );
}

#[test]
fn a_listing_that_breaks_off_deletes_nothing() {
    let (_temp, a, b) = pair();
    fs::create_dir(a.path("d")).unwrap();
    for i in 0..1500 {
        write(
            a.path(format!("d/a file with a long name, so that it takes several calls {i}")),
            format!("{i}"),
        );
    }
    settle("before", &[&a, &b]);
    // The first call of each look works, and what it shows is not all.
    let Some(faults) = Faults::of(&a, Some(&a.path("d")), "getdents64", "error=EIO:when=2+2") else { return };
    for i in 0..10 {
        write(a.path("d/new"), format!("{i}"));
        fs::rename(a.path("d"), a.path("e")).unwrap();
        fs::rename(a.path("e"), a.path("d")).unwrap();
        write(a.path(format!("beside {i}")), b"a look is taken");
        until("the look", PATIENCE, || b.path(format!("beside {i}")).exists());
        assert!(fs::read_dir(b.path("d")).unwrap().count() >= 1500);
    }
    faults.end();
    let all = settle("after", &[&a, &b]);
    assert_eq!(all.len(), 1 + 1500 + 1 + 10);
}

#[test]
fn a_directory_that_may_not_be_read_is_not_deleted() {
    let (_temp, mut a, b) = pair();
    // As an ordinary user: who may everything would read it all the same.
    let bare = ["--bounding-set=-dac_override,-dac_read_search"];
    if !is_root() || !can("permissions", "setpriv", &[&bare[..], &["true"]].concat()) {
        skipped("permissions", "not root, or no setpriv");
        return;
    }
    fs::create_dir_all(a.path("locked/inner")).unwrap();
    write(a.path("locked/file"), b"locked in");
    write(a.path("locked/inner/file"), b"deeper");
    write(a.path("unreadable"), b"unreadable");
    settle("before", &[&a, &b]);
    a.stop();
    a.wrapper = ["setpriv", bare[0]].map(Into::into).to_vec();
    a.run();
    a.until_connected(1, PATIENCE);
    set_mode(&a.path("locked"), 0);
    write(a.path("new"), b"new");
    until("the rest goes on", PATIENCE, || b.path("new").exists());
    until("it is named", PATIENCE, || problem(&a, "locked").contains("ermission denied"));
    a.stop();
    a.run();
    a.until_connected(1, PATIENCE);
    until("it is named after a restart", PATIENCE, || problem(&a, "locked").contains("ermission denied"));
    assert!(b.path("locked/file").exists() && b.path("locked/inner/file").exists());
    write(b.path("locked/inner/file"), b"changed elsewhere");
    write(b.path("mark"), b"mark");
    until("the rest goes on", PATIENCE, || a.path("mark").exists());
    assert_eq!(a.folder()["in_sync"], false);
    set_mode(&a.path("locked"), 0o755);
    settle("unlocked", &[&a, &b]);
    assert_eq!(fs::read(a.path("locked/inner/file")).unwrap(), b"changed elsewhere");
}

/// Nor is it looked at without a pause, nor told of again and again, because somebody asks.
#[test]
fn who_asks_does_not_wait_for_what_may_not_be_read() {
    let (_temp, mut a, b) = pair();
    let bare = ["--bounding-set=-dac_override,-dac_read_search"];
    if !is_root() || !can("permissions", "setpriv", &[&bare[..], &["true"]].concat()) {
        skipped("permissions", "not root, or no setpriv");
        return;
    }
    for dir in ["one", "two"] {
        fs::create_dir_all(a.path(dir).join("inner")).unwrap();
        write(a.path(dir).join("file"), dir);
    }
    settle("before", &[&a, &b]);
    a.stop();
    a.wrapper = ["setpriv", bare[0]].map(Into::into).to_vec();
    a.run();
    a.until_connected(1, PATIENCE);
    for dir in ["one/inner", "one", "two/inner", "two"] {
        set_mode(&a.path(dir), 0);
    }
    let began = Instant::now();
    until("both are named", PATIENCE, || {
        ["one", "two"].iter().all(|dir| problem(&a, dir).contains("ermission denied"))
    });
    // The mode of what nobody may read is told, too.
    until("so they are elsewhere", PATIENCE, || {
        ["one", "two"].iter().all(|dir| fs::metadata(b.path(dir)).unwrap().mode() & 0o777 == 0)
    });
    let (code, out, err) = a.asks(&["undo", "--dry-run"]);
    assert_eq!(code, 1, "there is nothing to undo: {out}{err}");
    std::thread::sleep(Duration::from_secs(8).saturating_sub(began.elapsed()));
    for dir in ["one", "one/inner", "two", "two/inner"] {
        set_mode(&a.path(dir), 0o755);
    }
    settle("after", &[&a, &b]);
    // They were looked at each second or two, and told of once for each of two causes, or three.
    let told = a.events("problem").iter().filter(|e| e["path"] == "one").count();
    assert!((1..=3).contains(&told), "{told}");
}

#[test]
fn a_quota_is_a_full_disk() {
    let (_temp, a, b) = pair();
    write(b.path("old"), b"old");
    settle("before", &[&a, &b]);
    let new = noise(1, 100_000);
    let staged = b.path(format!(".dunlin/stage/{}", blake3::hash(&new)));
    let Some(faults) = Faults::of(&b, Some(&staged), "pwrite64", "error=EDQUOT") else { return };
    put(&a, "new", &new);
    write(a.path("old"), b"other");
    until("it is named", PATIENCE, || {
        problem(&b, "new").contains("quota") || problem(&b, "new").contains("full")
    });
    until("the rest goes on", PATIENCE, || fs::read(b.path("old")).unwrap() == b"other");
    assert!(!b.path("new").exists());
    faults.end();
    settle("after", &[&a, &b]);
    all_hold(&[&a, &b], "new", &noise(1, 100_000));
    all_hold(&[&a, &b], "old", b"other");
}

/// A file system that is gone with the test.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, args: &[&str]) -> Option<Mount> {
        fs::create_dir_all(at).unwrap();
        let all = [args, &[at.to_str().unwrap()]].concat();
        let mounted = is_root() && can("a file system", "mount", &all);
        if !mounted {
            skipped("a file system of its own", "needs root and mount");
        }
        mounted.then(|| Mount(at.into()))
    }

    fn remount(&self, options: &str) -> bool {
        let options = format!("remount,{options}");
        Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_read_only_for_a_while_serves_and_takes_what_came_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
    let image = base.join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    if !is_root() || !can("a read-only disk", "mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]) {
        skipped("a read-only disk", "needs root");
        return;
    }
    let Some(disk) = Mount::new(&b.dir, &["-o", "loop", image.to_str().unwrap()]) else { return };
    b.join(&a.share());
    write(b.path("goes"), b"goes");
    write(b.path("served"), noise(1, 3 << 20));
    settle("before", &[&a, &b]);
    until("read-only", PATIENCE, || disk.remount("ro"));
    write(a.path("new"), b"new");
    fs::remove_file(a.path("goes")).unwrap();
    until("it is said", PATIENCE, || b.folder()["problems"].to_string().contains("ead-only"));
    assert!(b.path("goes").exists() && b.folder()["in_sync"] == false);
    // It serves what it has: with a away, b is the only one who could have brought this.
    a.stop();
    c.join(&b.invite());
    until("served", PATIENCE, || c.path("served").exists());
    all_hold(&[&c], "served", &noise(1, 3 << 20));
    assert!(disk.remount("rw"));
    a.run();
    settle("writable again", &[&a, &b, &c]);
    all_hold(&[&a, &b, &c], "new", b"new");
    all_hold(&[&a, &b, &c], "served", &noise(1, 3 << 20));
    assert!(!b.path("goes").exists() && !c.path("goes").exists());
}

#[test]
fn the_control_directory_may_lose_what_is_gathered_in_it() {
    let (_temp, a, b) = pair();
    write(a.path("file"), b"one");
    settle("before", &[&a, &b]);
    for dir in ["stage", "swap", "history"] {
        let _ = fs::remove_dir_all(b.path(".dunlin").join(dir));
    }
    write(a.path("file"), b"two");
    write(a.path("large"), noise(1, 5 << 20));
    settle_within("after", &[&a, &b], PATIENCE);
    all_hold(&[&a, &b], "file", b"two");
    all_hold(&[&a, &b], "large", &noise(1, 5 << 20));
    // In mid-transfer, too.
    write(a.path("large"), noise(2, 60 << 20));
    let stage = b.path(".dunlin/stage");
    let staged = || -> u64 {
        let entries = fs::read_dir(&stage).into_iter().flatten().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.blocks() * 512).sum()
    };
    until("the transfer is under way", PATIENCE, || staged() > 4 << 20);
    fs::remove_dir_all(&stage).unwrap();
    settle_within("gathered again", &[&a, &b], PATIENCE);
    all_hold(&[&a, &b], "large", &noise(2, 60 << 20));
}

#[test]
fn what_was_gathered_and_damaged_before_a_start_is_fetched_again() {
    let (temp, a, mut b) = pair();
    // Renamed in as a whole: a version of it caught half written would arrive first.
    write(temp.path().join("large"), noise(1, 150 << 20));
    fs::rename(temp.path().join("large"), a.path("large")).unwrap();
    let stage = b.path(".dunlin/stage");
    let part = || fs::read_dir(&stage).into_iter().flatten().flatten().next().map(|e| e.path());
    let size = |p: PathBuf| fs::metadata(p).map_or(0, |m| m.blocks() * 512);
    until("a good part is there", PATIENCE, || part().is_some_and(|p| size(p) > 16 << 20));
    b.kill();
    assert!(!b.path("large").exists(), "too quick to be killed on its way");
    let file = fs::File::options().read(true).write(true).open(part().unwrap()).unwrap();
    for at in [0u64, 1 << 20, 7_777_777, 15 << 20] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    b.run();
    settle("after", &[&a, &b]);
    assert!(fs::read(b.path("large")).unwrap() == noise(1, 150 << 20));
}

#[test]
fn one_folder_has_one_node() {
    let (temp, a, mut b) = pair();
    write(a.path("file"), b"file");
    let before = settle("before", &[&a, &b]);
    let other = Node::new(temp.path(), "other");
    let ticket = a.invite();
    let mut refused = 0;
    for args in [&["share"][..], &["join", &ticket]] {
        let args = [args, &[b.dir.to_str().unwrap(), "--listen", "127.0.0.1:0"]].concat();
        let (code, _, err) = other.asks(&args);
        assert!(code == 1 && err.contains("in use by another node"), "{err}");
        refused += 1;
    }
    assert_eq!((refused, other.home.join("device.key").exists()), (2, false));
    assert!(settle("after", &[&a, &b]) == before);
    // Whoever was killed holds nothing.
    b.kill();
    b.run();
    b.until_connected(1, PATIENCE);
    assert!(settle("again", &[&a, &b]) == before);
}
