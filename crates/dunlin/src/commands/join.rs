//! `dunlin join`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::host::{self, Ask};
use dunlin_node::control::JoinRequest;
use std::path::{Path, PathBuf};

/// Joins a shared folder with an invitation.
///
/// What is in the folder already is united with the others' files: nothing is deleted, and where
/// both have different files of one name, both are kept.
///
/// Where no node runs yet, one runs here until Ctrl-C. Where one runs, it takes the folder over and
/// this command returns.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// The invitation: the line that dunlin share or dunlin invite printed
    ticket: String,
    /// Where the folder is to be; created if its parent exists [default: the shared folder's name, here]
    folder: Option<PathBuf>,
}

impl Join {
    /// Joins.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let below = self.folder.is_none();
        let path = host::absolute(self.folder.as_deref().unwrap_or(Path::new(".")))?;
        let ticket = self.ticket.trim().to_owned();
        host::host(globals, Ask::Join(JoinRequest { ticket, path: path.into(), below })).await
    }
}
