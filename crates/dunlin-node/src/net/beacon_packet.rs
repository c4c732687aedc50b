//! The beacon's packet: 114 bytes, signed, and nothing in it but a key and where it listens.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `DNLN` |
//! | 1 | version, 1 |
//! | 1 | flags: bit 0 = please answer; others are ignored |
//! | 2 + 2 | QUIC port over IPv4 and over IPv6, big-endian; 0 = not listening |
//! | 8 | sequence, big-endian |
//! | 32 | ed25519 public key of the device |
//! | 64 | signature over the domain, the bytes above and the sender's IP address |
//!
//! The IP address is not in the packet: the receiver takes the one it sees. So a packet replayed
//! from another address, or passed on by a translator behind which nobody could be dialled anyway,
//! does not verify.

use iroh::{PublicKey, SecretKey, Signature};
use std::net::IpAddr;

/// The size of every packet of version 1, in bytes.
pub const PACKET_LEN: usize = 114;
const SIGNED_LEN: usize = 50;
const MAGIC: [u8; 4] = *b"DNLN";
const VERSION: u8 = 1;
const ASK: u8 = 1;
const DOMAIN: &[u8; 20] = b"dunlin beacon v1\0\0\0\0";

/// What a packet says, or claims until [`Claim::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's public key.
    pub device: [u8; 32],
    /// Whether the sender wants to hear from the receivers.
    pub ask: bool,
    /// Its QUIC port over IPv4; 0 = none.
    pub port_v4: u16,
    /// Its QUIC port over IPv6; 0 = none.
    pub port_v6: u16,
    /// Grows with each packet of the device, about milliseconds since 1970.
    pub seq: u64,
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not [`PACKET_LEN`] bytes.
    #[error("wrong length")]
    Length,
    /// Another program's, or another version's.
    #[error("not a beacon of this version")]
    Foreign,
    /// The signature does not fit the content and the source address.
    #[error("bad signature")]
    Signature,
}

fn signed_bytes(head: &[u8], source: IpAddr) -> [u8; DOMAIN.len() + SIGNED_LEN + 16] {
    let ip = match source {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    let mut out = [0; DOMAIN.len() + SIGNED_LEN + 16];
    let (domain, rest) = out.split_at_mut(DOMAIN.len());
    let (body, tail) = rest.split_at_mut(SIGNED_LEN);
    domain.copy_from_slice(DOMAIN);
    body.copy_from_slice(head);
    tail.copy_from_slice(&ip.octets());
    out
}

/// The bytes of a packet to be sent from the address `source`. `packet.device` is not used: the
/// key that signs is the key that is named.
#[must_use]
pub fn encode(packet: &Packet, key: &SecretKey, source: IpAddr) -> [u8; PACKET_LEN] {
    let mut out = [0; PACKET_LEN];
    out[0..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[5] = if packet.ask { ASK } else { 0 };
    out[6..8].copy_from_slice(&packet.port_v4.to_be_bytes());
    out[8..10].copy_from_slice(&packet.port_v6.to_be_bytes());
    out[10..18].copy_from_slice(&packet.seq.to_be_bytes());
    out[18..SIGNED_LEN].copy_from_slice(key.public().as_bytes());
    let signature = key.sign(&signed_bytes(&out[..SIGNED_LEN], source));
    out[SIGNED_LEN..].copy_from_slice(&signature.to_bytes());
    out
}

/// A packet whose signature was not looked at yet.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    packet: Packet,
    bytes: &'a [u8; PACKET_LEN],
}

impl<'a> Claim<'a> {
    /// The cheap checks only: length, magic, version.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn parse(bytes: &'a [u8]) -> Result<Claim<'a>, PacketError> {
        let bytes: &[u8; PACKET_LEN] = bytes.try_into().map_err(|_| PacketError::Length)?;
        let [m0, m1, m2, m3, version, flags, a, b, c, d, rest @ ..] = bytes;
        if [*m0, *m1, *m2, *m3] != MAGIC || *version != VERSION {
            return Err(PacketError::Foreign);
        }
        let (seq, rest) = rest.split_first_chunk::<8>().ok_or(PacketError::Length)?;
        let (device, _) = rest.split_first_chunk::<32>().ok_or(PacketError::Length)?;
        let packet = Packet {
            device: *device,
            ask: flags & ASK != 0,
            port_v4: u16::from_be_bytes([*a, *b]),
            port_v6: u16::from_be_bytes([*c, *d]),
            seq: u64::from_be_bytes(*seq),
        };
        Ok(Claim { packet, bytes })
    }

    /// What it claims; not to be acted on.
    #[must_use]
    pub fn unverified(&self) -> &Packet {
        &self.packet
    }

    /// The packet, if its device sent it from `source`. Costs some 50–100 µs.
    ///
    /// # Errors
    /// When the signature does not fit.
    pub fn verify(&self, source: IpAddr) -> Result<Packet, PacketError> {
        let (head, signature) = self.bytes.split_at(SIGNED_LEN);
        let signature: [u8; 64] = signature.try_into().map_err(|_| PacketError::Length)?;
        let key = PublicKey::from_bytes(&self.packet.device).map_err(|_| PacketError::Signature)?;
        key.verify(&signed_bytes(head, source), &Signature::from_bytes(&signature))
            .map_err(|_| PacketError::Signature)?;
        Ok(self.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 5));

    fn sample() -> (SecretKey, Packet) {
        let key = SecretKey::from_bytes(&[7; 32]);
        let device = *key.public().as_bytes();
        (key, Packet { device, ask: true, port_v4: 9000, port_v6: 9001, seq: 0x0102_0304_0506_0708 })
    }

    #[test]
    fn round_trip() {
        let (key, packet) = sample();
        let bytes = encode(&packet, &key, IP);
        let claim = Claim::parse(&bytes).unwrap();
        assert_eq!(claim.unverified(), &packet);
        assert_eq!(claim.verify(IP).unwrap(), packet);
        assert_eq!(&bytes[..18], b"DNLN\x01\x01\x23\x28\x23\x29\x01\x02\x03\x04\x05\x06\x07\x08");
    }

    #[test]
    fn another_source_address_does_not_verify() {
        let (key, packet) = sample();
        let bytes = encode(&packet, &key, IP);
        let claim = Claim::parse(&bytes).unwrap();
        assert_eq!(claim.verify("192.168.1.6".parse().unwrap()), Err(PacketError::Signature));
        // The same address written as IPv6 is the same address.
        assert!(claim.verify("::ffff:192.168.1.5".parse().unwrap()).is_ok());
    }

    #[test]
    fn every_bit_counts() {
        let (key, packet) = sample();
        let good = encode(&packet, &key, IP);
        for bit in 0..PACKET_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let ok = Claim::parse(&bad).and_then(|c| c.verify(IP)).is_ok();
            assert!(!ok, "bit {bit}");
        }
    }

    #[test]
    fn truncated_and_oversized() {
        let (key, packet) = sample();
        let mut bytes = encode(&packet, &key, IP).to_vec();
        for len in 0..PACKET_LEN {
            assert_eq!(Claim::parse(&bytes[..len]).err(), Some(PacketError::Length));
        }
        bytes.push(0);
        assert_eq!(Claim::parse(&bytes).err(), Some(PacketError::Length));
    }

    #[test]
    fn another_version_is_foreign() {
        let (key, packet) = sample();
        let mut bytes = encode(&packet, &key, IP);
        bytes[4] = 2;
        assert_eq!(Claim::parse(&bytes).err(), Some(PacketError::Foreign));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ok = Claim::parse(&bytes).and_then(|c| c.verify(IP)).is_ok();
            prop_assert!(!ok);
        }
    }
}
