//! A full disk: a problem of what does not fit, and of nothing else, that ends when there is room.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A tmpfs that is gone with the test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(at: &Path, options: &str) -> Option<Tmpfs> {
        fs::create_dir_all(at).unwrap();
        let at = at.to_str().unwrap();
        let mounted = is_root() && can("a full disk", "mount", &["-t", "tmpfs", "-o", options, "none", at]);
        if !mounted {
            skipped("a full disk", "needs root and mount");
        }
        mounted.then(|| Tmpfs(at.into()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What contents that are not in place take of the disk, in kB.
fn staged_kb(node: &Node) -> u64 {
    let Ok(entries) = fs::read_dir(node.path(".dunlin/stage")) else { return 0 };
    entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.blocks() / 2).sum()
}

fn problem(node: &Node, path: &str) -> String {
    let folder = node.folder();
    let problems = folder["problems"].as_array().unwrap().clone();
    let of = |p: &&serde_json::Value| p["path"] == path;
    problems.iter().find(of).map_or(String::new(), |p| p["why"].as_str().unwrap().to_owned())
}

#[test]
fn what_fits_on_a_full_disk_arrives_and_deletes_go_on() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Tmpfs::new(&b.dir, "size=20m") else { return };
    fs::create_dir(&a.dir).unwrap();
    write(a.path("goes"), noise(9, 100_000));
    write(a.path("stays"), b"stays");
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    // Renamed in as a whole: a version of it caught half written might fit, and would rightly arrive.
    write(base.join("big"), noise(1, 100 << 20));
    fs::rename(base.join("big"), a.path("big")).unwrap();
    until("the big file is named", PATIENCE, || {
        problem(&b, "big").starts_with("the disk is full: needs 104.8 MB")
    });
    let used =
        || Command::new("du").arg("-s").arg("-k").arg(b.path(".dunlin/stage")).output().unwrap().stdout;
    let used = String::from_utf8(used()).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap();
    assert!(used < 1000, "{used} kB are held by what does not fit");
    // Others go on: small ones, one that is large and fits, and a delete.
    for i in 0..20u64 {
        write(a.path(format!("small {i}")), noise(i, 10_000));
    }
    write(a.path("fits"), noise(2, 8 << 20));
    fs::remove_file(a.path("goes")).unwrap();
    until("all that fits", PATIENCE, || {
        let mut expected = tree(&a.dir);
        expected.remove(&b"big"[..]);
        tree(&b.dir) == expected
    });
    let folder = b.folder();
    assert_eq!((&folder["in_sync"], &folder["need_files"]), (&false.into(), &1.into()), "{folder:#}");
    assert!(problem(&b, "big").starts_with("the disk is full: needs"), "{folder:#}");
    assert_eq!(folder["problems"].as_array().unwrap().len(), 1, "{folder:#}");
    // With room it goes on by itself.
    disk.remount("size=200m");
    settle("with room", &[&a, &b]);
    all_hold(&[&a, &b], "big", &noise(1, 100 << 20));
    all_hold(&[&a, &b], "fits", &noise(2, 8 << 20));
    assert_eq!(b.folder()["problems"].as_array().unwrap().len(), 0);
    b.stop();
}

#[test]
fn somebody_fills_the_disk_in_mid_transfer() {
    const SIZE: usize = 60 << 20;
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(_disk) = Tmpfs::new(&b.dir, "size=80m") else { return };
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    // Not in the tree, and yet on the disk: so much at once that the rest has no room.
    let theirs = b.path(".dunlin/theirs");
    let mut tries = 1..10;
    let big = loop {
        let big = noise(tries.next().unwrap(), SIZE);
        // Whole: an empty one would be placed first, if it is seen before its bytes come.
        let outside = a.dir.with_extension("big");
        write(&outside, &big);
        fs::rename(outside, a.path("big")).unwrap();
        until("the transfer is under way", PATIENCE, || staged_kb(&b) > 2_000 || b.path("big").exists());
        if take_half_of_what_is_to_come(&theirs, SIZE as u64) {
            break big;
        }
        settle("it was too quick", &[&a, &b]);
        fs::remove_file(a.path("big")).unwrap();
        settle("once more", &[&a, &b]);
        // Else that would yield its room.
        for kept in fs::read_dir(b.path(".dunlin/history")).unwrap() {
            fs::remove_file(kept.unwrap().path()).unwrap();
        }
    };
    until("the disk is full", PATIENCE, || problem(&b, "big").starts_with("the disk is full"));
    assert!(!b.path("big").exists());
    write(a.path("small"), noise(2, 200_000));
    until("what is small arrives", PATIENCE, || b.path("small").exists());
    assert!(!b.path("big").exists());
    fs::remove_file(theirs).unwrap();
    settle("with room", &[&a, &b]);
    all_hold(&[&a, &b], "big", &big);
    all_hold(&[&a, &b], "small", &noise(2, 200_000));
    assert_eq!(b.folder()["problems"].as_array().unwrap().len(), 0);
    b.stop();
}

/// After a clean end and after a kill; what others delete goes there too, and what they write waits for room.
#[test]
fn a_folder_on_a_disk_without_any_room_opens_again() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(_disk) = Tmpfs::new(&b.dir, "size=20m") else { return };
    b.join(&a.share());
    for i in 0..4 {
        write(a.path(format!("file {i}")), noise(i, 100_000));
    }
    settle("joined", &[&a, &b]);
    let theirs = b.path(".dunlin/theirs");
    for killed in [false, true] {
        fill(&theirs);
        if killed {
            b.kill()
        } else {
            b.stop()
        }
        fill(&theirs);
        let gone = format!("file {}", u8::from(killed));
        fs::remove_file(a.path(&gone)).unwrap();
        b.run();
        until("it opens, and what was deleted is", PATIENCE, || !b.path(&gone).exists());
        write(a.path("big"), noise(9 + u64::from(killed), 2_000_000));
        until("the disk is full", PATIENCE, || problem(&b, "big").starts_with("the disk is full"));
        fs::remove_file(&theirs).unwrap();
        settle("with room", &[&a, &b]);
        // Held again at a start with room.
        b.stop();
        b.run();
        settle("with room, and started anew", &[&a, &b]);
    }
    all_hold(&[&a, &b], "big", &noise(10, 2_000_000));
    all_hold(&[&a, &b], "file 3", &noise(3, 100_000));
}

#[test]
fn no_inodes_is_said_and_heals() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(disk) = Tmpfs::new(&b.dir, "size=20m,nr_inodes=60") else { return };
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    for i in 0..100 {
        write(a.path(format!("file {i}")), format!("{i}"));
    }
    fs::create_dir(a.path("dir")).unwrap();
    let words = "no more files can be created on the disk (out of inodes)";
    until("what has a place arrives, and of the rest it is said", PATIENCE, || {
        let folder = b.folder();
        let all = folder["problems"].as_array().unwrap();
        tree(&b.dir).len() > 30 && !all.is_empty() && all.iter().all(|p| p["why"] == words)
    });
    disk.remount("nr_inodes=1000");
    until("more room", Duration::from_secs(40), || tree(&b.dir).len() == 101);
    settle("with room", &[&a, &b]);
    assert_eq!(b.folder()["problems"].as_array().unwrap().len(), 0);
}

/// Takes so much of the disk, in one call, that half of what is to come of a file of `size` bytes has room: what is given
/// up for want of it is not taken too. Tells whether that could be done: not if the transfer is nearly over.
fn take_half_of_what_is_to_come(path: &Path, size: u64) -> bool {
    let file = fs::File::create(path).unwrap();
    let disk = rustix::fs::fstatvfs(&file).unwrap();
    let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let to_come = free.saturating_sub(all - size);
    let flags = rustix::fs::FallocateFlags::empty();
    // Meanwhile some of it comes.
    let taken = to_come > 16 << 20 && rustix::fs::fallocate(&file, flags, 0, free - to_come / 2).is_ok();
    if !taken {
        fs::remove_file(path).unwrap();
    }
    taken
}

/// Takes all that is free.
fn fill(path: &Path) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    let block = vec![7; 1 << 16];
    while file.write_all(&block).is_ok() {}
}

/// A full disk of the state directory says nothing against the index: the folder waits, says why, and goes
/// on as the same index.
#[test]
fn a_full_state_directory_is_told_and_heals_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    let Some(_disk) = Tmpfs::new(&b.home, "size=12m,mode=700") else { return };
    fs::create_dir(&a.dir).unwrap();
    for i in 0..50 {
        write(a.path(format!("old {i}")), format!("old {i}"));
    }
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    let pid = b.pid();
    let filler = b.home.join("filler");
    for round in 0..2 {
        fill(&filler);
        let of_round = |what: &str, i: usize| format!("{what} {round} {i}");
        for i in 0..1500 {
            write(a.path(of_round("theirs", i)), of_round("their content", i));
        }
        until("the reason is told", PATIENCE, || {
            let folder = b.folder();
            folder["in_sync"] == false && problem(&b, "").contains("No space left on device")
        });
        // Both go on working meanwhile.
        for i in 0..10 {
            write(b.path(of_round("mine", i)), of_round("my content", i));
            fs::remove_file(a.path(format!("old {}", round * 10 + i))).unwrap();
        }
        fs::rename(a.path(of_round("theirs", 0)), a.path(of_round("renamed", 0))).unwrap();
        write(b.path("old 49"), of_round("edited", 49));
        fs::remove_file(&filler).unwrap();
        until("it is opened again", Duration::from_secs(60), || problem(&b, "").is_empty());
        let tree = settle_within("with room", &[&a, &b], Duration::from_secs(60));
        assert!(conflicts(&tree).is_empty(), "{:?}", conflicts(&tree));
        assert_eq!(tree.len(), 50 + (round + 1) * (1500 + 10 - 10), "nothing is lost and nothing comes back");
        assert_eq!(fs::read(a.path("old 49")).unwrap(), of_round("edited", 49).as_bytes());
        assert_eq!(
            fs::read(b.path(of_round("renamed", 0))).unwrap(),
            of_round("their content", 0).as_bytes()
        );
    }
    assert_eq!(b.pid(), pid);
    assert!(b.lives() && !b.panicked(), "{}", b.errors());
    let folders = fs::read_dir(b.home.join("folders")).unwrap();
    for state in folders {
        let state = state.unwrap().path();
        assert!(!state.join("index.damaged").exists() && !state.join("index.damaged.redb").exists());
    }
    b.stop();
}
