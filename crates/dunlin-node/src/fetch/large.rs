//! A large content: from this disk where it is there, else from peers.

mod blocks;
mod chunked;

use super::claim;
use super::swarm::Swarm;
use crate::chunks::CHUNKED_MIN;
use crate::engine::{Fetched, Input};
use crate::folder::Folder;
use crate::stage::Claim;
use dunlin_core::plan::Fetch;
use std::sync::Arc;
use tokio::task::block_in_place;

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
    if !block_in_place(|| has_basis(folder, fetch))
        && let Some(how) = blocks::bring(swarm, folder, fetch, claim).await
    {
        return how;
    }
    chunked::bring(folder, fetch, claim).await
}

/// Whether much of it may be here: in the file that it replaces.
fn has_basis(folder: &Folder, fetch: &Fetch) -> bool {
    let old = folder.site.disk.open(&fetch.path).and_then(|file| file.stat());
    old.is_ok_and(|old| old.size >= CHUNKED_MIN)
}
