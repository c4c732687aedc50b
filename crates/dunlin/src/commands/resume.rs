//! `dunlin resume`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use std::path::PathBuf;

/// Has a halted folder go on: decides about a mass delete, or takes another directory for the folder.
///
/// When more than half of a folder's files (and at least 100) are deleted within a minute, the folder halts
/// before that spreads, and dunlin status tells who deleted how many. Accepting counts for all devices: those
/// that are halted for the same deletes go on, too. Rejecting brings the files back on all of them.
/// The same goes for files that are overwritten, on a device that has no room to keep what they were.
///
/// A folder is halted, too, while the directory at its path is not the one it was: not mounted, moved away,
/// restored without .dunlin. It goes on by itself when the right one is back. If that is gone for good, --unite
/// takes what is there now: nothing is deleted, and what the other devices have comes back.
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// Path or id of the folder; not needed where there is only one
    folder: Option<PathBuf>,
    #[command(flatten)]
    decision: Decision,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Decision {
    /// Let what is held happen, on every device
    #[arg(long)]
    accept: bool,
    /// Bring back what was there, on every device
    #[arg(long)]
    reject: bool,
    /// The folder's directory is another one now: take it, and unite it with what the others have
    #[arg(long)]
    unite: bool,
}

impl Resume {
    /// Decides.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        if self.decision.unite {
            let done = host::running(globals).await?.unite(folder).await?;
            render::united(&done, globals.json);
            return Ok(());
        }
        let done = host::running(globals).await?.resume(folder, self.decision.accept).await?;
        render::resumed(&done, globals.json);
        Ok(())
    }
}
