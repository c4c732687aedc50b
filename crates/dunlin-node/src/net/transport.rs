//! QUIC between device keys: binding, dialling, accepting, closing.

use super::addrs::{self, canonical};
use super::connection::Connection;
use super::singly::Singly;
use super::{DEFAULT_PORT, handshake};
use iroh::endpoint::{
    BindOpts, ControllerFactory, NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, SecretKey, TransportAddr};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// Silence after which a peer counts as gone. Together with [`KEEP_ALIVE`] a dead peer is noticed
/// within 8 s: the clock restarts at the first packet sent after the last one heard.
pub const IDLE: Duration = Duration::from_secs(6);
/// How often an otherwise silent connection says that it lives. Two may be lost.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Streams a peer may have open towards this device at once.
pub const MAX_STREAMS: u32 = 64;
/// Addresses tried for one peer; those beyond are not dialled.
pub const MAX_DIAL_ADDRS: usize = 16;
/// Bytes a peer may have on the way or unread over all streams of one connection. A single stream
/// keeps QUIC's default of 1.25 MB: iroh holds at most 1,024 out-of-order pieces a stream and kills
/// the connection beyond, so more bandwidth comes from more streams.
const RECEIVE_WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes sent and not yet acknowledged that are kept for one connection.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// The round-trip time assumed before one is measured. QUIC's default of 333 ms makes a lost first
/// packet cost a second, too much on a LAN where that packet may be lost to an address query.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// How long [`Transport::close`] may take.
pub(super) const CLOSE: Duration = Duration::from_millis(1500);

/// How bytes in flight are limited. See [`BindOptions::congestion`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Backs off at every loss: fair, and slow on a lossy or long path.
    #[default]
    Cubic,
    /// Models the path's bandwidth: keeps it at 1 % loss, where Cubic gets a hundredth.
    Bbr3,
}

impl Congestion {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Congestion::Cubic => Arc::new(noq_proto::congestion::CubicConfig::default()),
            Congestion::Bbr3 => Arc::new(noq_proto::congestion::Bbr3Config::default()),
        }
    }
}

/// What [`Transport::bind`] needs to know.
#[derive(Clone)]
pub struct BindOptions {
    /// The device's ed25519 secret key.
    pub secret_key: [u8; 32],
    /// Where to listen. Nothing: UDP [`DEFAULT_PORT`] on all addresses, or any free port when that
    /// is taken. An address: that one only, and taken is an error; port 0 is any free port.
    pub listen: Option<SocketAddr>,
    /// The protocols accepted, the preferred first.
    pub alpns: Vec<Vec<u8>>,
    /// How bytes in flight are limited.
    pub congestion: Congestion,
}

impl BindOptions {
    /// Listening at the default place, with default congestion control.
    #[must_use]
    pub fn new(secret_key: [u8; 32], alpns: Vec<Vec<u8>>) -> Self {
        BindOptions { secret_key, listen: None, alpns, congestion: Congestion::default() }
    }
}

impl std::fmt::Debug for BindOptions {
    // The key must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BindOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Why a transport could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the given address.
    #[error("UDP {0} is in use by another program")]
    Taken(SocketAddr),
    /// The address cannot be listened on: not of this machine, or not permitted.
    #[error("cannot listen on UDP {addr}: {source}")]
    Socket {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else; the text names it.
    #[error("cannot start the network: {0}")]
    Other(String),
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given, or none is usable.
    #[error("no address to dial")]
    NoAddress,
    /// The key is not a valid public key, or this device's own.
    #[error("not a key that can be dialled")]
    BadKey,
    /// Nobody with that key answered in time.
    #[error("no answer")]
    TimedOut,
    /// Somebody answered and refused, or the transport is closed; the text names it.
    #[error("refused: {0}")]
    Failed(String),
}

/// The QUIC endpoint of this device.
#[derive(Debug)]
pub struct Transport {
    endpoint: Endpoint,
    singly: Singly,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Transport {
    /// Opens the sockets and begins to accept.
    ///
    /// # Errors
    /// When a given address is taken or cannot be bound, or the sockets cannot be opened at all.
    pub async fn bind(options: BindOptions) -> Result<Transport, BindError> {
        let endpoint = match options.listen {
            Some(addr) => open(&options, addr).await?,
            None => {
                let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
                match open(&options, any(DEFAULT_PORT)).await {
                    Err(BindError::Taken(_)) => open(&options, any(0)).await?,
                    other => other?,
                }
            }
        };
        let (tx, rx) = mpsc::channel(handshake::MAX_HANDSHAKES);
        // Ends by itself when the endpoint closes.
        let acceptor = tokio::spawn(handshake::accept_loop(endpoint.clone(), tx));
        let singly = Singly::new(&options, endpoint.clone());
        Ok(Transport { endpoint, singly, accepted: Mutex::new(rx), acceptor: Mutex::new(Some(acceptor)) })
    }

    /// This device's public key.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        *self.endpoint.id().as_bytes()
    }

    /// The addresses the sockets are bound to; wildcards as they are.
    #[must_use]
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// The bound IPv4 and IPv6 port, where there is such a socket: what a beacon announces.
    #[must_use]
    pub fn ports(&self) -> (Option<u16>, Option<u16>) {
        let bound = self.bound();
        let port = |v4: bool| bound.iter().find(|a| a.is_ipv4() == v4).map(SocketAddr::port);
        (port(true), port(false))
    }

    /// The addresses worth putting into an invitation now, best first, loopback last. They change
    /// with the machine's interfaces.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        addrs::reachable(&self.bound(), &addrs::interfaces().unwrap_or_default())
    }

    /// Dials a device at all of `addrs` at once (the first [`MAX_DIAL_ADDRS`]); whoever proves the
    /// key first is it. If somebody else answers at one of them, each is dialled by itself.
    ///
    /// While another connection to the same device lives, only that one's address is tried: close
    /// the old one before dialling elsewhere.
    ///
    /// # Errors
    /// When no address is given or nobody with this key answers within `timeout`.
    pub async fn connect(
        &self,
        peer: [u8; 32],
        addrs: &[SocketAddr],
        alpn: &[u8],
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let id = PublicKey::from_bytes(&peer).map_err(|_| ConnectError::BadKey)?;
        if id == self.endpoint.id() {
            return Err(ConnectError::BadKey);
        }
        let mut seen = BTreeSet::new();
        let here = addrs::interfaces().unwrap_or_default();
        let usable: Vec<SocketAddr> = addrs
            .iter()
            .map(|a| canonical(*a))
            .filter(can_dial)
            .filter(|a| !self.is_own(a, &here))
            .filter(|a| seen.insert(*a))
            .take(MAX_DIAL_ADDRS)
            .collect();
        if usable.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let dial = async {
            let target = EndpointAddr::from_parts(id, usable.iter().copied().map(TransportAddr::Ip));
            match self.endpoint.connect(target, alpn).await.map_err(|e| connect_error(&e)) {
                Err(ConnectError::Failed(_)) if !self.endpoint.is_closed() => {
                    self.singly.dial(id, &usable, alpn).await
                }
                other => other,
            }
        };
        let conn = tokio::time::timeout(timeout, dial).await.unwrap_or(Err(ConnectError::TimedOut))?;
        Ok(Connection::new(conn))
    }

    /// Whether an address is one of this device's own. Another device's loopback address (they are in
    /// invitations, for nodes on one machine) with the same port is: this device would answer itself,
    /// faster than anybody else, with the wrong key, and that ends the whole attempt.
    fn is_own(&self, addr: &SocketAddr, here: &[addrs::LocalAddr]) -> bool {
        let ip = addr.ip();
        let local = ip.is_loopback() || here.iter().any(|i| i.ip == ip);
        self.bound().iter().any(|b| {
            let any = b.ip().is_unspecified() && b.is_ipv4() == addr.is_ipv4() && local;
            b.port() == addr.port() && (any || b.ip() == ip)
        })
    }

    /// The next device that dialled and proved its key; nothing once the transport is closed.
    /// Whether it may talk to us is the caller's to decide.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Closes all connections (peers see code 0) and waits up to 1.5 s for them to hear of it.
    /// Connections that deserve a reason must be closed before. The sockets are free once the
    /// transport is dropped too.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE, async {
            self.endpoint.close().await;
            self.singly.close().await;
            if let Some(acceptor) = self.acceptor.lock().await.take() {
                let _ = acceptor.await;
            }
        })
        .await;
    }
}

impl Drop for Transport {
    // The accepting task owns a handle to the endpoint and would keep the sockets open for ever.
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.get_mut().take() {
            acceptor.abort();
        }
    }
}

/// iroh 1.4 loses the scope of IPv6 link-local addresses, so that dialling one only makes noise.
fn can_dial(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let scoped = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !scoped
}

pub(super) fn connect_error(e: &iroh::endpoint::ConnectError) -> ConnectError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(s) = source {
        if matches!(
            s.downcast_ref::<iroh::endpoint::ConnectionError>(),
            Some(iroh::endpoint::ConnectionError::TimedOut)
        ) {
            return ConnectError::TimedOut;
        }
        source = s.source();
    }
    ConnectError::Failed(e.to_string())
}

fn quic_config(congestion: Congestion) -> QuicTransportConfig {
    // IDLE is a small constant: the conversion cannot fail, and no timeout at all would hang.
    let idle = iroh::endpoint::IdleTimeout::from(VarInt::from_u32(IDLE.as_millis() as u32));
    QuicTransportConfig::builder()
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .max_idle_timeout(Some(idle))
        .default_path_max_idle_timeout(IDLE)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(congestion.factory())
        .build()
}

pub(super) async fn open(options: &BindOptions, listen: SocketAddr) -> Result<Endpoint, BindError> {
    let bad = |e: &dyn std::fmt::Display| BindError::Other(e.to_string());
    // No name is ever resolved. Should a later iroh do so, it asks nobody: the discard port of
    // this machine.
    let no_dns = iroh::dns::DnsResolver::with_nameserver(SocketAddr::from(([127, 0, 0, 1], 9)));
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&options.secret_key))
        .alpns(options.alpns.clone())
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_address_lookup()
        .dns_resolver(no_dns)
        .transport_config(quic_config(options.congestion))
        .clear_ip_transports()
        .bind_addr(listen)
        .map_err(|e| bad(&e))?;
    // A wildcard means both families, on one port where that can be had; machines without IPv6
    // do without.
    if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), listen.port());
        builder = builder
            .bind_addr_with_opts(v6, BindOpts::default().set_is_required(false))
            .map_err(|e| bad(&e))?;
    }
    builder.bind().await.map_err(|e| bind_error(&e, listen))
}

fn bind_error(e: &iroh::endpoint::BindError, addr: SocketAddr) -> BindError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(s) = source {
        if let Some(io) = s.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::AddrInUse => BindError::Taken(addr),
                kind => BindError::Socket { addr, source: io::Error::new(kind, io.to_string()) },
            };
        }
        source = s.source();
    }
    BindError::Other(e.to_string())
}
