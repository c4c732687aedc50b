//! Has something be again as it was.

use super::history::{Holders, contents, relative, unknown, unread};
use super::verifying;
use crate::control::{AnyPath, ApiError, Problem, RestoreRequest, Restored};
use crate::engine::{Again, Input, Thing};
use crate::folder::{Folder, lock};
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Unmet, Version, Which, choose, number_at, shown_at};
use dunlin_core::rows::Rows;
use dunlin_core::state::Content;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::block_in_place;

/// The fewest digits that name a version.
const DIGITS_MIN: usize = 4;

pub(super) async fn restore(folder: Arc<Folder>, request: RestoreRequest) -> Result<Restored, ApiError> {
    let path = relative(&request.path)?;
    let to = request.to.as_ref().map(relative).transpose()?;
    verifying::look(&folder).await?;
    let which = block_in_place(|| which(&folder, &request))?;
    let meant = block_in_place(|| meant(&folder, &path, &which, to.as_ref().map(Some)))?;
    let held = Holders::ask(&folder, &contents(meant.iter().map(|v| &v.content)), |here| !here).await;
    let can = |v: &Version| match &v.content {
        Content::File { id, .. } => held.has(id),
        _ => true,
    };
    let (things, lost): (Vec<Version>, Vec<Version>) = meant.into_iter().partition(can);
    let is_file = |v: &&Version| v.content != Content::Dir;
    if !things.iter().any(|v| is_file(&v)) && !lost.is_empty() {
        return Err(nobody(&lost));
    }
    let bytes = room(&folder, things.iter().map(|v| &v.content))?;
    let things: Vec<Thing> = things.into_iter().map(|v| thing(v, &path, to.as_ref())).collect();
    let paths: Vec<RelPath> = things.iter().map(|t| t.path.clone()).collect();
    let made = again(&folder, Again::Make(things)).await?;
    let problems = settled(&folder, paths).await?;
    Ok(Restored {
        restored: made.iter().filter(|m| **m).count() as u64,
        bytes,
        lacking: lost.iter().map(|v| Folder::any_path(&v.path)).collect(),
        problems,
    })
}

pub(super) fn which(folder: &Folder, request: &RestoreRequest) -> Result<Which, ApiError> {
    if let Some(digits) = &request.version {
        let digits = digits.to_ascii_lowercase();
        if digits.len() < DIGITS_MIN || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ApiError::usage(
                "a version is named by 4 or more hexadecimal digits",
                "dunlin history PATH lists the versions",
            ));
        }
        return Ok(Which::Content(digits));
    }
    match request.at {
        Some(at) => Ok(Which::Before(number(folder, at)?)),
        None => Ok(Which::Newest),
    }
}

/// The number of the first change after a time.
pub(super) fn number(folder: &Folder, at: i64) -> Result<u64, ApiError> {
    let snapshot = folder.site.store.snapshot().map_err(|e| unread(&e))?;
    number_at(&snapshot, at).map_err(|e| unread(&e))?.ok_or_else(|| {
        ApiError::failed(
            "the history on this device does not reach back that far",
            "dunlin history lists what is known, and since when",
        )
    })
}

/// The versions that are meant; `to` is where else they are to be: in the folder, or outside.
pub(super) fn meant(
    folder: &Folder,
    path: &RelPath,
    which: &Which,
    to: Option<Option<&RelPath>>,
) -> Result<Vec<Version>, ApiError> {
    let snapshot = folder.site.store.snapshot().map_err(|e| unread(&e))?;
    if let Some(Some(to)) = to
        && shown_at(&snapshot, to).map_err(|e| unread(&e))?.is_some()
    {
        return Err(ApiError::failed(
            format!("{to} is there already"),
            "name a place where nothing is, or remove what is there first",
        ));
    }
    match choose(&snapshot, path, which, to.is_some()).map_err(|e| unread(&e))? {
        Ok(meant) => Ok(meant),
        Err(Unmet::Same) => Err(ApiError::failed(
            format!("{} is as it was", if path.is_root() { "the folder".into() } else { path.to_string() }),
            "dunlin history PATH lists other versions: --version ID or --at TIME takes one of them",
        )),
        Err(Unmet::Ambiguous(all)) => Err(ApiError::failed(
            format!("several versions begin like that: {}", all.join(", ")),
            "give more digits",
        )),
        Err(Unmet::Unknown) if matches!(which, Which::Content(_)) => Err(ApiError::failed(
            format!("no such version of {path} is known (any more)"),
            "dunlin history PATH lists the versions",
        )),
        Err(Unmet::Unknown) => Err(unknown(path)),
    }
}

pub(super) fn nobody(lost: &[Version]) -> ApiError {
    let which = match lost {
        [one] => format!("this version of {}", one.path),
        many => format!("any of these {} versions", many.len()),
    };
    ApiError::failed(
        format!("no connected device has {which} (any more)"),
        "connect a device that had it then, and try again; dunlin history PATH shows who has which version",
    )
}

/// The bytes of some contents, if there is room for them. What the history of this device holds needs none: where there
/// is too little, it is moved from there.
pub(super) fn room<'a>(folder: &Folder, all: impl Iterator<Item = &'a Content>) -> Result<u64, ApiError> {
    let size = |c: &Content| if let Content::File { size, .. } = c { Some(*size) } else { None };
    let all: Vec<&Content> = all.collect();
    let bytes = all.iter().filter_map(|c| size(c)).sum();
    let others = all.iter().filter(|c| size(c).is_none()).count() as u64;
    let comes = |c: &&&Content| !matches!(c, Content::File { id, .. } if folder.site.stage.keeps(id));
    let free = block_in_place(|| {
        let files = all.iter().filter(comes).filter_map(|c| size(c));
        folder.site.stage.has_room(files, others)
    });
    let full = |why: &dyn std::fmt::Display| {
        ApiError::failed(format!("nothing was changed: {why}"), "make room on the disk, and try again")
    };
    free.map_err(|e| full(&e))?.map_err(|e| full(&e))?;
    Ok(bytes)
}

fn thing(v: Version, from: &RelPath, to: Option<&RelPath>) -> Thing {
    let path = match to {
        None => v.path,
        Some(to) => {
            let below = &v.path.names()[from.names().len()..];
            to.names().iter().chain(below).cloned().collect::<Vec<_>>().into()
        }
    };
    Thing { path, content: v.content, mode: v.mode, mtime: v.mtime }
}

/// Has the engine do it; says what of it changed something.
pub(super) async fn again(folder: &Folder, what: Again) -> Result<Vec<bool>, ApiError> {
    let (done, told) = oneshot::channel();
    // Who asked may have gone by then.
    folder.tell(Input::Again(what, Box::new(move |made| done.send(made).unwrap_or_default()))).await;
    let stopped = |why: &dyn std::fmt::Display| {
        ApiError::failed(format!("nothing was changed: {why}"), "dunlin status says more")
    };
    told.await.map_err(|_| stopped(&"the folder has stopped"))?.map_err(|e| stopped(&e))
}

/// Waits until what shows at these paths is on the disk, or cannot be put there now; says what cannot.
pub(super) async fn settled(folder: &Folder, mut paths: Vec<RelPath>) -> Result<Vec<Problem>, ApiError> {
    let (mut pulse, mut problems) = (folder.pulse.subscribe(), Vec::new());
    loop {
        pulse.mark_unchanged();
        let now = folder.pulse.borrow().clone();
        if let Some(why) = now.halted.or(now.failed) {
            return Err(ApiError::failed(format!("the folder is halted: {why}"), "dunlin status says more"));
        }
        let check = || -> Read<()> {
            let snapshot = folder.site.store.snapshot()?;
            while let Some(path) = paths.last() {
                let lacking = match shown_at(&snapshot, path)? {
                    Some((node, _)) => snapshot.need(node)?.is_some(),
                    None => false,
                };
                let why = lock(&folder.problems).get(path).cloned();
                match (lacking, why) {
                    (true, None) => return Ok(()),
                    (true, Some(why)) => problems.push(Problem { path: Folder::any_path(path), why }),
                    (false, _) => {}
                }
                paths.pop();
            }
            Ok(())
        };
        block_in_place(check).map_err(|e| unread(&e))?;
        if paths.is_empty() || pulse.changed().await.is_err() {
            return Ok(problems);
        }
    }
}

/// Some paths, for people.
pub(super) fn shown(paths: &[RelPath]) -> Vec<AnyPath> {
    paths.iter().map(Folder::any_path).collect()
}
