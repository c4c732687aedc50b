//! How steps ended, into the index.

use super::{Action, Outcome, Step};
use crate::ids::NodeId;
use crate::kv::Read;
use crate::rows::{LocalRow, Rows};
use crate::state::{Content, Mtime};
use crate::tree::Work;

impl Work<'_> {
    /// Records how a step ended.
    pub fn conclude(&mut self, step: &Step, outcome: &Outcome) -> Read<()> {
        let (stamp, other) = match outcome {
            Outcome::Done(stamp, other) => (*stamp, *other),
            Outcome::Kept => return self.keep(step),
            Outcome::Undone => {
                self.touch(step.node);
                return Ok(());
            }
        };
        let seen = Some(step.seen.clone());
        let base = LocalRow {
            node: step.node,
            dot: step.dot,
            seen: seen.clone(),
            content: Content::Dir,
            mode: 0,
            mtime: Mtime::default(),
            stamp,
            kept: false,
            damaged: None,
        };
        if matches!(step.action, Action::MakeDir { .. } | Action::Place { .. }) {
            step.dot.map_or(Ok(()), |dot| self.tx.remove_again(dot))?;
        }
        match &step.action {
            Action::MakeDir { mode } => self.set_local(&step.at, Some(&LocalRow { mode: *mode, ..base })),
            Action::Place { content, mode, mtime, .. } => {
                let row = LocalRow { content: content.clone(), mode: *mode, mtime: *mtime, ..base };
                if self.is_all(step)? {
                    self.complete(step, row)
                } else {
                    self.set_local(&step.at, Some(&row))
                }
            }
            Action::Meta { row, mode, mtime } => {
                let (mode, mtime) = (mode.unwrap_or(row.mode), mtime.unwrap_or(row.mtime));
                let row = LocalRow { seen, dot: step.dot, mode, mtime, stamp, ..row.clone() };
                self.set_local(&step.at, Some(&row))
            }
            Action::Remove { .. } => self.set_local(&step.at, None),
            Action::Move { from, row, swap, .. } => {
                self.set_local(&step.at, None)?;
                let back = swap.clone().map(|x| LocalRow { stamp: other.unwrap_or(x.stamp), ..x });
                self.set_local(from, back.as_ref())?;
                self.set_local(&step.at, Some(&LocalRow { seen, dot: step.dot, stamp, ..row.clone() }))
            }
        }
    }

    /// Whether a step did all that its node lacks: no state changed since it was planned, and so nothing of what is to
    /// show did.
    fn is_all(&self, step: &Step) -> Read<bool> {
        Ok(step.all == Some(self.tx.totals()?.seq)
            && self.tx.local(&step.at)?.is_none()
            && self.tx.places_of(step.node)?.is_empty())
    }

    /// What a node lacks need not be derived once more to know that it lacks nothing: of many new files that would be
    /// most of what it takes to record them.
    fn complete(&mut self, step: &Step, row: LocalRow) -> Read<()> {
        self.tx.put_local(&step.at, Some(&LocalRow { seen: None, ..row }))?;
        self.tx.put_need(step.node, None)
    }

    /// The directory stays for what is in it: a state of this disk, of which nothing is told.
    fn keep(&mut self, step: &Step) -> Read<()> {
        match self.tx.local(&step.at)? {
            Some(row) => self.set_local(&step.at, Some(&LocalRow { kept: true, ..row })),
            None => Ok(()),
        }
    }

    /// What a kept directory was kept for may be gone: its removal is tried again.
    pub fn retry_kept(&mut self, dir: NodeId) -> Read<()> {
        let Some(at) = self.tx.dir_position(dir)? else { return Ok(()) };
        match self.tx.local(&at)? {
            Some(row) if row.kept => self.set_local(&at, Some(&LocalRow { kept: false, ..row })),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContentId, Dot, Incarnation, NodeId, ROOT};
    use crate::kv::{Changes, Memory};
    use crate::path::Name;
    use crate::plan::{Plan, Window, plan};
    use crate::rows::Stamp;
    use crate::state::{Place, Ranked, State};
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    /// A file `n` of the name `f`, told of by a device.
    fn file(n: u8, counter: u64) -> (NodeId, State) {
        let (mut state, node) = (State::default(), NodeId([n; 16]));
        for counter in 1..=counter {
            state.seen.add(Dot { inc: Incarnation([n; 16]), counter });
        }
        let dot = Dot { inc: Incarnation([n; 16]), counter };
        let place = Place { parent: ROOT, name: Name::new(b"f").unwrap(), earlier: None };
        state.place.insert(dot, Ranked::new(1, place));
        let id = ContentId([n.wrapping_add(u8::try_from(counter).unwrap()); 32]);
        state.content.insert(dot, Ranked::new(counter, Content::File { id, size: 3 }));
        (node, state)
    }

    fn hear(index: &mut Memory, (node, state): (NodeId, State)) {
        let mut work = Work::new(index);
        work.hear(node, &state, 0).unwrap();
        let changes = work.finish().unwrap();
        index.apply(changes);
    }

    fn steps(index: &Memory) -> Vec<Step> {
        let (staged, skip) = (|_: &ContentId| true, BTreeSet::new());
        let Plan { steps, .. } = plan(index, &Window::new(&staged, &skip, 9)).unwrap();
        steps
    }

    fn concluded(index: &Memory, steps: &[Step]) -> Changes {
        let mut work = Work::new(index);
        for (ino, step) in (1..).zip(steps) {
            work.conclude(step, &Outcome::Done(Stamp { ino, ..Stamp::default() }, None)).unwrap();
        }
        work.finish().unwrap()
    }

    #[test]
    fn what_is_known_to_be_complete_is_recorded_as_what_is_derived() {
        type Files<'a> = &'a [(u8, u64)];
        // Alone; two of one name; one that changed after it was planned, and one that another one took the name of.
        let cases: [(Files<'_>, Files<'_>); 4] =
            [(&[(1, 1)], &[]), (&[(1, 1), (2, 1)], &[]), (&[(1, 1)], &[(1, 2)]), (&[(2, 1)], &[(1, 1)])];
        for (before, after) in cases {
            let mut index = Memory::default();
            before.iter().for_each(|(n, counter)| hear(&mut index, file(*n, *counter)));
            let known = steps(&index);
            assert!(known.len() == before.len() && known.iter().all(|step| step.all.is_some()), "{known:?}");
            after.iter().for_each(|(n, counter)| hear(&mut index, file(*n, *counter)));
            let derived: Vec<Step> = known.iter().map(|step| Step { all: None, ..step.clone() }).collect();
            assert_eq!(concluded(&index, &known), concluded(&index, &derived), "{before:?} {after:?}");
        }
    }
}
