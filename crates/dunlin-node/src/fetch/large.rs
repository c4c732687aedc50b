//! A large content: from this disk where it is there, else from peers.

mod chunked;

use super::claim;
use crate::engine::{Fetched, Input};
use crate::folder::Folder;
use crate::stage::Claim;
use dunlin_core::plan::Fetch;
use std::sync::Arc;
use tokio::task::block_in_place;

/// Brings one large content in, and tells the engine.
pub(super) async fn fetch(folder: Arc<Folder>, fetch: Fetch) {
    let how = match block_in_place(|| claim(&folder, &fetch)) {
        Ok(claim) => {
            folder.tell(Input::Fetched(vec![(fetch.content, Fetched::Begun)])).await;
            bring(&folder, &fetch, &claim).await
        }
        Err(how) => how,
    };
    folder.tell(Input::Fetched(vec![(fetch.content, how)])).await;
}

async fn bring(folder: &Arc<Folder>, fetch: &Fetch, claim: &Claim<'_>) -> Fetched {
    if block_in_place(|| folder.site.copy(fetch, claim, || folder.nearby(&fetch.content))) {
        return Fetched::Staged;
    }
    chunked::bring(folder, fetch, claim).await
}
