//! One shared folder of a running node: what its engine, its sessions and the control API have in
//! common.

use crate::config::Config;
use crate::control::{AnyPath, Event};
use crate::disk::posix::PosixDisk;
use crate::disk::{Disk, Rename};
use crate::net::connection::Connection;
use crate::stage::{Stage, control};
use crate::store::Store;
use dunlin_core::ids::{ContentId, DeviceId, FolderId, Incarnation};
use dunlin_core::members::members;
use dunlin_core::message::{Message, RowBytes, Statement};
use dunlin_core::path::RelPath;
use dunlin_core::plan::Fetch;
use dunlin_core::rows::Totals;
use dunlin_core::session::{Known, Standing};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Locks; a panic elsewhere does not make the data worse than it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a folder stands on this device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pulse {
    pub totals: Totals,
    /// Looking through the disk as a whole.
    pub scanning: bool,
    /// Changes on the disk are known of that are not in the index yet.
    pub dirty: bool,
    /// What stands in the way, counted.
    pub problems: u64,
    /// Stopped, and why.
    pub halted: Option<String>,
    /// The index cannot be used any more, and why.
    pub failed: Option<String>,
}

impl Pulse {
    pub(crate) fn busy(&self) -> bool {
        self.scanning || self.dirty || self.halted.is_some() || self.failed.is_some()
    }

    pub(crate) fn need(&self) -> u64 {
        self.totals.need_files + self.problems
    }

    /// The same, as peers are told.
    pub(crate) fn standing(&self) -> Standing {
        Standing { digest: self.totals.digest, need: self.need(), busy: self.busy() }
    }
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// There is room for it, and its fetch goes on: no end, but of a problem.
    Begun,
    Staged,
    /// Nobody who is connected holds it.
    Nowhere,
    /// It could not be stored here.
    Failed(String),
}

/// What reaches a folder's engine.
pub(crate) enum Input {
    /// Paths on which something happened.
    Hints(Vec<crate::watch::Hint>),
    /// A peer opened the exchange: its incarnation, and what it has of mine.
    Open { device: DeviceId, inc: Incarnation },
    /// Rows of a peer.
    Rows {
        device: DeviceId,
        inc: Incarnation,
        upto: u64,
        last: bool,
        rows: Vec<RowBytes>,
        from: Arc<PeerFolder>,
    },
    /// Contents arrived, or not.
    Fetched(Vec<(ContentId, Fetched)>),
    /// A peer came or went: what failed for want of one may go now.
    Peers,
    /// Answered once everything that happened on the disk before is in the index.
    Barrier(oneshot::Sender<()>),
    /// The end.
    Stop,
}

/// The exchange of one folder over one connection.
pub(crate) struct PeerFolder {
    pub device: DeviceId,
    pub conn: Connection,
    /// Messages to the peer; a single task writes them.
    pub out: mpsc::Sender<Message>,
    /// What it is known to have.
    pub known: Mutex<Known>,
    /// How many fetches are under way from it.
    pub load: std::sync::atomic::AtomicUsize,
}

/// Small contents that changed a moment ago, so that they can be served even if they change again.
#[derive(Default)]
pub(crate) struct Recent {
    by_id: BTreeMap<ContentId, Arc<[u8]>>,
    order: VecDeque<ContentId>,
    bytes: usize,
}

const RECENT_BYTES: usize = 8 << 20;

impl Recent {
    pub(crate) fn put(&mut self, id: ContentId, bytes: Vec<u8>) {
        if self.by_id.contains_key(&id) {
            return;
        }
        self.bytes += bytes.len();
        self.by_id.insert(id, bytes.into());
        self.order.push_back(id);
        while self.bytes > RECENT_BYTES {
            let Some(old) = self.order.pop_front() else { return };
            self.bytes -= self.by_id.remove(&old).map_or(0, |b| b.len());
        }
    }

    pub(crate) fn get(&self, id: &ContentId) -> Option<Arc<[u8]>> {
        self.by_id.get(id).cloned()
    }
}

/// A shared folder.
pub(crate) struct Folder {
    pub id: FolderId,
    pub path: PathBuf,
    /// Its state directory.
    pub dir: PathBuf,
    pub store: Store,
    pub disk: Arc<PosixDisk>,
    pub stage: Stage,
    pub config: Mutex<Config>,
    pub members: watch::Sender<BTreeMap<DeviceId, String>>,
    pub inputs: mpsc::Sender<Input>,
    pub pulse: watch::Sender<Pulse>,
    pub wants: mpsc::UnboundedSender<Vec<Fetch>>,
    pub problems: Mutex<BTreeMap<RelPath, String>>,
    pub recent: Mutex<Recent>,
    pub events: broadcast::Sender<Event>,
    /// Who is connected and shares this folder.
    pub peers: Mutex<BTreeMap<DeviceId, Arc<PeerFolder>>>,
    /// Raised whenever a peer comes, goes, or says something of itself.
    pub peers_changed: watch::Sender<u64>,
}

pub(crate) fn verify(by: &DeviceId, claim: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = iroh::PublicKey::from_bytes(&by.0) else { return false };
    let Ok(signature) = <[u8; 64]>::try_from(signature) else { return false };
    let signature = iroh::Signature::from_bytes(&signature);
    key.verify(&dunlin_core::message::signed_bytes(claim), &signature).is_ok()
}

impl Folder {
    pub(crate) fn event(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }

    pub(crate) fn any_path(path: &RelPath) -> AnyPath {
        AnyPath::from(path.to_bytes())
    }

    /// Tells the engine; waits while it has much to do.
    pub(crate) async fn tell(&self, input: Input) {
        // An engine that has ended needs to know nothing.
        let _ = self.inputs.send(input).await;
    }

    pub(crate) fn is_member(&self, device: &DeviceId) -> bool {
        self.members.borrow().contains_key(device)
    }

    pub(crate) fn raise(&self) {
        self.peers_changed.send_modify(|n| *n += 1);
    }

    /// Adds statements; returns whether any was new. Durable when it returns.
    pub(crate) fn add_statements(&self, new: Vec<Statement>) -> io::Result<bool> {
        let mut config = lock(&self.config);
        let known = config.statements.len();
        let mut next = config.clone();
        for s in new {
            if !next.statements.contains(&s) && next.statements.len() < dunlin_core::message::STATEMENTS_MAX {
                next.statements.push(s);
            }
        }
        let before = members(self.id, &config.statements, verify);
        let after = members(self.id, &next.statements, verify);
        if next.statements.len() == known || before == after {
            // What admits nobody new is not kept: a stranger's words take no room.
            return Ok(false);
        }
        next.save(&self.dir)?;
        *config = next;
        drop(config);
        self.members.send_replace(after);
        Ok(true)
    }

    /// The peers, without those that are going.
    pub(crate) fn peer_list(&self) -> Vec<Arc<PeerFolder>> {
        lock(&self.peers).values().cloned().collect()
    }

    /// Whether this device and a peer are known to hold the same, and lack nothing.
    pub(crate) fn in_sync_with(&self, peer: &PeerFolder, pulse: &Pulse) -> bool {
        lock(&peer.known).in_sync(pulse.totals.digest, pulse.totals.seq)
    }

    /// Whether this device lacks nothing and all connected ones hold the same.
    pub(crate) fn in_sync(&self) -> bool {
        let pulse = self.pulse.borrow().clone();
        !pulse.busy() && pulse.need() == 0 && self.peer_list().iter().all(|p| self.in_sync_with(p, &pulse))
    }
}

/// What is wrong with a folder's root, if anything: it must be where it was and hold the marker.
pub(crate) fn root_trouble(disk: &dyn Disk, marker: &str) -> Option<String> {
    match disk.root_identity() {
        Ok(root) if root.in_place => {}
        Ok(_) => return Some("the folder is not where it was".into()),
        Err(e) => return Some(format!("the folder cannot be reached: {e}")),
    }
    let mut buffer = vec![0; marker.len() + 1];
    let read = disk.open(&control(&["folder"])).and_then(|f| f.read_at(&mut buffer, 0));
    match read {
        Ok(n) if &buffer[..n] == marker.as_bytes() => None,
        Ok(_) => Some("the folder's marker (.dunlin/folder) belongs to another folder".into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Some("the folder's marker (.dunlin/folder) is missing".into())
        }
        Err(e) => Some(format!("the folder's marker cannot be read: {e}")),
    }
}

/// Writes the marker into a folder that is shared or joined for the first time.
pub(crate) fn write_marker(disk: &dyn Disk, marker: &str) -> io::Result<()> {
    if disk.stat(&control(&[]))?.is_none() {
        disk.mkdir(&control(&[]), 0o700)?;
    }
    let (temp, path) = (control(&["folder.new"]), control(&["folder"]));
    if disk.stat(&temp)?.is_some() {
        disk.unlink(&temp)?;
    }
    let file = disk.create(&temp)?;
    file.write_at(marker.as_bytes(), 0)?;
    file.sync_data()?;
    if disk.stat(&path)?.is_some() {
        disk.rename(&temp, &path, Rename::Exchange)?;
        disk.unlink(&temp)?;
    } else {
        disk.rename(&temp, &path, Rename::NoReplace)?;
    }
    disk.sync_dir(&control(&[]))?;
    disk.sync_dir(&RelPath::root())
}
