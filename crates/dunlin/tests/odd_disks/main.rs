//! Folders on disks that take names for one, list them otherwise than they were given, or keep no modes, links
//! or fine times.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fs;

use dunlin_testkit::*;
use fs::{FAT, OddDisk, Oddity};
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

const CASE: Oddity = Oddity {
    folds_case: true,
    decomposes: false,
    no_modes: false,
    no_links: false,
    coarse: false,
    drops_dots: false,
    no_exchange: false,
};
const FORMS: Oddity = Oddity { folds_case: false, decomposes: true, ..CASE };
const COMPOSED: &str = "caf\u{e9}";
const DECOMPOSED: &str = "cafe\u{301}";

/// Two devices, the second with such a disk; `None` where that cannot be mounted.
fn pair_on(odd: Oddity) -> Option<(tempfile::TempDir, Node, Node, OddDisk)> {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [a, b] = ["a", "b"].map(|n| Node::new(&base, n));
    let disk = match OddDisk::mount(&b.dir, odd) {
        Ok(disk) => disk,
        Err(e) => {
            skipped("odd disks", &format!("FUSE cannot be mounted here (it takes root): {e}"));
            return None;
        }
    };
    Some((temp, a, b, disk))
}

fn names(dir: &Path) -> Vec<OsString> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<OsString> = all.filter(|n| n != ".dunlin").collect();
    names.sort();
    names
}

fn problem(node: &Node, path: &str) -> String {
    let folder = node.folder();
    let problems = folder["problems"].as_array().unwrap().clone();
    let of = |p: &&serde_json::Value| p["path"] == path;
    problems.iter().find(of).map_or(String::new(), |p| p["why"].as_str().unwrap().to_owned())
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn of_names_that_a_disk_takes_for_one_one_shows_and_all_stay() {
    let Some((_temp, mut a, mut b, _disk)) = pair_on(CASE) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    write(a.path("Readme"), "the first");
    b.join(&a.share());
    settle("one name", &[&a, &b]);
    write(a.path("README"), "the second");
    std::fs::create_dir(a.path("readme")).unwrap();
    write(a.path("readme/inside"), "the third");
    for other in ["README", "readme"] {
        until("it is named", PATIENCE, || problem(&b, other).contains("\"Readme\""));
    }
    assert_eq!((names(&b.dir), read(b.path("Readme")).as_str()), (vec!["Readme".into()], "the first"));
    // What shows goes on, both ways.
    write(a.path("Readme"), "edited on a");
    until("it comes", PATIENCE, || read(b.path("Readme")) == "edited on a");
    write(b.path("README"), "edited on b, by another name");
    until("it arrives", PATIENCE, || read(a.path("Readme")) == "edited on b, by another name");
    // Nothing of it is forgotten with a new index, or taken for a delete.
    b.stop();
    for entry in std::fs::read_dir(b.home.join("folders")).unwrap() {
        std::fs::remove_file(entry.unwrap().path().join("index.redb")).unwrap();
    }
    b.run();
    b.until_connected(1, PATIENCE);
    for other in ["README", "readme"] {
        until("it is named again", PATIENCE, || problem(&b, other).contains("\"Readme\""));
    }
    let all: Vec<OsString> = ["README", "Readme", "readme"].map(OsString::from).to_vec();
    assert_eq!((names(&a.dir), read(a.path("README")).as_str()), (all, "the second"));
    assert_eq!(read(a.path("readme/inside")), "the third");
    // What is in place goes, and one of the others comes; then the last.
    std::fs::remove_file(a.path("Readme")).unwrap();
    std::fs::remove_dir_all(a.path("readme")).unwrap();
    until("the other shows", PATIENCE, || read(b.path("README")) == "the second");
    settle("one name again", &[&a, &b]);
    assert_eq!(names(&b.dir), vec![OsString::from("README")]);
}

#[test]
fn a_name_of_which_only_the_case_changes_stays_one_file() {
    let Some((_temp, mut a, mut b, _disk)) = pair_on(CASE) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    write(a.path("Foo"), "content");
    std::fs::create_dir(a.path("Dir")).unwrap();
    write(a.path("Dir/x"), "in it");
    b.join(&a.share());
    settle("joined", &[&a, &b]);
    std::fs::rename(a.path("Foo"), a.path("foo")).unwrap();
    std::fs::rename(a.path("Dir"), a.path("dIR")).unwrap();
    settle("renamed on a", &[&a, &b]);
    assert_eq!(names(&b.dir), ["dIR", "foo"].map(OsString::from));
    assert_eq!((read(b.path("foo")), read(b.path("dIR/x"))), ("content".into(), "in it".into()));
    // Linux renames no name to one that leads to the same file: a user has to do it in two steps.
    for (from, to) in [("foo", "FOO"), ("dIR", "DIR")] {
        std::fs::rename(b.path(from), b.path("between")).unwrap();
        std::fs::rename(b.path("between"), b.path(to)).unwrap();
    }
    settle("renamed on b", &[&a, &b]);
    assert_eq!(names(&a.dir), ["DIR", "FOO"].map(OsString::from));
    assert_eq!((read(a.path("FOO")), read(a.path("DIR/x"))), ("content".into(), "in it".into()));
    // What is written by another spelling is told of under that, and is of the same file.
    write(b.path("fOo"), "by another spelling");
    until("it is seen", PATIENCE, || read(a.path("FOO")) == "by another spelling");
    settle("written by another spelling", &[&a, &b]);
    assert_eq!(names(&a.dir), ["DIR", "FOO"].map(OsString::from));
}

#[test]
fn names_that_a_disk_lists_in_another_form_keep_their_bytes() {
    let Some((_temp, mut a, mut b, _disk)) = pair_on(FORMS) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    write(a.path(COMPOSED), "from a");
    b.join(&a.share());
    for node in [&a, &b] {
        node.until_connected(1, PATIENCE);
        node.wait();
    }
    assert_eq!(names(&b.dir), vec![OsString::from(DECOMPOSED)]);
    // Looked through anew, edited there, and moved there: it is the file that was sent.
    b.stop();
    b.run();
    b.until_connected(1, PATIENCE);
    b.wait();
    write(b.path(DECOMPOSED), "from b");
    until("the edit arrives", PATIENCE, || read(a.path(COMPOSED)) == "from b");
    assert_eq!(names(&a.dir), vec![OsString::from(COMPOSED)]);
    // Both forms at once: the one that is in place stays, the other is named.
    write(a.path(DECOMPOSED), "another");
    until("it is named", PATIENCE, || problem(&b, DECOMPOSED).contains("for one"));
    assert_eq!((names(&b.dir), read(b.path(COMPOSED)).as_str()), (vec![DECOMPOSED.into()], "from b"));
    std::fs::remove_file(b.path(DECOMPOSED)).unwrap();
    until("it is gone", PATIENCE, || names(&a.dir) == [OsString::from(DECOMPOSED)]);
    until("the other shows", PATIENCE, || read(b.path(DECOMPOSED)) == "another");
    assert_eq!(read(a.path(DECOMPOSED)), "another");
}

#[test]
fn what_a_disk_drops_is_not_spread() {
    let Some((_temp, mut a, mut b, disk)) = pair_on(FAT) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    for (file, mode) in [("run.sh", 0o755), ("secret", 0o600), ("plain", 0o644)] {
        write(a.path(file), file);
        set_mode(&a.path(file), mode);
        set_mtime(&a.path(file), 1_600_000_001, 123_456_789);
    }
    let a_dir = a.dir.clone();
    let of = |path: &str| {
        let m = std::fs::metadata(a_dir.join(path)).unwrap();
        (m.mode() & 0o777, m.mtime(), m.mtime_nsec())
    };
    b.join(&a.share());
    let both = |a: &Node, b: &Node| {
        for node in [a, b] {
            node.until_connected(1, PATIENCE);
            node.wait();
        }
    };
    both(&a, &b);
    assert_eq!(std::fs::metadata(b.path("run.sh")).unwrap().mode() & 0o777, 0o644, "the disk is odd");
    // A start looks at all there is; a rename and an edit there carry along what the disk does not keep.
    b.stop();
    b.run();
    both(&a, &b);
    std::fs::rename(b.path("run.sh"), b.path("moved.sh")).unwrap();
    write(b.path("secret"), "edited");
    until("both arrive", PATIENCE, || {
        read(a.path("moved.sh")) == "run.sh" && read(a.path("secret")) == "edited"
    });
    both(&a, &b);
    assert_eq!(of("moved.sh"), (0o755, 1_600_000_001, 123_456_789));
    assert_eq!(of("plain"), (0o644, 1_600_000_001, 123_456_789));
    assert_eq!(of("secret").0, 0o600);
    // A mode that is set elsewhere is known, though it does not show.
    set_mode(&a.path("plain"), 0o700);
    both(&a, &b);
    // At rest nothing is changed there.
    let before = disk.changes();
    both(&a, &b);
    b.stop();
    b.run();
    both(&a, &b);
    assert_eq!(disk.changes() - before, 0, "at rest, and looked through anew");
    assert_eq!((of("plain").0, conflicts(&tree(&a.dir))), (0o700, Vec::<String>::new()));
    // What is not kept of a name is no rename.
    write(a.path("end."), "with a dot");
    std::fs::create_dir(a.path("dir.")).unwrap();
    for path in ["end.", "dir."] {
        until("it is named", PATIENCE, || problem(&b, path).contains("another name"));
        assert!(a.path(path).exists() && !b.path(path).exists());
        std::fs::rename(a.path(path), a.path(path.replace('.', ""))).unwrap();
    }
    until("without a dot it comes", PATIENCE, || {
        read(b.path("end")) == "with a dot" && b.path("dir").is_dir()
    });
    both(&a, &b);
    // A link is named, and all else goes on.
    symlink("plain", a.path("link")).unwrap();
    write(a.path("more"), "more");
    until("it is named", PATIENCE, || problem(&b, "link").contains("symbolic link"));
    until("the rest comes", PATIENCE, || read(b.path("more")) == "more");
    assert_eq!(std::fs::read_link(a.path("link")).unwrap(), Path::new("plain"));
}

#[test]
fn a_disk_that_cannot_exchange_names_is_named_and_all_else_goes_on() {
    let Some((_temp, mut a, mut b, _disk)) = pair_on(Oddity { no_exchange: true, ..CASE }) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    b.join(&a.share());
    let says = |b: &Node| {
        b.folder()["problems"].as_array().unwrap().iter().any(|p| p["why"].to_string().contains("renameat2"))
    };
    until("it is named", PATIENCE, || says(&b));
    write(b.path("file"), "from b");
    until("it travels", PATIENCE, || read(a.path("file")) == "from b");
    write(a.path("new"), "from a");
    until("what replaces nothing comes", PATIENCE, || read(b.path("new")) == "from a");
}

#[test]
fn a_disk_that_hangs_holds_up_nothing_but_its_folder() {
    let Some((temp, mut a, mut b, disk)) = pair_on(Oddity::default()) else { return };
    std::fs::create_dir(&a.dir).unwrap();
    b.join(&a.share());
    write(a.path("first"), "from a");
    until("it arrives", PATIENCE, || read(b.path("first")) == "from a");
    // Both have another folder, on a disk that is well.
    let [here, there] = ["here", "there"].map(|dir| temp.path().canonicalize().unwrap().join(dir));
    std::fs::create_dir(&here).unwrap();
    let told = |node: &Node, args: &[&str]| {
        let (code, out, err) = node.asks(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    };
    told(&a, &["share", here.to_str().unwrap()]);
    let ticket = told(&a, &["invite", here.to_str().unwrap()]);
    told(&b, &["join", ticket.trim(), there.to_str().unwrap()]);
    let hung = disk.hangs();
    write(a.path("waits"), "from a");
    write(here.join("goes on"), "from a");
    until("the other folder goes on", PATIENCE, || read(there.join("goes on")) == "from a");
    write(there.join("answer"), "from b");
    until("both ways", PATIENCE, || read(here.join("answer")) == "from b");
    // For longer than who is silent is taken to be there.
    let (code, ..) = a.asks(&["wait", a.dir.to_str().unwrap(), "--timeout", "12"]);
    assert_ne!(code, 0, "it cannot be in sync");
    assert_eq!((a.connections(), b.connections()), (1, 1));
    let status = b.status();
    let folders = status["folders"].as_array().unwrap();
    let hangs = folders.iter().find(|f| f["path"] == b.dir.to_str().unwrap()).unwrap();
    assert_eq!(hangs["in_sync"], false, "{status:#}");
    drop(hung);
    until("it comes", PATIENCE, || read(b.path("waits")) == "from a");
    told(&a, &["wait", a.dir.to_str().unwrap()]);
}
