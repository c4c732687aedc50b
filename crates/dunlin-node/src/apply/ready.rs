//! What is to be placed, made ready: with its mode and time, and durable.

use super::Applier;
use super::expected::file_time;
use crate::disk::WriteFile;
use crate::stage::{SYNC_EACH_MAX, takes_out};
use dunlin_core::ids::ContentId;
use dunlin_core::path::RelPath;
use dunlin_core::plan::{Action, Step};
use dunlin_core::state::{Content, Mtime};
use std::collections::BTreeMap;
use std::io;

/// Where a file lies ready, and the content under which it was staged.
pub(super) type Ready = (RelPath, Option<ContentId>);

impl Applier<'_> {
    /// Gives every file to be placed its mode and time, and makes their contents durable; returns the
    /// steps for which that failed.
    pub(super) fn prepare(&mut self, steps: &[Step]) -> BTreeMap<usize, io::Error> {
        let mut failed = BTreeMap::new();
        let mut uses: BTreeMap<ContentId, usize> = BTreeMap::new();
        let files: Vec<(usize, ContentId, u64, u16, Mtime)> = steps
            .iter()
            .enumerate()
            .filter_map(|(i, s)| placed_file(s).map(|(c, z, m, t)| (i, c, z, m, t)))
            .collect();
        for (_, content, ..) in &files {
            *uses.entry(*content).or_default() += 1;
        }
        let each = files.len() <= SYNC_EACH_MAX;
        let (mut written, mut all_durable) = (Vec::new(), true);
        for (i, content, size, mode, mtime) in files {
            let left = uses.get_mut(&content).map_or(0, |n| {
                *n -= 1;
                *n
            });
            let prepared =
                self.source(&content, size, left > 0, &takes_out(&steps[i])).and_then(|(path, staged)| {
                    let is_dressed = staged.is_some_and(|c| self.stage.redress(&c, (mode, mtime)));
                    let is_durable = is_dressed && staged.is_some_and(|c| self.stage.is_durable(&c));
                    all_durable &= is_durable;
                    let is_ready = is_durable || (is_dressed && !each);
                    let dressed = if is_ready { Ok(()) } else { self.dress(&path, mode, mtime, each) };
                    match dressed.and_then(|()| self.verify_lent(i, &path, &content)) {
                        Ok(()) => Ok((path, staged)),
                        Err(e) => Err(self.without(&path, staged.is_some(), e)),
                    }
                });
            match prepared {
                Ok(ready) => written.push((i, ready)),
                Err(e) => {
                    failed.insert(i, e);
                }
            }
        }
        let synced = if each || all_durable { Ok(()) } else { self.disk.sync_all() };
        for (i, ready) in written {
            match self.ready_to_place(&synced, ready, &takes_out(&steps[i])) {
                Ok(ready) => {
                    self.ready.insert(i, ready);
                }
                Err(e) => {
                    failed.insert(i, e);
                }
            }
        }
        failed
    }

    fn ready_to_place(&self, synced: &io::Result<()>, ready: Ready, out: &str) -> io::Result<Ready> {
        let (path, staged) = ready;
        if let Err(e) = synced {
            // After a failed sync nobody knows what the disk holds: it is fetched anew.
            if let Some(content) = &staged {
                self.stage.forget(content);
            }
            let e = io::Error::new(e.kind(), e.to_string());
            return Err(self.without(&path, staged.is_some(), e));
        }
        match staged {
            // Its name in `stage` says all: what is exchanged with it comes to lie in `swap`, under a name that tells more.
            Some(content) if out.is_empty() && !self.stage.is_lent(&content) => Ok((path, staged)),
            Some(content) => Ok((self.stage.take(&content, out)?, staged)),
            None => Ok((path, None)),
        }
    }

    /// The file that becomes the content's next copy: the staged one, or a copy if that is still needed.
    fn source(&self, content: &ContentId, size: u64, copy: bool, out: &str) -> io::Result<Ready> {
        if size > 0 && !copy {
            return Ok((self.stage.path(content), Some(*content)));
        }
        let path = self.stage.swap_path(Some(content), out);
        let to = self.disk.create(&path)?;
        if size > 0
            && let Err(e) = self.copy_staged(content, to.as_ref())
        {
            return Err(self.without(&path, false, e));
        }
        Ok((path, None))
    }

    /// Throws away a copy that came to nothing: it would hold room that there may be too little of.
    fn without(&self, path: &RelPath, staged: bool, e: io::Error) -> io::Error {
        if !staged {
            // The first error counts.
            let _ = self.disk.unlink(path);
        }
        e
    }

    fn copy_staged(&self, content: &ContentId, to: &dyn WriteFile) -> io::Result<()> {
        let from = self.disk.open(&self.stage.path(content))?;
        if to.share(from.as_ref()) {
            return Ok(());
        }
        let (mut buffer, mut offset) = (vec![0; 256 << 10], 0);
        loop {
            let n = from.read_at(&mut buffer, offset)?;
            if n == 0 {
                return Ok(());
            }
            to.write_at(&buffer[..n], offset)?;
            offset += n as u64;
        }
    }

    fn dress(&self, path: &RelPath, mode: u16, mtime: Mtime, sync: bool) -> io::Result<()> {
        let file = self.disk.open_write(path)?;
        if self.disk.keeps().modes {
            file.set_mode(mode)?;
        }
        file.set_mtime(file_time(mtime))?;
        if sync { file.sync_data() } else { Ok(()) }
    }

    /// Who opened a file while it was in the folder may write to it in the history too, and when it is placed again. What
    /// comes before this is found here, what comes after it by the file's time: it was just set.
    fn verify_lent(&mut self, i: usize, path: &RelPath, content: &ContentId) -> io::Result<()> {
        if self.stage.is_lent(content) {
            let stat = self.disk.stat(path)?.ok_or(io::ErrorKind::NotFound)?;
            self.stage.verify_lent(path, content)?;
            self.lent.insert(i, stat.stamp());
        }
        Ok(())
    }

    /// What was taken out and not placed goes back to the stage, for the next plan.
    pub(super) fn put_rest_back(&mut self) {
        for (path, staged) in std::mem::take(&mut self.ready).into_values() {
            let back = match staged {
                Some(content) => self.stage.put_back(content, &path),
                None => self.disk.unlink(&path),
            };
            // What cannot go back lies in `swap/` until all is at rest, and is kept then.
            drop(back);
        }
    }
}

pub(super) fn placed_file(step: &Step) -> Option<(ContentId, u64, u16, Mtime)> {
    match &step.action {
        Action::Place { content: Content::File { id, size }, mode, mtime, .. } => {
            Some((*id, *size, *mode, *mtime))
        }
        _ => None,
    }
}
