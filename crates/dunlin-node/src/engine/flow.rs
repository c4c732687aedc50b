//! What keeps a plan cheap while much comes in: it looks at what is at hand now, and not each time at all that is lacking.

use super::planning::STEPS_MAX;
use dunlin_core::ids::NodeId;
use dunlin_core::plan::Step;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Things in each other's way are looked for again after so long for each thing that is lacking, while contents come
/// in: it takes time in that proportion.
const UNTANGLE_EACH: Duration = Duration::from_micros(500);

/// What was learnt by the last plans.
#[derive(Default)]
pub(super) struct Flow {
    /// Nodes whose contents were staged and not placed yet.
    pub staged: BTreeSet<NodeId>,
    untangles: Option<Instant>,
    /// When a plan is due for what may be in each other's way.
    pub due: Option<Instant>,
}

impl Flow {
    pub fn may_untangle(&self, now: Instant) -> bool {
        self.untangles.is_some_and(|at| now >= at)
    }

    /// A plan was made. `tangled`: something may be in each other's way, and that was not looked for.
    pub fn planned(
        &mut self,
        steps: &[Step],
        skip: &BTreeSet<NodeId>,
        now: Instant,
        tangled: bool,
        lacking: u64,
    ) {
        let was_due = self.may_untangle(now);
        if steps.is_empty() && (!tangled || self.untangles.is_none() || was_due) {
            let each = u32::try_from(lacking).unwrap_or(u32::MAX);
            self.untangles = Some(now + UNTANGLE_EACH.saturating_mul(each));
        }
        self.due = self.untangles.filter(|_| tangled);
        if steps.len() < STEPS_MAX {
            // What was not planned is met in the queue as anything else.
            let planned: BTreeSet<NodeId> = steps.iter().map(|s| s.node).collect();
            self.staged.retain(|node| planned.contains(node) || skip.contains(node));
        }
    }

    /// Nothing is lacking.
    pub fn rests(&mut self) {
        *self = Flow::default();
    }
}
