//! All tests of the core, as one program: it is built and linked once.

#![allow(clippy::unwrap_used, reason = "tests")]

mod brake;
mod common;
mod damaged;
mod decide;
mod kept;
#[path = "common/known.rs"]
mod known;
mod lies;
mod mistake;
mod moved;
mod order;
mod properties;
mod replay;
mod split;
mod then;
mod undo;
mod unheard;
mod window;
