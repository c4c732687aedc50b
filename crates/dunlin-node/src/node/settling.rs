//! Waits until what was asked for is on the disk, or it is known that it cannot be now.

use super::history::{Holders, VERIFIED, contents, unread};
use crate::control::{ApiError, Problem};
use crate::folder::{Folder, lock};
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::revert::shown_at;
use dunlin_core::rows::Rows;
use dunlin_core::state::Content;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout};

/// When nothing has come for so long, it is asked whether anybody still has what is lacking.
const STALLED: Duration = Duration::from_secs(2);
/// So often in a row nobody has to have it: a connection that broke may be there again a moment later.
const ASKED: usize = 2;

/// What comes when its holder does.
pub(super) const NOBODY: &str =
    "no connected device has it any more; it comes by itself when one that has it is connected again";

/// What is still waited for.
struct Wait<'a> {
    folder: &'a Folder,
    left: Vec<RelPath>,
    problems: Vec<Problem>,
    /// How far it was when something came last, and when that was.
    came: ((usize, u64, u64), Instant),
    /// How often in a row nobody had something that is lacking.
    vain: usize,
}

/// Waits until what shows at these paths is on the disk, or cannot be put there now; says what cannot. It does not wait
/// for what nobody has who is connected.
pub(super) async fn settled(folder: &Folder, paths: Vec<RelPath>) -> Result<Vec<Problem>, ApiError> {
    let mut pulse = folder.pulse.subscribe();
    let came = ((0, 0, 0), Instant::now());
    let mut wait = Wait { folder, left: paths, problems: Vec::new(), came, vain: 0 };
    loop {
        pulse.mark_unchanged();
        if let Some(why) = folder.stopped() {
            return Err(why);
        }
        block_in_place(|| wait.look()).map_err(|e| unread(&e))?;
        if wait.left.is_empty() {
            return Ok(wait.problems);
        }
        // Each round changes the pulse, also one that brought nothing.
        if wait.has_stalled() {
            wait.ask().await.map_err(|e| unread(&e))?;
        }
        if let Ok(Err(_)) = timeout(STALLED, pulse.changed()).await {
            return Ok(wait.problems);
        }
    }
}

impl Wait<'_> {
    /// Leaves out what came, and what cannot.
    fn look(&mut self) -> Read<()> {
        let snapshot = self.folder.site.store.snapshot()?;
        while let Some(path) = self.left.last() {
            let lacking = match shown_at(&snapshot, path)? {
                Some((node, _)) => snapshot.need(node)?.is_some(),
                None => false,
            };
            let why = lock(&self.folder.problems).get(path).cloned();
            match (lacking, why) {
                (true, None) => return Ok(()),
                (true, Some(why)) => self.problems.push(Problem { path: Folder::any_path(path), why }),
                (false, _) => {}
            }
            self.left.pop();
        }
        Ok(())
    }

    fn has_stalled(&mut self) -> bool {
        let totals = self.folder.pulse.borrow().totals.clone();
        let now = (self.left.len(), totals.need_files, totals.need_bytes);
        if self.came.0 != now {
            self.came = (now, Instant::now());
            self.vain = 0;
        }
        self.came.1.elapsed() >= STALLED
    }

    /// Gives up what nobody has who is connected.
    async fn ask(&mut self) -> Read<()> {
        let lacking = block_in_place(|| self.lacking())?;
        let held =
            Holders::ask(self.folder, &contents(lacking.iter().map(|(_, c)| c)), VERIFIED, |here| !here)
                .await;
        let lost = |c: &Content| matches!(c, Content::File { id, .. } if !held.has(id));
        let lost: BTreeSet<RelPath> =
            lacking.into_iter().filter(|(_, content)| lost(content)).map(|(path, _)| path).collect();
        self.came.1 = Instant::now();
        self.vain = if lost.is_empty() { 0 } else { self.vain + 1 };
        if self.vain >= ASKED {
            self.left.retain(|path| !lost.contains(path));
            let problem = |path| Problem { path: Folder::any_path(path), why: NOBODY.into() };
            self.problems.extend(lost.iter().map(problem));
            self.vain = 0;
        }
        Ok(())
    }

    /// What is lacking at the paths that are left.
    fn lacking(&self) -> Read<Vec<(RelPath, Content)>> {
        let snapshot = self.folder.site.store.snapshot()?;
        let mut out = Vec::new();
        for path in &self.left {
            if let Some((node, wanted)) = shown_at(&snapshot, path)?
                && snapshot.need(node)?.is_some()
            {
                out.push((path.clone(), wanted.content));
            }
        }
        Ok(out)
    }
}
