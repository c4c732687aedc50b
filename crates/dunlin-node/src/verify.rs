//! Reads the files of a folder again and holds them against the index: what the disk lost or changed by
//! itself shows in no metadata.

use crate::disk::{Disk, ReadFile, Stat};
use crate::scan::is_younger;
use crate::site::Site;
use dunlin_core::ids::{ContentId, NodeId, ROOT};
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::plan::path_of;
use dunlin_core::rows::{LocalRow, Position, Rows};
use dunlin_core::state::Content;
use std::io;

/// Rows of the index read at a time; no snapshot is held for longer.
const PAGE: usize = 256;
/// Bytes read at a time.
const BLOCK: usize = 256 << 10;
/// What changed less than this ago is not judged: a later change may have the same time stamp.
const YOUNG_MS: i64 = 100;

/// How one file turned out.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds what the index says.
    Right,
    /// Its metadata are what the index says, and it holds this.
    Damaged(ContentId),
    /// It was changed since, or is being changed: the scan's affair.
    Touched,
    /// It cannot be read, and why.
    Unreadable(String),
    /// Whoever asked wants no more.
    Ended,
}

/// One file that was read.
#[derive(Debug)]
pub struct Checked {
    /// Where it is.
    pub at: Position,
    /// Its path.
    pub path: RelPath,
    /// What the index says of it.
    pub row: LocalRow,
    /// How it turned out.
    pub verdict: Verdict,
}

/// Reads every file that the index has. `pace` is told of bytes read and returns whether to go on; `tell`
/// gets each file.
pub fn verify(site: &Site, pace: &mut dyn FnMut(u64) -> bool, tell: &mut dyn FnMut(Checked)) -> Read<()> {
    let mut dirs = vec![ROOT];
    while let Some(dir) = dirs.pop() {
        let mut last = None;
        loop {
            let page = site.store.snapshot()?.locals_after(dir, last.as_ref(), PAGE)?;
            let Some((end, _)) = page.last() else { break };
            last = Some(end.clone());
            for (name, row) in page {
                if row.content == Content::Dir {
                    dirs.push(row.node);
                } else if let Some(checked) = check(site, dir, name, row, pace)? {
                    if checked.verdict == Verdict::Ended {
                        return Ok(());
                    }
                    tell(checked);
                }
            }
        }
    }
    Ok(())
}

fn check(
    site: &Site,
    dir: NodeId,
    name: dunlin_core::path::Name,
    row: LocalRow,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Read<Option<Checked>> {
    let at = Position::new(dir, name);
    if !matches!(row.content, Content::File { .. }) {
        return Ok(None);
    }
    let Some(path) = path_of(&site.store.snapshot()?, &at)? else { return Ok(None) };
    let verdict = examine(site.disk.as_ref(), &path, &row, pace);
    Ok(Some(Checked { at, path, row, verdict }))
}

/// Reads one file and says whether it is what its row says.
pub fn examine(
    disk: &dyn Disk,
    path: &RelPath,
    row: &LocalRow,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Verdict {
    let same = |s: &Stat| s.stamp() == row.stamp;
    let mut read = || -> io::Result<Verdict> {
        if !disk.stat(path)?.is_some_and(|s| same(&s)) {
            return Ok(Verdict::Touched);
        }
        let file = disk.open(path)?;
        let Some(found) = hash(file.as_ref(), pace)? else { return Ok(Verdict::Ended) };
        let after = file.stat()?;
        Ok(match row.content {
            Content::File { id, .. } if id == found => Verdict::Right,
            _ if !same(&after) || is_younger(disk, &after, YOUNG_MS) => Verdict::Touched,
            _ => Verdict::Damaged(found),
        })
    };
    read().unwrap_or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Verdict::Touched,
        _ => Verdict::Unreadable(crate::disk::explain(disk, &e)),
    })
}

fn hash(file: &dyn ReadFile, pace: &mut dyn FnMut(u64) -> bool) -> io::Result<Option<ContentId>> {
    file.forget_cached();
    let (mut hasher, mut buffer, mut offset) = (blake3::Hasher::new(), vec![0; BLOCK], 0);
    loop {
        let n = file.read_at(&mut buffer, offset)?;
        if !pace(n as u64) {
            return Ok(None);
        }
        if n == 0 {
            return Ok(Some(ContentId(*hasher.finalize().as_bytes())));
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
}

#[cfg(test)]
mod tests;
