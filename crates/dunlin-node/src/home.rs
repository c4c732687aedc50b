//! The state directory ("home"): where a node keeps its key, its name, its lock, its socket and one
//! directory of state per folder. Never inside a shared folder.
//!
//! The directory is 0700 and ours, else it is refused; every file in it is 0600 whatever the umask.
//!
//! ```text
//! lock          held (flock) by the one running node; holds its process id
//! device.key    32 random bytes, the device's secret key
//! name          the name given with --name; absent: the host's name
//! control.sock  the API's socket, or a link to it where the path is too long for one
//! folders/<id>/ the state of one folder
//! ```

mod durable;
mod fresh;
mod socket;

pub use durable::{remove_durably, write_atomic};
pub use fresh::Fresh;

use dunlin_core::path::Escaped;
use rustix::fs::FlockOperation;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest device name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// How long [`Home::lock`] tries: longer than [`Home::is_locked`] of another process holds it shared.
const LOCK_PATIENCE: Duration = Duration::from_millis(150);

/// What can be wrong with a state directory.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither a directory given nor any variable to derive one from.
    #[error("there is no place for the state directory: HOME is not set")]
    NoPlace,
    /// The path names something else.
    #[error("the state directory {} is not a directory", shown(.0))]
    NotADirectory(PathBuf),
    /// Others may read or enter it.
    #[error("the state directory {} is open to other users (mode {mode:04o})", shown(.path))]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("the state directory {} belongs to another user (uid {owner})", shown(.path))]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The user id it belongs to.
        owner: u32,
    },
    /// Another node holds the lock.
    #[error("a node already runs on {}{}", shown(.path), .pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, where it could be told.
        pid: Option<u32>,
    },
    /// `device.key` is not 32 bytes. It is never replaced by itself: that would be another device.
    #[error("the device key {} is damaged", shown(.0))]
    KeyDamaged(PathBuf),
    /// The name cannot be a device's.
    #[error("{0}")]
    BadName(#[from] NameProblem),
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", shown(.path))]
    Io {
        /// What was tried, as a verb phrase.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn shown(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_bytes())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_path_buf();
    move |source| HomeError::Io { doing, path, source }
}

/// Why a text cannot be a device's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Nothing but white space.
    #[error("a device name must not be empty")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("a device name must not be longer than {NAME_CHARS_MAX} characters")]
    TooLong,
    /// A control character or one that changes the direction of writing.
    #[error("a device name must not hold control characters")]
    Control,
}

/// Checks a device name: 1 to [`NAME_CHARS_MAX`] characters, none of which steers a terminal. White
/// space at the ends is dropped.
pub fn check_name(name: &str) -> Result<String, NameProblem> {
    let name = name.trim();
    if name.is_empty() {
        return Err(NameProblem::Empty);
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(NameProblem::TooLong);
    }
    if Escaped(name.as_bytes()).to_string() != name {
        return Err(NameProblem::Control);
    }
    Ok(name.to_owned())
}

/// A state directory that exists, is ours and is closed to others.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Where the state directory is: `given`, else `DUNLIN_HOME`, else `XDG_STATE_HOME/dunlin`, else
    /// `~/.local/state/dunlin`. `var` looks a variable up; empty ones count as unset, and a relative
    /// `XDG_STATE_HOME` is ignored as its specification asks.
    pub fn resolve(
        given: Option<&Path>,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<PathBuf, HomeError> {
        let var = |key| var(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = if let Some(dir) = given {
            dir.to_path_buf()
        } else if let Some(dir) = var("DUNLIN_HOME") {
            dir
        } else if let Some(state) = var("XDG_STATE_HOME").filter(|p| p.is_absolute()) {
            state.join("dunlin")
        } else {
            var("HOME").ok_or(HomeError::NoPlace)?.join(".local/state/dunlin")
        };
        std::path::absolute(&dir).map_err(io_error("find", &dir))
    }

    /// Opens the state directory, creating it (and what leads to it) where it is missing.
    pub fn open(dir: &Path) -> Result<Home, HomeError> {
        if fs::metadata(dir).is_err() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
            let parent = dir.parent().unwrap_or(Path::new("/"));
            durable::sync_dir(parent).map_err(io_error("create", dir))?;
        }
        Home::find(dir)?.ok_or_else(|| io_error("find", dir)(io::ErrorKind::NotFound.into()))
    }

    /// Opens the state directory if it exists, and creates nothing.
    pub fn find(dir: &Path) -> Result<Option<Home>, HomeError> {
        let dir = match fs::canonicalize(dir) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("find", dir)(e)),
        };
        check_private(&dir)?;
        Ok(Some(Home { dir }))
    }

    /// The directory, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Becomes the one node on this state directory. The lock ends with the process, however that
    /// ends, so there is no stale one.
    pub fn lock(&self) -> Result<LockedHome, HomeError> {
        let until = Instant::now() + LOCK_PATIENCE;
        let (path, mut file) = loop {
            let (path, mut file) = self.lock_file()?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => break (path, file),
                // One that was removed is nobody's.
                Ok(()) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(e) => return Err(io_error("lock", &path)(e.into())),
            }
            if Instant::now() >= until {
                return Err(HomeError::Locked { path: self.dir.clone(), pid: read_pid(&mut file) });
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let pid = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{pid}"))
            .map_err(io_error("write", &path))?;
        let locked = LockedHome { home: self.clone(), lock: file };
        locked.sweep()?;
        Ok(locked)
    }

    /// Whether a node holds this state directory now.
    pub fn is_locked(&self) -> Result<bool, HomeError> {
        let (path, file) = self.lock_file()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(io_error("lock", &path)(e.into())),
        }
    }

    fn lock_file(&self) -> Result<(PathBuf, File), HomeError> {
        let path = self.dir.join("lock");
        let file = durable::private_file(OpenOptions::new().read(true).write(true).create(true), &path)
            .map_err(io_error("open", &path))?;
        Ok((path, file))
    }

    /// The device's name: the stored one, else the host's.
    pub fn name(&self) -> Result<String, HomeError> {
        let path = self.dir.join("name");
        match fs::read_to_string(&path) {
            Ok(name) => Ok(check_name(&name).unwrap_or_else(|_| host_name())),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(host_name()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(host_name()),
            Err(e) => Err(io_error("read", &path)(e)),
        }
    }

    /// Stores the device's name; a running node takes it up when it starts next.
    pub fn set_name(&self, name: &str) -> Result<(), HomeError> {
        let name = check_name(name)?;
        let path = self.dir.join("name");
        write_atomic(&path, format!("{name}\n").as_bytes()).map_err(io_error("write", &path))
    }
}

/// A state directory held by this process until dropped.
#[derive(Debug)]
pub struct LockedHome {
    home: Home,
    lock: File,
}

impl Deref for LockedHome {
    type Target = Home;
    fn deref(&self) -> &Home {
        &self.home
    }
}

impl LockedHome {
    /// The device's secret key, made at first use and durable before it is returned.
    pub fn device_key(&self) -> Result<[u8; 32], HomeError> {
        let path = self.dir.join("device.key");
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| HomeError::KeyDamaged(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = random_bytes().map_err(io_error("draw random bytes for", &path))?;
                write_atomic(&path, &key).map_err(io_error("write", &path))?;
                Ok(key)
            }
            Err(e) => Err(io_error("read", &path)(e)),
        }
    }

    /// The directory with the state of one folder, created where it is missing. `id` is the folder's
    /// id as lower-case hex; anything else is refused, so no id leads out of `folders/`.
    pub fn folder_dir(&self, id: &str) -> Result<PathBuf, HomeError> {
        let all = self.dir.join("folders");
        let dir = all.join(id);
        if !is_folder_id(id) {
            return Err(io_error("use", &dir)(io::ErrorKind::InvalidInput.into()));
        }
        for (dir, parent) in [(&all, &self.dir), (&dir, &all)] {
            match DirBuilder::new().mode(0o700).create(dir) {
                Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o700))
                    .and_then(|()| durable::sync_dir(parent))
                    .map_err(io_error("create", dir))?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create", dir)(e)),
            }
        }
        Ok(dir)
    }

    /// The ids of all folders that have a directory of state, in order.
    pub fn folder_ids(&self) -> Result<Vec<String>, HomeError> {
        let all = self.dir.join("folders");
        let entries = match fs::read_dir(&all) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("list", &all)(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(io_error("list", &all))?.file_name();
            ids.extend(name.to_str().filter(|id| is_folder_id(id)).map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// Whether the directory is still where it was: it may have been removed meanwhile, and another
    /// node may have made a new one.
    fn is_in_place(&self) -> bool {
        is_at(&self.lock, &self.dir.join("lock"))
    }

    /// Removes what a killed writer left; nobody else writes here now.
    fn sweep(&self) -> Result<(), HomeError> {
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            if durable::is_leftover(&path) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Whether `text` has the form of a folder id: 16 to 128 lower-case hex digits.
pub fn is_folder_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn check_private(dir: &Path) -> Result<(), HomeError> {
    let meta = fs::metadata(dir).map_err(io_error("look at", dir))?;
    if !meta.is_dir() {
        return Err(HomeError::NotADirectory(dir.to_path_buf()));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(HomeError::Foreign { path: dir.to_path_buf(), owner: meta.uid() });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(HomeError::Exposed { path: dir.to_path_buf(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

fn is_at(file: &File, path: &Path) -> bool {
    let (here, there) = (file.metadata(), fs::symlink_metadata(path));
    here.is_ok_and(|a| there.is_ok_and(|b| (a.dev(), a.ino()) == (b.dev(), b.ino())))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The host's name, made to fit [`check_name`].
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|&c| check_name(&format!("x{c}x")).is_ok())
        .take(NAME_CHARS_MAX)
        .collect();
    check_name(&name).unwrap_or_else(|_| "device".to_owned())
}

/// 32 bytes that nobody can guess.
pub(crate) fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
