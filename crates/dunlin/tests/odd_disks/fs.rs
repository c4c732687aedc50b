//! A file system in memory, behind FUSE, that is blind, forgets, or rounds, as others do.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing is remembered by the kernel: each name is asked for again.
const TTL: Duration = Duration::ZERO;

/// How it is.
#[derive(Clone, Copy, Default)]
pub struct Oddity {
    /// Names of another case are one.
    pub folds_case: bool,
    /// `é` is stored as `e` with an accent, and found by either name.
    pub decomposes: bool,
    /// Modes are not kept.
    pub no_modes: bool,
    /// There are no links.
    pub no_links: bool,
    /// Times are kept in steps of two seconds.
    pub coarse: bool,
    /// Dots at the end of a name are dropped.
    pub drops_dots: bool,
    /// Names cannot change places.
    pub no_exchange: bool,
}

/// As FAT.
pub const FAT: Oddity = Oddity {
    folds_case: true,
    decomposes: false,
    no_modes: true,
    no_links: true,
    coarse: true,
    drops_dots: true,
    no_exchange: false,
};

enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, u64>),
    Link(Vec<u8>),
}

struct Inode {
    body: Body,
    mode: u16,
    mtime: SystemTime,
    ctime: SystemTime,
}

struct State {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// What is below `.dunlin`, and does not count.
    ours: BTreeSet<u64>,
}

struct Disk {
    odd: Oddity,
    state: Arc<Mutex<State>>,
    changes: Arc<AtomicU64>,
}

/// A mounted one; unmounted when dropped.
pub struct OddDisk {
    state: Arc<Mutex<State>>,
    changes: Arc<AtomicU64>,
    _session: BackgroundSession,
}

impl OddDisk {
    /// Mounts an empty one.
    pub fn mount(at: &Path, odd: Oddity) -> std::io::Result<OddDisk> {
        std::fs::create_dir_all(at)?;
        let state = State { inodes: BTreeMap::new(), next: 2, ours: BTreeSet::new() };
        let changes = Arc::new(AtomicU64::new(0));
        let state = Arc::new(Mutex::new(state));
        let disk = Disk { odd, state: state.clone(), changes: changes.clone() };
        let root = disk.inode(Body::Dir(BTreeMap::new()), 0o755);
        disk.state().inodes.insert(1, root);
        let session = fuser::spawn_mount(disk, at, &Config::default())?;
        Ok(OddDisk { state, changes, _session: session })
    }

    /// No call on it returns before what this gives is dropped.
    pub fn hangs(&self) -> impl Drop + '_ {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often anything was changed, outside of `.dunlin`.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

fn folded(name: &[u8], odd: Oddity) -> Vec<u8> {
    let name = stored(name, odd);
    if odd.folds_case { name.to_ascii_lowercase() } else { name }
}

/// The name under which an entry is stored.
fn stored(name: &[u8], odd: Oddity) -> Vec<u8> {
    let kept = if odd.drops_dots { name.trim_ascii_end().strip_suffix(b".").unwrap_or(name) } else { name };
    match std::str::from_utf8(kept) {
        Ok(text) if odd.decomposes => text.replace('\u{e9}', "e\u{301}").into_bytes(),
        _ => kept.to_vec(),
    }
}

type Done<T> = Result<T, Errno>;

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rounded(&self, time: SystemTime) -> SystemTime {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.odd.coarse { UNIX_EPOCH + Duration::from_secs(since.as_secs() / 2 * 2) } else { time }
    }

    fn mode(&self, body: &Body, mode: u16) -> u16 {
        match body {
            _ if !self.odd.no_modes => mode & 0o7777,
            Body::Dir(_) => 0o755,
            _ => 0o644,
        }
    }

    fn inode(&self, body: Body, mode: u16) -> Inode {
        let now = self.rounded(SystemTime::now());
        Inode { mode: self.mode(&body, mode), body, mtime: now, ctime: now }
    }

    fn attr(&self, state: &State, ino: u64) -> Done<FileAttr> {
        let inode = state.inodes.get(&ino).ok_or(Errno::ENOENT)?;
        let (kind, size, nlink) = match &inode.body {
            Body::File(bytes) => (FileType::RegularFile, bytes.len(), 1),
            Body::Dir(_) => (FileType::Directory, 4096, 2),
            Body::Link(text) => (FileType::Symlink, text.len(), 1),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size: size as u64,
            blocks: size.div_ceil(512) as u64,
            atime: inode.mtime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            crtime: inode.ctime,
            kind,
            perm: inode.mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// The name an entry has, and where it leads.
    fn find(&self, state: &State, dir: u64, name: &[u8]) -> Done<Option<(Vec<u8>, u64)>> {
        let Some(Inode { body: Body::Dir(entries), .. }) = state.inodes.get(&dir) else {
            return Err(Errno::ENOTDIR);
        };
        let wanted = folded(name, self.odd);
        let found = entries.iter().find(|(name, _)| folded(name, self.odd) == wanted);
        Ok(found.map(|(name, ino)| (name.clone(), *ino)))
    }

    fn put(&self, state: &mut State, dir: u64, name: &[u8], ino: Option<u64>) {
        let now = self.rounded(SystemTime::now());
        let Some(inode) = state.inodes.get_mut(&dir) else { return };
        (inode.mtime, inode.ctime) = (now, now);
        let Body::Dir(entries) = &mut inode.body else { return };
        match ino {
            Some(ino) => drop(entries.insert(name.to_vec(), ino)),
            None => drop(entries.remove(name)),
        }
        let is_ours = state.ours.contains(&dir) || (dir == 1 && name == b".dunlin");
        match ino {
            Some(ino) if is_ours => drop(state.ours.insert(ino)),
            Some(ino) => drop(state.ours.remove(&ino)),
            None => {}
        }
        self.count(is_ours);
    }

    fn count(&self, is_ours: bool) {
        self.changes.fetch_add(u64::from(!is_ours), Ordering::SeqCst);
    }

    fn make(&self, dir: INodeNo, name: &OsStr, body: Body, mode: u32) -> Done<FileAttr> {
        let mut state = self.state();
        if self.find(&state, dir.0, name.as_bytes())?.is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = state.next;
        state.next += 1;
        let inode = self.inode(body, (mode & 0o7777) as u16);
        state.inodes.insert(ino, inode);
        self.put(&mut state, dir.0, &stored(name.as_bytes(), self.odd), Some(ino));
        self.attr(&state, ino)
    }

    fn remove(&self, dir: INodeNo, name: &OsStr) -> Done<()> {
        let mut state = self.state();
        let (name, ino) = self.find(&state, dir.0, name.as_bytes())?.ok_or(Errno::ENOENT)?;
        if let Some(Inode { body: Body::Dir(entries), .. }) = state.inodes.get(&ino)
            && !entries.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        // The inode stays for whoever has it open.
        self.put(&mut state, dir.0, &name, None);
        Ok(())
    }

    fn move_to(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: RenameFlags) -> Done<()> {
        if self.odd.no_exchange && flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state();
        let (from_name, ino) = self.find(&state, from.0, from.1)?.ok_or(Errno::ENOENT)?;
        let there = self.find(&state, to.0, to.1)?;
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            let (to_name, other) = there.ok_or(Errno::ENOENT)?;
            self.put(&mut state, from.0, &from_name, Some(other));
            self.put(&mut state, to.0, &to_name, Some(ino));
            return Ok(());
        }
        match there {
            Some(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            Some((_, same)) if same == ino => return Ok(()),
            Some((name, _)) => self.put(&mut state, to.0, &name, None),
            None => {}
        }
        self.put(&mut state, from.0, &from_name, None);
        self.put(&mut state, to.0, &stored(to.1, self.odd), Some(ino));
        let now = self.rounded(SystemTime::now());
        state.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?.ctime = now;
        Ok(())
    }

    fn write_into(&self, ino: u64, offset: usize, data: &[u8]) -> Done<u32> {
        let now = self.rounded(SystemTime::now());
        let mut state = self.state();
        let inode = state.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        let Body::File(bytes) = &mut inode.body else { return Err(Errno::EISDIR) };
        bytes.resize(bytes.len().max(offset + data.len()), 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
        (inode.mtime, inode.ctime) = (now, now);
        self.count(state.ours.contains(&ino));
        Ok(data.len() as u32)
    }

    fn set(
        &self,
        ino: u64,
        mode: Option<u32>,
        size: Option<u64>,
        mtime: Option<TimeOrNow>,
    ) -> Done<FileAttr> {
        let now = self.rounded(SystemTime::now());
        let mut state = self.state();
        let inode = state.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        if let (Some(size), Body::File(bytes)) = (size, &mut inode.body) {
            bytes.resize(size as usize, 0);
            inode.mtime = now;
        }
        if let Some(mode) = mode {
            inode.mode = self.mode(&inode.body, (mode & 0o7777) as u16);
        }
        match mtime {
            Some(TimeOrNow::SpecificTime(time)) => inode.mtime = self.rounded(time),
            Some(TimeOrNow::Now) => inode.mtime = now,
            None => {}
        }
        inode.ctime = now;
        self.count(state.ours.contains(&ino));
        self.attr(&state, ino)
    }

    fn entries(&self, ino: u64) -> Done<Vec<(u64, FileType, Vec<u8>)>> {
        let state = self.state();
        let Some(Inode { body: Body::Dir(entries), .. }) = state.inodes.get(&ino) else {
            return Err(Errno::ENOTDIR);
        };
        let own = [&b"."[..], b".."].map(|name| (ino, FileType::Directory, name.to_vec()));
        let each = |(name, ino): (&Vec<u8>, &u64)| Ok((*ino, self.attr(&state, *ino)?.kind, name.clone()));
        own.into_iter().map(Ok).chain(entries.iter().map(each)).collect()
    }
}

fn entry(done: Done<FileAttr>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(e) => reply.error(e),
    }
}

fn empty(done: Done<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Where the kernel does not have it, a file is cut by a call of its own: as well.
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let found = self.find(&state, parent.0, name.as_bytes()).and_then(|f| f.ok_or(Errno::ENOENT));
        entry(found.and_then(|(_, ino)| self.attr(&state, ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(&self.state(), ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.set(ino.0, mode, size, mtime) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.state().inodes.get(&ino.0).map(|i| &i.body) {
            Some(Body::Link(text)) => reply.data(text),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(self.make(parent, name, Body::Dir(BTreeMap::new()), mode), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent, name), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let text = target.as_os_str().as_bytes().to_vec();
        let made = if self.odd.no_links {
            Err(Errno::EPERM)
        } else {
            self.make(parent, name, Body::Link(text), 0o777)
        };
        entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        empty(self.move_to(from, to, flags), reply);
    }

    /// Past the kernel's memory, which would take two contents of one time and size for one.
    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & 0o1000 != 0
            && let Err(e) = self.set(ino.0, None, Some(0), None)
        {
            return reply.error(e);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, Body::File(Vec::new()), mode) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().inodes.get(&ino.0).map(|i| &i.body) {
            Some(Body::File(bytes)) => {
                let from = (offset as usize).min(bytes.len());
                reply.data(&bytes[from..bytes.len().min(from + size as usize)]);
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_into(ino.0, offset as usize, data) {
            Ok(size) => reply.written(size),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.entries(ino.0) {
            Ok(entries) => entries,
            Err(e) => return reply.error(e),
        };
        for (i, (ino, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(ino), i as u64 + 1, kind, OsStr::from_bytes(&name)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
