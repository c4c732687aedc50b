//! The commands, one file each: its arguments with their help, and what it does.

pub mod demo;
pub mod history;
pub mod invite;
pub mod join;
pub mod restore;
pub mod resume;
pub mod run;
pub mod share;
pub mod status;
pub mod undo;
pub mod verify;
pub mod wait;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use std::time::Duration;

/// Runs the command on a runtime of its own.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("start", &e))?;
    let result = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let globals = &cli.globals;
    match cli.command {
        Command::Share(args) => args.run(globals).await,
        Command::Join(args) => args.run(globals).await,
        Command::Run(args) => args.run(globals).await,
        Command::Invite(args) => args.run(globals).await,
        Command::Status(args) => args.run(globals).await,
        Command::History(args) => args.run(globals).await,
        Command::Restore(args) => args.run(globals).await,
        Command::Undo(args) => args.run(globals).await,
        Command::Verify(args) => args.run(globals).await,
        Command::Resume(args) => args.run(globals).await,
        Command::Wait(args) => args.run(globals).await,
        Command::Demo(args) => args.run(globals).await,
    }
}
