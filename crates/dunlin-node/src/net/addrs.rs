//! The addresses of this machine: which are worth telling others, and which links they are on.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// More than this many addresses are never put into an invitation.
pub const MAX_LOCAL_ADDRS: usize = 16;

/// One address of one network interface that is up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddr {
    /// The interface's name, as the kernel gives it.
    pub name: String,
    /// The interface's index: changes when the interface is removed and made again.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Leading bits shared by all hosts of the link, 0 to 128.
    pub prefix: u8,
    /// Where a packet for all hosts of the link goes; IPv4 only.
    pub broadcast: Option<std::net::Ipv4Addr>,
    /// Whether the interface has carrier. The kernel says so up to a second late, so nothing may
    /// wait for it.
    pub running: bool,
}

impl LocalAddr {
    /// Whether both are the same address of the same interface, with or without carrier.
    #[must_use]
    pub fn is_same(&self, other: &LocalAddr) -> bool {
        LocalAddr { running: other.running, ..self.clone() } == *other
    }

    /// Whether `other` is a host of the same link. For a link-local IPv6 address, every other
    /// link-local address is (the receiving socket already knows which interface).
    #[must_use]
    pub fn on_link(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let bits = u32::from(self.prefix.min(32));
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let bits = u32::from(self.prefix.min(128));
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// All addresses of all interfaces, in a stable order.
///
/// # Errors
/// When the kernel does not say.
pub fn interfaces() -> std::io::Result<Vec<LocalAddr>> {
    let mut found: Vec<LocalAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter_map(|i| {
            let (prefix, broadcast) = match &i.addr {
                if_addrs::IfAddr::V4(a) => (a.prefixlen, a.broadcast),
                if_addrs::IfAddr::V6(a) => (a.prefixlen, None),
            };
            let (ip, index, running) = (i.ip(), i.index?, i.is_oper_up());
            Some(LocalAddr { name: i.name, index, ip, prefix, broadcast, running })
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// The order in which others should think of an address: routable first, loopback last.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        _ if ip.is_loopback() => 3,
        _ if is_link_local(ip) => 2,
        IpAddr::V6(_) => 1,
        IpAddr::V4(_) => 0,
    }
}

/// The addresses under which sockets bound to `bound` can be reached, best first and loopback last.
///
/// A wildcard socket stands for every address of its family on interfaces with carrier. Loopback is kept, last: it
/// is how several nodes on one machine reach each other when nothing else is up. IPv6 link-local
/// addresses are left out of wildcards, since their scope means nothing on another machine.
#[must_use]
pub fn reachable(bound: &[SocketAddr], interfaces: &[LocalAddr]) -> Vec<SocketAddr> {
    let mut all = BTreeSet::new();
    for socket in bound {
        if !socket.ip().is_unspecified() {
            all.insert((rank(socket.ip()), *socket));
            continue;
        }
        for local in interfaces {
            let scoped = matches!(local.ip, IpAddr::V6(a) if a.is_unicast_link_local());
            if local.ip.is_ipv4() == socket.is_ipv4() && !scoped && local.running {
                all.insert((rank(local.ip), SocketAddr::new(local.ip, socket.port())));
            }
        }
    }
    // With many interfaces the cut must not take away the one address that works on this machine.
    let (near, far): (Vec<_>, Vec<_>) = all.into_iter().partition(|(r, _)| *r == 3);
    let room = MAX_LOCAL_ADDRS - near.len().min(2);
    far.into_iter().take(room).chain(near.into_iter().take(2)).map(|(_, a)| a).collect()
}

/// `addr` with everything removed that would make two spellings of one address differ: a mapped
/// IPv4 address becomes IPv4, the flow label goes, the scope stays only where it has a meaning.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => {
                let scope = if v6.ip().is_unicast_link_local() { v6.scope_id() } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope))
            }
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn local(name: &str, ip: &str, prefix: u8) -> LocalAddr {
        LocalAddr {
            name: name.into(),
            index: 1,
            ip: ip.parse().unwrap(),
            prefix,
            broadcast: None,
            running: true,
        }
    }

    #[test]
    fn wildcard_stands_for_all_interfaces_loopback_last() {
        let ifs = [
            local("lo", "127.0.0.1", 8),
            local("lo", "::1", 128),
            local("a", "192.168.1.5", 24),
            local("a", "fe80::1", 64),
            local("a", "fd00::5", 64),
        ];
        let bound = ["0.0.0.0:9000".parse().unwrap(), "[::]:9001".parse().unwrap()];
        let got: Vec<String> = reachable(&bound, &ifs).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["192.168.1.5:9000", "[fd00::5]:9001", "127.0.0.1:9000", "[::1]:9001"]);
        let one = ["127.0.0.1:7".parse().unwrap()];
        assert_eq!(reachable(&one, &ifs), one);
    }

    #[test]
    fn many_interfaces_do_not_push_loopback_out() {
        let mut ifs: Vec<_> = (0..40).map(|i| local("x", &format!("10.0.{i}.1"), 24)).collect();
        ifs.push(local("lo", "127.0.0.1", 8));
        let got = reachable(&["0.0.0.0:9000".parse().unwrap()], &ifs);
        assert_eq!(got.len(), MAX_LOCAL_ADDRS);
        assert_eq!(got.last().unwrap().to_string(), "127.0.0.1:9000");
    }

    #[test]
    fn on_link_is_the_prefix() {
        let l = local("a", "192.168.1.5", 24);
        assert!(l.on_link("192.168.1.200".parse().unwrap()));
        assert!(!l.on_link("192.168.2.1".parse().unwrap()));
        assert!(!l.on_link("fe80::1".parse().unwrap()));
        assert!(local("a", "1.2.3.4", 0).on_link("9.9.9.9".parse().unwrap()));
        assert!(!local("a", "1.2.3.4", 32).on_link("1.2.3.5".parse().unwrap()));
        assert!(local("a", "fe80::1", 64).on_link("fe80::2".parse().unwrap()));
    }

    #[test]
    fn canonical_forms() {
        let of = |s: &str| canonical(s.parse().unwrap()).to_string();
        assert_eq!(of("[::ffff:1.2.3.4]:9"), "1.2.3.4:9");
        assert_eq!(of("[fe80::1%3]:9"), "[fe80::1%3]:9");
        assert_eq!(of("[fd00::1%3]:9"), "[fd00::1]:9");
    }
}
