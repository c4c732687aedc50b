//! Chores of the project. The tidy checks are unit tests: `cargo test -p xtask`.

#[cfg(test)]
mod tidy;

fn main() -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "The tidy checks run with: cargo test -p xtask")
}
