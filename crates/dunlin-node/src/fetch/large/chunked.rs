//! A large content by its chunk list: what the file that it replaces has of it is not fetched again.

use super::super::ask;
use super::super::piece::Incoming;
use super::old::Old;
use super::{Broken, Part, finish, open};
use crate::chunks::CHUNK_MAX;
use crate::disk::ReadFile;
use crate::folder::{Folder, PeerFolder};
use crate::stage::Left;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::ids::FolderId;
use dunlin_core::message::{Chunk, ChunkPage, Piece, Request, read};
use dunlin_core::plan::Fetch;
use std::io;
use std::sync::Arc;
use tokio::task::{JoinSet, block_in_place};

/// Missing chunks that follow each other are asked for together up to this size.
pub(super) const RANGE: u64 = 4 << 20;
/// Ranges of one content under way at once.
pub(super) const RANGES: usize = 4;
/// The most chunks of a content: what a list may make us remember.
pub(super) const CHUNKS_MAX: u64 = 1 << 26;

/// A run of missing chunks.
#[derive(Default)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) len: u64,
    chunks: Vec<Chunk>,
}

impl Run {
    /// Adds the chunk that is at `offset`: right after the others.
    pub(super) fn push(&mut self, offset: u64, chunk: Chunk) {
        if self.len == 0 {
            self.offset = offset;
        }
        self.len += u64::from(chunk.len);
        self.chunks.push(chunk);
    }
}

/// Fetches a large content from one peer; `false` if the peer does not hold it, or holds something
/// else under its name. What is verified stays in the partial file, whatever happens.
pub(super) async fn chunked(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    old: &Old,
    left: Left,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<bool, Broken> {
    let part = open(folder, fetch, left)?;
    let file = old.file();
    let request = Request::Chunks { folder: folder.id, content: fetch.content, size: fetch.size };
    let mut list = ask(peer, &request).await?;
    let (mut offset, mut run, mut count, mut guessed) = (0, Run::default(), 0, 0);
    loop {
        let body = read_answer(&mut list).await?;
        let page = read(&body).map_err(|_| StreamError::Protocol("a chunk list cannot be read"))?;
        let ChunkPage::Chunks { chunks, last } = page else { return Ok(false) };
        if chunks.is_empty() && !last {
            return Err(StreamError::Protocol("a chunk list does not fit").into());
        }
        for chunk in chunks {
            count += 1;
            let end = offset + u64::from(chunk.len);
            if chunk.len == 0 || chunk.len as usize > CHUNK_MAX || end > fetch.size || count > CHUNKS_MAX {
                return Err(StreamError::Protocol("a chunk list does not fit").into());
            }
            let here = block_in_place(|| in_part(&part, offset, &chunk))? || {
                let found = old.chunk(&chunk, offset, &mut guessed).await;
                match file.as_ref().zip(found) {
                    Some((file, from)) => {
                        block_in_place(|| copy(&part, file.as_ref(), from, offset, &chunk))?
                    }
                    None => false,
                }
            };
            if here || run.len >= RANGE {
                flush(folder, peer, fetch, &part, &mut run, tasks).await?;
            }
            if !here {
                run.push(offset, chunk);
            }
            offset = end;
        }
        if last {
            break;
        }
    }
    flush(folder, peer, fetch, &part, &mut run, tasks).await?;
    while let Some(task) = tasks.join_next().await {
        task.map_err(|_| StreamError::Protocol("a transfer broke off"))??;
    }
    if offset != fetch.size {
        return Err(StreamError::Protocol("a chunk list does not fit").into());
    }
    finish(folder, &part, fetch)
}

/// Whether a chunk is in the partial file already.
pub(super) fn in_part(part: &Part, offset: u64, chunk: &Chunk) -> io::Result<bool> {
    if part.new {
        return Ok(false);
    }
    let mut bytes = vec![0; chunk.len as usize];
    Ok(read_full(|b, o| part.file.read_at(b, o), &mut bytes, offset)? && is_chunk(chunk, &bytes))
}

/// Copies a chunk from the old file, if it still is there.
fn copy(part: &Part, old: &dyn ReadFile, from: u64, offset: u64, chunk: &Chunk) -> io::Result<bool> {
    let mut bytes = vec![0; chunk.len as usize];
    if !read_full(|b, o| old.read_at(b, o), &mut bytes, from).unwrap_or(false) || !is_chunk(chunk, &bytes) {
        return Ok(false);
    }
    part.write(&bytes, offset)?;
    Ok(true)
}

fn is_chunk(chunk: &Chunk, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == chunk.hash.0
}

pub(super) fn read_full(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<bool> {
    let mut have = 0;
    while have < buffer.len() {
        match read(&mut buffer[have..], offset + have as u64)? {
            0 => return Ok(false),
            n => have += n,
        }
    }
    Ok(true)
}

/// Starts the transfer of a run, waiting while enough are under way.
async fn flush(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    part: &Part,
    run: &mut Run,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<(), Broken> {
    if run.len == 0 {
        return Ok(());
    }
    while tasks.len() >= RANGES {
        if let Some(task) = tasks.join_next().await {
            task.map_err(|_| StreamError::Protocol("a transfer broke off"))??;
        }
    }
    let run = std::mem::take(run);
    let piece = Piece { content: fetch.content, offset: run.offset, len: run.len };
    tasks.spawn(range(peer.clone(), part.clone(), folder.id, piece, run));
    Ok(())
}

pub(super) async fn range(
    peer: Arc<PeerFolder>,
    part: Part,
    folder: FolderId,
    piece: Piece,
    run: Run,
) -> Result<(), Broken> {
    let mut incoming = Incoming::ask(peer, folder, piece).await?;
    let mut offset = run.offset;
    for chunk in &run.chunks {
        let mut bytes = vec![0; chunk.len as usize];
        incoming.read(&mut bytes).await?;
        block_in_place(|| {
            if !is_chunk(chunk, &bytes) {
                return Err(Broken::from(StreamError::Protocol("a chunk does not fit its hash")));
            }
            Ok(part.write(&bytes, offset)?)
        })?;
        offset += u64::from(chunk.len);
    }
    incoming.done();
    Ok(())
}
