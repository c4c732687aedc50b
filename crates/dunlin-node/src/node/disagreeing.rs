//! Devices that lack nothing, have told each other all, and still do not hold the same: an index is damaged in a way that no
//! row tells of. It is looked through, once each time that happens; a damaged one is put aside, and the folder unites.

use crate::engine::{Input, Pulse, note_damage};
use crate::folder::{Folder, lock};
use dunlin_core::session::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// What is still on its way is told of within this time.
const WAITS: Duration = Duration::from_secs(10);

/// Watches over a folder until it is closed.
pub(super) async fn watch(folder: Arc<Folder>, failed: mpsc::UnboundedSender<Arc<Folder>>) {
    let (mut pulse, mut peers) = (folder.pulse.subscribe(), folder.peers_changed.subscribe());
    let mut checked = None;
    loop {
        tokio::select! {
            done = pulse.changed() => if done.is_err() { return },
            done = peers.changed() => if done.is_err() { return },
        }
        let Some(before) = disagrees(&folder) else { continue };
        if checked == Some(before) {
            continue;
        }
        tokio::time::sleep(WAITS).await;
        // Anything that changed meanwhile says that things are on their way.
        if disagrees(&folder) != Some(before) {
            pulse.mark_changed();
            continue;
        }
        checked = Some(before);
        let found =
            block_in_place(|| folder.site.store.snapshot().and_then(|s| dunlin_core::check::check(&s)));
        if let Err(fault) = found
            && fault.damage
        {
            note_damage(&folder.dir, &fault);
            folder.tell(Input::Stop).await;
            // Nobody listens any more when the node ends.
            let _ = failed.send(folder.clone());
            return;
        }
    }
}

/// What a device that is at rest, as this one is, says of itself, if that is not the same as here.
fn disagrees(folder: &Folder) -> Option<(Standing, Standing, u64)> {
    let pulse: Pulse = folder.pulse.borrow().clone();
    let (mine, seq) = (pulse.standing(), pulse.totals.seq);
    let rests = |s: &Standing| s.need == 0 && !s.busy;
    if !rests(&mine) {
        return None;
    }
    let peers = folder.peer_list();
    let mut all =
        peers.iter().map(|peer| *lock(&peer.known)).filter(|known| !known.in_sync(mine.digest, seq));
    all.find_map(|known| known.standing.filter(rests).map(|theirs| (mine, theirs, known.acked)))
}
