//! Where something is, or should be.

use crate::ids::NodeId;
use crate::path::Name;
use minicbor::{Decode, Encode};

/// A directory and a name in it: where something is, or should be, on the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Position {
    /// The directory.
    #[n(0)]
    pub dir: NodeId,
    /// The name in it.
    #[n(1)]
    pub name: Name,
}

impl Position {
    /// A directory and a name in it.
    pub fn new(dir: NodeId, name: Name) -> Position {
        Position { dir, name }
    }
}
