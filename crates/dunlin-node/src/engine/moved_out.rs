//! Files that a user moved to another folder of this device.

use super::Engine;
use crate::store::Snapshot;
use dunlin_core::brake::{Gone, Patience, WINDOW, leaving};
use dunlin_core::kv::Read;

impl Engine {
    /// Of what is to go, what just came to another folder does not count as deleted. `true`: there was some.
    pub(super) fn spare_what_moved_out(&mut self, snapshot: &Snapshot, gone: &Gone) -> Read<bool> {
        let leaving = leaving(snapshot, gone)?;
        let since = self.folder.disk.now().secs.saturating_sub(WINDOW.as_secs().cast_signed());
        let came = self.host.came_elsewhere(&leaving.keys().copied().collect(), since);
        let now = self.braking.time(self.now);
        self.braking.brake.spare(now, came.iter().filter_map(|id| leaving.get(id)).flatten().copied());
        Ok(!came.is_empty())
    }

    /// Whether another folder may not have seen yet what goes here: that is waited for, and looked at again. Meanwhile nothing
    /// is deleted.
    pub(super) fn may_turn_up_elsewhere(&mut self) -> bool {
        let now = self.braking.time(self.now);
        let waits = self.host.has_other_folders() && self.braking.brake.waits_for_other_folders(now);
        if waits {
            self.braking.absences = Some(Patience::since(None, now));
            self.braking.removals = Some(Patience::since(None, now));
        }
        waits
    }
}
