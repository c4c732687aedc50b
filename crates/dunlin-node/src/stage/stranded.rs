//! What an exchange took out of the folder and should not have: a user wrote just before it, and it could not go back,
//! because the disk failed, the name was taken, or the program ended. It is found by the name of what it was
//! exchanged with, which says what was to come out.

use super::{Stage, control};
use crate::disk::{FileKind, ReadFile, Stat};
use dunlin_core::ids::{ContentId, NodeId};
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Step};
use std::io;
use std::sync::atomic::Ordering;

/// A user's work that lies in `swap`.
#[derive(Debug)]
pub struct Stranded {
    /// What it was a version of.
    pub node: NodeId,
    /// What it holds.
    pub content: ContentId,
    /// Its size, mode and times.
    pub stat: Stat,
}

/// What a step takes out of the folder, as a part of a name: what that holds, and its node.
pub fn takes_out(step: &Step) -> String {
    let was = match &step.action {
        Action::Place { replaces: Some(_), was, .. } => *was,
        Action::Remove { row, .. } => row.holds(),
        _ => return String::new(),
    };
    format!(".{}.{}", was.map_or("none".into(), |was| was.to_string()), step.node)
}

/// The node of what lies under a name of `swap` and holds this, if it is not what was to come out.
pub(super) fn stranded(name: &[u8], held: &ContentId) -> Option<NodeId> {
    let mut parts = std::str::from_utf8(name).ok()?.rsplit('.');
    let node = NodeId::from_hex(parts.next()?)?;
    let expected = ContentId::from_hex(parts.next()?);
    // Before the number, if anything, stands what was to be placed.
    let placed = parts.nth(1).and_then(ContentId::from_hex);
    (expected != Some(*held) && placed != Some(*held)).then_some(node)
}

/// Whether a name of `swap` tells what was to come out of the folder. Of what does not, nothing can be stranded there,
/// and none of it is read.
fn takes_something_out(name: &[u8]) -> bool {
    std::str::from_utf8(name)
        .ok()
        .and_then(|name| name.rsplit('.').next())
        .and_then(NodeId::from_hex)
        .is_some()
}

impl Stage {
    /// A new name in `swap/`, for what is to be placed by a step that takes this out.
    pub fn swap_path(&self, content: Option<&ContentId>, takes_out: &str) -> RelPath {
        self.used.store(true, Ordering::Relaxed);
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let content = content.map(|c| format!("{c}.")).unwrap_or_default();
        control(&["swap", &format!("{content}{number:016x}{takes_out}")])
    }

    /// What users wrote and steps left in `swap`.
    pub fn stranded(&self) -> io::Result<Vec<Stranded>> {
        if !self.used.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let found = self.find_stranded()?;
        self.strands.store(!found.is_empty(), Ordering::Relaxed);
        Ok(found.into_iter().map(|(_, s)| s).collect())
    }

    /// Looks for the first time: what is found is looked at by content, until it is known that there is nothing.
    pub(super) fn look_for_stranded(&self) -> io::Result<()> {
        let found = self.find_stranded()?;
        self.strands.store(!found.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// A stranded file that holds this.
    pub(super) fn stranded_file(&self, content: &ContentId) -> Option<Box<dyn ReadFile>> {
        if !self.strands.load(Ordering::Relaxed) {
            return None;
        }
        let (path, _) = self.find_stranded().ok()?.into_iter().find(|(_, s)| s.content == *content)?;
        self.disk.open(&path).ok()
    }

    fn find_stranded(&self) -> io::Result<Vec<(RelPath, Stranded)>> {
        let mut out = Vec::new();
        let dir = control(&["swap"]);
        for entry in self.disk.list(&dir)? {
            let (Ok(stat), path) = (entry.stat, dir.join(&entry.name)) else { continue };
            if stat.kind == FileKind::File
                && takes_something_out(entry.name.as_bytes())
                && let Some(content) = self.held(&path)?
                && let Some(node) = stranded(entry.name.as_bytes(), &content)
            {
                out.push((path, Stranded { node, content, stat }));
            }
        }
        Ok(out)
    }
}
