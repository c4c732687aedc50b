//! A content as it comes from one device, for whoever puts it elsewhere: nothing of it is staged or verified here.

use super::{Load, ask};
use crate::folder::PeerFolder;
use crate::transfer::{StreamError, read_answer, read_exact};
use dunlin_core::ids::{ContentId, FolderId};
use dunlin_core::message::{Header, PIECE_MAX, Piece, Request, read};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes passed on at a time.
const BLOCK: u64 = 256 << 10;

/// Passes on what a device has of a content, until it ends or whoever reads is gone.
pub(crate) async fn stream(
    folder: FolderId,
    peer: Arc<PeerFolder>,
    content: ContentId,
    size: u64,
    out: mpsc::Sender<io::Result<Vec<u8>>>,
) {
    let _load = Load::on(&peer);
    let mut offset = 0;
    while offset < size {
        let len = PIECE_MAX.min(size - offset);
        if let Err(e) = piece(folder, &peer, Piece { content, offset, len }, &out).await {
            // Who reads may be gone, too.
            let _ = out.send(Err(io::Error::other(e))).await;
            return;
        }
        offset += len;
    }
}

async fn piece(
    folder: FolderId,
    peer: &PeerFolder,
    piece: Piece,
    out: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> Result<(), StreamError> {
    let mut left = piece.len;
    let mut recv = ask(peer, &Request::Pieces { folder, pieces: vec![piece] }).await?;
    let header = read::<Header>(&read_answer(&mut recv).await?);
    if header.map_err(|_| StreamError::Protocol("an answer cannot be read"))? != Header::Here {
        return Err(StreamError::Gone("the content is not there any more".into()));
    }
    while left > 0 {
        let mut block = vec![0; usize::try_from(BLOCK.min(left)).unwrap_or(0)];
        read_exact(&mut recv, &mut block).await?;
        left -= block.len() as u64;
        out.send(Ok(block)).await.map_err(|_| StreamError::Gone("nobody reads it".into()))?;
    }
    Ok(())
}
