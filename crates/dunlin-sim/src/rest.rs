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
    /// How many rows of its index each device's program read until then.
    pub reads: Vec<u64>,
    /// How many commits each made.
    pub commits: Vec<u64>,
    /// Whether an invariant broke, and what it took.
    pub outcome: Outcome,
}

/// Runs a script until all is at rest, and has it judged after that: judging may go on with other changes.
pub fn run(script: &Script) -> Rest {
    let mut flock = Flock::played(script, None);
    let at_rest = !flock.is_broken() && flock.rest();
    let visible: Vec<_> = flock.shared.world().machines.iter().map(|m| m.disk.visible()).collect();
    let reads = flock.shared.world().machines.iter().map(|m| m.index.reads()).collect();
    let commits = flock.shared.world().machines.iter().map(|m| m.index.commits()).collect();
    let trees = visible.into_iter().map(|tree| tree.into_iter().map(|(p, t)| (p.to_string(), t)).collect());
    if at_rest {
        flock.judge();
    }
    Rest { trees: trees.collect(), reads, commits, outcome: flock.outcome() }
}
