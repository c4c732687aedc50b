//! Chores of the project: `cargo xtask --help`. The tidy checks are unit tests: `cargo test -p xtask`.

use clap::Parser;
use std::process::ExitCode;

#[cfg(test)]
mod tidy;

/// Chores of the project. The tidy checks run with `cargo test -p xtask`.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Runs the real program through trouble, again and again, and judges what is left
    Campaign(xtask::campaign::Options),
    /// Brings known bugs back, one by one, and has the simulator find them
    Bugs(xtask::bugs::Options),
    /// Measures the real program beside others; `cargo xtask bench --help`
    #[command(disable_help_flag = true)]
    Bench(xtask::bench::Options),
}

fn main() -> ExitCode {
    match Chore::parse() {
        Chore::Campaign(options) => xtask::campaign::command(&options),
        Chore::Bugs(options) => xtask::bugs::command(&options),
        Chore::Bench(options) => xtask::bench::command(&options),
    }
}
