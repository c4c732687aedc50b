//! The network: what each of two devices has for their connection, with delays, ends, silences, cuts in one direction,
//! and connections that cross.

use crate::chance::Chance;
use dunlin_core::message::Message;
use dunlin_core::session::{Known, Outgoing, Speaker};

/// A moment of a run, in nanoseconds from its start.
pub type Time = u64;

/// A millisecond.
pub const MS: Time = 1_000_000;

/// A connection, as one side has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Which: messages of others do not arrive.
    pub number: u64,
    /// Who dialled.
    pub dialler: usize,
    /// When it was made.
    pub since: Time,
}

/// One side of a connection.
#[derive(Default)]
pub struct End {
    /// The connection that counts for this side. For moments the other one may have another one, or none.
    pub conn: Option<Conn>,
    /// Nothing of the other side arrives here, and nobody is told.
    pub deaf: bool,
    /// What is to be said, once the other side opened the exchange.
    pub outgoing: Option<Outgoing>,
    /// What is known of the other side.
    pub known: Known,
    /// The other side, once it opened the exchange.
    pub from: Option<Speaker>,
    /// Whether the other side said that it heard this life.
    pub noted: bool,
    /// When the last message from here arrives: the next comes after it.
    last: Time,
    /// Messages that are under way from here.
    pub under_way: u32,
}

/// What one side knows of connections that cross.
#[derive(Default)]
pub struct Side {
    /// Those that it heard of.
    pub made: Vec<u64>,
    /// Those that the other side closed.
    pub closed: Vec<u64>,
    /// What came on those that it did not hear of yet.
    pub early: Vec<(u64, Message)>,
}

/// Two devices.
#[derive(Default)]
pub struct Pair {
    /// Connections can be made.
    pub allowed: bool,
    /// Nothing arrives, although both believe in the connection.
    pub silent: bool,
    /// The number of the last connection.
    pub last: u64,
    /// Connections up to this one are over, even if a side has yet to hear of them.
    pub over: u64,
    /// What each side knows of connections that cross.
    pub sides: [Side; 2],
    /// Somebody is dialling.
    pub dialling: bool,
    /// The sides; the smaller device first.
    pub ends: [End; 2],
}

impl Pair {
    /// Whether any side has a connection.
    pub fn is_any(&self) -> bool {
        self.ends.iter().any(|e| e.conn.is_some())
    }

    /// Whether this connection counts for any side.
    pub fn has(&self, number: u64) -> bool {
        self.ends.iter().any(|e| e.has(number))
    }

    /// A new connection.
    pub fn conn(&mut self, dialler: usize, since: Time) -> Conn {
        self.last += 1;
        Conn { number: self.last, dialler, since }
    }
}

impl End {
    /// The beginning of a connection.
    pub fn of(conn: Conn) -> End {
        End { conn: Some(conn), ..End::default() }
    }

    /// Whether this connection counts for this side.
    pub fn has(&self, number: u64) -> bool {
        self.conn.is_some_and(|c| c.number == number)
    }
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

    /// What `of` knows of connections with `with` that cross.
    pub fn side(&mut self, of: usize, with: usize) -> &mut Side {
        &mut self.pair(of, with).sides[usize::from(of > with)]
    }

    /// The side of `of` in its connection with `with`.
    pub fn end(&mut self, of: usize, with: usize) -> &mut End {
        &mut self.pair(of, with).ends[usize::from(of > with)]
    }

    /// Whether a device has a connection to another one.
    pub fn is_up(&self, of: usize, with: usize) -> bool {
        self.pairs[self.number(of, with)].ends[usize::from(of > with)].conn.is_some()
    }

    /// Whether what is asked of a connected device is answered.
    pub fn answers(&self, a: usize, b: usize) -> bool {
        let pair = &self.pairs[self.number(a, b)];
        let [one, other] = &pair.ends;
        one.conn.is_some() && one.conn == other.conn && !pair.silent && !one.deaf && !other.deaf
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
        pair.silent = false;
        pair.over = pair.last;
        pair.sides = Default::default();
        pair.ends = Default::default();
    }
}
