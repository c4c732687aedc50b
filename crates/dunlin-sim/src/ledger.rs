//! Every content a user ever wrote, and what became of it by users' hands: the final judge of a run.

use dunlin_core::ids::ContentId;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one content.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// How often users made a file of it.
    pub made: u32,
    /// How often users moved or removed it: each may leave one more, when it crosses the program's own work.
    pub handled: u32,
    /// A user who saw it replaced or deleted it somewhere.
    pub destroyed: bool,
    /// The machine lost it before anybody could know of it (power cut before it was synced), or the only
    /// device that held it is gone for good.
    pub excused: bool,
    /// The device of its first writer.
    pub by: usize,
    /// What it is, for a person.
    pub text: String,
}

/// All contents.
#[derive(Clone, Debug, Default)]
pub struct Ledger(pub BTreeMap<ContentId, Entry>, BTreeSet<(usize, ContentId)>);

/// The id of a file's bytes.
pub fn id_of(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

/// Stands for a link's text among the contents.
pub fn id_of_link(text: &[u8]) -> ContentId {
    id_of(&[b"link to ", text].concat())
}

impl Ledger {
    /// A user makes something of this content.
    pub fn made(&mut self, id: ContentId, by: usize, text: impl FnOnce() -> String) {
        let entry = self.0.entry(id).or_insert_with(|| Entry { by, text: text(), ..Entry::default() });
        entry.made += 1;
    }

    /// A user of this device had it in hand, and it may not be where it was; or the machine lost it.
    pub fn let_go(&mut self, device: usize, id: ContentId) {
        self.1.insert((device, id));
    }

    /// Whether that was so of it on this device.
    pub fn let_go_on(&self, device: usize, id: &ContentId) -> bool {
        self.1.contains(&(device, *id))
    }

    /// All of these were let go of on a device.
    pub fn all_let_go(&self, device: usize) -> Vec<ContentId> {
        self.1.iter().filter(|(on, _)| *on == device).map(|(_, id)| *id).collect()
    }

    /// A user who saw it replaces or deletes it.
    pub fn destroyed(&mut self, id: ContentId) {
        if let Some(entry) = self.0.get_mut(&id) {
            entry.destroyed = true;
            entry.handled += 1;
        }
    }

    /// A user moves it.
    pub fn moved(&mut self, id: ContentId) {
        if let Some(entry) = self.0.get_mut(&id) {
            entry.handled += 1;
        }
    }

    /// It was lost with a machine, and nobody knew of it.
    pub fn excuse(&mut self, id: ContentId) {
        if let Some(entry) = self.0.get_mut(&id) {
            entry.excused = true;
        }
    }

    /// Whether some user wrote this.
    pub fn knows(&self, id: &ContentId) -> bool {
        self.0.contains_key(id)
    }
}
