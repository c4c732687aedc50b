//! Takes changes back.

use super::Shared;
use super::history::{Holders, Names, VERIFIED, fate, unread};
use super::restoring::{again, connect, number, room, shown};
use super::settling::settled;
use super::verifying;
use crate::control::{ApiError, Beside, Fate, Undo, UndoRequest, Undone};
use crate::engine::Again;
use crate::folder::Folder;
use dunlin_core::ids::{Dot, Incarnation, NodeId};
use dunlin_core::journal::{Journal, Kind};
use dunlin_core::kv::{Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::revert::{
    self, Back, MASS, PAUSE, Selection, last_burst, last_of_each, path_of_state, select,
};
use dunlin_core::rows::Rows;
use dunlin_core::state::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::block_in_place;

/// The most things named one by one.
const NAMED_MAX: usize = 10_000;
/// Changes read at a time.
const PAGE: usize = 1024;
/// The most named in an error.
const LISTED: usize = 3;

struct Meant {
    by: Option<String>,
    between: Option<(i64, i64)>,
    back: Vec<Back>,
    left: Vec<RelPath>,
    /// Of each of `back` who did it and when.
    blame: BTreeMap<u64, (String, Option<i64>)>,
    /// The command that takes back the same once more, and nothing else.
    again: String,
    /// What the same device did about that time, and is left as it is.
    beside: Option<Beside>,
    /// It brought back what was there before, as an undo does.
    brought_back: bool,
}

pub(super) async fn undo(
    shared: &Shared,
    folder: Arc<Folder>,
    request: UndoRequest,
) -> Result<Undone, ApiError> {
    verifying::look(&folder).await?;
    // What is held is not done yet: what was done before that would be taken back.
    if let Some(held) = folder.undecided() {
        return Err(held);
    }
    // So it is where another device holds it, unless it is said what is meant.
    if let Some(held) = folder.undecided_elsewhere().filter(|_| request.since.is_none()) {
        return Err(held);
    }
    let names = Names::new(shared, &folder);
    let Meant { by, between, back, left, blame, again: rest, beside, brought_back } =
        block_in_place(|| meant(&folder, &names, &request))?;
    let wanted: BTreeMap<_, _> = back.iter().filter_map(|b| b.content).collect();
    let held = Holders::ask(&folder, &wanted, VERIFIED, |here| !here).await;
    let can = |b: &Back| b.content.is_none_or(|(id, _)| held.has(&id));
    let all = back.len();
    let (mut back, lost): (Vec<Back>, Vec<Back>) = back.into_iter().partition(can);
    let lost: Vec<RelPath> = lost.into_iter().map(|b| b.path).collect();
    // What is in the place of something stays there as long as that cannot come back.
    let awaited: BTreeSet<&RelPath> = lost.iter().collect();
    back.retain(|b| b.kind != Kind::Created || !awaited.contains(&b.path));
    // Bare directories are of no use to anybody.
    let useless = back.iter().all(|b| b.content.is_none() && b.kind == Kind::Deleted);
    if !lost.is_empty() && !request.dry_run && (useless || !request.partial) {
        return Err(lacking(&folder, &lost, all, useless));
    }
    let contents: Vec<Content> =
        back.iter().filter_map(|b| b.content.map(|(id, size)| Content::File { id, size })).collect();
    let bytes = room(&folder, contents.iter())?;
    let mut out = Undone {
        by,
        between,
        count: back.len() as u64,
        bytes,
        things: Vec::new(),
        fates: Vec::new(),
        whose: Vec::new(),
        left: shown(&left),
        lacking: shown(&lost),
        rest: (!lost.is_empty()).then_some(rest),
        beside,
        brought_back,
        problems: Vec::new(),
        done: false,
    };
    tell(&mut out, &back, &blame);
    if request.dry_run || back.is_empty() {
        return Ok(out);
    }
    let paths: Vec<RelPath> = back.iter().map(|b| b.path.clone()).collect();
    let changed = again(&folder, Again::Back(back)).await?;
    let meanwhile = paths.iter().zip(&changed).filter(|(_, changed)| !**changed).map(|(p, _)| p.clone());
    out.left.extend(shown(&meanwhile.collect::<Vec<_>>()));
    out.count = changed.iter().filter(|c| **c).count() as u64;
    if out.count == 0 {
        return Err(ApiError::failed(
            format!("nothing was taken back: {} was changed meanwhile", some(&paths)),
            "dunlin undo --dry-run says what it would take back now",
        ));
    }
    out.problems = settled(&folder, paths).await?;
    out.done = true;
    Ok(out)
}

/// What is taken back, thing by thing, and whose it was.
fn tell(out: &mut Undone, back: &[Back], blame: &BTreeMap<u64, (String, Option<i64>)>) {
    let (mut fates, mut whose) = (BTreeMap::<Fate, u64>::new(), BTreeMap::<&str, u64>::new());
    for b in back {
        let (by, at) = blame.get(&b.seq).map_or(("", None), |(by, at)| (by.as_str(), *at));
        *fates.entry(fate(b.kind)).or_default() += 1;
        *whose.entry(by).or_default() += 1;
        if out.things.len() < NAMED_MAX {
            out.things.push(Undo { path: Folder::any_path(&b.path), fate: fate(b.kind), by: by.into(), at });
        }
    }
    out.fates = fates.into_iter().collect();
    out.whose = whose.into_iter().map(|(by, n)| (by.to_owned(), n)).collect();
}

/// Nothing is taken back, since some of it is held by nobody connected.
fn lacking(folder: &Folder, lost: &[RelPath], all: usize, useless: bool) -> ApiError {
    let what = format!(
        "nothing was changed: {} of {all} that would come back are held by no connected device ({})",
        lost.len(),
        some(lost)
    );
    let partial = if useless { "" } else { "; dunlin undo --partial takes back what can be now" };
    ApiError::failed(what, format!("{}{partial}", connect(folder)))
}

/// The first of some paths.
fn some(paths: &[RelPath]) -> String {
    let some: Vec<String> = paths.iter().take(LISTED).map(ToString::to_string).collect();
    format!("{}{}", some.join(", "), if paths.len() > LISTED { ", …" } else { "" })
}

/// Of all that is meant nothing is as it was made then.
fn overtaken(
    folder: &Folder,
    view: &dyn View,
    request: &UndoRequest,
    selection: &Selection,
    left: &[RelPath],
) -> Read<ApiError> {
    let (count, some) = (left.len(), some(left));
    if select(view, &Selection::since(selection.from))?.back.is_empty() {
        return Ok(ApiError::failed(
            format!("there is nothing to undo: what was changed then is as it was before ({count}: {some})"),
            "it was taken back already; dunlin history lists what was done",
        ));
    }
    let begins = view.moment_of(selection.from)?.map(|m| m.wall - 1);
    let since = request.since.or(begins).unwrap_or_default();
    Ok(ApiError::failed(
        format!("nothing is taken back: all that was changed then was changed since ({count}: {some})"),
        format!(
            "dunlin undo {} --since @{since} takes back whatever was changed since then, by any device",
            folder.in_commands()
        ),
    ))
}

fn meant(folder: &Folder, names: &Names, request: &UndoRequest) -> Result<Meant, ApiError> {
    let snapshot = folder.site.store.snapshot().map_err(|e| unread(&e))?;
    let by = request.by.as_deref().map(|who| authors(&snapshot, names, who)).transpose()?;
    let least = if by.is_some() { 1 } else { MASS };
    let (mut beside, mut brought_back) = (None, false);
    let selection = match request.since {
        Some(since) => {
            let to = request.until.map_or(Ok(u64::MAX), |until| number(folder, until))?;
            let begins = snapshot.moments().map_err(|e| unread(&e))?.first().map(|(_, m)| m.wall);
            let from = match number(folder, since) {
                // Nothing was recorded between the two.
                Err(_) if begins.is_some_and(|begins| since >= begins - 1) => 0,
                // Before the history began there was nothing, and of that nothing is taken back.
                Err(_) if request.keep_new && request.until.is_some() => 0,
                from => from?,
            };
            Some(Selection { to, by, kinds: request.keep_new.then(kept_new), ..Selection::since(from) })
        }
        None if request.until.is_some() || request.keep_new => {
            return Err(ApiError::usage(
                "--until and --keep-new go with --since",
                "dunlin undo --since TIME --until TIME",
            ));
        }
        None => {
            let found = last_burst(&snapshot, least, PAUSE, by.as_ref()).map_err(|e| unread(&e))?;
            found.map(|burst| {
                beside = Some(burst.beside);
                brought_back = burst.brought_back;
                burst.selection
            })
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
    let mut meant = read(&snapshot, names, &selection, least).map_err(|e| unread(&e))?;
    if meant.back.is_empty() && meant.left.is_empty() {
        return Err(nothing());
    }
    if meant.back.is_empty() {
        let why = overtaken(folder, &snapshot, request, &selection, &meant.left);
        return Err(why.unwrap_or_else(|e| unread(&e)));
    }
    meant.brought_back = brought_back;
    meant.again = rest(folder, &snapshot, request, &selection, &meant).map_err(|e| unread(&e))?;
    if let Some(some) = beside {
        meant.beside =
            left_beside(folder, &snapshot, &selection, some, &meant.back).map_err(|e| unread(&e))?;
    }
    Ok(meant)
}

/// All kinds of changes but those that make something.
fn kept_new() -> BTreeSet<Kind> {
    [Kind::Changed, Kind::Moved, Kind::Attributes, Kind::Deleted, Kind::Revived].into()
}

/// The command that takes back the same once more: what was taken back by then is left as it is.
fn rest(
    folder: &Folder,
    view: &dyn View,
    request: &UndoRequest,
    selection: &Selection,
    meant: &Meant,
) -> Read<String> {
    let (first, last) = meant.between.unwrap_or_default();
    let since = request.since.unwrap_or(first - 1);
    let kept = if request.keep_new || request.since.is_none() { " --keep-new" } else { "" };
    let whose = whose(view, selection)?;
    Ok(format!("dunlin undo {} --since @{since} --until @{last}{kept}{whose}", folder.in_commands()))
}

/// What a burst leaves as it is, of what the same device did about the time.
fn left_beside(
    folder: &Folder,
    view: &dyn View,
    selection: &Selection,
    beside: revert::Beside,
    back: &[Back],
) -> Read<Option<Beside>> {
    let goes_back: BTreeSet<NodeId> = back.iter().map(|b| b.node).collect();
    let mut left = Vec::new();
    for node in &beside.things {
        if let Some(row) = view.node(*node)? {
            left.extend(path_of_state(view, &row.state)?);
        }
    }
    let made = beside.made.difference(&goes_back).count() as u64;
    let at = |seq: u64| Read::Ok(view.moment_of(seq)?.map(|m| m.wall));
    let Some((first, last)) = at(beside.between.0)?.zip(at(beside.between.1)?) else { return Ok(None) };
    let before = beside.earlier.intersection(&goes_back).count() as u64;
    if left.is_empty() && made == 0 && before == 0 {
        return Ok(None);
    }
    left.sort();
    let whose = whose(view, selection)?;
    let since = first.min(last) - 1;
    let command = format!("dunlin undo {} --since @{since} --until @{last}{whose}", folder.in_commands());
    Ok(Some(Beside { left: shown(&left), made, before, before_s: beside.earlier_by, command }))
}

/// What of a command says whose changes are meant.
fn whose(view: &dyn View, selection: &Selection) -> Read<String> {
    let mut who = BTreeSet::new();
    for inc in selection.by.iter().flatten() {
        who.extend(view.device_of(*inc)?);
    }
    Ok(match (who.len(), who.first()) {
        (1, Some(device)) => format!(" --by {}", &device.to_string()[..8]),
        _ => String::new(),
    })
}

/// Who made of each thing what it is now, and when; by the number of the change that is taken back first.
fn blame(view: &dyn View, names: &Names, back: &[Back]) -> Read<BTreeMap<u64, (String, Option<i64>)>> {
    let of: BTreeMap<NodeId, &Back> = back.iter().map(|b| (b.node, b)).collect();
    let mut made: BTreeMap<u64, (u64, Dot)> = BTreeMap::new();
    let mut from = back.iter().map(|b| b.seq).min().unwrap_or(u64::MAX);
    loop {
        let page = view.changes(from, u64::MAX, PAGE)?;
        let Some((end, _)) = page.last() else { break };
        from = end + 1;
        for (seq, row) in page {
            let Some(b) = of.get(&row.node).filter(|b| seq >= b.seq) else { continue };
            // Of what one edited and another deleted then, the delete is what counts.
            if seq == b.seq || row.kind == b.kind {
                made.insert(b.seq, (seq, row.by));
            }
        }
    }
    let mut out = BTreeMap::new();
    for (first, (seq, by)) in made {
        out.insert(first, (names.author(view, by)?, view.moment_of(seq)?.map(|m| m.wall)));
    }
    Ok(out)
}

fn read(view: &dyn View, names: &Names, selection: &Selection, least: Option<usize>) -> Read<Meant> {
    let mut undo = select(view, selection)?;
    if let Some(least) = least {
        undo.back = last_of_each(view, selection, undo.back, least)?;
    }
    let last = undo.back.iter().map(|b| b.last.min(selection.to.saturating_sub(1))).max();
    let at = |seq: u64| Read::Ok(view.moment_of(seq)?.map(|m| m.wall));
    let blame = blame(view, names, &undo.back)?;
    let who: BTreeSet<&String> = blame.values().map(|(by, _)| by).collect();
    let by = who.first().filter(|_| who.len() == 1).map(|by| (*by).clone());
    let first = undo.back.iter().map(|b| b.seq).min();
    let between = first.map(at).transpose()?.flatten().zip(last.map(at).transpose()?.flatten());
    let (back, left) = (undo.back, undo.changed_since);
    Ok(Meant { by, between, back, left, blame, again: String::new(), beside: None, brought_back: false })
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
