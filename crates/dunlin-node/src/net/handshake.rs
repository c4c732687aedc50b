//! Letting connections in: a bounded number of handshakes, each for a bounded time.

use super::connection::Connection;
use iroh::Endpoint;
use iroh::endpoint::{Incoming, IncomingAddr};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Handshakes that may run at once.
pub(super) const MAX_HANDSHAKES: usize = 64;
/// Handshakes that one address may have running at once, so that one host cannot take all of them.
const MAX_PER_SOURCE: usize = 16;
/// From here on a source must first show that it receives at the address it claims: forged
/// sources then cost one small packet instead of a slot.
const VALIDATE_FROM: usize = 16;
/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a finished connection waits for the node to take it.
pub(super) const HAND_OVER: Duration = Duration::from_secs(5);

pub(super) type Sources = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One source's running handshake; gives its place back when dropped.
pub(super) struct Place {
    sources: Sources,
    source: Option<IpAddr>,
}

impl Place {
    pub(super) fn take(sources: &Sources, from: Option<SocketAddr>) -> Option<Place> {
        // IPv6 hosts own whole /64s: count those as one source. Loopback is this machine's own
        // nodes, which may be many.
        let source = from.and_then(|a| match super::addrs::canonical(a).ip() {
            ip if ip.is_loopback() => None,
            IpAddr::V6(ip) => Some(IpAddr::V6((ip.to_bits() >> 64 << 64).into())),
            ip => Some(ip),
        });
        if let Some(ip) = source {
            let mut map = sources.lock().unwrap_or_else(PoisonError::into_inner);
            let count = map.entry(ip).or_insert(0);
            if *count >= MAX_PER_SOURCE {
                return None;
            }
            *count += 1;
        }
        Some(Place { sources: sources.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ip) = self.source else { return };
        let mut map = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                map.remove(&ip);
            }
        }
    }
}

/// Accepts until the endpoint closes. Never waits for a stranger: what finds no free place is
/// dropped, and an honest dialler's own retransmission tries again.
pub(super) async fn accept_loop(endpoint: Endpoint, out: mpsc::Sender<Connection>) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let sources: Sources = Arc::default();
    while let Some(incoming) = endpoint.accept().await {
        let busy = MAX_HANDSHAKES - slots.available_permits();
        if busy >= VALIDATE_FROM && !incoming.remote_addr_validated() {
            // Only an already validated source can make this fail.
            let _ = incoming.retry();
            continue;
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let from = match incoming.remote_addr() {
            IncomingAddr::Ip(from) => Some(from),
            _ => None,
        };
        let Some(place) = Place::take(&sources, from) else {
            incoming.ignore();
            continue;
        };
        let out = out.clone();
        tokio::spawn(async move {
            let _held = (slot, place);
            if let Some(conn) = handshake(incoming).await {
                // A node that does not take connections for this long is closing or overwhelmed.
                let _ = out.send_timeout(conn, HAND_OVER).await;
            }
        });
    }
}

async fn handshake(incoming: Incoming) -> Option<Connection> {
    let accepting = incoming.accept().ok()?;
    let conn = tokio::time::timeout(HANDSHAKE, accepting).await.ok()?.ok()?;
    Some(Connection::new(conn))
}
