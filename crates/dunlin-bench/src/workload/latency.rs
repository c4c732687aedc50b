//! How soon an edit shows elsewhere.

use super::{Run, with};
use crate::equal::Expected;
use crate::material;
use crate::meter::{Meter, Values};
use crate::program::Nodes;
use dunlin_testkit::Dice;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Edits at most and at least, and the time after which it is enough.
const EDITS: (usize, usize) = (100, 5);
const ENOUGH: Duration = Duration::from_secs(60);
/// Between two edits, in milliseconds: never in step with what a program does now and then.
const PAUSE_MS: (u64, u64) = (200, 500);
/// How often the other folder is looked at.
const LOOK: Duration = Duration::from_micros(500);

/// One edit: milliseconds until it shows where it has the longest way to.
fn one(run: &Run, nodes: &mut dyn Nodes, n: usize) -> Result<f64, String> {
    let text = format!("edit {n} of a small file\n");
    let last = &run.place.hosts[run.place.hosts.len() - 1].dir;
    let (here, there) = (run.first().join("small"), last.join("small"));
    let begun = Instant::now();
    fs::write(&here, &text).map_err(|e| e.to_string())?;
    let mut checked = begun;
    while fs::read(&there).ok().as_deref() != Some(text.as_bytes()) {
        if checked.elapsed() > Duration::from_millis(250) {
            nodes.check()?;
            run.limit.check("an edit shows")?;
            checked = Instant::now();
        }
        std::thread::sleep(LOOK);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Edits until it is enough, or `over`; milliseconds of each.
fn edits(run: &Run, nodes: &mut dyn Nodes, over: impl Fn() -> bool) -> Result<Vec<f64>, String> {
    let (mut all, mut dice, begun) = (Vec::new(), Dice::new(1, 0), Instant::now());
    let most = run.count(EDITS.0).max(EDITS.1);
    while all.len() < most && (all.len() < EDITS.1 || begun.elapsed() < ENOUGH) && !over() {
        run.limit.rest(Duration::from_millis(PAUSE_MS.0 + dice.below(PAUSE_MS.1)))?;
        all.push(one(run, nodes, all.len())?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// The value below which this part of all lies.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// What the disk takes for a small file that is durable: the median of some, in milliseconds.
fn fsync_ms(dir: &Path) -> Result<f64, String> {
    let path = dir.join("durable");
    let once = |i: u32| {
        let mut file = File::create(&path)?;
        file.write_all(&i.to_le_bytes())?;
        let begun = Instant::now();
        file.sync_all()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    let all: std::io::Result<Vec<f64>> = (0..31).map(once).collect();
    let mut all = all.map_err(|e| e.to_string())?;
    all.sort_by(f64::total_cmp);
    Ok(quantile(&all, 0.5))
}

fn values(run: &Run, meter: &Meter, sorted: &[f64]) -> Result<Values, String> {
    let more = [
        ("median_ms", quantile(sorted, 0.5)),
        ("p99_ms", quantile(sorted, 0.99)),
        ("edits", sorted.len() as f64),
        ("fsync_ms", fsync_ms(run.place.beside())?),
    ];
    Ok(with(meter.values(), &more))
}

/// In folders at rest.
pub fn edit(run: &Run) -> Result<Values, String> {
    fs::write(run.first().join("small"), "first").map_err(|e| e.to_string())?;
    let mut nodes = run.founded()?;
    run.settle()?;
    let meter = Meter::new(run.place);
    let sorted = edits(run, nodes.as_mut(), || false)?;
    let values = values(run, &meter, &sorted)?;
    run.confirm(nodes)?;
    Ok(values)
}

/// While something large comes in.
pub fn busy(run: &Run, size: u64) -> Result<Values, String> {
    fs::write(run.first().join("small"), "first").map_err(|e| e.to_string())?;
    let large = run.place.beside().join("large");
    material::large(&large, run.bytes(size))?;
    let mut nodes = run.founded()?;
    run.settle()?;
    let meter = Meter::new(run.place);
    let received = || run.place.received().map_or(u64::MAX, |all| all[1]);
    let before = received();
    fs::rename(&large, run.first().join("large")).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    if before != u64::MAX {
        let some = run.bytes(size) / 100;
        run.limit.until("it comes in", || received() - before > some)?;
    }
    let arrived = run.others()[0].join("large");
    let sorted = edits(run, nodes.as_mut(), || arrived.exists())?;
    let wall_s = run.until_equal(nodes.as_mut(), &Expected::of(run.first())?, begun)?;
    let values = values(run, &meter, &sorted)?;
    run.confirm(nodes)?;
    Ok(with(values, &[("wall_s", wall_s)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let all: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&all, 0.5), quantile(&all, 0.99)), (50.0, 99.0));
        assert_eq!((quantile(&all[..1], 0.5), quantile(&all[..5], 0.99)), (1.0, 5.0));
    }
}
