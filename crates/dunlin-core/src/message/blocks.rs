//! What is said of contents and blocks that are held.

use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// The bit of a device that answers [`Request::Blocks`](super::Request::Blocks) and [`Request::Holds`](super::Request::Holds).
pub const FEATURE_BLOCKS: u64 = 1;
/// The bit of a device that answers [`Request::Leaves`](super::Request::Leaves).
pub const FEATURE_LEAVES: u64 = 1 << 2;
/// The most blocks whose leaves are asked for in one request.
pub const LEAVES_MAX: usize = 64;
/// The most contents of which blocks are asked after in one request.
pub const HOLDS_MAX: usize = 64;
/// About the most bytes of an answer to that.
pub const HOLDS_BYTES: usize = 512 << 10;
/// The fewest blocks in a page of a list, but for its last one.
pub const BLOCKS_PAGE: usize = 64;

/// Part of the list of a content's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlockPage {
    /// The next blocks.
    #[n(0)]
    Blocks {
        /// Their hashes, 32 bytes each, in the order of the content.
        #[cbor(n(0), with = "minicbor::bytes")]
        values: Vec<u8>,
        /// Whether the list ends here.
        #[n(1)]
        last: bool,
    },
    /// The device does not hold this content.
    #[n(1)]
    NotHere,
}

/// What the leaves of a block are: the answer to [`Request::Leaves`](super::Request::Leaves), once for each block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlockLeaves {
    /// They are.
    #[n(0)]
    Leaves {
        /// Their hashes, 32 bytes each, in the order of the content.
        #[cbor(n(0), with = "minicbor::bytes")]
        values: Vec<u8>,
    },
    /// The device does not hold this block.
    #[n(1)]
    NotHere,
}

/// The answer to [`Request::Holds`](super::Request::Holds).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holds {
    /// One for each content, in order; of those that are missing at the end nothing is held.
    #[n(0)]
    pub contents: Vec<HeldBlocks>,
}

/// What of a content is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct HeldBlocks {
    /// All of it.
    #[n(0)]
    pub all: bool,
    /// A bit for each block that is held and verified, the lowest of each byte first; empty if it is not gathered.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub here: Vec<u8>,
    /// The same of blocks that are on their way from a device that has all.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub coming: Vec<u8>,
}

/// The answer to [`Request::Have`](super::Request::Have).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    /// A bit for each content, in order, the lowest of each byte first: whether it is held, or was a moment ago.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bits: Vec<u8>,
}

impl Held {
    /// From one truth a content.
    pub fn new(held: &[bool]) -> Held {
        let byte = |some: &[bool]| some.iter().rev().fold(0u8, |byte, is| byte << 1 | u8::from(*is));
        Held { bits: held.chunks(8).map(byte).collect() }
    }

    /// Whether the `i`-th content is held.
    pub fn has(&self, i: usize) -> bool {
        self.bits.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told_bit_by_bit() {
        let held: Vec<bool> = (0..19).map(|i| i % 3 == 0).collect();
        let told = Held::new(&held);
        assert_eq!(told.bits.len(), 3);
        assert!((0..19).all(|i| told.has(i) == held[i]));
        assert!(!told.has(19) && !told.has(1000));
    }
}
