//! What a watcher of directories would have been told: inotify, as `dunlin_node::watch` reads it.

use dunlin_core::path::Name;
use dunlin_node::watch::{DirKey, Hint};
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// As many events as the kernel queues by default; what comes then is lost, and that is told.
const QUEUE_MAX: usize = 16 * 1024;

/// One watch.
pub(super) type Wd = u32;

/// What happened to an entry, as far as a hint differs by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Its content.
    Modify,
    /// Its metadata.
    Attrib,
    /// It came, went, or was closed by somebody who wrote.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Entry(Wd, Name, What),
    /// The directory itself.
    Dir(Wd),
    /// The watch ended with its directory.
    Ignored(Wd),
    Overflow,
}

/// The watches of the running program and what they saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    next: Wd,
    by_wd: HashMap<Wd, DirKey>,
    by_key: HashMap<DirKey, Wd>,
    queue: VecDeque<Event>,
}

impl Events {
    /// Gives the directory whose watch is `wd` the name `key`. Returns the directory's watch now, and
    /// one that another directory loses for it. As `Watcher::add` does it.
    pub(super) fn add(&mut self, wd: Option<Wd>, key: DirKey) -> (Wd, Option<Wd>) {
        let wd = wd.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        if self.by_key.get(&key) == Some(&wd) {
            return (wd, None);
        }
        self.forget(wd);
        self.by_wd.insert(wd, key);
        let lost = self.by_key.insert(key, wd);
        if let Some(old) = lost {
            self.by_wd.remove(&old);
        }
        (wd, lost)
    }

    fn forget(&mut self, wd: Wd) -> Option<DirKey> {
        let key = self.by_wd.remove(&wd)?;
        if self.by_key.get(&key) == Some(&wd) {
            self.by_key.remove(&key);
        }
        Some(key)
    }

    fn push(&mut self, event: Event) {
        // The kernel merges an event with an equal one before it too.
        if self.queue.back() == Some(&event) {
            return;
        }
        match self.queue.len() {
            0..QUEUE_MAX => self.queue.push_back(event),
            QUEUE_MAX => self.queue.push_back(Event::Overflow),
            _ => {}
        }
    }

    pub(super) fn entry(&mut self, wd: Option<Wd>, name: &Name, what: What) {
        if let Some(wd) = wd {
            self.push(Event::Entry(wd, name.clone(), what));
        }
    }

    pub(super) fn dir(&mut self, wd: Option<Wd>) {
        if let Some(wd) = wd {
            self.push(Event::Dir(wd));
        }
    }

    /// The directory of this watch was deleted.
    pub(super) fn gone(&mut self, wd: Option<Wd>) {
        if let Some(wd) = wd {
            self.push(Event::Dir(wd));
            self.push(Event::Ignored(wd));
        }
    }

    pub(super) fn pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Drops what is waiting, and tells that.
    pub(super) fn lose(&mut self) {
        // That a watch ended is known to the kernel, whoever was told.
        for event in std::mem::take(&mut self.queue) {
            if let Event::Ignored(wd) = event {
                self.forget(wd);
            }
        }
        self.queue.push_back(Event::Overflow);
    }

    /// What is waiting, each place once, in the order in which it was first met.
    pub(super) fn take(&mut self) -> Vec<Hint> {
        let (mut list, mut overflow) = (Vec::new(), false);
        let (mut entries, mut dirs) = (BTreeMap::new(), HashMap::new());
        for event in std::mem::take(&mut self.queue) {
            match event {
                Event::Overflow if overflow => {}
                Event::Overflow => {
                    overflow = true;
                    list.push(Hint::Overflow);
                }
                Event::Ignored(wd) => {
                    let Some(dir) = self.forget(wd) else { continue };
                    let at = *dirs.entry(dir).or_insert(list.len());
                    match list.get_mut(at) {
                        Some(hint) => *hint = Hint::Gone { dir },
                        None => list.push(Hint::Gone { dir }),
                    }
                }
                Event::Dir(wd) => {
                    let Some(&dir) = self.by_wd.get(&wd) else { continue };
                    if let Slot::Vacant(slot) = dirs.entry(dir) {
                        slot.insert(list.len());
                        list.push(Hint::Dir { dir });
                    }
                }
                Event::Entry(wd, name, what) => {
                    let Some(&dir) = self.by_wd.get(&wd) else { continue };
                    merge(&mut list, &mut entries, dir, name, what);
                }
            }
        }
        list
    }
}

fn merge(
    list: &mut Vec<Hint>,
    entries: &mut BTreeMap<(DirKey, Name), usize>,
    dir: DirKey,
    name: Name,
    what: What,
) {
    if let Some(&at) = entries.get(&(dir, name.clone())) {
        if let Some(Hint::Entry { writing, .. }) = list.get_mut(at) {
            // A change of metadata says nothing about who is writing; all else replaces or closes.
            *writing = what == What::Modify || (*writing && what == What::Attrib);
        }
        return;
    }
    entries.insert((dir, name.clone()), list.len());
    list.push(Hint::Entry { dir, name, writing: what == What::Modify });
}
