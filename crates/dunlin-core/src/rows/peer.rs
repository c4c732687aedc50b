//! The row of one peer.

use super::{Table, encode, key};
use crate::ids::{DeviceId, Incarnation, LifeId};
use crate::kv::Tx;
use minicbor::{Decode, Encode};

/// How far the exchange of rows with one peer has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PeerRow {
    /// The number by which rows name the peer, from 1.
    #[n(0)]
    pub number: u32,
    /// The peer's incarnation whose rows were received.
    #[n(1)]
    pub inc: Incarnation,
    /// The highest sequence number of that incarnation received and committed here.
    #[n(2)]
    pub received: u64,
    /// The highest of my sequence numbers that the peer has committed.
    #[n(3)]
    pub acked: u64,
    /// The life of the peer's program that sent the last of those rows.
    #[cbor(n(4), default)]
    pub life: LifeId,
    /// The life that sent rows before that one; zeros if there was none.
    #[cbor(n(5), default)]
    pub before: LifeId,
    /// How far the rows of that one reached.
    #[cbor(n(6), default)]
    pub before_received: u64,
}

impl Tx<'_> {
    /// Writes how far the exchange with a peer has come.
    pub fn put_peer(&mut self, device: DeviceId, row: &PeerRow) {
        self.put(key(Table::Peer, &[&device.0]), encode(row));
    }
}
