//! What a power cut leaves of a model disk.

#![allow(clippy::unwrap_used)]

use dunlin_core::path::RelPath;
use dunlin_node::disk::{Disk, FileTime, Rename};
use dunlin_sim::chance::Chance;
use dunlin_sim::disk::{ModelDisk, Options, Thing};
use std::collections::{BTreeMap, BTreeSet};

fn p(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn put(disk: &ModelDisk, path: &str, bytes: &[u8]) {
    disk.create(&p(path)).unwrap().write_at(bytes, 0).unwrap();
}

fn bytes(thing: Option<Thing>) -> Option<Vec<u8>> {
    match thing {
        None => None,
        Some(Thing::File { bytes, .. }) => Some(bytes.to_vec()),
        Some(other) => panic!("{other:?}"),
    }
}

const SEEDS: u64 = 400;

/// What `look` sees after crashes with many seeds.
fn outcomes<T: Ord>(prepare: impl Fn(&ModelDisk), look: impl Fn(&ModelDisk) -> T) -> BTreeSet<T> {
    let run = |seed| {
        let disk = ModelDisk::new(Options::default());
        prepare(&disk);
        disk.crash(&mut Chance::new(seed, "crash"));
        look(&disk.restart())
    };
    (0..SEEDS).map(run).collect()
}

fn content(disk: &ModelDisk, path: &str) -> Option<String> {
    bytes(disk.visible_at(&p(path))).map(|b| String::from_utf8(b).unwrap().replace('\0', "0"))
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

#[test]
fn what_was_synced_survives_every_crash() {
    let prepare = |disk: &ModelDisk| {
        disk.mkdir(&p("d"), 0o755).unwrap();
        disk.mkdir(&p("d/e"), 0o755).unwrap();
        put(disk, "d/e/f", b"kept");
        disk.set_mode(&p("d/e/f"), 0o640).unwrap();
        disk.set_mtime(&p("d/e/f"), FileTime { secs: 5, nanos: 6 }).unwrap();
        disk.sync_file(&p("d/e/f")).unwrap();
        for dir in ["d/e", "d", ""] {
            disk.sync_dir(&p(dir)).unwrap();
        }
    };
    let look = |disk: &ModelDisk| {
        let stat = disk.stat(&p("d/e/f")).unwrap().unwrap();
        (content(disk, "d/e/f"), stat.mode, stat.mtime)
    };
    let kept = (some("kept"), 0o640, FileTime { secs: 5, nanos: 6 });
    assert_eq!(outcomes(prepare, look), BTreeSet::from([kept.clone()]));
    let all = |disk: &ModelDisk| {
        disk.mkdir(&p("d"), 0o755).unwrap();
        disk.mkdir(&p("d/e"), 0o755).unwrap();
        put(disk, "d/e/f", b"kept");
        disk.set_mode(&p("d/e/f"), 0o640).unwrap();
        disk.set_mtime(&p("d/e/f"), FileTime { secs: 5, nanos: 6 }).unwrap();
        disk.sync_all().unwrap();
    };
    assert_eq!(outcomes(all, look), BTreeSet::from([kept]));
}

#[test]
fn what_was_not_synced_may_be_lost_in_every_way() {
    let unsynced = outcomes(|disk| put(disk, "f", b"new"), |disk| content(disk, "f"));
    assert_eq!(unsynced, BTreeSet::from([None, some(""), some("000"), some("new")]));
    // The name is durable, the content is not.
    let named = |disk: &ModelDisk| {
        put(disk, "f", b"new");
        disk.sync_dir(&p("")).unwrap();
    };
    assert_eq!(outcomes(named, |d| content(d, "f")), BTreeSet::from([some(""), some("000"), some("new")]));
    // And the other way round.
    let synced = |disk: &ModelDisk| {
        put(disk, "f", b"new");
        disk.sync_file(&p("f")).unwrap();
    };
    assert_eq!(outcomes(synced, |d| content(d, "f")), BTreeSet::from([None, some("new")]));
    let below = |disk: &ModelDisk| {
        disk.mkdir(&p("d"), 0o755).unwrap();
        put(disk, "d/f", b"new");
        disk.sync_file(&p("d/f")).unwrap();
        disk.sync_dir(&p("d")).unwrap();
    };
    assert_eq!(outcomes(below, |d| content(d, "d/f")), BTreeSet::from([None, some("new")]));
}

/// Two durable files, `d/a` and `b`.
fn two(disk: &ModelDisk) {
    disk.mkdir(&p("d"), 0o755).unwrap();
    put(disk, "d/a", b"A");
    put(disk, "b", b"B");
    disk.sync_all().unwrap();
}

fn both(disk: &ModelDisk) -> (Option<String>, Option<String>) {
    (content(disk, "d/a"), content(disk, "b"))
}

#[test]
fn a_rename_leaves_one_of_both_at_its_target_and_loses_nothing() {
    let replaced = |disk: &ModelDisk| {
        two(disk);
        disk.user().rename(&p("d/a"), &p("b")).unwrap();
    };
    let (a, b) = (some("A"), some("B"));
    let expected = [(a.clone(), b.clone()), (None, a.clone()), (a.clone(), a.clone())];
    assert_eq!(outcomes(replaced, both), BTreeSet::from(expected));
    let exchanged = |disk: &ModelDisk| {
        two(disk);
        disk.rename(&p("d/a"), &p("b"), Rename::Exchange).unwrap();
    };
    let expected = [(a.clone(), b.clone()), (b.clone(), a.clone())];
    assert_eq!(outcomes(exchanged, both), BTreeSet::from(expected));
    // The directory it left being durable, it has arrived, also in a directory that is new.
    let left = |disk: &ModelDisk| {
        two(disk);
        disk.mkdir(&p("n"), 0o755).unwrap();
        disk.mkdir(&p("n/m"), 0o755).unwrap();
        disk.rename(&p("d/a"), &p("n/m/a"), Rename::NoReplace).unwrap();
        disk.sync_dir(&p("d")).unwrap();
    };
    assert_eq!(outcomes(left, |disk| content(disk, "n/m/a")), BTreeSet::from([a.clone()]));
    // Moved on, and its directory removed.
    let passed = |disk: &ModelDisk| {
        two(disk);
        disk.mkdir(&p("n"), 0o755).unwrap();
        disk.rename(&p("d/a"), &p("n/a"), Rename::NoReplace).unwrap();
        disk.rename(&p("n/a"), &p("c"), Rename::NoReplace).unwrap();
        disk.rmdir(&p("n")).unwrap();
    };
    let there = |disk: &ModelDisk| ["d/a", "n/a", "c"].iter().any(|path| content(disk, path).is_some());
    assert_eq!(outcomes(passed, there), BTreeSet::from([true]));
}

/// Where a file or directory is after crashes: each way in which it is found, by number among `paths`.
fn places(prepare: impl Fn(&ModelDisk), paths: &[&str]) -> BTreeSet<Vec<usize>> {
    outcomes(prepare, |disk| {
        let there = |(i, path): (usize, &&str)| disk.visible_at(&p(path)).map(|_| i);
        paths.iter().enumerate().filter_map(there).collect()
    })
}

#[test]
fn a_file_is_found_in_two_places_only_between_directories_and_a_directory_never() {
    let moved = |from: &'static str, to: &'static str| {
        move |disk: &ModelDisk| {
            two(disk);
            disk.mkdir(&p("e"), 0o755).unwrap();
            disk.mkdir(&p("e/sub"), 0o755).unwrap();
            disk.sync_all().unwrap();
            disk.rename(&p(from), &p(to), Rename::NoReplace).unwrap();
        }
    };
    let (old, new, both) = (vec![0], vec![1], vec![0, 1]);
    let between = BTreeSet::from([old.clone(), new.clone(), both]);
    let one = BTreeSet::from([old, new]);
    assert_eq!(places(moved("b", "c"), &["b", "c"]), one);
    assert_eq!(places(moved("b", "d/b"), &["b", "d/b"]), between);
    assert_eq!(places(moved("e/sub", "d/sub"), &["e/sub", "d/sub"]), one);
}

#[test]
fn directories_that_move_into_each_other_make_no_circle() {
    let circle = |disk: &ModelDisk| {
        disk.mkdir(&p("b"), 0o755).unwrap();
        disk.mkdir(&p("c"), 0o755).unwrap();
        disk.sync_all().unwrap();
        for (from, to) in [("b", "c/b"), ("c/b", "b"), ("c", "b/c")] {
            disk.rename(&p(from), &p(to), Rename::NoReplace).unwrap();
        }
    };
    let found = places(circle, &["b", "c", "c/b", "b/c"]);
    assert_eq!(found, BTreeSet::from([vec![0, 1], vec![1, 2], vec![0, 3]]));
}

#[test]
fn what_a_synced_directory_lost_has_arrived_where_it_went() {
    let linked = |disk: &ModelDisk| {
        two(disk);
        disk.mkdir(&p("n"), 0o755).unwrap();
        disk.user().hard_link(&p("d/a"), &p("n/a")).unwrap();
        disk.sync_dir(&p("n")).unwrap();
        disk.unlink(&p("d/a")).unwrap();
        disk.sync_dir(&p("d")).unwrap();
    };
    assert_eq!(places(linked, &["d/a", "n/a"]), BTreeSet::from([vec![1]]));
    let deep = |disk: &ModelDisk| {
        two(disk);
        disk.mkdir(&p("n"), 0o755).unwrap();
        disk.mkdir(&p("n/m"), 0o755).unwrap();
        disk.sync_dir(&p("n")).unwrap();
        disk.rename(&p("d/a"), &p("n/m/a"), Rename::NoReplace).unwrap();
        disk.sync_dir(&p("d")).unwrap();
    };
    assert_eq!(places(deep, &["d/a", "n/m/a"]), BTreeSet::from([vec![1]]));
}

#[test]
fn the_same_seed_leaves_the_same() {
    let run = |seed| {
        let disk = ModelDisk::new(Options::default());
        busy(&disk, seed, 100);
        disk.crash(&mut Chance::new(seed, "crash"));
        format!("{:?}", disk.visible())
    };
    assert_eq!((0..20).map(run).collect::<Vec<_>>(), (0..20).map(run).collect::<Vec<_>>());
    assert_ne!(run(1), run(2));
}

/// Program and user do things by chance; each content is written once.
fn busy(disk: &ModelDisk, seed: u64, steps: usize) {
    let mut chance = Chance::new(seed, "busy");
    let (dirs, names) = (["", "x", "y", "x/z"], ["a", "b", "x", "y", "z"]);
    let user = disk.user();
    for n in 0..steps {
        let mut path = || {
            let dir = *chance.pick(&dirs);
            let name = *chance.pick(&names);
            p(&if dir.is_empty() { name.to_string() } else { format!("{dir}/{name}") })
        };
        let (a, b) = (path(), path());
        let content = format!("content {n}").into_bytes();
        // What is refused is refused.
        let _ = match chance.below(14) {
            0 | 1 => user.create(&a, &content),
            2 => user.save_by_rename(&a, &content),
            3 => user.overwrite_in_place(&a, &content),
            4 => user.rename(&a, &b),
            5 => user.unlink(&a),
            6 => user.rmdir(&a),
            7 | 8 => disk.mkdir(&a, 0o755),
            9 => disk.rename(&a, &b, Rename::NoReplace),
            10 => disk.rename(&a, &b, Rename::Exchange),
            11 => disk.sync_dir(&p(dirs[n % 4])),
            12 => disk.sync_file(&a),
            _ => user.hard_link(&a, &b),
        };
    }
}

/// Whatever was done: the tree is a tree, users' contents are whole, and what nobody deleted is there.
#[test]
fn no_crash_leaves_a_state_that_no_file_system_would() {
    for seed in 0..2000 {
        let disk = ModelDisk::new(Options::default());
        let user = disk.user();
        busy(&disk, seed, 30);
        // Files that lie in a durable place and are only moved from now on.
        disk.sync_all().unwrap();
        let mut contents = BTreeMap::new();
        for (path, thing) in disk.visible() {
            if let Thing::File { bytes, .. } = thing {
                contents.insert(bytes.to_vec(), path);
            }
        }
        let mut chance = Chance::new(seed, "moves");
        let moved = disk.visible();
        let paths: Vec<&RelPath> = moved.keys().collect();
        if paths.is_empty() {
            continue;
        }
        for n in 0..20 {
            let (a, b) = (chance.pick(&paths), chance.pick(&paths));
            let new = p(&format!("n{}", n / 3));
            let _ = match chance.below(9) {
                0 => disk.mkdir(&new, 0o755),
                1 => disk.rename(a, &new, Rename::NoReplace),
                2 => disk.rename(&new, a, Rename::NoReplace),
                3 => disk.rename(a, b, Rename::NoReplace),
                4 => disk.rename(a, b, Rename::Exchange),
                5 => disk.rename(a, &new.join(&p("x").names()[0]), Rename::NoReplace),
                6 => disk.rmdir(a),
                7 => disk.sync_dir(a),
                _ => user.hard_link(a, &new).and_then(|()| user.unlink(a)),
            };
        }
        disk.crash(&mut Chance::new(seed, "crash"));
        for thing in disk.visible().into_values() {
            if let Thing::File { bytes, .. } = thing {
                contents.remove(&bytes.to_vec());
            }
        }
        assert!(contents.is_empty(), "seed {seed} lost {contents:?}");
    }
}

/// A number is given again as soon as it is free; a crash that brings back who had it takes it from who got it.
#[test]
fn no_crash_leaves_two_inodes_of_one_number() {
    for seed in 0..2000 {
        let disk = ModelDisk::new(Options { reuse_inodes: true, ..Options::default() });
        busy(&disk, seed, 60);
        disk.crash(&mut Chance::new(seed, "crash"));
        let disk = disk.restart();
        busy(&disk, seed + 1, 30);
        let mut found: BTreeMap<u64, (RelPath, u32)> = BTreeMap::new();
        for path in disk.visible().into_keys() {
            let Ok(Some(stat)) = disk.stat(&path) else { continue };
            let links = u32::from(stat.nlink > 1);
            if let Some((other, twins)) = found.insert(stat.ino, (path.clone(), links)) {
                assert!(links + twins == 2, "seed {seed}: {path} and {other} are {}", stat.ino);
            }
        }
    }
}

#[test]
fn the_worst_crash_is_one_that_happens() {
    for seed in 0..60 {
        let make = || {
            let disk = ModelDisk::new(Options::default());
            busy(&disk, seed, 60);
            disk
        };
        let disk = make();
        let paths: Vec<RelPath> = disk.visible().into_keys().collect();
        let durable: Vec<Option<Thing>> = paths.iter().map(|path| disk.durable(path)).collect();
        let reached = (0..100).any(|n| {
            let disk = make();
            disk.crash(&mut Chance::new(n, "worst"));
            paths.iter().map(|path| disk.visible_at(path)).eq(durable.iter().cloned())
        });
        assert!(reached, "seed {seed}");
    }
}

#[test]
fn a_users_content_is_whole_or_the_file_is_not_there() {
    let saved = |disk: &ModelDisk| {
        two(disk);
        let user = disk.user();
        user.overwrite_in_place(&p("b"), b"second").unwrap();
        user.append(&p("b"), b" third").unwrap();
        user.save_by_rename(&p("d/a"), b"other").unwrap();
        user.create(&p("new"), b"new").unwrap();
    };
    let look = |disk: &ModelDisk| content(disk, "b");
    let second = BTreeSet::from([some("B"), some("second"), some("second third")]);
    assert_eq!(outcomes(saved, look), second);
    assert_eq!(outcomes(saved, |d| content(d, "d/a")), BTreeSet::from([some("A"), some("other")]));
    assert_eq!(outcomes(saved, |d| content(d, "new")), BTreeSet::from([None, some("new")]));
}

#[test]
fn what_a_user_has_half_written_is_no_content() {
    let half = |disk: &ModelDisk| {
        two(disk);
        let file = disk.user().open_write(&p("b")).unwrap();
        file.set_len(0).unwrap();
        disk.sync_all().unwrap();
        file.write_at(b"ha", 0).unwrap();
        disk.sync_file(&p("b")).unwrap();
        assert_eq!(content(disk, "b"), some("ha"));
        std::mem::forget(file);
    };
    assert_eq!(outcomes(half, |disk| content(disk, "b")), BTreeSet::from([some("B")]));
    let raw = ModelDisk::new(Options { user_data_atomic: false, ..Options::default() });
    raw.user().create(&p("f"), b"new").unwrap();
    raw.sync_dir(&p("")).unwrap();
    assert_eq!(bytes(raw.durable(&p("f"))), Some(Vec::new()));
}

#[test]
fn the_dead_do_nothing() {
    let disk = ModelDisk::new(Options::default());
    let file = disk.create(&p("f")).unwrap();
    disk.halt();
    let eio = |e: std::io::Error| assert_eq!(e.raw_os_error(), Some(5));
    eio(file.write_at(b"x", 0).unwrap_err());
    eio(disk.clone().list(&p("")).unwrap_err());
    let next = disk.restart();
    eio(disk.stat(&p("f")).unwrap_err());
    assert_eq!(next.stat(&p("f")).unwrap().unwrap().size, 0);
    drop(file);
    next.crash(&mut Chance::new(1, ""));
    eio(next.stat(&p("f")).unwrap_err());
    assert!(next.restart().stat(&p("")).unwrap().is_some());
}
