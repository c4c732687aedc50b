//! Chunk lists: where a content may be cut so that an edit moves few boundaries (FastCDC, version
//! 2020, 16/64/256 KiB, normalisation 1). They are hints, made on demand: what arrives is verified
//! chunk by chunk against the list, and as a whole against the content id.

mod kept;
mod parallel;

pub use kept::{List, Lists};
pub use parallel::{in_parallel, threads};

use crate::disk::ReadFile;
use dunlin_core::ids::ContentId;
use dunlin_core::message::Chunk;
use fastcdc::v2020::{Normalization, cut, select_masks};
use std::io;

/// Contents of this size and above are moved chunk by chunk, and resumed.
pub const CHUNKED_MIN: u64 = 1 << 20;
/// The shortest chunk in bytes (the last of a file may be shorter).
pub const CHUNK_MIN: usize = 16 << 10;
/// The nominal chunk in bytes.
pub const CHUNK_AVERAGE: usize = 64 << 10;
/// The longest chunk in bytes.
pub const CHUNK_MAX: usize = 256 << 10;
/// Bytes that are read at a time, about: as many as stay close to the processor.
const WINDOW: usize = 1 << 20;

/// Cuts a file into chunks. After a cut nothing of what was before it counts: from any cut of a list it makes the rest of
/// that list.
pub struct Cutter<'a> {
    file: &'a dyn ReadFile,
    /// Where the next chunk begins, and where the file ends.
    at: u64,
    size: u64,
    buffer: Vec<u8>,
    /// What the buffer holds from `at` on.
    start: usize,
    end: usize,
    masks: (u64, u64),
}

impl<'a> Cutter<'a> {
    /// Begins at a cut of a file of so many bytes.
    pub fn new(file: &'a dyn ReadFile, at: u64, size: u64) -> Cutter<'a> {
        let masks = select_masks(CHUNK_AVERAGE, Normalization::Level1);
        Cutter { file, at, size, buffer: Vec::new(), start: 0, end: 0, masks }
    }

    /// Where the next chunk begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Has a whole chunk in the buffer, or the rest of the file; its length.
    fn fill(&mut self) -> io::Result<usize> {
        let rest = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = rest.min(CHUNK_MAX);
        if self.end - self.start < wanted {
            self.buffer.resize(WINDOW, 0);
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let upto = rest.min(WINDOW);
            while self.end < wanted {
                let n = self.file.read_at(&mut self.buffer[self.end..upto], self.at + self.end as u64)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.end += n;
            }
        }
        Ok(wanted)
    }

    /// The next chunk; `None` at the end. A file that is shorter than it was said to be is an error.
    pub fn cut(&mut self) -> io::Result<Option<Chunk>> {
        let window = self.fill()?;
        if window == 0 {
            return Ok(None);
        }
        let bytes = &self.buffer[self.start..self.start + window];
        let (small, large) = self.masks;
        let (_, len) = cut(bytes, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX, small, large, small << 1, large << 1);
        let hash = ContentId(*blake3::hash(&bytes[..len]).as_bytes());
        self.start += len;
        self.at += len as u64;
        Ok(Some(Chunk { len: u32::try_from(len).map_err(io::Error::other)?, hash }))
    }
}

impl Iterator for Cutter<'_> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<io::Result<Chunk>> {
        self.cut().transpose()
    }
}

/// The chunks of a file from its beginning, read as they are asked for.
pub fn chunks(file: &dyn ReadFile) -> impl Iterator<Item = io::Result<Chunk>> + '_ {
    let size = file.stat().map(|s| s.size);
    let (failed, size) = match size {
        Ok(size) => (None, size),
        Err(e) => (Some(Err(e)), 0),
    };
    failed.into_iter().chain(Cutter::new(file, 0, size))
}
