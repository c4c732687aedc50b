//! Folders that cannot be opened, or not be kept open, until they can.

use super::{Open, Shared, Unopened, opening, uniting};
use crate::control::{Event, State};
use crate::engine::Input;
use crate::folder::{Folder, lock};
use crate::session::CODE_RENEWED;
use dunlin_core::ids::FolderId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};

/// How often a folder that could not be opened at the start is tried again; the first wait of one that failed; and how
/// often it is looked whether the directory of one that is halted was replaced.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is looked whether one is halted.
const CALMLY: Duration = Duration::from_secs(5);
/// The longest wait of one that failed: opening it reads and writes where something is the matter.
const LONGEST: Duration = Duration::from_secs(30);
/// One that was open for so long begins with the first wait again.
const CALM: Duration = Duration::from_secs(60);

/// Sees to folders until the node ends: `unopened` ones are opened as soon as that works, and those whose index
/// could not be used any more are closed and opened again.
pub(super) async fn tend(
    shared: Arc<Shared>,
    unopened: Vec<String>,
    mut failures: mpsc::UnboundedReceiver<Arc<Folder>>,
) {
    let mut tries = JoinSet::new();
    let mut opened: BTreeMap<String, (Instant, Duration)> = BTreeMap::new();
    let mut look = FIRST;
    for id in unopened {
        tries.spawn(keep_trying(shared.clone(), id, FIRST, FIRST));
    }
    loop {
        tokio::select! {
            biased;
            Some(done) = tries.join_next(), if !tries.is_empty() => {
                if let Ok((id, wait)) = done {
                    opened.insert(id, (Instant::now(), wait));
                }
            }
            () = tokio::time::sleep(look) => {
                look = if uniting::halted(&shared).next().is_some() { FIRST } else { CALMLY };
                // Under its own name a replaced directory is opened as at a start: that finds out what it is.
                for folder in block_in_place(|| uniting::replaced(&shared)) {
                    folder.tell(Input::Stop).await;
                    close(&shared, folder.clone(), "its directory is another one".into()).await;
                    tries.spawn(keep_trying(shared.clone(), folder.id.to_string(), Duration::ZERO, FIRST));
                }
            }
            failed = failures.recv() => {
                let Some(folder) = failed else { return };
                let id = folder.id.to_string();
                let wait = match opened.remove(&id) {
                    Some((at, wait)) if at.elapsed() < CALM => (wait * 2).min(LONGEST),
                    _ => FIRST,
                };
                let why = folder.pulse.borrow().failed.clone().unwrap_or_default();
                close(&shared, folder, why).await;
                tries.spawn(keep_trying(shared.clone(), id, wait, LONGEST));
            }
            () = shared.stop_folders.notified() => {
                tries.shutdown().await;
                return stop_all(&shared).await;
            }
        }
    }
}

/// Tries again and again to open a folder; returns with it how long the last wait was.
async fn keep_trying(
    shared: Arc<Shared>,
    id: String,
    mut wait: Duration,
    longest: Duration,
) -> (String, Duration) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.try_folders.notified() => {}
        }
        if block_in_place(|| opening::open_known(&shared, &id)).is_ok() {
            break;
        }
        wait = (wait * 2).min(longest);
    }
    let folder = FolderId::from_hex(&id).and_then(|id| shared.folder(&id));
    for peer in lock(&shared.peers).values() {
        // What it said of the folder while that was closed nobody heard.
        if folder.as_ref().is_some_and(|f| f.is_member(&peer.device)) {
            peer.conn.close(CODE_RENEWED, b"");
        }
    }
    (id, wait)
}

/// Closes every folder, for as long as the program runs.
async fn stop_all(shared: &Shared) {
    let why = lock(&shared.twice).clone().unwrap_or_default();
    for folder in shared.folders() {
        // An engine that is gone already has no use for it.
        folder.tell(Input::Stop).await;
        close(shared, folder, why.clone()).await;
    }
    for there in lock(&shared.unopened).values_mut() {
        there.why.clone_from(&why);
    }
}

/// Closes a folder whose engine has ended or is to end; status says why.
pub(super) async fn close(shared: &Shared, folder: Arc<Folder>, why: String) {
    let open = {
        let mut folders = lock(&shared.folders);
        let Some(open) = folders.remove(&folder.id) else { return };
        let (path, members) = (folder.path.clone(), folder.members.borrow().clone());
        lock(&shared.unopened).insert(folder.id, Unopened { path, why: why.clone(), members });
        open
    };
    let Open { engine, watcher, tasks, .. } = open;
    watcher.end();
    // Its exchanges belong to the old engine.
    folder.end_exchanges();
    for task in tasks {
        task.abort();
        // It is ended, which is what counts.
        let _ = task.await;
    }
    block_in_place(|| {
        // It has told how it ended.
        let _ = engine.join();
        // Somebody may still be reading through it, and the file can be opened but once.
        folder.site.store.close();
    });
    let (id, state) = (folder.id.to_string(), State::Halted);
    shared.event(Event::State { folder: id, state, in_sync: false });
    shared.event(Event::Note { text: format!("{}: {why}", opening::shown(&folder.path)) });
}
