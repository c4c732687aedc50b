//! Brings contents into the staging area: from another file of this device, in whatever folder, else from whoever is
//! connected and holds them. Every byte is verified before the content counts as staged.

mod have;
mod large;
mod piece;
mod stream;
mod swarm;

pub(crate) use have::who_has;
pub(crate) use stream::stream;

use crate::chunks::CHUNKED_MIN;
use crate::disk::explain;
use crate::engine::{Fetched, Input};
use crate::folder::{Folder, PeerFolder, lock};
use crate::net::lane::Answer;
use crate::stage::{Claim, Room, SYNC_EACH_MAX};
use crate::transfer::{PATIENCE, StreamError, read_answer, read_exact};
use dunlin_core::ids::{ContentId, DeviceId};
use dunlin_core::message::{Header, Piece, Request, frame, read};
use dunlin_core::plan::Fetch;
use dunlin_core::schedule::place;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout_at};

/// Small contents are asked for together: at most so many, and so many bytes.
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
/// Batches under way at once, and large contents.
const BATCHES: usize = 4;
/// A peer may take so long for a batch, and what its bytes take at the slowest speed that is put up
/// with, in bytes a second: one that answers a little now and then is not to keep others from it.
const BATCH_WAIT: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 16 << 10;
/// How long a peer may grant no stream: other folders may use all of them for a while.
const STREAM_WAIT: Duration = Duration::from_secs(60);
/// Large contents under way at once: so many however large they are; more of them, up to so many bytes.
const LARGE: usize = 2;
const LARGE_MOST: usize = 32;
const LARGE_BYTES: u64 = 256 << 20;

/// Works off what a folder's engine asks for, until the engine is gone.
pub(crate) async fn run(folder: Arc<Folder>, mut wants: mpsc::UnboundedReceiver<Vec<Fetch>>) {
    let (mut small, mut large) = (VecDeque::new(), VecDeque::new());
    let (mut batches, mut larges, mut driver) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let swarm = swarm::Swarm::new(&folder);
    driver.spawn(swarm.clone().drive(folder.clone()));
    let mut bytes = 0_u64;
    loop {
        while batches.len() < BATCHES && !small.is_empty() {
            batches.spawn(batch(folder.clone(), take_batch(&mut small)));
        }
        while let Some(fetch) = take_large(&folder, &mut large, larges.len(), bytes) {
            bytes = bytes.saturating_add(fetch.size);
            larges.spawn(large::fetch(folder.clone(), swarm.clone(), fetch));
        }
        tokio::select! {
            more = wants.recv() => {
                let Some(more) = more else { return };
                for fetch in more {
                    if fetch.size < CHUNKED_MIN { small.push_back(fetch) } else { large.push_back(fetch) }
                }
            }
            Some(_) = batches.join_next(), if !batches.is_empty() => {}
            Some(done) = larges.join_next(), if !larges.is_empty() => {
                // One that panicked is a bug, and counts for the rest of this run.
                bytes = bytes.saturating_sub(done.unwrap_or(0));
            }
        }
    }
}

/// The next large content, if there is to be one more. Among several devices each takes them in another order.
fn take_large(folder: &Folder, queue: &mut VecDeque<Fetch>, under_way: usize, bytes: u64) -> Option<Fetch> {
    if under_way >= LARGE_MOST || (under_way >= LARGE && bytes >= LARGE_BYTES) {
        return None;
    }
    let next = if lock(&folder.peers).len() < 2 {
        0
    } else {
        let me = DeviceId(*folder.secret.public().as_bytes());
        (0..queue.len()).min_by_key(|i| queue.get(*i).map(|fetch| place(&me, &fetch.content)))?
    };
    let size = queue.get(next)?.size;
    let fits = under_way < LARGE_MOST && bytes.saturating_add(size) <= LARGE_BYTES;
    if under_way < LARGE || fits { queue.remove(next) } else { None }
}

fn take_batch(queue: &mut VecDeque<Fetch>) -> Vec<Fetch> {
    let (mut out, mut bytes) = (Vec::new(), 0);
    while let Some(next) = queue.front() {
        bytes += next.size;
        if out.len() == BATCH_ITEMS || (bytes > BATCH_BYTES && !out.is_empty()) {
            break;
        }
        out.extend(queue.pop_front());
    }
    out
}

/// Who to ask, the least busy first.
fn sources(folder: &Folder) -> Vec<Arc<PeerFolder>> {
    let mut peers = folder.peer_list();
    peers.sort_by_key(|p| p.load.load(Ordering::Relaxed));
    peers
}

struct Load<'a>(&'a PeerFolder);

impl<'a> Load<'a> {
    fn on(peer: &'a PeerFolder) -> Load<'a> {
        peer.load.fetch_add(1, Ordering::Relaxed);
        Load(peer)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

fn said(folder: &Folder, e: &io::Error) -> Fetched {
    Fetched::Failed(explain(folder.site.disk.as_ref(), e))
}

/// Sets aside the room that a content needs; says what is the matter where there is none, or that it is staged already.
fn claim<'a>(folder: &'a Folder, fetch: &Fetch) -> Result<Claim<'a>, Fetched> {
    match folder.site.claim(&fetch.content, fetch.size) {
        Ok(Ok(Room::Claimed(claim))) => Ok(claim),
        Ok(Ok(Room::Lent)) => Err(Fetched::Staged),
        Ok(Err(lacks)) => Err(Fetched::Failed(lacks.to_string())),
        Err(e) => Err(said(folder, &e)),
    }
}

async fn batch(folder: Arc<Folder>, wanted: Vec<Fetch>) {
    let mut done = fetch_batch(&folder, wanted).await;
    // Few are made durable one by one as they are placed; many all at once, while the engine places those before.
    if done.len() > SYNC_EACH_MAX {
        block_in_place(|| settle(&folder, &mut done));
    }
    folder.tell(Input::Fetched(done)).await;
}

/// Makes what was staged durable; what the disk may not hold is staged no more.
fn settle(folder: &Folder, done: &mut [(ContentId, Fetched)]) {
    let staged = done.iter().filter(|(_, how)| *how == Fetched::Staged).map(|(content, _)| *content);
    let Err(e) = folder.site.stage.settle(staged) else { return };
    for (content, how) in done.iter_mut().filter(|(_, how)| *how == Fetched::Staged) {
        folder.site.stage.forget(content);
        *how = Fetched::Failed(format!("cannot be made durable: {}", explain(folder.site.disk.as_ref(), &e)));
    }
}

async fn fetch_batch(folder: &Folder, wanted: Vec<Fetch>) -> Vec<(ContentId, Fetched)> {
    let (mut done, mut claims, mut rest) = (Vec::new(), BTreeMap::new(), Vec::new());
    block_in_place(|| {
        for fetch in wanted {
            match claim(folder, &fetch) {
                Ok(claim)
                    if came_along(folder, &fetch)
                        || folder.site.copy(&fetch, &claim, || folder.nearby(&fetch.content)) =>
                {
                    done.push((fetch.content, Fetched::Staged));
                }
                Ok(claim) => {
                    claims.insert(fetch.content, claim);
                    rest.push(fetch);
                }
                Err(how) => done.push((fetch.content, how)),
            }
        }
    });
    for peer in sources(folder) {
        if rest.is_empty() {
            break;
        }
        let _load = Load::on(&peer);
        // What a peer that fails did not send is asked of the next one.
        let (got, left) = ask_pieces(folder, &peer, rest).await;
        block_in_place(|| {
            for (fetch, bytes) in got {
                let put = folder.site.stage.put(fetch.content, &bytes, Some(fetch.looks));
                claims.remove(&fetch.content);
                done.push((fetch.content, put.map_or_else(|e| said(folder, &e), |()| Fetched::Staged)));
            }
        });
        rest = left;
    }
    done.extend(rest.into_iter().map(|f| (f.content, Fetched::Nowhere)));
    done
}

/// Stages a content that came with the row that tells of it, or that was here a moment ago.
fn came_along(folder: &Folder, fetch: &Fetch) -> bool {
    let bytes = lock(&folder.recent).get(&fetch.content);
    bytes.is_some_and(|bytes| folder.site.stage.put(fetch.content, &bytes, Some(fetch.looks)).is_ok())
}

type Got = Vec<(Fetch, Vec<u8>)>;

/// Asks a peer for whole small contents; returns what came and was right, and what did not.
async fn ask_pieces(folder: &Folder, peer: &PeerFolder, wanted: Vec<Fetch>) -> (Got, Vec<Fetch>) {
    let (mut got, mut left) = (Vec::new(), Vec::new());
    let mut wanted = wanted.into_iter();
    let pieces =
        wanted.as_slice().iter().map(|f| Piece { content: f.content, offset: 0, len: f.size }).collect();
    let request = Request::Pieces { folder: folder.id, pieces };
    if let Ok(mut recv) = ask(peer, &request).await {
        let bytes: u64 = wanted.as_slice().iter().map(|f| f.size).sum();
        let until = Instant::now() + BATCH_WAIT + Duration::from_secs(bytes / SLOWEST);
        for fetch in wanted.by_ref() {
            let piece = timeout_at(until, read_piece(&mut recv, fetch.size)).await;
            match piece.unwrap_or(Err(StreamError::Silent)) {
                Ok(Some(bytes)) if *blake3::hash(&bytes).as_bytes() == fetch.content.0 => {
                    got.push((fetch, bytes));
                }
                Ok(_) => left.push(fetch),
                Err(_) => {
                    left.push(fetch);
                    break;
                }
            }
        }
    }
    left.extend(wanted);
    (got, left)
}

/// Asks over QUIC: what is small, or must not wait behind contents.
async fn ask(peer: &PeerFolder, request: &Request) -> Result<Answer, StreamError> {
    // A peer may grant no bytes either.
    let asked = Answer::to(&peer.conn, &frame(request), (STREAM_WAIT, PATIENCE)).await;
    asked.map_err(|e| StreamError::Gone(e.to_string()))
}

async fn read_piece(recv: &mut Answer, len: u64) -> Result<Option<Vec<u8>>, StreamError> {
    match read(&read_answer(recv).await?).map_err(|_| StreamError::Protocol("an answer cannot be read"))? {
        Header::NotHere => Ok(None),
        Header::Here => {
            let len = usize::try_from(len).map_err(|_| StreamError::Protocol("a piece too long"))?;
            let mut bytes = vec![0; len];
            read_exact(recv, &mut bytes).await?;
            Ok(Some(bytes))
        }
    }
}
