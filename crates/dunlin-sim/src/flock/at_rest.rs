//! One more change, or two at once, in a flock that rests: what comes of it can be told beforehand.

use super::Flock;
use crate::bounds::Sent;
use crate::disk::Thing;
use crate::judge::{Shape, Tree};
use crate::ledger::id_of;
use crate::links::MS;
use crate::script::{Act, What};
use crate::users::{bytes, content_of};
use dunlin_core::ids::ContentId;
use dunlin_core::kv::View;
use dunlin_core::names::is_conflict_name;
use dunlin_core::path::{Name, RelPath};
use std::collections::BTreeMap;

/// Contents that no script writes.
const ONE: u32 = 900_001;
const OTHER: u32 = 900_002;
/// Names that no script gives.
const MADE: &str = "made";
const MOVED: &str = "moved";

const ALONE: &str = "a change at rest is made everywhere";
const AT_ONCE: &str = "two changes at once become what is documented";
const UNITES: &str = "a lost index deletes nothing";

/// What files and links hold. Directories are left out: one that was kept for what is in it goes with that.
type Contents = BTreeMap<String, Option<ContentId>>;

fn contents(tree: &Tree) -> Contents {
    let of = |(path, shape): (&RelPath, &Shape)| match shape {
        Shape::File(_, _, id) | Shape::Link(id) => Some((path.to_string(), Some(*id))),
        Shape::Dir(_) | Shape::Other => None,
    };
    tree.iter().filter_map(of).collect()
}

fn is_in(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn content(n: u32) -> Option<ContentId> {
    Some(id_of(&bytes(n)))
}

/// What is to show, and the file that may show under one of two contents, the other as its conflict copy.
struct Expected {
    invariant: &'static str,
    what: &'static str,
    shows: Contents,
    conflict: Option<String>,
}

impl Flock {
    /// Does it at once; what the system refuses did not happen, and then nothing can be told.
    pub(super) fn hands(&mut self, device: usize, what: What) {
        let disk = self.shared.world().machines[device].disk.clone();
        let held = |p: &str| disk.visible_at(&crate::users::path(p)).as_ref().and_then(content_of);
        let before = if let What::Move { from, .. } = &what { held(from) } else { None };
        self.act(Act { at_ms: 0, device, inside: 0, what: what.clone() });
        self.refused |= match &what {
            What::Save { path, content: n } => held(path) != content(*n),
            What::Remove { path } => disk.visible_at(&crate::users::path(path)).is_some(),
            What::Move { to, .. } => held(to) != before,
            _ => false,
        };
    }

    /// A file whose path can be told to users, of one name (else a move is no move), with no conflict copy beside it or a directory it is in: one that was
    /// deleted and stays only for the file goes with it, and what had to yield its name to it takes that.
    fn plain_file(&mut self, tree: &Tree) -> Option<String> {
        let file = |(path, shape): &(&RelPath, &Shape)| {
            let text = path.to_string();
            let plain = !text.contains(|c: char| c.is_whitespace() || c == '\\') && !text.contains('~');
            let free = |other: &RelPath| {
                let beside = |(dir, name): (RelPath, &Name)| {
                    is_conflict_name(name) && path.names().starts_with(dir.names())
                };
                !other.split_last().is_some_and(beside)
            };
            let world = self.shared.world();
            let names = |device: &usize| world.machines[*device].disk.names_of(path);
            let single = self.staying().iter().all(|device| names(device) < 2);
            matches!(shape, Shape::File(..)) && plain && single && tree.keys().all(free)
        };
        let files: Vec<String> = tree.iter().filter(file).map(|(p, _)| p.to_string()).collect();
        if files.is_empty() { None } else { Some(self.schedule.pick(&files).clone()) }
    }

    /// Does something in a flock that rests, and looks at what comes of it.
    pub(crate) fn changes_at_rest(&mut self, tree: &Tree) {
        let staying = self.staying();
        let others = staying.len() as u64 - 1;
        if others == 0 {
            return;
        }
        let a = self.schedule.below(others + 1) as usize;
        let b = (a + 1 + self.schedule.below(others) as usize) % staying.len();
        let (a, b) = (staying[a], staying[b]);
        let mut shows = contents(tree);
        let path = match self.plain_file(tree) {
            Some(path) => path,
            None => {
                self.hands(a, What::Save { path: MADE.into(), content: ONE - 1 });
                shows.insert(MADE.into(), content(ONE - 1));
                if !self.rest() {
                    return;
                }
                MADE.into()
            }
        };
        let (sent, held) = (self.sent, self.size(a, &path));
        let expected = match self.schedule.below(3) {
            0 => self.one_change(a, b, path, shows),
            apart => {
                self.allow(apart == 1);
                let expected = self.two_changes(a, b, path, shows);
                self.go_on();
                self.allow(true);
                expected
            }
        };
        if self.rest() && !self.refused {
            self.compare(&expected);
            let n = staying.len() as u64;
            let written = [ONE, OTHER].map(|c| bytes(c).len() as u64);
            let bytes = match expected.what {
                // What changed a moment ago rides along, to those that have it too, with the rows of each of two changes.
                _ if self.has_streams() => 2 * n * n * (written[0] + written[1] + held),
                "removed" | "moved" | "removed while another was stopped" => 0,
                "edited" => (n - 1) * written[0],
                _ => n * (written[0] + written[1] + held),
            };
            // A new index is told all there is, and a directory is removed with all that is in it.
            let much = expected.invariant == UNITES || expected.what.contains("directory");
            let nodes = if much { self.nodes(a) } else { 0 };
            self.sent_little(sent, Sent { rows: n * n * (4 + nodes), bytes }, expected.what);
        }
    }

    fn nodes(&self, device: usize) -> u64 {
        let rows = self.shared.world().machines[device].index.rows();
        rows.range(b"n", b"o", usize::MAX).map_or(0, |nodes| nodes.len() as u64)
    }

    fn size(&self, device: usize, path: &str) -> u64 {
        match self.shared.world().machines[device].disk.visible_at(&crate::users::path(path)) {
            Some(Thing::File { bytes, .. }) => bytes.len() as u64,
            _ => 0,
        }
    }

    fn one_change(&mut self, a: usize, b: usize, path: String, mut shows: Contents) -> Expected {
        let which = self.schedule.below(5);
        let (invariant, what) = match which {
            0 => (ALONE, "removed"),
            1 => (ALONE, "edited"),
            2 => (ALONE, "moved"),
            3 => (ALONE, "removed while another was stopped"),
            _ => (UNITES, "removed while stopped, and the index lost"),
        };
        let held = shows.get(&path).copied().flatten();
        match which {
            0 => self.hands(a, What::Remove { path: path.clone() }),
            1 => self.hands(a, What::Save { path: path.clone(), content: ONE }),
            2 => self.hands(a, What::Move { from: path.clone(), to: MOVED.into() }),
            3 => {
                self.hands(b, What::Stop);
                self.hands(a, What::Remove { path: path.clone() });
                self.go_on();
                self.hands(b, What::Start);
            }
            _ => {
                self.hands(b, What::Stop);
                self.hands(b, What::Remove { path: path.clone() });
                self.devices[b].wanted = true;
                self.lose_index(b);
            }
        }
        match which {
            0 | 3 => drop(shows.remove(&path)),
            1 => drop(shows.insert(path, content(ONE))),
            2 => {
                shows.remove(&path);
                shows.insert(MOVED.into(), held);
            }
            _ => {}
        }
        Expected { invariant, what, shows, conflict: None }
    }

    /// Whoever runs goes on for a while.
    fn go_on(&mut self) {
        let until = self.now + 2_000 * MS;
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Whether devices can reach each other.
    fn allow(&mut self, allowed: bool) {
        for a in 0..self.devices.len() {
            for b in a + 1..self.devices.len() {
                self.links.pair(a, b).allowed = allowed;
                if allowed { self.dial(a, b) } else { self.disconnect(a, b) }
            }
        }
    }

    fn two_changes(&mut self, a: usize, b: usize, path: String, mut shows: Contents) -> Expected {
        let save = |content| What::Save { path: path.clone(), content };
        let moved = || What::Move { from: path.clone(), to: MOVED.into() };
        let held = shows.get(&path).copied().flatten();
        let removed = || What::Remove { path: path.clone() };
        let (what, one, other) = match self.schedule.below(6) {
            0 => ("edited twice alike", save(ONE), save(ONE)),
            1 => ("edited twice", save(ONE), save(OTHER)),
            2 => ("edited and removed", save(ONE), removed()),
            3 => ("moved and removed", moved(), removed()),
            4 => ("moved and edited", moved(), save(ONE)),
            _ => ("removed with its directory, and one added there", save(ONE), removed()),
        };
        let mut conflict = None;
        let dir = path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        match (what, dir) {
            ("removed with its directory, and one added there", Some(dir)) => {
                let added = format!("{dir}/{MADE}");
                self.hands(a, What::Remove { path: dir.clone() });
                self.hands(b, What::Save { path: added.clone(), content: OTHER });
                shows.retain(|p, _| !is_in(p, &dir));
                shows.insert(added, content(OTHER));
                return Expected { invariant: AT_ONCE, what, shows, conflict };
            }
            _ => {
                self.hands(a, one);
                self.hands(b, other);
            }
        }
        match what {
            "edited twice" => {
                conflict = Some(path.clone());
                shows.remove(&path);
            }
            "moved and removed" => {
                shows.remove(&path);
                shows.insert(MOVED.into(), held);
            }
            "moved and edited" => {
                shows.remove(&path);
                shows.insert(MOVED.into(), content(ONE));
            }
            _ => drop(shows.insert(path, content(ONE))),
        }
        Expected { invariant: AT_ONCE, what, shows, conflict }
    }

    fn compare(&self, expected: &Expected) {
        let first = self.tree(self.staying()[0]);
        for device in self.staying() {
            let mut found = contents(&self.named_as(device, &first, &Default::default()));
            let mut both = Vec::new();
            if let Some(path) = &expected.conflict {
                let split = path.rsplit_once('.').filter(|(_, extension)| !extension.contains('/'));
                let stem = split.map_or(path.as_str(), |(stem, _)| stem);
                let copy = |p: &String| p.starts_with(&format!("{stem}~conflict-"));
                let names: Vec<String> = found.keys().filter(|p| *p == path || copy(p)).cloned().collect();
                both.extend(names.iter().filter_map(|n| found.remove(n)));
                both.sort();
            }
            let mut wanted =
                if expected.conflict.is_some() { vec![content(ONE), content(OTHER)] } else { Vec::new() };
            wanted.sort();
            let differ: Vec<&String> = found
                .keys()
                .chain(expected.shows.keys())
                .filter(|p| found.get(*p) != expected.shows.get(*p))
                .collect();
            if both != wanted || !differ.is_empty() {
                let what =
                    format!("device {device}: {}: {differ:?} differ, {} versions", expected.what, both.len());
                return self.breaks(expected.invariant, what);
            }
        }
    }
}
