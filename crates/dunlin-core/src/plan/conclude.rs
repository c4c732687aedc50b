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
                self.set_local(&step.at, Some(&row))
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
