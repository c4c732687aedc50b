//! What is asked of a device that holds contents.

use super::Span;
use crate::ids::{ContentId, FolderId};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// What is asked on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Pieces of contents. Each is answered by a [`Header`] frame and its bytes, in order.
    #[n(0)]
    Pieces {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The pieces.
        #[n(1)]
        pieces: Vec<Piece>,
    },
    /// The chunk list of a content, answered by [`ChunkPage`](super::ChunkPage) frames.
    #[n(1)]
    Chunks {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The content.
        #[n(1)]
        content: ContentId,
        /// Its size, as the state says.
        #[n(2)]
        size: u64,
    },
    /// Which of some contents the device holds, answered by a [`Held`](super::Held) frame.
    #[n(2)]
    Have {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The contents.
        #[n(1)]
        contents: Vec<ContentId>,
    },
    /// The hashes of a content's blocks, answered by [`BlockPage`](super::BlockPage) frames.
    #[n(3)]
    Blocks {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The content.
        #[n(1)]
        content: ContentId,
        /// Its size, as the state says.
        #[n(2)]
        size: u64,
    },
    /// Which blocks of some contents the device holds, answered by a [`Holds`](super::Holds) frame.
    #[n(4)]
    Holds {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The contents.
        #[n(1)]
        contents: Vec<ContentId>,
    },
    /// The pages of a content's chunk list, answered by [`PageList`](super::PageList) frames. Only to devices with [`FEATURE_PAGES`](super::FEATURE_PAGES).
    #[n(5)]
    PageList {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The content.
        #[n(1)]
        content: ContentId,
    },
    /// Some of those pages, each answered by a [`ChunkPage`](super::ChunkPage) frame, in order.
    #[n(6)]
    Pages {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The content.
        #[n(1)]
        content: ContentId,
        /// Where the pages are.
        #[n(2)]
        spans: Vec<Span>,
    },
    /// The hashes of what some blocks of a content consist of, each answered by a [`BlockLeaves`](super::BlockLeaves) frame, in order. Only to
    /// devices with [`FEATURE_LEAVES`](super::FEATURE_LEAVES).
    #[n(7)]
    Leaves {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The content, of more than one block.
        #[n(1)]
        content: ContentId,
        /// Its size, as the state says.
        #[n(2)]
        size: u64,
        /// Which blocks, by their number from the content's beginning.
        #[n(3)]
        blocks: Vec<u64>,
    },
}

/// A range of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Piece {
    /// The content.
    #[n(0)]
    pub content: ContentId,
    /// The first byte.
    #[n(1)]
    pub offset: u64,
    /// How many bytes.
    #[n(2)]
    pub len: u64,
}

/// What goes before the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Header {
    /// The bytes follow.
    #[n(0)]
    Here,
    /// The device does not hold this content; no bytes follow.
    #[n(1)]
    NotHere,
}
