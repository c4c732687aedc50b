//! `dunlin run`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::host::{self, Ask};

/// Runs the node with every folder it knows, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Run {}

impl Run {
    /// Runs.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        host::host(globals, Ask::Run).await
    }
}
