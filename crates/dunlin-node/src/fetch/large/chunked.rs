//! A large content by its chunk list: what the file that it replaces has of it is not fetched again.

use super::super::ask;
use super::super::piece::Incoming;
use super::{Broken, Part, finish};
use crate::chunks::{CHUNK_MAX, CHUNKED_MIN};
use crate::folder::{Folder, PeerFolder};
use crate::stage::Left;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::ids::{ContentId, FolderId};
use dunlin_core::message::{Chunk, ChunkPage, Piece, Request, read};
use dunlin_core::path::RelPath;
use dunlin_core::plan::Fetch;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::task::{JoinSet, block_in_place};

/// Missing chunks that follow each other are asked for together up to this size.
const RANGE: u64 = 4 << 20;
/// Ranges of one content under way at once.
const RANGES: usize = 4;
/// The most chunks of a content: what a list may make us remember.
const CHUNKS_MAX: u64 = 1 << 26;

/// The chunks of the file that is to be replaced: most of them are usually in the new one too.
pub(super) type Known = BTreeMap<ContentId, (RelPath, u64, u32)>;

pub(super) fn chunks_of(folder: &Folder, path: &RelPath) -> Known {
    let mut out = Known::new();
    let Ok(file) = folder.site.disk.open(path) else { return out };
    if file.stat().map_or(0, |s| s.size) < CHUNKED_MIN {
        return out;
    }
    let mut offset = 0;
    for chunk in crate::chunks::chunks(file.as_ref()).map_while(Result::ok) {
        out.entry(chunk.hash).or_insert((path.clone(), offset, chunk.len));
        offset += u64::from(chunk.len);
    }
    out
}

/// A run of missing chunks.
#[derive(Default)]
struct Run {
    offset: u64,
    len: u64,
    chunks: Vec<Chunk>,
}

/// Fetches a large content from one peer; `false` if the peer does not hold it, or holds something
/// else under its name. What is verified stays in the partial file, whatever happens.
pub(super) async fn chunked(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    old: &Known,
    left: Left,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<bool, Broken> {
    let (part, new) = folder.site.stage.open_part(&fetch.content)?;
    let part = Part { file: Arc::from(part), new, left, unsynced: Arc::default(), lost: Arc::default() };
    part.file.set_len(fetch.size)?;
    let request = Request::Chunks { folder: folder.id, content: fetch.content, size: fetch.size };
    let mut list = ask(peer, &request).await?;
    let (mut offset, mut run, mut count) = (0, Run::default(), 0);
    loop {
        let body = read_answer(&mut list).await?;
        let page = read(&body).map_err(|_| StreamError::Protocol("a chunk list cannot be read"))?;
        let ChunkPage::Chunks { chunks, last } = page else { return Ok(false) };
        for chunk in chunks {
            count += 1;
            let end = offset + u64::from(chunk.len);
            if chunk.len == 0 || chunk.len as usize > CHUNK_MAX || end > fetch.size || count > CHUNKS_MAX {
                return Err(StreamError::Protocol("a chunk list does not fit").into());
            }
            let here = block_in_place(|| is_here(folder, &part, old, offset, &chunk))?;
            if here || run.len >= RANGE {
                flush(folder, peer, fetch, &part, &mut run, tasks).await?;
            }
            if !here {
                if run.len == 0 {
                    run.offset = offset;
                }
                run.len += u64::from(chunk.len);
                run.chunks.push(chunk);
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

/// Whether a chunk is in the partial file already, or can be copied from the old file.
fn is_here(folder: &Folder, part: &Part, old: &Known, offset: u64, chunk: &Chunk) -> io::Result<bool> {
    if part.new && old.is_empty() {
        return Ok(false);
    }
    let mut bytes = vec![0; chunk.len as usize];
    if !part.new && read_full(|b, o| part.file.read_at(b, o), &mut bytes, offset)? && is_chunk(chunk, &bytes)
    {
        return Ok(true);
    }
    let Some((path, at, len)) = old.get(&chunk.hash).filter(|k| k.2 == chunk.len) else { return Ok(false) };
    debug_assert_eq!(*len, chunk.len);
    let Ok(file) = folder.site.disk.open(path) else { return Ok(false) };
    if read_full(|b, o| file.read_at(b, o), &mut bytes, *at).unwrap_or(false) && is_chunk(chunk, &bytes) {
        part.write(&bytes, offset)?;
        return Ok(true);
    }
    Ok(false)
}

fn is_chunk(chunk: &Chunk, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == chunk.hash.0
}

fn read_full(
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

async fn range(
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
