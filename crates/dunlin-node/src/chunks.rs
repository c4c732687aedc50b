//! Chunk lists: where a content may be cut so that an edit moves few boundaries (FastCDC, version
//! 2020, 16/64/256 KiB, normalisation 1). They are hints, made on demand: what arrives is verified
//! chunk by chunk against the list, and as a whole against the content id.

use crate::disk::ReadFile;
use dunlin_core::ids::ContentId;
use dunlin_core::message::Chunk;
use fastcdc::v2020::StreamCDC;
use std::io::{self, Read};

/// Contents of this size and above are moved chunk by chunk, and resumed.
pub const CHUNKED_MIN: u64 = 1 << 20;
/// The shortest chunk in bytes (the last of a file may be shorter).
pub const CHUNK_MIN: usize = 16 << 10;
/// The nominal chunk in bytes.
pub const CHUNK_AVERAGE: usize = 64 << 10;
/// The longest chunk in bytes.
pub const CHUNK_MAX: usize = 256 << 10;

struct Reader<'a> {
    file: &'a dyn ReadFile,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// The chunks of a file from its beginning, read as they are asked for.
pub fn chunks(file: &dyn ReadFile) -> impl Iterator<Item = io::Result<Chunk>> + '_ {
    StreamCDC::new(Reader { file, offset: 0 }, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX).map(|chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        let len = u32::try_from(chunk.length).map_err(io::Error::other)?;
        Ok(Chunk { len, hash: ContentId(*blake3::hash(&chunk.data).as_bytes()) })
    })
}
