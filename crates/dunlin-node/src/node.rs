//! A running node: its folders, its connections, and what the control API asks of it.

mod api;
mod dialing;
mod disagreeing;
mod handing;
mod history;
mod joining;
mod lane;
mod opening;
mod reopening;
mod restoring;
mod settling;
mod twice;
mod undoing;
mod uniting;
mod verifying;

use crate::control::{ApiError, Event};
use crate::engine::Input;
use crate::folder::{Folder, lock};
use crate::home::{HomeError, LockedHome};
use crate::net::beacon::{Beacon, BeaconMode, BeaconOptions};
use crate::net::connection::Connection;
use crate::net::lane::Listener;
use crate::net::transport::{BindError, BindOptions, Transport};
use crate::session::{CODE_STOPPED, Peer};
use crate::watch::Watcher;
use dunlin_core::ids::{DeviceId, FolderId};
use dunlin_core::message::{ALPN, ALPN_JOIN};
use dunlin_core::runs::Runs;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The state directory; held at least until the node has stopped.
    pub home: Arc<LockedHome>,
    /// The address to listen on. `None`: any address, UDP port 9000 or another when that is taken.
    /// A port given and taken is an error. A loopback address keeps discovery on loopback too.
    pub listen: Option<SocketAddr>,
    /// Whether to look for devices on the local networks, and to be found there.
    pub discovery: bool,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The address given with `listen` is taken or not of this machine.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anything else; the parts are one line each.
    #[error("{message}")]
    Other {
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl StartError {
    fn other(message: impl std::fmt::Display, hint: &str) -> StartError {
        StartError::Other { message: message.to_string(), hint: hint.to_owned() }
    }
}

/// What the tasks of a node have in common.
pub(crate) struct Shared {
    pub device: DeviceId,
    pub name: String,
    /// Drawn at start: tells a restart from a second connection.
    pub nonce: u64,
    pub secret: iroh::SecretKey,
    pub home: Arc<LockedHome>,
    pub transport: Transport,
    /// Whether large contents may go over TCP.
    pub tcp: bool,
    /// The TCP sockets, where they were to be had.
    pub listener: OnceLock<Listener>,
    folders: Mutex<BTreeMap<FolderId, Open>>,
    /// Folders that could not be opened (yet).
    unopened: Mutex<BTreeMap<FolderId, Unopened>>,
    /// Told of folders whose index could not be used any more.
    failed: mpsc::UnboundedSender<Arc<Folder>>,
    pub peers: Mutex<BTreeMap<DeviceId, Arc<Peer>>>,
    /// Which runs of members' programs said hello.
    pub runs: Mutex<BTreeMap<DeviceId, Runs>>,
    /// This device runs a second time elsewhere; what there is to say of it.
    twice: Mutex<Option<String>>,
    /// Raised with that: the folders are to be closed.
    stop_folders: Notify,
    /// Raised when somebody asks for a folder that could not be opened.
    try_folders: Notify,
    /// Where devices were seen, the latest first. Hints: who answers is whoever proves the key.
    addresses: Mutex<BTreeMap<DeviceId, Vec<SocketAddr>>>,
    /// Inviters that are being looked for, and where discovery saw them.
    expected: Mutex<BTreeMap<DeviceId, watch::Sender<Vec<SocketAddr>>>>,
    /// Strangers that are being heard, the oldest first.
    guests: Mutex<VecDeque<Connection>>,
    /// Discovery, while it runs.
    beacon: Mutex<Option<Beacon>>,
    /// Raised when folders or members change.
    pub changed: watch::Sender<u64>,
    /// Somebody may be worth dialling now.
    pub redial: Notify,
    events: broadcast::Sender<Event>,
    /// One folder is shared or joined at a time.
    setup: tokio::sync::Mutex<()>,
    /// Somebody may have admitted this device's key without our having heard of it.
    pledged: AtomicBool,
}

/// A folder of this device that cannot be opened for now.
#[derive(Clone)]
struct Unopened {
    /// Where it should be; its state directory where even that is not known.
    path: PathBuf,
    why: String,
    members: BTreeMap<DeviceId, String>,
}

/// A folder with its threads.
struct Open {
    folder: Arc<Folder>,
    engine: std::thread::JoinHandle<()>,
    watcher: Arc<Watcher>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Keeps other nodes out of the folder.
    _held: std::fs::File,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// The most addresses remembered of one device.
const ADDRESSES_MAX: usize = 8;
/// The most devices whose addresses are remembered.
const DEVICES_MAX: usize = 1024;

impl Shared {
    pub(crate) fn event(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.events.send(event);
    }

    /// Has a folder closed, if it is open, and opened again as soon as that works.
    fn fail(&self, folder: Arc<Folder>) {
        // Nobody listens any more when the node ends.
        let _ = self.failed.send(folder);
    }

    /// Folders or members changed. Who was a stranger when discovery saw it may be a member now.
    pub(crate) fn raise(&self) {
        self.changed.send_modify(|n| *n += 1);
        self.redial.notify_one();
        self.look_around();
    }

    /// Lets discovery ask again, as often as it may.
    pub(crate) fn look_around(&self) {
        if let Some(beacon) = &*lock(&self.beacon) {
            beacon.ask();
        }
    }

    pub(crate) fn folder(&self, id: &FolderId) -> Option<Arc<Folder>> {
        lock(&self.folders).get(id).map(|o| o.folder.clone())
    }

    pub(crate) fn folders(&self) -> Vec<Arc<Folder>> {
        lock(&self.folders).values().map(|o| o.folder.clone()).collect()
    }

    /// Whether a device belongs to any folder here.
    pub(crate) fn knows(&self, device: &DeviceId) -> bool {
        *device != self.device && self.folders().iter().any(|f| f.is_member(device))
    }

    /// Remembers where a device may be; of strangers nothing is remembered.
    pub(crate) fn sighted(&self, device: DeviceId, at: Vec<SocketAddr>) {
        if !self.knows(&device) {
            return;
        }
        let mut all = lock(&self.addresses);
        if all.len() >= DEVICES_MAX && !all.contains_key(&device) {
            return;
        }
        let known = all.entry(device).or_default();
        let news = at.iter().any(|a| !known.contains(a));
        for address in at.into_iter().rev() {
            known.retain(|a| *a != address);
            known.insert(0, address);
        }
        known.truncate(ADDRESSES_MAX);
        drop(all);
        if news || !lock(&self.peers).contains_key(&device) {
            self.redial.notify_one();
        }
    }

    fn addresses_of(&self, device: &DeviceId) -> Vec<SocketAddr> {
        lock(&self.addresses).get(device).cloned().unwrap_or_default()
    }

    pub(crate) fn remember_addresses(&self) {
        let all = lock(&self.addresses).clone();
        // Hints only: a start without them looks around anew.
        let _ = crate::config::save_addresses(self.home.dir(), &all);
    }
}

/// Starts a node with every folder it knows. Must be called on tokio's multi-threaded runtime.
pub async fn start(options: NodeOptions) -> Result<Arc<Node>, StartError> {
    let key = options.home.device_key()?;
    let secret = iroh::SecretKey::from_bytes(&key);
    let mut bind = BindOptions::new(key, vec![ALPN.to_vec(), ALPN_JOIN.to_vec()]);
    bind.listen = options.listen;
    let transport = Transport::bind(bind).await.map_err(|e| match e {
        BindError::Taken(addr) => StartError::Listen { addr, source: std::io::ErrorKind::AddrInUse.into() },
        BindError::Socket { addr, source } => StartError::Listen { addr, source },
        BindError::Other(message) => {
            StartError::other(message, "try again, or give another --listen address")
        }
    })?;
    let (events, _) = broadcast::channel(1024);
    let random = crate::home::random_bytes()
        .map_err(|e| StartError::other(format!("no random numbers: {e}"), "look at the system"))?;
    let name = options.home.name()?;
    let addresses = crate::config::load_addresses(options.home.dir());
    let settings = crate::config::load_settings(options.home.dir())
        .map_err(|e| StartError::other(e, "put it right, or remove it: what is not set is as usual"))?;
    let (failed, failures) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        device: DeviceId(transport.id()),
        name,
        nonce: random.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b)),
        secret,
        home: options.home,
        transport,
        tcp: settings.tcp,
        listener: OnceLock::new(),
        folders: Mutex::default(),
        unopened: Mutex::default(),
        failed,
        peers: Mutex::default(),
        runs: Mutex::default(),
        twice: Mutex::default(),
        stop_folders: Notify::new(),
        try_folders: Notify::new(),
        addresses: Mutex::new(addresses),
        expected: Mutex::default(),
        guests: Mutex::default(),
        beacon: Mutex::default(),
        changed: watch::channel(0).0,
        redial: Notify::new(),
        events,
        setup: tokio::sync::Mutex::new(()),
        pledged: AtomicBool::new(false),
    });
    lane::listen(&shared);
    let node = Arc::new(Node { shared, tasks: Mutex::default() });
    let mut unopened = Vec::new();
    for id in node.shared.home.folder_ids()? {
        if let Err(why) = opening::open_known(&node.shared, &id) {
            // The other folders go on; status tells of this one until it can be opened.
            node.shared.event(Event::Note { text: why.message.clone() });
            unopened.push(id);
        }
    }
    lock(&node.tasks).push(tokio::spawn(reopening::tend(node.shared.clone(), unopened, failures)));
    node.run(options.listen, options.discovery);
    Ok(node)
}

impl Node {
    fn run(&self, listen: Option<SocketAddr>, discovery: bool) {
        let (found, sightings) = mpsc::channel(64);
        if discovery {
            let options = BeaconOptions {
                secret_key: self.shared.secret.to_bytes(),
                ports: self.shared.transport.ports(),
                mode: BeaconMode::for_listen(listen),
            };
            match Beacon::start(options, found) {
                Ok(beacon) => {
                    let doubles = twice::watch(self.shared.clone(), beacon.doubles());
                    lock(&self.tasks).push(tokio::spawn(doubles));
                    *lock(&self.shared.beacon) = Some(beacon);
                }
                Err(e) => {
                    let text = format!("devices on the local network cannot be looked for: {e}");
                    self.shared.event(Event::Note { text });
                }
            }
        }
        let shared = &self.shared;
        let tasks = vec![
            tokio::spawn(dialing::accept(shared.clone())),
            tokio::spawn(dialing::dial(shared.clone())),
            tokio::spawn(dialing::take_sightings(shared.clone(), sightings)),
            tokio::spawn(lane::accept(shared.clone())),
        ];
        lock(&self.tasks).extend(tasks);
    }

    /// Whether nobody can count on this device's key: no folder is being shared or joined, and no
    /// invitation was shown without an answer. To be asked once the node has stopped.
    pub fn is_nobody(&self) -> bool {
        self.shared.setup.try_lock().is_ok() && !self.shared.pledged.load(Ordering::Relaxed)
    }

    /// Ends everything: sockets closed, the store committed. Returns within 1.5 s.
    pub async fn stop(&self) {
        self.shared.remember_addresses();
        for task in std::mem::take(&mut *lock(&self.tasks)) {
            task.abort();
        }
        let beacon = lock(&self.shared.beacon).take();
        if let Some(beacon) = beacon {
            // Its sockets close in any case when it is dropped.
            let _ = tokio::time::timeout(Duration::from_millis(200), beacon.stop()).await;
        }
        if let Some(listener) = self.shared.listener.get() {
            listener.close();
        }
        for peer in lock(&self.shared.peers).values() {
            peer.conn.close(CODE_STOPPED, b"");
        }
        let open = std::mem::take(&mut *lock(&self.shared.folders));
        for o in open.values() {
            o.watcher.end();
            // A full queue means that the engine is at work; it sees the end of its senders instead.
            let _ = o.folder.inputs.try_send(Input::Stop);
        }
        let engines = tokio::task::spawn_blocking(move || {
            for o in open.into_values() {
                // A panic of an engine has been reported by then.
                let _ = o.engine.join();
            }
        });
        let _ = tokio::time::timeout(Duration::from_millis(800), engines).await;
        let _ = tokio::time::timeout(Duration::from_millis(500), self.shared.transport.close()).await;
    }
}

/// An error of this machine, for a person.
fn cannot(what: &str, e: impl std::fmt::Display) -> ApiError {
    ApiError::failed(format!("cannot {what}: {e}"), "look at the disk and at permissions, then try again")
}
