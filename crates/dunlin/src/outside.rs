//! Puts versions at a place outside every folder. The command does it and not the node, so that they belong to whoever
//! asked, as far as their rights go. They are gathered beside the place under a hidden name, verified and
//! durable, and then get their name at once; what is there is never replaced.

mod beside;

use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::host::End;
use beside::Beside;
use dunlin_node::control::{
    AnyPath, ContentRequest, Escaped, FolderSpec, Handed, Item, Problem, Restored, for_shell,
};
use http_body_util::BodyExt;
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::task::{JoinSet, block_in_place};

/// Files gathered at once: what waits for the disk or for another device does not hold up the others.
const AT_ONCE: usize = 8;
/// The mode of a directory of which none is known.
const DIR_MODE: u16 = 0o755;

pub(crate) fn shown(path: &Path) -> String {
    for_shell(path).unwrap_or_else(|| Escaped(path.as_os_str().as_bytes()).to_string())
}

/// Something is there.
pub(crate) fn is_there(to: &Path) -> Failure {
    Failure::failed(
        format!("{} is there already", shown(to)),
        "name a place where nothing is, or remove what is there first",
    )
}

/// Nothing is there, since the disk did not let it.
fn unwritten(to: &Path, e: &io::Error) -> Failure {
    let why = match e.kind() {
        // Of bytes or of files: the disk does not tell which.
        io::ErrorKind::StorageFull if e.raw_os_error().is_some() => "its disk is full".into(),
        _ => e.to_string(),
    };
    let hint = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, or name a place with more"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "name a place where you may write, or let the user do it who may"
        }
        _ => "see what is wrong with that place, or name another",
    };
    Failure::failed(format!("nothing was put at {}: {why}", shown(to)), hint)
}

/// Puts what was handed out at a place (absolute, in a directory that is there). Gives up when it is told to end.
pub async fn put(
    client: &Client,
    folder: &FolderSpec,
    things: Vec<Handed>,
    to: &Path,
    end: &mut End,
) -> Result<Restored, Failure> {
    let failed = |e: io::Error| unwritten(to, &e);
    let bytes = things.iter().map(|t| t.size).sum();
    let beside = block_in_place(|| {
        if to.symlink_metadata().is_ok() {
            return Err(is_there(to));
        }
        beside::has_room(to, bytes).map_err(failed)?;
        Beside::new(to).map_err(failed)
    })?;
    let mut work = Work { client, folder, beside, out: Restored::default(), files: JoinSet::new() };
    let done = tokio::select! {
        done = work.gather(things) => done.map_err(failed),
        () = end.comes() => Err(Failure::failed(
            format!("ended before anything was put at {}", shown(to)),
            "give the same command again",
        )),
    };
    // Nothing may write any more when what is gathered goes away.
    work.files.shutdown().await;
    done?;
    if work.out.restored == 0 {
        return Ok(work.out);
    }
    block_in_place(|| work.beside.finish()).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => is_there(to),
        _ => unwritten(to, &e),
    })?;
    Ok(work.out)
}

/// A file that is being gathered: what it is, and whether anybody had it.
type Came = io::Result<(Handed, bool)>;

struct Work<'a> {
    client: &'a Client,
    folder: &'a FolderSpec,
    beside: Beside,
    out: Restored,
    files: JoinSet<Came>,
}

impl Work<'_> {
    async fn gather(&mut self, things: Vec<Handed>) -> io::Result<()> {
        for thing in things {
            let Some(at) = block_in_place(|| self.beside.claim(thing.path.as_path()))? else {
                // At some time it was a directory, at another something else.
                let why = "something else is in its place".into();
                self.out.problems.push(Problem { path: thing.path, why });
                continue;
            };
            match (thing.item, &thing.link) {
                (Item::File, _) => {
                    while self.files.len() >= AT_ONCE {
                        self.came().await?;
                    }
                    self.files.spawn(file(self.client.clone(), self.folder.clone(), thing, at));
                    continue;
                }
                (Item::Link, Some(text)) => {
                    block_in_place(|| std::os::unix::fs::symlink(text.as_path(), &at))?;
                }
                _ => {
                    let mode = thing.mode.unwrap_or(DIR_MODE);
                    block_in_place(|| self.beside.dir(thing.path.as_path(), mode))?;
                }
            }
            self.out.restored += 1;
        }
        while !self.files.is_empty() {
            self.came().await?;
        }
        Ok(())
    }

    async fn came(&mut self) -> io::Result<()> {
        let Some(came) = self.files.join_next().await else { return Ok(()) };
        let (thing, had) = came.map_err(io::Error::other)??;
        if had {
            self.out.restored += 1;
            self.out.bytes += thing.size;
        } else {
            self.out.lacking.push(thing.path);
        }
        Ok(())
    }
}

/// Gathers one file from the first of its holders that sends what it is.
async fn file(client: Client, folder: FolderSpec, thing: Handed, at: PathBuf) -> Came {
    let Some(content) = thing.content.clone() else { return Ok((thing, false)) };
    let file = block_in_place(|| beside::create(&at))?;
    for from in &thing.holders {
        let (folder, from) = (folder.clone(), from.clone());
        let request = ContentRequest { folder, content: content.clone(), size: thing.size, from };
        if receive(&client, &request, &file).await? {
            block_in_place(|| finish(&file, &thing))?;
            return Ok((thing, true));
        }
    }
    block_in_place(|| std::fs::remove_file(&at))?;
    Ok((thing, false))
}

/// Whether what came is the content; an error is one of this disk.
async fn receive(client: &Client, request: &ContentRequest, mut file: &File) -> io::Result<bool> {
    block_in_place(|| file.set_len(0).and_then(|()| file.rewind()))?;
    // Whatever a holder fails for, the next one is asked.
    let Ok(mut body) = client.content(request).await else { return Ok(false) };
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(false) };
        let bytes = frame.into_data().unwrap_or_default();
        hasher.update(&bytes);
        size += bytes.len() as u64;
        if size > request.size {
            return Ok(false);
        }
        block_in_place(|| file.write_all(&bytes))?;
    }
    Ok(size == request.size && hasher.finalize().to_hex().as_str() == request.content)
}

/// Gives a file its mode and time, and has the disk keep it.
fn finish(file: &File, thing: &Handed) -> io::Result<()> {
    if let Some(mode) = thing.mode {
        beside::or_unable(file.set_permissions(Permissions::from_mode(u32::from(mode) & 0o777)))?;
    }
    if let Some(time) = thing.modified.and_then(time) {
        beside::or_unable(file.set_times(FileTimes::new().set_modified(time)))?;
    }
    file.sync_all()
}

fn time((secs, nanos): (i64, u32)) -> Option<SystemTime> {
    let since = Duration::from_secs(secs.unsigned_abs());
    let whole = if secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    whole?.checked_add(Duration::from_nanos(nanos.into()))
}

/// What came of it as the end of the command.
pub fn outcome(done: &Restored, to: &Path) -> Result<(), Failure> {
    let said = |what: String, hint: &str| Err(Failure::failed(what, hint));
    match (done.restored, done.lacking.len(), done.problems.len()) {
        (_, 0, 0) => Ok(()),
        (0, n, _) if n > 0 => said(
            format!("nothing was put at {}: no connected device has what it takes (any more)", shown(to)),
            "connect a device that had it then, and try again",
        ),
        (_, n, _) if n > 0 => said(
            format!("no connected device has {n} of them (any more)"),
            "connect a device that had them then, and restore those to another place",
        ),
        (_, _, n) => said(
            format!("{n} could not be put in place: something else was there at another time"),
            "restore them one by one, or as they were at one time: --at TIME",
        ),
    }
}

/// A path of the file system that a thing would be restored to: its directory as it really is, and its name.
pub fn place(to: &Path) -> Result<PathBuf, Failure> {
    let whole = crate::host::absolute(to)?;
    let (Some(dir), Some(name)) = (whole.parent(), whole.file_name()) else { return Err(is_there(&whole)) };
    match std::fs::canonicalize(dir) {
        Ok(dir) if dir.is_dir() => Ok(dir.join(name)),
        Ok(dir) => {
            Err(Failure::failed(format!("{} is no directory", shown(&dir)), "name a place in a directory"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::failed(
            format!("{} is not there", shown(dir)),
            format!("make it first: mkdir -p {}", shown(dir)),
        )),
        Err(e) => Err(unwritten(&whole, &e)),
    }
}

impl Client {
    /// The bytes of a version, as they come.
    pub async fn content(&self, request: &ContentRequest) -> Result<hyper::body::Incoming, ClientError> {
        self.stream("/v1/content", request).await
    }
}

/// A path for people, from the place that was named.
pub fn below(done: &mut Restored, asked: &AnyPath) {
    let lacking = done.lacking.iter_mut();
    for path in lacking.chain(done.problems.iter_mut().map(|p| &mut p.path)) {
        let whole = asked.as_path().join(path.as_path());
        *path = AnyPath(whole.components().collect());
    }
}
