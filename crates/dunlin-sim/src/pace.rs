//! How fast seeds are run: by the time that processors spent on them, which does not depend on what else they did.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Times some threads that run seeds.
pub struct Pace {
    begun: Instant,
    /// Nanoseconds of processors.
    spent: AtomicU64,
}

impl Pace {
    /// They begin.
    pub fn begin() -> Pace {
        Pace { begun: Instant::now(), spent: AtomicU64::new(0) }
    }

    /// To be called by each thread at its end: counts all that it did since it was started.
    pub fn thread_ends(&self) {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs();
        self.spent.fetch_add(nanos, Ordering::Relaxed);
    }

    /// In words, of so many seeds.
    pub fn of(&self, seeds: u64) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let spent = self.spent.load(Ordering::Relaxed) as f64 / 1e9;
        let rate = seeds as f64 / spent;
        format!("{seconds:.1} s, {spent:.1} s of processors: {rate:.0} seeds a second of a core")
    }
}
