//! Identifiers, and every hash the tree depends on. All devices must derive the same bytes, so the
//! inputs are spelt out here, each with a domain of its own; integers are little endian.

use crate::path::Name;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Names of files are made of these, several for each file: in one piece.
                let mut text = [0; 2 * $len];
                for (pair, byte) in text.chunks_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<$name, minicbor::decode::Error> {
                let wrong = || minicbor::decode::Error::message("an id of the wrong length");
                $name::from_slice(d.bytes()?).ok_or_else(wrong)
            }
        }

        impl $name {
            /// Reads the hexadecimal form that `Display` writes.
            pub fn from_hex(text: &str) -> Option<$name> {
                let (mut out, text) = ([0; $len], text.as_bytes());
                if text.len() != 2 * $len {
                    return None;
                }
                for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
                    *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
                }
                Some($name(out))
            }

            /// Takes exactly the right number of bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }
        }
    };
}

id!(
    /// A node of the tree: a file, directory or link, wherever it is and whatever it holds.
    NodeId, 16
);
id!(
    /// One life of one device's index: what counts the dots. A device whose index is lost or rolled
    /// back gets a new one.
    Incarnation, 16
);
id!(
    /// One run of a device's program with an index, from its start to its end. An index that was rolled back
    /// does not know the lives that came after.
    LifeId, 16
);
id!(
    /// A device: its ed25519 public key.
    DeviceId, 32
);
id!(
    /// A folder: the public key that its creator made for it.
    FolderId, 32
);
id!(
    /// What a file holds: the BLAKE3 hash of its bytes (what `b3sum` prints).
    ContentId, 32
);

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_digit(c: u8) -> Option<u8> {
    (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// The root of every folder.
pub const ROOT: NodeId = NodeId([0; 16]);

/// Where a directory waits whose way to its place leads through itself: `.dunlin/swap`.
pub const PARKED: NodeId = NodeId([0xff; 16]);

/// A number given by one incarnation to one change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
pub struct Dot {
    /// Who counted.
    #[n(0)]
    pub inc: Incarnation,
    /// The count, from 1.
    #[n(1)]
    pub counter: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.inc, self.counter)
    }
}

/// Changes of one incarnation that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct DotRange {
    /// Who counted.
    #[n(0)]
    pub inc: Incarnation,
    /// The first counter.
    #[n(1)]
    pub first: u64,
    /// The last counter.
    #[n(2)]
    pub last: u64,
}

impl DotRange {
    /// The range of one change.
    pub fn of(dot: Dot) -> DotRange {
        DotRange { inc: dot.inc, first: dot.counter, last: dot.counter }
    }

    /// Whether the change is one of them.
    pub fn covers(&self, dot: Dot) -> bool {
        self.inc == dot.inc && (self.first..=self.last).contains(&dot.counter)
    }

    /// Whether all changes of `other` are among them.
    pub fn includes(&self, other: &DotRange) -> bool {
        self.inc == other.inc && self.first <= other.first && other.last <= self.last
    }

    /// Whether some change is one of both.
    pub fn meets(&self, other: &DotRange) -> bool {
        self.inc == other.inc && self.first <= other.last && other.first <= self.last
    }

    /// For each incarnation one range, from the first change to the last.
    pub fn hull(ranges: impl IntoIterator<Item = DotRange>) -> Vec<DotRange> {
        let mut out: BTreeMap<Incarnation, DotRange> = BTreeMap::new();
        for r in ranges {
            let hull = out.entry(r.inc).or_insert(r);
            (hull.first, hull.last) = (hull.first.min(r.first), hull.last.max(r.last));
        }
        out.into_values().collect()
    }
}

fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain.as_bytes()).update(&[0]);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn first_16(hash: [u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

/// Two bytes that siblings share, then 14 of the hash: rows of one directory lie near each other in an index, and what
/// changes together is written together.
fn beside(near: [u8; 2], hash: [u8; 32]) -> NodeId {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&near);
    out[2..].copy_from_slice(&hash[..14]);
    NodeId(out)
}

impl NodeId {
    /// The `n`-th node created as `name` in `parent`: independent creations of one path coincide.
    pub fn created(parent: NodeId, name: &Name, n: u32) -> NodeId {
        let [_, _, a, b, ..] = parent.0;
        beside([a, b], hash("dunlin node", &[&parent.0, &n.to_le_bytes(), name.as_bytes()]))
    }

    /// The node that a version becomes when it lost its name and a user touches it.
    pub fn split(node: NodeId, dot: Dot) -> NodeId {
        let [a, b, ..] = node.0;
        beside([a, b], hash("dunlin split", &[&node.0, &dot.inc.0, &dot.counter.to_le_bytes()]))
    }
}

impl Incarnation {
    /// The incarnation of `device` whose index carries the random number `index`.
    pub fn new(device: DeviceId, index: [u8; 16]) -> Incarnation {
        Incarnation(first_16(hash("dunlin incarnation", &[&device.0, &index])))
    }
}

/// What the derived name of a version hangs on (its hexadecimal digits are the tail).
pub(crate) enum Tail {
    /// A version that lost its name to another version of its node.
    Copy(NodeId, Dot),
    /// A node that is no directory and lost its name to a sibling, or to its own directory.
    File(NodeId),
    /// A directory that lost its name to a sibling.
    Dir(NodeId),
}

impl Tail {
    pub(crate) fn hash(&self) -> [u8; 32] {
        match self {
            Tail::Copy(n, d) => hash("dunlin copy", &[&n.0, &d.inc.0, &d.counter.to_le_bytes()]),
            Tail::File(n) => hash("dunlin file", &[&n.0]),
            Tail::Dir(n) => hash("dunlin dir", &[&n.0]),
        }
    }
}

/// Breaks a tie between values of equal rank, the same way everywhere.
pub(crate) fn value_hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    hash(domain, parts)
}

/// What one node's state adds to the digest of the whole index.
pub(crate) fn state_hash(node: NodeId, state: &[u8]) -> [u8; 32] {
    hash("dunlin state", &[&node.0, state])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn hex_round_trips() {
        let id = NodeId([0xab; 16]);
        assert_eq!(NodeId::from_hex(&id.to_string()), Some(id));
        assert_eq!(NodeId::from_hex("ab"), None);
        assert_eq!(NodeId::from_hex(&"g".repeat(32)), None);
    }

    #[test]
    fn creations_of_one_path_coincide_and_others_differ() {
        let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
        assert_eq!(NodeId::created(ROOT, &a, 0), NodeId::created(ROOT, &a, 0));
        assert_ne!(NodeId::created(ROOT, &a, 0), NodeId::created(ROOT, &b, 0));
        assert_ne!(NodeId::created(ROOT, &a, 0), NodeId::created(ROOT, &a, 1));
    }
}
