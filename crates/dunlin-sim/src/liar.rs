//! A member that speaks the protocol and lies: what it hears, and what it makes of it. Every word of it is one
//! that can be read, or nearly; what is said is false.

use crate::chance::Chance;
use crate::ledger::id_of;
use dunlin_core::codec::{decode_state, encode_state};
use dunlin_core::ids::{ContentId, DeviceId, Dot, Incarnation, LifeId, NodeId, ROOT};
use dunlin_core::life::Heard;
use dunlin_core::message::RowBytes;
use dunlin_core::path::Name;
use dunlin_core::session::{Outgoing, Speaker};
use dunlin_core::state::{COUNTER_MAX, Content, DotStore, Mtime, Place, Ranked, State, Vector};
use std::collections::BTreeMap;

/// Names that users give, that conflict copies have, that are too long for any, and that are ours.
const NAMES: &[&[u8]] = &[b"a", b"b", b"c.txt", b"d", b"e", b"D", b"a~conflict-01234", b"lie", &[b'x'; 255]];
/// Texts of links.
pub const LINKS: &[&[u8]] = &[b"a", b"../../etc", b"/"];
/// So many states of earlier are remembered, to be told again.
const OLDER_MAX: usize = 64;
/// A message is no longer than this: it would not be read.
const TOLD_MAX: usize = 700 << 10;

/// What it has of one device.
pub struct Ear {
    /// The life of that device's program.
    pub life: u64,
    /// As whom it speaks to it.
    pub speaker: Speaker,
    /// What that device still has to tell it.
    pub outgoing: Outgoing,
}

/// The liar.
pub struct Liar {
    /// Its key.
    pub id: DeviceId,
    /// What it hears of each device.
    pub ears: Vec<Option<Ear>>,
    /// Contents it announced, and serves to those who ask.
    pub own: BTreeMap<ContentId, Vec<u8>>,
    /// How many bytes of rows it told.
    pub told: u64,
    chance: Chance,
    inc: Incarnation,
    counter: u64,
    upto: u64,
    known: BTreeMap<NodeId, State>,
    older: Vec<(NodeId, State)>,
    incs: Vec<Incarnation>,
}

fn name(bytes: &[u8]) -> Option<Name> {
    Name::new(bytes).ok()
}

impl Liar {
    /// The `number`-th liar of a flock of so many honest devices.
    pub fn new(seed: u64, number: usize, devices: usize) -> Liar {
        let id = DeviceId([200 + (number % 50) as u8; 32]);
        Liar {
            id,
            ears: (0..devices).map(|_| None).collect(),
            own: BTreeMap::new(),
            told: 0,
            chance: Chance::new(seed.wrapping_add(number as u64), "liar"),
            inc: Incarnation::new(id, [1; 16]),
            counter: 0,
            upto: 0,
            known: BTreeMap::new(),
            older: Vec::new(),
            incs: Vec::new(),
        }
    }

    /// Its own chance: no other stream is drawn from for it.
    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Rows that a device told it.
    pub fn hears(&mut self, rows: &[RowBytes]) {
        for row in rows {
            let Ok(state) = decode_state(&row.state) else { continue };
            if let Some(old) = self.known.insert(row.node, state) {
                self.older.push((row.node, old));
            }
        }
        let over = self.older.len().saturating_sub(OLDER_MAX);
        self.older.drain(..over);
    }

    /// Opens the exchange with a device whose index counts as `of` and is at `seq`.
    pub fn opening(&mut self, of: Incarnation, seq: u64) -> (Speaker, Heard) {
        self.incs.push(of);
        let c = &mut self.chance;
        let inc = match c.below(6) {
            0 => *c.pick(&self.incs),
            1 => Incarnation([c.below(256) as u8; 16]),
            _ => self.inc,
        };
        let life = LifeId([c.below(3) as u8; 16]);
        let received = match c.below(8) {
            0 => seq,
            1 => seq + 1 + c.below(1 << 40),
            2 => u64::MAX,
            _ => 0,
        };
        let heard = Heard { of, received, life: LifeId([c.below(2) as u8; 16]) };
        (Speaker { device: self.id, inc, life }, heard)
    }

    /// How far its rows reach, as it says.
    pub fn upto(&mut self) -> u64 {
        self.upto += 1;
        match self.chance.below(10) {
            0 => u64::MAX,
            1 => 0,
            _ => self.upto,
        }
    }

    /// A lie.
    pub fn lie(&mut self) -> Vec<RowBytes> {
        let mut rows = match self.chance.below(14) {
            0 => self.all_is_deleted(),
            1 => self.others_counters(),
            2 => self.others_changes(),
            3 => self.absurd_vector(),
            4 | 5 => self.loop_of_parents(),
            6 => self.many_conflicts(),
            7 => self.again(),
            8 => self.halves(),
            9 => self.same_names(),
            10 => self.chain(),
            11 => self.what_cannot_be(),
            _ => (0..1 + self.chance.below(4)).map(|_| self.edit()).collect(),
        };
        if self.chance.one_in(3) {
            rows.push(self.edit());
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        for (node, state) in rows {
            let row = RowBytes { node, state: encode_state(&state) };
            bytes += row.state.len();
            if bytes > TOLD_MAX {
                break;
            }
            // What it said it holds to, until it hears otherwise.
            self.known.insert(node, state);
            out.push(row);
        }
        self.told += bytes as u64;
        out
    }

    fn own_dot(&mut self) -> Dot {
        // Now and then the same one for something else.
        self.counter += u64::from(!self.chance.one_in(6));
        Dot { inc: self.inc, counter: self.counter.max(1) }
    }

    /// A dot of its own; at times one of others, that they made, or will make, or never can.
    fn dot(&mut self) -> Dot {
        if self.incs.is_empty() || !self.chance.one_in(6) {
            return self.own_dot();
        }
        let inc = *self.chance.pick(&self.incs);
        let counter = match self.chance.below(4) {
            0 => COUNTER_MAX,
            1 => 1 + self.chance.below(1000),
            _ => 1 + self.chance.below(12),
        };
        Dot { inc, counter }
    }

    fn node(&mut self) -> NodeId {
        let known: Vec<NodeId> = self.known.keys().copied().collect();
        match self.chance.below(8) {
            0 => NodeId([self.chance.below(4) as u8 + 1; 16]),
            1 | 2 => {
                let parent = self.parent();
                let name = self.name();
                NodeId::created(parent, &name, self.chance.below(2) as u32)
            }
            _ if known.is_empty() => NodeId([9; 16]),
            _ => *self.chance.pick(&known),
        }
    }

    fn parent(&mut self) -> NodeId {
        let known: Vec<NodeId> = self.known.keys().copied().collect();
        match self.chance.below(6) {
            0 => NodeId([self.chance.below(4) as u8 + 1; 16]),
            1 | 2 if !known.is_empty() => *self.chance.pick(&known),
            _ => ROOT,
        }
    }

    fn name(&mut self) -> Name {
        let bytes = *self.chance.pick(NAMES);
        name(bytes).unwrap_or_else(|| unreachable!("all of them are names"))
    }

    fn rank(&mut self) -> u64 {
        *self.chance.pick(&[0, 1, 2, 3, 50, COUNTER_MAX - 1, COUNTER_MAX])
    }

    fn content(&mut self) -> Content {
        let held: Vec<Content> = self
            .known
            .values()
            .flat_map(|s| s.versions().into_iter().map(|v| v.1.clone()))
            .take(40)
            .collect();
        let c = &mut self.chance;
        match c.below(12) {
            0 => Content::Dir,
            1 => Content::Link(c.pick(LINKS).to_vec().into()),
            // Nobody has it, and no disk could hold some of them.
            2 => Content::File {
                id: ContentId([c.below(256) as u8; 32]),
                size: *c.pick(&[0, 7, i64::MAX as u64]),
            },
            3 => Content::Unknown { kind: 20 + c.below(3) as u8, bytes: vec![c.below(20) as u8].into() },
            4 | 5 if !held.is_empty() => c.pick(&held).clone(),
            _ => {
                let bytes = format!("a lie, {}\n", c.below(1 << 30)).into_bytes();
                let (id, size) = (id_of(&bytes), bytes.len() as u64);
                self.own.insert(id, bytes);
                Content::File { id, size }
            }
        }
    }

    /// A whole version, placed somewhere or where it was.
    fn edit(&mut self) -> (NodeId, State) {
        let node = self.node();
        let mut s = self.known.get(&node).cloned().unwrap_or_default();
        let (dot, rank) = (self.dot(), self.rank());
        if self.chance.one_in(2) {
            s.content = DotStore::default();
        }
        let content = self.content();
        s.content.insert(dot, Ranked::new(rank, content));
        if s.place.is_empty() || self.chance.one_in(4) {
            self.put(&mut s, dot, rank);
        }
        if self.chance.one_in(2) {
            s.mode.insert(dot, Ranked::new(rank, *self.chance.pick(&[0, 0o777, 0o644])));
            let secs = *self.chance.pick(&[0, i64::MIN, i64::MAX, 1]);
            s.mtime.insert(dot, Ranked::new(rank, Mtime { secs, nanos: 0 }));
        }
        s.gone = DotStore::default();
        s.seen.add(dot);
        (node, s)
    }

    fn put(&mut self, s: &mut State, dot: Dot, rank: u64) {
        let (parent, name) = (self.parent(), self.name());
        let earlier = self.chance.one_in(2).then(|| (self.parent(), self.name()));
        if self.chance.one_in(2) {
            s.place = DotStore::default();
        }
        s.place.insert(dot, Ranked::new(rank, Place { parent, name, earlier }));
    }

    /// An index in which everything is deleted, or nearly.
    fn all_is_deleted(&mut self) -> Vec<(NodeId, State)> {
        let keeps = self.chance.below(3) * 4;
        let known: Vec<(NodeId, State)> = self.known.iter().map(|(n, s)| (*n, s.clone())).collect();
        let mut out = Vec::new();
        for (node, mut s) in known {
            if self.chance.one_in(keeps) {
                continue;
            }
            let dot = self.own_dot();
            s.seen.add(dot);
            // At times one that says to have seen more than it shows.
            if self.chance.one_in(3) {
                s.content = DotStore::default();
            }
            s.gone.insert(dot, s.seen.clone());
            out.push((node, s));
        }
        out
    }

    /// Counters that others never gave.
    fn others_counters(&mut self) -> Vec<(NodeId, State)> {
        let mut out = Vec::new();
        for _ in 0..1 + self.chance.below(3) {
            let (node, mut s) = self.edit();
            if !self.incs.is_empty() {
                let inc = *self.chance.pick(&self.incs);
                let ahead = *self.chance.pick(&[1, 2, 100, COUNTER_MAX / 2]);
                let counter = (s.seen.get(inc) + ahead).min(COUNTER_MAX);
                s.seen.add(Dot { inc, counter });
            }
            out.push((node, s));
        }
        out
    }

    /// Other contents and places for changes that others made.
    fn others_changes(&mut self) -> Vec<(NodeId, State)> {
        let known: Vec<(NodeId, State)> = self.known.iter().map(|(n, s)| (*n, s.clone())).collect();
        if known.is_empty() {
            return Vec::new();
        }
        let (node, mut s) = self.chance.pick(&known).clone();
        let dots: Vec<Dot> = s.content.entries().iter().map(|e| e.0).collect();
        for dot in dots {
            let (rank, content) = (self.rank(), self.content());
            s.content.insert(dot, Ranked::new(rank, content));
            if self.chance.one_in(2) {
                self.put(&mut s, dot, rank);
            }
        }
        vec![(node, s)]
    }

    /// A vector of incarnations that never were; two of them may be more than a row may hold.
    fn absurd_vector(&mut self) -> Vec<(NodeId, State)> {
        let (node, mut s) = self.edit();
        let count = *self.chance.pick(&[3, 3, 20, 20, 200, 200, 900, 7_000]);
        let from = self.chance.next();
        let mut absurd = Vector::default();
        let mut incs: Vec<Incarnation> = (0..count)
            .map(|i| {
                Incarnation::new(
                    self.id,
                    [&from.to_le_bytes()[..], &u64::to_le_bytes(i)].concat().try_into().unwrap_or_default(),
                )
            })
            .collect();
        incs.sort_unstable();
        let counter = *self.chance.pick(&[1, COUNTER_MAX]);
        incs.into_iter().for_each(|inc| absurd.add(Dot { inc, counter }));
        if count <= 200 && self.chance.one_in(2) {
            let dot = self.own_dot();
            absurd.add(dot);
            s.gone.insert(dot, absurd.clone());
        }
        s.seen = s.seen.join(&absurd);
        vec![(node, s)]
    }

    /// Directories that are in each other.
    fn loop_of_parents(&mut self) -> Vec<(NodeId, State)> {
        let count = 1 + self.chance.below(5) as usize;
        let mut nodes: Vec<NodeId> = (0..count).map(|_| self.node()).collect();
        nodes.dedup();
        let mut out = Vec::new();
        for (i, &node) in nodes.iter().enumerate() {
            let mut s = self.known.get(&node).cloned().unwrap_or_default();
            let (dot, rank, name) = (self.dot(), self.rank(), self.name());
            let earlier = self.chance.one_in(2).then(|| (self.parent(), self.name()));
            let place = Place { parent: nodes[(i + 1) % nodes.len()], name, earlier };
            s.place = DotStore::default();
            s.place.insert(dot, Ranked::new(rank, place));
            if s.content.is_empty() || self.chance.one_in(3) {
                s.content.insert(dot, Ranked::new(rank, Content::Dir));
            }
            s.seen.add(dot);
            if self.chance.one_in(4) {
                s.gone.insert(dot, s.seen.clone());
            }
            out.push((node, s));
        }
        out
    }

    /// Very many versions of one file.
    fn many_conflicts(&mut self) -> Vec<(NodeId, State)> {
        let (node, mut s) = self.edit();
        let count = if self.chance.one_in(20) { 300 } else { *self.chance.pick(&[2, 5, 20]) };
        for i in 0..count {
            let inc = Incarnation([1 + (i % 200) as u8; 16]);
            let dot = Dot { inc, counter: 1 + i / 200 };
            let (rank, content) = (self.rank(), self.content());
            s.content.insert(dot, Ranked::new(rank, content));
            s.seen.add(dot);
        }
        vec![(node, s)]
    }

    /// What others said before.
    fn again(&mut self) -> Vec<(NodeId, State)> {
        if self.older.is_empty() {
            return Vec::new();
        }
        (0..1 + self.chance.below(6)).map(|_| self.chance.pick(&self.older).clone()).collect()
    }

    /// Parts of a row: what lacks its place, its content, or its past.
    fn halves(&mut self) -> Vec<(NodeId, State)> {
        let (node, mut s) = self.edit();
        match self.chance.below(5) {
            0 => s.place = DotStore::default(),
            1 => s.content = DotStore::default(),
            2 => (s.place, s.content) = Default::default(),
            3 => s.mtime = DotStore::default(),
            // It never heard of what the others have.
            _ => {
                let dot = self.own_dot();
                let content = s.content.entries().last().map(|e| e.1.clone());
                let place = s.place.entries().last().map(|e| e.1.clone());
                s = State::default();
                s.seen.add(dot);
                content.into_iter().for_each(|c| s.content.insert(dot, c));
                place.into_iter().for_each(|p| s.place.insert(dot, p));
            }
        }
        vec![(node, s)]
    }

    /// Many things of one name.
    fn same_names(&mut self) -> Vec<(NodeId, State)> {
        let (parent, name) = (self.parent(), self.name());
        let mut out = Vec::new();
        for _ in 0..2 + self.chance.below(12) {
            let node = NodeId(std::array::from_fn(|_| self.chance.below(256) as u8));
            let (dot, content) = (self.own_dot(), self.content());
            let mut s = State::default();
            s.seen.add(dot);
            s.place.insert(dot, Ranked::new(1, Place { parent, name: name.clone(), earlier: None }));
            s.content.insert(dot, Ranked::new(1, content));
            out.push((node, s));
        }
        out
    }

    /// Directories in directories; at times all but the last are deleted, or that too.
    fn chain(&mut self) -> Vec<(NodeId, State)> {
        let (first, count, dead) = (self.chance.next(), 3 + self.chance.below(20), self.chance.below(4));
        let id =
            |i: u64| NodeId([first.to_le_bytes(), i.to_le_bytes()].concat().try_into().unwrap_or_default());
        let mut out = Vec::new();
        for i in 0..count {
            let parent = if i == 0 { self.parent() } else { id(i - 1) };
            let mut s = State::default();
            let dot = self.own_dot();
            s.seen.add(dot);
            let name = self.name();
            s.place.insert(dot, Ranked::new(1, Place { parent, name, earlier: None }));
            s.content.insert(dot, Ranked::new(1, Content::Dir));
            if dead == 3 || (dead > 0 && i + 1 < count) {
                s.gone.insert(dot, s.seen.clone());
            }
            out.push((id(i), s));
        }
        if self.chance.one_in(2) {
            out.reverse();
        }
        out
    }

    /// What no program may take: of such a row nothing is to be kept, nor of those beside it.
    fn what_cannot_be(&mut self) -> Vec<(NodeId, State)> {
        let (node, mut s) = self.edit();
        let dot = self.own_dot();
        let place = |parent, bytes: &[u8]| name(bytes).map(|name| Place { parent, name, earlier: None });
        match self.chance.below(4) {
            0 => return vec![(ROOT, s)],
            1 => {
                let control = place(ROOT, b".dunlin");
                s.seen.add(dot);
                control.into_iter().for_each(|p| s.place.insert(dot, Ranked::new(1, p)));
            }
            2 => {
                s.content.insert(Dot { inc: Incarnation([3; 16]), counter: 77 }, Ranked::new(1, Content::Dir))
            }
            _ => {
                s.seen.add(dot);
                let parked = place(dunlin_core::ids::PARKED, b"a");
                parked.into_iter().for_each(|p| s.place.insert(dot, Ranked::new(1, p)));
            }
        }
        vec![(node, s)]
    }
}
