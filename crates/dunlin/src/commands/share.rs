//! `dunlin share`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::host::{self, Ask};
use std::path::PathBuf;

/// Shares a folder, creating it where it is missing, and prints an invitation to it.
///
/// Where no node runs yet, one runs here until Ctrl-C and keeps the folder identical with every
/// device that joined. Where one runs, it takes the folder over and this command returns.
///
/// The invitation is good for one device and expires; dunlin invite makes further ones.
#[derive(Debug, clap::Args)]
pub struct Share {
    /// The folder to share
    folder: PathBuf,
}

impl Share {
    /// Shares the folder.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        host::host(globals, Ask::Share(host::absolute(&self.folder)?)).await
    }
}
