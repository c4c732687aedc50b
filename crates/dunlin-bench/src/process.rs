//! A process of ours, that ends when it is dropped.

use crate::tell::Limit;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A process whose words go to a file.
pub struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts it.
    pub fn start(mut command: Command, said: &Path) -> Result<Process, String> {
        let out = File::create(said).map_err(|e| format!("{}: {e}", said.display()))?;
        let err = out.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        Ok(Process { child, said: said.into() })
    }

    /// What it said last.
    pub fn last_words(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.said).and_then(|mut file| file.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" / ")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error if it does not run any more.
    pub fn check(&mut self, what: &str) -> Result<(), String> {
        match self.ended() {
            Some(status) => Err(format!("{what} ended with {status}: {}", self.last_words())),
            None => Ok(()),
        }
    }

    /// Waits for a good end.
    pub fn finish(mut self, what: &str, limit: Limit) -> Result<(), String> {
        loop {
            match self.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{what} ended with {status}: {}", self.last_words())),
                None => limit.pause(what, 2).map_err(|why| format!("{why}: {}", self.last_words()))?,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With its wrapper killed, so is all that runs below it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
