//! First syncs: the first device knows its folder, then the others come.

use super::{Run, with};
use crate::equal::Expected;
use crate::material;
use crate::meter::{Meter, Values, mib};
use std::time::Instant;

/// From the start of the others until all are equal. The processors' time is that of the whole: what the
/// first needed to know its folder counts too.
fn sync(run: &Run) -> Result<Values, String> {
    let expected = Expected::of(run.first())?;
    let mut nodes = run.program.set_up(run.place)?;
    let meter = Meter::new(run.place);
    let begun = Instant::now();
    nodes.start_first(run.limit)?;
    let index_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    nodes.start_others(run.limit)?;
    nodes.run_once(run.limit)?;
    let wall_s = run.until_equal(nodes.as_mut(), &expected, begun)?;
    let values = meter.values();
    run.confirm(nodes)?;
    let gib = mib(expected.bytes()) / 1024.0 * (run.place.hosts.len() - 1) as f64;
    let cpu = values.get("cpu_s").map(|cpu| cpu / gib);
    let state_mib = mib(material::on_disk(&run.place.hosts[1].state));
    let values = with(values, &[("wall_s", wall_s), ("index_s", index_s), ("state_mib", state_mib)]);
    // With little to move it says nothing.
    Ok(if let Some(cpu) = cpu.filter(|_| gib > 0.01) {
        with(values, &[("cpu_s_per_gib", cpu)])
    } else {
        values
    })
}

/// Of so many files.
pub fn files(run: &Run, count: usize, size: usize) -> Result<Values, String> {
    material::files(run.first(), run.count(count), size)?;
    sync(run)
}

/// Of one.
pub fn large(run: &Run, size: u64) -> Result<Values, String> {
    material::large(&run.first().join("large"), run.bytes(size))?;
    sync(run)
}

/// Of a tree that people made.
pub fn real_tree(run: &Run) -> Result<Values, String> {
    let from = material::real_tree()?;
    material::copy(&from, &run.first().join("doc"), (1.0 / run.scale).round().max(1.0) as usize)?;
    sync(run)
}
