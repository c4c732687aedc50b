//! The `dunlin` command: arguments in, a running node asked or hosted, lines out.

mod cli;
mod client;
mod commands;
mod failure;
mod host;
mod outside;
mod render;
mod when;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()).and_then(commands::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            render::failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}
