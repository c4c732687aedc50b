//! Steps on a real file system, with somebody else at work in the worst moment.

use super::*;
use crate::disk::posix::PosixDisk;
use crate::disk::{Entry, FileTime, ReadFile, RootIdentity, Space, WriteFile};
use dunlin_core::ids::{NodeId, ROOT};
use dunlin_core::rows::Position;
use dunlin_core::state::Mtime;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk on which something happens just before a rename into the folder.
struct Racing<F: Fn() + Send + Sync> {
    disk: Arc<PosixDisk>,
    before_rename: F,
}

impl<F: Fn() + Send + Sync> Disk for Racing<F> {
    fn list(&self, dir: &RelPath) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }
    fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        self.disk.stat(path)
    }
    fn open(&self, path: &RelPath) -> io::Result<Box<dyn ReadFile>> {
        self.disk.open(path)
    }
    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.disk.read_link(path)
    }
    fn create(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.disk.create(path)
    }
    fn open_write(&self, path: &RelPath) -> io::Result<Box<dyn WriteFile>> {
        self.disk.open_write(path)
    }
    fn mkdir(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.disk.mkdir(path, mode)
    }
    fn symlink(&self, text: &[u8], path: &RelPath) -> io::Result<()> {
        self.disk.symlink(text, path)
    }
    fn rename(&self, from: &RelPath, to: &RelPath, how: Rename) -> io::Result<()> {
        (self.before_rename)();
        self.disk.rename(from, to, how)
    }
    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        self.disk.unlink(path)
    }
    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        self.disk.rmdir(path)
    }
    fn set_mode(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        self.disk.set_mode(path, mode)
    }
    fn set_mtime(&self, path: &RelPath, mtime: FileTime) -> io::Result<()> {
        self.disk.set_mtime(path, mtime)
    }
    fn sync_file(&self, path: &RelPath) -> io::Result<()> {
        self.disk.sync_file(path)
    }
    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }
    fn now(&self) -> FileTime {
        self.disk.now()
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
    fn root_identity(&self) -> io::Result<RootIdentity> {
        self.disk.root_identity()
    }
}

struct Scene {
    root: PathBuf,
    disk: Arc<PosixDisk>,
    stage: Stage,
    _dir: tempfile::TempDir,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(PosixDisk::open(dir.path()).unwrap());
    let stage = Stage::open(disk.clone()).unwrap();
    Scene { root: dir.path().to_path_buf(), disk, stage, _dir: dir }
}

fn content(bytes: &[u8]) -> Content {
    Content::File { id: ContentId(*blake3::hash(bytes).as_bytes()), size: bytes.len() as u64 }
}

impl Scene {
    fn path(&self, name: &str) -> RelPath {
        RelPath::parse(name.as_bytes()).unwrap()
    }

    fn step(&self, name: &str, action: Action) -> Step {
        Step {
            node: NodeId([1; 16]),
            dot: None,
            seen: Default::default(),
            at: Position::new(ROOT, Name::new(name.as_bytes()).unwrap()),
            path: self.path(name),
            action,
            all: None,
        }
    }

    fn row(&self, name: &str, content: Content) -> LocalRow {
        let stat = self.disk.stat(&self.path(name)).unwrap().unwrap();
        LocalRow {
            node: NodeId([1; 16]),
            dot: None,
            seen: None,
            content,
            mode: stat.mode,
            mtime: Mtime::default(),
            stamp: stat.stamp(),
            kept: false,
            damaged: None,
        }
    }

    fn place(&self, name: &str, bytes: &[u8], replaces: Option<Stamp>) -> Step {
        let Content::File { id, .. } = content(bytes) else { unreachable!() };
        self.stage.put(id, bytes, None).unwrap();
        let mtime = Mtime { secs: 5, nanos: 6 };
        self.step(name, Action::Place { content: content(bytes), mode: 0o640, mtime, replaces, was: None })
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.root.join(name), bytes).unwrap();
    }

    fn history(&self) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(self.root.join(".dunlin/history")).unwrap();
        let mut all: Vec<_> = entries.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
        all.sort();
        all
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root.join(name)).unwrap()
    }
}

#[test]
fn what_is_replaced_or_removed_is_kept() {
    let s = scene();
    s.write("f", b"old");
    s.write("g", b"goes");
    let stamp = s.row("f", content(b"old")).stamp;
    let steps = [
        s.place("f", b"new", Some(stamp)),
        s.place("h", b"another", None),
        s.step("g", Action::Remove { row: s.row("g", content(b"goes")), kept: Vec::new() }),
    ];
    let applied = apply(s.disk.as_ref(), &s.stage, &steps);
    assert!(applied.iter().all(|a| matches!(a, Applied::Ended(Outcome::Done(..)))), "{applied:?}");
    assert_eq!((s.read("f"), s.read("h")), (b"new".to_vec(), b"another".to_vec()));
    assert!(!s.root.join("g").exists());
    assert_eq!(s.history(), [b"goes".to_vec(), b"old".to_vec()]);
    let stat = s.disk.stat(&s.path("f")).unwrap().unwrap();
    assert_eq!((stat.mode & 0o777, stat.mtime), (0o640, FileTime { secs: 5, nanos: 6 }));
}

#[test]
fn an_edit_in_the_last_moment_goes_back_where_it_was() {
    let s = scene();
    s.write("f", b"old");
    s.write("g", b"old too");
    let stamp = s.row("f", content(b"old")).stamp;
    let steps = [
        s.place("f", b"new", Some(stamp)),
        s.step("g", Action::Remove { row: s.row("g", content(b"old too")), kept: Vec::new() }),
    ];
    let root = s.root.clone();
    let racing = Racing {
        disk: s.disk.clone(),
        before_rename: move || {
            if std::fs::read(root.join("f")).unwrap() == b"old" {
                std::fs::write(root.join("f"), b"edited meanwhile").unwrap();
            }
            if root.join("g").exists() {
                std::fs::write(root.join("g"), b"edited too").unwrap();
            }
        },
    };
    let applied = apply(&racing, &s.stage, &steps);
    assert_eq!(applied, [Applied::Changed, Applied::Changed]);
    assert_eq!(s.read("f"), b"edited meanwhile");
    assert_eq!(s.read("g"), b"edited too");
    assert!(s.history().is_empty());
    // The new version waits in the stage for the next plan.
    let Content::File { id, .. } = content(b"new") else { unreachable!() };
    assert!(s.stage.has(&id));
}

#[test]
fn what_is_written_to_ours_before_it_goes_back_is_a_users() {
    let s = scene();
    s.write("f", b"old");
    let stamp = s.row("f", content(b"old")).stamp;
    let steps = [s.place("f", b"new", Some(stamp))];
    let root = s.root.clone();
    let racing = Racing {
        disk: s.disk.clone(),
        before_rename: move || {
            let there = std::fs::read(root.join("f")).unwrap();
            let edit: &[u8] = if there == b"new" { b"written to the new one" } else { b"edited meanwhile" };
            std::fs::write(root.join("f"), edit).unwrap();
        },
    };
    assert_eq!(apply(&racing, &s.stage, &steps), [Applied::Changed]);
    assert_eq!(s.read("f"), b"edited meanwhile");
    // It is not staged as what it was any more; it comes back as a version.
    let file = |bytes| if let Content::File { id, .. } = content(bytes) { id } else { unreachable!() };
    assert!(!s.stage.has(&file(b"new")));
    let held: Vec<ContentId> = s.stage.stranded().unwrap().iter().map(|s| s.content).collect();
    assert_eq!(held, [file(b"written to the new one")]);
}

#[test]
fn what_was_taken_out_and_cannot_be_kept_is_not_staged_as_what_was_placed() {
    let s = scene();
    s.write("f", b"old");
    let steps = [s.place("f", b"new", Some(s.row("f", content(b"old")).stamp))];
    let root = s.root.clone();
    let before_rename = move || drop(std::fs::remove_dir(root.join(".dunlin/history")));
    let racing = Racing { disk: s.disk.clone(), before_rename };
    let applied = apply(&racing, &s.stage, &steps);
    assert!(!matches!(applied[0], Applied::Ended(_)), "{applied:?}");
    assert_eq!(s.read("f"), b"new");
    let Content::File { id, .. } = content(b"new") else { unreachable!() };
    assert!(!s.stage.has(&id));
    // It goes to the history when that can be written again.
    let swap: Vec<_> = std::fs::read_dir(s.root.join(".dunlin/swap")).unwrap().collect();
    assert_eq!(std::fs::read(swap[0].as_ref().unwrap().path()).unwrap(), b"old");
}

#[test]
fn an_edit_that_cannot_go_back_is_found_as_what_it_was_a_version_of() {
    let mut s = scene();
    s.write("f", b"old");
    s.write("g", b"old too");
    let (root, renames) = (s.root.clone(), std::sync::atomic::AtomicU32::new(0));
    let before_rename = move || match renames.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        // From the stage; then the exchange, and the one that would undo it; then into the history, and back.
        1 => std::fs::write(root.join("f"), b"edited").unwrap(),
        2 => std::fs::remove_file(root.join("f")).unwrap(),
        3 => std::fs::write(root.join("g"), b"edited too").unwrap(),
        4 => std::fs::write(root.join("g"), b"made anew").unwrap(),
        _ => {}
    };
    let racing = Arc::new(Racing { disk: s.disk.clone(), before_rename });
    s.stage = Stage::open(racing.clone()).unwrap();
    let row = s.row("g", content(b"old too"));
    let mut place = s.place("f", b"new", Some(s.row("f", content(b"old")).stamp));
    if let (Action::Place { was, .. }, Content::File { id, .. }) = (&mut place.action, content(b"old")) {
        *was = Some(id);
    }
    let steps = [place, s.step("g", Action::Remove { row, kept: Vec::new() })];
    let applied = apply(racing.as_ref(), &s.stage, &steps);
    assert!(applied.iter().all(|a| !matches!(a, Applied::Ended(_))), "{applied:?}");
    assert_eq!((s.read("g"), s.history()), (b"made anew".to_vec(), Vec::new()));
    let file = |bytes| if let Content::File { id, .. } = content(bytes) { id } else { unreachable!() };
    // After a restart, too.
    let anew = Stage::open(s.disk.clone()).unwrap();
    for stage in [&s.stage, &anew] {
        let found = stage.stranded().unwrap();
        assert_eq!(found.iter().map(|f| f.node).collect::<Vec<_>>(), [NodeId([1; 16]); 2]);
        let held: BTreeSet<ContentId> = found.iter().map(|f| f.content).collect();
        assert_eq!(held, BTreeSet::from([file(b"edited"), file(b"edited too")]));
        assert!(stage.kept(&file(b"edited")).is_some(), "it can be had from there");
    }
    anew.clear(&|_| false).unwrap();
    assert!(anew.stranded().unwrap().is_empty());
    assert_eq!(s.history(), [b"edited".to_vec(), b"edited too".to_vec()]);
}

#[test]
fn what_was_to_come_out_is_not_taken_for_an_edit() {
    let s = scene();
    let ids =
        [b"old", b"new"].map(|b| if let Content::File { id, .. } = content(b) { id } else { unreachable!() });
    let mut step = s.place("f", b"new", Some(Stamp::default()));
    if let Action::Place { was, .. } = &mut step.action {
        *was = Some(ids[0]);
    }
    // Taken out and not placed; and placed, but what came out was not kept yet.
    for bytes in [b"new", b"old"] {
        let at = s.stage.take(&ids[1], &crate::stage::takes_out(&step)).unwrap();
        std::fs::write(s.root.join(at.to_string()), bytes).unwrap();
        assert!(s.stage.stranded().unwrap().is_empty());
        s.stage.put(ids[1], b"new", None).unwrap();
    }
}

#[test]
fn what_is_there_already_is_left_alone() {
    let s = scene();
    s.write("f", b"somebody's");
    std::fs::create_dir(s.root.join("d")).unwrap();
    s.write("d/inside", b"x");
    let row = s.row("d", Content::Dir);
    let steps = [
        s.place("f", b"new", None),
        s.step("f", Action::MakeDir { mode: 0o755 }),
        s.step("d", Action::Remove { row, kept: Vec::new() }),
    ];
    let applied = apply(s.disk.as_ref(), &s.stage, &steps);
    assert_eq!(applied, [Applied::Changed, Applied::Changed, Applied::Changed]);
    assert_eq!((s.read("f"), s.read("d/inside")), (b"somebody's".to_vec(), b"x".to_vec()));
}

#[test]
fn a_directory_with_only_a_fifo_in_it_is_kept() {
    let s = scene();
    std::fs::create_dir(s.root.join("d")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(s.root.join("d/fifo")).status().unwrap().success());
    let step = s.step("d", Action::Remove { row: s.row("d", Content::Dir), kept: Vec::new() });
    let applied = apply(s.disk.as_ref(), &s.stage, &[step]);
    assert_eq!(applied, [Applied::Ended(Outcome::Kept)]);
    assert!(s.root.join("d/fifo").exists());
}

#[test]
fn one_content_fills_many_places() {
    let s = scene();
    let steps: Vec<Step> = (0..20).map(|i| s.place(&format!("f{i}"), b"same", None)).collect();
    let applied = apply(s.disk.as_ref(), &s.stage, &steps);
    assert!(applied.iter().all(|a| matches!(a, Applied::Ended(Outcome::Done(..)))), "{applied:?}");
    assert!((0..20).all(|i| s.read(&format!("f{i}")) == b"same"));
    assert_eq!(std::fs::read_dir(s.root.join(".dunlin/swap")).unwrap().count(), 0);
}

#[test]
fn what_is_staged_as_it_is_to_be_goes_from_there_to_its_place() {
    let s = scene();
    let mtime = Mtime { secs: 5, nanos: 6 };
    // So many that they are made durable together. One was staged as something else.
    let steps: Vec<Step> = (0..10u8)
        .map(|n| {
            let Content::File { id, .. } = content(&[n; 9]) else { unreachable!() };
            s.stage.put(id, &[n; 9], Some((if n == 9 { 0o600 } else { 0o640 }, mtime))).unwrap();
            s.place(&format!("f{n}"), &[n; 9], None)
        })
        .collect();
    s.write("f3", b"somebody's");
    let list = |dir: &str| std::fs::read_dir(s.root.join(".dunlin").join(dir)).unwrap().count();
    let (swap, was_in_swap) = (s.root.join(".dunlin/swap"), Arc::new(AtomicBool::new(false)));
    let seen = was_in_swap.clone();
    let before_rename = move || {
        seen.fetch_or(std::fs::read_dir(&swap).unwrap().next().is_some(), Ordering::Relaxed);
    };
    let applied = apply(&Racing { disk: s.disk.clone(), before_rename }, &s.stage, &steps);
    for (n, applied) in (0..10u8).zip(&applied) {
        let Content::File { id, .. } = content(&[n; 9]) else { unreachable!() };
        assert_eq!(s.stage.has(&id), n == 3, "what could not be placed is staged still");
        if n == 3 {
            assert_eq!((applied, s.read("f3")), (&Applied::Changed, b"somebody's".to_vec()));
            continue;
        }
        let stat = s.disk.stat(&s.path(&format!("f{n}"))).unwrap().unwrap();
        assert!(matches!(applied, Applied::Ended(Outcome::Done(..))), "{applied:?}");
        assert_eq!((stat.mode & 0o777, stat.mtime), (0o640, FileTime { secs: 5, nanos: 6 }), "{n}");
    }
    assert_eq!((list("stage"), list("swap"), was_in_swap.load(Ordering::Relaxed)), (1, 0, false));
}
