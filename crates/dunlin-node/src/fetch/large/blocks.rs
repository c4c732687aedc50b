//! A content of which nothing is here, block by block: each is final once it is verified, and who has it may be
//! asked for it while the rest still comes.

use super::super::swarm::{Swarm, able, holdings};
use super::super::{ask, said};
use crate::blocks::{threads, values};
use crate::disk::ReadFile;
use crate::engine::Fetched;
use crate::folder::{Folder, Gathered, PeerFolder};
use crate::stage::Claim;
use crate::transfer::{StreamError, read_answer};
use dunlin_core::blocks::{self, Bits, Value};
use dunlin_core::ids::DeviceId;
use dunlin_core::message::{BLOCKS_PAGE, BlockPage, Request, read};
use dunlin_core::plan::Fetch;
use dunlin_core::schedule::Holding;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout};

/// How long it is waited for devices that gather the content themselves, once they have nothing new.
const HOPE: Duration = Duration::from_secs(5);
/// It is looked after so often when nothing happens.
const LOOK: Duration = Duration::from_millis(500);

/// Brings a content in; none if nobody has it in this way.
pub(super) async fn bring(
    swarm: &Arc<Swarm>,
    folder: &Arc<Folder>,
    fetch: &Fetch,
    claim: &Claim<'_>,
) -> Option<Fetched> {
    let count = blocks::count(fetch.size)?;
    let (list, told) = list(folder, fetch, count).await?;
    match block_in_place(|| open(folder, fetch, claim, list, None)) {
        Ok(gathered) => gather(swarm, folder, &gathered, told).await,
        Err(e) => Some(said(folder, &e)),
    }
}

/// Gathers what is missing from whoever has it; `told`: who has what. None if nobody has more of it.
pub(super) async fn gather(
    swarm: &Arc<Swarm>,
    folder: &Arc<Folder>,
    gathered: &Arc<Gathered>,
    told: Vec<(DeviceId, Holding)>,
) -> Option<Fetched> {
    let _under_way = swarm.begin(folder, gathered, told);
    let mut hope = Instant::now() + HOPE;
    loop {
        if gathered.is_whole() {
            let finished = block_in_place(|| finish(folder, gathered));
            return Some(finished.map_or_else(|e| said(folder, &e), |()| Fetched::Staged));
        }
        if let Some(e) = gathered.failure() {
            return Some(said(folder, &e));
        }
        match swarm.is_stuck(&gathered.content) {
            (false, _) => hope = Instant::now() + HOPE,
            (true, may_grow) if !may_grow || Instant::now() >= hope => return None,
            _ => {}
        }
        // Whether something happened or not.
        let _ = timeout(LOOK, gathered.changed.notified()).await;
    }
}

/// The hashes of all blocks, from whoever has them, and who has what.
pub(super) async fn list(
    folder: &Arc<Folder>,
    fetch: &Fetch,
    count: usize,
) -> Option<(Vec<Value>, Vec<(DeviceId, Holding)>)> {
    let mut asked = JoinSet::new();
    for peer in able(folder) {
        let (folder, content) = (folder.clone(), fetch.content);
        asked.spawn(async move { (holdings(&folder, &peer, &[content]).await.pop(), peer) });
    }
    let mut told = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let Ok((Some(holding), peer)) = answer else { continue };
        let has = holding != Holding::Nothing;
        told.push((peer.device, holding));
        if has && let Ok(list) = list_of(folder, &peer, fetch, count).await {
            return Some((list, told));
        }
    }
    None
}

/// The list of one device, if it is right.
async fn list_of(
    folder: &Folder,
    peer: &PeerFolder,
    fetch: &Fetch,
    count: usize,
) -> Result<Vec<Value>, StreamError> {
    let request = Request::Blocks { folder: folder.id, content: fetch.content, size: fetch.size };
    let mut answer = ask(peer, &request).await?;
    let mut list = Vec::new();
    while list.len() < count {
        let body = read_answer(&mut answer).await?;
        let page = read(&body).map_err(|_| StreamError::Protocol("a list of blocks cannot be read"))?;
        let BlockPage::Blocks { values, last } = page else {
            return Err(StreamError::Gone("the content is not there any more".into()));
        };
        let (page, rest) = values.as_chunks();
        list.extend(page);
        // Short pages without end would keep this waiting.
        let is_short = !last && page.len() < BLOCKS_PAGE;
        if is_short || !rest.is_empty() || last != (list.len() == count) || list.len() > count {
            return Err(StreamError::Protocol("a list of blocks does not fit"));
        }
    }
    if blocks::root(&list) != Some(fetch.content) {
        return Err(StreamError::Protocol("a list of blocks is of another content"));
    }
    Ok(list)
}

/// Opens the part, and verifies what is in it: what an earlier run left there, or the bytes of an old file, where the file
/// system can share them.
pub(super) fn open(
    folder: &Folder,
    fetch: &Fetch,
    claim: &Claim<'_>,
    list: Vec<Value>,
    old: Option<&dyn ReadFile>,
) -> io::Result<Arc<Gathered>> {
    let (part, new) = folder.site.stage.open_part(&fetch.content)?;
    let shares = new && old.is_some_and(|old| part.share(old));
    part.set_len(fetch.size)?;
    let mut here = Bits::none(list.len());
    if (!new || shares) && part.allocated()? > 0 {
        let found = values(part.as_ref(), fetch.size, 0..list.len(), threads())?;
        found.iter().zip(&list).enumerate().for_each(|(i, (is, should))| here.set(i, is == should));
    }
    Ok(Gathered::new((fetch.content, fetch.size), list, part, here, claim.left()))
}

/// All blocks are verified, and so is the whole.
fn finish(folder: &Folder, gathered: &Gathered) -> io::Result<()> {
    gathered.close();
    if let Err(e) = gathered.sync() {
        folder.site.stage.drop_part(&gathered.content)?;
        return Err(e);
    }
    folder.site.lists.put(gathered.content, &gathered.values);
    folder.site.stage.finish_part(gathered.content)
}
