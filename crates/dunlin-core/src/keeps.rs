//! What the file system below a folder keeps of what it is given. What it drops, nobody changed.

use crate::state::Mtime;

/// What a file system keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// Permission bits. Where they are not kept, what a file shows as its mode is nobody's choice.
    pub modes: bool,
    /// Symbolic links.
    pub links: bool,
    /// The form of a name: whether accents are composed with their letters. Where it is not kept, a
    /// name is listed otherwise than it was given.
    pub forms: bool,
    /// Times, in steps of so many nanoseconds; 1 if they are kept as given.
    pub tick_ns: u64,
    /// A name can be taken without replacing what has it, and two can change places.
    pub renames: bool,
}

impl Default for Keeps {
    /// An ordinary file system keeps all of it.
    fn default() -> Keeps {
        Keeps { modes: true, links: true, forms: true, tick_ns: 1, renames: true }
    }
}

impl Keeps {
    /// Whether a time is kept as it was given.
    pub fn times(&self) -> bool {
        self.tick_ns <= 1
    }

    /// Whether `kept` may be what the file system made of `given`, in whatever way it rounds.
    pub fn may_be(&self, kept: Mtime, given: Mtime) -> bool {
        let ns = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
        kept == given || (!self.times() && (ns(kept) - ns(given)).abs() < i128::from(self.tick_ns))
    }

    /// A while in milliseconds in which two changes may get the same time: `least`, or a step of the clock.
    pub fn tick_ms(&self, least: u64) -> u64 {
        least.max(if self.times() { 0 } else { self.tick_ns.div_ceil(1_000_000) + 8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_time_is_the_one_that_was_given_and_another_is_not() {
        let at = |secs, nanos| Mtime { secs, nanos };
        let fat = Keeps { tick_ns: 2_000_000_000, ..Keeps::default() };
        for (keeps, kept, same) in [
            (Keeps::default(), at(7, 5), true),
            (Keeps::default(), at(7, 0), false),
            (fat, at(6, 0), true),
            (fat, at(8, 0), true),
            (fat, at(4, 0), false),
            (fat, at(10, 0), false),
        ] {
            assert_eq!(keeps.may_be(kept, at(7, 5)), same, "{kept:?}");
        }
        assert_eq!((Keeps::default().tick_ms(12), fat.tick_ms(12)), (12, 2008));
    }
}
