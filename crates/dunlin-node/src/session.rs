//! One connection to one device: who it is, which folders are exchanged over it, and the messages
//! of its control stream (docs/protocol.md).

mod bulk;
mod riding;
mod telling;

pub(crate) use bulk::serve_lane;

use crate::control::Event;
use crate::engine::Input;
use crate::folder::{Folder, PeerFolder, lock};
use crate::net::connection::{Closed, Connection, RecvStream, SendStream};
use crate::net::lane::Lane;
use crate::node::Shared;
use crate::transfer::{StreamError, read_frame, send_frame};
use dunlin_core::ids::{DeviceId, FolderId, Incarnation};
use dunlin_core::kv::Read;
use dunlin_core::life::Heard;
use dunlin_core::message::{
    DeviceAddress, FEATURE_BLOCKS, FEATURE_LEAVES, FEATURE_PAGES, Message, VERSION, read_message,
};
use dunlin_core::rows::Rows;
use dunlin_core::session::{Link, Receipt, Speaker, Standing, old_stays, opening};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};
use telling::send_rows;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// The peer is no member of any folder here.
pub(crate) const CODE_STRANGER: u32 = 1;
/// The peer does not keep to the protocol.
pub(crate) const CODE_PROTOCOL: u32 = 2;
/// Another connection to the same device is kept.
pub(crate) const CODE_REPLACED: u32 = 3;
/// An index went on as another incarnation; dial again.
pub(crate) const CODE_RENEWED: u32 = 6;
/// The node ends.
pub(crate) const CODE_STOPPED: u32 = 4;
/// The peer speaks no common version.
pub(crate) const CODE_VERSION: u32 = 5;
/// The peer's program runs twice with one state; the reason is where the other one is, as `ip:port`.
pub(crate) const CODE_TWICE: u32 = 7;

/// Two connections made within this time may be one of each side's dialling.
const CROSSING: Duration = Duration::from_secs(4);
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// Messages that wait for the control stream.
const OUT_QUEUE: usize = 1024;

/// A connected device.
pub(crate) struct Peer {
    pub device: DeviceId,
    pub name: String,
    pub conn: Connection,
    /// What its program can do, by the bits of its hello.
    features: u64,
    /// How it is asked for much.
    pub lane: Arc<Lane>,
    /// The TCP connections by which it asks.
    served: bulk::Served,
    /// Drawn by the peer's program when it started.
    nonce: u64,
    since: Instant,
    out: mpsc::Sender<Message>,
}

/// Takes care of one connection until it ends.
pub(crate) async fn run(shared: Arc<Shared>, conn: Connection) {
    let device = DeviceId(conn.remote_id());
    if !shared.knows(&device) {
        conn.close(CODE_STRANGER, b"");
        return;
    }
    talk(&shared, &conn, device).await;
    if let Some(Closed::ByPeer { code, reason }) = conn.close_reason()
        && code == u64::from(CODE_TWICE)
    {
        let elsewhere = std::str::from_utf8(&reason).ok().and_then(|s| s.parse().ok());
        shared.runs_twice(elsewhere);
    }
}

async fn talk(shared: &Arc<Shared>, conn: &Connection, device: DeviceId) {
    let opened = tokio::time::timeout(HELLO_WAIT, open(shared, conn)).await;
    let Ok(Ok((send, recv, Told { name, nonce, features }))) = opened else {
        conn.close(CODE_PROTOCOL, b"no hello");
        return;
    };
    let (out, queue) = mpsc::channel(OUT_QUEUE);
    let (lane, served) = (bulk::lane(shared, conn), bulk::Served::default());
    let since = Instant::now();
    let peer = Arc::new(Peer { device, name, conn: conn.clone(), lane, served, nonce, features, since, out });
    match register(shared, &peer) {
        Registered::Kept => {}
        Registered::Replaced => return conn.close(CODE_REPLACED, b""),
        Registered::Twice => return shared.event(Event::Note { text: runs_twice(&peer.name) }),
    }
    shared.event(Event::Connected { device: device.to_string(), name: peer.name.clone() });
    if let Some(address) = conn.remote_addr() {
        shared.sighted(device, vec![address]);
    }
    // Now and not at the end: a program that is killed has none.
    block_in_place(|| shared.remember_addresses());
    bulk::tell_ports(shared, &peer);
    let writer = tokio::spawn(write(send, queue, conn.clone()));
    let server = tokio::spawn(serve_streams(shared.clone(), peer.clone()));
    let mut session = Session { shared: shared.clone(), peer: peer.clone(), folders: BTreeMap::new() };
    if let Err(StreamError::Protocol(why)) = session.talk(recv).await {
        conn.close(CODE_PROTOCOL, why.as_bytes());
    }
    session.end();
    conn.close(0, b"");
    peer.served.end();
    writer.abort();
    server.abort();
    let mut peers = lock(&shared.peers);
    if peers.get(&device).is_some_and(|p| p.conn.stable_id() == conn.stable_id()) {
        peers.remove(&device);
        drop(peers);
        shared.event(Event::Disconnected { device: device.to_string(), name: peer.name.clone() });
        shared.redial.notify_one();
    }
}

/// What a peer says of itself.
struct Told {
    name: String,
    nonce: u64,
    features: u64,
}

type Opened = (SendStream, RecvStream, Told);

/// Exchanges the first messages.
async fn open(shared: &Shared, conn: &Connection) -> Result<Opened, StreamError> {
    let gone = |e: crate::net::connection::Closed| StreamError::Gone(e.to_string());
    let (mut send, mut recv) =
        if conn.is_dialler() { conn.open_bi().await } else { conn.accept_bi().await }.map_err(gone)?;
    let hello = Message::Hello {
        min: VERSION,
        max: VERSION,
        features: FEATURE_BLOCKS | FEATURE_PAGES | FEATURE_LEAVES,
        nonce: shared.nonce,
        name: shared.name.clone(),
    };
    send_frame(&mut send, &hello).await?;
    let body = read_frame(&mut recv).await?.ok_or(StreamError::Protocol("no hello"))?;
    match read_message(&body).map_err(|e| StreamError::Protocol(e.0))? {
        Some(Message::Hello { min, max, nonce, name, features }) => {
            if min > VERSION || max < VERSION {
                conn.close(CODE_VERSION, b"no common version");
                return Err(StreamError::Protocol("no common version"));
            }
            Ok((send, recv, Told { name, nonce, features }))
        }
        _ => Err(StreamError::Protocol("no hello")),
    }
}

enum Registered {
    Kept,
    Replaced,
    Twice,
}

fn runs_twice(name: &str) -> String {
    format!("{name} runs twice at once, with copies of one state: both are stopped")
}

/// Makes this the connection to its device, unless another one is to stay, or the device runs twice.
fn register(shared: &Shared, peer: &Arc<Peer>) -> Registered {
    let link = |p: &Peer| Link {
        dialler: if p.conn.is_dialler() { shared.device } else { p.device },
        nonce: p.nonce,
        open: p.conn.close_reason().is_none(),
        crossing: p.since.elapsed() < CROSSING,
    };
    let mut peers = lock(&shared.peers);
    let old = peers.get(&peer.device);
    if !lock(&shared.runs).entry(peer.device).or_default().hello(peer.nonce) {
        let at = |p: &Peer| p.conn.remote_addr().map(|a| a.to_string()).unwrap_or_default();
        peer.conn.close(CODE_TWICE, old.map(|p| at(p)).unwrap_or_default().as_bytes());
        // A run that began since goes on.
        if let Some(old) = old.filter(|p| !lock(&shared.runs).entry(p.device).or_default().hello(p.nonce)) {
            old.conn.close(CODE_TWICE, at(peer).as_bytes());
        }
        return Registered::Twice;
    }
    if let Some(old) = old {
        if old_stays(&link(old), &link(peer)) {
            return Registered::Replaced;
        }
        old.conn.close(CODE_REPLACED, b"");
    }
    peers.insert(peer.device, peer.clone());
    Registered::Kept
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Message>, conn: Connection) {
    while let Some(message) = queue.recv().await {
        if send_frame(&mut send, &message).await.is_err() {
            conn.close(0, b"");
            return;
        }
    }
}

async fn serve_streams(shared: Arc<Shared>, peer: Arc<Peer>) {
    while let Ok((send, recv)) = peer.conn.accept_bi().await {
        tokio::spawn(serve_stream(shared.clone(), peer.clone(), send, recv));
    }
}

async fn serve_stream(shared: Arc<Shared>, peer: Arc<Peer>, mut send: SendStream, mut recv: RecvStream) {
    let find = |id: FolderId| shared.folder(&id).filter(|f| f.is_member(&peer.device));
    let served = match read_frame(&mut recv).await {
        Ok(Some(request)) => crate::serve::serve(&mut send, &request, find).await,
        Ok(None) => Ok(()),
        Err(e) => Err(e),
    };
    match served {
        // The peer may be gone by now, which is its affair.
        Ok(()) => drop(send.finish()),
        Err(StreamError::Protocol(why)) => peer.conn.close(CODE_PROTOCOL, why.as_bytes()),
        Err(_) => {}
    }
}

struct Exchange {
    folder: Arc<Folder>,
    peer: Arc<PeerFolder>,
    /// The incarnation of this index that the peer is told.
    told: Incarnation,
    /// Whether the peer said that it heard this life.
    noted: bool,
    /// The peer, once it opened the exchange.
    from: Option<Speaker>,
    sender: Option<tokio::task::JoinHandle<()>>,
}

impl Exchange {
    /// The peer committed rows.
    async fn hear_receipt(&mut self, from: DeviceId, receipt: &Receipt) {
        let me = self.folder.site.life_id();
        if receipt.is_anothers(me) {
            return;
        }
        lock(&self.peer.known).acked = receipt.received;
        self.folder.raise();
        if receipt.life == me && !std::mem::replace(&mut self.noted, true) {
            let before = Heard { of: self.told, received: receipt.before.1, life: receipt.before.0 };
            self.folder.tell(Input::Noted { from, before }).await;
        }
    }
}

struct Session {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    folders: BTreeMap<FolderId, Exchange>,
}

impl Session {
    async fn talk(&mut self, mut recv: RecvStream) -> Result<(), StreamError> {
        let (frames, mut bodies) = mpsc::channel(64);
        let reader = tokio::spawn(async move {
            while let Ok(Some(body)) = read_frame(&mut recv).await {
                if frames.send(body).await.is_err() {
                    return;
                }
            }
        });
        let mut changed = self.shared.changed.subscribe();
        let conn = self.peer.conn.clone();
        let result = loop {
            if let Err(e) = self.open_folders().await {
                break Err(e);
            }
            tokio::select! {
                body = bodies.recv() => {
                    let Some(body) = body else { break Ok(()) };
                    if let Err(e) = self.handle(&body).await {
                        break Err(e);
                    }
                }
                done = changed.changed() => {
                    if done.is_err() {
                        break Ok(());
                    }
                }
                _ = conn.closed() => break Ok(()),
            }
        };
        reader.abort();
        result
    }

    async fn say(&self, message: Message) -> Result<(), StreamError> {
        self.peer
            .out
            .send(message)
            .await
            .map_err(|_| StreamError::Gone("the control stream is closed".into()))
    }

    /// Opens the exchange of every folder that both belong to and that is not open yet.
    async fn open_folders(&mut self) -> Result<(), StreamError> {
        for folder in self.shared.folders() {
            if self.folders.contains_key(&folder.id) || !folder.is_member(&self.peer.device) {
                continue;
            }
            let mine =
                block_in_place(|| opening(&folder.site.store.snapshot()?, folder.id, self.peer.device));
            let Ok(opening) = mine else { continue };
            let Message::Open { inc: told, .. } = opening else { continue };
            let statements = folder.statements();
            let peer = Arc::new(PeerFolder {
                device: self.peer.device,
                features: self.peer.features,
                conn: self.peer.conn.clone(),
                lane: self.peer.lane.clone(),
                out: self.peer.out.clone(),
                known: std::sync::Mutex::default(),
                load: AtomicUsize::new(0),
            });
            {
                // Another connection may have taken this one's place meanwhile; its entry is to stay.
                let peers = lock(&self.shared.peers);
                let mine = self.peer.conn.stable_id();
                if peers.get(&self.peer.device).is_none_or(|p| p.conn.stable_id() != mine) {
                    return Err(StreamError::Gone("replaced by another connection".into()));
                }
                lock(&folder.peers).insert(self.peer.device, peer.clone());
            }
            self.is_still(&folder, told)?;
            folder.raise();
            folder.tell(Input::Peers).await;
            let id = folder.id;
            self.folders.insert(id, Exchange { folder, peer, told, noted: false, from: None, sender: None });
            for message in statements {
                self.say(message).await?;
            }
            self.say(opening).await?;
        }
        Ok(())
    }

    /// Where the index was renewed before this connection was among those that are ended for that, the peer would be told
    /// of one that is none any more, and what it says for that one is not taken.
    fn is_still(&self, folder: &Folder, told: Incarnation) -> Result<(), StreamError> {
        let now = block_in_place(|| Read::Ok(folder.site.store.snapshot()?.totals()?.of_index().0));
        if now == Ok(told) {
            return Ok(());
        }
        self.peer.conn.close(CODE_RENEWED, b"");
        Err(StreamError::Gone("the index was renewed".into()))
    }

    async fn handle(&mut self, body: &[u8]) -> Result<(), StreamError> {
        let message = read_message(body).map_err(|e| StreamError::Protocol(e.0))?;
        // A kind that only a newer program knows says nothing to this one.
        let Some(message) = message else { return Ok(()) };
        let id = match &message {
            Message::Hello { .. } => return Err(StreamError::Protocol("a second hello")),
            Message::Lane { v4, v6 } => {
                self.peer.lane.told(bulk::ports(*v4, *v6));
                return Ok(());
            }
            Message::Open { folder, .. }
            | Message::Statements { folder, .. }
            | Message::Rows { folder, .. }
            | Message::Ack { folder, .. }
            | Message::Status { folder, .. }
            | Message::Close { folder }
            | Message::Addresses { folder, .. }
            | Message::Contents { folder, .. } => *folder,
        };
        self.open_folders().await?;
        let Some(exchange) = self.folders.get_mut(&id) else {
            // Not (or not yet) shared with this device: it is told nothing but that.
            return Ok(());
        };
        let folder = exchange.folder.clone();
        match message {
            Message::Open { inc, of, received, life, heard_in, own, .. } => {
                let from = Speaker { device: self.peer.device, inc, life };
                let heard = Heard { of, received, life: heard_in };
                folder.tell(Input::Open { from, heard, own }).await;
                let again = exchange.from.replace(from).is_some();
                if let (true, Some(old)) = (again, exchange.sender.take()) {
                    old.abort();
                }
                let sender = send_rows(self.shared.clone(), folder, exchange.peer.clone(), from, heard);
                exchange.sender = Some(tokio::spawn(sender));
            }
            Message::Rows { upto, last, rows, .. } => {
                let from =
                    exchange.from.ok_or(StreamError::Protocol("rows before the exchange was opened"))?;
                let told = exchange.told;
                folder.tell(Input::Rows { from, told, upto, last, rows }).await;
            }
            Message::Ack { received, life, before, before_received, .. } => {
                let receipt = Receipt { received, life, before: (before, before_received) };
                exchange.hear_receipt(self.peer.device, &receipt).await;
            }
            Message::Status { digest, need, busy, held, .. } => {
                lock(&exchange.peer.known).standing = Some(Standing { digest, need, busy, held });
                folder.raise();
            }
            Message::Statements { statements, .. } => {
                let added = block_in_place(|| folder.add_statements(statements));
                // What could not be written is told again with the next connection.
                let added = added.unwrap_or_default();
                if added.members {
                    self.shared.raise();
                }
                if let Some(all) = added.released {
                    folder.tell(Input::Released(all)).await;
                }
            }
            Message::Addresses { devices, .. } => self.sighted(devices),
            Message::Contents { contents, .. } => {
                block_in_place(|| riding::take(&folder, contents.into_iter().map(Vec::from)));
            }
            Message::Close { .. } | Message::Hello { .. } | Message::Lane { .. } => {}
        }
        Ok(())
    }

    fn sighted(&self, devices: Vec<DeviceAddress>) {
        for hint in devices.into_iter().take(256) {
            if let Ok(address) = hint.address.parse() {
                self.shared.sighted(hint.device, vec![address]);
            }
        }
    }

    fn end(&mut self) {
        for (_, exchange) in std::mem::take(&mut self.folders) {
            if let Some(sender) = exchange.sender {
                sender.abort();
            }
            let mut peers = lock(&exchange.folder.peers);
            if peers.get(&self.peer.device).is_some_and(|p| Arc::ptr_eq(p, &exchange.peer)) {
                peers.remove(&self.peer.device);
            }
            drop(peers);
            exchange.folder.raise();
        }
    }
}
