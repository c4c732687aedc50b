//! One connection to one peer, whose key is proven.

use super::addrs::canonical;
use iroh::TransportAddr;
use iroh::endpoint::{ConnectionError, Side, VarInt, WeakConnectionHandle};
pub use iroh::endpoint::{ReadError, ReadExactError, RecvStream, SendStream, StoppedError, WriteError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A QUIC connection to a device that has proven its key. Cheap to clone; when the last clone
/// (streams included) is dropped the connection closes with code 0.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: iroh::endpoint::Connection,
    silent: Arc<AtomicBool>,
}

/// Ticks in a row without a packet after which the watch closes a connection: few, for each wakes an idle processor.
const SILENT_TICKS: u32 = 4;
const TICK: Duration = Duration::from_secs(2);

/// Why a connection is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer closed it on purpose, with its code and reason (the peer's bytes: escape before
    /// showing).
    #[error("closed by the peer (code {code})")]
    ByPeer {
        /// The peer's code.
        code: u64,
        /// The peer's words, at most one packet.
        reason: Vec<u8>,
    },
    /// This side closed it.
    #[error("closed here")]
    Here,
    /// Nothing was heard from the peer for [`super::transport::IDLE`].
    #[error("the peer is silent")]
    Silent,
    /// The protocol failed; the text names what.
    #[error("connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for Closed {
    fn from(e: ConnectionError) -> Self {
        match e {
            ConnectionError::ApplicationClosed(c) => {
                Closed::ByPeer { code: c.error_code.into_inner(), reason: c.reason.to_vec() }
            }
            ConnectionError::LocallyClosed => Closed::Here,
            ConnectionError::TimedOut | ConnectionError::Reset => Closed::Silent,
            other => Closed::Failed(other.to_string()),
        }
    }
}

impl Connection {
    pub(super) fn new(inner: iroh::endpoint::Connection) -> Self {
        let silent = Arc::new(AtomicBool::new(false));
        tokio::spawn(watch(inner.weak_handle(), silent.clone()));
        Connection { inner, silent }
    }

    fn why(&self, e: ConnectionError) -> Closed {
        match e {
            ConnectionError::LocallyClosed if self.silent.load(Ordering::Relaxed) => Closed::Silent,
            other => other.into(),
        }
    }

    /// Opens a stream. The peer sees it only once something was written to it. Waits while the peer
    /// has [`super::transport::MAX_STREAMS`] of ours open.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Closed> {
        self.inner.open_bi().await.map_err(|e| self.why(e))
    }

    /// The next stream the peer opened.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Closed> {
        self.inner.accept_bi().await.map_err(|e| self.why(e))
    }

    /// Closes at once: streams end, bytes not yet acknowledged may be lost. `code` and the first
    /// ~1 KiB of `reason` reach the peer. Does nothing to a connection that is closed.
    pub fn close(&self, code: u32, reason: &[u8]) {
        // The transport would forget why it was closed first.
        if self.inner.close_reason().is_none() {
            self.inner.close(VarInt::from_u32(code), reason);
        }
    }

    /// Waits until the connection is no more.
    pub async fn closed(&self) -> Closed {
        self.why(self.inner.closed().await)
    }

    /// Why the connection is closed, or nothing while it lives.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.inner.close_reason().map(|e| self.why(e))
    }

    /// The peer's proven public key.
    #[must_use]
    pub fn remote_id(&self) -> [u8; 32] {
        *self.inner.remote_id().as_bytes()
    }

    /// The protocol both sides agreed on.
    #[must_use]
    pub fn alpn(&self) -> &[u8] {
        self.inner.alpn()
    }

    /// Whether this side dialled.
    #[must_use]
    pub fn is_dialler(&self) -> bool {
        self.inner.side() == Side::Client
    }

    /// Distinguishes this connection from every other of this process.
    #[must_use]
    pub fn stable_id(&self) -> usize {
        self.inner.stable_id()
    }

    /// Where the peer is reached now. Paths can come and go within one connection: ask again
    /// rather than keep it. Nothing for a moment after connecting and after the close.
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        let paths = self.inner.paths();
        let path = paths.iter().find(|p| p.is_selected()).or_else(|| paths.iter().next())?;
        match path.remote_addr() {
            TransportAddr::Ip(addr) => Some(canonical(*addr)),
            _ => None,
        }
    }

    /// The smoothed round-trip time of the path in use.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        let paths = self.inner.paths();
        let path = paths.iter().find(|p| p.is_selected()).or_else(|| paths.iter().next())?;
        Some(path.rtt())
    }
}

/// Closes a connection over which nothing comes any more. QUIC's own timeout does so too, but iroh
/// starts its paths anew when an interface vanishes, and the dialler then takes 12 s. Ticks are
/// counted, not time, so that a process which was stopped for a while hears what waits for it first.
async fn watch(conn: WeakConnectionHandle, silent: Arc<AtomicBool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heard, mut quiet) = (0, 0);
    loop {
        tokio::select! {
            _ = conn.closed() => return,
            _ = ticks.tick() => {}
        }
        // Only borrowed for a moment: the watch must not keep a dropped connection open.
        let Some(conn) = conn.upgrade() else { return };
        let now = conn.stats().udp_rx.datagrams;
        quiet = if now == heard { quiet + 1 } else { 0 };
        heard = now;
        if quiet >= SILENT_TICKS {
            silent.store(true, Ordering::Relaxed);
            conn.close(VarInt::from_u32(0), b"silent");
            return;
        }
    }
}
