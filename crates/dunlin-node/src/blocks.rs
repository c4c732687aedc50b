//! The hashes of the blocks of files, made on all cores, and those made lately.

use crate::disk::ReadFile;
use dunlin_core::blocks::{self, BLOCK, BlockHasher, Value};
use dunlin_core::ids::ContentId;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of lists that are kept.
const LISTS_BYTES: usize = 4 << 20;
/// Bytes read at a time: they are still near when they are hashed.
const READ: usize = 256 << 10;
/// Threads that read one file.
const THREADS: usize = 8;

/// Lists of contents that this device hashed a short while ago: who wants one of them asks soon.
#[derive(Default)]
pub struct Lists(Mutex<VecDeque<(ContentId, Arc<[Value]>)>>);

impl Lists {
    /// The list of a content, if it is still here.
    pub fn get(&self, content: &ContentId) -> Option<Arc<[Value]>> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.iter().find(|(of, _)| of == content).map(|(_, list)| list.clone())
    }

    /// Keeps a list, which the caller has proven; the oldest go.
    pub fn put(&self, content: ContentId, values: &[Value]) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.retain(|(of, _)| *of != content);
        lists.push_back((content, values.into()));
        let bytes = |lists: &VecDeque<(ContentId, Arc<[Value]>)>| {
            // What an entry takes beside its list is counted too.
            lists.iter().map(|(_, list)| (list.len() + 4) * size_of::<Value>()).sum::<usize>()
        };
        while bytes(&lists) > LISTS_BYTES {
            lists.pop_front();
        }
    }
}

/// How many threads may read one large file.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

/// The hashes of some blocks of a file that has `size` bytes; an error if it has fewer.
pub fn values(file: &dyn ReadFile, size: u64, which: Range<usize>, threads: usize) -> io::Result<Vec<Value>> {
    let next = AtomicUsize::new(which.start);
    let work = || -> io::Result<Vec<(usize, Value)>> {
        let (mut out, mut buffer) = (Vec::new(), vec![0; READ]);
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= which.end {
                return Ok(out);
            }
            out.push((block, value(file, size, block, &mut buffer)?));
        }
    };
    let threads = threads.min(which.len());
    let made = std::thread::scope(|s| {
        let others: Vec<_> = (1..threads).map(|_| s.spawn(work)).collect();
        let mut made = vec![work()];
        // A panic in there is a bug, passed on as what it is.
        made.extend(others.into_iter().map(|o| o.join().unwrap_or_else(|p| std::panic::resume_unwind(p))));
        made
    });
    let mut out = made.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    out.sort_unstable_by_key(|(block, _)| *block);
    Ok(out.into_iter().map(|(_, value)| value).collect())
}

fn value(file: &dyn ReadFile, size: u64, block: usize, buffer: &mut [u8]) -> io::Result<Value> {
    let (offset, len) = blocks::range(block, size);
    let (mut hasher, mut have) = (BlockHasher::new(block, size), 0);
    while have < len {
        let most = usize::try_from(len - have).unwrap_or(READ).min(READ);
        match file.read_at(&mut buffer[..most], offset + have)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                hasher.update(&buffer[..n]);
                have += n as u64;
            }
        }
    }
    Ok(hasher.value())
}

/// The content of a file of `size` bytes, with its list; none if it has another size by now, or is not moved by blocks.
pub fn list(file: &dyn ReadFile, size: u64, threads: usize) -> io::Result<Option<(ContentId, Vec<Value>)>> {
    let Some(count) = blocks::count(size) else { return Ok(None) };
    let values = match values(file, size, 0..count, threads) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let grew = file.read_at(&mut [0], size)? > 0;
    Ok(blocks::root(&values).filter(|_| !grew).map(|id| (id, values)))
}

/// Whether a content is moved by blocks: it is neither small nor without end.
pub fn serves(size: u64) -> bool {
    size >= BLOCK && blocks::count(size).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::posix::PosixDisk;
    use dunlin_core::path::{Name, RelPath};

    #[test]
    fn a_list_is_that_of_the_whole_whoever_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = PosixDisk::open(dir.path()).unwrap();
        let path = RelPath::root().join(&Name::new(b"f").unwrap());
        for size in [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77] {
            let bytes: Vec<u8> = (0..size).map(|i| ((i * i) >> 7) as u8).collect();
            std::fs::write(dir.path().join("f"), &bytes).unwrap();
            let file = disk.open(&path).unwrap();
            let [one, many] = [1, 4].map(|threads| list(file.as_ref(), size, threads).unwrap().unwrap());
            assert_eq!(one.0, ContentId(*blake3::hash(&bytes).as_bytes()));
            assert_eq!(one, many);
            assert!(list(file.as_ref(), size + 1, 2).unwrap().is_none(), "it is shorter");
            assert!(size == 1 || list(file.as_ref(), size - 1, 2).unwrap().is_none(), "it is longer");
        }
    }

    #[test]
    fn the_oldest_lists_go() {
        let lists = Lists::default();
        let id = |n: u8| ContentId([n; 32]);
        let values = vec![[0; 32]; LISTS_BYTES / 32 / 3];
        (0..4).for_each(|n| lists.put(id(n), &values));
        assert!(lists.get(&id(0)).is_none() && lists.get(&id(1)).is_none());
        assert!(lists.get(&id(2)).is_some() && lists.get(&id(3)).is_some());
        lists.put(id(9), &vec![[0; 32]; LISTS_BYTES / 32]);
        assert!(lists.get(&id(9)).is_none(), "one that is too long is not kept");
    }
}
