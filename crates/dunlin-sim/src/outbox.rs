//! What an engine tells its device, collected for the flock to carry out.

use dunlin_core::brake::Held;
use dunlin_core::ids::{ContentId, DeviceId, DotRange};
use dunlin_core::path::RelPath;
use dunlin_core::plan::Fetch;
use dunlin_core::session::Receipt;
use dunlin_node::control::Change;
use dunlin_node::engine::{Host, Pulse};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Small contents that are remembered to be served after the file changed again.
const RECENT: usize = 16;

/// What was told since it was last looked at.
#[derive(Default)]
pub struct Told {
    /// Contents that are lacking.
    pub wants: Vec<Fetch>,
    /// Peers whose rows are committed, and what they are told of it.
    pub acks: Vec<(DeviceId, Receipt)>,
    /// Peers that do not keep to the protocol.
    pub refused: Vec<(DeviceId, String)>,
    /// Paths that were changed by the program.
    pub applied: Vec<RelPath>,
    /// How the folder stands.
    pub pulse: Pulse,
    /// Whether that changed.
    pub changed: bool,
    /// What stands in the way.
    pub problems: BTreeMap<RelPath, String>,
    /// Contents that were here a moment ago.
    pub recent: VecDeque<(ContentId, Vec<u8>)>,
    /// Contents that came with rows.
    pub carried: VecDeque<(ContentId, Vec<u8>)>,
    /// The members that are connected.
    pub connected: BTreeSet<DeviceId>,
    /// The other members.
    pub others: BTreeSet<DeviceId>,
    /// The index goes on as another incarnation.
    pub renewed: bool,
    /// Deletes that a person accepted here.
    pub releases: Vec<DotRange>,
    /// Whether the trees were united in this life.
    pub united: bool,
}

/// The host of one engine.
#[derive(Default)]
pub struct Outbox(Mutex<Told>);

impl Outbox {
    /// What was told.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// A content came with rows.
    pub fn carries(&mut self, content: ContentId, bytes: Vec<u8>) {
        self.carried.push_back((content, bytes));
        while self.carried.len() > RECENT {
            self.carried.pop_front();
        }
    }
}

impl Host for Outbox {
    fn applied(&self, path: &RelPath, _: Change) {
        self.told().applied.push(path.clone());
    }

    fn conflict(&self, _: &RelPath) {}

    fn problem(&self, _: &RelPath, _: &str) {}

    fn want(&self, fetches: Vec<Fetch>) {
        self.told().wants.extend(fetches);
    }

    fn recent(&self, content: ContentId, bytes: Vec<u8>) {
        let mut told = self.told();
        told.recent.push_back((content, bytes));
        while told.recent.len() > RECENT {
            told.recent.pop_front();
        }
    }

    fn stands(&self, pulse: Pulse, problems: BTreeMap<RelPath, String>) {
        let mut told = self.told();
        told.changed |= told.pulse != pulse;
        told.pulse = pulse;
        told.problems = problems;
    }

    fn acknowledge(&self, device: DeviceId, receipt: Receipt) {
        self.told().acks.push((device, receipt));
    }

    fn refuse(&self, device: DeviceId, why: &str) {
        self.told().refused.push((device, why.into()));
    }

    fn connected(&self) -> BTreeSet<DeviceId> {
        self.told().connected.clone()
    }

    fn is_everybody(&self, met: &BTreeSet<DeviceId>) -> bool {
        self.told().others.is_subset(met)
    }

    fn braked(&self, _: Option<&Held>) {}

    fn release(&self, accepted: &[DotRange]) -> Result<(), String> {
        self.told().releases.extend(accepted);
        Ok(())
    }

    fn renewed(&self) {
        self.told().renewed = true;
    }

    fn united(&self) {
        self.told().united = true;
    }
}
