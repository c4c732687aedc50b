//! What it costs to have many files: at a start, while they come, at rest.

use super::{Run, with};
use crate::equal::Expected;
use crate::material;
use crate::meter::{Meter, Values, mib};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of each file: it is about their number.
const SIZE: usize = 100;

/// From the start of all until one change, made meanwhile, is everywhere.
pub fn restart(run: &Run, count: usize) -> Result<Values, String> {
    material::files(run.first(), run.count(count), SIZE)?;
    let mut nodes = run.founded()?;
    run.settle()?;
    nodes.stop(run.limit)?;
    fs::write(run.first().join("meanwhile"), "changed").map_err(|e| e.to_string())?;
    let expected = Expected::of(run.first())?;
    let meter = Meter::new(run.place);
    let begun = Instant::now();
    nodes.start_first(run.limit)?;
    nodes.start_others(run.limit)?;
    nodes.run_once(run.limit)?;
    let wall_s = run.until_equal(nodes.as_mut(), &expected, begun)?;
    let values = meter.values();
    run.confirm(nodes)?;
    Ok(with(values, &[("wall_s", wall_s)]))
}

/// From the first of many files until one of them is at the peer, and until all are.
pub fn adding(run: &Run, count: usize) -> Result<Values, String> {
    fs::write(run.first().join("small"), "first").map_err(|e| e.to_string())?;
    let mut nodes = run.founded()?;
    run.settle()?;
    let meter = Meter::new(run.place);
    let (new, there) = (run.first().join("new"), run.others()[0].join("new/d0"));
    let (count, begun, is_over) = (run.count(count), Instant::now(), AtomicBool::new(false));
    let (added, first_visible_s) = std::thread::scope(|scope| {
        let adder = scope.spawn(|| {
            let done = material::files(&new, count, SIZE);
            is_over.store(done.is_err(), Ordering::Relaxed);
            done.map(|()| begun.elapsed().as_secs_f64())
        });
        let shows = || fs::read_dir(&there).is_ok_and(|mut all| all.next().is_some());
        let mut seen = Ok(f64::NAN);
        while !is_over.load(Ordering::Relaxed) {
            if shows() {
                seen = Ok(begun.elapsed().as_secs_f64());
                break;
            }
            if let Err(why) = nodes.check().and_then(|()| run.limit.pause("one shows", 5)) {
                seen = Err(why);
                break;
            }
        }
        (adder.join().unwrap_or_else(|_| Err("the files could not be made".into())), seen)
    });
    let (adding_s, first_visible_s) = (added?, first_visible_s?);
    let wall_s = run.until_equal(nodes.as_mut(), &Expected::of(run.first())?, begun)?;
    let values = meter.values();
    run.confirm(nodes)?;
    Ok(with(values, &[("wall_s", wall_s), ("adding_s", adding_s), ("first_visible_s", first_visible_s)]))
}

/// In sync, and nothing to do.
pub fn idle(run: &Run, count: usize) -> Result<Values, String> {
    material::files(run.first(), run.count(count), SIZE)?;
    let nodes = run.founded()?;
    // What is left to do after a first sync is done.
    run.limit.rest(run.seconds(20.0, 4.0))?;
    let meter = Meter::new(run.place);
    let long: Duration = run.seconds(60.0, 5.0);
    run.limit.rest(long)?;
    let values = meter.values();
    let resident_mib = mib(run.place.groups.resident());
    run.confirm(nodes)?;
    let cpu = values.get("cpu_s").map_or(f64::NAN, |cpu| cpu / long.as_secs_f64() * 100.0);
    Ok(with(values, &[("wall_s", long.as_secs_f64()), ("cpu_percent", cpu), ("resident_mib", resident_mib)]))
}
