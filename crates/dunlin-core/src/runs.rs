//! Which runs of a device's program said hello, and how they tell that it runs twice at once: its state
//! directory was copied, with its key, and both copies are at work. Each would give numbers that the other gives
//! too, so both are to stop.

use alloc::vec::Vec;

/// So many runs are remembered of a device.
const RUNS_MAX: usize = 16;
/// So often a run has to come back after another one had taken its place. Once could be a hello that a killed
/// run had sent just before, and twice that of its other dial.
const RETURNS: u8 = 3;

/// The runs of one device's program, as its hellos tell them apart: each draws a nonce when it starts.
///
/// A run ends before the next begins, since a state directory is locked. So one that is heard of again after
/// another was heard of never ended, unless its hello was on the way.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    now: Option<u64>,
    /// Runs that another one took the place of, the oldest first.
    over: Vec<u64>,
    returned: u8,
    /// Runs that are not heard any more, since they ran beside each other.
    stopped: Vec<u64>,
}

impl Runs {
    /// A run says hello. `false`: it runs beside another one, and has to be told so.
    pub fn hello(&mut self, nonce: u64) -> bool {
        if self.stopped.contains(&nonce) {
            return false;
        }
        if self.now == Some(nonce) {
            return true;
        }
        if self.over.contains(&nonce) {
            self.over.retain(|n| *n != nonce);
            self.returned += 1;
        } else {
            // A start, after whatever was the matter.
            self.returned = 0;
        }
        self.over.extend(self.now.replace(nonce));
        if self.over.len() > RUNS_MAX {
            self.over.remove(0);
        }
        if self.returned < RETURNS {
            return true;
        }
        // Not the earlier ones: they may be long over, and then it does not matter.
        self.stopped = self.over.pop().into_iter().chain([nonce]).collect();
        (self.now, self.returned) = (None, 0);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(nonces: &[u64]) -> Vec<bool> {
        let mut runs = Runs::default();
        nonces.iter().map(|n| runs.hello(*n)).collect()
    }

    #[test]
    fn two_runs_that_take_turns_are_both_refused_and_a_start_is_welcome() {
        let mut runs = Runs::default();
        let turns: Vec<bool> = [1, 2, 1, 2, 1].map(|n| runs.hello(n)).to_vec();
        assert_eq!(turns, [true, true, true, true, false]);
        assert!(!runs.hello(1) && !runs.hello(2), "for good");
        // One of them is started again, alone.
        assert!(runs.hello(3) && runs.hello(3) && !runs.hello(2) && runs.hello(3));
        // The other one as well.
        assert_eq!([4, 3, 4, 3].map(|n| runs.hello(n)), [true, true, true, false]);
        assert!(!runs.hello(4));
    }

    #[test]
    fn restarts_and_hellos_that_come_late_are_no_second_run() {
        assert!(heard(&(0..1_000).collect::<Vec<_>>()).iter().all(|welcome| *welcome));
        assert!(heard(&[1, 1, 1, 1, 1, 1]).iter().all(|welcome| *welcome));
        // Killed as both sides dialled: each of the two hellos comes after one of the next run.
        assert!(heard(&[1, 2, 1, 2, 1 + 2, 2 + 2]).iter().all(|welcome| *welcome));
        assert!(heard(&[0, 1, 2, 1, 2]).iter().all(|welcome| *welcome));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut runs = Runs::default();
        for nonce in 0..10_000 {
            runs.hello(nonce);
            runs.hello(nonce / 2);
        }
        assert!(runs.over.len() <= RUNS_MAX && runs.stopped.len() <= 2, "{runs:?}");
    }
}
