//! Links and renames meant to lead Dunlin out of its folder.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A folder with a directory `d` and a link `l` to a directory outside; both hold `f` and `sub`.
struct Trap {
    outer: TempDir,
    outside: PathBuf,
    before: Vec<(PathBuf, [i64; 8], Vec<u8>)>,
}

impl Trap {
    fn set() -> Trap {
        let outer = tempfile::tempdir().unwrap();
        let (root, outside) = (outer.path().join("root"), outer.path().join("outside"));
        for dir in [root.join("d"), outside.clone()] {
            std::fs::create_dir_all(dir.join("sub")).unwrap();
            std::fs::create_dir_all(dir.join("empty")).unwrap();
            std::fs::write(dir.join("f"), if dir == outside { "canary" } else { "ours" }).unwrap();
            symlink("canary", dir.join("link")).unwrap();
        }
        symlink(&outside, root.join("l")).unwrap();
        symlink(outside.join("f"), root.join("lf")).unwrap();
        let before = state(&outside);
        Trap { outer, outside, before }
    }

    fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }

    fn assert_untouched(&self) {
        assert_eq!(state(&self.outside), self.before);
    }
}

/// Everything below, down to the change times of the inodes, which no program can set back.
fn state(dir: &Path) -> Vec<(PathBuf, [i64; 8], Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        let m = std::fs::symlink_metadata(&path).unwrap();
        if m.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let numbers = [m.mode().into(), m.nlink() as i64, m.size() as i64, m.ino() as i64];
        let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        let all = std::array::from_fn(|i| if i < 4 { numbers[i] } else { times[i - 4] });
        let content = if m.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path, all, content));
    }
    found.sort();
    found
}

/// Every operation, at and through `at`. Returns the names of those that succeeded.
fn everything(disk: &PosixDisk, at: &str) -> Vec<&'static str> {
    let in_it = |name: &str| p(format!("{at}/{name}"));
    let time = FileTime { secs: 1, nanos: 1 };
    let results = [
        ("list", disk.list(&p(at)).map(drop)),
        ("list below", disk.list(&in_it("sub")).map(drop)),
        (
            "open",
            disk.open(&in_it("f")).map(|f| {
                let mut buf = [0; 6];
                let len = f.read_at(&mut buf, 0).unwrap();
                assert_ne!(&buf[..len], b"canary", "read what is outside");
            }),
        ),
        ("open_write", disk.open_write(&in_it("f")).and_then(|f| f.write_at(b"OURS", 0))),
        ("create", disk.create(&in_it("new")).map(drop)),
        ("unlink", disk.unlink(&in_it("new"))),
        ("mkdir", disk.mkdir(&in_it("dir"), 0o755)),
        ("rmdir", disk.rmdir(&in_it("dir"))),
        ("rmdir empty", disk.rmdir(&in_it("empty"))),
        ("symlink", disk.symlink(b"x", &in_it("sym"))),
        ("unlink link", disk.unlink(&in_it("sym"))),
        ("rename out", disk.rename(&in_it("f"), &p("out"), Rename::NoReplace)),
        ("rename in", disk.rename(&p("out"), &in_it("f"), Rename::NoReplace)),
        ("exchange", disk.rename(&p("spare"), &in_it("f"), Rename::Exchange)),
        ("unlink f", disk.unlink(&in_it("f"))),
        ("create f", disk.create(&in_it("f")).and_then(|f| f.write_at(b"ours", 0))),
        ("read_link", disk.read_link(&in_it("link")).map(drop)),
        ("set_mode", disk.set_mode(&in_it("f"), 0o777)),
        ("set_mode dir", disk.set_mode(&in_it("sub"), 0o777)),
        ("set_mtime", disk.set_mtime(&in_it("f"), time)),
        ("set_mtime link", disk.set_mtime(&in_it("link"), time)),
        ("sync_file", disk.sync_file(&in_it("f"))),
        ("sync_dir", disk.sync_dir(&p(at))),
        ("dir_handle", disk.dir_handle(&p(at)).map(drop)),
    ];
    results.into_iter().filter_map(|(name, r)| r.ok().map(|()| name)).collect()
}

#[test]
fn nothing_goes_through_a_link() {
    for open in [|r: &Path| PosixDisk::open(r).unwrap(), walking] {
        let trap = Trap::set();
        let disk = open(&trap.root());
        put(&disk, "spare", b"ours");
        assert_eq!(everything(&disk, "l"), [""; 0]);
        assert_eq!(everything(&disk, "l/sub"), [""; 0]);
        assert_eq!(disk.stat(&p("l/f")).unwrap(), None);
        trap.assert_untouched();
        // The same on a directory works, or the above would prove nothing.
        assert_eq!(everything(&disk, "d").len(), 24);
    }
}

#[test]
fn nothing_follows_a_link_at_the_end() {
    for open in [|r: &Path| PosixDisk::open(r).unwrap(), walking] {
        let trap = Trap::set();
        let disk = open(&trap.root());
        for link in ["l", "lf"] {
            let looped = Some(Errno::LOOP.raw_os_error());
            assert_eq!(disk.open(&p(link)).err().unwrap().raw_os_error(), looped);
            assert_eq!(disk.open_write(&p(link)).err().unwrap().raw_os_error(), looped);
            assert_eq!(disk.set_mode(&p(link), 0o777).unwrap_err().raw_os_error(), looped);
            assert_eq!(disk.sync_file(&p(link)).unwrap_err().raw_os_error(), looped);
            assert_eq!(disk.create(&p(link)).err().unwrap().kind(), ErrorKind::AlreadyExists);
            assert_eq!(disk.mkdir(&p(link), 0o755).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(disk.symlink(b"x", &p(link)).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert!(disk.list(&p(link)).is_err() && disk.sync_dir(&p(link)).is_err());
            assert!(disk.rmdir(&p(link)).is_err());
            assert_eq!(disk.stat(&p(link)).unwrap().unwrap().kind, FileKind::Link);
            disk.set_mtime(&p(link), FileTime { secs: 5, nanos: 6 }).unwrap();
            assert_eq!(disk.stat(&p(link)).unwrap().unwrap().mtime, FileTime { secs: 5, nanos: 6 });
            disk.rename(&p(link), &p("moved"), Rename::NoReplace).unwrap();
            disk.unlink(&p("moved")).unwrap();
        }
        trap.assert_untouched();
    }
}

/// One thread swaps the directory and the link without pause while another works in it.
#[test]
fn a_directory_that_becomes_a_link_under_our_hands() {
    for open in [|r: &Path| PosixDisk::open(r).unwrap(), walking] {
        let trap = Trap::set();
        let disk = open(&trap.root());
        let stop = AtomicBool::new(false);
        let (mut done, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let root = fs::open(trap.root(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    fs::renameat_with(&root, "d", &root, "l", RenameFlags::EXCHANGE).unwrap();
                    std::thread::yield_now();
                }
            });
            for round in 0..300 {
                // What a lost race left over is put right, so that every operation keeps having a chance.
                let _ = disk.create(&p("spare")).map(drop);
                let succeeded = everything(&disk, if round % 2 == 0 { "d" } else { "l" }).len();
                done += succeeded;
                refused += 24 - succeeded;
                let _ = disk.unlink(&p("out"));
            }
            stop.store(true, Ordering::Relaxed);
        });
        trap.assert_untouched();
        assert!(done > 200 && refused > 200, "no race took place: {done} done, {refused} refused");
    }
}
