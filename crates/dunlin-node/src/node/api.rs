//! What the control API asks of a node.

use super::{Node, Unopened, handing, history, joining, opening, restoring, undoing, uniting, verifying};
use crate::control::{
    Api, ApiError, Bytes, ContentRequest, Device, Event, Folder as FolderStatus, FolderSpec, HandedOut,
    History, HistoryRequest, JoinRequest, Joined, Problem, RestoreRequest, Restored, Resumed,
    Shared as SharedFolder, State, Status, Tcp, UndoRequest, Undone, United, Verified,
};
use crate::engine::{Input, Pulse, Undecided};
use crate::folder::{Folder, advice, lock};
use crate::net::lane::Standing;
use dunlin_core::ids::{DeviceId, FolderId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};
use tokio::task::block_in_place;

/// How often it is seen whether a folder that is tried again is open, and how many times.
const OPENS_EVERY: Duration = Duration::from_millis(25);
const OPENS: u32 = 20;

fn state_of(pulse: &Pulse) -> State {
    if pulse.failed.is_some() {
        State::Error
    } else if pulse.halted.is_some() || pulse.brake.is_some() {
        State::Halted
    } else if pulse.scanning {
        State::Scanning
    } else if pulse.totals.need_files > 0 || pulse.dirty {
        State::Syncing
    } else {
        State::Idle
    }
}

/// Says when a folder's state changes, and how much is lacking while something is.
pub(super) async fn tell_states(folder: Arc<Folder>) {
    let (mut pulse, mut peers) = (folder.pulse.subscribe(), folder.peers_changed.subscribe());
    let mut told = None;
    loop {
        let now = pulse.borrow_and_update().clone();
        let state = (state_of(&now), folder.in_sync());
        if told != Some(state) {
            told = Some(state);
            folder.event(Event::State { folder: folder.id.to_string(), state: state.0, in_sync: state.1 });
        }
        let t = &now.totals;
        if t.need_files > 0 {
            let (need_files, need_bytes, to_delete) = (t.need_files, t.need_bytes, t.to_delete());
            let folder_id = folder.id.to_string();
            folder.event(Event::Progress { folder: folder_id, need_files, need_bytes, to_delete });
        }
        // A few times a second is enough for people.
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokio::select! {
            done = pulse.changed() => if done.is_err() { return },
            done = peers.changed() => if done.is_err() { return },
        }
    }
}

fn undecided(folder: &Folder, why: Undecided) -> ApiError {
    let path = opening::shown(&folder.path);
    match why {
        Undecided::NotHeld => {
            let what = format!("no deletes are held in {path} on this device: there is nothing to decide");
            match &folder.holding()[..] {
                [] => ApiError::failed(what, "dunlin status shows how the folder is"),
                holding => {
                    ApiError::failed(what, format!("some are on {}: decide there", holding.join(" and ")))
                }
            }
        }
        Undecided::Root(why) => ApiError::failed(
            format!("{path} is halted, but not for deletes: {why}"),
            advice(&folder.path, folder.id),
        ),
        Undecided::Untold(why) => ApiError::failed(
            format!("the deletes in {path} happen here, but the other devices cannot be told yet: {why}"),
            "see that the state directory can be written; it is tried again and again",
        ),
    }
}

impl Node {
    fn pick(&self, spec: &FolderSpec) -> Result<Arc<Folder>, ApiError> {
        let (open, unopened) = self.all();
        let mut all: Vec<(String, PathBuf)> =
            open.iter().map(|f| (f.id.to_string(), f.path.clone())).collect();
        all.extend(unopened.iter().map(|(id, there)| (id.to_string(), there.path.clone())));
        let at = spec.pick(all.iter().map(|(id, path)| (id.as_str(), path.as_path())))?;
        if let Some(folder) = open.get(at) {
            return Ok(folder.clone());
        }
        let (path, why) = unopened
            .values()
            .nth(at - open.len())
            .map(|there| (opening::shown(&there.path), there.why.clone()))
            .unwrap_or_default();
        Err(ApiError::failed(format!("the folder {path} is halted: {why}"), "dunlin status says more"))
    }

    /// A folder that is open, or is at once: one that could not be opened a moment ago is tried again.
    async fn pick_soon(&self, spec: &FolderSpec) -> Result<Arc<Folder>, ApiError> {
        let mut tries = 0;
        loop {
            let picked = self.pick(spec);
            if picked.is_ok() || tries == OPENS || lock(&self.shared.unopened).is_empty() {
                return picked;
            }
            if tries == 0 {
                self.shared.try_folders.notify_waiters();
            }
            tries += 1;
            tokio::time::sleep(OPENS_EVERY).await;
        }
    }

    /// A folder and where it is, open or not.
    fn pick_any(&self, spec: &FolderSpec) -> Result<(FolderId, PathBuf), ApiError> {
        let (open, unopened) = self.all();
        let all: Vec<(FolderId, PathBuf)> = open.iter().map(|f| (f.id, f.path.clone())).collect();
        let all: Vec<(FolderId, PathBuf)> =
            all.into_iter().chain(unopened.iter().map(|(id, there)| (*id, there.path.clone()))).collect();
        let ids: Vec<String> = all.iter().map(|(id, _)| id.to_string()).collect();
        let at = spec.pick(ids.iter().map(String::as_str).zip(all.iter().map(|(_, path)| path.as_path())))?;
        Ok(all[at].clone())
    }

    /// The open folders and the others, at one moment: each is in one of them.
    fn all(&self) -> (Vec<Arc<Folder>>, BTreeMap<FolderId, Unopened>) {
        let open = lock(&self.shared.folders);
        let unopened = lock(&self.shared.unopened).clone();
        (open.values().map(|o| o.folder.clone()).collect(), unopened)
    }

    fn folder_status(&self, folder: &Folder) -> FolderStatus {
        let pulse = folder.pulse.borrow().clone();
        let mut problems: Vec<Problem> = lock(&folder.problems)
            .iter()
            .map(|(path, why)| Problem { path: Folder::any_path(path), why: why.clone() })
            .collect();
        if let Some(why) = &pulse.failed {
            problems.push(Problem { path: Folder::any_path(&Default::default()), why: why.clone() });
        }
        FolderStatus {
            id: folder.id.to_string(),
            path: folder.path.clone().into(),
            state: state_of(&pulse),
            in_sync: folder.in_sync(),
            files: pulse.totals.files,
            bytes: pulse.totals.bytes,
            need_files: pulse.totals.need_files,
            need_bytes: pulse.totals.need_bytes,
            to_delete: pulse.totals.to_delete(),
            conflicts: pulse.totals.conflicts,
            held: folder.held_here(&pulse, &self.shared.name),
            root_lost: pulse.halted.is_some() && pulse.failed.is_none(),
            problems,
            devices: self.device_statuses(folder, &pulse),
        }
    }

    /// A folder that could not be opened: little is known of it but why.
    fn unopened_status(&self, id: &FolderId, there: &Unopened) -> FolderStatus {
        let others = there.members.iter().filter(|(d, _)| **d != self.shared.device);
        let device = |(id, name): (&DeviceId, &String)| Device {
            id: id.to_string(),
            name: name.clone(),
            connected: false,
            in_sync: false,
            address: self.shared.addresses_of(id).first().map(ToString::to_string),
            tcp: None,
            holds: false,
        };
        FolderStatus {
            id: id.to_string(),
            path: there.path.clone().into(),
            state: State::Halted,
            in_sync: false,
            files: 0,
            bytes: 0,
            need_files: 0,
            need_bytes: 0,
            to_delete: 0,
            conflicts: 0,
            held: None,
            root_lost: false,
            problems: vec![Problem { path: Folder::any_path(&Default::default()), why: there.why.clone() }],
            devices: others.map(device).collect(),
        }
    }

    fn device_statuses(&self, folder: &Folder, pulse: &Pulse) -> Vec<Device> {
        let members = folder.members.borrow().clone();
        let others = members.into_iter().filter(|(d, _)| *d != self.shared.device);
        others.map(|(device, name)| self.device_status(folder, pulse, device, name)).collect()
    }

    fn device_status(&self, folder: &Folder, pulse: &Pulse, device: DeviceId, name: String) -> Device {
        let peer = lock(&folder.peers).get(&device).cloned();
        let connected = lock(&self.shared.peers).get(&device).cloned();
        let address = connected
            .as_ref()
            .and_then(|p| p.conn.remote_addr())
            .or_else(|| self.shared.addresses_of(&device).first().copied());
        let tcp = connected.as_ref().and_then(|p| match p.lane.standing() {
            Standing::Absent => None,
            Standing::Closed => Some(Tcp::Closed),
            Standing::Open => Some(Tcp::Open),
            Standing::Fails => Some(Tcp::Fails),
        });
        let name = connected.map_or(name, |p| p.name.clone());
        Device {
            id: device.to_string(),
            name,
            connected: peer.is_some(),
            in_sync: peer
                .as_ref()
                .is_some_and(|p| folder.in_sync_with(p, pulse) && !pulse.busy() && !pulse.unwatched),
            address: address.map(|a| a.to_string()),
            tcp,
            holds: peer.is_some_and(|p| lock(&p.known).standing.is_some_and(|standing| standing.held)),
        }
    }
}

impl Api for Node {
    async fn share(&self, path: PathBuf) -> Result<SharedFolder, ApiError> {
        self.shared.once()?;
        let _one = self.shared.setup.lock().await;
        let folder = block_in_place(|| {
            let path = opening::check_root(&self.shared, &path)?;
            match self.shared.folders().into_iter().find(|f| f.path == path) {
                Some(folder) => Ok(folder),
                None => joining::create(&self.shared, path),
            }
        })?;
        let ticket = block_in_place(|| joining::invite(&self.shared, &folder))?;
        Ok(SharedFolder {
            device: self.shared.device.to_string(),
            name: self.shared.name.clone(),
            folder: folder.id.to_string(),
            path: folder.path.clone().into(),
            ticket,
        })
    }

    async fn join(&self, request: JoinRequest) -> Result<Joined, ApiError> {
        self.shared.once()?;
        let _one = self.shared.setup.lock().await;
        let folder = joining::join(&self.shared, request).await?;
        Ok(Joined {
            device: self.shared.device.to_string(),
            name: self.shared.name.clone(),
            folder: folder.id.to_string(),
            path: folder.path.clone().into(),
        })
    }

    async fn invite(&self, folder: FolderSpec) -> Result<String, ApiError> {
        let folder = self.pick(&folder)?;
        block_in_place(|| joining::invite(&self.shared, &folder))
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let (open, unopened) = self.all();
        let mut folders: Vec<FolderStatus> = open.iter().map(|f| self.folder_status(f)).collect();
        folders.extend(unopened.iter().map(|(id, there)| self.unopened_status(id, there)));
        folders.sort_by(|a, b| a.path.as_path().cmp(b.path.as_path()));
        Ok(Status { device: self.shared.device.to_string(), name: self.shared.name.clone(), folders })
    }

    async fn wait(&self, folder: FolderSpec, copies: u32) -> Result<(), ApiError> {
        let folder = self.pick_soon(&folder).await?;
        let (done, looked) = oneshot::channel();
        // Who asked may have gone by then.
        let passed = Box::new(move || done.send(()).unwrap_or_default());
        folder.tell(Input::Barrier(passed)).await;
        let ended = || ApiError::failed("the folder has stopped", "dunlin status says why");
        let (mut pulse, mut peers) = (folder.pulse.subscribe(), folder.peers_changed.subscribe());
        let mut looked = Some(looked);
        loop {
            pulse.mark_unchanged();
            if let Some(answer) = looked.take() {
                // What was the matter a moment ago may be so no more.
                answer.await.map_err(|_| folder.stopped().unwrap_or_else(ended))?;
            }
            if let Some(why) = folder.stopped().or_else(|| folder.undecided()) {
                return Err(why);
            }
            peers.mark_unchanged();
            let pulse_now = folder.pulse.borrow().clone();
            let in_sync = folder.peer_list().iter().filter(|p| folder.in_sync_with(p, &pulse_now)).count();
            // Not `in_sync`: what was there when the wait began has been looked at, watched or not.
            if folder.agrees() && in_sync as u64 + 1 >= u64::from(copies) {
                return Ok(());
            }
            tokio::select! {
                done = pulse.changed() => done.map_err(|_| ended())?,
                done = peers.changed() => done.map_err(|_| ended())?,
            }
        }
    }

    async fn verify(&self, folder: FolderSpec) -> Result<Verified, ApiError> {
        verifying::run(self.pick(&folder)?).await
    }

    async fn history(&self, request: HistoryRequest) -> Result<History, ApiError> {
        let folder = self.pick(&request.folder)?;
        history::list(&self.shared, &folder, &request).await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<Restored, ApiError> {
        restoring::restore(self.pick(&request.folder)?, request).await
    }

    async fn versions(&self, request: RestoreRequest) -> Result<HandedOut, ApiError> {
        let folder = self.pick(&request.folder)?;
        handing::find(&self.shared, &folder, request).await
    }

    async fn content(&self, request: ContentRequest) -> Result<Bytes, ApiError> {
        let folder = self.pick(&request.folder)?;
        handing::bytes(&self.shared, folder, request).await
    }

    async fn undo(&self, request: UndoRequest) -> Result<Undone, ApiError> {
        let folder = self.pick(&request.folder)?;
        undoing::undo(&self.shared, folder, request).await
    }

    async fn unite(&self, spec: FolderSpec) -> Result<United, ApiError> {
        let (id, path) = self.pick_any(&spec)?;
        uniting::unite(&self.shared, id, &path).await?;
        Ok(United { folder: id.to_string(), path: path.into() })
    }

    async fn resume(&self, spec: FolderSpec, accept: bool) -> Result<Resumed, ApiError> {
        let folder = self.pick(&spec)?;
        let (done, decided) = oneshot::channel();
        // Who asked may have gone by then.
        let decided_by = Box::new(move |how| done.send(how).unwrap_or_default());
        folder.tell(Input::Resume { accept, decided: decided_by }).await;
        let ended = |_| ApiError::failed("the folder has stopped", "dunlin status says why");
        let settled = decided.await.map_err(ended)?.map_err(|e| undecided(&folder, e))?;
        Ok(Resumed {
            folder: folder.id.to_string(),
            path: folder.path.clone().into(),
            accepted: accept,
            files: settled.deleted + settled.replaced,
            overwritten: settled.replaced,
        })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }
}
