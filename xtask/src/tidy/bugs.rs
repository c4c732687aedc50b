//! The known-bug board: every patch still applies, and names invariants that there are.

use super::hold;
use super::source::root;
use xtask::bugs::{all, applies};

#[test]
fn every_known_bug_can_still_be_brought_back_and_names_its_invariants() {
    let bugs = all(&root()).unwrap_or_else(|e| panic!("{e}"));
    let sim = root().join("crates/dunlin-sim/src");
    let code: String = [sim.clone(), sim.join("flock")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect();
    let mut complaints = Vec::new();
    for bug in &bugs {
        if !applies(&root(), bug) {
            complaints.push(format!("{}: does not apply any more", bug.name));
        }
        for invariant in bug.invariants.iter().filter(|i| !code.contains(&format!("\"{i}\""))) {
            complaints.push(format!("{}: no invariant is called {invariant:?}", bug.name));
        }
    }
    assert!(bugs.len() >= 22, "{}", bugs.len());
    hold(&complaints);
}
