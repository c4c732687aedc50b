//! Roots that are lost, strange, or older than what is known of them: nothing of that spreads, status says what to do,
//! and it ends by itself when the right directory is back.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILES: usize = 30;

struct Pair {
    a: Node,
    b: Node,
    whole: Tree,
    _temp: tempfile::TempDir,
}

impl Pair {
    fn new() -> Pair {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let (mut a, mut b) = (Node::new(&base, "a"), Node::new(&base, "b"));
        fs::create_dir_all(a.path("d")).unwrap();
        for i in 0..FILES {
            let at = if i % 2 == 0 { format!("d/{i}") } else { i.to_string() };
            write(a.path(at), format!("content {i}"));
        }
        b.join(&a.share());
        let whole = settle("the beginning", &[&a, &b]);
        Pair { a, b, whole, _temp: temp }
    }

    fn settled(&self, what: &str) -> Tree {
        settle_within(what, &[&self.a, &self.b], PATIENCE * 2)
    }

    /// The other device still has everything, and goes on having it.
    fn kept_by_b(&self) {
        assert_eq!(differences(&tree(&self.b.dir), &self.whole), Vec::<String>::new());
    }

    /// The same, without what was deleted.
    fn kept_by_b_but(&self, gone: &[&str]) {
        let mut whole = self.whole.clone();
        gone.iter().for_each(|path| drop(whole.remove(path.as_bytes())));
        assert_eq!(differences(&tree(&self.b.dir), &whole), Vec::<String>::new());
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.a.dir.with_extension(name)
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn until_halted(node: &Node) -> String {
    until("halted", PATIENCE, || {
        node.asks(&["status", "--json"]).0 == 0 && node.folder()["state"] == "halted"
    });
    node.folder()["problems"][0]["why"].as_str().unwrap().to_owned()
}

fn unite(node: &Node) {
    // The command as status says it.
    let why = until_halted(node);
    let command = format!("dunlin resume {} --unite", node.dir.display());
    assert!(why.contains(&command) && node.asks(&["status"]).1.contains(&command), "{why}");
    let (code, out, err) = node.asks(&["resume", node.dir.to_str().unwrap(), "--unite"]);
    assert!(code == 0 && out.contains("goes on with what is there"), "{out}{err}");
}

#[test]
fn a_root_made_anew_by_hand_is_united_by_one_command() {
    for (running, at_once) in [(true, false), (true, true), (false, false)] {
        let mut p = Pair::new();
        if !running {
            p.a.stop();
        }
        // Not just the files: .dunlin with them, and something else is there already.
        fs::remove_dir_all(&p.a.dir).unwrap();
        fs::create_dir(&p.a.dir).unwrap();
        write(p.a.path("1"), "another content");
        write(p.a.path("found"), "found there");
        if !running {
            p.a.run();
        }
        // Whoever knows what happened need not wait until the folder does.
        if !at_once {
            until_halted(&p.a);
            p.kept_by_b();
        }
        unite(&p.a);
        let all = p.settled("united");
        // Both are there, and what was there under the same name too.
        let expected = p.whole.len() + 2;
        assert_eq!((all.len(), conflicts(&all).len()), (expected, 1), "{:?}", differences(&all, &p.whole));
        let missing = p.whole.iter().filter(|(path, thing)| all.get(*path) != Some(thing)).count();
        assert!(missing <= 1, "{:?}", differences(&all, &p.whole));
        // From now on it is a folder like any other.
        fs::remove_file(p.a.path("d/0")).unwrap();
        p.settled("a delete");
        assert!(!p.b.path("d/0").exists());
        assert_eq!(p.a.asks(&["resume", "--unite"]).0, 1, "there is nothing to unite");
    }
}

/// `rm -rf` of the folder's own directory takes files first and the marker later: what was believed to be deleted before that
/// was noticed comes back with the rest. What others deleted stays deleted.
#[test]
fn what_went_just_before_the_root_did_comes_back_with_it() {
    let mut p = Pair::new();
    // Not young any more: what is there at a start is not.
    p.a.stop();
    p.a.run();
    p.settled("started anew");
    for path in ["d/0", "d/2", "1", "3"] {
        fs::remove_file(p.a.path(path)).unwrap();
    }
    fs::remove_file(p.b.path("5")).unwrap();
    let whole = p.settled("told, and carried out by the other");
    assert!(!p.b.path("d/0").exists() && !p.a.path("5").exists());
    fs::remove_dir_all(&p.a.dir).unwrap();
    fs::create_dir(&p.a.dir).unwrap();
    until_halted(&p.a);
    assert_eq!(differences(&tree(&p.b.dir), &whole), Vec::<String>::new());
    unite(&p.a);
    let all = p.settled("united");
    let mut expected = p.whole.clone();
    expected.remove(&b"5"[..]);
    assert_eq!(differences(&all, &expected), Vec::<String>::new());
}

#[test]
fn what_cannot_be_united_is_a_clear_line_and_changes_nothing() {
    let p = Pair::new();
    let says = |what: &str| {
        let (code, _, err) = p.a.asks(&["resume", "--unite"]);
        assert!(code == 1 && err.contains(what) && err.contains("hint: "), "{what}: {err}");
        p.kept_by_b();
    };
    says("is in its place");
    let away = p.beside("away");
    fs::rename(&p.a.dir, &away).unwrap();
    until_halted(&p.a);
    says("there is nothing at");
    write(&p.a.dir, "a file");
    says("is not a directory");
    fs::remove_file(&p.a.dir).unwrap();
    fs::create_dir_all(p.a.path(".dunlin")).unwrap();
    write(p.a.path(".dunlin/folder"), "another folder's");
    says("is another shared folder");
    fs::remove_dir_all(&p.a.dir).unwrap();
    // It goes on by itself, and knows what was deleted meanwhile.
    fs::remove_file(away.join("1")).unwrap();
    fs::rename(&away, &p.a.dir).unwrap();
    until("goes on", PATIENCE, || p.a.folder()["state"] != "halted");
    let all = p.settled("back");
    assert_eq!(all.len(), p.whole.len() - 1);
}

#[test]
fn a_copy_in_the_place_of_the_root_is_the_folder() {
    let p = Pair::new();
    let away = p.beside("away");
    fs::rename(&p.a.dir, &away).unwrap();
    until_halted(&p.a);
    copy(&away, &p.a.dir);
    until("goes on", PATIENCE, || p.a.folder()["state"] != "halted");
    assert_eq!(differences(&p.settled("a copy"), &p.whole), Vec::<String>::new());
    // It is watched and written to where it is now, and what is deleted in it is deleted.
    fs::remove_file(p.a.path("1")).unwrap();
    write(p.b.path("new"), "by b");
    let all = p.settled("after it");
    assert!(all.len() == p.whole.len() && p.a.path("new").exists() && !p.b.path("1").exists());
    assert!(!away.join("new").exists());
}

/// The folder alone goes back, by a backup or a snapshot; the state directory does not.
#[test]
fn a_folder_that_went_back_alone_deletes_nothing() {
    for running in [false, true] {
        let mut p = Pair::new();
        p.a.stop();
        let backup = p.beside("backup");
        copy(&p.a.dir, &backup);
        p.a.run();
        // Then it was worked on.
        write(p.a.path("later"), "written later");
        fs::create_dir(p.a.path("later dir")).unwrap();
        write(p.a.path("later dir/too"), "written later, too");
        write(p.b.path("3"), "edited by b");
        fs::remove_file(p.b.path("5")).unwrap();
        p.whole = p.settled("later");
        if !running {
            p.a.stop();
        }
        fs::rename(&p.a.dir, p.beside("lost")).unwrap();
        copy(&backup, &p.a.dir);
        if !running {
            p.a.run();
        }
        until("taken", PATIENCE, || {
            p.a.asks(&["status", "--json"]).0 == 0
                && p.a.folder()["state"] != "halted"
                && p.a.connections() == 1
        });
        let all = p.settled("united");
        // What came later is there again. Nothing says that what is older was not brought back on purpose: it is kept.
        for (path, thing) in &p.whole {
            assert_eq!(all.get(path), Some(thing), "{path:?}: {:?}", differences(&all, &p.whole));
        }
        assert!(contents(&all).contains(blake3::hash(b"content 3").as_bytes()) && p.a.path("5").exists());
        assert_eq!(conflicts(&all).len(), 1, "{:?}", differences(&all, &p.whole));
    }
}

/// What a kill leaves unnoted is no rolled back folder: deletes made while it was stopped count.
#[test]
fn a_kill_right_after_a_change_is_no_folder_that_went_back() {
    let mut p = Pair::new();
    for i in 0..3 {
        write(p.a.path(format!("new{i}")), "just before a kill");
        p.a.wait();
        p.a.kill();
        fs::remove_file(p.a.path(format!("new{i}"))).unwrap();
        p.a.run();
        until("a runs", PATIENCE, || p.a.asks(&["status"]).0 == 0);
        p.a.until_connected(1, PATIENCE);
    }
    assert_eq!(differences(&p.settled("after kills"), &p.whole), Vec::<String>::new());
}

/// Runs a command that must not hang.
fn asks_within(node: &Node, args: &[&str]) -> (i32, String, String) {
    let args: Vec<&std::ffi::OsStr> = args.iter().map(std::ffi::OsStr::new).collect();
    let mut command = node.command(&args);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{args:?} hangs");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    told(child.wait_with_output().unwrap())
}

/// What is asked while the root is lost is answered at once: what is lost, and what to do.
#[test]
fn what_is_asked_while_the_root_is_lost_is_told_so_at_once() {
    let p = Pair::new();
    fs::remove_file(p.a.path("1")).unwrap();
    p.settled("a version for the history");
    let away = p.beside("away");
    let says_so = |how: &str, waits: bool| {
        let root = p.a.dir.to_str().unwrap();
        let path = p.a.path("1");
        let asked = [
            &["undo", root][..],
            &["undo", "--dry-run", root],
            &["restore", path.to_str().unwrap()],
            &["restore", "1", "--to", "elsewhere"],
            &["history", "1", "--folder", root],
            &["history"],
            &["verify"],
            &["wait", "--timeout", "30"],
        ];
        for args in asked {
            if waits {
                until_halted(&p.a);
            }
            let (code, out, err) = asks_within(&p.a, args);
            assert_eq!((code, out.as_str()), (1, ""), "{how}: {args:?}: {err}");
            assert!(
                err.contains("the folder is halted: ") && err.contains("when the right folder is back"),
                "{err}"
            );
            assert!(err.contains(&format!("dunlin resume {root} --unite")), "{how}: {args:?}: {err}");
            assert_eq!(err.lines().count(), 2, "{err}");
        }
        let (code, out, _) = p.a.asks(&["status"]);
        let says = "halted, waiting for its directory to be back, or for you";
        assert!(code == 0 && out.contains(says) && out.contains("--unite"), "{out}");
        assert!(p.a.folder()["root_lost"] == true && p.a.folder()["held"].is_null());
        p.kept_by_b_but(&["1"]);
    };
    // Nobody has noticed it yet, and then it is known.
    for waits in [false, true] {
        fs::rename(&p.a.dir, &away).unwrap();
        says_so("gone", waits);
        fs::create_dir(&p.a.dir).unwrap();
        says_so("empty", waits);
        fs::remove_dir(&p.a.dir).unwrap();
        fs::rename(&away, &p.a.dir).unwrap();
        until("goes on", PATIENCE, || p.a.folder()["state"] != "halted");
    }
    let (code, _, err) = p.a.asks(&["restore", "1"]);
    assert!(code == 0 && p.a.path("1").exists(), "{err}");
}

/// Who waits looks at the root first, as at all else: how it was a moment ago says nothing.
#[test]
fn the_right_root_is_seen_by_who_waits_as_soon_as_it_is_back() {
    let (_temp, mut a, b) = pair();
    write(a.path("f"), "f");
    settle("before", &[&a, &b]);
    let away = a.dir.with_extension("away");
    for stopped in [false, true, false] {
        if stopped {
            a.stop();
        }
        fs::rename(&a.dir, &away).unwrap();
        fs::create_dir(&a.dir).unwrap();
        if stopped {
            a.run_until_it_answers();
        }
        until("it is halted", PATIENCE, || a.folder()["state"] == "halted");
        write(away.join("meanwhile"), format!("{stopped}"));
        fs::remove_dir(&a.dir).unwrap();
        fs::rename(&away, &a.dir).unwrap();
        let (code, out, err) = a.asks(&["wait", "--timeout", "30"]);
        assert_eq!(code, 0, "stopped: {stopped}: {out}{err}");
        settle("back", &[&a, &b]);
        assert!(b.path("meanwhile").exists());
    }
}
