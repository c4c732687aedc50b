//! Chance from a seed: the same numbers on every machine and in every version of every library.

/// A stream of random numbers (xoshiro256**), begun from a seed and the stream's name.
///
/// Each part of a run draws from a stream of its own, so that one more draw in one part leaves the
/// others as they were.
#[derive(Clone, Debug)]
pub struct Chance {
    state: [u64; 4],
}

/// One step of splitmix64: spreads what differs in a few bits over all of them.
fn spread(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    /// The stream called `stream` of `seed`.
    pub fn new(seed: u64, stream: &str) -> Chance {
        let mut mixed = seed;
        for byte in stream.bytes() {
            mixed = spread(&mut mixed) ^ u64::from(byte);
        }
        Chance { state: std::array::from_fn(|_| spread(&mut mixed)) }
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // It never ends, and is no iterator.
    pub fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The high half of a product is as even as a simulation needs, and has no division.
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n` times; never for 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// One of `from`, which must not be empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change() {
        let mut chance = Chance::new(7, "disk");
        let drawn: Vec<u64> = (0..3).map(|_| chance.next()).collect();
        assert_eq!(drawn, NUMBERS);
        assert_ne!(Chance::new(7, "disc").next(), NUMBERS[0]);
        assert_ne!(Chance::new(8, "disk").next(), NUMBERS[0]);
    }

    const NUMBERS: [u64; 3] = [1443125803965616550, 13371102869766215661, 3561256579751561849];

    #[test]
    fn it_is_the_published_generator() {
        let mut chance = Chance { state: [1, 2, 3, 4] };
        let drawn: Vec<u64> = (0..4).map(|_| chance.next()).collect();
        assert_eq!(drawn, [11520, 0, 1509978240, 1215971899390074240]);
    }

    #[test]
    fn every_number_below_comes_about_as_often() {
        let mut chance = Chance::new(1, "");
        let mut seen = [0; 6];
        for _ in 0..6000 {
            seen[chance.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert!(!chance.one_in(0) && chance.one_in(1));
        assert_eq!(*chance.pick(&[3]), 3);
    }
}
