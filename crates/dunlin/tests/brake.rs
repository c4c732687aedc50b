//! Mass deletes of real devices: they halt before they spread, and a person decides for all.

#![allow(clippy::unwrap_used, reason = "a test")]

use dunlin_testkit::*;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

/// Files of each tree, half of them in a directory.
const FILES: usize = 240;

struct Flock {
    _temp: tempfile::TempDir,
    a: Node,
    b: Node,
    c: Node,
    whole: Tree,
}

impl Flock {
    fn new() -> Flock {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|n| Node::new(&base, n));
        for dir in ["d/deep", "empty"] {
            fs::create_dir_all(a.path(dir)).unwrap();
        }
        for i in 0..FILES {
            write(a.path(file(i)), format!("content {i}"));
        }
        let ticket = a.share();
        // Who joins is to hear of them as what is there already: what comes later is young for a minute.
        a.wait();
        b.join(&ticket);
        c.join(&b.invite());
        let whole = settle("the beginning", &[&a, &b, &c]);
        Flock { _temp: temp, a, b, c, whole }
    }

    fn all(&self) -> [&Node; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// Everything is where it was before, everywhere.
    fn is_whole(&self, what: &str) {
        let all = settle(what, &self.all());
        assert_eq!(differences(&all, &self.whole), Vec::<String>::new(), "{what}");
        self.all().iter().for_each(|node| assert_eq!(node.folder()["state"], "idle", "{what}"));
    }
}

fn file(i: usize) -> String {
    match i % 4 {
        0 => format!("d/{i}"),
        1 => format!("d/deep/{i}"),
        _ => i.to_string(),
    }
}

/// What people do: everything, but not what is hidden.
fn remove_all(node: &Node) {
    for entry in fs::read_dir(&node.dir).unwrap().map(Result::unwrap).filter(|e| e.file_name() != ".dunlin") {
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn until(what: &str, nodes: &[&Node], mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let all =
            || nodes.iter().map(|n| format!("{}: {:#}", n.name, n.folder())).collect::<Vec<_>>().join("\n");
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}: {}", all());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn until_halted(node: &Node) -> String {
    until("halted", &[node], || node.folder()["state"] == "halted");
    let folder = node.folder();
    assert_eq!(folder["in_sync"], false);
    assert_eq!(folder["problems"][0]["path"], "");
    folder["problems"][0]["why"].as_str().unwrap().to_owned()
}

fn files(node: &Node) -> usize {
    tree(&node.dir).values().filter(|t| matches!(t, Thing::File { .. })).count()
}

fn is_idle(node: &Node) -> bool {
    node.folder()["state"] == "idle"
}

fn resume(node: &Node, how: &str) -> Value {
    let (code, out, err) = node.asks(&["resume", how, "--json"]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// Stops the brake of a device from tripping.
fn without_brake(node: &mut Node) {
    node.set("brake", &serde_json::json!({"percent": 100}));
}

#[test]
fn a_sender_that_deletes_everything_is_held_and_accepting_releases_all() {
    let mut f = Flock::new();
    remove_all(&f.a);
    // A wait hurries deletes, and is told at once.
    let command = format!("dunlin resume {} --accept", f.a.dir.display());
    let (code, _, err) = f.a.asks(&["wait", "--timeout", "30"]);
    assert_eq!(code, 1);
    assert!(err.contains("halted: 240 of 240 files were deleted here") && err.contains(&command), "{err}");
    assert_eq!(
        until_halted(&f.a),
        format!(
            "240 of 240 files were deleted here within a minute; no other device was told: \
             dunlin resume {} --accept lets it happen, --reject brings the files back",
            f.a.dir.display()
        )
    );
    assert!(
        f.a.events("problem").iter().any(|e| e["path"] == "" && e["why"].as_str().unwrap().contains("240"))
    );
    let (code, out, _) = f.a.asks(&["status"]);
    assert!(
        code == 0 && out.contains("halted, waiting for you") && out.contains("problem: 240 of 240"),
        "{out}"
    );
    until("the others say so", &f.all(), || {
        let (code, out, _) = f.b.asks(&["status"]);
        code == 0 && out.contains("halted, waits for a person: dunlin resume there")
    });
    let (code, _, err) = f.b.asks(&["resume", "--reject"]);
    assert!(code == 1 && err.contains("hint: some are on a: decide there"), "{err}");

    // Additions and edits still arrive, and leave.
    write(f.b.path("new"), b"by b");
    write(f.b.path("empty/new"), b"by b");
    write(f.a.path("another"), b"by a");
    until("new files arrive", &f.all(), || {
        // Its directory is missing at the first, so that the other one comes there in the end.
        f.a.path("new").exists() && f.c.path("empty/new").exists() && f.c.path("another").exists()
    });
    // A restart changes nothing.
    f.a.stop();
    f.a.run();
    f.a.until_connected(2, PATIENCE);
    assert!(until_halted(&f.a).starts_with("240 of 240"));
    f.a.kill();
    f.a.run();
    f.a.until_connected(2, PATIENCE);
    until_halted(&f.a);
    for peer in [&f.b, &f.c] {
        assert_eq!(files(peer), FILES + 3, "nothing left");
        assert_eq!(peer.folder()["files"], FILES + 3);
    }

    assert_eq!(resume(&f.a, "--accept")["files"], FILES);
    // Each of the others had to hear of it: neither asks.
    let all = settle("accepted", &f.all());
    assert_eq!(all.values().filter(|t| matches!(t, Thing::File { .. })).count(), 3, "{all:?}");
    for peer in [&f.b, &f.c] {
        assert!(peer.events("problem").is_empty(), "{:?}", peer.events("problem"));
        // What was written meanwhile was empty for a moment, and may have been replaced as that.
        let empty = std::collections::BTreeSet::from([*blake3::hash(b"").as_bytes()]);
        assert_eq!(&history(&peer.dir) - &empty, contents(&f.whole));
    }
    let (code, _, err) = f.a.asks(&["resume", "--accept"]);
    assert_eq!(code, 1);
    assert!(err.contains("no deletes are held in") && err.contains("hint: "), "{err}");
}

#[test]
fn ten_thousand_files_deleted_at_once_are_held_and_go_when_that_is_accepted() {
    const MANY: usize = 10_000;
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&base, n));
    for i in 0..MANY {
        if i % 1000 == 0 {
            fs::create_dir_all(a.path(format!("d{}", i / 1000))).unwrap();
        }
        write(a.path(format!("d{}/{i}", i / 1000)), format!("content {i}"));
    }
    let ticket = a.share();
    a.wait();
    b.join(&ticket);
    settle_within("the beginning", &[&a, &b], Duration::from_secs(60));
    let begun = Instant::now();
    // At once: removed one by one on a busy machine they take longer than deletes wait, and the first of them are few.
    for i in 0..MANY.div_ceil(1000) {
        fs::rename(a.path(format!("d{i}")), a.dir.with_extension(format!("away{i}"))).unwrap();
    }
    until("all deletes are known", &[&a], || {
        until_halted(&a).starts_with("10,000 of 10,000 files were deleted here")
    });
    let halted = begun.elapsed();
    assert_eq!((files(&b), b.folder()["files"].as_u64()), (MANY, Some(MANY as u64)), "nothing left");
    let begun = Instant::now();
    assert_eq!(resume(&a, "--accept")["files"], MANY);
    let all = settle_within("accepted", &[&a, &b], Duration::from_secs(60));
    assert!(all.is_empty(), "{} are left", all.len());
    assert_eq!(history(&b.dir).len(), MANY);
    say(&format!(
        "10,000 deletes were held after {halted:?}, and done elsewhere {:?} after they were accepted",
        begun.elapsed()
    ));
}

#[test]
fn rejecting_at_the_sender_brings_everything_back() {
    let f = Flock::new();
    // In rounds: those that are few enough leave, until it is too much.
    let paths: Vec<String> = (0..FILES).map(file).collect();
    for round in paths.chunks(40) {
        round.iter().for_each(|p| fs::remove_file(f.a.path(p)).unwrap());
        std::thread::sleep(Duration::from_millis(450));
    }
    let why = until_halted(&f.a);
    until("all deletes are known", &[&f.a], || until_halted(&f.a).starts_with("240 of 240"));
    assert!(why.contains("other devices were told of"), "{why}");
    let left = f.all()[1..].iter().map(|peer| files(peer)).min().unwrap();
    assert!(left * 2 >= FILES, "{left} of {FILES} are left");
    assert_eq!(resume(&f.a, "--reject")["accepted"], false);
    f.is_whole("rejected at the sender");

    // All at once, nothing leaves at all; even if the node does not run.
    remove_all(&f.a);
    assert!(until_halted(&f.a).contains("no other device was told"));
    resume(&f.a, "--reject");
    f.is_whole("rejected again");
}

#[test]
fn of_several_who_deleted_each_is_named_with_how_many() {
    let f = Flock::new();
    fs::remove_dir_all(f.b.path("d/deep")).unwrap();
    settle("few enough", &f.all());
    (0..100).filter(|i| i % 4 != 1).for_each(|i| fs::remove_file(f.a.path(file(i))).unwrap());
    until("all are known", &[&f.a], || until_halted(&f.a).contains("75 here"));
    let why = until_halted(&f.a);
    let says = "135 of 240 files were deleted within a minute, 75 here and 60 by \"b\"; no other device was told of those here";
    assert!(why.starts_with(says), "{why}");
    let held = &f.a.folder()["held"];
    assert_eq!((&held["deleted"], &held["of"]), (&135.into(), &240.into()), "{held}");
    let whose = serde_json::json!([{"device": "a", "here": true, "files": 75}, {"device": "b", "here": false, "files": 60}]);
    assert_eq!(held["whose"], whose);
    assert_eq!((&f.a.folder()["root_lost"], &f.b.folder()["held"]), (&false.into(), &Value::Null));
    resume(&f.a, "--reject");
    f.is_whole("rejected");
}

#[test]
fn what_is_deleted_while_the_node_is_stopped_is_held_too() {
    let mut f = Flock::new();
    f.a.stop();
    fs::remove_dir_all(f.a.path("d")).unwrap();
    (2..FILES).filter(|i| i % 4 == 2).for_each(|i| fs::remove_file(f.a.path(file(i))).unwrap());
    f.a.run();
    f.a.until_connected(2, PATIENCE);
    assert!(until_halted(&f.a).starts_with("180 of 240 files were deleted here"));
    for peer in [&f.b, &f.c] {
        assert_eq!(files(peer), FILES);
    }
    // Somebody puts back what is gone: it lets go by itself.
    f.a.stop();
    for (path, thing) in &f.whole {
        let path = name(path);
        match thing {
            Thing::Dir { .. } => fs::create_dir_all(f.a.path(path)).unwrap(),
            _ => drop(fs::copy(f.b.path(path), f.a.path(path)).unwrap()),
        }
    }
    f.a.run();
    f.a.until_connected(2, PATIENCE);
    until("let go", &[&f.a], || is_idle(&f.a));
    let all = settle("put back", &f.all());
    assert_eq!(contents(&all), contents(&f.whole));
    assert_eq!(all.len(), f.whole.len());
}

#[test]
fn files_that_come_back_while_it_runs_let_the_brake_go() {
    let f = Flock::new();
    let aside = f.a.dir.with_file_name("aside");
    fs::create_dir(&aside).unwrap();
    let top = || f.whole.keys().filter(|p| !p.contains(&b'/')).map(|p| name(p));
    top().for_each(|p| fs::rename(f.a.path(p), aside.join(p)).unwrap());
    until_halted(&f.a);
    top().for_each(|p| fs::rename(aside.join(p), f.a.path(p)).unwrap());
    until("let go", &[&f.a], || is_idle(&f.a));
    f.is_whole("moved back");
    assert!(f.a.events("note").iter().any(|e| e["text"].as_str().unwrap().contains("no deletes are held")));
}

#[test]
fn receivers_hold_what_a_sender_without_a_brake_tells_and_rejecting_restores_all() {
    let mut f = Flock::new();
    without_brake(&mut f.a);
    f.a.until_connected(2, PATIENCE);
    remove_all(&f.a);
    for peer in [&f.b, &f.c] {
        let expected = format!(
            "240 of 240 files were deleted by \"a\" within a minute; nothing of it was applied here: \
             dunlin resume {} --accept lets it happen, --reject brings the files back everywhere",
            peer.dir.display()
        );
        until("all deletes are heard", &[peer], || until_halted(peer) == expected);
        assert_eq!(peer.folder()["to_delete"], 240);
        assert_eq!(differences(&tree(&peer.dir), &f.whole), Vec::<String>::new());
    }
    assert_ne!(f.a.folder()["state"], "halted");
    // Additions, moves and edits still arrive; it is remembered over a restart.
    write(f.a.path("new"), b"by a");
    fs::rename(f.c.path("3"), f.c.path("moved")).unwrap();
    until("a new file", &f.all(), || f.b.path("new").exists() && f.b.path("moved").exists());
    fs::rename(f.c.path("moved"), f.c.path("3")).unwrap();
    f.b.stop();
    f.b.run();
    f.b.until_connected(2, PATIENCE);
    until_halted(&f.b);
    let (code, _, err) = f.b.asks(&["wait"]);
    assert!(code == 1 && err.contains("files were deleted by \"a\""), "{err}");

    resume(&f.b, "--reject");
    until("the other lets go by itself", &f.all(), || is_idle(&f.c));
    settle("rejected", &f.all());
    fs::remove_file(f.a.path("new")).unwrap();
    f.is_whole("rejected at a receiver");
}

#[test]
fn accepting_at_one_receiver_releases_another_that_is_away() {
    let mut f = Flock::new();
    without_brake(&mut f.a);
    f.a.until_connected(2, PATIENCE);
    f.c.stop();
    remove_all(&f.a);
    until_halted(&f.b);
    until("all deletes are heard", &[&f.b], || until_halted(&f.b).starts_with("240 of 240"));
    let (code, _, err) = f.b.asks(&["resume"]);
    assert_eq!(code, 2, "{err}");
    assert_eq!(files(&f.b), FILES);
    assert_eq!(resume(&f.b, "--accept")["files"], FILES);
    settle("two", &[&f.a, &f.b]);
    // The third hears of the deletes and of the release from one that did not sign it.
    f.b.stop();
    f.c.run();
    settle("away", &[&f.a, &f.c]);
    assert_eq!(files(&f.c), 0);
    assert!(f.c.events("problem").is_empty(), "{:?}", f.c.events("problem"));
}

#[test]
fn ordinary_work_does_not_trip_it() {
    let f = Flock::new();
    // Half of it, and things that move or are replaced.
    fs::remove_dir_all(f.a.path("d/deep")).unwrap();
    settle("a quarter", &f.all());
    fs::rename(f.b.path("d"), f.b.path("moved")).unwrap();
    (0..FILES).filter(|i| i % 4 > 1).for_each(|i| {
        fs::rename(f.c.path(file(i)), f.c.path(format!("empty/{i}"))).unwrap();
    });
    settle("moves", &f.all());
    fs::remove_dir_all(f.a.path("moved")).unwrap();
    let all = settle("half", &f.all());
    assert_eq!(all.values().filter(|t| matches!(t, Thing::File { .. })).count(), FILES / 2);
    for node in f.all() {
        assert!(node.events("state").iter().all(|e| e["state"] != "halted"), "{}", node.name);
    }
}

#[test]
fn files_that_live_for_less_than_a_minute_do_not_count() {
    let f = Flock::new();
    // Many more than there are old ones, here for a moment: as builds and `git gc` do it.
    fs::create_dir(f.a.path("objects")).unwrap();
    let loose = |i: usize| f.a.path(format!("objects/{i}"));
    for round in 0..3 {
        (0..2 * FILES).for_each(|i| write(loose(i), format!("loose {round} {i}")));
        assert_eq!(f.a.asks(&["wait", "--copies", "1", "--timeout", "60"]).0, 0);
        write(f.a.path(format!("pack {round}")), b"all of them");
        (0..2 * FILES).for_each(|i| fs::remove_file(loose(i)).unwrap());
        until("its deletes are told", &[&f.a], || f.a.folder()["files"] == FILES + 1 + round);
    }
    // Nor where others hear of them.
    settle("the packs alone", &f.all());
    assert_eq!(f.all().map(halts), [0, 0, 0]);
    // They do not hide that the old ones go, whichever go first.
    (0..2 * FILES).for_each(|i| write(loose(i), format!("loose again {i}")));
    until("they are known", &[&f.a], || f.a.folder()["files"] == 3 * FILES + 3);
    (0..FILES).for_each(|i| fs::remove_file(f.a.path(file(i))).unwrap());
    assert!(until_halted(&f.a).starts_with("240 of 240"));
}

#[test]
fn git_may_pack_a_repository() {
    let git = |at: &std::path::Path, args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(at).args(["-c", "user.name=n", "-c", "user.email=e", "-c", "gc.auto=0"]).args(args);
        let out = git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").output();
        out.is_ok_and(|out| out.status.success())
    };
    let temp = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|n| Node::new(&temp.path().canonicalize().unwrap(), n));
    if !git(&a.dir, &["init", "-q"]) {
        eprintln!("SKIPPED: there is no git");
        return;
    }
    for i in 0..60 {
        write(a.path((i % 9).to_string()), format!("content {i}"));
        assert!(git(&a.dir, &["add", "-A"]) && git(&a.dir, &["commit", "-qm", "a change"]));
        assert!(git(&a.dir, &["tag", &format!("tag-{i}")]));
    }
    let ticket = a.share();
    a.wait();
    b.join(&ticket);
    settle("the beginning", &[&a, &b]);
    let before = files(&a);
    assert!(git(&a.dir, &["gc", "-q"]));
    settle("packed", &[&a, &b]);
    assert!(before > 250 && files(&b) < before / 2, "{before} and {} files", files(&b));
    assert_eq!([&a, &b].map(halts), [0, 0]);
    assert!(git(&b.dir, &["fsck", "--strict"]) && git(&b.dir, &["rev-parse", "tag-59"]));
}

/// How often a device halted.
fn halts(node: &Node) -> usize {
    node.events("problem").iter().filter(|e| e["path"] == "").count()
}

#[test]
fn what_is_in_the_place_of_a_directory_comes_with_the_one_decision() {
    let f = Flock::new();
    // A quarter of the files.
    fs::remove_dir_all(f.a.path("d/deep")).unwrap();
    symlink("elsewhere", f.a.path("d/deep")).unwrap();
    let all = settle("a link in the place of a quarter", &f.all());
    assert!(matches!(all[&b"d/deep"[..]], Thing::Link { .. }), "{all:?}");
    assert!(f.all().iter().all(|node| halts(node) == 0));

    remove_all(&f.a);
    until_halted(&f.a);
    symlink("elsewhere", f.a.path("d")).unwrap();
    write(f.a.path("empty"), b"no directory any more");
    write(f.a.path("after"), b"by a");
    until("what is new leaves", &f.all(), || f.b.path("after").exists() && f.c.path("after").exists());
    assert!(f.b.path("d").is_dir() && f.a.folder()["state"] == "halted");
    resume(&f.a, "--accept");
    let all = settle("accepted", &f.all());
    let names: Vec<&[u8]> = all.keys().map(|k| &k[..]).collect();
    assert_eq!(names, [&b"after"[..], b"d", b"empty"], "{all:?}");
    assert_eq!(f.all().map(halts), [1, 0, 0]);
}

#[test]
fn an_absolute_number_trips_it_too_and_a_wrong_root_is_no_mass_delete() {
    let mut f = Flock::new();
    f.a.set("brake", &serde_json::json!({"most": 20}));
    f.a.until_connected(2, PATIENCE);
    (0..20).for_each(|i| fs::remove_file(f.a.path(file(i))).unwrap());
    settle("as many as may be", &f.all());
    f.a.stop();
    f.a.run();
    f.a.until_connected(2, PATIENCE);
    (20..41).for_each(|i| fs::remove_file(f.a.path(file(i))).unwrap());
    assert!(until_halted(&f.a).starts_with("21 of 220"));
    resume(&f.a, "--accept");
    settle("accepted", &f.all());

    let aside = f.a.dir.with_file_name("aside");
    fs::rename(&f.a.dir, &aside).unwrap();
    fs::create_dir(&f.a.dir).unwrap();
    until_halted(&f.a);
    for how in ["--accept", "--reject"] {
        let (code, _, err) = f.a.asks(&["resume", how]);
        assert_eq!(code, 1);
        assert!(err.contains("but not for deletes") && err.contains("goes on by itself"), "{err}");
    }
    fs::remove_dir(&f.a.dir).unwrap();
    fs::rename(&aside, &f.a.dir).unwrap();
    until("it is back", &[&f.a], || is_idle(&f.a));
    assert_eq!(
        settle("back", &f.all()).values().filter(|t| matches!(t, Thing::File { .. })).count(),
        FILES - 41
    );
}
