//! The file that a content is to replace: which chunks it has becomes known while others make the list of the new one.

use crate::chunks::{CHUNKED_MIN, List, Lists, in_parallel, threads};
use crate::disk::ReadFile;
use crate::folder::{Folder, lock};
use dunlin_core::ids::ContentId;
use dunlin_core::message::{Chunk, PageRef, Span};
use dunlin_core::path::RelPath;
use dunlin_core::rows::Stamp;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// What is at one place in the new content is looked for in the old one up to so many bytes further on, before it counts as
/// new …
const FURTHER: u64 = 64 << 20;
/// … and may then be fetched, up to so many bytes. Beyond that, the old one is known to its end first.
const GUESS_MAX: u64 = 1 << 20;

/// The old file. It is read until all of it is known, or this is dropped.
pub(super) struct Old(Arc<Reading>);

struct Reading {
    file: Option<Arc<dyn ReadFile>>,
    known: Mutex<Known>,
    /// Bytes from the beginning whose chunks are known; the largest number once that is all.
    progress: watch::Sender<u64>,
    stop: AtomicBool,
    /// What it is by the index, and the stamp with which it is that: others may need its list, too.
    content: Option<(ContentId, Stamp)>,
}

#[derive(Default)]
struct Known {
    list: List,
    /// Where a chunk is, and its length.
    chunks: HashMap<ContentId, (u64, u32)>,
    /// Where a page is.
    pages: HashMap<ContentId, Span>,
    /// Where the next chunk and the next page begin.
    at: u64,
    paged: u64,
}

impl Known {
    fn add(&mut self, chunks: &[Chunk]) {
        for chunk in chunks {
            self.chunks.entry(chunk.hash).or_insert((self.at, chunk.len));
            self.at += u64::from(chunk.len);
        }
        let pages = self.list.add(chunks);
        self.add_pages(pages);
    }

    fn end(&mut self) {
        let page = self.list.end();
        self.add_pages(page);
    }

    fn add_pages(&mut self, pages: impl IntoIterator<Item = PageRef>) {
        for page in pages {
            let span = Span { offset: self.paged, len: page.len };
            self.pages.entry(page.id).or_insert(span);
            self.paged += page.len;
        }
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Old {
    /// Begins to read what stands at `path`, if that is a file worth it.
    pub(super) fn begin(folder: &Arc<Folder>, path: &RelPath) -> Old {
        let file = folder.site.disk.open(path).ok().map(Arc::<dyn ReadFile>::from);
        let file = file.filter(|file| file.stat().is_ok_and(|s| s.size >= CHUNKED_MIN));
        let is = |(_, stamp): &(ContentId, Stamp)| {
            file.as_ref().is_some_and(|file| file.stat().is_ok_and(|s| s.stamp() == *stamp))
        };
        let content = folder.site.known_at(path).filter(is);
        let list = content.and_then(|(content, _)| folder.site.chunk_lists.get(&content));
        let (progress, _) = watch::channel(if file.is_some() && list.is_none() { 0 } else { u64::MAX });
        let mut known = Known::default();
        if let Some(list) = list {
            known.add(list.chunks());
            known.end();
        }
        let stop = AtomicBool::new(false);
        let reading = Reading { file, known: Mutex::new(known), progress, stop, content };
        let old = Arc::new(reading);
        if *old.progress.borrow() == 0 {
            let (old, folder) = (old.clone(), folder.clone());
            spawn_blocking(move || old.read(&folder.site.chunk_lists));
        }
        Old(old)
    }

    /// Nothing is there that could be used.
    pub(super) fn is_empty(&self) -> bool {
        self.0.file.is_none()
    }

    pub(super) fn file(&self) -> Option<Arc<dyn ReadFile>> {
        self.0.file.clone()
    }

    /// What was put together from it was wrong: a list that was kept is not used again.
    pub(super) fn doubt(&self, lists: &Lists) {
        if let Some((content, _)) = &self.0.content {
            lists.forget(content);
        }
    }

    /// Where it has the page that is at `at` in the new content.
    pub(super) async fn page(&self, page: &PageRef, at: u64) -> Option<Span> {
        let same = |span: &&Span| span.len == page.len;
        self.look(at.saturating_add(FURTHER), |known| known.pages.get(&page.id).filter(same).copied()).await
    }

    /// The chunks of one of its pages.
    pub(super) fn chunks_of(&self, page: Span) -> Vec<Chunk> {
        lock(&self.0.known).list.page(page).unwrap_or_default().to_vec()
    }

    /// Where it has the chunk that is at `at` in the new content. `guessed` counts bytes that were said not to be in it
    /// before that was known for certain.
    pub(super) async fn chunk(&self, chunk: &Chunk, at: u64, guessed: &mut u64) -> Option<u64> {
        let find = |known: &Known| known.chunks.get(&chunk.hash).filter(|c| c.1 == chunk.len).map(|c| c.0);
        if let Some(found) = self.look(at.saturating_add(FURTHER), find).await {
            return Some(found);
        }
        if *guessed + u64::from(chunk.len) <= GUESS_MAX {
            *guessed += u64::from(chunk.len);
            return None;
        }
        self.look(u64::MAX, find).await
    }

    /// Looks for something until the file is known up to `upto`.
    async fn look<T>(&self, upto: u64, find: impl Fn(&Known) -> Option<T>) -> Option<T> {
        let mut progress = self.0.progress.subscribe();
        loop {
            let so_far = *progress.borrow_and_update();
            let found = find(&lock(&self.0.known));
            if found.is_some() || so_far >= upto || progress.changed().await.is_err() {
                return found;
            }
        }
    }
}

impl Reading {
    fn read(&self, lists: &Lists) {
        let Some(file) = &self.file else { return };
        let size = file.stat().map_or(0, |s| s.size);
        // What cannot be read is fetched; so it is if the file became shorter.
        let read = in_parallel(file.as_ref(), size, threads(), &mut |chunks| {
            let mut known = lock(&self.known);
            known.add(&chunks);
            self.progress.send_replace(known.at);
            !self.stop.load(Ordering::Relaxed)
        });
        let mut known = lock(&self.known);
        known.end();
        let whole = read.is_ok() && known.at == size;
        let list = whole.then(|| Arc::new(known.list.clone()));
        drop(known);
        self.progress.send_replace(u64::MAX);
        if let (Some((content, stamp)), Some(list)) = (self.content, list)
            && file.stat().is_ok_and(|s| s.stamp() == stamp)
        {
            // It may be read again soon: by the next attempt, or for the next version.
            lists.put(content, list);
        }
    }
}
