//! Whose the deletes are that the brake holds.

use super::Engine;
use crate::store::Snapshot;
use dunlin_core::brake::{carried_out, pending};
use dunlin_core::ids::DeviceId;
use dunlin_core::journal::Journal;
use dunlin_core::kv::Read;
use dunlin_core::rows::Totals;
use std::collections::BTreeMap;

impl Engine {
    /// Who deleted what is to go, what vanished here and what went within the last minute; and how much of that others did.
    pub(super) fn deleted(
        &self,
        snapshot: &Snapshot,
        totals: &Totals,
        here: u64,
    ) -> Read<(BTreeMap<DeviceId, u64>, u64)> {
        let (own, now) = (self.fresh.0, self.braking.time(self.now));
        let (mut who, mut theirs_done) = (BTreeMap::from([(own, here)]), 0);
        let done = carried_out(snapshot, &self.braking.brake, now)?;
        let pending = pending(snapshot)?.into_iter().map(|(range, files)| (range.inc, files, 0));
        for (inc, files, done) in done.into_iter().map(|(inc, files)| (inc, files, files)).chain(pending) {
            let device = if inc == totals.inc { Some(own) } else { snapshot.device_of(inc)? };
            theirs_done += if device == Some(own) { 0 } else { done };
            // Whoever is not known by now is nobody who could be named.
            if let Some(device) = device {
                *who.entry(device).or_default() += files;
            }
        }
        Ok((who, theirs_done))
    }
}
