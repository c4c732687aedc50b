//! The engine's part of the exchange with peers: their rows into the index.

use super::Engine;
use dunlin_core::ids::{DeviceId, Incarnation};
use dunlin_core::kv::Read;
use dunlin_core::message::RowBytes;
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
        rows: &[RowBytes],
    ) -> Read<()> {
        let snapshot = self.folder.store.snapshot()?;
        let mut work = Work::new(&snapshot);
        let Ok(taken) = work.take_rows(device, inc, upto, rows)? else {
            self.host.refuse(device, "a row cannot be read");
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
        self.host.acknowledge(device, taken.received);
        Ok(())
    }
}
