//! The network: one connection at most between two devices, with delays, ends, silences and repetitions.

use crate::chance::Chance;
use dunlin_core::session::{Known, Outgoing, Speaker};

/// A moment of a run, in nanoseconds from its start.
pub type Time = u64;

/// A millisecond.
pub const MS: Time = 1_000_000;

/// One side of a connection.
#[derive(Default)]
pub struct End {
    /// What is to be said, once the other side opened the exchange.
    pub outgoing: Option<Outgoing>,
    /// What is known of the other side.
    pub known: Known,
    /// The other side, once it opened the exchange.
    pub from: Option<Speaker>,
    /// When the last message from here arrives: the next comes after it.
    last: Time,
    /// Messages that are under way from here.
    pub under_way: u32,
}

/// Two devices.
#[derive(Default)]
pub struct Pair {
    /// Connections can be made.
    pub allowed: bool,
    /// Nothing arrives, although both believe in the connection.
    pub silent: bool,
    /// A connection is there.
    pub up: bool,
    /// Which connection: messages of earlier ones do not arrive.
    pub epoch: u64,
    /// Somebody is dialling.
    pub dialling: bool,
    /// The sides; the smaller device first.
    pub ends: [End; 2],
}

/// All pairs.
pub struct Links {
    devices: usize,
    pairs: Vec<Pair>,
    chance: Chance,
}

impl Links {
    /// Connections between all devices are possible.
    pub fn new(devices: usize, seed: u64) -> Links {
        let pairs = (0..devices * devices).map(|_| Pair { allowed: true, ..Pair::default() }).collect();
        Links { devices, pairs, chance: Chance::new(seed, "network") }
    }

    fn number(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.devices + a.max(b)
    }

    /// Two devices.
    pub fn pair(&mut self, a: usize, b: usize) -> &mut Pair {
        let number = self.number(a, b);
        &mut self.pairs[number]
    }

    /// The side of `of` in its connection with `with`.
    pub fn end(&mut self, of: usize, with: usize) -> &mut End {
        &mut self.pair(of, with).ends[usize::from(of > with)]
    }

    /// Whether two devices are connected.
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        self.pairs[self.number(a, b)].up
    }

    /// Whether what is asked of a connected device is answered.
    pub fn answers(&self, a: usize, b: usize) -> bool {
        let pair = &self.pairs[self.number(a, b)];
        pair.up && !pair.silent
    }

    /// Connected devices of `of`.
    pub fn connected(&self, of: usize) -> Vec<usize> {
        (0..self.devices).filter(|&with| with != of && self.is_up(of, with)).collect()
    }

    /// What a device knows of another.
    pub fn known(&self, of: usize, with: usize) -> Known {
        self.pairs[self.number(of, with)].ends[usize::from(of > with)].known
    }

    /// Whether nothing is under way between two devices.
    pub fn is_still(&self, a: usize, b: usize) -> bool {
        self.pairs[self.number(a, b)].ends.iter().all(|e| e.under_way == 0)
    }

    /// How long something takes: mostly little.
    pub fn delay(&mut self) -> Time {
        let c = &mut self.chance;
        if c.one_in(20) { 5 * MS + c.below(120 * MS) } else { MS / 10 + c.below(2 * MS) }
    }

    /// When a message that is sent now arrives: after those before it.
    pub fn arrival(&mut self, now: Time, from: usize, to: usize) -> Time {
        let at = now + self.delay();
        let end = self.end(from, to);
        end.last = end.last.max(at) + 1;
        end.under_way += 1;
        end.last
    }

    /// Ends a connection; what was under way is lost.
    pub fn down(&mut self, a: usize, b: usize) {
        let pair = self.pair(a, b);
        pair.up = false;
        pair.silent = false;
        pair.epoch += 1;
        pair.ends = Default::default();
    }
}
