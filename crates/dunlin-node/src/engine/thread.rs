//! The thread that drives an engine in a running node.

use super::{Engine, Input};
use crate::folder::Folder;
use dunlin_core::kv::{Fault, Read};
use dunlin_core::path::Escaped;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TryRecvError};

/// At most so many inputs are taken together, so that work goes on.
const TOGETHER: usize = 256;
/// A wait of up to so long is slept through in slices: timers count whole milliseconds, and one of 1 ms would last 2. It is how
/// long an edit waits for quiet.
const SHORT: Duration = Duration::from_millis(2);
const SLICE: Duration = Duration::from_micros(100);

/// Leaves a mark if the index is damaged: whoever opens the folder next puts it aside and unites.
pub(crate) fn note_damage(dir: &Path, fault: &Fault) {
    if fault.damage {
        // Without the mark the damage is met once more.
        let _ = crate::home::write_atomic(&dir.join("index.damaged"), fault.why.as_bytes());
    }
}

/// Runs an engine until told to stop. An index that cannot be used ends it, said in status: `false`, and the
/// folder has to be opened anew.
pub(crate) fn run(
    engine: Engine,
    folder: &Arc<Folder>,
    inputs: mpsc::Receiver<Input>,
    handle: Handle,
) -> bool {
    let mut driver = Driver { engine, inputs, handle };
    // A folder whose engine has died must never look as if all were well.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.rounds()));
    let Ok(ended) = ended else {
        let failed = "the folder's engine failed (a bug); restart dunlin, and please report it";
        folder.pulse.send_modify(|p| p.failed = Some(failed.into()));
        return true;
    };
    let Err(fault) = ended else { return true };
    note_damage(&folder.dir, &fault);
    let failed = if fault.damage {
        format!("the index is damaged and is rebuilt: {}", fault.why)
    } else {
        let index = Escaped(folder.dir.as_os_str().as_bytes());
        format!("the index in {index} cannot be used, which is tried again and again: {}", fault.why)
    };
    folder.pulse.send_modify(|p| p.failed = Some(failed));
    false
}

struct Driver {
    engine: Engine,
    inputs: mpsc::Receiver<Input>,
    handle: Handle,
}

impl Driver {
    fn rounds(&mut self) -> Read<()> {
        loop {
            let wait = self.engine.next_due().saturating_duration_since(Instant::now());
            let mut input = self.receive(wait);
            for _ in 0..TOGETHER {
                match input {
                    Some(Input::Stop) => return self.engine.stop(),
                    Some(i) => self.engine.handle(i, Instant::now())?,
                    None => break,
                }
                input = self.inputs.try_recv().ok();
            }
            if let Some(i) = input {
                if matches!(i, Input::Stop) {
                    return self.engine.stop();
                }
                self.engine.handle(i, Instant::now())?;
            }
            self.engine.turn(Instant::now())?;
        }
    }

    fn receive(&mut self, wait: Duration) -> Option<Input> {
        if wait.is_zero() {
            return self.inputs.try_recv().ok();
        }
        if wait <= SHORT {
            return self.receive_until(Instant::now() + wait);
        }
        let inputs = &mut self.inputs;
        let got = self.handle.block_on(async { tokio::time::timeout(wait, inputs.recv()).await });
        match got {
            Ok(Some(input)) => Some(input),
            // All senders gone: the node has ended.
            Ok(None) => Some(Input::Stop),
            Err(_) => None,
        }
    }

    /// Soon: no timer is as fine as that.
    fn receive_until(&mut self, until: Instant) -> Option<Input> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inputs.try_recv() {
                Ok(input) => return Some(input),
                Err(TryRecvError::Disconnected) => return Some(Input::Stop),
                Err(TryRecvError::Empty) if left.is_zero() => return None,
                Err(TryRecvError::Empty) => std::thread::sleep(left.min(SLICE)),
            }
        }
    }
}
