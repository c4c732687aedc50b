//! What is on this disk: one row for each thing that was applied or observed there.

use super::{bad, decode, encode};
use crate::ids::{ContentId, Dot, NodeId};
use crate::kv::Read;
use crate::state::{Content, Mtime, Vector};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// What identifies an inode and tells whether it was touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stamp {
    /// Inode number.
    #[n(0)]
    pub ino: u64,
    /// Birth time, where there is one.
    #[n(1)]
    pub btime: Option<Mtime>,
    /// Last change of the inode.
    #[n(2)]
    pub ctime: Mtime,
    /// Last change of the content.
    #[n(3)]
    pub mtime: Mtime,
    /// Size in bytes.
    #[n(4)]
    pub size: u64,
    /// Number of hard links.
    #[n(5)]
    pub nlink: u32,
}

impl Stamp {
    /// Whether both are of one inode. Its number alone does not tell: file systems give it again at once.
    pub fn is_same_inode(&self, other: &Stamp) -> bool {
        self.ino == other.ino && self.btime == other.btime
    }
}

/// What is on this disk at a position: the version applied or observed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRow {
    /// The node it belongs to.
    pub node: NodeId,
    /// The version of it; `None` for a directory that only keeps what lives in it.
    pub dot: Option<Dot>,
    /// What had been seen of the node when this was applied; `None` if all of its present state is.
    pub seen: Option<Vector>,
    /// What it is and holds.
    pub content: Content,
    /// Its permission bits, 0o777.
    pub mode: u16,
    /// Its modification time.
    pub mtime: Mtime,
    /// The inode it was found as.
    pub stamp: Stamp,
    /// The directory should go, but holds things that are not ours to remove.
    pub kept: bool,
    /// The file's bytes are not `content` any more although nothing was done to it: what they are.
    pub damaged: Option<ContentId>,
}

impl LocalRow {
    /// What the file that is there holds.
    pub fn holds(&self) -> Option<ContentId> {
        match self.content {
            Content::File { id, .. } => Some(self.damaged.unwrap_or(id)),
            _ => None,
        }
    }
}

#[derive(Encode, Decode)]
struct LocalBytes {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    dot: Option<Dot>,
    #[n(2)]
    seen: Option<Vec<Dot>>,
    #[n(3)]
    kind: u8,
    #[n(4)]
    id: Option<ContentId>,
    #[cbor(n(5), with = "minicbor::bytes")]
    text: Option<Vec<u8>>,
    #[n(6)]
    mode: u16,
    #[n(7)]
    mtime: Mtime,
    #[n(8)]
    stamp: Stamp,
    #[n(9)]
    kept: bool,
    #[n(10)]
    size: u64,
    #[n(11)]
    damaged: Option<ContentId>,
}

pub(super) fn decode_local(bytes: &[u8]) -> Read<LocalRow> {
    let b: LocalBytes = decode(bytes, "local row")?;
    let content = match (b.kind, b.id, b.text) {
        (1, _, _) => Content::Dir,
        (2, Some(id), _) => Content::File { id, size: b.size },
        (3, _, Some(text)) => Content::Link(text.into()),
        _ => return Err(bad("local row")),
    };
    let seen = b.seen.map(|dots| {
        let mut v = Vector::default();
        dots.into_iter().for_each(|d| v.add(d));
        v
    });
    Ok(LocalRow {
        node: b.node,
        dot: b.dot,
        seen,
        content,
        mode: b.mode,
        mtime: b.mtime,
        stamp: b.stamp,
        kept: b.kept,
        damaged: b.damaged,
    })
}

pub(super) fn encode_local(row: &LocalRow) -> Vec<u8> {
    let dots = |v: &Vector| v.entries().iter().map(|&(inc, counter)| Dot { inc, counter }).collect();
    let (kind, id, text, size) = match &row.content {
        Content::Dir | Content::Unknown { .. } => (1, None, None, 0),
        Content::File { id, size } => (2, Some(*id), None, *size),
        Content::Link(text) => (3, None, Some(text.to_vec()), 0),
    };
    encode(&LocalBytes {
        node: row.node,
        dot: row.dot,
        seen: row.seen.as_ref().map(dots),
        kind,
        id,
        text,
        mode: row.mode,
        mtime: row.mtime,
        stamp: row.stamp,
        kept: row.kept,
        size,
        damaged: row.damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_those_of_before_a_column_was_added_are_read() {
        let content = Content::File { id: ContentId([1; 32]), size: 7 };
        let row = |damaged| LocalRow {
            node: NodeId([2; 16]),
            dot: None,
            seen: None,
            content: content.clone(),
            mode: 0o644,
            mtime: Mtime::default(),
            stamp: Stamp::default(),
            kept: false,
            damaged,
        };
        for row in [row(None), row(Some(ContentId([3; 32])))] {
            assert_eq!(decode_local(&encode_local(&row)).unwrap(), row);
        }
        // The last column is left out where it is empty, which is how old rows look.
        assert_eq!(encode_local(&row(None))[0], 0x80 | 11);
        assert_eq!(encode_local(&row(Some(ContentId([3; 32]))))[0], 0x80 | 12);
    }
}
