//! The types of what is asked of the history: what there was, having it again, taking changes back.

use super::{AnyPath, FolderSpec};
use serde::{Deserialize, Serialize};

/// `POST /v1/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// What is asked after, with all below it: relative to the folder, empty for all of it.
    #[serde(flatten)]
    pub path: AnyPath,
    /// The most versions to tell of, the newest.
    #[serde(default = "many")]
    pub limit: usize,
}

fn many() -> usize {
    1000
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was made.
    Created,
    /// It holds something else.
    Changed,
    /// It is elsewhere.
    Moved,
    /// Its mode or time differ.
    Attributes,
    /// It is gone.
    Deleted,
    /// It is there again.
    Revived,
}

/// What was at a path until it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Where it was, or where what it belongs to is, or was last, of what was asked after: relative to the folder.
    #[serde(flatten)]
    pub path: AnyPath,
    /// Where it was then, if that is another path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<AnyPath>,
    /// Of a file, by which it is named: the first 16 digits of the BLAKE3 hash of its bytes.
    pub version: Option<String>,
    /// What it was.
    pub item: Item,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time, in seconds since 1970, if it was a file.
    pub modified: Option<i64>,
    /// The device that wrote it.
    pub author: String,
    /// When it was changed, in seconds since 1970 by the clock of this device.
    pub ended: Option<i64>,
    /// The device that changed it.
    pub by: String,
    /// What became of it.
    pub fate: Fate,
    /// Whether this device still has it.
    pub here: bool,
    /// The connected devices that still have it.
    pub devices: Vec<String>,
}

/// The history of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Versions, the newest first.
    pub versions: Vec<Version>,
    /// How many older ones there are.
    pub older: u64,
}

/// `POST /v1/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// What is to be again as it was, with all below it: relative to the folder.
    #[serde(flatten)]
    pub path: AnyPath,
    /// As it was then, in seconds since 1970.
    #[serde(default)]
    pub at: Option<i64>,
    /// The version, by the first digits of its name.
    #[serde(default)]
    pub version: Option<String>,
    /// Where it is to be instead of where it was: relative to the folder.
    #[serde(default)]
    pub to: Option<AnyPath>,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Files, links and directories that are there again.
    pub restored: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Where they are, as a whole path: of several, the directory. The command says it; in an answer of a node there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<AnyPath>,
    /// What no connected device has any more.
    pub lacking: Vec<AnyPath>,
    /// What could not be put in place, and why: it is tried again as long as the node runs.
    pub problems: Vec<super::Problem>,
    /// What was not restored since something else is in its way, and what: nothing more is tried.
    #[serde(default)]
    pub blocked: Vec<super::Problem>,
}

/// `POST /v1/undo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// Everything since then, in seconds since 1970; else the last mass change.
    #[serde(default)]
    pub since: Option<i64>,
    /// Nothing that was done after then, in seconds since 1970; only with `since`.
    #[serde(default)]
    pub until: Option<i64>,
    /// What was made stays; only with `since`.
    #[serde(default)]
    pub keep_new: bool,
    /// Only what this device did, by its name or the beginning of its id.
    #[serde(default)]
    pub by: Option<String>,
    /// Do what can be done, though some of it is held by nobody connected.
    #[serde(default)]
    pub partial: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// One thing taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Where it was; of what was made, where it is.
    #[serde(flatten)]
    pub path: AnyPath,
    /// What had become of it.
    pub fate: Fate,
    /// The device that had done it.
    #[serde(default)]
    pub by: String,
    /// When, in seconds since 1970 by the clock of this device.
    #[serde(default)]
    pub at: Option<i64>,
}

/// What the device whose mass change is meant did about that time, and is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// What it changed, and is left as it is.
    pub left: Vec<AnyPath>,
    /// How many things it made; they stay.
    pub made: u64,
    /// How many of the things that are taken back it had changed before that, too: they come back as they were in between.
    #[serde(default)]
    pub before: u64,
    /// How many seconds before that the first of those changes was.
    #[serde(default)]
    pub before_s: u64,
    /// The command that takes all of that back, too; with `--keep-new` what was made stays.
    pub command: String,
}

/// What was, or would be, taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The device that had done it, if it was one.
    pub by: Option<String>,
    /// When it was done, in seconds since 1970 by the clock of this device: the first and the last of it.
    pub between: Option<(i64, i64)>,
    /// How many things are taken back.
    pub count: u64,
    /// Bytes of the files that come back.
    pub bytes: u64,
    /// The things, the first of them.
    pub things: Vec<Undo>,
    /// How many there are of each fate.
    pub fates: Vec<(Fate, u64)>,
    /// How many of them each device had done.
    #[serde(default)]
    pub whose: Vec<(String, u64)>,
    /// What was changed since by something else, and is left as it is.
    pub left: Vec<AnyPath>,
    /// What no connected device has any more.
    pub lacking: Vec<AnyPath>,
    /// If something is lacking: the command that takes the rest back later, and nothing else.
    #[serde(default)]
    pub rest: Option<String>,
    /// What else was done about the time of a mass change, and is left as it is.
    #[serde(default)]
    pub beside: Option<Beside>,
    /// What is taken back had brought back what was there before, as an undo does: that goes again.
    #[serde(default)]
    pub brought_back: bool,
    /// What could not be put in place, and why: it is tried again as long as the node runs.
    pub problems: Vec<super::Problem>,
    /// Whether it was done, not just said.
    pub done: bool,
}
