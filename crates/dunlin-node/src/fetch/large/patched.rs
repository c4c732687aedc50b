//! A content of which most stands in the file that it replaces, at the same places: a database, the image of a disk, a log
//! that grew. The old file is read once, by all cores; a block of it that is right is put into its place as it was read, and
//! of one that is not, only the leaves that differ are fetched. What moved within the file is found by chunk lists alone:
//! where it looks like that, nothing is done here.

use super::super::swarm::{Swarm, able};
use super::super::{ask, read_piece, said};
use super::blocks::{gather, list, open};
use super::chunked::read_full;
use crate::blocks::threads;
use crate::disk::ReadFile;
use crate::engine::Fetched;
use crate::folder::{Folder, Gathered, PeerFolder, lock};
use crate::stage::Claim;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::blocks::{self, Value, range};
use dunlin_core::message::{BlockLeaves, FEATURE_LEAVES, LEAVES_MAX, Piece, Request, read};
use dunlin_core::plan::Fetch;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// So many blocks, all over the old file, are looked at before anything is done.
const SAMPLES: usize = 64;
/// At most one of so many may differ, …
const FEW: usize = 8;
/// … and so many in all, which bounds what their leaves take.
const DIFFER_MAX: usize = 1024;
/// Where of more blocks than these most leaves differ, the content is another one there, or something moved.
const MOVED: usize = 4;
/// Blocks whose leaves are fetched together.
const TOGETHER: usize = 16;

/// The old file, and what it is compared with.
struct Basis<'a> {
    old: &'a dyn ReadFile,
    /// The blocks of the content.
    list: &'a [Value],
    size: u64,
}

/// A run of leaves that differ: where it begins in the content, and its length.
type Run = (u64, u64);

/// Brings a content in; none if it is not worth it, or nobody has it in this way.
pub(super) async fn bring(
    swarm: &Arc<Swarm>,
    folder: &Arc<Folder>,
    fetch: &Fetch,
    claim: &Claim<'_>,
    old: &Arc<dyn ReadFile>,
) -> Option<Fetched> {
    let count = blocks::count(fetch.size)?;
    let peers: Vec<_> = able(folder).into_iter().filter(|p| p.features & FEATURE_LEAVES != 0).collect();
    // The blocks of which the old file has anything.
    let has =
        usize::try_from(old.stat().ok()?.size.div_ceil(blocks::BLOCK)).map_or(count, |has| has.min(count));
    if peers.is_empty() || has < FEW {
        return None;
    }
    let (list, told) = list(folder, fetch, count).await?;
    let asking = Asking { folder, fetch, peers };
    let basis = Basis { old: old.as_ref(), list: &list, size: fetch.size };
    let samples = samples(has);
    let differ = block_in_place(|| basis.compare(&samples, samples.len() / FEW, |_, _| Ok(()))).ok()??;
    asking.moved(&basis, differ.get(..=MOVED).unwrap_or(&differ)).await??;
    let gathered = match block_in_place(|| open(folder, fetch, claim, list.clone(), Some(old.as_ref()))) {
        Ok(gathered) => gathered,
        Err(e) => return Some(said(folder, &e)),
    };
    let here = gathered.blocks().0;
    let lacking: Vec<usize> = (0..has).filter(|block| !here.get(*block)).collect();
    let most = (count / FEW).min(DIFFER_MAX);
    let differ =
        match block_in_place(|| basis.compare(&lacking, most, |block, bytes| gathered.put(block, bytes))) {
            Ok(differ) => differ,
            Err(e) => return Some(said(folder, &e)),
        };
    let runs = match &differ {
        Some(differ) => asking.moved(&basis, differ).await?,
        None => None,
    };
    let Some(runs) = runs else {
        gathered.close();
        return None;
    };
    asking.mend(&basis, &gathered, &runs).await;
    gather(swarm, folder, &gathered, told).await
}

/// Blocks from all over the first so many.
fn samples(count: usize) -> Vec<usize> {
    let of = count.min(SAMPLES);
    (0..of).map(|i| i * count / of).collect()
}

impl Basis<'_> {
    /// A block of the old file, with zeros beyond its end; `false` if it cannot be read.
    fn block(&self, block: usize, buffer: &mut Vec<u8>) -> bool {
        let (offset, len) = range(block, self.size);
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        let read = |buffer: &mut [u8]| read_full(|b, o| self.old.read_at(b, o), buffer, offset);
        match read(buffer) {
            Ok(false) => {
                // What is in it of an earlier block is no part of this one.
                buffer.fill(0);
                read(buffer).is_ok()
            }
            whole => whole.is_ok(),
        }
    }

    /// Looks at some blocks of the old file, and has those taken that are right. Returns those that differ, none if these
    /// are more than `most`; or the first error of who takes.
    fn compare(
        &self,
        which: &[usize],
        most: usize,
        takes: impl Fn(usize, &[u8]) -> io::Result<()> + Sync,
    ) -> io::Result<Option<Vec<usize>>> {
        let (next, differ) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let runtime = Handle::current();
        let work = || -> io::Result<()> {
            let _entered = runtime.enter();
            let mut buffer = Vec::new();
            while let Some(block) = which.get(next.fetch_add(1, Ordering::Relaxed)) {
                let is_there = self.block(*block, &mut buffer);
                if is_there && Some(&blocks::value(*block, self.size, &buffer)) == self.list.get(*block) {
                    takes(*block, &buffer)?;
                    continue;
                }
                let mut differ = lock(&differ);
                differ.push(*block);
                if differ.len() > most {
                    next.store(which.len(), Ordering::Relaxed);
                }
            }
            Ok(())
        };
        std::thread::scope(|s| {
            let others: Vec<_> = (1..threads().min(which.len())).map(|_| s.spawn(work)).collect();
            let mine = work();
            // A panic in there is a bug, passed on as what it is.
            let ended = others.into_iter().map(|o| o.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            ended.fold(mine, |one, other| one.and(other))
        })?;
        let mut differ = std::mem::take(&mut *lock(&differ));
        differ.sort_unstable();
        Ok((differ.len() <= most).then_some(differ))
    }

    /// What of a block has other leaves than these.
    fn runs(&self, block: usize, leaves: &[Value], buffer: &mut Vec<u8>) -> Vec<Run> {
        let (offset, len) = range(block, self.size);
        let ours =
            if self.block(block, buffer) { blocks::leaves(block, self.size, buffer) } else { Vec::new() };
        let mut runs: Vec<Run> = Vec::new();
        for (i, _) in leaves.iter().enumerate().filter(|(i, leaf)| ours.get(*i) != Some(leaf)) {
            let at = i as u64 * blocks::LEAF;
            let (from, len) = (offset + at, len.saturating_sub(at).min(blocks::LEAF));
            match runs.last_mut() {
                Some((begins, run)) if *begins + *run == from => *run += len,
                _ => runs.push((from, len)),
            }
        }
        runs
    }
}

/// Who is asked for what.
struct Asking<'a> {
    folder: &'a Folder,
    fetch: &'a Fetch,
    peers: Vec<Arc<PeerFolder>>,
}

impl Asking<'_> {
    /// The leaves of some blocks, from whoever has them.
    async fn leaves(&self, of: &[usize]) -> Option<Vec<Vec<Value>>> {
        for peer in &self.peers {
            if let Ok(leaves) = self.leaves_by(peer, of).await {
                return Some(leaves);
            }
        }
        None
    }

    async fn leaves_by(&self, peer: &PeerFolder, of: &[usize]) -> Result<Vec<Vec<Value>>, StreamError> {
        let (folder, content, size) = (self.folder.id, self.fetch.content, self.fetch.size);
        let mut out = Vec::with_capacity(of.len());
        for some in of.chunks(LEAVES_MAX) {
            let blocks = some.iter().map(|block| *block as u64).collect();
            let mut answer = ask(peer, &Request::Leaves { folder, content, size, blocks }).await?;
            for block in some {
                let body = read_answer(&mut answer).await?;
                let got = read(&body).map_err(|_| StreamError::Protocol("leaves cannot be read"))?;
                let BlockLeaves::Leaves { values } = got else {
                    return Err(StreamError::Gone("the content is not there any more".into()));
                };
                let (values, rest) = values.as_chunks();
                if !rest.is_empty() || values.len() as u64 != range(*block, size).1.div_ceil(blocks::LEAF) {
                    return Err(StreamError::Protocol("leaves do not fit their block"));
                }
                out.push(values.to_vec());
            }
        }
        Ok(out)
    }

    /// What of these blocks of the old file is to be fetched. `Some(None)` if that is most of them, as where something moved;
    /// none if nobody says what their leaves are.
    async fn moved(&self, basis: &Basis<'_>, of: &[usize]) -> Option<Option<Vec<(usize, Vec<Run>)>>> {
        let leaves = self.leaves(of).await?;
        let mut buffer = Vec::new();
        let runs = block_in_place(|| {
            let each = of.iter().zip(&leaves);
            each.map(|(block, leaves)| (*block, basis.runs(*block, leaves, &mut buffer))).collect::<Vec<_>>()
        });
        let lacking: u64 = runs.iter().flat_map(|(_, runs)| runs).map(|(_, len)| len).sum();
        let all: u64 = of.iter().map(|block| range(*block, basis.size).1).sum();
        Some((of.len() <= MOVED || lacking <= all / 2).then_some(runs))
    }

    /// Fetches what differs, and puts blocks in their places that are right with it. What is not is fetched as any other.
    async fn mend(&self, basis: &Basis<'_>, gathered: &Gathered, of: &[(usize, Vec<Run>)]) {
        for some in of.chunks(TOGETHER) {
            for peer in &self.peers {
                if self.mend_by(peer, basis, gathered, some).await.is_ok() {
                    break;
                }
            }
        }
    }

    async fn mend_by(
        &self,
        peer: &PeerFolder,
        basis: &Basis<'_>,
        gathered: &Gathered,
        of: &[(usize, Vec<Run>)],
    ) -> Result<(), StreamError> {
        let content = self.fetch.content;
        let pieces = of.iter().flat_map(|(_, runs)| runs);
        let pieces = pieces.map(|(offset, len)| Piece { content, offset: *offset, len: *len }).collect();
        let mut answer = ask(peer, &Request::Pieces { folder: self.folder.id, pieces }).await?;
        let mut buffer = Vec::new();
        for (block, runs) in of {
            let mut come = Vec::with_capacity(runs.len());
            for (offset, len) in runs {
                let bytes = read_piece(&mut answer, *len).await?;
                let bytes = bytes.ok_or(StreamError::Gone("the content is not there any more".into()))?;
                come.push((*offset, bytes));
            }
            block_in_place(|| {
                let is_there = basis.block(*block, &mut buffer);
                for (offset, bytes) in come {
                    let at = usize::try_from(offset - range(*block, basis.size).0).unwrap_or(usize::MAX);
                    if let Some(place) = buffer.get_mut(at..at.saturating_add(bytes.len())) {
                        place.copy_from_slice(&bytes);
                    }
                }
                if !is_there || Some(&blocks::value(*block, basis.size, &buffer)) != basis.list.get(*block) {
                    return Err(StreamError::Protocol("leaves do not fit their block"));
                }
                if let Err(e) = gathered.put(*block, &buffer) {
                    gathered.fail(e);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
