//! `dunlin invite`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use std::path::PathBuf;

/// Prints a fresh invitation to a folder, good for one device.
#[derive(Debug, clap::Args)]
pub struct Invite {
    /// Path or id of the folder; not needed where there is only one
    folder: Option<PathBuf>,
}

impl Invite {
    /// Invites. The ticket stands alone on standard output; with --json it is the `ticket` of an object.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        let ticket = host::running(globals).await?.invite(folder).await?;
        render::ticket(&ticket, globals.json);
        Ok(())
    }
}
