//! Answers requests for content. The folder itself is the store: what is served is read from where
//! it stands, and only if its metadata say that it is still what the index says.

mod lists;

use crate::disk::ReadFile;
use crate::folder::{Folder, lock};
use crate::transfer::{StreamError, send_frame};
use dunlin_core::ids::{ContentId, FolderId};
use dunlin_core::message::{HAVE_MAX, Header, Held, PIECE_MAX, PIECES_MAX, Piece, Request, frame, read};
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::block_in_place;

/// Bytes read and sent at a time.
const BLOCK: u64 = 256 << 10;

enum Source {
    Bytes(Arc<[u8]>),
    File(Box<dyn ReadFile>),
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
    let (offset, len) = (usize::try_from(piece.offset).ok()?, usize::try_from(piece.len).ok()?);
    if let Some(bytes) = lock(&folder.recent).get(&piece.content) {
        return bytes.get(offset..offset.checked_add(len)?).map(<[u8]>::to_vec);
    }
    let file = find(&piece.content)?;
    read_block(file.as_ref(), piece.offset, len).ok()
}

async fn send_piece(
    folder: &Folder,
    send: &mut (impl AsyncWrite + Unpin),
    piece: Piece,
) -> Result<(), StreamError> {
    let end = piece.offset.saturating_add(piece.len);
    let found = block_in_place(|| source(folder, &piece.content)).filter(|s| match s {
        Source::Bytes(b) => b.len() as u64 >= end,
        Source::File(f) => f.stat().is_ok_and(|s| s.size >= end),
    });
    let gone = |e: &dyn std::fmt::Display| StreamError::Gone(e.to_string());
    match found {
        None => send_frame(send, &Header::NotHere).await,
        Some(Source::Bytes(bytes)) => {
            send_frame(send, &Header::Here).await?;
            let range = usize::try_from(piece.offset).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
            send.write_all(&bytes[range]).await.map_err(|e| gone(&e))
        }
        Some(Source::File(file)) => {
            send_frame(send, &Header::Here).await?;
            let mut offset = piece.offset;
            while offset < end {
                let len = usize::try_from((end - offset).min(BLOCK)).unwrap_or(0);
                let block = block_in_place(|| read_block(file.as_ref(), offset, len));
                // A file that shrank ends the stream; the peer asks somebody else, or again.
                let block = block.map_err(|e| gone(&e))?;
                send.write_all(&block).await.map_err(|e| gone(&e))?;
                offset += block.len() as u64;
            }
            Ok(())
        }
    }
}

fn read_block(file: &dyn ReadFile, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let (mut block, mut have) = (vec![0; len], 0);
    while have < len {
        match file.read_at(&mut block[have..], offset + have as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    Ok(block)
}
