//! The lives of a device's program with an index, and how an index is known that was rolled back: from a
//! backup, with a virtual machine, or because it was copied to another one.
//!
//! Numbers that were given once must not be given again: others hold what they stood for. So each life
//! has an id, kept in the index and beside the folder, and peers say in which life they heard what they
//! have. An index that does not know that life, or not that much of it, is an older one; it goes on
//! as a new incarnation.
//!
//! Until it is known, nobody can tell: a disk that was brought back whole, index and folder, looks as it did. So
//! changes are made under an incarnation that belongs to this life alone, until every other member was met in it and
//! none of them knows more of the index than it does itself. Then it is *confirmed*, and the one of the index does.
//!
//! That takes that no life before it goes on in a copy: one that was confirmed makes changes under the incarnation of the
//! index, and may be out of everybody's reach. A life that ended in order is over, in all copies that are made of it. Where
//! one did not, no later life is confirmed, until the index is renewed.

use crate::ids::{Dot, Incarnation, LifeId};
use crate::journal::Journal;
use crate::kv::{Read, View};
use crate::merge::SEEN_MAX;
use crate::rows::{PeerRow, Rows, Table, after, decode, encode, key};
use crate::state::State;
use crate::tree::Work;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// How far a life came may be noted so much later, in seconds: where the disk is slow, or full for a while.
const LAG_S: u64 = 60;
/// So many lives are remembered. Who heard something in an earlier one only, is told everything again.
const LIVES_MAX: usize = 256;
/// A node that so many incarnations changed is changed under no further ones of lives.
const LIVES_OF_ONE: usize = SEEN_MAX / 2;
/// After so many lives that cannot be confirmed an index is renewed, for which all of it is told anew.
const UNCONFIRMED_MAX: usize = 16;

#[derive(Encode, Decode)]
struct LifeRow {
    #[n(0)]
    seq: u64,
    #[n(1)]
    life: LifeId,
    /// The incarnation of its changes; zeros if there were none before it was confirmed.
    #[cbor(n(2), default)]
    inc: Incarnation,
    /// It ended in order: nothing was changed in it after this was written.
    #[cbor(n(3), default)]
    ended: bool,
    /// An earlier one may go on in a copy, and make changes under the incarnation of the index.
    #[cbor(n(4), default)]
    shared: bool,
}

fn rows(view: &dyn View) -> Read<Vec<(Vec<u8>, LifeRow)>> {
    let prefix = [Table::Life as u8];
    let pairs = view.range(&prefix, &after(&prefix), usize::MAX)?;
    pairs.into_iter().map(|(k, v)| decode(&v, "life").map(|row| (k, row))).collect()
}

/// The lives of this device's program with an index, in order: the last sequence number when each began, and the
/// life.
pub fn lives(view: &dyn View) -> Read<Vec<(u64, LifeId)>> {
    Ok(rows(view)?.into_iter().map(|(_, row)| (row.seq, row.life)).collect())
}

/// The incarnations under which this device makes changes, or made them in lives that are remembered.
pub fn own(view: &dyn View) -> Read<BTreeSet<Incarnation>> {
    let totals = view.totals()?;
    let lives = rows(view)?.into_iter().map(|(_, row)| row.inc);
    let all = lives.chain([totals.inc, totals.index]);
    Ok(all.filter(|inc| *inc != Incarnation::default()).collect())
}

/// What a peer says it has of this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Of which incarnation.
    pub of: Incarnation,
    /// Its rows up to this sequence number.
    pub received: u64,
    /// In which life the last of them was told; zeros where that is not known.
    pub life: LifeId,
}

/// Whether this index is the one that a peer heard, or one that came of it, as far as can be told.
pub fn vouches(view: &dyn View, heard: &Heard) -> Read<bool> {
    let totals = view.totals()?;
    if heard.of != totals.of_index().0 {
        return Ok(true);
    }
    let lives = lives(view)?;
    if heard.life == LifeId::default() {
        return Ok(heard.received <= totals.seq);
    }
    let Some(i) = lives.iter().position(|(_, life)| *life == heard.life) else { return Ok(false) };
    let end = lives.get(i + 1).map_or(totals.seq, |(began, _)| *began);
    Ok(heard.received <= end)
}

/// Whether an index knows of a life that was noted beside its folder, and came as far as was noted. One
/// without any lives is new.
pub fn remembers(view: &dyn View, noted: LifeId, seq: u64) -> Read<bool> {
    let lives = lives(view)?;
    let known = lives.iter().any(|(_, life)| *life == noted) && view.totals()?.seq >= seq;
    Ok(lives.is_empty() || known)
}

/// Whether an index had so many lives that could not be confirmed that it is worth to be renewed, once all others were met.
pub fn is_worn(view: &dyn View) -> Read<bool> {
    Ok(rows(view)?.iter().rev().take_while(|(_, row)| row.shared).count() >= UNCONFIRMED_MAX)
}

/// Whether an index knows more of its folder than the folder can have seen: it was brought back, as from a backup, and
/// the index was not. `noted` and `seq` are what is noted in the folder; each life notes itself before it changes anything,
/// and how far it came within seconds. What is missing there is then no delete, and what is there may be older than what is known.
pub fn outran(view: &dyn View, noted: LifeId, seq: u64) -> Read<bool> {
    let (lives, last) = (lives(view)?, view.totals()?.seq);
    let Some(i) = lives.iter().position(|(_, life)| *life == noted) else { return Ok(false) };
    if lives.get(i + 1).is_some_and(|(ended, _)| last > *ended) {
        return Ok(true);
    }
    // Where that is not remembered any more, it is long past.
    let since = view.moment_of(seq + 1)?.map_or(0, |m| m.running);
    let end = view.last_moment()?.map_or(0, |m| m.running);
    Ok(last > seq && end.saturating_sub(since) > LAG_S)
}

impl Work<'_> {
    /// A life begins, in which changes are made under `inc` until it is confirmed. Counters of the index up to `given`
    /// may have been given, and are not given again; returns the one that was given last.
    pub fn begin_life(&mut self, life: LifeId, inc: Incarnation, given: u64) -> Read<u64> {
        self.drop_unused()?;
        let mut totals = self.tx.totals()?;
        let (index, counter) = totals.of_index();
        // Each start leaves out what was reserved and not given; there are 2^53.
        (totals.index, totals.index_counter) = (index, counter.max(given));
        (totals.inc, totals.counter) = (inc, 0);
        self.tx.put_totals(&totals);
        let rows = rows(&self.tx)?;
        let shared = rows.last().is_some_and(|(_, before)| before.shared || !before.ended);
        let last = rows.last().and_then(|(k, _)| k.get(1..9)?.try_into().ok()).map_or(0, u64::from_be_bytes);
        for (old, _) in rows.iter().take((rows.len() + 1).saturating_sub(LIVES_MAX)) {
            self.tx.remove(old.clone());
        }
        let row = LifeRow { seq: totals.seq, life, inc, ended: false, shared };
        self.tx.put(key(Table::Life, &[&(last + 1).to_be_bytes()]), encode(&row));
        Ok(totals.index_counter)
    }

    /// The life ends in order: nothing is changed in it any more, nor in a copy of it.
    pub fn end_life(&mut self) -> Read<()> {
        self.drop_unused()?;
        if let Some((key, row)) = rows(&self.tx)?.pop() {
            self.tx.put(key, encode(&LifeRow { ended: true, ..row }));
        }
        Ok(())
    }

    /// Nobody knows more of this index than it does itself: changes are made under its own incarnation from now on,
    /// unless an earlier life may do that still.
    pub fn confirm(&mut self) -> Read<()> {
        if rows(&self.tx)?.last().is_some_and(|(_, row)| row.shared) {
            return Ok(());
        }
        self.drop_unused()?;
        let mut totals = self.tx.totals()?;
        (totals.inc, totals.counter) = totals.of_index();
        (totals.index, totals.index_counter) = Default::default();
        self.tx.put_totals(&totals);
        Ok(())
    }

    /// An incarnation under which nothing was changed is told to nobody.
    fn drop_unused(&mut self) -> Read<()> {
        let totals = self.tx.totals()?;
        if totals.is_confirmed() || totals.counter > 0 {
            return Ok(());
        }
        if let Some((key, row)) = rows(&self.tx)?.pop().filter(|(_, row)| row.inc == totals.inc) {
            self.tx.put(key, encode(&LifeRow { inc: Incarnation::default(), ..row }));
        }
        Ok(())
    }

    /// The dot of the next change of a node in this state. One that was changed in too many lives has no room for yet
    /// another: there the index's own incarnation has to do.
    pub(crate) fn next_dot(&mut self, state: &State) -> Read<Dot> {
        let mut totals = self.tx.totals()?;
        let full = state.seen.entries().len() >= LIVES_OF_ONE && state.seen.get(totals.inc) == 0;
        let dot = if full && !totals.is_confirmed() {
            totals.index_counter += 1;
            Dot { inc: totals.index, counter: totals.index_counter }
        } else {
            totals.counter += 1;
            Dot { inc: totals.inc, counter: totals.counter }
        };
        self.tx.put_totals(&totals);
        Ok(dot)
    }

    /// The index turned out to be rolled back: it goes on as another incarnation. If what is on the disk did not go
    /// back with it, that says nothing any more until both were united with what others know.
    pub fn renew(&mut self, inc: Incarnation, unites: bool) -> Read<()> {
        let mut totals = self.tx.totals()?;
        (totals.inc, totals.counter) = (inc, 0);
        (totals.index, totals.index_counter) = Default::default();
        if unites {
            totals.uniting = true;
            // What was recorded in them is no evidence.
            rows(&self.tx)?.into_iter().for_each(|(key, _)| self.tx.remove(key));
        }
        if let Some((key, row)) = rows(&self.tx)?.pop() {
            // No copy has the new one.
            self.tx.put(key, encode(&LifeRow { shared: false, ..row }));
        }
        self.tx.put_totals(&totals);
        // What came from here before was left out of what others told since.
        for (device, peer) in self.tx.peers()? {
            self.tx.put_peer(device, &PeerRow { received: 0, ..peer });
        }
        Ok(())
    }

    /// Whether a state knows of changes of mine that I never made: they were made by this incarnation before
    /// it was rolled back, or somebody lies. Changes of mine under those numbers would count for nothing.
    pub(crate) fn foretells(&self, state: &State) -> Read<bool> {
        let totals = self.tx.totals()?;
        let (index, counter) = totals.of_index();
        Ok(state.seen.get(index) > counter || state.seen.get(totals.inc) > totals.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Memory;

    const INC: Incarnation = Incarnation([1; 16]);

    fn life(n: u8) -> LifeId {
        LifeId([n; 16])
    }

    /// An index with a life for each of these sequence numbers at its beginning, now at `seq`.
    fn index(began: &[u64], seq: u64) -> Memory {
        let mut index = Memory::default();
        for (i, at) in began.iter().chain([&seq]).enumerate() {
            let mut work = Work::new(&index);
            let mut totals = work.tx.totals().unwrap();
            (totals.inc, totals.seq) = (INC, *at);
            work.tx.put_totals(&totals);
            if i < began.len() {
                work.end_life().unwrap();
                work.begin_life(life((i % 250) as u8 + 1), INC, 0).unwrap();
                work.confirm().unwrap();
            }
            let changes = work.finish().unwrap();
            index.apply(changes);
        }
        index
    }

    #[test]
    fn an_index_that_was_rolled_back_is_known_by_what_others_heard() {
        // Lives 1, 2 and 3 began at 0, 5 and 9; it is at 12 now.
        let index = index(&[0, 5, 9], 12);
        let vouched =
            |n: u8, received: u64| vouches(&index, &Heard { of: INC, received, life: life(n) }).unwrap();
        assert!(vouched(1, 5) && vouched(2, 9) && vouched(3, 12) && vouched(3, 4));
        // Told more in a life than that life said here; or in one that is not known here.
        assert!(!vouched(1, 6) && !vouched(2, 10) && !vouched(3, 13) && !vouched(4, 12) && !vouched(4, 1));
        // Nothing received, another incarnation, or a program that says nothing of lives.
        assert!(vouched(0, 0) && vouched(0, 12) && !vouched(0, 13));
        assert!(!vouched(4, 0), "it told nothing, and it was there");
        let other = Heard { of: Incarnation([2; 16]), received: 99, life: life(4) };
        assert!(vouches(&index, &other).unwrap());
        let known = |n: u8, seq: u64| remembers(&index, life(n), seq).unwrap();
        assert!(known(2, 12) && !known(4, 1) && !known(3, 13));
        assert!(remembers(&Memory::default(), life(4), 9).unwrap());
    }

    fn changed(index: &mut Memory, change: impl FnOnce(&mut Work<'_>)) {
        let mut work = Work::new(index);
        change(&mut work);
        let changes = work.finish().unwrap();
        index.apply(changes);
    }

    fn made(index: &mut Memory, seen: &State) -> Dot {
        let mut dot = None;
        changed(index, |work| dot = Some(work.next_dot(seen).unwrap()));
        dot.unwrap()
    }

    #[test]
    fn until_a_life_is_confirmed_its_changes_are_its_own() {
        let own_of = |n: u8| Incarnation([100 + n; 16]);
        let dot = |inc, counter| Dot { inc, counter };
        let mut index = index(&[0], 7);
        let fresh = State::default();
        assert_eq!(made(&mut index, &fresh), dot(INC, 1));
        for n in 2..=4 {
            changed(&mut index, |work| {
                work.end_life().unwrap();
                assert_eq!(work.begin_life(life(n), own_of(n), 50).unwrap(), 50);
            });
            if n != 3 {
                assert_eq!(made(&mut index, &fresh), dot(own_of(n), 1));
                assert_eq!(made(&mut index, &fresh), dot(own_of(n), 2));
            }
        }
        // Others know the index as what it was, and of the lives those in which something was changed.
        assert_eq!(index.totals().unwrap().of_index(), (INC, 50));
        assert_eq!(own(&index).unwrap(), [INC, own_of(2), own_of(4)].into());
        changed(&mut index, |work| work.confirm().unwrap());
        assert_eq!(made(&mut index, &fresh), dot(INC, 51));
        assert_eq!(own(&index).unwrap(), [INC, own_of(2), own_of(4)].into());
    }

    /// Another life begins, after one that ended in order or not; whether it can be confirmed.
    fn begins(index: &mut Memory, n: u8, in_order: bool) -> bool {
        changed(index, |work| {
            if in_order {
                work.end_life().unwrap();
            }
            work.begin_life(life(n), Incarnation([n; 16]), 0).unwrap();
            work.confirm().unwrap();
        });
        index.totals().unwrap().is_confirmed()
    }

    #[test]
    fn after_a_life_that_may_go_on_in_a_copy_none_is_confirmed_until_the_index_is_renewed() {
        let mut index = index(&[0], 7);
        assert!(begins(&mut index, 10, true) && begins(&mut index, 11, true));
        // Its state directory is copied as it runs, out of the reach of others.
        let mut copy = index.clone();
        assert_eq!(made(&mut index, &State::default()).inc, INC);
        assert!(!begins(&mut copy, 20, false));
        let own = made(&mut copy, &State::default());
        assert_eq!(own.inc, Incarnation([20; 16]), "no number of the other one's, and none above");
        for n in 21..20 + UNCONFIRMED_MAX as u8 {
            assert!(!is_worn(&copy).unwrap());
            assert!(!begins(&mut copy, n, n % 3 > 0), "that one ended says nothing of the first");
        }
        assert!(is_worn(&copy).unwrap());
        changed(&mut copy, |work| work.renew(Incarnation([9; 16]), false).unwrap());
        assert!(!is_worn(&copy).unwrap());
        assert!(begins(&mut copy, 50, true) && !begins(&mut copy, 51, false));
        // Of what ended in order every copy is over.
        assert!(begins(&mut index, 12, true));
    }

    #[test]
    fn what_was_changed_in_too_many_lives_is_changed_by_the_index() {
        let mut index = index(&[0], 7);
        changed(&mut index, |work| assert_eq!(work.begin_life(life(9), Incarnation([9; 16]), 0).unwrap(), 0));
        let mut state = State::default();
        for n in 0..LIVES_OF_ONE {
            assert_eq!(made(&mut index, &state).inc, Incarnation([9; 16]));
            let mut inc = [7; 16];
            inc[..8].copy_from_slice(&(n as u64).to_le_bytes());
            state.seen.add(Dot { inc: Incarnation(inc), counter: 1 });
        }
        assert_eq!(made(&mut index, &state), Dot { inc: INC, counter: 1 });
        state.seen.add(Dot { inc: Incarnation([9; 16]), counter: 1 });
        assert_eq!(made(&mut index, &state).inc, Incarnation([9; 16]));
    }

    #[test]
    fn a_renewed_index_goes_on_as_another_and_only_a_disk_that_did_not_go_back_unites() {
        for unites in [false, true] {
            let mut index = index(&[0, 5], 7);
            changed(&mut index, |work| work.renew(Incarnation([8; 16]), unites).unwrap());
            let totals = index.totals().unwrap();
            assert_eq!((totals.of_index(), totals.uniting), ((Incarnation([8; 16]), 0), unites));
            assert_eq!(lives(&index).unwrap().len(), if unites { 0 } else { 2 });
        }
    }

    #[test]
    fn a_folder_that_was_brought_back_alone_is_known_by_what_is_noted_in_it() {
        // Lives 1, 2 and 3 began at 0, 5 and 9; changes 10 to 12 were made 0, 60 and 61 seconds after 9.
        let mut index = index(&[0, 5, 9], 9);
        for (seq, running) in [(10, 100), (11, 160), (12, 161)] {
            let mut work = Work::new(&index);
            let totals = work.tx.totals().unwrap();
            work.tx.put_totals(&crate::rows::Totals { seq, ..totals });
            work.record_moment(crate::journal::Moment { wall: 0, running }, None).unwrap();
            let changes = work.finish().unwrap();
            index.apply(changes);
        }
        let older = |n: u8, seq: u64| outran(&index, life(n), seq).unwrap();
        // Of an earlier life in which it was not the end; or of this one, and long before.
        assert!(older(1, 5) && older(2, 9) && older(2, 6) && older(3, 9));
        // The end was not noted before a kill.
        assert!(!older(3, 10) && !older(3, 11) && !older(3, 12));
        // Nothing came after an earlier life; a life that is not known is for others to judge.
        let quiet = self::index(&[0, 5, 5], 5);
        let older = |n: u8, seq: u64| outran(&quiet, life(n), seq).unwrap();
        assert!(!older(1, 5) && !older(2, 5) && !older(3, 5) && !older(9, 1));
    }

    #[test]
    fn the_log_of_lives_is_bounded() {
        let index = index(&(0..300).collect::<Vec<u64>>(), 300);
        let lives = lives(&index).unwrap();
        assert_eq!((lives.len(), lives[0].0, lives[LIVES_MAX - 1].0), (LIVES_MAX, 44, 299));
    }
}
