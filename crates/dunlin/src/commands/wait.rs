//! `dunlin wait`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render};
use std::path::PathBuf;
use std::time::Duration;

/// Waits until this device and all connected ones hold the same.
///
/// It looks at the disk first, so a change made before the call is covered. It fails when the time is
/// over, and at once for a halted folder.
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Path or id of the folder; not needed where there is only one
    folder: Option<PathBuf>,
    /// Give up after this many seconds [default: never]
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Wait until this many copies exist, this device's counted
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    copies: u32,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a number of seconds";
    Duration::try_from_secs_f64(text.parse().map_err(|_| WRONG)?).map_err(|_| WRONG)
}

impl Wait {
    /// Waits.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        let work = async {
            let client = host::running(globals).await?;
            client.wait(folder, self.copies).await?;
            Ok(())
        };
        let Some(timeout) = self.timeout else { return work.await };
        match tokio::time::timeout(timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(self.too_late(globals, timeout).await),
        }
    }

    async fn too_late(&self, globals: &Globals, timeout: Duration) -> Failure {
        let lacking = match tokio::time::timeout(Duration::from_secs(1), self.present(globals)).await {
            Ok(Some(lacking)) => format!(": {lacking}"),
            _ => String::new(),
        };
        let copies = if self.copies > 1 { format!(" with {} copies", self.copies) } else { String::new() };
        Failure::failed(
            format!("not in sync{copies} after {} s{lacking}", timeout.as_secs_f64()),
            "dunlin status shows what is lacking and who is connected",
        )
    }

    /// What keeps the folder from it now, as far as that can be told.
    async fn present(&self, globals: &Globals) -> Option<String> {
        let folder = host::folder_spec(self.folder.as_deref()).ok()?;
        let mut status = host::running(globals).await.ok()?.status().await.ok()?;
        let folders = status.folders.iter().map(|f| (f.id.as_str(), f.path.as_path()));
        let meant = status.folders.swap_remove(folder.pick(folders).ok()?);
        render::lacking(&meant)
    }
}
