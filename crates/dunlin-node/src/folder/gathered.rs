//! Contents that are being gathered block by block. What of them is here and verified is served to others already.

use super::lock;
use crate::disk::WriteFile;
use crate::stage::Left;
use dunlin_core::blocks::{Bits, Value, range};
use dunlin_core::ids::ContentId;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// After so many bytes the disk is made to write: at the end only the last part is waited for.
const SYNC_EVERY: u64 = 48 << 20;

/// What is gathered in a folder now.
pub(crate) type Gathering = Mutex<BTreeMap<ContentId, Arc<Gathered>>>;

/// One content while it is gathered.
pub(crate) struct Gathered {
    pub content: ContentId,
    pub size: u64,
    /// The hashes of its blocks, proven by the content id.
    pub values: Vec<Value>,
    /// Something came, or failed.
    pub changed: Notify,
    part: Arc<dyn WriteFile>,
    left: Left,
    blocks: Mutex<Blocks>,
    /// One writes at a time: the kernel lets no two write to one file, and has who waits for that keep a processor busy.
    writes: Mutex<()>,
    /// Whether it may be written to: held for reading by who writes.
    is_open: RwLock<bool>,
    unsynced: Arc<AtomicU64>,
    /// A sync failed: the system says so only once, and nobody knows what the disk holds.
    lost: Arc<AtomicBool>,
    transfers: Mutex<Vec<AbortHandle>>,
}

struct Blocks {
    here: Bits,
    missing: usize,
    coming: Bits,
    failed: Option<io::Error>,
}

impl Gathered {
    /// In `part`, where the blocks that are `here` were verified.
    pub(crate) fn new(
        (content, size): (ContentId, u64),
        values: Vec<Value>,
        part: Box<dyn WriteFile>,
        here: Bits,
        left: Left,
    ) -> Arc<Gathered> {
        let missing = values.len() - here.count();
        let blocks = Blocks { here, missing, coming: Bits::none(values.len()), failed: None };
        Arc::new(Gathered {
            content,
            size,
            values,
            changed: Notify::new(),
            part: Arc::from(part),
            left,
            blocks: Mutex::new(blocks),
            writes: Mutex::default(),
            is_open: RwLock::new(true),
            unsynced: Arc::default(),
            lost: Arc::default(),
            transfers: Mutex::default(),
        })
    }

    /// Which blocks are here, and which are coming from a device that has all.
    pub(crate) fn blocks(&self) -> (Bits, Bits) {
        let blocks = lock(&self.blocks);
        (blocks.here.clone(), blocks.coming.clone())
    }

    pub(crate) fn is_whole(&self) -> bool {
        lock(&self.blocks).missing == 0
    }

    pub(crate) fn is_coming(&self, blocks: impl Iterator<Item = usize>, whether: bool) {
        let mut of = lock(&self.blocks);
        blocks.for_each(|block| of.coming.set(block, whether));
    }

    /// Puts a block in its place, which the caller has verified; nothing if it came already, or all of it is over.
    pub(crate) fn put(&self, block: usize, bytes: &[u8]) -> io::Result<()> {
        let is_open = self.is_open.read().unwrap_or_else(PoisonError::into_inner);
        if !*is_open || lock(&self.blocks).here.get(block) {
            return Ok(());
        }
        let writes = lock(&self.writes);
        self.part.write_at(bytes, range(block, self.size).0)?;
        drop(writes);
        self.left.wrote(bytes.len());
        let mut blocks = lock(&self.blocks);
        if !blocks.here.get(block) {
            blocks.here.set(block, true);
            blocks.missing -= 1;
        }
        drop(blocks);
        self.begin_sync(bytes.len() as u64);
        Ok(())
    }

    fn begin_sync(&self, bytes: u64) {
        let before = self.unsynced.fetch_add(bytes, Ordering::Relaxed);
        if before < SYNC_EVERY && before + bytes >= SYNC_EVERY {
            let (part, lost, unsynced) = (self.part.clone(), self.lost.clone(), self.unsynced.clone());
            tokio::task::spawn_blocking(move || {
                if part.sync_data().is_err() {
                    lost.store(true, Ordering::Relaxed);
                }
                unsynced.store(0, Ordering::Relaxed);
            });
        }
    }

    /// This disk does not take it.
    pub(crate) fn fail(&self, e: io::Error) {
        lock(&self.blocks).failed.get_or_insert(e);
    }

    /// What the disk said.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        lock(&self.blocks).failed.take()
    }

    /// A transfer that ends with it.
    pub(crate) fn belongs(&self, transfer: AbortHandle) {
        let mut transfers = lock(&self.transfers);
        transfers.retain(|t| !t.is_finished());
        transfers.push(transfer);
    }

    /// Nothing is written any more once this returns: others may take the room, or the file its place.
    pub(crate) fn close(&self) {
        *self.is_open.write().unwrap_or_else(PoisonError::into_inner) = false;
        lock(&self.transfers).drain(..).for_each(|transfer| transfer.abort());
    }

    /// Makes it durable. By the handle that wrote it, so that no error goes to somebody else.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.part.sync_data().is_err() || self.lost.load(Ordering::Relaxed) {
            return Err(io::Error::other("what was written could not be made durable"));
        }
        Ok(())
    }

    /// Whether these bytes are here and verified.
    pub(crate) fn covers(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.size) else { return false };
        let block = |at: u64| usize::try_from(at / dunlin_core::blocks::BLOCK).unwrap_or(usize::MAX);
        let blocks = lock(&self.blocks);
        len > 0 && (block(offset)..=block(end - 1)).all(|b| blocks.here.get(b))
    }

    /// Reads some of what is here.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.part.read_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::posix::PosixDisk;
    use dunlin_core::path::{Name, RelPath};

    #[test]
    fn only_what_came_is_served_and_nothing_is_written_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let disk = PosixDisk::open(dir.path()).unwrap();
        let part = disk.create(&RelPath::root().join(&Name::new(b"p").unwrap())).unwrap();
        let size = (2 << 20) + 5;
        part.set_len(size).unwrap();
        let of = (ContentId([1; 32]), size);
        let gathered = Gathered::new(of, vec![[0; 32]; 3], part, Bits::none(3), Left::default());
        assert!(!gathered.covers(0, 1));
        gathered.put(2, b"12345").unwrap();
        assert!(gathered.covers(2 << 20, 5) && gathered.covers((2 << 20) + 4, 1));
        for (offset, len) in [(2 << 20, 6), ((2 << 20) - 1, 2), (2 << 20, 0), (u64::MAX, 2), (0, 5)] {
            assert!(!gathered.covers(offset, len), "{len} bytes at {offset}");
        }
        let mut read = [0; 9];
        assert_eq!(gathered.read_at(&mut read, 2 << 20).unwrap(), 5);
        assert_eq!(&read[..5], b"12345");
        gathered.is_coming(0..1, true);
        let (here, coming) = gathered.blocks();
        assert_eq!((here.bytes(), coming.bytes()), (&[4][..], &[1][..]));
        assert!(!gathered.is_whole());
        gathered.close();
        gathered.put(0, &[7; 1 << 20]).unwrap();
        assert!(!gathered.covers(0, 1));
        let mut read = [1; 4];
        gathered.read_at(&mut read, 0).unwrap();
        assert_eq!(read, [0; 4]);
    }
}
