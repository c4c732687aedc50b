//! Brings contents into the staging area: from another file of this disk, else from whoever is
//! connected and holds them. Every byte is verified before the content counts as staged.

use crate::chunks::CHUNKED_MIN;
use crate::disk::{Disk, WriteFile, explain};
use crate::folder::{Fetched, Folder, Input, PeerFolder};
use crate::transfer::{StreamError, read_exact, read_frame, send_frame};
use dunlin_core::ids::ContentId;
use dunlin_core::message::{Chunk, ChunkPage, Header, Piece, Request, read};
use dunlin_core::path::RelPath;
use dunlin_core::plan::Fetch;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};

/// Small contents are asked for together: at most so many, and so many bytes.
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
/// Batches under way at once, and large contents.
const BATCHES: usize = 4;
const LARGE: usize = 2;
/// Missing chunks that follow each other are asked for together up to this size.
const RANGE: u64 = 4 << 20;
/// Ranges of one content under way at once.
const RANGES: usize = 4;
/// After so many bytes the disk is made to write.
const SYNC_EVERY: u64 = 48 << 20;
/// The most chunks of a content: what a list may make us remember.
const CHUNKS_MAX: u64 = 1 << 26;

/// Works off what a folder's engine asks for, until the engine is gone.
pub(crate) async fn run(folder: Arc<Folder>, mut wants: mpsc::UnboundedReceiver<Vec<Fetch>>) {
    let (mut small, mut large) = (VecDeque::new(), VecDeque::new());
    let (mut batches, mut larges) = (JoinSet::new(), JoinSet::new());
    loop {
        while batches.len() < BATCHES && !small.is_empty() {
            batches.spawn(batch(folder.clone(), take_batch(&mut small)));
        }
        while larges.len() < LARGE
            && let Some(fetch) = large.pop_front()
        {
            larges.spawn(one_large(folder.clone(), fetch));
        }
        tokio::select! {
            more = wants.recv() => {
                let Some(more) = more else { return };
                for fetch in more {
                    if fetch.size < CHUNKED_MIN { small.push_back(fetch) } else { large.push_back(fetch) }
                }
            }
            Some(_) = batches.join_next(), if !batches.is_empty() => {}
            Some(_) = larges.join_next(), if !larges.is_empty() => {}
        }
    }
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

fn said(e: &io::Error) -> Fetched {
    Fetched::Failed(explain(e))
}

async fn batch(folder: Arc<Folder>, wanted: Vec<Fetch>) {
    let mut done = Vec::new();
    let mut rest = block_in_place(|| copy_local(&folder, wanted, &mut done));
    for peer in sources(&folder) {
        if rest.is_empty() {
            break;
        }
        let _load = Load::on(&peer);
        // What a peer that fails did not send is asked of the next one.
        let (got, left) = ask_pieces(&folder, &peer, rest).await;
        done.extend(block_in_place(|| put_all(&folder, got)));
        rest = left;
    }
    done.extend(rest.into_iter().map(|f| (f.content, Fetched::Nowhere)));
    folder.tell(Input::Fetched(done)).await;
}

fn put_all(folder: &Folder, got: Vec<(ContentId, Vec<u8>)>) -> Vec<(ContentId, Fetched)> {
    let put = |(id, bytes): (ContentId, Vec<u8>)| match folder.stage.put(id, &bytes) {
        Ok(()) => (id, Fetched::Staged),
        Err(e) => (id, said(&e)),
    };
    got.into_iter().map(put).collect()
}

/// Copies what another file here holds; returns what has to be fetched.
fn copy_local(folder: &Folder, wanted: Vec<Fetch>, done: &mut Vec<(ContentId, Fetched)>) -> Vec<Fetch> {
    let mut rest = Vec::new();
    for fetch in wanted {
        if copy_from(folder, &fetch).is_some() {
            done.push((fetch.content, Fetched::Staged));
        } else {
            rest.push(fetch);
        }
    }
    rest
}

fn copy_from(folder: &Folder, fetch: &Fetch) -> Option<()> {
    for holder in &fetch.holders {
        let Ok(from) = folder.disk.open(holder) else { continue };
        // A copy that fails half-way leaves a part, which the fetch from a peer takes up.
        let (part, _) = folder.stage.open_part(&fetch.content).ok()?;
        let (mut buffer, mut offset, mut hasher) = (vec![0; 256 << 10], 0, blake3::Hasher::new());
        while let Ok(n) = from.read_at(&mut buffer, offset) {
            if n == 0 || part.write_at(&buffer[..n], offset).is_err() {
                break;
            }
            hasher.update(&buffer[..n]);
            offset += n as u64;
        }
        if *hasher.finalize().as_bytes() == fetch.content.0 && part.set_len(fetch.size).is_ok() {
            return folder.stage.finish_part(fetch.content).ok();
        }
    }
    if fetch.size < CHUNKED_MIN && !fetch.holders.is_empty() {
        // Small contents are not taken up; the part would stay for nothing.
        let _ = folder.stage.drop_part(&fetch.content);
    }
    None
}

type Got = Vec<(ContentId, Vec<u8>)>;

/// Asks a peer for whole small contents; returns what came and was right, and what did not.
async fn ask_pieces(folder: &Folder, peer: &PeerFolder, wanted: Vec<Fetch>) -> (Got, Vec<Fetch>) {
    let (mut got, mut left) = (Vec::new(), Vec::new());
    let mut wanted = wanted.into_iter();
    let pieces =
        wanted.as_slice().iter().map(|f| Piece { content: f.content, offset: 0, len: f.size }).collect();
    let request = Request::Pieces { folder: folder.id, pieces };
    if let Ok(mut recv) = ask(peer, &request).await {
        for fetch in wanted.by_ref() {
            match read_piece(&mut recv, fetch.size).await {
                Ok(Some(bytes)) if *blake3::hash(&bytes).as_bytes() == fetch.content.0 => {
                    got.push((fetch.content, bytes));
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

async fn ask(
    peer: &PeerFolder,
    request: &Request,
) -> Result<crate::net::connection::RecvStream, StreamError> {
    let (mut send, recv) = peer.conn.open_bi().await.map_err(|e| StreamError::Gone(e.to_string()))?;
    send_frame(&mut send, request).await?;
    send.finish().map_err(|e| StreamError::Gone(e.to_string()))?;
    Ok(recv)
}

async fn read_piece(
    recv: &mut crate::net::connection::RecvStream,
    len: u64,
) -> Result<Option<Vec<u8>>, StreamError> {
    let body = read_frame(recv).await?.ok_or(StreamError::Protocol("an answer is missing"))?;
    match read(&body).map_err(|_| StreamError::Protocol("an answer cannot be read"))? {
        Header::NotHere => Ok(None),
        Header::Here => {
            let len = usize::try_from(len).map_err(|_| StreamError::Protocol("a piece too long"))?;
            let mut bytes = vec![0; len];
            read_exact(recv, &mut bytes).await?;
            Ok(Some(bytes))
        }
    }
}

async fn one_large(folder: Arc<Folder>, fetch: Fetch) {
    let content = fetch.content;
    let copied = block_in_place(|| copy_from(&folder, &fetch));
    let mut how = if copied.is_some() { Fetched::Staged } else { Fetched::Nowhere };
    if copied.is_none() {
        let old = block_in_place(|| chunks_of(&folder, &fetch.path));
        for peer in sources(&folder) {
            let _load = Load::on(&peer);
            match chunked(&folder, &peer, &fetch, &old).await {
                Ok(true) => {
                    how = Fetched::Staged;
                    break;
                }
                Ok(false) | Err(Broken::Stream) => {}
                Err(Broken::Disk(e)) => {
                    how = said(&e);
                    break;
                }
            }
        }
    }
    folder.tell(Input::Fetched(vec![(content, how)])).await;
}

/// The chunks of the file that is to be replaced: most of them are usually in the new one too.
type Known = BTreeMap<ContentId, (RelPath, u64, u32)>;

fn chunks_of(folder: &Folder, path: &RelPath) -> Known {
    let mut out = Known::new();
    let Ok(file) = folder.disk.open(path) else { return out };
    if file.stat().map_or(0, |s| s.size) < CHUNKED_MIN {
        return out;
    }
    let mut offset = 0;
    for chunk in crate::chunks::chunks(file.as_ref()).map_while(Result::ok) {
        out.entry(chunk.hash).or_insert((path.clone(), offset, chunk.len));
        offset += u64::from(chunk.len);
    }
    out
}

/// Why a content did not come from a peer.
enum Broken {
    /// The peer, or the way to it: somebody else is asked.
    Stream,
    /// This disk.
    Disk(io::Error),
}

impl From<StreamError> for Broken {
    fn from(_: StreamError) -> Broken {
        Broken::Stream
    }
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Broken {
        Broken::Disk(e)
    }
}

/// The partial file of a content while it is filled.
#[derive(Clone)]
struct Part {
    file: Arc<dyn WriteFile>,
    /// Nothing was in it before: there is nothing to look for.
    new: bool,
    unsynced: Arc<AtomicU64>,
    /// A sync failed: the system says so only once, and nobody knows what the disk holds.
    lost: Arc<AtomicBool>,
}

impl Part {
    /// Writes, and now and then has the disk begin with what came so far: at the end only the last
    /// part of it is waited for.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        let before = self.unsynced.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if before < SYNC_EVERY && before + bytes.len() as u64 >= SYNC_EVERY {
            let part = self.clone();
            tokio::task::spawn_blocking(move || {
                if part.file.sync_data().is_err() {
                    part.lost.store(true, Ordering::Relaxed);
                }
                part.unsynced.store(0, Ordering::Relaxed);
            });
        }
        Ok(())
    }
}

/// A run of missing chunks.
#[derive(Default)]
struct Run {
    offset: u64,
    len: u64,
    chunks: Vec<Chunk>,
}

/// Fetches a large content from one peer; `false` if the peer does not hold it, or holds something
/// else under its name. What is verified stays in the partial file, whatever happens.
async fn chunked(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    old: &Known,
) -> Result<bool, Broken> {
    let (part, new) = folder.stage.open_part(&fetch.content)?;
    let part = Part { file: Arc::from(part), new, unsynced: Arc::default(), lost: Arc::default() };
    part.file.set_len(fetch.size)?;
    let request = Request::Chunks { folder: folder.id, content: fetch.content, size: fetch.size };
    let mut list = ask(peer, &request).await?;
    let (mut offset, mut run, mut tasks) = (0, Run::default(), JoinSet::new());
    let mut count = 0;
    loop {
        let body = read_frame(&mut list).await?.ok_or(StreamError::Protocol("a chunk list ends early"))?;
        let page = read(&body).map_err(|_| StreamError::Protocol("a chunk list cannot be read"))?;
        let ChunkPage::Chunks { chunks, last } = page else { return Ok(false) };
        for chunk in chunks {
            count += 1;
            let end = offset + u64::from(chunk.len);
            if chunk.len == 0
                || chunk.len as usize > crate::chunks::CHUNK_MAX
                || end > fetch.size
                || count > CHUNKS_MAX
            {
                return Err(StreamError::Protocol("a chunk list does not fit").into());
            }
            let here = block_in_place(|| is_here(folder, &part, old, offset, &chunk))?;
            if here || run.len >= RANGE {
                flush(folder, peer, fetch, &part, &mut run, &mut tasks).await?;
            }
            if !here {
                if run.len == 0 {
                    run.offset = offset;
                }
                run.len += u64::from(chunk.len);
                run.chunks.push(chunk);
            }
            offset = end;
        }
        if last {
            break;
        }
    }
    flush(folder, peer, fetch, &part, &mut run, &mut tasks).await?;
    while let Some(task) = tasks.join_next().await {
        task.map_err(|_| StreamError::Protocol("a transfer broke off"))??;
    }
    if offset != fetch.size {
        return Err(StreamError::Protocol("a chunk list does not fit").into());
    }
    finish(folder, &part, fetch)
}

/// The whole is verified once more before it counts: the list was only a hint of the peer's.
fn finish(folder: &Folder, part: &Part, fetch: &Fetch) -> Result<bool, Broken> {
    block_in_place(|| {
        // Synced through the handle that wrote, so that no error goes to somebody else.
        if part.file.sync_data().is_err() || part.lost.load(Ordering::Relaxed) {
            folder.stage.drop_part(&fetch.content)?;
            return Err(Broken::Disk(io::Error::other("what was written could not be made durable")));
        }
        let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
        loop {
            let n = part.file.read_at(&mut buffer, offset)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            offset += n as u64;
        }
        if *hasher.finalize().as_bytes() == fetch.content.0 {
            folder.stage.finish_part(fetch.content)?;
            return Ok(true);
        }
        folder.stage.drop_part(&fetch.content)?;
        Ok(false)
    })
}

/// Whether a chunk is in the partial file already, or can be copied from the old file.
fn is_here(folder: &Folder, part: &Part, old: &Known, offset: u64, chunk: &Chunk) -> io::Result<bool> {
    if part.new && old.is_empty() {
        return Ok(false);
    }
    let mut bytes = vec![0; chunk.len as usize];
    if !part.new && read_full(|b, o| part.file.read_at(b, o), &mut bytes, offset)? && is_chunk(chunk, &bytes)
    {
        return Ok(true);
    }
    let Some((path, at, len)) = old.get(&chunk.hash).filter(|k| k.2 == chunk.len) else { return Ok(false) };
    debug_assert_eq!(*len, chunk.len);
    let Ok(file) = folder.disk.open(path) else { return Ok(false) };
    if read_full(|b, o| file.read_at(b, o), &mut bytes, *at).unwrap_or(false) && is_chunk(chunk, &bytes) {
        part.write(&bytes, offset)?;
        return Ok(true);
    }
    Ok(false)
}

fn is_chunk(chunk: &Chunk, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == chunk.hash.0
}

fn read_full(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<bool> {
    let mut have = 0;
    while have < buffer.len() {
        match read(&mut buffer[have..], offset + have as u64)? {
            0 => return Ok(false),
            n => have += n,
        }
    }
    Ok(true)
}

/// Starts the transfer of a run, waiting while enough are under way.
async fn flush(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    part: &Part,
    run: &mut Run,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<(), Broken> {
    if run.len == 0 {
        return Ok(());
    }
    while tasks.len() >= RANGES {
        if let Some(task) = tasks.join_next().await {
            task.map_err(|_| StreamError::Protocol("a transfer broke off"))??;
        }
    }
    let run = std::mem::take(run);
    let piece = Piece { content: fetch.content, offset: run.offset, len: run.len };
    let request = Request::Pieces { folder: folder.id, pieces: vec![piece] };
    tasks.spawn(range(peer.clone(), part.clone(), request, run));
    Ok(())
}

async fn range(peer: Arc<PeerFolder>, part: Part, request: Request, run: Run) -> Result<(), Broken> {
    let mut recv = ask(&peer, &request).await?;
    let body = read_frame(&mut recv).await?.ok_or(StreamError::Protocol("an answer is missing"))?;
    if read::<Header>(&body).map_err(|_| StreamError::Protocol("an answer cannot be read"))? != Header::Here {
        return Err(StreamError::Gone("the content is not there any more".into()).into());
    }
    let mut offset = run.offset;
    for chunk in &run.chunks {
        let mut bytes = vec![0; chunk.len as usize];
        read_exact(&mut recv, &mut bytes).await?;
        block_in_place(|| {
            if !is_chunk(chunk, &bytes) {
                return Err(Broken::from(StreamError::Protocol("a chunk does not fit its hash")));
            }
            Ok(part.write(&bytes, offset)?)
        })?;
        offset += u64::from(chunk.len);
    }
    Ok(())
}
