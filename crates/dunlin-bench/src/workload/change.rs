//! One change of a folder that all have.

use super::{Run, with};
use crate::equal::Expected;
use crate::material;
use crate::meter::{Meter, Values};
use std::fs;
use std::time::Instant;

/// From the change, which takes a moment, until all are equal.
fn change(
    run: &Run,
    renamed: Option<(&str, &str)>,
    act: impl FnOnce() -> Result<(), String>,
) -> Result<Values, String> {
    let mut nodes = run.founded()?;
    run.settle()?;
    // What many files are to become is known before; of one it is seen in no time.
    let known = renamed.map(|(old, new)| Expected::of(run.first()).map(|all| all.renamed(old, new)));
    let meter = Meter::new(run.place);
    let begun = Instant::now();
    act()?;
    let expected = known.unwrap_or_else(|| Expected::of(run.first()))?;
    nodes.run_once(run.limit)?;
    let wall_s = run.until_equal(nodes.as_mut(), &expected, begun)?;
    let values = meter.values();
    run.confirm(nodes)?;
    Ok(with(values, &[("wall_s", wall_s)]))
}

/// A byte before all others, by an editor that renames its file into place.
pub fn insert(run: &Run, size: u64) -> Result<Values, String> {
    let path = run.first().join("large");
    material::large(&path, run.bytes(size))?;
    // Beside the folder, and before the clock starts: only the rename is the change.
    let edited = run.place.beside().join("edited");
    material::copy_with_front(&path, &edited, b"!")?;
    change(run, None, || fs::rename(&edited, &path).map_err(|e| e.to_string()))
}

/// Ten patches, as a database would do.
pub fn patch(run: &Run, size: u64) -> Result<Values, String> {
    let path = run.first().join("large");
    material::large(&path, run.bytes(size))?;
    change(run, None, || material::patch(&path, 10))
}

/// A directory with another name.
pub fn rename(run: &Run, count: usize, size: usize) -> Result<Values, String> {
    let (old, new) = (run.first().join("old"), run.first().join("new"));
    fs::create_dir(&old).map_err(|e| e.to_string())?;
    material::files(&old, run.count(count), size)?;
    change(run, Some(("old", "new")), || fs::rename(&old, &new).map_err(|e| e.to_string()))
}
