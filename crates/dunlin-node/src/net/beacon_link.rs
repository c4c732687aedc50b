//! One address of one interface: a socket that asks from it and hears the answers, and a socket on
//! the shared beacon port that hears the others' questions.

use super::addrs::LocalAddr;
use super::beacon::{BEACON_PORT, GROUP_V4, GROUP_V6};
use super::beacon_limits::Bucket;
use super::beacon_packet::PACKET_LEN;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Packets one socket reads in a second, at some 4 µs each: a flood beyond that is left to the kernel
/// to drop, which is nearly free, at the price that real packets are dropped with it.
const READ_RATE: f64 = 20_000.0;
const READ_BURST: f64 = 2_000.0;
const READ_PAUSE: Duration = Duration::from_millis(5);
/// A full send buffer holds up a link for no longer than this.
const SEND: Duration = Duration::from_millis(100);
/// Read errors in a row after which a socket is given up until its link changes.
const MAX_ERRORS: u32 = 50;

/// What a link hears goes here, with the source address.
pub(super) trait Hear: Send + Sync + 'static {
    fn hear(self: Arc<Self>, bytes: &[u8], from: SocketAddr) -> impl Future<Output = ()> + Send;
}

/// An open link; dropping it closes its sockets.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) local: LocalAddr,
    pub(super) tx: Arc<UdpSocket>,
    /// Whether questions of others are heard here.
    pub(super) hears: bool,
    /// Questions of the current burst still to be asked, and when the next is due.
    pub(super) asks_left: u8,
    pub(super) next_ask: Instant,
    tasks: JoinSet<()>,
}

impl Link {
    pub(super) fn open<H: Hear>(local: LocalAddr, to: &Arc<H>) -> io::Result<Link> {
        let tx = Arc::new(tx_socket(&local)?);
        let mut tasks = JoinSet::new();
        tasks.spawn(read(tx.clone(), to.clone()));
        let mut link = Link { local, tx, hears: false, asks_left: 0, next_ask: Instant::now(), tasks };
        // Without the shared port this link still asks and hears the answers.
        let _ = link.try_hear(to);
        Ok(link)
    }

    /// Opens the socket on the shared port, if it is not open.
    pub(super) fn try_hear<H: Hear>(&mut self, to: &Arc<H>) -> io::Result<()> {
        if !self.hears {
            let rx = Arc::new(rx_socket(&self.local)?);
            self.tasks.spawn(read(rx, to.clone()));
            self.hears = true;
        }
        Ok(())
    }

    /// Where a packet for all hosts of this link goes.
    pub(super) fn group(&self) -> SocketAddr {
        match self.local.ip {
            IpAddr::V4(_) => SocketAddr::new(GROUP_V4.into(), BEACON_PORT),
            IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, BEACON_PORT, 0, self.local.index).into(),
        }
    }

    /// Ends the readers, so that the sockets are closed when this returns.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Sends and forgets: what a link cannot carry now is said again later.
pub(super) async fn send(tx: &UdpSocket, packet: &[u8; PACKET_LEN], to: SocketAddr) {
    let _ = tokio::time::timeout(SEND, tx.send_to(packet, to)).await;
}

async fn read<H: Hear>(socket: Arc<UdpSocket>, to: Arc<H>) {
    // One byte more than a packet is enough to see that something is too long.
    let mut buf = [0; PACKET_LEN + 1];
    let mut bucket = Bucket::new(READ_RATE, READ_BURST, Instant::now());
    let mut errors = 0;
    while errors < MAX_ERRORS {
        match socket.recv_from(&mut buf).await {
            Ok((len, from)) => {
                errors = 0;
                to.clone().hear(&buf[..len], from).await;
            }
            Err(_) => errors += 1,
        }
        if errors > 0 || !bucket.take(Instant::now()) {
            tokio::time::sleep(READ_PAUSE * (1 + errors)).await;
        }
    }
}

fn udp(v4: bool) -> io::Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if !v4 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Asks and answers, from the link's own address and a port of its own: with several nodes on one
/// machine each gets the answers to its own questions. Nothing it sends passes a router.
fn tx_socket(local: &LocalAddr) -> io::Result<UdpSocket> {
    let socket = udp(local.ip.is_ipv4())?;
    match local.ip {
        IpAddr::V4(ip) => {
            socket.set_ttl_v4(1)?;
            socket.set_multicast_ttl_v4(1)?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_if_v4(&ip)?;
            socket.set_broadcast(true)?;
            socket.bind(&SocketAddr::new(ip.into(), 0).into())?;
        }
        IpAddr::V6(ip) => {
            socket.set_unicast_hops_v6(1)?;
            socket.set_multicast_hops_v6(1)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_if_v6(local.index)?;
            socket.bind(&SocketAddrV6::new(ip, 0, 0, local.index).into())?;
        }
    }
    UdpSocket::from_std(socket.into())
}

/// Hears the group on this link's interface only. Loopback links are bound to the group itself, so
/// that a node which is to be seen by this machine alone opens nothing towards the others.
fn rx_socket(local: &LocalAddr) -> io::Result<UdpSocket> {
    let socket = udp(local.ip.is_ipv4())?;
    // Every node of this machine listens at this port, and each gets its copy.
    socket.set_reuse_address(true)?;
    match local.ip {
        IpAddr::V4(ip) => {
            let at = if ip.is_loopback() { GROUP_V4 } else { Ipv4Addr::UNSPECIFIED };
            socket.bind(&SocketAddr::new(at.into(), BEACON_PORT).into())?;
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(local.index))?;
        }
        IpAddr::V6(_) => {
            socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), BEACON_PORT).into())?;
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&GROUP_V6, local.index)?;
        }
    }
    UdpSocket::from_std(socket.into())
}
