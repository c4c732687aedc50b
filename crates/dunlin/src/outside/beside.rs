//! What is gathered beside its place, under a hidden name that is nobody's.

use crate::render::size;
use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Hidden names tried, should others be left from commands that were killed.
const NAMES_MAX: u32 = 1000;

/// What is gathered; without [`Beside::finish`] it is gone when this is dropped.
pub(super) struct Beside {
    to: PathBuf,
    at: PathBuf,
    /// The directories made, from `at` down, and the modes they get.
    dirs: BTreeMap<PathBuf, u16>,
    placed: bool,
}

/// A disk that keeps no modes or times keeps the bytes: those are what was asked for.
pub(super) fn or_unable(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

/// An error where the disk of a place says that so many bytes do not fit.
pub(super) fn has_room(to: &Path, bytes: u64) -> io::Result<()> {
    let Some(dir) = to.parent() else { return Ok(()) };
    let space = statvfs(dir)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // Some that are none of a disk have no size at all.
    if space.f_blocks > 0 && free < bytes {
        let why = format!("its disk is full: needs {}, {} free", size(bytes), size(free));
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    Ok(())
}

/// A file that only its user may read until it is done.
pub(super) fn create(at: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)
}

fn sync_dir(at: &Path) -> io::Result<()> {
    File::open(at)?.sync_all()
}

impl Beside {
    /// Begins for a place that is not taken.
    pub(super) fn new(to: &Path) -> io::Result<Beside> {
        let dir = to.parent().unwrap_or(Path::new("/"));
        let pid = std::process::id();
        let names = (0..NAMES_MAX).map(|n| dir.join(format!(".dunlin-restore-{pid}-{n}")));
        for at in names {
            match at.symlink_metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Ok(Beside { to: to.into(), at, dirs: BTreeMap::new(), placed: false });
                }
                Err(e) => return Err(e),
                Ok(_) => {}
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where something goes, with the directories above it made; `None` if something is in its place, or something that is
    /// no directory above it. Nothing here leads through a link: what is above was made here.
    pub(super) fn claim(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        if !path.components().all(|c| matches!(c, Component::Normal(_))) {
            return Ok(None);
        }
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            if !self.dirs.contains_key(dir) {
                let at = self.whole(dir);
                if at.symlink_metadata().is_ok() {
                    return Ok(None);
                }
                self.dir(dir, super::DIR_MODE)?;
            }
        }
        let at = self.whole(path);
        let taken = at.symlink_metadata().is_ok() && !self.dirs.contains_key(path);
        Ok((!taken).then_some(at))
    }

    fn whole(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.at.clone() } else { self.at.join(path) }
    }

    /// Makes a directory that was claimed, or gives it another mode.
    pub(super) fn dir(&mut self, path: &Path, mode: u16) -> io::Result<()> {
        if self.dirs.insert(path.into(), mode).is_none() {
            DirBuilder::new().mode(0o700).create(self.whole(path))?;
        }
        Ok(())
    }

    /// Has the disk keep what is gathered, and gives it its name; an error if something has that by now.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        // From below up: a directory may be one that nobody may write to.
        for (path, mode) in self.dirs.iter().rev() {
            let dir = File::open(self.whole(path))?;
            or_unable(dir.set_permissions(Permissions::from_mode(u32::from(*mode) & 0o777)))?;
            dir.sync_all()?;
        }
        match renameat_with(CWD, &self.at, CWD, &self.to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                self.name_without_that()?;
            }
            Err(e) => return Err(e.into()),
        }
        self.placed = true;
        sync_dir(self.to.parent().unwrap_or(Path::new("/")))
    }

    /// Where the disk cannot rename without replacing.
    fn name_without_that(&self) -> io::Result<()> {
        if self.dirs.is_empty() {
            fs::hard_link(&self.at, &self.to)?;
            return fs::remove_file(&self.at);
        }
        // What it replaces then is this, and only as long as it is empty.
        fs::create_dir(&self.to)?;
        fs::rename(&self.at, &self.to).inspect_err(|_| drop(fs::remove_dir(&self.to)))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        // What cannot be removed is hidden, and named in no answer.
        for path in self.dirs.keys() {
            let _ = fs::set_permissions(self.whole(path), Permissions::from_mode(0o700));
        }
        if self.dirs.is_empty() {
            let _ = fs::remove_file(&self.at);
        } else {
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<String> = all.collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_not_finished_is_gone_and_what_is_there_stays() {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("there");
        let gather = || {
            let mut beside = Beside::new(&to).unwrap();
            let at = beside.claim(Path::new("a/b")).unwrap().unwrap();
            fs::write(at, "b").unwrap();
            beside.dirs.insert("a".into(), 0o500);
            beside
        };
        drop(gather());
        assert!(names(temp.path()).is_empty());
        for without in [false, true] {
            let mut beside = gather();
            fs::write(&to, "a user's").unwrap();
            let named = if without { beside.name_without_that() } else { beside.finish() };
            assert_eq!(named.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            drop(beside);
            assert_eq!(
                (names(temp.path()), fs::read(&to).unwrap()),
                (vec!["there".into()], b"a user's".into())
            );
            fs::remove_file(&to).unwrap();
            let mut beside = gather();
            if without {
                beside.name_without_that().unwrap();
                beside.placed = true;
            } else {
                beside.finish().unwrap();
                assert_eq!(fs::metadata(to.join("a")).unwrap().permissions().mode() & 0o777, 0o500);
            }
            drop(beside);
            assert_eq!(
                (names(temp.path()), fs::read(to.join("a/b")).unwrap()),
                (vec!["there".into()], b"b".into())
            );
            fs::set_permissions(to.join("a"), Permissions::from_mode(0o700)).unwrap();
            fs::remove_dir_all(&to).unwrap();
        }
        // A single file, on a disk that cannot rename without replacing.
        for taken in [true, false] {
            let mut beside = Beside::new(&to).unwrap();
            fs::write(beside.claim(Path::new("")).unwrap().unwrap(), "one").unwrap();
            if taken {
                fs::write(&to, "a user's").unwrap();
            }
            assert_eq!(beside.name_without_that().is_err(), taken);
            beside.placed = !taken;
            drop(beside);
            assert_eq!(fs::read(&to).unwrap(), if taken { "a user's" } else { "one" }.as_bytes());
            assert_eq!(names(temp.path()), ["there"]);
            fs::remove_file(&to).unwrap();
        }
    }

    #[test]
    fn nothing_leads_out_of_it() {
        let temp = tempfile::tempdir().unwrap();
        let victim = temp.path().join("victim");
        fs::create_dir(&victim).unwrap();
        let mut beside = Beside::new(&temp.path().join("to")).unwrap();
        let link = beside.claim(Path::new("d")).unwrap().unwrap();
        std::os::unix::fs::symlink(&victim, link).unwrap();
        assert_eq!(beside.claim(Path::new("d/x")).unwrap(), None, "it is a link");
        for path in ["../x", "/x", "a/../../x"] {
            assert_eq!(beside.claim(Path::new(path)).unwrap(), None, "{path}");
        }
        assert!(names(&victim).is_empty());
    }
}
