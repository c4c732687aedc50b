//! How a run ended, for tests of one case: what every device holds when all is at rest.

use crate::disk::Thing;
use crate::flock::{Flock, Outcome};
use crate::script::Script;
use std::collections::BTreeMap;

/// A flock at rest.
#[derive(Clone, Debug)]
pub struct Rest {
    /// What each device shows, by its paths.
    pub trees: Vec<BTreeMap<String, Thing>>,
    /// Whether an invariant broke, and what it took.
    pub outcome: Outcome,
}

/// Runs a script until all is at rest and judged.
pub fn run(script: &Script) -> Rest {
    let flock = Flock::judged(script, None);
    let outcome = flock.outcome();
    let world = flock.shared.world();
    let visible = world.machines.iter().map(|m| m.disk.visible());
    let trees = visible.map(|tree| tree.into_iter().map(|(p, t)| (p.to_string(), t)).collect());
    Rest { trees: trees.collect(), outcome }
}
