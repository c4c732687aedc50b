//! What devices say to each other (docs/protocol.md). On the control stream of a connection every
//! message is a frame: its length as u32, big endian, then CBOR `[number, [fields…]]`. A number that is
//! not known is skipped, fields added later are ignored: an older program understands a newer one.

mod blocks;
mod chunks;
mod request;

pub use blocks::{
    BLOCKS_PAGE, BlockLeaves, BlockPage, FEATURE_BLOCKS, FEATURE_LEAVES, HOLDS_BYTES, HOLDS_MAX, Held,
    HeldBlocks, Holds, LEAVES_MAX,
};
pub use chunks::{
    Chunk, ChunkPage, PAGE_CHUNKS_MAX, PAGE_CHUNKS_MIN, PageList, PageRef, SPANS_MAX, Span, ends_page,
    page_id, pages,
};
pub use request::{Header, Piece, Request};

use crate::codec::Malformed;
use crate::ids::{DeviceId, DotRange, FolderId, Incarnation, LifeId, NodeId};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// The protocol's name and number, given when a connection is made.
pub const ALPN: &[u8] = b"dunlin/1";
/// The same for a device that holds an invitation and is no member yet.
pub const ALPN_JOIN: &[u8] = b"dunlin-join/1";
/// The protocol version spoken.
pub const VERSION: u32 = 1;
/// Bit of the hello's `features`: the sender is asked for chunk lists in pages.
pub const FEATURE_PAGES: u64 = 1 << 1;
/// The longest frame accepted, in bytes.
pub const FRAME_MAX: usize = 1 << 20;
/// About how many bytes of rows are put into one message.
pub const ROWS_BYTES: usize = 128 << 10;
/// The most bytes of contents that ride along with rows in one message.
pub const RIDING_BYTES: usize = 64 << 10;
/// The most pieces asked for in one request.
pub const PIECES_MAX: usize = 1024;
/// The most contents asked after in one request.
pub const HAVE_MAX: usize = 4096;
/// The longest piece asked for, in bytes.
pub const PIECE_MAX: u64 = 16 << 20;
/// The longest name of a device, in bytes.
pub const DEVICE_NAME_MAX: usize = 256;
/// The most membership statements of one folder.
pub const STATEMENTS_MAX: usize = 4096;
/// The most releases kept of one folder.
pub const RELEASES_MAX: usize = 256;
/// The most ranges in one release.
pub const RANGES_MAX: usize = 16;

/// A state as its canonical bytes, with its node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RowBytes {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its state, as `codec` writes it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub state: Vec<u8>,
}

/// A message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// The first message of each side.
    #[n(0)]
    Hello {
        /// The lowest protocol version spoken.
        #[n(0)]
        min: u32,
        /// The highest protocol version spoken.
        #[n(1)]
        max: u32,
        /// Bits of optional abilities: [`FEATURE_BLOCKS`], [`FEATURE_PAGES`], [`FEATURE_LEAVES`].
        #[n(2)]
        features: u64,
        /// Random for each start of the program: the same device twice with two nonces is a restart.
        #[n(3)]
        nonce: u64,
        /// What the device is called.
        #[n(4)]
        name: String,
    },
    /// Opens (or opens again) the exchange of one folder.
    #[n(1)]
    Open {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The incarnation of the sender's index: its sequence numbers belong to it.
        #[n(1)]
        inc: Incarnation,
        /// The incarnation of the receiver whose rows the sender has …
        #[n(2)]
        of: Incarnation,
        /// … up to this sequence number.
        #[n(3)]
        received: u64,
        /// The life of the sender's program; zeros if it says nothing of that.
        #[cbor(n(4), default)]
        life: LifeId,
        /// The life of the receiver's program in which the sender got the last of those rows.
        #[cbor(n(5), default)]
        heard_in: LifeId,
        /// Other incarnations under which the sender makes changes, or did.
        #[cbor(n(6), default)]
        own: Vec<Incarnation>,
    },
    /// The signed membership statements known to the sender.
    #[n(2)]
    Statements {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The statements, as they were signed.
        #[n(1)]
        statements: Vec<Statement>,
    },
    /// Rows in the order of the sender's sequence numbers.
    #[n(3)]
    Rows {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// All rows up to this number were sent.
        #[n(1)]
        upto: u64,
        /// Whether nothing more was there when this was sent.
        #[n(2)]
        last: bool,
        /// The rows.
        #[n(3)]
        rows: Vec<RowBytes>,
    },
    /// The receiver's rows up to this number are committed here.
    #[n(4)]
    Ack {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The sequence number.
        #[n(1)]
        received: u64,
        /// The life of the receiver's program that told the last of them: an answer to another one is not for this one.
        #[cbor(n(2), default)]
        life: LifeId,
        /// The life that told rows before that one; zeros if there was none.
        #[cbor(n(3), default)]
        before: LifeId,
        /// How far those reached.
        #[cbor(n(4), default)]
        before_received: u64,
    },
    /// How the sender's folder stands.
    #[n(5)]
    Status {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// The sum of the hashes of all its states.
        #[n(1)]
        digest: [u64; 4],
        /// How many nodes lack something on its disk, its problems counted.
        #[n(2)]
        need: u64,
        /// Whether it is scanning, or knows of changes on its disk that are not in the index yet.
        #[n(3)]
        busy: bool,
        /// Whether it holds deletes or edits until a person decides.
        #[cbor(n(4), default)]
        held: bool,
    },
    /// The sender does not share this folder (any more).
    #[n(6)]
    Close {
        /// The folder.
        #[n(0)]
        folder: FolderId,
    },
    /// Where the sender is connected to other members: hints, as from discovery.
    #[n(7)]
    Addresses {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// Devices and their addresses.
        #[n(1)]
        devices: Vec<DeviceAddress>,
    },
    /// Where the sender listens over TCP, at the addresses of this connection. A port of 0: nowhere.
    #[n(8)]
    Lane {
        /// The port over IPv4.
        #[n(0)]
        v4: u16,
        /// The port over IPv6.
        #[n(1)]
        v6: u16,
    },
    /// Small contents that the rows told next are about: nobody has to ask for them.
    #[n(9)]
    Contents {
        /// The folder.
        #[n(0)]
        folder: FolderId,
        /// Their bytes. What they are is known by their hash.
        #[n(1)]
        contents: Vec<ByteVec>,
    },
}

/// Where a device was seen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceAddress {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Its address and port, as text.
    #[n(1)]
    pub address: String,
}

/// One signed statement: who is a member, or which deletes are accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Statement {
    /// What is stated: [`Claim`] as CBOR, exactly as it was signed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// The ed25519 signature, 64 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// What a statement states: that `device` is a member, or a release.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The folder.
    #[n(0)]
    pub folder: FolderId,
    /// Who is admitted.
    #[n(1)]
    pub device: DeviceId,
    /// What it is called.
    #[n(2)]
    pub name: String,
    /// Who signs: a member, or (the folder id itself) the creator's folder key.
    #[n(3)]
    pub by: DeviceId,
    /// What the member may do; 1 = everything. Other numbers are for roles to come.
    #[n(4)]
    pub role: u8,
    /// Hashes of the statements that the signer knew last.
    #[n(5)]
    pub after: Vec<NodeId>,
    /// Deletes that a member accepts. Such a claim admits nobody: its role is 0 and its device who signs.
    #[n(6)]
    pub release: Option<Release>,
}

/// Deletes that a person let happen: they do not count at the brake of any device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Release {
    /// Higher than that of every release the signer knew: of too many, the highest are kept.
    #[n(0)]
    pub number: u64,
    /// The changes whose deletes are accepted.
    #[n(1)]
    pub ranges: Vec<DotRange>,
}

/// What a device that holds an invitation asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    /// The folder.
    #[n(0)]
    pub folder: FolderId,
    /// The invitation's secret.
    #[n(1)]
    pub secret: NodeId,
    /// What the device is called.
    #[n(2)]
    pub name: String,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JoinAnswer {
    /// The device is a member now, by these statements.
    #[n(0)]
    Admitted {
        /// All statements of the folder.
        #[n(0)]
        statements: Vec<Statement>,
        /// What the inviting device is called.
        #[n(1)]
        name: String,
    },
    /// The invitation is not, or no longer, valid.
    #[n(1)]
    Refused {
        /// 1: used; 2: expired; others: not known here.
        #[n(0)]
        why: u8,
    },
}

/// Writes a message as a frame, its length first.
pub fn frame<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut out = alloc::vec![0; 4];
    // Writing into a Vec cannot fail.
    let done = minicbor::encode(message, &mut out);
    debug_assert!(done.is_ok());
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// Reads the body of a frame.
pub fn read<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, Malformed> {
    Ok(minicbor::decode(body)?)
}

/// Reads a control message; `None` for one that only a newer program knows.
pub fn read_message(body: &[u8]) -> Result<Option<Message>, Malformed> {
    let mut d = minicbor::Decoder::new(body);
    if d.array()? != Some(2) {
        return Err(Malformed("a message has two parts"));
    }
    if d.u32()? > 9 {
        return Ok(None);
    }
    let message: Message = read(body)?;
    match &message {
        Message::Hello { name, .. } if name.len() > DEVICE_NAME_MAX => Err(Malformed("a name too long")),
        Message::Statements { statements, .. } if statements.len() > STATEMENTS_MAX => {
            Err(Malformed("too many statements"))
        }
        _ => Ok(Some(message)),
    }
}

/// The bytes that are signed for a claim.
pub fn signed_bytes(claim: &[u8]) -> Vec<u8> {
    [b"dunlin statement 1\0", claim].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn messages_round_trip_and_later_ones_are_skipped() {
        let folder = FolderId([1; 32]);
        let rows = vec![RowBytes { node: NodeId([2; 16]), state: vec![1, 2, 3] }];
        let m = Message::Rows { folder, upto: 7, last: true, rows };
        let bytes = frame(&m);
        assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
        assert_eq!(read_message(&bytes[4..]).unwrap(), Some(m));
        assert_eq!(read_message(&[0x82, 0x18, 99, 0x80]).unwrap(), None);
        assert!(read_message(b"junk").is_err());
        assert!(read_message(&[]).is_err());
    }

    #[test]
    fn fields_added_later_are_ignored() {
        // Close with a second field.
        let mut bytes = vec![0x82, 6, 0x82, 0x58, 32];
        bytes.extend([1; 32]);
        bytes.extend([0x61, b'x']);
        let close = Message::Close { folder: FolderId([1; 32]) };
        assert_eq!(read_message(&bytes).unwrap(), Some(close));
    }

    #[test]
    fn a_declared_length_allocates_nothing() {
        // Rows with 2^63 rows declared.
        let mut bytes = vec![0x82, 3, 0x84, 0x58, 32];
        bytes.extend([1; 32]);
        bytes.extend([1, 0xf5, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(read_message(&bytes).is_err());
    }
}
