//! Hands versions out, to be put outside the folder by whoever asked for them: nothing is changed here, and nothing
//! needs room here.

use super::history::{Holders, contents, relative};
use super::restoring::{meant, nobody, which};
use super::{Shared, verifying};
use crate::control::{AnyPath, ApiError, Bytes, ContentRequest, Handed, HandedOut, Item, RestoreRequest};
use crate::folder::{Folder, lock};
use dunlin_core::ids::{ContentId, DeviceId};
use dunlin_core::path::RelPath;
use dunlin_core::revert::Version;
use dunlin_core::state::Content;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// Bytes handed out at a time, and how many such blocks wait for who reads.
const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 4;

/// What a restore would bring, and who has it.
pub(super) async fn find(
    shared: &Shared,
    folder: &Folder,
    request: RestoreRequest,
) -> Result<HandedOut, ApiError> {
    let path = relative(&request.path)?;
    verifying::look(folder).await?;
    let which = block_in_place(|| which(folder, &request))?;
    let meant = block_in_place(|| meant(folder, &path, &which, Some(None)))?;
    // Those that have it too, in case what is here turns out to be damaged.
    let held = Holders::ask(folder, &contents(meant.iter().map(|v| &v.content)), 0, |_| true).await;
    let can = |v: &Version| match &v.content {
        Content::File { id, .. } => held.has(id),
        _ => true,
    };
    if !meant.iter().any(|v| v.content != Content::Dir && can(v)) {
        let lost: Vec<Version> = meant.iter().filter(|v| !can(v)).cloned().collect();
        if !lost.is_empty() {
            return Err(nobody(folder, &lost));
        }
    }
    Ok(HandedOut { things: meant.into_iter().map(|v| hand(shared, &held, &path, v)).collect() })
}

fn hand(shared: &Shared, held: &Holders, from: &RelPath, v: Version) -> Handed {
    let below: RelPath = v.path.names()[from.names().len()..].to_vec().into();
    let mut out = Handed {
        path: Folder::any_path(&below),
        item: Item::Directory,
        content: None,
        size: 0,
        link: None,
        mode: v.mode,
        modified: v.mtime.map(|t| (t.secs, t.nanos)),
        holders: Vec::new(),
    };
    match v.content {
        Content::File { id, size } => {
            (out.item, out.size, out.content) = (Item::File, size, Some(id.to_string()));
            out.holders.extend(held.here.contains(&id).then(|| shared.device.to_string()));
            let others = held.elsewhere.get(&id).into_iter().flatten();
            out.holders.extend(others.map(ToString::to_string));
        }
        Content::Link(text) => {
            (out.item, out.link) = (Item::Link, Some(AnyPath::from(text.to_vec())));
        }
        _ => {}
    }
    out
}

/// The bytes of a version from one device.
pub(super) async fn bytes(
    shared: &Shared,
    folder: Arc<Folder>,
    request: ContentRequest,
) -> Result<Bytes, ApiError> {
    let ids = ContentId::from_hex(&request.content).zip(DeviceId::from_hex(&request.from));
    let Some((content, device)) = ids else {
        return Err(ApiError::usage(
            "that is no id of a content or of a device",
            "POST /v1/versions names them",
        ));
    };
    let gone = || {
        ApiError::failed(
            format!("the device {} does not have it (any more)", &request.from[..8]),
            "dunlin history PATH shows who has which version",
        )
    };
    let (blocks, out) = mpsc::channel(BLOCKS);
    if device == shared.device {
        let file = block_in_place(|| folder.site.find(&content));
        if request.size == 0 {
            return Ok(out);
        }
        let file = file.ok_or_else(gone)?;
        tokio::task::spawn_blocking(move || {
            let mut offset = 0;
            while offset < request.size {
                let mut block = vec![0; BLOCK];
                let read = file.read_at(&mut block, offset);
                let n = *read.as_ref().unwrap_or(&0);
                block.truncate(n);
                offset += n as u64;
                // Who reads may be gone.
                if blocks.blocking_send(read.map(|_| block)).is_err() || n == 0 {
                    return;
                }
            }
        });
    } else {
        let peer = lock(&folder.peers).get(&device).cloned().ok_or_else(gone)?;
        tokio::spawn(crate::fetch::stream(folder.id, peer, content, request.size, blocks));
    }
    Ok(out)
}
