//! What two devices say to each other of one folder, and when; and which of two connections between
//! them stays. One side's part of the exchange, without sockets or clocks.

use crate::codec::{Malformed, decode_state, encode_state};
use crate::ids::{DeviceId, FolderId, Incarnation, LifeId, NodeId, PARKED, ROOT};
use crate::kv::{Read, View};
use crate::life::{Heard, lives, own};
use crate::message::{Message, ROWS_BYTES, RowBytes};
use crate::rows::{PeerRow, Rows};
use crate::tree::Work;
use alloc::vec::Vec;

/// Rows looked up at a time.
const ROWS_PAGE: usize = 512;
/// The wait after the first failed attempt to reach a device, in milliseconds; it doubles.
const RETRY_FIRST_MS: u64 = 300;
/// The longest wait between two attempts, in milliseconds.
pub const RETRY_LONGEST_MS: u64 = 20_000;

/// How a device's folder stands, as it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The digest of all its states.
    pub digest: [u64; 4],
    /// How much it lacks, problems included.
    pub need: u64,
    /// Whether it is still looking at its disk, or halted.
    pub busy: bool,
    /// Whether it holds deletes or edits until a person decides.
    pub held: bool,
}

/// What is known of a peer of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What it last said of itself.
    pub standing: Option<Standing>,
    /// The highest of my sequence numbers that it has committed.
    pub acked: u64,
}

impl Known {
    /// Whether the peer is known to hold just what an index with this digest and last sequence number
    /// holds, and to lack nothing.
    pub fn in_sync(&self, digest: [u64; 4], seq: u64) -> bool {
        let holds = |s: Standing| s.digest == digest && s.need == 0 && !s.busy;
        self.standing.is_some_and(holds) && self.acked >= seq
    }
}

/// The first message of the exchange of a folder with a device.
pub fn opening(view: &dyn View, folder: FolderId, device: DeviceId) -> Read<Message> {
    let peer = view.peer(device)?.unwrap_or_default();
    let inc = view.totals()?.of_index().0;
    let life = lives(view)?.last().map_or(LifeId::default(), |(_, life)| *life);
    let own = own(view)?.into_iter().filter(|own| *own != inc).collect();
    Ok(Message::Open { folder, inc, of: peer.inc, received: peer.received, life, heard_in: peer.life, own })
}

/// Who speaks: a device, with its index and the life of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The device.
    pub device: DeviceId,
    /// The incarnation of its index.
    pub inc: Incarnation,
    /// The life of its program.
    pub life: LifeId,
}

/// What one device is still to be told of a folder.
#[derive(Clone, Debug)]
pub struct Outgoing {
    folder: FolderId,
    /// The peer. What came from an earlier incarnation of it, it does not have any more.
    to: Speaker,
    /// Rows up to this sequence number were sent, or are the peer's already.
    cursor: u64,
    /// Whether a last page of rows was sent: even an empty one tells that there is nothing more.
    opened: bool,
    said: Option<Standing>,
}

impl Outgoing {
    /// After a peer's opening message, which says what it has.
    pub fn new(view: &dyn View, folder: FolderId, to: Speaker, heard: &Heard) -> Read<Self> {
        let cursor = if view.totals()?.of_index().0 == heard.of { heard.received } else { 0 };
        Ok(Outgoing { folder, to, cursor, opened: false, said: None })
    }

    /// What the peer is known to have committed at the start.
    pub fn acked(&self) -> u64 {
        self.cursor
    }

    /// The next message, if anything is to be said: rows first, then how things stand here.
    pub fn next(&mut self, view: &dyn View, standing: Standing) -> Read<Option<Message>> {
        let (rows, upto, last) = self.page(view)?;
        if upto != self.cursor || !self.opened {
            self.cursor = upto;
            self.opened |= last;
            return Ok(Some(Message::Rows { folder: self.folder, upto, last, rows }));
        }
        if self.said == Some(standing) {
            return Ok(None);
        }
        self.said = Some(standing);
        let Standing { digest, need, busy, held } = standing;
        Ok(Some(Message::Status { folder: self.folder, digest, need, busy, held }))
    }

    /// The rows changed since that the peer does not have from itself; how far they reach; whether
    /// nothing is left.
    fn page(&self, view: &dyn View) -> Read<(Vec<RowBytes>, u64, bool)> {
        let (mut rows, mut upto, mut bytes) = (Vec::new(), self.cursor, 0);
        let page = view.changed_since(self.cursor, ROWS_PAGE)?;
        if page.is_empty() {
            return Ok((rows, upto, true));
        }
        let number = view.peer(self.to.device)?.filter(|p| p.inc == self.to.inc).map_or(0, |p| p.number);
        let mut complete = page.len() < ROWS_PAGE;
        for (seq, node) in page {
            if bytes > ROWS_BYTES {
                complete = false;
                break;
            }
            upto = seq;
            let Some(row) = view.node(node)? else { continue };
            if number == 0 || row.from != number {
                let state = encode_state(&row.state);
                bytes += state.len() + 24;
                rows.push(RowBytes { node, state });
            }
        }
        Ok((rows, upto, complete))
    }
}

/// What a device has of a peer's rows, as it tells the peer once they are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows up to this sequence number.
    pub received: u64,
    /// The life of the peer's program that told the last of them.
    pub life: LifeId,
    /// The one that told rows before, and how far those reached; zeros if there was none.
    pub before: (LifeId, u64),
}

impl Receipt {
    /// The message that tells it.
    pub fn told(&self, folder: FolderId) -> Message {
        let Receipt { received, life, before: (before, before_received) } = *self;
        Message::Ack { folder, received, life, before, before_received }
    }

    /// Whether it is for another run of this device's program, a copy of it, over whose connection the rows came.
    pub fn is_anothers(&self, life: LifeId) -> bool {
        self.life != LifeId::default() && self.life != life
    }
}

/// What came of a message with rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The nodes of which something new was learnt.
    pub news: Vec<NodeId>,
    /// What is to be acknowledged.
    pub receipt: Receipt,
    /// A row knows of changes of mine that I never made, and was not taken: this index was rolled back, and has to
    /// be renewed before. All of them are to come again.
    pub foretold: bool,
}

impl Work<'_> {
    /// A peer opened the exchange: rows of an earlier incarnation of it count no more.
    pub fn opened(&mut self, from: &Speaker) -> Read<PeerRow> {
        let Speaker { device, inc, .. } = *from;
        self.record_author(inc, device)?;
        if let Some(row) = self.tx.peer(device)?.filter(|r| r.inc == inc) {
            return Ok(row);
        }
        // A new number: rows that came from an earlier incarnation are not known to this one.
        let highest = self.tx.peers()?.iter().map(|(_, r)| r.number).max().unwrap_or(0);
        let row = PeerRow { number: highest + 1, inc, ..PeerRow::default() };
        self.tx.put_peer(device, &row);
        Ok(row)
    }

    /// Takes in rows of a peer. With `again` they are to come once more, and are not counted as received. The outer
    /// error is the index's; the inner one says that a row is not what the protocol allows, and then nothing of this
    /// batch may be committed.
    pub fn take_rows(
        &mut self,
        from: &Speaker,
        upto: u64,
        rows: &[RowBytes],
        again: bool,
    ) -> Read<Result<Taken, Malformed>> {
        let mut peer = self.opened(from)?;
        let mut taken = Taken::default();
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            if row.node == ROOT || row.node == PARKED {
                return Ok(Err(Malformed("a row of a node that has none")));
            }
            let state = match decode_state(&row.state) {
                Ok(state) => state,
                Err(e) => return Ok(Err(e)),
            };
            if self.foretells(&state)? {
                taken.foretold = true;
            } else {
                states.push((row.node, state));
            }
        }
        // What is to come again is not known to be the peer's: should it be rolled back before, it is told that too.
        let number = if taken.foretold || again { 0 } else { peer.number };
        for (node, state) in states {
            if self.hear(node, &state, number)? {
                taken.news.push(node);
            }
        }
        if upto >= peer.received && !taken.foretold && !again {
            if peer.life != from.life {
                (peer.before, peer.before_received) = (peer.life, peer.received);
            }
            (peer.received, peer.life) = (upto, from.life);
        }
        self.tx.put_peer(from.device, &peer);
        let PeerRow { received, life, before, before_received, .. } = peer;
        taken.receipt = Receipt { received, life, before: (before, before_received) };
        Ok(Ok(taken))
    }
}

/// One of two connections to the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who dialled.
    pub dialler: DeviceId,
    /// Drawn by the peer's program when it started.
    pub nonce: u64,
    /// Whether it is still open, as far as can be told here.
    pub open: bool,
    /// Whether it is so young that both sides may have dialled at once.
    pub crossing: bool,
}

/// Whether the old of two connections stays and the new one goes. Both sides decide alike: of two
/// between the same runs of both programs, the one dialled by the smaller key stays. A connection to an
/// earlier run of the peer's program goes; and who dials again long after has lost the old connection,
/// even if it looks alive from here.
pub fn old_stays(old: &Link, new: &Link) -> bool {
    old.nonce == new.nonce && old.open && old.crossing && old.dialler < new.dialler
}

/// How long to wait after so many failed attempts in a row to reach a device, in milliseconds.
pub fn retry_after_ms(failed: u32) -> u64 {
    (RETRY_FIRST_MS << failed.min(7)).min(RETRY_LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Attributes;
    use crate::kv::Memory;
    use crate::path::Name;
    use crate::rows::Position;
    use crate::state::Content;
    use alloc::format;

    const FOLDER: FolderId = FolderId([9; 32]);

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 32])
    }

    fn speaker(n: u8) -> Speaker {
        Speaker { device: device(n), inc: Incarnation([n; 16]), life: LifeId([n; 16]) }
    }

    /// An index of one incarnation with `nodes` directories.
    fn index(n: u8, nodes: usize) -> Memory {
        let mut index = Memory::default();
        let mut work = Work::new(&index);
        let mut totals = work.tx.totals().unwrap();
        totals.inc = Incarnation([n; 16]);
        work.tx.put_totals(&totals);
        for i in 0..nodes {
            let at = Position::new(ROOT, Name::new(format!("{n}-{i}").as_bytes()).unwrap());
            work.create(&at, None, Content::Dir, Attributes { mode: None, mtime: None }).unwrap();
        }
        let changes = work.finish().unwrap();
        index.apply(changes);
        index
    }

    fn standing(view: &dyn View) -> Standing {
        Standing { digest: view.totals().unwrap().digest, need: 0, busy: false, held: false }
    }

    /// Tells `to` everything; returns how many messages with rows, and rows, it took.
    fn tell(from: &Memory, me: u8, to: &mut Memory, you: u8) -> (usize, usize) {
        let Message::Open { of, received, heard_in, .. } = opening(to, FOLDER, device(me)).unwrap() else {
            panic!()
        };
        let heard = Heard { of, received, life: heard_in };
        let inc = from.totals().unwrap().inc;
        let peer = Speaker { inc: to.totals().unwrap().inc, ..speaker(you) };
        let mut out = Outgoing::new(from, FOLDER, peer, &heard).unwrap();
        let (mut messages, mut count, mut done) = (0, 0, false);
        while let Some(message) = out.next(from, standing(from)).unwrap() {
            match message {
                Message::Rows { upto, last, rows, .. } => {
                    assert!(!done, "rows after the last");
                    done = last;
                    (messages, count) = (messages + 1, count + rows.len());
                    let mut work = Work::new(to);
                    let from = Speaker { inc, ..speaker(me) };
                    let taken = work.take_rows(&from, upto, &rows, false).unwrap().unwrap();
                    assert_eq!(taken.receipt.received, upto);
                    let changes = work.finish().unwrap();
                    to.apply(changes);
                }
                Message::Status { need: 0, busy: false, .. } => {
                    assert!(done, "the status comes after the rows")
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(done);
        (messages, count)
    }

    #[test]
    fn rows_travel_in_pages_and_only_once() {
        let (from, mut to) = (index(1, 1300), index(2, 0));
        let (messages, rows) = tell(&from, 1, &mut to, 2);
        assert_eq!(rows, 1300);
        assert!(messages >= 3, "{messages}");
        assert_eq!(from.totals().unwrap().digest, to.totals().unwrap().digest);
        // Again: an empty last page, and what came from there is not sent back.
        assert_eq!(tell(&from, 1, &mut to, 2), (1, 0));
        let mut from = from;
        assert_eq!(tell(&to, 2, &mut from, 1).1, 0);
    }

    #[test]
    fn another_incarnation_of_the_peer_is_told_from_the_start() {
        let (from, mut to) = (index(1, 3), index(2, 0));
        tell(&from, 1, &mut to, 2);
        assert_eq!(tell(&index(3, 2), 1, &mut to, 2).1, 2);
    }

    #[test]
    fn a_peer_that_lost_its_index_is_told_what_came_from_itself() {
        let (from, mut to) = (index(1, 3), index(2, 0));
        tell(&from, 1, &mut to, 2);
        // Device 1 again, with nothing: it gets all of it back, and the same again.
        let mut rebuilt = index(3, 0);
        for _ in 0..2 {
            assert_eq!(tell(&rebuilt, 1, &mut to, 2).1, 0);
            let open = opening(&rebuilt, FOLDER, device(2)).unwrap();
            let rows = tell(&to, 2, &mut rebuilt, 1).1;
            let Message::Open { received, .. } = open else { panic!() };
            assert_eq!(rows, if received == 0 { 3 } else { 0 });
        }
        assert_eq!(to.totals().unwrap().digest, rebuilt.totals().unwrap().digest);
    }

    #[test]
    fn a_bad_row_is_an_error_of_the_peer() {
        let to = index(2, 0);
        let row = |node, state: &[u8]| RowBytes { node, state: state.to_vec() };
        let good = encode_state(&Default::default());
        for bad in [row(ROOT, &good), row(PARKED, &good), row(NodeId([5; 16]), b"junk")] {
            let taken = Work::new(&to).take_rows(&speaker(1), 1, &[bad], false).unwrap();
            assert!(taken.is_err());
        }
    }

    /// Rows of a device's life are taken, none of them new.
    fn notes(index: &mut Memory, life: u8) -> Receipt {
        let from = Speaker { life: LifeId([life; 16]), ..speaker(1) };
        let mut work = Work::new(index);
        let taken = work.take_rows(&from, 7, &[], false).unwrap().unwrap();
        let changes = work.finish().unwrap();
        index.apply(changes);
        taken.receipt
    }

    #[test]
    fn of_two_copies_the_one_that_is_noted_second_is_told_of_the_first() {
        let mut index = index(2, 0);
        let life = |n: u8| LifeId([n; 16]);
        assert_eq!(
            notes(&mut index, 5),
            Receipt { received: 7, life: life(5), before: (LifeId::default(), 0) }
        );
        // The copies' lives are 6 and 7. However often one of them is heard, what was heard before it stays known.
        for _ in 0..3 {
            assert_eq!(notes(&mut index, 6).before, (life(5), 7));
        }
        for _ in 0..3 {
            assert_eq!(notes(&mut index, 7).before, (life(6), 7));
        }
        let receipt = notes(&mut index, 6);
        assert_eq!(receipt, Receipt { received: 7, life: life(6), before: (life(7), 7) });
        assert!(receipt.is_anothers(life(7)) && !receipt.is_anothers(life(6)));
        // A program that says nothing of lives.
        assert!(!Receipt::default().is_anothers(life(6)));
    }

    #[test]
    fn in_sync_takes_equal_digests_no_need_rest_and_an_acknowledgement() {
        let known = Known {
            standing: Some(Standing { digest: [1; 4], need: 0, busy: false, held: false }),
            acked: 7,
        };
        assert!(known.in_sync([1; 4], 7));
        let but = |s: Standing| Known { standing: Some(s), ..known }.in_sync([1; 4], 7);
        let s = Standing { digest: [1; 4], need: 0, busy: false, held: false };
        assert!(!but(Standing { digest: [2; 4], ..s }) && !but(Standing { need: 1, ..s }));
        assert!(!but(Standing { busy: true, ..s }) && !known.in_sync([1; 4], 8));
        assert!(!Known { standing: None, ..known }.in_sync([1; 4], 7));
    }

    #[test]
    fn both_sides_of_two_crossing_connections_keep_the_same() {
        let (a, b) = (device(1), device(2));
        let link = |dialler| Link { dialler, nonce: 5, open: true, crossing: true };
        // Whichever came first at each side, the one that the smaller key dialled stays.
        assert!(old_stays(&link(a), &link(b)) && !old_stays(&link(b), &link(a)));
        for gone in [
            Link { nonce: 4, ..link(a) },
            Link { open: false, ..link(a) },
            Link { crossing: false, ..link(a) },
        ] {
            assert!(!old_stays(&gone, &link(b)));
        }
    }

    #[test]
    fn attempts_come_ever_less_often_up_to_a_bound() {
        let waits: Vec<u64> = (0..12).map(retry_after_ms).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]) && waits[0] == RETRY_FIRST_MS);
        assert_eq!(waits.last(), Some(&RETRY_LONGEST_MS));
        assert_eq!(retry_after_ms(u32::MAX), RETRY_LONGEST_MS);
    }
}
