//! The brake: a mass delete halts before it spreads. What counts, when it trips, and what the index knows of it.
//! Time is told to it; it has no clock.
//!
//! A delete of a file or link counts while it is pending (found absent on this disk, or heard and not carried out
//! here) and for a minute after it was carried out, once for each file. Moves are no deletes. An edit that replaces a file counts the same way
//! where the history cannot keep what was there, and not where it can. What a person accepted does not count, and neither
//! does a file that was made on this disk, or heard of for the first time, less than a minute before: programs make many
//! and delete them. Nor does what git put into a pack.

use crate::ids::DotRange;
use alloc::vec::Vec;
use core::time::Duration;

mod done;
mod held;
mod moved;
mod packed;
mod replaced;
mod take_back;
mod young;

pub use done::Gone;
pub use held::{Absent, Held, absent_files, carried_out, counts, held, overwriting, pending, released};
pub use moved::{came, leaving};
pub use replaced::{History, Room, hull};

/// Deletes wait until none has come for so long.
pub const QUIET: Duration = Duration::from_millis(300);
/// … but no longer than this after the first.
pub const LONGEST: Duration = Duration::from_secs(2);
/// What vanished may turn up elsewhere for so long, even if other deletes have waited long enough.
pub const FRESH: Duration = Duration::from_millis(120);
/// Deletes within this time count together.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Deletes that were carried out are counted in steps of this.
const STEP: Duration = Duration::from_millis(500);
/// Fewer deletes than this part of those that trip the brake are carried out without waiting for more.
const FEW: u64 = 10;

/// When the brake trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// More than this share of the folder's files, in percent; 100 is never exceeded.
    pub percent: u8,
    /// … if there are at least so many deletes.
    pub files: u64,
    /// More deletes than this, whatever share they are.
    pub most: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { percent: 50, files: 100, most: None }
    }
}

/// When what comes bit by bit has come: after a quiet while, or when the first has waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    first: Duration,
    last: Duration,
}

impl Patience {
    /// Something came at `now`; `before` is what came before that and was not done with.
    #[must_use]
    pub fn since(before: Option<Patience>, now: Duration) -> Patience {
        Patience { first: before.map_or(now, |p| p.first), last: now }
    }

    /// When nothing more is waited for.
    pub fn due(&self) -> Duration {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

/// How many deletes of how many files tripped the brake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Deletes, pending and carried out.
    pub deletes: u64,
    /// Files here before the first of them.
    pub of: u64,
    /// Those that were carried out.
    pub done: u64,
    /// Files that are replaced, as far as that counts, pending and carried out.
    pub replaced: u64,
    /// Those that were.
    pub replaced_done: u64,
}

/// What counts at the brake of one folder.
#[derive(Clone, Debug)]
pub struct Brake {
    limits: Limits,
    done: done::Done,
    replaced: replaced::Replaced,
    young: young::Young,
    /// Since when too many are waited with, as some may have been moved to another folder.
    elsewhere: Option<Duration>,
}

impl Brake {
    /// A brake that has seen nothing.
    pub fn new(limits: Limits) -> Brake {
        let (done, replaced, young, elsewhere) = Default::default();
        Brake { limits, done, replaced, young, elsewhere }
    }

    /// Deletes of these files were carried out, by these changes.
    pub fn done(&mut self, now: Duration, gone: &Gone, changes: impl IntoIterator<Item = DotRange>) {
        self.done.add(now, gone, changes);
    }

    /// How it stands with `pending` deletes, not carried out yet, of `files` files that are here.
    pub fn count(&self, now: Duration, pending: u64, files: u64) -> Count {
        let done = self.done.files(now);
        Count { deletes: pending + done, of: files.max(pending) + done, done, ..Count::default() }
    }

    /// The same of deletes alone that were not carried out.
    pub fn alone(pending: u64, files: u64) -> Count {
        Count { deletes: pending, of: files.max(pending), ..Count::default() }
    }

    /// Whether so many deletes are too many to be carried out unasked.
    pub fn trips(&self, count: &Count) -> bool {
        let Limits { percent, files, most } = self.limits;
        let all = count.deletes.saturating_add(count.replaced);
        let share = u128::from(all) * 100 > u128::from(count.of) * u128::from(percent);
        let pending = count.deletes > count.done || count.replaced > count.replaced_done;
        pending && ((share && all >= files) || most.is_some_and(|most| all > most))
    }

    /// Whether so many pending deletes may be the first of too many, so that more are waited for.
    pub fn waits(&self, pending: u64) -> bool {
        let least = self.limits.most.map_or(self.limits.files, |most| most.min(self.limits.files));
        pending > 0 && pending >= least / FEW
    }

    /// The changes whose deletes were carried out in the last minute.
    pub fn changes(&self, now: Duration) -> Vec<DotRange> {
        self.done.changes(now)
    }

    /// A person has decided on all there was.
    pub fn clear(&mut self) {
        self.done = done::Done::default();
        self.forget_replaced();
    }

    /// What was replaced counts no more, and what the history has of it may yield.
    pub fn forget_replaced(&mut self) {
        self.replaced = replaced::Replaced::default();
    }
}

#[cfg(test)]
mod tests;
