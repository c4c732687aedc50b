//! `dunlin restore`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render, when};
use dunlin_node::control::RestoreRequest;
use std::path::PathBuf;

/// Has a file or directory be again as it was, on every device.
///
/// Without --at and --version: of a file the newest version that differs from what is there, of a directory all
/// that was deleted in it. What is there now is kept in the history, so that this can be taken back too.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// File or directory; it need not be there any more
    path: PathBuf,
    /// As it was then: 18:30, "2026-05-01 18:30", or how long ago: 10m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    at: Option<i64>,
    /// This version, as dunlin history lists it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    version: Option<String>,
    /// Put it there instead, where nothing is yet
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Path or id of the folder, if PATH is relative to it
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Restore {
    /// Restores.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let client = host::running(globals).await?;
        let place = host::place(&client, self.folder.as_deref(), Some(&self.path)).await?;
        let to = match &self.to {
            None => None,
            Some(to) => {
                let to = host::place(&client, self.folder.as_deref(), Some(to)).await?;
                if to.root.is_some() && place.root.is_some() && to.root != place.root {
                    return Err(Failure::usage(
                        "PATH and --to are in different folders",
                        "restore it in its own folder, then copy it",
                    ));
                }
                Some(to.path)
            }
        };
        let request =
            RestoreRequest { folder: place.folder, path: place.path, at: self.at, version: self.version, to };
        let restored = client.restore(&request).await?;
        render::restored(&restored, globals.json);
        Failure::unless_all_came(restored.lacking.len(), restored.problems.len())
    }
}
