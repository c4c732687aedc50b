//! What a PATH argument means.

use super::{absolute, folder_spec};
use crate::client::Client;
use crate::failure::Failure;
use dunlin_node::control::{AnyPath, Escaped, FolderSpec};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A path in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: FolderSpec,
    /// Where the folder is.
    pub root: Option<PathBuf>,
    /// The path from the folder's root down; empty for the folder itself.
    pub path: AnyPath,
}

/// Finds what a path means: a path of the file system if it lies in a shared folder, else one from the root of the
/// named folder (or the only one) down.
pub async fn place(client: &Client, folder: Option<&Path>, path: Option<&Path>) -> Result<Place, Failure> {
    let spec = folder_spec(folder)?;
    let Some(path) = path else {
        return Ok(Place { folder: spec, root: None, path: AnyPath::from(Vec::new()) });
    };
    let status = client.status().await?;
    let all: Vec<(&str, &Path)> = status.folders.iter().map(|f| (f.id.as_str(), f.path.as_path())).collect();
    let asked = match folder {
        Some(_) => vec![all[spec.pick(all.iter().copied())?]],
        None => all.clone(),
    };
    let there = real(path)?;
    let within = |root: &Path| there.strip_prefix(root).ok().map(Path::to_path_buf);
    let found = asked.iter().find_map(|(id, root)| Some((*id, *root, within(root)?)));
    let (id, root, below) = match found {
        Some(found) => found,
        None if path.is_absolute() => return Err(outside(path)),
        None => {
            let (id, root) = all[spec.pick(all.iter().copied())?];
            (id, root, lexical(path).ok_or_else(|| outside(path))?)
        }
    };
    let bytes = below.as_os_str().as_bytes().to_vec();
    Ok(Place {
        folder: FolderSpec::Id { id: id.into() },
        root: Some(root.into()),
        path: AnyPath::from(bytes),
    })
}

/// The place in a shared folder that a path of the file system means; `None` if it lies in none.
pub async fn in_folder(client: &Client, path: &Path) -> Result<Option<Place>, Failure> {
    let there = match crate::outside::place(path) {
        Ok(there) => there,
        Err(_) => real(path)?,
    };
    let status = client.status().await?;
    let folder = status.folders.iter().find(|f| there.starts_with(f.path.as_path()));
    Ok(folder.map(|f| {
        let below = there.strip_prefix(f.path.as_path()).unwrap_or(Path::new(""));
        Place {
            folder: FolderSpec::Id { id: f.id.clone() },
            root: Some(f.path.0.clone()),
            path: AnyPath::from(below.as_os_str().as_bytes().to_vec()),
        }
    }))
}

fn outside(path: &Path) -> Failure {
    Failure::failed(
        format!("{} lies in no shared folder", Escaped(path.as_os_str().as_bytes())),
        "name a path in a shared folder; dunlin status lists the folders",
    )
}

/// A path without `.` and `..`; `None` if it leads out of where it begins.
fn lexical(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir if out.pop() => {}
            Component::ParentDir | Component::Prefix(_) => return None,
            Component::CurDir | Component::RootDir => {}
        }
    }
    Some(out)
}

/// Where a path leads; it need not exist. Links on the way are followed, but not the thing itself: a link in
/// a folder is what is meant.
fn real(path: &Path) -> Result<PathBuf, Failure> {
    let whole = absolute(path)?;
    let whole = PathBuf::from("/").join(lexical(&whole).ok_or_else(|| outside(path))?);
    let mut above = whole.parent();
    while let Some(dir) = above {
        if let Ok(real) = std::fs::canonicalize(dir) {
            let rest = whole.strip_prefix(dir).unwrap_or(Path::new(""));
            return Ok(real.join(rest));
        }
        above = dir.parent();
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        let plain = |p: &str| lexical(Path::new(p)).map(|p| p.to_string_lossy().into_owned());
        assert_eq!(plain("a/./b/../c").as_deref(), Some("a/c"));
        assert_eq!(plain("../a"), None);
        assert_eq!(plain("a/../../b"), None);
        assert_eq!(plain(".").as_deref(), Some(""));
    }

    #[test]
    fn a_path_that_is_gone_is_found_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("way")).unwrap();
        std::os::unix::fs::symlink("elsewhere", root.join("real/link")).unwrap();
        assert_eq!(real(&root.join("way/gone/deep")).unwrap(), root.join("real/gone/deep"));
        assert_eq!(real(&root.join("way/link")).unwrap(), root.join("real/link"));
    }
}
