//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use crate::folder::PeerFolder;
use dunlin_core::codec::decode_state;
use dunlin_core::ids::{DeviceId, Incarnation, PARKED, ROOT};
use dunlin_core::kv::{Read, Tx};
use dunlin_core::message::{Message, RowBytes};
use dunlin_core::rows::{PeerRow, Rows};
use dunlin_core::tree::Work;

impl Engine {
    pub(super) fn open(&mut self, device: DeviceId, inc: Incarnation) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut tx = Tx::new(&snapshot);
        let mut row = peer_row(&tx, device)?;
        if row.inc != inc {
            row = PeerRow { number: row.number, inc, received: 0, acked: row.acked };
            tx.put_peer(device, &row);
        }
        self.folder.store.commit(tx.into_changes())
    }

    pub(super) fn rows(
        &mut self,
        device: DeviceId,
        inc: Incarnation,
        upto: u64,
        rows: Vec<RowBytes>,
        from: &PeerFolder,
    ) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        let mut peer = peer_row(&work.tx, device)?;
        if peer.inc != inc {
            peer = PeerRow { number: peer.number, inc, received: 0, acked: peer.acked };
        }
        for row in rows {
            match decode_state(&row.state) {
                Ok(state) if row.node != ROOT && row.node != PARKED => {
                    let news = work.hear(row.node, &state, peer.number)?;
                    self.replan |= news;
                    // That nobody had its old content says nothing of the new one.
                    if news && self.backoff.get(&row.node).is_some_and(|b| b.nowhere) {
                        self.backoff.remove(&row.node);
                    }
                }
                _ => {
                    from.conn.close(crate::session::CODE_PROTOCOL, b"a row cannot be read");
                    return Ok(());
                }
            }
        }
        peer.received = peer.received.max(upto);
        work.tx.put_peer(device, &peer);
        self.folder.store.commit(work.finish()?)?;
        // A queue that is full is a peer that does not read; the session ends it.
        let _ = from.out.try_send(Message::Ack { folder: self.folder.id, received: peer.received });
        Ok(())
    }
}

/// What is known of the exchange with a device; a new one gets the next number.
fn peer_row(tx: &Tx<'_>, device: DeviceId) -> Read<PeerRow> {
    if let Some(row) = tx.peer(device)? {
        return Ok(row);
    }
    let highest = tx.peers()?.iter().map(|(_, r)| r.number).max().unwrap_or(0);
    Ok(PeerRow { number: highest + 1, ..PeerRow::default() })
}
