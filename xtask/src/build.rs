//! Release builds of this workspace's programs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The target directory that this program was built in.
pub fn target() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    me.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| "this program has no target directory".into())
}

/// Builds a program; where it is.
pub fn release(package: &str) -> Result<PathBuf, String> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let built = build.args(["build", "--release", "--locked", "--package", package]).status();
    if !built.is_ok_and(|status| status.success()) {
        return Err(format!("{package} cannot be built"));
    }
    Ok(target()?.join("release").join(package))
}
