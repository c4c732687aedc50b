//! The workloads, by name, and what they have in common.

mod change;
mod first;
mod latency;
mod rest;

use crate::equal::{self, Expected};
use crate::meter::Values;
use crate::place::{Place, Wire};
use crate::program::{Nodes, Program};
use crate::tell::Limit;
use std::path::Path;
use std::time::{Duration, Instant};

/// One program, in one place, once.
pub struct Run<'a> {
    /// Who does it.
    pub program: &'a dyn Program,
    /// Where.
    pub place: &'a Place,
    /// How large, of the full size.
    pub scale: f64,
    /// How long at most.
    pub limit: Limit,
}

type Act = Box<dyn Fn(&Run) -> Result<Values, String>>;

/// Something to do and to measure.
pub struct Workload {
    /// Its name.
    pub name: String,
    /// What it is, at full size.
    pub what: String,
    /// What the ratios are of.
    pub headline: &'static str,
    /// Only when named, or with `--full`.
    pub is_heavy: bool,
    /// Nodes.
    pub hosts: usize,
    /// Between them.
    pub wire: Wire,
    /// Whether only programs can do it that see changes by themselves.
    pub needs_watching: bool,
    /// Where it stands in a plot: its name, and its size.
    pub point: Option<(&'static str, f64)>,
    /// It.
    pub run: Act,
}

impl Workload {
    fn new(name: &str, what: &str, run: impl Fn(&Run) -> Result<Values, String> + 'static) -> Workload {
        Workload {
            name: name.into(),
            what: what.into(),
            headline: "wall_s",
            is_heavy: false,
            hosts: 2,
            wire: Wire::Switch,
            needs_watching: false,
            point: None,
            run: Box::new(run),
        }
    }

    fn heavy(self) -> Workload {
        Workload { is_heavy: true, ..self }
    }

    fn watched(self, headline: &'static str) -> Workload {
        Workload { needs_watching: true, headline, ..self }
    }

    fn on(self, hosts: usize, wire: Wire) -> Workload {
        Workload { hosts, wire, ..self }
    }
}

const MB: u64 = 1_000_000;
const FAR: Wire = Wire::Far { round_trip_ms: 50.0, lost: 0.0 };
const LOSSY: Wire = Wire::Far { round_trip_ms: 50.0, lost: 0.01 };

/// All of them; the order is that of the report.
pub fn all() -> Vec<Workload> {
    let mut all = vec![
        Workload::new("small-files", "10,000 files of 4 KiB, first sync", |r| first::files(r, 10_000, 4096)),
        Workload::new("large-file", "one file of 2 GB, first sync", |r| first::large(r, 2000 * MB)),
        Workload::new("real-tree", "the Rust toolchain's documentation, first sync", first::real_tree),
        Workload::new("insert", "1 byte inserted at the front of 1 GB", |r| change::insert(r, 1000 * MB)),
        Workload::new("patch", "ten patches of 8 bytes in 1 GB, in place", |r| change::patch(r, 1000 * MB)),
        Workload::new("rename", "a directory renamed: 2,000 files, 262 MB together", |r| {
            change::rename(r, 2_000, 131_072)
        }),
        Workload::new("rename-many", "a directory renamed: 100,000 files of 100 bytes", |r| {
            change::rename(r, 100_000, 100)
        })
        .heavy(),
        Workload::new("edit", "an edit of a small file until it shows at the peer", latency::edit)
            .watched("median_ms"),
        Workload::new("edit-middle", "the same from A to C, that only B knows both of", latency::edit)
            .watched("median_ms")
            .on(3, Wire::Line),
        Workload::new("edit-busy", "the same while the peer pulls 10 GB", |r| latency::busy(r, 10_000 * MB))
            .watched("median_ms")
            .heavy(),
        Workload::new("fan-out", "one device to four, 200 MB, links of 200 Mbit/s", |r| {
            first::files(r, 20, 10_000_000)
        })
        .on(5, Wire::Limited(200)),
        Workload::new("restart", "100,000 files, all stopped, one changed: start until equal", |r| {
            rest::restart(r, 100_000)
        })
        .heavy(),
        Workload::new("adding", "first file visible while 1,000,000 are being added", |r| {
            rest::adding(r, 1_000_000)
        })
        .watched("first_visible_s")
        .heavy(),
        Workload::new("million", "1,000,000 files of 100 bytes, first sync: memory, index", |r| {
            first::files(r, 1_000_000, 100)
        })
        .heavy(),
        Workload::new("idle", "50,000 files, in sync, nothing to do", |r| rest::idle(r, 50_000))
            .watched("cpu_percent"),
        Workload::new("far", "64 MB, first sync, 50 ms round trip", |r| first::large(r, 64 * MB)).on(2, FAR),
        Workload::new("far-lossy", "the same with 1 % of the packets lost", |r| first::large(r, 64 * MB))
            .on(2, LOSSY),
    ];
    all.extend(plotted());
    all
}

/// First syncs of growing size.
fn plotted() -> Vec<Workload> {
    let mut all = Vec::new();
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        let what = format!("{count} files of 1 KiB, first sync");
        let work = Workload::new(&format!("files-{count}"), &what, move |r| first::files(r, count, 1024));
        all.push(Workload { point: Some(("files", count as f64)), ..work.heavy() });
    }
    for mb in [1, 10, 100, 1_000, 20_000] {
        let what = format!("one file of {mb} MB, first sync");
        let work = Workload::new(&format!("megabytes-{mb}"), &what, move |r| first::large(r, mb * MB));
        all.push(Workload { point: Some(("megabytes", mb as f64)), ..work.heavy() });
    }
    all
}

impl Run<'_> {
    /// The folder where things are made.
    fn first(&self) -> &Path {
        &self.place.hosts[0].dir
    }

    /// The folders that are to become like it.
    fn others(&self) -> Vec<&Path> {
        self.place.hosts[1..].iter().map(|host| host.dir.as_path()).collect()
    }

    /// A count at this scale, at least one.
    fn count(&self, full: usize) -> usize {
        ((full as f64 * self.scale).round() as usize).max(1)
    }

    /// Bytes at this scale.
    fn bytes(&self, full: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(1 << 20)
    }

    /// Seconds at this scale, not below `least`.
    fn seconds(&self, full: f64, least: f64) -> Duration {
        Duration::from_secs_f64((full * self.scale).clamp(least, full.max(least)))
    }

    /// Waits until all are equal; seconds since `begun`.
    fn until_equal(&self, nodes: &mut dyn Nodes, expected: &Expected, begun: Instant) -> Result<f64, String> {
        let at = equal::wait(&self.others(), expected, self.limit, || nodes.check())?;
        Ok(at.duration_since(begun).as_secs_f64())
    }

    /// Nodes that run and are equal, with what is in the first folder.
    fn founded(&self) -> Result<Box<dyn Nodes + '_>, String> {
        let expected = Expected::of(self.first())?;
        let mut nodes = self.program.set_up(self.place)?;
        nodes.start_first(self.limit)?;
        nodes.start_others(self.limit)?;
        nodes.run_once(self.limit)?;
        self.until_equal(nodes.as_mut(), &expected, Instant::now())?;
        Ok(nodes)
    }

    /// What a program still does after it is equal is not part of what comes next.
    fn settle(&self) -> Result<(), String> {
        self.limit.rest(Duration::from_secs(2))
    }

    /// The trees are the same by hash, with nothing running any more.
    fn confirm(&self, mut nodes: Box<dyn Nodes + '_>) -> Result<(), String> {
        nodes.stop(self.limit)?;
        equal::confirm(self.first(), &self.others())
    }
}

/// A value more.
fn with(mut values: Values, more: &[(&str, f64)]) -> Values {
    values.extend(more.iter().map(|(name, value)| ((*name).to_owned(), *value)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_workload() {
        let mut names: Vec<String> = all().into_iter().map(|w| w.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
