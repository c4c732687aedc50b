//! Reads all files of a folder again, beside its engine, and sees to it that the engine puts right what it can.

use crate::control::{ApiError, Event, Problem, Verified};
use crate::engine::{ASKED, Input};
use crate::folder::{Folder, lock};
use crate::verify::{Checked, Verdict, verify};
use dunlin_core::kv::Read;
use dunlin_core::path::RelPath;
use dunlin_core::rows::{Position, Rows};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often it is told how far it has come.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// After so many bytes it rests for as long as they took, if the folder has other things to do.
const SLICE: u64 = 8 << 20;
/// The most files of which the damage is told one by one.
const PROBLEMS_MAX: usize = 1000;

/// Ends the reading when whoever asked has gone.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Files found damaged, and where they were.
type Damaged = Vec<(Position, RelPath)>;

pub(super) async fn run(folder: Arc<Folder>) -> Result<Verified, ApiError> {
    let Ok(_one) = folder.verifying.try_lock() else {
        return Err(ApiError::failed("the folder is being verified already", "wait for that to end"));
    };
    look(&folder).await?;
    let ends = Ends(Arc::default());
    let (reading, end) = (folder.clone(), ends.0.clone());
    let read = tokio::task::spawn_blocking(move || Reader::new(&reading, &end).run()).await;
    let failed = |e: &dyn std::fmt::Display| {
        ApiError::failed(format!("the folder could not be verified: {e}"), "dunlin status says more")
    };
    let (mut out, damaged) = read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    // Everything that was found is with the engine when this returns.
    look(&folder).await?;
    let left = repaired(&folder, &damaged).await.map_err(|e| failed(&e))?;
    out.repaired = (damaged.len() - left.len()) as u64;
    let problems = lock(&folder.problems);
    for (_, path) in left.iter().take(PROBLEMS_MAX) {
        let why = problems.get(path).cloned().unwrap_or_else(|| ASKED.into());
        out.problems.push(Problem { path: Folder::any_path(path), why });
    }
    Ok(out)
}

/// Has the engine work off what it was told and look at what happened on the disk until now.
pub(super) async fn look(folder: &Folder) -> Result<(), ApiError> {
    let (done, looked) = oneshot::channel();
    // Who asked may have gone by then.
    folder.tell(Input::Barrier(Box::new(move || done.send(()).unwrap_or_default()))).await;
    let stopped = || ApiError::failed("the folder has stopped", "dunlin status says why");
    looked.await.map_err(|_| stopped())?;
    folder.stopped().map_or(Ok(()), Err)
}

/// Waits until what is damaged was put right, or nobody connected can do that; returns what is left.
async fn repaired(folder: &Folder, damaged: &Damaged) -> Read<Damaged> {
    let mut pulse = folder.pulse.subscribe();
    loop {
        pulse.mark_unchanged();
        let snapshot = folder.site.store.snapshot()?;
        let mut left = Damaged::new();
        for (at, path) in damaged {
            if snapshot.local(at)?.is_some_and(|row| row.damaged.is_some()) {
                left.push((at.clone(), path.clone()));
            }
        }
        drop(snapshot);
        let hopeful = {
            let problems = lock(&folder.problems);
            left.iter().any(|(_, path)| problems.get(path).is_none_or(|why| why == ASKED))
        };
        if !hopeful {
            return Ok(left);
        }
        if pulse.changed().await.is_err() {
            return Ok(left);
        }
    }
}

/// The reading, on a thread of its own.
struct Reader<'a> {
    folder: &'a Folder,
    end: &'a AtomicBool,
    out: Verified,
    damaged: Damaged,
    told: Instant,
    slice: (Instant, u64),
}

impl<'a> Reader<'a> {
    fn new(folder: &'a Folder, end: &'a AtomicBool) -> Reader<'a> {
        let now = Instant::now();
        Reader { folder, end, out: Verified::default(), damaged: Vec::new(), told: now, slice: (now, 0) }
    }

    fn run(mut self) -> Read<(Verified, Damaged)> {
        let folder = self.folder;
        let this = std::cell::RefCell::new(&mut self);
        verify(&folder.site, &mut |n| this.borrow_mut().pace(n), &mut |c| this.borrow_mut().take(c))?;
        self.tell();
        Ok((self.out, self.damaged))
    }

    /// Goes on, or not; gives way while the folder has other things to do.
    fn pace(&mut self, bytes: u64) -> bool {
        self.out.bytes += bytes;
        self.slice.1 += bytes;
        if self.slice.1 >= SLICE {
            let took = self.slice.0.elapsed();
            if self.folder.pulse.borrow().dirty || self.folder.pulse.borrow().totals.need_files > 0 {
                std::thread::sleep(took);
            }
            self.slice = (Instant::now(), 0);
        }
        if self.told.elapsed() >= TOLD_EVERY {
            self.tell();
        }
        !self.end.load(Ordering::Relaxed) && self.folder.pulse.borrow().halted.is_none()
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        let Verified { files, bytes, damaged, .. } = self.out;
        self.folder.event(Event::Verifying { folder: self.folder.id.to_string(), files, bytes, damaged });
    }

    fn take(&mut self, checked: Checked) {
        let Checked { at, path, row, verdict } = checked;
        self.out.files += 1;
        let found = match verdict {
            Verdict::Damaged(found) => {
                self.out.damaged += 1;
                self.damaged.push((at.clone(), path));
                found
            }
            Verdict::Unreadable(why) => {
                if self.out.problems.len() < PROBLEMS_MAX {
                    self.out.problems.push(Problem { path: Folder::any_path(&path), why });
                }
                return;
            }
            Verdict::Touched => {
                self.out.changed += 1;
                return;
            }
            // Known as damaged, and right after all.
            Verdict::Right => match (&row.damaged, &row.content) {
                (Some(_), dunlin_core::state::Content::File { id, .. }) => *id,
                _ => return,
            },
            Verdict::Ended => return,
        };
        // An engine that has ended needs to know nothing.
        let _ = self.folder.inputs.blocking_send(Input::Verified { at, stamp: row.stamp, found });
    }
}
