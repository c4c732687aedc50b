//! Two connections of two devices at once, as when both dial: each side hears of them in an order of its own, and both
//! keep the same one, by the core's rule.

use super::{Event, Flock};
use crate::links::{Conn, End, MS, Time};
use dunlin_core::message::Message;
use dunlin_core::session::{Link, old_stays};

/// Connections that are younger than this may have crossed; as the program has it.
const CROSSING: Time = 4_000 * MS;
/// By then each side has decided, and been told.
const DECIDED: Time = 1_000 * MS;

/// What happens to connections that cross.
pub(crate) enum Crossing {
    /// One is made, to the eyes of this side; both programs were in these lives when it was dialled.
    Made { me: usize, you: usize, conn: Conn, lives: [u64; 2] },
    /// The other side closed it.
    Closed { me: usize, conn: u64, you: usize },
    /// Both sides have one, the same; unless they were parted since.
    Decided { a: usize, b: usize, over: u64 },
}

impl Flock {
    fn lives(&self, a: usize, b: usize) -> Option<[u64; 2]> {
        let life = |d: usize| self.devices[d].life.as_ref().map(|l| l.number);
        Some([life(a.min(b))?, life(a.max(b))?])
    }

    /// Both dial at once, whatever there was.
    pub(super) fn both_dial(&mut self, a: usize, b: usize) {
        let Some(lives) = self.lives(a, b) else { return };
        if self.is_of_twins(a, b) {
            // A third connection with the same key is more than is told apart here.
            return self.disconnect(a, b);
        }
        let pair = self.links.pair(a, b);
        if !pair.allowed || pair.dialling {
            return;
        }
        pair.dialling = true;
        self.disconnect(a, b);
        let since = self.now;
        for dialler in [a, b] {
            let conn = self.links.pair(a, b).conn(dialler, since);
            for (me, you) in [(a, b), (b, a)] {
                let after = MS + 2 * self.links.delay();
                self.later(after, Event::Crosses(Crossing::Made { me, you, conn, lives }));
            }
        }
        let over = self.links.pair(a, b).over;
        self.later(DECIDED, Event::Crosses(Crossing::Decided { a, b, over }));
    }

    pub(super) fn crosses(&mut self, crossing: Crossing) {
        match crossing {
            Crossing::Made { me, you, conn, lives } => {
                let pair = self.links.pair(me, you);
                let counts = pair.allowed && conn.number > pair.over;
                if counts && self.lives(me, you) == Some(lives) {
                    self.is_made(me, you, conn);
                }
            }
            Crossing::Closed { me, you, conn } => {
                self.links.side(me, you).closed.push(conn);
                if self.links.end(me, you).has(conn) {
                    *self.links.end(me, you) = End::default();
                    self.count_peers(me);
                    self.dial(me, you);
                }
            }
            Crossing::Decided { a, b, over } => {
                let pair = self.links.pair(a, b);
                pair.dialling = false;
                pair.sides = Default::default();
                let [one, other] = pair.ends.each_ref().map(|e| e.conn);
                let parted = pair.over != over;
                // The other copy of a machine took one's place, which its other side learns in a moment.
                let replaced = parted && self.is_of_twins(a, b);
                if (one != other && !replaced) || (one.is_none() && !parted) {
                    let what = format!("{a} and {b}: {one:?} | {other:?}");
                    self.breaks("of two connections both sides keep one", what);
                }
                self.dial(a, b);
            }
        }
    }

    fn is_made(&mut self, me: usize, you: usize, conn: Conn) {
        self.links.side(me, you).made.push(conn.number);
        let closed = self.links.side(me, you).closed.clone();
        let (now, ids) = (self.now, [me, you].map(|d| self.devices[d].id));
        let link = |conn: Conn| Link {
            dialler: if conn.dialler == me { ids[0] } else { ids[1] },
            // Both are of the same lives.
            nonce: 0,
            open: !closed.contains(&conn.number),
            crossing: now < conn.since + CROSSING,
        };
        if let Some(old) = self.links.end(me, you).conn {
            if old_stays(&link(old), &link(conn)) {
                return self.closes(me, you, conn.number);
            }
            self.closes(me, you, old.number);
        }
        self.note(|| format!("{me} has connection {} with {you}", conn.number));
        *self.links.end(me, you) = End::of(conn);
        let early = std::mem::take(&mut self.links.side(me, you).early);
        let (here, later): (Vec<_>, Vec<_>) =
            early.into_iter().partition(|(number, _)| *number == conn.number);
        self.links.side(me, you).early = later;
        for (number, message) in here {
            self.later(0, Event::Arrives { from: you, to: me, conn: number, message });
        }
        self.begins(me, you);
    }

    /// Keeps what arrives on a connection that this side has yet to hear of; else gives it back.
    pub(super) fn comes_early(
        &mut self,
        me: usize,
        you: usize,
        conn: u64,
        message: Message,
    ) -> Option<Message> {
        let pair = self.links.pair(me, you);
        let crosses = pair.dialling && conn > pair.over;
        let side = self.links.side(me, you);
        if !crosses || side.made.contains(&conn) {
            return Some(message);
        }
        side.early.push((conn, message));
        None
    }

    fn closes(&mut self, me: usize, you: usize, conn: u64) {
        self.note(|| format!("{me} closes connection {conn} with {you}"));
        let after = self.links.delay();
        self.later(after, Event::Crosses(Crossing::Closed { me: you, you: me, conn }));
    }
}
