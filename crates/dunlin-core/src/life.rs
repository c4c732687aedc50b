//! The lives of a device's program with an index, and how an index is known that was rolled back: from a
//! backup, with a virtual machine, or because it was copied to another one.
//!
//! Numbers that were given once must not be given again: others hold what they stood for. So each life
//! has an id, kept in the index and beside the folder, and peers say in which life they heard what they
//! have. An index that does not know that life, or not that much of it, is an older one; it goes on
//! as a new incarnation, which unites with what the others know.

use crate::ids::{Incarnation, LifeId};
use crate::journal::Journal;
use crate::kv::{Read, View};
use crate::rows::{Rows, Table, after, decode, encode, key};
use crate::state::State;
use crate::tree::Work;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// How far a life came may be noted so much later, in seconds: where the disk is slow, or full for a while.
const LAG_S: u64 = 60;
/// So many lives are remembered. Who heard something in an earlier one only, is told everything again.
const LIVES_MAX: usize = 256;

#[derive(Encode, Decode)]
struct LifeRow {
    #[n(0)]
    seq: u64,
    #[n(1)]
    life: LifeId,
}

/// The lives of this device's program with an index, in order: the last sequence number when each began, and the
/// life.
pub fn lives(view: &dyn View) -> Read<Vec<(u64, LifeId)>> {
    let prefix = [Table::Life as u8];
    let pairs = view.range(&prefix, &after(&prefix), usize::MAX)?;
    pairs.iter().map(|(_, v)| decode::<LifeRow>(v, "life").map(|l| (l.seq, l.life))).collect()
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
    if heard.of != totals.inc || heard.received == 0 {
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
    /// A life begins. Counters up to `given` may have been given, and are not given again; returns the one
    /// that was given last.
    pub fn begin_life(&mut self, life: LifeId, given: u64) -> Read<u64> {
        let mut totals = self.tx.totals()?;
        if given > totals.counter {
            // Each start leaves out what was reserved and not given; there are 2^53.
            totals.counter = given;
            self.tx.put_totals(&totals);
        }
        let prefix = [Table::Life as u8];
        let pairs = self.tx.range(&prefix, &after(&prefix), usize::MAX)?;
        let last = pairs.last().and_then(|(k, _)| k.get(1..9)?.try_into().ok()).map_or(0, u64::from_be_bytes);
        for (old, _) in pairs.iter().take((pairs.len() + 1).saturating_sub(LIVES_MAX)) {
            self.tx.remove(old.clone());
        }
        let row = LifeRow { seq: totals.seq, life };
        self.tx.put(key(Table::Life, &[&(last + 1).to_be_bytes()]), encode(&row));
        Ok(totals.counter)
    }

    /// The index turned out to be rolled back: it goes on as another incarnation. What is on the disk
    /// is then older than all that is known, until both were united.
    pub fn renew(&mut self, inc: Incarnation) -> Read<()> {
        let mut totals = self.tx.totals()?;
        totals.inc = inc;
        totals.uniting = true;
        self.tx.put_totals(&totals);
        Ok(())
    }

    /// Whether a state knows of changes of mine that I never made: they were made by this incarnation before
    /// it was rolled back, or somebody lies. Changes of mine under those numbers would count for nothing.
    pub(crate) fn foretells(&self, state: &State) -> Read<bool> {
        let totals = self.tx.totals()?;
        Ok(state.seen.get(totals.inc) > totals.counter)
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
                work.begin_life(life((i % 250) as u8 + 1), 0).unwrap();
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
        assert!(vouched(4, 0) && vouched(0, 12) && !vouched(0, 13));
        let other = Heard { of: Incarnation([2; 16]), received: 99, life: life(4) };
        assert!(vouches(&index, &other).unwrap());
        let known = |n: u8, seq: u64| remembers(&index, life(n), seq).unwrap();
        assert!(known(2, 12) && !known(4, 1) && !known(3, 13));
        assert!(remembers(&Memory::default(), life(4), 9).unwrap());
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
