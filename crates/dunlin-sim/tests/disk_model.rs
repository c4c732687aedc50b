//! What a test may do with a model disk that no real one offers: hooks, faults, quotas, lost roots.

#![allow(clippy::unwrap_used)]

use dunlin_core::path::RelPath;
use dunlin_node::disk::{Disk, FileTime, Rename};
use dunlin_node::stage::Stage;
use dunlin_node::watch::{Hint, Watch};
use dunlin_sim::chance::Chance;
use dunlin_sim::disk::{Effect, Faults, ModelDisk, Names, Options};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

fn p(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn new() -> ModelDisk {
    ModelDisk::new(Options::default())
}

#[test]
fn a_hook_acts_before_the_program_does() {
    let disk = new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (user, told) = (disk.user(), seen.clone());
    disk.set_hook(Some(Box::new(move |effect| {
        // A user is faster, and is not told of itself.
        if effect == Effect::Create(p("f")) {
            user.create(&p("f"), b"user").unwrap();
        }
        told.lock().unwrap().push(effect);
    })));
    assert_eq!(disk.create(&p("f")).err().unwrap().kind(), ErrorKind::AlreadyExists);
    disk.mkdir(&p("d"), 0o755).unwrap();
    disk.rename(&p("f"), &p("d/f"), Rename::NoReplace).unwrap();
    let file = disk.open(&p("d/f")).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 4);
    disk.set_hook(None);
    disk.stat(&p("d")).unwrap();
    let rename = Effect::Rename { from: p("f"), to: p("d/f"), how: Rename::NoReplace };
    let read = [Effect::Open(p("d/f")), Effect::Read(p("d/f"))];
    let expected = [Effect::Create(p("f")), Effect::Mkdir(p("d")), rename].into_iter().chain(read);
    assert_eq!(*seen.lock().unwrap(), expected.collect::<Vec<_>>());
    assert!(Effect::Mkdir(p("d")).changes() && !Effect::Stat(p("d")).changes());
    let counts = disk.counts();
    assert_eq!((counts.creates, counts.renames, counts.reads, counts.stats), (2, 1, 1, 1));
    assert_eq!(counts.changes(), 3);
}

#[test]
fn faults_meet_the_program_and_no_user() {
    let always = |f: fn(&mut Faults)| {
        let mut faults = Faults { chance: Chance::new(1, "faults"), ..Faults::default() };
        f(&mut faults);
        let disk = new();
        disk.user().create(&p("f"), b"x").unwrap();
        disk.set_faults(faults);
        disk.user().append(&p("f"), b"y").unwrap();
        disk.user().mkdir(&p("d")).unwrap();
        disk
    };
    let number = |e: std::io::Error| e.raw_os_error().unwrap();
    let disk = always(|f| f.read_eio = 1);
    assert_eq!((number(disk.open(&p("f")).err().unwrap()), disk.list(&p("")).unwrap().len()), (5, 2));
    let disk = always(|f| f.list_eio = 1);
    assert_eq!((number(disk.list(&p("")).unwrap_err()), number(disk.stat(&p("f")).unwrap_err())), (5, 5));
    let disk = always(|f| f.write_eio = 1);
    assert_eq!((number(disk.unlink(&p("f")).unwrap_err()), disk.user().exists(&p("f"))), (5, true));
    let disk = always(|f| f.write_enospc = 1);
    assert_eq!(disk.create(&p("g")).err().unwrap().kind(), ErrorKind::StorageFull);
    disk.unlink(&p("f")).unwrap();
    let disk = always(|f| f.sync_eio = 1);
    assert_eq!(number(disk.sync_dir(&p("")).unwrap_err()), 5);
    assert_eq!(disk.durable(&p("f")), None);
}

#[test]
fn room_is_counted_and_runs_out() {
    let disk = ModelDisk::new(Options { space: 10 * 4096, files: 4, ..Options::default() });
    let free = || (disk.space().unwrap().free / 4096, disk.space().unwrap().files.unwrap());
    assert_eq!(free(), (9, 3));
    let file = disk.create(&p("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!((free(), file.allocated().unwrap()), ((9, 2), 0));
    file.write_at(&[1; 4097], 100_000).unwrap();
    assert_eq!((free(), file.allocated().unwrap()), ((7, 2), 8192));
    assert_eq!(file.write_at(&[1; 32 << 10], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    let full = disk.user().create(&p("g"), &[1; 32 << 10]).unwrap_err();
    assert_eq!((full.kind(), disk.user().exists(&p("g"))), (ErrorKind::StorageFull, false));
    disk.unlink(&p("f")).unwrap();
    assert_eq!(free(), (7, 2), "it is still open");
    drop(file);
    assert_eq!(free(), (9, 3));
    for name in ["a", "b", "c"] {
        disk.symlink(b"x", &p(name)).unwrap();
    }
    assert_eq!(disk.mkdir(&p("d"), 0o755).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.set_quota(10 * 4096, u64::MAX);
    assert_eq!(disk.space().unwrap().files, None);
    disk.mkdir(&p("d"), 0o755).unwrap();
    // After a crash it is counted anew.
    disk.sync_all().unwrap();
    disk.crash(&mut Chance::new(1, ""));
    assert_eq!(disk.restart().space().unwrap().free, 8 * 4096);
}

#[test]
fn times_and_numbers_of_inodes() {
    let at = |secs, nanos| FileTime { secs, nanos };
    let disk = ModelDisk::new(Options { tick_ns: 4_000_000, reuse_inodes: true, ..Options::default() });
    disk.set_now(at(7, 9_999_999));
    let user = disk.user();
    user.create(&p("f"), b"1").unwrap();
    let stat = |path: &str| disk.stat(&p(path)).unwrap().unwrap();
    let first = stat("f");
    assert_eq!(
        (first.mtime, first.ctime, first.btime),
        (at(7, 8_000_000), at(7, 8_000_000), Some(at(7, 8_000_000)))
    );
    // Another content of the same size within a tick: nothing tells.
    user.write_at(&p("f"), 0, b"2").unwrap();
    assert_eq!(stat("f"), first);
    disk.set_now(at(8, 0));
    user.set_mtime(&p("f"), at(1, 1)).unwrap();
    assert_eq!((stat("f").mtime, stat("f").ctime, stat("f").btime), (at(1, 1), at(8, 0), first.btime));
    disk.set_now(at(-1, 999_999_999));
    user.unlink(&p("f")).unwrap();
    user.create(&p("g"), b"").unwrap();
    assert_eq!((stat("g").ino, stat("g").ctime), (first.ino, at(-1, 996_000_000)));
    let fresh = new();
    fresh.user().create(&p("f"), b"").unwrap();
    let ino = fresh.stat(&p("f")).unwrap().unwrap().ino;
    fresh.user().unlink(&p("f")).unwrap();
    fresh.user().create(&p("f"), b"").unwrap();
    assert_ne!(fresh.stat(&p("f")).unwrap().unwrap().ino, ino);
}

#[test]
fn names_may_be_looked_up_blindly() {
    for (names, a, b) in [(Names::CaseBlind, "Readme", "README"), (Names::NfdBlind, "\u{e9}", "e\u{301}")] {
        let disk = ModelDisk::new(Options { names, ..Options::default() });
        disk.user().create(&p(a), b"x").unwrap();
        assert_eq!(disk.user().read(&p(b)).unwrap(), b"x");
        assert_eq!(disk.create(&p(b)).err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            disk.rename(&p(a), &p(b), Rename::NoReplace).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        let listed = || disk.user().list(&p("")).unwrap().iter().map(p_of).collect::<Vec<_>>();
        assert_eq!(listed(), [p(a)]);
        disk.user().rename(&p(a), &p(b)).unwrap();
        assert_eq!(listed(), [p(b)]);
        disk.unlink(&p(a)).unwrap();
        assert_eq!(listed(), []);
    }
}

fn p_of(name: &dunlin_core::path::Name) -> RelPath {
    RelPath::root().join(name)
}

#[test]
fn users_leave_the_control_directory_alone_unless_asked() {
    let disk = new();
    disk.mkdir(&p(".dunlin"), 0o700).unwrap();
    let user = disk.user();
    for refused in
        [user.create(&p(".dunlin/x"), b""), user.rmdir(&p(".dunlin")), user.rename(&p(".dunlin"), &p("d"))]
    {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    user.clone().anywhere().create(&p(".dunlin/x"), b"").unwrap();
    assert!(disk.visible().is_empty());
    assert_eq!(disk.control_tree().into_keys().collect::<Vec<_>>(), [p(".dunlin/x")]);
    user.remove_all(&p("")).unwrap();
    assert_eq!(disk.control_tree().len(), 1);
}

#[test]
fn a_root_is_lost_and_comes_back() {
    let disk = new();
    disk.mkdir(&p(".dunlin"), 0o700).unwrap();
    disk.create(&p(".dunlin/folder")).unwrap();
    let user = disk.user();
    user.create(&p("f"), b"x").unwrap();
    disk.add(&p(""), [1; 16]).unwrap();
    user.replace_root().unwrap();
    assert!(!disk.root_identity().unwrap().in_place);
    assert_eq!(disk.take_events(), [Hint::Dir { dir: [1; 16] }]);
    // The program's handle stays with the folder; a new life finds what is in its place.
    assert!(disk.stat(&p(".dunlin/folder")).unwrap().is_some() && !user.exists(&p("f")));
    assert!(disk.visible().is_empty());
    user.create(&p("other"), b"").unwrap();
    user.bring_root_back().unwrap();
    assert!(disk.root_identity().unwrap().in_place && user.exists(&p("f")) && !user.exists(&p("other")));
    user.replace_root().unwrap();
    let next = disk.restart();
    assert!(next.root_identity().unwrap().in_place && next.stat(&p(".dunlin")).unwrap().is_none());
    user.bring_root_back().unwrap();
    assert!(!next.root_identity().unwrap().in_place);
    let next = next.restart();
    next.set_mode(&p(""), 0o700).unwrap();
    user.wipe_root().unwrap();
    assert!(next.root_identity().unwrap().in_place && next.list(&p("")).unwrap().is_empty());
}

#[test]
fn events_are_lost_and_belong_to_one_life() {
    let disk = new();
    let user = disk.user();
    disk.add(&p(""), [1; 16]).unwrap();
    user.create(&p("f"), b"x").unwrap();
    assert!(disk.events_pending());
    disk.lose_events();
    user.create(&p("g"), b"x").unwrap();
    let hints = disk.take_events();
    assert_eq!((hints.len(), &hints[0]), (2, &Hint::Overflow));
    for n in 0..9000 {
        user.create(&p(&format!("h{n}")), b"x").unwrap();
    }
    assert!(disk.take_events().contains(&Hint::Overflow), "the queue is bounded");
    user.unlink(&p("f")).unwrap();
    let next = disk.restart();
    user.unlink(&p("g")).unwrap();
    assert!(disk.take_events().is_empty() && !next.events_pending());
    assert!(disk.add(&p(""), [1; 16]).is_err());
    next.add(&p(""), [2; 16]).unwrap();
    user.truncate(&p("h1"), 3).unwrap();
    let name = p("h1").names()[0].clone();
    assert_eq!(next.take_events(), [Hint::Entry { dir: [2; 16], name, writing: true }]);
}

/// Room that the history could give is summed up now and then, by the disk's clock: what is run from a seed would
/// else depend on how fast the machine is.
#[test]
fn what_could_yield_is_summed_up_by_the_clock_of_the_disk() {
    let content = |n| dunlin_core::ids::ContentId([n; 32]);
    let lacks = || Ok(Arc::default());
    for (secs, nanos, granted) in
        [(50, 0, false), (50, 199_999_999, false), (50, 200_000_000, true), (49, 0, true)]
    {
        let disk = ModelDisk::new(Options { space: 1 << 20, ..Options::default() });
        disk.set_now(FileTime { secs: 50, nanos: 0 });
        let stage = Stage::open(Arc::new(disk.clone())).unwrap();
        let keep = || {
            disk.user().create(&p("f"), &[7; 400 << 10]).unwrap();
            stage.keep(&p("f"), &p("f").names()[0], None).unwrap();
        };
        keep();
        assert!(stage.claim(&content(1), 2 << 20, &lacks).unwrap().is_err());
        keep();
        disk.set_now(FileTime { secs, nanos });
        assert_eq!(
            stage.claim(&content(2), 900 << 10, &lacks).unwrap().is_ok(),
            granted,
            "at {secs} s {nanos}"
        );
    }
}

/// What the simulator can count on: cargo test --release -p dunlin-sim -- --ignored --nocapture speed.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let start = std::time::Instant::now();
    let mut calls = 0;
    for seed in 0..1000 {
        let disk = new();
        disk.add(&p(""), [1; 16]).unwrap();
        let (a, b) = (p("a"), p("b"));
        for _ in 0..500 {
            let file = disk.create(&a).unwrap();
            file.write_at(&[7; 2000], 0).unwrap();
            file.sync_data().unwrap();
            drop(file);
            disk.rename(&a, &b, Rename::NoReplace).unwrap();
            disk.sync_dir(&RelPath::root()).unwrap();
            disk.stat(&b).unwrap();
            disk.list(&RelPath::root()).unwrap();
            disk.unlink(&b).unwrap();
            calls += 8;
        }
        disk.crash(&mut Chance::new(seed, ""));
    }
    eprintln!("{calls} calls in {:?}", start.elapsed());
}
