//! Inodes: content, metadata, the room they take, and what a sync makes durable of them.

use super::errno::{Errno, Result};
use super::tree::{Id, Inode, Node, Tree};
use dunlin_node::disk::FileTime;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The file system allocates in such pieces.
pub(super) const BLOCK: usize = 4096;

/// The longest file: what a test could mean by a longer one would only fill memory.
const LEN_MAX: u64 = 1 << 30;

/// Changes of one inode after which it is written back without being asked, as kernels do after a while.
const CHANGES_MAX: usize = 32;

/// Slots of the table before it is first searched for what nothing leads to.
const SLOTS: usize = 1024;

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) data: Arc<[u8]>,
    /// A bit for each block that is allocated.
    blocks: Vec<u64>,
}

impl File {
    pub(super) fn allocated(&self) -> u64 {
        self.blocks.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    fn holds(&self, block: usize) -> bool {
        self.blocks.get(block / 64).is_some_and(|bits| bits & (1 << (block % 64)) != 0)
    }

    fn hold(&mut self, block: usize) {
        let at = block / 64;
        if self.blocks.len() <= at {
            self.blocks.resize(at + 1, 0);
        }
        self.blocks[at] |= 1 << (block % 64);
    }

    /// Gives back all blocks from `first` on.
    fn cut(&mut self, first: usize) {
        self.blocks.truncate(first.div_ceil(64));
        if !first.is_multiple_of(64)
            && let Some(bits) = self.blocks.get_mut(first / 64)
        {
            *bits &= (1 << (first % 64)) - 1;
        }
    }

    /// The same content with every block allocated that holds something.
    pub(super) fn from_data(data: Arc<[u8]>) -> File {
        let mut file = File { data, blocks: Vec::new() };
        for block in 0..file.data.len().div_ceil(BLOCK) {
            let end = file.data.len().min((block + 1) * BLOCK);
            if file.data[block * BLOCK..end].iter().any(|b| *b != 0) {
                file.hold(block);
            }
        }
        file
    }
}

/// What of an inode is durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) data: Arc<[u8]>,
    pub(super) mode: u16,
    pub(super) mtime: FileTime,
}

/// One change of an inode, with its modification time afterwards.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) what: Changed,
    pub(super) mtime: FileTime,
}

#[derive(Clone, Debug)]
pub(super) enum Changed {
    Write(usize, Box<[u8]>),
    Len(usize),
    /// A whole content that a user wrote: never torn.
    Whole(Arc<[u8]>),
    Mode(u16),
    Mtime,
}

impl Kept {
    /// Carries one change out.
    pub(super) fn change(&mut self, change: &Change) {
        match &change.what {
            Changed::Write(at, bytes) => self.write(*at, bytes),
            Changed::Len(len) => self.data = resized(&self.data, *len),
            Changed::Whole(data) => self.data = data.clone(),
            Changed::Mode(mode) => return self.mode = *mode,
            Changed::Mtime => {}
        }
        self.mtime = change.mtime;
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if at == 0 && end >= self.data.len() {
            self.data = bytes.into();
            return;
        }
        if self.data.len() < end {
            self.data = resized(&self.data, end);
        }
        Arc::make_mut(&mut self.data)[at..end].copy_from_slice(bytes);
    }
}

fn resized(data: &[u8], len: usize) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&data[..data.len().min(len)]);
    bytes.resize(len, 0);
    bytes.into()
}

/// Who does something: a user's contents are whole or not there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Program,
    User,
    /// A user who has not finished writing yet.
    Writing,
}

impl Tree {
    pub(super) fn new_inode(&mut self, node: Node, mode: u16) -> Id {
        let reused = if self.options.reuse_inodes { self.spare_inos.pop() } else { None };
        let (ino, freed) = reused.unwrap_or_else(|| {
            self.next_ino += 1;
            (self.next_ino - 1, Vec::new())
        });
        let now = self.stamp();
        let mode = self.kept_mode(&node, mode);
        let inode = Inode {
            ino,
            mode,
            mtime: now,
            ctime: now,
            btime: now,
            nlink: 0,
            opens: 0,
            kept: Kept { data: Arc::default(), mode, mtime: now },
            pending: Vec::new(),
            adds: Vec::new(),
            freed,
            node,
        };
        self.files += 1;
        self.blocks += u64::from(inode.dir().is_some());
        if self.spare.is_empty() && self.inodes.len() >= SLOTS.max(self.gc_at) {
            self.sweep();
        }
        if let Some(id) = self.spare.pop() {
            self.inodes[id] = inode;
            return id;
        }
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    /// Gives back what an inode took, once nothing leads to it any more.
    pub(super) fn release(&mut self, id: Id) {
        let inode = &self.inodes[id];
        if inode.nlink > 0 || inode.opens > 0 {
            return;
        }
        let held = match &inode.node {
            Node::File(file) => file.allocated(),
            Node::Dir(_) => 1,
            _ => 0,
        };
        self.spare_inos.push((inode.ino, self.journal.removals(id)));
        self.blocks -= held;
        self.files -= 1;
    }

    /// Finds the slots to which nothing leads any more, not even after a crash.
    fn sweep(&mut self) {
        let mut found = BTreeSet::new();
        let mut todo: Vec<Id> =
            [self.held, self.place].into_iter().chain(self.away).chain(self.outside.dir).collect();
        todo.extend(self.handles.ids());
        todo.extend(self.journal.ids());
        while let Some(id) = todo.pop() {
            if found.insert(id)
                && let Some(dir) = self.inodes[id].dir()
            {
                todo.extend(dir.entries.values().chain(dir.durable.values()));
            }
        }
        for id in (0..self.inodes.len()).filter(|id| !found.contains(id)) {
            let inode = &mut self.inodes[id];
            inode.node = Node::Other;
            inode.kept = Kept::default();
            inode.pending = Vec::new();
            self.dirty.remove(&id);
            self.spare.push(id);
        }
        self.gc_at = found.len() * 2;
    }

    fn file_mut(&mut self, id: Id) -> Result<&mut File> {
        match &mut self.inodes[id].node {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn data(&self, id: Id) -> Result<&Arc<[u8]>> {
        match &self.inodes[id].node {
            Node::File(file) => Ok(&file.data),
            Node::Dir(_) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// Whether so many bytes could be written at `at`: how many blocks that takes.
    fn room_for(&self, id: Id, at: usize, len: usize) -> Result<u64> {
        let Node::File(file) = &self.inodes[id].node else { return Err(Errno::INVAL) };
        let new = (at / BLOCK..(at + len).div_ceil(BLOCK)).filter(|b| !file.holds(*b)).count() as u64;
        if new > 0 && self.blocks + new > self.options.blocks() { Err(Errno::NOSPC) } else { Ok(new) }
    }

    pub(super) fn write(&mut self, id: Id, bytes: &[u8], at: u64, who: Who) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at.saturating_add(bytes.len() as u64);
        if end > LEN_MAX {
            return Err(Errno::NOSPC);
        }
        let (at, end) = (at as usize, end as usize);
        self.blocks += self.room_for(id, at, bytes.len())?;
        let now = self.stamp();
        let file = self.file_mut(id)?;
        (at / BLOCK..end.div_ceil(BLOCK)).for_each(|block| file.hold(block));
        if at == 0 && end >= file.data.len() {
            file.data = bytes.into();
        } else {
            if file.data.len() < end {
                file.data = resized(&file.data, end);
            }
            Arc::make_mut(&mut file.data)[at..end].copy_from_slice(bytes);
        }
        let inode = &mut self.inodes[id];
        (inode.mtime, inode.ctime) = (now, now);
        self.drop_set_id(id);
        self.note(id, who, || Changed::Write(at, bytes.into()));
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: Id, len: u64, who: Who) -> Result<()> {
        if len > LEN_MAX {
            return Err(Errno::NOSPC);
        }
        let now = self.stamp();
        let file = self.file_mut(id)?;
        let (len, before) = (len as usize, file.allocated());
        if len != file.data.len() {
            file.data = resized(&file.data, len);
            file.cut(len.div_ceil(BLOCK));
        }
        let freed = before - file.allocated();
        self.blocks -= freed;
        let inode = &mut self.inodes[id];
        (inode.mtime, inode.ctime) = (now, now);
        self.drop_set_id(id);
        self.note(id, who, || Changed::Len(len));
        Ok(())
    }

    /// Where modes are not kept, all files and all directories have one.
    fn kept_mode(&self, node: &Node, mode: u16) -> u16 {
        match node {
            _ if self.options.modes => mode,
            Node::Dir(_) => 0o755,
            _ => 0o644,
        }
    }

    pub(super) fn set_mode(&mut self, id: Id, mode: u16) {
        let now = self.stamp();
        let mode = self.kept_mode(&self.inodes[id].node, mode);
        let inode = &mut self.inodes[id];
        (inode.mode, inode.ctime) = (mode, now);
        self.note(id, Who::Program, || Changed::Mode(mode));
    }

    /// Who writes into a file takes its set-id bits away, but for root.
    fn drop_set_id(&mut self, id: Id) {
        let mode = self.inodes[id].mode;
        let group = if mode & 0o010 == 0 { 0 } else { 0o2000 };
        if mode & (0o4000 | group) != 0 && !self.options.as_root {
            self.set_mode(id, mode & !(0o4000 | group));
        }
    }

    pub(super) fn set_mtime(&mut self, id: Id, mtime: FileTime) {
        let now = self.stamp();
        let mtime = if self.options.rounds { self.rounded(mtime) } else { mtime };
        let inode = &mut self.inodes[id];
        (inode.mtime, inode.ctime) = (mtime, now);
        self.note(id, Who::Program, || Changed::Mtime);
    }

    /// Notes a change that is not durable yet.
    fn note(&mut self, id: Id, who: Who, what: impl FnOnce() -> Changed) {
        let atomic = self.options.user_data_atomic;
        let what = match (&self.inodes[id].node, who) {
            (_, Who::Writing) if atomic => return,
            (Node::File(file), Who::User) if atomic => Changed::Whole(file.data.clone()),
            _ => what(),
        };
        let inode = &mut self.inodes[id];
        let mtime = inode.mtime;
        inode.pending.push(Change { what, mtime });
        self.dirty.insert(id);
        if self.inodes[id].pending.len() > CHANGES_MAX {
            self.sync_inode(id);
        }
    }

    /// A user finished writing: what is there now is a whole content.
    pub(super) fn finished(&mut self, id: Id) {
        self.note(id, Who::User, || Changed::Mtime);
    }

    /// The content of a file that a user has just made cannot be lost without the file.
    pub(super) fn made_whole(&mut self, id: Id) {
        if self.options.user_data_atomic {
            self.sync_inode(id);
        }
    }

    /// Makes content and metadata durable (fdatasync; as on ext4, with the inode).
    pub(super) fn sync_inode(&mut self, id: Id) {
        if !self.dirty.remove(&id) {
            return;
        }
        // A user in the middle of writing: only what was whole before counts.
        let inode = &mut self.inodes[id];
        for change in std::mem::take(&mut inode.pending) {
            inode.kept.change(&change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ModelDisk, Options, Thing};
    use super::*;
    use crate::chance::Chance;
    use dunlin_core::path::RelPath;
    use dunlin_node::disk::Disk;

    /// Slots of what is gone are used again, and none of what could come back.
    #[test]
    fn a_long_life_takes_no_more_than_a_short_one() {
        let disk = ModelDisk::new(Options::default());
        let (user, p) = (disk.user(), |path: &str| RelPath::parse(path.as_bytes()).unwrap());
        let held = disk.create(&p("held")).unwrap();
        held.write_at(b"held", 0).unwrap();
        disk.unlink(&p("held")).unwrap();
        user.create(&p("f"), &0u32.to_le_bytes()).unwrap();
        disk.sync_all().unwrap();
        for n in 1..5000u32 {
            user.save_by_rename(&p("f"), &n.to_le_bytes()).unwrap();
            // One of the latest, replaced as it is: a crash would bring it back.
            let Some(Thing::File { bytes, .. }) = disk.durable(&p("f")) else { panic!("{n}: nothing") };
            let kept = u32::from_le_bytes((*bytes).try_into().unwrap());
            assert!(kept <= n && kept + 256 > n, "{n}: {kept}");
        }
        assert!(disk.tree().inodes.len() <= 2 * SLOTS, "{} slots", disk.tree().inodes.len());
        let mut buffer = [0; 5];
        assert_eq!((held.read_at(&mut buffer, 0).unwrap(), &buffer[..4]), (4, &b"held"[..]));
        disk.crash(&mut Chance::new(1, ""));
        assert!(disk.visible_at(&p("f")).is_some());
    }
}
