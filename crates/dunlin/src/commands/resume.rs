//! `dunlin resume`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use std::path::PathBuf;

/// Decides about a mass delete that halted a folder.
///
/// When more than half of a folder's files (and at least 100) are deleted within a minute, the folder halts
/// before that spreads, and dunlin status tells who deleted how many. Accepting counts for all devices: those
/// that are halted for the same deletes go on, too. Rejecting brings the files back on all of them.
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
    /// Let the deletes happen, on every device
    #[arg(long)]
    accept: bool,
    /// Bring the files back, on every device
    #[arg(long)]
    reject: bool,
}

impl Resume {
    /// Decides.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        let done = host::running(globals).await?.resume(folder, self.decision.accept).await?;
        render::resumed(&done, globals.json);
        Ok(())
    }
}
