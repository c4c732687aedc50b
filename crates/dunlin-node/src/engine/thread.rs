//! The thread that drives an engine in a running node.

use super::{Engine, Input};
use crate::folder::Folder;
use crate::store::OF_MACHINE;
use dunlin_core::kv::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// At most so many inputs are taken together, so that work goes on.
const TOGETHER: usize = 256;

/// Runs an engine until told to stop. An index that cannot be used ends it, said in status.
pub(crate) fn run(engine: Engine, folder: &Arc<Folder>, inputs: mpsc::Receiver<Input>, handle: Handle) {
    let mut driver = Driver { engine, inputs, handle };
    // A folder whose engine has died must never look as if all were well.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.rounds()));
    let Ok(ended) = ended else {
        let failed = "the folder's engine failed (a bug); restart dunlin, and please report it";
        folder.pulse.send_modify(|p| p.failed = Some(failed.into()));
        return;
    };
    if let Err(fault) = ended {
        // Nothing is wrong with the index itself; uniting again would bring back what was just deleted.
        let whole = fault.0.starts_with(OF_MACHINE);
        let next = if whole { "restart dunlin when that is over" } else { "it is rebuilt at the next start" };
        let failed = format!("{fault}; {next}");
        if !whole {
            // The next start finds the mark, puts the index aside and unites.
            let _ = crate::home::write_atomic(&folder.dir.join("index.damaged"), failed.as_bytes());
        }
        folder.pulse.send_modify(|p| p.failed = Some(failed));
    }
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
                    Some(Input::Stop) => return Ok(()),
                    Some(i) => self.engine.handle(i, Instant::now())?,
                    None => break,
                }
                input = self.inputs.try_recv().ok();
            }
            if let Some(i) = input {
                if matches!(i, Input::Stop) {
                    return Ok(());
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
        let inputs = &mut self.inputs;
        let got = self.handle.block_on(async { tokio::time::timeout(wait, inputs.recv()).await });
        match got {
            Ok(Some(input)) => Some(input),
            // All senders gone: the node has ended.
            Ok(None) => Some(Input::Stop),
            Err(_) => None,
        }
    }
}
