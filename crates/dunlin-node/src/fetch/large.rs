//! A large content: from this disk where it is there, else from peers.

mod assembly;
mod blocks;
mod chunked;
mod old;
mod paged;
mod patched;

use super::swarm::Swarm;
use super::{Load, claim, said, sources};
use crate::chunks::CHUNKED_MIN;
use crate::disk::{ReadFile, WriteFile};
use crate::engine::{Fetched, Input};
use crate::folder::{Folder, PeerFolder};
use crate::stage::{Claim, Left};
use crate::transfer::StreamError;
use chunked::chunked;
use dunlin_core::ids::ContentId;
use dunlin_core::message::FEATURE_PAGES;
use dunlin_core::plan::Fetch;
use old::Old;
use paged::paged;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::{JoinSet, block_in_place};

/// After so many bytes the disk is made to write.
const SYNC_EVERY: u64 = 48 << 20;

/// Brings one large content in, and tells the engine. Returns its size.
pub(super) async fn fetch(folder: Arc<Folder>, swarm: Arc<Swarm>, fetch: Fetch) -> u64 {
    let how = match block_in_place(|| claim(&folder, &fetch)) {
        Ok(claim) => {
            folder.tell(Input::Fetched(vec![(fetch.content, Fetched::Begun)])).await;
            bring(&folder, &swarm, &fetch, &claim).await
        }
        Err(how) => how,
    };
    folder.tell(Input::Fetched(vec![(fetch.content, how)])).await;
    fetch.size
}

async fn bring(folder: &Arc<Folder>, swarm: &Arc<Swarm>, fetch: &Fetch, claim: &Claim<'_>) -> Fetched {
    if block_in_place(|| folder.site.copy(fetch, claim, || folder.nearby(&fetch.content))) {
        return Fetched::Staged;
    }
    let how = match block_in_place(|| basis(folder, fetch)) {
        Some(old) => patched::bring(swarm, folder, fetch, claim, &old).await,
        None => blocks::bring(swarm, folder, fetch, claim).await,
    };
    match how {
        Some(how) => how,
        None => by_lists(folder, fetch, claim).await,
    }
}

/// The file that it replaces, if much of it may be there.
fn basis(folder: &Folder, fetch: &Fetch) -> Option<Arc<dyn ReadFile>> {
    let file = folder.site.disk.open(&fetch.path).ok()?;
    file.stat().is_ok_and(|old| old.size >= CHUNKED_MIN).then(|| file.into())
}

/// Brings a content in by its chunk list, from whoever holds it.
async fn by_lists(folder: &Arc<Folder>, fetch: &Fetch, claim: &Claim<'_>) -> Fetched {
    let old = block_in_place(|| Old::begin(folder, &fetch.path));
    for peer in sources(folder) {
        let _load = Load::on(&peer);
        let mut tasks = JoinSet::new();
        let end = by_list(folder, &peer, fetch, &old, claim.left(), &mut tasks).await;
        // Nothing may write into the part any more once others may take its room.
        tasks.shutdown().await;
        match end {
            Ok(true) => return Fetched::Staged,
            Ok(false) | Err(Broken::Stream) => {}
            Err(Broken::Disk(e)) => return said(folder, &e),
        }
    }
    Fetched::Nowhere
}

/// Fetches a content from one peer by its chunk list: in pages where there is an old file to have them from and the peer
/// knows how to; else, and where that came to nothing, by the flat one.
async fn by_list(
    folder: &Arc<Folder>,
    peer: &Arc<PeerFolder>,
    fetch: &Fetch,
    old: &Old,
    left: Left,
    tasks: &mut JoinSet<Result<(), Broken>>,
) -> Result<bool, Broken> {
    if peer.features & FEATURE_PAGES != 0 && !old.is_empty() {
        if let Some(whole) = paged(folder, peer, fetch, old, left.clone(), tasks).await? {
            return Ok(whole);
        }
        tasks.shutdown().await;
    }
    chunked(folder, peer, fetch, old, left, tasks).await
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
    /// What was set aside for it and not written yet.
    left: Left,
    unsynced: Arc<AtomicU64>,
    /// A sync failed: the system says so only once, and nobody knows what the disk holds.
    lost: Arc<AtomicBool>,
}

impl Part {
    /// Writes, and now and then has the disk begin with what came so far: at the end only the last
    /// part of it is waited for.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        self.left.wrote(bytes.len());
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

/// Opens the partial file of a content.
fn open(folder: &Folder, fetch: &Fetch, left: Left) -> io::Result<Part> {
    let (part, new) = folder.site.stage.open_part(&fetch.content)?;
    let part = Part { file: Arc::from(part), new, left, unsynced: Arc::default(), lost: Arc::default() };
    part.file.set_len(fetch.size)?;
    Ok(part)
}

/// The whole is verified once more before it counts: the list was only a hint of the peer's.
fn finish(folder: &Folder, part: &Part, fetch: &Fetch) -> Result<bool, Broken> {
    block_in_place(|| {
        sync(folder, part, fetch)?;
        let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
        loop {
            let n = part.file.read_at(&mut buffer, offset)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            offset += n as u64;
        }
        conclude(folder, fetch, ContentId(*hasher.finalize().as_bytes()))
    })
}

/// Makes what was written durable.
fn sync(folder: &Folder, part: &Part, fetch: &Fetch) -> Result<(), Broken> {
    // Through the handle that wrote, so that no error goes to somebody else.
    if part.file.sync_data().is_err() || part.lost.load(Ordering::Relaxed) {
        folder.site.stage.drop_part(&fetch.content)?;
        return Err(Broken::Disk(io::Error::other("what was written could not be made durable")));
    }
    Ok(())
}

/// Stages the part, if what it holds is the content.
fn conclude(folder: &Folder, fetch: &Fetch, holds: ContentId) -> Result<bool, Broken> {
    if holds == fetch.content {
        folder.site.stage.finish_part(fetch.content)?;
        return Ok(true);
    }
    folder.site.stage.drop_part(&fetch.content)?;
    Ok(false)
}
