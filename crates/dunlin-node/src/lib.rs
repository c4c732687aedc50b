//! Everything in Dunlin that touches: disk, sockets, store, clock. No decisions; those are
//! `dunlin_core`'s.

pub mod control;
pub mod disk;
pub mod home;
mod node;
pub mod watch;

pub use node::{Node, NodeOptions, StartError, start};
