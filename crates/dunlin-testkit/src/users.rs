//! Users who work in a folder at random, and book what they do.
//!
//! They write atomically: a content is whole before it has its name. What they replace or remove they
//! take out of the folder first, by an exchange or a rename, so that they know what it was.

use crate::tree::hash_of;
use crate::{Dice, Ledger, link_content, noise};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Names that users give; few, so that they meet.
const NAMES: &[&str] = &["a", "b.txt", "c", "d", "e", "with space", "g.tar.gz", "ümlaut"];

/// How deep users nest directories.
const DEPTH: usize = 4;

/// What is larger is not appended to.
const APPEND_MAX: u64 = 256 << 10;

/// One user on one device.
pub struct User {
    name: String,
    root: PathBuf,
    /// Outside the folder, on the same file system.
    scratch: PathBuf,
    ledger: Arc<Ledger>,
    dice: Dice,
    count: u64,
    /// Whether each content and its name are made durable at once.
    pub careful: bool,
    /// Whether anything is deleted or replaced; else only created, edited and renamed.
    pub gentle: bool,
    /// The longest content, in bytes.
    pub longest: u64,
}

/// The kernel writes in steps of so many bytes, or of a multiple.
const PAGE: usize = 4096;

impl User {
    /// A user of the folder `root`; `scratch` is made where it is missing.
    pub fn new(name: &str, root: &Path, scratch: &Path, ledger: Arc<Ledger>, dice: Dice) -> User {
        fs::create_dir_all(scratch).unwrap();
        User {
            name: name.into(),
            root: root.into(),
            scratch: scratch.into(),
            ledger,
            dice,
            count: 0,
            careful: false,
            gentle: false,
            longest: 3 << 20,
        }
    }

    /// Does one thing, or finds that it cannot be done.
    pub fn act(&mut self) {
        let (dir, depth) = self.some_dir();
        let path = self.some_path(&dir);
        let _ = match self.dice.below(if self.gentle { 50 } else { 100 }) {
            0..16 => self.save(&path),
            16..24 => self.append(&path),
            24..32 => self.rename(&path),
            32..38 if depth < DEPTH => fs::create_dir(&path),
            38..42 => self.chmod(&path),
            42..45 => self.touch(&path),
            45..50 => self.copy(&path),
            50..62 => self.save(&path),
            62..68 => self.link(&path),
            68..72 => self.swap(&path),
            72..76 => self.become_dir(&path),
            76..84 => self.take_away(&path),
            84..88 => self.remove(&path),
            _ => {
                let name = format!("n{}", self.dice.below(12));
                self.save(&dir.join(name))
            }
        };
    }

    /// A directory of the folder, and how deep it is.
    fn some_dir(&mut self) -> (PathBuf, usize) {
        let (mut dir, mut depth) = (self.root.clone(), 0);
        while depth < DEPTH && !self.dice.one_in(3) {
            let is_dir = |e: &fs::DirEntry| {
                e.file_type().is_ok_and(|t| t.is_dir()) && e.file_name() != OsStr::new(".dunlin")
            };
            let Ok(entries) = fs::read_dir(&dir) else { break };
            let mut below: Vec<PathBuf> = entries.flatten().filter(is_dir).map(|e| e.path()).collect();
            below.sort();
            if below.is_empty() {
                break;
            }
            dir = self.dice.pick(&below).clone();
            depth += 1;
        }
        (dir, depth)
    }

    /// What is there, or a name of the pool.
    fn some_path(&mut self, dir: &Path) -> PathBuf {
        if self.dice.one_in(2) {
            let names = fs::read_dir(dir).map(|all| all.flatten().map(|e| e.path()).collect::<Vec<_>>());
            let mut there = names.unwrap_or_default();
            there.retain(|p| p.file_name() != Some(OsStr::new(".dunlin")));
            there.sort();
            if !there.is_empty() {
                return self.dice.pick(&there).clone();
            }
        }
        dir.join(self.dice.pick(NAMES))
    }

    fn next_scratch(&mut self) -> PathBuf {
        self.count += 1;
        self.scratch.join(self.count.to_string())
    }

    fn below_root(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes().escape_ascii().to_string()
    }

    /// Bytes that nobody wrote before.
    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.dice.below(30) {
            0 => self.dice.below(self.longest),
            1..4 => self.dice.below(self.longest.min(100_000)),
            _ => self.dice.below(6000),
        };
        let mut bytes = format!("{} {}\n", self.name, self.dice.next()).into_bytes();
        bytes.extend(noise(self.dice.next(), len as usize));
        bytes
    }

    fn save(&mut self, path: &Path) -> std::io::Result<()> {
        let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
        if is_dir && (self.gentle || !self.dice.one_in(6)) {
            return Ok(());
        }
        let bytes = self.bytes();
        self.put(path, &bytes)
    }

    /// Writes these bytes under this name, whatever was there.
    pub fn put(&mut self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let temp = self.next_scratch();
        let written = self.prepare(&temp, bytes);
        let content = blake3::hash(bytes);
        self.ledger.announce(content);
        if let Err(e) = written.and_then(|()| self.place(&temp, path)) {
            // It is no matter whether the rest of an attempt stays beside the folder.
            let _ = fs::remove_file(&temp);
            return Err(e);
        }
        self.ledger.wrote(content, bytes.len() as u64, &self.name, &self.below_root(path));
        self.dispose(&temp, "replaced");
        self.settle_on_disk(path, &content)
    }

    fn prepare(&self, temp: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = fs::File::create(temp)?;
        file.write_all(bytes)?;
        if self.careful { file.sync_all() } else { Ok(()) }
    }

    fn settle_on_disk(&self, path: &Path, content: &blake3::Hash) -> std::io::Result<()> {
        if self.careful {
            // A directory that was just made is durable with its ancestors only.
            for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root)) {
                fs::File::open(dir)?.sync_all()?;
            }
            self.ledger.durable(content);
        }
        Ok(())
    }

    /// Gives `temp` the name; what had it is at `temp` then.
    fn place(&self, temp: &Path, path: &Path) -> std::io::Result<()> {
        match renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => renameat_with(CWD, temp, CWD, path, RenameFlags::EXCHANGE)?,
            other => other?,
        }
        Ok(())
    }

    /// What is in hand is let go.
    fn dispose(&self, path: &Path, how: &str) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        let gone = if meta.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.dispose(&entry.path(), how);
            }
            fs::remove_dir(path)
        } else if meta.is_symlink() {
            let text = fs::read_link(path).unwrap_or_default();
            self.ledger.let_go(link_content(text.as_os_str().as_bytes()), &self.name, how);
            fs::remove_file(path)
        } else {
            if let Ok(content) = fs::File::open(path).and_then(|mut file| hash_of(&mut file)) {
                self.ledger.let_go(content, &self.name, how);
            }
            fs::remove_file(path)
        };
        // What stays beside the folder harms nothing.
        drop(gone);
    }

    /// Writes over a file in place, as editors do that cut it to nothing first; rests `pause` in between. Makes it where
    /// there is none.
    pub fn overwrite(&mut self, path: &Path, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
        let mut options = fs::File::options();
        options.read(true).write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let content = blake3::hash(bytes);
        self.ledger.allow(b"");
        self.ledger.announce(content);
        let (mut file, before) = match options.open(path) {
            Ok(mut file) => {
                let before = hash_of(&mut file)?;
                file.set_len(0)?;
                file.rewind()?;
                (file, Some(before))
            }
            Err(_) => (options.create_new(true).open(path)?, None),
        };
        std::thread::sleep(pause);
        // Who reads meanwhile may see a file that grows page by page.
        (PAGE..bytes.len()).step_by(PAGE).for_each(|end| self.ledger.allow(&bytes[..end]));
        file.write_all(bytes)?;
        self.ledger.wrote(content, bytes.len() as u64, &self.name, &self.below_root(path));
        if let Some(before) = before {
            self.ledger.let_go(before, &self.name, "written over");
        }
        Ok(())
    }

    /// Removes a file by taking it out of the folder, so that it is known what was removed.
    pub fn take(&mut self, path: &Path) -> std::io::Result<()> {
        let temp = self.next_scratch();
        renameat_with(CWD, path, CWD, &temp, RenameFlags::NOREPLACE)?;
        self.dispose(&temp, "removed");
        Ok(())
    }

    /// Appends in place, with one write, through a descriptor that holds the file whatever happens to its name.
    fn append(&mut self, path: &Path) -> std::io::Result<()> {
        let mut file = fs::File::options()
            .read(true)
            .append(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        if !file.metadata()?.is_file() || file.metadata()?.len() > APPEND_MAX {
            return Ok(());
        }
        let mut all = Vec::new();
        file.read_to_end(&mut all)?;
        let before = blake3::hash(&all);
        let line = format!("appended by {} {}\n", self.name, self.dice.next());
        all.extend_from_slice(line.as_bytes());
        let content = blake3::hash(&all);
        self.ledger.announce(content);
        if file.write(line.as_bytes())? != line.len() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.ledger.wrote(content, all.len() as u64, &self.name, &self.below_root(path));
        self.ledger.let_go(before, &self.name, "appended to");
        if self.careful {
            file.sync_all()?;
            self.ledger.durable(&content);
        }
        Ok(())
    }

    fn rename(&mut self, path: &Path) -> std::io::Result<()> {
        let (dir, _) = self.some_dir();
        let to = dir.join(self.dice.pick(NAMES));
        Ok(renameat_with(CWD, path, CWD, &to, RenameFlags::NOREPLACE)?)
    }

    fn swap(&mut self, path: &Path) -> std::io::Result<()> {
        let (dir, _) = self.some_dir();
        let other = self.some_path(&dir);
        Ok(renameat_with(CWD, path, CWD, &other, RenameFlags::EXCHANGE)?)
    }

    fn copy(&mut self, path: &Path) -> std::io::Result<()> {
        if !fs::symlink_metadata(path)?.is_file() {
            return Ok(());
        }
        let bytes = fs::read(path)?;
        let (dir, _) = self.some_dir();
        let to = dir.join(self.dice.pick(NAMES));
        if self.gentle && fs::symlink_metadata(&to).is_ok() {
            return Ok(());
        }
        self.put(&to, &bytes)
    }

    fn link(&mut self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            return Ok(());
        }
        let (temp, text) = (self.next_scratch(), format!("{} {}", self.name, self.dice.next()));
        std::os::unix::fs::symlink(&text, &temp)?;
        let content = link_content(text.as_bytes());
        self.ledger.announce(content);
        self.place(&temp, path)?;
        self.ledger.wrote(content, text.len() as u64, &self.name, &self.below_root(path));
        self.dispose(&temp, "replaced by a link");
        self.settle_on_disk(path, &content)
    }

    /// A directory with a file in it takes the place of what is there.
    fn become_dir(&mut self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            return Ok(());
        }
        let (temp, bytes) = (self.next_scratch(), self.bytes());
        fs::create_dir(&temp)?;
        self.prepare(&temp.join("inside"), &bytes)?;
        let content = blake3::hash(&bytes);
        self.ledger.announce(content);
        if self.careful {
            fs::File::open(&temp)?.sync_all()?;
        }
        self.place(&temp, path)?;
        self.ledger.wrote(content, bytes.len() as u64, &self.name, &self.below_root(&path.join("inside")));
        self.dispose(&temp, "replaced by a directory");
        self.settle_on_disk(path, &content)
    }

    /// Removes whatever is there by moving it out as a whole.
    fn take_away(&mut self, path: &Path) -> std::io::Result<()> {
        let big = fs::symlink_metadata(path)?.is_dir() && !self.dice.one_in(3);
        if !big {
            let temp = self.next_scratch();
            renameat_with(CWD, path, CWD, &temp, RenameFlags::NOREPLACE)?;
            self.dispose(&temp, "taken away");
        }
        Ok(())
    }

    /// Removes piece by piece, as `rm -r` does.
    fn remove(&mut self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)?.flatten() {
                self.remove(&entry.path())?;
            }
            return fs::remove_dir(path);
        }
        self.take(path)
    }

    fn chmod(&mut self, path: &Path) -> std::io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let mode = match (meta.is_dir(), meta.is_file()) {
            (true, _) => *self.dice.pick(&[0o755, 0o700, 0o750]),
            (_, true) => *self.dice.pick(&[0o644, 0o600, 0o755, 0o664]),
            _ => return Ok(()),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn touch(&mut self, path: &Path) -> std::io::Result<()> {
        if fs::symlink_metadata(path)?.is_file() {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(self.dice.below(2_000_000_000));
            fs::File::open(path)?.set_modified(at)?;
        }
        Ok(())
    }
}

/// Users at work, each on a thread.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<User>>,
}

impl Crowd {
    /// All begin; each rests up to `pause` between two things it does.
    pub fn begin(users: Vec<User>, pause: Duration) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |mut user: User| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    user.act();
                    let rest = user.dice.below(pause.as_micros() as u64);
                    std::thread::sleep(Duration::from_micros(rest));
                }
                user
            })
        };
        let threads = users.into_iter().map(work).collect();
        Crowd { stop, threads }
    }

    /// All rest.
    pub fn end(mut self) -> Vec<User> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.threads).into_iter().map(|t| t.join().unwrap()).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
