//! A large content by its chunk list in pages: first the list of the pages, then the pages that the old file does not have,
//! then the chunks of those that it does not have. All three go on at once, with the putting together of it all.

use super::super::ask;
use super::assembly::{Assembly, Step};
use super::chunked::{CHUNKS_MAX, RANGE, RANGES, Run, in_part, range};
use super::old::Old;
use super::{Broken, Part, conclude, open, sync};
use crate::chunks::{CHUNK_MAX, CHUNK_MIN, List};
use crate::folder::{Folder, PeerFolder};
use crate::stage::Left;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::message::{
    Chunk, ChunkPage, PAGE_CHUNKS_MAX, PAGE_CHUNKS_MIN, PageList, PageRef, Piece, Request, SPANS_MAX, Span,
    page_id, read,
};
use dunlin_core::plan::Fetch;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, block_in_place};
use tokio::try_join;

/// Pages that wait to be worked on.
const WAITING: usize = 256;
/// The shortest page there is (the last of a content may be shorter), and the longest, in bytes of the content.
const PAGE_MIN: u64 = (PAGE_CHUNKS_MIN * CHUNK_MIN) as u64;
const PAGE_MAX: u64 = (PAGE_CHUNKS_MAX * CHUNK_MAX) as u64;

/// A page of the new content.
enum Entry {
    /// The old file has it there.
    Known(Span),
    /// It was asked for.
    Asked(oneshot::Receiver<Vec<Chunk>>),
}

/// A page that is asked for: where it is, what it is, and who waits for it.
type Asked = (Span, PageRef, oneshot::Sender<Vec<Chunk>>);

/// Fetches a large content from one peer. `None` if what was put together is something else: then either the old file
/// changed meanwhile, or the list is wrong, and each chunk has to be looked at.
pub(super) async fn paged(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    old: &Old,
    left: Left,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<Option<bool>, Broken> {
    let part = open(folder, fetch, left)?;
    let assembly = Assembly::begin(part.clone(), old.file());
    let (entries, mut pages) = mpsc::channel(WAITING);
    let (asked, questions) = mpsc::channel(WAITING);
    let (list, at) = (List::default(), 0);
    let mut plan = Plan {
        folder,
        peer,
        fetch,
        part: &part,
        old,
        tasks,
        assembly: &assembly,
        run: Run::default(),
        at,
        guessed: 0,
        list,
    };
    let planned = try_join!(
        read_list(folder, peer, fetch, old, entries, asked),
        ask_pages(folder, peer, fetch, questions),
        plan.make(&mut pages),
    );
    let list = std::mem::take(&mut plan.list);
    let put = match planned {
        Ok(_) => assembly.end().await?,
        Err(broken) => {
            // What is under way is not waited for; a disk that failed is what there is to say.
            tasks.abort_all();
            match assembly.give_up().await {
                Ok(None) => None,
                Err(Broken::Disk(e)) => return Err(Broken::Disk(e)),
                _ => return Err(broken),
            }
        }
    };
    if put != Some(fetch.content) {
        old.doubt(&folder.site.chunk_lists);
        return Ok(None);
    }
    block_in_place(|| sync(folder, &part, fetch))?;
    let whole = block_in_place(|| conclude(folder, fetch, fetch.content))?;
    folder.site.chunk_lists.put(fetch.content, Arc::new(list));
    Ok(Some(whole))
}

fn unfit() -> Broken {
    StreamError::Protocol("a page list does not fit").into()
}

/// Reads the list of pages, and looks for each in the old file.
async fn read_list(
    folder: &Folder,
    peer: &PeerFolder,
    fetch: &Fetch,
    old: &Old,
    entries: mpsc::Sender<Entry>,
    asked: mpsc::Sender<Asked>,
) -> Result<(), Broken> {
    let mut list = ask(peer, &Request::PageList { folder: folder.id, content: fetch.content }).await?;
    let mut offset = 0;
    loop {
        let body = read_answer(&mut list).await?;
        let part = read(&body).map_err(|_| StreamError::Protocol("a page list cannot be read"))?;
        let PageList::Pages { pages, last } = part else { return Err(Broken::Stream) };
        if pages.is_empty() && !last {
            return Err(unfit());
        }
        for page in pages {
            let span = Span { offset, len: page.len };
            offset = offset.saturating_add(page.len);
            let short = page.len < PAGE_MIN && offset != fetch.size;
            if page.len == 0 || page.len > PAGE_MAX || short || offset > fetch.size {
                return Err(unfit());
            }
            let entry = match old.page(&page, span.offset).await {
                Some(known) => Entry::Known(known),
                None => {
                    let (give, chunks) = oneshot::channel();
                    asked.send((span, page, give)).await.map_err(|_| Broken::Stream)?;
                    Entry::Asked(chunks)
                }
            };
            entries.send(entry).await.map_err(|_| Broken::Stream)?;
        }
        if last {
            break;
        }
    }
    if offset == fetch.size { Ok(()) } else { Err(unfit()) }
}

/// Asks for pages, as many at once as wait for it.
async fn ask_pages(
    folder: &Folder,
    peer: &PeerFolder,
    fetch: &Fetch,
    mut questions: mpsc::Receiver<Asked>,
) -> Result<(), Broken> {
    let mut some = Vec::new();
    while questions.recv_many(&mut some, SPANS_MAX).await > 0 {
        let spans = some.iter().map(|asked| asked.0).collect();
        let request = Request::Pages { folder: folder.id, content: fetch.content, spans };
        let mut answer = ask(peer, &request).await?;
        for (span, page, give) in some.drain(..) {
            let body = read_answer(&mut answer).await?;
            let got = read(&body).map_err(|_| StreamError::Protocol("a page cannot be read"))?;
            let ChunkPage::Chunks { chunks, .. } = got else { return Err(Broken::Stream) };
            let fits = |chunk: &Chunk| chunk.len > 0 && chunk.len as usize <= CHUNK_MAX;
            let len: u64 = chunks.iter().map(|c| u64::from(c.len)).sum();
            if len != span.len || !chunks.iter().all(fits) || page_id(&chunks) != page.id {
                return Err(StreamError::Protocol("a page does not fit its name").into());
            }
            // Who waits for it may have given up.
            let _ = give.send(chunks);
        }
    }
    Ok(())
}

struct Plan<'a> {
    folder: &'a Arc<Folder>,
    peer: &'a Arc<PeerFolder>,
    fetch: &'a Fetch,
    part: &'a Part,
    old: &'a Old,
    tasks: &'a mut JoinSet<Result<(), Broken>>,
    assembly: &'a Assembly,
    /// Chunks before `at` that are missing, and not asked for yet.
    run: Run,
    at: u64,
    guessed: u64,
    list: List,
}

impl Plan<'_> {
    /// Makes steps of the pages, in their order.
    async fn make(&mut self, pages: &mut mpsc::Receiver<Entry>) -> Result<(), Broken> {
        while let Some(entry) = pages.recv().await {
            let chunks = match entry {
                Entry::Known(span) => {
                    self.list.add(&self.old.chunks_of(span));
                    self.flush().await?;
                    self.at += span.len;
                    self.assembly.add(Step::Copy { from: span.offset, len: span.len }).await?;
                    continue;
                }
                Entry::Asked(chunks) => chunks.await.map_err(|_| Broken::Stream)?,
            };
            self.list.add(&chunks);
            if self.list.chunks().len() as u64 > CHUNKS_MAX {
                return Err(unfit());
            }
            for chunk in chunks {
                self.chunk(chunk).await?;
            }
        }
        self.list.end();
        self.flush().await
    }

    async fn chunk(&mut self, chunk: Chunk) -> Result<(), Broken> {
        let len = u64::from(chunk.len);
        let step = if block_in_place(|| in_part(self.part, self.at, &chunk))? {
            Some(Step::Here { len })
        } else {
            let found = self.old.chunk(&chunk, self.at, &mut self.guessed).await;
            found.map(|from| Step::Copy { from, len })
        };
        if step.is_some() || self.run.len >= RANGE {
            self.flush().await?;
        }
        match step {
            Some(step) => self.assembly.add(step).await?,
            None => self.run.push(self.at, chunk),
        }
        self.at += len;
        Ok(())
    }

    /// Asks for the run of missing chunks, waiting while enough are under way.
    async fn flush(&mut self) -> Result<(), Broken> {
        let run = std::mem::take(&mut self.run);
        if run.len == 0 {
            return Ok(());
        }
        while self.tasks.len() >= RANGES {
            if let Some(task) = self.tasks.join_next().await {
                task.map_err(|_| StreamError::Protocol("a transfer broke off"))??;
            }
        }
        let (tell, arrived) = oneshot::channel();
        let len = run.len;
        let piece = Piece { content: self.fetch.content, offset: run.offset, len };
        let come = range(self.peer.clone(), self.part.clone(), self.folder.id, piece, run);
        self.tasks.spawn(async move {
            // Whoever puts it together knows what to do with an error; it may have ended for another.
            let _ = tell.send(come.await);
            Ok(())
        });
        self.assembly.add(Step::Comes { len, arrived }).await
    }
}
