//! The TCP lane of a connection: what is told of it, and what is served over it.

use super::{CODE_PROTOCOL, Peer};
use crate::folder::lock;
use crate::net::connection::Connection;
use crate::net::lane::{self, Lane, LaneStream};
use crate::node::Shared;
use crate::transfer::{StreamError, read_frame};
use dunlin_core::ids::{DeviceId, FolderId};
use dunlin_core::message::Message;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// TCP connections of one peer that are served at once; of more, the oldest go. A peer uses half as many:
/// the others may be dead ones of which this side has not heard.
const SERVED: usize = 2 * lane::LANES;
/// One over which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The TCP connections that a peer has to this device. They end with its QUIC connection.
#[derive(Default)]
pub(crate) struct Served(Mutex<Option<VecDeque<AbortHandle>>>);

impl Served {
    fn begin(&self) {
        lock(&self.0).get_or_insert_default();
    }

    pub(super) fn end(&self) {
        for task in lock(&self.0).take().into_iter().flatten() {
            task.abort();
        }
    }
}

/// The way to ask the peer of a connection for much; one that leads nowhere if this device wants none.
pub(super) fn lane(shared: &Shared, conn: &Connection) -> Arc<Lane> {
    let config = if shared.tcp { lane::client(&shared.secret, conn.remote_id()).ok() } else { None };
    Lane::new(conn.clone(), config.map(Arc::new))
}

/// Tells the peer where this device listens over TCP, and serves it from now on.
pub(super) fn tell_ports(shared: &Shared, peer: &Peer) {
    let Some(listener) = shared.listener.get() else { return };
    peer.served.begin();
    let (v4, v6) = listener.ports();
    // Nothing was said yet: there is room.
    let _ = peer.out.try_send(Message::Lane { v4: v4.unwrap_or(0), v6: v6.unwrap_or(0) });
}

/// The ports that a peer told.
pub(super) fn ports(v4: u16, v6: u16) -> (Option<u16>, Option<u16>) {
    let some = |port| (port != 0).then_some(port);
    (some(v4), some(v6))
}

/// Serves a TCP connection of a connected device, beside others, until it ends.
pub(crate) fn serve_lane(shared: &Arc<Shared>, device: [u8; 32], stream: LaneStream) {
    let Some(peer) = lock(&shared.peers).get(&DeviceId(device)).cloned() else { return };
    let mut served = lock(&peer.served.0);
    let Some(served) = served.as_mut() else { return };
    served.retain(|task| !task.is_finished());
    while served.len() >= SERVED {
        if let Some(oldest) = served.pop_front() {
            oldest.abort();
        }
    }
    served.push_back(tokio::spawn(requests(shared.clone(), peer.clone(), stream)).abort_handle());
}

async fn requests(shared: Arc<Shared>, peer: Arc<Peer>, mut stream: LaneStream) {
    let find = |id: FolderId| shared.folder(&id).filter(|f| f.is_member(&peer.device));
    loop {
        let served = match timeout(IDLE, read_frame(&mut stream)).await {
            Ok(Ok(Some(request))) => crate::serve::serve(&mut stream, &request, find).await,
            Ok(Err(e)) => Err(e),
            Ok(Ok(None)) | Err(_) => return,
        };
        match served {
            Ok(()) => {}
            Err(StreamError::Protocol(why)) => return peer.conn.close(CODE_PROTOCOL, why.as_bytes()),
            // What came is no whole answer, and the end of the connection says so.
            Err(_) => return,
        }
    }
}
