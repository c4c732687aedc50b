//! Blocks of a content: pieces of 1 MiB whose hashes are inner nodes of the tree by which BLAKE3 makes the
//! content id. A list of them is proven by the id, and each block by the list: nothing of it is a hint.

use crate::ids::ContentId;
use alloc::vec::Vec;
use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a block; the last of a content may be shorter.
pub const BLOCK: u64 = 1 << 20;
/// The most blocks of a content that is moved by them: what a list takes in memory is bounded.
pub const BLOCKS_MAX: usize = 1 << 20;

/// Bytes of a leaf, a part of a block; the last of a content may be shorter.
pub const LEAF: u64 = 16 << 10;

/// The hash of one block: its chaining value, or the content id where there is no other block.
pub type Value = [u8; 32];

/// How many blocks a content of `size` bytes has; `None` if it is empty or has too many.
pub fn count(size: u64) -> Option<usize> {
    let count = usize::try_from(size.div_ceil(BLOCK)).ok()?;
    (1..=BLOCKS_MAX).contains(&count).then_some(count)
}

/// The first byte of a block, and how many it has.
pub fn range(block: usize, size: u64) -> (u64, u64) {
    let offset = (block as u64).saturating_mul(BLOCK);
    (offset, size.saturating_sub(offset).min(BLOCK))
}

/// Hashes one block as its bytes come.
pub struct BlockHasher {
    hasher: Hasher,
    only: bool,
}

impl BlockHasher {
    /// Of the `block`-th of a content of `size` bytes.
    pub fn new(block: usize, size: u64) -> BlockHasher {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(range(block, size).0);
        BlockHasher { hasher, only: size <= BLOCK }
    }

    /// The next bytes; no more than the block has.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash, once all bytes were there.
    pub fn value(&self) -> Value {
        if self.only { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() }
    }
}

/// The hash of a block that is there as a whole.
pub fn value(block: usize, size: u64, bytes: &[u8]) -> Value {
    let mut hasher = BlockHasher::new(block, size);
    hasher.update(bytes);
    hasher.value()
}

/// The hashes of the leaves of a block that is there as a whole, of a content of more than one block: further down the same
/// tree, so that they can be told from each other wherever the same bytes stand.
pub fn leaves(block: usize, size: u64, bytes: &[u8]) -> Vec<Value> {
    let (mut offset, mut out) = (range(block, size).0, Vec::new());
    for leaf in bytes.chunks(LEAF as usize) {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset).update(leaf);
        out.push(hasher.finalize_non_root());
        offset += LEAF;
    }
    out
}

/// The id of the content whose blocks have these hashes; `None` for no blocks.
pub fn root(values: &[Value]) -> Option<ContentId> {
    match values {
        [] => None,
        [only] => Some(ContentId(*only)),
        _ => {
            let (left, right) = halves(values);
            Some(ContentId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
        }
    }
}

/// What the left and the right half of two blocks or more amount to: the left is the largest power of two.
fn halves(values: &[Value]) -> (Value, Value) {
    let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
    (subtree(left), subtree(right))
}

fn subtree(values: &[Value]) -> Value {
    if let [only] = values {
        return *only;
    }
    let (left, right) = halves(values);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// A truth for each block, the lowest bit of each byte first. What is beyond its end is false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// From bytes, as they are sent.
    pub fn new(bytes: Vec<u8>) -> Bits {
        Bits(bytes)
    }

    /// As many as there are blocks, all false.
    pub fn none(count: usize) -> Bits {
        Bits(alloc::vec![0; count.div_ceil(8)])
    }

    /// One of them.
    pub fn get(&self, i: usize) -> bool {
        self.0.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
    }

    /// Sets one that is not beyond the end.
    pub fn set(&mut self, i: usize, to: bool) {
        if let Some(byte) = self.0.get_mut(i / 8) {
            *byte = (*byte & !(1 << (i % 8))) | (u8::from(to) << (i % 8));
        }
    }

    /// How many are true.
    pub fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// As they are sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bytes: &[u8]) -> Vec<Value> {
        let size = bytes.len() as u64;
        let block = |i| {
            let (offset, len) = range(i, size);
            value(i, size, &bytes[offset as usize..(offset + len) as usize])
        };
        (0..count(size).unwrap()).map(block).collect()
    }

    #[test]
    fn blocks_amount_to_the_hash_of_the_whole() {
        let most = 9 * BLOCK as usize + 1;
        let bytes: Vec<u8> =
            (0..most as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let around = (1..=9).flat_map(|n: usize| [-1, 0, 1].map(|d| ((n << 20) as i64 + d) as usize));
        for size in [1, 2, 1023, 1024, 1025, 65_537].into_iter().chain(around) {
            let of = values(&bytes[..size]);
            assert_eq!(root(&of), Some(ContentId(*blake3::hash(&bytes[..size]).as_bytes())), "{size} bytes");
            // As the bytes come.
            let last = of.len() - 1;
            let (offset, _) = range(last, size as u64);
            let mut hasher = BlockHasher::new(last, size as u64);
            bytes[offset as usize..size].chunks(70_001).for_each(|some| hasher.update(some));
            assert_eq!(hasher.value(), of[last], "{size} bytes");
        }
    }

    #[test]
    fn a_list_that_differs_in_anything_is_another_content() {
        let bytes = alloc::vec![7; 5 << 20];
        let right = values(&bytes);
        let id = root(&right).unwrap();
        for i in 0..right.len() {
            let mut wrong = right.clone();
            wrong[i][31] ^= 1;
            assert_ne!(root(&wrong), Some(id));
        }
        // Blocks of one content are the same only where they stand at the same place.
        assert_ne!(right[0], right[1]);
        assert_ne!(root(&right[..4]), Some(id));
        let more = [&right[..], &right[..1]].concat();
        assert_ne!(root(&more), Some(id));
    }

    #[test]
    fn leaves_amount_to_the_hash_of_their_block() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 70_000).map(|i| ((i * i) >> 7) as u8).collect();
        let size = bytes.len() as u64;
        for block in 0..4 {
            let (offset, len) = range(block, size);
            let mut of = bytes[offset as usize..(offset + len) as usize].to_vec();
            let right = leaves(block, size, &of);
            assert_eq!(right.len() as u64, len.div_ceil(LEAF));
            assert_eq!(subtree(&right), value(block, size, &of));
            // One byte is one leaf.
            of[20_000] ^= 1;
            let wrong = leaves(block, size, &of);
            assert_eq!((0..right.len()).filter(|i| right[*i] != wrong[*i]).collect::<Vec<_>>(), [1]);
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!([count(0), count(1), count(BLOCK), count(BLOCK + 1)], [None, Some(1), Some(1), Some(2)]);
        assert_eq!(
            [count(BLOCK << 20), count((BLOCK << 20) + 1), count(u64::MAX)],
            [Some(BLOCKS_MAX), None, None]
        );
        assert_eq!(range(3, 3 * BLOCK + 5), (3 * BLOCK, 5));
        assert_eq!(range(usize::MAX, 5).1, 0);
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn bits_are_what_was_set() {
        let mut bits = Bits::none(11);
        [0, 3, 10, 400].into_iter().for_each(|i| bits.set(i, true));
        bits.set(3, false);
        assert_eq!((0..99).filter(|i| bits.get(*i)).collect::<Vec<_>>(), [0, 10]);
        assert_eq!((bits.count(), bits.bytes().len()), (2, 2));
        assert_eq!(Bits::new(bits.bytes().to_vec()), bits);
    }
}
