//! What stands in each other's way: where nothing else can be done, something steps aside.

use super::Planner;
use crate::decide::{Lack, lacks_of, phase};
use crate::ids::NodeId;
use crate::kv::Read;
use crate::rows::{Position, Rows};
use crate::state::Content;
use alloc::vec::Vec;

impl Planner<'_> {
    /// When nothing else can be done: finds something that stands where something else should be and
    /// waits, by however many others, for just that (a file that belongs into the directory that is
    /// to have its name), and has it step aside.
    pub(super) fn untangle(&mut self) -> Read<()> {
        for phase in [phase::DIRS, phase::LIGHT, phase::FILES] {
            let mut last = None;
            loop {
                let page = self.view.ready(phase, last, 256)?;
                let Some(end) = page.last() else { break };
                last = Some(*end);
                for node in page {
                    for lack in lacks_of(self.view, node)? {
                        if self.untangle_one(node, lack)? {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn untangle_one(&mut self, node: NodeId, lack: Lack) -> Read<bool> {
        let (Lack::Create(w) | Lack::Move(_, _, w)) = &lack else { return Ok(false) };
        let Some((at, x)) = self.there(&w.at)? else { return Ok(false) };
        let me = (node, lack);
        let (mut todo, mut met) = (self.leaving(&at)?, Vec::new());
        while let Some(other) = todo.pop() {
            if other == me {
                return self.step_aside(x.node, &at, &x);
            }
            // Whether it is what stands there, or is in a directory that can only go without it.
            if let (node, Lack::Move(from, row, to)) = &other
                && self.leaves_for_nothing(from, to)?
                && self.step_aside(*node, from, row)?
            {
                return Ok(true);
            }
            if !self.window.skip.contains(&other.0) && !met.contains(&other) {
                todo.extend(self.waits_for(&other)?);
                met.push(other);
            }
        }
        Ok(false)
    }

    /// What has to come before something that a node lacks.
    fn waits_for(&self, (node, lack): &(NodeId, Lack)) -> Read<Vec<(NodeId, Lack)>> {
        let mut out = Vec::new();
        match lack {
            Lack::Create(w) | Lack::Move(_, _, w) if !self.view.is_on_disk(w.at.dir)? => {
                let brings = |l: &Lack| matches!(l, Lack::Create(w) if w.content == Content::Dir);
                let lacks = lacks_of(self.view, w.at.dir)?.into_iter().filter(brings);
                out.extend(lacks.map(|l| (w.at.dir, l)));
            }
            Lack::Create(w) => out.extend(self.leaving_from(&w.at)?),
            Lack::Move(_, l, w) => {
                out.extend(self.leaving_from(&w.at)?);
                let mut up = if l.content == Content::Dir { Some(w.at.dir) } else { None };
                while let Some(at) =
                    up.filter(|d| d != node).map(|d| self.view.dir_position(d)).transpose()?
                {
                    let Some(at) = at else { break };
                    out.extend(self.leaving(&at)?);
                    up = Some(at.dir);
                }
            }
            Lack::Remove(_, l) if l.content == Content::Dir => {
                for (name, _) in self.view.locals(*node)? {
                    out.extend(self.leaving(&Position::new(*node, name))?);
                }
            }
            _ => {}
        }
        Ok(out)
    }
}
