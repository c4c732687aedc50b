//! Disks that are not like those of Linux: what a device with one has to show, and what it cannot.
//!
//! Trees are equal but for what cannot be shown. A device says what that is; here it is checked that it is
//! true, that all else is there, and that nothing else is. The first device of a flock has an ordinary disk.

use crate::chance::Chance;
use crate::disk::{Names, Options};
use crate::flock::Flock;
use crate::judge::{Shape, Tree, difference};
use dunlin_core::path::RelPath;
use dunlin_node::disk::FileTime;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Two seconds: the steps in which FAT keeps times.
const COARSE_NS: u64 = 2_000_000_000;

/// What is odd about the disk of a device, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odd(u8);

impl Odd {
    /// Names of another case are one.
    pub const CASE: Odd = Odd(1);
    /// Names of another form are one.
    pub const FORM: Odd = Odd(2);
    /// The same, and names are listed decomposed.
    pub const DECOMPOSES: Odd = Odd(4);
    /// There are no modes.
    pub const NO_MODES: Odd = Odd(8);
    /// Times are kept in steps of two seconds.
    pub const COARSE: Odd = Odd(16);
    /// There are no links.
    pub const NO_LINKS: Odd = Odd(32);

    /// Draws one that is odd somehow.
    fn draw(chance: &mut Chance) -> Odd {
        match chance.below(6) {
            0 => Odd::CASE,
            1 => Odd::FORM,
            2 => Odd::DECOMPOSES,
            // As FAT.
            3 => Odd(1 | 8 | 16 | 32),
            4 => *chance.pick(&[Odd::NO_MODES, Odd::COARSE, Odd::NO_LINKS]),
            _ => Odd(*chance.pick(&[1, 2, 4]) | (chance.below(8) as u8 * 8)),
        }
    }

    /// Whether it has this oddity.
    pub fn has(self, what: Odd) -> bool {
        self.0 & what.0 != 0
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn names(self) -> Names {
        match self.0 & 7 {
            0 => Names::Exact,
            1 => Names::CaseBlind,
            2 => Names::NfdBlind,
            _ => Names::Decomposes,
        }
    }

    /// A disk that is so.
    pub fn options(self, ordinary: Options) -> Options {
        Options {
            names: self.names(),
            modes: !self.has(Odd::NO_MODES),
            links: !self.has(Odd::NO_LINKS),
            rounds: self.has(Odd::COARSE),
            tick_ns: if self.has(Odd::COARSE) { COARSE_NS } else { ordinary.tick_ns },
            ..ordinary
        }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Odd {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Odd, Self::Err> {
        s.parse().map(Odd)
    }
}

/// The disks of a seed's devices: in one seed of six some are odd, never the first. They draw from a stream of their
/// own, so that all other seeds are what they were before there were odd disks.
pub fn disks(seed: u64, devices: usize) -> Vec<Odd> {
    let mut chance = Chance::new(seed, "odd disks");
    if !chance.one_in(6) {
        return Vec::new();
    }
    let mut out = vec![Odd::default()];
    while out.len() < devices {
        out.push(if out.len() == 1 || chance.one_in(3) { Odd::draw(&mut chance) } else { Odd::default() });
    }
    out
}

/// What a device cannot show, as it says.
#[derive(Debug, Default)]
pub(crate) struct Unshown(BTreeSet<RelPath>);

impl Unshown {
    /// Whether a path is of that or below it.
    pub(crate) fn covers(&self, path: &RelPath) -> bool {
        self.0.iter().any(|u| path.names().starts_with(u.names()))
    }
}

/// Whether this is said of what a disk cannot show.
fn is_unshown(why: &str) -> bool {
    why.starts_with("this file system takes its name") || why.starts_with("a symbolic link, and")
}

fn near(a: &FileTime, b: &FileTime) -> bool {
    let ns = |t: &FileTime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    (ns(a) - ns(b)).abs() < i128::from(COARSE_NS)
}

/// Whether `here`, on such a disk, is all that there can be of `there`.
fn alike(here: &Shape, there: &Shape, odd: Odd) -> bool {
    let mode = |a: &u16, b: &u16| a == b || odd.has(Odd::NO_MODES);
    let time = |a: &FileTime, b: &FileTime| a == b || (odd.has(Odd::COARSE) && near(a, b));
    match (here, there) {
        (Shape::Dir(a), Shape::Dir(b)) => mode(a, b),
        (Shape::File(m, t, a), Shape::File(n, u, b)) => mode(m, n) && time(t, u) && a == b,
        _ => here == there,
    }
}

impl Flock {
    /// What is odd about the disk of a device.
    pub(crate) fn odd(&self, device: usize) -> Odd {
        self.odd.get(device).copied().unwrap_or_default()
    }

    /// Whether all that is wrong with a device is what it cannot show.
    pub(crate) fn lacks_only_unshown(&self, device: usize) -> bool {
        let Some(life) = &self.devices[device].life else { return false };
        let told = life.host.told();
        self.odd(device).any()
            && !life.engine.will_try_again()
            && !told.problems.is_empty()
            && told.problems.values().all(|why| is_unshown(why))
    }

    /// Whether any device says that it cannot show something.
    pub(crate) fn has_unshown(&self) -> bool {
        self.staying().into_iter().any(|d| self.lacks_only_unshown(d))
    }

    pub(crate) fn unshown(&self, device: usize) -> Unshown {
        let Some(life) = &self.devices[device].life else { return Unshown::default() };
        let told = life.host.told();
        Unshown(told.problems.iter().filter(|(_, why)| is_unshown(why)).map(|(p, _)| p.clone()).collect())
    }

    /// The tree of a device with the names that another tree has for the same things.
    pub(crate) fn named_as(&self, device: usize, tree: &Tree, unshown: &Unshown) -> Tree {
        let names = self.odd(device).names();
        let rename = |path: &RelPath| {
            let mut out = RelPath::root();
            for name in path.names() {
                let exact = out.join(name);
                let there = |p: &&RelPath| {
                    let at = p.split_last();
                    at.is_some_and(|(dir, n)| dir == out && names.same(n, name)) && !unshown.covers(p)
                };
                let other = tree.keys().find(there).cloned();
                let known = tree.contains_key(&exact) && !unshown.covers(&exact);
                out = if known { exact } else { other.unwrap_or(exact) };
            }
            out
        };
        let decomposes = names == Names::Decomposes;
        self.tree(device).into_iter().map(|(p, s)| (if decomposes { rename(&p) } else { p }, s)).collect()
    }

    /// How a device's tree differs from that of one with an ordinary disk, but for what cannot be shown.
    pub(crate) fn differs(&self, tree: &Tree, device: usize) -> Option<String> {
        let odd = self.odd(device);
        if !odd.any() {
            return difference(tree, &self.tree(device));
        }
        let unshown = self.unshown(device);
        let here = self.named_as(device, tree, &unshown);
        let mut found = Vec::new();
        for (path, there) in tree {
            match here.get(path) {
                Some(shape) if alike(shape, there, odd) => {}
                _ if unshown.covers(path) => {}
                other => found.push(format!("{path}: {there:?} | {other:?}")),
            }
        }
        // What moved to a name that is not shown stays where it was and as it was, a directory with all in it.
        let left: Vec<&RelPath> = here.keys().filter(|p| !tree.contains_key(*p)).collect();
        let is_in = |a: &RelPath, b: &RelPath| a != b && a.names().starts_with(b.names());
        let leaves = left.iter().filter(|p| !left.iter().any(|below| is_in(below, p)));
        if leaves.count() > tree.keys().filter(|p| unshown.covers(p)).count() {
            found.extend(left.iter().map(|path| format!("{path}: None | {:?}", here[*path])));
        }
        for path in &unshown.0 {
            let Some((dir, name)) = path.split_last() else { continue };
            // In a directory that stays where it was, what is lacking is named by that.
            if !dir.is_root() && !tree.contains_key(&dir) {
                continue;
            }
            let twin = |p: &RelPath| {
                p != path && p.split_last().is_some_and(|(d, n)| d == dir && odd.names().same(n, name))
            };
            let link = matches!(tree.get(path), Some(Shape::Link(_))) && odd.has(Odd::NO_LINKS);
            if !link && !here.keys().any(twin) {
                found.push(format!("{path} could be shown"));
            }
        }
        if found.is_empty() { None } else { Some(found.join("; ")) }
    }

    /// The same of any two devices that both show all there is.
    pub(crate) fn differ(&self, a: usize, b: usize) -> Option<String> {
        let (a, b) = if self.odd(a).any() { (b, a) } else { (a, b) };
        // Between two odd disks what both drop is too much to tell.
        if self.odd(a).any() { None } else { self.differs(&self.tree(a), b) }
    }
}
