//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use crate::folder::PeerFolder;
use dunlin_core::ids::{DeviceId, Incarnation};
use dunlin_core::kv::Read;
use dunlin_core::message::{Message, RowBytes};
use dunlin_core::tree::Work;

impl Engine {
    pub(super) fn open(&mut self, device: DeviceId, inc: Incarnation) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        work.opened(device, inc)?;
        self.folder.store.commit(work.finish()?)
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
        let Ok(taken) = work.take_rows(device, inc, upto, &rows)? else {
            from.conn.close(crate::session::CODE_PROTOCOL, b"a row cannot be read");
            return Ok(());
        };
        self.folder.store.commit(work.finish()?)?;
        self.replan |= !taken.news.is_empty();
        for node in &taken.news {
            // That nobody had its old content says nothing of the new one.
            if self.backoff.get(node).is_some_and(|b| b.nowhere) {
                self.backoff.remove(node);
            }
        }
        // A queue that is full is a peer that does not read; the session ends it.
        let _ = from.out.try_send(Message::Ack { folder: self.folder.id, received: taken.received });
        Ok(())
    }
}
