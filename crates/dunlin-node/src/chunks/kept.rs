//! A chunk list with its pages; and those of the last contents, which need not be made again.

use dunlin_core::ids::ContentId;
use dunlin_core::message::{Chunk, PageRef, Span, ends_page, page_id};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks in all the lists that are kept: 36 bytes each, and 48 a page.
const CHUNKS_KEPT: usize = 1 << 17;

/// The chunks of a content from its beginning, and the pages that have ended so far.
#[derive(Clone, Debug, Default)]
pub struct List {
    chunks: Vec<Chunk>,
    pages: Vec<Page>,
    /// Chunks that are in a page, and their bytes.
    paged: usize,
    bytes: u64,
}

/// A page: which chunks, and where in the content they begin.
#[derive(Clone, Copy, Debug)]
struct Page {
    chunks: usize,
    offset: u64,
    is: PageRef,
}

impl List {
    /// Adds chunks; the pages that end with them.
    pub fn add(&mut self, chunks: &[Chunk]) -> Vec<PageRef> {
        let from = self.pages.len();
        for chunk in chunks {
            self.chunks.push(*chunk);
            if ends_page(self.chunks.len() - self.paged, chunk) {
                self.end_page();
            }
        }
        self.pages[from..].iter().map(|p| p.is).collect()
    }

    /// Ends the list; its last page, if that is not ended yet.
    pub fn end(&mut self) -> Option<PageRef> {
        (self.paged < self.chunks.len()).then(|| self.end_page())
    }

    fn end_page(&mut self) -> PageRef {
        let chunks = &self.chunks[self.paged..];
        let len = chunks.iter().map(|c| u64::from(c.len)).sum();
        let is = PageRef { id: page_id(chunks), len };
        self.pages.push(Page { chunks: self.paged, offset: self.bytes, is });
        self.paged = self.chunks.len();
        self.bytes += len;
        is
    }

    /// All chunks.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The pages that have ended.
    pub fn pages(&self) -> impl Iterator<Item = PageRef> {
        self.pages.iter().map(|p| p.is)
    }

    /// The chunks of the page that is exactly there.
    pub fn page(&self, span: Span) -> Option<&[Chunk]> {
        let at = self.pages.binary_search_by_key(&span.offset, |p| p.offset).ok()?;
        let page = self.pages[at];
        let end = self.pages.get(at + 1).map_or(self.paged, |next| next.chunks);
        (page.is.len == span.len).then(|| &self.chunks[page.chunks..end])
    }
}

/// The lists of the last contents.
#[derive(Debug, Default)]
pub struct Lists(Mutex<VecDeque<(ContentId, Arc<List>)>>);

impl Lists {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(ContentId, Arc<List>)>> {
        // Only whole entries come and go.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list of a content.
    pub fn get(&self, content: &ContentId) -> Option<Arc<List>> {
        self.lock().iter().find(|(of, _)| of == content).map(|(_, list)| list.clone())
    }

    /// Keeps the list of a content, and no more of the oldest than there is room for.
    pub fn put(&self, content: ContentId, list: Arc<List>) {
        if list.chunks.len() > CHUNKS_KEPT {
            return;
        }
        let mut lists = self.lock();
        lists.retain(|(of, _)| *of != content);
        lists.push_back((content, list));
        let mut chunks: usize = lists.iter().map(|(_, list)| list.chunks.len()).sum();
        while chunks > CHUNKS_KEPT {
            chunks -= lists.pop_front().map_or(chunks, |(_, list)| list.chunks.len());
        }
    }

    /// Contents whose lists are kept, the latest first.
    #[cfg(test)]
    fn contents(&self) -> Vec<ContentId> {
        self.lock().iter().rev().map(|(of, _)| *of).collect()
    }

    /// Forgets one that turned out not to be right.
    pub fn forget(&self, content: &ContentId) {
        self.lock().retain(|(of, _)| of != content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_core::message::pages;

    fn chunks(count: usize) -> Vec<Chunk> {
        let hash = |n: usize| ContentId(*blake3::hash(&n.to_be_bytes()).as_bytes());
        (0..count).map(|n| Chunk { len: 20_000 + (n % 7) as u32, hash: hash(n) }).collect()
    }

    #[test]
    fn pages_are_the_same_however_the_chunks_come() {
        let all = chunks(3_000);
        let (mut list, mut told) = (List::default(), Vec::new());
        for some in all.chunks(97) {
            told.extend(list.add(some));
        }
        told.extend(list.end());
        assert_eq!(list.end(), None);
        assert!(told.iter().map(|p| p.id).eq(pages(&all).map(page_id)));
        assert_eq!(told, list.pages().collect::<Vec<_>>());
        let mut offset = 0;
        for (page, is) in pages(&all).zip(told) {
            assert_eq!(list.page(Span { offset, len: is.len }), Some(page));
            assert_eq!(list.page(Span { offset, len: is.len + 1 }), None);
            offset += is.len;
        }
        assert_eq!(list.page(Span { offset, len: 1 }), None);
    }

    #[test]
    fn only_the_latest_lists_are_kept_and_none_that_is_too_long() {
        let lists = Lists::default();
        let list = |count| {
            let mut list = List::default();
            list.add(&chunks(count));
            Arc::new(list)
        };
        let (half, id) = (list(CHUNKS_KEPT / 2), |n| ContentId([n; 32]));
        (1..=3).for_each(|n| lists.put(id(n), half.clone()));
        assert_eq!(lists.contents(), [id(3), id(2)]);
        lists.put(id(2), half.clone());
        assert_eq!(lists.contents(), [id(2), id(3)]);
        lists.put(id(9), list(CHUNKS_KEPT + 1));
        assert_eq!(lists.contents(), [id(2), id(3)]);
        lists.put(id(4), half);
        lists.forget(&id(4));
        assert!(lists.get(&id(4)).is_none());
    }
}
