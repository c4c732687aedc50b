//! Contents on their way. In some seeds they travel on streams of their own, so that messages pass them, and small ones
//! ride along with the rows that tell of them.

use super::{Event, FOLDER, Flock};
use crate::chance::Chance;
use crate::links::MS;
use dunlin_core::codec::decode_state;
use dunlin_core::message::Message;
use dunlin_core::plan::Fetch;
use dunlin_core::state::Content;
use dunlin_node::engine::{Fetched, Input};
use dunlin_node::stage::Room;

/// Contents ride along with at most so many rows.
const ROWS_MAX: usize = 16;

/// The stream of chance of a seed that has streams. It is one of their own: other seeds stay as they were.
pub(super) fn streams(seed: u64) -> Option<Chance> {
    let mut chance = Chance::new(seed, "streams");
    chance.one_in(4).then_some(chance)
}

impl Flock {
    pub(super) fn has_streams(&self) -> bool {
        self.streams.is_some()
    }

    /// A content is asked for: it is here, or comes at once, or in a while; or nobody has it.
    pub(super) fn fetched(&mut self, device: usize, number: u64, fetch: &Fetch) {
        let Some(life) = self.devices[device].life.as_ref().filter(|l| l.number == number) else { return };
        let (site, host) = (life.site.clone(), life.host.clone());
        self.set_clock(device);
        let carried =
            || host.told().carried.iter().find(|(c, _)| *c == fetch.content).map(|(_, b)| b.clone());
        let how = match site.claim(&fetch.content, fetch.size) {
            Err(e) => Fetched::Failed(dunlin_node::disk::explain(site.disk.as_ref(), &e)),
            Ok(Err(lacks)) => Fetched::Failed(lacks.to_string()),
            Ok(Ok(Room::Lent)) => Fetched::Staged,
            Ok(Ok(Room::Claimed(claim))) if site.copy(fetch, &claim, Vec::new) => Fetched::Staged,
            Ok(Ok(Room::Claimed(_claim))) => match carried().or_else(|| self.ask(device, fetch)) {
                None => Fetched::Nowhere,
                Some(bytes) => match &mut self.streams {
                    Some(chance) => {
                        let late = if chance.one_in(8) { 200 * MS } else { 4 * MS };
                        let (after, fetch) = (chance.below(late), fetch.clone());
                        return self.later(after, Event::Brought { device, life: number, fetch, bytes });
                    }
                    None => put(&site, fetch, &bytes),
                },
            },
        };
        self.tells(device, fetch, how);
    }

    /// What was asked for a while ago arrives.
    pub(super) fn brought(&mut self, device: usize, number: u64, fetch: &Fetch, bytes: &[u8]) {
        let Some(life) = self.devices[device].life.as_ref().filter(|l| l.number == number) else { return };
        let site = life.site.clone();
        self.set_clock(device);
        let how = match site.claim(&fetch.content, fetch.size) {
            Err(e) => Fetched::Failed(dunlin_node::disk::explain(site.disk.as_ref(), &e)),
            Ok(Err(lacks)) => Fetched::Failed(lacks.to_string()),
            Ok(Ok(Room::Lent)) => Fetched::Staged,
            Ok(Ok(Room::Claimed(_claim))) => put(&site, fetch, bytes),
        };
        self.tells(device, fetch, how);
    }

    fn tells(&mut self, device: usize, fetch: &Fetch, how: Fetched) {
        self.note(|| format!("{device} fetched {} {how:?}", fetch.path));
        self.input(device, Input::Fetched(vec![(fetch.content, how)]));
    }

    /// Contents of these rows that changed on this disk a moment ago go before them.
    pub(super) fn rides(&mut self, device: usize, peer: usize, message: &Message) {
        let Message::Rows { rows, .. } = message else { return };
        let Some(life) = self.devices[device].life.as_ref().filter(|_| self.streams.is_some()) else {
            return;
        };
        if rows.len() > ROWS_MAX {
            return;
        }
        let mut contents = Vec::new();
        for state in rows.iter().filter_map(|row| decode_state(&row.state).ok()) {
            for (_, content) in state.versions() {
                let Content::File { id, .. } = content else { continue };
                let told = life.host.told();
                contents.extend(told.recent.iter().filter(|(c, _)| c == id).map(|(_, b)| b.clone().into()));
            }
        }
        if !contents.is_empty() {
            self.send(device, peer, Message::Contents { folder: FOLDER, contents });
        }
    }
}

/// Stages a content. Every other one is made durable beside the engine, as one of many is by a running node.
fn put(site: &dunlin_node::site::Site, fetch: &Fetch, bytes: &[u8]) -> Fetched {
    let put = site.stage.put(fetch.content, bytes, Some(fetch.looks));
    let settles = fetch.content.0[0].is_multiple_of(2);
    let settled =
        put.and_then(|()| if settles { site.stage.settle([fetch.content].into_iter()) } else { Ok(()) });
    match settled {
        Ok(()) => Fetched::Staged,
        Err(e) => Fetched::Failed(dunlin_node::disk::explain(site.disk.as_ref(), &e)),
    }
}
