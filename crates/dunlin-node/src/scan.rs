//! From the disk to observations: what differs from what the index says is there. Content is hashed
//! only where the metadata say that it may have changed.

use crate::blocks::{self, Lists};
use crate::disk::{Disk, Entry, FileKind, FileTime, ReadFile, Stat};
use dunlin_core::ids::{ContentId, NodeId, ROOT};
use dunlin_core::kv::{Read, View};
use dunlin_core::names::names_in;
use dunlin_core::observe::{Observation, Seen};
use dunlin_core::path::{CONTROL_DIR, Name, RelPath};
use dunlin_core::rows::{Doubt, LocalRow, Position, Rows, Stamp};
use dunlin_core::state::Content;
use std::collections::BTreeMap;
use std::io;

/// A time stamp younger than this when it was read may be that of a later change too.
pub(crate) const RACY_MS: u64 = 12;
/// Small contents younger than this are kept in memory for a while.
const RECENT_MS: i64 = 3000;
/// What is said where another file system was mounted over something of the folder.
const HIDDEN: &str =
    "another file system is mounted here; what it hides stays as it is until it is unmounted";
const BUFFER: usize = 256 << 10;
/// Files up to this size are read in one go, and kept in memory for a while if they change often.
pub const SMALL: u64 = 64 << 10;
/// Files of this size and above are read by several threads, where nothing else is to be read.
const PARALLEL: u64 = 8 << 20;

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Differences, hashed.
    pub seen: Vec<Observation>,
    /// Files whose content has to be hashed first.
    pub hash: Vec<ToHash>,
    /// Rows of the index that nothing on the disk stands for any more.
    pub absent: Vec<Position>,
    /// What could not be read, and why.
    pub problems: Vec<(RelPath, String)>,
    /// Files that changed while they were read, or a moment before: to be looked at again.
    pub again: Vec<Position>,
    /// Links that changed so short a time ago that another change may have the same stamp.
    pub young: Vec<(Position, Stamp)>,
    /// Places of ours over which another file system is mounted.
    pub hidden: Vec<Position>,
    /// Something of a kind that is not synced was met.
    pub left_alone: bool,
}

impl Scanned {
    /// How much differs.
    pub fn found(&self) -> usize {
        self.seen.len() + self.hash.len() + self.absent.len() + self.again.len()
    }
}

/// A file to hash.
#[derive(Clone, Debug)]
pub struct ToHash {
    /// Where it is.
    pub at: Position,
    /// Its path.
    pub path: RelPath,
    /// Its size when it was listed.
    pub size: u64,
    /// Whatever the metadata say.
    pub force: bool,
}

/// Whether the index's row may be trusted to tell the content of what is on the disk.
fn unchanged(row: &LocalRow, s: &Stat, modes: bool) -> bool {
    let kind = matches!(
        (&row.content, s.kind),
        (Content::File { .. }, FileKind::File)
            | (Content::Dir, FileKind::Dir)
            | (Content::Link(_), FileKind::Link)
    );
    let same =
        if s.kind == FileKind::Dir { row.stamp.is_same_inode(&s.stamp()) } else { row.stamp == s.stamp() };
    kind && same && (!modes || s.kind == FileKind::Link || row.mode == s.mode & 0o777)
}

/// Looks at one directory as a whole. Files that `doubt` is about are hashed whatever their metadata say.
pub fn scan_dir(
    disk: &dyn Disk,
    view: &dyn View,
    (dir, path): (NodeId, &RelPath),
    doubt: Option<Doubt>,
) -> Read<io::Result<Scanned>> {
    let mut rows: BTreeMap<Name, LocalRow> = view.locals(dir)?.into_iter().collect();
    let entries = match disk.list(path) {
        Ok(entries) => entries,
        Err(e) => return Ok(Err(e)),
    };
    let mut out = Scanned::default();
    for entry in entries {
        if dir == ROOT && entry.name.as_bytes() == CONTROL_DIR {
            continue;
        }
        let name = match shown_name(disk, view, dir, path, &entry)? {
            Ok(name) => name,
            Err(e) => return Ok(Err(e)),
        };
        let (row, entry) = (rows.remove(&name), Entry { name, ..entry });
        let doubted = row.as_ref().zip(doubt).is_some_and(|(row, doubt)| is_doubted(row, doubt));
        look(disk, dir, path, entry, row.as_ref(), doubted, &mut out);
    }
    out.absent.extend(rows.into_keys().map(|name| Position::new(dir, name)));
    Ok(Ok(out))
}

/// Whether the stamp of a row may be that of what somebody wrote just after.
fn is_doubted(row: &LocalRow, doubt: Doubt) -> bool {
    row.content != Content::Dir && doubt.is_about(row.stamp.ctime)
}

/// Looks at one entry. With `force`, the content is hashed whatever the metadata say.
pub fn scan_entry(
    disk: &dyn Disk,
    view: &dyn View,
    at: &Position,
    dir_path: &RelPath,
    force: bool,
    out: &mut Scanned,
) -> Read<()> {
    if at.dir == ROOT && at.name.as_bytes() == CONTROL_DIR {
        return Ok(());
    }
    let row = view.local(at)?;
    let path = dir_path.join(&at.name);
    match stat_as(disk, view, at, &path)? {
        Ok(None) => {
            if row.is_some() {
                out.absent.push(at.clone());
            }
            // Whatever happened there happened to what the disk takes for it.
            match disk.other_name(&path) {
                Ok(other) => out.again.extend(other.map(|name| Position::new(at.dir, name))),
                Err(e) => out.problems.push((path, e.to_string())),
            }
        }
        Ok(Some(stat)) => {
            let entry = Entry { name: at.name.clone(), stat: Ok(stat) };
            match shown_name(disk, view, at.dir, dir_path, &entry)? {
                Ok(name) if name == at.name => {
                    look(disk, at.dir, dir_path, entry, row.as_ref(), force, out);
                }
                Ok(name) => out.again.push(Position::new(at.dir, name)),
                Err(e) => out.problems.push((path, e.to_string())),
            }
        }
        Err(e) => out.problems.push((path, e.to_string())),
    }
    Ok(())
}

/// What is at a position. On a disk that lists names in another form than they were given in, that is not what
/// is known under the listed one.
fn stat_as(
    disk: &dyn Disk,
    view: &dyn View,
    at: &Position,
    path: &RelPath,
) -> Read<io::Result<Option<Stat>>> {
    let found = disk.stat(path);
    if disk.keeps().forms || at.name.as_bytes().is_ascii() {
        return Ok(found);
    }
    match disk.other_name(path) {
        Ok(Some(listed)) if view.local(&Position::new(at.dir, listed.clone()))?.is_some() => Ok(Ok(None)),
        Ok(_) => Ok(found),
        Err(e) => Ok(Err(e)),
    }
}

/// The name under which the tree has an entry. It is the one that is listed, but on a disk that lists names in
/// another form than they were given in: there it is the one of which the disk says that it leads to this entry.
fn shown_name(
    disk: &dyn Disk,
    view: &dyn View,
    dir: NodeId,
    path: &RelPath,
    entry: &Entry,
) -> Read<io::Result<Name>> {
    let listed = &entry.name;
    let known = listed.as_bytes().is_ascii() || view.local(&Position::new(dir, listed.clone()))?.is_some();
    let Some(stat) = entry.stat.as_ref().ok().filter(|_| !disk.keeps().forms && !known) else {
        return Ok(Ok(listed.clone()));
    };
    let names = names_in(view, dir)?;
    let (mut here, mut to_come) = (Vec::new(), Vec::new());
    for name in names.iter().filter(|n| *n != listed && !n.as_bytes().is_ascii()) {
        let is_here = view.local(&Position::new(dir, name.clone()))?.is_some();
        if is_here { here.push(name) } else { to_come.push(name) }
    }
    // What is to come under just this name is meant before what is to come under another.
    to_come.retain(|_| !names.contains(listed));
    for name in here.into_iter().chain(to_come) {
        match disk.stat(&path.join(name)) {
            Ok(Some(s)) if (s.ino, s.kind) == (stat.ino, stat.kind) => return Ok(Ok(name.clone())),
            Ok(_) => {}
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(listed.clone()))
}

fn look(
    disk: &dyn Disk,
    dir: NodeId,
    dir_path: &RelPath,
    entry: Entry,
    row: Option<&LocalRow>,
    force: bool,
    out: &mut Scanned,
) {
    let at = Position::new(dir, entry.name);
    let path = dir_path.join(&at.name);
    let stat = match entry.stat {
        Ok(stat) => stat,
        Err(errno) => {
            out.problems.push((path, io::Error::from_raw_os_error(errno).to_string()));
            return;
        }
    };
    if row.is_some_and(|r| unchanged(r, &stat, disk.keeps().modes)) && !force {
        return;
    }
    match stat.kind {
        FileKind::Other => {
            out.left_alone = true;
            out.absent.extend(row.map(|_| at));
        }
        FileKind::Mount => {
            out.left_alone = true;
            // What was there is not gone, but hidden.
            if row.is_some() {
                out.problems.push((path, HIDDEN.into()));
                out.hidden.push(at);
            }
        }
        FileKind::Dir => out.seen.push(Observation { at, seen: Seen::Dir(stat.mode & 0o777, stat.stamp()) }),
        FileKind::File => out.hash.push(ToHash { at, path, size: stat.size, force }),
        FileKind::Link => match disk.read_link(&path) {
            Ok(text) => {
                if is_younger(disk, &stat, racy_ms(disk)) {
                    out.young.push((at.clone(), stat.stamp()));
                }
                out.seen.push(Observation { at, seen: Seen::Link(text.into(), stat.stamp()) });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => out.again.push(at),
            Err(e) => out.problems.push((path, e.to_string())),
        },
    }
}

/// How reading a file for its hash ended.
#[derive(Debug)]
pub enum Hashed {
    /// Its content; its bytes too if it is small and changed a moment ago, so that it may well change
    /// again before anybody asked for this version. And whether its time stamp is too young to be
    /// trusted: another change may have the same stamp, so that it is to be looked at again.
    Seen(Observation, Option<Vec<u8>>, bool),
    /// It changed while it was read.
    Restless(ToHash),
    /// It is not there (any more), or no regular file.
    Gone(Position),
    /// It cannot be read.
    Failed(ToHash, String),
}

/// Reads and hashes one file.
fn hash(disk: &dyn Disk, lists: &Lists, file: &ToHash, threads: usize) -> Hashed {
    match try_hash(disk, lists, file, threads) {
        Ok(hashed) => hashed,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidInput => {
            Hashed::Gone(file.at.clone())
        }
        Err(e) => Hashed::Failed(file.clone(), e.to_string()),
    }
}

fn try_hash(disk: &dyn Disk, lists: &Lists, file: &ToHash, threads: usize) -> io::Result<Hashed> {
    let open = disk.open(&file.path)?;
    let before = open.stat()?;
    let small = before.size <= SMALL;
    let (bytes, id) = if small { read_small(open.as_ref(), before.size)? } else { (Vec::new(), None) };
    let (id, size) = match id {
        Some(id) => (id, bytes.len() as u64),
        None => read_large(open.as_ref(), lists, before.size, threads)?,
    };
    let after = open.stat()?;
    let rests = before.stamp() == after.stamp() && size == after.size;
    let whole = size == bytes.len() as u64;
    if !rests && !whole {
        return Ok(Hashed::Restless(file.clone()));
    }
    // A small file was read in one go: what was read is what any reader would have seen just then.
    let mut seen = before.stamp();
    seen.size = size;
    let young = !rests || is_younger(disk, &after, racy_ms(disk));
    let keep = whole && (young || is_younger(disk, &after, RECENT_MS));
    let bytes = keep.then_some(bytes);
    let seen = Seen::File(id, before.mode & 0o777, seen);
    Ok(Hashed::Seen(Observation { at: file.at.clone(), seen }, bytes, young))
}

/// Copies a file that never rests, so that one version of it can be served whatever it becomes. What is
/// in the copy is what any reader would have got. Returns it as an observation with a stamp that no
/// later state of the file has.
pub fn snapshot(
    disk: &dyn Disk,
    file: &ToHash,
    copy: &dyn crate::disk::WriteFile,
) -> io::Result<Observation> {
    let open = disk.open(&file.path)?;
    let before = open.stat()?;
    let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; BUFFER], 0);
    loop {
        let n = open.read_at(&mut buffer, offset)?;
        if n == 0 {
            break;
        }
        copy.write_at(&buffer[..n], offset)?;
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
    let mut stamp = before.stamp();
    stamp.size = offset;
    let id = ContentId(*hasher.finalize().as_bytes());
    Ok(Observation { at: file.at.clone(), seen: Seen::File(id, before.mode & 0o777, stamp) })
}

/// Reads a small file into memory, with its hash; no hash if it grew beyond what is small meanwhile. It is
/// read by one call, so that it is what any reader would see: of two calls, a writer may come between.
fn read_small(file: &dyn ReadFile, size: u64) -> io::Result<(Vec<u8>, Option<ContentId>)> {
    let mut len = usize::try_from(size.min(SMALL)).unwrap_or(0) + 1;
    while len as u64 <= 2 * SMALL {
        let mut bytes = vec![0; len];
        let n = file.read_at(&mut bytes, 0)?;
        if n < len {
            bytes.truncate(n);
            let id = ContentId(*blake3::hash(&bytes).as_bytes());
            return Ok((bytes, Some(id)));
        }
        len *= 2;
    }
    Ok((Vec::new(), None))
}

/// The hash of a file, and how many bytes it is of. By blocks, if it has the size that it seems to have: their hashes
/// are what whoever fetches it asks for first.
fn read_large(file: &dyn ReadFile, lists: &Lists, size: u64, threads: usize) -> io::Result<(ContentId, u64)> {
    if blocks::serves(size) {
        let threads = if size < PARALLEL { 1 } else { threads };
        if let Some((id, values)) = blocks::list(file, size, threads)? {
            lists.put(id, &values);
            return Ok((id, size));
        }
    }
    let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; BUFFER], 0);
    loop {
        let n = file.read_at(&mut buffer, offset)?;
        if n == 0 {
            return Ok((ContentId(*hasher.finalize().as_bytes()), offset));
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
}

/// A time stamp younger than this may be that of a later change too.
pub(crate) fn racy_ms(disk: &dyn Disk) -> i64 {
    i64::try_from(disk.keeps().tick_ms(RACY_MS)).unwrap_or(i64::MAX)
}

/// Whether a time stamp is younger than this.
pub(crate) fn is_younger(disk: &dyn Disk, s: &Stat, than_ms: i64) -> bool {
    let ms = |t: FileTime| t.secs.saturating_mul(1000).saturating_add(i64::from(t.nanos / 1_000_000));
    ms(disk.now()).saturating_sub(ms(s.ctime)).saturating_abs() < than_ms
}

/// Hashes files on all cores, be they many or large.
pub fn hash_all(disk: &dyn Disk, lists: &Lists, files: &[ToHash]) -> Vec<Hashed> {
    let bytes: u64 = files.iter().map(|f| f.size).sum();
    // How many cores there are is asked of several files of the system: never for a few small contents.
    let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(8);
    if let [only] = files {
        let threads = if only.size < PARALLEL { 1 } else { blocks::threads() };
        return vec![hash(disk, lists, only, threads)];
    }
    let cores = if bytes < 64 << 10 { 1 } else { cores() };
    if cores < 2 {
        return files.iter().map(|f| hash(disk, lists, f, 1)).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut out = Vec::new();
        while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            out.push(hash(disk, lists, file, 1));
        }
        out
    };
    std::thread::scope(|s| {
        let others: Vec<_> = (1..cores).map(|_| s.spawn(work)).collect();
        let mut out = work();
        for other in others {
            // A panic in there is a bug, passed on as what it is.
            out.extend(other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        }
        out
    })
}
