//! Undoing a state directory that came to nothing: a command that failed to share or join leaves no
//! key behind where there was none.

use super::{LockedHome, socket};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The files a node makes beside its folders; the lock goes last, on its own.
const FILES: &[&str] = &["device.key", "name", "addresses.json"];

/// What was there before a command made a state directory, or its first key.
#[derive(Debug)]
pub struct Fresh {
    /// The directories that were missing, the deepest first.
    missing: Vec<PathBuf>,
    /// What the state directory held.
    held: BTreeSet<OsString>,
}

impl Fresh {
    /// Looks at what is there now.
    pub fn look(dir: &Path) -> Fresh {
        let missing = dir.ancestors().take_while(|d| fs::symlink_metadata(d).is_err());
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        Fresh {
            missing: missing.map(Path::to_path_buf).collect(),
            held: entries.map(|e| e.file_name()).collect(),
        }
    }

    /// Removes what was made since, unless the device had a key before, or has the state of a folder
    /// by now. What cannot be removed stays: the error that led here is what is told.
    pub fn undo(&self, locked: &LockedHome) {
        let all = locked.dir.join("folders");
        let in_use = fs::read_dir(&all).is_ok_and(|mut entries| entries.next().is_some());
        if self.had("device.key") || in_use || !locked.is_in_place() {
            return;
        }
        fs::remove_dir(all).ok();
        for name in FILES.iter().filter(|name| !self.had(name)) {
            fs::remove_file(locked.dir.join(name)).ok();
        }
        socket::unbind(locked);
        if !self.had("lock") {
            // Whoever waits for it sees that it is another one, or none, and looks anew.
            fs::remove_file(locked.dir.join("lock")).ok();
        }
        self.remove_directories();
    }

    /// Removes the directories that were made since, as far as they are empty.
    pub fn remove_directories(&self) {
        for dir in &self.missing {
            if fs::remove_dir(dir).is_err() && dir.exists() {
                return;
            }
        }
    }

    fn had(&self, name: &str) -> bool {
        self.held.contains(std::ffi::OsStr::new(name))
    }
}
