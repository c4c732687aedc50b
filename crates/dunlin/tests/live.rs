//! Changes travel at once, and what is said of them is true.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
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
