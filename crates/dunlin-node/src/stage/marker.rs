//! The marker in a folder's control directory: it tells the root from any other directory that may
//! stand in its place one day.

use super::control;
use crate::disk::{Disk, Rename};
use dunlin_core::ids::LifeId;
use dunlin_core::path::RelPath;
use std::io;

/// What is wrong with a folder's root, if anything: it must be where it was and hold the marker.
pub fn root_trouble(disk: &dyn Disk, marker: &str) -> Option<String> {
    match disk.root_identity() {
        Ok(root) if root.in_place => {}
        Ok(_) => return Some("the folder is not where it was".into()),
        Err(e) => return Some(format!("the folder cannot be reached: {e}")),
    }
    let mut buffer = vec![0; marker.len() + 1];
    let read = disk.open(&control(&["folder"])).and_then(|f| f.read_at(&mut buffer, 0));
    match read {
        Ok(n) if &buffer[..n] == marker.as_bytes() => None,
        Ok(_) => Some("the folder's marker (.dunlin/folder) belongs to another folder".into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Some("the folder's marker (.dunlin/folder) is missing".into())
        }
        Err(e) => Some(format!("the folder's marker cannot be read: {e}")),
    }
}

/// What is noted in the control directory beside the index: were that rolled back, it would not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The life of the program that has the folder, or had it last.
    pub life: LifeId,
    /// No dot above this counter was given yet.
    pub reserved: u64,
    /// The index came at least as far as this sequence number.
    pub seq: u64,
}

/// What is noted, if anything that can be read.
pub fn noted(disk: &dyn Disk) -> io::Result<Option<Noted>> {
    let mut buffer = [0; 128];
    let read = match disk.open(&control(&["life"])) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?.read_at(&mut buffer, 0)?,
    };
    let text = std::str::from_utf8(&buffer[..read]).unwrap_or_default();
    let mut lines = text.lines();
    let life = lines.next().and_then(LifeId::from_hex);
    let reserved = lines.next().and_then(|l| l.parse().ok());
    let seq = lines.next().and_then(|l| l.parse().ok()).unwrap_or(0);
    Ok(life.zip(reserved).map(|(life, reserved)| Noted { life, reserved, seq }))
}

/// Notes it, durable.
pub fn note(disk: &dyn Disk, noted: &Noted) -> io::Result<()> {
    write_control(disk, "life", &format!("{}\n{}\n{}\n", noted.life, noted.reserved, noted.seq))
}

/// Writes the marker into a folder that is shared or joined for the first time.
pub fn write_marker(disk: &dyn Disk, marker: &str) -> io::Result<()> {
    write_control(disk, "folder", marker)?;
    disk.sync_dir(&RelPath::root())
}

/// Writes a small file in the control directory, whole or not at all, and durable.
fn write_control(disk: &dyn Disk, name: &str, text: &str) -> io::Result<()> {
    if disk.stat(&control(&[]))?.is_none() {
        disk.mkdir(&control(&[]), 0o700)?;
    }
    let (temp, path) = (control(&[&format!("{name}.new")]), control(&[name]));
    if disk.stat(&temp)?.is_some() {
        disk.unlink(&temp)?;
    }
    let file = disk.create(&temp)?;
    file.write_at(text.as_bytes(), 0)?;
    file.sync_data()?;
    if disk.stat(&path)?.is_some() {
        disk.rename(&temp, &path, Rename::Exchange)?;
        disk.unlink(&temp)?;
    } else {
        disk.rename(&temp, &path, Rename::NoReplace)?;
    }
    disk.sync_dir(&control(&[]))
}
