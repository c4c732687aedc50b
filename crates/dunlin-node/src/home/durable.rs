//! Files that are there whole or not at all, after a power cut too.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LEFTOVER: &str = ".new";

/// Replaces the file at `path` by `bytes`, durably: a reader, now or after a power cut, sees the old
/// content or the new one. The file is 0600. Blocks on the disk.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temp = temp_name(path)?;
    let written = write_new(&temp, bytes).and_then(|()| fs::rename(&temp, path));
    if let Err(e) = written {
        fs::remove_file(&temp).ok(); // may never have been made; the error that counts is `e`
        return Err(e);
    }
    sync_dir(parent)
}

/// Removes the file at `path`, durably; a missing one is fine. Blocks on the disk.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// Opens a file that is 0600 whatever the umask and whatever it was; never through a link.
pub(super) fn private_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.mode(0o600).custom_flags(no_follow).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether the file is what a killed [`write_atomic`] left.
pub(super) fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with('.') && name.ends_with(LEFTOVER)
}

fn write_new(temp: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_file(OpenOptions::new().write(true).create_new(true), temp)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name beside `path` that no other writer uses, of this process or another.
fn temp_name(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.{}-{count}{LEFTOVER}", std::process::id())))
}
