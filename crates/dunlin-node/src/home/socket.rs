//! The control socket's place. A socket's path ends at 108 bytes, so a state directory with a long
//! path keeps a link to a socket in the runtime directory; whoever has the state directory finds the
//! socket through it, whatever its own environment says.

use super::{Home, HomeError, LockedHome, check_private, io_error};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Longest path given to the system for a socket, in bytes (its limit is 107 and a final NUL).
const SOCKET_PATH_MAX: usize = 100;

impl Home {
    /// The path to connect to. Nothing says that anyone listens there.
    pub fn socket_path(&self) -> PathBuf {
        let path = self.socket_name();
        if fits(&path) { path } else { fs::read_link(&path).unwrap_or(path) }
    }

    fn socket_name(&self) -> PathBuf {
        self.dir.join("control.sock")
    }
}

impl LockedHome {
    /// Makes the control socket (0600) and listens on it. One left by a killed node is replaced.
    /// It is removed when this value is dropped.
    pub fn bind_socket(&self) -> Result<UnixListener, HomeError> {
        self.bind_socket_with(|key| std::env::var_os(key))
    }

    pub(super) fn bind_socket_with(
        &self,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<UnixListener, HomeError> {
        unbind(self);
        let name = self.socket_name();
        let path = if fits(&name) { name.clone() } else { self.short_path(var)? };
        remove(&path)?;
        let listener = UnixListener::bind(&path).map_err(io_error("listen on", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(io_error("protect", &path))?;
        if path != name {
            symlink(&path, &name).map_err(io_error("create", &name))?;
        }
        Ok(listener)
    }

    /// A path for the socket in the runtime directory, else in a directory of ours in `/tmp`.
    fn short_path(&self, var: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, HomeError> {
        let hash = blake3::hash(self.dir.as_os_str().as_bytes());
        let file = format!("{}.sock", &hash.to_hex()[..24]);
        let runtime = var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
        if let Some(path) = runtime.map(|dir| dir.join("dunlin")).map(|dir| dir.join(&file))
            && fits(&path)
            && path.parent().is_some_and(|dir| make_private(dir).is_ok())
        {
            return Ok(path);
        }
        let dir = PathBuf::from(format!("/tmp/dunlin-{}", rustix::process::geteuid().as_raw()));
        make_private(&dir)?;
        Ok(dir.join(file))
    }
}

/// Removes the socket and the link to it, as far as they are there.
pub(super) fn unbind(home: &Home) {
    let (path, name) = (home.socket_path(), home.socket_name());
    for path in [path, name] {
        remove(&path).ok(); // what stays is refused by `bind` with the path in its message
    }
}

impl Drop for LockedHome {
    fn drop(&mut self) {
        if self.is_in_place() {
            unbind(self);
        }
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_MAX
}

/// Creates a directory for us alone, or checks that the one there is (and is no link: in `/tmp`
/// anyone may have put one).
fn make_private(dir: &Path) -> Result<(), HomeError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(io_error("create", dir))?,
    }
    let meta = fs::symlink_metadata(dir).map_err(io_error("look at", dir))?;
    if !meta.is_dir() {
        return Err(HomeError::NotADirectory(dir.to_path_buf()));
    }
    check_private(dir)
}

fn remove(path: &Path) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}
