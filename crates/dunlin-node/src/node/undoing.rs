//! Takes changes back.

use super::Shared;
use super::history::{Holders, Names, fate, unread};
use super::restoring::{again, number, room, settled, shown};
use super::verifying;
use crate::control::{ApiError, Fate, Undo, UndoRequest, Undone};
use crate::engine::Again;
use crate::folder::Folder;
use dunlin_core::ids::Incarnation;
use dunlin_core::journal::{Journal, Kind};
use dunlin_core::kv::{Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Back, MASS, PAUSE, Selection, last_burst, last_of_each, select};
use dunlin_core::state::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::block_in_place;

/// The most things named one by one.
const NAMED_MAX: usize = 10_000;

struct Meant {
    by: Option<String>,
    between: Option<(i64, i64)>,
    back: Vec<Back>,
    left: Vec<RelPath>,
}

pub(super) async fn undo(
    shared: &Shared,
    folder: Arc<Folder>,
    request: UndoRequest,
) -> Result<Undone, ApiError> {
    verifying::look(&folder).await?;
    let names = Names::new(shared, &folder);
    let Meant { by, between, back, left } = block_in_place(|| meant(&folder, &names, &request))?;
    let wanted: BTreeMap<_, _> = back.iter().filter_map(|b| b.content).collect();
    let held = Holders::ask(&folder, &wanted, |here| !here).await;
    let can = |b: &Back| b.content.is_none_or(|(id, _)| held.has(&id));
    let (back, lost): (Vec<Back>, Vec<Back>) = back.into_iter().partition(can);
    let lost: Vec<RelPath> = lost.into_iter().map(|b| b.path).collect();
    // Bare directories are of no use to anybody.
    if back.iter().all(|b| b.content.is_none() && b.kind == Kind::Deleted) && !lost.is_empty() {
        return Err(ApiError::failed(
            format!(
                "no connected device has what it takes to undo this: {} files are held by none",
                lost.len()
            ),
            "connect a device that had them then, and try again",
        ));
    }
    let contents: Vec<Content> =
        back.iter().filter_map(|b| b.content.map(|(id, size)| Content::File { id, size })).collect();
    let bytes = room(&folder, contents.iter())?;
    let mut fates: BTreeMap<Fate, u64> = BTreeMap::new();
    for b in &back {
        *fates.entry(fate(b.kind)).or_default() += 1;
    }
    let named = |b: &Back| Undo { path: Folder::any_path(&b.path), fate: fate(b.kind) };
    let mut out = Undone {
        by,
        between,
        count: back.len() as u64,
        bytes,
        things: back.iter().take(NAMED_MAX).map(named).collect(),
        fates: fates.into_iter().collect(),
        left: shown(&left),
        lacking: shown(&lost),
        problems: Vec::new(),
        done: false,
    };
    if request.dry_run || back.is_empty() {
        return Ok(out);
    }
    let paths: Vec<RelPath> = back.iter().map(|b| b.path.clone()).collect();
    let changed = again(&folder, Again::Back(back)).await?;
    let meanwhile = paths.iter().zip(&changed).filter(|(_, changed)| !**changed).map(|(p, _)| p.clone());
    out.left.extend(shown(&meanwhile.collect::<Vec<_>>()));
    out.count = changed.iter().filter(|c| **c).count() as u64;
    out.problems = settled(&folder, paths).await?;
    out.done = true;
    Ok(out)
}

fn meant(folder: &Folder, names: &Names, request: &UndoRequest) -> Result<Meant, ApiError> {
    let snapshot = folder.site.store.snapshot().map_err(|e| unread(&e))?;
    let by = request.by.as_deref().map(|who| authors(&snapshot, names, who)).transpose()?;
    let least = if by.is_some() { 1 } else { MASS };
    let selection = match request.since {
        Some(since) => Some(Selection { from: number(folder, since)?, to: u64::MAX, by, kinds: None }),
        None => {
            let found = last_burst(&snapshot, least, PAUSE, by.as_ref()).map_err(|e| unread(&e))?;
            found.map(|burst| burst.selection)
        }
    };
    let nothing = || {
        ApiError::failed(
            "there is nothing to undo",
            "dunlin undo --since TIME takes back all that was changed since then; dunlin history lists it",
        )
    };
    let selection = selection.ok_or_else(nothing)?;
    let least = request.since.is_none().then_some(least);
    let (undo, by, between) = read(&snapshot, names, &selection, least).map_err(|e| unread(&e))?;
    if undo.back.is_empty() && undo.changed_since.is_empty() {
        return Err(nothing());
    }
    Ok(Meant { by, between, back: undo.back, left: undo.changed_since })
}

type Found = (dunlin_core::revert::Undo, Option<String>, Option<(i64, i64)>);

fn read(view: &dyn View, names: &Names, selection: &Selection, least: Option<usize>) -> Read<Found> {
    let mut undo = select(view, selection)?;
    if let Some(least) = least {
        undo.back = last_of_each(view, selection, undo.back, least)?;
    }
    let first = undo.back.iter().map(|b| b.seq).min();
    let last = undo.back.iter().map(|b| b.last).max();
    let mut who = BTreeSet::new();
    for inc in selection.by.iter().flatten() {
        who.extend(view.device_of(*inc)?);
    }
    let by = match (who.len(), who.first()) {
        (1, Some(device)) => Some(names.of(device)),
        _ => None,
    };
    let at = |seq: Option<u64>| seq.map(|s| view.moment_of(s)).transpose().map(Option::flatten);
    let between = at(first)?.zip(at(last)?).map(|(a, b)| (a.wall, b.wall));
    Ok((undo, by, between))
}

/// The incarnations of the device meant by a name or the beginning of an id.
fn authors(view: &dyn View, names: &Names, who: &str) -> Result<BTreeSet<Incarnation>, ApiError> {
    const SEE: &str = "dunlin status lists the devices of the folder";
    let escaped = crate::control::Escaped(who.as_bytes()).to_string();
    match names.find(who)[..] {
        [device] => view.incarnations_of(device).map_err(|e| unread(&e)),
        [] => Err(ApiError::failed(format!("no device is called {escaped}"), SEE)),
        _ => Err(ApiError::failed(
            format!("several devices are called {escaped}"),
            "use the first digits of its id",
        )),
    }
}
