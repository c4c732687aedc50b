//! What nodes were before each change that shows, who changed them, and when. Rows of this device alone: no
//! peer is told of them, and nothing that shows hangs on them. They are what `history` lists, and what
//! `restore` and `undo` go back to.

use crate::codec::{decode_state, encode_state};
use crate::ids::{DeviceId, Dot, Incarnation, NodeId};
use crate::kv::{Fault, Read, View};
use crate::names;
use crate::rows::{Rows, Table, after, decode, encode, key};
use crate::state::{Content, State};
use crate::tree::Work;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// What a change made of a node, as a person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// It was not there before, in any form.
    Created = 1,
    /// It holds something else.
    Changed = 2,
    /// It is elsewhere, and holds the same.
    Moved = 3,
    /// Its mode or modification time differ.
    Attributes = 4,
    /// It is gone.
    Deleted = 5,
    /// It had been deleted, and is there again.
    Revived = 6,
}

impl Kind {
    /// What the step from one state to another is; `None` if nothing shows of it.
    pub fn of(old: &State, new: &State) -> Option<Kind> {
        match (old.alive(), new.alive()) {
            (false, false) if old.is_blank() => None,
            // A directory that was deleted may show still, for what lives in it.
            (false, false) => Kind::beside_content(old, new, None),
            (false, true) if old.is_blank() => Some(Kind::Created),
            (false, true) => Some(Kind::Revived),
            (true, false) => Some(Kind::Deleted),
            (true, true) => {
                let (was, is) = (old.versions(), new.versions());
                let (was, is) = (was.first(), is.first());
                if was.map(|(_, c)| *c) != is.map(|(_, c)| *c) {
                    return Some(Kind::Changed);
                }
                let both = was.zip(is).map(|(was, is)| (was.0, is.0, was.1));
                Kind::beside_content(old, new, both)
            }
        }
    }

    /// The same of what holds what it held; its version before and now is given, and what that holds.
    fn beside_content(old: &State, new: &State, both: Option<(Dot, Dot, &Content)>) -> Option<Kind> {
        let place = |s: &State| s.placed().map(|(_, p)| (p.value.parent, p.value.name.clone()));
        if place(old) != place(new) {
            return Some(Kind::Moved);
        }
        let (was, is) = (both.map(|b| b.0), both.map(|b| b.1));
        // A disk without modes gives none to what is made on it: then it shows with the usual one.
        let usual = names::default_mode(both.map_or(&Content::Dir, |b| b.2));
        let mode = |s: &State, dot| s.mode_of(dot).unwrap_or(usual);
        let differ = mode(old, was) != mode(new, is) || old.mtime_of(was) != new.mtime_of(is);
        differ.then_some(Kind::Attributes)
    }

    fn read(number: u8) -> Option<Kind> {
        use Kind::{Attributes, Changed, Created, Deleted, Moved, Revived};
        [Created, Changed, Moved, Attributes, Deleted, Revived].into_iter().find(|k| *k as u8 == number)
    }
}

/// One change of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// The node.
    pub node: NodeId,
    /// What was made of it.
    pub kind: Kind,
    /// The change. Of several that came at once, the one that shows most.
    pub by: Dot,
    /// What it was before; blank for what was created.
    pub before: State,
    /// The act of this device that it is a part of: one undo or restore has one number.
    pub act: Option<u64>,
}

#[derive(Encode, Decode)]
struct ChangeBytes<'a> {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    kind: u8,
    #[n(2)]
    by: Dot,
    #[cbor(n(3), with = "minicbor::bytes")]
    before: &'a [u8],
    #[n(4)]
    act: Option<u64>,
}

/// A moment, twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Moment {
    /// Seconds since 1970 by this device's clock: for people.
    #[n(0)]
    pub wall: i64,
    /// Seconds that the program ran with this index: what ages by it is safe from wrong clocks.
    #[n(1)]
    pub running: u64,
}

/// Up to where the history reached at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// When.
    #[n(0)]
    pub at: Moment,
    /// The last sequence number then.
    #[n(1)]
    pub seq: u64,
    /// The last number then given to something kept in the history.
    #[n(2)]
    pub number: u64,
}

/// How much of the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// For so many days in which the program runs.
    pub days: u32,
    /// In this share of the file system, in percent.
    pub percent: u8,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept { days: 30, percent: 10 }
    }
}

fn bad(what: &str) -> Fault {
    Fault::damage(alloc::format!("a {what} cannot be read"))
}

fn number_in(key: &[u8], what: &str) -> Read<u64> {
    let bytes = key.get(1..9).and_then(|b| b.try_into().ok()).ok_or_else(|| bad(what))?;
    Ok(u64::from_be_bytes(bytes))
}

fn numbered(table: Table, number: u64) -> Vec<u8> {
    key(table, &[&number.to_be_bytes()])
}

/// The change that an author made last, of those that `new` has seen and `old` has not: one that shows
/// before one that does not.
fn author(old: &State, new: &State) -> Option<Dot> {
    let is_new = |d: &Dot| !old.seen.covers(*d);
    let newest = |dots: Vec<Dot>| dots.into_iter().filter(is_new).max_by_key(|d| d.counter);
    let gone = || newest(new.gone.entries().iter().map(|(d, _)| *d).collect());
    let content = || newest(new.content.entries().iter().map(|(d, _)| *d).collect());
    let place = || newest(new.place.entries().iter().map(|(d, _)| *d).collect());
    let mode = || newest(new.mode.entries().iter().map(|(d, _)| *d).collect());
    let mtime = || newest(new.mtime.entries().iter().map(|(d, _)| *d).collect());
    let any = || {
        let seen = new.seen.entries().iter().map(|&(inc, counter)| Dot { inc, counter });
        newest(seen.collect())
    };
    let gone = || if new.alive() { None } else { gone() };
    gone().or_else(content).or_else(place).or_else(mode).or_else(mtime).or_else(any)
}

/// Typed reads of the journal.
pub trait Journal: View {
    /// Changes with `from <= number < to`, the oldest first; at most `limit`.
    fn changes(&self, from: u64, to: u64, limit: usize) -> Read<Vec<(u64, ChangeRow)>> {
        let pairs = self.range(&numbered(Table::Change, from), &numbered(Table::Change, to), limit)?;
        pairs
            .iter()
            .map(|(k, v)| {
                let b: ChangeBytes = decode(v, "change")?;
                let before = match b.before {
                    [] => State::default(),
                    bytes => decode_state(bytes).map_err(|_| bad("state"))?,
                };
                let kind = Kind::read(b.kind).ok_or_else(|| bad("change"))?;
                Ok((number_in(k, "change")?, ChangeRow { node: b.node, kind, by: b.by, before, act: b.act }))
            })
            .collect()
    }

    /// When the change of this number was recorded, to the second.
    fn moment_of(&self, seq: u64) -> Read<Option<Moment>> {
        let pairs = self.range(&numbered(Table::Moment, seq), &after(&[Table::Moment as u8]), 1)?;
        pairs.first().map(|(_, v)| decode(v, "moment")).transpose()
    }

    /// All moments: the last number recorded in each, and the moment.
    fn moments(&self) -> Read<Vec<(u64, Moment)>> {
        let pairs = self.range(&numbered(Table::Moment, 0), &after(&[Table::Moment as u8]), usize::MAX)?;
        pairs.iter().map(|(k, v)| Ok((number_in(k, "moment")?, decode(v, "moment")?))).collect()
    }

    /// When something was last recorded.
    fn last_moment(&self) -> Read<Option<Moment>> {
        let bytes = self.get(&[Table::Moment as u8])?;
        bytes.map(|b| decode(&b, "moment")).transpose()
    }

    /// How far the history reached at some moments, the oldest first.
    fn marks(&self) -> Read<Vec<Mark>> {
        let prefix = [Table::Mark as u8];
        let pairs = self.range(&prefix, &after(&prefix), usize::MAX)?;
        pairs.iter().map(|(_, v)| decode(v, "mark")).collect()
    }

    /// Up to where the history is older than it is kept. What ages it is the time that the program ran: no clock
    /// that is wrong makes it go.
    fn outlived(&self, now: Moment, limits: Kept) -> Read<Option<Mark>> {
        let kept = u64::from(limits.days) * 86_400;
        Ok(self.marks()?.into_iter().rev().find(|m| m.at.running + kept <= now.running))
    }

    /// The incarnations that are known of a device.
    fn incarnations_of(&self, device: DeviceId) -> Read<BTreeSet<Incarnation>> {
        let prefix = [Table::Author as u8];
        let pairs = self.range(&prefix, &after(&prefix), usize::MAX)?;
        let its = pairs.iter().filter(|(_, v)| **v == device.0);
        its.map(|(k, _)| Incarnation::from_slice(&k[1..]).ok_or_else(|| bad("incarnation"))).collect()
    }

    /// The device that an incarnation belongs to, if it was ever heard of as such.
    fn device_of(&self, inc: Incarnation) -> Read<Option<DeviceId>> {
        let bytes = self.get(&key(Table::Author, &[&inc.0]))?;
        bytes.map(|b| DeviceId::from_slice(&b).ok_or_else(|| bad("device"))).transpose()
    }
}

impl<V: View + ?Sized> Journal for V {}

impl Work<'_> {
    /// Records what a node was before a change. While a folder is united for the first time nothing is
    /// recorded: there was nothing before.
    pub(crate) fn record(&mut self, node: NodeId, old: &State, new: &State, seq: u64) -> Read<()> {
        let Some(kind) = Kind::of(old, new) else { return Ok(()) };
        let Some(by) = author(old, new) else { return Ok(()) };
        if self.tx.totals()?.uniting {
            return Ok(());
        }
        let before = if kind == Kind::Created { Vec::new() } else { encode_state(old) };
        let bytes = ChangeBytes { node, kind: kind as u8, by, before: &before, act: self.act };
        self.tx.put(numbered(Table::Change, seq), encode(&bytes));
        Ok(())
    }

    /// Records when the changes of this batch were made. `same` is the number under which the moment was
    /// last recorded, if that was within the same second; returns the number under which it is now.
    pub fn record_moment(&mut self, moment: Moment, same: Option<u64>) -> Read<Option<u64>> {
        let seq = self.tx.totals()?.seq;
        if same == Some(seq) {
            return Ok(same);
        }
        if let Some(same) = same {
            self.tx.remove(numbered(Table::Moment, same));
        }
        self.tx.put(numbered(Table::Moment, seq), encode(&moment));
        self.tx.put(alloc::vec![Table::Moment as u8], encode(&moment));
        Ok(Some(seq))
    }

    /// Records how far the history reaches now.
    pub fn record_mark(&mut self, mark: Mark) {
        self.tx.put(numbered(Table::Mark, mark.at.running), encode(&mark));
    }

    /// Records whose an incarnation is.
    pub fn record_author(&mut self, inc: Incarnation, device: DeviceId) -> Read<()> {
        if self.tx.device_of(inc)? != Some(device) {
            self.tx.put(key(Table::Author, &[&inc.0]), device.0.to_vec());
        }
        Ok(())
    }

    /// Forgets changes up to a number, with their moments and marks, at most `limit` of each; returns whether
    /// there is more.
    pub fn forget_changes(&mut self, upto: u64, limit: usize) -> Read<bool> {
        let mut more = false;
        for table in [Table::Change, Table::Moment] {
            let pairs = self.tx.range(&numbered(table, 0), &numbered(table, upto + 1), limit)?;
            more |= pairs.len() == limit;
            pairs.into_iter().for_each(|(k, _)| self.tx.remove(k));
        }
        let prefix = [Table::Mark as u8];
        for (k, v) in self.tx.range(&prefix, &after(&prefix), limit)? {
            if decode::<Mark>(&v, "mark")?.seq < upto {
                self.tx.remove(k);
            }
        }
        Ok(more)
    }
}
