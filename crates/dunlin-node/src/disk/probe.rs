//! What the file system below a folder can do, found out by trying.
//!
//! Names of file systems say little: FUSE, network and overlay file systems differ by version and mount
//! option. So every start tries, inside the control directory.

use super::{Disk, FileTime, Rename};
use dunlin_core::keeps::Keeps;
use dunlin_core::path::{Name, RelPath};
use std::io;

/// The directory, below the control directory, in which is tried.
const DIR: &[u8] = b"probe";

/// How names that are no text are refused where all have to be.
const EILSEQ: i32 = rustix::io::Errno::ILSEQ.raw_os_error();

/// What a folder's file system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// A rename can refuse to replace what is there (renameat2 NOREPLACE).
    pub rename_no_replace: bool,
    /// Two names can swap what they hold (renameat2 EXCHANGE).
    pub rename_exchange: bool,
    /// Symbolic links can be made and read back.
    pub symlinks: bool,
    /// Permission bits are kept as set. Not so on FAT and many network mounts.
    pub modes: bool,
    /// Modification times are kept in steps of so many nanoseconds: 1, but two seconds on FAT, one on HFS+.
    pub tick_ns: u64,
    /// A name is listed in the form in which it was given. Not so on HFS+.
    pub forms: bool,
    /// Different names lead to one entry: names of another case, or of another Unicode form.
    pub blind: bool,
}

impl Abilities {
    /// What of it says what is kept.
    pub fn keeps(&self) -> Keeps {
        let renames = self.rename_no_replace && self.rename_exchange;
        let (links, forms, tick_ns) = (self.symlinks, self.forms, self.tick_ns);
        Keeps { modes: self.modes, links, forms, tick_ns, renames }
    }
}

/// Finds out what works in the directory `control`, which must exist, and leaves nothing behind there.
///
/// What the file system refuses as unknown or not permitted is an ability it lacks; any other error (a
/// full or failing disk) ends the probe, since it says nothing about abilities.
pub fn probe(disk: &dyn Disk, control: &RelPath) -> io::Result<Abilities> {
    let dir = control.join(&name(DIR)?);
    // A probe that was killed may have left things.
    clean(disk, &dir)?;
    disk.mkdir(&dir, 0o700)?;
    let found = run(disk, &dir);
    let cleaned = clean(disk, &dir);
    let found = found?;
    cleaned.map(|()| found)
}

fn run(disk: &dyn Disk, dir: &RelPath) -> io::Result<Abilities> {
    let [short, long, link, fresh] =
        [b"short", b"long_", b"link_", b"fresh"].map(|n| name(n).map(|n| dir.join(&n)));
    let (short, long, link, fresh) = (short?, long?, link?, fresh?);
    for (path, content) in [(&short, &b"1"[..]), (&long, b"22")] {
        disk.create(path)?.write_at(content, 0)?;
    }
    let (forms, form_blind) = forms(disk, dir)?;
    let upper = dir.join(&name(b"SHORT")?);
    Ok(Abilities {
        rename_no_replace: no_replace(disk, &short, &long, &fresh)?,
        rename_exchange: exchange(disk, &short, &long)?,
        symlinks: symlinks(disk, &link)?,
        modes: modes(disk, &short)?,
        tick_ns: tick_ns(disk, &short)?,
        forms,
        blind: form_blind || disk.stat(&upper)?.is_some(),
    })
}

/// Both halves count: that it refuses, and that it works where nothing is in the way. The file is
/// back at `from` afterwards.
fn no_replace(disk: &dyn Disk, from: &RelPath, taken: &RelPath, fresh: &RelPath) -> io::Result<bool> {
    match disk.rename(from, taken, Rename::NoReplace) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return able(Err(e)),
        Ok(()) => {
            // It replaced: put back what the next tests expect.
            disk.create(from)?.write_at(b"1", 0)?;
            disk.open_write(taken)?.write_at(b"22", 0)?;
            return Ok(false);
        }
    }
    if !able(disk.rename(from, fresh, Rename::NoReplace))? {
        return Ok(false);
    }
    disk.rename(fresh, from, Rename::NoReplace)?;
    Ok(true)
}

fn exchange(disk: &dyn Disk, a: &RelPath, b: &RelPath) -> io::Result<bool> {
    let sizes = |disk: &dyn Disk| -> io::Result<_> { Ok((size(disk, a)?, size(disk, b)?)) };
    let before = sizes(disk)?;
    if !able(disk.rename(a, b, Rename::Exchange))? {
        return Ok(false);
    }
    Ok(sizes(disk)? == (before.1, before.0))
}

fn symlinks(disk: &dyn Disk, at: &RelPath) -> io::Result<bool> {
    // The text leads nowhere, is no UTF-8, and has a newline: it must come back as it is.
    let text = b"../nowhere/\xff\n";
    Ok(able(disk.symlink(text, at))? && disk.read_link(at)? == text)
}

fn modes(disk: &dyn Disk, at: &RelPath) -> io::Result<bool> {
    for mode in [0o751, 0o640] {
        if !able(disk.set_mode(at, mode))? || disk.stat(at)?.is_none_or(|s| s.mode != mode) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The steps in which times are kept; those of FAT where they cannot be told.
fn tick_ns(disk: &dyn Disk, at: &RelPath) -> io::Result<u64> {
    const FAT: u64 = 2_000_000_000;
    let time = FileTime { secs: 1_000_000_007, nanos: 123_456_789 };
    if !able(disk.set_mtime(at, time))? {
        return Ok(FAT);
    }
    let kept = disk.stat(at)?.map_or(FileTime::default(), |s| s.mtime);
    let steps = std::iter::successors(Some(1_000_000_000), |step| Some(step / 10)).take(10);
    let is_step = |step: &u32| kept.nanos.is_multiple_of(*step) && kept.nanos.abs_diff(time.nanos) < *step;
    let step = steps.filter(|_| kept.secs == time.secs).find(is_step);
    Ok(step.map_or(FAT, u64::from))
}

/// Whether a name keeps its form, and whether another form leads to it too. A file system that takes
/// neither has nothing to say.
fn forms(disk: &dyn Disk, dir: &RelPath) -> io::Result<(bool, bool)> {
    let (composed, decomposed) = (name("fo\u{e9}".as_bytes())?, name("foe\u{301}".as_bytes())?);
    match disk.create(&dir.join(&composed)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::InvalidInput || e.raw_os_error() == Some(EILSEQ) => {
            return Ok((true, false));
        }
        Err(e) => return Err(e),
    }
    let listed = disk.names(dir)?.contains(&composed);
    Ok((listed, !listed || disk.stat(&dir.join(&decomposed))?.is_some()))
}

fn size(disk: &dyn Disk, path: &RelPath) -> io::Result<Option<u64>> {
    Ok(disk.stat(path)?.map(|s| s.size))
}

/// Success is an ability, "no such call here" the lack of one, anything else an error. EPERM is how FAT
/// refuses links and modes.
fn able(result: io::Result<()>) -> io::Result<bool> {
    use rustix::io::Errno;
    match result {
        Ok(()) => Ok(true),
        Err(e) => match Errno::from_io_error(&e) {
            Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
            _ => Err(e),
        },
    }
}

/// Removes the probe's directory and what is directly in it, if it is there.
fn clean(disk: &dyn Disk, dir: &RelPath) -> io::Result<()> {
    let entries = match disk.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        disk.unlink(&dir.join(&entry.name))?;
    }
    disk.rmdir(dir)
}

fn name(bytes: &[u8]) -> io::Result<Name> {
    Name::new(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::posix::PosixDisk;

    #[test]
    fn finds_what_this_file_system_can_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = PosixDisk::open(dir.path()).unwrap();
        let control = RelPath::parse(b".dunlin").unwrap();
        disk.mkdir(&control, 0o700).unwrap();
        // What a killed probe left is in the way of nothing.
        disk.mkdir(&RelPath::parse(b".dunlin/probe").unwrap(), 0o700).unwrap();
        disk.create(&RelPath::parse(b".dunlin/probe/short").unwrap()).unwrap();
        for _ in 0..2 {
            let all = Abilities {
                rename_no_replace: true,
                rename_exchange: true,
                symlinks: true,
                modes: true,
                tick_ns: 1,
                forms: true,
                blind: false,
            };
            assert_eq!(probe(&disk, &control).unwrap(), all);
            assert!(disk.list(&control).unwrap().is_empty());
        }
    }

    #[test]
    fn needs_the_control_directory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = PosixDisk::open(dir.path()).unwrap();
        let gone = probe(&disk, &RelPath::parse(b".dunlin").unwrap());
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_failure_is_not() {
        use rustix::io::Errno;
        assert!(able(Ok(())).unwrap());
        for refusal in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM] {
            assert!(!able(Err(refusal.into())).unwrap());
        }
        for failure in [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::DQUOT] {
            assert!(able(Err(failure.into())).is_err());
        }
    }
}
