//! Puts a content together from its beginning to its end, and hashes it on the way: what is copied is read once, and when
//! the last of it is there, nothing is left to be looked at again.

use super::chunked::read_full;
use super::{Broken, Part};
use crate::disk::ReadFile;
use dunlin_core::ids::ContentId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that are copied at a time.
const BLOCK: u64 = 1 << 20;
/// Steps that may wait.
const STEPS: usize = 1024;

/// What is next in the content.
pub(super) enum Step {
    /// So many bytes of the old file, from an offset in it.
    Copy { from: u64, len: u64 },
    /// So many bytes that the part has already.
    Here { len: u64 },
    /// So many bytes that somebody else puts there, and then says so.
    Comes { len: u64, arrived: oneshot::Receiver<Result<(), Broken>> },
}

/// A content that is being put together.
pub(super) struct Assembly {
    steps: mpsc::Sender<Step>,
    done: JoinHandle<Result<Option<ContentId>, Broken>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Assembly {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Assembly {
    pub(super) fn begin(part: Part, old: Option<Arc<dyn ReadFile>>) -> Assembly {
        let (steps, queue) = mpsc::channel(STEPS);
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work { part, old, stop: stop.clone(), at: 0, hasher: blake3::Hasher::new() };
        Assembly { steps, done: spawn_blocking(move || work.run(queue)), stop }
    }

    /// Adds the next step; an error if it ended before.
    pub(super) async fn add(&self, step: Step) -> Result<(), Broken> {
        self.steps.send(step).await.map_err(|_| Broken::Stream)
    }

    /// Waits for it all. What the content is; `None` if the old file did not have what it was to have.
    pub(super) async fn end(self) -> Result<Option<ContentId>, Broken> {
        self.ended(false).await
    }

    /// Ends it where it is, and waits until nothing is written any more.
    pub(super) async fn give_up(self) -> Result<Option<ContentId>, Broken> {
        self.ended(true).await
    }

    async fn ended(mut self, stop: bool) -> Result<Option<ContentId>, Broken> {
        if stop {
            self.stop.store(true, Ordering::Relaxed);
        }
        // Nobody can send by this one: the steps end.
        (self.steps, _) = mpsc::channel(1);
        (&mut self.done).await.unwrap_or(Err(Broken::Stream))
    }
}

struct Work {
    part: Part,
    old: Option<Arc<dyn ReadFile>>,
    stop: Arc<AtomicBool>,
    at: u64,
    hasher: blake3::Hasher,
}

impl Work {
    fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Result<Option<ContentId>, Broken> {
        let mut buffer = Vec::new();
        while let Some(step) = steps.blocking_recv() {
            let (from, len) = match step {
                Step::Copy { from, len } => (Some(from), len),
                Step::Here { len } => (None, len),
                Step::Comes { len, arrived } => {
                    arrived.blocking_recv().map_err(|_| Broken::Stream)??;
                    (None, len)
                }
            };
            let mut done = 0;
            while done < len {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Broken::Stream);
                }
                buffer.resize(usize::try_from((len - done).min(BLOCK)).unwrap_or(0), 0);
                if !self.block(from.map(|from| from + done), &mut buffer)? {
                    return Ok(None);
                }
                done += buffer.len() as u64;
            }
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Broken::Stream);
        }
        Ok(Some(ContentId(*self.hasher.finalize().as_bytes())))
    }

    /// Takes in the next bytes; `false` if they cannot be had.
    fn block(&mut self, from: Option<u64>, buffer: &mut [u8]) -> Result<bool, Broken> {
        match (from, &self.old) {
            (Some(from), Some(old)) => {
                // A user may have made it shorter.
                if !read_full(|b, o| old.read_at(b, o), buffer, from).unwrap_or(false) {
                    return Ok(false);
                }
                self.part.write(buffer, self.at)?;
            }
            (Some(_), None) => return Ok(false),
            (None, _) => {
                if !read_full(|b, o| self.part.file.read_at(b, o), buffer, self.at)? {
                    return Ok(false);
                }
            }
        }
        self.hasher.update(buffer);
        self.at += buffer.len() as u64;
        Ok(true)
    }
}
