//! What there was: the journal of this index, with who still has what it tells of.

use super::{Shared, verifying};
use crate::control::{ApiError, Fate, History, HistoryRequest, Item, Version as Told};
use crate::fetch::who_has;
use crate::folder::Folder;
use dunlin_core::ids::{ContentId, DeviceId, Dot};
use dunlin_core::journal::{Journal, Kind};
use dunlin_core::kv::{Fault, Read, View};
use dunlin_core::path::RelPath;
use dunlin_core::revert::{Version, versions};
use dunlin_core::state::Content;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::task::block_in_place;

/// The most versions told of at once.
const LIST_MAX: usize = 10_000;

/// What the journal cannot be read for, to whoever asked.
pub(super) fn unread(e: &Fault) -> ApiError {
    ApiError::failed(format!("the history cannot be read: {e}"), "dunlin status says more")
}

/// A path that was asked after, relative to the folder.
pub(super) fn relative(path: &crate::control::AnyPath) -> Result<RelPath, ApiError> {
    let wrong = |e: &dyn std::fmt::Display| {
        let shown = crate::control::Escaped(path.as_bytes()).to_string();
        ApiError::usage(
            format!("{shown} is no path in the folder: {e}"),
            "name it from the folder's root down",
        )
    };
    let path = match path.as_bytes() {
        [] => RelPath::root(),
        bytes => RelPath::parse(bytes).map_err(|e| wrong(&e))?,
    };
    if path.names().first().is_some_and(|n| n.as_bytes() == dunlin_core::path::CONTROL_DIR) {
        return Err(wrong(&"it is Dunlin's own"));
    }
    Ok(path)
}

/// What a change made of something, in the words of the API.
pub(super) fn fate(kind: Kind) -> Fate {
    match kind {
        Kind::Created => Fate::Created,
        Kind::Changed => Fate::Changed,
        Kind::Moved => Fate::Moved,
        Kind::Attributes => Fate::Attributes,
        Kind::Deleted => Fate::Deleted,
        Kind::Revived => Fate::Revived,
    }
}

/// The devices of a folder by their names.
pub(super) struct Names {
    own: (DeviceId, String),
    members: BTreeMap<DeviceId, String>,
}

impl Names {
    pub(super) fn new(shared: &Shared, folder: &Folder) -> Names {
        Names { own: (shared.device, shared.name.clone()), members: folder.members.borrow().clone() }
    }

    pub(super) fn of(&self, device: &DeviceId) -> String {
        if *device == self.own.0 {
            return self.own.1.clone();
        }
        self.members.get(device).cloned().unwrap_or_else(|| short(device))
    }

    /// Who made a change.
    pub(super) fn author(&self, view: &dyn View, dot: Dot) -> Read<String> {
        Ok(match view.device_of(dot.inc)? {
            Some(device) => self.of(&device),
            None => "a device not met yet".into(),
        })
    }

    /// The devices meant by a name or the beginning of an id.
    pub(super) fn find(&self, text: &str) -> Vec<DeviceId> {
        let all = self.members.iter().map(|(d, n)| (*d, n.as_str()));
        let all: Vec<(DeviceId, &str)> = all.filter(|(d, _)| *d != self.own.0).collect();
        let all = || all.iter().copied().chain([(self.own.0, self.own.1.as_str())]);
        let named: Vec<DeviceId> = all().filter(|(_, name)| *name == text).map(|(d, _)| d).collect();
        if !named.is_empty() || text.len() < 4 {
            return named;
        }
        all().filter(|(d, _)| d.to_string().starts_with(text)).map(|(d, _)| d).collect()
    }
}

fn short(device: &DeviceId) -> String {
    let mut id = device.to_string();
    id.truncate(8);
    id
}

/// Of some contents, those that this device has, and who else has which.
pub(super) struct Holders {
    pub here: BTreeSet<ContentId>,
    pub elsewhere: BTreeMap<ContentId, Vec<DeviceId>>,
}

/// So many bytes of the history are verified before anything is changed; of more it is found out meanwhile.
pub(super) const VERIFIED: u64 = 1 << 30;

impl Holders {
    pub(super) fn has(&self, content: &ContentId) -> bool {
        self.here.contains(content) || self.elsewhere.contains_key(content)
    }

    /// Asks this disk, and of what `others` says everybody who is connected. So many bytes of what only the history of this
    /// device has are verified.
    pub(super) async fn ask(
        folder: &Folder,
        contents: &BTreeMap<ContentId, u64>,
        mut verified: u64,
        others: impl Fn(bool) -> bool,
    ) -> Holders {
        let held =
            |(id, size): &(&ContentId, &u64)| **size == 0 || folder.site.has(id, **size, &mut verified);
        let here: BTreeSet<ContentId> =
            block_in_place(|| contents.iter().filter(held).map(|(id, _)| *id).collect());
        let asked: Vec<ContentId> = contents.keys().filter(|id| others(here.contains(id))).copied().collect();
        let mut elsewhere: BTreeMap<ContentId, Vec<DeviceId>> = BTreeMap::new();
        if !asked.is_empty() {
            for (device, held) in who_has(folder, &asked).await {
                for (id, _) in asked.iter().zip(held).filter(|(_, held)| *held) {
                    elsewhere.entry(*id).or_default().push(device);
                }
            }
        }
        Holders { here, elsewhere }
    }
}

/// The contents of some versions, with their sizes.
pub(super) fn contents<'a>(versions: impl IntoIterator<Item = &'a Content>) -> BTreeMap<ContentId, u64> {
    let file = |c: &Content| if let Content::File { id, size } = c { Some((*id, *size)) } else { None };
    versions.into_iter().filter_map(file).collect()
}

pub(super) async fn list(
    shared: &Shared,
    folder: &Arc<Folder>,
    request: &HistoryRequest,
) -> Result<History, ApiError> {
    let path = relative(&request.path)?;
    verifying::look(folder).await?;
    let limit = request.limit.min(LIST_MAX);
    let (mut newest, mut older) = (VecDeque::new(), 0);
    let snapshot = folder.site.store.snapshot().map_err(|e| unread(&e))?;
    let collect = |v: Version| {
        newest.push_front(v);
        if newest.len() > limit {
            newest.pop_back();
            older += 1;
        }
    };
    block_in_place(|| versions(&snapshot, &path, collect)).map_err(|e| unread(&e))?;
    let held = Holders::ask(folder, &contents(newest.iter().map(|v| &v.content)), 0, |_| true).await;
    let names = Names::new(shared, folder);
    let told = |v| tell(&snapshot, &names, &held, v);
    let versions = newest.iter().map(told).collect::<Read<Vec<Told>>>().map_err(|e| unread(&e))?;
    if versions.is_empty() && !path.is_root() {
        let there = dunlin_core::revert::shown_at(&snapshot, &path).map_err(|e| unread(&e))?;
        if there.is_none() {
            return Err(unknown(&path));
        }
    }
    Ok(History { versions, older })
}

/// Nothing is known of a path.
pub(super) fn unknown(path: &RelPath) -> ApiError {
    ApiError::failed(
        format!("nothing is known of {path}"),
        "dunlin history without a path lists what was changed or deleted, as far back as it is kept",
    )
}

fn tell(view: &dyn View, names: &Names, held: &Holders, v: &Version) -> Read<Told> {
    let (item, size, content) = match &v.content {
        Content::File { id, size } => (Item::File, *size, Some(*id)),
        Content::Link(text) => (Item::Link, text.len() as u64, None),
        _ => (Item::Directory, 0, None),
    };
    let holders = content.and_then(|id| held.elsewhere.get(&id)).into_iter().flatten();
    let mut devices: Vec<String> = holders.map(|d| names.of(d)).collect();
    // They answered in any order.
    devices.sort();
    Ok(Told {
        path: Folder::any_path(&v.path),
        was: v.was.as_ref().map(Folder::any_path),
        version: content.map(|id| id.to_string()[..16].to_owned()),
        item,
        size,
        modified: v.mtime.map(|t| t.secs),
        author: names.author(view, v.author)?,
        ended: view.moment_of(v.seq)?.map(|m| m.wall),
        by: names.author(view, v.by.0)?,
        fate: fate(v.by.1),
        here: content.is_none_or(|id| held.here.contains(&id)),
        devices,
    })
}
