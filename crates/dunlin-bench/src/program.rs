//! The programs: what each has to be able to do, and their list.

mod dunlin;
mod rsync;
mod syncthing;
mod unison;

use crate::place::Place;
use crate::tell::Limit;
use std::path::PathBuf;
use std::process::Command;

/// A program that keeps folders alike.
pub trait Program {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// Its version; an error says why it cannot take part.
    fn version(&self) -> Result<String, String>;

    /// What it does so that a power cut takes nothing.
    fn durability(&self) -> &'static str;

    /// Whether it sees changes by itself; else it is run once for each.
    fn sees_changes(&self) -> bool;

    /// Whether a node may have several peers that get the same.
    fn can_have_many(&self) -> bool {
        true
    }

    /// Its nodes on the hosts of a place; nothing runs yet.
    fn set_up<'p>(&'p self, place: &'p Place) -> Result<Box<dyn Nodes + 'p>, String>;
}

/// The nodes of a program in one place.
pub trait Nodes {
    /// Starts the first and waits until it knows what is in its folder.
    fn start_first(&mut self, limit: Limit) -> Result<(), String>;

    /// Starts the others, which find the first.
    fn start_others(&mut self, limit: Limit) -> Result<(), String>;

    /// Of a program that sees no changes by itself: runs it once for each of the others.
    fn run_once(&mut self, limit: Limit) -> Result<(), String>;

    /// Ends all, in order.
    fn stop(&mut self, limit: Limit) -> Result<(), String>;

    /// An error if one of them has died.
    fn check(&mut self) -> Result<(), String>;
}

/// Where programs are found that the set-up script made, before the path.
pub fn find(tools: &std::path::Path, program: &str) -> PathBuf {
    let made = tools.join("bin").join(program);
    if made.is_file() { made } else { program.into() }
}

/// The first line that a program says of itself.
fn first_line(program: &std::path::Path, arg: &str) -> Result<String, String> {
    let output = Command::new(program).arg(arg).stdin(std::process::Stdio::null()).output();
    let output =
        output.map_err(|e| format!("{}: {e}; xtask/bench-setup.sh installs it", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// All programs, in the order in which they take turns.
pub fn all(tools: &std::path::Path) -> Vec<Box<dyn Program>> {
    vec![
        Box::new(dunlin::Dunlin),
        Box::new(syncthing::Syncthing::new(tools, false)),
        Box::new(syncthing::Syncthing::new(tools, true)),
        Box::new(unison::Unison::new(tools)),
        Box::new(rsync::Rsync::new(tools, false)),
        Box::new(rsync::Rsync::new(tools, true)),
    ]
}

/// The names of all programs.
pub const NAMES: [&str; 6] = ["dunlin", "syncthing", "syncthing-tuned", "unison", "rsync", "rsync-fsync"];
