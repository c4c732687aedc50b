//! `dunlin verify`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use std::path::PathBuf;

/// Reads every file again, and puts right what the disk damaged.
///
/// A file whose bytes changed although nobody wrote to it is fetched from a device that has what it held;
/// the damaged one goes to .dunlin/history. It fails when damage is left, or something cannot be read.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Path or id of the folder; not needed where there is only one
    folder: Option<PathBuf>,
}

impl Verify {
    /// Verifies.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        let found = host::running(globals).await?.verify(folder).await?;
        render::verified(&found, globals.json);
        match found.problems.len() {
            0 => Ok(()),
            n => Err(Failure::failed(
                format!(
                    "{} damaged or cannot be read",
                    if n == 1 { "1 file is".into() } else { format!("{n} files are") }
                ),
                "connect a device that has it, then dunlin verify again; dunlin status shows what is left",
            )),
        }
    }
}
