//! The types of what is handed out to be put outside the folder: by whoever asks, since it is theirs then.

use super::{AnyPath, FolderSpec, Item};
use serde::{Deserialize, Serialize};
use std::io;
use tokio::sync::mpsc;

/// One thing of what `POST /v1/versions` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Where it was, relative to what was asked for: empty for that itself.
    #[serde(flatten)]
    pub path: AnyPath,
    /// What it was.
    pub item: Item,
    /// Of a file, the BLAKE3 hash of its bytes in hexadecimal digits.
    pub content: Option<String>,
    /// Of a file, its size in bytes.
    pub size: u64,
    /// Of a symbolic link, where it leads.
    pub link: Option<AnyPath>,
    /// Its permission bits.
    pub mode: Option<u16>,
    /// Of a file, its modification time: seconds since 1970 and nanoseconds.
    pub modified: Option<(i64, u32)>,
    /// The devices that have it, by their ids; this one first, if it has.
    pub holders: Vec<String>,
}

/// What was found, directories before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOut {
    /// The things.
    pub things: Vec<Handed>,
}

/// `POST /v1/content`: the bytes of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// The BLAKE3 hash of the bytes, in hexadecimal digits.
    pub content: String,
    /// How many bytes.
    pub size: u64,
    /// The device they are to come from, by its id.
    pub from: String,
}

/// The bytes of one version as they come, none of them verified; an error ends them.
pub type Bytes = mpsc::Receiver<io::Result<Vec<u8>>>;
