//! `dunlin undo`.

use crate::cli::Globals;
use crate::failure::Failure;
use crate::{host, render, when};
use dunlin_node::control::UndoRequest;
use std::path::PathBuf;

/// Takes back the last mass change, on every device.
///
/// A mass change is 10 or more things deleted, changed or moved by one device without a pause of a minute (files that
/// are written all the time fill none), with whatever else it did in those seconds; a directory that was moved counts with
/// what is in it. Few changes before it, with a pause between, are no part of it. What was only added stays. With --since,
/// everything that was done since then is taken back, additions too. What somebody changed after it is left as it is. It is
/// a change like any other: another undo takes it back, and says that it does. Where some of it is held by nobody
/// connected, nothing is changed without --partial.
#[derive(Debug, clap::Args)]
pub struct Undo {
    /// Path or id of the folder; not needed where there is only one
    folder: Option<PathBuf>,
    /// Take back everything since then: 18:30, "2026-05-01 18:30", how long ago: 10m, 2h, 3d,
    /// or seconds since 1970: @1800000000
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    since: Option<i64>,
    /// With --since: nothing that was done after then
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true, requires = "since")]
    until: Option<i64>,
    /// With --since: what was added stays
    #[arg(long, requires = "since")]
    keep_new: bool,
    /// Only what this device did: its name, or the beginning of its id
    #[arg(long, value_name = "DEVICE")]
    by: Option<String>,
    /// Take back what can be, although some of it is held by nobody connected
    #[arg(long)]
    partial: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Undo {
    /// Takes back.
    pub async fn run(self, globals: &Globals) -> Result<(), Failure> {
        let folder = host::folder_spec(self.folder.as_deref())?;
        let client = host::running(globals).await?;
        let mut request = UndoRequest {
            folder,
            since: self.since,
            until: self.until,
            keep_new: self.keep_new,
            by: self.by,
            partial: self.partial,
            dry_run: true,
        };
        if !globals.json && !self.dry_run {
            // Said beforehand, whatever comes of it.
            render::to_undo(&client.undo(&request).await?);
        }
        request.dry_run = self.dry_run;
        let undone = client.undo(&request).await?;
        render::undone(&undone, globals.json);
        let lacking = undone.lacking.len();
        match undone.rest {
            Some(rest) if undone.done => Err(Failure::failed(
                format!("{lacking} of it are held by no connected device, and were left"),
                format!(
                    "connect a device that had them; then not undo alone, which takes this back, but: {rest}"
                ),
            )),
            Some(_) => Err(Failure::failed(
                format!(
                    "{lacking} of it are held by no connected device: without --partial nothing is changed"
                ),
                "connect a device that had them then; or --partial takes back what can be now",
            )),
            None => Failure::unless_all_came(lacking, undone.problems.len()),
        }
    }
}
