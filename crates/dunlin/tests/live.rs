//! Changes travel at once, and what is said of them is true.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn an_edit_is_there_at_once() {
    let (_temp, a, b) = pair();
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut took = Vec::new();
        for i in 0..25u64 {
            let (name, bytes) = (format!("by {}", from.name), noise(i, 1024));
            let begun = Instant::now();
            write(from.path(&name), &bytes);
            until("a small edit", Duration::from_secs(5), || {
                fs::read(to.path(&name)).ok().as_ref() == Some(&bytes)
            });
            took.push(begun.elapsed());
        }
        took.sort();
        eprintln!(
            "1 KiB {} -> {}: median {:?}, worst {:?}",
            from.name,
            to.name,
            took[took.len() / 2],
            took[took.len() - 1]
        );
    }
}

#[test]
fn files_in_just_made_directories_and_a_restless_file_arrive() {
    let (_temp, a, b) = pair();
    let resting = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let begun = Instant::now();
            let mut i = 0u64;
            while begun.elapsed() < Duration::from_secs(3) {
                write(a.path("restless"), i.to_string().repeat(200));
                i += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            eprintln!("the restless file was written {i} times");
            resting.store(true, Ordering::Relaxed);
        });
        let mut seen = Vec::new();
        let mut made = 0;
        while !resting.load(Ordering::Relaxed) {
            if let Ok(now) = fs::read(b.path("restless"))
                && seen.last() != Some(&now)
            {
                // Whoever writes it truncates it first: nothing at all is a version too.
                let unit = &now[..now.len() / 200];
                assert!(unit.repeat(200) == now, "a torn version");
                seen.push(now);
            }
            if made < 100 {
                let dir = a.path(format!("{made}/b/c"));
                fs::create_dir_all(&dir).unwrap();
                write(dir.join("file"), format!("{made}"));
                write(a.path(format!("{made}/at the top")), format!("top {made}"));
                made += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} versions of it arrived meanwhile", seen.len());
        assert!(seen.len() >= 2, "a file that never rests must travel about once a second");
    });
    let all = settle("after the rush", &[&a, &b]);
    assert_eq!(all.len(), 1 + 100 * 5);
    assert!(conflicts(&all).is_empty());
}

#[test]
fn wait_never_returns_before_the_peer_has_it() {
    let (_temp, a, b) = pair();
    let begun = Instant::now();
    for i in 0..200 {
        let (here, there) = if i % 3 == 0 { (&b, &a) } else { (&a, &b) };
        let (old, new) = (format!("f{}", (i + 7) % 8), format!("f{}", i % 8));
        match i % 8 {
            5 if here.path(&old).exists() => fs::rename(here.path(&old), here.path(&new)).unwrap(),
            6 if here.path(&old).exists() => fs::remove_file(here.path(&old)).unwrap(),
            7 => fs::create_dir_all(here.path(format!("d{i}/e"))).unwrap(),
            3 if here.path(&old).exists() => set_mode(&here.path(&old), 0o600 + i % 64),
            _ => write(here.path(&new), format!("edit {i}")),
        }
        let expected = tree(&here.dir);
        here.wait();
        let got = tree(&there.dir);
        assert!(got == expected, "wait {i} was early: {:#?}", differences(&expected, &got));
    }
    eprintln!("200 edits, each waited for: {:?}", begun.elapsed());
}

fn signal(node: &Node, signal: &str) {
    assert!(Command::new("kill").args([signal, &node.pid().to_string()]).status().unwrap().success());
}

#[test]
fn in_sync_is_not_said_while_a_peer_lacks_something() {
    let (_temp, a, b) = pair();
    assert_eq!(a.folder()["in_sync"], true);
    assert_eq!(a.folder()["state"], "idle");
    signal(&b, "-STOP");
    write(a.path("new"), b"b sleeps");
    until("a knows of the edit", Duration::from_secs(2), || a.folder()["in_sync"] == false);
    let (code, _, err) = a.asks(&["wait", "--timeout", "1"]);
    assert_eq!(code, 1, "wait while b sleeps");
    assert!(err.contains("not in sync"), "{err}");
    let folder = a.folder();
    assert_eq!(folder["in_sync"], false);
    assert_eq!(folder["devices"][0]["in_sync"], false);
    assert_eq!(folder["devices"][0]["connected"], true, "two seconds of silence are no death");
    assert!(!b.path("new").exists());
    signal(&b, "-CONT");
    a.wait();
    assert!(b.path("new").exists());
    // Copies are counted.
    assert_eq!(a.asks(&["wait", "--copies", "2", "--timeout", "20"]).0, 0);
    assert_eq!(a.asks(&["wait", "--copies", "3", "--timeout", "1"]).0, 1);
}

#[test]
fn an_unreadable_root_halts_and_no_delete_leaves_it() {
    let (_temp, a, b) = pair();
    for i in 0..20 {
        write(a.path(format!("keep{i}")), format!("keep {i}"));
    }
    let before = settle("filled", &[&a, &b]);
    let away = a.dir.with_extension("away");
    // The whole root away, then an empty directory in its place, then the marker away.
    fs::rename(&a.dir, &away).unwrap();
    fs::create_dir(&a.dir).unwrap();
    until("halted", Duration::from_secs(20), || a.asks(&["wait", "--timeout", "1"]).2.contains("halted"));
    assert_eq!(a.folder()["state"], "halted");
    assert_eq!(a.folder()["in_sync"], false);
    fs::remove_dir(&a.dir).unwrap();
    fs::rename(&away, &a.dir).unwrap();
    until("no more halted", Duration::from_secs(5), || a.folder()["state"] != "halted");
    assert!(settle("back", &[&a, &b]) == before);
    fs::rename(a.path(".dunlin/folder"), a.path(".dunlin/elsewhere")).unwrap();
    for i in 0..20 {
        fs::remove_file(a.path(format!("keep{i}"))).unwrap();
    }
    until("halted", Duration::from_secs(20), || a.folder()["state"] == "halted");
    std::thread::sleep(Duration::from_millis(500));
    assert!(tree(&b.dir) == before, "a folder without its marker must delete nothing elsewhere");
}

type Break<'a> = &'a dyn Fn(&Node);

/// What may be wrong with a root when a node starts; each is told, and over by itself.
#[test]
fn a_root_that_is_wrong_at_the_start_is_told_and_comes_back_by_itself() {
    let (_temp, a, mut b) = pair();
    let (away, marker) = (b.dir.with_extension("away"), b.path(".dunlin/folder"));
    let held = fs::read(&marker).unwrap();
    let gone = |b: &Node| fs::rename(&b.dir, &away).unwrap();
    let unmarked = |_: &Node| fs::remove_file(&marker).unwrap();
    let foreign = |_: &Node| write(&marker, b"another folder's");
    let a_file = |b: &Node| {
        fs::rename(&b.dir, &away).unwrap();
        write(&b.dir, b"in the way");
    };
    let wrongs: [(&str, Break<'_>); 4] = [
        ("No such file", &gone),
        ("missing", &unmarked),
        ("belongs to another folder", &foreign),
        ("Not a directory", &a_file),
    ];
    for (i, (word, break_it)) in wrongs.into_iter().enumerate() {
        b.stop();
        break_it(&b);
        write(a.path(format!("meanwhile{i}")), format!("written while b could not, {i}"));
        b.run();
        until("b runs", PATIENCE, || b.asks(&["status"]).0 == 0);
        let folder = b.folder();
        assert_eq!((&folder["state"], &folder["in_sync"]), (&"halted".into(), &false.into()), "{folder}");
        let why = folder["problems"][0]["why"].as_str().unwrap().to_owned();
        assert!(why.contains(word), "{word}: {why}");
        assert_eq!(folder["path"], b.dir.to_str().unwrap());
        assert_eq!(folder["devices"][0]["name"], "a", "{folder}");
        let told = b.asks(&["status"]).1;
        assert!(told.contains("halted") && told.contains(word), "{told}");
        for args in [&["wait"][..], &["wait", b.dir.to_str().unwrap()], &["invite"]] {
            let (code, _, err) = b.asks(args);
            assert!(code == 1 && err.contains("halted") && err.contains(word), "{args:?}: {err}");
        }
        // It is not shared anew by a habit: that would be another folder in its place.
        let (code, _, err) = b.asks(&["share", b.dir.to_str().unwrap()]);
        assert!(code == 1, "{err}");
        assert!(!b.dir.is_dir() || marker.exists() == (word == "belongs to another folder"), "{err}");
        if away.exists() {
            // The file in the way, if there is one.
            let _ = fs::remove_file(&b.dir);
            fs::rename(&away, &b.dir).unwrap();
        } else {
            write(&marker, &held);
        }
        until("opened", PATIENCE, || b.folder()["state"] != "halted");
        settle(word, &[&a, &b]);
        assert_eq!(b.status()["folders"].as_array().unwrap().len(), 1);
    }
    // State that cannot be read is told too, and hinders no other folder.
    b.stop();
    let strange = b.home.join("folders").join("ab".repeat(32));
    fs::create_dir(&strange).unwrap();
    set_mode(&strange, 0o700);
    write(strange.join("folder.json"), b"{");
    b.run();
    until("b runs", PATIENCE, || b.asks(&["status"]).0 == 0);
    let status = b.status();
    let state = |at: &Path| {
        let folders = status["folders"].as_array().unwrap();
        folders.iter().find(|f| f["path"] == at.to_str().unwrap()).map(|f| f["state"].clone())
    };
    assert_eq!(state(&strange), Some("halted".into()), "{status}");
    assert!(state(&b.dir).is_some_and(|s| s != "halted"), "{status}");
    assert_eq!(b.asks(&["wait"]).0, 2, "there are two folders");
    assert_eq!(b.asks(&["wait", b.dir.to_str().unwrap()]).0, 0);
}

/// In a user namespace of its own, where the limit of watches is its own too.
#[test]
fn in_sync_is_not_said_while_changes_may_go_unnoticed() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_watches";
    let limited = format!("echo 6 > {LIMIT} && exec \"$@\"");
    if !can("unwatched", "unshare", &["-Ur", "sh", "-c", &limited, "sh", "true"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let mut a = Node::new(&base, "a");
    let dirs: Vec<_> = (0..12).map(|i| a.path(format!("dir{i}"))).collect();
    dirs.iter().for_each(|d| fs::create_dir_all(d).unwrap());
    a.wrapper = ["unshare", "-Ur", "sh", "-c", &limited, "sh"].map(Into::into).to_vec();
    a.share();
    let problem = |folder: &serde_json::Value| folder["problems"].to_string().contains("max_user_watches");
    until("the limit is told", PATIENCE, || problem(&a.folder()));
    for round in 0..3 {
        dirs.iter().for_each(|d| write(d.join("file"), format!("round {round}")));
        a.wait();
        until("at rest", PATIENCE, || a.folder()["state"] == "idle");
        let folder = a.folder();
        // All twelve, the unwatched ones too; and still nothing is sure from here on.
        assert_eq!((&folder["files"], &folder["bytes"]), (&12.into(), &(12 * 7).into()), "{folder}");
        assert_eq!((&folder["state"], &folder["in_sync"]), (&"idle".into(), &false.into()), "{folder}");
        assert!(problem(&folder), "{folder}");
    }
    let states = a.events("state");
    assert!(!states.is_empty() && states.iter().all(|s| s["in_sync"] == false), "{states:?}");

    // More watches: the next look takes them, and it can be said again.
    let more = format!("echo 1000 > {LIMIT}");
    let pid = a.pid().to_string();
    let enter = ["-t", &pid, "-U", "--preserve-credentials", "sh", "-c", &more];
    if !can("unwatched no more", "nsenter", &enter) {
        return;
    }
    a.wait();
    let folder = a.folder();
    assert!(!problem(&folder) && folder["in_sync"] == true, "{folder}");
    dirs.iter().for_each(|d| write(d.join("file"), "seen at once"));
    until("seen at once", Duration::from_secs(5), || a.folder()["bytes"] == 12 * 12);
}

/// Asks to wait in the very moment after an edit: nothing but the barrier through the watcher can
/// know of it by then.
#[test]
fn wait_sees_an_edit_of_the_same_moment() {
    use std::io::{Read, Write};
    let (_temp, a, b) = pair();
    for i in 0..100 {
        let mut socket = std::os::unix::net::UnixStream::connect(a.home.join("control.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = format!("moment {i}");
        write(a.path("f"), &text);
        let head = "POST /v1/wait HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        socket
            .write_all(format!("{head}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let there = fs::read_to_string(b.path("f")).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        assert_eq!(there, text, "wait was early");
    }
}

/// A large file that is written to without a pause travels as copies of what it was at some moment.
#[test]
fn a_large_file_that_never_rests_travels_meanwhile() {
    use std::os::unix::fs::FileExt;
    const SIZE: usize = 3 << 20;
    let (_temp, a, b) = pair();
    write(a.path("log"), noise(1, SIZE));
    settle("before", &[&a, &b]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut versions = std::collections::BTreeSet::new();
    std::thread::scope(|s| {
        s.spawn(|| {
            let file = fs::File::options().write(true).open(a.path("log")).unwrap();
            for i in 0u64.. {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                file.write_all_at(&i.to_le_bytes(), i % SIZE as u64 / 8 * 8).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("three versions of a file that never rests", PATIENCE, || {
                versions.insert(fs::metadata(b.path("log")).unwrap().ino());
                versions.len() > 3
            })
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        eprintln!("three versions after {:?}", found.unwrap());
    });
    settle("at rest", &[&a, &b]);
}
