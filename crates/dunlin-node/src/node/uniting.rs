//! Roots that are not what they were: what a person takes for the folder from now on.

use super::{Shared, cannot, opening, reopening};
use crate::config::Config;
use crate::control::ApiError;
use crate::disk::posix::PosixDisk;
use crate::folder::Folder;
use crate::home::write_atomic;
use crate::stage::{root_trouble, write_marker};
use dunlin_core::ids::FolderId;
use std::fs::symlink_metadata;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

/// A folder that was closed is tried again at least this often.
const OPENS_WITHIN: Duration = Duration::from_secs(40);

/// In a folder's state directory: its index is to be united with the directory that is there.
pub(super) const MARK: &str = "index.unite";

/// Takes what is at the path of a halted folder for the folder; returns when it is open again.
pub(super) async fn unite(shared: &Arc<Shared>, id: FolderId, path: &Path) -> Result<(), ApiError> {
    let open = shared.folder(&id);
    if let Some(folder) = &open
        && folder.pulse.borrow().halted.is_none()
        && block_in_place(|| stands(folder))
    {
        let what = format!("{} is in its place: there is nothing to unite", opening::shown(path));
        return Err(ApiError::failed(what, "dunlin status shows how the folder is"));
    }
    let dir = shared.home.folder_dir(&id.to_string()).map_err(|e| cannot("open a folder's state", e))?;
    let (disk, config) = block_in_place(|| check(id, path, &dir))?;
    // First, so that nothing is ever found to be missing in what is there now.
    let mark = dir.join(MARK);
    block_in_place(|| write_atomic(&mark, b"")).map_err(|e| cannot("keep the folder's state", e))?;
    if let Some(folder) = &open {
        folder.tell(crate::engine::Input::RootRemoved).await;
        folder.tell(crate::engine::Input::Stop).await;
        reopening::close(shared, folder.clone(), "another directory is taken for it".into()).await;
    }
    let written = block_in_place(|| write_marker(&disk, &config.marker()));
    if let Some(folder) = open {
        shared.fail(folder);
    }
    if let Err(e) = written {
        // Should the right directory come back, it is opened as it was.
        let _ = std::fs::remove_file(&mark);
        return Err(cannot(&format!("write into {}", opening::shown(path)), e));
    }
    opened(shared, id).await
}

/// Whether the root is what it was, by a look now: a folder that is not halted was looked at some seconds ago.
fn stands(folder: &Folder) -> bool {
    let marker = crate::folder::lock(&folder.config).marker();
    root_trouble(folder.site.disk.as_ref(), &marker).is_none()
}

/// Whether what is at the path can be the folder.
fn check(id: FolderId, path: &Path, dir: &Path) -> Result<(PosixDisk, Config), ApiError> {
    let shown = opening::shown(path);
    let config = Config::load(id, dir).map_err(|e| cannot("open a folder's state", e))?;
    let config =
        config.ok_or_else(|| ApiError::failed("the folder is not known any more", "dunlin status"))?;
    match symlink_metadata(path) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => {
            let hint = "move away what is there, and make a directory or bring back the right one";
            return Err(ApiError::failed(format!("{shown} is not a directory"), hint));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let hint = format!("bring the right directory back, or make an empty one: mkdir {shown}");
            return Err(ApiError::failed(format!("there is nothing at {shown}"), hint));
        }
        Err(e) => return Err(cannot(&format!("use {shown}"), e)),
    }
    opening::check_access(path)?;
    let disk = PosixDisk::open(path).map_err(|e| cannot(&format!("open {shown}"), e))?;
    let marker = path.join(".dunlin/folder");
    if root_trouble(&disk, &config.marker()).is_some() && symlink_metadata(&marker).is_ok() {
        let hint = "move it away; if it is no folder of yours any more, remove its directory .dunlin first";
        return Err(ApiError::failed(format!("{shown} is another shared folder, or was one"), hint));
    }
    Ok((disk, config))
}

async fn opened(shared: &Arc<Shared>, id: FolderId) -> Result<(), ApiError> {
    let mut changed = shared.changed.subscribe();
    let opens = async {
        while shared.folder(&id).is_none() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(OPENS_WITHIN, opens).await.map_err(|_| {
        ApiError::failed("the folder is not open yet", "dunlin status says why; it is tried again and again")
    })
}

/// The open folders whose directory is another one by now, and has their marker: brought back from a copy, or on a
/// disk that went and came again.
pub(super) fn replaced(shared: &Shared) -> Vec<Arc<Folder>> {
    let stands = |f: &Arc<Folder>| {
        let elsewhere = !f.site.disk.root_identity().is_ok_and(|held| held.in_place);
        let marker = crate::folder::lock(&f.config).marker();
        elsewhere && PosixDisk::open(&f.path).is_ok_and(|disk| root_trouble(&disk, &marker).is_none())
    };
    halted(shared).filter(stands).collect()
}

/// The open folders that are halted.
pub(super) fn halted(shared: &Shared) -> impl Iterator<Item = Arc<Folder>> {
    shared.folders().into_iter().filter(|f| f.pulse.borrow().halted.is_some())
}
