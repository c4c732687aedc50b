//! What file systems and programs do to files that is not usual.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Whether `needle` is in any file below, also in what is dunlin's.
fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| {
        let kind = entry.file_type().unwrap();
        let has = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|w| w == needle);
        // What is gone by now was looked at under another name, or will be.
        if kind.is_dir() {
            holds(&entry.path(), needle)
        } else {
            kind.is_file() && fs::read(entry.path()).is_ok_and(has)
        }
    })
}

#[test]
fn links_are_texts_wherever_they_lead() {
    let (temp, a, b) = pair();
    let canary = temp.path().join("canary");
    fs::create_dir(&canary).unwrap();
    write(canary.join("secret"), b"a secret outside of the folder");
    fs::create_dir(a.path("d")).unwrap();
    write(a.path("d/file"), b"in the folder");
    let long = OsString::from_vec(b"long/".repeat(819));
    assert_eq!(long.len(), 4095, "as long as Linux allows");
    let texts: [(&str, &Path); 11] = [
        ("relative", Path::new("d/file")),
        ("to-a-directory", Path::new("d")),
        ("d/up", Path::new("..")),
        ("dangling", Path::new("/nowhere/at all")),
        ("itself", Path::new("itself")),
        ("loop-1", Path::new("loop-2")),
        ("loop-2", Path::new("loop-1")),
        ("passwd", Path::new("/etc/passwd")),
        ("out", &canary),
        ("d/control", Path::new("../.dunlin")),
        ("long", Path::new(&long)),
    ];
    for (at, text) in texts {
        symlink(text, a.path(at)).unwrap();
    }
    settle("links", &[&a, &b]);
    for (at, text) in texts {
        assert_eq!(fs::read_link(b.path(at)).unwrap(), text, "{at}");
    }
    // Where a directory becomes a link to outside, what is behind the link is neither read nor touched.
    fs::rename(a.path("d"), a.path("was-d")).unwrap();
    symlink(&canary, a.path("d")).unwrap();
    settle("a directory is a link now", &[&a, &b]);
    fs::remove_file(b.path("d")).unwrap();
    fs::rename(b.path("was-d"), b.path("d")).unwrap();
    settle("and a directory again", &[&a, &b]);
    assert_eq!(fs::read(a.path("d/file")).unwrap(), b"in the folder");
    assert!(!holds(&b.dir, b"a secret outside") && !holds(&a.dir, b"a secret outside"));
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
}

#[test]
fn pipes_sockets_and_devices_are_left_alone() {
    let (_temp, a, b) = pair();
    let make = |kind: &[&str], at: &str| {
        let made = Command::new("mknod").arg(a.path(at)).args(kind).stderr(Stdio::null()).status();
        made.is_ok_and(|s| s.success())
    };
    assert!(make(&["p"], "pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(a.path("socket")).unwrap();
    if !make(&["c", "1", "5"], "zeros") {
        skipped("device nodes", "needs root");
    }
    // Whoever opened the pipe would wait for a writer, and whoever read the device would never end.
    write(a.path("beside"), b"beside");
    settle("beside them", &[&a, &b]);
    assert_eq!(fs::read_dir(&b.dir).unwrap().count(), 2, "the file and .dunlin");
    let (code, _, err) = a.asks(&["verify"]);
    assert_eq!(code, 0, "{err}");
    fs::remove_file(a.path("pipe")).unwrap();
    write(a.path("pipe"), b"a file now");
    settle("a file in its place", &[&a, &b]);
    assert_eq!(fs::read(b.path("pipe")).unwrap(), b"a file now");
}

struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_folder_mounted_into_itself_is_not_walked_in_circles() {
    let (_temp, a, mut b) = pair();
    fs::create_dir(a.path("loop")).unwrap();
    fs::create_dir(a.path("other")).unwrap();
    write(a.path("file"), b"once");
    settle("before", &[&a, &b]);
    let at = a.path("loop");
    let args = ["--bind", a.dir.to_str().unwrap(), at.to_str().unwrap()];
    if !is_root() || !can("a bind mount", "mount", &args) {
        skipped("a bind mount", "needs root and mount");
        return;
    }
    let bound = Bound(&at);
    write(a.path("later"), b"later");
    // A bind mount has the device number of what it shows, and is another mount all the same.
    assert!(a.path("loop/later").exists());
    settle_files(&a, &b, &["file", "later"]);
    b.stop();
    b.run();
    write(a.path("file"), b"twice");
    settle_files(&a, &b, &["file", "later"]);
    drop(bound);
    settle("unmounted", &[&a, &b]);
    assert!(b.path("loop").is_dir() && a.path("loop").is_dir());
    assert_eq!(fs::read_dir(b.path("loop")).unwrap().count(), 0);
}

/// Waits for these files alone: what is mounted may be a problem meanwhile.
fn settle_files(a: &Node, b: &Node, files: &[&str]) {
    until("the files", PATIENCE, || {
        files.iter().all(|f| fs::read(b.path(f)).ok() == Some(fs::read(a.path(f)).unwrap()))
    });
    assert!(fs::read_dir(b.path("loop")).is_ok_and(|entries| entries.count() == 0), "the loop was walked");
}

#[test]
fn modes_are_kept_but_never_more_than_permissions() {
    let (_temp, a, b) = pair();
    let modes = [0o000, 0o444, 0o777, 0o4755, 0o2755, 0o1644, 0o001];
    for mode in modes {
        write(a.path(format!("{mode:o}")), format!("{mode:o}"));
        set_mode(&a.path(format!("{mode:o}")), mode);
    }
    fs::create_dir(a.path("sticky")).unwrap();
    set_mode(&a.path("sticky"), 0o1777);
    fs::create_dir(a.path("read-only")).unwrap();
    write(a.path("read-only/file"), b"one");
    set_mode(&a.path("read-only"), 0o555);
    settle("modes", &[&a, &b]);
    let mode = |node: &Node, at: &str| fs::metadata(node.path(at)).unwrap().mode() & 0o7777;
    for given in modes {
        assert_eq!(mode(&b, &format!("{given:o}")), given & 0o777, "{given:o}");
    }
    assert_eq!((mode(&b, "sticky"), mode(&b, "read-only")), (0o777, 0o555));
    // A directory that nobody may write to takes what comes, or it is said.
    set_mode(&a.path("read-only"), 0o755);
    write(a.path("read-only/file"), b"two");
    write(a.path("read-only/new"), b"new");
    set_mode(&a.path("read-only"), 0o555);
    settle("into a read-only directory", &[&a, &b]);
    assert_eq!((fs::read(b.path("read-only/file")).unwrap(), mode(&b, "read-only")), (b"two".into(), 0o555));
    // So that the directory of the test can be removed by everybody.
    [&a, &b].iter().for_each(|n| set_mode(&n.path("read-only"), 0o755));
}

#[test]
fn new_bytes_under_an_old_time_are_found() {
    let (_temp, mut a, b) = pair();
    for (i, (secs, nanos)) in
        [(0, 0), (-1_000_000_000, 1), (2_208_988_800, 2), (4_000_000_000, 3)].into_iter().enumerate()
    {
        let name = format!("f{i}");
        write(a.path(&name), b"old bytes");
        set_mtime(&a.path(&name), secs, nanos);
        settle("the time", &[&a, &b]);
        // As many bytes and the same time, as after `cp -p` of a backup; and once while nobody looks.
        if i % 2 == 1 {
            a.stop();
        }
        write(a.path(&name), b"new bytes");
        set_mtime(&a.path(&name), secs, nanos);
        if i % 2 == 1 {
            a.run();
            a.until_connected(1, PATIENCE);
        }
        settle("new bytes", &[&a, &b]);
        assert_eq!(fs::read(b.path(&name)).unwrap(), b"new bytes", "{secs}");
        let meta = fs::metadata(b.path(&name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (secs, nanos.into()));
    }
}

#[test]
fn sizes_at_every_edge_arrive() {
    let (_temp, a, b) = pair();
    let edges = [0, 1, 16 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20];
    for (i, edge) in edges.into_iter().enumerate() {
        for (size, what) in [(edge.max(1) - 1, "before"), (edge, "at"), (edge + 1, "after")] {
            write(a.path(format!("noise {i} {what}")), noise(i as u64, size));
            // Nothing but a hole: every chunk is the same.
            fs::File::create(a.path(format!("hole {i} {what}"))).unwrap().set_len(size as u64).unwrap();
        }
    }
    settle("sizes", &[&a, &b]);
    // Over each edge and back, at the end and from the front.
    for i in 0..edges.len() {
        for (at, what) in [("noise", "at"), ("hole", "at")] {
            let path = a.path(format!("{at} {i} {what}"));
            fs::File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        }
        let path = a.path(format!("noise {i} after"));
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    }
    settle("other sizes", &[&a, &b]);
}

/// Takes a copy of every version of a file that shows.
struct Copies {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<PathBuf>>,
}

impl Copies {
    fn new(of: PathBuf, to: PathBuf) -> Copies {
        fs::create_dir(&to).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let ends = ended.clone();
        let thread = std::thread::spawn(move || {
            let (mut taken, mut last) = (Vec::new(), None);
            while !ends.load(Ordering::Relaxed) {
                let bytes = fs::read(&of).unwrap_or_default();
                if !bytes.is_empty() && last.as_ref() != Some(&bytes) {
                    taken.push(to.join(taken.len().to_string()));
                    write(&taken[taken.len() - 1], &bytes);
                    last = Some(bytes);
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            taken
        });
        Copies { ended, thread }
    }

    /// How many it took, and how many of them a database finds nothing wrong with.
    fn end(self) -> (usize, usize) {
        self.ended.store(true, Ordering::Relaxed);
        let taken = self.thread.join().unwrap();
        let whole = |path: &&PathBuf| {
            let output = Command::new("sqlite3").arg(path).arg("PRAGMA integrity_check").output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim() == "ok"
        };
        (taken.len(), taken.iter().filter(whole).count())
    }
}

#[test]
fn a_database_in_use_arrives_whole() {
    let (temp, a, b) = pair();
    if !can("a database", "sqlite3", &["--version"]) {
        return;
    }
    let (db, copies) = (a.path("db"), Copies::new(b.path("db"), temp.path().join("copies")));
    let mut shell =
        Command::new("sqlite3").arg(&db).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"PRAGMA journal_mode=WAL;\nCREATE TABLE t(i INTEGER, b BLOB);\n").unwrap();
    // Each row goes to the log, and the log into the file, while nodes look at both.
    for i in 0..300 {
        let checkpoint = if i % 20 == 19 { "PRAGMA wal_checkpoint;\n" } else { "" };
        input
            .write_all(format!("INSERT INTO t VALUES({i}, randomblob(3000));\n{checkpoint}").as_bytes())
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(input);
    let mut told = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(shell.wait().unwrap().success() && told.starts_with("wal"), "{told}");
    let all = settle("closed", &[&a, &b]);
    assert!(conflicts(&all).is_empty() && all.len() == 1, "{all:?}");
    // No more is promised of them than that each is the file of one moment, which `editors.rs` holds.
    let (shown, whole) = copies.end();
    say(&format!(
        "of {shown} copies of a database in use that showed elsewhere, {whole} were consistent without its log"
    ));
    assert!(shown > 1, "it showed at the end only");
    let check = "PRAGMA integrity_check; SELECT count(*), sum(i) FROM t;";
    let output = Command::new("sqlite3").arg(b.path("db")).arg(check).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok\n300|44850");
}

#[test]
fn what_lives_for_a_moment_leaves_nothing() {
    let (_temp, a, b) = pair();
    write(a.path("stays"), b"stays");
    let size = |n: &Node| -> u64 {
        let folders = fs::read_dir(n.home.join("folders")).unwrap().map(Result::unwrap);
        folders.map(|f| fs::metadata(f.path().join("index.redb")).unwrap().len()).sum()
    };
    settle("before", &[&a, &b]);
    let before = (size(&a), size(&b));
    for i in 0..10_000 {
        let at = a.path(format!("temporary {i}"));
        write(&at, b"");
        fs::remove_file(&at).unwrap();
    }
    let all = settle("after", &[&a, &b]);
    assert_eq!(all.len(), 1, "{all:?}");
    // The database may give back room that it has no more use for.
    let grown = (size(&a).saturating_sub(before.0), size(&b).saturating_sub(before.1));
    eprintln!("10,000 files made and removed at once: the indexes grew by {grown:?} bytes");
    assert!(grown.0.max(grown.1) < 8 << 20, "{grown:?}");
}

#[test]
fn names_like_the_control_directory_are_a_users_own() {
    let (_temp, a, b) = pair();
    let names = [
        ".Dunlin",
        ".DUNLIN",
        ".dunlin.",
        ".dunlin ",
        ".dunlin~",
        "dunlin",
        ".dunl\u{131}n",
        ".\u{ff44}unlin",
    ];
    for name in names {
        fs::create_dir_all(a.path(name).join("history")).unwrap();
        write(a.path(name).join("folder"), b"no marker");
        write(a.path(name).join("history/1~x"), b"no history");
    }
    fs::create_dir_all(b.path("deeper/.dunlin/stage")).unwrap();
    write(b.path("deeper/.dunlin/stage/part"), b"a user's");
    settle("look-alikes", &[&a, &b]);
    for name in names {
        fs::remove_dir_all(b.path(name)).unwrap();
    }
    write(a.path("deeper/.dunlin/stage/part"), b"a user's, changed");
    let all = settle("removed again", &[&a, &b]);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(a.path(".dunlin/folder").exists() && b.path(".dunlin/folder").exists());
}

#[test]
fn the_longest_names_have_conflict_copies_too() {
    let (_temp, mut a, b) = pair();
    let long = format!("{}.txt", "n".repeat(251));
    let wide = format!("{}.txt", "\u{1f600}".repeat(62));
    let twins = ["caf\u{e9}", "cafe\u{301}"];
    let names = [&long, &wide, twins[0], twins[1]];
    assert_eq!((long.len(), wide.len()), (255, 252));
    names.iter().for_each(|n| write(a.path(n), "before"));
    settle("before", &[&a, &b]);
    a.stop();
    for name in names {
        write(a.path(name), format!("{name} by a"));
        write(b.path(name), format!("{name} by b"));
    }
    b.asks(&["wait", "--timeout", "1"]);
    a.run();
    a.until_connected(1, PATIENCE);
    let all = settle("after", &[&a, &b]);
    assert_eq!((all.len(), conflicts(&all).len()), (8, 4), "{all:?}");
    let texts: std::collections::BTreeSet<String> =
        fs::read_dir(&a.dir).unwrap().filter_map(|e| fs::read_to_string(e.unwrap().path()).ok()).collect();
    assert_eq!(texts.len(), 8, "{texts:?}");
}
