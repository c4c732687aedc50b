//! Whole flocks from a seed: real engines on model disks, a model network and model clocks, with users who
//! do everything at the worst moment. What must hold is checked after every step and at rest.
//!
//! One seed reproduces a run exactly; a run is a list of acts, so that a failing one shrinks by itself.

#![forbid(unsafe_code)]

mod bounds;
mod braked;
mod by_link;
pub mod chance;
mod crossings;
pub mod device;
pub mod disk;
mod evidence;
pub mod flock;
mod given;
pub mod index;
pub mod judge;
pub mod kept;
pub mod ledger;
pub mod liar;
pub mod links;
pub mod masses;
pub mod odd;
pub mod outbox;
pub mod pace;
mod patterns;
pub mod rest;
mod restores;
pub mod rolled;
pub mod script;
pub mod shrink;
mod troubles;
pub mod twice;
pub mod users;
mod whole;
pub mod workload;
pub mod world;

/// Rows are read and written all the time: a fifth of a flock's time is spent in the allocator of the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use flock::Outcome;
use script::Script;
use world::Broken;

/// Runs a script; a panic is a broken invariant like any other.
pub fn run_caught(script: &Script) -> Outcome {
    caught(|| flock::run(script, None))
}

/// The same among members that lie.
pub fn run_hostile(script: &Script) -> Outcome {
    caught(|| flock::hostile::run(script, None))
}

fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        Outcome { broken: Some(Broken { invariant: "no panic", what }), ..Outcome::default() }
    })
}
