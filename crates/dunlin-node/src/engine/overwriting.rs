//! Edits that would replace what the history cannot keep: when they are held, and what of the history does not yield.
//!
//! What counts and when it trips is decided in `dunlin_core::brake`.

use super::Engine;
use crate::disk::is_full;
use crate::site::Site;
use crate::store::Snapshot;
use dunlin_core::brake::{Held, History, Room, WINDOW, absent_files, hull};
use dunlin_core::ids::{ContentId, DotRange};
use dunlin_core::kv::Read;
use dunlin_core::plan::{Action, Step};
use dunlin_core::rows::{Rows, Totals};
use dunlin_core::state::Content;
use dunlin_core::tree::Work;
use std::time::{Duration, Instant};

/// How often it is looked whether there is room by now for what held replacements would put into the history.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The history of a device, as the brake asks about it.
struct Asked<'a> {
    site: &'a Site,
    /// The share of the disk that the history is given, in percent.
    percent: u8,
    full: bool,
}

impl History for Asked<'_> {
    fn room(&self, all: bool) -> Room {
        // Of a disk that does not tell, the next step says what is wrong with it.
        let disk = self.site.room(all).unwrap_or(u64::MAX);
        let kept = self.site.share(self.percent).unwrap_or(u64::MAX);
        Room { disk, kept, full: self.full }
    }

    fn has(&self, content: &ContentId) -> bool {
        self.site.stage.has(content) || self.site.stage.keeps(content)
    }
}

impl Engine {
    fn asked<'a>(&self, site: &'a Site, snapshot: &Snapshot) -> Read<Asked<'a>> {
        let mut full = false;
        for (node, _) in self.troubles.iter().filter(|(_, (_, why))| is_full(why)) {
            full |= snapshot.need(*node)?.is_some_and(|need| need.replaces > 0);
        }
        Ok(Asked { site, percent: self.history_share(), full })
    }

    /// Whether edits may replace what is here now: not while the brake holds them. Too many that the history cannot keep
    /// trip it.
    pub(super) fn may_replace(&mut self, totals: &Totals) -> Read<bool> {
        if totals.replaces == 0 {
            return Ok(true);
        }
        if self.braking.held.as_ref().is_some_and(|held| held.holds() && held.replaced > 0) {
            return Ok(false);
        }
        let (folder, now) = (self.folder.clone(), self.braking.time(self.now));
        let snapshot = folder.store.snapshot()?;
        let here = if self.absent.is_empty() {
            0
        } else {
            absent_files(&snapshot, &self.braking.brake, self.absent.keys())?.living
        };
        let asked = self.asked(&folder, &snapshot)?;
        let Some(count) = self.braking.brake.overwritten(&snapshot, totals, now, here, &asked)? else {
            return Ok(true);
        };
        self.halt(&snapshot, totals, here, &count)?;
        // What did not fit is not wanted any more.
        let held = |node| snapshot.need(node).is_ok_and(|need| need.is_some_and(|need| need.replaces > 0));
        self.troubles.retain(|node, _| !held(*node));
        self.braking.look_again = Some(self.now + LOOK_AGAIN);
        Ok(false)
    }

    /// Whether there is room by now for what held replacements would put into the history. Not looked at every time.
    pub(super) fn has_room_again(&mut self, snapshot: &Snapshot) -> Read<bool> {
        if self.braking.look_again.is_some_and(|at| self.now < at) {
            return Ok(false);
        }
        self.braking.look_again = Some(self.now + LOOK_AGAIN);
        let folder = self.folder.clone();
        let asked = Asked { full: false, ..self.asked(&folder, snapshot)? };
        let Some(held) = &self.braking.held else { return Ok(false) };
        self.braking.brake.has_room(snapshot, held, &asked)
    }

    /// Says what of the history yields to nothing that comes in.
    pub(super) fn spare(&mut self, totals: &Totals) {
        let (now, number) = (self.braking.time(self.now), self.folder.stage.number());
        let begins = self.braking.brake.begins(now).unwrap_or(number);
        self.braking.elsewhere = match (self.host.is_held_elsewhere(), self.braking.elsewhere.take()) {
            (false, _) => None,
            // What it holds is about what came in lately, here too, or is on its way.
            (true, None) => Some((now, begins..u64::MAX)),
            (true, Some((since, some))) if some.end == u64::MAX && now.saturating_sub(since) >= WINDOW => {
                Some((since, some.start..number))
            }
            (true, known) => known,
        };
        let elsewhere = self.braking.elsewhere.as_ref().map(|(_, numbers)| numbers.clone());
        let here = self.braking.brake.spares(now, totals, self.braking.held.as_ref());
        self.folder.stage.spare(hull(here, elsewhere).unwrap_or(0..0));
    }

    /// Steps are about to be carried out: what they replace or remove gets numbers from here on.
    pub(super) fn note_number(&mut self) {
        let now = self.braking.time(self.now);
        self.braking.brake.numbers(now, self.folder.stage.number());
    }

    /// A step was carried out that may have replaced something.
    pub(super) fn note_replaced(&mut self, snapshot: &Snapshot, step: &Step) -> Read<()> {
        let (Action::Place { replaces: Some(_), .. }, Some(dot)) = (&step.action, step.dot) else {
            return Ok(());
        };
        let counts = snapshot.need(step.node)?.is_some_and(|need| need.replaces > 0);
        let Some(row) = snapshot.local(&step.at)?.filter(|_| counts) else { return Ok(()) };
        if let Content::File { size, .. } = row.content
            && !self.braking.brake.is_young(step.node)
        {
            self.braking.brake.replaced(self.braking.time(self.now), step.node, size, dot);
        }
        Ok(())
    }

    /// Commits what a person had done that others would have to ask about once more: they are told that it is accepted.
    pub(super) fn commit_decided(&mut self, mut work: Work<'_>, changes: Option<DotRange>) -> Read<()> {
        let Some(changes) = changes else { return self.commit(work) };
        let all = dunlin_core::brake::released(&work.tx)?.into_iter().chain([changes]);
        work.release(&all.collect::<Vec<_>>())?;
        work.hold(Some(&Held { accepted: vec![changes], ..Held::default() }));
        self.commit(work)
    }
}

impl super::brake::Braking {
    /// When it is due to look for room.
    pub(super) fn looks_again(&self) -> Option<Instant> {
        self.look_again.filter(|_| self.held.as_ref().is_some_and(|held| held.holds() && held.replaced > 0))
    }
}
