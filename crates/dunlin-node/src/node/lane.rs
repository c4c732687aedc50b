//! The TCP side of a node: listening, and handing connections to the sessions of their devices.

use super::Shared;
use crate::control::Event;
use crate::folder::lock;
use crate::net::lane::Listener;
use crate::session::serve_lane;
use dunlin_core::ids::DeviceId;
use std::sync::{Arc, Weak};

/// Listens, if that is wanted, and takes connections until the node ends. Only devices that are connected
/// over QUIC now, members therefore, are let in.
pub(super) async fn accept(shared: Arc<Shared>) {
    let Some(listener) = shared.listener.get() else { return };
    while let Some((device, stream)) = listener.accept().await {
        serve_lane(&shared, device, stream);
    }
}

/// Opens the TCP sockets. Without any, QUIC does it all.
pub(super) fn listen(shared: &Arc<Shared>) {
    if !shared.tcp {
        return;
    }
    let weak: Weak<Shared> = Arc::downgrade(shared);
    let admits = move |key: &[u8; 32]| {
        weak.upgrade().is_some_and(|shared| lock(&shared.peers).contains_key(&DeviceId(*key)))
    };
    match Listener::bind(&shared.transport.bound(), &shared.secret, Arc::new(admits)) {
        // Nobody else sets it.
        Ok(listener) => drop(shared.listener.set(listener)),
        Err(e) => {
            let text = format!("cannot listen over TCP, large files go over QUIC only: {e}");
            shared.event(Event::Note { text });
        }
    }
}
