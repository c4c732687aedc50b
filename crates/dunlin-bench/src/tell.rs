//! Words for whoever watches, and the wish to stop.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ENDED: AtomicBool = AtomicBool::new(false);

/// A line; that nobody reads it is no reason to stop.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// From now on Ctrl-C and SIGTERM end what is being waited for, so that everything is put away.
pub fn end_when_asked() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime for signals: {e}"))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut term) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            ENDED.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

/// Whether somebody asked for the end.
pub fn is_ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}

/// An end of what must not take longer.
#[derive(Clone, Copy)]
pub struct Limit {
    begun: Instant,
    most: Duration,
}

impl Limit {
    /// From now.
    pub fn new(most: Duration) -> Limit {
        Limit { begun: Instant::now(), most }
    }

    /// An error if it is reached, or if somebody asked for the end.
    pub fn check(&self, what: &str) -> Result<(), String> {
        if is_ended() {
            return Err("ended".into());
        }
        if self.begun.elapsed() > self.most {
            return Err(format!("{what}: not within {} s", self.most.as_secs()));
        }
        Ok(())
    }

    /// Sleeps a moment, unless it is over.
    pub fn pause(&self, what: &str, ms: u64) -> Result<(), String> {
        self.check(what)?;
        std::thread::sleep(Duration::from_millis(ms));
        Ok(())
    }

    /// Asks every few milliseconds until `done`.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
        while !done() {
            self.pause(what, 2)?;
        }
        Ok(())
    }

    /// Rests so long, in pieces, so that an end is heard.
    pub fn rest(&self, long: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < long {
            self.pause("a rest", 50)?;
        }
        Ok(())
    }
}
