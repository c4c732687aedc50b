//! Chunk lists: whole, as a flat list, or in two levels, so that of a list only the pages that differ travel.
//! Lists are hints of whoever sends them.

use crate::ids::ContentId;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// The fewest chunks of a page; the last of a list may have fewer.
pub const PAGE_CHUNKS_MIN: usize = 16;
/// The most chunks of a page.
pub const PAGE_CHUNKS_MAX: usize = 256;
/// The most pages asked for in one request.
pub const SPANS_MAX: usize = 64;
/// A page ends after a chunk of whose hash these bits of the first byte are 0: 64 chunks after the fewest, on average.
const PAGE_MASK: u8 = 63;

/// Part of a chunk list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChunkPage {
    /// The next chunks.
    #[n(0)]
    Chunks {
        /// Their lengths and hashes, in the order of the content.
        #[n(0)]
        chunks: Vec<Chunk>,
        /// Whether the list ends here.
        #[n(1)]
        last: bool,
    },
    /// The device does not hold this content.
    #[n(1)]
    NotHere,
}

/// A chunk of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Chunk {
    /// Its length in bytes.
    #[n(0)]
    pub len: u32,
    /// The BLAKE3 hash of its bytes.
    #[n(1)]
    pub hash: ContentId,
}

/// Part of the list of a chunk list's pages.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PageList {
    /// The next pages.
    #[n(0)]
    Pages {
        /// In the order of the content.
        #[n(0)]
        pages: Vec<PageRef>,
        /// Whether the list ends here.
        #[n(1)]
        last: bool,
    },
    /// The device does not hold this content.
    #[n(1)]
    NotHere,
}

/// A page of a chunk list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PageRef {
    /// What [`page_id`] says of its chunks.
    #[n(0)]
    pub id: ContentId,
    /// How many bytes of the content its chunks are.
    #[n(1)]
    pub len: u64,
}

/// Where in a content a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Span {
    /// The first byte of its first chunk.
    #[n(0)]
    pub offset: u64,
    /// How many bytes its chunks are.
    #[n(1)]
    pub len: u64,
}

/// Whether the page ends that has so many chunks, this one the last.
pub fn ends_page(count: usize, chunk: &Chunk) -> bool {
    count >= PAGE_CHUNKS_MAX || (count >= PAGE_CHUNKS_MIN && chunk.hash.0[0] & PAGE_MASK == 0)
}

/// What names a page: `BLAKE3("dunlin page 1\0" || (length as u32, big endian || hash) of each chunk)`.
pub fn page_id(chunks: &[Chunk]) -> ContentId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dunlin page 1\0");
    for chunk in chunks {
        hasher.update(&chunk.len.to_be_bytes());
        hasher.update(&chunk.hash.0);
    }
    ContentId(*hasher.finalize().as_bytes())
}

/// Cuts a chunk list into pages; the last may be cut short by the end of the list.
pub fn pages(chunks: &[Chunk]) -> impl Iterator<Item = &[Chunk]> {
    let mut rest = chunks;
    core::iter::from_fn(move || {
        let ends = |(i, chunk): (usize, &Chunk)| ends_page(i + 1, chunk).then_some(i + 1);
        let count = rest.iter().enumerate().find_map(ends).unwrap_or(rest.len());
        let (page, more) = rest.split_at_checked(count).filter(|(page, _)| !page.is_empty())?;
        rest = more;
        Some(page)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    fn list(count: u32) -> Vec<Chunk> {
        let hash = |n: u32| ContentId(*blake3::hash(&n.to_be_bytes()).as_bytes());
        (0..count).map(|n| Chunk { len: 60_000 + n % 7, hash: hash(n) }).collect()
    }

    fn ids(chunks: &[Chunk]) -> BTreeSet<ContentId> {
        pages(chunks).map(page_id).collect()
    }

    #[test]
    fn pages_make_up_the_list_and_keep_their_bounds() {
        let chunks = list(13_600);
        let all: Vec<&[Chunk]> = pages(&chunks).collect();
        assert_eq!(all.concat(), chunks);
        let (last, others) = all.split_last().unwrap();
        assert!(others.iter().all(|p| (PAGE_CHUNKS_MIN..=PAGE_CHUNKS_MAX).contains(&p.len())));
        assert!((1..=PAGE_CHUNKS_MAX).contains(&last.len()));
        assert!((100..300).contains(&all.len()), "{} pages", all.len());
        // Chunks that are all alike, as of a hole.
        let alike = [chunks[0]; 1000];
        assert_eq!(pages(&alike).map(<[Chunk]>::len).sum::<usize>(), 1000);
        assert_eq!(pages(&[]).count(), 0);
    }

    #[test]
    fn a_chunk_more_changes_few_pages_wherever_it_is() {
        let before = list(13_600);
        let other = Chunk { len: 1, hash: ContentId([0x11; 32]) };
        for at in [0, 1, 17, 5_000, 13_599, 13_600] {
            let mut after = before.clone();
            after.insert(at, other);
            let new = ids(&after).difference(&ids(&before)).count();
            assert!((1..=4).contains(&new), "{new} new pages after an insert at {at}");
        }
    }

    #[test]
    fn a_page_is_named_by_lengths_and_hashes() {
        let chunks = list(2);
        // By hand: the form is part of the protocol.
        let mut bytes = b"dunlin page 1\0".to_vec();
        for chunk in &chunks {
            bytes.extend(chunk.len.to_be_bytes());
            bytes.extend(chunk.hash.0);
        }
        assert_eq!(page_id(&chunks).0, *blake3::hash(&bytes).as_bytes());
        assert_ne!(page_id(&chunks), page_id(&chunks[..1]));
    }
}
