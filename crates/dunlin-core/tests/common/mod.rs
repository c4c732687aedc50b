//! Devices made of a disk in memory and an index in memory, driven by the real core: what the tests
//! of replayed histories and of random ones share.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use dunlin_core::codec::{decode_state, encode_state};
use dunlin_core::ids::{ContentId, Dot, Incarnation, NodeId, ROOT};
use dunlin_core::kv::{Memory, Tx};
use dunlin_core::names::{self, Wanted};
use dunlin_core::observe::{Observation, Seen, suspects};
use dunlin_core::path::{Name, RelPath};
use dunlin_core::plan::{self, Action, Outcome, Plan, Step, Window};
use dunlin_core::rows::{LocalRow, Position, Rows, Stamp};
use dunlin_core::state::{Content, Mtime};
use dunlin_core::tree::Work;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Dir(BTreeMap<Name, u64>),
    File(Vec<u8>),
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub body: Body,
    pub mode: u16,
    pub mtime: u64,
    pub btime: u64,
    pub ctime: u64,
}

/// A file system in memory. Inode numbers are taken up again at once, as on ext4.
#[derive(Clone, Debug)]
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    clock: u64,
}

const TOP: u64 = 1;

pub fn time(t: u64) -> Mtime {
    Mtime { secs: i64::try_from(t).unwrap(), nanos: 0 }
}

pub fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

pub fn content_id(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

impl Disk {
    pub fn new() -> Disk {
        let mut d = Disk { inodes: BTreeMap::new(), clock: 1 };
        d.alloc(Body::Dir(BTreeMap::new()), 0o755);
        d.create(&RelPath::parse(b".dunlin").unwrap(), Body::Dir(BTreeMap::new()));
        d.create(&RelPath::parse(b".dunlin/swap").unwrap(), Body::Dir(BTreeMap::new()));
        d
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn alloc(&mut self, body: Body, mode: u16) -> u64 {
        let now = self.tick();
        let ino = (TOP..).find(|i| !self.inodes.contains_key(i)).unwrap();
        self.inodes.insert(ino, Inode { body, mode, mtime: now, btime: now, ctime: now });
        ino
    }

    pub fn lookup(&self, path: &RelPath) -> Option<u64> {
        path.names().iter().try_fold(TOP, |at, n| self.entries(at)?.get(n).copied())
    }

    pub fn entries(&self, dir: u64) -> Option<&BTreeMap<Name, u64>> {
        match &self.inodes.get(&dir)?.body {
            Body::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, dir: u64) -> Option<&mut BTreeMap<Name, u64>> {
        match &mut self.inodes.get_mut(&dir)?.body {
            Body::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn inode(&self, path: &RelPath) -> Option<&Inode> {
        self.inodes.get(&self.lookup(path)?)
    }

    fn parent(&self, path: &RelPath) -> Option<(u64, Name)> {
        let (dir, name) = path.split_last()?;
        let at = self.lookup(&dir)?;
        self.entries(at).map(|_| (at, name.clone()))
    }

    fn links(&self, ino: u64) -> u32 {
        let count = |i: &Inode| match &i.body {
            Body::Dir(e) => e.values().filter(|x| **x == ino).count(),
            _ => 0,
        };
        u32::try_from(self.inodes.values().map(count).sum::<usize>()).unwrap()
    }

    pub fn stamp(&self, ino: u64) -> Stamp {
        let i = &self.inodes[&ino];
        let (size, nlink) = match &i.body {
            Body::Dir(_) => (0, 1),
            Body::File(b) | Body::Link(b) => (b.len() as u64, self.links(ino)),
        };
        Stamp { ino, btime: Some(time(i.btime)), ctime: time(i.ctime), mtime: time(i.mtime), size, nlink }
    }

    /// Creates something where nothing is.
    pub fn create(&mut self, path: &RelPath, body: Body) -> bool {
        let Some((dir, name)) = self.parent(path) else { return false };
        if self.lookup(path).is_some() {
            return false;
        }
        let mode = if matches!(body, Body::Dir(_)) { 0o755 } else { 0o644 };
        let ino = self.alloc(body, mode);
        self.entries_mut(dir).unwrap().insert(name, ino);
        true
    }

    /// Writes into a file as it is.
    pub fn write(&mut self, path: &RelPath, bytes: &[u8]) {
        let (now, ino) = (self.tick(), self.lookup(path).unwrap());
        let i = self.inodes.get_mut(&ino).unwrap();
        assert!(matches!(i.body, Body::File(_)));
        (i.body, i.mtime, i.ctime) = (Body::File(bytes.to_vec()), now, now);
    }

    pub fn chmod(&mut self, path: &RelPath, mode: u16) {
        let (now, ino) = (self.tick(), self.lookup(path).unwrap());
        let i = self.inodes.get_mut(&ino).unwrap();
        (i.mode, i.ctime) = (mode, now);
    }

    pub fn touch(&mut self, path: &RelPath, mtime: u64) {
        let (now, ino) = (self.tick(), self.lookup(path).unwrap());
        let i = self.inodes.get_mut(&ino).unwrap();
        (i.mtime, i.ctime) = (mtime, now);
    }

    /// A second name for a file.
    pub fn link(&mut self, from: &RelPath, to: &RelPath) -> bool {
        let (Some(ino), Some((dir, name))) = (self.lookup(from), self.parent(to)) else { return false };
        if self.lookup(to).is_some() || self.entries(ino).is_some() {
            return false;
        }
        self.entries_mut(dir).unwrap().insert(name, ino);
        let now = self.tick();
        self.inodes.get_mut(&ino).unwrap().ctime = now;
        true
    }

    /// Renames; a file or link replaces a file or link.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) -> bool {
        let (Some(ino), Some((a, x)), Some((b, y))) = (self.lookup(from), self.parent(from), self.parent(to))
        else {
            return false;
        };
        if to.names().starts_with(from.names()) || from.names().starts_with(to.names()) {
            return false;
        }
        if let Some(old) = self.lookup(to) {
            if old == ino || self.entries(old).is_some() || self.entries(ino).is_some() {
                return false;
            }
            self.remove(to);
        }
        self.entries_mut(a).unwrap().remove(&x);
        self.entries_mut(b).unwrap().insert(y, ino);
        let now = self.tick();
        self.inodes.get_mut(&ino).unwrap().ctime = now;
        true
    }

    /// Swaps two things, neither of which is inside the other.
    pub fn exchange(&mut self, p: &RelPath, q: &RelPath) -> bool {
        let (Some(i), Some(j)) = (self.lookup(p), self.lookup(q)) else { return false };
        if p.names().starts_with(q.names()) || q.names().starts_with(p.names()) {
            return false;
        }
        let ((a, x), (b, y)) = (self.parent(p).unwrap(), self.parent(q).unwrap());
        self.entries_mut(a).unwrap().insert(x, j);
        self.entries_mut(b).unwrap().insert(y, i);
        let now = self.tick();
        for ino in [i, j] {
            self.inodes.get_mut(&ino).unwrap().ctime = now;
        }
        true
    }

    /// Removes something with all in it.
    pub fn remove(&mut self, path: &RelPath) {
        let ((dir, name), ino) = (self.parent(path).unwrap(), self.lookup(path).unwrap());
        for inner in self.entries(ino).cloned().unwrap_or_default().keys() {
            self.remove(&path.join(inner));
        }
        self.entries_mut(dir).unwrap().remove(&name);
        if self.links(ino) == 0 {
            self.inodes.remove(&ino);
        }
    }

    /// All paths but Dunlin's own, parents before children.
    pub fn paths(&self) -> Vec<RelPath> {
        let (mut out, mut todo) = (Vec::new(), VecDeque::from([RelPath::root()]));
        while let Some(dir) = todo.pop_front() {
            for n in self.entries(self.lookup(&dir).unwrap()).unwrap().keys() {
                let path = dir.join(n);
                if path.to_bytes() == b".dunlin" {
                    continue;
                }
                if matches!(self.inode(&path).unwrap().body, Body::Dir(_)) {
                    todo.push_back(path.clone());
                }
                out.push(path);
            }
        }
        out
    }

    pub fn seen(&self, path: &RelPath) -> Seen {
        let Some(ino) = self.lookup(path) else { return Seen::Absent };
        let (i, stamp) = (&self.inodes[&ino], self.stamp(ino));
        match &i.body {
            Body::Dir(_) => Seen::Dir(i.mode, stamp),
            Body::File(bytes) => Seen::File(content_id(bytes), i.mode, stamp),
            Body::Link(text) => Seen::Link(text.as_slice().into(), stamp),
        }
    }
}

/// Contents by id: what the network would bring.
pub type Contents = BTreeMap<ContentId, Vec<u8>>;

/// One device.
#[derive(Clone)]
pub struct Device {
    pub disk: Disk,
    pub index: Memory,
}

/// The incarnation that the model gives to the replica of this name.
pub fn incarnation(name: &str) -> Incarnation {
    let hash = blake3::hash(&[b"dunlin inc\0", name.as_bytes()].concat());
    Incarnation(hash.as_bytes()[..16].try_into().unwrap())
}

/// Whether something on the disk is still what a row says of it.
fn is_still(row: &LocalRow, seen: &Seen) -> bool {
    match (&row.content, seen) {
        (Content::Dir, Seen::Dir(mode, s)) => {
            row.stamp.ino == s.ino && row.stamp.btime == s.btime && *mode == row.mode
        }
        (Content::File { .. }, Seen::File(_, _, s)) | (Content::Link(_), Seen::Link(_, s)) => row.stamp == *s,
        _ => false,
    }
}

impl Device {
    pub fn new(name: &str) -> Device {
        let mut index = Memory::default();
        let mut tx = Tx::new(&index);
        let totals = dunlin_core::rows::Totals { inc: incarnation(name), ..tx.totals().unwrap() };
        tx.put_totals(&totals);
        let changes = tx.into_changes();
        index.apply(changes);
        Device { disk: Disk::new(), index }
    }

    fn path(&self, at: &Position) -> Option<RelPath> {
        plan::path_of(&self.index, at).unwrap()
    }

    fn list(&self, dir: NodeId) -> Option<BTreeSet<Name>> {
        let path: RelPath = self.index.disk_path(dir).unwrap()?.into();
        let entries = self.disk.entries(self.disk.lookup(&path)?)?;
        let ours = |n: &Name| !(dir == ROOT && n.as_bytes() == b".dunlin");
        Some(entries.keys().filter(|n| ours(n)).cloned().collect())
    }

    fn look(&self, at: &Position) -> Seen {
        self.path(at).map_or(Seen::Absent, |p| self.disk.seen(&p))
    }

    /// Takes over a batch with all it may come from.
    pub fn observe(&mut self, mut batch: Vec<Observation>) -> Vec<NodeId> {
        loop {
            let more = suspects(&self.index, &batch).unwrap();
            if more.is_empty() {
                break;
            }
            batch.extend(more.into_iter().map(|at| Observation { seen: self.look(&at), at }));
        }
        let mut work = Work::new(&self.index);
        let out = work.observe(&batch).unwrap();
        let changes = work.finish().unwrap();
        self.index.apply(changes);
        out.new_dirs
    }

    /// A complete pass: what is there directory by directory, then what is not.
    pub fn scan(&mut self) {
        let (mut todo, mut met) = (VecDeque::from([ROOT]), BTreeSet::new());
        while let Some(dir) = todo.pop_front() {
            if !met.insert(dir) {
                continue;
            }
            let Some(names) = self.list(dir) else { continue };
            let mut batch = Vec::new();
            for n in names {
                let at = Position::new(dir, n);
                let (seen, row) = (self.look(&at), self.index.local(&at).unwrap());
                if !row.is_some_and(|r| is_still(&r, &seen)) {
                    batch.push(Observation { at, seen });
                }
            }
            if !batch.is_empty() {
                todo.extend(self.observe(batch));
            }
            let rows = self.index.locals(dir).unwrap();
            todo.extend(rows.into_iter().filter(|(_, r)| r.content == Content::Dir).map(|(_, r)| r.node));
        }
        let (mut gone, mut todo) = (Vec::new(), vec![ROOT]);
        while let Some(dir) = todo.pop() {
            let names = self.list(dir).unwrap_or_default();
            for (n, row) in self.index.locals(dir).unwrap() {
                if names.contains(&n) {
                    todo.extend((row.content == Content::Dir).then_some(row.node));
                } else {
                    gone.push(Observation { at: Position::new(dir, n), seen: Seen::Absent });
                }
            }
        }
        if !gone.is_empty() {
            self.observe(gone);
        }
    }

    /// The rows that others may hear, as they travel.
    pub fn rows(&self) -> Vec<(NodeId, Vec<u8>)> {
        let rows = self.index.changed_since(0, usize::MAX).unwrap();
        let state = |n: NodeId| encode_state(&self.index.node(n).unwrap().unwrap().state);
        rows.into_iter().map(|(_, n)| (n, state(n))).collect()
    }

    pub fn hear(&mut self, rows: &[(NodeId, Vec<u8>)]) {
        let mut work = Work::new(&self.index);
        for (node, bytes) in rows {
            work.hear(*node, &decode_state(bytes).unwrap(), 1).unwrap();
        }
        let changes = work.finish().unwrap();
        self.index.apply(changes);
    }

    pub fn plan(&self, staged: &dyn Fn(&ContentId) -> bool, limit: usize) -> Plan {
        let skip = BTreeSet::new();
        plan::plan(&self.index, &Window::new(staged, &skip, limit)).unwrap()
    }

    /// Carries out one step on the disk, as the node's apply does.
    pub fn carry_out(&mut self, step: &Step, contents: &Contents) -> Outcome {
        let fits = |d: &Disk, p: &RelPath, stamp: &Stamp| {
            let Some(ino) = d.lookup(p) else { return false };
            let now = d.stamp(ino);
            if d.entries(ino).is_some() {
                (now.ino, now.btime) == (stamp.ino, stamp.btime)
            } else {
                now == *stamp
            }
        };
        let d = &mut self.disk;
        let p = &step.path;
        let done = match &step.action {
            Action::MakeDir { mode } => {
                d.create(p, Body::Dir(BTreeMap::new())) && {
                    d.chmod(p, *mode);
                    true
                }
            }
            Action::Place { content, mode, mtime, replaces, .. } => {
                let free = match replaces {
                    Some(stamp) => fits(d, p, stamp),
                    None => d.lookup(p).is_none() && d.parent(p).is_some(),
                };
                free && {
                    if replaces.is_some() {
                        d.remove(p);
                    }
                    let body = match content {
                        Content::File { id, .. } => Body::File(contents[id].clone()),
                        Content::Link(text) => Body::Link(text.to_vec()),
                        _ => panic!("{content:?} is no content of a place"),
                    };
                    assert!(d.create(p, body));
                    if matches!(content, Content::File { .. }) {
                        d.chmod(p, *mode);
                        d.touch(p, u64::try_from(mtime.secs).unwrap());
                    }
                    true
                }
            }
            Action::Move { from_path, row, swap, .. } => {
                fits(d, from_path, &row.stamp)
                    && match swap {
                        Some(other) => fits(d, p, &other.stamp) && d.exchange(from_path, p),
                        None => d.lookup(p).is_none() && d.rename(from_path, p),
                    }
            }
            Action::Meta { row, mode, mtime } => {
                fits(d, p, &row.stamp) && {
                    mode.iter().for_each(|m| d.chmod(p, *m));
                    mtime.iter().for_each(|t| d.touch(p, u64::try_from(t.secs).unwrap()));
                    true
                }
            }
            Action::Remove { row, .. } => {
                fits(d, p, &row.stamp) && d.entries(d.lookup(p).unwrap()).is_none_or(BTreeMap::is_empty) && {
                    d.remove(p);
                    return Outcome::Done(Stamp::default(), None);
                }
            }
        };
        if !done {
            return Outcome::Undone;
        }
        let back = match &step.action {
            Action::Move { from_path, swap: Some(_), .. } => d.lookup(from_path).map(|i| d.stamp(i)),
            _ => None,
        };
        Outcome::Done(d.stamp(d.lookup(p).unwrap()), back)
    }

    pub fn conclude(&mut self, done: &[(Step, Outcome)]) {
        let mut work = Work::new(&self.index);
        for (step, outcome) in done {
            work.conclude(step, outcome).unwrap();
        }
        let changes = work.finish().unwrap();
        self.index.apply(changes);
    }

    /// What should be visible: path, node and version.
    pub fn wanted(&self) -> Vec<(RelPath, NodeId, Wanted)> {
        let (mut out, mut todo) = (Vec::new(), vec![(ROOT, RelPath::root())]);
        while let Some((dir, path)) = todo.pop() {
            let names: BTreeSet<Name> =
                self.index.settled_in(dir, None, usize::MAX).unwrap().into_iter().map(|(n, _)| n).collect();
            for n in names {
                for (node, w) in names::group(&self.index, &Position::new(dir, n)).unwrap() {
                    let here = path.join(&w.at.name);
                    if w.content == Content::Dir {
                        todo.push((node, here.clone()));
                    }
                    out.push((here, node, w));
                }
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// A view of the index with what is derived from a state left out must not depend on the order in
    /// which the states came: the counters that can be counted anew are.
    pub fn check_totals(&self) {
        let totals = self.index.totals().unwrap();
        let (mut files, mut bytes, mut conflicts) = (0, 0, 0);
        let mut todo = vec![ROOT, dunlin_core::ids::PARKED];
        while let Some(dir) = todo.pop() {
            for (n, row) in self.index.locals(dir).unwrap() {
                conflicts += u64::from(names::is_conflict_name(&n));
                match row.content {
                    Content::Dir => todo.push(row.node),
                    Content::File { size, .. } => (files, bytes) = (files + 1, bytes + size),
                    _ => files += 1,
                }
            }
        }
        assert_eq!((totals.files, totals.bytes, totals.conflicts), (files, bytes, conflicts), "totals");
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Kind and content of something, as text.
pub fn kind_and_value(content: &Content, contents: &Contents) -> (&'static str, String) {
    match content {
        Content::Dir => ("dir", "-".into()),
        Content::File { id, .. } => ("file", hex(&contents[id])),
        Content::Link(text) => ("link", hex(text)),
        Content::Unknown { .. } => ("unknown", "-".into()),
    }
}

pub fn dot_text(dot: Option<Dot>) -> String {
    dot.map_or("-".into(), |d| format!("{}:{}", d.inc, d.counter))
}

impl Device {
    /// What the derived rows must hold whatever happened: a need for exactly what lacks something.
    pub fn check_needs(&self) {
        let nodes = self.index.0.keys().filter(|k| k[0] == b'n');
        let nodes: BTreeSet<NodeId> = nodes.map(|k| NodeId::from_slice(&k[1..]).unwrap()).collect();
        let mut count = 0;
        for node in nodes {
            let need = self.index.need(node).unwrap();
            let lacks = dunlin_core::decide::lacks_of(&self.index, node).unwrap();
            assert_eq!(need.is_some(), !lacks.is_empty(), "{node:?} needs {need:?}, lacks {lacks:#?}");
            count += u64::from(need.is_some());
        }
        assert_eq!(self.index.totals().unwrap().need_files, count, "needs");
    }

    /// What is lacking, for a person to read.
    pub fn lacking(&self) -> Vec<dunlin_core::decide::Lack> {
        let nodes = self.index.0.keys().filter(|k| k[0] == b'd');
        let nodes = nodes.map(|k| NodeId::from_slice(&k[1..]).unwrap());
        nodes.flat_map(|n| dunlin_core::decide::lacks_of(&self.index, n).unwrap()).collect()
    }

    /// Everything on the disk, as text: path, kind, content, mode and modification time.
    pub fn listing(&self) -> Vec<String> {
        let line = |p: &RelPath| {
            let i = self.disk.inode(p).unwrap();
            match &i.body {
                Body::Dir(_) => format!("{p} dir {:o}", i.mode),
                Body::File(b) => format!("{p} file {} {:o} {}", b.escape_ascii(), i.mode, i.mtime),
                Body::Link(b) => format!("{p} link {}", b.escape_ascii()),
            }
        };
        let mut lines: Vec<String> = self.disk.paths().iter().map(line).collect();
        lines.sort();
        lines
    }
}
