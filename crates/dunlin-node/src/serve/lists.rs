//! Chunk lists of what is here: whole, or in pages.

use super::{Source, source};
use crate::chunks::{CHUNK_MAX, Cutter, List, in_parallel, threads};
use crate::disk::ReadFile;
use crate::folder::Folder;
use crate::transfer::{StreamError, send_frame};
use dunlin_core::ids::ContentId;
use dunlin_core::message::{Chunk, ChunkPage, PAGE_CHUNKS_MAX, PageList, PageRef, SPANS_MAX, Span};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Chunks in one frame of a flat list, and pages in one of a list of pages.
const CHUNKS: usize = 256;
const PAGES: usize = 1024;
/// The longest page there is, in bytes of the content.
const SPAN_MAX: u64 = (PAGE_CHUNKS_MAX * CHUNK_MAX) as u64;

/// What became known of a list while it was made.
struct Part {
    chunks: Vec<Chunk>,
    pages: Vec<PageRef>,
    last: bool,
}

/// Sends the flat list of a content.
pub(super) async fn send_chunks(
    folder: &Arc<Folder>,
    send: &mut (impl AsyncWrite + Unpin),
    content: ContentId,
) -> Result<(), StreamError> {
    let Some(mut made) = make(folder, content).await else {
        return send_frame(send, &ChunkPage::NotHere).await;
    };
    while let Some(part) = made.recv().await {
        for chunks in part.chunks.chunks(CHUNKS) {
            send_frame(send, &ChunkPage::Chunks { chunks: chunks.into(), last: false }).await?;
        }
        if part.last {
            send_frame(send, &ChunkPage::Chunks { chunks: Vec::new(), last: true }).await?;
        }
    }
    Ok(())
}

/// Sends the list of a content's pages.
pub(super) async fn send_page_list(
    folder: &Arc<Folder>,
    send: &mut (impl AsyncWrite + Unpin),
    content: ContentId,
) -> Result<(), StreamError> {
    let Some(mut made) = make(folder, content).await else {
        return send_frame(send, &PageList::NotHere).await;
    };
    while let Some(part) = made.recv().await {
        for pages in part.pages.chunks(PAGES) {
            send_frame(send, &PageList::Pages { pages: pages.into(), last: false }).await?;
        }
        if part.last {
            send_frame(send, &PageList::Pages { pages: Vec::new(), last: true }).await?;
        }
    }
    Ok(())
}

/// The list of a content as it is made, or was a moment ago; `None` if the content is not here. A list that cannot be
/// made to its end ends without a last part.
async fn make(folder: &Arc<Folder>, content: ContentId) -> Option<mpsc::Receiver<Part>> {
    let (tell, made) = mpsc::channel(16);
    let of = folder.clone();
    let found = spawn_blocking(move || match source(&of, &content) {
        Some(Source::File(file)) => Some(file),
        _ => None,
    });
    let file = found.await.ok()??;
    let folder = folder.clone();
    spawn_blocking(move || {
        if let Some(list) = folder.site.chunk_lists.get(&content) {
            let (chunks, pages) = (list.chunks().to_vec(), list.pages().collect());
            // Who asked may be gone.
            let _ = tell.blocking_send(Part { chunks, pages, last: true });
        } else if let Ok(Some(list)) = make_of(file.as_ref(), &tell) {
            folder.site.chunk_lists.put(content, Arc::new(list));
        }
    });
    Some(made)
}

/// Makes the list of a file; `None` if nobody wants it any more, or the file changed meanwhile.
fn make_of(file: &dyn ReadFile, tell: &mpsc::Sender<Part>) -> io::Result<Option<List>> {
    let (before, mut list, mut wanted) = (file.stat()?, List::default(), true);
    in_parallel(file, before.size, threads(), &mut |chunks| {
        let pages = list.add(&chunks);
        wanted = tell.blocking_send(Part { chunks, pages, last: false }).is_ok();
        wanted
    })?;
    let pages = list.end().into_iter().collect();
    wanted = wanted && tell.blocking_send(Part { chunks: Vec::new(), pages, last: true }).is_ok();
    Ok((wanted && file.stat()?.stamp() == before.stamp()).then_some(list))
}

/// Sends some pages of a content's list. One that does not begin and end at cuts is answered as if it were not here.
pub(super) async fn send_pages(
    folder: &Arc<Folder>,
    send: &mut (impl AsyncWrite + Unpin),
    content: ContentId,
    spans: Vec<Span>,
) -> Result<(), StreamError> {
    if spans.len() > SPANS_MAX || spans.iter().any(|span| span.len > SPAN_MAX) {
        return Err(StreamError::Protocol("too much in one request"));
    }
    let (tell, mut made) = mpsc::channel(4);
    let folder = folder.clone();
    spawn_blocking(move || {
        let file = match source(&folder, &content) {
            Some(Source::File(file)) => Some(file),
            _ => None,
        };
        let list = folder.site.chunk_lists.get(&content);
        for span in spans {
            let kept = list.as_ref().and_then(|list| list.page(span)).map(<[Chunk]>::to_vec);
            let chunks = file.as_ref().and_then(|file| kept.or_else(|| cut_page(file.as_ref(), span)));
            let page = chunks.map_or(ChunkPage::NotHere, |chunks| ChunkPage::Chunks { chunks, last: true });
            if tell.blocking_send(page).is_err() {
                break;
            }
        }
    });
    while let Some(page) = made.recv().await {
        send_frame(send, &page).await?;
    }
    Ok(())
}

/// Cuts one page out of a file, whose list may still be in the making.
fn cut_page(file: &dyn ReadFile, span: Span) -> Option<Vec<Chunk>> {
    let end = span.offset.checked_add(span.len)?;
    let mut cutter = Cutter::new(file, span.offset, file.stat().ok()?.size);
    let mut chunks = Vec::new();
    while cutter.at() < end && chunks.len() < PAGE_CHUNKS_MAX {
        chunks.push(cutter.cut().ok()??);
    }
    (cutter.at() == end && !chunks.is_empty()).then_some(chunks)
}
