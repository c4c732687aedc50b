//! Dialling each address by itself, where dialling them together failed.
//!
//! All addresses of one dial share one handshake, and whoever answers it first must prove the key. An
//! address that belongs to another device by now so ends the attempt for all of them. iroh keeps every
//! address it was given for a key for a minute, so that a second dial from the same endpoint fares no
//! better: each address gets an endpoint of its own, which lives as long as its connection.

use super::transport::{BindError, BindOptions, CLOSE, ConnectError, connect_error, open};
use iroh::endpoint::Connection;
use iroh::{Endpoint, EndpointAddr, PublicKey, TransportAddr};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Addresses tried at once.
const AT_ONCE: usize = 4;

/// The endpoints of connections made this way.
#[derive(Debug)]
pub(super) struct Singly {
    options: BindOptions,
    /// The transport's own; the others end with it.
    main: Endpoint,
    lone: Mutex<JoinSet<()>>,
}

impl Singly {
    /// With the same key and from the same address as the transport's, on any port; accepts nothing.
    pub(super) fn new(options: &BindOptions, main: Endpoint) -> Singly {
        let ip = options.listen.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip());
        let listen = Some(SocketAddr::new(ip, 0));
        let options = BindOptions { listen, alpns: Vec::new(), ..options.clone() };
        Singly { options, main, lone: Mutex::default() }
    }

    /// Dials every address; the first to prove the key is it. The caller bounds the time.
    pub(super) async fn dial(
        &self,
        id: PublicKey,
        addrs: &[SocketAddr],
        alpn: &[u8],
    ) -> Result<Connection, ConnectError> {
        let (mut addrs, mut dials) = (addrs.iter(), JoinSet::new());
        let mut failed = ConnectError::NoAddress;
        loop {
            while dials.len() < AT_ONCE
                && let Some(addr) = addrs.next()
            {
                dials.spawn(one(self.options.clone(), id, *addr, alpn.to_vec()));
            }
            match dials.join_next().await {
                Some(Ok(Ok((endpoint, conn)))) => {
                    self.keep(endpoint, &conn).await;
                    return Ok(conn);
                }
                Some(Ok(Err(e))) => failed = e,
                Some(Err(_)) => {} // only a panic, which has been told
                None => return Err(failed),
            }
        }
    }

    /// Keeps an endpoint until its connection is no more.
    async fn keep(&self, endpoint: Endpoint, conn: &Connection) {
        let mut lone = self.lone.lock().await;
        while lone.try_join_next().is_some() {}
        let (conn, ended) = (conn.weak_handle(), self.main.closed());
        lone.spawn(async move {
            tokio::select! {
                _ = conn.closed() => {}
                () = ended => {}
            }
            endpoint.close().await;
        });
    }

    /// Waits until all connections made this way are closed, once the transport's endpoint is.
    pub(super) async fn close(&self) {
        let mut lone = self.lone.lock().await;
        while lone.join_next().await.is_some() {}
    }
}

async fn one(
    options: BindOptions,
    id: PublicKey,
    addr: SocketAddr,
    alpn: Vec<u8>,
) -> Result<(Endpoint, Connection), ConnectError> {
    let any = options.listen.ok_or(ConnectError::NoAddress)?;
    let endpoint = open(&options, any).await.map_err(|e: BindError| ConnectError::Failed(e.to_string()))?;
    let target = EndpointAddr::from_parts(id, [TransportAddr::Ip(addr)]);
    match endpoint.connect(target, &alpn).await {
        Ok(conn) => Ok((endpoint, conn)),
        Err(e) => {
            // It has nothing to say to anybody.
            let _ = tokio::time::timeout(CLOSE, endpoint.close()).await;
            Err(connect_error(&e))
        }
    }
}
