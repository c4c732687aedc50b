//! The network: the only part of the node that opens sockets for peers.
//!
//! [`transport`] is QUIC between device keys, [`lane`] TLS over TCP for large contents, [`beacon`] finds devices on the links of this machine,
//! [`neighbours`] and [`addrs`] read what the kernel knows about both. Nothing here contacts
//! anything outside the links and addresses it is told of: no relay, no DNS, no port mapping.

pub mod addrs;
pub mod beacon;
mod beacon_limits;
mod beacon_link;
pub mod beacon_packet;
mod changes;
pub mod connection;
mod handshake;
pub mod lane;
pub mod neighbours;
mod singly;
pub mod transport;

/// The UDP port a node listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 9000;
