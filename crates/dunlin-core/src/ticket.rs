//! An invitation as one line of text: `dunlin`, then base32 of CBOR and a checksum.

use crate::ids::{DeviceId, FolderId, NodeId};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::str::FromStr;
use data_encoding::BASE32_NOPAD;
use minicbor::{Decode, Encode};

const PREFIX: &str = "dunlin";
const CHECKSUM_LEN: usize = 4;
/// The longest ticket accepted, in characters.
const TEXT_MAX: usize = 4096;
/// The most addresses taken from a ticket.
const ADDRESSES_MAX: usize = 32;

/// What an invitation carries.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The folder.
    pub folder: FolderId,
    /// The device that made it.
    pub inviter: DeviceId,
    /// Known only to who was given the ticket; good for one device.
    pub secret: NodeId,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Where the inviter was when it was made.
    pub addresses: Vec<SocketAddr>,
    /// What the inviter's folder is called (a hint for who joins), at most 64 characters.
    pub name: String,
}

/// Why text is not a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketError {
    /// It does not begin like one, or holds other characters.
    NotATicket,
    /// The checksum does not fit: a character is wrong or missing.
    Damaged,
    /// A newer program made it.
    Newer,
}

#[derive(Encode, Decode)]
struct Fields {
    #[n(0)]
    version: u8,
    #[n(1)]
    folder: FolderId,
    #[n(2)]
    inviter: DeviceId,
    #[n(3)]
    secret: NodeId,
    #[n(4)]
    expires: u64,
    #[n(5)]
    addresses: Vec<String>,
    #[n(6)]
    name: Option<String>,
}

impl Ticket {
    /// The ticket as one line.
    pub fn to_text(&self) -> String {
        let fields = Fields {
            version: 1,
            folder: self.folder,
            inviter: self.inviter,
            secret: self.secret,
            expires: self.expires,
            addresses: self.addresses.iter().map(|a| alloc::format!("{a}")).collect(),
            name: Some(self.name.chars().take(64).collect()),
        };
        let mut bytes = Vec::new();
        // Writing into a Vec cannot fail.
        let done = minicbor::encode(&fields, &mut bytes);
        debug_assert!(done.is_ok());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut text = String::from(PREFIX);
        text.push_str(&BASE32_NOPAD.encode(&bytes).to_lowercase());
        text
    }

    /// Reads a ticket; white space around it and upper case do no harm.
    pub fn parse(text: &str) -> Result<Ticket, TicketError> {
        let text = text.trim();
        if text.len() > TEXT_MAX || !text.is_ascii() {
            return Err(TicketError::NotATicket);
        }
        let text = text.to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        let bytes =
            BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::Damaged)?;
        let at = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(TicketError::Damaged)?;
        let (bytes, sum) = bytes.split_at(at);
        if checksum(bytes) != sum {
            return Err(TicketError::Damaged);
        }
        let fields: Fields = minicbor::decode(bytes).map_err(|_| TicketError::Newer)?;
        if fields.version != 1 {
            return Err(TicketError::Newer);
        }
        let addresses = fields.addresses.iter().take(ADDRESSES_MAX);
        Ok(Ticket {
            folder: fields.folder,
            inviter: fields.inviter,
            secret: fields.secret,
            expires: fields.expires,
            addresses: addresses.filter_map(|a| SocketAddr::from_str(a).ok()).collect(),
            name: fields.name.unwrap_or_default().chars().take(64).collect(),
        })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = crate::ids::value_hash("dunlin ticket", &[bytes]);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn tickets_round_trip_and_any_wrong_character_is_noticed() {
        let ticket = Ticket {
            folder: FolderId([1; 32]),
            inviter: DeviceId([2; 32]),
            secret: NodeId([3; 16]),
            expires: 1_800_000_000,
            addresses: vec!["192.0.2.1:9000".parse().unwrap(), "[2001:db8::1]:9000".parse().unwrap()],
            name: "Sync".into(),
        };
        let text = ticket.to_text();
        assert!(text.starts_with("dunlin") && !text.contains(char::is_whitespace));
        assert!(Ticket::parse(&alloc::format!(" {}\n", text.to_uppercase())).unwrap() == ticket);
        for i in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[i] = if bad[i] == b'a' { b'b' } else { b'a' };
            assert!(Ticket::parse(core::str::from_utf8(&bad).unwrap()).is_err(), "at {i}");
            assert!(Ticket::parse(&text[..i]).is_err());
        }
    }
}
