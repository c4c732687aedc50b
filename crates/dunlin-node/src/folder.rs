//! One shared folder of a running node: what its engine, its sessions and the control API have in
//! common.

mod brake;
mod gathered;
mod recent;
mod statements;

pub(crate) use gathered::{Gathered, Gathering};
pub(crate) use recent::Recent;
pub(crate) use statements::{known, ranges};

use crate::config::Config;
use crate::control::{AnyPath, ApiError, Change, Event, Holding, for_shell};
use crate::disk::ReadFile;
use crate::engine::{Host, Input, Pulse};
use crate::net::connection::Connection;
use crate::net::lane::Lane;
use crate::site::Site;
use dunlin_core::brake::{Held, came};
use dunlin_core::ids::{ContentId, DeviceId, DotRange, FolderId};
use dunlin_core::message::Message;
use dunlin_core::path::{Escaped, RelPath};
use dunlin_core::plan::Fetch;
use dunlin_core::session::{Known, Receipt};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// How long a folder waits for the disk of another one, where what it wants may be.
const SOON: Duration = Duration::from_secs(1);

/// Locks; a panic elsewhere does not make the data worse than it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The exchange of one folder over one connection.
pub(crate) struct PeerFolder {
    pub device: DeviceId,
    /// What its program can do.
    pub features: u64,
    pub conn: Connection,
    /// How it is asked for much.
    pub lane: Arc<Lane>,
    /// Messages to the peer; a single task writes them.
    pub out: mpsc::Sender<Message>,
    /// What it is known to have.
    pub known: Mutex<Known>,
    /// How many fetches are under way from it.
    pub load: AtomicUsize,
}

/// A shared folder.
pub(crate) struct Folder {
    pub id: FolderId,
    /// This device's key, by which it says that a person accepted deletes.
    pub secret: iroh::SecretKey,
    pub path: PathBuf,
    /// Its state directory.
    pub dir: PathBuf,
    /// Its disk, stage and index.
    pub site: Arc<Site>,
    pub config: Mutex<Config>,
    pub members: watch::Sender<BTreeMap<DeviceId, String>>,
    pub inputs: mpsc::Sender<Input>,
    pub pulse: watch::Sender<Pulse>,
    pub wants: mpsc::UnboundedSender<Vec<Fetch>>,
    pub problems: Mutex<BTreeMap<RelPath, String>>,
    pub recent: Mutex<Recent>,
    pub gathering: Gathering,
    pub events: broadcast::Sender<Event>,
    /// Its disk did not answer when another folder of this device asked.
    pub is_mute: AtomicBool,
    /// All open folders of this device.
    pub others: Box<dyn Fn() -> Vec<Arc<Folder>> + Send + Sync>,
    /// Who is connected and shares this folder.
    pub peers: Mutex<BTreeMap<DeviceId, Arc<PeerFolder>>>,
    /// Held by whoever reads all files again.
    pub verifying: tokio::sync::Mutex<()>,
    /// Raised whenever a peer comes, goes, or says something of itself.
    pub peers_changed: watch::Sender<u64>,
}

pub(crate) fn verify(by: &DeviceId, claim: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = iroh::PublicKey::from_bytes(&by.0) else { return false };
    let Ok(signature) = <[u8; 64]>::try_from(signature) else { return false };
    let signature = iroh::Signature::from_bytes(&signature);
    key.verify(&dunlin_core::message::signed_bytes(claim), &signature).is_ok()
}

impl Host for Folder {
    fn applied(&self, path: &RelPath, kind: Change) {
        self.event(Event::Applied { folder: self.id.to_string(), path: Folder::any_path(path), kind });
    }

    fn conflict(&self, path: &RelPath) {
        self.event(Event::Conflict { folder: self.id.to_string(), path: Folder::any_path(path) });
    }

    fn problem(&self, path: &RelPath, why: &str) {
        let (folder, path) = (self.id.to_string(), Folder::any_path(path));
        self.event(Event::Problem { folder, path, why: why.to_owned() });
    }

    fn want(&self, fetches: Vec<Fetch>) {
        // A fetcher that has ended is a node that is ending.
        let _ = self.wants.send(fetches);
    }

    fn recent(&self, content: ContentId, bytes: Vec<u8>) {
        lock(&self.recent).put(content, bytes, true);
    }

    fn stands(&self, pulse: Pulse, mut problems: BTreeMap<RelPath, String>) {
        if let Some(why) = &pulse.halted {
            problems.insert(RelPath::root(), format!("{why}: {}", advice(&self.path, self.id)));
        }
        if let Some(held) = pulse.brake.as_ref().filter(|_| pulse.halted.is_none()) {
            problems.insert(RelPath::root(), self.held_text(held));
        }
        *lock(&self.problems) = problems;
        self.pulse.send_if_modified(|p| {
            let changed = *p != pulse;
            *p = pulse;
            changed
        });
    }

    fn acknowledge(&self, device: DeviceId, receipt: Receipt) {
        if let Some(peer) = lock(&self.peers).get(&device) {
            // A queue that is full is a peer that does not read; the session ends it.
            let _ = peer.out.try_send(receipt.told(self.id));
        }
    }

    fn refuse(&self, device: DeviceId, why: &str) {
        if let Some(peer) = lock(&self.peers).get(&device) {
            peer.conn.close(crate::session::CODE_PROTOCOL, why.as_bytes());
        }
    }

    fn connected(&self) -> BTreeSet<DeviceId> {
        lock(&self.peers).keys().copied().collect()
    }

    fn is_everybody(&self, met: &BTreeSet<DeviceId>) -> bool {
        let me = DeviceId(*self.secret.public().as_bytes());
        self.members.borrow().keys().all(|member| *member == me || met.contains(member))
    }

    fn renewed(&self) {
        self.end_exchanges();
    }

    fn is_held_elsewhere(&self) -> bool {
        !self.holding().is_empty()
    }

    fn has_other_folders(&self) -> bool {
        (self.others)().iter().any(|other| other.id != self.id)
    }

    fn came_elsewhere(&self, contents: &BTreeSet<ContentId>, since: i64) -> BTreeSet<ContentId> {
        let others = (self.others)().into_iter().filter(|other| other.id != self.id);
        // What an index cannot tell did not come there.
        let there = |other: Arc<Folder>| came(&other.site.store.snapshot().ok()?, contents, since).ok();
        others.filter_map(there).flatten().collect()
    }

    fn braked(&self, held: Option<&Held>) {
        match held {
            Some(held) => {
                self.problem(&RelPath::root(), &self.held_text(held));
            }
            None => {
                let path = Escaped(self.path.as_os_str().as_bytes());
                self.event(Event::Note {
                    text: format!("no deletes are held in {path} any more, and no edits"),
                });
            }
        }
    }

    fn release(&self, accepted: &[DotRange]) -> Result<(), String> {
        self.sign_release(accepted).map_err(|e| e.to_string())
    }

    fn united(&self) {
        let mut config = lock(&self.config);
        if config.joining {
            config.joining = false;
            // Should it not be written, the next start waits for the tree once more: no harm.
            let _ = config.save(&self.dir);
        }
    }
}

impl Folder {
    pub(crate) fn event(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }

    pub(crate) fn any_path(path: &RelPath) -> AnyPath {
        AnyPath::from(path.to_bytes())
    }

    /// What other folders of this device have of a content, also in their histories: after a move between folders it
    /// need not come over the network. Only folders whose members are all that this one has: a member who knows the
    /// hash of what it must not see would get it through here.
    pub(crate) fn nearby(&self, content: &ContentId) -> Vec<Box<dyn ReadFile>> {
        let members = self.members.borrow().clone();
        let others = (self.others)().into_iter().filter(|other| other.id != self.id);
        let all_may = |other: &Arc<Folder>| members.keys().all(|member| other.is_member(member));
        others.filter(all_may).filter_map(|other| other.finds_soon(content)).collect()
    }

    /// What this folder has of a content, for another one, which must not hang on this one's disk: none if that does not
    /// answer soon, nor as long as it has not.
    fn finds_soon(self: &Arc<Self>, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        if self.is_mute.load(Ordering::SeqCst) {
            return None;
        }
        let (give, found) = std::sync::mpsc::channel();
        let (folder, content) = (self.clone(), *content);
        tokio::task::spawn_blocking(move || {
            // Who asked may have given up.
            let _ = give.send(folder.site.find(&content));
            folder.is_mute.store(false, Ordering::SeqCst);
        });
        found.recv_timeout(SOON).unwrap_or_else(|_| {
            self.is_mute.store(true, Ordering::SeqCst);
            let just_now = found.try_recv();
            if just_now.is_ok() {
                self.is_mute.store(false, Ordering::SeqCst);
            }
            just_now.unwrap_or_default()
        })
    }

    /// Tells the engine; waits while it has much to do.
    pub(crate) async fn tell(&self, input: Input) {
        // An engine that has ended needs to know nothing.
        let _ = self.inputs.send(input).await;
    }

    pub(crate) fn is_member(&self, device: &DeviceId) -> bool {
        self.members.borrow().contains_key(device)
    }

    /// Ends the connections over which it is exchanged; they are made again at once.
    pub(crate) fn end_exchanges(&self) {
        for peer in lock(&self.peers).values() {
            peer.conn.close(crate::session::CODE_RENEWED, b"");
        }
    }

    pub(crate) fn raise(&self) {
        self.peers_changed.send_modify(|n| *n += 1);
    }

    /// What is said of the deletes that the brake holds.
    fn name_of(&self, held: &Held) -> Option<String> {
        held.by.and_then(|device| self.members.borrow().get(&device).cloned())
    }

    /// What is said of deletes that are held, with what to do.
    fn held_text(&self, held: &Held) -> String {
        brake::text(held, self.name_of(held).as_deref(), &self.others_of(held), &self.in_commands())
    }

    /// Who else deleted some of what is held, by name, and how many files.
    fn others_of(&self, held: &Held) -> Vec<(String, u64)> {
        let members = self.members.borrow();
        let name = |device: &DeviceId| members.get(device).cloned().unwrap_or_else(|| device.to_string());
        held.others.iter().map(|(device, files)| (name(device), *files)).collect()
    }

    /// What the brake holds, for programs; `own` is the name of this device.
    pub(crate) fn held_here(&self, pulse: &Pulse, own: &str) -> Option<Holding> {
        let held = pulse.brake.as_ref().filter(|_| pulse.halted.is_none() && pulse.failed.is_none());
        held.map(|held| brake::holding(held, own, self.others_of(held)))
    }

    /// What a person calls the folder in a command: its path, or its id where no shell takes that as it is.
    pub(crate) fn in_commands(&self) -> String {
        called(&self.path, self.id)
    }

    /// Why the folder is halted, if the brake holds deletes.
    pub(crate) fn braked_for(&self, pulse: &Pulse) -> Option<String> {
        let held = pulse.brake.as_ref().filter(|_| pulse.halted.is_none() && pulse.failed.is_none());
        held.map(|held| brake::happened(held, self.name_of(held).as_deref(), &self.others_of(held)))
    }

    /// Why nothing can be done with the folder now, with what to do: its root is lost, or its index.
    pub(crate) fn stopped(&self) -> Option<ApiError> {
        let now = self.pulse.borrow();
        let hint = match (&now.failed, &now.halted) {
            (Some(_), _) => "dunlin status says more".into(),
            (None, Some(_)) => advice(&self.path, self.id),
            (None, None) => return None,
        };
        let why = now.failed.as_ref().or(now.halted.as_ref())?;
        Some(ApiError::failed(format!("the folder is halted: {why}"), hint))
    }

    /// Why nothing is decided before a person has decided about deletes that are held.
    pub(crate) fn undecided(&self) -> Option<ApiError> {
        let why = self.braked_for(&self.pulse.borrow())?;
        let called = self.in_commands();
        let hint = format!(
            "dunlin resume {called} --accept lets them happen, --reject takes them back; dunlin status says more"
        );
        Some(ApiError::failed(format!("the folder is halted: {why}"), hint))
    }

    /// The connected members that hold deletes or edits until a person decides, by their names.
    pub(crate) fn holding(&self) -> Vec<String> {
        let members = self.members.borrow().clone();
        let peers = lock(&self.peers);
        let holds = |peer: &PeerFolder| lock(&peer.known).standing.is_some_and(|standing| standing.held);
        let holding = peers.iter().filter(|(_, peer)| holds(peer));
        holding.filter_map(|(device, _)| members.get(device).cloned()).collect()
    }

    /// Why what was changed last cannot be told: a connected member holds what is newer.
    pub(crate) fn undecided_elsewhere(&self) -> Option<ApiError> {
        let holding = self.holding();
        let all: Vec<String> = holding.iter().map(|name| format!("\"{name}\"")).collect();
        let what = format!("what was changed last is held on {} until a person decides", all.join(" and "));
        let hint = "dunlin resume --accept or --reject there decides about that; dunlin undo --since TIME says \
                    what is meant beside it";
        (!all.is_empty()).then(|| ApiError::failed(what, hint))
    }

    /// The other members that are not connected, by their names.
    pub(crate) fn away(&self) -> Vec<String> {
        let (me, members) = (DeviceId(*self.secret.public().as_bytes()), self.members.borrow().clone());
        let peers = lock(&self.peers);
        let away = members.iter().filter(|(device, _)| **device != me && !peers.contains_key(device));
        away.map(|(_, name)| name.clone()).collect()
    }

    /// The peers, without those that are going.
    pub(crate) fn peer_list(&self) -> Vec<Arc<PeerFolder>> {
        lock(&self.peers).values().cloned().collect()
    }

    /// Whether this device and a peer are known to hold the same, and lack nothing.
    pub(crate) fn in_sync_with(&self, peer: &PeerFolder, pulse: &Pulse) -> bool {
        lock(&peer.known).in_sync(pulse.totals.digest, pulse.totals.seq)
    }

    /// Whether this device lacks nothing and all connected ones hold the same, as far as it is known
    /// what there is here: what an unwatched folder held when it was looked at last.
    pub(crate) fn agrees(&self) -> bool {
        let pulse = self.pulse.borrow().clone();
        !pulse.busy() && pulse.need() == 0 && self.peer_list().iter().all(|p| self.in_sync_with(p, &pulse))
    }

    /// The same of this moment: nothing can be said of it where changes may go unnoticed.
    pub(crate) fn in_sync(&self) -> bool {
        !self.pulse.borrow().unwatched && self.agrees()
    }
}

/// What to do about a root that is not right.
pub(crate) fn advice(path: &Path, id: FolderId) -> String {
    let called = called(path, id);
    format!(
        "it goes on by itself when the right folder is back in its place; \
         dunlin resume {called} --unite takes what is there now, and deletes nothing"
    )
}

fn called(path: &Path, id: FolderId) -> String {
    for_shell(path).unwrap_or_else(|| id.to_string())
}
