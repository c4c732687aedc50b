//! A second way for large contents: TLS 1.3 over TCP, between the same two device keys as the QUIC
//! connection. It costs a fraction of the processor's time. Where it cannot be had, or breaks, QUIC does it all.
//!
//! Who asks connects, to the address at which QUIC reaches the peer now and to the port that the peer
//! told over QUIC; never anywhere else. A connection carries one request at a time.

mod answer;
mod listen;
mod stream;
mod tls;

pub use answer::Answer;
pub use listen::Listener;
pub use stream::LaneStream;
pub use tls::{ALPN_BULK, Admits, client, server};

use super::connection::Connection;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// Connections to one peer at once, each with one request.
pub const LANES: usize = 4;
/// How long a request waits for its turn, while others have all connections.
const TURN: Duration = Duration::from_secs(60);
/// How long the first requests wait for a connection (and four round trips more): it goes on in the background.
const WAIT: Duration = Duration::from_secs(1);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Rests after connecting failed, or a connection broke: doubled with each time, up to the longest.
const REST: Duration = Duration::from_secs(5);
const REST_LONGEST: Duration = Duration::from_secs(600);
/// How long a connection that nobody needs is kept.
const IDLE: Duration = Duration::from_secs(20);

/// How things stand with the lane to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Turned off here, or the peer offers none.
    Absent,
    /// Nothing needs it now.
    Closed,
    /// There are connections.
    Open,
    /// It cannot be had, or broke: QUIC does it all, and it is tried again now and then.
    Fails,
}

/// The TCP connections by which one peer is asked. It ends with the QUIC connection.
#[derive(Debug)]
pub struct Lane {
    conn: Connection,
    config: Option<Arc<ClientConfig>>,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the peer listens, over IPv4 and over IPv6.
    ports: (Option<u16>, Option<u16>),
    /// Where this lane goes.
    at: Option<SocketAddr>,
    /// Raised when it goes elsewhere: what belongs to an earlier one counts no more.
    way: u64,
    idle: Vec<(LaneStream, Instant)>,
    /// Connections that requests have.
    busy: usize,
    connecting: usize,
    /// Failures in a row.
    failed: u32,
    /// The first requests have waited once for a connection that did not come in time.
    waited: bool,
    rests_until: Instant,
    swept: bool,
}

impl Lane {
    /// To the peer of `conn`. Without a `config` there is none.
    #[must_use]
    pub fn new(conn: Connection, config: Option<Arc<ClientConfig>>) -> Arc<Lane> {
        let state = State {
            ports: (None, None),
            at: None,
            way: 0,
            idle: Vec::new(),
            busy: 0,
            connecting: 0,
            failed: 0,
            waited: false,
            rests_until: Instant::now(),
            swept: false,
        };
        Arc::new(Lane { conn, config, room: Arc::new(Semaphore::new(LANES)), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer says where it listens.
    pub fn told(&self, ports: (Option<u16>, Option<u16>)) {
        self.lock().ports = ports;
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let at = self.now_at();
        let state = self.lock();
        match at {
            None => Standing::Absent,
            Some(at) if state.at != Some(at) => Standing::Closed,
            Some(_) if state.busy + state.idle.len() > 0 => Standing::Open,
            Some(_) if state.failed > 0 => Standing::Fails,
            Some(_) => Standing::Closed,
        }
    }

    /// Where it would go now: the address that QUIC uses, and the peer's port.
    fn now_at(&self) -> Option<SocketAddr> {
        self.config.as_ref()?;
        if self.conn.close_reason().is_some() {
            return None;
        }
        let mut at = self.conn.remote_addr()?;
        let ports = self.lock().ports;
        at.set_port(if at.is_ipv4() { ports.0 } else { ports.1 }?);
        Some(at)
    }

    /// The same; a lane that went elsewhere begins anew.
    fn goes_to(&self) -> Option<(SocketAddr, u64)> {
        let at = self.now_at();
        let mut state = self.lock();
        if state.at != at {
            state.at = at;
            state.way += 1;
            state.idle.clear();
            (state.failed, state.waited, state.rests_until) = (0, false, Instant::now());
        }
        Some((at?, state.way))
    }

    /// A connection for one request; none where the lane cannot be had now.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Turn> {
        self.goes_to()?;
        let room = timeout(TURN, self.room.clone().acquire_owned()).await.ok()?.ok()?;
        let (at, way) = self.goes_to()?;
        let idle = self.lock().idle.pop();
        if let Some((stream, _)) = idle {
            return Some(Turn::new(self, way, room, stream));
        }
        let coming = self.connect(at, way)?;
        if self.is_doubtful() {
            return None;
        }
        let wait = WAIT + 4 * self.conn.rtt().unwrap_or_default();
        let Ok(got) = timeout(wait, coming).await else {
            self.lock().waited = true;
            return None;
        };
        Some(Turn::new(self, way, room, got.ok()?))
    }

    /// Whether it is not worth waiting for.
    fn is_doubtful(&self) -> bool {
        let state = self.lock();
        state.failed > 0 || state.waited
    }

    /// Connects in the background, if that is due. What comes of it goes to who waits for it, else to the next.
    fn connect(self: &Arc<Self>, at: SocketAddr, way: u64) -> Option<oneshot::Receiver<LaneStream>> {
        let config = self.config.clone()?;
        {
            let mut state = self.lock();
            let most = if state.failed > 0 { 1 } else { LANES };
            if state.connecting >= most || Instant::now() < state.rests_until {
                return None;
            }
            state.connecting += 1;
        }
        let (give, coming) = oneshot::channel();
        let lane = self.clone();
        tokio::spawn(async move {
            let came = timeout(CONNECT, LaneStream::connect(at, config)).await;
            lane.lock().connecting -= 1;
            match came {
                Ok(Ok(stream)) => {
                    if let Err(stream) = give.send(stream) {
                        lane.put_back(stream, way);
                    }
                }
                _ => lane.broke(way),
            }
        });
        Some(coming)
    }

    /// Keeps a connection for the next request.
    fn put_back(self: &Arc<Self>, stream: LaneStream, way: u64) {
        let mut state = self.lock();
        if state.way != way || state.idle.len() >= LANES {
            return;
        }
        state.idle.push((stream, Instant::now()));
        if !std::mem::replace(&mut state.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// It could not be had, or broke: it rests.
    fn broke(&self, way: u64) {
        let mut state = self.lock();
        // Several connections that break at once are one failure.
        if state.way != way || Instant::now() < state.rests_until {
            return;
        }
        state.idle.clear();
        let rest = REST * 2_u32.saturating_pow(state.failed.min(16));
        state.rests_until = Instant::now() + rest.min(REST_LONGEST);
        state.failed = state.failed.saturating_add(1);
    }

    /// It did what it is for.
    fn worked(&self, way: u64) {
        let mut state = self.lock();
        if state.way == way {
            (state.failed, state.waited) = (0, false);
        }
    }

    /// Whether what goes `way` leads nowhere any more.
    fn is_over(&self, way: u64) -> bool {
        let at = self.now_at();
        let state = self.lock();
        state.way != way || at.is_none() || state.at != at
    }
}

/// Closes connections that nobody needed for a while.
async fn sweep(lane: std::sync::Weak<Lane>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(lane) = lane.upgrade() else { return };
        let mut state = lane.lock();
        state.idle.retain(|(_, since)| since.elapsed() < IDLE);
        if state.idle.is_empty() {
            state.swept = false;
            return;
        }
    }
}

/// A connection that one request has.
#[derive(Debug)]
pub struct Turn {
    lane: Arc<Lane>,
    way: u64,
    stream: Option<LaneStream>,
    _room: OwnedSemaphorePermit,
}

impl Turn {
    fn new(lane: &Arc<Lane>, way: u64, room: OwnedSemaphorePermit, stream: LaneStream) -> Turn {
        lane.lock().busy += 1;
        Turn { lane: lane.clone(), way, stream: Some(stream), _room: room }
    }

    /// All that was asked came: the connection is free for the next.
    fn done(mut self) {
        self.lane.worked(self.way);
        if let Some(stream) = self.stream.take() {
            self.lane.put_back(stream, self.way);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.lock().busy -= 1;
    }
}
