//! What the history lends. Where there is no room for a copy, a version that is wanted again is moved from the history
//! to the contents that are staged. It may be all that is left of it: from there it goes to its place, or back.
//!
//! Its name in `stage` tells that it is lent, so that this is known after a crash. Each way is one rename: at every moment
//! it is in the history, in `stage`, in `swap` under the name of its content, or in its place. Where a power cut brings
//! an earlier name of it back, it has two; then that in `stage` or `swap` goes.

use super::durable::Staged;
use super::settle::content_in;
use super::{Stage, control};
use crate::disk::{FileKind, Rename};
use dunlin_core::ids::ContentId;
use dunlin_core::path::{Name, RelPath};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

/// How the name of a lent content ends in `stage`.
const LENT: &[u8] = b".lent";

/// Contents that are lent, and what they were called in the history, if that is known.
pub(super) type Lent = BTreeMap<ContentId, Option<Name>>;

pub(super) fn is_lent_name(name: &Name) -> bool {
    name.as_bytes().ends_with(LENT)
}

impl Stage {
    pub(super) fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a content that is staged, or about to be placed, is lent by the history. Somebody who opened the file
    /// while it was in the folder may write to it still.
    pub fn is_lent(&self, content: &ContentId) -> bool {
        self.lent().contains_key(content)
    }

    pub(super) fn lent_path(content: &ContentId) -> RelPath {
        control(&["stage", &format!("{content}.lent")])
    }

    /// Stages a content that the history holds without a copy, for which there is no room: what it holds is moved, if
    /// it is that. Tells whether the content is staged.
    ///
    /// # Errors
    /// Those of the disk; nothing is lost then.
    pub fn lend(&self, content: &ContentId) -> io::Result<bool> {
        if self.has(content) {
            return Ok(true);
        }
        let (history, to) = (control(&["history"]), Stage::lent_path(content));
        for name in self.entries_of(content)? {
            let from = history.join(&name);
            // Another name of it would change with what is placed, and after a power cut say that it was placed already.
            let is_alone = self.disk.stat(&from)?.is_some_and(|s| s.kind == FileKind::File && s.nlink == 1);
            if !is_alone || !self.is_held(&from, content) {
                continue;
            }
            self.used.store(true, Ordering::Relaxed);
            if self.disk.stat(&to)?.is_some() {
                self.take_back(&to, &name, Some(*content))?;
            }
            self.disk.rename(&from, &to, Rename::NoReplace)?;
            self.known().remove(content, &name);
            self.lent().insert(*content, Some(name));
            self.whole().insert(*content, Staged::default());
            // What there is of a copy only takes room; if it cannot go now, it does when nothing is wanted any more.
            let _ = self.drop_part(content);
            // The old name may not come back beside the place in the folder that it gets next. Where this fails, a
            // power cut may leave one too many; that is put right then.
            let _ = self.disk.sync_dir(&control(&["stage"])).and_then(|()| self.disk.sync_dir(&history));
            return Ok(true);
        }
        Ok(false)
    }

    /// A lent content goes back to the history; `holds` says what it is by now.
    pub(super) fn give_back(&self, content: &ContentId, holds: ContentId) -> io::Result<()> {
        let (path, name) = (Stage::lent_path(content), Name::new(content.to_string().as_bytes()));
        self.take_back(&path, &name.map_err(io::Error::other)?, Some(holds))
    }

    /// What lies in `stage` under the name of a lent content goes back to the history: under the name that it had there,
    /// if that is known and still true.
    pub(super) fn take_back(&self, path: &RelPath, name: &Name, holds: Option<ContentId>) -> io::Result<()> {
        let content = path.split_last().and_then(|(_, name)| content_in(name));
        let before =
            content.filter(|c| Some(*c) == holds).and_then(|c| self.lent().get(&c).cloned().flatten());
        let back = before.map(|name| (control(&["history"]).join(&name), name));
        match back {
            Some((to, name)) if self.disk.rename(path, &to, Rename::NoReplace).is_ok() => {
                content.iter().for_each(|content| self.known().insert_again(content, name.clone()));
            }
            // The name was taken meanwhile, or is not known: it gets a new one.
            _ => drop(self.keep(path, name, holds)?),
        }
        if let Some(content) = content {
            self.whole().remove(&content);
            self.lent().remove(&content);
        }
        Ok(())
    }

    /// At a start: what was lent counts as staged again if it is what its name says. Anything else goes to the history.
    pub(super) fn admit_lent(&self, path: &RelPath, name: &Name, reads: bool) -> io::Result<()> {
        let content = content_in(name);
        let held = if reads { self.held(path).ok().flatten() } else { None };
        match content.filter(|_| held == content) {
            Some(content) => {
                self.lent().insert(content, None);
                self.whole().insert(content, Staged::default());
                Ok(())
            }
            // What was not read, or cannot be, is found there by its name, and verified by whoever wants it.
            None => self.take_back(path, name, held.or(content)),
        }
    }

    /// Looks once more at a lent content just before it is placed: somebody may have written to it. It goes back then, as
    /// what it holds by now.
    ///
    /// # Errors
    /// It is not what it was, or cannot be read.
    pub fn verify_lent(&self, path: &RelPath, content: &ContentId) -> io::Result<()> {
        let held = self.held(path)?;
        if held.as_ref() == Some(content) {
            return Ok(());
        }
        if let Some(held) = held.filter(|_| *path == Stage::lent_path(content)) {
            self.give_back(content, held)?;
        }
        Err(io::Error::other("somebody wrote to a version that the history holds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::posix::PosixDisk;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn id(bytes: &[u8]) -> ContentId {
        ContentId(*blake3::hash(bytes).as_bytes())
    }

    fn open(dir: &Path) -> Stage {
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk::open(dir).unwrap());
        Stage::open(disk).unwrap()
    }

    /// Has the history keep a file that holds this; where it lies.
    fn keep(dir: &Path, stage: &Stage, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(dir.join(name), bytes).unwrap();
        let name = Name::new(name.as_bytes()).unwrap();
        dir.join(stage.keep(&RelPath::root().join(&name), &name, Some(id(bytes))).unwrap().to_string())
    }

    fn names(dir: &Path, of: &str) -> Vec<String> {
        let entries = std::fs::read_dir(dir.join(".dunlin").join(of)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_lent_goes_back_as_it_was_unless_it_is_placed() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, stage) = (dir.path(), open(dir.path()));
        let kept = keep(dir, &stage, "f", b"old");
        let content = id(b"old");
        assert!(!stage.lend(&id(b"never")).unwrap());
        drop(stage.open_part(&content).unwrap());
        assert!(stage.lend(&content).unwrap() && stage.has(&content) && !kept.exists());
        assert_eq!(names(dir, "stage"), [format!("{content}.lent")], "its part goes");
        assert_eq!(std::fs::read(dir.join(stage.path(&content).to_string())).unwrap(), b"old");
        assert!(stage.kept(&content).is_none());
        // Not wanted any more.
        stage.clear(&|_| false).unwrap();
        assert!(kept.exists() && !stage.has(&content) && stage.kept(&content).is_some());
        // Somebody had a copy made of it meanwhile: it is not exchanged for that.
        assert!(stage.lend(&content).unwrap());
        stage.open_part(&content).unwrap().0.write_at(b"old", 0).unwrap();
        stage.finish_part(content).unwrap();
        assert_eq!(names(dir, "stage"), [format!("{content}.lent")]);
        // What could not be made durable, too.
        stage.forget(&content);
        assert!(kept.exists() && !stage.has(&content));
        // Taken out and put back it still is the history's; placed it is not.
        assert!(stage.lend(&content).unwrap());
        let at = stage.take(&content, "").unwrap();
        stage.put_back(content, &at).unwrap();
        assert!(stage.has(&content) && stage.is_lent(&content));
        let at = stage.take(&content, "").unwrap();
        std::fs::rename(dir.join(at.to_string()), dir.join("f")).unwrap();
        stage.placed(&at, &content);
        stage.put(content, b"old", None).unwrap();
        assert_eq!(names(dir, "stage"), [content.to_string()]);
        stage.clear(&|_| false).unwrap();
        assert!(names(dir, "stage").is_empty() && names(dir, "history").is_empty());
    }

    #[test]
    fn only_what_is_that_and_has_no_other_name_is_lent_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, stage) = (dir.path(), open(dir.path()));
        let content = id(b"old");
        let [one, two, three] = ["1", "2", "3"].map(|name| keep(dir, &stage, name, b"old"));
        std::fs::write(&three, b"odd").unwrap();
        std::fs::hard_link(&two, dir.join("a user's")).unwrap();
        assert!(stage.lend(&content).unwrap());
        assert_eq!((one.exists(), two.exists(), three.exists()), (false, true, true));
        drop(stage.take(&content, "").unwrap());
        assert!(!stage.lend(&content).unwrap());
        std::fs::remove_file(dir.join("a user's")).unwrap();
        assert!(stage.lend(&content).unwrap() && !two.exists());
    }

    #[test]
    fn what_is_lent_outlives_every_end_of_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, stage) = (dir.path(), open(dir.path()));
        let contents = [&b"staged"[..], b"taken out", b"written to", b"two names"];
        for bytes in contents {
            keep(dir, &stage, "f", bytes);
            assert!(stage.lend(&id(bytes)).unwrap());
        }
        let path = |bytes: &[u8]| dir.join(stage.path(&id(bytes)).to_string());
        stage.take(&id(b"taken out"), "").unwrap();
        std::fs::write(path(b"written to"), b"through an old handle").unwrap();
        // A power cut brought its name in the history back.
        let back = dir.join(".dunlin/history").join(format!("0~{:.16}~f", id(b"two names").to_string()));
        std::fs::hard_link(path(b"two names"), &back).unwrap();
        let stage = open(dir);
        assert!(stage.has(&id(b"staged")) && stage.has(&id(b"taken out")), "{:?}", names(dir, "stage"));
        assert!(!stage.has(&id(b"written to")) && stage.kept(&id(b"through an old handle")).is_some());
        assert!(!stage.has(&id(b"two names")) && stage.kept(&id(b"two names")).is_some());
        // Nothing wants them: they go back, and the next life finds them there too.
        stage.clear(&|_| false).unwrap();
        assert!(names(dir, "stage").is_empty() && names(dir, "swap").is_empty());
        let stage = open(dir);
        for bytes in [&b"staged"[..], b"taken out", b"two names"] {
            assert!(stage.kept(&id(bytes)).is_some(), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(names(dir, "history").len(), 4);
    }

    #[test]
    fn what_somebody_wrote_to_just_before_it_is_placed_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, stage) = (dir.path(), open(dir.path()));
        keep(dir, &stage, "f", b"old");
        assert!(stage.lend(&id(b"old")).unwrap());
        let path = stage.path(&id(b"old"));
        stage.verify_lent(&path, &id(b"old")).unwrap();
        std::fs::write(dir.join(path.to_string()), b"new").unwrap();
        assert!(stage.verify_lent(&path, &id(b"old")).is_err());
        assert!(!stage.has(&id(b"old")) && stage.kept(&id(b"new")).is_some());
    }
}
