//! Letting TCP connections in: a bounded number of handshakes, each for a bounded time, and only from
//! devices that are admitted.

use super::stream::{LaneStream, tune};
use super::tls::{self, Admits};
use crate::net::handshake::{HAND_OVER, HANDSHAKE, MAX_HANDSHAKES, Place, Sources};
use iroh::SecretKey;
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// A kernel that gives no connection (out of files) is asked again after this.
const AGAIN: Duration = Duration::from_millis(200);

/// The TCP sockets of this device.
#[derive(Debug)]
pub struct Listener {
    ports: (Option<u16>, Option<u16>),
    accepted: Mutex<mpsc::Receiver<([u8; 32], LaneStream)>>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Listens at the addresses that the node has for QUIC, `udp`: at the same ports where they are free.
    ///
    /// # Errors
    /// When it cannot listen at any of them, or the cryptography lacks what is needed.
    pub fn bind(udp: &[SocketAddr], secret: &SecretKey, admits: Admits) -> io::Result<Listener> {
        let config = Arc::new(tls::server(secret, admits).map_err(io::Error::other)?);
        let (out, accepted) = mpsc::channel(MAX_HANDSHAKES);
        let (slots, sources) = (Arc::new(Semaphore::new(MAX_HANDSHAKES)), Sources::default());
        let mut ports = (None, None);
        let mut acceptors = Vec::new();
        let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for at in udp {
            let port = if at.is_ipv4() { &mut ports.0 } else { &mut ports.1 };
            if port.is_some() {
                continue;
            }
            let any = SocketAddr::new(at.ip(), 0);
            match listen(*at).or_else(|_| listen(any)).and_then(|l| Ok((l.local_addr()?.port(), l))) {
                Ok((bound, listener)) => {
                    *port = Some(bound);
                    let let_in = LetIn {
                        config: config.clone(),
                        slots: slots.clone(),
                        sources: sources.clone(),
                        out: out.clone(),
                    };
                    acceptors.push(tokio::spawn(let_in.run(listener)));
                }
                Err(e) => why = e,
            }
        }
        if acceptors.is_empty() {
            return Err(why);
        }
        Ok(Listener { ports, accepted: Mutex::new(accepted), acceptors })
    }

    /// The ports listened on, over IPv4 and over IPv6.
    #[must_use]
    pub fn ports(&self) -> (Option<u16>, Option<u16>) {
        self.ports
    }

    /// The next device that connected and proved its key.
    pub async fn accept(&self) -> Option<([u8; 32], LaneStream)> {
        self.accepted.lock().await.recv().await
    }

    /// Closes the sockets; connections go on.
    pub fn close(&self) {
        for acceptor in &self.acceptors {
            acceptor.abort();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    // A node that starts again finds connections of its last run.
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    tune(SockRef::from(&socket));
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What decides over who comes in.
struct LetIn {
    config: Arc<ServerConfig>,
    slots: Arc<Semaphore>,
    sources: Sources,
    out: mpsc::Sender<([u8; 32], LaneStream)>,
}

impl LetIn {
    /// Never waits for a stranger: what finds no free place is closed.
    async fn run(self, listener: TcpListener) {
        loop {
            let Ok((tcp, from)) = listener.accept().await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Ok(slot) = self.slots.clone().try_acquire_owned() else { continue };
            let Some(place) = Place::take(&self.sources, Some(from)) else { continue };
            let (config, out) = (self.config.clone(), self.out.clone());
            tokio::spawn(async move {
                let _held = (slot, place);
                if let Some(known) = handshake(tcp, config).await {
                    // A node that does not take connections for this long is closing or overwhelmed.
                    let _ = out.send_timeout(known, HAND_OVER).await;
                }
            });
        }
    }
}

async fn handshake(tcp: TcpStream, config: Arc<ServerConfig>) -> Option<([u8; 32], LaneStream)> {
    tokio::time::timeout(HANDSHAKE, LaneStream::accept(tcp, config)).await.ok()?.ok()
}
