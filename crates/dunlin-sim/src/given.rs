//! Numbers of changes: each is given once, by one index, to one change of one node, and they only grow.

use crate::world::World;
use dunlin_core::codec::decode_state;
use dunlin_core::ids::{Dot, Incarnation, NodeId};
use dunlin_core::kv::{Changes, Read, Tx, View};
use dunlin_core::message::RowBytes;
use dunlin_core::rows::Rows;
use dunlin_core::state::{Content, Place};
use std::collections::{BTreeMap, BTreeSet};

const ONCE: &str = "one content for each dot";
const GROWS: &str = "own counters only grow";

/// What a number stands for.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    node: NodeId,
    content: Option<Content>,
    place: Option<Place>,
}

/// All numbers that were told, and under which incarnations.
#[derive(Default)]
pub(crate) struct Given {
    dots: BTreeMap<Dot, Meaning>,
    incs: BTreeSet<Incarnation>,
}

impl Given {
    fn meaning(&mut self, node: NodeId, dot: Dot) -> &mut Meaning {
        self.dots.entry(dot).or_insert(Meaning { node, content: None, place: None })
    }

    /// What is told of a node under a number; and what was told before, if that differs.
    fn told(
        &mut self,
        node: NodeId,
        dot: Dot,
        content: Option<&Content>,
        place: Option<&Place>,
    ) -> Option<String> {
        let known = self.meaning(node, dot);
        if known.node != node {
            return Some(format!("{dot:?}: of {:?} and of {node:?}", known.node));
        }
        if let Some(content) = content {
            let old = known.content.get_or_insert_with(|| content.clone());
            if old != content {
                return Some(format!("{dot:?}: {old:?} and {content:?}"));
            }
        }
        let place = place?;
        let old = known.place.get_or_insert_with(|| place.clone());
        (old != place).then(|| format!("{dot:?}: {old:?} and {place:?}"))
    }
}

impl World {
    /// Rows that a device tells: each number stands for one change of one node, ever.
    pub fn check_rows(&mut self, rows: &[RowBytes]) {
        for row in rows {
            let Ok(state) = decode_state(&row.state) else { continue };
            let mut found = None;
            let mut told = |dot, content, place| {
                if found.is_none() {
                    found = self.given.told(row.node, dot, content, place);
                }
            };
            state.content.entries().iter().for_each(|(dot, c)| told(*dot, Some(&c.value), None));
            state.place.entries().iter().for_each(|(dot, p)| told(*dot, None, Some(&p.value)));
            state.mode.entries().iter().for_each(|(dot, _)| told(*dot, None, None));
            state.mtime.entries().iter().for_each(|(dot, _)| told(*dot, None, None));
            state.gone.entries().iter().for_each(|(dot, _)| told(*dot, None, None));
            if let Some(what) = found {
                return self.breaks(ONCE, what);
            }
        }
    }

    /// An index that goes on counts on; one that counts anew does that under an incarnation that never was.
    pub(crate) fn check_counters(&mut self, device: usize, before: &dyn View, changes: &Changes) -> Read<()> {
        let key = [b't'];
        let Some(Some(totals)) = changes.get(&key[..]) else { return Ok(()) };
        let mut after = Tx::new(before);
        after.put(key.to_vec(), totals.clone());
        let (before, after) = (before.totals()?, after.totals()?);
        let mut wrong = None;
        let counts = |given: &Given, inc: Incarnation, from: u64, to: u64, gives: bool| {
            if to < from {
                return Some(format!("{inc} goes from {from} back to {to}"));
            }
            let fresh = Dot { inc, counter: from.saturating_add(1) }..=Dot { inc, counter: to };
            let told = gives && to > from && given.dots.range(fresh).next().is_some();
            told.then(|| format!("{inc}: of {from} to {to} some were told before"))
        };
        let ((index_before, from), (index, to)) = (before.of_index(), after.of_index());
        if before.inc == after.inc {
            wrong = counts(&self.given, after.inc, before.counter, after.counter, true);
        } else if after.inc == index_before {
            wrong = counts(&self.given, after.inc, from, after.counter, false);
        } else if !self.given.incs.insert(after.inc) {
            wrong = Some(format!("{} begins anew", after.inc));
        }
        if index == index_before && index != after.inc {
            // A life that begins leaves some out: those are reserved, and not given.
            wrong = wrong.or_else(|| counts(&self.given, index, from, to, before.inc == after.inc));
        }
        if let Some(what) = wrong {
            self.breaks(GROWS, format!("device {device}: {what}"));
        }
        Ok(())
    }
}
