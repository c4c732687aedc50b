//! Trees that are made on a device by path, and known at a time: what tests of the history share.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use super::common::{Body, Device};
use dunlin_core::journal::Moment;
use dunlin_core::path::RelPath;
use dunlin_core::tree::Work;
use std::collections::BTreeMap;

/// A path.
pub fn p(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// A file holds this from now on.
pub fn file(d: &mut Device, path: &str, bytes: &str) {
    if d.disk.lookup(&p(path)).is_some() {
        d.disk.write(&p(path), bytes.as_bytes());
    } else {
        d.disk.create(&p(path), Body::File(bytes.as_bytes().to_vec()));
    }
}

/// An empty directory is made.
pub fn dir(d: &mut Device, path: &str) {
    d.disk.create(&p(path), Body::Dir(BTreeMap::new()));
}

/// What there is on the disk now is known, and that it was so at this time.
pub fn known_at(d: &mut Device, seconds: u64) {
    d.scan();
    let mut work = Work::new(&d.index);
    let moment = Moment { wall: 1000 + i64::try_from(seconds).unwrap(), running: seconds };
    work.record_moment(moment, None).unwrap();
    let changes = work.finish().unwrap();
    d.index.apply(changes);
}
