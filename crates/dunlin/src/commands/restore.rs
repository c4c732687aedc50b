//! `dunlin restore`.

use crate::cli::Globals;
use crate::client::Client;
use crate::failure::Failure;
use crate::host::End;
use crate::{host, outside, render, when};
use dunlin_node::control::{AnyPath, RestoreRequest};
use std::path::{Path, PathBuf};

/// Has a file or directory be again as it was, on every device.
///
/// Without --at and --version: of a file the newest version that differs from what is there, under whatever name it was;
/// of a directory all that was deleted in it. What is there now is kept in the history, so that this can be taken back
/// too: it is the newest version then, and the same command again brings it back. Older ones are named by --version.
///
/// With --at: what was at PATH at that time, else what the file or directory that is at PATH now was then. In a directory
/// files are as they were then, at the paths of then: those deleted, moved or edited since are made again. What came
/// later stays, and so does what was moved away, at its new place: it is there twice. dunlin undo --since removes and moves
/// back, too.
///
/// PATH may be one on this computer, in a shared folder, or else counts from the folder's root. --to is always one on this
/// computer: it counts from the directory that you are in.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// File or directory; it need not be there any more
    path: PathBuf,
    /// As it was then: 18:30, "2026-05-01 18:30", how long ago: 10m, 2h, 3d,
    /// or seconds since 1970: @1800000000
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    at: Option<i64>,
    /// This version, as dunlin history lists it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    version: Option<String>,
    /// Put it there instead, where nothing is yet: in its folder, or anywhere else, as a file of yours; a path from the
    /// directory you are in, not from the folder's root
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
            Some(to) => Some(match host::in_folder(&client, to).await? {
                None => Err(outside::place(to)?),
                Some(inside) if inside.root == place.root => {
                    let root = inside.root.unwrap_or_default();
                    Ok((root.join(inside.path.as_path()), inside.path))
                }
                Some(_) => {
                    return Err(Failure::usage(
                        "PATH and --to are in different folders",
                        "restore it in its own folder, then copy it",
                    ));
                }
            }),
        };
        let (folder, path) = (place.folder, place.path);
        // Where it will be, as far as one knows beforehand.
        let mut whole = place.root.map(|root| root.join(path.as_path()).components().collect::<PathBuf>());
        let mut request = RestoreRequest { folder, path, at: self.at, version: self.version, to: None };
        match to {
            Some(Err(to)) => return elsewhere(&client, &request, &to, globals.json).await,
            Some(Ok(inside)) => (whole, request.to) = (Some(inside.0), Some(inside.1)),
            None => {}
        }
        let mut restored = client.restore(&request).await?;
        restored.to = whole.map(AnyPath::from);
        render::restored(&restored, globals.json);
        Failure::unless_all_came(restored.lacking.len(), restored.problems.len())?;
        match restored.blocked.len() {
            0 => Ok(()),
            n => Err(Failure::failed(
                format!("{n} could not be restored: something else is in the way"),
                "move that away and restore them again, or restore them elsewhere with --to PATH",
            )),
        }
    }
}

async fn elsewhere(client: &Client, request: &RestoreRequest, to: &Path, json: bool) -> Result<(), Failure> {
    // Nobody is asked for what has no place.
    if to.symlink_metadata().is_ok() {
        return Err(outside::is_there(to));
    }
    let mut end = End::watch(false)?;
    let found = client.versions(request).await?;
    let mut done = outside::put(client, &request.folder, found.things, to, &mut end).await?;
    outside::below(&mut done, &request.path);
    done.to = Some(AnyPath::from(to.to_path_buf()));
    if done.restored > 0 || json {
        render::restored(&done, json);
    }
    outside::outcome(&done, to)
}
