//! What a batch tells of one thing is taken in together, or not at all: half of a move is a delete, or something new.

use super::{Observation, Seen, could_be, could_be_edited};
use crate::kv::{Read, View};
use crate::rows::{LocalRow, Rows};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Takes observations out of a batch, and with them all that tell of the same inodes: of what is at their positions, and
/// of what was. Returns what is left, and what was taken out.
pub fn leave_out(
    view: &dyn View,
    batch: Vec<Observation>,
    which: impl Fn(&Observation) -> bool,
) -> Read<(Vec<Observation>, Vec<Observation>)> {
    let (mut out, mut rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|o| which(o));
    let (mut known, mut inodes) = (0, BTreeSet::new());
    while known < out.len() {
        for o in &out[known..] {
            inodes.extend(inodes_of(view, o)?);
        }
        known = out.len();
        let mut left = Vec::with_capacity(rest.len());
        for o in rest {
            let is_of_them = inodes_of(view, &o)?.any(|ino| inodes.contains(&ino));
            if is_of_them { out.push(o) } else { left.push(o) }
        }
        rest = left;
    }
    Ok((rest, out))
}

fn inodes_of(view: &dyn View, o: &Observation) -> Read<impl Iterator<Item = u64> + use<>> {
    let now = (o.seen != Seen::Absent).then(|| o.seen.stamp().ino);
    Ok(now.into_iter().chain(view.local(&o.at)?.map(|row| row.stamp.ino)))
}

/// Whether nothing is at a position because what was there is at another one of the batch. Then it left, whatever became of
/// the directory that it was in.
pub fn is_seen_elsewhere(view: &dyn View, batch: &[Observation], o: &Observation) -> Read<bool> {
    let row = if o.seen == Seen::Absent { view.local(&o.at)? } else { None };
    let is_it =
        |row: &LocalRow, other: &Observation| could_be(row, &other.seen) || could_be_edited(row, &other.seen);
    Ok(row.is_some_and(|row| batch.iter().any(|other| other.at != o.at && is_it(&row, other))))
}
