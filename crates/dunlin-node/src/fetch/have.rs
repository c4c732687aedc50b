//! Who holds what, asked before anything is fetched.

use super::ask;
use crate::folder::{Folder, PeerFolder};
use crate::transfer::{StreamError, read_answer};
use dunlin_core::ids::{ContentId, DeviceId};
use dunlin_core::message::{HAVE_MAX, Held, Request, read};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a device may take to say what it holds; one that does not say counts as one that holds nothing.
const SAYS_WITHIN: Duration = Duration::from_secs(10);

/// The connected devices, and which of `contents` each says it holds.
pub(crate) async fn who_has(folder: &Folder, contents: &[ContentId]) -> Vec<(DeviceId, Vec<bool>)> {
    let mut asked = JoinSet::new();
    for peer in folder.peer_list() {
        let (id, contents) = (folder.id, contents.to_vec());
        asked.spawn(async move {
            let mut held = Vec::with_capacity(contents.len());
            for some in contents.chunks(HAVE_MAX) {
                let request = Request::Have { folder: id, contents: some.to_vec() };
                match timeout(SAYS_WITHIN, one(&peer, &request)).await {
                    Ok(Ok(told)) => held.extend((0..some.len()).map(|i| told.has(i))),
                    _ => held.extend(some.iter().map(|_| false)),
                }
            }
            (peer.device, held)
        });
    }
    asked.join_all().await
}

async fn one(peer: &PeerFolder, request: &Request) -> Result<Held, StreamError> {
    let mut recv = ask(peer, request).await?;
    read(&read_answer(&mut recv).await?).map_err(|_| StreamError::Protocol("an answer cannot be read"))
}
