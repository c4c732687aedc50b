//! Random flocks: users act on disks, rows travel in any order and in part, plans are carried out a
//! few steps at a time and are overtaken by local edits. In the end all devices must hold the same,
//! and nothing may be lost that nobody overwrote or deleted.
#![allow(clippy::unwrap_used)]

use crate::common::*;
use dunlin_core::codec::{decode_state, encode_state};
use dunlin_core::ids::ContentId;
use dunlin_core::kv::Tx;
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Outcome};
use dunlin_core::revert::{Selection, select};
use dunlin_core::rows::{Rows, Totals};
use dunlin_core::state::State;
use dunlin_core::tree::Work;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to a flock, one device at a time.
#[derive(Clone, Debug)]
enum Event {
    Make { dir: Index, name: usize, kind: u8 },
    Edit { path: Index, how: u8 },
    Delete { path: Index },
    Move { path: Index, dir: Index, name: usize },
    Chmod { path: Index, mode: u16 },
    Touch { path: Index },
    Link { path: Index, dir: Index, name: usize },
    Exchange { a: Index, b: Index },
    Rotate { a: Index, b: Index, c: Index },
    Scan,
    Hear { from: Index, order: u64, part: u64 },
    Apply { limit: usize, plans: usize, fetch: bool },
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let i = any::<Index>;
    let n = || 0..NAMES.len();
    prop_oneof![
        5 => (i(), n(), 0u8..6).prop_map(|(dir, name, kind)| Make { dir, name, kind }),
        4 => (i(), 0u8..5).prop_map(|(path, how)| Edit { path, how }),
        2 => i().prop_map(|path| Delete { path }),
        5 => (i(), i(), n()).prop_map(|(path, dir, name)| Move { path, dir, name }),
        1 => (i(), 0u16..3).prop_map(|(path, m)| Chmod { path, mode: 0o600 + m * 0o22 }),
        1 => i().prop_map(|path| Touch { path }),
        1 => (i(), i(), n()).prop_map(|(path, dir, name)| Link { path, dir, name }),
        2 => (i(), i()).prop_map(|(a, b)| Exchange { a, b }),
        1 => (i(), i(), i()).prop_map(|(a, b, c)| Rotate { a, b, c }),
        6 => Just(Scan),
        6 => (i(), any::<u64>(), 0u64..4).prop_map(|(from, order, part)| Hear { from, order, part }),
        6 => (1usize..6, 1usize..4, any::<bool>()).prop_map(|(limit, plans, fetch)| Apply { limit, plans, fetch }),
    ]
}

const NAMES: [&[u8]; 3] = [b"a", b"b.txt", b"c"];

struct Flock {
    devices: Vec<Device>,
    staged: Vec<BTreeSet<ContentId>>,
    contents: Contents,
    /// Every content that was written once: whether a user overwrote or deleted it.
    ledger: BTreeMap<Vec<u8>, bool>,
    count: usize,
}

/// How often each content is on a disk.
fn held(disk: &Disk) -> BTreeMap<Vec<u8>, usize> {
    let mut out = BTreeMap::new();
    for path in disk.paths() {
        if let Body::File(b) | Body::Link(b) = &disk.inode(&path).unwrap().body {
            *out.entry(b.clone()).or_default() += 1;
        }
    }
    out
}

impl Flock {
    fn new(devices: usize) -> Flock {
        Flock {
            devices: (0..devices).map(|i| Device::new(&i.to_string())).collect(),
            staged: vec![BTreeSet::new(); devices],
            contents: Contents::new(),
            ledger: BTreeMap::new(),
            count: 0,
        }
    }

    /// A content; now and then one that others write too.
    fn fresh(&mut self, link: bool, shared: bool) -> Body {
        self.count += 1;
        let bytes = if shared { b"same".to_vec() } else { format!("v{}", self.count).into_bytes() };
        if !shared {
            self.ledger.insert(bytes.clone(), false);
        }
        self.contents.insert(content_id(&bytes), bytes.clone());
        if link { Body::Link(bytes) } else { Body::File(bytes) }
    }

    fn happen(&mut self, who: usize, event: &Event) {
        match event {
            Event::Scan => self.devices[who].scan(),
            Event::Hear { from, order, part } => {
                let from = from.index(self.devices.len());
                let mut rows = self.devices[from].rows();
                // Any order, half of them or all, some twice.
                let weight = |r: &(dunlin_core::ids::NodeId, Vec<u8>)| {
                    let hash = blake3::hash(&[&r.0.0[..], &order.to_le_bytes()].concat());
                    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
                };
                rows.sort_by_key(weight);
                if *part > 0 {
                    rows.truncate(rows.len().div_ceil(2));
                    rows.extend(rows.first().cloned());
                }
                self.devices[who].hear(&rows);
            }
            Event::Apply { limit, plans, fetch } => {
                for _ in 0..*plans {
                    self.apply(who, *limit, *fetch);
                }
            }
            user => {
                let before = held(&self.devices[who].disk);
                self.act(who, user);
                let after = held(&self.devices[who].disk);
                for (bytes, n) in before {
                    if after.get(&bytes).copied().unwrap_or(0) < n {
                        self.ledger.entry(bytes).and_modify(|superseded| *superseded = true);
                    }
                }
            }
        }
        self.devices[who].check_needs();
        self.devices[who].check_totals();
    }

    fn act(&mut self, who: usize, event: &Event) {
        let paths = self.devices[who].disk.paths();
        let is_dir = |p: &RelPath| matches!(self.devices[who].disk.inode(p).unwrap().body, Body::Dir(_));
        let mut dirs = vec![RelPath::root()];
        dirs.extend(paths.iter().filter(|p| is_dir(p)).cloned());
        let to = |dir: &Index, n: usize| dir.get(&dirs).join(&name(NAMES[n]));
        if let Event::Make { dir, name, kind } = event {
            let body = match kind {
                0 | 1 => Body::Dir(BTreeMap::new()),
                _ => self.fresh(*kind == 2, *kind == 3),
            };
            let made = match &body {
                Body::File(b) | Body::Link(b) => Some(b.clone()),
                Body::Dir(_) => None,
            };
            if !self.devices[who].disk.create(&to(dir, *name), body) {
                made.map(|b| self.ledger.remove(&b));
            }
            return;
        }
        if paths.is_empty() {
            return;
        }
        match event {
            Event::Edit { path, how } => {
                let path = path.get(&paths);
                let body = if *how == 4 { Body::Dir(BTreeMap::new()) } else { self.fresh(*how == 3, false) };
                let disk = &mut self.devices[who].disk;
                match (&disk.inode(path).unwrap().body, &body) {
                    (Body::File(_), Body::File(b)) if *how == 0 => disk.write(path, &b.clone()),
                    (Body::File(_) | Body::Link(_), Body::File(_) | Body::Link(_)) if *how < 3 => {
                        let temp = path.split_last().unwrap().0.join(&name(b"4913"));
                        assert!(disk.create(&temp, body) && disk.rename(&temp, path));
                    }
                    _ => {
                        disk.remove(path);
                        assert!(disk.create(path, body));
                    }
                }
            }
            Event::Delete { path } => self.devices[who].disk.remove(path.get(&paths)),
            Event::Move { path, dir, name } => {
                let to = to(dir, *name);
                self.devices[who].disk.rename(path.get(&paths), &to);
            }
            Event::Chmod { path, mode } => {
                let (path, disk) = (path.get(&paths), &mut self.devices[who].disk);
                if !matches!(disk.inode(path).unwrap().body, Body::Link(_)) {
                    disk.chmod(path, *mode);
                }
            }
            Event::Touch { path } => {
                self.count += 1;
                let mtime = 1_000_000 + self.count as u64;
                self.devices[who].disk.touch(path.get(&paths), mtime);
            }
            Event::Link { path, dir, name } => {
                let to = to(dir, *name);
                self.devices[who].disk.link(path.get(&paths), &to);
            }
            Event::Exchange { a, b } => {
                self.devices[who].disk.exchange(a.get(&paths), b.get(&paths));
            }
            Event::Rotate { a, b, c } => {
                let (a, b, c) = (a.get(&paths), b.get(&paths), c.get(&paths));
                let disk = &mut self.devices[who].disk;
                if disk.exchange(a, b) && disk.lookup(c).is_some() {
                    disk.exchange(b, c);
                }
            }
            _ => {}
        }
    }

    /// One plan, carried out; returns whether it held anything to do. Every content that was ever written can
    /// be fetched, as if it were in somebody's history.
    fn apply(&mut self, who: usize, limit: usize, fetch: bool) -> bool {
        let device = &self.devices[who];
        let plan = device.plan(&|id| self.staged[who].contains(id), limit);
        let mut busy = false;
        if fetch {
            let found: Vec<ContentId> = plan.fetches.iter().map(|f| f.content).collect();
            busy = found.iter().any(|id| !self.staged[who].contains(id));
            self.staged[who].extend(found);
        }
        let (mut done, mut disturbed) = (Vec::new(), false);
        for step in plan.steps {
            let outcome = self.devices[who].carry_out(&step, &self.contents);
            disturbed |= outcome == Outcome::Undone;
            if let Action::Place { content: dunlin_core::state::Content::File { id, .. }, .. } = &step.action
            {
                assert!(self.staged[who].contains(id), "a file is placed whose content is not here");
            }
            done.push((step, outcome));
        }
        busy |= !done.is_empty();
        self.devices[who].conclude(&done);
        self.devices[who].check_needs();
        if disturbed {
            self.devices[who].scan();
        }
        busy
    }

    /// All meet until nothing is left to do.
    fn meet(&mut self) {
        for _ in 0..40 {
            let mut busy = false;
            for who in 0..self.devices.len() {
                let before = self.devices[who].index.totals().unwrap().digest;
                self.devices[who].scan();
                for from in 0..self.devices.len() {
                    let rows = self.devices[from].rows();
                    self.devices[who].hear(&rows);
                }
                let mut rounds = 0;
                while self.apply(who, 5, true) {
                    busy = true;
                    rounds += 1;
                    assert!(rounds < 500, "plans do not come to an end");
                }
                busy |= before != self.devices[who].index.totals().unwrap().digest;
            }
            if !busy {
                return;
            }
        }
        panic!("the devices do not come to rest");
    }

    fn check_equal(&self) {
        let first = &self.devices[0];
        let digest = first.index.totals().unwrap().digest;
        for device in &self.devices {
            let totals = device.index.totals().unwrap();
            assert_eq!(totals.digest, digest, "digests");
            assert_eq!(totals.need_files, 0, "lacking: {:#?}", device.lacking());
            assert_eq!(totals.need_bytes, 0, "bytes are lacking");
            let wanted: BTreeSet<RelPath> = device.wanted().into_iter().map(|w| w.0).collect();
            assert_eq!(wanted, device.disk.paths().into_iter().collect(), "index and disk");
            assert_eq!(device.listing(), first.listing(), "disks");
            device.check_totals();
            device.check_needs();
        }
        let kept = held(&first.disk);
        for (bytes, superseded) in &self.ledger {
            assert!(*superseded || kept.contains_key(bytes), "lost: {}", bytes.escape_ascii());
        }
    }
}

fn history() -> impl Strategy<Value = (usize, Vec<(Index, Event)>)> {
    (3usize..5, prop::collection::vec((any::<Index>(), event()), 1..60))
}

fn lived((devices, events): (usize, Vec<(Index, Event)>)) -> Flock {
    let mut flock = Flock::new(devices);
    for (who, event) in &events {
        flock.happen(who.index(devices), event);
    }
    flock
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(300, |c| c.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn flocks_converge_and_lose_nothing(history in history()) {
        let mut flock = lived(history);
        flock.meet();
        flock.check_equal();
    }

    #[test]
    fn merge_is_commutative_associative_and_idempotent(history in history()) {
        let flock = lived(history);
        let known = |d: &Device| d.rows().into_iter().map(|(n, b)| (n, decode_state(&b).unwrap())).collect();
        let all: Vec<BTreeMap<_, State>> = flock.devices.iter().map(known).collect();
        for node in all.iter().flat_map(BTreeMap::keys) {
            let of = |i: usize| all[i].get(node).cloned().unwrap_or_default();
            let (a, b, c) = (of(0), of(1), of(2));
            prop_assert_eq!(a.merge(&b), b.merge(&a));
            prop_assert_eq!(a.merge(&a), a.clone());
            prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
            prop_assert_eq!(encode_state(&a.merge(&b)), encode_state(&b.merge(&a)));
        }
    }

    /// A new index that finds the folder as the others have it changes and fetches nothing.
    #[test]
    fn uniting_equal_folders_costs_nothing(history in history()) {
        let mut flock = lived(history);
        flock.meet();
        let mut joiner = Device::new("joiner");
        joiner.set_uniting();
        for path in flock.devices[0].disk.paths() {
            let inode = flock.devices[0].disk.inode(&path).unwrap().clone();
            let body = if let Body::Dir(_) = inode.body { Body::Dir(BTreeMap::new()) } else { inode.body };
            assert!(joiner.disk.create(&path, body));
        }
        let (digest, rows) = (flock.devices[0].index.totals().unwrap().digest, flock.devices[0].rows());
        joiner.hear(&rows);
        joiner.scan();
        prop_assert_eq!(joiner.index.totals().unwrap().digest, digest, "uniting changed something");
        loop {
            let plan = joiner.plan(&|_| false, 5);
            assert!(joiner.index.totals().unwrap().need_bytes == 0);
            prop_assert!(plan.fetches.is_empty(), "uniting fetches {:#?}", plan.fetches);
            if plan.steps.is_empty() {
                break;
            }
            let steps = plan.steps.into_iter();
            let done: Vec<_> = steps.map(|s| (s.clone(), joiner.carry_out(&s, &flock.contents))).collect();
            joiner.conclude(&done);
        }
        prop_assert_eq!(joiner.listing(), flock.devices[0].listing());
    }

    /// Two folders that grew apart unite: everything of both is there afterwards.
    #[test]
    fn uniting_differing_folders_deletes_nothing(history in history()) {
        let (mut flock, mut joiner) = (lived(history.clone()), lived(history).devices.remove(1));
        flock.meet();
        joiner.index = Device::new("joiner").index;
        joiner.set_uniting();
        let mut before = held(&flock.devices[0].disk);
        before.append(&mut held(&joiner.disk));
        joiner.hear(&flock.devices[0].rows());
        joiner.scan();
        flock.devices.push(joiner);
        flock.staged.push(BTreeSet::new());
        flock.meet();
        let after = held(&flock.devices[0].disk);
        for bytes in before.keys() {
            prop_assert!(after.contains_key(bytes), "uniting lost {}", bytes.escape_ascii());
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// What one user did in a flock at rest is taken back by another device, and that by a third.
    #[test]
    fn what_was_done_is_taken_back_and_done_again(
        history in history(),
        done in prop::collection::vec(event(), 1..25),
        who in prop::array::uniform3(any::<Index>()),
    ) {
        let mut flock = lived(history);
        flock.meet();
        let [user, first, second] = who.map(|w| w.index(flock.devices.len()));
        let (before, from) = (flock.devices[0].listing(), flock.begin());
        // What users make of versions that lost their name is another story: they become nodes of their own.
        let linked = |d: &Device| d.disk.paths().iter().any(|p| d.disk.stamp(d.disk.lookup(p).unwrap()).nlink > 1);
        if before.iter().any(|line| line.contains("~conflict-")) || flock.devices.iter().any(linked) {
            return Ok(());
        }
        for event in done {
            // Two names of one file have one mode and time.
            if !matches!(event, Event::Hear { .. } | Event::Apply { .. } | Event::Link { .. }) {
                flock.happen(user, &event);
            }
        }
        flock.meet();
        let (after, again) = (flock.devices[0].listing(), flock.begin());
        flock.undo(first, from[first]);
        flock.meet();
        flock.check_equal();
        prop_assert_eq!(flock.devices[0].listing(), before);
        flock.undo(second, again[second]);
        flock.meet();
        flock.check_equal();
        prop_assert_eq!(flock.devices[0].listing(), after);
    }
}

impl Flock {
    /// The numbers of the next changes.
    fn begin(&self) -> Vec<u64> {
        self.devices.iter().map(|d| d.index.totals().unwrap().seq + 1).collect()
    }

    /// Takes back all that a device saw happen from a number on.
    fn undo(&mut self, who: usize, from: u64) {
        // What is taken back was meant to go.
        self.ledger.values_mut().for_each(|superseded| *superseded = true);
        let device = &mut self.devices[who];
        let selection = Selection::since(from);
        let undo = select(&device.index, &selection).unwrap();
        assert_eq!(undo.changed_since, Vec::<RelPath>::new());
        let mut work = Work::new(&device.index);
        for back in &undo.back {
            assert!(work.take_back(back).unwrap(), "{back:?}");
        }
        let changes = work.finish().unwrap();
        device.index.apply(changes);
    }
}

impl Device {
    fn set_uniting(&mut self) {
        let mut tx = Tx::new(&self.index);
        let totals = Totals { uniting: true, ..tx.totals().unwrap() };
        tx.put_totals(&totals);
        let changes = tx.into_changes();
        self.index.apply(changes);
    }
}
