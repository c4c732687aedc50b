//! The benchmark is a program of its own, `dunlin-bench`; this builds it and Dunlin, and starts it.

use crate::build::{release, target};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Arguments of the benchmark
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// `cargo xtask bench`.
pub fn command(options: &Options) -> ExitCode {
    let Err(why) = start(options);
    let _ = writeln!(std::io::stdout(), "{why}");
    ExitCode::FAILURE
}

/// Becomes the benchmark, so that whoever ends this ends that.
fn start(options: &Options) -> Result<std::convert::Infallible, String> {
    let (bench, dunlin) = (release("dunlin-bench")?, release("dunlin")?);
    let mut command = Command::new(bench);
    command.arg("--program").arg(dunlin).arg("--out").arg(target()?.join("bench"));
    Err(format!("the benchmark cannot be started: {}", command.args(&options.args).exec()))
}
