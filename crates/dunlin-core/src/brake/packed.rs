//! A repository of git that was packed. Its program puts what lies in many small files into one, and deletes them: by their
//! number that looks like a mass delete, and nothing is lost. Only who deletes them in the minute after a new pack
//! came is believed: `rm` makes none.

use super::Brake;
use crate::ids::NodeId;
use crate::kv::{Read, View};
use crate::path::Name;
use crate::rows::{Position, Rows};
use crate::state::Content;
use alloc::vec;
use core::time::Duration;

fn is_hex(name: &Name, lengths: &[usize]) -> bool {
    let name = name.as_bytes();
    lengths.contains(&name.len()) && name.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a directory is, if it is called that.
fn called(view: &dyn View, dir: NodeId, name: &str) -> Read<Option<Position>> {
    let at = view.node(dir)?.and_then(|row| row.raw());
    Ok(at.filter(|at| at.name.as_bytes() == name.as_bytes()))
}

/// The directory of objects and that of the repository, if a pack is at a position (gitrepository-layout(5)).
fn packed(view: &dyn View, at: &Position) -> Read<Option<(NodeId, NodeId)>> {
    let name = at.name.as_bytes();
    if !(name.starts_with(b"pack-") && name.ends_with(b".pack")) {
        return Ok(None);
    }
    let Some(pack) = called(view, at.dir, "pack")? else { return Ok(None) };
    let Some(objects) = called(view, pack.dir, "objects")? else { return Ok(None) };
    Ok(Some((pack.dir, objects.dir)))
}

impl Brake {
    /// Something is at a position where it was not before. If it is a pack, what may have been put into it and into the
    /// list of references is as young as it is.
    pub(super) fn came(&mut self, now: Duration, view: &dyn View, at: &Position) -> Read<()> {
        let Some((objects, repository)) = packed(view, at)? else { return Ok(()) };
        for (dir, row) in view.locals(objects)? {
            if row.content != Content::Dir || !is_hex(&dir, &[2]) {
                continue;
            }
            for (name, row) in view.locals(row.node)? {
                // Of SHA-1 and of SHA-256, less the two digits of the directory.
                if row.content != Content::Dir && is_hex(&name, &[38, 62]) {
                    self.made(now, row.node);
                }
            }
        }
        let Ok(refs) = Name::new(b"refs") else { return Ok(()) };
        let refs = view.local(&Position::new(repository, refs))?;
        let mut todo = vec![refs.filter(|row| row.content == Content::Dir).map(|row| row.node)];
        while let Some(dir) = todo.pop().flatten() {
            for (_, row) in view.locals(dir)? {
                match row.content {
                    Content::Dir => todo.push(Some(row.node)),
                    _ => self.made(now, row.node),
                }
            }
        }
        Ok(())
    }
}
