//! What goes into an engine and what comes out of it: the seam to the rest of its device.

use super::Decided;
use super::history::{Again, Remade};
use crate::control::Change;
use crate::watch::Hint;
use dunlin_core::brake::{Held, Limits};
use dunlin_core::ids::{ContentId, DeviceId, DotRange, Incarnation};
use dunlin_core::journal::Kept;
use dunlin_core::life::Heard;
use dunlin_core::message::RowBytes;
use dunlin_core::path::RelPath;
use dunlin_core::plan::Fetch;
use dunlin_core::rows::{Position, Stamp, Totals};
use dunlin_core::session::{Receipt, Speaker, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// How a folder stands on this device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulse {
    /// The totals of its index.
    pub totals: Totals,
    /// Looking through the disk as a whole.
    pub scanning: bool,
    /// Changes on the disk are known of that are not in the index yet.
    pub dirty: bool,
    /// What stands in the way, counted.
    pub problems: u64,
    /// Stopped, and why.
    pub halted: Option<String>,
    /// The index cannot be used any more, and why.
    pub failed: Option<String>,
    /// Not everything can be watched: what changed since the last look is not known.
    pub unwatched: bool,
    /// Deletes are held until a person decides.
    pub brake: Option<Held>,
}

impl Pulse {
    /// Whether it is still being looked at what there is, or not at all.
    pub fn busy(&self) -> bool {
        self.scanning || self.dirty || self.halted.is_some() || self.failed.is_some() || self.brake.is_some()
    }

    /// How much is lacking, problems included.
    pub fn need(&self) -> u64 {
        self.totals.need_files + self.problems
    }

    /// The same, as peers are told.
    pub fn standing(&self) -> Standing {
        let held = self.brake.as_ref().is_some_and(Held::holds);
        Standing { digest: self.totals.digest, need: self.need(), busy: self.busy(), held }
    }
}

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// There is room for it, and its fetch goes on: no end, but of a problem.
    Begun,
    /// The content is staged.
    Staged,
    /// Nobody who is connected holds it.
    Nowhere,
    /// It could not be stored here.
    Failed(String),
}

/// Called once a barrier was passed.
pub type Passed = Box<dyn FnOnce() + Send>;

/// What reaches a folder's engine.
pub enum Input {
    /// Paths on which something happened.
    Hints(Vec<Hint>),
    /// A peer opened the exchange.
    Open {
        /// Which.
        from: Speaker,
        /// What it says it has of this index.
        heard: Heard,
        /// Other incarnations of it.
        own: Vec<Incarnation>,
    },
    /// A peer noted durably that it heard rows of this life: the first time over a connection.
    Noted {
        /// Which.
        from: DeviceId,
        /// What it had heard before, of the incarnation that it was told when the exchange was opened.
        before: Heard,
    },
    /// Rows of a peer.
    Rows {
        /// Whose.
        from: Speaker,
        /// The incarnation of this index that it was told when the exchange was opened.
        told: Incarnation,
        /// How far they reach in its sequence.
        upto: u64,
        /// Whether nothing more was there.
        last: bool,
        /// The rows.
        rows: Vec<RowBytes>,
    },
    /// Contents arrived, or not.
    Fetched(Vec<(ContentId, Fetched)>),
    /// A peer came or went: what failed for want of one may go now.
    Peers,
    /// A file was read again although its metadata say that it is what it was.
    Verified {
        /// Where it is.
        at: Position,
        /// Its metadata before and after it was read.
        stamp: Stamp,
        /// What it holds.
        found: ContentId,
    },
    /// Answered once everything that happened on the disk before is in the index.
    Barrier(Passed),
    /// Something is to be again as it was.
    Again(Again, Remade),
    /// Just these deletes were accepted by members.
    Released(Vec<DotRange>),
    /// A person decides about the deletes that the brake holds.
    Resume {
        /// They happen; else they are taken back.
        accept: bool,
        /// Called once that is in the index.
        decided: Decided,
    },
    /// A person says that the root, which is lost, will not come back.
    RootRemoved,
    /// The end.
    Stop,
}

/// What an engine tells the rest of its device, and asks of it.
pub trait Host: Send + Sync {
    /// A step was carried out.
    fn applied(&self, path: &RelPath, kind: Change);
    /// A conflict copy appeared.
    fn conflict(&self, path: &RelPath);
    /// Something stands in the way, for the first time.
    fn problem(&self, path: &RelPath, why: &str);
    /// Contents are lacking; each is answered with [`Input::Fetched`].
    fn want(&self, fetches: Vec<Fetch>);
    /// A small content that was here a moment ago, to be served even if the file changes again.
    fn recent(&self, content: ContentId, bytes: Vec<u8>);
    /// How the folder stands, and all that stands in the way, after each round.
    fn stands(&self, pulse: Pulse, problems: BTreeMap<RelPath, String>);
    /// Rows of a peer are committed.
    fn acknowledge(&self, device: DeviceId, receipt: Receipt);
    /// A peer does not keep to the protocol.
    fn refuse(&self, device: DeviceId, why: &str);
    /// The members that are connected.
    fn connected(&self) -> BTreeSet<DeviceId>;
    /// Whether these are all other members.
    fn is_everybody(&self, met: &BTreeSet<DeviceId>) -> bool;
    /// The tree of this disk and the members' are one now.
    fn united(&self);
    /// Whether a member that is connected holds something until a person decides.
    fn is_held_elsewhere(&self) -> bool {
        false
    }
    /// Whether this device has other folders.
    fn has_other_folders(&self) -> bool {
        false
    }
    /// Which of these contents came to other folders of this device since then, in seconds of the wall clock, or are about
    /// to.
    fn came_elsewhere(&self, _contents: &BTreeSet<ContentId>, _since: i64) -> BTreeSet<ContentId> {
        BTreeSet::new()
    }
    /// Deletes are held from now on; or none are any more.
    fn braked(&self, held: Option<&Held>);
    /// A person accepted these deletes: all members are to know. Durable when it returns; else why not.
    fn release(&self, accepted: &[DotRange]) -> Result<(), String>;
    /// The index goes on as another incarnation: all exchanges have to be opened anew.
    fn renewed(&self);
}

/// How an engine begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// The text of the marker in the folder's root.
    pub marker: String,
    /// Whether the folder has other members, whose tree may be waited for.
    pub others: bool,
    /// Whether it was joined and never united since.
    pub joining: bool,
    /// The device, and random bytes that were never used: of them a new incarnation is made, should the index
    /// turn out to be rolled back.
    pub fresh: (DeviceId, [u8; 16]),
    /// How much of the history is kept.
    pub history: Kept,
    /// When the brake trips.
    pub limits: Limits,
    /// The deletes that members accepted.
    pub released: Vec<DotRange>,
    /// The time.
    pub now: Instant,
}
