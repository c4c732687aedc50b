//! Answers requests for content. The folder itself is the store: what is served is read from where
//! it stands, and only if its metadata say that it is still what the index says.

mod lists;

use crate::blocks::{serves, threads, values};
use crate::disk::ReadFile;
use crate::folder::{Folder, Gathered, lock};
use crate::transfer::{StreamError, send_frame};
use dunlin_core::blocks::{self, Value};
use dunlin_core::ids::{ContentId, FolderId};
use dunlin_core::message::{
    BLOCKS_PAGE, BlockLeaves, BlockPage, HAVE_MAX, HOLDS_BYTES, HOLDS_MAX, Header, Held, HeldBlocks, Holds,
    LEAVES_MAX, PIECE_MAX, PIECES_MAX, Piece, Request, frame, read,
};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// Bytes read and sent at a time.
const BLOCK: u64 = 256 << 10;
/// Blocks in one page of a list that is here. Pages of one that is being made are as short as may be: who asked hears something.
const BLOCKS_READY: usize = 8192;

enum Source {
    Bytes(Arc<[u8]>),
    File(Box<dyn ReadFile>),
    /// Not all of it is here.
    Part(Arc<Gathered>),
}

impl Source {
    /// Whether it has these bytes.
    fn covers(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        match self {
            Source::Bytes(bytes) => bytes.len() as u64 >= end,
            Source::File(file) => file.stat().is_ok_and(|s| s.size >= end),
            Source::Part(part) => part.covers(offset, len),
        }
    }

    /// Fills a buffer; what it is to hold is known to be covered.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut have = 0;
        while have < buffer.len() {
            let (rest, at) = (&mut buffer[have..], offset + have as u64);
            let n = match self {
                Source::Bytes(bytes) => {
                    let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                    let n = from.len().min(rest.len());
                    rest[..n].copy_from_slice(&from[..n]);
                    n
                }
                Source::File(file) => file.read_at(rest, at)?,
                Source::Part(part) => part.read_at(rest, at)?,
            };
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            have += n;
        }
        Ok(())
    }
}

/// Answers one request of a member, whichever way it came. `find` knows the folders that the peer belongs to.
pub(crate) async fn serve(
    mut send: impl AsyncWrite + Unpin,
    request: &[u8],
    find: impl Fn(FolderId) -> Option<Arc<Folder>>,
) -> Result<(), StreamError> {
    let request: Request = read(request).map_err(|_| StreamError::Protocol("a request cannot be read"))?;
    match request {
        Request::Pieces { folder, pieces } => {
            if pieces.len() > PIECES_MAX || pieces.iter().any(|p| p.len > PIECE_MAX) {
                return Err(StreamError::Protocol("too much in one request"));
            }
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            send_pieces(&folder, &mut send, &pieces).await?;
        }
        Request::Chunks { folder, content, .. } => {
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            lists::send_chunks(&folder, &mut send, content).await?;
        }
        Request::PageList { folder, content } => {
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            lists::send_page_list(&folder, &mut send, content).await?;
        }
        Request::Pages { folder, content, spans } => {
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            lists::send_pages(&folder, &mut send, content, spans).await?;
        }
        Request::Have { folder, contents } => {
            if contents.len() > HAVE_MAX {
                return Err(StreamError::Protocol("too much in one request"));
            }
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            let held = |content: &ContentId| source(&folder, content).is_some();
            let held: Vec<bool> = block_in_place(|| contents.iter().map(held).collect());
            send_frame(&mut send, &Held::new(&held)).await?;
        }
        Request::Blocks { folder, content, size } => {
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            send_blocks(&folder, &mut send, content, size).await?;
        }
        Request::Leaves { folder, content, size, blocks } => {
            if blocks.len() > LEAVES_MAX {
                return Err(StreamError::Protocol("too much in one request"));
            }
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            for block in blocks {
                let leaves = block_in_place(|| leaves(&folder, content, size, block));
                let values = leaves.map(|values| BlockLeaves::Leaves { values: values.concat() });
                send_frame(&mut send, &values.unwrap_or(BlockLeaves::NotHere)).await?;
            }
        }
        Request::Holds { folder, contents } => {
            if contents.len() > HOLDS_MAX {
                return Err(StreamError::Protocol("too much in one request"));
            }
            let folder = find(folder).ok_or(StreamError::Protocol("no such folder"))?;
            let holds = block_in_place(|| holds(&folder, &contents));
            send_frame(&mut send, &holds).await?;
        }
    }
    send.flush().await.map_err(|e| StreamError::Gone(e.to_string()))
}

/// Finds a content on this disk.
fn source(folder: &Folder, content: &ContentId) -> Option<Source> {
    if let Some(bytes) = lock(&folder.recent).get(content) {
        return Some(Source::Bytes(bytes));
    }
    folder.site.find(content).map(Source::File)
}

/// The same for some of its bytes: what is still being gathered is served as far as it came.
fn source_of(
    folder: &Folder,
    piece: &Piece,
    find: impl FnOnce(&ContentId) -> Option<Box<dyn ReadFile>>,
) -> Option<Source> {
    let recent = lock(&folder.recent).get(&piece.content);
    let whole = recent
        .map(Source::Bytes)
        .or_else(|| find(&piece.content).map(Source::File))
        .or_else(|| lock(&folder.gathering).get(&piece.content).cloned().map(Source::Part));
    whole.filter(|source| source.covers(piece.offset, piece.len))
}

/// Small pieces are read and sent together: to hand over a thread for each of them takes longer than to read it.
async fn send_pieces(
    folder: &Folder,
    send: &mut (impl AsyncWrite + Unpin),
    pieces: &[Piece],
) -> Result<(), StreamError> {
    let mut rest = pieces;
    while let Some(first) = rest.first() {
        let (answers, count) = block_in_place(|| read_together(folder, rest));
        if count == 0 {
            send_piece(folder, send, *first).await?;
        } else {
            send.write_all(&answers).await.map_err(|e| StreamError::Gone(e.to_string()))?;
        }
        rest = &rest[count.max(1)..];
    }
    Ok(())
}

/// The answers to the first of some pieces, as many as make one block, and how many these are.
fn read_together(folder: &Folder, pieces: &[Piece]) -> (Vec<u8>, usize) {
    let (mut out, mut count) = (Vec::new(), 0);
    let Ok(snapshot) = folder.site.store.snapshot() else { return (out, 0) };
    let find = |content: &ContentId| folder.site.find_in(&snapshot, content);
    for piece in pieces {
        if out.len() as u64 + piece.len > BLOCK {
            break;
        }
        match read_piece(folder, piece, find) {
            Some(bytes) => {
                out.extend(frame(&Header::Here));
                out.extend(bytes);
            }
            None => out.extend(frame(&Header::NotHere)),
        }
        count += 1;
    }
    (out, count)
}

/// The bytes of a small piece.
fn read_piece(
    folder: &Folder,
    piece: &Piece,
    find: impl FnOnce(&ContentId) -> Option<Box<dyn ReadFile>>,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(piece.len).ok()?];
    source_of(folder, piece, find)?.read(&mut bytes, piece.offset).ok()?;
    Some(bytes)
}

async fn send_piece(
    folder: &Folder,
    send: &mut (impl AsyncWrite + Unpin),
    piece: Piece,
) -> Result<(), StreamError> {
    let find = || source_of(folder, &piece, |content| folder.site.find(content));
    let Some(source) = block_in_place(find) else { return send_frame(send, &Header::NotHere).await };
    send_frame(send, &Header::Here).await?;
    let (mut offset, mut left) = (piece.offset, piece.len);
    let mut buffer = vec![0; usize::try_from(left.min(BLOCK)).unwrap_or(0)];
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        // A file that shrank ends the stream; the peer asks somebody else, or again.
        let read = block_in_place(|| source.read(&mut buffer[..len], offset));
        read.map_err(|e| StreamError::Gone(e.to_string()))?;
        send.write_all(&buffer[..len]).await.map_err(|e| StreamError::Gone(e.to_string()))?;
        (offset, left) = (offset + len as u64, left - len as u64);
    }
    Ok(())
}

/// What of some contents is here. What would make the answer too long is left out: it is asked after again.
fn holds(folder: &Folder, contents: &[ContentId]) -> Holds {
    let mut room = HOLDS_BYTES;
    let mut holds = |content: &ContentId| {
        let gathered = lock(&folder.gathering).get(content).cloned();
        let Some(gathered) = gathered else {
            let all = matches!(source(folder, content), Some(Source::File(_)));
            return HeldBlocks { all, ..HeldBlocks::default() };
        };
        let (here, coming) = gathered.blocks();
        let bytes = here.bytes().len() + coming.bytes().len();
        if bytes > room {
            return HeldBlocks::default();
        }
        room -= bytes;
        HeldBlocks { all: false, here: here.bytes().to_vec(), coming: coming.bytes().to_vec() }
    };
    Holds { contents: contents.iter().map(&mut holds).collect() }
}

/// The leaves of a block of a content, if it is here and has that block.
fn leaves(folder: &Folder, content: ContentId, size: u64, block: u64) -> Option<Vec<Value>> {
    let block = usize::try_from(block).ok()?;
    let (offset, len) = blocks::range(block, size);
    let piece = Piece { content, offset, len };
    let bytes = if len > 0 { read_piece(folder, &piece, |content| folder.site.find(content)) } else { None };
    bytes.map(|bytes| blocks::leaves(block, size, &bytes))
}

fn page(values: &[Value], last: bool) -> BlockPage {
    BlockPage::Blocks { values: values.concat(), last }
}

/// Sends the list of a content's blocks: one that is here, else one that is made now.
async fn send_blocks(
    folder: &Arc<Folder>,
    send: &mut (impl AsyncWrite + Unpin),
    content: ContentId,
    size: u64,
) -> Result<(), StreamError> {
    let gathered = lock(&folder.gathering).get(&content).filter(|g| g.size == size).cloned();
    let list = gathered.map(|g| g.values.as_slice().into()).or_else(|| folder.site.lists.get(&content));
    if let Some(list) = list.filter(|list| blocks::count(size) == Some(list.len())) {
        let mut pages = list.chunks(BLOCKS_READY).peekable();
        while let Some(values) = pages.next() {
            send_frame(send, &page(values, pages.peek().is_none())).await?;
        }
        return Ok(());
    }
    let (pages, mut made) = mpsc::channel(4);
    let folder = folder.clone();
    tokio::task::spawn_blocking(move || make_blocks(&folder, content, size, &pages));
    while let Some(page) = made.recv().await {
        send_frame(send, &page).await?;
    }
    Ok(())
}

/// Makes a list, page by page, as long as somebody wants it.
fn make_blocks(folder: &Folder, content: ContentId, size: u64, pages: &mpsc::Sender<BlockPage>) {
    let found = match source(folder, &content) {
        Some(Source::File(file)) if file.stat().is_ok_and(|s| s.size == size) => Some(file),
        _ => None,
    };
    let Some((file, count)) = found.filter(|_| serves(size)).zip(blocks::count(size)) else {
        // Who asked may be gone.
        let _ = pages.blocking_send(BlockPage::NotHere);
        return;
    };
    let mut list = Vec::with_capacity(count);
    while list.len() < count {
        let to = count.min(list.len() + BLOCKS_PAGE);
        // A list that does not end is none.
        let Ok(some) = values(file.as_ref(), size, list.len()..to, threads()) else { return };
        if pages.blocking_send(page(&some, to == count)).is_err() {
            return;
        }
        list.extend(some);
    }
    if blocks::root(&list) == Some(content) {
        folder.site.lists.put(content, &list);
    }
}
