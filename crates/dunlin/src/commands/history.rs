//! `dunlin history`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use dunlin_node::control::HistoryRequest;
use std::path::PathBuf;

/// Lists what was changed or deleted: when, by which device, who had written it, and who still has it.
///
/// A version is named by the first digits of the BLAKE3 hash of its bytes (what b3sum prints); dunlin restore
/// takes it back. A path that something had before it, or a directory above it, was moved or deleted is found, too; and
/// what is or was at PATH is listed with what it was under other names before ("as NAME").
/// What is replaced or deleted is kept for 30 days, on every device but the one where that was done.
#[derive(Debug, clap::Args)]
pub struct History {
    /// File or directory, with all below it [default: everything]
    path: Option<PathBuf>,
    /// Path or id of the folder, if PATH is relative to it
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The most versions to list, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl History {
    /// Lists.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let client = host::running(globals).await?;
        let place = host::place(&client, self.folder.as_deref(), self.path.as_deref()).await?;
        let request = HistoryRequest { folder: place.folder, path: place.path, limit: self.limit as usize };
        let history = client.history(&request).await?;
        render::history(&history, globals.json);
        Ok(())
    }
}
