//! What is told of one folder over one connection, as long as it is open.

use super::riding;
use crate::folder::{Folder, PeerFolder, lock};
use crate::node::Shared;
use dunlin_core::ids::DeviceId;
use dunlin_core::life::Heard;
use dunlin_core::message::{DeviceAddress, Message};
use dunlin_core::session::{Outgoing, Speaker};
use std::sync::Arc;
use tokio::task::block_in_place;

/// Sends rows as they change, and how the folder stands, until the connection ends.
pub(super) async fn send_rows(
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    peer: Arc<PeerFolder>,
    to: Speaker,
    heard: Heard,
) {
    let mut pulse = folder.pulse.subscribe();
    let mut members = folder.members.subscribe();
    let mut peers = folder.peers_changed.subscribe();
    let start = || Outgoing::new(&folder.site.store.snapshot()?, folder.id, to, &heard);
    let Ok(mut outgoing) = block_in_place(start) else { return };
    lock(&peer.known).acked = outgoing.acked();
    let mut told = Vec::new();
    loop {
        pulse.mark_unchanged();
        let mut ok = say_all(&folder, &peer, &mut outgoing).await;
        // Before addresses: those of devices that the peer does not know as members are lost on it.
        if ok && members.has_changed().unwrap_or(false) {
            members.mark_unchanged();
            for message in folder.statements() {
                ok = ok && peer.out.send(message).await.is_ok();
            }
        }
        let known = addresses(&shared, &folder, peer.device);
        if ok && known != told {
            told.clone_from(&known);
            ok = peer.out.send(Message::Addresses { folder: folder.id, devices: known }).await.is_ok();
        }
        if !ok {
            return;
        }
        tokio::select! {
            done = pulse.changed() => if done.is_err() { return },
            done = members.changed() => {
                if done.is_err() {
                    return;
                }
                members.mark_changed();
            }
            done = peers.changed() => if done.is_err() { return },
        }
    }
}

/// Where the other members of the folder are connected.
fn addresses(shared: &Shared, folder: &Folder, except: DeviceId) -> Vec<DeviceAddress> {
    let peers = lock(&shared.peers);
    let others = peers.values().filter(|p| p.device != except && folder.is_member(&p.device));
    others
        .filter_map(|p| Some(DeviceAddress { device: p.device, address: p.conn.remote_addr()?.to_string() }))
        .collect()
}

/// Sends everything there is to say of the folder; `false` if the connection or the index ended.
async fn say_all(folder: &Folder, peer: &PeerFolder, outgoing: &mut Outgoing) -> bool {
    loop {
        let standing = folder.pulse.borrow().standing();
        let next = || outgoing.next(&folder.site.store.snapshot()?, standing);
        match block_in_place(next) {
            Ok(Some(message)) => {
                let rows = if let Message::Rows { rows, .. } = &message { &rows[..] } else { &[] };
                for message in riding::with(folder, rows).into_iter().chain([message]) {
                    if peer.out.send(message).await.is_err() {
                        return false;
                    }
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}
