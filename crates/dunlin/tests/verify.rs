//! Files that the disk damages by itself: found, not spread, and put right from a device that has them.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// An ext4 file system in a file, mounted while this lives.
struct Ext4 {
    image: PathBuf,
    at: PathBuf,
}

impl Ext4 {
    fn new(base: &Path, at: &Path) -> Option<Ext4> {
        let image = base.join("image");
        fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
        fs::create_dir(at).unwrap();
        let (from, to) = (image.to_str().unwrap(), at.to_str().unwrap());
        let can = is_root()
            && can("a damaged disk", "mkfs.ext4", &["-q", "-F", "-b", "1024", from])
            && can("a damaged disk", "mount", &["-o", "loop", from, to]);
        if !can {
            skipped("a damaged disk", "needs root, ext4 and loop mounts");
        }
        can.then(|| Ext4 { image, at: at.to_path_buf() })
    }

    fn run(&self, program: &str, args: &[&Path]) {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
    }

    fn detach(&self) {
        // A process that another test is just starting may hold for a moment what was open here as it was forked.
        let gone = || Command::new("umount").arg(&self.at).status().unwrap().success();
        until("the disk is not in use", PATIENCE, gone);
    }

    fn attach(&self) {
        self.run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image, &self.at]);
    }

    /// Takes all bytes of a file below the file system, as a crash does on a disk that does not keep its word.
    fn empties(&self, name: &str) {
        let ino = fs::metadata(self.at.join(name)).unwrap().ino();
        self.detach();
        let set = format!("set_inode_field <{ino}> size 0");
        let done = Command::new("debugfs").args(["-w", "-R", &set]).arg(&self.image).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        self.attach();
    }

    /// Changes a byte of a file below the file system: no metadata tell of it.
    fn damage(&self, name: &str) {
        let path = self.at.join(name);
        let (bytes, ino) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino());
        self.detach();
        let asked =
            Command::new("debugfs").args(["-R", &format!("bmap <{ino}> 0")]).arg(&self.image).output();
        let block: u64 = String::from_utf8(asked.unwrap().stdout).unwrap().trim().parse().unwrap();
        let mut image = fs::OpenOptions::new().read(true).write(true).open(&self.image).unwrap();
        let mut there = vec![0; 1024];
        image.seek(SeekFrom::Start(block * 1024)).unwrap();
        image.read_exact(&mut there).unwrap();
        assert!(bytes.starts_with(&there), "block {block} is not the first of {name}");
        image.seek(SeekFrom::Start(block * 1024 + 17)).unwrap();
        image.write_all(&[there[17] ^ 4]).unwrap();
        image.sync_all().unwrap();
        drop(image);
        self.attach();
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn problem(node: &Node, path: &str) -> String {
    let folder = node.folder();
    let problems = folder["problems"].as_array().unwrap().clone();
    let of = |p: &&serde_json::Value| p["path"] == path;
    problems.iter().find(of).map_or(String::new(), |p| p["why"].as_str().unwrap().to_owned())
}

fn history(node: &Node) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(node.path(".dunlin/history")).unwrap();
    entries.map(|e| fs::read(e.unwrap().path()).unwrap()).collect()
}

/// What was written a moment ago counts as being changed still.
fn until_rested(path: &Path) {
    let changed = fs::metadata(path).unwrap();
    let at = Duration::new(changed.ctime().unsigned_abs(), u32::try_from(changed.ctime_nsec()).unwrap());
    let rested = || (UNIX_EPOCH + at).elapsed().is_ok_and(|age| age > Duration::from_millis(150));
    until("the file has rested", PATIENCE, rested);
}

fn times(path: &Path) -> [i64; 5] {
    let m = fs::metadata(path).unwrap();
    [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), i64::try_from(m.ino()).unwrap()]
}

#[test]
fn a_healthy_folder_is_verified_and_stays_as_it_is() {
    let (_temp, a, b) = pair();
    fs::create_dir_all(a.path("d/e")).unwrap();
    for i in 0..300 {
        write(a.path(format!("d/{i}")), noise(i, 100));
    }
    write(a.path("d/e/large"), noise(1, 3 << 20));
    write(a.path("empty"), "");
    let before = settle("made", &[&a, &b]);
    // A file that was seen half written has a version there.
    let kept = history(&b);
    let (code, out, err) = b.asks(&["verify"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("verified 302 files, 3.1 MB; "), "{out}");
    assert_eq!(settle("as it was", &[&a, &b]), before);
    assert_eq!(history(&b), kept);
    assert!(b.events("verifying").iter().any(|e| e["files"] == 302));
}

#[test]
fn a_file_that_comes_back_empty_with_its_old_time_is_no_edit() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Ext4::new(&base, &b.dir) else { return };
    b.join(&a.share());
    (0..4).for_each(|n| write(a.path(format!("f{n}")), noise(n, 5000)));
    let before = settle("made", &[&a, &b]);
    b.stop();
    ["f0", "f1"].iter().for_each(|name| disk.empties(name));
    assert_eq!(fs::read(b.path("f0")).unwrap(), b"");
    // A user who empties a file gives it new times, whatever is set then.
    for name in ["f2", "f3"] {
        let file = fs::File::options().write(true).open(b.path(name)).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.set_len(0).unwrap();
        if name == "f3" {
            file.set_modified(time).unwrap();
        }
    }
    a.stop();
    b.run();
    until("it is told", PATIENCE, || b.asks(&["status"]).0 == 0 && problem(&b, "f0").contains("damaged"));
    a.run();
    let after = settle("put right", &[&a, &b]);
    let stay = |name: &str| after.get(name.as_bytes()) == before.get(name.as_bytes());
    assert_eq!(["f0", "f1", "f2", "f3"].map(stay), [true, true, false, false]);
    assert_eq!(after.len(), before.len(), "no conflict copies");
    assert_eq!(["f2", "f3"].map(|name| fs::read(a.path(name)).unwrap()), [b"", b""]);
}

#[test]
fn what_the_disk_damages_is_found_not_spread_and_put_right() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Ext4::new(&base, &b.dir) else { return };
    let (small, large) = (noise(1, 5000), noise(2, 3 << 20));
    b.join(&a.share());
    write(a.path("small"), &small);
    write(a.path("large"), &large);
    write(a.path("other"), "sound");
    let tree = settle("made", &[&a, &b]);
    b.stop();
    a.stop();
    let before = [times(&b.path("small")), times(&b.path("large"))];
    disk.damage("small");
    disk.damage("large");
    assert_eq!(before, [times(&b.path("small")), times(&b.path("large"))]);
    let rotten = fs::read(b.path("small")).unwrap();
    assert_ne!(rotten, small);

    // Nobody is there: it is found, and stays found.
    b.run();
    until("it runs", PATIENCE, || b.asks(&["status"]).0 == 0);
    until_rested(&b.path("large"));
    let (code, out, err) = b.asks(&["verify"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("; 2 damaged, 0 repaired\n") && out.contains("problem: small: damaged: "), "{out}");
    assert!(err.contains("2 files are damaged"), "{err}");
    b.stop();
    b.run();
    until("it is known after a restart", PATIENCE, || {
        let (code, ..) = b.asks(&["status"]);
        code == 0 && problem(&b, "small").contains("damaged") && problem(&b, "large").contains("damaged")
    });
    assert_eq!(b.folder()["in_sync"], false);

    // Whatever is done to the file but to its bytes, they are no edit.
    fs::rename(b.path("small"), b.path("moved")).unwrap();
    until("it is named where it is", PATIENCE, || problem(&b, "moved").contains("damaged"));

    // A device that has what they held comes.
    a.run();
    settle("put right", &[&a, &b]);
    assert_eq!(fs::read(b.path("moved")).unwrap(), small);
    assert_eq!(fs::read(a.path("moved")).unwrap(), small);
    assert_eq!(fs::read(b.path("large")).unwrap(), large);
    assert_eq!(dunlin_testkit::tree(&b.dir).len(), tree.len(), "no conflict copies");
    assert!(history(&b).contains(&rotten), "what was there is kept");
    assert_eq!(b.folder()["problems"], serde_json::json!([]));

    // With somebody there it is put right at once.
    b.stop();
    disk.damage("large");
    b.run();
    b.until_connected(1, PATIENCE);
    let (code, out, err) = b.asks(&["verify", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["files"], &found["damaged"], &found["repaired"]), (&3.into(), &1.into(), &1.into()));
    assert_eq!(fs::read(b.path("large")).unwrap(), large);
    settle("put right again", &[&a, &b]);
}

#[test]
fn damage_is_not_served_and_a_version_that_nobody_has_stays_reported() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Ext4::new(&base, &b.dir) else { return };
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    a.stop();
    let bytes = noise(3, 9000);
    write(b.path("only here"), &bytes);
    b.wait();
    b.stop();
    disk.damage("only here");
    b.run();
    until("it runs", PATIENCE, || b.asks(&["status"]).0 == 0);
    until_rested(&b.path("only here"));
    assert_eq!(b.asks(&["verify"]).0, 1);
    a.run();
    b.until_connected(1, PATIENCE);
    let nowhere = "no connected device holds this version";
    until("it is said that nobody has it", PATIENCE, || problem(&b, "only here").contains(nowhere));
    until("neither gets it", PATIENCE, || problem(&a, "only here").contains(nowhere));
    let (code, out, _) = b.asks(&["verify"]);
    assert!(code == 1 && out.contains("1 damaged, 0 repaired"), "{out}");
    assert!(!a.path("only here").exists());
    // Somebody writes it anew: that is an edit like any other.
    write(b.path("only here"), "again");
    settle("written anew", &[&a, &b]);
    assert_eq!(fs::read(a.path("only here")).unwrap(), b"again");
}

#[test]
fn what_the_own_history_holds_is_put_right_without_anybody() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Ext4::new(&base, &b.dir) else { return };
    b.join(&a.share());
    let bytes = noise(4, 9000);
    write(a.path("f"), &bytes);
    settle("made", &[&a, &b]);
    fs::copy(a.path("f"), a.path("copy")).unwrap();
    settle("copied", &[&a, &b]);
    fs::remove_file(a.path("copy")).unwrap();
    settle("and deleted", &[&a, &b]);
    a.stop();
    b.stop();
    disk.damage("f");
    b.run();
    until("it runs", PATIENCE, || b.asks(&["status"]).0 == 0);
    until_rested(&b.path("f"));
    let (code, out, err) = b.asks(&["verify"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("; 1 damaged, 1 repaired\n"), "{out}");
    assert_eq!(fs::read(b.path("f")).unwrap(), bytes);
}
