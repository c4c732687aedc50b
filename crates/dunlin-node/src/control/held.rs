//! The types of what a folder holds until a person decides, and of that.

use super::{AnyPath, FolderSpec};
use serde::{Deserialize, Serialize};

/// Deletes and edits that a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// How many files were deleted within a minute, those included that were carried out.
    pub deleted: u64,
    /// How many were overwritten, as far as that counts.
    pub overwritten: u64,
    /// Of how many.
    pub of: u64,
    /// Who deleted how many, as far as it is known.
    pub whose: Vec<Deleter>,
}

/// A device that deleted some of what is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleter {
    /// Its name.
    pub device: String,
    /// It is this device.
    pub here: bool,
    /// How many files.
    pub files: u64,
}

/// `POST /v1/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// The deletes happen; else they are taken back.
    pub accept: bool,
}

/// What became of deletes and edits that were held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The folder's id.
    pub folder: String,
    /// Where it is, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
    /// They happen; else they are taken back.
    pub accepted: bool,
    /// How many files that is about.
    pub files: u64,
    /// Those of them that were not deleted but overwritten.
    #[serde(default)]
    pub overwritten: u64,
}
