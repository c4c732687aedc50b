//! The replicated state of one node, and its merge.
//!
//! A state is a causal context and five dot stores. Merging keeps what both hold and what one holds
//! and the other has not seen (Almeida, Shoker, Baquero 2016): it is commutative, associative and
//! idempotent, and it decides nothing. What to show of a merged state is decided in `names` and `tree`.

use crate::ids::{ContentId, Dot, Incarnation, NodeId, value_hash};
use crate::path::Name;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

/// Counters and ranks above this are refused: a forged one must not wrap what follows it.
pub const COUNTER_MAX: u64 = 1 << 53;

/// A causal context: for each incarnation the highest counter seen. Sorted, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vector(Vec<(Incarnation, u64)>);

impl Vector {
    /// The highest counter seen of `inc`; 0 if none.
    pub fn get(&self, inc: Incarnation) -> u64 {
        self.0.binary_search_by_key(&inc, |e| e.0).map_or(0, |i| self.0[i].1)
    }

    /// Whether the change `dot` was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.inc) >= dot.counter
    }

    /// Whether every change that `other` has seen was seen.
    pub fn includes(&self, other: &Vector) -> bool {
        other.0.iter().all(|&(inc, counter)| self.get(inc) >= counter)
    }

    /// Adds a dot (and all before it of the same incarnation).
    pub fn add(&mut self, dot: Dot) {
        // Rows are read in this order.
        if self.0.last().is_none_or(|last| last.0 < dot.inc) {
            return push(&mut self.0, (dot.inc, dot.counter));
        }
        match self.0.binary_search_by_key(&dot.inc, |e| e.0) {
            Ok(i) => self.0[i].1 = self.0[i].1.max(dot.counter),
            Err(i) => self.0.insert(i, (dot.inc, dot.counter)),
        }
    }

    /// What either has seen.
    #[must_use]
    pub fn join(&self, other: &Vector) -> Vector {
        let mut out = self.clone();
        for &(inc, counter) in &other.0 {
            out.add(Dot { inc, counter });
        }
        out
    }

    /// The entries, sorted by incarnation.
    pub fn entries(&self) -> &[(Incarnation, u64)] {
        &self.0
    }
}

/// Nearly all have one entry for good: room for more is made when there is a second one.
fn push<T>(entries: &mut Vec<T>, entry: T) {
    if entries.is_empty() {
        entries.reserve_exact(1);
    }
    entries.push(entry);
}

/// Values by the dot of the change that wrote them; several are concurrent. Sorted by dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotStore<T>(Vec<(Dot, T)>);

impl<T> Default for DotStore<T> {
    fn default() -> Self {
        DotStore(Vec::new())
    }
}

impl<T: Clone> DotStore<T> {
    /// The entries, sorted by dot.
    pub fn entries(&self) -> &[(Dot, T)] {
        &self.0
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `dot` wrote, if it still stands.
    pub fn get(&self, dot: Dot) -> Option<&T> {
        self.0.binary_search_by_key(&dot, |e| e.0).ok().map(|i| &self.0[i].1)
    }

    /// Adds or replaces the value of `dot`.
    pub fn insert(&mut self, dot: Dot, value: T) {
        if self.0.last().is_none_or(|last| last.0 < dot) {
            return push(&mut self.0, (dot, value));
        }
        match self.0.binary_search_by_key(&dot, |e| e.0) {
            Ok(i) => self.0[i].1 = value,
            Err(i) => self.0.insert(i, (dot, value)),
        }
    }

    /// Keeps only the entries for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(Dot, &T) -> bool) {
        self.0.retain(|(d, v)| keep(*d, v));
    }

    /// The standard merge of dot stores. Of two values of one dot, which an incarnation that was rolled back
    /// or a forger may have told, the same one is taken everywhere.
    fn merge(&self, seen: &Vector, other: &DotStore<T>, other_seen: &Vector) -> DotStore<T>
    where
        T: Ord,
    {
        let mut out = DotStore::default();
        for (dot, value) in &self.0 {
            match other.get(*dot) {
                Some(theirs) => out.insert(*dot, value.max(theirs).clone()),
                None if !other_seen.covers(*dot) => out.insert(*dot, value.clone()),
                None => {}
            }
        }
        for (dot, value) in &other.0 {
            if self.get(*dot).is_none() && !seen.covers(*dot) {
                out.insert(*dot, value.clone());
            }
        }
        out
    }
}

/// A value with its place in the order of succession: each change ranks above all it replaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranked<T> {
    /// One more than the highest rank replaced.
    pub rank: u64,
    /// The value.
    pub value: T,
    /// What a newer program wrote after the fields known here; kept and relayed as it came.
    pub rest: Box<[u8]>,
}

impl<T> Ranked<T> {
    /// A value written by this program.
    pub fn new(rank: u64, value: T) -> Ranked<T> {
        Ranked { rank, value, rest: Box::default() }
    }
}

/// Where a node is, and where it was before (what a cut loop falls back to).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The directory it is in.
    pub parent: NodeId,
    /// What it is called there.
    pub name: Name,
    /// The place before the move that put it here.
    pub earlier: Option<(NodeId, Name)>,
}

/// What a node is and holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// The hash of its bytes.
        id: ContentId,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link with this text.
    Link(Box<[u8]>),
    /// A kind that a newer program knows: held and relayed, not shown on the disk.
    Unknown {
        /// Its number.
        kind: u8,
        /// What it carries.
        bytes: Box<[u8]>,
    },
}

/// Modification time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Mtime {
    /// Seconds; negative before 1970.
    #[n(0)]
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    #[n(1)]
    pub nanos: u32,
}

/// The order of succession: by rank, then by a hash of the value, then by dot. Total, and free of clocks.
pub trait Tie {
    /// The hash that breaks ties of rank.
    fn tie(&self) -> [u8; 32];
}

impl Tie for Place {
    fn tie(&self) -> [u8; 32] {
        let len = |n: &Name| (n.as_bytes().len() as u16).to_le_bytes();
        match &self.earlier {
            None => {
                value_hash("dunlin place", &[&self.parent.0, &len(&self.name), self.name.as_bytes(), &[0]])
            }
            Some((p, n)) => value_hash(
                "dunlin place",
                &[&self.parent.0, &len(&self.name), self.name.as_bytes(), &[1], &p.0, &len(n), n.as_bytes()],
            ),
        }
    }
}

impl Tie for Content {
    fn tie(&self) -> [u8; 32] {
        match self {
            Content::Dir => value_hash("dunlin value", &[&[1]]),
            Content::File { id, size } => value_hash("dunlin value", &[&[2], &id.0, &size.to_le_bytes()]),
            Content::Link(text) => value_hash("dunlin value", &[&[3], text]),
            Content::Unknown { kind, bytes } => value_hash("dunlin value", &[&[*kind], bytes]),
        }
    }
}

impl Tie for u16 {
    fn tie(&self) -> [u8; 32] {
        value_hash("dunlin mode", &[&self.to_le_bytes()])
    }
}

impl Tie for Mtime {
    fn tie(&self) -> [u8; 32] {
        value_hash("dunlin mtime", &[&self.secs.to_le_bytes(), &self.nanos.to_le_bytes()])
    }
}

impl<T: Tie + Clone> DotStore<Ranked<T>> {
    /// The entries from the top of the order down.
    pub fn ordered(&self) -> Vec<&(Dot, Ranked<T>)> {
        let mut all: Vec<_> = self.0.iter().collect();
        if all.len() > 1 {
            all.sort_by_cached_key(|(d, v)| core::cmp::Reverse((v.rank, v.value.tie(), *d)));
        }
        all
    }

    /// The top of the order.
    pub fn top(&self) -> Option<&(Dot, Ranked<T>)> {
        match self.0.as_slice() {
            [one] => Some(one),
            _ => self.ordered().first().copied(),
        }
    }

    /// The rank of a change that replaces the entries for which `among` holds: above theirs, but never
    /// so high that others would refuse it because of a forged one before it.
    pub fn next_rank(&self, mut among: impl FnMut(Dot) -> bool) -> u64 {
        let highest = self.0.iter().filter(|(d, _)| among(*d)).map(|(_, v)| v.rank).max();
        highest.map_or(1, |rank| rank.saturating_add(1).min(COUNTER_MAX))
    }
}

/// Everything that is replicated of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// All changes of this node that were seen.
    pub seen: Vector,
    /// Where it is.
    pub place: DotStore<Ranked<Place>>,
    /// What it is.
    pub content: DotStore<Ranked<Content>>,
    /// Permission bits, 0o777.
    pub mode: DotStore<Ranked<u16>>,
    /// Modification time, of files.
    pub mtime: DotStore<Ranked<Mtime>>,
    /// Deletes: what each had seen.
    pub gone: DotStore<Vector>,
}

impl State {
    /// The standard causal merge of two states of one node.
    #[must_use]
    pub fn merge(&self, other: &State) -> State {
        State {
            seen: self.seen.join(&other.seen),
            place: self.place.merge(&self.seen, &other.place, &other.seen),
            content: self.content.merge(&self.seen, &other.content, &other.seen),
            mode: self.mode.merge(&self.seen, &other.mode, &other.seen),
            mtime: self.mtime.merge(&self.seen, &other.mtime, &other.seen),
            gone: self.gone.merge(&self.seen, &other.gone, &other.seen),
        }
    }

    /// Whether nothing was ever said of this node (it is only named as somebody's parent).
    pub fn is_blank(&self) -> bool {
        self.seen.entries().is_empty()
    }

    /// Whether the version `dot` shows: no delete took it away. A version that a delete had seen comes back
    /// only with a move that the delete had not seen (move beats delete). That something else was written at
    /// the same path is no reason to bring it back.
    pub fn shows(&self, dot: Dot) -> bool {
        !self.taken_by(dot, |_| true)
    }

    /// Whether one of the deletes for which `among` holds took the version `dot` away.
    pub(crate) fn taken_by(&self, dot: Dot, among: impl Fn(Dot) -> bool) -> bool {
        let moved = |seen: &Vector| {
            self.place.entries().iter().any(|(d, p)| p.value.earlier.is_some() && !seen.covers(*d))
        };
        self.gone.entries().iter().any(|(gone, seen)| among(*gone) && seen.covers(dot) && !moved(seen))
    }

    /// Whether the node lives: some version of it shows (edit and move beat delete).
    pub fn alive(&self) -> bool {
        self.content.entries().iter().any(|(d, _)| self.shows(*d))
    }

    /// Drops the versions that `took` says were taken away by a delete: before a change that outlives
    /// deletes is written, so that it does not bring them back.
    pub(crate) fn settle_deletes(&mut self, took: impl Fn(&State, Dot) -> bool) {
        if !self.gone.is_empty() {
            let before = self.clone();
            self.content.retain(|d, _| !took(&before, d));
        }
    }

    /// The top placement with its dot.
    pub fn placed(&self) -> Option<(Dot, &Ranked<Place>)> {
        self.place.top().map(|(d, p)| (*d, p))
    }

    /// What a node is called, in the root, of which something was said and no placement stands: only a member that
    /// lies can have brought that about, and what others have in it must be somewhere.
    pub(crate) fn lost(&self, id: NodeId) -> Option<Name> {
        let lost = self.place.is_empty() && !self.is_blank();
        if lost { Name::new(format!("lost-{id}").as_bytes()).ok() } else { None }
    }

    /// The contents that show, from the top down; equal values count once (equal content is no conflict).
    pub fn versions(&self) -> Vec<(Dot, &Content)> {
        let mut out: Vec<(Dot, &Content)> = Vec::new();
        for (dot, ranked) in self.content.ordered().into_iter().filter(|(d, _)| self.shows(*d)) {
            if out.iter().all(|(_, c)| **c != ranked.value) {
                out.push((*dot, &ranked.value));
            }
        }
        out
    }

    /// The mode that goes with the version `dot`; see [`State::mtime_of`].
    pub fn mode_of(&self, dot: Option<Dot>) -> Option<u16> {
        attribute(&self.mode, &self.content, dot)
    }

    /// The modification time that goes with the version `dot`: the one written with it; else the top
    /// of those that were written with no version that stands beside it; else the top of all. So a
    /// conflict copy keeps its own, and a touch or chmod made since applies to what it was made on.
    pub fn mtime_of(&self, dot: Option<Dot>) -> Option<Mtime> {
        attribute(&self.mtime, &self.content, dot)
    }
}

fn attribute<T: Tie + Clone>(
    store: &DotStore<Ranked<T>>,
    content: &DotStore<Ranked<Content>>,
    dot: Option<Dot>,
) -> Option<T> {
    if let Some(own) = dot.and_then(|d| store.get(d)) {
        return Some(own.value.clone());
    }
    let all = store.ordered();
    let free = all.iter().find(|(d, _)| content.get(*d).is_none());
    free.or(all.first()).map(|(_, v)| v.value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(who: u8, counter: u64) -> Dot {
        Dot { inc: Incarnation([who; 16]), counter }
    }

    fn file(n: u8) -> Content {
        Content::File { id: ContentId([n; 32]), size: 1 }
    }

    fn state(dots: &[(Dot, u64, Content)]) -> State {
        let mut s = State::default();
        for (d, rank, c) in dots {
            s.seen.add(*d);
            s.content.insert(*d, Ranked::new(*rank, c.clone()));
        }
        s
    }

    #[test]
    fn a_newer_version_replaces_and_concurrent_ones_stay() {
        let old = state(&[(dot(1, 1), 1, file(1))]);
        let mut new = state(&[(dot(2, 1), 2, file(2))]);
        new.seen.add(dot(1, 1));
        assert_eq!(old.merge(&new).versions().len(), 1);
        let other = state(&[(dot(3, 1), 1, file(3))]);
        assert_eq!(new.merge(&other).versions().len(), 2);
        assert_eq!(new.merge(&other), other.merge(&new));
    }

    #[test]
    fn a_rank_at_the_end_of_its_range_can_be_followed() {
        let mut store = DotStore::default();
        assert_eq!(store.next_rank(|_| true), 1);
        for (counter, rank, next) in
            [(1, 4, 5), (2, COUNTER_MAX - 1, COUNTER_MAX), (3, COUNTER_MAX, COUNTER_MAX)]
        {
            store.insert(Dot { inc: Incarnation([1; 16]), counter }, Ranked::new(rank, 0o644_u16));
            assert_eq!(store.next_rank(|_| true), next);
        }
        assert_eq!(store.next_rank(|d| d.counter == 1), 5);
    }

    #[test]
    fn equal_content_is_no_conflict() {
        let both = state(&[(dot(1, 1), 1, file(1))]).merge(&state(&[(dot(2, 1), 1, file(1))]));
        assert_eq!(both.content.entries().len(), 2);
        assert_eq!(both.versions().len(), 1);
    }

    #[test]
    fn a_delete_is_outlived_only_by_what_it_had_not_seen() {
        let mut s = state(&[(dot(1, 1), 1, file(1))]);
        let seen = s.seen.clone();
        s.gone.insert(dot(1, 2), seen);
        s.seen.add(dot(1, 2));
        assert!(!s.alive());
        let edit = state(&[(dot(2, 1), 2, file(2))]);
        assert!(s.merge(&edit).alive());
    }

    fn place(dot: Dot, earlier: bool) -> State {
        let name = || Name::new(b"a").unwrap();
        let earlier = earlier.then(|| (crate::ids::ROOT, name()));
        let mut s = State::default();
        s.seen.add(dot);
        s.place.insert(dot, Ranked::new(1, Place { parent: crate::ids::ROOT, name: name(), earlier }));
        s
    }

    fn deleted() -> State {
        let mut s = state(&[(dot(1, 1), 1, file(1))]);
        let seen = s.seen.clone();
        s.gone.insert(dot(1, 2), seen);
        s.seen.add(dot(1, 2));
        s
    }

    #[test]
    fn something_else_created_at_its_path_does_not_bring_back_what_was_deleted() {
        let mut created = state(&[(dot(2, 1), 1, file(2))]);
        created.place = place(dot(2, 1), false).place;
        let all = deleted().merge(&created);
        assert_eq!(all.versions(), [(dot(2, 1), &file(2))]);
    }

    #[test]
    fn a_move_that_a_delete_had_not_seen_brings_back_what_was_moved() {
        let all = deleted().merge(&place(dot(2, 1), true));
        assert_eq!(all.versions(), [(dot(1, 1), &file(1))]);
        // One that it had seen does not.
        let mut seen = deleted();
        seen.place.insert(dot(1, 1), place(dot(1, 1), true).place.entries()[0].1.clone());
        assert!(!seen.alive());
    }

    #[test]
    fn a_touch_of_the_winner_leaves_the_copys_time() {
        let mut s = state(&[(dot(1, 1), 1, file(1)), (dot(2, 1), 1, file(2))]);
        let at = |secs| Mtime { secs, nanos: 0 };
        s.mtime.insert(dot(1, 1), Ranked::new(1, at(1)));
        s.mtime.insert(dot(2, 1), Ranked::new(1, at(2)));
        assert_eq!(s.mtime_of(Some(dot(1, 1))), Some(at(1)));
        s.mtime.retain(|d, _| d != dot(1, 1));
        s.mtime.insert(dot(3, 1), Ranked::new(2, at(3)));
        assert_eq!(s.mtime_of(Some(dot(1, 1))), Some(at(3)));
        assert_eq!(s.mtime_of(Some(dot(2, 1))), Some(at(2)));
    }
}
