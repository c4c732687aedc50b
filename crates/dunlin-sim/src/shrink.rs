//! From a script that breaks an invariant to a short one that breaks the same.

use crate::script::{Script, What};

/// Runs that are tried at most.
const TRIES: usize = 3000;

/// Leaves out of a script whatever its failure does not hang on.
pub fn shrink(script: &Script, invariant: &str) -> Script {
    let mut best = script.clone();
    let mut tries = 0;
    let mut fails = |candidate: &Script| {
        tries += 1;
        tries <= TRIES && crate::run_caught(candidate).broken.is_some_and(|b| b.invariant == invariant)
    };
    loop {
        let before = best.clone();
        let mut size = best.acts.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.acts.len() {
                let mut candidate = best.clone();
                candidate.acts.drain(at..(at + size).min(candidate.acts.len()));
                if fails(&candidate) { best = candidate } else { at += size }
            }
            if size == 1 {
                break;
            }
            size = size.div_ceil(2);
        }
        for candidate in simpler(&best) {
            if fails(&candidate) {
                best = candidate;
                break;
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Scripts with one thing less odd about them.
fn simpler(script: &Script) -> Vec<Script> {
    let mut out = Vec::new();
    let mut add = |change: &dyn Fn(&mut Script)| {
        let mut candidate = script.clone();
        change(&mut candidate);
        if candidate != *script {
            out.push(candidate);
        }
    };
    add(&|s| s.setup.errors = 0);
    add(&|s| s.setup.skew_s = 0);
    add(&|s| s.setup.tick_ns = 1);
    add(&|s| {
        let used = s.acts.iter().map(|a| a.device).max().unwrap_or(0) + 1;
        s.setup.devices = used.max(2);
    });
    for i in 0..script.acts.len() {
        add(&|s| s.acts[i].inside = 0);
        add(&|s| {
            if let What::Save { path, content } = s.acts[i].what.clone() {
                s.acts[i].what = What::Write { path, content };
            }
        });
    }
    out
}
