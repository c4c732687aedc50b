//! The kernel's neighbour table: hosts that were talked to lately on the links of this machine.
//!
//! Where a switch or an access point swallows multicast, these are asked one by one. IPv4 only: the
//! kernel shows the IPv6 table over netlink alone, and IPv6 does not work at all without multicast.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// At most this many neighbours are asked in one round.
pub const MAX_NEIGHBOURS: usize = 64;
const TABLE: &str = "/proc/net/arp";
/// Larger tables are cut here: 64 entries are all we take.
const MAX_TABLE: u64 = 256 * 1024;
const COMPLETE: u32 = 2;

/// The hosts in a table as `/proc/net/arp` shows it, those whose hardware address is known, at most
/// [`MAX_NEIGHBOURS`].
#[must_use]
pub fn parse(table: &str) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let ip: Ipv4Addr = fields.next()?.parse().ok()?;
            let flags = u32::from_str_radix(fields.nth(1)?.strip_prefix("0x")?, 16).ok()?;
            let host = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
            (flags & COMPLETE != 0 && host).then_some(ip)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_NEIGHBOURS);
    found
}

/// The neighbours known now; none where the kernel does not show them.
#[must_use]
pub fn known() -> Vec<Ipv4Addr> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(TABLE).and_then(|f| f.take(MAX_TABLE).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    parse(&text)
}

/// Every neighbour known now at every one of `ports`: what to dial where even the beacon's unicast
/// question gets no answer and the device's key is known.
#[must_use]
pub fn candidates(ports: &[u16]) -> Vec<SocketAddr> {
    known()
        .into_iter()
        .flat_map(|ip| ports.iter().map(move |p| SocketAddr::new(IpAddr::V4(ip), *p)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() {
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
            192.168.1.1      0x1         0x2         aa:bb:cc:dd:ee:ff     *        eth0\n\
            192.168.1.9      0x1         0x0         00:00:00:00:00:00     *        eth0\n\
            192.168.1.7      0x1         0x6         aa:bb:cc:dd:ee:01     *        eth0\n\
            garbage\n\n192.168.1.1 0x1 0x2 x * eth1\n";
        let got: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["192.168.1.1", "192.168.1.7"]);
    }

    #[test]
    fn bounded() {
        let rows: String = (1..250).map(|i| format!("10.0.0.{i} 0x1 0x2 x * e\n")).collect();
        assert_eq!(parse(&format!("head\n{rows}")).len(), MAX_NEIGHBOURS);
    }
}
