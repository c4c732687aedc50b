//! Users who have something again as it was, or take changes back: what the program's commands do, on the models.

use super::Flock;
use crate::evidence::counted;
use crate::script::What;
use crate::users::path;
use dunlin_core::ids::ContentId;
use dunlin_core::journal::Journal;
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::revert::{
    PAUSE, Selection, Version, Which, choose, last_burst, last_of_each, number_at, select, shown_at,
};
use dunlin_core::rows::Rows;
use dunlin_core::state::{Content, State};
use dunlin_node::engine::{Again, Input, Thing};
use std::sync::{Arc, Mutex, PoisonError};

/// So many changes of one kind are a mass change for the users of a script, whose folders are small.
const FEW: usize = 2;

/// What became of what a user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There was nothing to do, or nobody had it, or the folder was halted.
    Not,
    /// It is in the index.
    Done,
    /// The program ended meanwhile: nobody was told.
    Untold,
}

/// What is asked of an engine, and for each part of it what comes and what goes.
struct Wanted {
    again: Again,
    parts: Vec<(Vec<ContentId>, Vec<ContentId>)>,
}

fn all_of(state: &State) -> Vec<ContentId> {
    state.versions().into_iter().filter_map(|(_, content)| counted(content)).collect()
}

impl Flock {
    /// A user asks for what an act says.
    pub(super) fn asks_again(&mut self, device: usize, what: &What) -> Asked {
        match what {
            What::Restore { path: p } => self.has_again(device, &path(p), None),
            What::RestoreTo { from, to } => self.has_again(device, &path(from), Some(path(to))),
            What::Undo => self.takes_back(device, None, FEW),
            What::UndoSince { secs } => self.takes_back(device, Some(*secs), FEW),
            _ => Asked::Not,
        }
    }

    /// Whether the content of a file can be had by a device now.
    fn can_have(&self, device: usize, id: &ContentId) -> bool {
        let lies = |device: usize| {
            self.devices[device].life.as_ref().is_some_and(|life| life.site.find(id).is_some())
        };
        // What a device has only in memory it gives to others, and is not asked for here.
        let has = |device: usize| {
            let life = self.devices[device].life.as_ref();
            lies(device) || life.is_some_and(|life| life.host.told().recent.iter().any(|(c, _)| c == id))
        };
        let answers = |peer: &usize| self.links.answers(device, *peer) && has(*peer);
        let others: Vec<usize> = (0..self.devices.len()).filter(|peer| *peer != device).collect();
        let is_up = |peer: &&usize| self.links.is_up(device, **peer);
        *id == crate::ledger::id_of(b"") || lies(device) || others.iter().filter(is_up).any(answers)
    }

    fn has_again(&mut self, device: usize, from: &RelPath, to: Option<RelPath>) -> Asked {
        let Some(life) = &self.devices[device].life else { return Asked::Not };
        let Ok(snapshot) = life.site.store.snapshot() else { return Asked::Not };
        let make = || -> Read<Option<Wanted>> {
            if let Some(to) = &to
                && shown_at(&snapshot, to)?.is_some()
            {
                return Ok(None);
            }
            let Ok(meant) = choose(&snapshot, from, &Which::Newest, to.is_some())? else { return Ok(None) };
            let can = |v: &Version| match &v.content {
                Content::File { id, .. } => self.can_have(device, id),
                _ => true,
            };
            let (mut things, mut parts) = (Vec::new(), Vec::new());
            for v in meant.into_iter().filter(can) {
                let path = match &to {
                    None => v.path.clone(),
                    Some(to) => {
                        let below = &v.path.names()[from.names().len()..];
                        to.names().iter().chain(below).cloned().collect::<Vec<_>>().into()
                    }
                };
                let there = shown_at(&snapshot, &path)?.and_then(|(_, w)| counted(&w.content));
                parts.push((counted(&v.content).into_iter().collect(), there.into_iter().collect()));
                things.push(Thing { path, content: v.content, mode: v.mode, mtime: v.mtime });
            }
            Ok((!things.is_empty()).then_some(Wanted { again: Again::Make(things), parts }))
        };
        let wanted = make();
        self.ask_engine(device, wanted)
    }

    /// The last mass change is taken back, or all since so many seconds ago.
    pub(super) fn takes_back(&mut self, device: usize, since: Option<i64>, least: usize) -> Asked {
        let Some(life) = &self.devices[device].life else { return Asked::Not };
        let Ok(snapshot) = life.site.store.snapshot() else { return Asked::Not };
        let now = life.site.disk.now().secs;
        let make = || -> Read<Option<Wanted>> {
            let selection = match since {
                Some(secs) => number_at(&snapshot, now - secs)?.map(Selection::since),
                None => last_burst(&snapshot, least, PAUSE, None)?.map(|burst| burst.selection),
            };
            let Some(selection) = selection else { return Ok(None) };
            let mut back = select(&snapshot, &selection)?.back;
            if since.is_none() {
                back = last_of_each(&snapshot, &selection, back, least)?;
            }
            back.retain(|b| b.content.is_none_or(|(id, _)| self.can_have(device, &id)));
            let mut parts = Vec::new();
            for b in &back {
                let before = snapshot.changes(b.seq, b.seq + 1, 1)?.pop();
                let now = snapshot.node(b.node)?;
                parts.push((
                    before.map(|(_, row)| all_of(&row.before)).unwrap_or_default(),
                    now.map(|row| all_of(&row.state)).unwrap_or_default(),
                ));
            }
            Ok((!back.is_empty()).then_some(Wanted { again: Again::Back(back), parts }))
        };
        let wanted = make();
        self.ask_engine(device, wanted)
    }

    fn ask_engine(&mut self, device: usize, wanted: Read<Option<Wanted>>) -> Asked {
        if self.shared.world().machines[device].died {
            // It ended as it looked for what can be had, so that what was found says nothing.
            self.after(device, Ok(()));
            return Asked::Untold;
        }
        let Wanted { again, parts } = match wanted {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return Asked::Not,
            Err(fault) => {
                self.breaks("the index can be read", fault.to_string());
                return Asked::Not;
            }
        };
        let answer = Arc::new(Mutex::new(None));
        let told = answer.clone();
        let done = move |how| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.input(device, Input::Again(again, Box::new(done)));
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (asked, changed) = match answer {
            Some(Err(_)) => return Asked::Not,
            Some(Ok(changed)) => (Asked::Done, changed),
            None => (Asked::Untold, vec![true; parts.len()]),
        };
        let mut world = self.shared.world();
        for ((come, go), _) in parts.into_iter().zip(changed).filter(|(_, changed)| *changed) {
            // What comes may show once more; what goes, somebody let go of who saw it.
            come.iter().for_each(|id| world.ledger.moved(*id));
            for id in go.iter().filter(|id| !come.contains(id)) {
                world.ledger.destroyed(*id);
                world.ledger.let_go(device, *id);
            }
        }
        asked
    }
}
