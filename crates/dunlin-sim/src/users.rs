//! What users do, carried out on a model disk and noted in the ledger.

use crate::disk::{ModelDisk, Thing};
use crate::ledger::{Ledger, id_of, id_of_link};
use crate::script::What;
use dunlin_core::ids::ContentId;
use dunlin_core::path::{Name, RelPath};
use dunlin_node::disk::FileTime;
use std::io;

/// The bytes of a content; 0 has none.
pub fn bytes(content: u32) -> Vec<u8> {
    match content {
        0 => Vec::new(),
        n => format!("content {n}\n").repeat(1 + n as usize % 3).into_bytes(),
    }
}

/// A path of a script; what is no path leads nowhere.
pub fn path(text: &str) -> RelPath {
    let names = text.split('/').filter_map(|part| Name::new(part.as_bytes()).ok());
    RelPath::from(names.collect::<Vec<_>>())
}

fn is_in(inner: &RelPath, outer: &RelPath) -> bool {
    inner.names().starts_with(outer.names())
}

/// The content of a thing as the ledger counts it.
pub fn content_of(thing: &Thing) -> Option<ContentId> {
    match thing {
        Thing::File { bytes, .. } => Some(id_of(bytes)),
        Thing::Link(text) => Some(id_of_link(text)),
        Thing::Dir { .. } | Thing::Other => None,
    }
}

/// One device's user.
pub struct Hands<'a> {
    /// Whose disk.
    pub disk: &'a ModelDisk,
    /// Which device.
    pub device: usize,
    /// Where contents are noted.
    pub ledger: &'a mut Ledger,
}

impl Hands<'_> {
    /// Does what a user does. An error means that the system refused, as it may.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn act(&mut self, what: &What) -> io::Result<()> {
        let user = self.disk.user();
        match what {
            What::Write { path: p, content } => {
                let p = path(p);
                self.replace(&p, &bytes(*content), |bytes| {
                    if self.disk.visible_at(&p).is_some() {
                        user.overwrite_in_place(&p, bytes)
                    } else {
                        user.create(&p, bytes)
                    }
                })
            }
            What::Save { path: p, content } => {
                let p = path(p);
                self.replace(&p, &bytes(*content), |bytes| user.save_by_rename(&p, bytes))
            }
            What::Append { path: p, content } => {
                let p = path(p);
                let Some(Thing::File { bytes: old, .. }) = self.disk.visible_at(&p) else { return Ok(()) };
                if old.len() > 300 {
                    return Ok(());
                }
                let more = bytes(*content);
                let whole = [&old[..], &more].concat();
                self.replace(&p, &whole, |_| user.append(&p, &more))
            }
            What::Truncate { path: p } => {
                let p = path(p);
                match self.disk.visible_at(&p) {
                    Some(Thing::File { .. }) => self.replace(&p, b"", |_| user.truncate(&p, 0)),
                    _ => Ok(()),
                }
            }
            What::Move { from, to } => self.move_to(&path(from), &path(to)),
            What::Exchange { a, b } => {
                let (a, b) = (path(a), path(b));
                user.exchange(&a, &b)?;
                for at in [a, b] {
                    self.contents_at(&at).into_iter().for_each(|c| self.moved(c));
                }
                Ok(())
            }
            What::Remove { path: p } => {
                let p = path(p);
                let gone = self.contents_at(&p);
                user.remove_all(&p)?;
                gone.into_iter().for_each(|c| self.destroyed(c));
                Ok(())
            }
            What::Mkdir { path: p } => user.mkdir(&path(p)),
            What::Link { path: p, text } => {
                let p = path(p);
                user.symlink(text.as_bytes(), &p)?;
                self.ledger.made(id_of_link(text.as_bytes()), self.device, || format!("link to {text}"));
                Ok(())
            }
            What::Chmod { path: p, mode } => user.chmod(&path(p), *mode),
            What::Touch { path: p, secs } => user.set_mtime(&path(p), FileTime { secs: *secs, nanos: 0 }),
            _ => Ok(()),
        }
    }

    fn destroyed(&mut self, id: ContentId) {
        self.ledger.destroyed(id);
        self.ledger.let_go(self.device, id);
    }

    fn moved(&mut self, id: ContentId) {
        self.ledger.moved(id);
        self.ledger.let_go(self.device, id);
    }

    fn replace(
        &mut self,
        p: &RelPath,
        new: &[u8],
        how: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let old = self.disk.visible_at(p).as_ref().and_then(content_of);
        let id = id_of(new);
        self.ledger.made(id, self.device, || String::from_utf8_lossy(new).escape_debug().to_string());
        if let Err(e) = how(new) {
            // It may be there all the same, half-way; or not.
            self.ledger.excuse(id);
            return Err(e);
        }
        if let Some(old) = old.filter(|o| *o != id) {
            self.destroyed(old);
        }
        Ok(())
    }

    fn move_to(&mut self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let (stored, target) = (self.disk.stored(from), self.disk.stored(to));
        let respelled = stored == target && from != to;
        if (is_in(&target, &stored) || is_in(&stored, &target)) && !respelled {
            return Ok(());
        }
        let here = self.contents_at(from);
        let there = if respelled { Vec::new() } else { self.contents_at(to) };
        self.disk.user().rename(from, to)?;
        there.into_iter().for_each(|c| self.destroyed(c));
        here.into_iter().for_each(|c| self.moved(c));
        Ok(())
    }

    fn contents_at(&self, p: &RelPath) -> Vec<ContentId> {
        let (all, p) = (self.disk.visible(), &self.disk.stored(p));
        all.iter().filter(|(at, _)| is_in(at, p)).filter_map(|(_, t)| content_of(t)).collect()
    }
}
