//! The same calls on a model disk and on a real one.

mod ops;

use dunlin_core::path::{Name, RelPath};
use dunlin_node::disk::posix::PosixDisk;
use dunlin_node::disk::{Disk, FileKind, ReadFile, Rename, Stat, WriteFile};
use dunlin_node::watch::{Hint, Watch, WatchError, Watched, Watcher};
use dunlin_sim::disk::{ModelDisk, Options};
use rustix::fs::{self, FileType, Mode, OFlags, RenameFlags};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub use ops::{Op, UserOp, op};

/// How it ended: what there was to see, or the number of the error.
pub type Done = Result<String, i32>;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i + len) as u8).collect()
}

fn seen(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), blake3::hash(bytes))
}

fn done<T>(result: io::Result<T>, show: impl Fn(T) -> String) -> Done {
    result.map(show).map_err(|e| e.raw_os_error().expect("the system's error"))
}

fn unit(result: io::Result<()>) -> Done {
    done(result, |()| String::new())
}

/// A disk, and what is held open on it.
pub struct Side {
    pub disk: Arc<dyn Disk>,
    watch: Box<dyn Watch>,
    held: Option<Box<dyn WriteFile>>,
}

impl Side {
    /// One call of the program.
    pub fn run(&mut self, op: &Op) -> Done {
        let disk = &self.disk;
        match op {
            Op::List(p) => done(disk.list(p), |all| {
                let names = all.iter().map(|e| format!("{} {:?}", e.name, e.stat.map(|s| s.kind)));
                names.collect::<Vec<_>>().join(", ")
            }),
            Op::Stat(p) => done(disk.stat(p), |s| format!("{:?}", s.map(|s| (s.kind, s.mode)))),
            Op::Open(p) => done(disk.open(p).and_then(|f| all_of(f.as_ref())), |b| seen(&b)),
            Op::ReadLink(p) => done(disk.read_link(p), |b| seen(&b)),
            Op::Create(p, len, hold) => self.write(disk.create(p), *len, *hold),
            Op::OpenWrite(p, len, hold) => self.write(disk.open_write(p), *len, *hold),
            Op::SetLen(len) => self.held.as_ref().map_or(Ok(String::new()), |f| unit(f.set_len(*len))),
            Op::HeldMode(mode) => self.held.as_ref().map_or(Ok(String::new()), |f| unit(f.set_mode(*mode))),
            Op::HeldMtime(t) => self.held.as_ref().map_or(Ok(String::new()), |f| unit(f.set_mtime(*t))),
            Op::Let => {
                let held = self.held.take();
                held.map_or(Ok(String::new()), |f| done(f.stat(), |s| format!("{} {}", s.size, s.nlink)))
            }
            Op::Mkdir(p, mode) => unit(disk.mkdir(p, *mode)),
            Op::Symlink(p) => unit(disk.symlink(b"nowhere", p)),
            Op::Rename(a, b, true) => unit(disk.rename(a, b, Rename::Exchange)),
            Op::Rename(a, b, false) => unit(disk.rename(a, b, Rename::NoReplace)),
            Op::Unlink(p) => unit(disk.unlink(p)),
            Op::Rmdir(p) => unit(disk.rmdir(p)),
            Op::SetMode(p, mode) => unit(disk.set_mode(p, *mode)),
            Op::SetMtime(p, time) => unit(disk.set_mtime(p, *time)),
            Op::SyncFile(p) => unit(disk.sync_file(p)),
            Op::SyncDir(p) => unit(disk.sync_dir(p)),
            Op::Watch(p, key) => match self.watch.add(p, [*key; 16]) {
                Ok(()) => Ok(String::new()),
                Err(WatchError::Gone) => Ok("gone".into()),
                Err(e) => Ok(e.to_string()),
            },
            Op::User(_) => unreachable!("users have another way"),
        }
    }

    /// The metadata of all that can be seen.
    pub fn stamps(&self) -> Vec<(RelPath, Stat)> {
        let mut out = vec![(RelPath::root(), self.disk.stat(&RelPath::root()).unwrap().unwrap())];
        let mut at = 0;
        while at < out.len() {
            let (path, stat) = out[at].clone();
            if stat.kind == FileKind::Dir {
                let entries = self.disk.list(&path).unwrap_or_default();
                out.extend(entries.iter().filter_map(|e| Some((path.join(&e.name), e.stat.ok()?))));
            }
            at += 1;
        }
        out
    }

    fn write(&self, opened: io::Result<Box<dyn WriteFile>>, len: usize, hold: bool) -> Done {
        let file = opened.map_err(|e| e.raw_os_error().unwrap())?;
        let written = unit(file.write_at(&content(len), 0));
        if hold {
            KEPT.with(|kept| kept.replace(Some(file)));
        }
        written
    }

    /// Keeps what the last call left open.
    pub fn keep(&mut self) {
        if let Some(file) = KEPT.with(|kept| kept.take()) {
            self.held = Some(file);
        }
    }

    /// Everything there is to see below `dir`, errors included.
    pub fn look(&self, dir: &RelPath, out: &mut Vec<String>, dir_links: bool) {
        let listed = self.disk.list(dir);
        if let Err(e) = &listed {
            out.push(format!("{dir}: {:?}", e.raw_os_error()));
        }
        for entry in listed.unwrap_or_default() {
            let path = dir.join(&entry.name);
            let Ok(s) = entry.stat else {
                out.push(format!("{path}: {:?}", entry.stat));
                continue;
            };
            let is_dir = s.kind == FileKind::Dir;
            let size = if is_dir { 0 } else { s.size };
            let nlink = if is_dir && !dir_links { 0 } else { s.nlink };
            let text = match s.kind {
                FileKind::File => done(self.disk.open(&path).and_then(|f| all_of(f.as_ref())), |b| seen(&b)),
                FileKind::Link => done(self.disk.read_link(&path), |b| seen(&b)),
                _ => Ok(String::new()),
            };
            out.push(format!("{path}: {:?} {size} {nlink} {:o} {text:?}", s.kind, s.mode));
            if is_dir {
                self.look(&path, out, dir_links);
            }
        }
    }
}

thread_local! {
    static KEPT: std::cell::RefCell<Option<Box<dyn WriteFile>>> = const { std::cell::RefCell::new(None) };
}

fn all_of(file: &dyn ReadFile) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let n = file.read_at(&mut buffer, 0)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Both disks.
pub struct Pair {
    dir: TempDir,
    watcher: Arc<Watcher>,
    pub model_disk: ModelDisk,
    pub model: Side,
    pub real: Side,
    /// Whether this file system counts subdirectories as links.
    pub dir_links: bool,
    /// Whether it stamps each change that somebody looked at anew, however fast they come (Linux 6.13).
    pub each_change_stamps: bool,
}

impl Pair {
    pub fn new() -> Pair {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let disk = Arc::new(PosixDisk::open(&root).unwrap());
        let watcher = Arc::new(Watcher::new().unwrap());
        let watched = Watched { watcher: watcher.clone(), disk: disk.clone() };
        let as_root = rustix::process::geteuid().is_root();
        let model_disk = ModelDisk::new(Options { as_root, ..Options::default() });
        let dir_links = disk.stat(&RelPath::root()).unwrap().unwrap().nlink == 2;
        let model =
            Side { disk: Arc::new(model_disk.clone()), watch: Box::new(model_disk.clone()), held: None };
        let real = Side { disk, watch: Box::new(watched), held: None };
        let each_change_stamps = stamps_each_change(&dir.path().join("probe"));
        Pair { dir, watcher, model_disk, model, real, dir_links, each_change_stamps }
    }

    /// The same on both; how it ended on the model and on the real one.
    pub fn run(&mut self, op: &Op) -> (Done, Done) {
        let Op::User(op) = op else {
            let model = self.model.run(op);
            self.model.keep();
            let real = self.real.run(op);
            self.real.keep();
            return (model, real);
        };
        let root = self.dir.path().join("root");
        let real = RealUser { root: &root };
        let of_root = matches!(op, UserOp::RemoveAll(_) | UserOp::Chmod(..));
        if op.paths().iter().any(|path| real.through_link(path) || (path.is_root() && !of_root)) {
            // A user would go where the link leads; the model's do not. And the model's root has no name.
            return (Ok(String::new()), Ok(String::new()));
        }
        (model_user(&self.model_disk, op), real.run(op))
    }

    /// What both watchers tell.
    pub fn hints(&self) -> (Vec<Hint>, Vec<Hint>) {
        (self.model_disk.take_events(), self.watcher.read(Duration::ZERO).unwrap())
    }
}

fn stamps_each_change(path: &Path) -> bool {
    let file = File::create(path).unwrap();
    let stamp = || file.metadata().map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    (0..3).all(|_| {
        let before = stamp();
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        stamp() != before
    })
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Or the directory could not be removed by who is not root.
        let _ = open_up(self.dir.path());
    }
}

fn open_up(dir: &Path) -> io::Result<()> {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755))?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn model_user(disk: &ModelDisk, op: &UserOp) -> Done {
    let user = disk.user();
    match op {
        UserOp::Create(p, len) => unit(user.create(p, &content(*len))),
        UserOp::Overwrite(p, len) => unit(user.overwrite_in_place(p, &content(*len))),
        UserOp::WriteAt(p, at, len) => unit(user.write_at(p, *at, &content(*len))),
        UserOp::Append(p, len) => unit(user.append(p, &content(*len))),
        UserOp::Truncate(p, len) => unit(user.truncate(p, *len)),
        UserOp::Save(p, len) => unit(user.save_by_rename(p, &content(*len))),
        UserOp::Rename(a, b) => unit(user.rename(a, b)),
        UserOp::Exchange(a, b) => unit(user.exchange(a, b)),
        UserOp::Unlink(p) => unit(user.unlink(p)),
        UserOp::Rmdir(p) => unit(user.rmdir(p)),
        UserOp::RemoveAll(p) => unit(user.remove_all(p)),
        UserOp::Mkdir(p) => unit(user.mkdir(p)),
        UserOp::Symlink(p) => unit(user.symlink(b"nowhere", p)),
        UserOp::Chmod(p, mode) => unit(user.chmod(p, *mode)),
        UserOp::HardLink(a, b) => unit(user.hard_link(a, b)),
        UserOp::Fifo(p) => unit(user.make_fifo(p)),
        UserOp::Read(p) => done(user.read(p), |b| seen(&b)),
    }
}

/// A user of the real disk.
struct RealUser<'a> {
    root: &'a Path,
}

impl RealUser<'_> {
    fn at(&self, path: &RelPath) -> PathBuf {
        let mut at = self.root.to_path_buf();
        at.extend(path.names().iter().map(|n| std::ffi::OsStr::from_bytes(n.as_bytes())));
        at
    }

    fn through_link(&self, path: &RelPath) -> bool {
        let mut path = path.clone();
        while let Some((parent, _)) = path.split_last() {
            path = parent;
            if std::fs::symlink_metadata(self.at(&path)).is_ok_and(|m| m.is_symlink()) {
                return true;
            }
        }
        false
    }

    fn open(&self, path: &RelPath, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::open(self.at(path), flags, Mode::from_raw_mode(0o644))?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::from_raw_os_error(22)) }
    }

    fn create(&self, path: &RelPath, len: usize) -> io::Result<()> {
        let file = self.open(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        file.write_all_at(&content(len), 0)
    }

    fn run(&self, op: &UserOp) -> Done {
        match op {
            UserOp::Create(p, len) => unit(self.create(p, *len)),
            UserOp::Overwrite(p, len) => unit(self.open(p, OFlags::RDWR).and_then(|f| {
                f.set_len(0)?;
                f.write_all_at(&content(*len), 0)
            })),
            UserOp::WriteAt(p, at, len) => {
                unit(self.open(p, OFlags::RDWR).and_then(|f| f.write_all_at(&content(*len), *at)))
            }
            UserOp::Append(p, len) => unit(self.open(p, OFlags::RDWR).and_then(|f| {
                let end = f.metadata()?.len();
                f.write_all_at(&content(*len), end)
            })),
            UserOp::Truncate(p, len) => {
                let done = unit(self.open(p, OFlags::WRONLY).and_then(|f| f.set_len(*len)));
                // A FIFO that nobody reads cannot be opened; a truncation by path would refuse it as one.
                done.map_err(|e| if e == 6 { 22 } else { e })
            }
            UserOp::Save(p, len) => {
                let (dir, name) = p.split_last().unwrap();
                let temp = dir.join(&Name::new(&[name.as_bytes(), b"~tmp"].concat()).unwrap());
                unit(self.create(&temp, *len).and_then(|()| {
                    let renamed = std::fs::rename(self.at(&temp), self.at(p));
                    renamed.or_else(|e| std::fs::remove_file(self.at(&temp)).and(Err(e)))
                }))
            }
            UserOp::Rename(a, b) => unit(std::fs::rename(self.at(a), self.at(b))),
            UserOp::Exchange(a, b) => {
                let done = fs::renameat_with(fs::CWD, self.at(a), fs::CWD, self.at(b), RenameFlags::EXCHANGE);
                unit(done.map_err(Into::into))
            }
            UserOp::Unlink(p) => unit(std::fs::remove_file(self.at(p))),
            UserOp::Rmdir(p) => unit(std::fs::remove_dir(self.at(p))),
            UserOp::RemoveAll(p) => unit(remove_all(&self.at(p), p.is_root())),
            UserOp::Mkdir(p) => unit(std::fs::create_dir(self.at(p))),
            UserOp::Symlink(p) => unit(std::os::unix::fs::symlink("nowhere", self.at(p))),
            UserOp::Chmod(p, mode) => unit(self.chmod(p, *mode)),
            UserOp::HardLink(a, b) => unit(self.hard_link(a, b)),
            UserOp::Fifo(p) => {
                let mode = Mode::from_raw_mode(0o644);
                unit(fs::mknodat(fs::CWD, self.at(p), FileType::Fifo, mode, 0).map_err(Into::into))
            }
            UserOp::Read(p) => done(self.open(p, OFlags::RDONLY), |f| {
                let mut buffer = vec![0; 64 << 10];
                let n = f.read_at(&mut buffer, 0).unwrap();
                seen(&buffer[..n])
            }),
        }
    }

    fn chmod(&self, path: &RelPath, mode: u16) -> io::Result<()> {
        if std::fs::symlink_metadata(self.at(path))?.is_symlink() {
            return Err(io::Error::from_raw_os_error(40));
        }
        std::fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode.into()))
    }

    fn hard_link(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        std::fs::hard_link(self.at(a), self.at(b))
    }
}

fn remove_all(path: &Path, keep: bool) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return std::fs::remove_file(path);
    }
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(|e| e.file_name());
    entries.iter().try_for_each(|entry| remove_all(&entry.path(), false))?;
    if keep { Ok(()) } else { std::fs::remove_dir(path) }
}
