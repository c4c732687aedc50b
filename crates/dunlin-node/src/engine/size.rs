//! How much an engine holds in memory between its rounds.

use super::Engine;

impl Engine {
    /// So many things are remembered: what is to be looked at, what is waited for, and what is in the way. At rest
    /// they are no more than there are things that are wrong.
    pub fn remembers(&self) -> usize {
        let looks = self.dirty.len() + self.dirs.len() + self.queued.len() + self.late_dirs.len();
        let doubted = self.absent.len() + self.restless.len() + self.vain.len() + self.unseen.len();
        let steps = self.fetching.len() + self.backoff.len() + self.kept.len() + self.let_go.len();
        let troubles = self.troubles.len() + self.unreadable.all().len() + self.in_the_way.len();
        let left = self.unshown.len() + self.damaged.len() + self.hidden.len() + self.barriers.len();
        looks + doubted + steps + troubles + left
    }
}
