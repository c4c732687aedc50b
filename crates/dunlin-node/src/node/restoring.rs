//! Has something be again as it was.

use super::history::{Holders, VERIFIED, contents, relative, unknown, unread};
use super::settling::settled;
use super::verifying;
use crate::control::{AnyPath, ApiError, Problem, RestoreRequest, Restored};
use crate::engine::{Again, Input, Thing};
use crate::folder::Folder;
use dunlin_core::ids::ContentId;
use dunlin_core::journal::Journal;
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Unmet, Version, Which, choose, number_at, shown_at};
use dunlin_core::state::Content;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::block_in_place;

/// The fewest digits that name a version.
const DIGITS_MIN: usize = 4;

pub(super) async fn restore(folder: Arc<Folder>, request: RestoreRequest) -> Result<Restored, ApiError> {
    let path = relative(&request.path)?;
    let to = request.to.as_ref().map(relative).transpose()?;
    verifying::look(&folder).await?;
    // What vanished here and is held counts as being there: it would be taken for what is as it was.
    if let Some(held) = folder.undecided().filter(|_| to.is_none()) {
        return Err(held);
    }
    let which = block_in_place(|| which(&folder, &request))?;
    let meant = block_in_place(|| meant(&folder, &path, &which, to.as_ref().map(Some)))?;
    let wanted = contents(meant.iter().map(|v| &v.content));
    let said: BTreeSet<ContentId> = wanted.keys().filter(|id| folder.site.stage.keeps(id)).copied().collect();
    let held = Holders::ask(&folder, &wanted, VERIFIED, |here| !here).await;
    let can = |v: &Version| match &v.content {
        Content::File { id, .. } => held.has(id),
        _ => true,
    };
    let (things, lost): (Vec<Version>, Vec<Version>) = meant.into_iter().partition(can);
    let is_file = |v: &&Version| v.content != Content::Dir;
    if !things.iter().any(|v| is_file(&v)) && !lost.is_empty() {
        let is_damaged = |v: &Version| matches!(&v.content, Content::File { id, .. } if said.contains(id));
        return Err(if lost.iter().all(is_damaged) {
            damaged(&folder, &lost)
        } else {
            nobody(&folder, &lost)
        });
    }
    let bytes = room(&folder, things.iter().map(|v| &v.content))?;
    let things: Vec<Thing> = things.into_iter().map(|v| thing(v, &path, to.as_ref())).collect();
    let asked: Vec<(RelPath, Content)> = things.iter().map(|t| (t.path.clone(), t.content.clone())).collect();
    let made = again(&folder, Again::Make(things)).await?;
    let blocked = block_in_place(|| blocked(&folder, &asked, &made)).map_err(|e| unread(&e))?;
    let count = made.iter().filter(|m| **m).count();
    if count == 0 {
        return Err(match blocked.first() {
            Some(first) => in_the_way(first, blocked.len()),
            None => same(&path),
        });
    }
    let paths = asked.into_iter().zip(&made).filter(|(_, made)| **made).map(|((path, _), _)| path).collect();
    let problems = settled(&folder, paths).await?;
    Ok(Restored {
        restored: count.saturating_sub(problems.len()) as u64,
        bytes,
        to: None,
        lacking: lost.iter().map(|v| Folder::any_path(&v.path)).collect(),
        problems,
        blocked: blocked
            .into_iter()
            .map(|(path, why)| Problem { path: Folder::any_path(&path), why })
            .collect(),
    })
}

/// Of what was not made, that in whose way something is, and what.
fn blocked(folder: &Folder, asked: &[(RelPath, Content)], made: &[bool]) -> Read<Vec<(RelPath, String)>> {
    let snapshot = folder.site.store.snapshot()?;
    let mut out = Vec::new();
    for (path, content) in asked.iter().zip(made).filter(|(_, made)| !**made).map(|(asked, _)| asked) {
        let names = path.names();
        for n in 1..=names.len() {
            let above = RelPath::from(names[..n].to_vec());
            let Some((_, there)) = shown_at(&snapshot, &above)? else { break };
            // What it is as it was is in nobody's way.
            let fits = if n < names.len() { Content::Dir } else { content.clone() };
            if there.content != fits {
                out.push((path.clone(), format!("{above} is {} now", a(&there.content))));
                break;
            }
        }
    }
    Ok(out)
}

fn a(content: &Content) -> &'static str {
    match content {
        Content::Dir => "a directory",
        Content::Link(_) => "a link",
        _ => "a file",
    }
}

fn in_the_way((path, why): &(RelPath, String), count: usize) -> ApiError {
    let more = if count > 1 { format!(", nor can {} others be", count - 1) } else { String::new() };
    ApiError::failed(
        format!("nothing was changed: {path} cannot be restored, since {why}{more}"),
        "move that away and try again, or restore it elsewhere with --to PATH",
    )
}

fn same(path: &RelPath) -> ApiError {
    ApiError::failed(
        format!("{} is as it was", if path.is_root() { "the folder".into() } else { path.to_string() }),
        "dunlin history PATH lists other versions: --version ID or --at TIME takes one of them",
    )
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
    if let Some(number) = number_at(&snapshot, at).map_err(|e| unread(&e))? {
        return Ok(number);
    }
    let first = snapshot.moments().map_err(|e| unread(&e))?.first().map(|(_, moment)| moment.wall);
    let begins = first.map_or("nothing is known of earlier".to_owned(), |first| {
        let ago = folder.site.disk.now().secs.saturating_sub(first).max(0);
        let (ago, unit) = match ago {
            0..600 => (ago, "seconds"),
            600..36_000 => (ago / 60, "minutes"),
            36_000..864_000 => (ago / 3600, "hours"),
            _ => (ago / 86_400, "days"),
        };
        format!("it begins {ago} {unit} ago; the earliest time to give is @{first}")
    });
    Err(ApiError::failed(
        "the history on this device does not reach back that far",
        format!("{begins}; dunlin history lists what is known here; other devices may know more"),
    ))
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
    let chosen = choose(&snapshot, path, which, to.is_some()).map_err(|e| unread(&e))?;
    // What is held is not deleted yet.
    if let (Err(Unmet::Same | Unmet::Unknown), Some(held)) = (&chosen, folder.undecided()) {
        return Err(held);
    }
    match chosen {
        Ok(meant) => Ok(meant),
        Err(Unmet::Same) => Err(same(path)),
        Err(Unmet::Nothing) => Err(ApiError::failed(
            format!("nothing was at {path} then"),
            "dunlin history PATH lists what was there, and when it was changed",
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

pub(super) fn nobody(folder: &Folder, lost: &[Version]) -> ApiError {
    let which = match lost {
        [one] => format!("this version of {}", one.path),
        many => format!("any of these {} versions", many.len()),
    };
    ApiError::failed(
        format!("no connected device has {which} (any more)"),
        format!("{}; dunlin history PATH shows who has which version", connect(folder)),
    )
}

/// What the history says it has, and does not.
fn damaged(folder: &Folder, lost: &[Version]) -> ApiError {
    let ApiError { hint, .. } = nobody(folder, lost);
    let which = match lost {
        [one] => format!("what the history has of this version of {} is", one.path),
        many => format!("what the history has of these {} versions is", many.len()),
    };
    ApiError::failed(format!("nothing was changed: {which} damaged, and no connected device has it"), hint)
}

/// What to do about what nobody has who is connected.
pub(super) fn connect(folder: &Folder) -> String {
    match &folder.away()[..] {
        [] => "all devices are connected: it is gone, unless a backup has it".into(),
        away => {
            format!("connect a device that had it then, and try again (not connected: {})", away.join(", "))
        }
    }
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

/// Some paths, for people.
pub(super) fn shown(paths: &[RelPath]) -> Vec<AnyPath> {
    paths.iter().map(Folder::any_path).collect()
}
