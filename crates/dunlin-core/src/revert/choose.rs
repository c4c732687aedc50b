//! Which of the versions there were is meant.

use super::then::Then;
use super::{Version, shown_at, versions};
use crate::ids::NodeId;
use crate::journal::{Journal, Kind, Moment};
use crate::kv::{Read, View};
use crate::names::Wanted;
use crate::path::RelPath;
use crate::rows::Rows;
use crate::state::Content;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Which versions of what is at and below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of a file or link, the newest that differs from what is there, under whatever name; of a directory, all that was deleted in it.
    Newest,
    /// What was there before the change of this number.
    Before(u64),
    /// The file whose content's name begins like this.
    Content(String),
}

/// Why no version is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// Nothing is known of the path.
    Unknown,
    /// What is there is as it was.
    Same,
    /// Nothing was there then.
    Nothing,
    /// Several contents begin like this.
    Ambiguous(Vec<String>),
}

/// The number of the first change after a time; `None` if the history of this index begins later. A clock that was
/// set back may have had the same time twice: the later one is meant. What was recorded before that counts as being as long
/// before what came after it as the program ran between the two, at least.
pub fn number_at(view: &dyn View, wall: i64) -> Read<Option<u64>> {
    let mut later: Option<Moment> = None;
    for (seq, mut moment) in view.moments()?.into_iter().rev() {
        if let Some(later) = later.filter(|later| moment.wall > later.wall) {
            let between = later.running.saturating_sub(moment.running);
            moment.wall = later.wall.saturating_sub_unsigned(between);
        }
        if moment.wall <= wall {
            return Ok(Some(seq + 1));
        }
        later = Some(moment);
    }
    Ok(None)
}

/// The versions that are meant, by path: directories before what is in them. For a copy elsewhere what
/// was the same then counts, too.
pub fn choose(
    view: &dyn View,
    path: &RelPath,
    which: &Which,
    copy: bool,
) -> Read<Result<Vec<Version>, Unmet>> {
    let Met { met, known } = match gather(view, path, which)? {
        Ok(met) => met,
        Err(unmet) => return Ok(Err(unmet)),
    };
    let mut out = Vec::new();
    for version in met.into_values() {
        let there = shown_at(view, &version.path)?.map(|(_, w)| w.content);
        let differs = there.as_ref() != Some(&version.content);
        let below = version.path != *path;
        // In a directory what is there now stays, unless a time was named.
        let stays = *which == Which::Newest && below && there.is_some();
        let is_dir_there = there == Some(Content::Dir) && version.content == Content::Dir;
        let all = copy && *which != Which::Newest;
        if all || (differs && !stays && !is_dir_there) {
            out.push(version);
        }
    }
    // Of a path that was a file and a directory at times, the newest counts.
    if out.iter().any(|v| v.path == *path && v.content != Content::Dir) && out.len() > 1 {
        let newest = out.iter().max_by_key(|v| v.seq).is_some_and(|v| v.path == *path);
        out.retain(|v| (v.path == *path) == newest);
    }
    if out.is_empty() {
        return Ok(Err(if known { Unmet::Same } else { Unmet::Unknown }));
    }
    Ok(Ok(out))
}

fn by_path(all: Vec<Version>) -> impl Iterator<Item = (RelPath, Version)> {
    all.into_iter().map(|v| (v.path.clone(), v))
}

/// Versions by path, and whether anything at all is known there.
struct Met {
    met: BTreeMap<RelPath, Version>,
    known: bool,
}

fn gather(view: &dyn View, path: &RelPath, which: &Which) -> Read<Result<Met, Unmet>> {
    let mut met: BTreeMap<RelPath, Version> = BTreeMap::new();
    let there = shown_at(view, path)?;
    let shows = there.is_some();
    let mut known = shows;
    // A directory is as it was by what is in it.
    let file = there.as_ref().map(|(_, w)| &w.content).filter(|content| **content != Content::Dir);
    let differs = |v: &Version| file != Some(&v.content);
    match which {
        Which::Newest => {
            let mut away = None;
            versions(view, path, |mut v| {
                known = true;
                let itself = v.path == *path;
                // What it was under another name, and not what was here.
                let renamed = v.was.is_some() && v.here.is_none();
                if itself && !renamed {
                    away = (v.content == Content::Dir && v.by.1 == Kind::Moved).then_some(v.seq);
                }
                // Where directories are by now, unless just the place of then was asked for.
                if let Some(here) = v.here.take() {
                    v.path = here;
                }
                // Where it went it still is: only what was named itself is made a second time.
                let meant = if itself { differs(&v) } else { v.by.1 == Kind::Deleted && !renamed };
                if meant {
                    met.insert(v.path.clone(), v);
                }
            })?;
            // A directory is what was in it.
            if let Some(seq) = away.filter(|_| !shows) {
                met.extend(by_path(Then::before(view, seq)?.tree(path)?));
            }
        }
        Which::Before(seq) => {
            let then = Then::before(view, *seq)?;
            let mut all = then.tree(path)?;
            if all.is_empty() {
                all = renamed(view, &then, path, there)?;
            }
            if all.is_empty() && !path.is_root() {
                versions(view, path, |_| known = true)?;
                return Ok(Err(if known { Unmet::Nothing } else { Unmet::Unknown }));
            }
            known = true;
            met.extend(by_path(all));
        }
        Which::Content(begins) => {
            let mut contents = BTreeSet::new();
            versions(view, path, |v| {
                known = true;
                if let Content::File { id, .. } = &v.content
                    && id.to_string().starts_with(begins.as_str())
                {
                    contents.insert(id.to_string());
                    met.insert(path.clone(), v);
                }
            })?;
            if contents.len() > 1 {
                return Ok(Err(Unmet::Ambiguous(contents.into_iter().collect())));
            }
            if contents.is_empty() {
                return Ok(Err(Unmet::Unknown));
            }
        }
    }
    Ok(Ok(Met { met, known }))
}

/// What was under another name then, and is at a path now or was when it was deleted.
fn renamed(
    view: &dyn View,
    then: &Then<'_>,
    path: &RelPath,
    there: Option<(NodeId, Wanted)>,
) -> Read<Vec<Version>> {
    if let Some((node, w)) = there {
        return then.tree_of(node, Some(w), path);
    }
    let mut ended = None;
    versions(view, path, |v| {
        if v.path == *path && v.was.is_none() && v.by.1 == Kind::Deleted {
            ended = Some(v.node);
        }
    })?;
    match ended {
        // It may have come back elsewhere.
        Some(node) if view.node(node)?.is_none_or(|row| !row.state.alive()) => then.tree_of(node, None, path),
        _ => Ok(Vec::new()),
    }
}
